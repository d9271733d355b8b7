"""What all sources share: a candidate pair, a reason to drop, and a row whose fields are asked for one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from r1_reward.records.errors import kind_of
from r1_reward.records.placeholders import at_one_end, find_placeholders, mismatch, name_pictures
from r1_reward.records.schema import Answer
from r1_reward.records.texts import is_blank, same_text

REASONS = {
    "not JSON": "the line is no JSON object in UTF-8",
    "missing field": "a field is not there, or null",
    "wrong type": "a field holds another kind of value than its source documents",
    "blank text": "the question or an answer is empty, white space, or characters that show nothing",
    "unusable text": "a text holds NUL or a lone surrogate, or is longer than a pair file accepts",
    "identical answers": "both answers are the same text, or look the same",
    "tie": "neither answer is preferred",
    "unreadable label": "the rating, winner or answer cannot be read, such as N/A",
    "machine judge": "the vote is a model's where people's are wanted",
    "error reply": "an answer is an error message of the server that hosted the model",
    "several turns": "the conversation has more than one question and one answer",
    "unexpected turns": "the turns are not one question and one answer, or the two sides were asked different things",
    "unreadable prompt": "the finished prompt cannot be cut into question and responses without doubt",
    "picture places": "the question has places (<image>) for another number of pictures than the row has",
    "no image": "the row names no image",
    "several media": "the row has several images, or image and video, where one is allowed",
    "image missing": "the image is not below the image folder",
    "image outside root": "the path of the image leads out of the image folder",
    "image too large": "the image file is larger than an image file may be",
    "image damaged": "the image cannot be decoded, or is of a kind or shape that is not supported",
    "video missing": "the video, or the folder of its frames, is not below the image folder",
}
"""Every reason for which a row or pair is dropped, and what it means."""

_IMAGE_PARTS = ("image", "image_url", "input_image")
_VIDEO_PARTS = ("video", "video_url", "input_video")
_TEXT_PARTS = ("text", "input_text", "output_text")
_TOKENS = {"image": "<image>", "video": "<video>"}


class Drop(Exception):
    """A row, or one pair of a row, is of no use: ``reason`` is a key of ``REASONS``, ``detail`` says where."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class Candidate(NamedTuple):
    """A pair as a source gives it, with media not looked at yet."""

    id: str
    """Empty where the source gives none."""
    question: str
    chosen: str
    rejected: str
    images: tuple[Mapping[str, Any], ...] = ()
    """Cells ``{"bytes": ..., "path": ...}`` with paths as given."""
    video: str | None = None
    """Path of a file or of a folder of frames, as given."""
    kind: str = ""
    preferred: Answer | None = None
    """Which response the chosen answer is in a source that fixes the order; None leaves it to the import."""
    kept: Mapping[str, Any] = {}
    """Fields of the pair that stay as they are, in rows that were exported from a pair folder."""


