"""Rewards for trainers that do not support missing rewards: numbers only, or probabilities.

>>> filled([0.5, None, -0.5])
[0.5, -1.0, -0.5]
>>> as_probability(-1.0, "win_rate"), as_probability(0.0, "bradley_terry")
(0.0, 0.5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

WORST = -1.0
"""The lowest win rate."""


def filled(rewards: Sequence[float | None], worst: float | None = None) -> list[float]:
    """Return rewards with ``worst``, or the group's lowest reward if that is lower, in place of missing ones.

    By default ``worst`` is the lowest win rate. Never use 0: it equals the group's average, so the policy would learn
    to silence the judge. For only a part of a group, see :func:`worst_of`.
    """
    least = WORST if worst is None else worst
    lowest = min([least, *(reward for reward in rewards if reward is not None)])
    return [lowest if reward is None else reward for reward in rewards]


def worst_of(kind: str, worst: Any, option: str = "worst") -> float:
    """Return the reward of a sample that cannot be judged, where the other rewards of its group are not known.

    Bradley-Terry scores go below any fixed number, so without the user's choice, silencing the judge could pay better
    than a bad answer.

    Args:
        kind: The kind of the rewards.
        worst: The reward that the user has set; None is the lowest win rate.
        option: The name of that setting, for messages.

    Raises:
        ValueError: the setting is not a number, or is missing for rewards without a lower bound.
    """
    if worst is None:
        if kind != "win_rate":
            raise ValueError(
                f"rewards of kind {kind!r} have no lower bound; set {option} (a number such as -5) to the reward of "
                "responses that cannot be judged"
            )
        return WORST
    if isinstance(worst, bool) or not isinstance(worst, int | float) or not math.isfinite(worst):
        raise ValueError(f"{option} must be a number, not {worst!r}")
    return float(worst)


def as_probability(reward: float, kind: str) -> float:
    """Return a net win rate, or a Bradley-Terry score in logits, as a probability of winning."""
    return (reward + 1) / 2 if kind == "win_rate" else sigmoid(reward)


def sigmoid(logits: float) -> float:
    """Return a reward in logits as a probability, without overflow."""
    return 0.5 + 0.5 * math.tanh(logits / 2)
