"""Find all problems in the rows of a pair file, images included.

:mod:`r1_reward.store.pairs` feeds rows to a :class:`Checker` while it reads a file::

    checker = Checker("pairs.jsonl", folder=Path("."), check_images=True)
    checker.check(3, {"id": "7", "question": "Which digit?", ...})      # line 3
    checker.finish()                                                    # raises PairFileError if there are problems

An image inside a content is named by its part: ``response_1[2].image``. Rows that repeat or contradict an earlier one
are problems in training data, but not in rows to judge; reasoning that contradicts its label is a problem in rows to
imitate. The caller chooses which checks apply.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from r1_reward.records.checks import PairFileError, Problem, reasoning_problem, text_problems, to_pair
from r1_reward.records.content import Place, map_media, seen
from r1_reward.records.errors import kind_of
from r1_reward.records.schema import CONTENTS, PreferencePair
from r1_reward.store.images import ImageError, check_image, short_name
from r1_reward.store.part_columns import media_at, with_media
from r1_reward.store.video import FRAMES, open_video

_TELLING = ("question", "images", "response_1", "response_2", "preferred")
_HASH = "sha256:"
_REMEDY = "`r1-reward data mix` removes such rows"


class Medium(NamedTuple):
    """An image or video of a row: its field, its place, and a key that is equal for equal media."""

    field: str
    place: Place
    key: Any


class Checker:
    """Collects the problems of one file; remembers the rows and images it has seen, but never pixels.

    ``repeats``: rows that repeat or contradict an earlier one are problems. ``reasoning``: reasoning that contradicts
    the label is a problem. ``ties``: rows without a winner are valid.
    """

    def __init__(
        self,
        file: str,
        folder: Path,
        check_images: bool,
        video_frames: int = FRAMES,
        *,
        repeats: bool = True,
        reasoning: bool = False,
        ties: bool = True,
    ) -> None:
        self.file, self.check_images, self.video_frames = file, check_images, video_frames
        self.repeats, self.reasoning, self.ties = repeats, reasoning, ties
        self.folder = Path(os.path.abspath(folder))
        self.problems: list[Problem] = []
        self.rows = 0
        self._unusable = 0
        self._images: dict[str, str | None] = {}
        self._videos: dict[str, str | None] = {}
        self._seen: dict[bytes, dict[bool, tuple[int, bool | None]]] = {}
        self._contents: dict[str, str] = {}

    def add(self, line: int, field: str, reason: str) -> None:
        """Record a problem, in text that any terminal can print."""
        clean = [text.encode("utf-8", "backslashreplace").decode() for text in (field, reason)]
        self.problems.append(Problem(self.file, line, *clean))

    def unusable(self, line: int, reason: str) -> None:
        """Record a row that is not an object with fields."""
        self.rows += 1
        self._unusable += 1
        self.add(line, "", reason)

    def finish(self) -> None:
        """Raise PairFileError if there were problems or no rows at all."""
        if not self.rows and not self.problems:
            self.add(0, "", "has no rows")
        if self._unusable == self.rows > 1:  # a single mistake, reported once
            first = self.problems[0]
            reason = f"none of its {self.rows:,} rows can be read; line {first.line} {first.reason}"
            self.problems = [first._replace(line=0, reason=reason)]
        if self.problems:
            raise PairFileError(self.problems, self.rows)

    def check(self, line: int, row: Any) -> bool:
        """Check one row, record its problems, and return whether it is valid."""
        before = len(self.problems)
        if not isinstance(row, dict):
            self.unusable(line, f"is {kind_of(row)}, not an object with fields")
            return False
        self.rows += 1
        if not any(name in row for name in _TELLING):
            names = ", ".join(list(row)[:20]) or "nothing"
            self.add(line, "", f"is not a pair: it has none of {', '.join(_TELLING)}, only {names}")
            return False
        media = self.media_of(row)
        keyed = self.with_keys(row)
        pair, problems = to_pair(keyed)
        compared = with_media(keyed, lambda place: self._content(place.source))
        for field, reason in [*problems, *text_problems(compared, ties=self.ties)]:
            self.add(line, field, reason)
        self.check_media(line, media)
        if row.get("images", []) == [] and not media:
            self.add(line, "images", "the row has no image and no video")
        if self.reasoning and (problem := reasoning_problem(row)):
            self.add(line, "reasoning", problem)
        if pair is not None and self.repeats:
            self._check_repeat(line, pair)
        return len(self.problems) == before

    def media_of(self, row: Mapping[str, Any], contents: Sequence[str] = CONTENTS) -> list[Medium]:
        """Return all images and videos of a row: its images, its video, and those inside its contents.

        Image parts without a source are skipped; they refer to the row's images.
        """
        cells, video = row.get("images"), row.get("video")
        listed = cells if _is_list(cells) else ()
        found = [(f"images[{index}]", Place("image", cell)) for index, cell in enumerate(listed)]
        if isinstance(video, str) and video:
            found.append(("video", Place("video", video)))
        for name in contents:
            found += [one for one in media_at(row.get(name), name) if one[1].source is not None]
        return [Medium(field, place, self._identity(place)) for field, place in found]

    def with_keys(self, row: Mapping[str, Any], contents: Sequence[str] = CONTENTS) -> dict[str, Any]:
        """Return a row with each medium replaced by its key, a text, as the schema requires."""
        keyed, cells = with_media(row, self._identity, contents), row.get("images")
        if _is_list(cells):
            keyed["images"] = [self._identity(Place("image", cell)) for cell in cells]
        return keyed

    def _identity(self, place: Place) -> Any:
        """Return a key that is equal for equal media: the real path of a file, or the hash of embedded bytes."""
        cell = place.source
        if isinstance(cell, Mapping):
            cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
        if isinstance(cell, bytes):
            return _HASH + hashlib.sha256(cell).hexdigest()
        if not isinstance(cell, str) or not cell.strip():
            return cell
        try:
            return os.path.realpath(self.folder / cell)
        except ValueError:  # NUL or a lone surrogate: not a path
            return cell

    def check_media(self, line: int, media: Sequence[Medium]) -> None:
        """Record images and videos that are blank or cannot be opened."""
        for field, place, key in media:
            if not isinstance(key, str):
                continue  # the schema reports it
            if not key.strip():
                self.add(line, field, "is blank")
            elif self.check_images and place.kind == "image":
                self._check_image(line, field, place.source, key)
            elif self.check_images and isinstance(place.source, str):
                self._check_video(line, field, place.source)

    def _check_image(self, line: int, field: str, cell: Any, key: str) -> None:
        if key not in self._images:
            data = cell.get("bytes") if isinstance(cell, Mapping) else cell
            self._images[key] = _image_problem(data if isinstance(data, bytes) else key)
        if reason := self._images[key]:
            name = cell.get("path") if isinstance(cell, Mapping) else cell
            shown = short_name(name) if isinstance(name, str) else "embedded image"
            self.add(line, field, f"{shown}: {reason}")

    def _check_video(self, line: int, field: str, video: str) -> None:
        path = os.path.join(self.folder, video)
        if path not in self._videos:
            try:
                open_video(path, self.video_frames, name=video)
                self._videos[path] = None
            except ImageError as error:
                self._videos[path] = str(error)
        if reason := self._videos[path]:
            self.add(line, field, reason)

    def _check_repeat(self, line: int, pair: PreferencePair) -> None:
        """Record a row that repeats an earlier one, or prefers the other of the same two responses.

        Both orders of a pair are not a repeat if they agree, since some people train on both.
        """

        def shown(content: Any) -> str:
            return seen(map_media(content, lambda place: self._content(place.source)))

        first, second = shown(pair.response_1), shown(pair.response_2)
        media = [self._content(image) for image in pair.images]
        video = pair.video and self._identity(Place("video", pair.video))
        content = json.dumps([shown(pair.question), media, video, *sorted((first, second)), pair.criteria])
        rows = self._seen.setdefault(hashlib.sha256(content.encode()).digest()[:16], {})
        in_order = first <= second
        # Relative to the sorted order; None is a tie.
        prefers_first = (pair.preferred == 1) == in_order if pair.preferred else None
        if in_order in rows:
            other, preference = rows[in_order]
            against = "" if preference == prefers_first else _against(preference, prefers_first)
            self.add(line, "", f"repeats line {other}{against}; {_REMEDY}")
            return
        rows[in_order] = line, prefers_first
        other, preference = rows.get(not in_order, (0, prefers_first))
        if preference != prefers_first:
            against = _against(preference, prefers_first).removeprefix(", with ")
            self.add(
                line, "", f"contradicts line {other}: the same responses in the other order, but {against}; {_REMEDY}"
            )

    def _content(self, image: Any) -> Any:
        """Return the key to compare an image by: the hash of its bytes if images are checked, else its path."""
        if not isinstance(image, str) or not self.check_images or image.startswith(_HASH):
            return image
        if image not in self._contents:
            try:
                self._contents[image] = _HASH + hashlib.sha256(Path(image).read_bytes()).hexdigest()
            except (OSError, ValueError):  # reported already
                self._contents[image] = image
        return self._contents[image]


def _against(earlier: bool | None, later: bool | None) -> str:
    """Return in words how two rows with the same responses disagree."""
    return ", with a tie in one of them" if None in (earlier, later) else ", with the other response preferred"


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _image_problem(source: str | bytes) -> str | None:
    try:
        check_image(source)
    except ImageError as error:
        return error.reason
    return None
