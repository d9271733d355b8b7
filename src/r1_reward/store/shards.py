"""Pair folders: parquet shards with embedded images, written and read row by row, so memory stays flat.

Every step of the data recipe (import, annotate, mix) writes one: ``pairs-00000.parquet``, ``pairs-00001.parquet``, ...
and, last of all, ``report.json``. What is being written lies in the sub-folder ``.writing`` until all of it is there::

    with PairWriter("imported") as writer:
        writer.add({"id": "7", "question": "Which digit?", "images": [{"bytes": png, "path": "7.png"}], ...})
        rows = writer.close({"kept": 1})           # the report; moves the shards to their place
    for row in read_rows("imported"):               # {"id": "7", ..., "images": [{"bytes": ..., "path": "7.png"}]}
        ...
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List
from datasets import Image as ImageFeature

from r1_reward.records.checks import FIELDS, REQUIRED, text_problems, to_pair, unknown_field
from r1_reward.records.errors import UserError
from r1_reward.store.files import write_json
from r1_reward.store.images import ImageError
from r1_reward.store.pairs import FEATURES, REPORT, STAGING, find_files, read_lines

SHARD_BYTES = 256 << 20
"""Bytes of images and texts after which a shard ends, however few rows it has."""

_SHARD = re.compile(r"pairs-\d{5,}\.parquet")
_GROUP_ROWS, _GROUP_BYTES = 256, 16 << 20  # rows of a parquet file that are in memory at once, images included
_ROWS_AT_ONCE = 32
_EMPTY = ("source", "kind", "provenance")  # text columns whose default is "", not null

# Other programs that read the shards with `datasets` get decoded images: Image(), not Image(decode=False).
_SCHEMA = Features({**FEATURES, "images": List(ImageFeature())}).arrow_schema


class PairWriter:
    """Writes a pair folder so that it is finished or not there; a context manager.

    Leaving the ``with`` block closes the writer; leaving it by an exception discards what was added. A folder that
    holds pairs already is refused unless ``overwrite``; the old ones are then replaced when the new ones are complete.
    Leftovers of an interrupted writer are removed. ``staging`` is where other files can be put that are to appear
    together with the shards.

    Raises:
        UserError: the folder holds pairs, is in use by another process, or cannot be written.
    """

    def __init__(self, folder: str | Path, *, rows_per_shard: int = 2000, overwrite: bool = False) -> None:
        if rows_per_shard < 1:
            raise UserError(f"rows_per_shard: must be 1 or more, not {rows_per_shard}.")
        self.folder, self.rows_per_shard = Path(folder), rows_per_shard
        self.staging = self.folder / STAGING
        self.rows = 0
        self._shards, self._shard_rows, self._shard_bytes = 0, 0, 0
        self._group: list[dict[str, Any]] = []
        self._group_bytes = 0
        self._file: pq.ParquetWriter | None = None
        self._closed = False
        _require_free(self.folder, overwrite)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder)
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()
        except OSError as error:
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

        Images are cells ``{"bytes": ..., "path": ...}``, the bytes of a file, or absolute paths; the files are
        embedded. ``video`` is an absolute path and is stored relative to the folder. Pictures are not decoded.
        Raises UserError if a field is missing, wrong or unknown, or an image cannot be read.
        """
        full = _checked(row, f"{self.folder}: row {self.rows + 1}")
        full["images"] = [_embedded(cell) for cell in full["images"]]
        if full["video"]:
            full["video"] = Path(os.path.relpath(full["video"], self.folder)).as_posix()
        size = _size(full)
        if self._shard_rows == self.rows_per_shard or (self._shard_rows and self._shard_bytes + size > SHARD_BYTES):
            self._end_shard()
        self._group.append(full)
        self._group_bytes += size
        self._shard_bytes += size
        self._shard_rows += 1
        self.rows += 1
        if len(self._group) == _GROUP_ROWS or self._group_bytes > _GROUP_BYTES:
            self._write_group()

    def close(self, report: Mapping[str, Any] | None = None) -> int:
        """Move everything into place, write ``report`` as ``report.json`` if given, and return the number of rows.

        Closing again does nothing.
        """
        if self._closed:
            return self.rows
        self._end_shard()
        (self.folder / REPORT).unlink(missing_ok=True)  # until the new report is there the folder is not finished
        for old in _shards(self.folder):
            old.unlink()
        for file in sorted(self.staging.iterdir()):
            os.replace(file, self.folder / file.name)
        if report is not None:
            write_json(self.folder / REPORT, dict(report))
        self._release()
        return self.rows

    def discard(self) -> None:
        """Forget all rows; what the folder held before stays."""
        if self._closed:
            return
        if self._file is not None:
            self._file.close()
            self._file = None
        self._release()
        with contextlib.suppress(OSError):  # not empty: it was there before, or holds other files
            self.folder.rmdir()

    def _release(self) -> None:
        self._closed = True
        shutil.rmtree(self.staging, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def _write_group(self) -> None:
        if not self._group:
            return
        if self._file is None:
            self._file = pq.ParquetWriter(self.staging / f"pairs-{self._shards:05d}.parquet", _SCHEMA)
        self._file.write_table(pa.Table.from_pylist(self._group, schema=_SCHEMA))
        self._group, self._group_bytes = [], 0

    def _end_shard(self) -> None:
        self._write_group()
        if self._file is not None:
            self._file.close()
            self._file = None
            self._shards += 1
        self._shard_rows, self._shard_bytes = 0, 0


def read_rows(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a pair file or pair folder one by one, in the order they are stored.

    Every column of ``FEATURES`` is there (or those in ``columns``), with defaults filled in. Images are cells
    ``{"bytes": ..., "path": ...}`` with the bytes read, also where the file names them by path; ``video`` is an
    absolute path. Texts and labels are checked when all columns are read; pictures are not decoded. A few dozen rows
    are in memory at once.

    Raises:
        UserError: there is no such file, it is unfinished, or a row is wrong (with file and row in the message).
    """
    for name in columns or ():
        if name not in FIELDS:
            raise UserError(f"column {name!r}: {unknown_field(name)}.")
    for file in pair_files(path):
        if file.suffix == ".parquet":
            missing = sorted({*REQUIRED} & {*(columns or FIELDS)} - set(parquet_columns(file)))
            if missing:
                raise UserError(f"{file}: has no column {', '.join(missing)}; it is not a pair file.")
            rows: Iterator[tuple[int, Any]] = parquet_rows(file, columns)
        else:
            rows = _jsonl_rows(file)
        for number, row in rows:
            place = f"{file}: row {number}"
            full = _checked(row, place) if columns is None else {name: row.get(name) for name in columns}
            yield _absolute(full, file.parent, place)


def pair_files(path: str | Path) -> list[Path]:
    """Return the files that :func:`read_rows` reads, in order.

    Raises UserError if there are none or an interrupted writer left the folder unfinished.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder of pairs.")
    return find_files(path, "train")


def parquet_rows(file: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield row number (from 1) and row of a parquet file, a few at a time; raises UserError if it is damaged."""
    number = 0
    try:
        # Without pre-buffering, and with a bounded buffer, a row group of all images is not read at once.
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as table:
            there = None if columns is None else [name for name in columns if name in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=there):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as parquet after row {number} ({_first_line(error)}).") from error


def parquet_columns(file: Path) -> list[str]:
    """Return the names of the columns of a parquet file; raises UserError if it is none."""
    try:
        return list(pq.read_schema(file).names)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as parquet ({_first_line(error)}).") from error


def _require_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with pairs that nobody asked to replace; leftovers of an interrupted writer are none."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder to write pairs to.")
    leftovers = (folder / STAGING).is_dir() and not (folder / REPORT).exists()
    if overwrite or leftovers or not folder.is_dir():
        return
    if (folder / REPORT).exists() or _shards(folder):
        raise UserError(f"{folder}: holds pairs already. Choose another folder, or allow to overwrite it.")


def _shards(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if _SHARD.fullmatch(file.name)]


def _lock(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".pairs.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder}: another process is writing pairs there.") from error
    return lock


def _checked(row: Any, place: str) -> dict[str, Any]:
    """Return a row with all columns and defaults filled in; raises UserError with the first things wrong."""
    if not isinstance(row, Mapping):
        raise UserError(f"{place}: is not an object with fields.")
    given = {name: value for name, value in row.items() if value is not None}
    cells = given.get("images", [])
    # The schema knows images as paths; whether a cell can be embedded is found out later.
    names = ["cell" if isinstance(cell, Mapping | bytes) else cell for cell in cells] if _is_list(cells) else cells
    _, problems = to_pair({**given, "images": names})
    if problems := [*problems, *text_problems(given)]:
        listed = "; ".join(f"{field}: {reason}" for field, reason in problems[:3])
        raise UserError(f"{place} (id {str(given.get('id'))[:80]}): {listed}.")
    full = {name: given.get(name) for name in FIELDS}
    return full | {name: full[name] or "" for name in _EMPTY} | {"images": list(cells)}


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _embedded(cell: Any) -> dict[str, Any]:
    """Return an image cell with its bytes, and the bare name of its file instead of a path on this machine."""
    cell = cell if isinstance(cell, Mapping) else {"bytes" if isinstance(cell, bytes) else "path": cell}
    data, path = cell.get("bytes"), cell.get("path")
    if data is None:
        if not path:
            raise ImageError("image", "has neither bytes nor a path")
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise ImageError(str(path), f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not data:
        raise ImageError(str(path or "image"), "is empty (zero bytes)")
    # A file name may hold bytes that are no text, which come as lone surrogates; parquet takes none.
    return {"bytes": data, "path": os.path.basename(path).encode("utf-8", "replace").decode() if path else None}


def _size(row: Mapping[str, Any]) -> int:
    texts = sum(len(value) for value in row.values() if isinstance(value, str))
    return texts + sum(len(cell["bytes"]) for cell in row["images"])


def _jsonl_rows(file: Path) -> Iterator[tuple[int, Any]]:
    for number, row, broken in read_lines(file):
        if broken:
            raise UserError(f"{file}: line {number} {broken}.")
        yield number, row


def _absolute(row: dict[str, Any], folder: Path, place: str) -> dict[str, Any]:
    """Embed the images of a row and make the path of its video absolute."""
    if row.get("video"):
        row["video"] = os.path.abspath(folder / row["video"])
    if "images" in row:
        try:
            row["images"] = [_embedded(_below(cell, folder)) for cell in row["images"] or []]
        except ImageError as error:
            raise ImageError(f"{place}: {error.name}", error.reason) from error
    return row


def _below(cell: Any, folder: Path) -> Any:
    """Join the path of a cell that holds no bytes to the folder of its file."""
    path = cell.get("path") if isinstance(cell, Mapping) and cell.get("bytes") is None else cell
    return os.path.join(folder, path) if isinstance(path, str) else cell


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
