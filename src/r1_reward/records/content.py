"""What a question or a response is: a text, or texts, pictures and videos in their order.

A plain text is the short form. Longer contents are lists of *parts*, in files as in programs::

    "Which of the two is older?"
    [{"type": "text", "text": "Is "}, {"type": "image", "image": "a.png"}, {"type": "text", "text": " a cat?"}]

In programs a part may also be the text or the picture itself: ``["Is ", picture, " a cat?"]``. A part
``{"type": "image"}`` without a picture stands for the next one of those that come beside the text (the row's
``images``); :func:`fill_places` gives it that.

>>> text_of([{"type": "text", "text": "Is "}, {"type": "image", "image": "a.png"}, " a cat?"])
'Is [image] a cat?'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from r1_reward.records.errors import kind_of
from r1_reward.records.texts import is_blank, same_text, visible

Kind = Literal["image", "video"]

_PICTURES = ("image", "image_url", "input_image")
_VIDEOS = ("video", "video_url", "input_video")
_TEXTS = ("text", "input_text", "output_text")
_HOLDERS = {
    "image": ("image", "image_url", "url", "path", "base64", "source"),
    "video": ("video", "video_url", "url", "path", "source"),
}


_LIKE_A_KEY = re.compile("(?:text:)*parts:[0-9a-f]{64}")  # see Mixed.key


class ContentError(ValueError):
    """A content cannot be read; the message follows the name of the field or prompt."""


class Place(NamedTuple):
    """Where a picture or a video stands in a content."""

    kind: Kind
    source: Any = None
    """The picture or video as it was given; None where it comes beside the content."""


Piece: TypeAlias = str | Place


class Mixed(NamedTuple):
    """A content with its pictures opened, ready to be shown; :func:`r1_reward.judge.prepare.open_content` makes it."""

    pieces: tuple[Any, ...]
    """Texts and PIL images in their order; a video is its frames. No two texts are neighbours."""
    key: str
    """What tells it from other contents: its texts, and digests of its pixels."""

    @property
    def pictures(self) -> list[Any]:
        """The pictures in their order."""
        return [piece for piece in self.pieces if not isinstance(piece, str)]

    @property
    def text(self) -> str:
        """The content as a text that says where pictures stand."""
        return "".join(piece if isinstance(piece, str) else "[image]" for piece in self.pieces)


Shown: TypeAlias = "str | Mixed"
"""A content as a judge is shown it."""
Content: TypeAlias = "str | Sequence[Any] | Mixed"
"""A content as it may be given: text, or a list of parts."""


def read_parts(content: Any) -> list[Piece]:
    """Return the texts and places of a content, in their order; neighbouring texts are joined by a line break.

    Read are our own parts and those of chats (OpenAI's ``image_url``, Anthropic's ``source``, TRL's bare ``image``).
    Anything else within a list is the source of a picture.

    Raises:
        ContentError: it is neither text nor a list, or a part of it is of another kind.
    """
    if isinstance(content, str):
        return [content]
    if isinstance(content, Mixed):
        return [piece if isinstance(piece, str) else Place("image", piece) for piece in content.pieces]
    if not isinstance(content, Iterable) or isinstance(content, Mapping | bytes):
        raise ContentError(f"must be text or a list of parts, not {kind_of(content)}")
    pieces: list[Piece] = []
    for part in content:
        piece = _piece(part)
        if isinstance(piece, str) and pieces and isinstance(pieces[-1], str):
            pieces[-1] = f"{pieces[-1]}\n{piece}"
        elif piece != "":
            pieces.append(piece)
    return pieces


def _piece(part: Any) -> Piece:
    if isinstance(part, str | Place):
        return part
    if not isinstance(part, Mapping):
        if part is None or isinstance(part, bool | int | float | list | tuple):
            what = "a list" if isinstance(part, tuple) else kind_of(part)
            raise ContentError(f"has a part that is neither text nor an object, but {what}")
        return Place("video" if type(part).__name__ == "Video" else "image", part)
    known = (*_PICTURES, *_VIDEOS, "text")
    kind = part.get("type") or next((name for name in known if part.get(name) is not None), None)
    if kind in _TEXTS:
        text = part.get("text", part)
        if not isinstance(text, str | None):
            what = "without text" if text is part else f"whose text is {kind_of(text)}"
            raise ContentError(f"has a text part {what}")
        _require_alone(part, "text", (*_PICTURES, *_VIDEOS))
        return text or ""
    if kind not in (*_PICTURES, *_VIDEOS):
        raise ContentError(f"has a part of type {str(kind)[:40]}; a part is text, image or video")
    medium: Kind = "video" if kind in _VIDEOS else "image"
    _require_alone(part, medium, ("text", *(_PICTURES if medium == "video" else _VIDEOS)))
    source = next((part[name] for name in _HOLDERS[medium] if part.get(name) is not None), None)
    if isinstance(source, Mapping) and not source.keys() & {"bytes", "path"}:
        source = source.get("url") or source.get("data")  # OpenAI's and Anthropic's forms
    if isinstance(source, Mapping) and source.get("bytes") is None and source.get("path") is None:
        source = None  # an empty cell of a table
    return Place(medium, None if isinstance(source, str) and not source.strip() else source)


def _require_alone(part: Mapping[str, Any], kind: str, others: Iterable[str]) -> None:
    """Raise ContentError if a part holds something else as well, which nobody would be shown."""
    for name in others:
        given = part.get(name)
        if given is not None and not (isinstance(given, str) and is_blank(given)):
            raise ContentError(f"has a part of type {kind} that also has {name}; let that be a part of its own")


def to_parts(content: Content) -> str | list[dict[str, Any]]:
    """Return a content in the form of files: text where it is nothing else, else a list of parts."""
    pieces = read_parts(content)
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(piece for piece in pieces if isinstance(piece, str))
    return [
        {"type": "text", "text": piece} if isinstance(piece, str) else _part(piece.kind, piece.source)
        for piece in pieces
    ]


def _part(kind: Kind, source: Any) -> dict[str, Any]:
    return {"type": kind} if source is None else {"type": kind, kind: source}


def text_of(content: Content) -> str:
    """Return a content as one text, which says ``[image]`` or ``[video]`` where one stands."""
    if isinstance(content, str):
        return content
    return "".join(piece if isinstance(piece, str) else f"[{piece.kind}]" for piece in read_parts(content))


def places_of(content: Content) -> list[Place]:
    """Return the places of a content's pictures and videos, in their order."""
    return [] if isinstance(content, str) else [piece for piece in read_parts(content) if isinstance(piece, Place)]


def map_media(content: Content, change: Callable[[Place], Any]) -> str | list[dict[str, Any]]:
    """Return a content in the form of files, with another source at each of its places."""
    if isinstance(content, str):
        return content
    pieces = [piece if isinstance(piece, str) else Place(piece.kind, change(piece)) for piece in read_parts(content)]
    return to_parts(pieces)


def fill_places(contents: Sequence[Content], images: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return contents of which every image has its source, and the images that are left: those without a place.

    Parts without a source take the ``images`` in order, through all contents. Where no content has such a part all
    images are left.

    Raises:
        ContentError: there are more places than images, or images are left although the contents name places.
    """
    wanted = sum(place.source is None and place.kind == "image" for one in contents for place in places_of(one))
    if not wanted:
        return list(contents), list(images)
    if wanted != len(images):
        parts = "1 image part names no picture" if wanted == 1 else f"{wanted} image parts name no picture"
        came = {0: "no image comes", 1: "1 image comes"}.get(len(images), f"{len(images)} images come")
        raise ContentError(f"{parts}, and {came} beside the text")
    left = iter(images)

    def change(place: Place) -> Any:
        return next(left) if place.source is None and place.kind == "image" else place.source

    return [map_media(one, change) for one in contents], []


def blank(content: Content) -> bool:
    """Return whether a content shows nothing: no picture, and no text that can be seen."""
    return is_blank(content) if isinstance(content, str) else not places_of(content) and is_blank(text_of(content))


def same_content(first: Content, second: Content) -> bool:
    """Return whether two contents look the same; pictures are the same where their sources are equal."""
    if isinstance(first, str) and isinstance(second, str):
        return same_text(first, second)
    return seen(first) == seen(second)


def seen(content: Content) -> str:
    """Return what is seen of a content, for comparisons: equal for contents that look the same.

    That of parts begins with a line break, which is taken off a text: no text is taken for parts.
    """
    if isinstance(content, str):
        return visible(content)
    return "\n" + repr([visible(piece) if isinstance(piece, str) else tuple(piece) for piece in read_parts(content)])


def key_of(shown: Shown) -> str:
    """Return what tells a content from others: a text itself, unless it reads like the key of parts."""
    if isinstance(shown, str):
        return f"text:{shown}" if _LIKE_A_KEY.fullmatch(shown) else shown
    return shown.key


def pictures_of(*contents: Shown) -> list[Any]:
    """Return the pictures of opened contents, in their order."""
    return [picture for content in contents if isinstance(content, Mixed) for picture in content.pictures]
