"""Parse a judgment into its answer, or None: an unreadable text is not a vote, and never a guess.

>>> parse_judgment("<think>Response 1 miscounts.</think><answer>2</answer>")
ParsedJudgment(answer=2, reasoning='Response 1 miscounts.', well_formed=True)
>>> parse_judgment("I would say 2.").answer is None
True

A draft is not an answer: an unclosed thought is not read.

>>> parse_judgment("<think>Perhaps <answer>1</answer>? Let me count again").answer is None
True

Whether a text is inside a thought is decided in three ways. The text shows what the model opened and closed. A chat
template that opens the thought itself leaves the tag out of the text; :func:`with_template_thought` restores it. If the
template is unknown (behind a server), a text ``cut`` by the token limit may end inside a thought unless it closed one,
so it has no answer either.

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
"""Definitions of well formed: exactly as in method section 1, or up to white space between tags."""

_ANSWERS: dict[str, Answer] = {"1": 1, "2": 2}
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
# The tags of all families, in every case and spacing that prompt.neutralize() breaks, so that a quoted candidate can
# neither open nor close a thought.
_THOUGHT = re.compile(
    r"<(?:/\s*)?(?P<name>think(?:ing)?|thought|reasoning|seed:think)\s*>|◁/?think▷|(?-i:\[/?THINK\])",
    re.ASCII | re.IGNORECASE,
)
_DIGIT_AT_THE_END = re.compile(r"<answer>\s*([12])\s*</answer>\Z")


class ParsedJudgment(NamedTuple):
    """The parsed content of one generated text."""

    answer: Label | None
    """The preferred response, None if unreadable; 0 for a tie, which only some dialects allow."""
    reasoning: str
    """The analysis before the answer, trimmed and without tags."""
    well_formed: bool
    """Whether the text follows the format of method section 1 exactly, whatever the answer contains."""


def parse_judgment(text: str, *, cut: bool = False) -> ParsedJudgment:
    """Parse one judgment, in time linear in its length.

    ``answer`` is the trimmed content of the single ``<answer>...</answer>`` after the thought (see :func:`spoken_from`)
    if that is ``1`` or ``2``. A second opening or closing answer tag makes it None. ``reasoning`` runs from the first
    ``<think>`` (else the start) to the last ``</think>`` (else the answer tag, else the end). ``cut`` says that the
    token limit or a filter cut the text off.
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
    """Return the offset at which the thought ends and the spoken text begins, None if there is no spoken text.

    This is the end of the last ``</think>``, or 0 for a text without a thought. It is None if a thought is not closed,
    or if the text was ``cut`` before it closed one, since it may be all thought. The tags of other model families
    (``<thinking>``, ``[THINK]``, ``◁think▷``, ...) count too. Each is closed by its own closing tag or with its
    enclosing thought; a closing tag that matches none closes all.

    >>> spoken_from("<think>a</think>b"), spoken_from("b")
    (16, 0)
    >>> spoken_from("a</think>b<THINK>c"), spoken_from("b", cut=True)
    (None, None)
    """
    opened: list[str] = []  # the names of the open thoughts, outermost first
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
    r"""Return a generated text, prefixed with ``<think>`` if its rendered prompt ends with one.

    A text that begins with its own thought is returned unchanged.

    >>> with_template_thought("<|im_start|>assistant\n<think>\n", "So.</think><answer>1</answer>")
    '<think>So.</think><answer>1</answer>'
    """
    *_, last = (None, *_THOUGHT.finditer(prompt))
    opened = last is not None and not _closes(last) and not prompt[last.end() :].strip()
    own = _THOUGHT.match(text.lstrip())
    return f"<think>{text}" if opened and (own is None or _closes(own)) else text


def is_tag(token: str) -> bool:
    """Return whether a token's text is a tag that parsing acts on: a thought's, of any family, or an answer's.

    >>> is_tag("</think>"), is_tag("[THINK]"), is_tag("<answer>"), is_tag("<|im_end|>")
    (True, True, True, False)
    """
    token = token.strip()
    return token in ("<answer>", "</answer>") or _THOUGHT.fullmatch(token) is not None


def answer_position(tokens: Sequence[int], digits: Sequence[int], decode: Callable[[list[int]], str]) -> int | None:
    """Return the index of the answer token in generated ``tokens``, None if no token is exactly the answer.

    This is the last of the ``digits``, the tokens of the two answers, that follows an opening answer tag and optional
    white space; ``decode`` turns tokens into text. A tag in a thought that is closed later does not count, even if the
    answer itself is part of a longer token and so has no index. Call it only for a text that has an answer.
    """
    for position in range(len(tokens) - 1, -1, -1):
        # A tag is at most eight tokens, one per character.
        if tokens[position] in digits and decode(list(tokens[max(0, position - 12) : position])).rstrip().endswith(
            "<answer>"
        ):
            return None if _THOUGHT.search(decode(list(tokens[position:]))) else position
    return None


def is_well_formed(text: str, format: str = "strict") -> bool:
    """Return whether a text has the form of method section 1, whatever the answer contains.

    ``strict``: ``<think>...</think><answer>...</answer>``, each tag once, with nothing but white space around the
    whole. ``whitespace``: the same, with white space allowed between ``</think>`` and ``<answer>``.

    Raises:
        ValueError: If ``format`` is neither.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    text = text.strip() if format == "strict" else tidy(text)
    # Equivalent to ^<think>.*?</think><answer>.*?</answer>$ with each tag once, but never quadratic.
    once = all(text.count(tag) == 1 for tag in _TAGS)
    return once and text.startswith("<think>") and "</think><answer>" in text and text.endswith("</answer>")


def tidy(text: str) -> str:
    """Return a judgment without white space around its two parts and its digit; many models insert a line break.

    A text that is well formed up to white space becomes strictly well formed.
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
