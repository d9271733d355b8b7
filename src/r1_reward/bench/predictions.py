"""Prediction files, ours and others', as one :class:`Outcome` a row; one row is in memory at a time.

    for outcome in read_outcomes("vl-rewardbench", Path("r1_reward.jsonl")):
        print(outcome.id, outcome.passes)
    tally = tally_file("vl-rewardbench", Path("r1_reward.jsonl"))     # the same, counted

The fields of the first row tell which format a file, JSONL or a JSON array, has; every other row must have the same:

- ``ours``: a line of predictions.jsonl as :mod:`r1_reward.bench.run` writes it, with every vote;
- ``r1_reward``: a row of the released R1-Reward scripts (:data:`R1_REWARD_FILES`), for any benchmark;
- a format of the benchmark's own scripts, which its file in :mod:`r1_reward.bench.benchmarks` reads.

The benchmark's own rows, if given, supply what a file leaves out, and prove that it is about them.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

from r1_reward.bench.benchmark import About, Benchmark, Judged, PredictionFormat
from r1_reward.bench.benchmarks import benchmark_names, find_benchmark
from r1_reward.bench.fields import Fields, short
from r1_reward.bench.our_predictions import our_outcome
from r1_reward.bench.rows import BenchmarkRow, Outcome, Vote
from r1_reward.bench.suites import LoadedSuite, RowProblem
from r1_reward.bench.summary import Tally
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import spoken_from
from r1_reward.store.files import read_json
from r1_reward.store.rows import RawRow, array_rows, did_you_mean, line_rows
from r1_reward.store.sniff import is_array

OURS = "ours"


def _read_rewards(row: Fields, benchmark: Benchmark) -> Judged:
    """Return id, the one vote, and the fields that describe the row, which are the row's own."""
    names = (benchmark.id_field, "id")
    id = row.text(next((name for name in names if name in row.data), names[0]))
    rewards, critic = row.data["rewards"], row.data.get("critic")
    if not (isinstance(rewards, list) and len(rewards) == 2 and all(map(_is_number, rewards))):
        row.problems.append(("rewards", f"must be two finite numbers, not {short(rewards)}"))
        return Judged(id, (), row)
    text = critic if isinstance(critic, str) else None
    # The released scripts score the first answer tag, even a draft in a thought that the token limit cut.
    correct = None if text is not None and spoken_from(text) is None else rewards[0] > rewards[1]
    characters = None if text is None else len(text)
    return Judged(id, (Vote(correct, preferred_first=True, characters=characters),), row)


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


R1_REWARD_FILES = PredictionFormat(
    name="r1_reward",
    fields="rewards",
    marked=lambda data: "rewards" in data,
    read=_read_rewards,
    orders="preferred-first",
    tells_unreadable=False,
    notes=(
        "The file does not tell unreadable verdicts from wrong ones: the released scripts write both down as wrong, so "
        "the parse rate is unknown and the rules drop and coin cannot be applied.",
        "In this file the preferred response is first in every row: a judge that always says 1 would score 100 %. "
        "(Rewards that a model gave to each response alone know no order.)",
    ),
    missing_rows_hint=" The released scripts write one file for each chunk, and when they are resumed they skip rows "
    "whose id they have already: join all chunks in order, and do not resume.",
)
"""``id`` and ``rewards`` of the preferred and the other response, with or without the other fields."""


def others_formats() -> dict[str, tuple[PredictionFormat, Benchmark | None]]:
    """Return the formats of other projects by name, each with the benchmark whose scripts write it, None for any."""
    formats: dict[str, tuple[PredictionFormat, Benchmark | None]] = {R1_REWARD_FILES.name: (R1_REWARD_FILES, None)}
    for benchmark in map(find_benchmark, benchmark_names()):
        formats |= {one.name: (one, benchmark) for one in benchmark.prediction_formats}
    return formats


def read_outcomes(suite: str, file: Path, *, rows: LoadedSuite | None = None) -> Iterator[Outcome]:
    """Return the rows of a prediction file in the file's order; correct is None for a vote that cannot be read.

    ``rows`` are joined by position; where the file of another project has more or fewer rows they supply nothing.

    Raises:
        UserError: there is no such file or nothing in it, it has none of the formats; or, while iterating, a row
            cannot be read, has another format, is there twice or is not the benchmark's row of that position.
    """
    entry, format = find_benchmark(suite), detect_format(suite, file)
    return _read_ours(entry, file, rows) if format == OURS else _read_others(entry, file, format, rows)


def detect_format(suite: str, file: Path) -> str:
    """Return the format of the first row: ``ours``, ``r1_reward`` or that of the benchmark's own scripts.

    Raises:
        UserError: no such file, no rows, none of the formats, or that of another benchmark.
    """
    entry, formats = find_benchmark(suite), others_formats()
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
        raise _problem(first, "", f"is a row of {owner.title}'s scripts ({owner.name}), not {entry.name}")
    return found[0]


def tally_file(suite: str, file: Path, *, rows: LoadedSuite | None = None) -> Tally:
    """Return the counted votes of a prediction file; arguments and errors are those of :func:`read_outcomes`."""
    tally = Tally(keep=find_benchmark(suite).official is not None)
    for outcome in read_outcomes(suite, file, rows=rows):
        try:
            tally.add(outcome)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
    return tally


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
            raise _problem(raw, "", f"{reason} ({_no_format(found, formats)})")
        yield raw, Fields(raw.data)


_Others = Mapping[str, tuple[PredictionFormat, Benchmark | None]]


def formats_of(data: Any, others: _Others) -> list[str]:
    """Return the formats whose marks a row has: one, unless something is wrong with it."""
    if not isinstance(data, dict):
        return []
    ours = [OURS] if "key" in data and "passes" in data else []
    return [*ours, *(name for name, (format, _) in others.items() if format.marked(data))]


def _no_format(found: list[str], others: _Others) -> str:
    if found:
        return f"it has the fields of {' and '.join(found)} at once"
    marks = [f"{format.fields} ({owner.title if owner else format.name})" for format, owner in others.values()]
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


def _read_others(suite: Benchmark, file: Path, format: str, rows: LoadedSuite | None) -> Iterator[Outcome]:
    joined: Iterator[BenchmarkRow | None] = repeat(None)
    if rows is not None and sum(1 for _ in _raw_rows(file)) == rows.n:
        joined = rows.rows()
    read = others_formats()[format][0].read
    for index, ((raw, row), known) in enumerate(zip(_rows(file, format), joined, strict=False)):
        id, votes, details, place = read(row, suite)
        if known is not None:
            about = About(known.category, known.paper_category, known.issue, known.longer)
        else:
            about = suite.about(details, id) if id else About()
        if details is not row:
            row.problems += [(f"{place}{field}", reason) for field, reason in details.problems]
        _check(raw, row)
        if known is not None and known.id != id:
            raise _problem(
                raw, "", f"its id is {id!r}, that of row {index} of --data is {known.id!r}: they are other rows, or in "
                "another order (the parts that a script writes must be joined in the order of their numbers)",
            )  # fmt: skip
        yield Outcome(index, id, (votes,), *about)
