"""Read the texts and pictures of a trainer's prompt, for every dialect.

A trainer marks a picture by a token in the text, by a message part that holds it, or by a part without it, whose
picture is sent beside the prompt::

    turns = [read_turn("user", ["Is ", {"type": "image"}, " older than ", {"type": "image"}, "?"])]
    show(turns, [one, other]).contents  # [["Is ", Place("image", one), " older than ", Place("image", other), "?"]]
    show(turns)                         # WrongPictures: has places for 2 pictures (an image part), and none came

Nothing is judged blind: the number of pictures must match the number of places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from r1_reward.records.content import Content, ContentError, Piece, Place, places_of, read_parts
from r1_reward.records.placeholders import Placeholder, find_placeholders, mismatch, name_pictures
from r1_reward.records.texts import is_blank

_TOKEN = "<image>"
_SILENT = ("system", "developer")


class PromptError(ValueError):
    """A prompt cannot be shown to a judge; the message continues a sentence that begins with the prompt's name."""


class WrongPictures(PromptError):
    """The number of pictures differs from the number of places for them."""


class Turn(NamedTuple):
    """One message: texts and pictures in their order."""

    role: str
    pieces: list[Piece]

    def without_sources(self) -> Turn:
        """Return the turn with empty places, for pictures that all come beside the chat."""
        return Turn(self.role, [piece if isinstance(piece, str) else Place("image") for piece in self.pieces])


class Shown(NamedTuple):
    """A chat as a judge is shown it."""

    contents: list[Content]
    """The content of each turn without vision tokens: text, or texts and pictures in order."""
    pictures: list[Any]
    """Pictures without a place: those the text refers to by number, frames of a video, surplus ones beside the chat."""

    @property
    def everything(self) -> list[Any]:
        """All pictures, in the order of the chat."""
        return [*sources_of(*self.contents), *self.pictures]


def sources_of(*contents: Content) -> list[Any]:
    """Return the pictures of contents, in order."""
    return [place.source for content in contents for place in places_of(content)]


def pictures_in(row: Mapping[str, Any]) -> list[Any]:
    """Return the pictures of a data set's row: its column ``images``, or ``image`` if that is empty."""
    for name in ("images", "image"):
        given: Any = row.get(name)
        if getattr(given, "ndim", 0) == 1 and hasattr(given, "tolist") and not isinstance(given, memoryview):
            given = given.tolist()  # parquet readers return arrays
        single = not isinstance(given, Sequence) or isinstance(given, str | bytes | bytearray | memoryview)
        empty = given is None or (isinstance(given, str) and is_blank(given))
        pictures = [] if empty else [given] if single else list(given)
        if pictures:
            return pictures
    return []


def read_turn(role: str, content: Any) -> Turn:
    """Return a message of any trainer's chat; its content is text, a list of parts, or None.

    Raises:
        PromptError: the content is none of these, or a part is neither text nor picture.
    """
    try:
        pieces = [] if content is None else read_parts(content)
    except ContentError as error:
        raise PromptError(f"has a message whose content {error}") from error
    if any(isinstance(piece, Place) and piece.kind == "video" for piece in pieces):
        raise PromptError("has a part of type video; message parts must be text or images")
    return Turn(role, pieces)


