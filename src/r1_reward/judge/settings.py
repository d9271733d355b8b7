"""Settings of a judge: which model, the length and seed of its texts, and how its votes are drawn.

Commands and settings files build on these, so that an option means the same wherever a model judges.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from r1_reward.engines.options import TRANSFORMERS, EngineName
from r1_reward.records.dialects import AUTO, find_dialect
from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings

Stop: TypeAlias = Literal["exact", "sequential"]
ScheduleName: TypeAlias = Literal["round-robin", "circular", "bracket", "adaptive"]
OnUnreadable: TypeAlias = Literal["stop", "warn"]


DIALECT_HELP = "The judge's prompt and answer format, see docs/dialects.md; auto goes by the model's name."


def _known(dialect: str) -> str:
    if dialect != AUTO:
        try:
            find_dialect(dialect)
        except UserError as error:
            raise ValueError(str(error)) from error
    return dialect


DialectName: TypeAlias = Annotated[str, AfterValidator(_known)]


class Generation(Settings):
    """What decides a generated text besides the prompt."""

    max_new_tokens: int = Field(default=1024, ge=1, description="Longest judgment, in tokens.")
    seed: int = Field(default=0, ge=0, description="Seed of orders and sampling.")


class JudgeSettings(Generation):
    """Which model judges, and how large it sees pictures."""

    model: str = Field(description="A checkpoint folder or Hub id; with --base-url the server's model name.")
    max_pixels: int | None = Field(
        default=None, ge=1, description="Scale larger images down for the model (the paper: 501760)."
    )
    dialect: DialectName = Field(default=AUTO, description=DIALECT_HELP)
    engine: EngineName = Field(
        default=TRANSFORMERS, description="The software that runs a checkpoint, see docs/reward_model.md."
    )


class WatchOptions(Settings):
    """What to do about an unreadable judge, see :mod:`r1_reward.judge.unreadable`; it changes no verdict."""

    on_unreadable: OnUnreadable = Field(
        default="stop",
        description="If none of the first 50 answers can be read: stop, or warn and continue; both say why.",
    )


class VoteSettings(Settings):
    """How the votes on a pair are drawn."""

    votes: int = Field(default=1, ge=1, description="Votes for each order shown.")
    both_orders: bool = Field(
        default=True,
        description="Show each response first equally often, or (--one-order) in one order drawn from the content.",
    )
    temperature: float | None = Field(
        default=None, ge=0.0, allow_inf_nan=False, description="0 is greedy; default 0 for one vote, 1 for several."
    )
    stop: Stop | None = Field(
        default=None, description="Skip votes that cannot (exact), or hardly ever (sequential), change the verdict."
    )

    @model_validator(mode="after")
    def _several_votes_differ(self) -> VoteSettings:
        require_sampling(self.votes, self.temperature)
        return self


class GroupSettings(Settings):
    """Which responses to a question are compared with each other, see :mod:`r1_reward.judge.schedules`."""

    schedule: ScheduleName = Field(
        default="round-robin",
        description="Which responses of a group are compared: all pairs, N in a circle, a knockout, the least certain.",
    )
    comparisons: int | None = Field(
        default=None, ge=1, description="With adaptive: most comparisons per group; default twice its responses."
    )

    @field_validator("comparisons")
    @classmethod
    def _only_adaptive_has_a_budget(cls, comparisons: int | None, others: ValidationInfo) -> int | None:
        if "schedule" in others.data:
            require_budgeted(others.data["schedule"], comparisons)
        return comparisons


def require_budgeted(schedule: ScheduleName, comparisons: int | None) -> None:
    """Raise ValueError if a number of comparisons is given for a schedule with a fixed number."""
    if comparisons is not None and schedule != "adaptive":
        raise ValueError(
            f"the schedule {schedule} has a fixed number of them; leave this out, or choose the schedule adaptive."
        )


def require_sampling(votes: int, temperature: float | None) -> None:
    """Raise ValueError if all votes would be the same."""
    if votes > 1 and temperature == 0:
        raise ValueError(
            f"votes: {votes} greedy votes are the same vote {votes} times; "
            "set a temperature (such as 1.0) or draw a single vote."
        )
