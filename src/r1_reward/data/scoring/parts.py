"""The output of a scoring run while it grows: a parquet file for each block, joined at the end.

A part is complete or not there, so a kill loses the blocks under way and nothing else. What the run was asked for
stands in ``run.json`` beside the parts, and in the header of the finished file.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from r1_reward.data.scoring.rows import Block
from r1_reward.records.errors import UserError
from r1_reward.store.files import complete_file, read_json, write_json
from r1_reward.store.rows import RowWriter
from r1_reward.store.run_folder import LOCK, locked, read_remarks, require_same, run_folder

_KEY, _REMARKS = b"r1_reward.score", b"r1_reward.remarks"
_ROW_GROUP = 65_536
_LISTED = 20


class ScoreSummary(NamedTuple):
    """What a finished output holds."""

    out: Path
    rows: int
    failed: int
    first: list[tuple[int, str | None, str]]
    """Row (from 1), id and error of the first 20 that failed."""


class Parts:
    """The folder ``OUT.parts`` of one run."""

    def __init__(self, out: Path, run: Mapping[str, Any], block_rows: int, schema: pa.Schema) -> None:
        """``run`` is what decides the output, ``block_rows`` only what decides its parts."""
        self.out, self.folder = out, out.with_name(f"{out.name}.parts")
        self._run, self._block_rows = json.loads(json.dumps(run)), block_rows
        self._schema = schema.with_metadata({_KEY: json.dumps(self._run, sort_keys=True).encode()})

    def finished(self) -> ScoreSummary | None:
        """Return what the output holds if this run is finished, None if there is no output yet.

        Raises:
            UserError: the output is another run's, or no run's at all.
        """
        if not self.out.exists():
            return None
        advice = "Choose another file with --out."
        try:
            with pq.ParquetFile(self.out) as file:
                held = json.loads((file.schema_arrow.metadata or {})[_KEY])
                require_same(self.out, held, self._run, advice)
                return _summary(self.out, file)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.out}: is there already and no output of a scoring run. {advice}") from error

    def opened(self) -> AbstractContextManager[None]:
        """Create the folder, or see that it holds this very run, and keep other processes out; raises UserError."""
        run = {**self._run, "block_rows": self._block_rows}
        return run_folder(self.folder, run, advice="Choose another --out, or delete the folder.")

    def missing(self, blocks: Sequence[Block]) -> list[Block]:
        """Return the blocks that have no part yet."""
        there = {file.name for file in self.folder.iterdir()}
        return [block for block in blocks if self.path(block).name not in there]

    def path(self, block: Block) -> Path:
        """Return where the part of a block is, or will be."""
        return self.folder / f"part-{block.number:08d}.parquet"

    def write(self, block: Block, lines: Sequence[Mapping[str, Any]]) -> Path:
        """Keep the lines of a block; they are on disk when this returns. Its beginning alone is no part yet."""
        path = self.path(block)
        if len(lines) < block.rows:
            write_json(path := self._begun(block), list(lines))
            return path
        with complete_file(path) as unfinished, self._writer(unfinished) as writer:
            for line in lines:
                writer.add(line)
        return path

    def begun(self, block: Block) -> list[dict[str, Any]]:
        """Return the lines of the beginning of a block that was written when the run had to end."""
        path = self._begun(block)
        return list(read_json(path)) if path.exists() else []

    def _begun(self, block: Block) -> Path:
        return self.path(block).with_suffix(".begun.json")

    def _writer(self, file: Path) -> RowWriter:
        return RowWriter(file, self._schema, group_rows=_ROW_GROUP)

    def join(self, blocks: Sequence[Block]) -> ScoreSummary:
        """Make one file of all parts, the same whatever the blocks; the parts can be dropped then."""
        schema = self._schema
        if remarks := read_remarks(self.folder):
            schema = schema.with_metadata({**(schema.metadata or {}), _REMARKS: json.dumps(remarks).encode()})
        joined = complete_file(self.out, beside=self.folder / "joined")
        with joined as unfinished, RowWriter(unfinished, schema, group_rows=_ROW_GROUP) as writer:
            for block in blocks:
                for line in self._read(block).to_pylist():
                    writer.add(line)
        with pq.ParquetFile(self.out) as file:
            return _summary(self.out, file)

    def drop(self) -> None:
        """Remove the folder, which a finished output makes useless, unless another process is writing there."""
        if not self.folder.is_dir():
            return
        gone = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.gone")
        with suppress(UserError), locked(self.folder / LOCK, self.folder):
            self.folder.rename(gone)  # with the lock in it: nobody is left holding a file that was removed
        shutil.rmtree(gone, ignore_errors=True)

    def _read(self, block: Block) -> pa.Table:
        path = self.path(block)
        try:
            table = pq.read_table(path, schema=self._schema)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: is damaged; delete it and it is judged again.") from error
        if table.num_rows != block.rows:
            raise UserError(f"{path}: holds {table.num_rows} rows instead of {block.rows}; delete it.")
        return table


def _summary(out: Path, file: pq.ParquetFile) -> ScoreSummary:
    rows, failed = 0, 0
    first: list[tuple[int, str | None, str]] = []
    for batch in file.iter_batches(columns=["id", "error"]):
        names, errors = batch.column("id"), batch.column("error")
        failed += batch.num_rows - errors.null_count
        if errors.null_count < batch.num_rows and len(first) < _LISTED:
            found = [
                (rows + i + 1, names[i].as_py(), errors[i].as_py()) for i in range(batch.num_rows) if errors[i].is_valid
            ]
            first += found[: _LISTED - len(first)]
        rows += batch.num_rows
    return ScoreSummary(out, rows, failed, first)


def remarks_of(out: Path) -> list[str]:
    """Return what an output says about its server: the parameters it refused, and what is lost by that."""
    metadata = pq.read_schema(out).metadata or {}
    return list(json.loads(metadata.get(_REMARKS, b"[]")))
