"""Settings of the commands that have a model look at pairs: annotation by a teacher, pass rates of a student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from r1_reward.judge.settings import DIALECT_HELP, DialectName, Generation, WatchOptions
from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects import AUTO
from r1_reward.records.schema import FRAMES
from r1_reward.records.settings import Settings
from r1_reward.store.model_names import chosen_dialect, dialect_fields

if TYPE_CHECKING:
    from r1_reward.data.attempts_file import Usage


class AnnotateSettings(Generation):
    """What decides what the teacher is asked; a folder holds one setting's run and no other's."""

    teacher: str = Field(description="openai:MODEL, server:MODEL@URL, or a checkpoint.")
    attempts: int = Field(default=3, ge=1, description="Tries until the teacher agrees with the label.")
    temperatures: tuple[float, ...] = Field(default=(0.0, 0.7, 1.0), description="One for each try; 0 is greedy.")
    reorder: bool = Field(default=False, description="Later tries see the answers in random order.")
    frames: int = Field(default=FRAMES, ge=1, description="Frames shown of a video.")
    dialect: DialectName = Field(default=AUTO, description=DIALECT_HELP)

    @field_validator("temperatures", mode="before")
    @classmethod
    def _separated(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        try:
            return tuple(float(part) for part in given.split(","))
        except ValueError:
            raise ValueError(f"must be numbers with commas between them, such as 0,0.7,1.0, not {given!r}.") from None

    @model_validator(mode="after")
    def _one_for_each(self) -> AnnotateSettings:
        if len(self.temperatures) < self.attempts or any(not t >= 0 for t in self.temperatures):
            given = ", ".join(f"{t:g}" for t in self.temperatures)
            raise ValueError(f"temperatures {given}: give one, 0 or more, for each of the {self.attempts} attempts.")
        return self

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON; whether two runs are the same one does not depend on a server's address."""
        from r1_reward.data.teacher import parse_teacher

        teacher = parse_teacher(self.teacher)
        spoken = dialect_fields(self.dialect, teacher.model, served=teacher.url is not None)
        return {**self.model_dump(mode="json", exclude={"dialect"}), **spoken, "teacher": teacher.name}

    def spoken(self) -> Dialect:
        """Return how the teacher is asked and answers."""
        from r1_reward.data.teacher import parse_teacher

        teacher = parse_teacher(self.teacher)
        return chosen_dialect(self.dialect, teacher.model, served=teacher.url is not None)


class TeacherOptions(WatchOptions):
    """How fast a teacher is asked; nothing here decides a verdict."""

    concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Requests open at the server at once; default as many as it answers in time, up to 64.",
    )
    requests_per_minute: float | None = Field(default=None, ge=0.01, description="No more requests than these.")
    timeout: float = Field(default=120.0, ge=0.01, description="Seconds one request may take.")
    retries: int = Field(default=5, ge=0, description="How often a request that failed is repeated.")
    batch_size: int = Field(default=64, ge=1, description="Sequences a checkpoint in this process generates at once.")


class Money(Settings):
    """Prices per million tokens, in any currency, and how much may be spent on a folder, earlier calls included."""

    price_in: float | None = Field(default=None, ge=0.0, description="Price of a million tokens shown.")
    price_out: float | None = Field(default=None, ge=0.0, description="Price of a million tokens generated.")
    limit: float | None = Field(default=None, gt=0, description="Stop before the folder has cost more.")

    @model_validator(mode="after")
    def _complete(self) -> Money:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("prices: give both --price-in and --price-out, per million tokens.")
        if self.limit is not None and self.price_in is None:
            raise ValueError("--max-cost needs --price-in and --price-out.")
        return self

    def cost(self, usage: Usage) -> float | None:
        """Return what replies have cost, None without prices; a lower bound where tokens were not counted."""
        if self.price_in is None or self.price_out is None:
            return None
        from r1_reward.engines.usage import cost

        return cost(usage.prompt_tokens, usage.tokens, self.price_in, self.price_out)


class PassRates(Generation):
    """How often a model has to be right on a row for reinforcement learning to take it."""

    model: str = Field(description="A checkpoint, or server:MODEL@URL, whose pass rate decides instead of attempts.")
    samples: int = Field(default=8, ge=1, description="Judgements a row, for the pass rate.")
    lowest: float = Field(default=0.0, ge=0.0, le=1.0, description="Leave harder rows out.")
    highest: float = Field(default=0.99, ge=0.0, le=1.0, description="Leave easier rows out.")
    temperature: float = Field(default=1.0, ge=0.0, allow_inf_nan=False, description="For the samples.")
    frames: int = Field(default=FRAMES, ge=1, description="Frames shown of a video.")
    batch_votes: bool = Field(
        default=False,
        description="Ask a server for all samples of an order together; faster, and other ones are drawn.",
    )

    @model_validator(mode="after")
    def _measurable(self) -> PassRates:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} greedy samples are the same sample; set a temperature such as 1.0.")
        if self.lowest > self.highest:
            raise ValueError(f"pass rates from {self.lowest:g} to {self.highest:g}: must rise.")
        return self
