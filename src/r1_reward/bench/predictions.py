"""Prediction files, ours and others', as one :class:`Outcome` a row; one row is in memory at a time.

    for outcome in read_outcomes("vl-rewardbench", Path("r1_reward.jsonl")):
        print(outcome.id, outcome.passes)
    tally = tally_file("vl-rewardbench", Path("r1_reward.jsonl"))     # the same, counted

The fields of the first row tell which format a file (JSONL, a JSON array, .xlsx, .csv, .tsv) has; every other row must
have the same:

- ``ours``: a line of predictions.jsonl as :mod:`r1_reward.bench.run` writes it, with every vote;
- ``r1_reward``: a row of the released R1-Reward scripts (:mod:`r1_reward.bench.released_rewards`), for any benchmark;
- a format of the benchmark's own scripts, or of a harness that has the benchmark, which the benchmark's file in
  :mod:`r1_reward.bench.benchmarks` reads. Where it has a line a vote, the lines of an item are its votes.

The benchmark's own rows, if given, supply what a file leaves out, and prove that it is about them. Where a file holds
scores and the judge's texts, :func:`read_file` counts both.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.bench.benchmark import About, Benchmark, Judged, PredictionFormat
from r1_reward.bench.benchmarks import benchmark_names, find_benchmark
from r1_reward.bench.fields import Fields
from r1_reward.bench.our_predictions import our_outcome
from r1_reward.bench.released_rewards import R1_REWARD_FILES
from r1_reward.bench.rows import Outcome, Vote
from r1_reward.bench.suites import LoadedSuite, RowProblem
from r1_reward.bench.summary import Tally
from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json
from r1_reward.store.rows import RawRow, array_rows, did_you_mean, line_rows
from r1_reward.store.sheets import SHEETS, sheet_rows
from r1_reward.store.sniff import is_array

OURS = "ours"


def others_formats() -> dict[str, tuple[PredictionFormat, Benchmark | None]]:
    """Return the formats of other projects by name, each with the benchmark whose scripts write it, None for any."""
    formats: dict[str, tuple[PredictionFormat, Benchmark | None]] = {R1_REWARD_FILES.name: (R1_REWARD_FILES, None)}
    for benchmark in map(find_benchmark, benchmark_names()):
        formats |= {one.name: (one, benchmark) for one in benchmark.prediction_formats}
    return formats


def read_outcomes(suite: str, file: Path, *, rows: LoadedSuite | None = None) -> Iterator[Outcome]:
    """Return the rows of a prediction file in the file's order; correct is None for a vote that cannot be read.

    ``rows`` are joined by position; where the file of another project has more or fewer rows, and does not tell which
    they are, they supply nothing.

    Raises:
        UserError: there is no such file or nothing in it, it has none of the formats; or, while iterating, a row
            cannot be read, has another format, is there twice or is not the benchmark's row of that position.
    """
    entry, format = find_benchmark(suite), detect_format(suite, file)
    if format == OURS:
        return _read_ours(entry, file, rows)
    if entry.form is not None and format == entry.form.name:
        return iter(entry.form.read(file, None if rows is None else rows.rows()))
    return (outcome for outcome, _ in _read_others(entry, file, format, rows))


def detect_format(suite: str, file: Path) -> str:
    """Return the format of the first row: ``ours``, ``r1_reward`` or that of the benchmark's own scripts.

    A file that is not one of rows has the benchmark's own form, or none.

    Raises:
        UserError: no such file, no rows, none of the formats, or that of another benchmark.
    """
    entry, formats = find_benchmark(suite), others_formats()
    if entry.form is not None and entry.form.marked(file):
        return entry.form.name
    _check_file(file)
    rows = _raw_rows(file)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{file}: holds no rows; there is nothing to score.")
    if first.broken is not None:
        raise _broken(file, first, last=next(rows, None) is None)
    found = formats_of(first.data, formats)
    if len(found) != 1:
        raise _problem(first, "", _no_format(found, formats))
    owner = formats[found[0]][1] if found[0] in formats else None
    if owner is not None and owner.name != entry.name:
        raise _problem(first, "", f"is a row of {written_by(formats[found[0]])} ({owner.name}), not {entry.name}")
    return found[0]


def tally_file(suite: str, file: Path, *, rows: LoadedSuite | None = None) -> Tally:
    """Return the counted votes of a prediction file; arguments and errors are those of :func:`read_outcomes`."""
    tally = _tally(find_benchmark(suite))
    for outcome in read_outcomes(suite, file, rows=rows):
        _add(tally, outcome, file)
    return tally


class FileReading(NamedTuple):
    """What a prediction file says."""

    tally: Tally
    """Its votes as :func:`read_outcomes` gives them."""
    by_text: Tally | None = None
    """Its votes as the judge's texts say, where the others are the file's own scores; None unless every row has one."""
    remarks: Mapping[str, int] = {}
    """How often its rows said what the format's notes count."""


