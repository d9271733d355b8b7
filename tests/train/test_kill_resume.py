"""SIGKILL at chosen moments, then --resume: bit for bit the run that was never killed.

benchmarks/kill_resume.py does the same at moments drawn by the clock.
"""

from __future__ import annotations

import json
import random
import signal

import killed_runs as runs
import pytest
import torch

COMMON = {
    "use_cpu": "true", "bf16": "false", "gradient_checkpointing": "false", "report_to": "none",
    "disable_tqdm": "true", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine", "warmup_steps": 2, "save_total_limit": 2, "seed": 7,
}  # fmt: skip
# Two updates a rollout, so every second checkpoint lies between them; logs and checkpoints fall on different steps; 3
# rollouts of 8 an epoch, so the run ends in the third one.
RL = {
    **COMMON, "max_completion_length": 8, "steps_per_generation": 4, "max_steps": 14, "logging_steps": 2,
    "save_steps": 3, "keep_good_every": 3, "held_out_every": 5, "held_out_pairs": 2, "held_out_split": "train",
    "seed": 10,  # of 7 to 11 only 7 meets the guard's rule of length, by chance
}  # fmt: skip
SFT = {**COMMON, "max_steps": 9, "logging_steps": 2, "save_steps": 3, "lora_rank": 4}  # 4 or 5 steps an epoch


@pytest.mark.parametrize(
    ("stage", "options", "moments"),
    [
        ("rl", RL, [("update", (8, 14)), ("torch.save", (1, 10)), ("final", (1, 1))]),
        ("sft", SFT, [("torch.save", (6, 10))]),
    ],
    ids=["rl", "sft with LoRA"],
)  # fmt: skip
def test_killed_runs_end_as_the_one_that_was_not(stage, options, moments, checkpoint, pair_file, tmp_path):
    rows = pair_file.read_text().splitlines(keepends=True)
    few = pair_file.with_name("few.jsonl")
    few.write_text("".join(rows[:24]))
    options = {**options, "model": checkpoint, "data": few}
    if "held_out_every" in options:
        options["held_out"] = few
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert runs.run(stage, {**options, "output_dir": whole}, output=tmp_path / "whole.txt") == 0
    dice = random.Random(0)
    for number, (moment, (first, last)) in enumerate(moments):
        died = runs.run(
            stage, {**options, "output_dir": cut}, resume=number > 0, output=tmp_path / f"{number}.txt",
            die_at=(moment, dice.randint(first, last)),
        )  # fmt: skip
        assert died == -signal.SIGKILL, (moment, (tmp_path / f"{number}.txt").read_text())
    assert runs.run(stage, {**options, "output_dir": cut}, resume=True, output=tmp_path / "last.txt") == 0

    expected, resumed = runs.weights(whole), runs.weights(cut)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert runs.history(cut) == runs.history(whole)
    newest = f"checkpoint-{options['max_steps']}"
    assert sorted(path.name for path in cut.iterdir()) == sorted(path.name for path in whole.iterdir())
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        left, right = (torch.load(folder / newest / name, weights_only=False) for folder in (whole, cut))
        assert _same(left, right), name
    if stage == "rl":
        assert _same(runs.weights(whole / "last-good"), runs.weights(cut / "last-good"))
        steps = [json.loads((folder / "last-good" / "step.json").read_text()) for folder in (whole, cut)]
        assert steps[0] == steps[1] > 0


def _same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    return bool((left == right).all()) if hasattr(left, "all") else left == right
