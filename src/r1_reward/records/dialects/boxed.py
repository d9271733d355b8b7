r"""Judges that box the number of the better response, such as LLaVA-Critic-R1: \boxed{1}.

The official evaluation appends "the final answer MUST BE put in \boxed{}" to VL-RewardBench's prompt. A box may
contain 1, 2, A or B, alone or in words ("Answer 1", "Response 2 is better"). Boxes with other contents, such as a
calculated number, are not verdicts; contradictory verdicts count as none (as in OmniReward's reader).
"""

from __future__ import annotations

import re

from r1_reward.records.dialect import Dialect, Found, marked
from r1_reward.records.statements import HOSTILE

_NAME = r"(?:(?:the\s+)?(?:answer|response|assistant|candidate|option|image|video)[\s*]*)?"
_VERDICT = re.compile(
    r"\\boxed\s*\{[\s$*]*(?:\\(?:text|textbf|mathbf|mathrm|bf)\s*\{\s*)?"
    rf"(?i:{_NAME})([12AB])(?i:[\s*]*is\s+(?:the\s+)?(?:slightly\s+)?better)?[\s$*.]*(?:\}}[\s$*.]*)?\}}"
)


def read(spoken: str) -> Found:
    """Find the box that contains a verdict."""
    return marked(_VERDICT, {"1": 1, "2": 2, "A": 1, "B": 2}, spoken)


DIALECT = Dialect(
    name="boxed",
    title="LLaVA-Critic-R1, and other models trained to box their answer",
    form=r"\boxed{{{}}}",
    read=read,
    template="boxed.txt",
    source="arXiv 2509.00676; github.com/si0wang/LLaVA-Critic-R1 at 6fd42d1, eval_llama32v/model_vlreward_llama32v.py; "
    "that repository has no license, so the wording is ours",
    hostile=(r"\\(?:boxed|fbox)\s*\{", *HOSTILE),
    models=(r"llava[-_]critic[-_]r1",),
)