def read_file(suite: str, file: Path, *, rows: LoadedSuite | None = None, votes: int | None = None) -> FileReading:
    """Return all that a prediction file says; ``votes`` are the K that an official script draws of each item's.

    Raises:
        UserError: as :func:`read_outcomes`; or ``votes`` are asked for of a file that is not one of a line a vote.
    """
    entry, format, formats = find_benchmark(suite), detect_format(suite, file), others_formats()
    if votes is not None and (format not in formats or formats[format][0].draw is None):
        raise UserError(f"{file}: {votes} votes of each item can be drawn from a file of a line a vote only.")
    if format not in formats:
        return FileReading(tally_file(suite, file, rows=rows))
    tally, by_text, remarks, n = _tally(entry), _tally(entry), Counter[str](), 0
    for outcome, judged in _read_others(entry, file, format, rows, votes):
        n += 1
        _add(tally, outcome, file)
        if judged.by_text is not None:
            _add(by_text, outcome._replace(passes=(judged.by_text,)), file)
        remarks.update(judged.remarks)
    return FileReading(tally, by_text if len(by_text) == n else None, remarks)


def _tally(entry: Benchmark) -> Tally:
    return Tally(keep=entry.official is not None, cluster=entry.cluster)


def _add(tally: Tally, outcome: Outcome, file: Path) -> None:
    try:
        tally.add(outcome)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def tally_run(folder: Path) -> Tally:
    """Return the counted votes of a run folder; raises UserError if it holds none."""
    run = read_json(Path(folder) / "run.json")
    suite = run.get("suite") if isinstance(run, dict) else None
    if not isinstance(suite, str):
        raise UserError(f"{folder}/run.json: is not the run.json of a benchmark run.")
    return tally_file(suite, Path(folder) / "predictions.jsonl")


# ---- files


def _check_file(file: Path) -> None:
    if os.path.isdir(file):
        raise UserError(f"{file}: is a folder; name the file in it (predictions.jsonl if it is a run).")
    if not os.path.isfile(file):
        raise UserError(f"{file}: no such file.{did_you_mean(Path(file))}")
    if not os.access(file, os.R_OK):
        raise UserError(f"{file}: you may not read this (permission denied).")


def _raw_rows(file: Path) -> Iterator[RawRow]:
    if file.suffix.lower() in SHEETS:
        return sheet_rows(file)
    return array_rows(file) if is_array(file) else line_rows(file)


def _rows(file: Path, format: str) -> Iterator[tuple[RawRow, Fields]]:
    """Yield the rows, all of one format; raises UserError where one is not."""
    rows, formats = _raw_rows(file), others_formats()
    for raw in rows:
        if raw.broken is not None:
            raise _broken(file, raw, last=next(rows, None) is None)
        found = formats_of(raw.data, formats)
        if found != [format]:
            reason = f"the first row has the format {format!r}, this one {' and '.join(map(repr, found)) or 'another'}"
            raise _problem(raw, "", reason if len(found) == 1 else f"{reason} ({_no_format(found, formats)})")
        yield raw, Fields(raw.data)


