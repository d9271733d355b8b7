"""Find everything that is wrong with the rows of a pair file, and say it so that a person can mend it.

:mod:`r1_reward.store.pairs` feeds rows to a :class:`Checker` while it reads a file::

    checker = Checker("pairs.jsonl", folder=Path("."), check_images=True)
    checker.check(3, {"id": "7", "question": "Which digit?", ...})      # line 3
    checker.finish()                                                    # raises PairFileError if anything was wrong
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from r1_reward.records.errors import UserError
from r1_reward.records.schema import PreferencePair
from r1_reward.store.images import ImageError, check_image
from r1_reward.store.video import FRAMES, open_video

MAX_RESPONSE_CHARS = 50_000
"""Longest response accepted, in characters: about 12,000 tokens, more than any judge prompt here has room for."""

FIELDS = tuple(PreferencePair.model_fields)
REQUIRED = tuple(name for name, field in PreferencePair.model_fields.items() if field.is_required())
_LISTED = 20
_SURROGATE = "contains a lone surrogate, which no text file can hold"
_PATTERNED = ("question", "response_1", "response_2")  # pydantic itself finds a surrogate where there is a pattern


class Problem(NamedTuple):
    """One thing wrong with a pair file; ``line`` counts from 1 (rows in parquet) and is 0 for the file as a whole."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "file"
        return f"{place}, {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"


class PairFileError(UserError):
    """A pair file has problems: all of them in ``problems``, the first 20 in the message; ``rows`` were read."""

    def __init__(self, problems: Sequence[Problem], rows: int) -> None:
        self.problems = list(problems)
        self.rows = rows
        file, count = self.problems[0].file, len(self.problems)
        lines = [f"{file}: {count} problem{'s' if count > 1 else ''} in {rows} row{'' if rows == 1 else 's'}"]
        lines += [f"  {problem}" for problem in self.problems[:_LISTED]]
        if count > _LISTED:
            lines.append(f"  ... and {count - _LISTED} more. To see all: r1-reward data validate {file}")
        super().__init__("\n".join(lines))


class Checker:
    """Collects the problems of one file; remembers the rows and images it has seen, but never pixels."""

    def __init__(self, file: str, folder: Path, check_images: bool, video_frames: int = FRAMES) -> None:
        self.file, self.check_images, self.video_frames = file, check_images, video_frames
        self.folder = Path(os.path.abspath(folder))
        self.problems: list[Problem] = []
        self.rows = 0
        self._images: dict[str, str | None] = {}
        self._videos: dict[str, str | None] = {}
        self._seen: dict[str, tuple[int, int]] = {}

    def add(self, line: int, field: str, reason: str) -> None:
        """Note a problem, in text that any terminal can print."""
        clean = [text.encode("utf-8", "backslashreplace").decode() for text in (field, reason)]
        self.problems.append(Problem(self.file, line, *clean))

    def finish(self) -> None:
        """Raise PairFileError if there were problems or no rows at all."""
        if not self.rows and not self.problems:
            self.add(0, "", "holds no rows")
        if self.problems:
            raise PairFileError(self.problems, self.rows)

    def check(self, line: int, row: Any) -> bool:
        """Check one row, note what is wrong with it, and say whether it is right."""
        before = len(self.problems)
        self.rows += 1
        if not isinstance(row, dict):
            self.add(line, "", f"is {kind_of(row)}, not an object with fields")
            return False
        cells, video = row.get("images"), row.get("video")
        images = [self._identity(cell) for cell in cells] if isinstance(cells, list) else cells
        pair, problems = to_pair({**row, "images": images} if "images" in row else row)
        for field, reason in [*problems, *text_problems(row)]:
            self.add(line, field, reason)
        if row.get("images", []) == [] and (video is None or video == ""):
            self.add(line, "images", "no image and no video")
        if self.check_images:
            if isinstance(cells, list):
                self._check_images(line, cells, images or [])
            if isinstance(video, str) and video:
                self._check_video(line, video)
        if pair is not None:
            self._check_repeat(line, pair)
        return len(self.problems) == before

    def _identity(self, cell: Any) -> Any:
        """Return a text that is equal for equal images: the place of a file, the hash of embedded bytes."""
        if isinstance(cell, Mapping):
            cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
        if isinstance(cell, bytes):
            return "sha256:" + hashlib.sha256(cell).hexdigest()
        if not isinstance(cell, str):
            return cell
        try:
            return os.path.realpath(self.folder / cell)
        except ValueError:  # NUL or a lone surrogate: no path at all
            return cell

    def _check_images(self, line: int, cells: list[Any], keys: list[Any]) -> None:
        for index, (cell, key) in enumerate(zip(cells, keys, strict=True)):
            if not isinstance(key, str):
                continue  # the type is noted already
            if key not in self._images:
                data = cell.get("bytes") if isinstance(cell, Mapping) else cell
                self._images[key] = _image_problem(data if isinstance(data, bytes) else key)
            if reason := self._images[key]:
                name = cell.get("path") if isinstance(cell, Mapping) else cell
                self.add(line, f"images[{index}]", f"{name if isinstance(name, str) else 'embedded image'}: {reason}")

    def _check_video(self, line: int, video: str) -> None:
        path = os.path.join(self.folder, video)
        if path not in self._videos:
            try:
                open_video(path, self.video_frames, name=video)
                self._videos[path] = None
            except ImageError as error:
                self._videos[path] = str(error)
        if reason := self._videos[path]:
            self.add(line, "video", reason)

    def _check_repeat(self, line: int, pair: PreferencePair) -> None:
        first, preferred = self._seen.setdefault(pair.content_hash(), (line, pair.preferred))
        if first != line:
            against = "" if preferred == pair.preferred else ", with the other response preferred"
            self.add(line, "", f"repeats line {first}{against}")


