"""From comparisons to scores of the candidates: Bradley-Terry scores with standard errors, and net win rates.

>>> played = [Comparison(0, 1, 1.0), Comparison(1, 2, 1.0)]
>>> scores, _ = bradley_terry(3, played)
>>> scores[0] > scores[1] > scores[2]
True
>>> net_win_rates(3, played)                # 0 and 2 were not compared: the scores decide
[0.95..., 0.0, -0.95...]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit

from r1_reward.records.errors import UserError

PRIOR_SD = 3.0
"""Standard deviation, in logits, of the Gaussian prior on each score: weak, but it keeps unbeaten candidates finite."""

_NEWTON_STEPS = 100  # it takes about ten


class Comparison(NamedTuple):
    """The judge's verdict on two candidates, given by their indices."""

    first: int
    second: int
    probability: float | None
    """The probability that ``first`` is better, in [0, 1]; None if the judge gave no readable verdict."""


def bradley_terry(n: int, comparisons: Iterable[Comparison]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the scores of n candidates, in logits with mean 0, and their standard errors.

    The scores s maximize ``sum p log sigmoid(s_i - s_j) + (1 - p) log sigmoid(s_j - s_i) - sum s_i^2 / (2 sd^2)`` over
    the comparisons that have a probability p: Bradley and Terry's likelihood with a Gaussian prior of standard
    deviation :data:`PRIOR_SD`. The errors come from the inverse of the observed information, prior included, for
    s minus its mean; each comparison counts as one observation, however certain its p. Candidates without comparisons
    score 0 with the prior's error.

    Raises:
        UserError: there are no candidates.
        ValueError: a comparison is not between two of the n candidates, or its probability is not in [0, 1].
    """
    require_candidates(n)
    scores, covariance = posterior(n, list(comparisons))
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return tuple(scores.tolist()), tuple(errors.tolist())


def net_win_rates(n: int, comparisons: Iterable[Comparison]) -> list[float | None]:
    """Return the mean of 2 P(win) - 1 over the others for each of n candidates, in [-1, 1]; None if there is no data.

    P is the judge's for candidates that were compared. For others (not every schedule compares all pairs), it comes
    from the :func:`bradley_terry` scores, since a mean over the opponents met would depend on which ones they were.
    Unreadable comparisons are left out of the mean, and so are candidates without a readable comparison. If all pairs
    are compared, no scores are computed.

    >>> net_win_rates(3, [Comparison(0, 1, 0.75), Comparison(0, 2, None)])
    [0.5, -0.5, None]
    """
    played = list(comparisons)
    margins: list[list[float]] = [[] for _ in range(n)]
    for first, second, probability in played:
        if probability is not None:
            margins[first].append(2 * probability - 1)
            margins[second].append(1 - 2 * probability)
    met = {frozenset(one[:2]) for one in played}
    known = [number for number in range(n) if margins[number]]
    unmet = [(i, j) for place, i in enumerate(known) for j in known[place + 1 :] if frozenset((i, j)) not in met]
    if unmet:
        scores, _ = bradley_terry(n, played)
        for i, j in unmet:
            margin = 2 * float(expit(scores[i] - scores[j])) - 1
            margins[i].append(margin)
            margins[j].append(-margin)
    return [sum(own) / len(own) if own else None for own in margins]


def posterior(n: int, comparisons: Sequence[Comparison]) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n,) most probable scores and the (n, n) covariance of scores minus mean, by Newton's method."""
    for one in comparisons:
        check_comparison(n, one)
    readable = [one for one in comparisons if one.probability is not None]
    first, second = (np.array([one[side] for one in readable], dtype=int) for side in (0, 1))
    p = np.array([one.probability for one in readable], dtype=float)

    def log_posterior(scores: np.ndarray) -> float:
        gap = scores[first] - scores[second]
        return float(p @ log_expit(gap) + (1 - p) @ log_expit(-gap) - scores @ scores / (2 * PRIOR_SD**2))

    def information(scores: np.ndarray) -> np.ndarray:
        weight = bernoulli_variance(scores[first] - scores[second])
        matrix = np.eye(n) / PRIOR_SD**2
        for row, column, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
            np.add.at(matrix, (row, column), sign * weight)
        return matrix

    scores = np.zeros(n)
    for _ in range(_NEWTON_STEPS):
        residual = p - expit(scores[first] - scores[second])
        gradient = np.bincount(first, residual, n) - np.bincount(second, residual, n) - scores / PRIOR_SD**2
        step = np.linalg.solve(information(scores), gradient)
        before = log_posterior(scores)
        # A full step may overshoot far from the maximum; the objective is concave, so a shorter step will not.
        while np.abs(step).max() > 1e-6 and log_posterior(scores + step) < before:
            step /= 2
        scores = scores + step
        if np.abs(step).max() < 1e-9:
            break
    # The mean always has the prior's variance: comparisons only depend on differences.
    return scores, np.linalg.inv(information(scores)) - PRIOR_SD**2 / n


def bernoulli_variance(gap: np.ndarray) -> np.ndarray:
    """Return q (1 - q) for the win probability q of a gap between two scores, in logits."""
    return expit(gap) * expit(-gap)


def check_comparison(n: int, one: Comparison) -> None:
    """Raise ValueError if a comparison is not between two of n candidates, or its probability is not in [0, 1]."""
    if not 0 <= one.first < n or not 0 <= one.second < n or one.first == one.second:
        raise ValueError(f"{one} does not compare two of {n} candidates")
    if one.probability is not None and not 0 <= one.probability <= 1:
        raise ValueError(f"{one}: the probability is not in [0, 1]")


def require_candidates(n: int) -> None:
    """Raise UserError if there is nothing to compare."""
    if n < 1:
        raise UserError("there are no candidates to compare; pass at least one.")
