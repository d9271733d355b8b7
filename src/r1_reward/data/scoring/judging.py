"""What a judge makes of rows: a line of the output for each, whatever is wrong with some of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from r1_reward.data.scoring.rows import Kind, Row
from r1_reward.data.scoring.settings import ScoreSettings
from r1_reward.engines.engine import EngineError
from r1_reward.engines.length import PromptTooLong
from r1_reward.judge.calibration import Calibration
from r1_reward.judge.groups import Group, ScoredGroup, score_groups
from r1_reward.judge.prepare import InvalidPair, PairToJudge
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.unreadable import Reading, reading_of
from r1_reward.judge.voting import Verdict
from r1_reward.records.dialect import Dialect
from r1_reward.records.errors import UserError, kind_of
from r1_reward.store.encoded import kind_of_source
from r1_reward.store.video import Video

SCHEMAS: dict[str, pa.Schema] = {
    "pairs": pa.schema(
        [
            ("id", pa.string()),
            ("preferred", pa.int8()),
            ("probability", pa.float64()),
            ("for_1", pa.int32()),
            ("for_2", pa.int32()),
            ("unreadable", pa.int32()),
            ("flips", pa.float64()),
            ("tokens", pa.int64()),
            ("truncated", pa.int32()),
            ("error", pa.string()),
        ]
    ),
    "groups": pa.schema(
        [
            ("id", pa.string()),
            ("rewards", pa.list_(pa.float64())),
            ("order", pa.list_(pa.int32())),
            ("votes", pa.int32()),
            ("unreadable", pa.int32()),
            ("truncated", pa.int32()),
            ("error", pa.string()),
        ]
    ),
}
"""The columns of the output. All but ``id`` and ``error`` are null where there is an error.

``truncated`` and ``unreadable`` count votes: those that the token limit cut, and those without a verdict.
"""


class Job(NamedTuple):
    """What a process needs to know to judge blocks of one file."""

    settings: ScoreSettings
    kind: Kind
    folder: Path
    """What the paths of pictures are relative to."""
    calibration: Calibration | None = None


class Result(NamedTuple):
    """A line of the output."""

    line: dict[str, Any]
    unanswered: bool = False
    """Whether the row was fit to be judged and the engine failed."""
    readings: Sequence[Reading] = ()
    """What came of reading its votes."""


def judge_rows(engine: Any, rows: Iterable[Row], job: Job) -> Iterator[Result]:
    """Yield a line for each row, in order; raises UserError only if nothing can be judged at all."""
    settings = job.settings
    model = RewardModel(
        engine,
        max_new_tokens=settings.max_new_tokens,
        calibration=job.calibration,
        seed=settings.seed,
        video_frames=settings.frames,
    )
    options: dict[str, Any] = settings.model_dump(include={"votes", "both_orders", "temperature", "stop"})
    waiting: deque[tuple[Row, Result]] = deque()
    if job.kind == "pairs":
        pairs = _items(
            rows, ("question", "response_1", "response_2"), waiting, lambda fields: _pair(fields, job.folder)
        )
        judged: Iterator[Any] = model.compare_many(pairs, **options)
    else:
        groups = _items(rows, ("question", "responses"), waiting, lambda fields: _group(fields, job.folder))
        compare = partial(model.compare_many, **options)
        judged = score_groups(
            groups,
            compare,
            schedule=settings.schedule,
            comparisons=settings.comparisons,
            seed=settings.seed,
            video_frames=model.video_frames,
        )
    for one in judged:
        row, result = waiting.popleft()
        yield result if "error" in result.line else _result(row, result, one, model.engine.dialect)


def _items(
    rows: Iterable[Row],
    texts: Sequence[str],
    waiting: deque[tuple[Row, Result]],
    read: Callable[[dict[str, Any]], Any],
) -> Iterator[Any]:
    """Yield what to judge of each row, an error where that is nothing, and note the row."""
    for row in rows:
        result = _checked(row, texts)
        waiting.append((row, result))
        yield InvalidPair(result.line["error"]) if "error" in result.line else read(row.fields)


def _pair(fields: dict[str, Any], folder: Path) -> PairToJudge:
    return PairToJudge(fields["question"], _pictures(fields, folder), fields["response_1"], fields["response_2"])


def _group(fields: dict[str, Any], folder: Path) -> Group:
    return Group(fields["question"], _pictures(fields, folder), fields["responses"])


def _result(row: Row, result: Result, judged: Verdict | ScoredGroup | EngineError, dialect: Dialect) -> Result:
    name = result.line["id"]
    if isinstance(judged, EngineError):
        return _failed(row, judged, name)
    readings = tuple(reading_of(vote, dialect) for vote in judged.votes)
    if isinstance(judged, ScoredGroup):
        if judged.errors:
            return _failed(row, judged.errors[0], name)._replace(readings=readings)
        counts = {
            "votes": len(readings),
            "unreadable": sum(bool(reading.reason) for reading in readings),
            "truncated": sum(reading.truncated for reading in readings),
        }
        return Result({"id": name, **_reward_fields(judged.rewards), **counts}, readings=readings)
    return Result({"id": name, **_verdict_fields(judged)}, readings=readings)


def _verdict_fields(verdict: Verdict) -> dict[str, Any]:
    names = ("preferred", "probability", "for_1", "for_2", "unreadable", "flips", "tokens", "truncated")
    return {name: getattr(verdict, name) for name in names}


def _reward_fields(rewards: list[float | None]) -> dict[str, Any]:
    known = [(-reward, number) for number, reward in enumerate(rewards) if reward is not None]
    return {"rewards": rewards, "order": [number for _, number in sorted(known)]}


def _checked(row: Row, texts: Sequence[str]) -> Result:
    """Return a line with the row's id, and with an error if the row cannot be shown to a judge."""
    given = row.fields.get("id")
    if row.problem is not None:
        return _failed(row, row.problem, None)
    if isinstance(given, bool) or not isinstance(given, (str, int, type(None))):
        return _failed(row, "id: must be text or a number.", None)
    name = None if given is None else _printable(str(given))
    video = row.fields.get("video")
    if not isinstance(video, (str, type(None))):
        return _failed(row, f"video: must be a path, not {kind_of(video)}.", name)
    missing = [field for field in (*texts, *(() if video else ("images",))) if row.fields.get(field) is None]
    if missing:
        return _failed(row, f"{missing[0]}: is missing.", name)
    return Result({"id": name})


def _failed(row: Row, reason: str | UserError, name: str | None) -> Result:
    unanswered = isinstance(reason, EngineError) and not isinstance(reason, InvalidPair | PromptTooLong)
    said = str(reason) if unanswered else f"{row.place}: {reason}"
    return Result({"id": name, "error": _printable(said)}, unanswered)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _pictures(row: Mapping[str, Any], folder: Path) -> Any:
    """Return pictures as paths or bytes, a video behind them; what is none of these is left for the judge to refuse."""
    cells, video = row.get("images"), row.get("video")
    if video and cells is None:
        cells = []
    if not isinstance(cells, list):
        return cells
    pictures = [_picture(cell, folder) for cell in cells]
    return [*pictures, Video(os.path.join(folder, video))] if video else pictures


def _picture(cell: Any, folder: Path) -> Any:
    if isinstance(cell, Mapping):  # an embedded one, of parquet
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    return os.path.join(folder, cell) if isinstance(cell, str) and kind_of_source(cell) == "path" else cell
