"""What is said of the arms of a study, and what is not said where runs have no result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1_reward.studies.ablate.report import as_markdown
from r1_reward.studies.ablate.study import Setting
from r1_reward.studies.ablate.summary import sampled_consistency, summarise

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def cell(arm, seed, accuracy, collapse=None, failure=None):
    return {
        "setting": "s", "arm": arm, "seed": seed, "accuracy": accuracy, "collapse": collapse, "failure": failure,
        "verdict": "finished", "consistent": 0.9, "parse_rate": 1.0, "mean_tokens": 30.0, "tokens": 1000,
        "log": [], "options": {},
    }  # fmt: skip


def arms_of(cells, seeds=(0, 1)):
    setting = Setting(question="?", seeds=list(seeds), arms={"a": {}, "b": {}})
    return summarise(cells, {"s": setting})["s"]["arms"]


def test_arms_are_compared_seed_by_seed():
    arms = arms_of([cell("a", 0, 0.70), cell("a", 1, 0.80), cell("b", 0, 0.65, {"step": 3}), cell("b", 1, 0.73)])
    assert arms["b"]["difference"]["mean"] == pytest.approx(-0.06)
    assert arms["b"]["difference"]["high"] == pytest.approx(-0.06 + 12.706205 * 0.014142136 / 2**0.5)
    assert arms["b"]["collapses"] == 1 and arms["a"]["collapses"] == 0
    assert "difference" not in arms["a"]


def test_five_runs_without_a_result_beside_five_sound_ones_give_no_p_value():
    sound = [cell("a", seed, 0.7) for seed in range(5)]
    for cells in (sound, [{**one, "arm": "b"} for one in sound]):  # the other arm, or the reference, has none
        arms = arms_of(cells, seeds=range(5))
        assert not {"collapse_p", "difference", "detectable_difference"} & arms["b"].keys()
        empty = next(one for one in arms.values() if not one["seeds"])
        assert (empty["wanted"], empty["collapses"], empty["accuracies"]) == (5, 0, [])
        assert empty["accuracy"] is empty["collapse_rate"] is empty["consistent"] is empty["mean_tokens"] is None


def test_a_run_without_a_result_or_an_accuracy_is_in_no_mean():
    a = [cell("a", seed, 0.7) for seed in range(3)]
    arms = arms_of([*a, cell("b", 0, 0.6), cell("b", 2, None, {"step": 1})], seeds=range(3))
    assert (arms["b"]["seeds"], arms["b"]["wanted"], arms["b"]["collapses"]) == (2, 3, 1)
    assert arms["b"]["accuracy"]["mean"] == 0.6
    assert arms["b"]["difference"]["mean"] == pytest.approx(-0.1)


def test_lost_accuracy_counts_beside_the_rule():
    a = [cell("a", seed, 0.70) for seed in range(4)]
    b = [
        cell("b", 0, 0.59),  # on the line: 10 points below a start of 0.69
        cell("b", 1, 0.58),
        cell("b", 2, 0.0, {"step": 3}),  # broken, and counted once
        cell("b", 3, 0.70, {"step": 3}),
    ]
    setting = Setting(question="?", seeds=list(range(4)), arms={"a": {}, "b": {}})
    counted = summarise([*a, *b], {"s": setting}, least_accuracy=0.69 - 0.10)["s"]["arms"]
    assert (counted["b"]["broken"], counted["b"]["accuracy_lost"], counted["b"]["collapses"]) == (2, 1, 3)
    assert counted["b"]["collapse_rate"]["mean"] == 0.75
    assert counted["b"]["collapse_p"] == pytest.approx(2 / 14)  # 3 of 4 against 0 of 4: 2 * C(4,3) / C(8,3)
    assert (counted["a"]["accuracy_lost"], counted["a"]["collapses"]) == (0, 0)
    plain = arms_of([*a, *b], seeds=range(4))["b"]
    assert (plain["broken"], plain["accuracy_lost"], plain["collapses"]) == (2, None, 2)


def test_sampled_consistency_undoes_the_noise():
    # True shares 0.8 and 0.9 under 30 % reversed verdicts: 0.8 * 0.7 + 0.2 * 0.3 = 0.62, 0.9 * 0.7 + 0.1 * 0.3 = 0.66.
    log = [{"reward/consistency": 0.62}] * 5 + [{"held_out/accuracy": 0.5}] + [{"reward/consistency": 0.66}] * 5
    assert sampled_consistency(log, 0.3) == pytest.approx((0.8, 0.9))
    assert sampled_consistency(log, 0.5) is None
    assert sampled_consistency([], 0.0) is None


@pytest.mark.parametrize("folder", sorted(RESULTS.glob("ablate-*")), ids=lambda folder: folder.name)
def test_the_committed_reports_are_those_of_their_summaries(folder):
    assert as_markdown(json.loads((folder / "summary.json").read_text())) == (folder / "report.md").read_text()
