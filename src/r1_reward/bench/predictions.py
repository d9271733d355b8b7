"""Read prediction files, ours and other projects', as one :class:`Outcome` per row, one row in memory at a time.

    for outcome in read_outcomes("vl-rewardbench", Path("r1_reward.jsonl")):
        print(outcome.id, outcome.passes)
    tally = tally_file("vl-rewardbench", Path("r1_reward.jsonl"))     # the same, counted

The fields of the first row determine the format of a file (JSONL, a JSON array, .xlsx, .csv, .tsv); all other rows must
have the same format:

- ``ours``: a line of predictions.jsonl with all votes, as written by :mod:`r1_reward.bench.run`;
- ``r1_reward``: a row of the released R1-Reward scripts (:mod:`r1_reward.bench.released_rewards`), for any benchmark;
- a format of the benchmark's own scripts or of an evaluation harness, defined in the benchmark's file in
  :mod:`r1_reward.bench.benchmarks`. In a format with one vote per line, the lines of an item are its votes.

The benchmark's own rows, if given, supply what a file leaves out, and verify that it matches them. If a file has both
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
    """Return other projects' formats by name, each with its benchmark (None for any)."""
    formats: dict[str, tuple[PredictionFormat, Benchmark | None]] = {R1_REWARD_FILES.name: (R1_REWARD_FILES, None)}
    for benchmark in map(find_benchmark, benchmark_names()):
        formats |= {one.name: (one, benchmark) for one in benchmark.prediction_formats}
    return formats


def read_outcomes(suite: str, file: Path, *, rows: LoadedSuite | None = None) -> Iterator[Outcome]:
    """Return the rows of a prediction file in file order; ``correct`` is None for an unreadable vote.

    ``rows`` are joined by position. They are ignored if another project's file has a different number of rows and does
    not give their positions.

    Raises:
        UserError: the file does not exist, is empty or has an unknown format; or, while iterating, a row cannot be
            parsed, has another format, is repeated, or is not the benchmark's row at that position.
    """
    entry, format = find_benchmark(suite), detect_format(suite, file)
    if format == OURS:
        return _read_ours(entry, file, rows)
    if entry.form is not None and format == entry.form.name:
        return iter(entry.form.read(file, None if rows is None else rows.rows()))
    return (outcome for outcome, _ in _read_others(entry, file, format, rows))


def detect_format(suite: str, file: Path) -> str:
    """Return the format of the first row: ``ours``, ``r1_reward`` or one of the benchmark's formats.

    A file that does not consist of rows must have the benchmark's own prediction format.

    Raises:
        UserError: the file does not exist, has no rows, or has an unknown format or that of another benchmark.
    """
    entry, formats = find_benchmark(suite), others_formats()
    if entry.form is not None and entry.form.marked(file):
        return entry.form.name
    _check_file(file)
    rows = _raw_rows(file)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{file}: has no rows, so there is nothing to score.")
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
    """Count the votes of a prediction file; for arguments and errors see :func:`read_outcomes`."""
    tally = _tally(find_benchmark(suite))
    for outcome in read_outcomes(suite, file, rows=rows):
        _add(tally, outcome, file)
    return tally


class FileReading(NamedTuple):
    """The counted content of a prediction file."""

    tally: Tally
    """The votes as returned by :func:`read_outcomes`."""
    by_text: Tally | None = None
    """The votes parsed from the judge's texts, if ``tally`` has the file's own scores; None if a row has no text."""
    remarks: Mapping[str, int] = {}
    """Counts of its rows' remarks, for the format's notes."""


def read_file(suite: str, file: Path, *, rows: LoadedSuite | None = None, votes: int | None = None) -> FileReading:
    """Return the counted content of a prediction file; ``votes`` is the K that an official script draws per item.

    Raises:
        UserError: see :func:`read_outcomes`; or ``votes`` is given for a file without one vote per line.
    """
    entry, format, formats = find_benchmark(suite), detect_format(suite, file), others_formats()
    if votes is not None and (format not in formats or formats[format][0].draw is None):
        raise UserError(f"{file}: --votes {votes} requires a file with one vote per line.")
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
    """Count the votes of a run folder; raises UserError if it is not one."""
    run = read_json(Path(folder) / "run.json")
    suite = run.get("suite") if isinstance(run, dict) else None
    if not isinstance(suite, str):
        raise UserError(f"{folder}/run.json: not the run.json of a benchmark run.")
    return tally_file(suite, Path(folder) / "predictions.jsonl")


# ---- files


def _check_file(file: Path) -> None:
    if os.path.isdir(file):
        raise UserError(f"{file}: is a folder; pass a file in it (predictions.jsonl for a run).")
    if not os.path.isfile(file):
        raise UserError(f"{file}: no such file.{did_you_mean(Path(file))}")
    if not os.access(file, os.R_OK):
        raise UserError(f"{file}: cannot be read (permission denied).")


def _raw_rows(file: Path) -> Iterator[RawRow]:
    if file.suffix.lower() in SHEETS:
        return sheet_rows(file)
    return array_rows(file) if is_array(file) else line_rows(file)


