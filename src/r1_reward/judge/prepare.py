"""What is shown to a judge: a pair with its texts checked and its pictures opened, or why it cannot be shown.

pair = prepare(PairToJudge("Which digit is top left?", ["scene.png"], "A three.", "An eight."))
pair.shown(swapped=True)                # ("An eight.", "A three.")
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

from PIL import Image

from r1_reward.engines.engine import EngineError
from r1_reward.records.checks import MAX_RESPONSE_CHARS
from r1_reward.records.errors import UserError
from r1_reward.records.placeholders import find_placeholders, mismatch
from r1_reward.records.schema import Answer
from r1_reward.records.texts import is_blank
from r1_reward.store.encoded import decode, decode_bare, kind_of_source
from r1_reward.store.images import ImageError, ImageSource, open_image
from r1_reward.store.video import FRAMES, Video, open_video, row_pictures


class OpenedImages(NamedTuple):
    """The pictures of a question, ready to be shown any number of times; :func:`open_images` makes it."""

    pictures: tuple[Image.Image, ...]
    digest: str
    """64 hex digits that depend on the pixels alone."""
    video: bool = False
    """Whether frames of a video are among them."""


Images: TypeAlias = "Sequence[ImageSource | Video] | OpenedImages"


class PairToJudge(NamedTuple):
    """A question about pictures and two responses, of which nobody knows yet which is better."""

    question: str
    images: Images
    response_1: str
    response_2: str


class InvalidPair(EngineError):
    """One pair cannot be shown to any judge: a blank text, a picture that cannot be opened. The others go on."""


Attack: TypeAlias = "Callable[[Prepared, bool], tuple[str, str]]"
"""A pair, and whether response 2 is shown first, to the two responses in the order shown, one of them edited."""


class Prepared(NamedTuple):
    """A checked pair with its pictures opened."""

    question: str
    images: OpenedImages
    responses: tuple[str, str]
    preferred: Answer | None = None
    """The label, where there is one; only the order ``preferred-first`` and attacks look at it."""
    attack: Attack | None = None
    """Edits what is shown; orders and random numbers stay those of the pair as it was."""

    def in_order(self, swapped: bool) -> tuple[str, str]:
        """Return the responses in the order they are shown, unedited."""
        return self.responses[::-1] if swapped else self.responses

    def shown(self, swapped: bool) -> tuple[str, str]:
        """Return what is shown, in its order."""
        return self.in_order(swapped) if self.attack is None else self.attack(self, swapped)


def open_images(images: Images, *, video_frames: int = FRAMES) -> OpenedImages:
    """Open the pictures of a question: paths, bytes of files, PIL images; what is open already is returned as it is.

    A text may also be a data URI, base64 or a ``file://`` URL; nothing is fetched from elsewhere. A :class:`Video` is
    shown as its frames, up to ``video_frames`` where it does not say how many.

    Raises:
        UserError: ``images`` is one picture instead of a list.
        ImageError: a picture cannot be used; the message says which and why.
    """
    if isinstance(images, OpenedImages):
        return images
    if not isinstance(images, Sequence) or isinstance(images, (str, bytes)):
        raise UserError(f"images: must be a list of pictures, not one {type(images).__name__}.")
    pictures: list[Image.Image] = []
    for number, source in enumerate(images):
        if isinstance(source, Video):
            pictures += open_video(source.path, video_frames if source.frames is None else source.frames)
        else:
            pictures.append(_open(source, f"images[{number}]"))
    return opened(pictures)._replace(video=any(isinstance(source, Video) for source in images))


def _open(source: Any, place: str) -> Image.Image:
    if isinstance(source, Mapping):  # a cell of a data set
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
        if source is None:
            raise ImageError(place, "has neither bytes nor a path")
    if isinstance(source, str):
        return _open_text(source, place)
    if isinstance(source, (bytes, Image.Image)):
        return open_image(source, name=place)
    if isinstance(source, (bytearray, memoryview)):
        return open_image(bytes(source), name=place)
    if not hasattr(source, "__fspath__"):
        raise UserError(
            f"{place}: must be a path, the bytes of a file, a PIL image or a Video, not {type(source).__name__}."
        )
    return open_image(source)


def _open_text(source: str, place: str) -> Image.Image:
    """Open what a text names or holds."""
    if kind_of_source(source) == "data":
        try:
            return open_image(decode(source), name=place)
        except ValueError as error:
            raise ImageError(place, f"is a data URI that cannot be read: it {error}") from error
    if source[:7].lower() == "file://":
        return open_image(url2pathname(urlsplit(source).path))
    data = None if os.path.exists(source) else decode_bare(source)
    return open_image(source) if data is None else open_image(data, name=place)


def opened(pictures: Sequence[Image.Image]) -> OpenedImages:
    """Return pictures that are open already, with their digest."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.width}x{picture.height}:".encode())
        digest.update(picture.tobytes())
    return OpenedImages(tuple(pictures), digest.hexdigest())


