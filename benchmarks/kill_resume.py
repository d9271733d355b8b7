"""Kill SFT and RL runs at random moments and resume them: do they match an uninterrupted run?

    python benchmarks/kill_resume.py --kills 10

Each kill has its own run: `r1-reward train sft|rl` on the tiny model gets SIGKILL at a random moment within the time
that an uninterrupted run takes after loading its model, and is resumed. The final weights, the optimizer state and
every row of the log except times must equal those of the uninterrupted run bit for bit. As a control, a checkpoint
without our additions to transformers and TRL is resumed, to show that the comparison detects a difference.

SFT starts from random weights, RL from the result of a longer SFT. A fork server imports torch and TRL once, so that
kills hit loading, training and saving, not imports.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from r1_reward.data.handwriting import Teacher, build_world
from r1_reward.store.files import read_json, write_json
from r1_reward.store.machine import describe_machine
from r1_reward.store.pairs import save_pairs
from r1_reward.train.checkpoints import STAGING, checkpoints

CLOCKS = {"step_time", "held_out/seconds", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
COMMON = {
    "use_cpu": "true", "bf16": "false", "gradient_checkpointing": "false", "report_to": "none", "disable_tqdm": "true",
    "gradient_accumulation_steps": 2, "save_steps": 3, "save_total_limit": 2, "logging_steps": 2, "seed": 0,
}  # fmt: skip
START = {**COMMON, "max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 2e-3, "warmup_steps": 10}
STAGES: dict[str, dict[str, Any]] = {
    # 24 pairs: 4 steps are an epoch
    "sft": {**COMMON, "max_steps": 18, "per_device_train_batch_size": 3, "learning_rate": 2e-3, "warmup_steps": 4},
    # A rollout of 8 is two updates, so every second checkpoint is in the middle of one. 3 rollouts are an epoch.
    "rl": {
        **COMMON, "max_steps": 18, "per_device_train_batch_size": 2, "steps_per_generation": 4, "learning_rate": 2e-4,
        "lr_scheduler_type": "linear", "max_completion_length": 48, "keep_good_every": 3, "held_out_every": 6,
        "held_out_pairs": 2, "held_out_split": "train",
    },
}  # fmt: skip


def start(stage: str, options: dict[str, Any], output: Path, *, resume: bool) -> multiprocessing.process.BaseProcess:
    """Start `r1-reward train` in a fork of the server, with its output in ``output``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["r1_reward.train.rl", "r1_reward.train.sft", "r1_reward.train.launch"])
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = ["r1-reward", "train", stage, *arguments, *(["--resume"] if resume else [])]
    process = context.Process(target=_command, args=(command, str(output)))
    process.start()
    return process


