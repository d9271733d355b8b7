"""Metrics of judgments: accuracy with intervals, by position, flips, voting curves.

All functions are pure. Those on judgments count an unreadable one as wrong; each pair has one row of judgments, and
intervals resample pairs, never single judgments, because the two orders of one pair are not independent. The functions
on arrays below them resample clusters of rows (the pairs of one benchmark id share a question and an image) and serve
:mod:`r1_reward.bench.summary`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import comb
from typing import NamedTuple

import numpy as np
from scipy import stats

from r1_reward.judge.voting import majority
from r1_reward.records.schema import Judgment


class Interval(NamedTuple):
    """A mean with the bounds of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def correctness(judgments: Sequence[Sequence[Judgment]], preferred: Sequence[int]) -> np.ndarray:
    """Return (pairs, votes) floats: 1 if a judgment names the preferred response, 0 if not or if it is unreadable."""
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
    """Return the share of correct judgments: the mean over each pair's judgments, then over pairs."""
    return mean_interval(correctness(judgments, preferred).mean(axis=1), seed=seed)


def accuracy_by_position(judgments: Sequence[Sequence[Judgment]], preferred: Sequence[int]) -> dict[str, float]:
    """Return the accuracy with the preferred response shown first, and with it shown second."""
    right: dict[str, list[bool]] = {"first": [], "second": []}
    for row, label in zip(judgments, preferred, strict=True):
        for judgment in row:
            shown_first = (label == 1) != judgment.swapped
            right["first" if shown_first else "second"].append(judgment.answer == label)
    return {position: float(np.mean(values)) for position, values in right.items() if values}


def flip_rate(judgments: Sequence[Sequence[Judgment]]) -> float | None:
    """Return the share of pairs whose majority verdicts in the two orders differ; None if no pair has both.

    A pair counts if the readable votes in each order have a majority for one response.
    """
    flips = []
    for row in judgments:
        one, two = (majority([vote for vote in row if vote.swapped is swapped]).preferred for swapped in (False, True))
        if one is not None and two is not None:
            flips.append(one != two)
    return float(np.mean(flips)) if flips else None


def parse_rate(judgments: Sequence[Sequence[Judgment]]) -> float:
    """Return the share of judgments with a readable answer."""
    return float(np.mean([judgment.answer is not None for row in judgments for judgment in row]))


def mean_tokens(judgments: Sequence[Sequence[Judgment]]) -> float:
    """Return the mean number of generated tokens."""
    return float(np.mean([judgment.tokens for row in judgments for judgment in row]))


@lru_cache(maxsize=4096)
def _half_wins(right: int, wrong: int, third: int, tied: bool) -> tuple[int, ...]:
    """Return, for m = 0, 1, ..., the number of m-subsets of readable votes that win, times two, plus even splits."""
    halves = [0] * (right + wrong + third + 1)
    ways_wrong, ways_third = ([comb(votes, one) for one in range(votes + 1)] for votes in (wrong, third))
    for r in range(1, right + 1):
        ways, most = comb(right, r), r - tied
        for t in range(min(most, third) + 1):
            for w in range(min(most, wrong) + 1):
                halves[r + t + w] += ways * ways_third[t] * ways_wrong[w] * (2 if r > w else 1)
    return tuple(halves)


def majority_at_k(right: int, wrong: int, unreadable: int, k: int, third: int = 0, tied: bool = False) -> float:
    """Return the probability that k of these votes, drawn without replacement, have a majority for the right answer.

    It is the expectation over all k-subsets in closed form, counted in integers and therefore exact. Unreadable votes
    do not count; an even split counts one half, like a coin flip, but a subset without any readable vote has no verdict
    and counts as wrong. ``third`` counts the votes for a tie, which win with more than either response has. If the
    label is a tie (``tied``), those are ``right``, and ``wrong`` and ``third`` are the votes for the responses.

    Raises:
        ValueError: there are fewer than k votes.
    """
    readable = right + wrong + third
    total = comb(readable + unreadable, k)
    if total == 0:
        raise ValueError(f"cannot draw {k} of {readable + unreadable} votes")
    halves = _half_wins(right, wrong, third, bool(tied))
    drawn = range(max(0, k - unreadable), min(k, readable) + 1)
    return sum(halves[m] * comb(unreadable, k - m) for m in drawn) / (2 * total)


def _majority_of(counts: Sequence[int], k: int) -> float:
    right, wrong, unreadable, *ties = counts
    return majority_at_k(right, wrong, unreadable, k, sum(ties[:1]), any(ties[1:]))


def any_at_k(right: int, votes: int, k: int) -> float:
    """Return the probability that at least one of k votes, drawn without replacement from ``votes``, is right."""
    if k > votes:
        raise ValueError(f"cannot draw {k} of {votes} votes")
    total = comb(votes, k)
    return (total - comb(votes - right, k)) / total


def voting_curve(
    judgments: Sequence[Sequence[Judgment]], preferred: Sequence[int], *, seed: int = 0
) -> dict[str, list[Interval]]:
    """Return majority@k and any@k for k = 1..votes, each the mean over pairs with its interval."""
    counts = []
    for row, label in zip(judgments, preferred, strict=True):
        other, last = (3 - label, 0) if label else (1, 2)
        kinds = [sum(vote.answer == answer for vote in row) for answer in (label, other, None, last)]
        counts.append((*kinds, label == 0))
    votes = min(len(row) for row in judgments)
    return {
        "majority": [
            mean_interval(np.array([_majority_of(one, k) for one in counts]), seed=seed) for k in range(1, votes + 1)
        ],
        "any": [
            mean_interval(np.array([any_at_k(one[0], sum(one[:4]), k) for one in counts]), seed=seed)
            for k in range(1, votes + 1)
        ],
    }


