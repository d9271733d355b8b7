"""Does a judge trained on videos use the order of their frames?

The demo's judge of single pictures (its control, which trained longest) is trained by ``r1-reward train sft`` on videos
of handwritten digits: which comes first, which last? Then it judges videos of scans from neither training, in both
orders: unchanged, and with their frames reversed but the same labels. Both responses name a digit of the video, so a
judge that ignores the order scores 50 % on both, and one that uses it falls as far below 50 % on the second as it is
above 50 % on the first.

    for seed in 0 1 2; do r1-reward demo --seed $seed --out runs/demo-seed$seed; done
    python benchmarks/bench_video.py --demos runs --out runs/films --seed 0 1 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from r1_reward.data.handwriting_video import write_films
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.judge.metrics import accuracy
from r1_reward.judge.prepare import Prepared, opened
from r1_reward.judge.votes import Plan, draw_votes, judge_pairs
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.models.placing import placed
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine
from r1_reward.store.pairs import load_pairs
from r1_reward.store.video import row_pictures
from r1_reward.train.launch import train

FRAMES = 3
OPTIONS = {
    "use_cpu": "true", "bf16": "false", "gradient_checkpointing": "false", "report_to": "none", "disable_tqdm": "true",
    "save_strategy": "steps", "save_steps": 100000, "logging_steps": 50, "video_frames": FRAMES,
    "per_device_train_batch_size": 64, "lr_scheduler_type": "linear", "warmup_steps": 30, "adam_beta2": 0.98,
}  # fmt: skip


def judged(checkpoint: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the accuracy on the original and the reversed videos, and the share of readable verdicts."""
    engine = TransformersEngine(*placed(lambda: load_model_and_processor(str(checkpoint))), batch_size=300)
    plan = Plan(max_new_tokens=64)
    votes = {"as filmed": judge_pairs(engine, rows, plan, video_frames=FRAMES)}
    backwards = (
        Prepared(r["question"], opened(row_pictures(r, FRAMES)[::-1]), (r["response_1"], r["response_2"])) for r in rows
    )
    votes["reversed"] = list(draw_votes(engine, backwards, plan))
    readable = [vote.answer is not None for row in votes["as filmed"] for vote in row]
    labels = [row["preferred"] for row in rows]
    return {
        **{name: accuracy(outcomes, labels)._asdict() for name, outcomes in votes.items()},
        "readable": float(np.mean(readable)),
    }


def measure(folder: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one seed and return its results."""
    judge_of_pictures = options.demos / f"demo-seed{seed}" / "control"
    # The demo of the same seed holds out the same scans.
    pairs, held_out = write_films(
        folder / "films", seed=seed, train_pairs=options.train_pairs, test_pairs=options.test_pairs
    )
    rows = list(load_pairs(held_out, video_frames=FRAMES))
    before = judged(judge_of_pictures, rows)
    given = {
        **OPTIONS, "model": judge_of_pictures, "data": pairs, "output_dir": folder / "sft", "max_steps": options.steps,
        "learning_rate": options.learning_rate, "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    train("sft", None, [text for key, value in given.items() for text in (f"--{key}", str(value))])
    seconds = time.monotonic() - began
    return {"seed": seed, "train_seconds": seconds, "before": before, "after": judged(folder / "sft", rows)}


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demos", type=Path, default=Path("runs"), help="Folder of the demos, demo-seed0 and so on.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for videos and checkpoints.")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--train-pairs", type=int, default=3000)
    parser.add_argument("--test-pairs", type=int, default=300)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/bench-video.json"))
    options = parser.parse_args()
    records = [measure(options.out / f"seed{seed}", seed, options) for seed in options.seed]
    settings = {name: getattr(options, name) for name in ("steps", "learning_rate", "train_pairs", "test_pairs")}
    write_json(options.results, {"machine": describe_machine(), "frames": FRAMES, **settings, "runs": records})
    table = Table("seed", "", "as filmed, % [95 %]", "reversed, % [95 %]", "readable, %", "training, s")
    for one in records:
        for stage in ("before", "after"):
            intervals = (
                "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * one[stage][name][key] for key in ("mean", "low", "high")))
                for name in ("as filmed", "reversed")
            )
            seconds = f"{one['train_seconds']:.0f}" if stage == "after" else ""
            table.add_row(str(one["seed"]), stage, *intervals, f"{100 * one[stage]['readable']:.1f}", seconds)
    Console().print(table)


if __name__ == "__main__":
    main()
