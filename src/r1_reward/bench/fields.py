"""Checked access to the fields of a raw row, which collects all of its problems, and the parsed row.

fields = Fields({"id": "7", "ask": "How many cups?", "answers": ["Two.", "Nine."], "image": "img/7.jpg"})
good, bad = fields.texts("answers")         # errors are collected in fields.problems
draft = Draft(fields.text("id"), fields.text("ask"), good, bad, 1, "counting", images=fields.image("image"))
row = to_row(draft, index=0, folder=Path("mine"))
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from r1_reward.bench.rows import BenchmarkRow
from r1_reward.records.content import Content, Place, map_media, places_of
from r1_reward.records.errors import UserError, kind_of
from r1_reward.records.schema import Answer, Label
from r1_reward.records.texts import is_blank
from r1_reward.store.images import ImageError, not_a_path, short_name
from r1_reward.store.video import find_video

_MISSING = "is missing"
AnyLabel = TypeVar("AnyLabel", Answer, Label)


class Draft(NamedTuple):
    """A parsed row of any format: texts, label, category, and media as given in the file."""

    id: str
    """Id of the row; rows that are scored together share it."""
    question: Content
    response_1: Content
    response_2: Content
    preferred: Label
    category: str
    images: tuple[dict[str, Any], ...] = ()
    """Cells ``{"bytes": ..., "path": ...}``, with paths as given."""
    video: str | None = None
    paper_category: str | None = None
    image_field: str = "image"
    """Name of the image field in the file."""
    criteria: str | None = None
    members: tuple[int, ...] = ()
    """0-based numbers of the two responses within their group, if a group has several pairs."""

    @property
    def places(self) -> list[tuple[str, Place]]:
        """The images and videos inside the contents, each with its field."""
        contents = (("question", self.question), ("response_1", self.response_1), ("response_2", self.response_2))
        return [(f"{name}[{i}]", place) for name, content in contents for i, place in enumerate(places_of(content))]


class Fields:
    """Checked access to the fields of a raw row.

    ``problems`` collects (field, reason) for invalid fields, ``remarks`` collects notes for the report.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.problems: list[tuple[str, str]] = []
        self.remarks: list[str] = []

    def has(self, *names: str) -> bool:
        """Return whether any of the fields is present and not null."""
        return any(self.data.get(name) is not None for name in names)

    def text(self, name: str, missing: str = _MISSING) -> str:
        """Return a non-blank text, or record a problem."""
        return self._checked(name, self.data.get(name), missing)

    def texts(self, name: str) -> tuple[str, str]:
        """Return a list of two non-blank texts, or record a problem."""
        value = self.data.get(name)
        if not isinstance(value, list) or len(value) != 2:
            self.problems.append((name, _MISSING if value is None else "must be a list of two texts"))
            return "", ""
        first, second = (self._checked(f"{name}[{i}]", value[i], _MISSING) for i in (0, 1))
        return first, second

    def label(self, name: str, meanings: Sequence[tuple[Any, AnyLabel]]) -> AnyLabel:
        """Return the label that the value of a field means, or record a problem for an unknown value."""
        value = self.data.get(name)
        for meaning, answer in meanings:
            if value == meaning and repr(value) == repr(meaning):  # True == 1
                return answer
        known = " or ".join(json.dumps(meaning) for meaning, _ in meanings)
        self.problems.append((name, _MISSING if value is None else f"must be {known}, not {short(value)}"))
        return meanings[0][1]

    def category(self, name: str, rule: Callable[..., str], *values: str) -> str:
        """Return the category given by a rule, or record a problem, unless a value is already known to be invalid."""
        if not all(values):
            return ""
        try:
            return rule(*values)
        except UserError as error:
            self.problems.append((name, str(error).rstrip(".")))
            return ""

    def list_of_texts(self, name: str, *, least: int = 1) -> list[str]:
        """Return a list of texts, or record a problem; blank texts are problems, too."""
        value = self.data.get(name)
        if not isinstance(value, list) or len(value) < least:
            wanted = f"must be a list of at least {least} text{'s' * (least != 1)}"
            self.problems.append((name, _MISSING if value is None else wanted))
            return []
        return [self._checked(f"{name}[{i}]", text, _MISSING) for i, text in enumerate(value)]

    def images(self, name: str) -> list[dict[str, Any]]:
        """Return a list of images as cells, empty if there are none; invalid images are recorded as problems."""
        value = self.data.get(name)
        if not isinstance(value, list | None):
            self.problems.append((name, f"must be a list of images, not {kind_of(value)}"))
            return []
        return [cell for i, one in enumerate(value or []) for cell in self._cell(f"{name}[{i}]", one)]

    def image(self, name: str) -> tuple[dict[str, Any], ...]:
        """Return the image as a tuple of one cell, empty if there is none, or record a problem if it is invalid."""
        return self._cell(name, self.data.get(name))

    def _cell(self, name: str, value: Any) -> tuple[dict[str, Any], ...]:
        cell = value if isinstance(value, Mapping) else {"bytes" if isinstance(value, bytes) else "path": value}
        data, path = cell.get("bytes"), cell.get("path")
        if not isinstance(data, bytes | None) or not isinstance(path, str | None):
            self.problems.append((name, f"must be a path or an embedded image, not {kind_of(value)}"))
        elif data == b"":
            self.problems.append((name, "is empty (zero bytes)"))
        elif data is not None or path:
            return ({"bytes": data, "path": path},)
        return ()

    def _checked(self, name: str, value: Any, missing: str) -> str:
        if value is None:
            reason = missing
        elif not isinstance(value, str):
            reason = f"must be text, not {kind_of(value)}"
        elif is_blank(value):
            reason = "is blank" if missing == _MISSING else missing
        elif not _is_unicode(value):
            reason = "contains a lone surrogate, which no text file can hold"
        else:
            return value
        self.problems.append((name, reason))
        return ""


