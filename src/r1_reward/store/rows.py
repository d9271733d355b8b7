"""Raw rows: out of any file they come in, one at a time, and into parquet.

JSONL is read line by line, a JSON array object by object, parquet and the Hub in small batches, so memory does not grow
with the number of rows; nothing is decoded before a picture is asked for. A line that cannot be read is a row that
says why::

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
"""Of files with rows. In a folder .json is looked for last: it may be somebody's settings beside the rows."""

_ROWS_AT_ONCE = 32  # of a parquet file, images included
_BUFFER = 1 << 20  # bytes of a parquet file read at once
_CHUNK = 1 << 16  # characters of a JSON array read at once
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_COMMIT = re.compile(r"@([0-9a-f]{40})/")
_SPLIT_NAME = re.compile(r"(train|test|validation|val|dev)[-_.]")


class RawRow(NamedTuple):
    """One row as its file gives it; ``broken`` says why there is no data."""

    file: str
    number: int
    """Of the line or row, from 1."""
    data: Any
    broken: str | None = None
    unit: str = "row"
    lost: bool = False
    """Whether nothing after a broken row can be read."""

    @property
    def place(self) -> str:
        """``line 3`` or ``row 3``."""
        return f"{self.unit} {self.number}"


@dataclass(frozen=True)
class RowSource:
    """Where rows come from: ``rows()`` starts again from the first each time it is called."""

    name: str
    folder: Path
    """What paths in the rows are relative to."""
    rows: Callable[[], Iterator[RawRow]]
    revision: str | None = None
    """Commit of a Hub dataset, as far as known."""
    notes: tuple[str, ...] = ()
    """What a report on the rows should say."""


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
    """Return the rows of a JSONL file, a JSON array, a parquet file, a folder of one kind of those, or a Hub dataset.

    In a folder, ``file`` is read if it is there; else all ``SPLIT-*`` files of the first of ``kinds`` that has some,
    or all files if none is named after a split, in the folder or in its ``data/``. ``image_root`` is what paths in
    the rows are relative to (default: the folder). ``revision`` and ``config`` are for the Hub, of which ``stream``
    fetches rows as they are asked for.

    Raises:
        UserError: there is nothing to read, or no telling what.
    """
    path = Path(source)
    if image_root is not None and not os.path.isdir(image_root):
        raise UserError(f"{image_root}: no such folder (the one that image paths are relative to).")
    root = None if image_root is None else Path(image_root)
    if not path.exists():
        if may_be_hub_id(source):
            return _open_hub(str(source), root or Path(), split, revision, config, stream)
        raise UserError(f"{path}: no such file or folder.{did_you_mean(path)}")
    if revision is not None:
        raise UserError(f"{path}: is a file on this machine; a revision ({revision}) can be asked for on the Hub only.")
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
    """Raise UserError if the system does not let this user read a path."""
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: you may not read this (permission denied).")


def may_be_hub_id(name: str | Path) -> bool:
    """Say whether a name has the form of a dataset on the Hub."""
    return isinstance(name, str) and bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and Path(name).suffix != ".jsonl"


def did_you_mean(path: Path) -> str:
    """Return a sentence that names the most similar file beside a path that is not there, or nothing."""
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def split_files(folder: Path, split: str, kinds: Sequence[str]) -> list[Path]:
    """Return the files of a split, all of one kind, in the folder or in ``data/`` as the Hub lays it out."""
    for place in (folder, folder / "data"):
        by_kind = {kind: sorted(place.glob(f"*{kind}"), key=lambda file: natural_key(file.name)) for kind in kinds}
        named = [found for files in by_kind.values() if (found := _named_after(files, split))]
        if len(named) == 1:  # the others are lists beside the rows: dropped.jsonl
            return named[0]
        if by_kind.get(".jsonl") and by_kind.get(".parquet"):
            raise UserError(f"{place}: holds both .jsonl and .parquet files; name the one to read.")
        for files in by_kind.values():
            if chosen := of_split(files, split):
                return chosen
    there = ", ".join(sorted(os.listdir(folder))[:10]) or "nothing"
    *more, last = (kind.removeprefix(".") for kind in kinds)
    names = f"{', '.join(more)} or {last}" if more else last
    raise UserError(f"{folder}: holds no {names} files of the {split} split; name the file to read. It holds: {there}.")


def of_split(files: Sequence[Path], split: str) -> list[Path]:
    """Return the files named after a split, or all if none of them is named after any."""
    # train-*.parquet beside test-*.parquet must not be read as one set.
    named = [file for file in files if _SPLIT_NAME.match(file.name) or file.name.startswith(f"{split}-")]
    return _named_after(named, split) if named else list(files)


