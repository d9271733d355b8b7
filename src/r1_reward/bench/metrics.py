"""Compute scores from vote counts, as array operations: rules for unreadable votes, accuracy, macro, ACC+, intervals.

Shapes: n rows, P passes over the benchmark (1, or 2 with opposite orders), C categories. Correctness is in [0, 1], and
nan for a row's pass that a rule leaves out.

The rules differ only in how they treat an unreadable vote:

- ``wrong`` (released R1-Reward, UnifiedReward): it is ignored; a row without a readable vote is wrong.
- ``drop`` (official VL-RewardBench): it is a vote for no verdict. A verdict wins a row's pass with more than half of
  all votes; a pass without a winner is excluded from numerator and denominator.
- ``coin`` (official Multimodal RewardBench): ``random.Random(123)`` turns it into a vote for A or B.

A benchmark's :class:`~r1_reward.bench.benchmark.Protocol` says which rule its official evaluator uses.

Votes that split evenly between the two responses count one half under ``wrong`` and ``coin``, the expectation of a fair
coin. Where a judge may call a tie, that is a third verdict: it wins with more votes than either response, as in
:func:`r1_reward.judge.voting.majority`, and is right if the label is a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import NamedTuple, get_args

import numpy as np

from r1_reward.bench.settings import Rule
from r1_reward.judge.metrics import Interval, percentile_interval, resampled_means

RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class Counts:
    """Vote counts of n rows; the last axis of 3 is the position of the preferred response: first, second, unknown."""

    index: np.ndarray
    """(n,) positions in the benchmark's file."""
    ids: np.ndarray
    """(n,) 64-bit hashes of the ids; rows with the same id form a cluster."""
    category: np.ndarray
    """(n,) indices of official categories, -1 for none."""
    categories: tuple[str, ...]
    """Their names, sorted."""
    paper: np.ndarray
    """(n,) indices of the paper's categories, -1 for none."""
    paper_categories: tuple[str, ...]
    issue: np.ndarray
    """(n,) whether the row is known or suspected to be wrong."""
    longer: np.ndarray
    """(n,) 1, 0, -1 if the preferred response is longer, equally long, shorter; or UNKNOWN."""
    right: np.ndarray
    """(n, P, 3) votes for the preferred response, by position."""
    wrong: np.ndarray
    """(n, P, 3) votes for the other response, by position; for response 1 if the label is a tie."""
    third: np.ndarray
    """(n, P, 3) votes for a tie, by position; for response 2 if the label is a tie."""
    unreadable: np.ndarray
    """(n, P, 3) votes without a verdict, by position."""
    coin: np.ndarray
    """(n, P) unreadable votes that the coin turns into right votes; into votes for response 1 if the label is a tie."""
    tied: np.ndarray
    """(n,) whether the label is a tie."""

    UNKNOWN = 2

    def strata(self) -> np.ndarray:
        """Return (n,) strata for the bootstrap: the category of each row's cluster, or its first one if they differ."""
        _, code = np.unique(self.ids, return_inverse=True)
        lowest = np.full(code.max(initial=-1) + 1, len(self.categories))
        np.minimum.at(lowest, code, self.category)
        return lowest[code]


def correctness(counts: Counts, rule: Rule) -> np.ndarray:
    """Return the (n, P) correctness of each row's majority in each pass."""
    parts = (counts.right, counts.wrong, counts.third, counts.unreadable)
    right, wrong, third, unreadable = (part.sum(axis=2) for part in parts)
    tied = counts.tied[:, None]
    if rule == "coin":  # never a vote for a tie
        heads, tails = counts.coin, unreadable - counts.coin
        right, wrong = right + np.where(tied, 0, heads), wrong + np.where(tied, heads, tails)
        third = third + np.where(tied, tails, 0)
    value = np.where(right == wrong, 0.5, right > wrong)
    value[third > np.maximum(right, wrong)] = 0.0
    value = np.where(tied, right > np.maximum(wrong, third), value)
    if rule == "wrong":
        value[right + wrong + third == 0] = 0.0
    elif rule == "drop":
        most = np.maximum(np.maximum(right, wrong), third)
        value[2 * most <= right + wrong + third + unreadable] = np.nan
    return value


def mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not nan; nan if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def row_means(values: np.ndarray) -> np.ndarray:
    """Return the (n,) means of the rows of (n, P), ignoring nan."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def macro(means: list[float]) -> float:
    """Return the unweighted mean over the categories that have a value; nan if none has."""
    known = [value for value in means if not np.isnan(value)]
    # fsum, so that the order of the categories cannot change the last digit.
    return fsum(known) / len(known) if known else float("nan")


def split(rows: np.ndarray, group: np.ndarray, groups: int) -> list[np.ndarray]:
    """Return (n,) values for each group that are nan outside the group."""
    return [np.where(group == number, rows, np.nan) for number in range(groups)]


def all_right(passes: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Return the (clusters, P) products of correctness over each cluster's rows, sorted by cluster.

    Rows that a rule leaves out are ignored; a cluster without any other row is nan.
    """
    numbers, code = np.unique(cluster, return_inverse=True)
    product, count = np.ones((len(numbers), passes.shape[1])), np.zeros((len(numbers), passes.shape[1]))
    np.multiply.at(product, code, np.where(np.isnan(passes), 1.0, passes))
    np.add.at(count, code, ~np.isnan(passes))
    product[count == 0] = np.nan
    return product


class AccPlus(NamedTuple):
    """ACC+, the share of ids with all rows right, overall and for each category."""

    overall: float
    categories: list[float]
    ids: list[int]
    """Ids with a scored row, by category."""


def acc_plus(counts: Counts, passes: np.ndarray) -> AccPlus:
    """Return ACC+, averaged over passes; for a category, only its own rows count."""
    members = [counts.category == number for number in range(len(counts.categories))]
    inside = [all_right(passes[rows], counts.ids[rows]) for rows in members]
    return AccPlus(
        _mean_over_passes(all_right(passes, counts.ids)),
        [_mean_over_passes(part) for part in inside],
        [int((~np.isnan(part)).any(axis=1).sum()) for part in inside],
    )


def _mean_over_passes(products: np.ndarray) -> float:
    return mean(np.array([mean(column) for column in products.T]))


class Intervals(NamedTuple):
    """95 % intervals, all from the same resamples; the bounds of nan are nan."""

    overall: Interval
    macro: Interval
    paper_macro: Interval
    acc_plus: Interval
    categories: list[Interval]
    paper_categories: list[Interval]


def intervals(counts: Counts, passes: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> Intervals:
    """Return the scores of ``passes`` (n, P) with percentile bootstrap intervals.

    Clusters (ids) are resampled with replacement within each official category, so every category keeps its number of
    ids: the composition of a benchmark is fixed by its authors, while its questions are a sample.
    """
    rows = row_means(passes)
    official, paper = len(counts.categories), len(counts.paper_categories)
    parts, paper_parts = split(rows, counts.category, official), split(rows, counts.paper, paper)
    # One value per id and pass, stored at the id's first row, so that ACC+ uses the same resamples.
    first = np.unique(counts.ids, return_index=True)[1]
    products = np.full(passes.shape, np.nan)
    products[first] = all_right(passes, counts.ids)
    columns = np.stack([rows, *parts, *paper_parts, *products.T], axis=1)
    drawn = resampled_means(columns, counts.ids, strata=counts.strata(), seed=seed, resamples=resamples)
    overall, by_category, by_paper, by_pass = np.split(drawn, np.cumsum([1, official, paper]), axis=1)
    means, paper_means = [mean(part) for part in parts], [mean(part) for part in paper_parts]
    return Intervals(
        percentile_interval(mean(rows), overall[:, 0]),
        percentile_interval(macro(means), row_means(by_category)),
        percentile_interval(macro(paper_means), row_means(by_paper)),
        percentile_interval(_mean_over_passes(products), row_means(by_pass)),
        [percentile_interval(value, by_category[:, c]) for c, value in enumerate(means)],
        [percentile_interval(value, by_paper[:, c]) for c, value in enumerate(paper_means)],
    )
