"""Rank candidates, or find the best one, by comparing two at a time.

A judge is a function from pairs of candidates to the probability that the first is better, None if it cannot say. It
gets many pairs at once, so that a model can judge them in one batch. :mod:`r1_reward.judge.schedules` chooses the
pairs, and :mod:`r1_reward.judge.comparisons` computes scores from the answers.

>>> def judge(pairs):
...     return [1.0 if first < second else 0.0 for first, second in pairs]  # candidate 0 is the best
>>> rank(4, judge).order
(0, 1, 2, 3)
>>> best_of_n(4, judge)[0]
0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from r1_reward.judge.comparisons import Comparison, bradley_terry, check_comparison, require_candidates
from r1_reward.judge.schedules import Pair, Schedule, adaptive, bracket, renamed, renumbered, still_in
from r1_reward.records.errors import UserError

FULL_ROUND_ROBIN = 8
"""Up to this many candidates, all pairs are compared unless a budget is set."""

CompareBatch = Callable[[Sequence[Pair]], Sequence[float | None]]
"""Maps pairs of candidates to the probability that the first is better, in [0, 1]; None: no readable verdict."""


class Ranking(NamedTuple):
    """The order of candidates, with the Bradley-Terry scores it is based on."""

    order: tuple[int, ...]
    """Indices, best first; equal scores go by index."""
    scores: tuple[float, ...]
    """By index, in logits, with mean 0: P(i better than j) is the sigmoid of scores[i] - scores[j]."""
    standard_errors: tuple[float, ...]
    """By index, in logits: the uncertainty of each score, relative to the mean of the candidates."""
    comparisons: tuple[Comparison, ...]
    """In the order they were made."""


def default_budget(n: int) -> int:
    """Return the default budget of :func:`rank`: all pairs for up to 8 candidates, n log2 n for more."""
    every = n * (n - 1) // 2
    return every if n <= FULL_ROUND_ROBIN else min(every, math.ceil(n * math.log2(n)))


def rank(
    n: int,
    compare: CompareBatch,
    *,
    budget: int | None = None,
    seed: int = 0,
    names: Sequence[int] | None = None,
) -> Ranking:
    """Rank n candidates with at most ``budget`` comparisons (default: :func:`default_budget`), no pair twice.

    :func:`~r1_reward.judge.schedules.adaptive` chooses the pairs; each of its rounds is one batch. A comparison without
    a verdict counts against the budget and is left out of the scores. The result depends only on the seed, the
    answers and ``names``, the order in which the schedule takes the candidates (default: by index). With a budget of 0
    the order is that of the indices, with scores of 0 and the errors of the prior.

    Raises:
        UserError: there are no candidates, or the budget is negative.
        ValueError: ``compare`` returns the wrong number of answers, or values that are not probabilities.
    """
    require_candidates(n)
    if budget is not None and budget < 0:
        raise UserError(f"a budget of {budget} comparisons: must be 0 or more.")
    schedule = adaptive(n, default_budget(n) if budget is None else budget, seed=seed)
    asked = _play(n, renamed(schedule, names or range(n)), compare)
    scores, standard_errors = bradley_terry(n, asked)
    order = sorted(range(n), key=lambda i: (-round(scores[i], 9), i))
    return Ranking(tuple(order), scores, standard_errors, tuple(asked))


def best_of_n(
    n: int, compare: CompareBatch, *, seed: int = 0, names: Sequence[int] | None = None
) -> tuple[int, tuple[Comparison, ...]]:
    """Return the winner of a knockout and its n - 1 comparisons; every round is one batch.

    :func:`~r1_reward.judge.schedules.still_in` decides who advances. Without a verdict the random draw decides, so if
    every comparison is None, the winner is no better than chance. ``names`` as for :func:`rank`.

    Raises:
        UserError: there are no candidates.
        ValueError: ``compare`` returns the wrong number of answers, or values that are not probabilities.
    """
    require_candidates(n)
    names = names or range(n)
    asked = _play(n, renamed(bracket(n, seed=seed), names), compare)
    (winner,) = still_in(n, renumbered(asked, names), seed=seed)
    return names[winner], tuple(asked)


def _play(n: int, schedule: Schedule, compare: CompareBatch) -> list[Comparison]:
    """Return the judge's answers to all rounds of a schedule; the judge never gets an empty round."""
    played: list[Comparison] = []
    while pairs := schedule(played):
        answers = [Comparison(*pair, p) for pair, p in zip(pairs, compare(pairs), strict=True)]
        for answer in answers:
            check_comparison(n, answer)
        played += answers
    return played
