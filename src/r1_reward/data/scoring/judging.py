"""Judge rows: one output line per row, even for rows that cannot be judged."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
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
from r1_reward.records.content import ContentError, Place, fill_places, map_media
from r1_reward.records.dialect import Dialect
from r1_reward.records.errors import UserError, kind_of
from r1_reward.records.schema import CONTENTS
from r1_reward.records.texts import is_blank
from r1_reward.store.encoded import kind_of_source
from r1_reward.store.part_columns import media_at
from r1_reward.store.video import Video

SCHEMAS: dict[str, pa.Schema] = {
    "pairs": pa.schema(
        [
            ("id", pa.string()),
            ("preferred", pa.int8()),
            ("probability", pa.float64()),
            ("for_1", pa.int32()),
            ("for_2", pa.int32()),
            ("ties", pa.int32()),
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
            ("top_is_best", pa.float64()),
            ("error", pa.string()),
        ]
    ),
}
"""The columns of the output. On an error, all but ``id`` and ``error`` are null.

``top_is_best`` is 1 if the response with the highest reward has the best rank, 0 if not, and with several top responses
the share that have it; null if the row has no ``ranking``.

``for_1``, ``for_2`` and ``ties`` count votes by their verdict, ``unreadable`` those without one, ``truncated`` those
cut by the token limit. ``ties`` is null in rows that an earlier version judged before the run was resumed.
"""


class Job(NamedTuple):
    """Everything that a process needs to judge blocks of one file."""

    settings: ScoreSettings
    kind: Kind
    folder: Path
    """The folder that image paths are relative to."""
    calibration: Calibration | None = None


class Result(NamedTuple):
    """An output line."""

    line: dict[str, Any]
    unanswered: bool = False
    """Whether the row was valid but the engine failed."""
    readings: Sequence[Reading] = ()
    """The parsing results of its votes."""


def judge_rows(engine: Any, rows: Iterable[Row], job: Job) -> Iterator[Result]:
    """Yield a result for each row, in order; raises UserError only if nothing can be judged at all."""
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
        pairs = _items(rows, CONTENTS, waiting, lambda fields: _pair(fields, job.folder))
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
    """Yield the judge's input for each row, or an error if the row is invalid, and queue the row in ``waiting``."""
    for row in rows:
        result = _checked(row, texts)
        waiting.append((row, result))
        yield InvalidPair(result.line["error"]) if "error" in result.line else read(row.fields)


def _pair(fields: dict[str, Any], folder: Path) -> PairToJudge:
    contents, images = _shown(fields, [fields[name] for name in CONTENTS], folder)
    return PairToJudge(contents[0], images, contents[1], contents[2], fields.get("criteria"))


def _group(fields: dict[str, Any], folder: Path) -> Group:
    given = fields["responses"]
    responses = list(given) if isinstance(given, list | tuple) else []
    (question, *shown), images = _shown(fields, [fields["question"], *responses], folder)
    return Group(question, images, shown if responses else given, fields.get("criteria"))


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
        best = _top_is_best(judged.rewards, row.fields.get("ranking"))
        return Result({"id": name, **_reward_fields(judged.rewards), **counts, "top_is_best": best}, readings=readings)
    return Result({"id": name, **_verdict_fields(judged)}, readings=readings)


def _verdict_fields(verdict: Verdict) -> dict[str, Any]:
    names = ("preferred", "probability", "for_1", "for_2", "ties", "unreadable", "flips", "tokens", "truncated")
    return {name: getattr(verdict, name) for name in names}


def _reward_fields(rewards: list[float | None]) -> dict[str, Any]:
    known = [(-reward, number) for number, reward in enumerate(rewards) if reward is not None]
    return {"rewards": rewards, "order": [number for _, number in sorted(known)]}


