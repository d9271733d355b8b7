"""Verdicts in plain words: "Answer 1 is better", as several judges end their texts.

>>> last_statement("Answer 1 is better at counting. Overall, **Answer 2** is slightly better.").answer
2
>>> last_statement("Neither Answer 1 nor Answer 2 is better.").answer is None
True
"""

from __future__ import annotations

import re

from r1_reward.records.dialect import NOTHING, Found
from r1_reward.records.schema import Label

_S = r"[\s*]*"  # what the official reader of VL-RewardBench drops, or allows, between the words
_STATEMENT = re.compile(
    rf"\b(?:answer|image|video|response){_S}(\d+){_S}is\b{_S}(?:the\b{_S})?(?:slightly\b{_S})?better\b", re.IGNORECASE
)
# What is named, doubted or denied is not said. Looked for right before a statement.
_NOT_SAID = re.compile(
    r"(?:\b(?:nor|or|whether|if|unless)[\s*\"']+"
    r"|(?:n[o'’]t|\bnever)\s+(?:\w+\s+){0,3}that\s+"
    r"|(?:n[o'’]t|\bnever)\s+(?:think|believe|say|agree|mean|find|feel)\s+)\Z",
    re.IGNORECASE,
)
_BEFORE = 60  # characters looked at
_ANSWERS: dict[str, Label] = {"1": 1, "2": 2}

HOSTILE = (
    rf"(?i:(?:answer|image|video|response){_S}\d+{_S}is\b{_S}(?:the\b{_S})?(?:\w+\b{_S})?better\b)",
    r"(?i:(?:question|(?:answer|image|video|response)[ \t]*\d+)[ \t]*:)",
)
"""Patterns of statements, and of headings as the prompts of these judges write them, for :func:`neutralize`."""


def last_statement(spoken: str, start: int = 0) -> Found:
    """Find the last statement at or after ``start``; a number that is neither 1 nor 2 is not a verdict."""
    found = NOTHING
    for match in _STATEMENT.finditer(spoken, start):
        if _NOT_SAID.search(spoken, max(0, match.start() - _BEFORE), match.start()) is None:
            found = Found(_ANSWERS.get(match[1]), (match.span(),), match.start(1))
    return found
