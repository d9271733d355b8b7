"""`r1-reward plan`: recipes as they are, pair files measured, wrong input said plainly."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from r1_reward.cli.plan import OVERRIDES, plan
from r1_reward.records.errors import UserError
from r1_reward.train.plan import plan_run

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
SEVEN_B = ["--model", str(RECIPES / "shapes/qwen2.5-vl-7b")]
ZERO3 = str(RECIPES / "accelerate/zero3-8gpu.yaml")


@pytest.mark.parametrize(
    ("recipe", "gpus", "memory", "stage", "an_update", "updates"),
    [
        ("paper-7b-sft", 4, 80, "sft", 256, 4),
        ("paper-7b-rl", 4, 80, "rl", 128, 30),
        ("released-7b-rl", 4, 80, "rl", 128, 6),
        ("vllm-7b-rl", 4, 80, "rl", 128, 30),
        ("lora-24gb", 1, 24, "rl", 16, 62),
    ],
)
def test_every_recipe_fits_what_it_was_written_for(recipe, gpus, memory, stage, an_update, updates):
    accelerate = ZERO3 if gpus > 1 else None
    planned = plan_run(
        RECIPES / f"{recipe}.yaml", SEVEN_B, accelerate=accelerate, processes=gpus, pairs=1000, gpu_bytes=memory * 1e9
    )
    assert planned.stage == stage
    assert planned.sequences_an_update == an_update  # the paper's batches
    assert planned.memory.peak < memory * 1e9 - 1.5 * 2**30
    assert planned.updates == updates  # of 1,000 pairs: rollouts of 256 (lora 16), whole ones only, in each epoch


@pytest.mark.parametrize(
    ("options", "updates"),
    [
        ([], 780),  # 78 rollouts of 256, two updates each, 5 episodes
        (["--num_iterations", "3"], 3 * 780),
        (["--algorithm", "grpo", "--num_generations", "8"], 6250),  # 625 rollouts of 32 pairs
        (["--num_train_epochs", "0.5"], 78),
        (["--steps_per_generation", "null", "--generation_batch_size", "256"], 780),
        (["--max_steps", "7"], 7),
    ],
)
def test_updates_are_those_of_whole_rollouts(options, updates):
    options = [*SEVEN_B, *options]
    planned = plan_run(RECIPES / "paper-7b-rl.yaml", options, accelerate=ZERO3, processes=4, pairs=20_000)
    assert planned.updates == updates


def test_the_released_values_differ_where_they_should():
    paper = yaml.safe_load((RECIPES / "paper-7b-rl-rule.yaml").read_text(encoding="utf-8"))
    released = yaml.safe_load((RECIPES / "released-7b-rl.yaml").read_text(encoding="utf-8"))
    changed = {key for key in paper | released if paper.get(key) != released.get(key)}
    assert changed == {"output_dir", "num_train_epochs", "learning_rate", "beta", "consistency_values"}


def test_a_pair_file_is_counted_and_measured(pair_file, tmp_path):
    planned = plan_run(RECIPES / "tiny.yaml", ["--data", str(pair_file), "--output_dir", str(tmp_path)])
    assert planned.lengths.pairs and "measured" in planned.lengths.source
    assert 0 < planned.lengths.visual <= 64
    assert planned.updates == 8  # max_steps of the recipe


def test_wrong_input_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="--model"):
        plan_run(RECIPES / "paper-7b-rl.yaml", ["--model", str(tmp_path / "none")], pairs=10)
    with pytest.raises(UserError, match="supported: adamw_torch"):
        plan_run(RECIPES / "paper-7b-rl.yaml", [*SEVEN_B, "--optim", "galore_adamw"], pairs=10)
    (tmp_path / "tpu.yaml").write_text("distributed_type: XLA\n", encoding="utf-8")
    with pytest.raises(UserError, match="XLA"):
        plan_run(RECIPES / "paper-7b-rl.yaml", SEVEN_B, accelerate=tmp_path / "tpu.yaml", pairs=10)


def test_the_command_prints_parts_and_says_what_does_not_fit():
    app = typer.Typer()
    app.command(context_settings=OVERRIDES)(plan)
    arguments = ["--config", str(RECIPES / "paper-7b-rl.yaml"), *SEVEN_B, "--pairs", "1000", "--gpu-memory", "40"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for part in ("weights", "gradients", "optimizer", "activations", "KV cache", "logits", "does NOT fit", "float32"):
        assert part in result.output
    assert "updates: 150" in result.output  # 1,000 pairs are 15 rollouts of 64 on one GPU; 2 updates each, 5 episodes


@pytest.mark.parametrize(
    ("model", "dtype", "size"), [("tiny", "auto", 4), ("tiny", "bfloat16", 2), ("shape", "auto", 2)]
)
def test_a_weight_has_the_bytes_that_training_loads(tmp_path, model, dtype, size):
    model = str(RECIPES / "shapes" / "qwen2.5-vl-3b") if model == "shape" else model
    overrides = ["--model", model, "--dtype", dtype, "--data", "none.jsonl", "--output_dir", str(tmp_path)]
    planned = plan_run(None, overrides, stage="sft")
    assert planned.setup.weight_bytes == size
