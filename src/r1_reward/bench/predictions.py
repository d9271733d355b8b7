"""Prediction files, ours and others', as one :class:`Outcome` a row; one row is in memory at a time.

    tally = Tally()
    for outcome in read_outcomes("vl-rewardbench", Path("r1_reward.jsonl")):
        tally.add(outcome)

The fields of the first row tell which format a file, JSONL or a JSON array, has; every other row must have the same:

- ``ours``: a line of predictions.jsonl as :mod:`r1_reward.bench.run` writes it, with every vote;
- ``r1_reward``: a row of the released scripts, ``id`` and ``rewards`` of the preferred and the other response. The
  preferred one was shown first, and an unreadable verdict is written down as a wrong one;
- ``official``: a row of Multimodal RewardBench's scripts, ``ID``, ``Label`` and an ``output`` that says ``[[A]]`` or
  ``[[B]]``.

The benchmark's own rows, if given, supply what a file leaves out, and prove that it is about them.
"""

from __future__ import annotations

import json
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.bench.categories import mm_rlhf_category, multimodal_category, vl_category, vl_paper_category
from r1_reward.bench.formats import Fields
from r1_reward.bench.readers import RawRow, array_rows, is_array, line_rows
from r1_reward.bench.rows import BenchmarkRow, Outcome, Vote
from r1_reward.bench.suites import LoadedSuite, RowProblem, Suite, find_suite
from r1_reward.bench.summary import Tally
from r1_reward.records.checks import kind_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer
from r1_reward.store.files import read_json

_OFFICIAL_SUITE = "multimodal-rewardbench"
_KEY = re.compile(r"(\d+)-([0-9a-f]{16})")


def read_outcomes(suite: str, file: Path, *, rows: LoadedSuite | None = None) -> Iterator[Outcome]:
    """Return the rows of a prediction file in the file's order; correct is None for a vote that cannot be read.

    ``rows`` are joined by position; where the file of another project has more or fewer rows they supply nothing.

    Raises:
        UserError: there is no such file or nothing in it, it has none of the formats; or, while iterating, a row
            cannot be read, has another format, is there twice or is not the benchmark's row of that position.
    """
    entry, format = find_suite(suite), detect_format(suite, file)
    return _read_ours(entry, file, rows) if format == "ours" else _read_others(entry, file, format, rows)


def detect_format(suite: str, file: Path) -> str:
    """Return the format of the first row: ``ours``, ``r1_reward`` or ``official``.

    Raises:
        UserError: no such file, no rows, none of the formats, or that of another benchmark.
    """
    entry = find_suite(suite)
    _check_file(file)
    rows = _raw_rows(file)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{file}: holds no rows; there is nothing to score.")
    if first.broken is not None:
        raise _broken(file, first, last=next(rows, None) is None)
    found = _formats(first.data)
    if len(found) != 1:
        raise _problem(first, "", _no_format(found))
    if found[0] == "official" and entry.name != _OFFICIAL_SUITE:
        raise _problem(first, "", f"is a row of Multimodal RewardBench's scripts ({_OFFICIAL_SUITE}), not {entry.name}")
    return found[0]


def tally_run(folder: Path) -> Tally:
    """Return the counted votes of a run folder; raises UserError if it holds none."""
    run = read_json(Path(folder) / "run.json")
    suite = run.get("suite") if isinstance(run, dict) else None
    if not isinstance(suite, str):
        raise UserError(f"{folder}/run.json: is not the run.json of a benchmark run.")
    tally = Tally()
    for outcome in read_outcomes(suite, Path(folder) / "predictions.jsonl"):
        tally.add(outcome)
    return tally


# ---- files


def _check_file(file: Path) -> None:
    if os.path.isdir(file):
        raise UserError(f"{file}: is a folder; name the file in it (predictions.jsonl if it is a run).")
    if not os.path.isfile(file):
        from r1_reward.store.pairs import did_you_mean

        raise UserError(f"{file}: no such file.{did_you_mean(Path(file))}")
    if not os.access(file, os.R_OK):
        raise UserError(f"{file}: you may not read this (permission denied).")


def _raw_rows(file: Path) -> Iterator[RawRow]:
    return array_rows(file) if is_array(file) else line_rows(file)


def _rows(file: Path, format: str) -> Iterator[tuple[RawRow, Fields]]:
    """Yield the rows, all of one format; raises UserError where one is not."""
    rows = _raw_rows(file)
    for raw in rows:
        if raw.broken is not None:
            raise _broken(file, raw, last=next(rows, None) is None)
        found = _formats(raw.data)
        if found != [format]:
            reason = f"the first row has the format {format!r}, this one {' and '.join(map(repr, found)) or 'another'}"
            raise _problem(raw, "", f"{reason} ({_no_format(found)})")
        yield raw, Fields(raw.data)


