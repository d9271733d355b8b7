"""A folder as written by `r1-reward train rl`, and a finished benchmark run of its model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
LOG = [
    {"step": 1, "reward": 0.25, "reward/format": 0.5, "reward/consistency": None, "loss": 0.1},
    {"step": 2, "reward": 1.5, "reward/format": 1.0, "loss": -0.123456, "entropy": 0.75},
    {"step": 2, "train_runtime": 3.0},
]


@pytest.fixture(scope="session")
def run_config(pair_file):
    from r1_reward.train.config import load_config
    from r1_reward.train.rl import StableReinforceConfig

    given = ["--model", "Qwen/Qwen2.5-VL-7B-Instruct", "--data", str(pair_file), "--max_completion_length", "8"]
    given += ["--referee", "server:judge@http://10.0.0.7:8000/v1", "--hub_token", "hf_" + "x" * 30]
    return load_config(RECIPE, given, StableReinforceConfig)


@pytest.fixture
def trained(checkpoint, run_config, tmp_path):
    """A run folder that also holds files that must not be published."""
    from r1_reward.train.config import save_config

    folder = tmp_path / "runs" / "rl"
    shutil.copytree(checkpoint, folder)
    save_config(run_config, folder)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 2, "max_steps": 2, "log_history": LOG}))
    (folder / "README.md").write_text("what another library wrote")
    for name in ("training_args.bin", "optimizer.pt", "verdicts.jsonl", "step.json", ".env", "scene.png"):
        (folder / name).write_text("private")
    for name in ("checkpoint-2", "last-good"):
        (folder / name).mkdir()
        shutil.copy(folder / "model.safetensors", folder / name)
        (folder / name / "optimizer.pt").write_text("private")
    return folder


@pytest.fixture(scope="session")
def benched(checkpoint, world, tmp_path_factory):
    """A finished run of `r1-reward bench run pairs` over 16 pairs, by the untrained model called ``judge``."""
    from r1_reward.bench.report import write_metrics
    from r1_reward.bench.run import RunSettings, run_benchmark
    from r1_reward.bench.suites import load_suite
    from r1_reward.store.pairs import save_pairs

    folder = tmp_path_factory.mktemp("bench")
    for name in {image for pair in world.test for image in pair.images}:
        (folder / name).parent.mkdir(exist_ok=True)
        world.images[name].save(folder / name)
    save_pairs(world.test, folder / "held-out.jsonl")
    rows = load_suite("pairs", folder / "held-out.jsonl")
    run_benchmark(rows, RunSettings(model=str(checkpoint), max_new_tokens=4), folder / "run")
    write_metrics(folder / "run", expected=rows.n, missing={}, notes=[])
    return folder / "run"


@pytest.fixture
def bench_of(benched, tmp_path):
    """Return a copy of the finished run with some of its numbers, and the model's name, replaced."""

    def copy(model, name="bench-run", **changed):
        folder = shutil.copytree(benched, tmp_path / name)
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics |= changed
        metrics["settings"]["model"] = str(model)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return copy
