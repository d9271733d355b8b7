"""Count the votes of a run, row by row, and compute all reported numbers.

    tally = Tally()
    for outcome in outcomes:            # 50,000 rows take a few megabytes: only counts are kept
        tally.add(outcome)
    tally.summary(rule="wrong")         # a dict that json.dumps takes
    compare_tallies(before, after)      # paired difference, McNemar

The numbers are defined in :mod:`r1_reward.bench.metrics`.
"""

from __future__ import annotations

import random
from array import array
from bisect import insort
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, TypedDict

import numpy as np

from r1_reward.bench import metrics
from r1_reward.bench.benchmark import OfficialScore
from r1_reward.bench.metrics import RULES, Counts, Rule
from r1_reward.bench.rows import Outcome, Vote
from r1_reward.judge.metrics import Interval, cluster_interval, mcnemar, voting_curve_from_counts
from r1_reward.records.errors import UserError

_LISTED_ISSUES = 100
_COIN_SEED = 123
_RIGHT, _WRONG, _UNREADABLE, _THIRD = 0, 3, 6, 9
_COIN = 12
_COUNTS = 13
"""Right, wrong, unreadable and third votes by position of the preferred response (first, second, unknown); coins."""


class _Known(TypedDict):
    """Sum and number of the votes for which a value is known."""

    total: int
    votes: int


