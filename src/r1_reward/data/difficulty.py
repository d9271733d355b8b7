"""Split annotated pairs into a set for supervised fine-tuning (SFT) and a set for reinforcement learning (RL).

The paper's rule (method section 4): SFT gets every row whose reasoning agrees with the label; RL gets the rows that
took the teacher two or more attempts and those on which it failed. Rows with several attempts can be in both::

    reports = split_difficulty("annotated", Path("sft"), Path("rl"))

A model's own pass rates can be used instead of the teacher's attempts, see :mod:`r1_reward.data.pass_rates`. The model
learns nothing from rows that it always gets right::

    split_difficulty("annotated", Path("sft"), Path("rl"), PassRates(model="runs/sft", samples=8))

A row without any verdict is not a hard row. If no attempt of the teacher, or no sample of the model, had a verdict, the
row gets the level *no verdict*: it is left out of the RL set, and the reports count it.
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
_NOT_MEASURED = "not measured"


class Place(NamedTuple):
    """The sets that a row goes to."""

    taught: bool
    """Whether it is in the SFT set."""
    hard: bool
    """Whether it is in the RL set."""
    difficulty: float
    """Increases from easy to hard; NaN if unknown."""
    level: str
    """Name of the difficulty."""
    reason: str = ""
    """Why it is in neither set."""


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
    """Write both pair folders and return their reports, SFT first.

    Rows keep their order; with ``curriculum`` the RL rows go from easy to hard (then train with
    ``shuffle_dataset: false``). RL rows have no reasoning. Rows in neither set are listed in the RL folder's
    ``dropped.jsonl``. ``engine`` measures the pass rates instead of loading ``rates.model``; ``progress`` is called
    with the numbers of measured and of all rows; ``on_unreadable`` says what to do if none of the first samples can be
    parsed.

    Raises:
        UserError: a folder already holds pairs and ``overwrite`` is False, no row was annotated, or a setting is wrong.
        UnreadableJudge: none of the first samples of the model can be parsed.
    """
    if len({Path(folder).resolve() for folder in (path, sft, rl)}) < 3:
        raise UserError(f"{path}, {sft} and {rl} must be three different folders.")
    with PairWriter(sft, overwrite=overwrite) as taught, PairWriter(rl, overwrite=overwrite) as hard:
        counted: dict[str, Any] = {}
        if rates is None:
            places = by_attempts(path)
        else:
            how: dict[str, Any] = {"batch_size": batch_size, "on_unreadable": on_unreadable, "progress": progress}
            measured = measure(path, rates, rl / PASS_RATES, engine, **how)
            places = by_pass_rates(path, rates, measured)
            counted = {"samples": _samples(measured, rates), "warnings": _warnings(places, measured)}
        _list_neither(path, places, hard.staging / DROPPED)
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
    """Place each row by the teacher's attempts; raises UserError if no row was annotated."""
    places = []
    unread = _without_verdict(path)
    for number, row in enumerate(read_rows(path, ["preferred", "reasoning", "attempts"])):
        if row["preferred"] == 0:
            places.append(_NO_WINNER)
            continue
        taught, attempts = agrees(row), row["attempts"]
        if attempts is not None:
            reason = "" if taught or attempts > 1 else "agreed at once, but without reasoning usable for training"
            places.append(Place(taught, attempts > 1, attempts, str(attempts), reason))
        elif number in unread:
            places.append(Place(taught, False, math.nan, NO_VERDICT, "" if taught else "no attempt had a verdict"))
        elif row["reasoning"] is None:
            places.append(Place(False, True, math.inf, FAILED))
        else:
            reason = "" if taught else "its reasoning does not agree, and attempts were not counted"
            places.append(Place(taught, False, math.nan, "not counted", reason))
    told = any(place.level not in (FAILED, "not counted", TIE) for place in places)
    if not told and not _was_annotated(path):
        raise UserError(
            f"{path}: no row has a number of attempts. Annotate the pairs first (r1-reward data annotate), or name a "
            "model to measure pass rates with (--model)."
        )
    return places


def _without_verdict(path: str | Path) -> set[int]:
    """Return the 0-based numbers of the rows without a verdict in any attempt, according to attempts.jsonl.

    Without that file, as in a mixture, this is unknown, and the teacher is assumed to have failed on such rows.
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
    """Return whether a folder was annotated, even if its teacher failed on every row."""
    file = Path(path) / REPORT
    report = read_json(file) if file.exists() else None
    return isinstance(report, dict) and report.get("kind") == "annotation"


def agrees(row: dict[str, Any]) -> bool:
    """Return whether a row has well-formed reasoning whose verdict is the label; only such rows may be used for SFT."""
    if row["reasoning"] is None:
        return False
    parsed = parse_judgment(row["reasoning"])
    return parsed.well_formed and parsed.answer == row["preferred"]


def by_pass_rates(path: str | Path, rates: PassRates, measured: Sequence[Rate | str]) -> list[Place]:
    """Place each row by a model's pass rate."""
    rows = read_rows(path, ["preferred", "reasoning"])
    places = []
    for row, one in zip(rows, measured, strict=True):
        if row["preferred"] == 0:
            places.append(_NO_WINNER)
            continue
        taught = agrees(row)
        if isinstance(one, str):
            places.append(Place(taught, False, math.nan, _NOT_MEASURED, "" if taught else one))
            continue
        if one.unreadable == rates.samples:
            places.append(Place(taught, False, math.nan, NO_VERDICT, "" if taught else "no sample had a verdict"))
            continue
        rate = one.right / rates.samples
        hard = rates.lowest <= rate <= rates.highest
        reason = "" if taught or hard else "pass rate is out of range, and no reasoning agrees"
        places.append(Place(taught, hard, 1 - rate, f"{one.right}/{rates.samples}", reason))
    return places


def _samples(measured: Sequence[Rate | str], rates: PassRates) -> dict[str, int]:
    """Count samples, samples with a verdict and truncated samples, over the rows where these counts are known."""
    told = [one for one in measured if isinstance(one, Rate) and one.unreadable is not None]
    votes = len(told) * rates.samples
    return {
        "votes": votes,
        "readable": votes - sum(one.unreadable or 0 for one in told),
        "truncated": sum(one.truncated or 0 for one in told),
    }


def _warnings(places: Sequence[Place], measured: Sequence[Rate | str]) -> list[str]:
    """Return a warning if rows have no pass rate, so that a failing model does not shrink the RL set unnoticed."""
    lost = [one for place, one in zip(places, measured, strict=True) if place.level == _NOT_MEASURED]
    if not lost:
        return []
    told = "1 row was not measured and is" if len(lost) == 1 else f"{len(lost):,} rows were not measured and are"
    return [
        f"{told} missing from the RL set; the first error: {str(lost[0]).rstrip('.')}. The same command with "
        "--overwrite measures only such rows."
    ]


def _numbers(places: Sequence[Place], which: str) -> set[int]:
    return {number for number, place in enumerate(places) if getattr(place, which)}


def _course(places: Sequence[Place], curriculum: bool) -> list[set[int]]:
    """Return the hard rows as a sequence of sets: one set, or with ``curriculum`` one per level of difficulty."""
    hard = _numbers(places, "hard")
    if not curriculum:
        return [hard]
    levels = sorted({places[number].difficulty for number in hard})
    return [{number for number in hard if places[number].difficulty == level} for level in levels]


def _write(
    writer: PairWriter, path: str | Path, course: Sequence[set[int]], *, reasoning: bool = True
) -> dict[str, Any]:
    """Write the rows of each set, reading the input once per set, and return counts."""
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
