"""A referee without a model: it reads the conclusion out of the end of the reasoning by the grammar of comparisons.

>>> reasoning = "Response 1 is longer. However, it miscounts the cups, so Response 2 is better."
>>> RuleReferee().judge([reasoning, reasoning, "Hard to say."], [2, 1, 1])
[1.0, 0.0, 0.0]
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from r1_reward.judge.verdict_grammar import GROUND, TRAIT, VERDICT, Remark, concludes, mark_names, read
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
    read_so_far = []
    for sentence in mark_names("\n".join(sentences)).split("\n"):
        found = read(sentence)
        if found:
            read_so_far.append((concludes(sentence), found))
    return decide(read_so_far)


def decide(sents: list[tuple[bool, list[Remark]]]) -> Answer | None:
    # verdicts: the latest sentence with one
    for final, found in reversed(sents):
        verdicts = {remark.prefers for remark in found if remark.rank == VERDICT}
        if verdicts:
            return verdicts.pop() if len(verdicts) == 1 else None
    for rank in (GROUND, TRAIT):
        said = [(final, {remark.prefers for remark in found if remark.rank == rank}) for final, found in sents]
        every = set().union(*(one for _, one in said)) if said else set()
        if len(every) == 1:
            return every.pop()
        finals = set().union(*(one for final, one in said if final)) if said else set()
        if len(finals) == 1:
            return finals.pop()
        if every:
            return None
    return None