class Tally:
    """Vote counts over a benchmark's rows; rows may be added in any order, each once.

    ``keep`` also keeps the outcomes, for a benchmark with an official score (at most some thousand rows). ``cluster``
    maps an id to its cluster; rows of a cluster are not independent.
    """

    def __init__(self, *, keep: bool = False, cluster: Callable[[str], str] = str) -> None:
        self._cluster = cluster
        self._labels = 0
        self._kept: list[Outcome] | None = [] if keep else None
        self._index, self._ids = array("q"), array("Q")
        self._category, self._paper = array("i"), array("i")
        self._issue, self._longer, self._tied = array("b"), array("b"), array("b")
        self._counts = array("i")
        self._passes = 0
        self._category_codes: dict[str, int] = {}
        self._paper_codes: dict[str, int] = {}
        self._issues: list[tuple[int, str, str]] = []
        self._tokens, self._characters = _Known(total=0, votes=0), _Known(total=0, votes=0)
        self._truncated = _Known(total=0, votes=0)
        # One random stream over the whole file, as in the official script.
        self._coin = random.Random(_COIN_SEED)

    def __len__(self) -> int:
        return len(self._index)

    def add(self, outcome: Outcome) -> None:
        """Count one row's votes.

        Raises:
            UserError: a pass has no votes, or the row does not have one or two passes, as many as the rows before it.
        """
        self._check(outcome)
        if self._kept is not None:
            self._kept.append(outcome)
        self._passes = len(outcome.passes)
        self._index.append(outcome.index)
        # A hash takes 8 bytes; the id in a dict would take 200.
        digest = blake2b(self._cluster(outcome.id).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._ids.append(int.from_bytes(digest, "little"))
        self._category.append(_code(self._category_codes, outcome.category))
        self._paper.append(_code(self._paper_codes, outcome.paper_category))
        self._longer.append(Counts.UNKNOWN if outcome.longer is None else outcome.longer)
        self._issue.append(outcome.issue is not None)
        self._tied.append(outcome.preferred == 0)
        self._labels += outcome.preferred is not None
        if outcome.issue is not None:
            insort(self._issues, (outcome.index, outcome.id, outcome.issue))
            del self._issues[_LISTED_ISSUES:]
        for votes in outcome.passes:
            self._counts.extend(self._count(votes))

    def _check(self, outcome: Outcome) -> None:
        where = f"row {outcome.index} (id {outcome.id!r})"
        if len(outcome.passes) not in (1, 2):
            raise UserError(f"{where} has {len(outcome.passes)} passes of votes; there must be one, or one per order")
        if self._passes and len(outcome.passes) != self._passes:
            raise UserError(
                f"{where} has {len(outcome.passes)} passes, but the rows before it have {self._passes}; all rows of a "
                "file must have the same number: finish the run, or score its parts separately"
            )
        for number, votes in enumerate(outcome.passes, start=1):
            if not votes:
                raise UserError(f"{where} has no votes in pass {number}; judge the row again or remove it")

    def _count(self, votes: Sequence[Vote]) -> list[int]:
        counts = [0] * _COUNTS
        for vote in votes:
            position = 2 if vote.preferred_first is None else 0 if vote.preferred_first else 1
            kind = _UNREADABLE if vote.correct is None else _RIGHT if vote.correct else _WRONG
            kind = _THIRD if vote.third else kind
            counts[kind + position] += 1
            if vote.correct is None:
                heads = self._coin.random() < 0.5
                counts[_COIN] += heads if vote.preferred_first is None else heads == vote.preferred_first
            for known, value in (
                (self._tokens, vote.tokens),
                (self._characters, vote.characters),
                (self._truncated, vote.truncated),
            ):
                if value is not None:
                    known["total"] += value
                    known["votes"] += 1
        return counts

    @property
    def truncated(self) -> float | None:
        """Share of the votes that were cut by the token limit, in [0, 1]; None if unknown."""
        return _ratio(self._truncated["total"], self._truncated["votes"])

    def counts(self) -> Counts:
        """Return the counts as arrays.

        Raises:
            UserError: a row was added twice.
        """
        index = np.array(self._index, dtype=np.int64)
        positions, times = np.unique(index, return_counts=True)
        if (times > 1).any():
            raise UserError(f"row {positions[times > 1][0]} has more than one set of votes; keep one of them")
        counts = np.array(self._counts, dtype=np.int32).reshape(len(self), max(self._passes, 1), _COUNTS)
        kinds = (_RIGHT, _WRONG, _UNREADABLE, _THIRD)
        right, wrong, unreadable, third = (counts[:, :, kind : kind + 3] for kind in kinds)
        category, categories = _by_name(self._category, self._category_codes)
        paper, paper_categories = _by_name(self._paper, self._paper_codes)
        return Counts(
            index=index,
            ids=np.array(self._ids, dtype=np.uint64),
            category=category,
            categories=categories,
            paper=paper,
            paper_categories=paper_categories,
            issue=np.array(self._issue, dtype=bool),
            longer=np.array(self._longer, dtype=np.int8),
            right=right,
            wrong=wrong,
            third=third,
            unreadable=unreadable,
            coin=counts[:, :, _COIN],
            tied=np.array(self._tied, dtype=bool),
        )

    def summary(
        self,
        *,
        rule: Rule = "wrong",
        seed: int = 0,
        resamples: int = 2000,
        acc_plus: bool = False,
        categories: Sequence[str] | None = None,
        official: OfficialScore | None = None,
    ) -> dict[str, Any]:
        """Return all reported numbers: fractions in [0, 1], None if undefined.

        ``rule`` says how an unreadable vote counts, ``categories`` gives the order of the categories (others follow by
        name). ``official`` is the benchmark's official score, which requires ``keep``. In the result, ``n`` counts the
        rows in the denominator, ``rows`` all rows, and ``ties`` the rows whose label is a tie (None if labels are
        unknown). ``voting_curve`` always uses the rule ``wrong``.

        Raises:
            UserError: unknown rule, or a row was added twice.
        """
        _check_rule(rule)
        counts = self.counts()
        passes = metrics.correctness(counts, rule)
        rows = metrics.row_means(passes)
        found = metrics.intervals(counts, passes, seed=seed, resamples=resamples)
        by_category = _categories(rows, counts.category, counts.categories, found.categories, categories or ())
        paper = _categories(rows, counts.paper, counts.paper_categories, found.paper_categories, categories or ())
        if acc_plus:
            plus = metrics.acc_plus(counts, passes)
            for name, value, ids in zip(counts.categories, plus.categories, plus.ids, strict=True):
                by_category[name] |= {"acc_plus": _number(value), "ids": ids}
        groupings = {
            "official": {"categories": by_category, "macro": _number(found.macro.mean)},
            "paper": {"categories": paper, "macro": _number(found.paper_macro.mean)},
        }
        return {
            "rows": len(self),
            "ties": sum(self._tied) if self._labels == len(self) else None,
            "n": _count_known(rows),
            "votes": _votes(counts).min().item() if len(self) else None,
            "passes": self._passes,
            "rule": rule,
            "overall": _number(found.overall.mean),
            "macro": _number(found.macro.mean),
            "acc_plus": _number(found.acc_plus.mean) if acc_plus else None,
            "categories": by_category,
            "groupings": groupings if counts.paper_categories else {},
            "intervals": {
                "overall": _bounds(found.overall),
                "macro": _bounds(found.macro),
                "acc_plus": _bounds(found.acc_plus) if acc_plus else None,
            }
            | ({"paper_macro": _bounds(found.paper_macro)} if counts.paper_categories else {}),
            "rules": {other: _plain(counts, metrics.correctness(counts, other)) for other in RULES},
            **_votes_apart(counts),
            "truncated": self.truncated,
            "mean_tokens": _ratio(self._tokens["total"], self._tokens["votes"]),
            "mean_characters": _ratio(self._characters["total"], self._characters["votes"]),
            "baselines": _baselines(counts, acc_plus),
            "official": None if official is None else official_score(official, self._kept or [], seed=seed),
            "known_issues": self._known_issues(counts, rows),
            "voting_curve": _voting_curve(counts, seed, resamples),
        }

    def _known_issues(self, counts: Counts, rows: np.ndarray) -> dict[str, Any]:
        """Return the score without the suspect rows, and a list of them."""
        apart = None
        if counts.issue.any():
            kept = rows[~counts.issue]
            apart = {"overall": _number(metrics.mean(kept)), "n": _count_known(kept)}
        listed = [{"index": index, "id": id_, "issue": issue} for index, id_, issue in self._issues]
        return {"n": int(counts.issue.sum()), "without_them": apart, "rows": listed}


def official_score(
    official: OfficialScore, outcomes: Sequence[Outcome], *, seed: int = 0, resamples: int = 500
) -> dict[str, Any]:
    """Return a benchmark's official numbers with 95 % percentile bootstrap intervals, None if undefined.

    Clusters are resampled with replacement within each category, as for the other intervals.
    """
    clusters: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda one: one.index):
        clusters.setdefault(official.cluster(outcome), []).append(outcome)
    strata: dict[str, list[Any]] = {}
    for members in clusters.values():
        strata.setdefault(members[0].category or "", []).append(official.read(members))
    values = official.numbers([one for own in strata.values() for one in own])
    drawn: dict[str, list[float]] = {name: [] for name in values}
    generator = np.random.default_rng(seed)
    for _ in range(resamples if outcomes else 0):
        sample = [own[i] for own in strata.values() for i in generator.integers(len(own), size=len(own)).tolist()]
        for name, value in official.numbers(sample).items():
            if value is not None:
                drawn[name].append(value)
    bounds = {
        name: np.percentile(found, [2.5, 97.5]).tolist() if found and values[name] is not None else None
        for name, found in drawn.items()
    }
    return {"about": official.about, "values": dict(values), "intervals": bounds}


