"""Build all tables for a set of runs: an overview if there are several benchmarks, then one table per benchmark.

    tables = build_tables([load_run(path) for path in paths])
    print(to_markdown(tables))                     # r1_reward.bench.table_formats

The overview has a row for each judge and protocol, with the headline numbers of each benchmark. A section has only runs
with the same orders, rule for unreadable verdicts and number of votes. Published tables with rows on several of the
benchmarks follow, each in its own section.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from r1_reward.bench.benchmark import OFFICIAL, Benchmark
from r1_reward.bench.benchmarks import find_benchmark
from r1_reward.bench.table import (
    INTERVAL_NOTE,
    MISSING,
    RULE_NOTE,
    Row,
    Run,
    Section,
    Table,
    add_footnote,
    build_table,
    checked_run,
    groupings_of,
    mark_of,
    row_of_published,
    row_of_run,
)
from r1_reward.records.errors import UserError

_MARKS = ("impossible", "below chance", "rows dropped", "partial")
"""Problems of a cell, the worst first."""


def build_tables(runs: Sequence[Mapping[str, Any]], *, published: bool = True) -> tuple[Table, ...]:
    """Return one table per suite, in order of first appearance, preceded by an overview if there are several suites.

    Raises:
        UserError: there is no run, or a run lacks required fields (see :func:`r1_reward.bench.table.load_run`).
    """
    suites: dict[str, list[Mapping[str, Any]]] = {}
    checked = [checked_run(run, number) for number, run in enumerate(runs, start=1)]
    for run, read in zip(runs, checked, strict=True):
        suites.setdefault(read.suite, []).append(run)
    if not suites:
        raise UserError("no runs to show; pass run folders, or JSON files written by bench score --json")
    overview = [build_overview(checked, published=published)] if len(suites) > 1 else []
    return (*overview, *(build_table(group, published=published) for group in suites.values()))


class _Cell(NamedTuple):
    """The part of an overview row on one benchmark."""

    section: str
    suite: str
    row: Row
    footnotes: list[str]


def build_overview(runs: Sequence[Run], *, published: bool = True) -> Table:
    """Return a table with the headline numbers of runs and of published rows on several benchmarks."""
    benchmarks = [find_benchmark(name) for name in dict.fromkeys(run.suite for run in runs)]
    cells = [*_runs(runs), *(_published(benchmarks) if published else ())]
    footnotes: list[str] = []
    sections: dict[str, list[Row]] = {}
    for line in _lines(cells):
        sections.setdefault(line[0].section, []).append(_row(benchmarks, line, footnotes))
    own = [benchmark.title for benchmark in benchmarks if benchmark.official]
    notes = [INTERVAL_NOTE, RULE_NOTE, "Rows in different sections, or in a published section, may not be comparable."]
    notes += [f"The official scores of {' and '.join(own)} have their own rule for unreadable verdicts."] if own else []
    return Table(
        suite="overview",
        title="All benchmarks: headline numbers (%)",
        columns=tuple(f"{one.title} {column.heading}" for one in benchmarks for column in one.headline_columns),
        sections=tuple(Section(heading, tuple(rows)) for heading, rows in sections.items()),
        footnotes=tuple(footnotes),
        notes=tuple(notes),
    )


def _runs(runs: Sequence[Run]) -> Iterator[_Cell]:
    for run in runs:
        benchmark, own = find_benchmark(run.suite), list[str]()
        row = row_of_run(benchmark, run, groupings_of(benchmark, run)[0], benchmark.headline_columns, own)
        grouping, orders, rule, votes, _ = row.protocol
        rows = "" if grouping == OFFICIAL else f"; rows: {grouping}"
        yield _Cell(f"Orders: {orders}; unreadable verdicts: {rule}; votes: {votes}{rows}", benchmark.name, row, own)


def _published(benchmarks: Sequence[Benchmark]) -> Iterator[_Cell]:
    """Yield the rows of sources that published rows on several of the benchmarks."""
    found: dict[str, list[_Cell]] = {}
    for benchmark in benchmarks:
        for published in benchmark.published:
            own: list[str] = []
            row = row_of_published(benchmark, published, benchmark.headline_columns, own)
            section = f"Published together: {published.source}"
            found.setdefault(section, []).append(_Cell(section, benchmark.name, row, own))
    for cells in found.values():
        if len({cell.suite for cell in cells}) > 1:
            yield from cells


def _lines(cells: Sequence[_Cell]) -> list[list[_Cell]]:
    """Group the cells into rows with the same model and protocol and at most one cell per benchmark."""
    lines: list[list[_Cell]] = []
    for cell in cells:
        for line in lines:
            first = line[0]
            same = (first.section, first.row.model, first.row.protocol[:4]) == (
                cell.section, cell.row.model, cell.row.protocol[:4],
            )  # fmt: skip
            if same and all(other.suite != cell.suite for other in line):
                line.append(cell)
                break
        else:
            lines.append([cell])
    return lines


def _row(benchmarks: Sequence[Benchmark], line: Sequence[_Cell], footnotes: list[str]) -> Row:
    first, cells = line[0].row, {cell.suite: cell for cell in line}
    texts: list[str] = []
    numbers: list[int] = []
    for benchmark in benchmarks:
        cell = cells.get(benchmark.name)
        texts += cell.row.cells if cell else [MISSING] * len(benchmark.headline_columns)
        numbers += [add_footnote(footnotes, f"{benchmark.title}: {text}") for text in (cell.footnotes if cell else ())]
    kinds = {cell.row.mark.partition("(")[0].strip() for cell in line}
    worst = next((kind for kind in _MARKS if kind in kinds), "")
    return first._replace(protocol=(*first.protocol[:4], MISSING), cells=tuple(texts), mark=mark_of(worst, numbers))
