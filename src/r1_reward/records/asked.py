"""Take a judging prompt apart: which dialect's it is, what it asks, and where its pictures stand.

Whoever talks to a judge by chat sends the whole prompt. It is recognised by its own wording, one of those in
``records/templates``, and what stands at the template's places is read out again::

    asked = take_apart("", [Place("image", scene), prompt])
    asked.dialect.name, asked.question, asked.responses     # ("r1-reward", "Which digit?", ("A three.", "An eight."))

The wording counts to the letter, or else but for its white space. Between the places it must occur once: a response
that repeats it could pose as the other one, so such a prompt is refused.
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
_PICTURE = "\0"  # stands for a picture; no text keeps it, since no judge is shown it
_SAYS_NOTHING = "you are a helpful assistant."


class NotAComparison(ValueError):
    """A chat does not ask which of two responses is better, or not in a way that can be relied on."""


class Asked(NamedTuple):
    """What a judging prompt asks."""

    dialect: Dialect
    """Whose wording it has; an answer is expected in its form."""
    pictures: list[Any]
    """In front of the prompt, or behind it."""
    question: Content
    responses: tuple[Content, Content]
    """In the order shown."""

    def _stripped(self, strip: bool) -> Asked:
        """Return it without the white space at the ends of its texts, which belongs to the wording."""
        if not strip:
            return self
        question, first, second = (
            content.strip() if isinstance(content, str) else content for content in (self.question, *self.responses)
        )
        return self._replace(question=question, responses=(first, second))


def take_apart(system: str, pieces: Sequence[Piece]) -> Asked:
    """Return what the one user turn of a chat asks, its texts and pictures in order, behind a system message.

    Raises:
        NotAComparison: it has no wording that is known, or more of it than its template; it shows one response; its
            places for pictures are not as many as its pictures; or the system message is another one than its judges'.
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
        "is not a comparison of two responses in a wording that is known here. This is a judge that says which of two "
        "responses is better: send one user message in the prompt of R1-Reward or of another dialect "
        "(docs/dialects.md), or post to /v1/compare"
    )


def _known(text: str) -> Iterator[Dialect]:
    """Yield the dialects in which a text may ask."""
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
    """Return where the wording around the places stands in a text, None if it does not stand there in order."""
    spans: list[tuple[int, int]] = []
    for number, literal in enumerate(literals):
        first, last = number == 0, number == len(literals) - 1
        start = spans[-1][1] if spans else 0
        if last and not literal.strip():  # an open end, behind which only pictures may be
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
    """Raise NotAComparison if the wording between the places occurs again where only these should be."""
    for literal in literals[1:-1]:
        if len(list(islice(_pattern(literal, exact, False, False).finditer(text), 2))) > 1:
            raise NotAComparison(
                f"holds {literal.strip()[:40]!r} more than once, so that nobody can tell where a response ends; break "
                "it with a space where a question or a response says it"
            )


def _is_around(dialect: Dialect, outside: str) -> bool:
    """Return whether a text around a template says nothing that its judge would not be told."""
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
    """Raise NotAComparison if a chat in a dialect's wording asks for something else than a comparison as it is."""
    if dialect.pointwise:
        raise NotAComparison("shows one response; this server compares two, so show both in one prompt")
    said = _normal(system)
    if said.lower() not in ("", _SAYS_NOTHING) and said != _normal(_system(dialect)):
        raise NotAComparison(
            "has a system message of its own, which the judge would not be shown; leave it out, or post to /v1/compare "
            "with criteria"
        )


def _asked(dialect: Dialect, text: str, spans: list[tuple[int, int]], sources: list[Any]) -> Asked:
    head, tail = text[: spans[0][0]], text[spans[-1][1] :]
    around = head.count(_PICTURE) + tail.count(_PICTURE)
    if reason := mismatch(find_placeholders(head + tail), around):
        raise NotAComparison(f"{reason}; send one for each place")
    left = iter(sources)
    pictures = [next(left) for _ in range(head.count(_PICTURE))]
    contents = []
    for (_, start), (end, _) in zip(spans, spans[1:], strict=False):
        contents.append(_content(text[start:end], left))
    pictures += left
    if len(pictures) != around:
        raise NotAComparison("has a picture within the wording of its prompt; put it in front, or into a response")
    question, first, second = contents
    return Asked(dialect, pictures, question, (first, second))


def _content(text: str, sources: Iterator[Any]) -> Content:
    """Return what stands at one place, with the next pictures where the text has them."""
    if _PICTURE not in text:
        return text
    pieces: list[Piece] = []
    for number, words in enumerate(text.split(_PICTURE)):
        pieces += [Place("image", next(sources))] if number else []
        pieces += [words] if words else []
    return pieces


def in_form(dialect: Dialect, judge: Dialect, text: str, *, cut: bool = False, probability: float | None = None) -> str:
    """Return what a ``judge`` wrote in the form that somebody who asked in ``dialect`` reads.

    That is the text itself where both are the same. Else it is the judge's reasoning as a thought, with what the
    dialect would read as a verdict broken up, and then the verdict in the dialect's form: none where the judge's cannot
    be read, or is a tie that the dialect has no word for. ``probability`` is the judge's for the first response, which
    some forms tell.
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
