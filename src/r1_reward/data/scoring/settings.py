"""Settings of judging a whole file."""

from __future__ import annotations

from pydantic import Field

from r1_reward.engines.options import EngineOptions
from r1_reward.judge.settings import GroupSettings, JudgeSettings, VoteSettings, WatchOptions
from r1_reward.records.schema import FRAMES


class ScoreSettings(GroupSettings, VoteSettings, JudgeSettings):
    """What decides the verdicts; an output holds one setting's and no other's."""

    frames: int = Field(default=FRAMES, ge=1, description="Frames shown of a video.")


class ScoreOptions(WatchOptions, EngineOptions):
    """How the work is done; nothing here decides a verdict."""

    block_rows: int = Field(default=512, ge=1, description="Rows kept together; a kill loses those under way.")
    ray: bool = Field(default=False, description="Run the workers on a Ray cluster (RAY_ADDRESS, or this machine).")
