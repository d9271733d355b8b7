"""Raw rows out of the files benchmarks are published in, one at a time, and the pictures of a row.

JSONL is read line by line, a JSON array object by object, parquet in small batches, so memory does not grow with the
number of rows; nothing is decoded before a picture is asked for::

    source = open_source("all_data.json")
    for raw in source.rows():                 # RawRow(file="all_data.json", place="row 1", data={...}, broken=None)
        ...
    pictures = row_images(row, frames=32)     # of a BenchmarkRow, as RGB
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from r1_reward.bench.rows import BenchmarkRow
from r1_reward.records.errors import UserError
from r1_reward.store.images import ImageError
from r1_reward.store.video import natural_key, row_pictures

if TYPE_CHECKING:
    from PIL import Image

_ROWS_AT_ONCE = 32  # of a parquet file, images included
_CHUNK = 1 << 16  # characters of a JSON array read at once
_COMMIT = re.compile(r"@([0-9a-f]{40})/")


class RawRow(NamedTuple):
    """One row as its file gives it; ``broken`` says why there is no data."""

    file: str
    place: str
    """``line 3`` or ``row 3``, from 1."""
    data: Any
    broken: str | None = None


@dataclass(frozen=True)
class Source:
    """Where rows come from: ``rows()`` starts again from the first each time it is called."""

    name: str
    folder: Path
    """What paths in the rows are relative to."""
    rows: Callable[[], Iterator[RawRow]]
    revision: str | None = None
    """Commit of a Hub dataset, as far as known."""


def open_source(
    source: str | Path, *, image_root: str | Path | None = None, split: str = "test", revision: str | None = None
) -> Source:
    """Return the rows of a JSONL file, a JSON array, a parquet file, a folder of those, or a Hub dataset.

    ``image_root`` is what paths in the rows are relative to (default: the folder of the file). ``split`` picks
    ``test-*.parquet`` in a folder, or the split on the Hub. Raises UserError when there is nothing to read.
    """
    from r1_reward.store.pairs import did_you_mean, may_be_hub_id

    path = Path(source)
    if image_root is not None and not os.path.isdir(image_root):
        raise UserError(f"{image_root}: no such folder (the one that image paths are relative to).")
    root = None if image_root is None else Path(image_root)
    if not path.exists():
        if may_be_hub_id(source):
            return _open_hub(str(source), root or Path(), split, revision)
        raise UserError(f"{path}: no such file or folder.{did_you_mean(path)}")
    if revision is not None:
        raise UserError(f"{path}: is a file on this machine; a revision ({revision}) can be asked for on the Hub only.")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: you may not read this (permission denied).")
    if path.is_dir():
        files = _parquet_files(path, split)
        return Source(str(path), root or path, lambda: _chain(files, _parquet_rows))
    if path.suffix == ".parquet":
        return Source(str(path), root or path.parent, lambda: _parquet_rows(path))
    if path.suffix not in (".json", ".jsonl"):
        raise UserError(f"{path}: benchmark files end in .jsonl, .json or .parquet.")
    read = array_rows if is_array(path) else line_rows
    return Source(str(path), root or path.parent, lambda: read(path))


def _parquet_files(folder: Path, split: str) -> list[Path]:
    """Return the parquet files of a split, in the folder or in ``data/`` as the Hub lays it out."""
    for place in (folder, folder / "data"):
        files = sorted(place.glob("*.parquet"), key=lambda file: natural_key(file.name))
        named = [file for file in files if re.match(r"(train|test|validation|val|dev)[-_.]", file.name)]
        # train-*.parquet beside test-*.parquet must not be read as one set.
        chosen = [file for file in named if re.match(rf"{re.escape(split)}[-_.]", file.name)] if named else files
        if chosen:
            return chosen
    there = ", ".join(sorted(os.listdir(folder))[:10]) or "nothing"
    raise UserError(f"{folder}: holds no parquet files of the {split} split; name the file to read. It holds: {there}.")


def _chain(files: list[Path], read: Callable[[Path], Iterator[RawRow]]) -> Iterator[RawRow]:
    for file in files:
        yield from read(file)


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    import pyarrow.parquet as pq

    number = 0
    try:
        # Without pre-buffering, and with a bounded buffer, a row group of all images is not read at once.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield RawRow(str(path), f"row {number}", row)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as parquet after row {number} ({_first_line(error)}).") from error


def line_rows(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a JSONL file, one line at a time."""
    from r1_reward.store.pairs import read_lines

    for number, data, broken in read_lines(path):
        yield RawRow(str(path), f"line {number}", data, broken)


