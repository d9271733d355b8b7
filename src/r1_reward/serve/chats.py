"""Which pictures a trainer's prompt shows, and what its turns say around them: the one place for every dialect.

A trainer marks a picture by a token in the text, by a part of a message that holds it, or by a part without it, whose
picture travels beside the prompt::

    turns = [read_turn("user", ["Is ", {"type": "image"}, " older than ", {"type": "image"}, "?"])]
    show(turns, [one, other]).contents  # [["Is ", Place("image", one), " older than ", Place("image", other), "?"]]
    show(turns)                         # WrongPictures: has placeholders for 2 images (an image part), but none was ...

Nothing is judged blind: every place has its picture, and no other number of pictures comes with it.
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
    """A prompt cannot be shown to a judge; the message follows the name of the prompt."""


class WrongPictures(PromptError):
    """The pictures that came are not as many as the places for them."""


class Turn(NamedTuple):
    """One message: texts and pictures in their order."""

    role: str
    pieces: list[Piece]

    def without_sources(self) -> Turn:
        """Return the turn for pictures that all come beside the chat."""
        return Turn(self.role, [piece if isinstance(piece, str) else Place("image") for piece in self.pieces])


class Shown(NamedTuple):
    """What a judge is shown of a chat."""

    contents: list[Content]
    """Of each turn, without any vision token: text, or texts and pictures in their order."""
    pictures: list[Any]
    """Those without a place: pictures that the text speaks of by number, frames of a video, what came beside others."""

    @property
    def everything(self) -> list[Any]:
        """All pictures, in the order of the chat."""
        return [*sources_of(*self.contents), *self.pictures]


def sources_of(*contents: Content) -> list[Any]:
    """Return the pictures of contents, in their order."""
    return [place.source for content in contents for place in places_of(content)]


def pictures_in(row: Mapping[str, Any]) -> list[Any]:
    """Return the pictures of a data set's row: of its column ``images``, or of ``image`` where that holds none."""
    for name in ("images", "image"):
        given: Any = row.get(name)
        if getattr(given, "ndim", 0) == 1 and hasattr(given, "tolist") and not isinstance(given, memoryview):
            given = given.tolist()  # as parquet files are read
        single = not isinstance(given, Sequence) or isinstance(given, str | bytes | bytearray | memoryview)
        empty = given is None or (isinstance(given, str) and is_blank(given))
        pictures = [] if empty else [given] if single else list(given)
        if pictures:
            return pictures
    return []


def read_turn(role: str, content: Any) -> Turn:
    """Return a message of any trainer's chat, of which the content is text, a list of parts, or nothing.

    Raises:
        PromptError: it is neither, or a part is neither text nor picture.
    """
    try:
        pieces = [] if content is None else read_parts(content)
    except ContentError as error:
        raise PromptError(f"has a message whose content {error}") from error
    if any(isinstance(piece, Place) and piece.kind == "video" for piece in pieces):
        raise PromptError("has a part of type video; parts of a message must be text or images")
    return Turn(role, pieces)


def show(turns: Sequence[Turn], beside: Sequence[Any] = ()) -> Shown:
    """Return what a judge is shown of a chat, the pictures of which are in its parts or came ``beside`` it, in order.

    Parts and tokens may mark the same pictures (a trainer that adds parts to a text with ``<image>`` in it). Where
    pictures have numbers in the text, or a video is named there, all are shown in front, and the text names them
    ("image 2").

    Raises:
        WrongPictures: they are not as many as the places for them.
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
    by_token = twice and bool(tokens)  # which says where in the text
    if any(place.number is not None or place.kind == "video" for place in tokens):
        return Shown(list(_named(turns, parts=not by_token)), pictures)
    left = iter(pictures)
    placed: list[Content] = [_placed(turn, left, parts=not by_token) for turn in turns]
    return Shown(placed, list(left))


def in_front(turns: Iterable[tuple[str, Content]]) -> bool:
    """Return whether all pictures of some turns come before whatever is said, other than by the system."""
    spoken = False
    for role, content in turns:
        for piece in read_parts(content):
            if isinstance(piece, Place) and spoken:
                return False
            spoken = spoken or (isinstance(piece, str) and role not in _SILENT and not is_blank(piece))
    return True


def said(content: Content) -> str:
    """Return what a turn says, without its pictures and without white space around it."""
    return "".join(piece for piece in read_parts(content) if isinstance(piece, str)).strip()


def joined(pieces: Iterable[Piece]) -> Content:
    """Return pieces as a content: neighbouring texts are one, and there is no white space around it."""
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
    """Return a turn with the next pictures at its tokens and, if these are places, its parts."""
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
    """Yield the texts of turns that name their pictures, all of which are shown in front."""
    marked = [_marked(turn, parts=parts) for turn in turns]
    several = sum(bool(find_placeholders(text)) for text in marked) > 1
    before = 0
    for text in marked:
        yield name_pictures(text, before, ends=several)
        before += len(_unnumbered(text))


def _unnumbered(text: str) -> list[Placeholder]:
    return [place for place in find_placeholders(text) if place.kind == "image" and place.number is None]


def _marked(turn: Turn, *, parts: bool) -> str:
    """Return the text of a turn, with a token for each of its parts if these are to be named."""
    pieces = [piece if isinstance(piece, str) else _TOKEN for piece in turn.pieces if parts or isinstance(piece, str)]
    return "\n".join(pieces)


def _in_order(turns: Sequence[Turn], beside: Sequence[Any], *, tokens: bool) -> Iterator[Any]:
    """Yield the pictures: each part's own, or the next of those beside; then what is left of these."""
    left = iter(beside)
    for turn in turns:
        for piece in turn.pieces:
            if isinstance(piece, Place):
                yield piece.source if piece.source is not None else next(left)
            elif tokens:
                yield from (picture for _, picture in zip(_unnumbered(piece), left, strict=False))
    yield from left
