"""Many candidates, compared two at a time: which pairs to ask for, and the scores that explain the answers.

A judge is a function from pairs of candidates to probabilities that the first is better, None where it cannot say. It
gets many pairs at once, so that a model can judge them in one batch.

>>> def judge(pairs):
...     return [1.0 if first < second else 0.0 for first, second in pairs]  # candidate 0 is the best
>>> rank(4, judge).order
(0, 1, 2, 3)
>>> best_of_n(4, judge)[0]
0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit

from r1_reward.records.errors import UserError

PRIOR_SD = 3.0
"""Standard deviation, in logits, of the Gaussian prior on each score: weak, but it keeps unbeaten candidates finite."""

FULL_ROUND_ROBIN = 8
"""Up to so many candidates, all pairs are compared unless a budget says otherwise."""

_NEWTON_STEPS = 100  # it takes about ten

CompareBatch = Callable[[Sequence[tuple[int, int]]], Sequence[float | None]]
"""Pairs of candidates to the probability that the first of each is better, in [0, 1]; None: no readable verdict."""


class Comparison(NamedTuple):
    """One answer of the judge about two candidates, named by their indices."""

    first: int
    second: int
    probability: float | None
    """That ``first`` is the better one, in [0, 1]; None when the judge could not say."""


class Ranking(NamedTuple):
    """Candidates in order, with the Bradley-Terry scores behind the order."""

    order: tuple[int, ...]
    """Indices, best first; equal scores go by index."""
    scores: tuple[float, ...]
    """By index, in logits, with mean 0: P(i better than j) is the sigmoid of scores[i] - scores[j]."""
    standard_errors: tuple[float, ...]
    """By index, in logits: how uncertain each score is, relative to the mean of the candidates."""
    comparisons: tuple[Comparison, ...]
    """In the order they were asked for."""


def default_budget(n: int) -> int:
    """Return how many comparisons :func:`rank` asks for when it is not told: all pairs up to 8, then n log2 n."""
    every = n * (n - 1) // 2
    return every if n <= FULL_ROUND_ROBIN else min(every, math.ceil(n * math.log2(n)))


def rank(n: int, compare: CompareBatch, *, budget: int | None = None, seed: int = 0) -> Ranking:
    """Rank n candidates with at most ``budget`` comparisons (default: :func:`default_budget`), no pair twice.

    If the budget pays for all pairs, they are one batch. Otherwise every batch is a round of disjoint pairs: those
    whose answers tell most, given the answers so far. What an answer tells about a gap d between two scores is its
    Fisher information q(1 - q), with q the sigmoid of d, times the variance of d, so pairs go first that are close and
    whose gap is still unknown; the first round is random. A comparison without a verdict counts against the budget and
    is left out of the scores. Which of two candidates is shown first is random. All of this depends on the seed and
    the answers alone. With a budget of 0 the order is that of the indices, scores are 0, errors those of the prior.

    Raises:
        UserError: there are no candidates, or the budget is negative.
        ValueError: ``compare`` returns another number of answers than it got pairs, or no probabilities.
    """
    _require_candidates(n)
    if budget is not None and budget < 0:
        raise UserError(f"a budget of {budget} comparisons: it must be 0 or more.")
    budget = default_budget(n) if budget is None else budget
    unasked = _every_pair(n, np.random.default_rng(seed))
    asked: list[Comparison] = []
    if budget >= len(unasked):
        budget, asked = len(unasked), _ask(n, compare, unasked.tolist())
    while len(asked) < budget:
        value = _information(unasked, *_posterior(n, asked))
        chosen = _disjoint(unasked, value, budget - len(asked))
        asked += _ask(n, compare, unasked[chosen].tolist())
        unasked = np.delete(unasked, chosen, axis=0)
    scores, standard_errors = bradley_terry(n, asked)
    order = sorted(range(n), key=lambda i: (-round(scores[i], 9), i))
    return Ranking(tuple(order), scores, standard_errors, tuple(asked))


def best_of_n(n: int, compare: CompareBatch, *, seed: int = 0) -> tuple[int, tuple[Comparison, ...]]:
    """Return the winner of a knockout and its n - 1 comparisons; every round is one batch.

    The draw is random by the seed, and with an odd number of candidates the last one has a bye. Where a comparison has
    no verdict or is a tie (1/2), the candidate goes on that won its latest comparison by the larger probability; where
    they are equal in that too, the draw decides. A winner is therefore no better than chance if every comparison is
    None: the comparisons tell.

    Raises:
        UserError: there are no candidates.
        ValueError: ``compare`` returns another number of answers than it got pairs, or no probabilities.
    """
    _require_candidates(n)
    field = np.random.default_rng(seed).permutation(n).tolist()
    margin = [0.5] * n
    asked: list[Comparison] = []
    while len(field) > 1:
        answers = _ask(n, compare, list(zip(field[::2], field[1::2], strict=False)))
        bye = field[2 * len(answers) :]
        field = [_winner(answer, margin) for answer in answers] + bye
        asked += answers
    return field[0], tuple(asked)


def bradley_terry(n: int, comparisons: Iterable[Comparison]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the scores of n candidates, in logits with mean 0, and their standard errors.

    The scores s maximise ``sum p log sigmoid(s_i - s_j) + (1 - p) log sigmoid(s_j - s_i) - sum s_i^2 / (2 sd^2)`` over
    the comparisons that have a probability p: Bradley and Terry's likelihood with a Gaussian prior of standard
    deviation :data:`PRIOR_SD`. The errors come from the inverse of the observed information, prior included, for
    s minus its mean; each comparison counts as one observation, however certain its p. Candidates without comparisons
    score 0 with the prior's error.

    Raises:
        UserError: there are no candidates.
        ValueError: a comparison names no two of the n candidates, or its probability is not in [0, 1].
    """
    _require_candidates(n)
    scores, covariance = _posterior(n, list(comparisons))
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return tuple(scores.tolist()), tuple(errors.tolist())


