"""The prompt of VL-RewardBench, for models trained on no verdict format of their own: "Overall Judgment: ...".

The official reader (inference_hf.py in its repository) removes line breaks and asterisks and takes the last "Answer N
is [the] [slightly] better" after the first "Overall Judgment" or "Therefore". Ours does the same after the thought,
also accepts the spelling "Judgement", and skips "neither Answer 1 nor Answer 2 is better" and the like. A number other
than 1 and 2 is no verdict, whereas the official reader counts it as right.
"""

from __future__ import annotations

import re

from r1_reward.records.dialect import NOTHING, Dialect, Found
from r1_reward.records.statements import HOSTILE, last_statement

_MARKER = re.compile(r"overall[\s*]+judge?ment|therefore", re.IGNORECASE)


def read(spoken: str) -> Found:
    """Find the last statement after the first marker."""
    marker = _MARKER.search(spoken)
    return NOTHING if marker is None else last_statement(spoken, marker.end())


DIALECT = Dialect(
    name="vl-rewardbench",
    title="the official prompt of VL-RewardBench, for any model",
    form="Overall Judgment: Answer {} is better.",
    read=read,
    template="vl_rewardbench.txt",
    source="github.com/vl-rewardbench/VL_RewardBench at 9b10abd, prompt.py and inference_hf.py; that repository has "
    "no license, so the wording is ours and asks for the same criteria and the same form",
    hostile=(*HOSTILE, r"(?i:overall[\s*]+judge?ment)"),
    labels=("Answer 1", "Answer 2"),
)
