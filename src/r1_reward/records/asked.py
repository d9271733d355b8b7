"""Parse a judging prompt: its dialect, the question and responses, and the positions of its images.

Chat clients send a judge the complete prompt. It is recognized by its wording, one of those in ``records/templates``,
and the values of the template's placeholders are recovered::

    asked = take_apart("", [Place("image", scene), prompt])
    asked.dialect.name, asked.question, asked.responses     # ("r1-reward", "Which digit?", ("A three.", "An eight."))

The wording must match exactly, or up to white space. The text between two placeholders must occur only once: a response
that repeats it could pose as the other one, so such a prompt is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from r1_reward.records.content import Content, Piece, Place
from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects import dialect_names, find_dialect
from r1_reward.records.placeholders import find_placeholders, mismatch
from r1_reward.records.two_scores import two_scores

_PLACES = re.compile(r"\{(?:question|answer[12])\}")
_PICTURE = "\0"  # marks an image; NUL is removed from all texts
_SAYS_NOTHING = "you are a helpful assistant."


class NotAComparison(ValueError):
    """The chat does not ask which of two responses is better, or asks ambiguously."""


class Asked(NamedTuple):
    """What a judging prompt asks."""

    dialect: Dialect
    """The dialect of the wording; the client expects an answer in its form."""
    pictures: list[Any]
    """Images before or after the prompt."""
    question: Content
    responses: tuple[Content, Content]
    """In the order shown."""

    def _stripped(self, strip: bool) -> Asked:
        """Return a copy without white space around the texts, which belongs to the wording."""
        if not strip:
            return self
        question, first, second = (
            content.strip() if isinstance(content, str) else content for content in (self.question, *self.responses)
        )
        return self._replace(question=question, responses=(first, second))


def take_apart(system: str, pieces: Sequence[Piece]) -> Asked:
    """Return what the single user turn of a chat asks; ``pieces`` are its texts and images in order.

    Raises:
        NotAComparison: If the wording is unknown or repeated, the prompt shows a single response, the number of image
            placeholders differs from the number of images, or the system message is not the dialect's own.
    """
    sources = [piece.source for piece in pieces if isinstance(piece, Place)]
    text = "".join(_PICTURE if isinstance(piece, Place) else piece.replace(_PICTURE, "\ufffd") for piece in pieces)
    for exact in (True, False):
        for dialect in _known(text):
            literals = _PLACES.split(dialect.wording())
            spans = _spans(literals, text, exact)
            if spans is not None and _is_around(dialect, text[: spans[0][0]] + text[spans[-1][1] :]):
                _require_once(literals, text[spans[0][1] :], exact)
                _require_fitting(dialect, system)
                return _asked(dialect, text, spans, sources)._stripped(not exact)
    raise NotAComparison(
        "is not a known prompt that compares two responses. This judge says which of two responses is better: send one "
        "user message in the prompt of R1-Reward or of another dialect (docs/dialects.md), or post to /v1/compare"
    )


def _known(text: str) -> Iterator[Dialect]:
    """Yield the dialects that a text may be written in."""
    yield from map(find_dialect, dialect_names())
    if scores := two_scores(text):
        yield scores


def _pattern(literal: str, exact: bool, first: bool, last: bool) -> re.Pattern[str]:
    if exact:
        return re.compile(re.escape(literal))
    words = r"\s{1,64}".join(map(re.escape, literal.split()))
    before = r"(?<!\S)" if not first and literal[:1].isspace() else ""
    after = r"(?!\S)" if not last and literal[-1:].isspace() else ""
    return re.compile(before + words + after)


def _spans(literals: list[str], text: str, exact: bool) -> list[tuple[int, int]] | None:
    """Return the spans of the wording around the placeholders, or None if the text does not contain it in order."""
    spans: list[tuple[int, int]] = []
    for number, literal in enumerate(literals):
        first, last = number == 0, number == len(literals) - 1
        start = spans[-1][1] if spans else 0
        if last and not literal.strip():  # an open end, which only images may follow
            end = len(text.rstrip(_PICTURE))
            if exact and not text.endswith(literal, start, end):
                return None
            end = end if exact or text[start:end][-1:].isspace() else len(text)
            spans.append((end - len(literal) if exact else end, end))
            continue
        found = [match.span() for match in _pattern(literal, exact, first, last).finditer(text, start)]
        if not found:
            return None
        spans.append(found[-1 if last else 0])
    return spans


def _require_once(literals: list[str], text: str, exact: bool) -> None:
    """Raise NotAComparison if the wording between the placeholders occurs again inside a question or response."""
    for literal in literals[1:-1]:
        if len(list(islice(_pattern(literal, exact, False, False).finditer(text), 2))) > 1:
            raise NotAComparison(
                f"contains {literal.strip()[:40]!r} more than once, so the end of a response is ambiguous; insert a "
                "space into it where the question or a response quotes it"
            )


def _is_around(dialect: Dialect, outside: str) -> bool:
    """Return whether the text around a template is empty or the dialect's own system message."""
    for place in reversed(find_placeholders(outside)):
        outside = outside[: place.start] + outside[place.end :]
    return _normal(outside.replace(_PICTURE, " ")) in ("", _normal(_system(dialect)))