_Others = Mapping[str, tuple[PredictionFormat, Benchmark | None]]


def formats_of(data: Any, others: _Others) -> list[str]:
    """Return the formats whose marks a row has: one, unless something is wrong with it."""
    if not isinstance(data, dict):
        return []
    ours = [OURS] if "key" in data and "passes" in data else []
    return [*ours, *(name for name, (format, _) in others.items() if format.marked(data))]


def written_by(format: tuple[PredictionFormat, Benchmark | None]) -> str:
    """Return who writes a format, as in "predictions of ..."."""
    return format[0].writer or f"{format[1].title if format[1] else format[0].name}'s scripts"


def _no_format(found: list[str], others: _Others) -> str:
    if found:
        return f"it has the fields of {' and '.join(found)} at once"
    marks = [
        f"{format.fields} ({format.writer or (owner.title if owner else format.name)})"
        for format, owner in others.values()
    ]
    return f"a row has {', '.join(['key and passes (ours)', *marks[:-1]])}, or {marks[-1]}"


def _broken(file: Path, raw: RawRow, *, last: bool) -> UserError:
    if last and _was_cut(file):
        return _problem(
            raw, "", f"{raw.broken}: the file was cut here. Resume the run that wrote it, then score the whole file"
        )
    return _problem(raw, "", f"{raw.broken}. Predictions are JSONL or a JSON array")


def _was_cut(file: Path) -> bool:
    """Return whether a file begins as JSON and ends in the middle of a line, or of an array."""
    with open(file, "rb") as content:
        start = content.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        content.seek(-min(64, os.path.getsize(file)), os.SEEK_END)
        end = content.read()
    return not end.rstrip().endswith(b"]") if start == b"[" else start == b"{" and not end.endswith(b"\n")


def _problem(raw: RawRow, field: str, reason: str) -> UserError:
    return UserError(f"{RowProblem(raw.file, raw.place, field, reason)}.")


def _check(raw: RawRow, fields: Fields) -> None:
    """Raise UserError with all that is wrong with a row, if anything is."""
    if fields.problems:
        raise UserError("\n".join(f"{RowProblem(raw.file, raw.place, *problem)}." for problem in fields.problems))


# ---- ours


def _read_ours(suite: Benchmark, file: Path, rows: LoadedSuite | None) -> Iterator[Outcome]:
    # 8 bytes a row, as the lines may come in any order.
    hashes = None if rows is None else array("Q", (int(row.content_hash, 16) for row in rows.rows()))
    seen: set[int] = set()
    for raw, fields in _rows(file, OURS):
        outcome = our_outcome(suite, fields)
        _check(raw, fields)
        if outcome.index in seen:
            raise _problem(raw, "index", f"row {outcome.index} is there twice; keep one of them")
        seen.add(outcome.index)
        if hashes is not None:
            _check_hash(raw, hashes, outcome.index)
        yield outcome


def _check_hash(raw: RawRow, hashes: array[int], index: int) -> None:
    if index >= len(hashes):
        raise _problem(raw, "index", f"is {index}, but --data has {len(hashes):,} rows (0 to {len(hashes) - 1:,})")
    if int(raw.data["key"].partition("-")[2], 16) != hashes[index]:
        raise _problem(raw, "key", f"is not that of row {index} of --data: the judged rows are other ones")


# ---- others'


class _Read(NamedTuple):
    """A row that was read, or the first of an item's rows, with what all of them say."""

    raw: RawRow
    row: Fields
    judged: Judged


