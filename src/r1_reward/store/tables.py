"""Parquet files as a memory-mapped dataset, so that memory does not grow with the number of rows.

The rows are cached, uncompressed, in the cache folder of `datasets`, keyed by the *content* of the files: `datasets`
itself uses path and mtime as the key, and returns old rows for a file replaced under both::

    parquet_dataset([Path("pairs-00000.parquet"), Path("pairs-00001.parquet")])     # datasets.Dataset

Every start hashes the files (:mod:`r1_reward.store.digests` says what that costs). The cache can be deleted at any
time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from r1_reward.records.errors import UserError
from r1_reward.store.cache import cache_folder, writing_cache
from r1_reward.store.digests import file_digest
from r1_reward.store.files import complete_file
from r1_reward.store.rows import first_line, parquet_batches, parquet_schema

if TYPE_CHECKING:
    from datasets import Dataset, Features

_ROWS, _BYTES = 1000, 16 << 20  # written at once, with images


def parquet_dataset(files: Sequence[Path], features: Features | None = None) -> Dataset:
    """Return the rows of parquet files, concatenated, in the columns of ``features`` or of the first file.

    Raises:
        UserError: If a file is not parquet, is damaged, has other columns than the first, or changed while it was
            read; or if the cache folder cannot be written.
    """
    from datasets import Dataset, Features

    digests = [file_digest(file) for file in files]
    wanted = features or Features.from_arrow_schema(parquet_schema(files[0]))
    schema = wanted.arrow_schema
    name = hashlib.sha256("\n".join([*digests, str(wanted)]).encode()).hexdigest()[:32]
    rows = cache_folder("r1-reward-rows") / name / "rows.arrow"
    if not rows.exists():
        with _alone(rows):
            if not rows.exists():  # another process may have written it meanwhile
                with complete_file(rows) as part:
                    _write(files, schema, part)
                    if digests != [file_digest(file) for file in files]:
                        raise UserError(f"{files[0].parent}: files changed while they were read. Start again.")
    return Dataset.from_file(str(rows))


def _write(files: Sequence[Path], schema: pa.Schema, part: Path) -> None:
    with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for number, file in enumerate(files):
            for table in _tables(file):
                writer.write_table(_cast(table, schema, file, files[0] if number else None))


def _tables(file: Path) -> Iterator[pa.Table]:
    """Yield the rows of a parquet file in tables large enough for fast lookup and small enough for memory."""
    waiting: list[pa.RecordBatch] = []
    for batch in parquet_batches(file):
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= _ROWS or sum(one.nbytes for one in waiting) >= _BYTES:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _cast(table: pa.Table, schema: pa.Schema, file: Path, first: Path | None) -> pa.Table:
    from datasets.exceptions import DatasetsError
    from datasets.table import table_cast

    from r1_reward.store.part_columns import widened

    try:
        return table_cast(widened(table, schema), schema)
    except (ValueError, TypeError, DatasetsError) as error:
        wanted = f"those of {first}" if first else "the expected ones"
        raise UserError(f"{file}: its columns do not match {wanted} ({first_line(error)}).") from error


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Create the file's folder, and lock the file against other writing processes."""
    from filelock import FileLock

    with writing_cache():
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            yield
