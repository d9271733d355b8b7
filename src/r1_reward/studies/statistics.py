"""Statistics of differences and rates, over pairs judged by two models and over the seeds of two arms.

Two models of one run are compared by pairs, which :func:`paired_difference` resamples. Arms of a study are compared by
seeds: accuracy gets a t interval, a collapse rate the exact Clopper-Pearson interval, a difference a paired t interval,
two rates Fisher's exact test, and a power analysis shows what could have been detected::

    mean_over_seeds([0.70, 0.74, 0.78])      # Interval(mean=0.74, low=0.64..., high=0.84...)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from r1_reward.judge.metrics import Interval, correctness, mean_interval
from r1_reward.records.schema import Judgment


def paired_difference(
    after: Sequence[Sequence[Judgment]],
    before: Sequence[Sequence[Judgment]],
    preferred: Sequence[int],
    *,
    seed: int = 0,
) -> Interval:
    """Return accuracy after minus accuracy before on the same pairs, with its 95 % bootstrap interval over pairs."""
    difference = correctness(after, preferred).mean(axis=1) - correctness(before, preferred).mean(axis=1)
    return mean_interval(difference, seed=seed)


def share_over_seeds(shares: Sequence[float]) -> Interval:
    """Return the mean of shares with its 95 % t interval, clipped to [0, 1]; the bounds are NaN for a single seed."""
    mean, low, high = mean_over_seeds(shares)
    return Interval(mean, float(np.maximum(low, 0.0)), float(np.minimum(high, 1.0)))


def mean_over_seeds(values: Sequence[float]) -> Interval:
    """Return the mean with its 95 % t interval; the bounds are NaN for a single seed."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if array.size < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.975, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size))
    return Interval(mean, mean - half, mean + half)


def rate(count: int, n: int) -> Interval:
    """Return a share with its exact 95 % interval (Clopper-Pearson)."""
    interval = stats.binomtest(count, n).proportion_ci(confidence_level=0.95, method="exact")
    return Interval(count / n, float(interval.low), float(interval.high))


def fisher(count_a: int, count_b: int, n_a: int, n_b: int) -> float:
    """Return the two-sided p-value for the equality of two shares."""
    return float(stats.fisher_exact([[count_a, n_a - count_a], [count_b, n_b - count_b]]).pvalue)


class DetectableRates(NamedTuple):
    """Collapse rates in [0, 1] that would be told from the reference's; None on a side where none would be."""

    at_most: float | None
    at_least: float | None


def detectable_rates(n: int, base: int = 0, *, power: float = 0.8, level: float = 0.05) -> DetectableRates:
    """Return the collapse rates that ``n`` seeds per arm would distinguish from ``base`` of n with that power.

    The rates are the largest below and the smallest above the reference's. Exact, by enumeration, in steps of 0.01.
    """
    significant = np.array([fisher(base, count, n, n) < level for count in range(n + 1)])
    rates = [
        percent / 100
        for percent in range(101)
        if stats.binom.pmf(np.arange(n + 1), n, percent / 100)[significant].sum() >= power
    ]
    below, above = [rate for rate in rates if rate * n < base], [rate for rate in rates if rate * n > base]
    return DetectableRates(max(below, default=None), min(above, default=None))


def detectable_difference(differences: Sequence[float], *, power: float = 0.8, level: float = 0.05) -> float:
    """Return the smallest true difference that a paired t-test over these seeds would have distinguished from 0.

    The spread of the observed ``differences`` is taken as the true one. NaN for a single seed.
    """
    n = len(differences)
    if n < 2:
        return float("nan")
    standard_error = float(np.std(differences, ddof=1)) / np.sqrt(n)
    critical = stats.t.ppf(1 - level / 2, n - 1)
    # The power of a t-test is a tail of the noncentral t distribution; the other tail is negligible.
    shift = optimize.brentq(lambda shift: stats.nct.sf(critical, n - 1, shift) - power, 0.0, 100.0)
    return float(shift * standard_error)
