"""From a judgement's text to its answer, or to None: what cannot be read is not a vote, never a guess.

>>> parse_judgment("<think>Response 1 miscounts.</think><answer>2</answer>")
ParsedJudgment(answer=2, reasoning='Response 1 miscounts.', well_formed=True)
>>> parse_judgment("I would say 2.").answer is None
True

A draft is not an answer. What is in a thought that was never closed is not read:

>>> parse_judgment("<think>Perhaps <answer>1</answer>? Let me count again").answer is None
True

Three things can be known about a thought, and each has one place. The text shows what the model opened and closed. A
chat template that opens the thought itself leaves the tag out of the text; :func:`with_template_thought` puts it back.
Where nobody knows the template (behind a server), a text that the token limit ``cut`` may end inside a thought, unless
it closed one: such a text has no answer either.

>>> parse_judgment("Perhaps <answer>1</answer>? Let me count", cut=True).answer is None
True
>>> parse_judgment("Response 1 miscounts.</think><answer>2</answer> I am su", cut=True).answer
2
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from r1_reward.records.schema import Answer, Label

FORMATS = ("strict", "whitespace")
"""Which texts are well formed: those that follow method section 1 to the letter, or up to white space between tags."""

_ANSWERS: dict[str, Answer] = {"1": 1, "2": 2}
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
# Of every family, in every case and spacing that prompt.neutralize() breaks, so that a quoted candidate can neither
# open nor close one.
_THOUGHT = re.compile(
    r"<(?:/\s*)?(?P<name>think(?:ing)?|thought|reasoning|seed:think)\s*>|◁/?think▷|(?-i:\[/?THINK\])",
    re.ASCII | re.IGNORECASE,
)
_DIGIT_AT_THE_END = re.compile(r"<answer>\s*([12])\s*</answer>\Z")


class ParsedJudgment(NamedTuple):
    """What one generated text says."""

    answer: Label | None
    """The response it prefers, None when that cannot be read; 0 for a tie, which only some dialects know."""
    reasoning: str
    """The analysis before the answer, trimmed and without its tags."""
    well_formed: bool
    """Whether the text follows the format of method section 1 to the letter, whatever the answer holds."""


def parse_judgment(text: str, *, cut: bool = False) -> ParsedJudgment:
    """Read one judgement, in time linear in its length.

    ``answer`` is the trimmed content of the one ``<answer>...</answer>`` where the model speaks (see
    :func:`spoken_from`), and only ``1`` or ``2`` counts. A second opening or closing answer tag there leaves it None.
    ``reasoning`` runs from the first ``<think>`` (else the start) to the last ``</think>`` (else the answer tag, else
    the end). ``cut`` says that the text was broken off, by the token limit or a filter.
    """
    text = text.strip()
    tags = list(_THOUGHT.finditer(text))
    closing = next((tag for tag in reversed(tags) if _closes(tag)), None)
    end = text.find("<answer>") if closing is None else closing.start()
    end = len(text) if end < 0 else end
    opening = next((tag for tag in tags if not _closes(tag) and tag.end() <= end), None)
    reasoning = text[0 if opening is None else opening.end() : end]
    start = spoken_from(text, cut=cut)
    answer = None if start is None else _answer_in(text[start:])
    return ParsedJudgment(answer, reasoning.strip(), is_well_formed(text))


def spoken_from(text: str, *, cut: bool = False) -> int | None:
    """Return where in a text the thought is over and the model speaks, None if it never does.

    That is behind the last ``</think>``, and at the start of a text without a thought. It is nowhere if a thought was
    opened and not closed again, nor in a text that was ``cut`` before it closed one: it may be all thought. Other
    families' tags count, too (``<thinking>``, ``[THINK]``, ``◁think▷``, ...); each is closed by its own, or with the
    thought that it lies in; an end that belongs to none of them closes all.

    >>> spoken_from("<think>a</think>b"), spoken_from("b")
    (16, 0)
    >>> spoken_from("a</think>b<THINK>c"), spoken_from("b", cut=True)
    (None, None)
    """
    opened: list[str] = []  # the names of the thoughts that are open, the outermost first
    end = None if cut else 0
    for tag in _THOUGHT.finditer(text):
        name = (tag["name"] or "think").lower()
        if _closes(tag):
            end = tag.end()
            opened = opened[: opened.index(name)] if name in opened else []
        elif name not in opened:
            opened.append(name)
    return None if opened else end


def with_template_thought(prompt: str, text: str) -> str:
    r"""Return what a model wrote behind a rendered prompt, with the ``<think>`` that the prompt ends with, if it does.

    A text that opens a thought of its own at once is returned as it is.

    >>> with_template_thought("<|im_start|>assistant\n<think>\n", "So.</think><answer>1</answer>")
    '<think>So.</think><answer>1</answer>'
    """
    *_, last = (None, *_THOUGHT.finditer(prompt))
    opened = last is not None and not _closes(last) and not prompt[last.end() :].strip()
    own = _THOUGHT.match(text.lstrip())
    return f"<think>{text}" if opened and (own is None or _closes(own)) else text


def answer_position(tokens: Sequence[int], digits: Sequence[int], decode: Callable[[list[int]], str]) -> int | None:
    """Return where in generated ``tokens`` the answer's own token stands, None if the text has no such place.

    ``digits`` are the tokens of the answers. It is the last of them that follows an opening answer tag, white space
    aside; ``decode`` turns tokens into text. A tag inside a thought that is closed later is not the answer's, even
    where the answer itself is part of a longer token and so has no place. Ask only about a text that has an answer.
    """
    for position in range(len(tokens) - 1, -1, -1):
        # A tag is at most eight tokens, a character each.
        if tokens[position] in digits and decode(list(tokens[max(0, position - 12) : position])).rstrip().endswith(
            "<answer>"
        ):
            return None if _THOUGHT.search(decode(list(tokens[position:]))) else position
    return None


def is_well_formed(text: str, format: str = "strict") -> bool:
    """Say whether a text has the form of method section 1, whatever the answer holds.

    ``strict``: ``<think>...</think><answer>...</answer>``, each tag once, and nothing else but white space around it
    all. ``whitespace``: the same with white space allowed between ``</think>`` and ``<answer>``.

    Raises:
        ValueError: ``format`` is neither.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    text = text.strip() if format == "strict" else tidy(text)
    # Equal to ^<think>.*?</think><answer>.*?</answer>$ with each tag once, but never quadratic.
    once = all(text.count(tag) == 1 for tag in _TAGS)
    return once and text.startswith("<think>") and "</think><answer>" in text and text.endswith("</answer>")


def tidy(text: str) -> str:
    """Return a judgement without the white space around its two parts and its digit; many models put a line there.

    What is well formed but for white space is then well formed to the letter.
    """
    thought, closing, spoken = text.strip().rpartition("</think>")
    if closing and spoken.lstrip().startswith("<answer>"):
        spoken = _DIGIT_AT_THE_END.sub(r"<answer>\1</answer>", spoken.lstrip())
    return f"{thought}{closing}{spoken}"


def _closes(tag: re.Match[str]) -> bool:
    return "/" in tag[0]


def _answer_in(spoken: str) -> Answer | None:
    if spoken.count("<answer>") != 1 or spoken.count("</answer>") != 1:
        return None
    content, closing, _ = spoken.partition("<answer>")[2].partition("</answer>")
    return _ANSWERS.get(content.strip()) if closing else None
