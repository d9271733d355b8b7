"""A raw row whose fields are asked for one by one, so that all that is wrong with it is noted, and what it becomes.

fields = Fields({"id": "7", "ask": "How many cups?", "answers": ["Two.", "Nine."], "image": "img/7.jpg"})
good, bad = fields.texts("answers")         # with a text missing or wrong, fields.problems says so
draft = Draft(fields.text("id"), fields.text("ask"), good, bad, 1, "counting", images=fields.image("image"))
row = to_row(draft, index=0, folder=Path("mine"))
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.bench.rows import BenchmarkRow
from r1_reward.records.errors import UserError, kind_of
from r1_reward.records.schema import Answer
from r1_reward.records.texts import is_blank
from r1_reward.store.images import ImageError, not_a_path, short_name
from r1_reward.store.video import find_video

_MISSING = "is missing"


class Draft(NamedTuple):
    """A row of any format: texts, label and category, and media as the file gives them."""

    id: str
    question: str
    response_1: str
    response_2: str
    preferred: Answer
    category: str
    images: tuple[dict[str, Any], ...] = ()
    """Cells ``{"bytes": ..., "path": ...}``, with paths as given."""
    video: str | None = None
    paper_category: str | None = None
    image_field: str = "image"
    """What the file calls the field of the image."""


class Fields:
    """A raw row whose fields are asked for one by one; ``problems`` collects (field, reason) of the wrong ones."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.problems: list[tuple[str, str]] = []

    def has(self, *names: str) -> bool:
        """Return whether any of the fields is there; null is not there."""
        return any(self.data.get(name) is not None for name in names)

    def text(self, name: str, missing: str = _MISSING) -> str:
        """Return a text that is not blank, or note what it is instead."""
        return self._checked(name, self.data.get(name), missing)

    def texts(self, name: str) -> tuple[str, str]:
        """Return a list of two texts that are not blank, or note what it is instead."""
        value = self.data.get(name)
        if not isinstance(value, list) or len(value) != 2:
            self.problems.append((name, _MISSING if value is None else "must be a list of two texts"))
            return "", ""
        first, second = (self._checked(f"{name}[{i}]", value[i], _MISSING) for i in (0, 1))
        return first, second

    def label(self, name: str, meanings: list[tuple[Any, Answer]]) -> Answer:
        """Return which response the value of a field prefers, or note that it is none of the values."""
        value = self.data.get(name)
        for meaning, answer in meanings:
            if value == meaning and repr(value) == repr(meaning):  # True is no 1
                return answer
        known = " or ".join(json.dumps(meaning) for meaning, _ in meanings)
        self.problems.append((name, _MISSING if value is None else f"must be {known}, not {short(value)}"))
        return 1

    def category(self, name: str, rule: Callable[..., str], *values: str) -> str:
        """Return the category by a rule, or note that there is none; nothing is said of a field already at fault."""
        if not all(values):
            return ""
        try:
            return rule(*values)
        except UserError as error:
            self.problems.append((name, str(error).rstrip(".")))
            return ""

    def image(self, name: str) -> tuple[dict[str, Any], ...]:
        """Return the one image as a cell, none if there is none, or note that it is neither path nor bytes."""
        value = self.data.get(name)
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


def check_media(fields: Fields, draft: Draft, folder: Path, *, check_files: bool) -> None:
    """Note what is wrong with the media of a row: none at all, or (``check_files``) files not there."""
    problems = fields.problems
    if not draft.images and draft.video is None and not any(name == draft.image_field for name, _ in problems):
        problems.append(("", "has neither an image nor a video"))
    if not check_files:
        return
    for cell in draft.images:
        if cell["bytes"] is None and (reason := _file_problem(os.path.join(folder, cell["path"]))):
            problems.append((draft.image_field, reason))
    if draft.video:
        try:
            find_video(os.path.join(folder, draft.video))
        except ImageError as error:
            problems.append(("video", str(error)))


def _file_problem(file: str) -> str | None:
    if not os.path.isfile(file):
        return f"{short_name(file)}: {not_a_path(file) or 'no such file'}"
    return None if os.path.getsize(file) else f"{file}: is empty (zero bytes)"


def to_row(draft: Draft, index: int, folder: Path) -> BenchmarkRow:
    """Return a draft without problems as a row, with the paths of its media joined to ``folder``."""
    images = [
        {"bytes": None, "path": os.path.join(folder, cell["path"])} if cell["bytes"] is None else cell
        for cell in draft.images
    ]
    return BenchmarkRow(
        index=index,
        id=draft.id,
        question=draft.question,
        response_1=draft.response_1,
        response_2=draft.response_2,
        preferred=draft.preferred,
        category=draft.category,
        content_hash=content_hash(draft),
        images=tuple(images),
        video=None if draft.video is None else os.path.join(folder, draft.video),
        paper_category=draft.paper_category,
    )


def content_hash(draft: Draft) -> str:
    """Return 16 hex digits of what is judged and which response is preferred, whatever order they are stored in.

    An embedded image counts by its bytes, a file by its path as given.
    """
    media = [
        cell["path"] if cell["bytes"] is None else "sha256:" + hashlib.sha256(cell["bytes"]).hexdigest()
        for cell in draft.images
    ]
    media += [draft.video] if draft.video is not None else []
    responses = [draft.response_1, draft.response_2]
    if draft.preferred == 2:
        responses.reverse()
    return hashlib.sha256(json.dumps([draft.question, *responses, media]).encode()).hexdigest()[:16]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def short(value: Any) -> str:
    """Return a value as JSON, cut after 40 characters."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 40 else text[:37] + "..."