def compare_tallies(a: Tally, b: Tally, *, rule: Rule = "wrong", seed: int = 0) -> dict[str, Any]:
    """Return ``b`` minus ``a`` on the rows that both score, joined by position in the benchmark's file.

    The 95 % interval of the difference resamples ids; ``mcnemar`` counts the rows whose correctness rose or fell and
    tests the split, treating rows as independent. ``a`` and ``b`` give the shares of their votes that could be parsed
    and that were cut by the token limit.

    Raises:
        UserError: unknown rule, a row was added twice, or the two tallies have different ids at one position.
    """
    _check_rule(rule)
    counted = a.counts(), b.counts()
    scores = [metrics.row_means(metrics.correctness(counts, rule)) for counts in counted]
    _, in_a, in_b = np.intersect1d(counted[0].index, counted[1].index, assume_unique=True, return_indices=True)
    other = counted[0].ids[in_a] != counted[1].ids[in_b]
    if other.any():
        raise UserError(
            f"row {counted[0].index[in_a][other][0]} has different ids in the two runs: they are on different "
            "benchmarks or versions, and cannot be compared row by row"
        )
    difference = scores[1][in_b] - scores[0][in_a]
    shared = ~np.isnan(difference)
    n, better, worse = int(shared.sum()), int((difference > 0).sum()), int((difference < 0).sum())
    interval = Interval(float("nan"), float("nan"), float("nan"))
    if n:
        clusters, strata = counted[0].ids[in_a][shared], counted[0].strata()[in_a][shared]
        interval = cluster_interval(difference[shared], clusters, strata=strata, seed=seed)
    return {
        "n": n,
        "a_only": _count_known(scores[0]) - n,
        "b_only": _count_known(scores[1]) - n,
        "rule": rule,
        "difference": {name: _number(value) for name, value in interval._asdict().items()},
        "mcnemar": {"better": better, "worse": worse, "p": mcnemar(better, worse)},
        **{
            name: {"parse_rate": _votes_apart(counts)["parse_rate"], "truncated": tally.truncated}
            for name, tally, counts in zip("ab", (a, b), counted, strict=True)
        },
    }


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise UserError(f"unknown rule {rule!r} for unreadable votes; choose one of {', '.join(RULES)}")


