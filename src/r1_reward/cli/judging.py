"""Shared parts of the commands that judge: common options, and loading a reward model from settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from r1_reward.cli.options import Fields
from r1_reward.engines.options import EngineOptions, draw_fields, require_one_place
from r1_reward.judge.settings import JudgeSettings
from r1_reward.models.quiet import quiet_libraries
from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings

if TYPE_CHECKING:
    from r1_reward.judge.reward_model import RewardModel

Model = TypeVar("Model", bound=Settings)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Resume = Annotated[bool, typer.Option("--resume", help="Accepted but not needed: a run always resumes.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames shown of each video; default: as in training, else 8.")]
OneProcess = Annotated[EngineOptions, Fields(without=("workers",))]


def with_frames(settings: Model, asked: int | None, checkpoint: str | None, default: int | None = None) -> Model:
    """Return the settings with the number of frames per video; see :func:`frames_to_show`."""
    return settings.model_copy(update={"frames": frames_to_show(asked, checkpoint, default)})


def frames_to_show(asked: int | None, checkpoint: str | None, default: int | None = None) -> int:
    """Return how many frames of a video to show: the requested number, else that of the checkpoint's training."""
    from r1_reward.models.checkpoint import video_frames_of_checkpoint
    from r1_reward.records.schema import FRAMES

    own = video_frames_of_checkpoint(checkpoint) if asked is None and checkpoint is not None else None
    return asked or own or default or FRAMES


def load_judge(
    judge: JudgeSettings, engine: EngineOptions, frames: int | None = None, *, pixels: str = "--max-pixels"
) -> RewardModel:
    """Return the reward model given by the options: a checkpoint in this process, or one behind a server.

    Raises:
        UserError: It cannot be loaded, or ``pixels``, the option that scales pictures, is given for a server.
    """
    from r1_reward.judge.reward_model import RewardModel

    options: dict[str, Any] = {
        "max_new_tokens": judge.max_new_tokens,
        "seed": judge.seed,
        "video_frames": frames,
        "dialect": judge.dialect,
    }
    require_one_place(judge.engine, engine.base_url, engine_args=engine.engine_args)
    if engine.base_url:
        if judge.max_pixels is not None:
            raise UserError(f"{pixels}: the server sets this; remove it with --base-url.")
        options |= {"concurrency": engine.concurrency, "batch_votes": engine.batch_votes}
        return RewardModel.from_server(engine.base_url, judge.model, **options)
    draw_fields(engine.batch_votes, 1, served=False)
    quiet_libraries()
    options |= {"batch_size": engine.batch_size, "max_pixels": judge.max_pixels}
    return RewardModel.from_pretrained(judge.model, engine=judge.engine, engine_args=engine.engine_args, **options)
