"""UnifiedReward: "Answer 1 is better", at the end of a short comparison, or in answer tags after a thought.

The official scripts check whether the whole text, including the thought, contains the right statement, so a text with
both is right whatever the label. Ours reads after the thought: the answer tags, which must all agree, or without tags
the last statement, since the prompt asks for the decision after the comparison. "Image 1 is better" and "Video 1 is
better", which these models say of generated media, are accepted too.
"""

from __future__ import annotations

import re

from r1_reward.records.dialect import NOTHING, Dialect, Found, marked
from r1_reward.records.statements import HOSTILE, last_statement

_ANSWER = re.compile(
    r"<answer>[\s*]*(?:answer|image|video|response)[\s*]*([12])[\s*]*is\s+(?:the\s+)?(?:slightly\s+)?better"
    r"(?:\s+than\s+(?:answer|image|video|response)\s*[12])?[\s*.]*</answer>",
    re.IGNORECASE,
)


def read(spoken: str) -> Found:
    """Find the answer in its tags, or the last statement of a text without tags."""
    opened, closed = spoken.count("<answer>"), spoken.count("</answer>")
    if not opened and not closed:
        return last_statement(spoken)
    found = marked(_ANSWER, {"1": 1, "2": 2}, spoken)
    return found if len(found.spans) == opened == closed else NOTHING


DIALECT = Dialect(
    name="unified-reward",
    title="UnifiedReward",
    form="Answer {} is better",
    read=read,
    template="unified_reward.txt",
    source="github.com/CodeGoat24/UnifiedReward at ff6f520, inference_qwen/image_understanding: the author's wording, "
    "MIT, Copyright (c) 2025 Yibin Wang",
    hostile=HOSTILE,
    models=(r"(?<![a-z])unified[-_]?reward(?!.*(?:think|edit|flex))",),
    labels=("Answer 1", "Answer 2"),
)