def _named_after(files: Sequence[Path], split: str) -> list[Path]:
    return [file for file in files if re.match(rf"{re.escape(split)}[-_.]", file.name)]


def file_rows(file: Path) -> Iterator[RawRow]:
    """Yield the rows of one file; what is inside tells JSONL from a JSON array."""
    if file.suffix == ".parquet":
        return (RawRow(str(file), number, row) for number, row in parquet_rows(file))
    return array_rows(file) if is_array(file) else line_rows(file)


# ---- JSON


def line_rows(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a JSONL file, one line at a time, blank lines skipped."""
    for number, offset, line in raw_lines(path):
        if not is_blank(line):
            data, broken = parse_line(line, offset)
            yield RawRow(str(path), number, data, broken, "line")


def raw_lines(path: Path, number: int = 0, offset: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Yield number (from 1), offset in bytes and bytes of every line after the first ``number``, which end at offset.

    Raises UserError if the file is UTF-16 text, or none of JSON rows at all.
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
    """Say whether a line holds nothing, or nothing but a byte order mark."""
    return not line.removeprefix(_BYTE_ORDER_MARK).strip()


def parse_line(line: bytes, offset: int) -> tuple[Any, str | None]:
    """Return the JSON value of a line and None, or None and what is wrong with it."""
    try:
        return json.loads(line.decode().removeprefix("\ufeff"), object_pairs_hook=unique_fields), None
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 text (byte 0x{line[error.start]:02x} at offset {offset + error.start} of the file)"
    except json.JSONDecodeError as error:
        return None, f"is not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return None, f"is not usable JSON: {first_line(error)}"


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; a field given twice would silently lose its first value."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return row


def array_rows(path: Path) -> Iterator[RawRow]:
    """Yield the objects of a JSON array; after the first fault the next object cannot be found."""
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
    """Yield the items of a JSON array; raises ValueError where the text stops being one."""
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
            raise ValueError("the file ends in the middle of the array" if not sign else f"{sign!r} where ',' belongs")
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
                    raise ValueError(f"is not JSON: {error.msg}") from error
                text += more
        yield item
        text = text[end:]


def _next_token(text: str, file: TextIO) -> str:
    """Return the text from the next non-blank character on, reading on if need be; empty at the end of the file."""
    text = text.lstrip()
    while not text and (more := file.read(_CHUNK)):
        text = more.lstrip()
    return text


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


# ---- parquet


def parquet_rows(
    file: Path, columns: Sequence[str] | None = None, *, start: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number (from 1) and values of every row after the first ``start``, a few in memory at a time.

    ``columns`` are those to read, as far as the file has them; ``images.path`` is part of a column.

    Raises:
        UserError: it is not parquet, or damaged.
    """
    number = start
    for batch in parquet_batches(file, columns, start=start):
        try:
            rows = batch.to_pylist()
        except ValueError as error:  # bytes that are not text in a column of texts
            raise not_parquet(file, error, f" after row {number}") from error
        for row in rows:
            number += 1
            yield number, row


def parquet_batches(file: Path, columns: Sequence[str] | None = None, *, start: int = 0) -> Iterator[pa.RecordBatch]:
    """Yield the same rows as record batches, none of them empty; raises UserError."""
    number = start
    try:
        # Without pre-buffering, and with a bounded buffer, a row group of all images is not read at once.
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
    """Return the columns of a file that are asked for; of a column asked for in part, that part of it."""
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
    """Return what to say of a file that cannot be read as parquet: what it is instead, if that can be seen."""
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{file}: cannot be read ({error.strerror or first_line(error)}).")
    try:
        what = what_it_is(file) or parquet_fault(file)
    except OSError:
        what = None
    return UserError(f"{file}: {what or f'cannot be read as parquet{place} ({first_line(error)})'}.")


class RowWriter:
    """Writes rows to a parquet file, a group of rows in memory at a time; a context manager.

    A group ends after ``group_rows`` rows, or when what is said of the sizes of its rows adds up to ``group_bytes``.
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
        """Write what is left and end the file; closing again does nothing."""
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
        raise _no_dataset(name, f"{split} split of a dataset of that name beyond row {number}", error) from error


def hub_dataset(name: str, split: str, *, config: str | None = None, **options: Any) -> Any:
    """Return a dataset of the Hub with its images undecoded; ``options`` are more of those of ``load_dataset``.

    Raises:
        UserError: the Hub, or its cache, gives none.
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
    """Return features of `datasets`, or one of them, whose images are cells, however deep they lie.

    ``decode`` makes them pictures instead.
    """
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
        f"{name}: there is no such file here, and the Hugging Face Hub gave no {what} ({first_line(error)}). Is the "
        f"path misspelt, or is there no network?{did_you_mean(Path(name))} Without network, give the path of a "
        "downloaded copy instead."
    )
