"""Settings of a benchmark run: what is judged, and everything that affects the verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from r1_reward.engines.options import EngineOptions
from r1_reward.judge.settings import JudgeSettings, WatchOptions, require_sampling
from r1_reward.records.settings import Settings

if TYPE_CHECKING:
    from r1_reward.judge.votes import Plan

Protocol: TypeAlias = Literal["both", "random", "stored", "preferred-first"]
"""Order protocols for benchmarks, explained in :data:`r1_reward.judge.votes.ORDERS`."""


Rule: TypeAlias = Literal["wrong", "drop", "coin"]
"""How an unreadable verdict counts, explained in :mod:`r1_reward.bench.metrics`."""


class RunSettings(JudgeSettings):
    """Settings that affect the verdicts of a run; a folder holds the run of one setting."""

    votes: int = Field(default=1, ge=1, description="Votes per row and pass; more than 1 needs a temperature.")
    orders: Protocol = Field(default="both", description="Which response is shown first; see docs/benchmarks.md.")
    temperature: float = Field(default=0.0, ge=0.0, allow_inf_nan=False, description="0 is greedy.")
    frames: int = Field(default=32, ge=1, description="Number of frames sampled from a video.")
    base_url: str | None = Field(
        default=None, description="Use the judge on an OpenAI-compatible server, such as http://HOST/v1."
    )

    @model_validator(mode="after")
    def _several_votes_differ(self) -> RunSettings:
        require_sampling(self.votes, self.temperature)
        return self

    def plan(self) -> Plan:
        """Return how the votes are drawn."""
        from r1_reward.judge.votes import Plan

        return Plan(self.votes, self.orders, self.temperature, None, self.max_new_tokens, self.seed)


class RunOptions(WatchOptions, EngineOptions):
    """Options for how the work is done; none of them affects a verdict."""


class SuiteRows(Settings):
    """Location and selection of the rows of a benchmark."""

    data: str | None = Field(
        default=None,
        description="JSONL, JSON, parquet file or folder, or Hub id; default: the benchmark on the Hub.",
    )
    image_root: Path | None = Field(
        default=None, description="Folder that image paths are relative to; default: the data's folder."
    )
    split: str | None = Field(default=None, description="Split of a folder or Hub dataset.")
    revision: str | None = Field(default=None, description="Revision of a Hub dataset.")
    allow_partial: bool = Field(default=False, description="Accept numbers of rows that differ from the official ones.")
    columns: tuple[str, ...] = Field(
        default=(),
        description="Rename a column, as NAME=THEIRS: THEIRS is its name in the file, NAME that in docs/protocols.md.",
    )
    max_images: int | None = Field(
        default=None, ge=1, description="Maximum images per row; default: 32, or as the benchmark needs."
    )
    ties: Literal["judge", "drop"] | None = Field(
        default=None, description="Judge or drop rows whose label is a tie; default: as the benchmark does."
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Only this many rows, evenly spaced; rows that are scored as one group count as one.",
    )

    @field_validator("columns")
    @classmethod
    def _name_both(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        for column in columns:
            name, equals, theirs = column.partition("=")
            if not (name and equals and theirs):
                raise ValueError(f"columns: {column!r} must be NAME=THEIRS, such as question=prompt.")
        return columns

    def options(self) -> dict[str, Any]:
        """Return the options of :func:`r1_reward.bench.suites.load_suite`."""
        columns = dict(column.split("=", maxsplit=1) for column in self.columns)
        return {**self.model_dump(exclude={"data"}), "columns": columns}
