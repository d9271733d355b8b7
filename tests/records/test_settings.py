"""Settings: errors are one UserError with a line each that names the field."""

from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings, Strict


class Part(Strict):
    path: str
    count: int | None = Field(default=None, ge=1)


class Whole(Settings):
    parts: dict[str, Part] = Field(default_factory=dict)
    votes: int = Field(default=1, ge=1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"votes": 0}, ["votes: must be 1 or more, not 0."]),
        ({"vote": 3}, ["unknown key 'vote'. Did you mean 'votes'?"]),
        ({"zzz": 3}, ["unknown key 'zzz'. Choose from parts, votes."]),
        ({"parts": {"path": {"path": "p", "cuont": 3}}}, ["unknown key 'parts.path.cuont'. Did you mean 'count'?"]),
        (
            {"parts": {"a": {"count": 0}}, "votes": "x"},
            [
                "'parts.a.path' is missing.",
                "parts.a.count: must be 1 or more, not 0.",
                "votes: must be a valid integer",
            ],
        ),
    ],
)
def test_every_error_is_a_line(values, said):
    with pytest.raises(UserError) as refused:
        Whole(**values)
    lines = str(refused.value).splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Whole().votes = 3
