"""Official scores that are not simply the share of right pairs, as pure functions on plain data.

    mmrb2_pooled([MMRB2Score(right=700, judged=1900, pairs=1000), ...]).accuracy
    edit_reward_score([(3, [True, True, False]), (2, [True])])["overall"].value             # 0.5
    ties_score([TiesRow("ref:0", 1, [9, 2]), TiesRow("tied:0", 2, [9, 8, 2])])

All scores are fractions. An undefined one, such as the accuracy of no judgments, is None, where some official scripts
print 0 or nan. ``tests/bench/witnesses`` has the results of the official scripts on the same predictions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from r1_reward.records.errors import UserError


class Share(NamedTuple):
    """A count of right answers out of a total."""

    right: int
    of: int

    @property
    def value(self) -> float | None:
        """The fraction; None if the total is 0."""
        return self.right / self.of if self.of else None


# ---- MMRB2


class MMRB2Score(NamedTuple):
    """Counts of judgments on the pairs of one or several tasks; each pair can have two, one in each order."""

    right: int
    judged: int
    pairs: int

    @property
    def accuracy(self) -> float | None:
        """The official score: the share of right judgments; None if there are none."""
        return self.right / self.judged if self.judged else None

    @property
    def coverage(self) -> float | None:
        """Share of the two judgments per pair that exist; the accuracy does not penalize missing ones."""
        return self.judged / (2 * self.pairs) if self.pairs else None


def mmrb2_pooled(tasks: Iterable[MMRB2Score]) -> MMRB2Score:
    """Return the overall score: the summed counts of the tasks, so a task with more judgments weighs more."""
    total = MMRB2Score(0, 0, 0)
    for task in tasks:
        total = MMRB2Score(*(sum(counts) for counts in zip(total, task, strict=True)))
    return total


# ---- EditReward-Bench


def edit_reward_score(groups: Iterable[tuple[int, Sequence[bool]]]) -> dict[str, Share]:
    """Return the share of right groups of EditReward-Bench: with ``2``, ``3``, ``4`` candidates, and ``overall``.

    A group is its number of candidates and, for each judged comparison, whether it is right. A group of two is one
    comparison, in which a tie is a valid answer. A group of three is right if all 3 comparisons are, a group of four if
    all 6 are. So a group that lacks a comparison is wrong, and one that lacks all is not counted. Overall is the sum
    over the three sizes.

    Raises:
        UserError: a group has a different number of candidates.
    """
    right, counted = Counter[int](), Counter[int]()
    for candidates, comparisons in groups:
        if candidates not in (2, 3, 4):
            raise UserError(f"a group has {candidates} candidates; EditReward-Bench has only 2, 3 and 4.")
        counted[candidates] += bool(comparisons)
        right[candidates] += len(comparisons) == math.comb(candidates, 2) and all(comparisons)
    shares = {str(candidates): Share(right[candidates], counted[candidates]) for candidates in (2, 3, 4)}
    return {**shares, "overall": Share(right.total(), counted.total())}


# ---- RewardBench 2

REWARD_BENCH_2 = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
NO_VERDICT = 0.25
"""Score of a prompt with four answers and no readable verdict: a guess."""
_NO_RATING = -1.0


def four_way_score(right: bool | None) -> float:
    """Return the score of choosing one of four answers: 1, 0, or a quarter for None, an unreadable verdict."""
    return NO_VERDICT if right is None else float(right)


def rated_score(ratings: Sequence[float | None]) -> float:
    """Return the score of the ratings of a prompt's answers; the first is the right one, None is an unreadable rating.

    The score is 1 if the right answer alone has the highest rating, 1/n if n answers share it, 0 if the right answer
    is not among them, and a quarter if there is no rating.
    """
    known = [rating for rating in ratings if rating is not None]
    if not known:
        return NO_VERDICT
    best = [place for place, rating in enumerate(ratings) if rating == max(known)]
    return (0 in best) / len(best)


class TiesRow(NamedTuple):
    """A judged prompt of the subset Ties."""

    id: str
    """``ref:N`` for a prompt with one right answer, ``tied:N`` for its partner with several."""
    right: int
    """Number of right answers, which come first."""
    scores: Sequence[float | None]
    """Score of each answer; None is unreadable and counts as -1, below every rating of 1 to 10."""


class TiesScore(NamedTuple):
    """The Ties score and its parts, all over prompts."""

    score: float
    """.30 tied_accuracy + .30 ref_accuracy + .20 preferred + .20 preferred_hard + .01 margin; at most 1.01."""
    ref_accuracy: float
    """Share of ``ref`` prompts in which every right answer scores above every wrong one."""
    tied_accuracy: float
    """The same for ``tied`` prompts."""
    preferred: float
    """Share of the pairs whose gap in ``tied`` (worst right minus best wrong) exceeds the spread of right answers."""
    preferred_hard: float
    """The same with the smaller gap of ``tied`` and ``ref``."""
    margin: float
    """Mean of tanh(smaller gap / spread - 1), in [-1, 1]."""


def ties_score(rows: Iterable[TiesRow]) -> TiesScore | None:
    """Return the score of RewardBench 2's Ties; None without any pair of a ``ref`` and a ``tied`` prompt.

    Accuracies are over all prompts, the rest over the pairs of a ``ref`` and a ``tied`` prompt with the same number.

    Raises:
        UserError: an id is malformed or repeated, a prompt lacks right or wrong answers, a ``tied`` prompt has only one
            right answer, or a score is not a finite number.
    """
    gaps: dict[str, dict[int, float]] = {"ref": {}, "tied": {}}
    spreads: dict[int, float] = {}
    for row in rows:
        kind, number = _ties_id(row.id)
        right, wrong = _split(row, kind)
        if number in gaps[kind]:
            raise UserError(f"prompt {row.id!r} of Ties appears twice; keep one of them.")
        gaps[kind][number] = min(right) - max(wrong)
        if kind == "tied":
            spreads[number] = max(right) - min(right)
    pairs = [(gaps["ref"][n], gaps["tied"][n], spreads[n]) for n in sorted(gaps["ref"].keys() & gaps["tied"].keys())]
    if not pairs:
        return None
    ref, tied = (fmean(gap > 0 for gap in gaps[kind].values()) for kind in ("ref", "tied"))
    preferred = fmean(gap > spread for _, gap, spread in pairs)
    hard = fmean(min(one, other) > spread for one, other, spread in pairs)
    margin = fmean(_margin(min(one, other), spread) for one, other, spread in pairs)
    score = 0.30 * tied + 0.30 * ref + 0.20 * preferred + 0.20 * hard + 0.01 * margin
    return TiesScore(score, ref, tied, preferred, hard, margin)


def _ties_id(id: str) -> tuple[str, int]:
    kind, _, number = id.partition(":")
    if kind not in ("ref", "tied") or not number.isdecimal():
        raise UserError(f"prompt {id!r} of Ties: its id must be ref:N or tied:N.")
    return kind, int(number)


def _split(row: TiesRow, kind: str) -> tuple[list[float], list[float]]:
    """Return the scores of the right and of the wrong answers."""
    scores = [_NO_RATING if score is None else score for score in row.scores]
    fault = None
    if not 0 < row.right < len(scores):
        fault = f"has {len(scores)} scores, {row.right} of them for right answers; it needs both right and wrong ones"
    elif kind == "tied" and row.right < 2:
        fault = "has one right answer; a tied prompt needs several"
    elif not all(map(math.isfinite, scores)):
        fault = f"has scores that are not finite numbers: {scores}"
    if fault:
        raise UserError(f"prompt {row.id!r} of Ties {fault}.")
    return scores[: row.right], scores[row.right :]


def _margin(gap: float, spread: float) -> float:
    """Return tanh(gap / spread - 1); for a spread of 0, the sign of the gap (0 if both are 0)."""
    if spread:
        return math.tanh(gap / spread - 1)
    return math.copysign(1.0, gap) if gap else 0.0


def reward_bench_2_score(subsets: Mapping[str, float | None]) -> float | None:
    """Return the leaderboard score: the unweighted mean of the six subsets; None if one is missing."""
    values = [value for name in REWARD_BENCH_2 if (value := subsets.get(name)) is not None]
    return fmean(values) if len(values) == len(REWARD_BENCH_2) else None