def resampled_means(
    values: np.ndarray, clusters: np.ndarray, *, strata: np.ndarray | None = None, seed: int = 0, resamples: int = 2000
) -> np.ndarray:
    """Return (resamples, m) means of the m columns of ``values`` under a cluster bootstrap, with shared draws.

    ``values`` is (n, m), nan where a row is not part of a column's mean. ``clusters`` (n,) are integers that name the
    unit to draw with replacement; ``strata`` (n,) are integers, the same within a cluster, that name the set to draw it
    from (default: one set). A draw without any value of a column gives nan there.
    """
    known = ~np.isnan(values)
    _, first, code = np.unique(clusters, return_index=True, return_inverse=True)
    stratum = np.zeros(len(first)) if strata is None else strata[first]
    sums_of = [np.bincount(code, part) for part in (*np.where(known, values, 0.0).T, *known.T)]
    table = np.stack([stratum, *sums_of], axis=1)
    sums = np.zeros((resamples, table.shape[1] - 1))
    rng = np.random.default_rng(seed)
    for kinds, counts in _stratum_kinds(table):
        total = counts.sum()
        step = max(1, 2**20 // len(counts))
        for start in range(0, resamples, step):
            rows = slice(start, min(start + step, resamples))
            sums[rows] += rng.multinomial(total, counts / total, size=rows.stop - start) @ kinds
    column_sums, column_counts = np.split(sums, 2, axis=1)
    return np.divide(column_sums, column_counts, out=np.full(column_sums.shape, np.nan), where=column_counts > 0)


def _stratum_kinds(table: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each value of column 0, the distinct rows of the other columns and how often each occurs.

    Clusters with equal sums are interchangeable, so drawing the number of each kind is the same bootstrap as drawing
    every cluster, at a fraction of the work: 50,000 rows that are right or wrong are two kinds.
    """
    code = np.zeros(len(table), dtype=np.int64)
    # Rounded, so that the order of summing a cluster's rows does not change its kind, and with it the draws.
    for column in np.round(table, 9).T:
        values, inverse = np.unique(column, return_inverse=True)
        code = np.unique(code * len(values) + inverse, return_inverse=True)[1]
    _, first, counts = np.unique(code, return_index=True, return_counts=True)
    for stratum in np.unique(table[:, 0]):
        inside = table[first, 0] == stratum
        yield table[first[inside], 1:], counts[inside]


def percentile_interval(mean: float, resampled: np.ndarray) -> Interval:
    """Return a mean with the 2.5 and 97.5 percentiles of its (r,) resampled means, without nans."""
    known = resampled[~np.isnan(resampled)]
    if known.size == 0:
        return Interval(mean, mean, mean)
    low, high = np.percentile(known, [2.5, 97.5])
    # Rounding may put a bound of equal values one bit past their mean.
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def cluster_interval(
    values: np.ndarray, clusters: np.ndarray, *, strata: np.ndarray | None = None, seed: int = 0, resamples: int = 2000
) -> Interval:
    """Return the mean of (n,) values with its 95 % percentile bootstrap interval, resampling whole clusters.

    ``clusters`` and ``strata`` as in :func:`resampled_means`; with distinct clusters it is the ordinary bootstrap.

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0:
        raise ValueError("no values to average")
    means = resampled_means(values[:, None], clusters, strata=strata, seed=seed, resamples=resamples)
    return percentile_interval(float(values.mean()), means[:, 0])


def mcnemar(better: int, worse: int) -> float:
    """Return the exact two-sided p of McNemar's test: the chance that a fair coin splits at least as unevenly."""
    return 1.0 if better + worse == 0 else float(stats.binomtest(better, better + worse).pvalue)


def voting_curve_from_counts(
    counts: np.ndarray,
    clusters: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, list[Interval]]:
    """Return majority@k and any@k for k = 1..the fewest votes of a row, each a mean over rows with its interval.

    ``counts`` is (n, 3) integers: right, wrong and unreadable votes; or (n, 5), followed by ``third`` and ``tied`` of
    :func:`majority_at_k`. ``clusters`` and ``strata`` are as in :func:`resampled_means`. Each value is the expectation
    over all k-subsets of a row's votes and therefore unbiased.

    Raises:
        ValueError: there are no rows.
    """
    if len(counts) == 0:
        raise ValueError("no rows to draw votes from")
    distinct, kind = np.unique(counts, axis=0, return_inverse=True)
    kinds: list[list[int]] = distinct.tolist()
    votes = min(sum(one[:4]) for one in kinds)
    curve: dict[str, list[Interval]] = {"majority": [], "any": []}
    # Sixteen k at a time: one draw serves them all, and memory does not grow with the votes.
    for start in range(1, votes + 1, 16):
        ks = range(start, min(start + 16, votes + 1))
        majority = [[_majority_of(one, k) for k in ks] for one in kinds]
        some = [[any_at_k(one[0], sum(one[:4]), k) for k in ks] for one in kinds]
        values = np.concatenate([majority, some], axis=1)[kind]
        drawn = resampled_means(values, clusters, strata=strata, seed=seed, resamples=resamples)
        found = [percentile_interval(float(values[:, i].mean()), drawn[:, i]) for i in range(values.shape[1])]
        curve["majority"] += found[: len(ks)]
        curve["any"] += found[len(ks) :]
    return curve