def _rows(file: Path, format: str) -> Iterator[tuple[RawRow, Fields]]:
    """Yield the rows; raises UserError for a row of another format."""
    rows, formats = _raw_rows(file), others_formats()
    for raw in rows:
        if raw.broken is not None:
            raise _broken(file, raw, last=next(rows, None) is None)
        found = formats_of(raw.data, formats)
        if found != [format]:
            given = " and ".join(map(repr, found)) or "another one"
            reason = f"the first row has the format {format!r}, this row has {given}"
            raise _problem(raw, "", reason if len(found) == 1 else f"{reason} ({_no_format(found, formats)})")
        yield raw, Fields(raw.data)


_Others = Mapping[str, tuple[PredictionFormat, Benchmark | None]]


def formats_of(data: Any, others: _Others) -> list[str]:
    """Return the formats whose fields a row has: exactly one for a valid row."""
    if not isinstance(data, dict):
        return []
    ours = [OURS] if "key" in data and "passes" in data else []
    return [*ours, *(name for name, (format, _) in others.items() if format.marked(data))]


def written_by(format: tuple[PredictionFormat, Benchmark | None]) -> str:
    """Return the writer of a format, to complete "predictions of ..."."""
    return format[0].writer or f"{format[1].title if format[1] else format[0].name}'s scripts"


def _no_format(found: list[str], others: _Others) -> str:
    if found:
        return f"it has the fields of both {' and '.join(found)}"
    marks = [
        f"{format.fields} ({format.writer or (owner.title if owner else format.name)})"
        for format, owner in others.values()
    ]
    return f"a row has {', '.join(['key and passes (ours)', *marks[:-1]])}, or {marks[-1]}"


def _broken(file: Path, raw: RawRow, *, last: bool) -> UserError:
    if last and _was_cut(file):
        return _problem(
            raw, "", f"{raw.broken}: the file ends here. Resume the run that wrote it, then score the complete file"
        )
    return _problem(raw, "", f"{raw.broken}. Predictions are JSONL or a JSON array")


def _was_cut(file: Path) -> bool:
    """Return whether a file begins like JSON but ends in the middle of a line or array."""
    with open(file, "rb") as content:
        start = content.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        content.seek(-min(64, os.path.getsize(file)), os.SEEK_END)
        end = content.read()
    return not end.rstrip().endswith(b"]") if start == b"[" else start == b"{" and not end.endswith(b"\n")


def _problem(raw: RawRow, field: str, reason: str) -> UserError:
    return UserError(f"{RowProblem(raw.file, raw.place, field, reason)}.")


def _check(raw: RawRow, fields: Fields) -> None:
    """Raise UserError with all problems of a row, if there are any."""
    if fields.problems:
        raise UserError("\n".join(f"{RowProblem(raw.file, raw.place, *problem)}." for problem in fields.problems))


# ---- ours


def _read_ours(suite: Benchmark, file: Path, rows: LoadedSuite | None) -> Iterator[Outcome]:
    # 8 bytes per row, because the lines may be in any order.
    hashes = None if rows is None else array("Q", (int(row.content_hash, 16) for row in rows.rows()))
    seen: set[int] = set()
    for raw, fields in _rows(file, OURS):
        outcome = our_outcome(suite, fields)
        _check(raw, fields)
        if outcome.index in seen:
            raise _problem(raw, "index", f"row {outcome.index} appears twice; keep one of them")
        seen.add(outcome.index)
        if hashes is not None:
            _check_hash(raw, hashes, outcome.index)
        yield outcome


def _check_hash(raw: RawRow, hashes: array[int], index: int) -> None:
    if index >= len(hashes):
        raise _problem(raw, "index", f"is {index}, but --data has {len(hashes):,} rows (0 to {len(hashes) - 1:,})")
    if int(raw.data["key"].partition("-")[2], 16) != hashes[index]:
        raise _problem(raw, "key", f"does not match row {index} of --data: the predictions are on different rows")


# ---- others'


class _Read(NamedTuple):
    """A parsed row, or the first row of an item with the combined votes of all its rows."""

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
                raise _problem(raw, "", f"row {index} of the benchmark appears twice; keep one of them")
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
                raw, "", f"its id is {id!r}, but row {index} of --data has {joined[0]!r}: the rows differ, or are in "
                "another order (parts written by a script must be joined in the order of their numbers)",
            )  # fmt: skip
        if joined and judged.id is None and judged.about and judged.about.longer != joined[1].longer:
            raise _problem(
                raw, "", f"has no id, and its responses differ in length from row {index} of --data: the rows "
                "differ, or are in another order",
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
    """Return the items of a file with one vote per line, in the order of their first lines, each with its votes.

    The first ``k`` votes of each item in the order of ``draw`` are used, or all if ``k`` is None.
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
        raise UserError(f"{file}: has no votes, so there is nothing to score.")
    taken: dict[str, list[int]] = {item: [] for item in first}
    for number in range(len(lines)) if k is None else draw(len(lines), k):
        item, votes, _ = lines[number]
        if votes and (k is None or len(taken[item]) < k):
            taken[item].append(number)
    most = max(map(len, taken.values()))
    if k is not None and most < k:
        raise UserError(f"{file}: {k} votes per item were requested, but no item has more than {most}.")
    found = []
    for item, one in first.items():
        numbers = sorted(taken[item])
        remarks = [remark for number in numbers for remark in lines[number][2]]
        remarks += ["fewer votes"] if len(numbers) < most else []
        votes = tuple(vote for number in numbers for vote in lines[number][1])
        found.append(_Read(one.raw, one.row, one.judged._replace(votes=votes, remarks=tuple(remarks))))
    return found
