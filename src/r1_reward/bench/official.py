"""The official scores of the benchmarks that are not one share of right pairs, as pure functions on plain data.

    forward = [{"judgement": "A"}]
    mmrb2_score({"t2i-1": "A"}, {"t2i-1": {"forward": forward}}).accuracy           # 1.0, of a coverage of 0.5
    edit_reward_score([EditComparison("g7_AvsB", 3, preferred=1, answer=1), ...])["overall"].value
    ties_score([TiesRow("ref:0", 1, [9, 2]), TiesRow("tied:0", 2, [9, 8, 2])])

Labels and answers are 1 (the first response), 2 (the second) and 0 (a tie); an answer of None could not be read. All
scores are fractions; one that nothing defines, such as the accuracy of no judgement, is None, where some scripts print
0 or nan. ``tests/bench/witnesses`` holds what the benchmarks' own scripts make of the same predictions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, NamedTuple, TypeAlias

from r1_reward.records.errors import UserError

Preference: TypeAlias = Literal[0, 1, 2]


class Share(NamedTuple):
    """How many of how many are right."""

    right: int
    of: int

    @property
    def value(self) -> float | None:
        """The fraction; None of nothing."""
        return self.right / self.of if self.of else None


# ---- MMRB2


class MMRB2Score(NamedTuple):
    """Judgements on the pairs of a task, or of several; each pair can have two, one in each order."""

    right: int
    judged: int
    pairs: int
    missing: int
    """Pairs that the predictions do not name."""

    @property
    def accuracy(self) -> float | None:
        """The official score: right of the judgements that are there; None if none is."""
        return self.right / self.judged if self.judged else None

    @property
    def coverage(self) -> float | None:
        """Share of the two judgements a pair that are there. A judge that says little is not punished in accuracy."""
        return self.judged / (2 * self.pairs) if self.pairs else None


def mmrb2_score(chosen: Mapping[str, str], predictions: Mapping[str, Mapping[str, Any]]) -> MMRB2Score:
    """Score one task of MMRB2.

    ``chosen`` has the better response, "A" or "B", by pair id; ``predictions`` are in the official form, by pair id:
    ``{"forward": [{"judgement": "A"}, ...], "reverse": [...]}``. Of each direction only the first entry counts. A
    judgement that is None or empty is as if it were not there; any other text than "A" and "B" is wrong. A reverse
    judgement names the responses in the order in which it saw them, so it is turned round.

    Raises:
        UserError: a label is neither "A" nor "B".
    """
    right = judged = missing = 0
    for id, letter in chosen.items():
        if letter not in ("A", "B"):
            raise UserError(f"pair {id!r} of MMRB2: its label is {letter!r}; it must be A or B.")
        if id not in predictions:
            missing += 1
            continue
        for direction, wanted in (("forward", letter), ("reverse", {"A": "B", "B": "A"}[letter])):
            entries = predictions[id].get(direction)
            judgement = entries[0].get("judgement") if entries else None
            if judgement:
                judged += 1
                right += judgement == wanted
    return MMRB2Score(right, judged, len(chosen), missing)


def mmrb2_pooled(tasks: Iterable[MMRB2Score]) -> MMRB2Score:
    """Return the overall score: the counts of the tasks added up, so that a task judged more often weighs more."""
    total = MMRB2Score(0, 0, 0, 0)
    for task in tasks:
        total = MMRB2Score(*(sum(counts) for counts in zip(total, task, strict=True)))
    return total


# ---- Omni-RewardBench


def omni_score(rows: Iterable[tuple[Preference, Preference | None]], *, ties: bool) -> Share:
    """Score one task of Omni-RewardBench: (label, answer) of each row.

    ``ties`` False is the score *without ties*: rows whose label is a tie are left out. An answer that is a tie stays,
    and is wrong there. So is an answer that could not be read: the denominator is all rows. The two scores are of two
    runs, as only the prompt of *with ties* offers a tie.
    """
    scored = [label == answer for label, answer in rows if ties or label != 0]
    return Share(sum(scored), len(scored))


def omni_overall(tasks: Iterable[Share]) -> float | None:
    """Return the plain mean over the tasks that a judge was run on, whatever their sizes; None without any row."""
    values = [task.value for task in tasks if task.value is not None]
    return fmean(values) if values else None


# ---- EditReward-Bench


class EditComparison(NamedTuple):
    """One judged comparison of two candidates; a comparison that was never answered has none."""

    id: str
    candidates: int
    """How many candidates its group has: 2, 3 or 4."""
    preferred: Preference
    answer: Preference | None


def edit_group(comparison: EditComparison) -> str:
    """Return the group of a comparison of three or four candidates: its id up to the first underscore."""
    return comparison.id.split("_")[0] if "_" in comparison.id else comparison.id[:10]


def edit_reward_score(comparisons: Iterable[EditComparison]) -> dict[str, Share]:
    """Return right and all groups of EditReward-Bench: of ``2``, ``3``, ``4`` candidates, and ``overall``.

    With two candidates each comparison is a group, and a tie is an answer like the others. A group of three is right if
    all its 3 comparisons are, one of four if all its 6 are; so a group that has lost a comparison is wrong, and one
    that has lost all is not counted. Overall adds the three up.

    Raises:
        UserError: a comparison has another number of candidates.
    """
    groups: dict[tuple[int, str], list[bool]] = defaultdict(list)
    for number, one in enumerate(comparisons):
        if one.candidates not in (2, 3, 4):
            raise UserError(
                f"comparison {one.id!r} is of {one.candidates} candidates; EditReward-Bench has 2, 3 and 4."
            )
        group = str(number) if one.candidates == 2 else edit_group(one)
        groups[one.candidates, group].append(one.answer == one.preferred)
    shares = {}
    for candidates in (2, 3, 4):
        whole = math.comb(candidates, 2)
        mine = [right for (size, _), right in groups.items() if size == candidates]
        shares[str(candidates)] = Share(sum(len(right) == whole and all(right) for right in mine), len(mine))
    return {**shares, "overall": Share(*map(sum, zip(*shares.values(), strict=True)))}


# ---- RewardBench 2

REWARD_BENCH_2 = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
NO_VERDICT = 0.25
"""What a prompt of four answers scores when nothing can be read: a guess."""
_NO_RATING = -1.0


def four_way_score(right: bool | None) -> float:
    """Return what naming one of four answers scores: 1, 0, or a quarter for None, a verdict that cannot be read."""
    return NO_VERDICT if right is None else float(right)


def rated_score(ratings: Sequence[float | None]) -> float:
    """Return what rating the answers of a prompt scores; the right answer is the first, None cannot be read.

    1 if it alone has the highest rating, 1/n if n answers share it, 0 if it has not; a quarter if no rating is there.
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
    """How many answers are right: they come first."""
    scores: Sequence[float | None]
    """A score of each answer; None could not be read and counts as -1, below every rating of 1 to 10."""


