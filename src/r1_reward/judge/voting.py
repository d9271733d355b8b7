"""From votes to a verdict, and when to stop drawing votes (paper, section on test-time scaling: voting@K).

>>> votes = [Judgment(answer=a, swapped=False, text="", well_formed=True, tokens=5) for a in (1, 1, 2, 1, None)]
>>> verdict = majority(votes)
>>> verdict.preferred, verdict.for_1, verdict.for_2, verdict.unreadable
(1, 3, 1, 1)
>>> votes_needed([votes[0]] * 15, ExactStopping()), votes_needed([votes[0]] * 15, SequentialStopping(15))
(8, 5)
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import comb

from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer, Judgment, Label

MOST_VOTES = 256
"""The most votes that a sequential rule supports: computing its boundary then takes seconds."""

_EQUAL = 1e-12  # weights and probabilities closer than this differ only by rounding


class Verdict(NamedTuple):
    """The result of several votes on one pair, in the pair's stored order."""

    preferred: Answer | None
    """The response that the voting rule prefers; None for a tie, or if no vote is readable."""
    for_1: int
    for_2: int
    unreadable: int
    votes: tuple[Judgment, ...] = ()
    ties: int = 0
    """Votes for a tie, which only some dialects allow."""

    @property
    def readable(self) -> int:
        """Votes that can be read, including votes for a tie."""
        return self.for_1 + self.for_2 + self.ties

    @property
    def share(self) -> float | None:
        """Share of the readable votes with the most frequent answer, in (0, 1]; None if none is readable."""
        return max(self.for_1, self.for_2, self.ties) / self.readable if self.readable else None

    @property
    def probability(self) -> float | None:
        """Probability that response 1 is better, in [0, 1]; None if no vote is readable.

        It is the mean of the readable votes' token probabilities if all of them have one. Otherwise it is estimated
        from the counts under Jeffreys' prior, ``(for_1 + 1/2) / (for_1 + for_2 + 1)``, which is never 0 or 1; a vote
        for a tie counts one half for each.
        """
        readable = self.readable
        if not readable:
            return None
        known = [v.probability for v in self.votes if v.answer is not None and v.probability is not None]
        if len(known) == readable:
            return math.fsum(known) / readable
        return (self.for_1 + self.ties / 2 + 0.5) / (readable + 1)

    @property
    def flips(self) -> float | None:
        """Share of answers that change with the order shown, in [0, 1]; None if no two votes can be compared.

        The i-th vote of one order is compared with the i-th of the other, if both are readable.
        """
        orders = ([vote.answer for vote in self.votes if vote.swapped is swapped] for swapped in (False, True))
        both = [(a, b) for a, b in zip(*orders, strict=False) if a is not None and b is not None]
        return sum(a != b for a, b in both) / len(both) if both else None

    @property
    def tokens(self) -> int:
        """Tokens generated for all votes."""
        return sum(vote.tokens for vote in self.votes)

    @property
    def truncated(self) -> int:
        """Votes cut by the token limit."""
        return sum(vote.truncated for vote in self.votes)

    @property
    def says_tie(self) -> bool:
        """Whether more votes are for a tie than for either response: a verdict, unlike votes that split evenly."""
        return self.ties > max(self.for_1, self.for_2)

    def correctness(self, preferred: Label) -> float:
        """Return 1 for the right verdict, 0 for a wrong one or none.

        If the votes split evenly and the label prefers one response, it is 1/2, a fair coin's expectation.
        """
        if self.says_tie or preferred == 0:
            return float(self.says_tie and preferred == 0)
        if self.preferred is None:
            return 0.5 if self.for_1 or self.for_2 else 0.0
        return float(self.preferred == preferred)


def majority(votes: Sequence[Judgment]) -> Verdict:
    """Return the majority verdict of votes in any orders; unreadable votes do not count."""
    for_1, for_2, ties = (sum(vote.answer == answer for vote in votes) for answer in (1, 2, 0))
    preferred = None if ties > max(for_1, for_2) else _larger(for_1, for_2)
    return Verdict(preferred, for_1, for_2, len(votes) - for_1 - for_2 - ties, tuple(votes), ties)