def _formats(data: Any) -> list[str]:
    """Return the formats whose marks a row has: one, unless something is wrong with it."""
    if not isinstance(data, dict):
        return []
    marks = {
        "ours": "key" in data and "passes" in data,
        "r1_reward": "rewards" in data,
        "official": "Label" in data and ("output" in data or "outputs" in data),
    }
    return [name for name, marked in marks.items() if marked]


def _no_format(found: list[str]) -> str:
    if found:
        return f"it has the fields of {' and '.join(found)} at once"
    return "a row has key and passes (ours), rewards (r1_reward), or Label and output (Multimodal RewardBench)"


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


def _read_ours(suite: Suite, file: Path, rows: LoadedSuite | None) -> Iterator[Outcome]:
    # 8 bytes a row, as the lines may come in any order.
    hashes = None if rows is None else array("Q", (int(row.content_hash, 16) for row in rows.rows()))
    seen: set[int] = set()
    for raw, fields in _rows(file, "ours"):
        outcome = _our_outcome(suite, fields)
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


def _our_outcome(suite: Suite, row: Fields) -> Outcome:
    """Read a line of predictions.jsonl; wrong values are noted in the row."""
    data = row.data
    index, key, longer = data.get("index"), data.get("key"), data.get("longer")
    match = _KEY.fullmatch(key) if isinstance(key, str) else None
    _require(row, "index", _is_count(index), "a whole number from 0 on")
    _require(row, "key", match is not None and match[1] == str(index), "the index, a hyphen and 16 hex digits")
    _require(row, "id", isinstance(data.get("id"), str), "text")
    for name in ("category", "paper_category", "issue"):
        _require(row, name, isinstance(data.get(name), str | None), "text or null")
    _require(row, "longer", longer is None or (type(longer) is int and abs(longer) <= 1), "1, 0, -1 or null")
    category = data.get("category")
    if suite.categories is not None and isinstance(category, str) and category not in suite.categories:
        row.problems.append(("category", f"{category!r} is no category of {suite.title}"))
    preferred = row.label("preferred", [(1, 1), (2, 2)])
    passes = data["passes"]
    _require(row, "passes", _are_passes(passes), "one or two lists of votes")
    if row.problems:
        return Outcome(0, "", ())
    votes = tuple(
        tuple(_our_vote(row, f"passes[{p}][{v}]", vote, preferred) for v, vote in enumerate(votes))
        for p, votes in enumerate(passes)
    )
    return Outcome(data["index"], data["id"], votes, category, data.get("paper_category"), data.get("issue"), longer)


def _our_vote(row: Fields, place: str, value: Any, preferred: Answer) -> Vote:
    if not isinstance(value, dict):
        row.problems.append((place, f"must be an object, not {kind_of(value)}"))
        return Vote(None)
    vote = Fields(value)
    unreadable = "answer" in value and value["answer"] is None
    answer = None if unreadable else vote.label("answer", [(1, 1), (2, 2)])
    swapped, tokens, text = value.get("swapped"), value.get("tokens"), value.get("text")
    _require(vote, "swapped", isinstance(swapped, bool), "true or false")
    _require(vote, "tokens", tokens is None or _is_count(tokens), "a whole number from 0 on")
    _require(vote, "text", isinstance(text, str | None), "text")
    row.problems += [(f"{place}.{field}", reason) for field, reason in vote.problems]
    return Vote(
        correct=None if answer is None else answer == preferred,
        preferred_first=(preferred == 1) != swapped,
        tokens=tokens,
        characters=len(text) if isinstance(text, str) else None,
    )


