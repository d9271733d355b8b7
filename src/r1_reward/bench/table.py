"""Compare runs with published rows, in sections of rows whose numbers are comparable.

    runs = [load_run(Path("runs/r1-7b")), load_run(Path("scored.json"))]
    table = build_table(runs)                      # of one benchmark; r1_reward.bench.overview has those of several
    print(to_markdown([table]))                    # r1_reward.bench.table_formats

A column such as VL-RewardBench's General has 183 rows in one grouping and 484 in another, so each grouping has its own
section and header, and a run that was scored under two groupings is in both. Every row shows its grouping, order
protocol and rule for unreadable verdicts. Published rows with arithmetically impossible numbers are marked with the
reason, and unfinished runs with their progress.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r1_reward.bench.benchmark import (
    NONE,
    NOT_STATED,
    OFFICIAL,
    PREFERRED_FIRST,
    WITH_TIES,
    Benchmark,
    Column,
    PublishedRow,
)
from r1_reward.bench.benchmarks import benchmark_names, find_benchmark
from r1_reward.bench.published import below_chance, explained_by_drops, fits, impossible, sizes_of
from r1_reward.bench.settings import Rule
from r1_reward.records.errors import UserError

MISSING = "–"

PROTOCOL = ("grouping", "orders", "unreadable", "votes", "n")
"""Headings of the protocol columns, between the model and its numbers."""

INTERVAL_NOTE = "All numbers are percentages; [low, high] is a 95 % bootstrap interval."
RULE_NOTE = (
    "Unreadable verdicts: wrong = counted as wrong; drop = a row without a majority of all its votes is left out; "
    "coin = decided at random. "
    "Only rows with the same orders and the same rule are comparable."
)
_FIRST_NOTE = "Orders 'preferred first': a judge that always chooses the first response scores 100 %."

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Score = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
"""An official score of a benchmark; one is a weighted sum that can reach 1.01."""
Count = Annotated[int, Field(ge=0)]
Bounds = Annotated[list[Share], Field(min_length=2, max_length=2)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True)


class _Category(_Shape):
    accuracy: Share | None


class _Grouping(_Shape):
    categories: dict[str, _Category]
    macro: Share | None = None


class _Intervals(_Shape):
    overall: Bounds | None = None
    macro: Bounds | None = None
    paper_macro: Bounds | None = None
    acc_plus: Bounds | None = None


class _Official(_Shape):
    values: dict[str, Score | None]
    intervals: dict[str, Annotated[list[Score], Field(min_length=2, max_length=2)] | None] = {}


class Run(_Shape):
    """The fields of a run used by tables; other fields are ignored."""

    suite: str
    name: str = ""
    n: Count
    rows: Count | None = None
    ties: Count | None = None
    ties_left_out: Count = 0
    size: str | None = ""
    """Label of the official size, None for unofficial rows, empty if unknown."""
    expected: Count | None = None
    limit: Count | None = None
    """The number of rows or groups of a trial, None for a run on all rows."""
    complete: bool | None = None
    rule: Rule
    orders: str | None = None
    votes: Count | None = None
    overall: Share | None
    macro: Share | None = None
    acc_plus: Share | None = None
    categories: dict[str, _Category]
    groupings: dict[str, _Grouping] | None = None
    intervals: _Intervals | None = None
    official: _Official | None = None
    parse_rate: Share | None = None
    truncated: Share | None = None
    constant: str | None = None


class Row(NamedTuple):
    """One row, ready to print: plain text without line breaks."""

    model: str
    published: bool
    protocol: tuple[str, ...]
    """Values of the :data:`PROTOCOL` columns."""
    cells: tuple[str, ...]
    """Values of the table's columns."""
    mark: str
    """``impossible (1)``, ``below chance (1)``, ``rows dropped (2)``, ``partial (3)``, ``(4)`` or empty; the numbers
    refer to footnotes."""


