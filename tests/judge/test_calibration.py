"""Temperature scaling: a known temperature comes back, and every number against a hand-worked case."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from r1_reward.judge.calibration import (
    BINS,
    FILE_NAME,
    Calibration,
    brier,
    expected_calibration_error,
    fit_calibration,
    reliability_plot,
)
from r1_reward.records.errors import UserError

PROBABILITIES = st.floats(0, 1)


def calibration(temperature=1.0):
    return Calibration(temperature=temperature, n=20, ece_before=0.2, ece_after=0.1, brier_before=0.3, brier_after=0.2)


def overconfident(temperature, n=20_000, seed=0):
    """Probabilities of a judge whose logits are ``temperature`` times too large, and labels drawn from the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, n)
    labels = rng.random(n) < expit(logits)
    return expit(temperature * logits), labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature):
    p, y = overconfident(temperature)
    found = fit_calibration(p, y)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.n == 20_000
    assert not found.at_bound
    assert found.ece_after < 0.015
    if temperature != 1.0:
        assert found.ece_after < found.ece_before / 3
        assert found.brier_after < found.brier_before


def test_temperature_by_hand():
    # Always 0.99 sure, right 15 times of 20: the best probability is 0.75, so T = logit(0.99) / logit(0.75).
    labels = [True] * 15 + [False] * 5
    p, y = [0.99] * 20 + [0.01] * 20, labels + [not label for label in labels]
    found = fit_calibration(p, y)
    assert found.temperature == pytest.approx(math.log(99) / math.log(3), rel=1e-5)
    assert found.apply(0.99) == pytest.approx(0.75, abs=1e-6)
    assert (found.ece_before, found.ece_after) == (pytest.approx(0.24), pytest.approx(0, abs=1e-6))
    assert found.brier_before == pytest.approx(0.75 * 0.01**2 + 0.25 * 0.99**2)
    assert found.brier_after == pytest.approx(0.75 * 0.25**2 + 0.25 * 0.75**2)


def test_the_fit_is_the_minimum_of_the_log_loss():
    p, y = overconfident(2.5, n=60, seed=4)
    found = fit_calibration(p, y).temperature

    def slow_loss(temperature):
        total = 0.0
        for probability, label in zip(p, y, strict=True):
            scaled = 1 / (1 + math.exp(-math.log(probability / (1 - probability)) / temperature))
            total -= math.log(scaled if label else 1 - scaled)
        return total

    assert all(slow_loss(found) < slow_loss(found * factor) for factor in (0.98, 0.999, 1.001, 1.02))


@settings(deadline=None)
@given(PROBABILITIES, PROBABILITIES, st.floats(0.05, 20))
def test_apply_is_monotone_symmetric_and_keeps_the_side(p, q, temperature):
    apply = calibration(temperature).apply
    assert 0 <= apply(p) <= 1
    assert (apply(p) - apply(q)) * (p - q) >= 0
    assert apply(1 - p) == pytest.approx(1 - apply(p), abs=1e-9)
    if abs(p - 0.5) > 1e-9:
        assert (apply(p) > 0.5) == (p > 0.5)


def test_apply_by_hand():
    assert calibration(1.0).apply(0.3) == pytest.approx(0.3)
    assert calibration(2.0).apply(0.9) == pytest.approx(0.75)  # odds 9 become 3
    assert calibration(0.5).apply(0.25) == pytest.approx(0.1)  # odds 1/3 become 1/9
    assert calibration(7.0).apply(0.5) == 0.5
    assert calibration(1.0).apply(0.0) == pytest.approx(1e-6)
    assert calibration(1.0).apply(1.0) == pytest.approx(1 - 1e-6)


@pytest.mark.parametrize("bad", [math.nan, -0.01, 1.01, math.inf])
def test_values_that_are_not_probabilities_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        calibration().apply(bad)
    for use in (fit_calibration, expected_calibration_error, brier):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
            use([0.5, bad] * 10, [True, False] * 10)


def test_certain_probabilities_are_fitted():
    # 0 and 1 count as 1e-6 and 1 - 1e-6; right 9 times of 10.
    p, y = [1.0] * 10 + [0.0] * 10, [True] * 9 + [False] * 10 + [True]
    found = fit_calibration(p, y)
    assert found.temperature == pytest.approx(math.log(1e6 - 1) / math.log(9), rel=1e-4)
    assert found.apply(1.0) == pytest.approx(0.9, abs=1e-5)


def test_uninformative_confidence_ends_at_the_bound():
    # The more confident, the more often wrong: no T beats indifference.
    p, y = [0.99] * 10 + [0.6] * 10, [False] * 9 + [True] + [True] * 9 + [False]
    found = fit_calibration(p, y)
    assert found.at_bound and found.temperature == pytest.approx(20, rel=1e-3)


def test_expected_calibration_error_by_hand():
    # Confidences 0.9 (one of two right), 0.8 (right), 0.5 (half right): (2 * 0.4 + 0.2 + 0) / 4.
    p, y = [0.9, 0.1, 0.2, 0.5], [True, True, False, True]
    assert expected_calibration_error(p, y) == pytest.approx(0.25)
    assert brier(p, y) == pytest.approx((0.01 + 0.81 + 0.04 + 0.25) / 4)
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0.0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1.0


