"""Prepare pairs for a judge: check their texts and open their pictures, or say why they cannot be shown.

pair = prepare(PairToJudge("Which digit is top left?", ["scene.png"], "A three.", "An eight."))
pair.shown(swapped=True)                # ("An eight.", "A three.")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from PIL import Image

from r1_reward.engines.engine import EngineError
from r1_reward.records.checks import MAX_RESPONSE_CHARS, placeholder_problem
from r1_reward.records.content import Content, ContentError, Mixed, Shown, fill_places, pictures_of, read_parts
from r1_reward.records.errors import UserError
from r1_reward.records.placeholders import find_placeholders, mismatch
from r1_reward.records.prompt import with_criteria
from r1_reward.records.schema import CONTENTS, Label
from r1_reward.records.texts import is_blank
from r1_reward.store.contents import open_content, open_picture, pixel_digest
from r1_reward.store.images import ImageSource
from r1_reward.store.video import FRAMES, Video, open_video, row_pictures


class OpenedImages(NamedTuple):
    """The pictures of a question, ready to be shown any number of times; made by :func:`open_images`."""

    pictures: tuple[Image.Image, ...]
    digest: str
    """64 hex digits that depend only on the pixels."""
    video: bool = False
    """Whether they include frames of a video."""


Images: TypeAlias = "Sequence[ImageSource | Video] | OpenedImages"


class PairToJudge(NamedTuple):
    """A question about pictures and two responses to compare."""

    question: Content
    images: Images
    """Shown before the question; pictures elsewhere are parts of a content."""
    response_1: Content
    response_2: Content
    criteria: str | None = None
    """The criteria to judge by, if any."""


class InvalidPair(EngineError):
    """One pair cannot be shown: a blank text, a damaged picture, pictures for a text-only judge. Others continue."""


Attack: TypeAlias = "Callable[[Prepared, bool], tuple[Shown, Shown]]"
"""Maps a pair, and whether response 2 is shown first, to the responses in the order shown, one of them edited."""


class Prepared(NamedTuple):
    """A checked pair with its pictures opened."""

    question: Shown
    images: OpenedImages
    responses: tuple[Shown, Shown]
    preferred: Label | None = None
    """The label, if any; only the order ``preferred-first`` and attacks use it."""
    attack: Attack | None = None
    """Edits what is shown; orders and random numbers remain those of the unedited pair."""

    def in_order(self, swapped: bool) -> tuple[Shown, Shown]:
        """Return the unedited responses in the order shown."""
        return self.responses[::-1] if swapped else self.responses

    def shown(self, swapped: bool) -> tuple[Shown, Shown]:
        """Return the responses as shown, after any attack."""
        return self.in_order(swapped) if self.attack is None else self.attack(self, swapped)


def open_images(images: Images, *, video_frames: int = FRAMES) -> OpenedImages:
    """Open the pictures of a question: paths, bytes of files or PIL images; opened ones are returned unchanged.

    A string may also be a data URI, base64 or a ``file://`` URL; nothing is downloaded. A :class:`Video` is shown as
    its frames, up to ``video_frames`` if it does not set the number.

    Raises:
        UserError: ``images`` is a single picture instead of a list.
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
            pictures.append(open_picture(source, f"images[{number}]"))
    return opened(pictures)._replace(video=any(isinstance(source, Video) for source in images))


def opened(pictures: Sequence[Image.Image]) -> OpenedImages:
    """Return open pictures with their digest."""
    return OpenedImages(tuple(pictures), pixel_digest(pictures))


def prepare(
    item: PairToJudge | Mapping[str, Any] | Prepared, *, video_frames: int = FRAMES, exact: bool = True
) -> Prepared:
    """Check a pair, or a row of a pair file, and open its pictures and up to ``video_frames`` frames of its video.

    A prepared pair is returned unchanged. A row was already checked when it was read, and so was any pair if ``exact``
    is False: then a question with places for pictures only needs to have some pictures (:func:`check_pictures`).

    Raises:
        UserError: a text is missing, blank or too long, or a picture cannot be opened; the message says which and why.
    """
    if isinstance(item, Prepared):
        return item
    preferred = None
    if isinstance(item, Mapping):
        exact = False
        preferred = item.get("preferred")
        item = _of_row(item, video_frames)
    if not isinstance(item, PairToJudge):
        raise UserError(f"must be a PairToJudge or a row of a pair file, not {type(item).__name__}.")
    contents, images = fill({name: getattr(item, name) for name in CONTENTS}, item.images)
    question, *responses = (
        check_content(content, name, video_frames=video_frames)
        for content, name in zip(contents, CONTENTS, strict=True)
    )
    pictures = open_images(images, video_frames=video_frames)
    check_pictures(question, pictures, exact=exact)
    return Prepared(_asked(question, item.criteria), pictures, (responses[0], responses[1]), preferred)


def _asked(question: Shown, criteria: str | None) -> Shown:
    """Return an opened question with the criteria added, if any."""
    if criteria is None:
        return question
    if places := find_placeholders(check_text(criteria, "criteria")):
        shown = f"has a place for a picture ({places[0].text}), but criteria have no pictures"
        raise UserError(f"criteria: {shown}; write it with a space (< image>) where none is meant.")
    return open_content(with_criteria(question, criteria), "question")


