"""Open the images and videos of a question or response, from any kind of source.

    open_picture("scene.png"), open_picture(png), open_picture({"bytes": png, "path": None})
    open_content(["Here it is:", {"type": "image", "image": "drawn.png"}], "response_1")     # a Mixed
    open_content("A three.", "response_1")                                                    # the text itself

Texts are returned unchanged; :mod:`r1_reward.records.prompt` neutralizes them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from PIL import Image

from r1_reward.records.content import Content, ContentError, Mixed, Place, Shown, read_parts
from r1_reward.records.errors import UserError
from r1_reward.store.encoded import decode, decode_bare, kind_of_source
from r1_reward.store.images import ImageError, open_image
from r1_reward.store.video import FRAMES, Video, open_video


def open_content(content: Content, name: str, *, video_frames: int = FRAMES) -> Shown:
    """Return a content with its images opened; a content with only text is returned as text.

    A video that does not set its own number is sampled at up to ``video_frames`` frames. ``name`` is the content's name
    in error messages. A content that is already open is returned unchanged.

    Raises:
        UserError: If it is neither text nor a list of parts, or an image part has no image.
        ImageError: If an image cannot be used; the message says which and why.
    """
    if isinstance(content, str | Mixed):
        return content
    try:
        parts = read_parts(content)
    except ContentError as error:
        raise UserError(f"{name}: {error}.") from error
    pieces: list[Any] = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            pieces.append(part)
        elif part.source is None:
            raise UserError(f"{name}: part {number + 1} is a placeholder for {_an(part.kind)}, but none was given.")
        else:
            pieces += _open_place(part, f"{name}, part {number + 1}", video_frames)
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(pieces)
    return Mixed(tuple(pieces), _key(pieces))


def _an(kind: str) -> str:
    return "an image" if kind == "image" else "a video"


def _open_place(place: Place, name: str, frames: int) -> list[Image.Image]:
    if place.kind == "image" and not isinstance(place.source, Video):
        return [open_picture(place.source, name)]
    video = place.source if isinstance(place.source, Video) else Video(place.source)
    return open_video(video.path, frames if video.frames is None else video.frames)


def open_picture(source: Any, name: str) -> Image.Image:
    """Return an image as 8-bit RGB from a path, data URI, base64, ``file://`` URL, bytes, cell or PIL image.

    Nothing is downloaded. ``name`` is the image's name in error messages.

    Raises:
        UserError: If it is none of these.
        ImageError: If it cannot be used; the message says why.
    """
    if isinstance(source, Mapping):  # a cell of a dataset
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
        if source is None:
            raise ImageError(name, "has neither bytes nor a path")
    if isinstance(source, str):
        return _open_text(source, name)
    if isinstance(source, (bytes, Image.Image)):
        return open_image(source, name=name)
    if isinstance(source, (bytearray, memoryview)):
        return open_image(bytes(source), name=name)
    if not hasattr(source, "__fspath__"):
        raise UserError(
            f"{name}: must be a path, the bytes of a file, a PIL image or a Video, not {type(source).__name__}."
        )
    return open_image(source)


def _open_text(source: str, name: str) -> Image.Image:
    """Open the image that a text names or encodes."""
    if kind_of_source(source) == "data":
        try:
            return open_image(decode(source), name=name)
        except ValueError as error:
            raise ImageError(name, f"is an invalid data URI: it {error}") from error
    if source[:7].lower() == "file://":
        return open_image(url2pathname(urlsplit(source).path))
    data = None if os.path.exists(source) else decode_bare(source)
    return open_image(source) if data is None else open_image(data, name=name)


def pixel_digest(pictures: Iterable[Image.Image]) -> str:
    """Return a digest (64 hex digits) of the pixels of images."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.width}x{picture.height}:".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()


def _key(pieces: Iterable[Any]) -> str:
    seen = [[piece] if isinstance(piece, str) else pixel_digest([piece]) for piece in pieces]
    return "parts:" + hashlib.sha256(json.dumps(seen).encode()).hexdigest()
