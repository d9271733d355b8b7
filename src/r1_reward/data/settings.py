"""Settings of the commands that run a model on pairs: annotation by a teacher and pass rates of a student."""

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
    """Settings that determine the teacher's requests; a folder holds the run of one setting."""

    teacher: str = Field(description="openai:MODEL, server:MODEL@URL, or a checkpoint.")
    attempts: int = Field(default=3, ge=1, description="Attempts per row until the teacher agrees.")
    temperatures: tuple[float, ...] = Field(default=(0.0, 0.7, 1.0), description="One per attempt; 0 is greedy.")
    reorder: bool = Field(default=False, description="Show the responses in random order from attempt 2 on.")
    frames: int = Field(default=FRAMES, ge=1, description="Number of frames sampled from a video.")
    dialect: DialectName = Field(default=AUTO, description=DIALECT_HELP)

    @field_validator("temperatures", mode="before")
    @classmethod
    def _separated(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        try:
            return tuple(float(part) for part in given.split(","))
        except ValueError:
            raise ValueError(f"must be comma-separated numbers, such as 0,0.7,1.0, not {given!r}.") from None

    @model_validator(mode="after")
    def _one_for_each(self) -> AnnotateSettings:
        if len(self.temperatures) < self.attempts or any(not t >= 0 for t in self.temperatures):
            given = ", ".join(f"{t:g}" for t in self.temperatures)
            raise ValueError(f"temperatures {given}: need one (0 or higher) for each of the {self.attempts} attempts.")
        return self

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON, without the server's address: a run can continue on another server."""
        from r1_reward.data.teacher import parse_teacher

        teacher = parse_teacher(self.teacher)
        spoken = dialect_fields(self.dialect, teacher.model, served=teacher.url is not None)
        return {**self.model_dump(mode="json", exclude={"dialect"}), **spoken, "teacher": teacher.name}

    def spoken(self) -> Dialect:
        """Return the teacher's dialect."""
        from r1_reward.data.teacher import parse_teacher

        teacher = parse_teacher(self.teacher)
        return chosen_dialect(self.dialect, teacher.model, served=teacher.url is not None)


class TeacherOptions(WatchOptions):
    """Options for the speed of annotation; none of them affects a verdict."""

    concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Maximum concurrent requests to the server; default adapts to the server, up to 64.",
    )
    requests_per_minute: float | None = Field(default=None, ge=0.01, description="Maximum requests per minute.")
    timeout: float = Field(default=120.0, ge=0.01, description="Timeout of one request, in seconds.")
    retries: int = Field(default=5, ge=0, description="Number of retries after a failed request.")
    batch_size: int = Field(default=64, ge=1, description="Sequences that a local checkpoint generates at once.")


class Money(Settings):
    """Prices per million tokens, in any currency, and a budget for the folder that includes earlier calls."""

    price_in: float | None = Field(default=None, ge=0.0, description="Price per million prompt tokens.")
    price_out: float | None = Field(default=None, ge=0.0, description="Price per million generated tokens.")
    limit: float | None = Field(default=None, gt=0, description="Stop before the folder's total cost exceeds this.")

    @model_validator(mode="after")
    def _complete(self) -> Money:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("prices: give both --price-in and --price-out, per million tokens.")
        if self.limit is not None and self.price_in is None:
            raise ValueError("--max-cost needs --price-in and --price-out.")
        return self

    def cost(self, usage: Usage) -> float | None:
        """Return the cost of all replies, None without prices; a lower bound if some tokens were not counted."""
        if self.price_in is None or self.price_out is None:
            return None
        from r1_reward.engines.usage import cost

        return cost(usage.prompt_tokens, usage.tokens, self.price_in, self.price_out)


class PassRates(Generation):
    """Settings of a model's pass rates, and the range of pass rates selected for reinforcement learning."""

    model: str = Field(description="Checkpoint, or server:MODEL@URL, whose pass rates replace attempts.")
    samples: int = Field(default=8, ge=1, description="Judgments sampled per row.")
    lowest: float = Field(default=0.0, ge=0.0, le=1.0, description="Exclude rows with a lower pass rate.")
    highest: float = Field(default=0.99, ge=0.0, le=1.0, description="Exclude rows with a higher pass rate.")
    temperature: float = Field(default=1.0, ge=0.0, allow_inf_nan=False, description="Sampling temperature.")
    frames: int = Field(default=FRAMES, ge=1, description="Number of frames sampled from a video.")
    batch_votes: bool = Field(
        default=False,
        description="Request all samples of an order from a server at once: faster, but the samples differ.",
    )

    @model_validator(mode="after")
    def _measurable(self) -> PassRates:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} greedy samples are all identical; set a temperature such as 1.0.")
        if self.lowest > self.highest:
            raise ValueError(f"pass rates: the lowest ({self.lowest:g}) is above the highest ({self.highest:g}).")
        return self