def check_media(
    fields: Fields, draft: Draft, folder: Path, *, check_files: bool, needed: bool = True, most: int | None = None
) -> None:
    """Record problems with a row's media: none at all if ``needed``, more images than ``most``, or missing files.

    Files are only looked up with ``check_files``.
    """
    problems, places = fields.problems, draft.places
    said = any(name == draft.image_field for name, _ in problems)
    if needed and not draft.images and draft.video is None and not places and not said:
        problems.append(("", "has neither an image nor a video"))
    count = len(draft.images) + sum(place.kind == "image" for _, place in places)
    if most is not None and count > most:
        problems.append(("", f"has {count} images, but the limit is {most} (--max-images)"))
    if not check_files:
        return
    cells = [(draft.image_field, cell) for cell in draft.images]
    cells += [(name, place.source) for name, place in places if place.kind == "image"]
    for name, cell in cells:
        if cell["bytes"] is None and (reason := _file_problem(os.path.join(folder, cell["path"]))):
            problems.append((name, reason))
    videos = [("video", draft.video)] if draft.video else []
    videos += [(name, place.source) for name, place in places if place.kind == "video"]
    for name, video in videos:
        try:
            find_video(os.path.join(folder, video))
        except ImageError as error:
            problems.append((name, str(error)))


def _file_problem(file: str) -> str | None:
    if not os.path.isfile(file):
        return f"{short_name(file)}: {not_a_path(file) or 'no such file'}"
    return None if os.path.getsize(file) else f"{file}: is empty (zero bytes)"


def to_row(draft: Draft, index: int, folder: Path) -> BenchmarkRow:
    """Convert a valid draft to a row, with its media paths joined to ``folder``."""

    def joined(cell: dict[str, Any]) -> dict[str, Any]:
        return {"bytes": None, "path": os.path.join(folder, cell["path"])} if cell["bytes"] is None else cell

    def source(place: Place) -> Any:
        return joined(place.source) if place.kind == "image" else os.path.join(folder, place.source)

    return BenchmarkRow(
        index=index,
        id=draft.id,
        question=map_media(draft.question, source),
        response_1=map_media(draft.response_1, source),
        response_2=map_media(draft.response_2, source),
        preferred=draft.preferred,
        category=draft.category,
        content_hash=content_hash(draft),
        images=tuple(map(joined, draft.images)),
        video=None if draft.video is None else os.path.join(folder, draft.video),
        paper_category=draft.paper_category,
        criteria=draft.criteria,
        members=draft.members,
    )


def content_hash(draft: Draft) -> str:
    """Return 16 hex digits that identify the content and the preferred response, in any stored order.

    An embedded image is identified by its bytes, a file by its path as given.
    """

    media = [media_name(cell) for cell in draft.images]
    media += [draft.video] if draft.video is not None else []
    question, *responses = map(with_names, (draft.question, draft.response_1, draft.response_2))
    if draft.preferred == 2 or (draft.preferred == 0 and json.dumps(responses[0]) > json.dumps(responses[1])):
        responses.reverse()
    told_more = [draft.criteria] if draft.criteria is not None else []
    told_more += ["tie"] if draft.preferred == 0 else []
    return hashlib.sha256(json.dumps([question, *responses, media, *told_more]).encode()).hexdigest()[:16]


def media_name(cell: Mapping[str, Any]) -> str:
    """Return the identity of an image: its path, or the digest of its embedded bytes."""
    known: str = cell["path"] if cell["bytes"] is None else "sha256:" + hashlib.sha256(cell["bytes"]).hexdigest()
    return known


def with_names(content: Content) -> Content:
    """Return a content with its media replaced by their names."""
    return map_media(content, lambda place: media_name(place.source) if place.kind == "image" else place.source)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def short(value: Any) -> str:
    """Return a value as JSON, truncated to 40 characters."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 40 else text[:37] + "..."
