"""Rewards for trainers that do not support missing rewards: numbers only, or probabilities.

>>> filled([0.5, None, -0.5])
[0.5, -1.0, -0.5]
>>> as_probability(-1.0, "win_rate"), as_probability(0.0, "bradley_terry")
(0.0, 0.5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WORST = -1.0
"""The lowest win rate."""


def filled(rewards: Sequence[float | None], worst: float = WORST) -> list[float]:
    """Return rewards with ``worst``, or the group's lowest reward if that is lower, in place of missing ones.

    Never use 0: it equals the group's average, so the policy would learn to silence the judge.
    """
    lowest = min([worst, *(reward for reward in rewards if reward is not None)])
    return [lowest if reward is None else reward for reward in rewards]


def as_probability(reward: float, kind: str) -> float:
    """Return a net win rate, or a Bradley-Terry score in logits, as a probability of winning."""
    return (reward + 1) / 2 if kind == "win_rate" else sigmoid(reward)


def sigmoid(logits: float) -> float:
    """Return a reward in logits as a probability, without overflow."""
    return 0.5 + 0.5 * math.tanh(logits / 2)
