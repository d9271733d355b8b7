"""Intervals and tests over seeds, against hand-worked numbers and textbook values."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from r1_reward.studies.ablate import statistics


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


def test_detectable_rate_is_the_least_with_power():
    n = 8
    found = statistics.detectable_rate(n)
    significant = [k for k in range(n + 1) if statistics.fisher(0, k, n, n) < 0.05]
    assert significant == [5, 6, 7, 8]  # Fisher: 4 of 8 against none has p = 0.077
    assert stats.binom.sf(4, n, found) >= 0.8 > stats.binom.sf(4, n, found - 0.01)
    assert statistics.detectable_rate(3) is None  # 3 of 3 against 0 of 3 has p = 0.1


def cell(arm, seed, accuracy, collapse=None, failure=None):
    return {
        "setting": "s", "arm": arm, "seed": seed, "accuracy": accuracy, "collapse": collapse, "failure": failure,
        "verdict": "finished", "consistent": 0.9, "parse_rate": 1.0, "mean_tokens": 30.0, "tokens": 1000,
        "log": [], "options": {},
    }  # fmt: skip


def test_arms_are_compared_seed_by_seed():
    cells = [cell("a", 0, 0.70), cell("a", 1, 0.80), cell("b", 0, 0.65, {"step": 3}), cell("b", 1, 0.73)]
    summary = statistics.summarise(cells, {"s": "a"})["s"]
    b = summary["arms"]["b"]
    assert b["difference"]["mean"] == pytest.approx(-0.06)
    assert b["difference"]["high"] == pytest.approx(-0.06 + 12.706205 * 0.014142136 / math.sqrt(2))
    assert b["collapses"] == 1 and summary["arms"]["a"]["collapses"] == 0
    assert "difference" not in summary["arms"]["a"]


def test_a_failed_run_counts_as_collapsed():
    cells = [cell("a", 0, 0.7), cell("b", 0, 0.0, failure="probability tensor contains nan")]
    assert statistics.summarise(cells, {"s": "a"})["s"]["arms"]["b"]["collapses"] == 1


def test_detectable_difference_has_the_power_it_says():
    import numpy as np

    differences = [0.01, -0.02, 0.03, 0.0, 0.05, -0.01, 0.02, 0.04]
    found = statistics.detectable_difference(differences)
    spread = np.std(differences, ddof=1)
    draws = np.random.default_rng(0).normal(found, spread, size=(20_000, 8))
    assert (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.015)
    assert math.isnan(statistics.detectable_difference([0.1]))
    assert statistics.detectable_difference([0.1, 0.1]) == pytest.approx(0.0)


def test_sampled_consistency_undoes_the_noise():
    # True shares 0.8 and 0.9 under 30 % reversed verdicts: 0.8 * 0.7 + 0.2 * 0.3 = 0.62, 0.9 * 0.7 + 0.1 * 0.3 = 0.66.
    log = [{"reward/consistency": 0.62}] * 5 + [{"held_out/accuracy": 0.5}] + [{"reward/consistency": 0.66}] * 5
    assert statistics.sampled_consistency(log, 0.3) == pytest.approx((0.8, 0.9))
    assert statistics.sampled_consistency(log, 0.5) is None
    assert statistics.sampled_consistency([], 0.0) is None
