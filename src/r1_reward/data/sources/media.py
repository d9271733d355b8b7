"""Images and videos of a source's rows: embedded, or in files below one folder.

Rows are untrusted input: a path may be ``../../secret.png``, an absolute path, a symlink to elsewhere, a pipe, or a
video of many gigabytes. A pair is dropped unless its image is a regular image file below the root.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from r1_reward.data.sources.common import Drop
from r1_reward.store.images import ImageError, check_image, not_a_path, short_name
from r1_reward.store.video import find_video

MAX_IMAGE_BYTES = 50 << 20
"""Maximum size of an image file or embedded image, in bytes (50 MiB); larger ones are rejected without reading."""

_REMEMBERED = 100_000  # images whose check result is cached, so that each is decoded once


class MediaFolder:
    """Finds, checks and embeds the media of rows.

    With ``by_name``, for rows with paths on the authors' machines, a file is also looked up by the trailing parts of
    its path, down to its bare name. Links are followed only to targets below the root.
    """

    def __init__(self, root: Path, *, by_name: bool = False) -> None:
        self.root, self.by_name = Path(os.path.realpath(root)), by_name
        self._checked: dict[bytes, str | None] = {}

    def image(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Return a cell with the image's bytes, after decoding them once to check that it is intact; raises Drop."""
        data, path = cell.get("bytes"), cell.get("path")
        name = os.path.basename(path) if path else None
        if data is None:
            data = self._read(str(path))
        elif len(data) > MAX_IMAGE_BYTES:
            raise Drop("image too large", f"{name or 'embedded image'}: {_megabytes(len(data))}")
        if reason := self._problem(data):
            raise Drop("image damaged", f"{path or 'embedded image'}: {reason}")
        return {"bytes": data, "path": name}

    def video(self, path: str) -> str:
        """Return the absolute path of a video file or of a folder with frames; raises Drop."""
        found = self._find(path, "video missing")
        try:
            find_video(found)
        except ImageError as error:
            raise Drop("video missing", f"{path}: {error.reason}") from error
        return str(found)

    def _read(self, path: str) -> bytes:
        file = self._find(path, "image missing")
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                raise Drop("image missing", f"{path}: is not a regular file")
            if status.st_size > MAX_IMAGE_BYTES:
                raise Drop("image too large", f"{path}: {_megabytes(status.st_size)}")
            return file.read_bytes()
        except OSError as error:
            raise Drop("image missing", f"{path}: cannot be read ({error.strerror})") from error

    def _find(self, path: str, missing: str) -> Path:
        """Return the real path of a file or folder below the root; raises Drop."""
        if ".." in PurePosixPath(path).parts:
            raise Drop("image outside root", path)
        try:
            for candidate in self._candidates(PurePosixPath(path)):
                place = Path(os.path.realpath(candidate))
                if not place.exists():
                    continue
                if not place.is_relative_to(self.root) or place == self.root:
                    raise Drop("image outside root", path)
                return place
        except (OSError, ValueError) as error:  # NUL, a lone surrogate, a name too long
            raise Drop(missing, f"{short_name(path)}: {not_a_path(path) or 'is not a usable path'}") from error
        raise Drop(missing, f"{short_name(path)}: {reason}" if (reason := not_a_path(path)) else path)

    def _candidates(self, path: PurePosixPath) -> Iterator[Path]:
        """Yield the candidate paths below the root, the most likely first."""
        parts = path.parts[1:] if path.is_absolute() else path.parts
        if not path.is_absolute():
            yield self.root.joinpath(*parts)
        elif Path(os.path.realpath(path)).is_relative_to(self.root):
            yield Path(path)
        elif not self.by_name:
            raise Drop("image outside root", str(path))
        if self.by_name:
            for start in range(0 if path.is_absolute() else 1, len(parts)):
                yield self.root.joinpath(*parts[start:])

    def _problem(self, data: bytes) -> str | None:
        key = hashlib.sha256(data).digest()
        if key not in self._checked:
            if len(self._checked) >= _REMEMBERED:
                self._checked.clear()
            try:
                check_image(data)
                self._checked[key] = None
            except ImageError as error:
                self._checked[key] = error.reason
        return self._checked[key]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB, more than {MAX_IMAGE_BYTES / 1e6:,.1f} MB"