def _top_is_best(rewards: Sequence[float | None], ranking: Sequence[int] | None) -> float | None:
    """Return the share, in [0, 1], of the responses with the highest reward that have the best rank."""
    known = [(reward, rank) for reward, rank in zip(rewards, ranking or (), strict=False) if reward is not None]
    if not known or not ranking:
        return None
    highest = max(reward for reward, _ in known)
    ranks = [rank for reward, rank in known if reward == highest]
    return ranks.count(min(ranking)) / len(ranks)


def _checked(row: Row, texts: Sequence[str]) -> Result:
    """Return a line with the row's id, and an error if the row cannot be shown to a judge."""
    given = row.fields.get("id")
    if row.problem is not None:
        return _failed(row, row.problem, None)
    if isinstance(given, bool) or not isinstance(given, (str, int, type(None))):
        return _failed(row, "id: must be a string or an integer.", None)
    name = None if given is None else _printable(str(given))
    video = row.fields.get("video")
    if not isinstance(video, (str, type(None))):
        return _failed(row, f"video: must be a path, not {kind_of(video)}.", name)
    contents = [row.fields.get(field) for field in texts]
    beside = () if video or any(map(_has_places, contents)) else ("images",)
    missing = [field for field in (*texts, *beside) if row.fields.get(field) is None]
    if missing:
        none = "; [] for none" if missing[0] == "images" else ""
        return _failed(row, f"{missing[0]}: is missing{none}.", name)
    if reason := _criteria_problem(row.fields.get("criteria")) or _ranking_problem(row.fields):
        return _failed(row, f"{reason}.", name)
    return Result({"id": name})


def _has_places(value: Any) -> bool:
    """Return whether a content, or any of a list of contents, contains images or videos."""
    values = value if isinstance(value, list) else ()
    return any(next(media_at(one, ""), None) for one in (value, *values))


def _criteria_problem(criteria: Any) -> str | None:
    if criteria is None or (isinstance(criteria, str) and not is_blank(criteria)):
        return None
    return "criteria: is blank" if isinstance(criteria, str) else f"criteria: must be text, not {kind_of(criteria)}"


def _ranking_problem(fields: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the ranking of a group; checked up front because it is only used after judging."""
    ranking, responses = fields.get("ranking"), fields.get("responses")
    if ranking is None or not isinstance(responses, list):
        return None
    if not isinstance(ranking, list) or not all(type(rank) is int and rank > 0 for rank in ranking):
        return "ranking: must be a list of positive integers, 1 for the best"
    if len(ranking) != len(responses):
        return f"ranking: has {len(ranking)} ranks for {len(responses)} responses"
    return None


def _failed(row: Row, reason: str | UserError, name: str | None) -> Result:
    unanswered = isinstance(reason, EngineError) and not isinstance(reason, InvalidPair | PromptTooLong)
    said = str(reason) if unanswered else f"{row.place}: {reason}"
    return Result({"id": name, "error": _printable(said)}, unanswered)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _shown(row: Mapping[str, Any], contents: list[Any], folder: Path) -> tuple[list[Any], Any]:
    """Return the contents with their images, and the images outside them, as paths or bytes, followed by the video.

    Invalid values are passed on, for the judge to reject.
    """
    cells, video = row.get("images"), row.get("video")
    cells = [] if cells is None else cells
    if not isinstance(cells, list):
        return contents, cells
    pictures = [_picture(cell, folder) for cell in cells]
    contents = [_with_own(content, folder) for content in contents]
    with suppress(ContentError):
        contents, pictures = fill_places(contents, pictures)
    return contents, [*pictures, Video(os.path.join(folder, video))] if video else pictures


def _with_own(content: Any, folder: Path) -> Any:
    try:
        return map_media(content, partial(_medium, folder=folder))
    except ContentError:
        return content


def _medium(place: Place, folder: Path) -> Any:
    if place.kind == "video" and isinstance(place.source, str):
        return os.path.join(folder, place.source)
    return _picture(place.source, folder)


def _picture(cell: Any, folder: Path) -> Any:
    if isinstance(cell, Mapping):  # embedded, from parquet
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    return os.path.join(folder, cell) if isinstance(cell, str) and kind_of_source(cell) == "path" else cell