class TiesScore(NamedTuple):
    """The Ties score and its parts, all over prompts."""

    score: float
    """.30 tied_accuracy + .30 ref_accuracy + .20 preferred + .20 preferred_hard + .01 margin; at most 1.01."""
    ref_accuracy: float
    """Share of the prompts ``ref`` in which every right answer scores above every wrong one."""
    tied_accuracy: float
    """The same of the prompts ``tied``."""
    preferred: float
    """Share of the pairs whose gap in ``tied`` (worst right minus best wrong) exceeds the spread of right answers."""
    preferred_hard: float
    """The same with the smaller of the gaps of ``tied`` and ``ref``."""
    margin: float
    """Mean of tanh(smaller gap / spread - 1), in [-1, 1]."""


def ties_score(rows: Iterable[TiesRow]) -> TiesScore | None:
    """Return the score of RewardBench 2's Ties; None unless some ``ref`` and ``tied`` prompt belong together.

    Accuracies are over all prompts, the rest over the pairs of a ``ref`` and a ``tied`` prompt of one number.

    Raises:
        UserError: an id has another form or is there twice, a prompt lacks right or wrong answers, a ``tied`` one has a
            single right answer, or a score is not a finite number.
    """
    gaps: dict[str, dict[int, float]] = {"ref": {}, "tied": {}}
    spreads: dict[int, float] = {}
    for row in rows:
        kind, number = _ties_id(row.id)
        right, wrong = _split(row, kind)
        if number in gaps[kind]:
            raise UserError(f"prompt {row.id!r} of Ties is there twice; keep one of them.")
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
    """Return the scores of right and of wrong answers."""
    scores = [_NO_RATING if score is None else score for score in row.scores]
    fault = None
    if not 0 < row.right < len(scores):
        fault = f"has {len(scores)} scores, {row.right} of right answers; it needs right and wrong ones"
    elif kind == "tied" and row.right < 2:
        fault = "has one right answer; a tied one has several"
    elif not all(map(math.isfinite, scores)):
        fault = f"has scores that are not finite numbers: {scores}"
    if fault:
        raise UserError(f"prompt {row.id!r} of Ties {fault}.")
    return scores[: row.right], scores[row.right :]


def _margin(gap: float, spread: float) -> float:
    """Return tanh(gap / spread - 1) where the spread may be 0: 1 or -1 by the sign of the gap, 0 where both are 0."""
    if spread:
        return math.tanh(gap / spread - 1)
    return math.copysign(1.0, gap) if gap else 0.0


def reward_bench_2_score(subsets: Mapping[str, float | None]) -> float | None:
    """Return the leaderboard's score: the plain mean of the six subsets; None unless all six have one."""
    values = [value for name in REWARD_BENCH_2 if (value := subsets.get(name)) is not None]
    return fmean(values) if len(values) == len(REWARD_BENCH_2) else None
