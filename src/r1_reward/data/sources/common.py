"""Shared parts of all sources: candidate pairs, reasons to drop a row, and checked access to a row's fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from r1_reward.records.content import (
    Content,
    ContentError,
    Piece,
    Place,
    blank,
    fill_places,
    places_of,
    read_parts,
    same_content,
)
from r1_reward.records.errors import kind_of
from r1_reward.records.placeholders import at_one_end, find_placeholders, mismatch
from r1_reward.records.schema import Answer
from r1_reward.records.texts import is_blank

REASONS = {
    "not JSON": "the line is not a JSON object in UTF-8",
    "missing field": "a field is missing or null",
    "wrong type": "a field has a different type than the source documents",
    "blank text": "the question or an answer is empty, or contains only whitespace or invisible characters",
    "unusable text": "a text contains NUL or a lone surrogate, or is longer than a pair file accepts",
    "identical answers": "both answers are the same text, or look the same",
    "tie": "neither answer is preferred",
    "unreadable label": "the rating, winner or answer cannot be parsed, such as N/A",
    "machine judge": "the vote was cast by a model instead of a person",
    "error reply": "an answer is an error message of the server that hosted the model",
    "several turns": "the conversation has more than one question and one answer",
    "unexpected turns": "the turns are not one question and one answer, or the two sides have different questions",
    "unreadable prompt": "the prompt cannot be split unambiguously into question and responses",
    "picture places": "the number of placeholders (<image>, image parts) differs from the number of images",
    "no image": "the row has no image",
    "several media": "the row has several images, or an image and a video, but only one is allowed",
    "image missing": "the image was not found below the image folder",
    "image outside root": "the path of the image points outside the image folder",
    "image too large": "the image file exceeds the size limit",
    "image damaged": "the image cannot be decoded, or its type or shape is not supported",
    "video missing": "the video, or the folder of its frames, was not found below the image folder",
}
"""All reasons for dropping a row or pair, with explanations."""


class Drop(Exception):
    """Raised for an unusable row or pair: ``reason`` is a key of ``REASONS``, ``detail`` says where."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class Candidate(NamedTuple):
    """A pair as read from a source, with media that are not resolved yet."""

    id: str
    """Empty if the source has none; an id that begins with a colon only distinguishes the pairs of a row."""
    question: Content
    chosen: Content
    rejected: Content
    """Text, or parts whose images are cells like ``images`` and whose videos are paths as given."""
    images: tuple[Mapping[str, Any], ...] = ()
    """Cells ``{"bytes": ..., "path": ...}`` with paths as given."""
    video: str | None = None
    """Path of a file or of a folder of frames, as given."""
    kind: str = ""
    preferred: Answer | None = None
    """The position of the chosen answer, if the source fixes the order; None lets the import decide."""
    kept: Mapping[str, Any] = {}
    """Fields copied unchanged: criteria, and for rows that we exported all other fields of the pair."""