def _image_problem(source: str | bytes) -> str | None:
    try:
        check_image(source)
    except ImageError as error:
        return error.reason
    return None


def to_pair(row: dict[str, Any]) -> tuple[PreferencePair | None, list[tuple[str, str]]]:
    """Return a row as a pair, or None and what is wrong with which field."""
    # Pydantic takes True and 1.0 for the literal 1.
    odd = row.get("preferred") in (1, 2) and type(row["preferred"]) is not int
    problems = [("preferred", f"must be 1 or 2, not {_short(row['preferred'])}")] if odd else []
    try:
        pair = PreferencePair.model_validate(row)
    except ValidationError as error:
        return None, problems + [_explain(one) for one in error.errors(include_url=False)]
    return (None if odd else pair), problems


def _explain(error: Any) -> tuple[str, str]:
    """Return field and reason, in plain words, of one pydantic error."""
    field = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in error["loc"])
    given = error.get("input")
    reasons: dict[str, Callable[[], str]] = {
        "missing": lambda: "is missing",
        "extra_forbidden": lambda: unknown_field(field),
        "string_pattern_mismatch": lambda: "is blank",
        "string_unicode": lambda: _SURROGATE,
        "string_type": lambda: f"must be text, not {kind_of(given)}",
        "list_type": lambda: f"must be a list, not {kind_of(given)}",
        "int_type": lambda: f"must be a whole number, not {_short(given)}",
        "literal_error": lambda: f"must be 1 or 2, not {_short(given)}",
        "greater_than_equal": lambda: f"must be 1 or more, not {_short(given)}",
    }
    return field, reasons.get(error["type"], lambda: error["msg"])()


def unknown_field(name: str) -> str:
    """Return the reason to give for a field that does not exist, with the nearest right name if one is near."""
    near = difflib.get_close_matches(name, FIELDS, n=1)
    return f"is not a known field; did you mean {near[0]}?" if near else f"is not one of {', '.join(FIELDS)}"


def text_problems(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the schema cannot say about texts."""
    for field in FIELDS:
        if isinstance(row.get(field), str) and "\0" in row[field]:
            yield field, "contains a NUL character"
        if field not in _PATTERNED and isinstance(row.get(field), str) and _has_surrogate(row[field]):
            yield field, _SURROGATE
    first, second = row.get("response_1"), row.get("response_2")
    for field, text in (("response_1", first), ("response_2", second)):
        if isinstance(text, str) and len(text) > MAX_RESPONSE_CHARS:
            yield field, f"has {len(text):,} characters; at most {MAX_RESPONSE_CHARS:,} are accepted"
    if isinstance(first, str) and isinstance(second, str) and first.strip() and first.strip() == second.strip():
        yield "response_2", "is the same as response_1"


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def kind_of(value: Any) -> str:
    """Name the type of a JSON value."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return names.get(type(value)) or ("a list" if isinstance(value, list) else "an object")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
