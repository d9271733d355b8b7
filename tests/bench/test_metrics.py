"""Evaluation numbers against hand-worked cases, enumeration, and properties."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_reward.bench import metrics
from r1_reward.schema import Judgment


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


def test_paired_difference_uses_the_pairing():
    # After is right wherever before was, and on 20 of the other 100.
    before = [[vote(1)] for _ in range(100)] + [[vote(2)] for _ in range(100)]
    after = [[vote(1)] for _ in range(120)] + [[vote(2)] for _ in range(80)]
    gain = metrics.paired_difference(after, before, [1] * 200)
    assert gain.mean == pytest.approx(0.1)
    assert 0.05 < gain.low < 0.1 < gain.high < 0.15


def test_position_and_flips():
    always_first = [[vote(1), vote(2, True)], [vote(1), vote(2, True)]]
    assert metrics.accuracy_by_position(always_first, [1, 2]) == {"first": 1.0, "second": 0.0}
    assert metrics.flip_rate(always_first) == 1.0
    steady = [[vote(1), vote(1, True)], [vote(2), vote(None, True)]]
    assert metrics.flip_rate(steady) == 0.0  # the second pair has no second verdict and is left out
    assert metrics.flip_rate([[vote(1)]]) is None


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
