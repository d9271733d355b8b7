"""Read a file of pairs or groups a block of rows at a time, from any block, without ever holding the file.

    source = survey(Path("pairs.jsonl"), block_rows=512)
    reader = open_rows(source)
    for block in source.blocks:
        rows = reader.read(block)

A row that is no row (not JSON, a list) is read as a problem in its place; what is wrong inside it is for the judge to
say.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow.parquet as pq

from r1_reward.records.checks import kind_of
from r1_reward.records.errors import UserError

Kind = Literal["pairs", "groups"]
_FIELDS: dict[str, tuple[str, ...]] = {
    "pairs": ("id", "question", "images", "video", "response_1", "response_2"),
    "groups": ("id", "question", "images", "video", "responses"),
}
_REQUIRED: dict[str, tuple[str, ...]] = {
    "pairs": ("question", "images", "response_1", "response_2"),
    "groups": ("question", "images", "responses"),
}
_AT_ONCE = 32  # rows of a parquet file in memory, images included
_BUFFER = 1 << 20


class Row(NamedTuple):
    """One row as it stands in the file."""

    place: str
    """Where, for messages: ``line 12``."""
    fields: dict[str, Any]
    problem: str | None = None
    """Why there are no fields."""


class Block(NamedTuple):
    """Rows that are judged and kept together."""

    number: int
    """From 0."""
    start: int
    """How many rows of the file stand before it."""
    rows: int
    offset: int = 0
    """Where it begins in a JSONL file, in bytes."""
    lines: int = 0
    """How many lines stand before it, blank ones included."""


class Source(NamedTuple):
    """What a file holds."""

    path: Path
    kind: Kind
    rows: int
    sha256: str
    """Of the file's bytes; pictures it only names are not in it."""
    blocks: list[Block]


class Reader(Protocol):
    """Reads the blocks of one file; forwards is fastest."""

    def read(self, block: Block) -> list[Row]:
        """Return the rows of a block; raises UserError if the file is no longer what it was."""
        ...


def survey(path: Path, block_rows: int) -> Source:
    """Read a file once to see what it holds; the kind is that of its first row that has one.

    Raises:
        UserError: there is no such file, it cannot be read, or it holds neither pairs nor groups.
    """
    if block_rows < 1:
        raise UserError(f"block rows: must be 1 or more, not {block_rows}.")
    if path.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"{path}: a file to score ends in .jsonl (one JSON object a line) or .parquet.")
    if not path.is_file():
        from r1_reward.store.pairs import did_you_mean

        raise UserError(f"{path}: no such file.{did_you_mean(path)}")
    try:
        return _survey_jsonl(path, block_rows) if path.suffix == ".jsonl" else _survey_parquet(path, block_rows)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def open_rows(source: Source) -> Reader:
    """Return what reads the blocks of a file."""
    return _Jsonl(source) if source.path.suffix == ".jsonl" else _Parquet(source)


def _survey_jsonl(path: Path, block_rows: int) -> Source:
    kind: Kind | None = None
    digest, rows, offset = hashlib.sha256(), 0, 0
    blocks: list[Block] = []
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            if number == 0 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UserError(f"{path}: is UTF-16 text; save it as UTF-8.")
            digest.update(line)
            if not _is_blank(line):
                if rows % block_rows == 0:
                    blocks.append(Block(len(blocks), rows, 0, offset, number))
                kind = kind or _kind_of(_parse(number + 1, line).fields)
                rows += 1
            offset += len(line)
    full = [block._replace(rows=min(block_rows, rows - block.start)) for block in blocks]
    return Source(path, kind or "pairs", rows, digest.hexdigest(), full)


def _kind_of(names: Any) -> Kind | None:
    if "responses" in names:
        return "groups"
    return "pairs" if "response_1" in names or "response_2" in names else None


def _survey_parquet(path: Path, block_rows: int) -> Source:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_BUFFER):
            digest.update(chunk)
    try:
        with pq.ParquetFile(path) as parquet:
            names, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as parquet ({error}).") from error
    kind = _kind_of(names)
    if kind is None:
        raise UserError(f"{path}: has neither the columns response_1 and response_2 (pairs) nor responses (groups).")
    if missing := [name for name in _REQUIRED[kind] if name not in names]:
        raise UserError(f"{path}: has no column {missing[0]}, which every file of {kind} needs.")
    starts = range(0, rows, block_rows)
    blocks = [Block(number, start, min(block_rows, rows - start)) for number, start in enumerate(starts)]
    return Source(path, kind, rows, digest.hexdigest(), blocks)


class _Jsonl:
    def __init__(self, source: Source) -> None:
        self._path = source.path

    def read(self, block: Block) -> list[Row]:
        with open(self._path, "rb") as file:
            file.seek(block.offset)
            lines = ((number, line) for number, line in enumerate(file, block.lines + 1) if not _is_blank(line))
            rows = [_parse(number, line) for number, line in islice(lines, block.rows)]
        return _all_of(rows, block, self._path)


def _is_blank(line: bytes) -> bool:
    return not line.removeprefix(b"\xef\xbb\xbf").strip()  # a byte order mark


def _parse(number: int, line: bytes) -> Row:
    from r1_reward.store.pairs import unique_fields

    place = f"line {number}"
    try:
        row = json.loads(line.decode().removeprefix("\ufeff"), object_pairs_hook=unique_fields)
    except UnicodeDecodeError as error:
        return Row(place, {}, f"is not UTF-8 text (byte 0x{line[error.start]:02x} at {error.start} of the line)")
    except json.JSONDecodeError as error:
        return Row(place, {}, f"is not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Row(place, {}, f"is not usable JSON: {error}")
    if not isinstance(row, dict):
        return Row(place, {}, f"is {kind_of(row)}, not an object with fields")
    return Row(place, row)


class _Parquet:
    """Goes on where it is, so that reading forwards decodes every row once."""

    def __init__(self, source: Source) -> None:
        self._path = source.path
        self._file = pq.ParquetFile(source.path, buffer_size=_BUFFER)
        self._columns = [name for name in _FIELDS[source.kind] if name in self._file.schema_arrow.names]
        metadata = self._file.metadata
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        self._next, self._rows = 0, self._rows_from(0)

    def read(self, block: Block) -> list[Row]:
        group = self._group_of(block.start)
        if block.start < self._next or group > self._group_of(self._next):
            self._next, self._rows = self._starts[group], self._rows_from(group)
        try:
            for _ in islice(self._rows, block.start - self._next):
                pass
            rows = [
                Row(f"row {number}", row) for number, row in enumerate(islice(self._rows, block.rows), block.start + 1)
            ]
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path}: cannot be read as parquet ({error}).") from error
        self._next = block.start + block.rows
        return _all_of(rows, block, self._path)

    def _group_of(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _rows_from(self, group: int) -> Iterator[dict[str, Any]]:
        groups = list(range(group, self._file.metadata.num_row_groups))
        for batch in self._file.iter_batches(_AT_ONCE, row_groups=groups, columns=self._columns):
            yield from batch.to_pylist()


def _all_of(rows: list[Row], block: Block, path: Path) -> list[Row]:
    if len(rows) < block.rows:
        raise UserError(f"{path}: has become shorter while it was read.")
    return rows