def confidence_weighted(votes: Sequence[Judgment]) -> Verdict:
    """Return the verdict of votes weighted by |2p - 1|, where p is the token probability; without one, the weight is 1.

    Weights that are equal up to rounding are a tie. Votes for a tie have no weight, so more of them than for either
    response are a tie as well. The counts in the verdict stay counts.
    """
    verdict = majority(votes)
    if verdict.says_tie:
        return verdict
    weights: dict[Answer, list[float]] = {1: [], 2: []}
    for vote in votes:
        if vote.answer:
            weights[vote.answer].append(1.0 if vote.probability is None else abs(2 * vote.probability - 1))
    return verdict._replace(preferred=_larger(math.fsum(weights[1]), math.fsum(weights[2])))


def consistent_verdict(votes: Sequence[Judgment]) -> Verdict:
    """Return a verdict that prefers a response only if the majority does so in both orders shown.

    If an order was not shown, is tied or has no readable vote, no response is preferred.
    """
    stored, swapped = (majority([v for v in votes if v.swapped is order]).preferred for order in (False, True))
    return majority(votes)._replace(preferred=stored if stored == swapped else None)


def _larger(one: float, two: float) -> Answer | None:
    return None if abs(one - two) <= _EQUAL else 1 if one > two else 2


class Stopping(Protocol):
    """A rule for when the remaining votes of a fixed number need not be drawn."""

    def decided(self, for_1: int, for_2: int, remaining: int, ties: int = 0) -> bool:
        """Return whether the remaining votes can be skipped, given the readable ones so far, ties included."""
        ...


@dataclass(frozen=True)
class ExactStopping:
    """Stop once no outcome of the remaining votes, unreadable ones included, can change the majority's verdict."""

    def decided(self, for_1: int, for_2: int, remaining: int, ties: int = 0) -> bool:
        """Return whether the verdict is certain; a tie is a different verdict from a lead."""
        most = max(for_1, for_2)
        leads = abs(for_1 - for_2) > remaining and most >= ties + remaining
        return remaining == 0 or leads or ties > most + remaining


@dataclass(frozen=True)
class SequentialStopping:
    """Stop once the verdict of all ``votes`` is almost certain: it differs with probability at most ``error``.

    The first n of K exchangeable votes are a random subset of the K. *Theorem*: for any K votes (k1 for 1, k2 for 2,
    the rest unreadable), the probability over their random order that the rule stops with a ``preferred`` that differs
    from the majority of all K is at most ``error``. The bound is on disagreement with the K votes, not with the truth.

    The rule stops after n votes at a lead of c(n) or more, and whenever :class:`ExactStopping` does. c(n) is the least
    lead whose probability is at most gamma under every tie (k1 = k2), and gamma is the largest level at which the
    probability of ever stopping is at most ``error`` under every tie. It is computed exactly, over all paths. Ties are
    the worst case: turn votes for 2 into unreadable ones until k1 = k2, and no lead of 1 on any path becomes smaller.
    The argument also holds if the votes are checked only now and then, as when they are drawn in batches.

    Votes for a tie are a third side: a response must also lead them by c(n), and they win only when that is certain.

    The rule assumes a random order. Votes drawn independently in one order of the responses satisfy this; with two
    alternating orders, a judge with a position bias violates it, toward smaller leads.
    """

    votes: int
    """K, the number of all votes that would be drawn, in both orders together."""
    error: float = 0.05

    def __post_init__(self) -> None:
        if not 1 <= self.votes <= MOST_VOTES:
            raise UserError(f"a sequential rule needs 1 to {MOST_VOTES} votes in total, not {self.votes}.")
        if not 0 <= self.error < 1:
            raise UserError(f"the error of a sequential rule must be at least 0 and below 1, not {self.error}.")

    def decided(self, for_1: int, for_2: int, remaining: int, ties: int = 0) -> bool:
        """Return whether the lead has reached its boundary; unreadable votes count as drawn.

        Raises:
            ValueError: the numbers do not fit ``votes`` votes.
        """
        drawn = self.votes - remaining
        if not for_1 + for_2 + ties <= drawn <= self.votes:
            raise ValueError(f"{for_1} + {for_2} + {ties} readable votes with {remaining} of {self.votes} remaining")
        lead = min(abs(for_1 - for_2), max(for_1, for_2) - ties)
        certain = ExactStopping().decided(for_1, for_2, remaining, ties)
        return certain or lead >= _boundary(self.votes, self.error)[drawn]


