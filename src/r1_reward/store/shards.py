"""Pair folders: parquet shards with embedded images, written and read row by row in constant memory.

Every step of the data recipe (import, annotate, mix) writes one: ``pairs-00000.parquet``, ``pairs-00001.parquet``, ...,
a card that lets `datasets` load the folder and, last, ``report.json``. Files stay in the subfolder ``.writing`` until
all of them are complete::

    with PairWriter("imported") as writer:
        writer.add({"id": "7", "question": "Which digit?", "images": [{"bytes": png, "path": "7.png"}], ...})
        rows = writer.close({"kept": 1})           # writes the report and moves the shards into place
    for row in read_rows("imported"):               # {"id": "7", ..., "images": [{"bytes": ..., "path": "7.png"}]}
        ...
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from r1_reward.records.checks import FIELDS, REQUIRED, text_problems, to_pair, unknown_field
from r1_reward.records.content import Place
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS
from r1_reward.store.dataset_card import write_card
from r1_reward.store.files import write_json
from r1_reward.store.images import ImageError, embedded
from r1_reward.store.pairs import REPORT, STAGING, find_files
from r1_reward.store.part_columns import PairRowWriter, filled, widen_file, with_media
from r1_reward.store.rows import line_rows, parquet_columns, parquet_rows
from r1_reward.store.run_folder import locked

SHARD_BYTES = 256 << 20
"""Maximum bytes of images and texts in a shard with more than one row."""

PAIRS_LOCK = ".pairs.lock"

_SHARD = re.compile(r"pairs-\d{5,}\.parquet")
_CARD = (
    "Each row is a question about images, two responses, and which of them is preferred (`preferred`: 1 or 2, 0 for a "
    "tie). `report.json` says how the rows were made and what was left out."
)
_GROUP_ROWS, _GROUP_BYTES = 256, 16 << 20  # in memory at once, with images
_EMPTY = ("source", "kind", "provenance")  # text columns whose default is "", not null


class PairWriter:
    """Writes a pair folder atomically; a context manager.

    Leaving the ``with`` block closes the writer; leaving it by an exception discards the rows, and the folder if it is
    new and has nothing else. A folder that already has pairs is rejected unless ``overwrite``, which replaces the old
    pairs once the new ones are complete. Leftovers of an interrupted writer are removed. Other files put into
    ``staging`` appear together with the shards. Pass ``lock=False`` if the caller holds its own lock on the folder;
    otherwise the lock file ``.pairs.lock`` stays in it.

    Raises:
        UserError: If the folder has pairs, is in use by another process, or cannot be written.
    """

    def __init__(
        self, folder: str | Path, *, rows_per_shard: int = 2000, overwrite: bool = False, lock: bool = True
    ) -> None:
        if rows_per_shard < 1:
            raise UserError(f"rows_per_shard: must be 1 or more, not {rows_per_shard}.")
        self.folder, self.rows_per_shard = Path(folder), rows_per_shard
        self.staging = self.folder / STAGING
        self.rows = 0
        self._shards, self._shard_rows, self._shard_bytes = 0, 0, 0
        self._file: PairRowWriter | None = None
        self._texts: list[Path] = []  # shards finished before the first row with parts
        self._parts = False
        self._closed = False
        self._held = ExitStack()
        _require_free(self.folder, overwrite)
        self._new = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if lock:
                self._held.enter_context(locked(self.folder / PAIRS_LOCK, self.folder))
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()
        except OSError as error:
            self._held.close()
            raise UserError(f"{self.folder}: cannot be written ({error.strerror}).") from error

    def __enter__(self) -> PairWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row with the fields of a :class:`~r1_reward.records.schema.PreferencePair`.

        Images, also those in contents, are cells ``{"bytes": ..., "path": ...}``, the bytes of a file, or absolute
        paths; files are embedded, without decoding them. A video is an absolute path and is stored relative to the
        folder.

        Raises:
            UserError: If a field is missing, invalid or unknown, or an image cannot be read.
        """
        full = _checked(row, f"{self.folder}: row {self.rows + 1}")
        full = with_media(full, self._stored)
        full["images"] = [embedded(cell) for cell in full["images"]]
        if full["video"]:
            full["video"] = self._stored(Place("video", full["video"]))
        size = _size(full)
        if self._shard_rows == self.rows_per_shard or (self._shard_rows and self._shard_bytes + size > SHARD_BYTES):
            self._end_shard()
        if self._file is None:
            file = self.staging / _name(self._shards)
            self._file = PairRowWriter(file, group_rows=_GROUP_ROWS, group_bytes=_GROUP_BYTES, parts=self._parts)
        self._file.add(full, size)
        self._parts = self._file.parts
        self._shard_bytes += size
        self._shard_rows += 1
        self.rows += 1

    def _stored(self, place: Place) -> Any:
        if place.kind == "video":
            return Path(os.path.relpath(place.source, self.folder)).as_posix()
        return embedded(place.source)

    def close(self, report: Mapping[str, Any] | None = None) -> int:
        """Move everything into place, write ``report`` as ``report.json`` if given, and return the number of rows.

        Closing again does nothing.
        """
        if self._closed:
            return self.rows
        self._end_shard()
        while self._parts and self._texts:  # all shards of a folder have the same columns
            widen_file(self._texts.pop())
        (self.folder / REPORT).unlink(missing_ok=True)  # without a report, the folder counts as incomplete
        for old in _shards(self.folder):
            old.unlink()
        for file in sorted(self.staging.iterdir()):
            os.replace(file, self.folder / file.name)
        if self.rows:
            write_card(self.folder, {"default": {"train": "pairs-*.parquet"}}, "Preference pairs", _CARD)
        if report is not None:
            write_json(self.folder / REPORT, dict(report))
        self._release()
        return self.rows

    def discard(self) -> None:
        """Discard all rows; a folder that existed before stays, with its earlier contents."""
        if self._closed:
            return
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._new and not {file.name for file in self.folder.iterdir()} - {STAGING, PAIRS_LOCK}:
            # Moved away in one step: a process that has already opened the lock file finds no folder to write to.
            gone = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.discarded")
            os.replace(self.folder, gone)
            shutil.rmtree(gone, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        self._closed = True
        shutil.rmtree(self.staging, ignore_errors=True)
        self._held.close()

    def _end_shard(self) -> None:
        if self._file is not None:
            self._file.close()
            if not self._file.parts:
                self._texts.append(self.staging / _name(self._shards))
            self._file = None
            self._shards += 1
        self._shard_rows, self._shard_bytes = 0, 0


def read_rows(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a pair file or pair folder one by one, in stored order.

    Rows have all columns of ``FEATURES`` (or those in ``columns``), with defaults filled in. A content is text or a
    list of parts, as stored. Images, also those in contents, are cells ``{"bytes": ..., "path": ...}`` with the bytes
    read, even if the file names them by path; videos are absolute paths. A row is checked when all columns are
    read, and always in JSONL; images are not decoded. A few dozen rows are in memory at once.

    Raises:
        UserError: If the file does not exist or is incomplete, or a row is invalid (the message names file and row).
    """
    for name in columns or ():
        if name not in FIELDS:
            raise UserError(f"column {name!r}: {unknown_field(name)}.")
    for file in pair_files(path):
        if file.suffix == ".parquet":
            missing = sorted({*REQUIRED} & {*(columns or FIELDS)} - set(parquet_columns(file)))
            if missing:
                raise UserError(f"{file}: not a pair file; it has no column {', '.join(missing)}.")
            rows: Iterator[tuple[int, Any]] = parquet_rows(file, columns)
        else:
            rows = _jsonl_rows(file)
        for number, row in rows:
            place = f"{file}: row {number}"
            if columns is None or file.suffix != ".parquet":  # a line of JSONL may be anything
                row = _checked(row, place)
            chosen = row if columns is None else {name: row.get(name) for name in columns}
            yield _absolute(chosen, file.parent, place)


def pair_files(path: str | Path) -> list[Path]:
    """Return the files that :func:`read_rows` reads, in order.

    Raises UserError if there are none, or an interrupted writer left the folder incomplete.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder of pairs.")
    return find_files(path, "train")


def _require_free(folder: Path, overwrite: bool) -> None:
    """Raise UserError for a folder with pairs unless ``overwrite``; leftovers of an interrupted writer do not count."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a directory; pairs are written to a folder.")
    leftovers = (folder / STAGING).is_dir() and not (folder / REPORT).exists()
    if overwrite or leftovers or not folder.is_dir():
        return
    if (folder / REPORT).exists() or _shards(folder):
        raise UserError(f"{folder}: already has pairs. Choose another folder, or allow overwriting.")


def _name(shard: int) -> str:
    return f"pairs-{shard:05d}.parquet"


def _shards(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if _SHARD.fullmatch(file.name)]


def _checked(row: Any, place: str) -> dict[str, Any]:
    """Return a row with all columns and defaults; raises UserError with the first problems."""
    if not isinstance(row, Mapping):
        raise UserError(f"{place}: is not an object with fields.")
    given = {name: value for name, value in row.items() if value is not None}
    cells = given.get("images", [])
    # The schema has images as paths; embedding a cell checks it later.
    named = {**with_media(given, _as_path), "images": list(map(_cell_as_path, cells)) if _is_list(cells) else cells}
    _, problems = to_pair(named)
    if problems := [*problems, *text_problems(given)]:
        listed = "; ".join(f"{field}: {reason}" for field, reason in problems[:3])
        raise UserError(f"{place} (id {str(given.get('id'))[:80]}): {listed}.")
    full = {name: given.get(name) for name in FIELDS}
    return filled(full | {name: full[name] or "" for name in _EMPTY} | {"images": list(cells)})


def _cell_as_path(cell: Any) -> Any:
    return "cell" if isinstance(cell, Mapping | bytes) else cell


def _as_path(place: Place) -> Any:
    return _cell_as_path(place.source) if place.kind == "image" else place.source


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _size(row: Mapping[str, Any]) -> int:
    parts = [part for name in CONTENTS if not isinstance(row[name], str) for part in row[name]]
    values = [*row.values(), *(part.get("text") for part in parts)]
    cells = [*row["images"], *(part["image"] for part in parts if part["type"] == "image")]
    return sum(len(value) for value in values if isinstance(value, str)) + sum(len(cell["bytes"]) for cell in cells)


def _jsonl_rows(file: Path) -> Iterator[tuple[int, Any]]:
    for raw in line_rows(file):
        if raw.broken:
            raise UserError(f"{file}: {raw.place} {raw.broken}.")
        yield raw.number, raw.data


def _absolute(row: dict[str, Any], folder: Path, place: str) -> dict[str, Any]:
    """Embed the images of a row and make the paths of its videos absolute."""
    if row.get("video"):
        row["video"] = os.path.abspath(folder / row["video"])

    def own(medium: Place) -> Any:
        if medium.source is None:  # refers to the row's images, a column not requested
            return None
        if medium.kind == "video":
            return os.path.abspath(folder / medium.source)
        return embedded(_below(medium.source, folder))

    try:
        row = with_media(row, own)
        if "images" in row:
            row["images"] = [embedded(_below(cell, folder)) for cell in row["images"] or []]
    except ImageError as error:
        raise ImageError(f"{place}: {error.name}", error.reason) from error
    return row


def _below(cell: Any, folder: Path) -> Any:
    """Join the path of a cell without bytes to the folder of its file."""
    path = cell.get("path") if isinstance(cell, Mapping) and cell.get("bytes") is None else cell
    return os.path.join(folder, path) if isinstance(path, str) else cell
