"""The first pass over the sources of a mixture: compute the keys that rows are compared by.

A row takes about a kilobyte of memory (three MinHash signatures, an exact key, the numbers of its images), whatever the
size of its images. All decisions use these keys; a second pass writes the chosen rows.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from r1_reward.data.contamination import MIDDLE_OF
from r1_reward.data.duplicates import PERMUTATIONS, ImageTable, exact_key, normalise, sign
from r1_reward.data.mix_config import Source
from r1_reward.records.content import Place, places_of, text_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS
from r1_reward.store.identity import media_digest
from r1_reward.store.images import ImageError
from r1_reward.store.part_columns import with_media
from r1_reward.store.shards import pair_files, read_rows
from r1_reward.store.video import evenly, find_video, open_video

TELLING_CHARACTERS = 200
"""Question and responses with at least this many characters in total identify a row; shorter ones recur by chance."""

_ROWS_AT_ONCE = 128


class Keys:
    """The comparison keys of all rows of all sources; rows are numbered in the order in which they are read."""

    def __init__(self, rows: int) -> None:
        self.images = ImageTable()
        self._films: dict[str, str] = {}
        self.source: list[str] = []
        self.id: list[str] = []
        self.file: list[str] = []
        self.number: list[int] = []
        """1-based number of the row in its file."""
        self.kind: list[str] = []
        self.preferred: list[int] = []
        self.fixed: list[bool] = []
        """Whether the row has reasoning, which refers to the responses by number, so they must not be swapped."""
        self.exact: list[bytes] = []
        self.orientation: list[bool] = []
        """Whether the first of the sorted responses is preferred."""
        self.pictures: list[tuple[int, ...]] = []
        """Numbers in ``images`` of the row's images, its video's middle frame and the images inside its contents."""
        self.within: list[tuple[tuple[int, ...], ...]] = []
        """Those of ``pictures`` inside question, response 1 and response 2; empty if there are none."""
        self.criteria: list[str | None] = []
        self.video: list[str | None] = []
        """Digest of the video's bytes."""
        self.prompt: list[bytes] = []
        """Hash of the normalized question."""
        self.text: list[bytes | None] = []
        """Hash of question and responses, None if they have fewer than ``TELLING_CHARACTERS``."""
        self.signatures = np.zeros((rows, 3, PERMUTATIONS), dtype=np.uint32)
        """(n, 3, 64): MinHash signatures of question, response 1 and response 2."""
        self.lengths = np.zeros((rows, 3), dtype=np.int32)
        """(n, 3): their lengths in normalized characters."""

    def __len__(self) -> int:
        return len(self.id)

    def add(self, source: str, path: str | Path, say: Callable[[str], None]) -> None:
        """Read all rows of a source; raises UserError if a row is wrong or the source has more rows than counted."""
        numbered = ((file, number, row) for file in pair_files(path) for number, row in enumerate(read_rows(file), 1))
        while batch := list(islice(numbered, _ROWS_AT_ONCE)):
            media = [_pictures(row) for _, _, row in batch]
            flat = iter(self.images.add([data for one in media for group in one for data in group]))
            for (file, number, row), groups in zip(batch, media, strict=True):
                found = [tuple(islice(flat, len(group))) for group in groups]
                self._add_row(source, file.name, number, row, found)
            if len(self) % (100 * _ROWS_AT_ONCE) < _ROWS_AT_ONCE:
                say(f"read {len(self):,} of {len(self.signatures):,} rows, {len(self.images.digests):,} images")

    def _add_row(
        self, source: str, file: str, number: int, row: Mapping[str, Any], groups: list[tuple[int, ...]]
    ) -> None:
        place = len(self)
        if place == len(self.signatures):
            raise UserError(f"{source}: has more rows than when it was counted. Make sure nothing is writing to it.")
        texts = [text_of(row[name]) for name in CONTENTS]
        video = self._video_key(row["video"])
        key, orientation = self._exact(row, [self.images.digests[picture] for picture in groups[0]])
        normal = [normalise(text) for text in texts]
        self.signatures[place] = [sign(text) for text in texts]
        self.lengths[place] = [len(text) for text in normal]
        telling = sum(map(len, normal)) >= TELLING_CHARACTERS
        self.source.append(source)
        self.id.append(row["id"])
        self.file.append(sys.intern(file))
        self.number.append(number)
        self.kind.append(sys.intern(row["kind"]))
        self.preferred.append(row["preferred"])
        self.fixed.append(bool(row["reasoning"]))
        self.exact.append(key)
        self.orientation.append(orientation)
        self.pictures.append(tuple(picture for group in groups for picture in group))
        self.within.append(tuple(groups[1:]) if any(groups[1:]) else ())
        self.criteria.append(sys.intern(row["criteria"]) if row["criteria"] else None)
        self.video.append(video)
        self.prompt.append(_digest(normal[0]))
        self.text.append(_digest("\0".join([normal[0], *sorted(normal[1:])])) if telling else None)

    def _exact(self, row: Mapping[str, Any], beside: list[bytes]) -> tuple[bytes, bool]:
        """Return the exact key of a row; ``beside`` are the digests of the images outside its contents."""
        named = with_media(row, self._name)
        return exact_key({**named, "video": self._video_key(row["video"])}, beside)

    def _name(self, place: Place) -> str:
        if place.kind == "video":
            return str(self._video_key(place.source))
        return hashlib.sha256(place.source["bytes"]).hexdigest()

    def _video_key(self, path: str | None) -> str | None:
        if path is not None and path not in self._films:
            self._films[path] = str(media_digest([path]))
        return None if path is None else self._films[path]

    def holds(self, row: int, data: Mapping[str, Any]) -> bool:
        """Return whether ``data`` still has the texts, label and images that the row had in the first pass."""
        beside = [hashlib.sha256(cell["bytes"]).digest() for cell in data["images"]]
        if data["video"]:
            beside.append(self.images.digests[self.pictures[row][len(beside)]])
        videos = [data["video"], *(place.source for place in _places(data) if place.kind == "video")]
        for video in filter(None, videos):
            self._films.pop(video, None)  # forces a new digest
        return self._exact(data, beside) == (self.exact[row], self.orientation[row])

    def place(self, row: int) -> str:
        """Return where a row was read, for messages; ids may repeat, places do not."""
        return f"{self.id[row]} (source {self.source[row]}, {self.file[row]}, row {self.number[row]})"

    def unreadable(self, row: int) -> str | None:
        """Return why an image of a row cannot be read, or None if all can."""
        reasons = (self.images.fingerprints[picture] for picture in self.pictures[row])
        return next((reason for reason in reasons if isinstance(reason, str)), None)


