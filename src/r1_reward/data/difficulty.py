"""Divide annotated pairs into what imitation learns from and what reinforcement learning learns from.

The paper's rule (method section 4): imitation gets every row whose reasoning agrees with the label; reinforcement gets
the rows that took the teacher two tries or more, and those on which it failed. Rows of several tries are in both::

    reports = split_difficulty("annotated", Path("sft"), Path("rl"))

A model's own difficulty can take the place of the teacher's, see :mod:`r1_reward.data.pass_rates`. Rows that it always
gets right have nothing to teach it::

    split_difficulty("annotated", Path("sft"), Path("rl"), PassRates(model="runs/sft", samples=8))

A row that nobody judged is not hard. If no try of the teacher had a verdict, or no sample of the model, the row is at
the level *no verdict*: reinforcement does not get it, and the reports count it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.data.annotation import ATTEMPTS, DROPPED, TIE, row_key
from r1_reward.data.annotation_report import FAILED, NO_VERDICT
from r1_reward.data.attempts_file import had_verdicts
from r1_reward.data.pass_rates import PassRates, Progress, Rate, measure
from r1_reward.engines.engine import Engine
from r1_reward.judge.settings import OnUnreadable
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import parse_judgment
from r1_reward.store.files import read_json
from r1_reward.store.shards import REPORT, PairWriter, read_rows

PASS_RATES = "pass_rates.jsonl"


class Place(NamedTuple):
    """Where a row goes."""

    taught: bool
    """Whether imitation takes it."""
    hard: bool
    """Whether reinforcement takes it."""
    difficulty: float
    """Rises from easy to hard; NaN if unknown."""
    level: str
    """The difficulty in words."""
    reason: str = ""
    """Why neither takes it."""


_NO_WINNER = Place(False, False, math.nan, TIE, "neither response is preferred")


def split_difficulty(
    path: str | Path,
    sft: Path,
    rl: Path,
    rates: PassRates | None = None,
    *,
    curriculum: bool = False,
    overwrite: bool = False,
    engine: Engine | None = None,
    batch_size: int = 64,
    on_unreadable: OnUnreadable = "stop",
    progress: Progress | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write both pair folders and return their reports, imitation's first.

    Rows keep their order; with ``curriculum`` those for reinforcement go from easy to hard (then train with
    ``shuffle_dataset: false``). They carry no reasoning. Rows that neither takes are listed in the RL folder's
    ``dropped.jsonl``.
    ``engine`` is asked for the rates instead of loading ``rates.model``; ``progress`` gets rows measured and all rows;
    ``on_unreadable`` says what to do when none of the first samples can be read.

    Raises:
        UserError: a folder holds pairs and ``overwrite`` is off, no row was annotated, or a setting is wrong.
        UnreadableJudge: none of the first samples of a model can be read.
    """
    if len({Path(folder).resolve() for folder in (path, sft, rl)}) < 3:
        raise UserError(f"{path}, {sft} and {rl}: must be three different folders.")
    with PairWriter(sft, overwrite=overwrite) as taught, PairWriter(rl, overwrite=overwrite) as hard:
        measured: list[Rate | str] | None = None
        if rates is None:
            places = by_attempts(path)
        else:
            how: dict[str, Any] = {"batch_size": batch_size, "on_unreadable": on_unreadable, "progress": progress}
            measured = measure(path, rates, rl / PASS_RATES, engine, **how)
            places = by_pass_rates(path, rates, measured)
        _list_neither(path, places, hard.staging / DROPPED)
        counted = {} if measured is None or rates is None else {"samples": _samples(measured, rates)}
        reports = (
            _describe(path, places, rates, "sft", _write(taught, path, [_numbers(places, "taught")])) | counted,
            _describe(path, places, rates, "rl", _write(hard, path, _course(places, curriculum), reasoning=False))
            | counted
            | {"curriculum": curriculum},
        )
        taught.close(reports[0])
        hard.close(reports[1])
    return reports


def by_attempts(path: str | Path) -> list[Place]:
    """Return the place of each row by the teacher's tries; raises UserError if no row was annotated."""
    places = []
    unread = _without_verdict(path)
    for number, row in enumerate(read_rows(path, ["preferred", "reasoning", "attempts"])):
        if row["preferred"] == 0:
            places.append(_NO_WINNER)
            continue
        taught, attempts = agrees(row), row["attempts"]
        if attempts is not None:
            reason = "" if taught or attempts > 1 else "agreed at once, but without reasoning fit for training"
            places.append(Place(taught, attempts > 1, attempts, str(attempts), reason))
        elif number in unread:
            places.append(Place(taught, False, math.nan, NO_VERDICT, "" if taught else "no try had a verdict"))
        elif row["reasoning"] is None:
            places.append(Place(False, True, math.inf, FAILED))
        else:
            reason = "" if taught else "its reasoning does not agree, and nobody counted attempts"
            places.append(Place(taught, False, math.nan, "not counted", reason))
    told = any(place.level not in (FAILED, "not counted", TIE) for place in places)
    if not told and not _was_annotated(path):
        raise UserError(
            f"{path}: no row says how many attempts a teacher needed. Annotate it first (r1-reward data annotate), or "
            "name a model to measure pass rates with (--model)."
        )
    return places