class Row:
    """A raw row; the methods return a field in the form asked for, or raise Drop."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data

    def value(self, name: str) -> Any:
        """Return a field that is not null; raises Drop("missing field")."""
        value = self.data.get(name)
        if value is None:
            raise Drop("missing field", name)
        return value

    def text(self, name: str) -> str:
        """Return a text that is not blank."""
        return a_text(self.value(name), name)

    def label(self, *names: str) -> str:
        """Return the first of the fields that is a text or a whole number, as text; empty if none is."""
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

    def image(self, *names: str) -> Mapping[str, Any]:
        """Return the first of the fields that holds an image, as a cell; raises Drop if none does."""
        for name in names:
            if (cell := an_image(self.data.get(name), name)) is not None:
                return cell
        raise Drop("no image" if any(name in self.data for name in names) else "missing field", " or ".join(names))


def a_text(value: Any, name: str) -> str:
    """Return a text that is not blank, or raise Drop with the name of its field."""
    if not isinstance(value, str):
        raise Drop("wrong type", f"{name} is {kind_of(value)}, not text")
    if is_blank(value):
        raise Drop("blank text", name)
    return value


def an_image(value: Any, name: str) -> Mapping[str, Any] | None:
    """Return an image as a cell ``{"bytes": ..., "path": ...}``, None if there is none; raises Drop("wrong type")."""
    cell = value if isinstance(value, Mapping) else {"bytes" if isinstance(value, bytes) else "path": value}
    data, path = cell.get("bytes"), cell.get("path")
    if not isinstance(data, bytes | None) or not isinstance(path, str | None):
        raise Drop("wrong type", f"{name} is {kind_of(value)}, not a path or an embedded image")
    return {"bytes": data, "path": path} if data is not None or path else None


def without_image_tags(question: str, name: str, pictures: int | None = None) -> str:
    """Return a question without the places for pictures (``<image>``) before or behind it; raises Drop if it is blank.

    They say where a chat format splices the pictures in; a pair carries its pictures beside the text. A question that
    has some in the middle, or at both ends, is returned as it is, for there the places say something. ``pictures`` is
    how many the row has; places for another number of them raise Drop. None: nobody can say, as with a video.
    """
    found = find_placeholders(question)
    if pictures is not None and (reason := mismatch(found, pictures)):
        raise Drop("picture places", f"{name} {reason}")
    starts, ends = [0, *(place.end for place in found)], [*(place.start for place in found), len(question)]
    spoken = [text for start, end in zip(starts, ends, strict=True) if not is_blank(text := question[start:end])]
    alone = len(spoken) == 1 and bool(found) and at_one_end(question, found)
    return spoken[0].strip() if alone else a_text(question if spoken else "", name)


def require_same_question(first: str, second: str, sides: str) -> None:
    """Raise Drop if the two sides of a pair were asked different things."""
    if not same_text(first, second):
        raise Drop("unexpected turns", f"{sides} different questions")


def turns(value: Any, name: str, roles: tuple[str, str] = ("role", "content")) -> Iterator[tuple[str, str]]:
    """Yield role and text of each turn of a chat; ``roles`` names the two fields. Raises Drop where there is no text.

    A text may be a list of parts, as :func:`part_text` reads it.
    """
    if not isinstance(value, list):
        raise Drop("wrong type", f"{name} is {kind_of(value)}, not a list of turns")
    for index, turn in enumerate(value):
        if not isinstance(turn, Mapping) or not isinstance(turn.get(roles[0]), str):
            raise Drop("wrong type", f"{name}[{index}] is not a turn with {roles[0]} and {roles[1]}")
        yield turn[roles[0]], part_text(turn.get(roles[1]), f"{name}[{index}].{roles[1]}")


def part_text(content: Any, name: str) -> str:
    """Return the text of the content of a turn, which is text or a list of parts; it may be blank.

    Parts are ``[{"type": "text", "text": ...}, {"type": "image"}]``. Text parts are joined. Pictures are shown in front
    of the text, so one between two texts is named there, by its number: "Is image 1 taken after image 2?" Where a text
    has places of its own (``<image>``), these say where the pictures belong, and the parts do not.
    """
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        if len(parts) < len(content):
            raise Drop("wrong type", f"{name} has a part that is not an object")
        if other := next((kind for kind in map(_kind, parts) if kind != "text" and kind not in _TOKENS), None):
            raise Drop("wrong type", f"{name} has a part of type {other[:40]!r}; text and pictures are read")
        texts = [part["text"] for part in parts if _kind(part) == "text" and part.get("text") is not None]
        if all(isinstance(text, str) for text in texts):
            joined = "".join(texts)
            if find_placeholders(joined) or not any(_kind(part) in _TOKENS for part in parts):
                return joined
            shown = [
                part.get("text") or "" if _kind(part) == "text" else _TOKENS.get(_kind(part), "") for part in parts
            ]
            return name_pictures("".join(shown))
    if not isinstance(content, str):
        raise Drop("wrong type", f"{name} is {kind_of(content)}, not text")
    return content


def _kind(part: Mapping[str, Any]) -> str:
    """Return what a part is; without a type, the field it has says so."""
    kind = part.get("type") or next((name for name in ("text", *_IMAGE_PARTS, *_VIDEO_PARTS) if part.get(name)), "text")
    names = {"image": _IMAGE_PARTS, "video": _VIDEO_PARTS, "text": _TEXT_PARTS}
    return next((name for name, spellings in names.items() if kind in spellings), str(kind))


def media_parts(content: Any, kind: Literal["image", "video"]) -> int:
    """Count the parts of a kind in the content of a turn."""
    parts = content if isinstance(content, list) else []
    return sum(isinstance(part, Mapping) and _kind(part) == kind for part in parts)


def one_exchange(chat: list[tuple[str, str]], name: str, roles: tuple[str, str]) -> tuple[str, str]:
    """Return question and answer of a chat that is one exchange between ``roles``; raises Drop for any other."""
    found = [role for role, _ in chat]
    if found == list(roles):
        return chat[0][1], a_text(chat[1][1], name)
    if len(found) > 2 and found.count(roles[0]) > 1:
        raise Drop("several turns", f"{name} has {len(found)}")
    raise Drop("unexpected turns", f"{name}: {', '.join(found[:6]) or 'none'} instead of {', '.join(roles)}")
