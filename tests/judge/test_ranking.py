"""Bradley-Terry by hand and against a slow twin; schedules that keep to their budget and find the right order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from r1_reward.judge import schedules
from r1_reward.judge.comparisons import PRIOR_SD, Comparison, bradley_terry
from r1_reward.judge.ranking import best_of_n, default_budget, rank
from r1_reward.records.errors import UserError

PRIOR_ERROR = 3.0  # PRIOR_SD, written out: the numbers by hand below depend on it


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


class Judge:
    """Knows the worth of every candidate; records the batches it gets."""

    def __init__(self, worth, soft=False, seed=None):
        self.worth, self.soft, self.batches = worth, soft, []
        self.rng = None if seed is None else np.random.default_rng(seed)

    def __call__(self, pairs):
        self.batches.append(list(pairs))
        return [self.one(*pair) for pair in pairs]

    def one(self, first, second):
        gap = self.worth[first] - self.worth[second]
        if self.soft:
            return sigmoid(gap)
        if self.rng is not None:
            return float(self.rng.random() < sigmoid(gap))
        return 0.5 if gap == 0 else float(gap > 0)

    @property
    def asked(self):
        return [pair for batch in self.batches for pair in batch]


def some_comparisons(n, most=25):
    probability = st.none() | st.floats(0, 1)
    places = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] != pair[1])
    return st.lists(st.builds(lambda pair, p: Comparison(*pair, p), places, probability), max_size=most)


def test_one_comparison_by_hand():
    scores, errors = bradley_terry(2, [Comparison(1, 0, 1.0)])
    # With scores -d/2 and d/2 the slope is 1 - sigmoid(d) - (d/2) / 9 = 0.
    gap = optimize.brentq(lambda d: 1 - sigmoid(d) - d / 18, 0, 20)
    assert scores == pytest.approx((-gap / 2, gap / 2))
    # d has precision 1 / (2 * 9) from the prior and q(1 - q) from the answer; a score minus the mean is d / 2.
    deviation = (1 / 18 + sigmoid(gap) * sigmoid(-gap)) ** -0.5
    assert errors == pytest.approx((deviation / 2, deviation / 2))


@pytest.mark.parametrize(
    "comparisons",
    [
        [(0, 1, 0.5), (1, 2, 0.5)],
        [(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0)],  # a circle
        [(0, 1, 0.8), (1, 0, 0.8), (2, 1, None)],  # a judge that names the first
        [(0, 1, None), (1, 2, None)],
        [],
    ],
)
def test_nothing_to_tell_apart_is_zero(comparisons):
    scores, errors = bradley_terry(3, [Comparison(*one) for one in comparisons])
    assert scores == pytest.approx((0, 0, 0), abs=1e-12)
    assert all(0 < error <= PRIOR_ERROR * math.sqrt(2 / 3) + 1e-12 for error in errors)


def test_candidates_without_answers_keep_the_prior():
    _, errors = bradley_terry(5, [Comparison(0, 1, None)])
    assert errors == pytest.approx([PRIOR_ERROR * math.sqrt(1 - 1 / 5)] * 5)
    assert bradley_terry(1, []) == ((0.0,), (0.0,))


def test_islands_have_no_common_scale_but_finite_scores():
    scores, errors = bradley_terry(5, [Comparison(0, 1, 1.0), Comparison(2, 3, 0.9)])
    assert scores[0] == pytest.approx(-scores[1]) and scores[2] == pytest.approx(-scores[3])
    assert scores[0] > scores[2] > scores[4] == pytest.approx(0)
    assert errors[4] == pytest.approx(PRIOR_ERROR * math.sqrt(4 / 5))
    assert max(errors[:4]) < errors[4]


def slow_twin(n, comparisons):
    """The same maximum by a general optimizer, the covariance by inverting a sum over comparisons in a loop."""
    read = [one for one in comparisons if one.probability is not None]

    def loss(scores):
        total = sum(s * s for s in scores) / (2 * PRIOR_ERROR**2)
        for i, j, p in read:
            total += p * math.log1p(math.exp(scores[j] - scores[i]))
            total += (1 - p) * math.log1p(math.exp(scores[i] - scores[j]))
        return total

    scores = optimize.minimize(loss, np.zeros(n), method="BFGS", options={"gtol": 1e-8}).x
    matrix = [[(i == j) / PRIOR_ERROR**2 for j in range(n)] for i in range(n)]
    for i, j, _ in read:
        weight = sigmoid(scores[i] - scores[j]) * sigmoid(scores[j] - scores[i])
        matrix[i][i] += weight
        matrix[j][j] += weight
        matrix[i][j] -= weight
        matrix[j][i] -= weight
    centre = np.eye(n) - 1 / n
    covariance = centre @ np.linalg.inv(matrix) @ centre
    return scores, np.sqrt(np.diag(covariance))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_scores_and_errors_equal_a_slow_twin(data):
    n = data.draw(st.integers(2, 6))
    comparisons = data.draw(some_comparisons(n))
    scores, errors = bradley_terry(n, comparisons)
    slow_scores, slow_errors = slow_twin(n, comparisons)
    assert scores == pytest.approx(slow_scores, abs=1e-4)
    assert errors == pytest.approx(slow_errors, abs=1e-4)


@settings(deadline=None)
@given(st.data())
def test_relabeling_permutes_and_scores_sum_to_zero(data):
    n = data.draw(st.integers(1, 7))
    comparisons = data.draw(some_comparisons(n)) if n > 1 else []
    names = data.draw(st.permutations(range(n)))
    renamed = [Comparison(names[i], names[j], p) for i, j, p in comparisons]
    for plain, moved in zip(bradley_terry(n, comparisons), bradley_terry(n, renamed), strict=True):
        assert plain == pytest.approx([moved[name] for name in names], abs=1e-7)
    assert sum(bradley_terry(n, comparisons)[0]) == pytest.approx(0, abs=1e-9)


def test_swapping_a_comparison_changes_nothing():
    given_, turned = [Comparison(0, 1, 0.7), Comparison(1, 2, 0.9)], [Comparison(1, 0, 0.3), Comparison(2, 1, 0.1)]
    for one, other in zip(bradley_terry(3, given_), bradley_terry(3, turned), strict=True):
        assert one == pytest.approx(other)


@pytest.mark.parametrize(
    "repeated",
    [
        [(5000, 0, 1, 1.0), (3, 2, 1, 1.0), (700, 3, 2, 0.0)],
        [  # full Newton steps diverge here
            (3000, 0, 3, 0.99),
            (3000, 3, 2, 0.99),
            (300, 5, 2, 0.0),
            (30, 0, 4, 1.0),
            (3, 4, 5, 0.0),
            (3, 4, 5, 0.5),
            (1, 2, 0, 0.01),
            (1, 0, 1, 0.01),
        ],
    ],
)
def test_many_extreme_answers_converge(repeated):
    answers = [Comparison(*one) for times, *one in repeated for _ in range(times)]
    scores, _ = bradley_terry(6, answers)
    for candidate in range(6):  # the slope of the log-posterior is 0
        slope = -scores[candidate] / PRIOR_SD**2
        for i, j, p in answers:
            slope += ((candidate == i) - (candidate == j)) * (p - sigmoid(scores[i] - scores[j]))
        assert slope == pytest.approx(0, abs=1e-7)


def test_errors_cover_the_truth():
    # Worths drawn from the prior: scores are within two errors about 95 times in 100.
    rng, inside = np.random.default_rng(1), []
    for seed in range(40):
        worth = rng.normal(0, PRIOR_SD, 8)
        judge = Judge(worth, seed=seed)
        pairs = [(i, j) for i in range(8) for j in range(i)] * 2
        scores, errors = bradley_terry(8, [Comparison(*pair, p) for pair, p in zip(pairs, judge(pairs), strict=True)])
        inside += list(np.abs(worth - worth.mean() - scores) < 2 * np.array(errors))
    assert 0.91 < np.mean(inside) < 0.99


@pytest.mark.parametrize(
    "bad",
    [(0, 0, 0.5), (0, 3, 0.5), (-1, 0, 0.5), (0, 1, 1.2), (0, 1, -0.1), (0, 1, math.nan)],
)
def test_impossible_comparisons_are_refused(bad):
    with pytest.raises(ValueError, match="does not compare|not in"):
        bradley_terry(3, [Comparison(*bad)])


def test_few_candidates_are_compared_in_full_in_one_batch():
    judge = Judge([3, 1, 2, 0, 5, 4, 7, 6])
    result = rank(8, judge)
    assert result.order == (6, 7, 4, 5, 0, 2, 1, 3)
    assert len(judge.batches) == 1 and len(judge.asked) == 28
    assert len({frozenset(pair) for pair in judge.asked}) == 28
    assert [(one.first, one.second) for one in result.comparisons] == judge.asked
    assert (result.scores, result.standard_errors) == bradley_terry(8, result.comparisons)
    # The index does not decide which one is shown first.
    assert 4 < sum(first < second for first, second in judge.asked) < 24


def test_a_budget_for_all_pairs_is_a_round_robin():
    for budget in (190, 10_000):
        judge = Judge(range(20))
        assert rank(20, judge, budget=budget).order == tuple(reversed(range(20)))
        assert len(judge.batches) == 1 and len(judge.asked) == 190


def test_default_budget_by_hand():
    assert [default_budget(n) for n in (1, 2, 8, 9, 16, 200)] == [0, 1, 28, 29, 64, 1529]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.none() | st.integers(0, 300), st.integers(0, 5), st.booleans())
def test_rank_keeps_to_its_budget_in_rounds_of_disjoint_pairs(n, budget, seed, unreadable):
    judge = Judge(list(range(n)))
    every = n * (n - 1) // 2

    def compare(pairs):
        answers = judge(pairs)
        return [None] * len(pairs) if unreadable else answers

    result = rank(n, compare, budget=budget, seed=seed)
    asked = [(one.first, one.second) for one in result.comparisons]
    assert asked == judge.asked
    assert len(asked) == min(every, default_budget(n) if budget is None else budget)
    assert len({frozenset(pair) for pair in asked}) == len(asked)  # no pair twice
    assert all(first != second for first, second in asked)
    if len(asked) < every:
        for batch in judge.batches:
            assert len({candidate for pair in batch for candidate in pair}) == 2 * len(batch) > 0
    assert sorted(result.order) == list(range(n))
    assert sum(result.scores) == pytest.approx(0, abs=1e-9)
    if unreadable:
        assert result.order == tuple(range(n))
    by_score = [result.scores[i] for i in result.order]
    assert all(better >= worse - 1e-8 for better, worse in zip(by_score, by_score[1:], strict=False))


def test_rounds_fill_a_batch():
    judge = Judge(range(30))
    rank(30, judge)
    assert len(judge.asked) == default_budget(30)
    assert len(judge.batches[0]) == 15  # a perfect matching
    assert len(judge.batches) <= 1.5 * default_budget(30) / 15


def test_twenty_candidates_are_ordered_by_a_perfect_judge():
    correlations = []
    for seed in range(10):
        worth = np.random.default_rng(seed).permutation(20)
        result = rank(20, Judge(worth), seed=seed)
        correlations.append(stats.kendalltau(result.scores, worth)[0])
        assert result.order[0] == np.argmax(worth)
    # Measured: 0.98 to 1. Half of all pairs, chosen at random, reach 0.90.
    assert min(correlations) > 0.95 and np.mean(correlations) > 0.98


@pytest.mark.parametrize(("noisy", "margin"), [(False, 0.05), (True, 0.0)])
def test_chosen_pairs_beat_random_pairs(noisy, margin):
    n, budget, gains = 20, 60, []
    for seed in range(24):
        rng = np.random.default_rng(100 + seed)
        worth = rng.normal(0, 3, n)
        judge_seed = seed if noisy else None
        chosen = rank(n, Judge(worth, seed=judge_seed), budget=budget, seed=seed).scores
        pairs = rng.permutation([(i, j) for i in range(n) for j in range(i)])[:budget].tolist()
        answers = Judge(worth, seed=judge_seed)(pairs)
        at_random, _ = bradley_terry(n, [Comparison(*pair, p) for pair, p in zip(pairs, answers, strict=True)])
        gains.append(stats.kendalltau(chosen, worth)[0] - stats.kendalltau(at_random, worth)[0])
    assert np.mean(gains) > margin


def test_equal_scores_go_by_index():
    tiers = Judge([0, 0, 0, 1, 1, 1, 2, 2])
    assert {rank(8, tiers, seed=seed).order for seed in range(10)} == {(6, 7, 3, 4, 5, 0, 1, 2)}


def test_a_soft_judge_gives_back_its_gaps():
    worth = np.linspace(-2, 2, 12)
    result = rank(12, Judge(worth, soft=True), budget=66)
    assert result.order == tuple(reversed(range(12)))
    assert np.corrcoef(result.scores, worth)[0, 1] > 0.999


def test_rank_depends_only_on_the_seed():
    judges = [Judge(range(15)) for _ in range(3)]
    results = [rank(15, judge, seed=seed) for judge, seed in zip(judges, (4, 4, 5), strict=True)]
    assert judges[0].batches == judges[1].batches and results[0] == results[1]
    assert judges[0].batches != judges[2].batches


def test_with_a_budget_of_zero_nothing_is_known():
    def never(pairs):
        raise AssertionError

    result = rank(4, never, budget=0)
    assert result[:2] == ((0, 1, 2, 3), (0.0,) * 4)
    assert result.standard_errors == pytest.approx([PRIOR_ERROR * math.sqrt(3 / 4)] * 4)
    assert rank(1, never) == ((0,), (0.0,), (0.0,), ())


def test_unreadable_comparisons_are_left_out_of_the_scores():
    perfect = Judge([5, 4, 3, 2, 1, 0])

    def compare(pairs):
        return [None if 2 in pair else p for pair, p in zip(pairs, perfect(pairs), strict=True)]

    result = rank(6, compare)
    assert sum(one.probability is None for one in result.comparisons) == 5
    assert result.scores[2] == pytest.approx(0)
    assert [i for i in result.order if i != 2] == [0, 1, 3, 4, 5]
    assert result.standard_errors[2] == max(result.standard_errors)


def test_judges_that_break_the_contract_are_refused():
    for use in (lambda compare: rank(12, compare), lambda compare: best_of_n(12, compare)):
        with pytest.raises(ValueError):
            use(lambda pairs: [0.5] * (len(pairs) + 1))
        for bad in (1.5, math.nan):
            with pytest.raises(ValueError, match="not in"):
                use(lambda pairs, bad=bad: [bad] * len(pairs))


def test_no_candidates_or_a_negative_budget_is_an_error():
    for use in (rank, best_of_n):
        with pytest.raises(UserError, match="no candidates"):
            use(0, Judge([]))
    with pytest.raises(UserError, match="no candidates"):
        bradley_terry(0, [])
    with pytest.raises(UserError, match="budget"):
        rank(3, Judge(range(3)), budget=-1)


@settings(deadline=None)
@given(st.integers(1, 33), st.integers(0, 3))
def test_the_best_wins_a_knockout(n, seed):
    worth = np.random.default_rng(seed).permutation(n)
    judge = Judge(worth)
    winner, comparisons = best_of_n(n, judge, seed=seed)
    assert worth[winner] == n - 1
    assert len(comparisons) == n - 1
    assert len(judge.batches) == math.ceil(math.log2(n)) if n > 1 else not judge.batches
    for batch in judge.batches:
        assert len({candidate for pair in batch for candidate in pair}) == 2 * len(batch)
    losers = {pair[one.probability == 1] for pair, one in zip(judge.asked, comparisons, strict=True)}
    assert losers == set(range(n)) - {winner}
    assert best_of_n(n, Judge(worth), seed=seed) == (winner, comparisons)


@pytest.mark.parametrize("verdict", [None, 0.5])
@pytest.mark.parametrize("clearer", [0, 1])
def test_without_a_verdict_the_clearer_earlier_win_decides(verdict, clearer):
    for seed in range(8):
        rounds = []

        def compare(pairs, rounds=rounds):
            rounds.append(pairs)
            # The second of one pair wins clearly, the first of the other narrowly.
            return [verdict] if len(pairs) == 1 else [0.1 if i == clearer else 0.6 for i in range(2)]

        winner, comparisons = best_of_n(4, compare, seed=seed)
        assert winner == rounds[0][clearer][1]
        assert comparisons[-1].probability == verdict


def test_without_any_verdict_the_draw_decides():
    winners = [best_of_n(2, lambda pairs: [None], seed=seed)[0] for seed in range(200)]
    assert 70 < sum(winners) < 130
    shown = [best_of_n(2, lambda pairs: [1.0], seed=seed)[0] for seed in range(200)]
    assert 70 < sum(shown) < 130  # the draw is random too


def test_information_prefers_close_and_unknown_pairs():
    pairs = np.array([[0, 1], [0, 2], [0, 3]])
    scores = np.array([0.0, 0.0, 3.0, 0.0])
    covariance = np.diag([1.0, 1.0, 1.0, 4.0])
    covariance[0, 1] = covariance[1, 0] = 0.4
    value = schedules._information(pairs, scores, covariance)
    assert value == pytest.approx([0.25 * (2 - 0.8), sigmoid(3) * sigmoid(-3) * 2, 0.25 * 5])
    assert schedules._disjoint(np.array([[0, 1], [2, 3], [1, 2], [4, 5]]), np.array([1, 2, 3, 0.5]), 9) == [2, 3]
