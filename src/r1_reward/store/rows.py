"""Stream raw rows from any supported file, and write rows to parquet.

JSONL is read line by line, a JSON array object by object, parquet and the Hub in small batches, so memory does not grow
with the number of rows; images are not decoded. An unreadable line becomes a row that says why::

    source = open_source("all_data.json")     # or .jsonl, .parquet, a folder of parquet files, owner/name on the Hub
    for raw in source.rows():                 # RawRow(file="all_data.json", number=1, data={...}, broken=None)
        ...

    with RowWriter(Path("rows.parquet"), schema, group_rows=256) as writer:
        writer.add({"id": "7", "images": [{"bytes": png, "path": "7.png"}]})
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from r1_reward.records.errors import UserError
from r1_reward.store.cache import writing_cache
from r1_reward.store.sniff import is_array, parquet_fault, what_it_is, wide_text
from r1_reward.store.video import natural_key

KINDS = (".parquet", ".jsonl", ".json")
"""Suffixes of files with rows. In a folder, .json comes last, since it may be a settings file."""

_ROWS_AT_ONCE = 32  # rows of a parquet file in memory, with their images
_BUFFER = 1 << 20  # bytes of a parquet file read at once
_CHUNK = 1 << 16  # characters of a JSON array read at once
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_COMMIT = re.compile(r"@([0-9a-f]{40})/")
_SPLIT_NAME = re.compile(r"(train|test|validation|val|dev)[-_.]")


class RawRow(NamedTuple):
    """One row as read from its file; ``broken`` says why there is no data."""

    file: str
    number: int
    """Line or row number, from 1."""
    data: Any
    broken: str | None = None
    unit: str = "row"
    lost: bool = False
    """Whether the rows after a broken one cannot be read either."""

    @property
    def place(self) -> str:
        """``line 3`` or ``row 3``."""
        return f"{self.unit} {self.number}"


@dataclass(frozen=True)
class RowSource:
    """A source of rows; each call of ``rows()`` starts from the first row."""

    name: str
    folder: Path
    """The folder that paths in the rows are relative to."""
    rows: Callable[[], Iterator[RawRow]]
    revision: str | None = None
    """Commit of a Hub dataset, if known."""
    notes: tuple[str, ...] = ()
    """Notes for a report on the rows."""


def open_source(
    source: str | Path,
    *,
    split: str = "test",
    image_root: str | Path | None = None,
    revision: str | None = None,
    config: str | None = None,
    file: str | None = None,
    kinds: Sequence[str] = (".parquet",),
    stream: bool = False,
) -> RowSource:
    """Return the rows of a JSONL file, a JSON array, a parquet file, a folder of one of these, or a Hub dataset.

    In a folder, ``file`` is read if it exists; else all ``SPLIT-*`` files of the first of ``kinds`` that has some, or
    all files if none is named after a split, in the folder or its ``data/``. Paths in the rows are relative to
    ``image_root`` (default: the folder). ``revision``, ``config`` and ``stream`` are for the Hub; ``stream`` downloads
    rows on demand.

    Raises:
        UserError: If there is nothing to read, or the choice is ambiguous.
    """
    path = Path(source)
    if image_root is not None and not os.path.isdir(image_root):
        raise UserError(f"{image_root}: no such folder (image paths are relative to it).")
    root = None if image_root is None else Path(image_root)
    if not path.exists():
        if may_be_hub_id(source):
            return _open_hub(str(source), root or Path(), split, revision, config, stream)
        raise UserError(f"{path}: no such file or folder.{did_you_mean(path)}")
    if revision is not None:
        raise UserError(f"{path}: is a local path; a revision ({revision}) applies to datasets on the Hub only.")
    require_readable(path)
    if path.is_file():
        if path.suffix not in KINDS:
            what = f"{found}; " if (found := what_it_is(path)) else ""
            raise UserError(f"{path}: {what}files of rows end in .jsonl, .json or .parquet.")
        return RowSource(str(path), root or path.parent, lambda: file_rows(path))
    named = file is not None and (path / file).is_file()
    files = [path / str(file)] if named else split_files(path, split, kinds)
    return RowSource(str(path), root or path, lambda: (row for one in files for row in file_rows(one)))


def require_readable(path: Path) -> None:
    """Raise UserError if this user has no permission to read a path."""
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: cannot be read (permission denied).")


def may_be_hub_id(name: str | Path) -> bool:
    """Return whether a name has the form of a dataset on the Hub."""
    return isinstance(name, str) and bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and Path(name).suffix != ".jsonl"


def did_you_mean(path: Path) -> str:
    """Return a sentence that names the file most similar to a missing path, or nothing."""
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def split_files(folder: Path, split: str, kinds: Sequence[str]) -> list[Path]:
    """Return the files of a split, all of one kind, in the folder or in ``data/``, the Hub's layout."""
    for place in (folder, folder / "data"):
        by_kind = {kind: sorted(place.glob(f"*{kind}"), key=lambda file: natural_key(file.name)) for kind in kinds}
        named = [found for files in by_kind.values() if (found := _named_after(files, split))]
        if len(named) == 1:  # other files are not the rows, such as dropped.jsonl
            return named[0]
        if by_kind.get(".jsonl") and by_kind.get(".parquet"):
            raise UserError(f"{place}: has both .jsonl and .parquet files; give the path of the one to read.")
        for files in by_kind.values():
            if chosen := of_split(files, split):
                return chosen
    there = ", ".join(sorted(os.listdir(folder))[:10]) or "nothing"
    *more, last = (kind.removeprefix(".") for kind in kinds)
    names = f"{', '.join(more)} or {last}" if more else last
    raise UserError(
        f"{folder}: has no {names} files of the {split} split; give the path of the file to read. It contains: {there}."
    )


