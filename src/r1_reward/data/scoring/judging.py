"""What a judge makes of rows: a line of the output for each, whatever is wrong with some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from r1_reward.data.scoring.rows import Kind, Row
from r1_reward.engines.in_process import EngineError
from r1_reward.judge.calibration import Calibration
from r1_reward.judge.candidates import Candidates, net_win_rates
from r1_reward.judge.ranking import Comparison
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.sampling import InvalidPair, PairToJudge, check_text, open_images
from r1_reward.judge.voting import Verdict
from r1_reward.records.checks import kind_of
from r1_reward.records.errors import UserError
from r1_reward.store.video import FRAMES, Video

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
            ("error", pa.string()),
        ]
    ),
    "groups": pa.schema(
        [
            ("id", pa.string()),
            ("rewards", pa.list_(pa.float64())),
            ("order", pa.list_(pa.int32())),
            ("error", pa.string()),
        ]
    ),
}
"""The columns of the output. All but ``id`` and ``error`` are null where there is an error."""


class ScoreSettings(BaseModel):
    """What decides the verdicts; an output holds one setting's and no other's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    votes: int = Field(default=1, ge=1)
    both_orders: bool = True
    temperature: float | None = Field(default=None, ge=0.0)
    stop: Literal["exact", "sequential"] | None = None
    max_new_tokens: int = Field(default=1024, ge=1)
    seed: int = Field(default=0, ge=0)
    max_pixels: int | None = Field(default=None, ge=1)
    frames: int = Field(default=FRAMES, ge=1)


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


def judge_block(engine: Any, rows: list[Row], job: Job) -> list[Result]:
    """Return a line for each row; raises UserError only if nothing can be judged at all."""
    settings = job.settings
    model = RewardModel(
        engine,
        max_new_tokens=settings.max_new_tokens,
        calibration=job.calibration,
        seed=settings.seed,
        video_frames=settings.frames,
    )
    options: dict[str, Any] = settings.model_dump(include={"votes", "both_orders", "temperature", "stop"})
    return (_judge_pairs if job.kind == "pairs" else _judge_groups)(model, rows, job.folder, options)


def _judge_pairs(model: RewardModel, rows: Sequence[Row], folder: Path, options: dict[str, Any]) -> list[Result]:
    results = [_checked(row, ("question", "response_1", "response_2")) for row in rows]
    fit = [place for place, result in enumerate(results) if "error" not in result.line]

    def items() -> Iterator[PairToJudge]:
        for place in fit:
            fields = rows[place].fields
            images = _pictures(fields, folder)
            yield PairToJudge(fields["question"], images, fields["response_1"], fields["response_2"])

    for place, verdict in zip(fit, model.compare_many(items(), **options), strict=True):
        if isinstance(verdict, EngineError):
            results[place] = _failed(rows[place], verdict, results[place].line["id"])
        else:
            results[place].line.update(_verdict_fields(verdict))
    return results


def _verdict_fields(verdict: Verdict) -> dict[str, Any]:
    names = ("preferred", "probability", "for_1", "for_2", "unreadable", "flips", "tokens")
    return {name: getattr(verdict, name) for name in names}


def _judge_groups(model: RewardModel, rows: Sequence[Row], folder: Path, options: dict[str, Any]) -> list[Result]:
    """Compare every two different responses of a group, those of all groups in one stream: full batches."""
    results = [_checked(row, ("question", "responses")) for row in rows]
    plans: list[tuple[int, Candidates, list[tuple[int, int]]]] = []

    def items() -> Iterator[PairToJudge]:
        for place, row in enumerate(rows):
            if "error" in results[place].line:
                continue
            question, responses = row.fields["question"], row.fields["responses"]
            try:
                check_text(question, "question")
                candidates = Candidates.of(responses)
                images = open_images(_pictures(row.fields, folder), video_frames=model.video_frames)
            except UserError as error:
                results[place] = _failed(row, error, results[place].line["id"])
                continue
            n = len(candidates.texts)
            pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
            plans.append((place, candidates, pairs))
            yield from (PairToJudge(question, images, candidates.texts[i], candidates.texts[j]) for i, j in pairs)

    compared = model.compare_many(items(), **options)
    # The texts of the votes are not kept.
    outcomes = iter([one if isinstance(one, EngineError) else one.probability for one in compared])
    for place, candidates, pairs in plans:
        own = [(pair, next(outcomes)) for pair in pairs]
        failure = next((one for _, one in own if isinstance(one, EngineError)), None)
        if failure is not None:
            results[place] = _failed(rows[place], failure, results[place].line["id"])
            continue
        played = [Comparison(*pair, one) for pair, one in own if not isinstance(one, EngineError)]
        rates = net_win_rates(len(candidates.texts), played)
        results[place].line.update(_reward_fields([rates[text] for text in candidates.places]))
    return results


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
    unanswered = isinstance(reason, EngineError) and not isinstance(reason, InvalidPair)
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
    return os.path.join(folder, cell) if isinstance(cell, str) else cell