def votes_needed(votes: Sequence[Judgment], stopping: Stopping) -> int:
    """Return how many of the votes, in sequence, are drawn until the rule stops, at most all of them."""
    for_1 = for_2 = ties = 0
    for drawn, vote in enumerate(votes, 1):
        for_1 += vote.answer == 1
        for_2 += vote.answer == 2
        ties += vote.answer == 0
        if stopping.decided(for_1, for_2, len(votes) - drawn, ties):
            return drawn
    return len(votes)


@lru_cache(maxsize=64)
def _boundary(votes: int, error: float) -> tuple[int, ...]:
    """Return the least lead to stop at after 0, 1, ... ``votes`` votes."""
    tails = _lead_tails(votes)
    levels = np.unique(tails[(tails > 0) & (tails < 1)]).tolist()
    found = bisect_right(levels, error - _EQUAL, key=lambda gamma: _stops_in_a_tie(_leads(tails, gamma)))
    return _leads(tails, levels[found - 1] if found else 0.0)


def _leads(tails: np.ndarray, gamma: float) -> tuple[int, ...]:
    """Return the least lead, at least 1, whose tail is at most gamma, by number of votes."""
    # A lead that is impossible under a tie has a tail of 0; there the verdict is certain, so gamma 0 is the exact rule.
    return tuple(1 + int(np.argmax(of_n[1:] <= gamma)) for of_n in tails)


def _lead_tails(votes: int) -> np.ndarray:
    """Return the (K + 1, K + 2) probabilities of a lead of d or more after n of K votes, the largest over all ties."""
    drawn = np.arange(votes + 1)
    tails = np.zeros((votes + 1, votes + 2))
    for k in range(1, votes // 2 + 1):
        one, two = np.nonzero(np.tri(k + 1, k=-1))  # all numbers of votes drawn for 1 and for 2 with a lead of 1
        ways = np.zeros((votes + 1, votes + 2))  # by readable votes drawn, and by lead
        ways[one + two, one - two] = comb(k, one) * comb(k, two)
        unreadable = comb(votes - 2 * k, drawn[:, None] - drawn)  # by votes drawn, and by readable ones among them
        at_least = ways[:, ::-1].cumsum(axis=1)[:, ::-1]
        tails = np.maximum(tails, unreadable @ at_least / comb(votes, drawn)[:, None])
    return tails


def _stops_in_a_tie(boundary: Sequence[int]) -> float:
    """Return the largest probability, over all ties, that a lead reaches the boundary before the last vote.

    All orders of the same votes are equally likely, so the share of orders that never reach it is the share of paths
    from (0, 0) to (k, k), in votes for 1 and for 2, that never reach it.
    """
    votes = len(boundary) - 1
    side = votes // 2 + 1
    lead = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    paths = np.zeros((2, side, side))  # how many lead to a place: those that never reached the boundary, and all
    paths[:, 0, 0] = 1.0
    for n in range(1, votes + 1):
        longer = paths.copy()
        longer[:, 1:] += paths[:, :-1]
        longer[:, :, 1:] += paths[:, :, :-1]
        longer[0, lead >= boundary[n]] = 0.0
        paths = longer
    surviving, every = np.diagonal(paths, axis1=1, axis2=2)
    return float(1 - np.min(surviving / every))