def prepare(item: PairToJudge | Mapping[str, Any] | Prepared, *, video_frames: int = FRAMES) -> Prepared:
    """Check a pair, or a row of a pair file, and open its pictures and up to ``video_frames`` frames of its video.

    What is prepared already is returned as it is.

    Raises:
        UserError: a text is missing, blank or too long, or a picture cannot be opened; the message says which and why.
    """
    if isinstance(item, Prepared):
        return item
    preferred, is_row = None, isinstance(item, Mapping)
    if isinstance(item, Mapping):
        missing = [name for name in ("question", "response_1", "response_2") if name not in item]
        if missing:
            raise UserError(f"{missing[0]}: is missing.")
        preferred = item.get("preferred")
        images = _row_images(item, video_frames)
        item = PairToJudge(item["question"], images, item["response_1"], item["response_2"])
    check_text(item.question, "question")
    check_text(item.response_1, "response_1")
    check_text(item.response_2, "response_2")
    opened = open_images(item.images, video_frames=video_frames)
    check_pictures(item.question, opened, exact=not is_row)
    return Prepared(item.question, opened, (item.response_1, item.response_2), preferred)


def _row_images(row: Mapping[str, Any], video_frames: int) -> Images:
    """Open what :func:`r1_reward.store.pairs.load_pairs` returns: cells with the bytes or the path of a picture."""
    cells = row.get("images") or []
    if isinstance(cells, list) and any(isinstance(cell, Mapping) for cell in cells):
        return opened(row_pictures(row, video_frames))
    return [*cells, Video(row["video"])] if row.get("video") and isinstance(cells, list) else cells


def check_text(text: Any, name: str) -> None:
    """Raise UserError if a question or response is not text, blank, or longer than any judge's prompt has room for."""
    if not isinstance(text, str):
        raise UserError(f"{name}: must be text, not {type(text).__name__}.")
    if is_blank(text):
        raise UserError(f"{name}: is blank.")
    if len(text) > MAX_RESPONSE_CHARS:
        raise UserError(f"{name}: has {len(text):,} characters; at most {MAX_RESPONSE_CHARS:,} are accepted.")


def check_pictures(question: str, images: OpenedImages, *, exact: bool = True) -> None:
    """Raise UserError if the question has places for pictures that did not come: it would be judged blind.

    Nor may there be another number of pictures than of places, unless it is not ``exact``, which is for rows of files:
    these are checked where they are read. A video is any number of frames.
    """
    count = len(images.pictures)
    reason = mismatch(find_placeholders(question), count) if not count or (exact and not images.video) else None
    if reason:
        raise UserError(
            f"question: {reason}; send one for each place, or write it with a space (< image>) where none is meant."
        )


def check_group(question: str, images: Images, *, video_frames: int = FRAMES) -> OpenedImages:
    """Return the pictures of a question, opened; raises UserError if it cannot be shown with them."""
    check_text(question, "question")
    opened = open_images(images, video_frames=video_frames)
    check_pictures(question, opened)
    return opened


def prepare_all(
    items: Iterable[PairToJudge | Mapping[str, Any] | Prepared | EngineError], *, video_frames: int = FRAMES
) -> Iterator[Prepared | EngineError]:
    """Yield each pair checked and with its pictures opened, or what is wrong with it; errors are handed on."""
    for item in items:
        if isinstance(item, EngineError):
            yield item
            continue
        try:
            yield prepare(item, video_frames=video_frames)
        except UserError as error:
            invalid = InvalidPair(str(error))
            invalid.__cause__ = error
            yield invalid