def show(turns: Sequence[Turn], beside: Sequence[Any] = ()) -> Shown:
    """Return a chat as a judge is shown it; its pictures are in its parts or came ``beside`` it, in order.

    Parts and tokens may mark the same pictures (some trainers add parts to a text with ``<image>`` in it). If the text
    numbers its pictures or marks a video, all pictures are shown in front, and the text names them ("image 2").

    Raises:
        WrongPictures: the number of pictures differs from the number of places.
    """
    parts = [piece for turn in turns for piece in turn.pieces if isinstance(piece, Place)]
    texts = [piece for turn in turns for piece in turn.pieces if isinstance(piece, str)]
    tokens = [place for text in texts for place in find_placeholders(text)]
    nameless = sum(part.source is None for part in parts)
    total = len(parts) - nameless + len(beside)
    by_number = all(place.number is not None for place in tokens) and mismatch(tokens, total) is None
    twice = bool(parts) and len(beside) == nameless and (len(tokens) == len(parts) or by_number)
    places = [Placeholder(0, 0, "image", "an image part") for _ in parts] + ([] if twice else tokens)
    if (nameless or tokens) and (reason := mismatch(places, total)):
        raise WrongPictures(reason)
    pictures = list(_in_order(turns, beside, tokens=not twice))
    by_token = twice and bool(tokens)  # tokens say where in the text
    if any(place.number is not None or place.kind == "video" for place in tokens):
        return Shown(list(_named(turns, parts=not by_token)), pictures)
    left = iter(pictures)
    placed: list[Content] = [_placed(turn, left, parts=not by_token) for turn in turns]
    return Shown(placed, list(left))


def in_front(turns: Iterable[tuple[str, Content]]) -> bool:
    """Return whether all pictures come before any text of a turn other than the system's."""
    spoken = False
    for role, content in turns:
        for piece in read_parts(content):
            if isinstance(piece, Place) and spoken:
                return False
            spoken = spoken or (isinstance(piece, str) and role not in _SILENT and not is_blank(piece))
    return True


def said(content: Content) -> str:
    """Return the text of a turn, without its pictures and surrounding white space."""
    return "".join(piece for piece in read_parts(content) if isinstance(piece, str)).strip()


def joined(pieces: Iterable[Piece]) -> Content:
    """Return pieces as content: adjacent texts are merged and surrounding white space is stripped."""
    whole: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and whole and isinstance(whole[-1], str):
            whole[-1] += piece
        elif piece != "":
            whole.append(piece)
    if whole and isinstance(whole[0], str):
        whole[0] = whole[0].lstrip()
    if whole and isinstance(whole[-1], str):
        whole[-1] = whole[-1].rstrip()
    if all(isinstance(piece, str) for piece in whole):
        return "".join(piece for piece in whole if isinstance(piece, str))
    return [piece for piece in whole if piece != ""]


def _placed(turn: Turn, pictures: Iterator[Any], *, parts: bool) -> Content:
    """Return a turn with the next pictures at its tokens and, if ``parts``, at its parts."""
    pieces: list[Piece] = []
    for piece in turn.pieces:
        if isinstance(piece, Place):
            pieces += [Place("image", next(pictures))] if parts else ["\n"]
            continue
        end = 0
        for place in find_placeholders(piece):
            pieces += [name_pictures(piece[end : place.start]), Place("image", next(pictures))]
            end = place.end
        pieces.append(name_pictures(piece[end:]))
    return joined(pieces)


def _named(turns: Sequence[Turn], *, parts: bool) -> Iterator[str]:
    """Yield the texts of turns that name their pictures; all pictures are shown in front."""
    marked = [_marked(turn, parts=parts) for turn in turns]
    several = sum(bool(find_placeholders(text)) for text in marked) > 1
    before = 0
    for text in marked:
        yield name_pictures(text, before, ends=several)
        before += len(_unnumbered(text))


def _unnumbered(text: str) -> list[Placeholder]:
    return [place for place in find_placeholders(text) if place.kind == "image" and place.number is None]


def _marked(turn: Turn, *, parts: bool) -> str:
    """Return the text of a turn, with a token for each of its picture parts if ``parts``."""
    pieces = [piece if isinstance(piece, str) else _TOKEN for piece in turn.pieces if parts or isinstance(piece, str)]
    return "\n".join(pieces)


def _in_order(turns: Sequence[Turn], beside: Sequence[Any], *, tokens: bool) -> Iterator[Any]:
    """Yield the pictures: each part's own, or the next one beside the chat; then the rest of those."""
    left = iter(beside)
    for turn in turns:
        for piece in turn.pieces:
            if isinstance(piece, Place):
                yield piece.source if piece.source is not None else next(left)
            elif tokens:
                yield from (picture for _, picture in zip(_unnumbered(piece), left, strict=False))
    yield from left