class Row:
    """A raw row; its methods return a field in the requested form, or raise Drop."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data

    def value(self, name: str) -> Any:
        """Return a field; raises Drop("missing field") if it is missing or null."""
        value = self.data.get(name)
        if value is None:
            raise Drop("missing field", name)
        return value

    def text(self, name: str) -> str:
        """Return a non-blank text."""
        return a_text(self.value(name), name)

    def label(self, *names: str) -> str:
        """Return the first of the fields that is a string or an integer, as a string; empty if none is."""
        for name in names:
            value = self.data.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                return str(value)
        return ""

    def list(self, name: str) -> list[Any]:
        """Return a field that is a list."""
        value = self.value(name)
        if not isinstance(value, list):
            raise Drop("wrong type", f"{name} is {kind_of(value)}, not a list")
        return value

    def criteria(self) -> dict[str, str]:
        """Return the field ``criteria`` for ``Candidate.kept``; an empty dict if it is missing or empty."""
        value = self.data.get("criteria")
        return {} if value in (None, "") else {"criteria": a_text(value, "criteria")}

    def image(self, *names: str) -> Mapping[str, Any]:
        """Return the first of the fields that holds an image, as a cell; raises Drop if none does."""
        for name in names:
            if (cell := an_image(self.data.get(name), name)) is not None:
                return cell
        raise Drop("no image" if any(name in self.data for name in names) else "missing field", " or ".join(names))


def a_text(value: Any, name: str) -> str:
    """Return a non-blank text, or raise Drop with the name of its field."""
    if not isinstance(value, str):
        raise Drop("wrong type", f"{name} is {kind_of(value)}, not text")
    if is_blank(value):
        raise Drop("blank text", name)
    return value


def a_content(value: Any, name: str) -> Content:
    """Return non-blank text or parts; images of parts are cells, or None if the row has them in a separate field.

    If the texts contain ``<image>`` placeholders, these mark where the images belong, and image parts are ignored.
    """
    content = _parts(value, name)
    if blank(content):
        raise Drop("blank text", name)
    return content


def _parts(value: Any, name: str) -> Content:
    if isinstance(value, str):
        return value
    try:
        pieces = read_parts(value)
    except ContentError as error:
        raise Drop("wrong type", f"{name} {error}") from error
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if len(texts) == len(pieces) or any(map(find_placeholders, texts)):
        return "".join(texts)
    return [_with_cell(piece, name) for piece in pieces]


def _with_cell(piece: Piece, name: str) -> Piece:
    if isinstance(piece, str):
        return piece
    if piece.kind == "image":
        return piece._replace(source=an_image(piece.source, f"an image of {name}"))
    if not isinstance(piece.source, str):
        raise Drop("picture places", f"{name} has a video part without a file")
    return piece


def an_image(value: Any, name: str) -> Mapping[str, Any] | None:
    """Return an image as a cell ``{"bytes": ..., "path": ...}``, None if there is none; raises Drop("wrong type")."""
    cell = value if isinstance(value, Mapping) else {"bytes" if isinstance(value, bytes) else "path": value}
    data, path = cell.get("bytes"), cell.get("path")
    if not isinstance(data, bytes | None) or not isinstance(path, str | None):
        raise Drop("wrong type", f"{name} is {kind_of(value)}, not a path or an embedded image")
    return {"bytes": data, "path": path} if data is not None or path else None


def without_image_tags(question: str, name: str, pictures: int | None = None) -> str:
    """Return a question without ``<image>`` placeholders before or after its text; raises Drop if it is blank.

    Chat formats use them to insert images; a pair stores its images next to the text. A question with placeholders in
    the middle, or at both ends, is returned unchanged, because there the positions carry meaning. ``pictures`` is the
    row's number of images, and a different number of placeholders raises Drop; None skips the check, as for videos.
    """
    found = find_placeholders(question)
    if pictures is not None and (reason := mismatch(found, pictures)):
        raise Drop("picture places", f"{name} {reason}")
    starts, ends = [0, *(place.end for place in found)], [*(place.start for place in found), len(question)]
    spoken = [text for start, end in zip(starts, ends, strict=True) if not is_blank(text := question[start:end])]
    alone = len(spoken) == 1 and bool(found) and at_one_end(question, found)
    return spoken[0].strip() if alone else a_text(question if spoken else "", name)


def with_pictures(
    question: Content,
    responses: Sequence[Content],
    images: Sequence[Mapping[str, Any]],
    name: str,
    *,
    video: bool = False,
    own: bool = False,
) -> tuple[Content, list[Content], tuple[Mapping[str, Any], ...]]:
    """Return question and responses with images inserted at their placeholders, and the images that come before them.

    Image parts take the ``images`` in order. Parts with an image of their own keep it if there are no ``images``, or
    with ``own``. A question with all its images before or all after its text becomes that text; ``name`` is its field
    name. With a ``video``, placeholders in a text are not counted.

    Raises:
        Drop: the number of placeholders differs from the number of images, or the question is blank.
    """
    contents = [question, *responses]
    marked = [place for content in contents for place in places_of(content) if place.kind == "image"]
    if images and marked and not own:
        if len(marked) != len(images):
            raise Drop("picture places", f"{name} and answers refer to {len(marked)} images, the row has {len(images)}")
        contents = [_without_sources(content) for content in contents]
    try:
        contents, left = fill_places(contents, images)
    except ContentError as error:
        raise Drop("picture places", f"{name} and answers: {error}") from error
    question, *responses = contents
    if isinstance(question, str):
        return without_image_tags(question, name, None if video else len(left)), list(responses), tuple(left)
    pieces = read_parts(question)
    texts = [number for number, piece in enumerate(pieces) if isinstance(piece, str) and not is_blank(piece)]
    plain = len(texts) == 1 and texts[0] in (0, len(pieces) - 1)
    if plain and all(isinstance(piece, str) or piece.kind == "image" for piece in pieces):
        cells = [piece.source for piece in pieces if isinstance(piece, Place)]
        return str(pieces[texts[0]]).strip(), list(responses), (*left, *cells)
    return question, list(responses), tuple(left)


def _without_sources(content: Content) -> Content:
    """Return a content with empty image parts, to be filled from a separate field."""
    if isinstance(content, str):
        return content
    pieces = read_parts(content)
    return [Place("image") if isinstance(piece, Place) and piece.kind == "image" else piece for piece in pieces]


def require_same_question(first: Content, second: Content, sides: str) -> None:
    """Raise Drop if the two sides of a pair have different questions."""
    if not same_content(first, second):
        raise Drop("unexpected turns", f"{sides} different questions")


def turns(value: Any, name: str, roles: tuple[str, str] = ("role", "content")) -> Iterator[tuple[str, Content]]:
    """Yield role and content of each turn of a chat; ``roles`` gives the names of the two fields.

    Content may be blank. Raises Drop if a content is neither text nor parts.
    """
    if not isinstance(value, list):
        raise Drop("wrong type", f"{name} is {kind_of(value)}, not a list of turns")
    for index, turn in enumerate(value):
        if not isinstance(turn, Mapping) or not isinstance(turn.get(roles[0]), str):
            raise Drop("wrong type", f"{name}[{index}] is not a turn with {roles[0]} and {roles[1]}")
        yield turn[roles[0]], _parts(turn.get(roles[1]), f"{name}[{index}].{roles[1]}")


def one_exchange(chat: list[tuple[str, Content]], name: str, roles: tuple[str, str]) -> tuple[Content, Content]:
    """Return question and answer of a chat with exactly one exchange between ``roles``; raises Drop for any other."""
    found = [role for role, _ in chat]
    if found == list(roles):
        if blank(chat[1][1]):
            raise Drop("blank text", name)
        return chat[0][1], chat[1][1]
    if len(found) > 2 and found.count(roles[0]) > 1:
        raise Drop("several turns", f"{name} has {len(found)}")
    raise Drop("unexpected turns", f"{name}: {', '.join(found[:6]) or 'none'} instead of {', '.join(roles)}")