def _of_row(row: Mapping[str, Any], video_frames: int) -> PairToJudge:
    missing = [name for name in CONTENTS if name not in row]
    if missing:
        raise UserError(f"{missing[0]}: is missing.")
    contents = [row[name] for name in CONTENTS]
    images: Any = row.get("images") or []
    if isinstance(images, list):
        cells = any(isinstance(cell, Mapping) for cell in images)
        if cells and all(isinstance(content, str) for content in contents):  # as load_pairs returns them
            images = opened(row_pictures(row, video_frames))
        elif row.get("video"):
            images = [*images, Video(row["video"])]
    return PairToJudge(contents[0], images, contents[1], contents[2], row.get("criteria"))


def _has_parts(content: Any) -> bool:
    return isinstance(content, list | tuple) and not isinstance(content, Mixed)


def fill(contents: Mapping[str, Any], images: Any) -> tuple[list[Any], Any]:
    """Fill image parts without a picture from ``images``; return the filled contents and the images that are left.

    The keys of ``contents`` are the names for error messages. Other errors are found when the contents are opened.

    Raises:
        UserError: parts cannot be read, or they and the images do not match; the message says which.
    """
    listed = images.pictures if isinstance(images, OpenedImages) else images
    if not isinstance(listed, list | tuple) or not any(map(_has_parts, contents.values())):
        return list(contents.values()), images
    for name, content in contents.items():
        try:
            read_parts(content)
        except ContentError as error:
            raise UserError(f"{name}: {error}.") from error
    try:
        filled, left = fill_places(list(contents.values()), listed)
    except ContentError as error:
        raise UserError(f"images: {error}.") from error
    return filled, images if left else []


def check_text(text: Any, name: str) -> str:
    """Return the text; raise UserError if it is not text, blank, or too long for any judge's prompt."""
    if not isinstance(text, str):
        raise UserError(f"{name}: must be text, not {type(text).__name__}.")
    if is_blank(text):
        raise UserError(f"{name}: is blank.")
    _check_length(len(text), name)
    return text


def _check_length(length: int, name: str) -> None:
    if length > MAX_RESPONSE_CHARS:
        raise UserError(f"{name}: has {length:,} characters; at most {MAX_RESPONSE_CHARS:,} are accepted.")


def check_content(content: Any, name: str, *, video_frames: int = FRAMES) -> Shown:
    """Return a question or response with its pictures opened.

    Raises:
        UserError: it is neither text nor parts, it is blank or too long for any judge's prompt, or a picture in it
            cannot be opened.
    """
    if isinstance(content, str):
        return check_text(content, name)
    if isinstance(content, bytes | bytearray | memoryview) or not isinstance(content, Sequence):
        raise UserError(f"{name}: must be text or a list of parts, not {type(content).__name__}.")
    shown = open_content(content, name, video_frames=video_frames)
    if isinstance(shown, str):
        return check_text(shown, name)
    _check_length(sum(len(piece) for piece in shown.pieces if isinstance(piece, str)), name)
    return shown


def check_pictures(question: Shown, images: OpenedImages, *, exact: bool = True) -> None:
    """Raise UserError if the question has places for pictures but no pictures: it would be judged blind.

    If ``exact``, the numbers of pictures and places must also be equal; rows of files are checked for that when they
    are read. A video counts as any number of frames. A question of parts has its pictures in place, so its texts may
    have no places.
    """
    if isinstance(question, Mixed):
        reason = placeholder_problem(question)
    else:
        count = len(images.pictures)
        judged = not count or (exact and not images.video)
        reason = mismatch(find_placeholders(question), count) if judged else None
        reason = reason and f"{reason}; send one for each place"
    if reason:
        raise UserError(f"question: {reason}, or write it with a space (< image>) where none is meant.")


def where_pictures(pair: Prepared) -> str:
    """Describe where a pair shows pictures, as in "response 1 shows a picture"."""
    question, (first, second) = pair.question, pair.responses
    counts = {"the question": len(pair.images.pictures) + len(pictures_of(question))}
    counts |= {"response 1": len(pictures_of(first)), "response 2": len(pictures_of(second))}
    said = [
        f"{name} shows {'a picture' if count == 1 else f'{count} pictures'}" for name, count in counts.items() if count
    ]
    return " and ".join(said) or "nothing shows a picture"


def check_group(
    question: Content, images: Images, criteria: str | None = None, *, video_frames: int = FRAMES
) -> tuple[Shown, OpenedImages]:
    """Return a question with the criteria added, and its pictures, all opened.

    Raises:
        UserError: they cannot be shown.
    """
    shown = check_content(question, "question", video_frames=video_frames)
    opened_images = open_images(images, video_frames=video_frames)
    check_pictures(shown, opened_images)
    return _asked(shown, criteria), opened_images


def prepare_all(
    items: Iterable[PairToJudge | Mapping[str, Any] | Prepared | EngineError], *, video_frames: int = FRAMES
) -> Iterator[Prepared | EngineError]:
    """Yield each pair, checked and with its pictures opened, or its error; errors in ``items`` are passed through."""
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
