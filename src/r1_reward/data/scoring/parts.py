"""The output of a scoring run in progress: one parquet file per block, joined at the end.

A part is either complete or absent, so a kill loses only the blocks in progress. A run that stops on its own in the
middle of a block keeps the rows judged so far, in a part whose name gives their range. The settings of the run are in
``run.json`` next to the parts, and in the header of the finished file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from r1_reward.data.scoring.rows import Block
from r1_reward.records.errors import UserError
from r1_reward.store.files import complete_file
from r1_reward.store.rows import RowWriter
from r1_reward.store.run_folder import LOCK, locked, read_remarks, require_same, run_folder

BEST = "top_is_best"
"""Column of the output of groups: see :data:`r1_reward.data.scoring.judging.SCHEMAS`."""

_KEY, _REMARKS = b"r1_reward.score", b"r1_reward.remarks"
_ROW_GROUP = 65_536
_LISTED = 20


_PARTIAL = re.compile(r"part-(\d+)\.(\d+)-(\d+)\.parquet")


class ScoreSummary(NamedTuple):
    """Summary of a finished output."""

    out: Path
    rows: int
    failed: int
    first: list[tuple[int, str | None, str]]
    """Row (from 1), id and error of the first 20 failures."""
    votes: int | None = None
    """Number of votes; None, like the next two, in an output of version 0.1.0."""
    unreadable: int | None = None
    """Number of votes without a verdict."""
    truncated: int | None = None
    """Number of votes cut by the token limit."""
    ranked: int | None = None
    """Number of groups with a ranking and rewards; None for pairs."""
    top_is_best: float | None = None
    """How often their top choice is a best one, in [0, 1]; tied top choices count proportionally."""

    @property
    def readable(self) -> int:
        """Number of votes with a verdict."""
        return (self.votes or 0) - (self.unreadable or 0)


class Parts:
    """The folder ``OUT.parts`` of one run."""

    def __init__(self, out: Path, run: Mapping[str, Any], block_rows: int, schema: pa.Schema) -> None:
        """``run`` holds the settings that determine the output; ``block_rows`` only affects its parts."""
        self.out, self.folder = out, out.with_name(f"{out.name}.parts")
        self._run, self._block_rows = json.loads(json.dumps(run)), block_rows
        self._schema = schema.with_metadata({_KEY: json.dumps(self._run, sort_keys=True).encode()})

    def finished(self) -> ScoreSummary | None:
        """Return the summary of the output if this run is finished, None if there is no output yet.

        Raises:
            UserError: the output belongs to another run, or is not the output of a run.
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
            raise UserError(f"{self.out}: already exists and is not the output of a scoring run. {advice}") from error

    def opened(self) -> AbstractContextManager[None]:
        """Create the folder, or check that it holds this same run, and lock it; raises UserError."""
        run = {**self._run, "block_rows": self._block_rows}
        return run_folder(self.folder, run, advice="Choose another --out, or delete the folder.")

    def missing(self, blocks: Sequence[Block]) -> list[Block]:
        """Return the incomplete blocks, with ``skip`` set to the rows that are already judged."""
        there = {file.name for file in self.folder.iterdir()}
        partial = self._partial()
        missing = []
        for block in blocks:
            if self.path(block).name not in there:
                *_, last = (0, *(end for _, end in _chain(partial, block)))
                missing += [block._replace(skip=last)] if last < block.rows else []
        return missing

    def path(self, block: Block, rows: tuple[int, int] | None = None) -> Path:
        """Return the path of a block's part, or of the part with only some of its ``rows`` (start, end)."""
        some = f".{rows[0]}-{rows[1]}" if rows is not None and rows != (0, block.rows) else ""
        return self.folder / f"part-{block.number:08d}{some}.parquet"

    def _partial(self) -> dict[tuple[int, int], int]:
        """Return the end row of each partial part, by (block number, start row)."""
        found = (_PARTIAL.fullmatch(file.name) for file in self.folder.iterdir())
        named = sorted(tuple(map(int, match.groups())) for match in found if match)
        return {(block, start): end for block, start, end in named}

    def write(self, block: Block, lines: Sequence[Mapping[str, Any]]) -> Path:
        """Write the lines of a block, starting after the rows to skip; they are on disk when this returns."""
        path = self.path(block, (block.skip, block.skip + len(lines)))
        with complete_file(path) as unfinished, RowWriter(unfinished, self._schema, group_rows=_ROW_GROUP) as writer:
            for line in lines:
                writer.add(line)
        return path

    def cut(self, block: Block, lines: Sequence[Mapping[str, Any]], kept: int) -> None:
        """Replace the part with these lines by one with only the first ``kept``; if that is none, remove it."""
        if kept:  # first, so that a kill in between loses nothing
            self.write(block, lines[:kept])
        self.path(block, (block.skip, block.skip + len(lines))).unlink()

    def join(self, blocks: Sequence[Block]) -> ScoreSummary:
        """Join all parts into one file, which does not depend on the blocks; the parts can be removed afterwards.

        Raises:
            UserError: a part is damaged or missing.
        """
        if missing := self.missing(blocks):
            raise UserError(f"{self.path(missing[0])}: is missing; run the same command again to judge it again.")
        schema, partial = self._schema, self._partial()
        if remarks := read_remarks(self.folder):
            schema = schema.with_metadata({**(schema.metadata or {}), _REMARKS: json.dumps(remarks).encode()})
        joined = complete_file(self.out, beside=self.folder / "joined")
        with joined as unfinished, RowWriter(unfinished, schema, group_rows=_ROW_GROUP) as writer:
            for block in blocks:
                whole = self.path(block).exists()
                for start, end in [(0, block.rows)] if whole else _chain(partial, block):
                    for line in self._read(self.path(block, (start, end)), end - start).to_pylist():
                        writer.add(line)
        with pq.ParquetFile(self.out) as file:
            return _summary(self.out, file)

    def drop(self) -> None:
        """Remove the folder, which is no longer needed once the output is finished, unless another process uses it."""
        if not self.folder.is_dir():
            return
        gone = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.gone")
        with suppress(UserError), locked(self.folder / LOCK, self.folder):
            self.folder.rename(gone)  # the lock moves along, so no process waits on a deleted file
        shutil.rmtree(gone, ignore_errors=True)

    def _read(self, path: Path, rows: int) -> pa.Table:
        try:
            table = pq.read_table(path, schema=self._schema)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: is damaged; delete it and run the same command again.") from error
        if table.num_rows != rows:
            raise UserError(
                f"{path}: has {table.num_rows} rows instead of {rows}; delete it and run the same command again."
            )
        return table


