"""Options that come from the fields of settings: what a command takes, what it refuses, what reaches it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import Field, model_validator
from typer.testing import CliRunner

from r1_reward.cli.options import Fields, Partial, with_settings
from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings


class Sampling(Settings):
    name: str = Field(description="What it is called.")
    votes: int = Field(default=1, gt=0, le=9, description="Votes a row.")
    share: float = Field(default=0.5, ge=0, lt=1, description="A share.")
    rule: Literal["wrong", "drop"] | None = Field(default=None, description="A rule.")
    greedy: bool = Field(default=False, description="Be greedy.")
    both: bool = Field(default=True, description="Both orders.")
    folder: Path = Field(default=Path("out"), description="A folder.")
    servers: tuple[str, ...] = Field(default=(), description="Servers.")
    rates: tuple[float, ...] = Field(default=(0.5, 1.0), description="Rates.")
    secret: int = Field(default=7, description="No option.")

    @model_validator(mode="after")
    def _greedy_alone(self) -> Sampling:
        if self.greedy and self.votes > 1:
            raise ValueError("--greedy: is for one vote.")
        return self


class Speed(Settings):
    batch: int = Field(default=64, ge=1, description="Rows at once.")
    rest: int = Field(default=1, description="Not shown.")


class Warm(Settings):
    rates: tuple[float, ...] = Field(default=(0.5, 1.0), description="Rates.")
    both: bool = Field(default=True, description="Both.")

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given):
        return {**given, "rates": tuple(map(float, given["rates"].split(",")))}


SHOWN = Fields(names={"servers": "--server URL", "both": "/--one-order"}, without=("secret", "rates"))


def invoke(*arguments):
    got = []

    @with_settings
    def command(
        file: Annotated[Path, typer.Argument()],
        sampling: Annotated[Partial[Sampling], SHOWN],
        speed: Annotated[Speed, Fields(only=("batch",))],
        as_json: Annotated[bool, typer.Option("--json")] = False,
    ) -> None:
        """Do it."""
        got.extend([file, sampling(secret=8), speed, as_json])

    app = typer.Typer(add_completion=False)
    app.command()(command)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}), got


def test_defaults_are_those_of_the_fields():
    result, got = invoke("f", "--name", "n")
    assert result.exit_code == 0, result.output
    assert got == [Path("f"), Sampling(name="n", secret=8), Speed(), False]


def test_every_kind_of_option_reaches_its_settings():
    result, (_, sampling, speed, as_json) = invoke(
        "f", "--name", "n", "--votes", "9", "--share", "0", "--rule", "drop", "--one-order", "--folder", "x",
        "--server", "a", "--server", "b", "--batch", "2", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert sampling == Sampling(
        name="n", votes=9, share=0, rule="drop", both=False, folder=Path("x"), servers=("a", "b"), secret=8
    )
    assert (speed, as_json) == (Speed(batch=2), True)
    assert invoke("f", "--name", "n", "--greedy")[1][1].greedy


def test_help_shows_what_the_fields_say():
    text = invoke("--help")[0].output
    for said in ("What it is called.", "[required]", "1<=x<=9", "[default: 0.5", "<wrong|drop>", "URL", "--one-order"):
        assert said in text
    assert not any(hidden in text for hidden in ("--secret", "--rest", "--rates", "--no-greedy", "--both"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["f"], "--name"),
        (["f", "--name", "n", "--votes", "0"], "--votes"),
        (["f", "--name", "n", "--votes", "many"], "--votes"),
        (["f", "--name", "n", "--share", "-0.1"], "--share"),
        (["f", "--name", "n", "--rule", "coin"], "'drop'"),
        (["f", "--name", "n", "--vote", "3"], "--votes"),  # the nearest right name
        (["f", "--name", "n", "--secret", "3"], "No such option"),
    ],
)
def test_what_typer_can_check_ends_with_code_2(arguments, said):
    result, got = invoke(*arguments)
    assert (result.exit_code, got) == (2, [])
    assert said in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--share", "1"), "--share: must be less than 1, not 1.0."), (("--greedy", "--votes", "2"), "--greedy: is for")],
)
def test_what_only_the_settings_can_check_names_the_option(arguments, said):
    result, _ = invoke("f", "--name", "n", *arguments)
    assert isinstance(result.exception, UserError)
    assert said in str(result.exception)


def test_a_tuple_may_be_one_text_and_true_may_be_denied():
    got = []

    @with_settings
    def command(warm: Annotated[Warm, Fields(joined=("rates",))]) -> None:
        got.append(warm)

    app = typer.Typer()
    app.command()(command)
    for arguments in ([], ["--rates", "0,2", "--no-both"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    assert [(one.rates, one.both) for one in got] == [((0.5, 1.0), True), ((0.0, 2.0), False)]


def test_two_settings_with_one_option_are_a_mistake_of_the_programs():
    with pytest.raises(ValueError, match="duplicate"):

        @with_settings
        def command(one: Speed, other: Speed) -> None:
            """Nothing."""
