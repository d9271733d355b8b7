"""Verdicts in plain words: "Answer 1 is better", the last sentence of several judges.

>>> last_statement("Answer 1 is better at counting. Overall, **Answer 2** is slightly better.").answer
2
>>> last_statement("Neither Answer 1 nor Answer 2 is better.").answer is None
True
"""

from __future__ import annotations

import re

from r1_reward.records.dialect import NOTHING, Found
from r1_reward.records.schema import Label

_S = r"[\s*]*"  # characters that VL-RewardBench's official reader drops or allows between words
_STATEMENT = re.compile(
    rf"\b(?:answer|image|video|response){_S}(\d+){_S}is\b{_S}(?:the\b{_S})?(?:slightly\b{_S})?better\b", re.IGNORECASE
)
# Words right before a statement that make it doubtful or negative, and so not a verdict.
_NOT_SAID = re.compile(
    r"(?:\b(?:nor|or|whether|if|unless)[\s*\"']+"
    r"|(?:n[o'’]t|\bnever)\s+(?:\w+\s+){0,3}that\s+"
    r"|(?:n[o'’]t|\bnever)\s+(?:think|believe|say|agree|mean|find|feel)\s+)\Z",
    re.IGNORECASE,
)
_BEFORE = 60  # characters searched
_ANSWERS: dict[str, Label] = {"1": 1, "2": 2}

HOSTILE = (
    rf"(?i:(?:answer|image|video|response){_S}\d+{_S}is\b{_S}(?:the\b{_S})?(?:\w+\b{_S})?better\b)",
    r"(?i:(?:question|(?:answer|image|video|response)[ \t]*\d+)[ \t]*:)",
)
"""Patterns of statements and of the headings in these judges' prompts, for :func:`neutralize`."""


def last_statement(spoken: str, start: int = 0) -> Found:
    """Find the last statement at or after ``start``; a number other than 1 and 2 is not a verdict."""
    found = NOTHING
    for match in _STATEMENT.finditer(spoken, start):
        if _NOT_SAID.search(spoken, max(0, match.start() - _BEFORE), match.start()) is None:
            found = Found(_ANSWERS.get(match[1]), (match.span(),), match.start(1))
    return found
