"""Load a benchmark: its rows as :class:`BenchmarkRow`, validated, counted and compared with the official numbers.

Before any row is judged, all rows are read once, without opening images, to check fields, media files, categories and
numbers of rows. Known and suspected errors in the benchmarks are listed, never dropped::

    suite = load_suite("mm-rlhf-rewardbench", "mm_reward_bench.jsonl", image_root="images")
    suite.n, suite.size.label         # 170, "170 pairs of 46 ids"
    for row in suite.rows():          # streams: one row in memory at a time
        pictures = row_images(row)

Everything specific to a benchmark is in its file in :mod:`r1_reward.bench.benchmarks`. A *suite* is a benchmark as it
is named on the command line and in the files of a run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.bench.benchmark import Benchmark, Size, Ties
from r1_reward.bench.benchmarks import find_benchmark
from r1_reward.bench.fields import Draft, Fields, check_media, to_row
from r1_reward.bench.group_check import GroupCheck
from r1_reward.bench.known_issues import IssueFinder
from r1_reward.bench.readers import row_images
from r1_reward.bench.rows import BenchmarkRow
from r1_reward.bench.sizes import Scan, match_size
from r1_reward.records.errors import UserError, kind_of
from r1_reward.store.rows import RawRow, RowSource, open_source

__all__ = ["LoadedSuite", "RowProblem", "SuiteFileError", "load_suite", "row_images"]

_LISTED = 20


class RowProblem(NamedTuple):
    """One problem of a row; ``place`` is ``line 3`` or ``row 3``, from 1, or empty for the whole file.

    ``file`` is empty if the benchmark is a single file, which the message names only once.
    """

    file: str
    place: str
    field: str
    reason: str

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.file, self.place, self.field) if part)
        return ": ".join(part for part in (place, self.reason) if part).encode("utf-8", "backslashreplace").decode()


class SuiteFileError(UserError):
    """Rows of a benchmark cannot be judged; all problems are in ``problems``, the first 20 in the message."""

    def __init__(self, title: str, source: RowSource, problems: list[RowProblem], rows: int, *, hint: str = "") -> None:
        self.problems = problems
        count = len(problems)
        lines = [f"{source.name}: {count} problem{'s' * (count > 1)} in {rows} row{'s' * (rows != 1)} of {title}"]
        lines += [f"  {problem}" for problem in problems[:_LISTED]]
        lines += [f"  ... and {count - _LISTED} more"] if count > _LISTED else []
        if any(problem.reason.endswith("no such file") for problem in problems):
            lines.append(f"Image paths are relative to {source.folder}; choose another folder with --image-root.")
        super().__init__("\n".join([*lines, hint] if hint else lines))


class Reading(NamedTuple):
    """Options for reading rows."""

    check_files: bool
    max_images: int
    drop_ties: bool
    columns: Mapping[str, str]
    """Column names in the file, by our names."""


@dataclass(frozen=True)
class LoadedSuite:
    """A benchmark whose rows have all been validated."""

    suite: Benchmark
    n: int
    """Number of pairs to judge."""
    size: Size | None
    """The matching official size; None if there is none or it was not required."""
    notes: list[str]
    """Notes on the rows for reports."""
    issues: dict[int, str]
    """Why rows are known or suspected to be wrong, by position."""
    source: str
    """As given by the user, or the Hub id."""
    revision: str | None
    fingerprint: str
    """SHA-256 over the keys of all rows."""
    ties: int
    """Number of rows whose label is a tie."""
    ties_left_out: int
    """Number of ties that were left out."""
    units: int
    """Number of rows, groups or prompts, whichever the official sizes count."""
    _total: int = field(repr=False)
    """Number of pairs in the source, of which ``n`` are to be judged."""
    _source: RowSource = field(repr=False)
    _reading: Reading = field(repr=False)
    limit: int | None = None
    """Number of rows or groups selected by :meth:`limited`, None if all."""
    _chosen: frozenset[int] | None = field(default=None, repr=False)
    """Positions of the selected pairs, None if all."""

    def rows(self) -> Iterator[BenchmarkRow]:
        """Read the rows again from the beginning, one at a time; raises UserError if a file has changed since.

        The positions of selected rows are those in the whole benchmark.
        """
        chosen = self._chosen
        return self._all_rows() if chosen is None else (row for row in self._all_rows() if row.index in chosen)

    def _all_rows(self) -> Iterator[BenchmarkRow]:
        count = 0
        for number, raw in enumerate(self._source.rows(), 1):
            read = _read(self.suite, self._source, raw, count, self._reading._replace(check_files=False))
            if read.problems:
                raise SuiteFileError(self.suite.title, self._source, read.problems, number)
            for row in read.rows:
                count += 1
                yield replace(row, issue=self.issues.get(row.index))
        if count != self._total:
            raise UserError(f"{self.source}: had {self._total} rows when it was checked, but now has {count}.")

    def limited(self, limit: int) -> LoadedSuite:
        """Return ``limit`` rows, evenly spaced because benchmarks are sorted by source; all if there are fewer.

        Rows that are scored together, as a group or for ACC+, stay together and count as one.
        """
        if limit < 1:
            raise UserError(f"limit: must be at least 1 row, not {limit}.")
        suite, together = self.suite, self.suite.grouped or self.suite.acc_plus
        cluster = suite.official.cluster if suite.grouped and suite.official else lambda row: row.id
        scored: dict[Any, list[BenchmarkRow]] = {}
        for row in self.rows():
            key = (row.category, cluster(row)) if together else row.index
            scored.setdefault(key, []).append(replace(row, question="", response_1="", response_2="", images=()))
        if limit >= len(scored):
            return self
        members = list(scored.values())
        chosen = [row for number in range(limit) for row in members[number * len(members) // limit]]
        ids = len({(row.category, row.id) for row in chosen})
        part, whole, unit = (ids, self.units, suite.unit) if suite.grouped else (limit, len(members), "ids")
        shares = f"{part:,} of {whole:,} {unit} ({len(chosen):,} of {self.n:,} pairs)"
        shares = shares if together else f"{limit:,} of {self.n:,} rows"
        note = f"Only {shares}, evenly spaced: not the benchmark's score."
        places = frozenset(row.index for row in chosen)
        return replace(
            self,
            n=len(chosen),
            size=None,
            notes=[note, *(told for told in self.notes if told != _comparisons_note(suite, self.units, self.n))],
            issues={index: issue for index, issue in self.issues.items() if index in places},
            ties=sum(row.preferred == 0 for row in chosen),
            ties_left_out=0,  # unknown for the part
            units=ids if suite.grouped else len(chosen),
            limit=limit,
            _chosen=places,
        )

    def describe(self) -> dict[str, Any]:
        """Return a description of the data for ``run.json``."""
        return {
            "suite": self.suite.name,
            "source": self.source,
            "revision": self.revision,
            "n": self.n,
            "size": self.size and self.size.label,
            **({"ties_left_out": self.ties_left_out} if self.ties_left_out else {}),
            "fingerprint": self.fingerprint,
        }


def load_suite(
    name: str,
    source: str | Path | None = None,
    *,
    image_root: str | Path | None = None,
    split: str | None = None,
    revision: str | None = None,
    allow_partial: bool = False,
    check_media: bool = True,
    columns: Mapping[str, str] | None = None,
    max_images: int | None = None,
    ties: Ties | None = None,
    limit: int | None = None,
) -> LoadedSuite:
    """Validate all rows of a benchmark and return it; ``check_media`` checks that image files exist, without opening.

    ``source`` is a JSONL file, JSON array, parquet file, folder of parquet or Hub id; None reads the benchmark from the
    Hub. ``image_root`` is the folder that paths in the rows are relative to (default: the folder of the file).
    ``split`` and ``revision`` are for the Hub, ``split`` also for folders. With ``allow_partial``, unofficial numbers
    of rows only cause a note. ``columns`` maps our column names to those in the file. ``max_images`` limits the images
    of a row (default: the benchmark's limit). Rows whose label is a tie are judged or, with ``ties`` "drop", left out
    (default: as in the benchmark's evaluator). ``limit`` selects that many rows, see :meth:`LoadedSuite.limited`.

    Raises :class:`SuiteFileError` for rows that cannot be judged, UserError for anything else.
    """
    suite = find_benchmark(name)
    _check_mapping(suite, columns or {})
    opened = _open(suite, source, image_root, split, revision)
    reading = Reading(
        check_media,
        suite.max_images if max_images is None else max_images,
        (suite.ties if ties is None else ties) == "drop",
        dict(columns or {}),
    )
    scan = _scan(suite, opened, reading)
    size, complaint = match_size(suite, scan)
    if complaint and not allow_partial:
        raise UserError(f"{opened.name}: {complaint} To judge these rows anyway, use --allow-partial.")
    notes = [f"Not the official rows: {complaint}"] if complaint else []
    notes += [f"Revision {opened.revision} of {opened.name}."] if opened.revision else []
    notes += opened.notes
    notes += [] if check_media else ["Image files were not checked."]
    notes += [f"Rows whose label is a tie are left out: {scan.dropped:,}."] if scan.dropped else []
    notes += [_comparisons_note(suite, scan.rows, scan.pairs)] if suite.grouped else []
    notes += scan.notes
    notes += mapping_notes(suite, reading.columns)
    loaded = LoadedSuite(
        suite=suite,
        n=scan.pairs,
        size=size,
        notes=notes,
        issues=scan.issues,
        source=str(suite.hub_id if source is None else source),
        revision=opened.revision,
        fingerprint=scan.fingerprint,
        ties=scan.ties,
        ties_left_out=scan.dropped,
        units=scan.rows,
        _total=scan.pairs,
        _source=opened,
        _reading=reading,
    )
    return loaded if limit is None else loaded.limited(limit)


def mapping_notes(suite: Benchmark, columns: Mapping[str, str]) -> list[str]:
    """Return a note on the column names used, if the actual names were not published."""
    used = ", ".join(f"{name} = {columns.get(name, name)}" for name in suite.mapping)
    return [f"The column names of {suite.title} are not published; these were used: {used}."] if used else []


def _comparisons_note(suite: Benchmark, groups: int, pairs: int) -> str:
    return f"{groups:,} {suite.unit} are judged as {pairs:,} pairwise comparisons."


def _check_mapping(suite: Benchmark, columns: Mapping[str, str]) -> None:
    for name in columns if suite.mapping else ():
        if name not in suite.mapping:
            known = ", ".join(suite.mapping)
            raise UserError(f"--columns {name}=...: {suite.title} has no column {name!r}; it has {known}.")


def _open(
    suite: Benchmark, source: str | Path | None, image_root: str | Path | None, split: str | None, revision: str | None
) -> RowSource:
    place = suite.hub_id if source is None else source
    if place is None:
        raise UserError(f"{suite.name}: not on the Hub; pass a file with --data.")
    split = split or suite.hub_split
    if suite.open is not None:
        return suite.open(place, image_root, split, revision)
    return open_source(place, image_root=image_root, split=split, revision=revision)


def _scan(suite: Benchmark, source: RowSource, reading: Reading) -> Scan:
    """Read all rows once; raises SuiteFileError if there are none or any cannot be judged."""
    problems: list[RowProblem] = []
    finder, groups, digest = IssueFinder(suite.issues), GroupCheck(suite), hashlib.sha256()
    units: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    raws = unreadable = pairs = ties = dropped = 0
    fields: set[str] = set()
    remarks: Counter[str] = Counter()
    for raw in source.rows():
        raws += 1
        fields |= raw.data.keys() if isinstance(raw.data, dict) else set()
        unreadable += raw.broken is not None or not isinstance(raw.data, dict)
        read = _read(suite, source, raw, pairs, reading._replace(drop_ties=False))
        problems += read.problems
        remarks.update(read.remarks)
        if read.whole and read.rows and (twice := groups.twice(read.rows[0], raw)):
            problems.append(RowProblem(_file_of(source, raw), raw.place, "", twice))
        for row in read.rows:
            if not suite.grouped or (row.category, row.id) not in seen:
                units[row.category] += 1
            if suite.acc_plus or suite.grouped:
                seen.add((row.category, row.id))
            if row.preferred == 0 and reading.drop_ties:
                dropped += 1
                continue
            row = replace(row, index=pairs)
            pairs += 1
            ties += row.preferred == 0
            finder.add(row)
            groups.add(row)
            digest.update(f"{row.key}\n".encode())
    if not raws:
        problems.append(RowProblem("", "", "", "has no rows"))
    for name, theirs in reading.columns.items() if fields else ():
        if theirs not in fields:
            raise UserError(
                f"{source.name}: no row has a field {theirs!r} ({name}={theirs}); the fields are "
                f"{', '.join(sorted(fields))}."
            )
    if unreadable == raws > 1:  # report a single problem
        first = problems[0]
        problems = [
            RowProblem(first.file, "", "", f"none of its {raws:,} rows can be read; {first.place} {first.reason}")
        ]
    if problems:
        raise SuiteFileError(
            suite.title, source, problems, raws, hint=_columns_hint(suite, problems, fields, reading.columns)
        )
    ids = Counter(category for category, _ in seen) if suite.acc_plus else Counter()
    notes = (*(f"{count:,} rows: {remark}." for remark, count in remarks.items()), *groups.notes())
    return Scan(units.total(), units, ids, finder.finish(), digest.hexdigest(), pairs, ties, dropped, notes)


def _columns_hint(suite: Benchmark, problems: list[RowProblem], fields: set[str], columns: Mapping[str, str]) -> str:
    """Return a hint on how to map missing columns, if the actual names were not published."""
    at_fault = {problem.field for problem in problems}
    unknown = [name for name in suite.mapping if name in at_fault and name not in fields and name not in columns]
    if not unknown:
        return ""
    there = ", ".join(sorted(fields - {"task"}))
    return f"If {unknown[0]!r} has another name in the file, pass --columns {unknown[0]}=NAME; its fields are {there}."


class _Read(NamedTuple):
    """The result of reading a raw row."""

    rows: list[BenchmarkRow]
    problems: list[RowProblem]
    whole: bool = False
    """Whether the raw row is a whole group."""
    remarks: tuple[str, ...] = ()


def _read(suite: Benchmark, source: RowSource, raw: RawRow, index: int, reading: Reading) -> _Read:
    """Return the benchmark rows of a raw row, with positions from ``index`` on, or all of its problems."""
    broken = raw.broken
    if broken is None and not isinstance(raw.data, dict):
        broken = f"is {kind_of(raw.data)}, not a JSON object"
    data = {} if broken else {**raw.data, **{name: raw.data.get(theirs) for name, theirs in reading.columns.items()}}
    if broken is None and suite.marks and not any(name in data for name in suite.marks):
        broken = f"is not a row of {suite.title}: it has none of {', '.join(suite.marks)}, only {', '.join(data)}"
        broken += f" (map other names with --columns {suite.marks[0]}=NAME)" if suite.mapping else ""
    file = _file_of(source, raw)
    if broken is not None:
        return _Read([], [RowProblem(file, raw.place, "", broken)])
    fields = Fields(data)
    parsed = suite.parse(fields)
    drafts = [parsed] if isinstance(parsed, Draft) else parsed
    for draft in drafts:
        check_media(
            fields,
            draft,
            source.folder,
            check_files=reading.check_files,
            needed=suite.needs_media,
            most=reading.max_images,
        )
    if fields.problems:
        named = [(reading.columns.get(name, name), reason) for name, reason in dict.fromkeys(fields.problems)]
        return _Read([], [RowProblem(file, raw.place, *problem) for problem in named])
    kept = [draft for draft in drafts if draft.preferred or not reading.drop_ties]
    rows = [to_row(draft, index + number, source.folder) for number, draft in enumerate(kept)]
    return _Read(rows, [], not isinstance(parsed, Draft), tuple(dict.fromkeys(fields.remarks)))


def _file_of(source: RowSource, raw: RawRow) -> str:
    return "" if raw.file == source.name else raw.file
