"""Settings of a benchmark run: what is judged, and everything that decides the verdicts."""

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
"""Orders that benchmarks are judged in; :data:`r1_reward.judge.votes.ORDERS` says what they are."""


Rule: TypeAlias = Literal["wrong", "drop", "coin"]
"""What an unreadable verdict counts as; :mod:`r1_reward.bench.metrics` says it in full."""


class RunSettings(JudgeSettings):
    """What decides the verdicts of a run; a folder holds one setting's run and no other's."""

    votes: int = Field(default=1, ge=1, description="Votes per row and pass; more than 1 needs a temperature.")
    orders: Protocol = Field(default="both", description="Which response is shown first; see docs/benchmarks.md.")
    temperature: float = Field(default=0.0, ge=0.0, allow_inf_nan=False, description="0 is greedy.")
    frames: int = Field(default=32, ge=1, description="Frames shown of a video.")
    base_url: str | None = Field(
        default=None, description="Judge by an OpenAI-compatible server, such as http://HOST/v1."
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
    """How the work is done; nothing here decides a verdict."""


class SuiteRows(Settings):
    """Where the rows of a benchmark are."""

    data: str | None = Field(
        default=None,
        description="JSONL, JSON, parquet file or folder, or Hub id; default the benchmark on the Hub.",
    )
    image_root: Path | None = Field(
        default=None, description="What image paths are relative to; default the data's folder."
    )
    split: str | None = Field(default=None, description="Split of a folder or Hub dataset.")
    revision: str | None = Field(default=None, description="Revision of a Hub dataset.")
    allow_partial: bool = Field(default=False, description="Accept other numbers of rows than official.")
    columns: tuple[str, ...] = Field(
        default=(),
        description="What the file calls a column, as NAME=THEIRS; NAME is what docs/protocols.md calls it.",
    )
    max_images: int | None = Field(
        default=None, ge=1, description="Most pictures a row may show; default 32, or as the benchmark needs."
    )
    ties: Literal["judge", "drop"] | None = Field(
        default=None, description="Rows whose label is a tie: judge or drop; default as the benchmark does."
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