class Section(NamedTuple):
    """Rows with comparable numbers."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """All rows of one benchmark."""

    suite: str
    title: str
    columns: tuple[str, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[str, ...]
    """Marks refer to footnote i by the number i + 1."""
    notes: tuple[str, ...]
    """Notes on the whole table."""


def load_run(path: Path) -> dict[str, Any]:
    """Load the numbers of a run: a folder with a metrics.json, or a file with the output of ``bench score --json``.

    A run without a name is named after its folder or file.

    Raises:
        UserError: the file does not exist, is not JSON, or does not have the fields of a run.
    """
    file = path / "metrics.json" if path.is_dir() else path
    if not file.is_file():
        missing = f"{path}: has no metrics.json; it must be the folder of a finished run"
        raise UserError(missing if path.is_dir() else f"{path}: no such file or folder")
    try:
        run = Run.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise UserError(_explain(str(file), error)) from error
    _check_suite(run, str(file))
    name = run.name.strip() or (path.resolve().name if path.is_dir() else path.stem)
    return run.model_dump() | {"name": name}


def build_table(runs: Sequence[Mapping[str, Any]], *, published: bool = True) -> Table:
    """Return the table of the runs on one suite, together with its published rows.

    Raises:
        UserError: there is no run, the runs are on several suites, or one lacks the fields of a run.
    """
    checked = [checked_run(run, number) for number, run in enumerate(runs, start=1)]
    suites = list(dict.fromkeys(run.suite for run in checked))
    if len(suites) != 1:
        found = f"these are on several suites ({', '.join(suites)})" if suites else "there are none"
        raise UserError(f"a table needs runs on one suite; {found}")
    benchmark = find_benchmark(suites[0])
    columns = benchmark.table_columns({name for run in checked for name in run.categories})
    footnotes: list[str] = []
    beside = benchmark.published if published else ()
    rows = [row_of_published(benchmark, row, columns, footnotes) for row in beside]
    for run in checked:
        rows += [row_of_run(benchmark, run, name, columns, footnotes) for name in groupings_of(benchmark, run)]
    orders = PROTOCOL.index("orders")
    notes = [INTERVAL_NOTE, RULE_NOTE, *benchmark.notes]
    if benchmark.grouped:
        notes.append(f"n of a run counts its pairs, while published rows are shares of {benchmark.unit}.")
    if any(row.protocol[orders] == PREFERRED_FIRST for row in rows):
        notes.append(_FIRST_NOTE)
    if beside:
        notes.append(f"Published rows: {'; '.join(dict.fromkeys(row.source for row in beside))}.")
    return Table(
        suite=benchmark.name,
        title=f"{benchmark.title}: accuracy (%)",
        columns=tuple(plain(column.heading) for column in columns),
        sections=_sections(benchmark, rows),
        footnotes=tuple(footnotes),
        notes=tuple(notes),
    )


def checked_run(run: Mapping[str, Any], number: int) -> Run:
    """Validate the fields of a run; raises UserError if any is missing or invalid, or the suite is unknown."""
    try:
        checked = Run.model_validate(dict(run))
    except ValidationError as error:
        raise UserError(_explain(f"run {number}", error)) from error
    _check_suite(checked, f"run {number}")
    return checked


def _check_suite(run: Run, where: str) -> None:
    if run.suite not in (names := benchmark_names()):
        raise UserError(f"{where}: unknown suite {run.suite!r}; the suites are {', '.join(names)}")


def _explain(where: str, error: ValidationError) -> str:
    """Return a message about the first problem with a run's fields."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return f"{where}: is not JSON ({first['ctx']['error']})"
    if not field:
        return f"{where}: must be one JSON object, the metrics of a run"
    if first["type"] == "missing":
        return f"{where}: field {field} is missing; the file must be metrics.json of a run or bench score --json output"
    given = repr(first["input"])
    shown = given if len(given) <= 60 else given[:60] + "..."
    return f"{where}: field {field}: {first['msg']}, not {shown}"


def _sections(benchmark: Benchmark, rows: Sequence[Row]) -> tuple[Section, ...]:
    """Return the rows by grouping: official first, then the others as defined, then those without a known grouping."""
    order = [*(benchmark.groupings or [OFFICIAL]), NOT_STATED, NONE]
    grouped = {name: tuple(row for row in rows if row.protocol[0] == name) for name in order}
    return tuple(Section(_heading(benchmark, name), group) for name, group in grouped.items() if group)


def _heading(benchmark: Benchmark, grouping: str) -> str:
    if grouping == NOT_STATED:
        return "Grouping not stated: not comparable with other rows"
    if grouping == NONE:
        return "Overall only, no categories published"
    if not benchmark.groupings:
        return "All pairs"
    names = "/".join(benchmark.groupings[grouping])
    without = ", without ties" if WITH_TIES in benchmark.groupings else ""
    titles = {
        OFFICIAL: f"Official grouping{without}",
        WITH_TIES: "With ties, and a judge that may answer with a tie",
        "paper": "Grouping of the R1-Reward paper",
    }
    return f"{titles.get(grouping, grouping)}: {names} = {sizes_of(benchmark, grouping)} {benchmark.unit}"


def groupings_of(benchmark: Benchmark, run: Run) -> list[str]:
    """Return the groupings whose sections contain a run."""
    known = benchmark.groupings
    if run.ties and WITH_TIES in known:
        return [WITH_TIES]
    return [OFFICIAL, *(name for name in run.groupings or {} if name in known and name != OFFICIAL)]


