"""The demo end to end at smoke-test size: every phase, resume after a kill, folders that are taken."""

from __future__ import annotations

import json
import os
import time
from types import SimpleNamespace

import pytest
from killed_runs import context
from loaded import loaded

from r1_reward.models.tiny_words import GROUPS, HOUSE_WORDS
from r1_reward.records.errors import UserError
from r1_reward.studies.demo import run_demo
from r1_reward.studies.demo.config import MODELS, DemoConfig
from r1_reward.studies.demo.pipeline import Demo
from r1_reward.studies.demo.progress import DemoProgress

TINY = {
    "train_pairs": 120, "test_pairs": 12, "captions": 32, "ground_steps": 2, "sft_max_steps": 3, "sft_batch": 8,
    "dev_pairs": 4, "dev_every": 2, "attempt_pairs": 12, "rl_steps": 2, "rl_batch": 8, "rl_updates_per_rollout": 2,
    "votes": 3, "max_new_tokens": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    run_demo(folder, sizes=TINY)
    return folder


def test_every_phase_leaves_its_result(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    for name in MODELS:
        assert 0.0 <= metrics[name]["accuracy"] <= 1.0
        assert (finished / name / "model.safetensors").is_file()
    assert set(metrics["rl_minus_control"]) == {"mean", "low", "high", "by_group"}
    assert set(metrics["rl_minus_control"]["by_group"]) == set(GROUPS)
    assert set(metrics["world"]["text_alone"]) == {"all", *GROUPS}
    assert metrics["n_pairs"] == 12
    assert metrics["seconds"] == pytest.approx(sum(metrics["phases"].values()))
    assert metrics["world"]["shared_scans"] == metrics["world"]["shared_scenes"] == 0
    assert len(metrics["rl"]["voting"]["majority"]) == 3
    assert (finished / "report.html").stat().st_size > 10_000
    assert metrics["resumed"] is False


def test_its_folders_load_with_datasets(finished):
    found = loaded(finished / "data")
    assert {split: len(rows) for split, rows in found.items()} == {"train": TINY["train_pairs"], "test": 12}
    assert found["test"][0]["images"][0].mode == "RGB"
    assert len(loaded(finished / "data", "captions")["train"]) == TINY["captions"]
    predictions = loaded(finished / "predictions")
    assert {"base_greedy", "rl_greedy", "rl_votes"} <= set(predictions)
    assert len(predictions["base_greedy"]) == 12


def test_accuracy_in_metrics_is_recounted_from_the_predictions(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    rows = [json.loads(line) for line in (finished / "predictions" / "rl-greedy.jsonl").read_text().splitlines()]
    votes = [vote["answer"] == row["preferred"] for row in rows for vote in row["judgments"]]
    assert len(votes) == 24
    assert metrics["rl"]["accuracy"] == pytest.approx(sum(votes) / len(votes))


def test_rl_set_holds_the_hard_pairs_only(finished):
    demo = Demo(finished, DemoConfig(**TINY), progress=None, resume=True)
    attempts = {row["id"]: row["attempts"] for row in map(json.loads, (finished / "attempts.jsonl").open())}
    hard = demo.hard_pairs()
    assert len(hard) > 0
    for row in hard:
        assert row["reasoning"] is None or attempts[row["id"]] != 1
    taught = demo.pairs("train").filter(lambda text: text is not None, input_columns="reasoning")
    assert not set(taught["kind"]) & set(HOUSE_WORDS)
    chosen = demo.rl_pairs()
    assert set(hard["id"]) < set(chosen["id"])
    share = 1 - len(hard) / len(chosen)
    assert share == pytest.approx(min(DemoConfig().rl_taught_share, share), abs=0.02)
    assert not set(chosen["id"]) & set(demo.pairs("train")["id"][: TINY["dev_pairs"]])


def test_a_taken_folder_is_refused_and_a_finished_run_is_kept(finished):
    with pytest.raises(UserError, match="already holds a run; choose another --out,"):
        run_demo(finished, sizes=TINY)
    with pytest.raises(UserError, match=r"contains a different run \(seed 0 there, 1 now\)"):
        run_demo(finished, seed=1, sizes=TINY, resume=True)
    weights = finished / "sft" / "model.safetensors"
    kept, own = weights.read_bytes(), weights.stat()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(UserError, match=r"contains a different run \(sft 'sha256:\w+' there"):
        run_demo(finished, sizes=TINY, resume=True)
    weights.write_bytes(kept)
    os.utime(weights, ns=(own.st_atime_ns, own.st_mtime_ns))
    before = (finished / "predictions" / "rl-votes.jsonl").read_bytes()
    started = (finished / "rl" / "model.safetensors").stat().st_mtime
    run_demo(finished, sizes=TINY, resume=True)
    assert (finished / "predictions" / "rl-votes.jsonl").read_bytes() == before
    assert (finished / "rl" / "model.safetensors").stat().st_mtime == started
    assert json.loads((finished / "metrics.json").read_text())["resumed"] is False  # nothing was interrupted


def test_a_resumed_phase_counts_the_time_up_to_its_checkpoint(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10)).__next__
    monkeypatch.setattr("r1_reward.studies.demo.pipeline.time", SimpleNamespace(monotonic=clock))

    def killed(demo):
        demo._keep_time()  # as after each checkpoint
        clock()
        raise KeyboardInterrupt

    monkeypatch.setattr(Demo, "make_world", lambda demo: None)
    monkeypatch.setattr(Demo, "_contents", lambda demo: {})
    monkeypatch.setattr(Demo, "ground", killed)
    with pytest.raises(KeyboardInterrupt):
        Demo(tmp_path / "run", DemoConfig(), DemoProgress()).run_until("ground")
    monkeypatch.setattr(Demo, "ground", lambda demo: None)
    demo = Demo(tmp_path / "run", DemoConfig(), DemoProgress(), resume=True)
    assert demo.resumed
    demo.run_until("ground")
    assert demo.seconds == {"world": 10, "ground": 20}  # 10 up to the checkpoint, 10 since the resume
    assert not Demo(tmp_path / "other", DemoConfig(), DemoProgress()).resumed


def _run(folder):
    run_demo(folder, sizes=TINY, resume=True)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_predictions(finished, tmp_path):
    folder = tmp_path / "killed"
    # Killed as soon as a phase's result appears, which is while the next phase runs.
    for landmark in ("ground-log.json", "attempts.jsonl", "predictions/base-greedy.jsonl"):
        process = context.Process(target=_run, args=(folder,))
        process.start()
        deadline = time.monotonic() + 120
        while not (folder / landmark).exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (folder / landmark).exists()
        process.kill()
        process.join()
        assert not (folder / "metrics.json").exists()
    run_demo(folder, sizes=TINY, resume=True)
    assert json.loads((folder / "metrics.json").read_text())["resumed"] is True
    for name in ("base", "sft", "rl"):  # control depends on the clock
        expected = (finished / "predictions" / f"{name}-greedy.jsonl").read_bytes()
        assert (folder / "predictions" / f"{name}-greedy.jsonl").read_bytes() == expected


def test_a_teacher_that_explains_nothing_leaves_captions_to_imitate(tmp_path):
    run_demo(tmp_path / "run", sizes={**TINY, "house_share": 1.0})
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["world"]["taught"] == 0
    assert set(metrics["rl"]["by_kind"]) == {"labels only", *HOUSE_WORDS} & set(metrics["rl"]["by_kind"])
    assert set(metrics["rl_minus_control"]["by_group"]) == {"labels only"}
    assert sum(metrics["attempts"].values()) == 0


@pytest.mark.parametrize(
    ("looks", "stops"),
    [([0.5, 0.6, 0.7], False), ([0.7, 0.6, 0.7], True), ([0.5, 0.7, 0.6], False), ([0.7, 0.5], False)],
)
def test_the_cold_start_ends_where_no_look_is_better_than_the_best(monkeypatch, looks, stops):
    from types import SimpleNamespace

    from r1_reward.studies.demo import early_stop

    told = []
    left = list(looks)
    monkeypatch.setattr(early_stop, "judge_pairs", lambda *_: None)
    monkeypatch.setattr(early_stop, "TransformersEngine", lambda *_, **__: None)
    monkeypatch.setattr(early_stop, "correctness", lambda *_: __import__("numpy").array([[left.pop(0)]]))
    stop = early_stop.StopAtPlateau(
        None, None, [{"preferred": 1}], patience=2, every=10, max_new_tokens=8, report=told.append
    )
    state, control = SimpleNamespace(global_step=0, log_history=[]), SimpleNamespace(should_training_stop=False)
    for step in range(1, 10 * len(looks) + 1):
        assert not control.should_training_stop
        state.global_step = step
        stop.on_step_end(None, state, control)
    assert told == looks
    assert control.should_training_stop is stops
