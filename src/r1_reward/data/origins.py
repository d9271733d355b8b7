"""The raw rows of a source: out of a JSONL, JSON or parquet file, a folder of those, or the Hub, as a stream.

``open_origin("vlfeedback_80k.jsonl", split="train").rows()`` yields file, number from 1, and the row as it is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.bench.readers import array_rows, is_array
from r1_reward.records.errors import UserError
from r1_reward.store.pairs import did_you_mean, may_be_hub_id, read_lines
from r1_reward.store.shards import parquet_rows
from r1_reward.store.video import natural_key

_SPLIT_NAME = re.compile(r"(train|test|validation|val|dev)[-_.]")


class RawRow(NamedTuple):
    """A row as its file gives it; ``broken`` says why there is no data."""

    file: str
    number: int
    """Row or line of the file, from 1."""
    data: Any
    broken: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where rows come from; ``rows()`` starts at the first one."""

    name: str
    folder: Path
    """The folder of the file, or the folder given."""
    rows: Callable[[], Iterator[RawRow]]


def open_origin(
    path_or_hub_id: str | Path, *, split: str, config: str | None = None, file: str | None = None
) -> Origin:
    """Return the rows of a file, a folder or a dataset of the Hub, which is streamed.

    In a folder, ``file`` is read if it is there; else all ``SPLIT-*`` files, or all files if none is named after a
    split, in the folder or in its ``data/``. Raises UserError if there is nothing to read or no telling what.
    """
    path = Path(path_or_hub_id)
    if not path.exists():
        if may_be_hub_id(path_or_hub_id):
            name = str(path_or_hub_id)
            return Origin(name, Path(), lambda: _hub_rows(name, config, split))
        raise UserError(f"{path}: no such file or folder.{did_you_mean(path)}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: you may not read this (permission denied).")
    if path.is_file():
        if path.suffix not in (".jsonl", ".json", ".parquet"):
            raise UserError(f"{path}: sources end in .jsonl, .json or .parquet.")
        return Origin(str(path), path.parent, lambda: _file_rows(path))
    files = [path / file] if file is not None and (path / file).is_file() else _files(path, split)
    return Origin(str(path), path, lambda: (row for one in files for row in _file_rows(one)))


def _files(folder: Path, split: str) -> list[Path]:
    """Return the files of a split of a folder, all of one kind."""
    for place in (folder, folder / "data"):
        by_kind = {kind: sorted(place.glob(f"*{kind}"), key=lambda file: natural_key(file.name)) for kind in _KINDS}
        if by_kind[".jsonl"] and by_kind[".parquet"]:
            raise UserError(f"{place}: holds both .jsonl and .parquet files; name the one to read.")
        for files in by_kind.values():
            # train-*.parquet beside test-*.parquet must not be read as one set.
            named = [file for file in files if _SPLIT_NAME.match(file.name)]
            chosen = [file for file in named if re.match(rf"{re.escape(split)}[-_.]", file.name)] if named else files
            if chosen:
                return chosen
    there = ", ".join(sorted(os.listdir(folder))[:10]) or "nothing"
    raise UserError(f"{folder}: holds no .jsonl, .json or .parquet files of the {split} split. It holds: {there}.")


_KINDS = (".parquet", ".jsonl", ".json")  # .json last: it may be somebody's settings beside the rows


def _file_rows(file: Path) -> Iterator[RawRow]:
    if file.suffix == ".parquet":
        for number, row in parquet_rows(file):
            yield RawRow(str(file), number, row)
    elif is_array(file):
        for number, raw in enumerate(array_rows(file), 1):
            if raw.broken is not None:  # how many rows are lost, nobody knows
                raise UserError(f"{file}: {raw.place}: {raw.broken}. Is the file complete?")
            yield RawRow(str(file), number, raw.data)
    else:
        for number, row, broken in read_lines(file):
            yield RawRow(str(file), number, row, broken)


def _hub_rows(name: str, config: str | None, split: str) -> Iterator[RawRow]:
    """Stream a dataset of the Hub with its images undecoded."""
    import datasets
    from datasets.exceptions import DatasetsError

    number = 0
    try:
        stream = datasets.load_dataset(name, config, split=split, streaming=True)
        for column, feature in (stream.features or {}).items():
            if isinstance(feature, datasets.Image):
                stream = stream.cast_column(column, datasets.Image(decode=False))
            elif isinstance(getattr(feature, "feature", None), datasets.Image):
                stream = stream.cast_column(column, datasets.List(datasets.Image(decode=False)))
        for row in stream:
            number += 1
            yield RawRow(name, number, row)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise UserError(
            f"{name}: there is no such file here, and the Hugging Face Hub gave no {split} split of a dataset of that "
            f"name beyond row {number} ({reason}). Without network, give the path of a downloaded copy instead."
        ) from error