def count_rows(sources: Mapping[str, Source]) -> dict[str, dict[str, int]]:
    """Return how many rows of each kind every source has, without reading images."""
    counts: dict[str, dict[str, int]] = {}
    for name, source in sources.items():
        kinds = counts.setdefault(name, {})
        for row in read_rows(source.path, columns=["id", "kind"]):
            kinds[row["kind"] or ""] = kinds.get(row["kind"] or "", 0) + 1
    return counts


def _pictures(row: Mapping[str, Any]) -> list[list[bytes | ImageError]]:
    """Return the bytes of a row's images, or the error: those outside its contents, then those inside each content.

    A video is represented by its middle frame.
    """
    beside: list[bytes | ImageError] = [cell["bytes"] for cell in row["images"]]
    beside += [_middle_frame(row["video"])] if row["video"] else []
    return [beside, *([_picture(place) for place in places_of(row[name])] for name in CONTENTS)]


def _picture(place: Place) -> bytes | ImageError:
    return _middle_frame(place.source) if place.kind == "video" else place.source["bytes"]


def _places(row: Mapping[str, Any]) -> Iterator[Place]:
    return (place for name in CONTENTS for place in places_of(row[name]))


def _middle_frame(video: str) -> bytes | ImageError:
    try:
        if files := find_video(video):
            places = evenly(len(files), MIDDLE_OF)
            return files[places[len(places) // 2]].read_bytes()
        frames = open_video(video, MIDDLE_OF)
    except ImageError as error:
        return error
    data = io.BytesIO()
    frames[len(frames) // 2].save(data, "PNG")
    return data.getvalue()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
