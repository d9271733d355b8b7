"""UnifiedReward-Think on Qwen3-VL: a stricter prompt with the same verdict as UnifiedReward-Think."""

from __future__ import annotations

from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects.unified_reward import read
from r1_reward.records.statements import HOSTILE

DIALECT = Dialect(
    name="unified-reward-think-qwen3",
    title="UnifiedReward-Think, Qwen3-VL models",
    form="<answer>Answer {} is better</answer>",
    read=read,
    template="unified_reward_think_qwen3.txt",
    source="github.com/CodeGoat24/UnifiedReward at ff6f520, UnifiedReward-Think-qwen3-inference: the author's wording, "
    "MIT, Copyright (c) 2025 Yibin Wang",
    hostile=HOSTILE,
    models=(r"(?<![a-z])unified[-_]?reward(?=.*think)(?=.*qwen[-_]?3)(?!.*(?:edit|flex))",),
    labels=("Answer 1", "Answer 2"),
)