def row_of_published(benchmark: Benchmark, row: PublishedRow, columns: Sequence[Column], footnotes: list[str]) -> Row:
    """Return a published row's values in these columns; appends to ``footnotes``."""
    reason = impossible(benchmark, row)
    numbers = []
    kind = ""
    if reason:
        kind = "rows dropped" if explained_by_drops(benchmark, row) else "impossible"
        numbers.append(add_footnote(footnotes, f"Impossible on all rows: {reason}."))
    if low := below_chance(benchmark, row):
        kind = kind or "below chance"
        numbers.append(add_footnote(footnotes, f"Impossible if every verdict counts: {low}."))
    if row.note:
        numbers.append(add_footnote(footnotes, f"{row.note[0].upper()}{row.note[1:]}."))
    found = fits(benchmark, row)
    fit = found.get(row.grouping) or next(iter(found.values()), None)
    n = f"{fit.rows:,}" if fit and not reason else MISSING
    return Row(
        model=plain(row.model),
        published=True,
        protocol=(row.grouping, row.orders, row.rule, _number(row.votes), n),
        cells=tuple(row.values.get(column.heading, MISSING) for column in columns),
        mark=mark_of(kind, numbers),
    )


def row_of_run(benchmark: Benchmark, run: Run, grouping: str, columns: Sequence[Column], footnotes: list[str]) -> Row:
    """Return a run's numbers under one grouping in these columns; appends to ``footnotes``."""
    judged = run.n if run.rows is None else run.rows
    short = run.expected is not None and judged < run.expected
    partial = short or run.complete is False
    of = run.expected if short and run.expected is not None else judged
    numbers = []
    if partial:
        share = f"{judged:,} of {run.expected:,} rows" if run.expected is not None else f"only {judged:,} rows"
        numbers.append(add_footnote(footnotes, f"Partial: {share} were judged; the numbers are on these."))
    numbers += [add_footnote(footnotes, text) for text in _other_rows(benchmark, run, grouping, columns)]
    if run.parse_rate is not None and run.parse_rate < 1:
        numbers.append(add_footnote(footnotes, f"{100 * run.parse_rate:.2f} % of the votes are readable."))
    if run.truncated:
        numbers.append(
            add_footnote(footnotes, f"{100 * run.truncated:.2f} % of the votes were cut by the token limit.")
        )
    if run.constant:
        numbers.append(add_footnote(footnotes, f"This judge is constant: {plain(run.constant)}."))
    orders = plain(run.orders or "unknown").replace("preferred-first", PREFERRED_FIRST)
    n = f"{run.n:,}" if run.n == of else f"{run.n:,} of {of:,}"
    return Row(
        model=plain(run.name) or "unnamed run",
        published=False,
        protocol=(grouping, orders, run.rule, _number(run.votes), n),
        cells=tuple(_run_cell(run, grouping, column) for column in columns),
        mark=mark_of("partial" if partial else "", numbers),
    )


def _other_rows(benchmark: Benchmark, run: Run, grouping: str, columns: Sequence[Column]) -> list[str]:
    """Return notes on how the rows of a run differ from those of the published rows in its section."""
    told = []
    sizes = benchmark.groupings.get(grouping if grouping == WITH_TIES else OFFICIAL, {})
    whole = sum(sizes.values())
    own = sum(sizes[one.heading] for one in columns if one.heading in sizes and one.key in run.categories)
    if run.limit is not None:
        told.append(f"A trial on a part of the benchmark (`--limit {run.limit}`).")
    elif whole and run.expected not in (None, whole, own) and not benchmark.grouped:
        told.append(f"On a version with {run.expected:,} rows; the published one has {whole:,}.")
    elif benchmark.sizes and run.size is None:
        told.append(
            f"Not on the official {whole:,} {benchmark.unit}." if whole else f"Not on the official {benchmark.unit}."
        )
    if run.ties_left_out and benchmark.ties == "judge":
        told.append(f"{run.ties_left_out:,} rows whose label is a tie were left out; the published rows include them.")
    return told


def _run_cell(run: Run, grouping: str, column: Column) -> str:
    group = (run.groupings or {}).get(grouping)
    if column.kind == "category":
        categories = group.categories if group else run.categories
        category = categories.get(column.key)
        return _percent(category.accuracy if category else None)
    if column.kind == "official":
        own = run.official
        return _percent(own.values.get(column.key), own.intervals.get(column.key)) if own else MISSING
    value = group.macro if group and column.key == "macro" else getattr(run, column.key)
    interval = "paper_macro" if column.key == "macro" and grouping == "paper" else column.key
    return _percent(value, getattr(run.intervals, interval) if run.intervals else None)


def _percent(value: float | None, bounds: Sequence[float] | None = None) -> str:
    if value is None:
        return MISSING
    interval = f" [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]" if bounds else ""
    return f"{100 * value:.2f}{interval}"


def _number(value: int | None) -> str:
    return MISSING if value is None else str(value)


def add_footnote(footnotes: list[str], text: str) -> int:
    """Return the number of a footnote, adding it if it is new; rows with the same text share a footnote."""
    if text not in footnotes:
        footnotes.append(text)
    return footnotes.index(text) + 1


def mark_of(kind: str, numbers: Sequence[int]) -> str:
    """Return the mark of a row: its kind and footnote numbers."""
    listed = f"({', '.join(map(str, numbers))})" if numbers else ""
    return f"{kind} {listed}".strip()


def plain(text: str) -> str:
    """Return text without line breaks, terminal codes and other unprintable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