def of_split(files: Sequence[Path], split: str) -> list[Path]:
    """Return the files named after a split, or all files if none is named after any split."""
    # train-*.parquet beside test-*.parquet must not be read as one set.
    named = [file for file in files if _SPLIT_NAME.match(file.name) or file.name.startswith(f"{split}-")]
    return _named_after(named, split) if named else list(files)


def _named_after(files: Sequence[Path], split: str) -> list[Path]:
    return [file for file in files if re.match(rf"{re.escape(split)}[-_.]", file.name)]


def file_rows(file: Path) -> Iterator[RawRow]:
    """Yield the rows of one file; the content decides between JSONL and a JSON array."""
    if file.suffix == ".parquet":
        return (RawRow(str(file), number, row) for number, row in parquet_rows(file))
    return array_rows(file) if is_array(file) else line_rows(file)


# ---- JSON


def line_rows(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a JSONL file line by line, skipping blank lines."""
    for number, offset, line in raw_lines(path):
        if not is_blank(line):
            data, broken = parse_line(line, offset)
            yield RawRow(str(path), number, data, broken, "line")


def raw_lines(path: Path, number: int = 0, offset: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Yield number (from 1), byte offset and bytes of each line after the first ``number``, which end at ``offset``.

    Raises UserError if the file is UTF-16 text, or does not contain JSON rows.
    """
    if not number and (what := wide_text(path) or what_it_is(path)):
        raise UserError(f"{path}: {what}.")
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            number += 1
            yield number, offset, line
            offset += len(line)


def is_blank(line: bytes) -> bool:
    """Return whether a line is empty, up to white space and a byte order mark."""
    return not line.removeprefix(_BYTE_ORDER_MARK).strip()


def parse_line(line: bytes, offset: int) -> tuple[Any, str | None]:
    """Return the JSON value of a line and None, or None and the reason why it is invalid."""
    try:
        # Without the line break: an error at the end would be in column 1 of the next line.
        return json.loads(line.decode().removeprefix("\ufeff").rstrip("\r\n"), object_pairs_hook=unique_fields), None
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 text (byte 0x{line[error.start]:02x} at offset {offset + error.start} of the file)"
    except json.JSONDecodeError as error:
        return None, f"is not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return None, f"is not usable JSON: {first_line(error)}"


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; raises ValueError for a duplicate field, which would silently lose its first value."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return row


def array_rows(path: Path) -> Iterator[RawRow]:
    """Yield the objects of a JSON array up to the first error, after which the next object cannot be found."""
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for data in _array_items(file):
                number += 1
                yield RawRow(str(path), number, data)
    except (ValueError, RecursionError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else first_line(error)
        yield RawRow(str(path), number + 1, None, f"{reason}; nothing after it was read", lost=True)


def _array_items(file: TextIO) -> Iterator[Any]:
    """Yield the items of a JSON array; raises ValueError at the first syntax error."""
    decoder = json.JSONDecoder(object_pairs_hook=unique_fields)
    text, opened = "", False
    while True:
        text = _next_token(text, file)
        sign, rest = text[:1], _next_token(text[1:], file)
        if opened and sign == "]":
            if rest:
                raise ValueError("the text continues after the end of the array")
            return
        if sign != ("," if opened else "["):
            raise ValueError("the file ends in the middle of the array" if not sign else f"expected ',', got {sign!r}")
        if not opened and rest.startswith("]"):
            return
        opened, text = True, rest
        while True:
            try:
                item, end = decoder.raw_decode(text)
                break
            except json.JSONDecodeError as error:
                more = file.read(max(_CHUNK, len(text)))
                if not more:
                    raise ValueError(f"is not JSON: {error.msg.removesuffix(' at')}") from error
                text += more
        yield item
        text = text[end:]


def _next_token(text: str, file: TextIO) -> str:
    """Return the text from the next non-blank character on, reading more if needed; empty at the end of the file."""
    text = text.lstrip()
    while not text and (more := file.read(_CHUNK)):
        text = more.lstrip()
    return text


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, to quote in our own."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


# ---- parquet


def parquet_rows(
    file: Path, columns: Sequence[str] | None = None, *, start: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number (from 1) and values of every row after the first ``start``, with a few in memory at a time.

    ``columns`` are the columns to read, if the file has them, or parts of columns such as ``images.path``.

    Raises:
        UserError: If the file is not parquet, or damaged.
    """
    number = start
    for batch in parquet_batches(file, columns, start=start):
        try:
            rows = batch.to_pylist()
        except ValueError as error:  # invalid UTF-8 in a column of texts
            raise not_parquet(file, error, f" after row {number}") from error
        for row in rows:
            number += 1
            yield number, row


def parquet_batches(file: Path, columns: Sequence[str] | None = None, *, start: int = 0) -> Iterator[pa.RecordBatch]:
    """Yield the same rows as nonempty record batches; raises UserError."""
    number = start
    try:
        # No pre-buffering and a small buffer, so that a row group with all images is not read at once.
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER) as table:
            there = None if columns is None else _leaves(table, columns)
            ends = list(accumulate(table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)))
            groups = [group for group, end in enumerate(ends) if end > start]
            skipped = start - (ends[groups[0] - 1] if groups and groups[0] else 0)
            for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=there) if groups else ():
                passed = min(skipped, batch.num_rows)
                skipped -= passed
                number += batch.num_rows - passed
                if passed < batch.num_rows:
                    yield batch.slice(passed)
    except (OSError, ValueError, NotImplementedError) as error:
        raise not_parquet(file, error, f" after row {number}") from error


def _leaves(table: pq.ParquetFile, columns: Sequence[str]) -> list[str]:
    """Return the leaf columns of a file that ``columns`` selects, whole or in part."""
    found = []
    for index in range(len(table.schema)):
        parts = table.schema.column(index).path.split(".")
        if parts[0] in columns or f"{parts[0]}.{parts[-1]}" in columns:
            found.append(".".join(parts))
    return found


def parquet_columns(file: Path) -> list[str]:
    """Return the names of the columns of a parquet file; raises UserError if it is not one."""
    return list(parquet_schema(file).names)


def parquet_schema(file: Path) -> pa.Schema:
    """Return the columns of a parquet file with their types; raises UserError if it is not one."""
    try:
        return pq.read_schema(file)
    except (OSError, ValueError, NotImplementedError) as error:
        raise not_parquet(file, error) from error


def parquet_count(file: Path) -> int:
    """Return the number of rows of a parquet file; raises UserError if it is not one."""
    try:
        return pq.read_metadata(file).num_rows
    except (OSError, ValueError, NotImplementedError) as error:
        raise not_parquet(file, error) from error


def not_parquet(file: Path, error: BaseException, place: str = "") -> UserError:
    """Return the error for a file that cannot be read as parquet, with what it is instead if that is recognizable."""
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{file}: cannot be read ({error.strerror or first_line(error)}).")
    try:
        what = what_it_is(file) or parquet_fault(file)
    except OSError:
        what = None
    return UserError(f"{file}: {what or f'cannot be read as parquet{place} ({first_line(error)})'}.")


class RowWriter:
    """Writes rows to a parquet file, with one row group in memory at a time; a context manager.

    A group ends after ``group_rows`` rows, or when the stated sizes of its rows exceed ``group_bytes``.
    """

    def __init__(self, file: Path, schema: pa.Schema, *, group_rows: int, group_bytes: int | None = None) -> None:
        self._file, self._schema = pq.ParquetWriter(file, schema), schema
        self._rows, self._bytes = group_rows, group_bytes
        self._group: list[Mapping[str, Any]] = []
        self._size = 0

    def add(self, row: Mapping[str, Any], size: int = 0) -> None:
        """Add a row of about ``size`` bytes."""
        self._group.append(row)
        self._size += size
        if len(self._group) == self._rows or (self._bytes is not None and self._size > self._bytes):
            self._write()

    def close(self) -> None:
        """Write the remaining rows and close the file; closing again does nothing."""
        if self._group:
            self._write()
        self._file.close()

    def _write(self) -> None:
        self._file.write_table(pa.Table.from_pylist(self._group, schema=self._schema))
        self._group, self._size = [], 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._group = []
        self.close()


# ---- the Hub


def _open_hub(name: str, folder: Path, split: str, revision: str | None, config: str | None, stream: bool) -> RowSource:
    options = {"config": config, "revision": revision}
    if stream:
        return RowSource(name, folder, lambda: _streamed(name, split, options), revision)
    dataset = hub_dataset(name, split, **options)
    commit = _COMMIT.search(" ".join(dataset.info.download_checksums or {}))
    return RowSource(
        name,
        folder,
        lambda: (RawRow(name, number, row) for number, row in enumerate(dataset, 1)),
        commit[1] if commit else revision,
    )


def _streamed(name: str, split: str, options: Mapping[str, Any]) -> Iterator[RawRow]:
    number = 0
    dataset = hub_dataset(name, split, **options, streaming=True)
    try:
        for row in dataset:
            number += 1
            yield RawRow(name, number, row)
    except _hub_errors() as error:
        raise _no_dataset(name, f"{split} split of a dataset of that name after row {number}", error) from error


def hub_dataset(name: str, split: str, *, config: str | None = None, **options: Any) -> Any:
    """Return a dataset from the Hub with its images undecoded; ``options`` go to ``load_dataset``.

    Raises:
        UserError: If neither the Hub nor its cache provides it.
    """
    import datasets

    names = (name,) if config is None else (name, config)
    given = {key: value for key, value in options.items() if value is not None}
    try:
        with writing_cache():
            dataset = datasets.load_dataset(*names, split=split, **given)
    except _hub_errors() as error:
        raise _no_dataset(name, f"{split} split of a dataset of that name", error) from error
    for column, feature in (dataset.features or {}).items():
        if (cells := undecoded(feature)) != feature:
            dataset = dataset.cast_column(column, cells)
    return dataset


def undecoded(feature: Any, *, decode: bool = False) -> Any:
    """Return features of `datasets`, or one of them, with image decoding switched off (or on) at any depth."""
    import datasets

    if isinstance(feature, datasets.Image):
        return datasets.Image(mode=feature.mode, decode=decode)
    if isinstance(feature, Mapping):
        return type(feature)({name: undecoded(one, decode=decode) for name, one in feature.items()})  # type: ignore[call-arg]
    if isinstance(feature, datasets.LargeList):
        return datasets.LargeList(undecoded(feature.feature, decode=decode))
    if isinstance(feature, datasets.List):
        return datasets.List(undecoded(feature.feature, decode=decode), length=feature.length)
    return feature


def _hub_errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError

    return OSError, ValueError, RuntimeError, DatasetsError


def _no_dataset(name: str, what: str, error: BaseException) -> UserError:
    return UserError(
        f"{name}: no such local file, and the Hugging Face Hub returned no {what} ({first_line(error)}). Check the "
        f"spelling and the network.{did_you_mean(Path(name))} Without network access, give the path of a downloaded "
        "copy."
    )
