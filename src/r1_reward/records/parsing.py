"""From a judgement's text to its answer, or to None: what cannot be read is not a vote, never a guess.

>>> parse_judgment("<think>Response 1 miscounts.</think><answer>2</answer>")
ParsedJudgment(answer=2, reasoning='Response 1 miscounts.', well_formed=True)
>>> parse_judgment("I would say 2.").answer is None
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from r1_reward.records.schema import Answer

_ANSWERS: dict[str, Answer] = {"1": 1, "2": 2}
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class ParsedJudgment(NamedTuple):
    """What one generated text says."""

    answer: Answer | None
    """The response it prefers, None when that cannot be read."""
    reasoning: str
    """The analysis before the answer, trimmed and without its tags."""
    well_formed: bool
    """Whether the text follows the format of method section 1 to the letter, whatever stands in the answer."""


def parse_judgment(text: str) -> ParsedJudgment:
    """Read one judgement, in time linear in its length.

    ``answer`` is the trimmed content of the one ``<answer>...</answer>`` behind the last ``</think>`` (anywhere, if
    there is none), and only ``1`` or ``2`` counts. A second opening or closing answer tag there leaves it None.
    ``reasoning`` runs from the first ``<think>`` (else the start) to the last ``</think>`` (else the answer tag, else
    the end).
    """
    text = text.strip()
    thought, closing, tail = text.rpartition("</think>")
    if not closing:
        thought = tail.partition("<answer>")[0]
    _, opening, inside = thought.partition("<think>")
    reasoning = inside if opening else thought
    return ParsedJudgment(_answer_in(tail), reasoning.strip(), _is_well_formed(text))


def answer_position(tokens: Sequence[int], digits: Sequence[int], decode: Callable[[list[int]], str]) -> int | None:
    """Return where in generated ``tokens`` the answer's own token stands, None if the text has no such place.

    ``digits`` are the tokens of the answers. It is the last of them that follows an opening answer tag, white space
    aside; ``decode`` turns tokens into text. A tag inside a thought that is closed later is not the answer's, even
    where the answer itself is part of a longer token and so has no place.
    """
    for position in range(len(tokens) - 1, -1, -1):
        # A tag is at most eight tokens, a character each.
        if tokens[position] in digits and decode(list(tokens[max(0, position - 12) : position])).rstrip().endswith(
            "<answer>"
        ):
            return None if "</think>" in decode(list(tokens[position:])) else position
    return None


def _answer_in(tail: str) -> Answer | None:
    if tail.count("<answer>") != 1 or tail.count("</answer>") != 1:
        return None
    content, closing, _ = tail.partition("<answer>")[2].partition("</answer>")
    return _ANSWERS.get(content.strip()) if closing else None


def _is_well_formed(text: str) -> bool:
    # Equal to ^<think>.*?</think><answer>.*?</answer>$ with each tag once, but never quadratic.
    once = all(text.count(tag) == 1 for tag in _TAGS)
    return once and text.startswith("<think>") and "</think><answer>" in text and text.endswith("</answer>")
