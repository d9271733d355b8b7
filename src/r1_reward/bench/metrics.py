"""Numbers about judgments: accuracy with intervals, by position, flips, voting curves.

Everything here is pure and counts an unreadable judgment as wrong (and says how many there were). Each pair has one
row of judgments; the unit that is resampled for an interval is the pair, never the single judgment, because the two
orders of one pair are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np
from scipy import stats

from r1_reward.schema import Judgment


class Interval(NamedTuple):
    """A mean with the bounds of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def correctness(judgments: Sequence[Sequence[Judgment]], preferred: Sequence[int]) -> np.ndarray:
    """Return (pairs, votes) floats: 1 where a judgment names the preferred response, 0 where not or unreadable."""
    return np.array([[float(j.answer == label) for j in row] for row, label in zip(judgments, preferred, strict=True)])


def mean_interval(values: np.ndarray, *, seed: int = 0, resamples: int = 5000) -> Interval:
    """Return the mean of (n,) values, one a pair, with its 95 % percentile bootstrap interval.

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0:
        raise ValueError("no values to average")
    mean = float(values.mean())
    if values.size == 1 or np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed), batch=100
    )
    return Interval(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def accuracy(judgments: Sequence[Sequence[Judgment]], preferred: Sequence[int], *, seed: int = 0) -> Interval:
    """Return the share of right judgments; the mean over a pair's judgments first, then over pairs."""
    return mean_interval(correctness(judgments, preferred).mean(axis=1), seed=seed)


def paired_difference(
    after: Sequence[Sequence[Judgment]],
    before: Sequence[Sequence[Judgment]],
    preferred: Sequence[int],
    *,
    seed: int = 0,
) -> Interval:
    """Return accuracy after minus accuracy before on the same pairs, resampling pairs."""
    difference = correctness(after, preferred).mean(axis=1) - correctness(before, preferred).mean(axis=1)
    return mean_interval(difference, seed=seed)


def accuracy_by_position(judgments: Sequence[Sequence[Judgment]], preferred: Sequence[int]) -> dict[str, float]:
    """Return accuracy where the preferred response was shown first, and where it was shown second."""
    right: dict[str, list[bool]] = {"first": [], "second": []}
    for row, label in zip(judgments, preferred, strict=True):
        for judgment in row:
            shown_first = (label == 1) != judgment.swapped
            right["first" if shown_first else "second"].append(judgment.answer == label)
    return {position: float(np.mean(values)) for position, values in right.items() if values}


def flip_rate(judgments: Sequence[Sequence[Judgment]]) -> float | None:
    """Return the share of pairs, judged readably in both orders, whose two verdicts differ; None without such pairs."""
    flips = []
    for row in judgments:
        verdicts = {judgment.swapped: judgment.answer for judgment in row}
        if len(verdicts) == 2 and None not in verdicts.values():
            flips.append(verdicts[False] != verdicts[True])
    return float(np.mean(flips)) if flips else None


def parse_rate(judgments: Sequence[Sequence[Judgment]]) -> float:
    """Return the share of judgments that hold a readable answer."""
    return float(np.mean([judgment.answer is not None for row in judgments for judgment in row]))


def mean_tokens(judgments: Sequence[Sequence[Judgment]]) -> float:
    """Return the mean number of generated tokens."""
    return float(np.mean([judgment.tokens for row in judgments for judgment in row]))


def majority_at_k(right: int, wrong: int, unreadable: int, k: int) -> float:
    """Return the chance that k of these votes, drawn without replacement, have a majority for the right answer.

    The expectation over all k-subsets in closed form. Unreadable votes are no votes; a tie counts one half, as a coin
    would decide it, but a subset without any readable vote has no verdict and counts as wrong.
    """
    total = comb(right + wrong + unreadable, k)
    if total == 0:
        raise ValueError(f"cannot draw {k} of {right + wrong + unreadable} votes")
    won = 0.0
    for r in range(min(right, k) + 1):
        for w in range(min(wrong, k - r) + 1):
            ways = comb(right, r) * comb(wrong, w) * comb(unreadable, k - r - w)
            if r > w:
                won += ways
            elif r == w and r > 0:
                won += ways / 2
    return won / total


def any_at_k(right: int, votes: int, k: int) -> float:
    """Return the chance that at least one of k votes, drawn without replacement from ``votes``, is right."""
    if k > votes:
        raise ValueError(f"cannot draw {k} of {votes} votes")
    return 1.0 - comb(votes - right, k) / comb(votes, k)


def voting_curve(
    judgments: Sequence[Sequence[Judgment]], preferred: Sequence[int], *, seed: int = 0
) -> dict[str, list[Interval]]:
    """Return majority@k and any@k for k = 1..votes, each the mean over pairs with its interval."""
    counts = []
    for row, label in zip(judgments, preferred, strict=True):
        right = sum(j.answer == label for j in row)
        unreadable = sum(j.answer is None for j in row)
        counts.append((right, len(row) - right - unreadable, unreadable))
    votes = min(len(row) for row in judgments)
    return {
        "majority": [
            mean_interval(np.array([majority_at_k(*count, k) for count in counts]), seed=seed)
            for k in range(1, votes + 1)
        ],
        "any": [
            mean_interval(
                np.array([any_at_k(right, right + wrong + none, k) for right, wrong, none in counts]), seed=seed
            )
            for k in range(1, votes + 1)
        ],
    }
