"""A referee without a model: it reads the conclusion out of the end of the reasoning by the grammar of comparisons.

>>> reasoning = "Response 1 is longer. However, it miscounts the cups, so Response 2 is better."
>>> RuleReferee().judge([reasoning, reasoning, "Hard to say."], [2, 1, 1])
[1.0, 0.0, 0.0]
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from r1_reward.judge.verdict_grammar import GROUND, TRAIT, VERDICT, Remark, concludes, mark_names, read, scores
from r1_reward.records.schema import Answer

WINDOW = 600
"""How many characters at the end of a reasoning every referee reads: that is where the conclusion is."""


class RuleReferee:
    """Supports an answer where the last sentence with a preference names it; never unknown.

    A reasoning that states no conclusion does not support its answer: 0.0.
    """

    def judge(self, reasonings: Sequence[str], answers: Sequence[int]) -> list[float | None]:
        """Return 1.0 or 0.0 for each pair of reasoning and answer. Raises ValueError if the lengths differ."""
        return [float(conclusion(reasoning) == answer) for reasoning, answer in zip(reasonings, answers, strict=True)]


_SENTENCE_END = re.compile(r"(?<=[.!?])[\s*\"')\]]+|;|\n+")
_SHORT = re.compile(r"\b(e\.g|i\.e|vs|etc|no|cf)\.(?=\s)", re.IGNORECASE)


def conclusion(reasoning: str) -> Answer | None:
    tail = _SHORT.sub(r"\1", reasoning[-WINDOW:])
    sentences = _SENTENCE_END.split(tail)
    if len(reasoning) > WINDOW and len(sentences) > 1:
        del sentences[0]  # cut off at its start, it may have lost its "not"
    marked = mark_names("\n".join(sentences)).split("\n")
    said = [(concludes(sentence), found) for sentence in marked if (found := read(sentence))]
    return _verdict(said) or _by_score(marked, said) or _ground(said) or _trait(said)


_Said = list[tuple[bool, list[Remark]]]


def _verdict(said: _Said) -> Answer | None:
    for _, found in reversed(said):
        verdicts = {remark.prefers for remark in found if remark.rank == VERDICT}
        if verdicts:
            return verdicts.pop() if len(verdicts) == 1 else None
    return None


def _by_score(marked: list[str], said: _Said) -> Answer | None:
    if any(remark.rank == VERDICT for _, found in said for remark in found):
        return None
    given: dict[Answer, float] = {}
    for sentence in marked:
        given.update(scores(sentence))
    if len(given) < 2 or given[1] == given[2]:
        return None
    return 1 if given[1] > given[2] else 2


def _ground(said: _Said) -> Answer | None:
    if any(remark.rank == VERDICT for _, found in said for remark in found):
        return None
    grounds = [(final, {one.prefers for one in found if one.rank == GROUND}) for final, found in said]
    grounds = [(final, one) for final, one in grounds if one]
    if grounds and None in grounds[-1][1]:
        return None
    for wanted in (False, True):
        every = {one for final, ones in grounds if final or not wanted for one in ones} - {None}
        if len(every) == 1:
            return every.pop()
    return None


def _trait(said: _Said) -> Answer | None:
    if any(remark.rank > TRAIT for _, found in said for remark in found):
        return None
    remarks = [remark for _, found in said for remark in found]
    traits = [remark for remark in remarks if remark.rank == TRAIT]
    prefers = {remark.prefers for remark in traits}
    if len(prefers) == 1 and {remark.about for remark in traits} == {remark.about for remark in remarks}:
        return prefers.pop()
    return None