def _code(codes: dict[str, int], name: str | None) -> int:
    return -1 if name is None else codes.setdefault(name, len(codes))


def _by_name(codes: array[int], names: dict[str, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Renumber the codes alphabetically by name, so that the order of the rows does not affect any random draw."""
    ordered = tuple(sorted(names))
    rank = np.array([ordered.index(name) for name in names] + [-1])  # code -1 indexes the last entry
    return rank[np.array(codes, dtype=np.int64)], ordered


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _bounds(interval: Interval) -> list[float] | None:
    return None if np.isnan(interval.mean) else [interval.low, interval.high]


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _count_known(values: np.ndarray) -> int:
    return int((~np.isnan(values)).sum())


def _shown(counts: Counts) -> np.ndarray:
    """Return (n, P, 3) votes of any kind, by position."""
    return counts.right + counts.wrong + counts.third + counts.unreadable


def _votes(counts: Counts) -> np.ndarray:
    return _shown(counts).sum(axis=2)


def _categories(
    rows: np.ndarray, group: np.ndarray, names: Sequence[str], found: Sequence[Interval], first: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return accuracy, n and bounds by category, starting with those in ``first``, in that order."""
    entries = {}
    for name, part, interval in zip(names, metrics.split(rows, group, len(names)), found, strict=True):
        mean, low, high = map(_number, interval)
        entries[name] = {"accuracy": mean, "n": _count_known(part), "low": low, "high": high}
    return {name: entries[name] for name in (*(name for name in first if name in entries), *entries)}


def _plain(counts: Counts, passes: np.ndarray) -> dict[str, Any]:
    """Return overall, macro and n of (n, P) correctness, without intervals."""
    rows = metrics.row_means(passes)
    parts = metrics.split(rows, counts.category, len(counts.categories))
    macro = metrics.macro([metrics.mean(part) for part in parts])
    return {"overall": _number(metrics.mean(rows)), "macro": _number(macro), "n": _count_known(rows)}


def _votes_apart(counts: Counts) -> dict[str, Any]:
    """Return vote-level numbers: the share of readable votes, position bias and flip rate."""
    right, wrong, third = (part.sum(axis=(0, 1)) for part in (counts.right, counts.wrong, counts.third))
    first, second, unknown = _shown(counts).sum(axis=(0, 1))
    named_first, named = right[0] + wrong[1], right[:2].sum() + wrong[:2].sum()
    share = _ratio(named_first, named)
    constant = None
    # If the preferred response is always at the same position, a perfect judge looks constant, too.
    places = right[:2] + wrong[:2]
    if share is not None and named >= 20 and places.min() >= 0.2 * named:
        constant = "always 1" if share >= 0.99 else "always 2" if share <= 0.01 else None
    by_position = {"first": _ratio(right[0], first), "second": _ratio(right[1], second)}
    return {
        "parse_rate": _ratio(float((right + wrong + third).sum()), float(first + second + unknown)),
        "by_position": by_position if first + second else {},
        "flip_rate": _flip_rate(counts),
        "first_share": share,
        "constant": constant,
    }


def _flip_rate(counts: Counts) -> float | None:
    """Return the share of rows whose two majorities choose different responses, among rows where both choose one."""
    if counts.right.shape[1] != 2:
        return None
    right, wrong, third = (part.sum(axis=2) for part in (counts.right, counts.wrong, counts.third))
    tied = counts.tied[:, None]
    one, two, ties = np.where(tied, wrong, right), np.where(tied, third, wrong), np.where(tied, right, third)
    lead = np.where(ties > np.maximum(one, two), 0, np.sign(one - two))
    decided = lead[(lead != 0).all(axis=1)]
    return _ratio((decided[:, 0] != decided[:, 1]).sum(), len(decided))


def _baselines(counts: Counts, acc_plus: bool) -> dict[str, dict[str, float | None] | None]:
    """Return the scores of trivial baselines on all rows.

    ``always_1`` chooses the first response in the orders in which the votes were shown; ``longer`` and ``shorter`` are
    wrong if both responses have the same length; ``random`` is the expectation of a coin. None if unknown.
    """
    first, second, unknown = np.moveaxis(_shown(counts), 2, 0)
    guesses: dict[str, np.ndarray | None] = {"always_1": None, "longer": None, "shorter": None}
    if not unknown.any():
        guesses["always_1"] = np.where(first == second, 0.5, first > second)
    if not (counts.longer == Counts.UNKNOWN).any():
        guesses |= {"longer": (counts.longer[:, None] == 1) * 1.0, "shorter": (counts.longer[:, None] == -1) * 1.0}
    guesses["random"] = np.full((len(counts.index), 1), 0.5)
    scores: dict[str, dict[str, float | None] | None] = {}
    for name, passes in guesses.items():
        scores[name] = None
        if passes is not None:
            plain = _plain(counts, passes)
            plus = _number(metrics.acc_plus(counts, passes).overall) if acc_plus else None
            scores[name] = {"overall": plain["overall"], "macro": plain["macro"], "acc_plus": plus}
    return scores


def _voting_curve(counts: Counts, seed: int, resamples: int) -> dict[str, list[dict[str, float]]] | None:
    """Return majority@k and any@k; each pass of a row is one set of votes, and all passes of a row form a cluster."""
    passes = counts.right.shape[1]
    if not len(counts.index) or _votes(counts).min() < 2:
        return None
    parts = (counts.right, counts.wrong, counts.unreadable, counts.third)
    votes = np.stack([*(part.sum(axis=2).ravel() for part in parts), np.repeat(counts.tied, passes)], axis=1)
    curve = voting_curve_from_counts(
        votes,
        np.repeat(counts.ids, passes),
        strata=np.repeat(counts.strata(), passes),
        seed=seed,
        resamples=resamples,
    )
    return {kind: [interval._asdict() for interval in intervals] for kind, intervals in curve.items()}
