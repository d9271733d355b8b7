"""UnifiedReward-Think: a thought with scores per dimension, then <answer>Answer 1 is better</answer>."""

from __future__ import annotations

from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects.unified_reward import read
from r1_reward.records.statements import HOSTILE

DIALECT = Dialect(
    name="unified-reward-think",
    title="UnifiedReward-Think",
    form="<answer>Answer {} is better</answer>",
    read=read,
    template="unified_reward_think.txt",
    source="github.com/CodeGoat24/UnifiedReward at ff6f520, UnifiedReward-Think/inference_qwen: the author's wording, "
    "MIT, Copyright (c) 2025 Yibin Wang",
    hostile=HOSTILE,
    models=(r"(?<![a-z])unified[-_]?reward(?=.*think)(?!.*(?:edit|flex|qwen[-_]?3))",),
    labels=("Answer 1", "Answer 2"),
)