def _read_others(
    suite: Benchmark, file: Path, format: str, rows: LoadedSuite | None, votes: int | None = None
) -> Iterator[tuple[Outcome, Judged]]:
    known = None if rows is None else [
        (
            row.id,
            About(row.category, row.paper_category, row.issue, row.longer),
            (row.preferred, row.members) if row.members else (),
        )
        for row in rows.rows()
    ]  # fmt: skip
    draw = others_formats()[format][0].draw
    found: Iterator[_Read] | Sequence[_Read]
    if draw is not None:
        found = _items(suite, file, format, draw, votes)
        whole = known is not None and len(found) == len(known)
    else:
        whole = known is not None and sum(1 for _ in _raw_rows(file)) == len(known)
        found = _lines(suite, file, format)
    seen: set[int] = set()
    for position, (raw, row, judged) in enumerate(found):
        index = position if judged.index is None else judged.index
        if judged.index is not None:
            if index in seen:
                raise _problem(raw, "", f"row {index} of the benchmark is there twice; keep one of them")
            seen.add(index)
        joined = None
        if known is not None and (whole or judged.index is not None):
            if index >= len(known):
                raise _problem(raw, "", f"is row {index} of the benchmark, but --data has {len(known):,} rows")
            joined = known[index]
        about = joined[1] if joined else judged.about or _about(suite, judged)
        if judged.details is not row:
            row.problems += [(f"{judged.place}{field}", reason) for field, reason in judged.details.problems]
        _check(raw, row)
        id = judged.id if judged.id is not None else joined[0] if joined else str(index)
        if joined and joined[0] != id:
            raise _problem(
                raw, "", f"its id is {id!r}, that of row {index} of --data is {joined[0]!r}: they are other "
                "rows, or in another order (the parts that a script writes must be joined in the order of their "
                "numbers)",
            )  # fmt: skip
        if joined and judged.id is None and judged.about and judged.about.longer != joined[1].longer:
            raise _problem(
                raw, "", f"has no id, and its responses do not have the lengths of those in row {index} of --data: "
                "they are other rows, or in another order",
            )  # fmt: skip
        yield Outcome(index, id, (judged.votes,), *about, *(joined[2] if joined else ())), judged


def _about(suite: Benchmark, judged: Judged) -> About:
    return suite.about(judged.details, judged.id) if judged.id else About()


def _lines(suite: Benchmark, file: Path, format: str) -> Iterator[_Read]:
    read = others_formats()[format][0].read
    return (_Read(raw, row, read(row, suite)) for raw, row in _rows(file, format))


def _items(
    suite: Benchmark, file: Path, format: str, draw: Callable[[int, int], Sequence[int]], k: int | None
) -> list[_Read]:
    """Return the items of a file of a line a vote, in the order of their first lines, each with its votes.

    Of each item the first ``k`` votes are taken in the order that ``draw`` gives, all for None.
    """
    lines: list[tuple[str, tuple[Vote, ...], tuple[str, ...]]] = []
    first: dict[str, _Read] = {}
    for one in _lines(suite, file, format):
        _check(one.raw, one.row)
        item = one.judged.item or ""
        lines.append((item, one.judged.votes, one.judged.remarks))
        if one.judged.votes:
            first.setdefault(item, one)
    if not first:
        raise UserError(f"{file}: holds no votes; there is nothing to score.")
    taken: dict[str, list[int]] = {item: [] for item in first}
    for number in range(len(lines)) if k is None else draw(len(lines), k):
        item, votes, _ = lines[number]
        if votes and (k is None or len(taken[item]) < k):
            taken[item].append(number)
    most = max(map(len, taken.values()))
    if k is not None and most < k:
        raise UserError(f"{file}: {k} votes of each item are asked for; no item has more than {most}.")
    found = []
    for item, one in first.items():
        numbers = sorted(taken[item])
        remarks = [remark for number in numbers for remark in lines[number][2]]
        remarks += ["fewer votes"] if len(numbers) < most else []
        votes = tuple(vote for number in numbers for vote in lines[number][1])
        found.append(_Read(one.raw, one.row, one.judged._replace(votes=votes, remarks=tuple(remarks))))
    return found
