"""Settings of judging a whole file."""

from __future__ import annotations

from pydantic import Field

from r1_reward.engines.options import EngineOptions
from r1_reward.judge.settings import GroupSettings, JudgeSettings, VoteSettings, WatchOptions
from r1_reward.records.schema import FRAMES


class ScoreSettings(GroupSettings, VoteSettings, JudgeSettings):
    """Settings that determine the verdicts; an output holds the verdicts of one setting."""

    frames: int = Field(default=FRAMES, ge=1, description="Number of frames sampled from a video.")


class ScoreOptions(WatchOptions, EngineOptions):
    """Options for how the work is done; none of them affects a verdict."""

    block_rows: int = Field(default=512, ge=1, description="Rows per block; a kill loses the blocks in progress.")
    ray: bool = Field(default=False, description="Run the workers on a Ray cluster (RAY_ADDRESS, or this machine).")
