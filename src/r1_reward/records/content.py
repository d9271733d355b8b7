"""The content of a question or response: a text, or texts, images and videos in order.

A plain text is the short form. Other contents are lists of *parts*, both in files and in code::

    "Which of the two is older?"
    [{"type": "text", "text": "Is "}, {"type": "image", "image": "a.png"}, {"type": "text", "text": " a cat?"}]

In code a part may also be the text or the image itself: ``["Is ", picture, " a cat?"]``. A part ``{"type": "image"}``
without an image takes the next of the row's ``images``; :func:`fill_places` fills it in.

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
    """A content cannot be read; the message continues a sentence that begins with the name of the field."""


class Place(NamedTuple):
    """The position of an image or a video in a content."""

    kind: Kind
    source: Any = None
    """The image or video as given; None if it is one of the row's ``images``."""


Piece: TypeAlias = str | Place


class Mixed(NamedTuple):
    """A content with its images opened, ready for a prompt; :func:`r1_reward.judge.prepare.open_content` builds it."""

    pieces: tuple[Any, ...]
    """Texts and PIL images in order; a video is its frames. No two texts are adjacent."""
    key: str
    """Identifies the content: its texts, and digests of its pixels."""

    @property
    def pictures(self) -> list[Any]:
        """The images in order."""
        return [piece for piece in self.pieces if not isinstance(piece, str)]

    @property
    def text(self) -> str:
        """The content as text, with ``[image]`` for each image."""
        return "".join(piece if isinstance(piece, str) else "[image]" for piece in self.pieces)


Shown: TypeAlias = "str | Mixed"
"""A content ready for a judge's prompt."""
Content: TypeAlias = "str | Sequence[Any] | Mixed"
"""A content as callers pass it: text, or a list of parts."""


def read_parts(content: Any) -> list[Piece]:
    """Return the texts and places of a content in order; adjacent texts are joined by a line break.

    Parts may be our own or those of chat APIs (OpenAI's ``image_url``, Anthropic's ``source``, TRL's bare ``image``).
    Any other object in a list is the source of an image.

    Raises:
        ContentError: If it is neither text nor a list, or a part is of an unknown type.
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
            raise ContentError(f"has a part that is {what}; a part is text or an object")
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
    """Raise ContentError if a part also has content of another type, which would be lost."""
    for name in others:
        given = part.get(name)
        if given is not None and not (isinstance(given, str) and is_blank(given)):
            raise ContentError(f"has a part of type {kind} that also has {name}; put it into a separate part")


def to_parts(content: Content) -> str | list[dict[str, Any]]:
    """Return a content as it is stored in files: text if it has only text, else a list of parts."""
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
    """Return a content as one text, with ``[image]`` or ``[video]`` for each image or video."""
    if isinstance(content, str):
        return content
    return "".join(piece if isinstance(piece, str) else f"[{piece.kind}]" for piece in read_parts(content))


def places_of(content: Content) -> list[Place]:
    """Return the places of a content's images and videos in order."""
    return [] if isinstance(content, str) else [piece for piece in read_parts(content) if isinstance(piece, Place)]


def map_media(content: Content, change: Callable[[Place], Any]) -> str | list[dict[str, Any]]:
    """Return a content as it is stored in files, with the source of each place replaced by ``change(place)``."""
    if isinstance(content, str):
        return content
    pieces = [piece if isinstance(piece, str) else Place(piece.kind, change(piece)) for piece in read_parts(content)]
    return to_parts(pieces)


def fill_places(contents: Sequence[Content], images: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return the contents with a source for every image part, and the images that no part took.

    Parts without a source take the ``images`` in order, across all contents. If there are no such parts, all images
    are left.

    Raises:
        ContentError: If there are parts without a source, but not as many as images.
    """
    wanted = sum(place.source is None and place.kind == "image" for one in contents for place in places_of(one))
    if not wanted:
        return list(contents), list(images)
    if wanted != len(images):
        parts = "1 image part has no source" if wanted == 1 else f"{wanted} image parts have no source"
        given = {0: "no images were", 1: "1 image was"}.get(len(images), f"{len(images)} images were")
        raise ContentError(f"{parts}, but {given} given")
    left = iter(images)

    def change(place: Place) -> Any:
        return next(left) if place.source is None and place.kind == "image" else place.source

    return [map_media(one, change) for one in contents], []


def blank(content: Content) -> bool:
    """Return whether a content shows nothing: no image or video, and no visible text."""
    return is_blank(content) if isinstance(content, str) else not places_of(content) and is_blank(text_of(content))


def same_content(first: Content, second: Content) -> bool:
    """Return whether two contents look the same; images are compared by their sources."""
    if isinstance(first, str) and isinstance(second, str):
        return same_text(first, second)
    return seen(first) == seen(second)


def seen(content: Content) -> str:
    """Return a key for comparisons that is equal for contents that look the same.

    The key of a list of parts begins with a line break, which no text's key does.
    """
    if isinstance(content, str):
        return visible(content)
    return "\n" + repr([visible(piece) if isinstance(piece, str) else tuple(piece) for piece in read_parts(content)])


def key_of(shown: Shown) -> str:
    """Return a key that identifies a content: a text itself, unless it looks like the key of a list of parts."""
    if isinstance(shown, str):
        return f"text:{shown}" if _LIKE_A_KEY.fullmatch(shown) else shown
    return shown.key


def pictures_of(*contents: Shown) -> list[Any]:
    """Return the images of opened contents in order."""
    return [picture for content in contents if isinstance(content, Mixed) for picture in content.pictures]
