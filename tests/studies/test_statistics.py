"""Intervals and tests over pairs and seeds, against hand-worked numbers and textbook values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from r1_reward.records.schema import Judgment
from r1_reward.studies import report, statistics


def vote(answer):
    return Judgment(answer=answer, swapped=False, text="", well_formed=True, tokens=10)


def test_paired_difference_uses_the_pairing():
    # After is right wherever before was, and on 20 of the other 100.
    before = [[vote(1)] for _ in range(100)] + [[vote(2)] for _ in range(100)]
    after = [[vote(1)] for _ in range(120)] + [[vote(2)] for _ in range(80)]
    gain = statistics.paired_difference(after, before, [1] * 200)
    assert gain.mean == pytest.approx(0.1)
    assert 0.05 < gain.low < 0.1 < gain.high < 0.15


def test_t_interval_by_hand():
    # 0.70, 0.74, 0.78: mean 0.74, standard deviation 0.04, t(2) = 4.3027
    interval = statistics.mean_over_seeds([0.70, 0.74, 0.78])
    assert interval.mean == pytest.approx(0.74)
    assert interval.high - interval.mean == pytest.approx(4.302653 * 0.04 / math.sqrt(3))
    assert math.isnan(statistics.mean_over_seeds([0.7]).low)


def test_shares_stay_shares():
    interval = statistics.share_over_seeds([0.99, 1.0, 1.0])
    assert interval.high == 1.0 and interval.low == statistics.mean_over_seeds([0.99, 1.0, 1.0]).low
    assert statistics.share_over_seeds([0.0, 0.1]).low == 0.0
    assert math.isnan(statistics.share_over_seeds([0.5]).high)


def test_rates_have_exact_intervals():
    none = statistics.rate(0, 8)
    assert (none.mean, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 8))
    assert statistics.rate(8, 8).low == pytest.approx(0.025 ** (1 / 8))


def test_fisher_by_hand():
    # All tables with margins 4, 4, 4, 4: only the two extreme ones are as unlikely, 2 of 70.
    assert statistics.fisher(0, 4, 4, 4) == pytest.approx(2 / 70)
    assert statistics.fisher(2, 2, 4, 4) == pytest.approx(1.0)


def test_detectable_rates_are_the_nearest_with_power():
    n = 8
    below, above = statistics.detectable_rates(n)
    significant = [k for k in range(n + 1) if statistics.fisher(0, k, n, n) < 0.05]
    assert significant == [5, 6, 7, 8]  # Fisher: 4 of 8 against none has p = 0.077
    assert stats.binom.sf(4, n, above) >= 0.8 > stats.binom.sf(4, n, above - 0.01)
    assert below is None
    assert statistics.detectable_rates(n, n) == pytest.approx((1 - above, None))  # the mirror image
    assert statistics.detectable_rates(3) == (None, None)  # 3 of 3 against 0 of 3 has p = 0.1


def test_what_is_detectable_is_said_on_the_side_of_the_reference():
    assert "of at least 70.0 % would" in report.detectable(statistics.detectable_rates(8)._asdict())
    assert "of at most 30.0 % would" in report.detectable(statistics.detectable_rates(8, 8)._asdict())
    assert "no collapse rate" in report.detectable(statistics.detectable_rates(3)._asdict())
    assert "no run" in report.detectable(None)


def test_detectable_difference_has_the_power_it_says():
    differences = [0.01, -0.02, 0.03, 0.0, 0.05, -0.01, 0.02, 0.04]
    found = statistics.detectable_difference(differences)
    spread = np.std(differences, ddof=1)
    draws = np.random.default_rng(0).normal(found, spread, size=(20_000, 8))
    assert (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.015)
    assert math.isnan(statistics.detectable_difference([0.1]))
    assert statistics.detectable_difference([0.1, 0.1]) == pytest.approx(0.0)
