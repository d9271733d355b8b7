"""A referee without a model: it reads the conclusion at the end of the reasoning.

>>> reasoning = "Response 1 is longer. However, it miscounts the cups, so Response 2 is better."
>>> RuleReferee().judge([reasoning, reasoning, "Hard to say."], [2, 1, 1])
[1.0, 0.0, 0.0]

:mod:`r1_reward.judge.verdict_grammar` reads each sentence. Verdicts outrank scores, scores outrank comparisons, and
comparisons outrank traits. The last verdict counts; weaker remarks count only if nothing contradicts them.
docs/training.md has a summary of the grammar, its error rate on real judgments, and when to ask a model instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from r1_reward.judge.verdict_grammar import GROUND, TRAIT, VERDICT, Remark, read, scores
from r1_reward.judge.verdict_names import mark_names
from r1_reward.judge.verdict_sentences import concludes
from r1_reward.records.schema import Answer

WINDOW = 600
"""How many characters every referee reads at the end of a reasoning, where the conclusion is."""


class RuleReferee:
    """Supports an answer if the reasoning concludes in its favor; its verdict is never unknown.

    A reasoning without a conclusion does not support its answer: 0.0.
    """

    def judge(self, reasonings: Sequence[str], answers: Sequence[int]) -> list[float | None]:
        """Return 1.0 or 0.0 for each pair of reasoning and answer. Raises ValueError if the lengths differ."""
        return [float(conclusion(reasoning) == answer) for reasoning, answer in zip(reasonings, answers, strict=True)]


def conclusion(reasoning: str) -> Answer | None:
    """Return the response that a reasoning concludes is better, None if it does not clearly favor one.

    Only the last :data:`WINDOW` characters are read. Questions, conditions, concessions ("although Response 1 ..."),
    wishes ("could be better") and hearsay ("it is not clear that ...") state no preference.
    """
    sentences = _SENTENCE_END.split(_ABBREVIATED.sub(r"\1", reasoning[-WINDOW:]))
    if len(reasoning) > WINDOW and len(sentences) > 1:
        del sentences[0]  # cut off at its start, it may have lost its "not"
    marked = mark_names("\n".join(sentences)).split("\n")
    said = [(concludes(sentence), found) for sentence in marked if (found := read(sentence))]
    ranks = {remark.rank for _, found in said for remark in found}
    if VERDICT in ranks:
        return _last_verdict(said)
    by_score = _higher_score(marked)
    if by_score is not None:
        return by_score
    return _undisputed_ground(said) if GROUND in ranks else _traits(said, whole=len(reasoning) <= WINDOW)


_SENTENCE_END = re.compile(r"(?<=[.!?])[\s*\"')\]]+|;|\n+")
_ABBREVIATED = re.compile(r"\b(e\.g|i\.e|vs|etc|cf)\.(?=\s)", re.IGNORECASE)

_Said = list[tuple[bool, list[Remark]]]
"""For each sentence with remarks: whether it announces a conclusion, and the remarks."""


def _last_verdict(said: _Said) -> Answer | None:
    verdicts = [{remark.prefers for remark in found if remark.rank == VERDICT} for _, found in said]
    last = [one for one in verdicts if one][-1]
    return last.pop() if len(last) == 1 else None


def _higher_score(marked: list[str]) -> Answer | None:
    given: dict[Answer, float] = {}
    for sentence in marked:
        given.update(scores(sentence))
    if len(given) < 2 or given[1] == given[2]:
        return None
    return 1 if given[1] > given[2] else 2


def _undisputed_ground(said: _Said) -> Answer | None:
    """Return the response that all comparisons prefer, or else all of those announced as a conclusion.

    None if the last such sentence is about both ("overall, both answer the question").
    """
    grounds = [(final, {remark.prefers for remark in found if remark.rank == GROUND}) for final, found in said]
    grounds = [(final, prefers) for final, prefers in grounds if prefers]
    if None in grounds[-1][1]:
        return None
    for final_only in (False, True):
        preferred = {one for final, prefers in grounds if final or not final_only for one in prefers} - {None}
        if len(preferred) == 1:
            return preferred.pop()
    return None


def _traits(said: _Said, *, whole: bool) -> Answer | None:
    """Return the response that all traits favor, if there is a trait for every response that is a subject.

    If the reasoning is cut off, both must be subjects: the other one may have been praised as much before.
    """
    remarks = [remark for _, found in said for remark in found]
    traits = [remark for remark in remarks if remark.rank == TRAIT]
    preferred = {remark.prefers for remark in traits}
    described = {remark.about for remark in traits}
    if len(preferred) == 1 and described == {remark.about for remark in remarks} and (whole or len(described) == 2):
        return preferred.pop()
    return None