def is_array(path: Path) -> bool:
    """Say whether a file holds one JSON array rather than an object a line."""
    with open(path, "rb") as file:
        start = file.read(4096)
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def array_rows(path: Path) -> Iterator[RawRow]:
    """Yield the objects of a JSON array; after the first fault there is no telling where the next object begins."""
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for data in _array_items(file):
                number += 1
                yield RawRow(str(path), f"row {number}", data)
    except UnicodeDecodeError:
        yield RawRow(str(path), f"row {number + 1}", None, "is not UTF-8 text; nothing after it was read")
    except (ValueError, RecursionError) as error:
        yield RawRow(str(path), f"row {number + 1}", None, f"{_first_line(error)}; nothing after it was read")


def _array_items(file: TextIO) -> Iterator[Any]:
    """Yield the items of a JSON array; raises ValueError where the text stops being one."""
    from r1_reward.store.pairs import unique_fields

    decoder = json.JSONDecoder(object_pairs_hook=unique_fields)
    text, opened = "", False
    while True:
        text = _next_token(text, file)
        sign, rest = text[:1], _next_token(text[1:], file)
        if opened and sign == "]":
            if rest:
                raise ValueError("the text goes on after the end of the array")
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
    """Return the text from the next sign that is no blank on, reading on if need be; empty at the end of the file."""
    text = text.lstrip()
    while not text and (more := file.read(_CHUNK)):
        text = more.lstrip()
    return text


def _open_hub(name: str, folder: Path, split: str, revision: str | None) -> Source:
    """Open a dataset of the Hub; images stay undecoded."""
    from datasets import Image as ImageFeature
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        dataset = load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise UserError(
            f"{name}: there is no such file here, and the Hugging Face Hub gave no {split} split of a dataset of that "
            f"name ({_first_line(error)}). Without network, give the path of the released file instead."
        ) from error
    for column, feature in dataset.features.items():
        if isinstance(feature, ImageFeature):
            dataset = dataset.cast_column(column, ImageFeature(decode=False))
    files = " ".join(dataset.info.download_checksums or {})
    commit = _COMMIT.search(files)

    def rows() -> Iterator[RawRow]:
        for number, row in enumerate(dataset, 1):
            yield RawRow(name, f"row {number}", row)

    return Source(name, folder, rows, revision=commit[1] if commit else revision)


def open_pairs(source: str | Path, split: str) -> Source:
    """Return the rows of a pair file, checked by :func:`r1_reward.store.pairs.load_pairs`, with relative paths.

    Raises PairFileError if a row is wrong, UserError if there is no such file.
    """
    from r1_reward.store.pairs import load_pairs

    dataset = load_pairs(source, split=split, check_images=False)
    path = Path(source)
    folder = Path(os.path.abspath(path if path.is_dir() else path.parent if path.exists() else "."))

    def relative(path: str | None) -> str | None:
        return path and os.path.relpath(path, folder)

    def rows() -> Iterator[RawRow]:
        for number, row in enumerate(dataset, 1):
            images = [cell if cell["bytes"] is not None else relative(cell["path"]) for cell in row["images"] or []]
            yield RawRow(str(source), f"row {number}", {**row, "images": images, "video": relative(row["video"])})

    return Source(str(source), folder, rows)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def row_images(row: BenchmarkRow, frames: int = 32) -> list[Image.Image]:
    """Return the pictures of a row as RGB: its images, then up to ``frames`` frames of its video.

    Raises ImageError with position and id of the row in the message.
    """
    try:
        return row_pictures({"images": row.images, "video": row.video}, frames)
    except ImageError as error:
        raise ImageError(f"row {row.index} (id {row.id}): {error.name}", error.reason) from error