def _require(row: Fields, name: str, right: bool, wanted: str) -> None:
    if not right:
        given = row.data.get(name)
        row.problems.append((name, f"must be {wanted}, not {_short(given)}" if name in row.data else "is missing"))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _are_passes(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (1, 2) and all(isinstance(one, list) and one for one in value)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


# ---- others'


class _About(NamedTuple):
    """What is known of a row besides the votes on it."""

    category: str | None = None
    paper_category: str | None = None
    issue: str | None = None
    longer: int | None = None


def _read_others(suite: Suite, file: Path, format: str, rows: LoadedSuite | None) -> Iterator[Outcome]:
    joined: Iterator[BenchmarkRow | None] = repeat(None)
    if rows is not None and sum(1 for _ in _raw_rows(file)) == rows.n:
        joined = rows.rows()
    read = _r1_votes if format == "r1_reward" else _official_votes
    for index, ((raw, row), known) in enumerate(zip(_rows(file, format), joined, strict=False)):
        id, votes, details = read(suite, row)
        about = _about(suite, details, id) if known is None else _known(known)
        if details is not row:
            row.problems += [(f"Meta.{field}", reason) for field, reason in details.problems]
        _check(raw, row)
        if known is not None and known.id != id:
            raise _problem(
                raw, "", f"its id is {id!r}, that of row {index} of --data is {known.id!r}: they are other rows, or in "
                "another order (the parts that a script writes must be joined in the order of their numbers)",
            )  # fmt: skip
        yield Outcome(index, id, (votes,), *about)


def _r1_votes(suite: Suite, row: Fields) -> tuple[str, tuple[Vote, ...], Fields]:
    """Return id, the one vote, and the fields that describe the row."""
    names = ("ID", "id") if suite.name == _OFFICIAL_SUITE else ("id",)
    id = row.text(next((name for name in names if name in row.data), names[0]))
    rewards, critic = row.data["rewards"], row.data.get("critic")
    if not (isinstance(rewards, list) and len(rewards) == 2 and all(map(_is_number, rewards))):
        row.problems.append(("rewards", f"must be two finite numbers, not {_short(rewards)}"))
        return id, (), row
    characters = len(critic) if isinstance(critic, str) else None
    return id, (Vote(rewards[0] > rewards[1], preferred_first=True, characters=characters),), row


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _official_votes(_suite: Suite, row: Fields) -> tuple[str, tuple[Vote, ...], Fields]:
    """Return id, a vote for each output, and the fields that describe the row."""
    id, label = row.text("ID"), row.label("Label", [("A", 1), ("B", 2)])
    name = "output" if "output" in row.data else "outputs"
    outputs = [row.data["output"]] if name == "output" else row.data["outputs"]
    if "output" in row.data and "outputs" in row.data:
        row.problems.append(("outputs", "is there beside output; a row has one of them"))
    elif not isinstance(outputs, list) or not outputs or not all(isinstance(text, str) for text in outputs):
        wanted = "text" if name == "output" else "a list of one or more texts"
        row.problems.append((name, f"must be {wanted}, not {_short(row.data[name])}"))
        outputs = []
    meta = row.data.get("Meta")
    if not isinstance(meta, dict | None):
        row.problems.append(("Meta", f"must be an object, not {kind_of(meta)}"))
        meta = None
    verdicts = [_official_verdict(text) for text in outputs]
    votes = tuple(
        Vote(None if verdict is None else verdict == label, preferred_first=label == 1, characters=len(text))
        for verdict, text in zip(verdicts, outputs, strict=True)
    )
    return id, votes, Fields(meta or {})


def _official_verdict(output: str) -> Answer | None:
    """Return what the official script reads: ``[[A]]`` anywhere in the text goes before ``[[B]]``."""
    return 1 if "[[A]]" in output else 2 if "[[B]]" in output else None


def _known(row: BenchmarkRow) -> _About:
    preferred, other = row.response_1, row.response_2
    if row.preferred == 2:
        preferred, other = other, preferred
    return _About(row.category, row.paper_category, row.issue, _longer(preferred, other))


def _about(suite: Suite, row: Fields, id: str) -> _About:
    """Return what a row says about itself; wrong values are noted in the row."""
    rule = _CATEGORIES.get(suite.name)
    category = rule(row, id) if rule is not None and id else None
    paper = vl_paper_category(id) if suite.name == "vl-rewardbench" and id else None
    return _About(category, paper, None, _longer_of(row))


def _longer_of(row: Fields) -> int | None:
    chosen, rejected = row.data.get("chosen"), row.data.get("rejected")
    if row.has("Output1") and row.has("Output2") and row.has("Better"):
        chosen, rejected = row.data["Output1"], row.data["Output2"]
        if row.label("Better", [("Output1", 1), ("Output2", 2)]) == 2:
            chosen, rejected = rejected, chosen
    return _longer(chosen, rejected) if isinstance(chosen, str) and isinstance(rejected, str) else None


def _longer(preferred: str, other: str) -> int:
    return (len(preferred) > len(other)) - (len(preferred) < len(other))


def _multimodal(row: Fields, id: str) -> str | None:
    return row.category("Category", multimodal_category, row.text("Category"), id) if row.has("Category") else None


def _mm_rlhf(row: Fields, _id: str) -> str | None:
    for name in ("image", "video"):
        path = row.data.get(name)
        if isinstance(path, str) and path:
            return row.category(name, _mm_rlhf_by_path, path)
    return None


def _mm_rlhf_by_path(path: str) -> str:
    try:
        return mm_rlhf_category(path)
    except UserError as error:
        # The released script opens a video's folder by this path, so people do make it absolute.
        raise UserError(f"{str(error).rstrip('.')}; or give the benchmark's rows with --data") from error


_CATEGORIES: dict[str, Callable[[Fields, str], str | None]] = {
    "vl-rewardbench": lambda _row, id: vl_category(id),
    "multimodal-rewardbench": _multimodal,
    "mm-rlhf-rewardbench": _mm_rlhf,
}
"""How a row of another project's file tells its category, by benchmark."""
