"""From counted votes to scores, on arrays: the rules for unreadable votes, accuracy, macro, ACC+, their intervals.

Shapes: n rows, P passes over the benchmark (1, or 2 in turned orders), C categories. Correctness is in [0, 1] and nan
where a rule leaves a row's pass out.

The rules differ only in what an unreadable vote does:

- ``wrong`` (released R1-Reward, UnifiedReward): it is not a vote; a row without a readable vote is wrong.
- ``drop`` (official VL-RewardBench): it is a vote for neither. A response wins a row's pass with more than half of all
  its votes; a pass that neither wins, by a tie or by unreadable votes, leaves numerator and denominator.
- ``coin`` (official Multimodal RewardBench): ``random.Random(123)`` turns it into a vote for A or B.

Which one a benchmark's own evaluator follows is in its :class:`~r1_reward.bench.benchmark.Protocol`.

A tie, which only an even number of votes can give, counts one half under ``wrong`` and ``coin``: what a fair coin would
make of it on average.
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
    """Counted votes of n rows. Where votes are split by position: preferred shown first, second, unknown."""

    index: np.ndarray
    """(n,) positions in the benchmark's file."""
    ids: np.ndarray
    """(n,) 64-bit hashes of the ids; rows of one id are one cluster."""
    category: np.ndarray
    """(n,) numbers of official categories, -1 for none."""
    categories: tuple[str, ...]
    """Their names, sorted."""
    paper: np.ndarray
    """(n,) numbers of the paper's categories, -1 for none."""
    paper_categories: tuple[str, ...]
    issue: np.ndarray
    """(n,) whether something is known or suspected to be wrong with the row."""
    longer: np.ndarray
    """(n,) 1, 0, -1: the preferred response is longer, as long, shorter; UNKNOWN."""
    right: np.ndarray
    """(n, P, 3) votes for the preferred response, by position."""
    wrong: np.ndarray
    """(n, P, 3) votes for the other response, by position."""
    unreadable: np.ndarray
    """(n, P, 3) votes without a verdict, by position."""
    coin: np.ndarray
    """(n, P) unreadable votes that the coin makes right."""

    UNKNOWN = 2

    def strata(self) -> np.ndarray:
        """Return (n,) the set that each row's cluster is resampled within: the category, the first one of the id's."""
        _, code = np.unique(self.ids, return_inverse=True)
        lowest = np.full(code.max(initial=-1) + 1, len(self.categories))
        np.minimum.at(lowest, code, self.category)
        return lowest[code]


def correctness(counts: Counts, rule: Rule) -> np.ndarray:
    """Return (n, P) correctness of each row's majority in each pass."""
    right, wrong, unreadable = (part.sum(axis=2) for part in (counts.right, counts.wrong, counts.unreadable))
    if rule == "coin":
        right, wrong = right + counts.coin, wrong + unreadable - counts.coin
    value = np.where(right == wrong, 0.5, right > wrong)
    if rule == "wrong":
        value[right + wrong == 0] = 0.0
    elif rule == "drop":
        value[2 * np.maximum(right, wrong) <= right + wrong + unreadable] = np.nan
    return value


def mean(values: np.ndarray) -> float:
    """Return the mean of what is not nan; nan if nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def row_means(values: np.ndarray) -> np.ndarray:
    """Return (n,) the mean of each row of (n, P) over what is not nan."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def macro(means: list[float]) -> float:
    """Return the plain mean over the categories that have a value; nan if none has."""
    known = [value for value in means if not np.isnan(value)]
    # fsum, so that the order of the categories cannot change the last digit.
    return fsum(known) / len(known) if known else float("nan")


def split(rows: np.ndarray, group: np.ndarray, groups: int) -> list[np.ndarray]:
    """Return, for each group, (n,) values that are nan outside the group."""
    return [np.where(group == number, rows, np.nan) for number in range(groups)]


def all_right(passes: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Return (clusters, P) products of correctness over a cluster's rows, sorted by cluster.

    A row that a rule leaves out is left out of the product; a cluster without any other is nan.
    """
    numbers, code = np.unique(cluster, return_inverse=True)
    product, count = np.ones((len(numbers), passes.shape[1])), np.zeros((len(numbers), passes.shape[1]))
    np.multiply.at(product, code, np.where(np.isnan(passes), 1.0, passes))
    np.add.at(count, code, ~np.isnan(passes))
    product[count == 0] = np.nan
    return product


class AccPlus(NamedTuple):
    """ACC+ (an id counts where all its rows are right) of all rows and of each category."""

    overall: float
    categories: list[float]
    ids: list[int]
    """Ids with a scored row, by category."""


def acc_plus(counts: Counts, passes: np.ndarray) -> AccPlus:
    """Return ACC+: the share of ids in each pass, then the mean over passes; a category sees only its own rows."""
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
    """95 % intervals, all from the same resamples; bounds around nan are nan."""

    overall: Interval
    macro: Interval
    paper_macro: Interval
    acc_plus: Interval
    categories: list[Interval]
    paper_categories: list[Interval]


def intervals(counts: Counts, passes: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> Intervals:
    """Return the scores of ``passes`` (n, P) with percentile bootstrap intervals.

    Clusters (the ids) are drawn with replacement within each official category, so every category keeps its size in
    ids: a benchmark's make-up is fixed by its authors, its questions are the sample.
    """
    rows = row_means(passes)
    official, paper = len(counts.categories), len(counts.paper_categories)
    parts, paper_parts = split(rows, counts.category, official), split(rows, counts.paper, paper)
    # One value an id and pass, carried by the id's first row, so that ACC+ comes from the same resamples.
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
