"""Evaluation numbers against hand-worked cases, enumeration, and properties."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from r1_reward.judge import metrics
from r1_reward.judge.voting import majority
from r1_reward.records.schema import Judgment


def vote(answer, swapped=False, tokens=10):
    return Judgment(answer=answer, swapped=swapped, text="", well_formed=answer is not None, tokens=tokens)


def test_accuracy_counts_unreadable_as_wrong_and_averages_pairs():
    judged = [[vote(1), vote(1, True)], [vote(2), vote(None, True)], [vote(1), vote(2, True)]]
    # pair means: 1, 1/2 (label 2: right, unreadable), 0 (label 2 in neither... first wrong, second right) -> 1/2
    assert metrics.correctness(judged, [1, 2, 2]).tolist() == [[1, 1], [1, 0], [0, 1]]
    assert metrics.accuracy(judged, [1, 2, 2]).mean == pytest.approx(2 / 3)
    assert metrics.parse_rate(judged) == pytest.approx(5 / 6)


def test_interval_of_a_known_binomial():
    values = np.array([1.0] * 300 + [0.0] * 100)
    interval = metrics.mean_interval(values)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert interval.mean == 0.75
    assert interval.low == pytest.approx(0.75 - half, abs=0.006)
    assert interval.high == pytest.approx(0.75 + half, abs=0.006)
    assert metrics.mean_interval(values) == interval  # same seed, same numbers


def test_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = 0
    for i in range(300):
        interval = metrics.mean_interval((rng.random(120) < 0.8).astype(float), seed=i, resamples=400)
        covered += interval.low <= 0.8 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_interval_of_nothing_and_of_equal_values():
    with pytest.raises(ValueError, match="no values"):
        metrics.mean_interval(np.array([]))
    assert metrics.mean_interval(np.ones(5)) == (1.0, 1.0, 1.0)


def test_position_and_flips():
    always_first = [[vote(1), vote(2, True)], [vote(1), vote(2, True)]]
    assert metrics.accuracy_by_position(always_first, [1, 2]) == {"first": 1.0, "second": 0.0}
    assert metrics.flip_rate(always_first) == 1.0
    steady = [[vote(1), vote(1, True)], [vote(2), vote(None, True)]]
    assert metrics.flip_rate(steady) == 0.0  # the second pair has no second verdict and is left out
    assert metrics.flip_rate([[vote(1)]]) is None
    several = [vote(1), vote(1), vote(2), vote(1, swapped=True), vote(1, swapped=True), vote(2, swapped=True)]
    assert metrics.flip_rate([several]) == 0.0  # the last vote of an order is not its verdict
    assert metrics.flip_rate([[vote(1), vote(2), vote(1, swapped=True)]]) is None  # a tie is not a verdict


def by_enumeration(right, wrong, unreadable, k):
    votes = [1] * right + [-1] * wrong + [0] * unreadable
    total = []
    for subset in combinations(votes, k):
        balance = sum(subset)
        readable = any(subset)
        total.append(1.0 if balance > 0 else 0.5 if balance == 0 and readable else 0.0)
    return sum(total) / len(total)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 4), st.data())
def test_voting_closed_forms_equal_enumeration(right, wrong, unreadable, data):
    votes = right + wrong + unreadable
    if votes == 0:
        return
    k = data.draw(st.integers(1, votes))
    assert metrics.majority_at_k(right, wrong, unreadable, k) == pytest.approx(
        by_enumeration(right, wrong, unreadable, k)
    )
    any_right = [any(v == 1 for v in s) for s in combinations([1] * right + [0] * (votes - right), k)]
    assert metrics.any_at_k(right, votes, k) == pytest.approx(sum(any_right) / len(any_right))


def judged(answers):
    return [vote(answer) for answer in answers]


@given(st.lists(st.sampled_from([0, 1, 2, None]), min_size=1, max_size=8), st.sampled_from([0, 1, 2]))
@settings(deadline=None, max_examples=60)
def test_majorities_of_votes_with_ties_equal_the_verdicts_of_all_subsets(answers, label):
    curve = metrics.voting_curve([judged(answers)], [label])
    for k in range(1, len(answers) + 1):
        right = [majority(judged(some)).correctness(label) for some in combinations(answers, k)]
        assert curve["majority"][k - 1].mean == pytest.approx(sum(right) / len(right))
        some = [label in subset for subset in combinations(answers, k)]
        assert curve["any"][k - 1].mean == pytest.approx(sum(some) / len(some))


def test_voting_closed_forms_are_exact_for_many_votes():
    # Both sides are equal, so the probability is one half, though the counts of subsets overflow a float.
    assert metrics.majority_at_k(600, 600, 0, 2) == 0.5
    assert metrics.majority_at_k(600, 600, 0, 599) == 0.5
    assert metrics.majority_at_k(601, 599, 0, 1200) == 1.0
    assert metrics.majority_at_k(3, 0, 1997, 1) == 3 / 2000
    assert metrics.any_at_k(1, 2000, 1000) == 0.5
    assert metrics.any_at_k(1, 3000, 1) == 1 / 3000


@given(st.integers(0, 20), st.integers(0, 20))
def test_two_readable_votes_are_as_good_as_one(right, wrong):
    if right + wrong < 2:
        return
    assert metrics.majority_at_k(right, wrong, 0, 2) == pytest.approx(metrics.majority_at_k(right, wrong, 0, 1))


def test_voting_closed_forms_equal_drawing_votes():
    rng = np.random.default_rng(6)
    votes = np.array([1] * 5 + [-1] * 6 + [0] * 4)
    for k in (1, 4, 9):
        drawn = rng.permuted(np.tile(votes, (20_000, 1)), axis=1)[:, :k]
        balance = drawn.sum(axis=1)
        won = np.where(balance == 0, 0.5 * drawn.any(axis=1), balance > 0)
        assert metrics.majority_at_k(5, 6, 4, k) == pytest.approx(won.mean(), abs=4 * won.std() / 20_000**0.5)
        some = (drawn == 1).any(axis=1)
        assert metrics.any_at_k(5, 15, k) == pytest.approx(some.mean(), abs=4 * some.std() / 20_000**0.5 + 1e-9)


def test_more_votes_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="cannot draw 4 of 3"):
        metrics.majority_at_k(1, 1, 1, 4)
    with pytest.raises(ValueError, match="cannot draw 4 of 3"):
        metrics.any_at_k(1, 3, 4)


def test_voting_curve_of_unanimous_and_split_pairs():
    judged = [[vote(1)] * 3, [vote(2)] * 3, [vote(1), vote(1), vote(2)]]
    curve = metrics.voting_curve(judged, [1, 1, 1])
    majority = [interval.mean for interval in curve["majority"]]
    # third pair: 2/3 at k=1; at k=2 a win (1/3) or a tie (2/3, half); certain at k=3
    assert majority == pytest.approx([(1 + 0 + 2 / 3) / 3, (1 + 0 + 2 / 3) / 3, (1 + 0 + 1) / 3])
    assert [interval.mean for interval in curve["any"]] == pytest.approx([(1 + 2 / 3) / 3, 2 / 3, 2 / 3])


def test_curve_from_counts_is_the_mean_of_the_closed_forms():
    counts = np.array([[3, 0, 0], [0, 3, 0], [2, 1, 0], [1, 1, 2]])
    curve = metrics.voting_curve_from_counts(counts, np.array([0, 1, 2, 3]))
    assert [len(curve["majority"]), len(curve["any"])] == [3, 3]
    for k in (1, 2, 3):
        majority = [metrics.majority_at_k(*map(int, count), k) for count in counts]
        some = [metrics.any_at_k(int(count[0]), int(count.sum()), k) for count in counts]
        assert curve["majority"][k - 1].mean == pytest.approx(np.mean(majority))
        assert curve["any"][k - 1].mean == pytest.approx(np.mean(some))
    with pytest.raises(ValueError, match="no rows"):
        metrics.voting_curve_from_counts(np.zeros((0, 3), dtype=int), np.zeros(0, dtype=int))


def test_curve_of_more_than_sixteen_votes_is_whole():
    # Two blocks of k; 20 right votes in one row and 20 wrong ones in another stay at one half throughout.
    curve = metrics.voting_curve_from_counts(np.array([[20, 0, 0], [0, 20, 0], [11, 9, 0]]), np.arange(3))
    assert len(curve["majority"]) == len(curve["any"]) == 20
    expected = [(1 + metrics.majority_at_k(11, 9, 0, k)) / 3 for k in range(1, 21)]
    assert [point.mean for point in curve["majority"]] == pytest.approx(expected)
    assert [point.mean for point in curve["any"]][-1] == pytest.approx(2 / 3)


def test_curve_is_unbiased_for_a_judge_of_known_skill():
    # 15 votes, each right with p = 0.6: the expected majority@k is the binomial's, whatever was drawn.
    rng = np.random.default_rng(7)
    right = rng.binomial(15, 0.6, size=4000)
    curve = metrics.voting_curve_from_counts(np.stack([right, 15 - right, 0 * right], axis=1), np.arange(4000))
    for k in (1, 3, 8, 15):
        ties = stats.binom.pmf(k / 2, k, 0.6) / 2 if k % 2 == 0 else 0.0
        assert curve["majority"][k - 1].mean == pytest.approx(stats.binom.sf(k // 2, k, 0.6) + ties, abs=0.02)
        assert curve["any"][k - 1].mean == pytest.approx(1 - 0.4**k, abs=0.01)


def drawn_means(values, clusters, strata):
    """All means of a cluster bootstrap with their probabilities, by enumeration."""
    members = {c: [i for i, other in enumerate(clusters) if other == c] for c in clusters}
    by_stratum = {}
    for cluster, rows in members.items():
        by_stratum.setdefault(strata[rows[0]], []).append(cluster)
    chances = Counter()
    draws = list(product(*[list(product(group, repeat=len(group))) for group in by_stratum.values()]))
    for draw in draws:
        rows = [i for group in draw for cluster in group for i in members[cluster]]
        chances[round(sum(values[i] for i in rows) / len(rows), 9)] += 1 / len(draws)
    return chances


@pytest.mark.parametrize("strata", [[0] * 7, [0, 0, 0, 1, 1, 1, 1]])
def test_resamples_follow_the_enumerated_cluster_bootstrap(strata):
    values, clusters = [1.0, 1.0, 0.0, 1.0, 0.0, 0.5, 0.0], [4, 4, 5, 6, 6, 6, 9]
    means = metrics.resampled_means(
        np.array(values)[:, None], np.array(clusters), strata=np.array(strata), resamples=20_000
    )
    found = Counter(np.round(means[:, 0], 9).tolist())
    expected = drawn_means(values, clusters, strata)
    assert set(found) <= set(expected)
    for value, chance in expected.items():
        assert found[value] / 20_000 == pytest.approx(chance, abs=0.015)


def test_columns_share_the_draw_and_nan_is_left_out_of_means():
    values = np.array([[1.0, 1.0, np.nan], [0.0, 0.0, 1.0], [1.0, np.nan, np.nan]])
    means = metrics.resampled_means(values, np.arange(3), resamples=500)
    complete = metrics.resampled_means(np.ones((3, 1)), np.arange(3), resamples=500)
    assert (complete == 1).all()
    none = np.isnan(means[:, 2])
    assert 0.2 < none.mean() < 0.4  # row 1 is missing from (2/3)^3 of the draws, and so is every zero
    assert (means[none, 0] == 1).all()
    assert (means[~none, 2] == 1).all()


def test_the_order_of_rows_does_not_change_the_draws():
    # 0.1 + 0.2 + 0.3 is one bit more than 0.3 + 0.2 + 0.1; read backwards, 50 such sums and 25 such change places.
    values = np.array([0.1, 0.2, 0.3] * 50 + [0.3, 0.2, 0.1] * 25 + [0.4, 0.5, 0.6] * 25)[:, None]
    clusters = np.arange(300) // 3
    backwards = metrics.resampled_means(values[::-1], clusters[::-1])
    assert backwards == pytest.approx(metrics.resampled_means(values, clusters))


def test_distinct_clusters_give_the_ordinary_bootstrap():
    values = (np.random.default_rng(3).random(150) < 0.7).astype(float)
    ordinary = metrics.mean_interval(values, resamples=20_000)
    ours = metrics.cluster_interval(values, np.arange(150), resamples=20_000)
    assert ours.mean == ordinary.mean
    assert (ours.low, ours.high) == pytest.approx((ordinary.low, ordinary.high), abs=1 / 150)


def test_degenerate_clusters():
    assert metrics.cluster_interval(np.array([0.0, 1.0, 1.0]), np.zeros(3, dtype=int)) == pytest.approx((2 / 3,) * 3)
    assert metrics.cluster_interval(np.full(9, 0.1), np.arange(9) // 2) == pytest.approx((0.1,) * 3)
    with pytest.raises(ValueError, match="no values"):
        metrics.cluster_interval(np.array([]), np.array([]))


def test_cluster_interval_covers_where_the_naive_one_does_not():
    # 60 ids of 6 pairs each; an id's pairs share its difficulty, so they say less than 360 separate pairs would.
    rng = np.random.default_rng(11)
    clusters = np.repeat(np.arange(60), 6)
    covered = naive = 0
    for i in range(200):
        skill = rng.beta(0.7, 0.3, size=60)
        values = (rng.random(360) < skill[clusters]).astype(float)
        ours = metrics.cluster_interval(values, clusters, seed=i, resamples=400)
        covered += ours.low <= 0.7 <= ours.high
        plain = metrics.cluster_interval(values, np.arange(360), seed=i, resamples=400)
        naive += plain.low <= 0.7 <= plain.high
    assert 0.89 <= covered / 200 <= 0.985
    assert naive / 200 < 0.8


def test_mcnemar_by_hand():
    assert metrics.mcnemar(0, 0) == 1.0
    assert metrics.mcnemar(5, 5) == pytest.approx(1.0)
    assert metrics.mcnemar(6, 0) == pytest.approx(2 / 64)
    assert metrics.mcnemar(1, 7) == metrics.mcnemar(7, 1) == pytest.approx(2 * (1 + 8) / 256)