def _chain(partial: Mapping[tuple[int, int], int], block: Block) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) rows of a block's parts, in order from its beginning, up to the first gap."""
    start = 0
    while (end := partial.get((block.number, start), 0)) > start:
        yield start, end
        start = end


def _summary(out: Path, file: pq.ParquetFile) -> ScoreSummary:
    rows, failed = 0, 0
    first: list[tuple[int, str | None, str]] = []
    columns = file.schema_arrow.names
    counted = [name for name in ("for_1", "for_2", "ties", "votes", "unreadable", "truncated", BEST) if name in columns]
    ranked = 0
    sums: Counter[str] = Counter()
    for batch in file.iter_batches(columns=["id", "error", *counted]):
        sums.update({name: pc.sum(batch.column(name)).as_py() or 0 for name in counted})
        ranked += batch.num_rows - batch.column(BEST).null_count if BEST in columns else 0
        names, errors = batch.column("id"), batch.column("error")
        failed += batch.num_rows - errors.null_count
        if errors.null_count < batch.num_rows and len(first) < _LISTED:
            found = [
                (rows + i + 1, names[i].as_py(), errors[i].as_py()) for i in range(batch.num_rows) if errors[i].is_valid
            ]
            first += found[: _LISTED - len(first)]
        rows += batch.num_rows
    if "truncated" not in columns:
        return ScoreSummary(out, rows, failed, first)
    by_verdict = sum(sums[name] for name in ("for_1", "for_2", "ties", "unreadable"))
    votes = sums["votes"] if "votes" in columns else by_verdict
    summary = ScoreSummary(out, rows, failed, first, votes, sums["unreadable"], sums["truncated"])
    if BEST not in columns:
        return summary
    return summary._replace(ranked=ranked, top_is_best=sums[BEST] / ranked if ranked else None)


def remarks_of(out: Path) -> list[str]:
    """Return the remarks stored in an output: the parameters its server rejected, and the consequences."""
    metadata = pq.read_schema(out).metadata or {}
    return list(json.loads(metadata.get(_REMARKS, b"[]")))
