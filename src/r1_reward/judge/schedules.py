"""Schedules: which candidates to compare next, given the comparisons so far.

    schedule = schedule_for("bracket", 5, seed=1)
    played = []
    while pairs := schedule(played):                # a round: pairs that can be judged at the same time
        played += [Comparison(i, j, judge(i, j)) for i, j in pairs]
    net_win_rates(5, played)

| schedule | comparisons of N candidates | rounds |
|---|---|---|
| `round-robin` | N (N - 1) / 2 | one |
| `circular` | N | one: each candidate against the next in a circle |
| `bracket` | N - 1 | about log2 N: a knockout |
| `adaptive` | 2 N, or the number given | of disjoint pairs, where the order is least certain |

A schedule is a pure function of the comparisons: it keeps no state between rounds, so two calls, or two schedules made
with the same arguments, give the same pairs. Random draws come from its seed. Unreadable comparisons are not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from r1_reward.judge.comparisons import Comparison, bernoulli_variance, posterior
from r1_reward.judge.settings import ScheduleName

Pair: TypeAlias = tuple[int, int]
Schedule: TypeAlias = Callable[[Sequence[Comparison]], list[Pair]]
"""Maps the comparisons of all rounds so far, in order, to the pairs of the next round; none: the schedule is done."""


def schedule_for(name: ScheduleName, n: int, *, comparisons: int | None = None, seed: int = 0) -> Schedule:
    """Return the named schedule for n candidates; ``comparisons`` is the budget of ``adaptive``."""
    if name == "round-robin":
        return _at_once([(i, j) for i in range(n) for j in range(i + 1, n)])
    if name == "circular":
        return circular(n, seed=seed)
    if name == "bracket":
        return bracket(n, seed=seed)
    return adaptive(n, count_comparisons(name, n, comparisons), seed=seed)


def count_comparisons(name: ScheduleName, n: int, comparisons: int | None = None) -> int:
    """Return how many comparisons a schedule takes, at most ``comparisons`` if it is ``adaptive``."""
    every = n * (n - 1) // 2
    budget = 2 * n if comparisons is None else comparisons
    return min(every, {"round-robin": every, "circular": n, "bracket": n - 1, "adaptive": budget}[name])


def circular(n: int, *, seed: int = 0) -> Schedule:
    """Compare each of n candidates with the next in a circle drawn by the seed."""
    circle = _drawn(n, seed)
    pairs = list(zip(circle, [*circle[1:], *circle[:1]], strict=True))
    return _at_once(pairs if n > 2 else pairs[: n - 1])


def bracket(n: int, *, seed: int = 0) -> Schedule:
    """Play a knockout of n candidates; :func:`still_in` returns those that are left."""

    def following(played: Sequence[Comparison]) -> list[Pair]:
        field = still_in(n, played, seed=seed)
        return list(zip(field[::2], field[1::2], strict=False))

    return following


def still_in(n: int, played: Sequence[Comparison], *, seed: int = 0) -> list[int]:
    """Return the candidates left after some complete rounds of a knockout, in the order of the draw.

    The draw is random, and with an odd number of candidates the last one has a bye. If a comparison has no verdict or
    is a tie (1/2), the candidate that won its previous comparison with the larger probability advances; if these are
    equal, the draw decides.
    """
    field, margin, begin = _drawn(n, seed), [0.5] * n, 0
    while begin < len(played):
        end = begin + len(field) // 2
        byes = field[2 * (end - begin) :]
        field = [_winner(answer, margin) for answer in played[begin:end]] + byes
        begin = end
    return field


def adaptive(n: int, budget: int, *, seed: int = 0) -> Schedule:
    """Compare the pairs of n candidates that are most informative given the answers so far, no pair twice.

    If the ``budget`` allows all pairs, they are one round. Otherwise the pairs of a round are disjoint. An answer's
    information about the gap d between two scores is its Fisher information q(1 - q), with q the sigmoid of d, times
    the variance of d, so pairs that are close and whose gap is uncertain go first; the first round is random. The order
    within a pair is random.
    """
    every = _every_pair(n, np.random.default_rng(seed))
    if budget >= len(every):
        return _at_once([(i, j) for i, j in every.tolist()])

    def following(played: Sequence[Comparison]) -> list[Pair]:
        if len(played) >= budget:
            return []
        asked = np.zeros((n, n), dtype=bool)
        for first, second, _ in played:
            asked[first, second] = asked[second, first] = True
        unasked = every[~asked[every[:, 0], every[:, 1]]]
        value = _information(unasked, *posterior(n, played))
        chosen = _disjoint(unasked, value, budget - len(played))
        return [(i, j) for i, j in unasked[chosen].tolist()]

    return following


def renamed(schedule: Schedule, names: Sequence[int]) -> Schedule:
    """Return the schedule with candidate i renamed to ``names[i]``."""

    def following(played: Sequence[Comparison]) -> list[Pair]:
        return [(names[i], names[j]) for i, j in schedule(renumbered(played, names))]

    return following


def renumbered(played: Sequence[Comparison], names: Sequence[int]) -> list[Comparison]:
    """Return the comparisons of a :func:`renamed` schedule with ``names[i]`` back to i."""
    number = {name: i for i, name in enumerate(names)}
    return [Comparison(number[first], number[second], p) for first, second, p in played]


def _at_once(pairs: list[Pair]) -> Schedule:
    return lambda played: [] if played else list(pairs)


def _drawn(n: int, seed: int) -> list[int]:
    return [int(number) for number in np.random.default_rng(seed).permutation(n)]


def _information(pairs: np.ndarray, scores: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the expected information of an answer times the variance of the gap, for each of the (m, 2) pairs."""
    first, second = pairs.T
    variance = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    return bernoulli_variance(scores[first] - scores[second]) * variance


def _every_pair(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return all (n(n-1)/2, 2) pairs, shuffled, each in a random order."""
    pairs = np.stack(np.triu_indices(n, 1), axis=1)
    return rng.permuted(rng.permutation(pairs), axis=1)


def _disjoint(pairs: np.ndarray, value: np.ndarray, most: int) -> list[int]:
    """Return the indices of up to ``most`` pairs without common candidates, chosen greedily by decreasing value."""
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
    """Return the candidate that advances, and record its winning probability in ``margin``."""
    first, second, probability = answer
    if probability is None or probability == 0.5:
        return first if margin[first] >= margin[second] else second  # if equal, the one drawn first
    winner = first if probability > 0.5 else second
    margin[winner] = max(probability, 1 - probability)
    return winner
