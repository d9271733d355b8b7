"""Read a file of pairs or groups one block of rows at a time, from any block, without loading the whole file.

    source = survey(Path("pairs.jsonl"), block_rows=512)
    reader = open_rows(source)
    for block in source.blocks:
        rows = reader.read(block)

A line that is not a row (invalid JSON, a list) becomes a row with a problem; errors inside a row are reported when it
is judged.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from r1_reward.records.errors import UserError, kind_of
from r1_reward.records.schema import CONTENTS
from r1_reward.store.identity import media_digest, media_of
from r1_reward.store.rows import did_you_mean, is_blank, not_parquet, parquet_rows, parse_line, raw_lines
from r1_reward.store.sniff import packed

Kind = Literal["pairs", "groups"]
_FIELDS: dict[str, tuple[str, ...]] = {
    "pairs": ("id", "question", "images", "video", "response_1", "response_2", "criteria"),
    "groups": ("id", "question", "images", "video", "responses", "ranking", "criteria"),
}
_REQUIRED: dict[str, tuple[str, ...]] = {
    "pairs": ("question", "response_1", "response_2"),
    "groups": ("question", "responses"),
}
_BUFFER = 1 << 20


class Row(NamedTuple):
    """One row of the file."""

    place: str
    """Its place, for messages: ``line 12``."""
    fields: dict[str, Any]
    problem: str | None = None
    """Why there are no fields."""


class Block(NamedTuple):
    """Rows that are judged and stored together."""

    number: int
    """From 0."""
    start: int
    """Number of rows before it in the file."""
    rows: int
    offset: int = 0
    """Its byte offset in a JSONL file."""
    lines: int = 0
    """Number of lines before it, including blank ones."""
    skip: int = 0
    """Number of its first rows that are already judged."""

    @property
    def left(self) -> int:
        """Number of rows still to be judged."""
        return self.rows - self.skip


class Source(NamedTuple):
    """The content of a file: kind, row count and blocks."""

    path: Path
    kind: Kind
    rows: int
    sha256: str
    """SHA-256 of the file."""
    media: str | None
    """Digest of the image and video files it names, None if all media are embedded or there are none."""
    blocks: list[Block]


class Reader(Protocol):
    """Reads the blocks of one file; fastest in ascending order."""

    def read(self, block: Block) -> list[Row]:
        """Return the rows of a block after those to skip; raises UserError if the file has changed."""
        ...


def survey(path: Path, block_rows: int) -> Source:
    """Read a file once to determine its content; the kind is that of the first row that has one.

    Raises:
        UserError: the file does not exist, cannot be read, or contains neither pairs nor groups.
    """
    if block_rows < 1:
        raise UserError(f"block rows: must be 1 or more, not {block_rows}.")
    if path.is_file() and (what := packed(path)):
        raise UserError(f"{path}: {what}.")
    if path.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"{path}: a file to score must be .jsonl (one JSON object per line) or .parquet.")
    if not path.is_file():
        raise UserError(f"{path}: no such file.{did_you_mean(path)}")
    try:
        return _survey_jsonl(path, block_rows) if path.suffix == ".jsonl" else _survey_parquet(path, block_rows)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def open_rows(source: Source) -> Reader:
    """Return a reader for the blocks of a file."""
    return _Jsonl(source) if source.path.suffix == ".jsonl" else _Parquet(source)


def _survey_jsonl(path: Path, block_rows: int) -> Source:
    kind: Kind | None = None
    digest, rows = hashlib.sha256(), 0
    blocks: list[Block] = []
    for number, offset, line in raw_lines(path):
        digest.update(line)
        if is_blank(line):
            continue
        if rows % block_rows == 0:
            blocks.append(Block(len(blocks), rows, 0, offset, number - 1))
        kind = kind or _kind_of(_row(number, offset, line).fields)
        rows += 1
    full = [block._replace(rows=min(block_rows, rows - block.start)) for block in blocks]
    return Source(path, kind or "pairs", rows, digest.hexdigest(), media_digest(media_of(path)), full)


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
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
    except (OSError, ValueError, NotImplementedError) as error:
        raise not_parquet(path, error) from error
    names = schema.names
    kind = _kind_of(names)
    if kind is None:
        raise UserError(f"{path}: needs the columns response_1 and response_2 (pairs) or responses (groups).")
    needed = _REQUIRED[kind] if _has_parts(schema) else (*_REQUIRED[kind], "images")
    if missing := [name for name in needed if name not in names]:
        raise UserError(f"{path}: has no column {missing[0]}, which is required for {kind}.")
    starts = range(0, rows, block_rows)
    blocks = [Block(number, start, min(block_rows, rows - start)) for number, start in enumerate(starts)]
    return Source(path, kind, rows, digest.hexdigest(), media_digest(media_of(path)), blocks)


def _has_parts(schema: pa.Schema) -> bool:
    """Return whether contents may contain images, so that the column ``images`` is optional."""
    types = [schema.field(name).type for name in (*CONTENTS, "responses") if name in schema.names]
    inner = [kind.value_type for kind in types if pa.types.is_list(kind) or pa.types.is_large_list(kind)]
    return any(map(pa.types.is_nested, inner))


class _Unchanged:
    """A file that must not change while its blocks are read."""

    def __init__(self, path: Path) -> None:
        self._path, self._stat = path, _times(path)

    def require(self) -> None:
        """Raise UserError if the file has been modified or replaced."""
        if _times(self._path) != self._stat:
            raise UserError(f"{self._path}: was changed while it was being read. Verdicts on the old file are kept.")


def _times(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


class _Jsonl:
    def __init__(self, source: Source) -> None:
        self._path, self._file = source.path, _Unchanged(source.path)

    def read(self, block: Block) -> list[Row]:
        lines = (line for line in raw_lines(self._path, block.lines, block.offset) if not is_blank(line[2]))
        rows = _all_of([_row(*line) for line in islice(lines, block.skip, block.rows)], block, self._path)
        self._file.require()
        return rows


def _row(number: int, offset: int, line: bytes) -> Row:
    data, broken = parse_line(line, offset)
    if broken is None and not isinstance(data, dict):
        broken = f"is {kind_of(data)}, not a JSON object"
    return Row(f"line {number}", {} if broken else data, broken)


class _Parquet:
    """Keeps its position, so that reading blocks in ascending order decodes every row once."""

    def __init__(self, source: Source) -> None:
        self._path, self._columns, self._file = source.path, _FIELDS[source.kind], _Unchanged(source.path)
        self._next, self._rows = 0, parquet_rows(self._path, self._columns)

    def read(self, block: Block) -> list[Row]:
        first = block.start + block.skip
        if first != self._next:
            self._rows = parquet_rows(self._path, self._columns, start=first)
        rows = [Row(f"row {number}", row) for number, row in islice(self._rows, block.left)]
        self._next = block.start + block.rows
        rows = _all_of(rows, block, self._path)
        self._file.require()
        return rows


def _all_of(rows: list[Row], block: Block, path: Path) -> list[Row]:
    if len(rows) < block.left:
        raise UserError(f"{path}: became shorter while it was being read.")
    return rows