def _system(dialect: Dialect) -> str:
    if dialect.system is None:
        return ""
    words: str = dialect.messages("?", *["-"] * (1 if dialect.pointwise else 2))[0]["content"][0]["text"]
    return words


def _normal(text: str) -> str:
    return " ".join(text.split())


def _require_fitting(dialect: Dialect, system: str) -> None:
    """Raise NotAComparison if the dialect shows one response, or the system message is not the dialect's."""
    if dialect.pointwise:
        raise NotAComparison("shows one response; this server compares two, so send both in one prompt")
    said = _normal(system)
    if said.lower() not in ("", _SAYS_NOTHING) and said != _normal(_system(dialect)):
        raise NotAComparison(
            "has its own system message, which the judge would not see; remove it, or post to /v1/compare with criteria"
        )


def _asked(dialect: Dialect, text: str, spans: list[tuple[int, int]], sources: list[Any]) -> Asked:
    head, tail = text[: spans[0][0]], text[spans[-1][1] :]
    around = head.count(_PICTURE) + tail.count(_PICTURE)
    if reason := mismatch(find_placeholders(head + tail), around):
        raise NotAComparison(f"{reason}; send one image per placeholder")
    left = iter(sources)
    pictures = [next(left) for _ in range(head.count(_PICTURE))]
    contents = []
    for (_, start), (end, _) in zip(spans, spans[1:], strict=False):
        contents.append(_content(text[start:end], left))
    pictures += left
    if len(pictures) != around:
        raise NotAComparison("has an image inside the prompt's own wording; put it first, or inside a response")
    question, first, second = contents
    return Asked(dialect, pictures, question, (first, second))


def _content(text: str, sources: Iterator[Any]) -> Content:
    """Return the content of one placeholder, with the next images where the text marks them."""
    if _PICTURE not in text:
        return text
    pieces: list[Piece] = []
    for number, words in enumerate(text.split(_PICTURE)):
        pieces += [Place("image", next(sources))] if number else []
        pieces += [words] if words else []
    return pieces


def in_form(dialect: Dialect, judge: Dialect, text: str, *, cut: bool = False, probability: float | None = None) -> str:
    """Return the text of ``judge`` in the answer form of ``dialect``, the one the client asked in.

    If both are the same, this is the text itself. Otherwise it is the judge's reasoning as a thought, neutralized so
    that it contains no verdict, followed by the verdict in the dialect's form; there is no verdict if the judge's is
    unreadable, or a tie that the dialect cannot express. ``probability`` is the judge's for the first response, which
    some forms report.
    """
    if judge.name == dialect.name:
        return text
    from r1_reward.records.prompt import neutralize

    parsed = judge.parse(text, cut=cut)
    ours = dict(zip(judge.labels, dialect.labels, strict=True))
    names = re.compile("|".join(rf"\b{re.escape(label)}\b" for label in ours))
    reasoning = neutralize(names.sub(lambda match: ours[match[0]], parsed.reasoning), (), dialect.hostile)
    if dialect.write is not None:
        return dialect.write(parsed.answer, probability, reasoning)
    thought = f"<think>{reasoning}</think>"
    if parsed.answer in (1, 2) and dialect.verdicts is not None:
        verdict = dialect.form.format(dialect.verdicts[parsed.answer - 1])
    elif parsed.answer == 0 and dialect.ties:
        verdict = dialect.form.format("C")
    else:
        return thought
    return f"{thought}\n{{{verdict}}}" if verdict.startswith('"') else f"{thought}\n{verdict}"