def test_bins_are_of_confidence_and_do_not_mix():
    assert BINS == 15
    width = 1 / 30
    inside = [0.5 + width * (i + 0.5) for i in (3, 4)]
    # One right and one wrong do not cancel in neighboring bins; in one bin they do.
    assert expected_calibration_error(inside, [True, False]) == pytest.approx((1 - inside[0] + inside[1]) / 2)
    same = [0.5 + width * 3.4, 0.5 + width * 3.6]
    assert expected_calibration_error(same, [True, False]) == pytest.approx(np.mean(same) - 0.5)


@settings(deadline=None)
@given(st.lists(st.tuples(PROBABILITIES, st.booleans()), min_size=1, max_size=30))
def test_errors_equal_slow_loops_and_ignore_the_naming_of_responses(rows):
    p, y = [row[0] for row in rows], [row[1] for row in rows]
    bins = {}
    for probability, label in rows:
        confidence = max(probability, 1 - probability)
        right = 0.5 if probability == 0.5 else float((probability > 0.5) == label)
        place = min(int((confidence - 0.5) * 2 * BINS), BINS - 1)
        bins.setdefault(place, []).append((confidence, right))
    slow = sum(abs(sum(right - confidence for confidence, right in each)) for each in bins.values()) / len(rows)
    assert expected_calibration_error(p, y) == pytest.approx(slow)
    assert brier(p, y) == pytest.approx(sum((a - b) ** 2 for a, b in rows) / len(rows))
    assert brier([1 - a for a in p], [not b for b in y]) == pytest.approx(brier(p, y))


def test_too_little_to_fit_on_is_an_error_that_says_why():
    good = [0.9, 0.2, 0.7, 0.4], [True, False, False, True]
    with pytest.raises(UserError, match="9 judged pairs are too few"):
        fit_calibration([*good[0] * 2, 0.4], [*good[1] * 2, False])
    assert fit_calibration([*good[0] * 2, 0.4, 0.6], [*good[1] * 2, False, False]).n == 10
    with pytest.raises(UserError, match="response 1 is better in all"):
        fit_calibration([0.9, 0.2] * 6, [True] * 12)
    with pytest.raises(UserError, match="response 2 is better in all"):
        fit_calibration([0.9, 0.2] * 6, [False] * 12)
    with pytest.raises(UserError, match="right on 12 and wrong on 0"):
        fit_calibration([0.9, 0.2] * 6, [True, False] * 6)
    with pytest.raises(UserError, match="right on 0 and wrong on 12"):
        fit_calibration([0.9, 0.2] * 6, [False, True] * 6)
    with pytest.raises(UserError, match="right on 6 and wrong on 0"):
        fit_calibration([0.9, 0.5] * 6, [True, False] * 6)  # 1/2 is not an answer


def test_mismatched_inputs_are_refused():
    for p, y in (([0.5], [True, False]), ([], []), ([[0.5]], [[True]])):
        with pytest.raises(ValueError, match="as many"):
            brier(p, y)
    with pytest.raises(ValueError, match="booleans"):
        brier([0.5, 0.5], [1, 2])
    assert brier([0.5, 1.0], [0, 1]) == pytest.approx(0.125)


def test_a_calibration_survives_saving(tmp_path):
    p, y = overconfident(2.0, n=200)
    found = fit_calibration(p, y)
    assert Calibration.load(tmp_path) is None
    found.save(tmp_path)
    assert Calibration.load(tmp_path) == found
    assert json.loads((tmp_path / FILE_NAME).read_text())["temperature"] == found.temperature


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "is not JSON"),
        ("[1]", "the file"),
        ('{"temperature": 1.0}', "Field required"),
        ("temperature", "greater than 0"),
        ("infinite", "finite"),
        ("n", "greater than or equal to 1"),
        ("extra", "extra"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, named):
    fields = calibration().model_dump()
    changed = {
        "temperature": {"temperature": -1.0},
        "infinite": {"temperature": math.inf},
        "n": {"n": 0},
        "extra": {"extra": 1},
    }
    text = json.dumps({**fields, **changed[content]}) if content in changed else content
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(UserError, match=named) as caught:
        Calibration.load(tmp_path)
    assert str(tmp_path / FILE_NAME) in str(caught.value)


def test_the_plot_draws_what_was_measured(tmp_path):
    p, y = [0.99] * 12 + [0.01] * 8, [True] * 9 + [False] * 3 + [False] * 8
    found = fit_calibration(p, y)
    figure = reliability_plot(p, y, found)
    upper, lower = figure.axes
    _, before, after = upper.lines
    assert np.column_stack(before.get_data()) == pytest.approx(np.array([[99, 85]]))  # 17 of 20 right
    assert np.column_stack(after.get_data()) == pytest.approx(np.array([[100 * found.apply(0.99), 85]]))
    assert f"T = {found.temperature:.2f}" in after.get_label()
    counts = [patch.get_data().values for patch in lower.patches]
    assert [list(np.nonzero(each)[0]) for each in counts][0] == [BINS - 1]
    assert [each.sum() for each in counts] == [20, 20]
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