def _posterior(n: int, comparisons: Sequence[Comparison]) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n,) most probable scores and the (n, n) covariance of scores minus their mean, by Newton's method."""
    for one in comparisons:
        _check(n, one)
    readable = [one for one in comparisons if one.probability is not None]
    first, second = (np.array([one[side] for one in readable], dtype=int) for side in (0, 1))
    p = np.array([one.probability for one in readable], dtype=float)

    def log_posterior(scores: np.ndarray) -> float:
        gap = scores[first] - scores[second]
        return float(p @ log_expit(gap) + (1 - p) @ log_expit(-gap) - scores @ scores / (2 * PRIOR_SD**2))

    def information(scores: np.ndarray) -> np.ndarray:
        weight = _bernoulli_variance(scores[first] - scores[second])
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
        # A full step may overshoot far from the maximum; the objective is concave, so some shorter one does not.
        while np.abs(step).max() > 1e-6 and log_posterior(scores + step) < before:
            step /= 2
        scores = scores + step
        if np.abs(step).max() < 1e-9:
            break
    # The mean has the prior's variance alone, whatever the comparisons: they see differences only.
    return scores, np.linalg.inv(information(scores)) - PRIOR_SD**2 / n


def _information(pairs: np.ndarray, scores: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return, for each of the (m, 2) pairs, the expected information of an answer times the variance of the gap."""
    first, second = pairs.T
    variance = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    return _bernoulli_variance(scores[first] - scores[second]) * variance


def _bernoulli_variance(gap: np.ndarray) -> np.ndarray:
    return expit(gap) * expit(-gap)


def _every_pair(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return all (n(n-1)/2, 2) pairs, shuffled, each in a random order."""
    pairs = np.stack(np.triu_indices(n, 1), axis=1)
    return rng.permuted(rng.permutation(pairs), axis=1)


def _disjoint(pairs: np.ndarray, value: np.ndarray, most: int) -> list[int]:
    """Return the places of pairs without a common candidate, taken greedily by falling value, at most ``most``."""
    taken: set[int] = set()
    chosen: list[int] = []
    for place in np.argsort(-value, kind="stable").tolist():
        if len(chosen) == most:
            break
        first, second = pairs[place].tolist()
        if first not in taken and second not in taken:
            taken |= {first, second}
            chosen.append(place)
    return chosen


def _winner(answer: Comparison, margin: list[float]) -> int:
    """Return who goes on, and note in ``margin`` by what probability it won."""
    first, second, probability = answer
    if probability is None or probability == 0.5:
        return first if margin[first] >= margin[second] else second  # of equals the one drawn first
    winner = first if probability > 0.5 else second
    margin[winner] = max(probability, 1 - probability)
    return winner


def _ask(n: int, compare: CompareBatch, pairs: Sequence[Sequence[int]]) -> list[Comparison]:
    """Return the judge's answers as comparisons; a judge is never asked about nothing."""
    asked = [(first, second) for first, second in pairs]
    answers = [Comparison(*pair, p) for pair, p in zip(asked, compare(asked), strict=True)] if asked else []
    for answer in answers:
        _check(n, answer)
    return answers


def _check(n: int, one: Comparison) -> None:
    if not 0 <= one.first < n or not 0 <= one.second < n or one.first == one.second:
        raise ValueError(f"{one} does not compare two of {n} candidates")
    if one.probability is not None and not 0 <= one.probability <= 1:
        raise ValueError(f"{one}: the probability is not in [0, 1]")


def _require_candidates(n: int) -> None:
    if n < 1:
        raise UserError("there are no candidates to compare; give at least one.")