def _without_verdict(path: str | Path) -> set[int]:
    """Return the numbers, from 0, of the rows of which no try had a verdict, as the attempts beside them tell.

    Rows without a file of attempts, such as those of a mixture, do not tell; the teacher is taken to have failed then.
    """
    folder = Path(path)
    attempts = (folder if folder.is_dir() else folder.parent) / ATTEMPTS
    if not attempts.is_file():
        return set()
    unread = {key for key, verdict in had_verdicts(attempts).items() if not verdict}
    if not unread:
        return set()
    return {number for number, row in enumerate(read_rows(path)) if row["attempts"] is None and row_key(row) in unread}


def _was_annotated(path: str | Path) -> bool:
    """Say whether a folder was, even if its teacher failed everywhere."""
    file = Path(path) / REPORT
    report = read_json(file) if file.exists() else None
    return isinstance(report, dict) and report.get("kind") == "annotation"


def agrees(row: dict[str, Any]) -> bool:
    """Say whether a row has reasoning in the format whose verdict is the label: nothing else may be imitated."""
    if row["reasoning"] is None:
        return False
    parsed = parse_judgment(row["reasoning"])
    return parsed.well_formed and parsed.answer == row["preferred"]


def by_pass_rates(path: str | Path, rates: PassRates, measured: Sequence[Rate | str]) -> list[Place]:
    """Return the place of each row by a model's pass rate."""
    rows = read_rows(path, ["preferred", "reasoning"])
    places = []
    for row, one in zip(rows, measured, strict=True):
        if row["preferred"] == 0:
            places.append(_NO_WINNER)
            continue
        taught = agrees(row)
        if isinstance(one, str):
            places.append(Place(taught, False, math.nan, "not measured", "" if taught else one))
            continue
        if one.unreadable == rates.samples:
            places.append(Place(taught, False, math.nan, NO_VERDICT, "" if taught else "no sample had a verdict"))
            continue
        rate = one.right / rates.samples
        hard = rates.lowest <= rate <= rates.highest
        reason = "" if taught or hard else "pass rate out of range, and no reasoning that agrees"
        places.append(Place(taught, hard, 1 - rate, f"{one.right}/{rates.samples}", reason))
    return places


def _samples(measured: Sequence[Rate | str], rates: PassRates) -> dict[str, int]:
    """Return how many samples there are, how many have a verdict and how many were cut, of the rows that tell."""
    told = [one for one in measured if isinstance(one, Rate) and one.unreadable is not None]
    votes = len(told) * rates.samples
    return {
        "votes": votes,
        "readable": votes - sum(one.unreadable or 0 for one in told),
        "truncated": sum(one.truncated or 0 for one in told),
    }


def _numbers(places: Sequence[Place], which: str) -> set[int]:
    return {number for number, place in enumerate(places) if getattr(place, which)}


def _course(places: Sequence[Place], curriculum: bool) -> list[set[int]]:
    """Return the hard rows as sets that follow one another: all at once, or one set a level of difficulty."""
    hard = _numbers(places, "hard")
    if not curriculum:
        return [hard]
    levels = sorted({places[number].difficulty for number in hard})
    return [{number for number in hard if places[number].difficulty == level} for level in levels]


def _write(
    writer: PairWriter, path: str | Path, course: Sequence[set[int]], *, reasoning: bool = True
) -> dict[str, Any]:
    """Add the rows of each set, reading the input once for each, and return counts."""
    sources: Counter[str] = Counter()
    labels: Counter[int] = Counter()
    for numbers in course:
        for number, row in enumerate(read_rows(path)):
            if number in numbers:
                writer.add(row if reasoning else {**row, "reasoning": None})
                sources[row["source"]] += 1
                labels[row["preferred"]] += 1
    share = labels[1] / labels.total() if labels else None
    return {"written": writer.rows, "by_source": dict(sorted(sources.items())), "label_1_share": share}


def _list_neither(path: str | Path, places: Sequence[Place], file: Path) -> None:
    with open(file, "w", encoding="ascii") as lines:
        rows = read_rows(path, ["id", "source"])
        for number, (row, place) in enumerate(zip(rows, places, strict=True), 1):
            if not place.taught and not place.hard:
                line = {"source": row["source"], "file": str(path), "row": number, "id": row["id"]}
                lines.write(json.dumps(line | {"reason": place.reason, "detail": place.level}) + "\n")


def _describe(
    path: str | Path, places: Sequence[Place], rates: PassRates | None, kind: str, written: dict[str, Any]
) -> dict[str, Any]:
    known = sorted((place for place in places if not math.isnan(place.difficulty)), key=lambda place: place.difficulty)
    unknown = [place for place in places if math.isnan(place.difficulty)]
    return {
        "kind": kind,
        "input": str(path),
        "rule": "attempts" if rates is None else {"pass rate": rates.model_dump()},
        "rows": len(places),
        **written,
        "in_both": len(_numbers(places, "taught") & _numbers(places, "hard")),
        "no_verdict": sum(place.level == NO_VERDICT for place in places),
        "neither": dict(Counter(place.reason for place in places if not place.taught and not place.hard)),
        "levels": dict(Counter(place.level for place in (*known, *unknown))),
    }
