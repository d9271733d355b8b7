"""benchmarks/bench_arms.py: every kind of arm at smoke-test size, what is kept, and the table it fills."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

from r1_reward.models.scalar import load_scalar
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment
from r1_reward.train.rl import StableReinforceConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_arms.py"
spec = importlib.util.spec_from_file_location("bench_arms", SCRIPT)
bench_arms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench_arms)

SOME = ["scalar", "critique", "sft", "rl-without-filter"]


def run(folder, *arms):
    out = folder / "arms.json"
    bench_arms.main(["--runs", str(folder), "--quick", "--out", str(out), "--arms", *arms])
    return json.loads(out.read_text())["seeds"]["0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    return folder, run(folder, *SOME)


@pytest.mark.slow
def test_each_arm_is_trained_and_judged_on_the_same_pairs(finished):
    folder, found = finished
    arms = folder / "demo-seed0" / "arms"
    judged = {arm: [json.loads(line) for line in (arms / arm / "predictions.jsonl").open()] for arm in SOME}
    for arm in SOME:
        assert [row["id"] for row in judged[arm]] == [row["id"] for row in judged["sft"]]
        votes = [vote["answer"] == row["preferred"] for row in judged[arm] for vote in row["judgments"]]
        assert len(votes) == 48  # 24 pairs in both orders
        assert found[arm]["accuracy"] == pytest.approx(sum(votes) / 48)
        assert found[arm]["minus_sft"]["mean"] == pytest.approx(found[arm]["accuracy"] - found["sft"]["accuracy"])
    assert {arm: found[arm]["updates"] for arm in SOME} == dict(zip(SOME, (2, 2, 2, 4), strict=True))
    assert [load_scalar(arms / arm)[0].critique for arm in ("scalar", "critique")] == [False, True]
    assert found["scalar"]["mean_tokens"] == 0 < found["critique"]["mean_tokens"]


@pytest.mark.slow
def test_finished_arms_are_kept_and_arms_of_other_settings_refused(finished):
    folder, found = finished
    weights = folder / "demo-seed0" / "arms" / "scalar" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert run(folder, "sft", "scalar") == found
    assert weights.stat().st_mtime_ns == before
    metrics = folder / "demo-seed0" / "arms" / "rl-without-filter" / "metrics.json"
    kept = metrics.read_text()
    metrics.write_text(json.dumps({**json.loads(kept), "settings": {"advantage_filter": 2.0}}))
    with pytest.raises(UserError, match=r"advantage_filter.*Remove the arm's folder"):
        run(folder, "rl-without-filter")
    metrics.write_text(kept)
    out = folder / "arms.json"
    results = out.read_text()
    out.write_text(results.replace('"sft_batch": ', '"sft_batch": 1'))
    with pytest.raises(UserError, match=r"sft_batch.*Choose another --out"):
        run(folder, "sft")
    out.write_text(results)


@pytest.mark.parametrize("arm", bench_arms.PARTS)
def test_an_arm_without_a_part_differs_from_rl_in_that_part_alone(arm, tmp_path):
    common = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    whole, part = (
        StableReinforceConfig(**common, per_device_train_batch_size=4, **changes)
        for changes in ({}, bench_arms.PARTS[arm])
    )
    differ = {
        f.name: getattr(part, f.name)
        for f in dataclasses.fields(whole)
        if getattr(whole, f.name) != getattr(part, f.name)
    }
    differ = {name: value for name, value in differ.items() if name not in ("run_name", "logging_dir")}
    assert (
        differ
        == {
            "rl-without-pre-clip": {"pre_clip": None},
            "rl-without-filter": {"advantage_filter": None},
            "rl-without-consistency": {"consistency_weight": 0.0},
            "rl-without-format": {"format_weight": 0.0},
            "reinforce++": {"algorithm": "reinforce++", "pre_clip": None, "advantage_filter": None},
        }[arm]
    )


@pytest.mark.slow
def test_rejection_sampling_continues_sft_on_texts_of_its_own(finished):
    folder, _ = finished
    with pytest.raises(UserError, match="none of 32 samples of the SFT model earns the full reward"):
        run(folder, "rejection")  # two steps of SFT do not suffice to write a judgment
    demo = bench_arms.Demo(
        folder / "demo-seed0", bench_arms.DemoConfig(**bench_arms.QUICK), bench_arms.DemoProgress(), resume=True
    )
    taught = [row for row in demo.training_pairs() if row["reasoning"]][:5]
    bench_arms.save_pairs(
        bench_arms.with_full_reward(taught, [vote(row["reasoning"], row["preferred"]) for row in taught]),
        folder / "demo-seed0" / "arms" / "rejection.parquet",
    )
    found = run(folder, "rejection", "control")
    assert found["rejection"]["updates"] == found["control"]["updates"]
    assert len(demo._imitation(bench_arms.own_texts(demo))) > len(demo._imitation())


def vote(text, answer):
    return Judgment(answer=answer, swapped=False, text=text, well_formed=text.startswith("<think>"), tokens=9)


def test_a_text_is_kept_if_it_is_right_well_formed_and_consistent():
    good = "<think>Response 1 is better.</think><answer>1</answer>"
    votes = [
        vote(good, 1),
        vote(good, 1),  # the label is 2
        vote("<think>Response 2 is better.</think><answer>1</answer>", 1),
        vote(" <think>Response 1 is better.</think><answer>1</answer>", 1),
        vote("<think>Response 1 is better.", None),
    ]
    rows = [{"id": str(i), "preferred": 2 if i == 1 else 1, "reasoning": None} for i in range(5)]
    assert bench_arms.with_full_reward(rows, votes) == [{"id": "0", "preferred": 1, "reasoning": good}]


def measured(accuracy, **changes):
    groups = {"explained": {"mean": accuracy}, "labels only": {"mean": 0.5}}
    whole = {"accuracy": accuracy, "low": accuracy - 0.04, "high": accuracy + 0.04}
    return {**whole, "by_kind": groups, "updates": 60, "seconds": 100.0, **changes}


def test_one_seed_has_an_interval_over_pairs_and_several_one_over_seeds():
    one = bench_arms.over_seeds([measured(0.75)])
    assert one == pytest.approx((0.75, 0.71, 0.79))
    # t(0.975, 1) = 12.706; the standard error of 0.70 and 0.72 is 0.01
    assert bench_arms.over_seeds([measured(0.70), measured(0.72)]) == pytest.approx((0.71, 0.58294, 0.83706), abs=1e-4)


def test_the_table_between_the_marks_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- arms results -->\n| old |\n<!-- end -->\nAfter.\n<!-- end -->\n")
    seeds = {
        "0": {"rl": measured(0.9), "scalar": measured(0.75)},
        "1": {"rl": measured(0.92, updates=50, seconds=300.0)},
    }
    bench_arms.fill_page(page, seeds)
    lines = page.read_text().splitlines()
    assert lines[0] == "Before."
    assert lines[2].startswith("| arm | paper, VL-RewardBench | all, % [95 %] | explained: seeds 0, 1 |")
    assert lines[4] == "| Bradley-Terry head | 56.41 | 75.0 [71.0, 79.0] | 75.0, – | 50.0, – | 60 | 100 |"
    assert lines[5].startswith("| StableReinforce | 71.92 | 91.0 [")
    assert lines[5].endswith("| 90.0, 92.0 | 50.0, 50.0 | 50 to 60 | 200 |")
    assert lines[6:] == ["<!-- end -->", "After.", "<!-- end -->"]
    page.write_text("No marks.\n")
    with pytest.raises(SystemExit, match="has no table between"):
        bench_arms.fill_page(page, seeds)