def _command(command: list[str], output: str) -> None:
    with open(output, "a", encoding="utf-8", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from r1_reward.cli import main

    torch.set_num_threads(1)
    sys.argv = command
    main()


def loaded(process: multiprocessing.process.BaseProcess, options: dict[str, Any]) -> None:
    """Wait until the run has loaded its model and written its configuration."""
    while process.is_alive() and not (Path(options["output_dir"]) / "config.yaml").exists():
        time.sleep(0.02)


def finish(stage: str, options: dict[str, Any], output: Path, *, resume: bool) -> float:
    """Run to the end and return the seconds since its model was loaded."""
    process = start(stage, options, output, resume=resume)
    loaded(process, options)
    began = time.monotonic()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{stage}: exit code {process.exitcode}, see {output}")
    return time.monotonic() - began


def killed(stage: str, options: dict[str, Any], output: Path, after: float) -> dict[str, Any] | None:
    """Run, kill some seconds after loading, and return its state; None if it finished before that."""
    process = start(stage, options, output, resume=False)
    loaded(process, options)
    process.join(after)
    if process.exitcode is not None:
        return None
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    folder = Path(options["output_dir"])
    found = checkpoints(folder) if folder.is_dir() else []
    return {
        "exit_code": process.exitcode,
        "seconds": round(after, 2),
        "newest_checkpoint": found[-1].name if found else None,
        "while_saving": (folder / STAGING).is_dir(),
    }


def compare(whole: Path, cut: Path) -> dict[str, Any]:
    """Return the differences between two finished runs."""
    pairs = [[load_file(folder / "model.safetensors") for folder in (whole, cut)]]
    newest = checkpoints(whole)[-1].name
    states = [torch.load(folder / newest / "optimizer.pt", weights_only=True)["state"] for folder in (whole, cut)]
    pairs += [[states[0][key], states[1].get(key, {})] for key in states[0]]
    largest = max(
        float((left[name].double() - right[name].double()).abs().max()) if name in right else float("inf")
        for left, right in pairs
        for name in left
    )
    logs = [json.loads((folder / "trainer_state.json").read_text())["log_history"] for folder in (whole, cut)]
    differing = sorted(
        {key for a, b in zip(*logs, strict=False) for key in a.keys() | b.keys() if a.get(key) != b.get(key)} - CLOCKS
    )
    return {
        "same": largest == 0.0 and not differing and len(logs[0]) == len(logs[1]),
        "largest_difference": largest,
        "log_rows": [len(log) for log in logs],
        "differing_log_keys": differing,
    }


def measure(stage: str, options: dict[str, Any], folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill and resume one stage ``kills`` times."""
    whole = folder / f"{stage}-whole"
    seconds = finish(stage, {**options, "output_dir": whole}, folder / f"{stage}-whole.txt", resume=False)
    rows: list[dict[str, Any]] = []
    for number in range(kills):
        dice, cut = random.Random(seed + number), folder / f"{stage}-{number}"
        while (
            row := killed(stage, {**options, "output_dir": cut}, cut.with_suffix(".txt"), dice.random() * seconds)
        ) is None:
            shutil.rmtree(cut)  # the machine was faster this time, and the moment was after the end
        finish(stage, {**options, "output_dir": cut}, cut.with_suffix(".txt"), resume=True)
        rows.append({"seed": seed + number, **row, **compare(whole, cut)})
        shutil.rmtree(cut)
        _print(stage, rows[-1])
    log = json.loads((whole / "trainer_state.json").read_text())["log_history"]
    return {
        "grad_norm": [row["grad_norm"] for row in log if "grad_norm" in row],
        "options": {key: str(value) for key, value in options.items() if key not in ("data", "model", "held_out")},
        "seconds_uninterrupted": round(seconds, 1),
        "kills": rows,
        "same": sum(row["same"] for row in rows),
        "control": control(stage, options, folder, whole),
    }


def control(stage: str, options: dict[str, Any], folder: Path, whole: Path) -> dict[str, Any]:
    """Resume the second-to-last checkpoint without our additions to those of transformers and TRL."""
    cut, checkpoint = folder / f"{stage}-control", checkpoints(whole)[-2]
    shutil.copytree(checkpoint, cut / checkpoint.name)
    for path in [cut / checkpoint.name / "complete.json", *(cut / checkpoint.name).glob("progress_*.pt")]:
        path.unlink()
    finish(stage, {**options, "output_dir": cut}, cut.with_suffix(".txt"), resume=True)
    return {"checkpoint": checkpoint.name, **compare(whole, cut)}


def _print(stage: str, row: dict[str, Any]) -> None:
    place = f"{row['newest_checkpoint'] or 'no checkpoint yet'}{', while saving' if row['while_saving'] else ''}"
    verdict = "the same, bit for bit" if row["same"] else f"DIFFERS: {row['differing_log_keys']}"
    print(f"{stage:4} seed {row['seed']:3}  killed after {row['seconds']:6.1f} s  {place:32}  {verdict}", flush=True)


def main() -> None:
    """Measure both stages and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--folder", type=Path, default=Path("runs/kill-resume"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kill-resume.json"))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir(parents=True)
    world = build_world(seed=0, train_pairs=96, test_pairs=1, captions=1, teacher=Teacher(1.0, 0.0))
    for name, image in world.images.items():
        (arguments.folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(arguments.folder / name)
    data, all_data = arguments.folder / "pairs.jsonl", arguments.folder / "all.jsonl"
    save_pairs(world.train[:24], data)
    save_pairs(world.train, all_data)
    base = arguments.folder / "start"
    if "rl" in arguments.stages:
        options = {**START, "model": "tiny", "data": all_data, "output_dir": base}
        finish("sft", options, base.with_suffix(".txt"), resume=False)
    results: dict[str, Any] = read_json(arguments.out) if arguments.out.exists() else {}
    results.update(machine=describe_machine(), threads=1)
    for stage in arguments.stages:
        options = STAGES[stage]
        model = "tiny" if stage == "sft" else str(base)
        held_out = {"held_out": data} if "held_out_every" in options else {}
        given = {**options, "model": model, "data": data, **held_out}
        results[stage] = measure(stage, given, arguments.folder, arguments.kills, arguments.seed)
        print(f"{stage}: {results[stage]['same']} of {arguments.kills} the same; control {results[stage]['control']}")
        write_json(arguments.out, results)


if __name__ == "__main__":
    main()
