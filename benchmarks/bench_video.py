"""Does a judge trained on videos use the order of their frames?

A tiny Qwen2.5-VL with random weights is trained by ``r1-reward train sft`` on films of handwritten digits (which digit
comes first, which last?), then judges held-out films of scans it never saw, in both orders: as they are, and with their
frames reversed, the labels kept. Both responses name a digit of the film, so a judge that does not know the order is at
50 % on both, and one that does falls below 50 % on the second by as much as it is above on the first.

    python benchmarks/bench_video.py --out runs/films --seed 0 1 2
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from r1_reward.backends import TransformersBackend
from r1_reward.bench.judge import Pair, judge, judge_pairs
from r1_reward.bench.metrics import accuracy
from r1_reward.data.handwriting import vocabulary as words
from r1_reward.data.handwriting_video import vocabulary, write_films
from r1_reward.data.pairs import load_pairs
from r1_reward.data.video import row_pictures
from r1_reward.demo.metrics import describe_machine
from r1_reward.files import write_json
from r1_reward.train.launch import train
from r1_reward.train.models import build_tiny, load_model_and_processor

FRAMES = 3
OPTIONS = {
    "use_cpu": "true", "bf16": "false", "gradient_checkpointing": "false", "report_to": "none", "disable_tqdm": "true",
    "save_strategy": "steps", "save_steps": 100000, "logging_steps": 50, "video_frames": FRAMES,
    "per_device_train_batch_size": 64, "lr_scheduler_type": "linear", "warmup_steps": 30, "adam_beta2": 0.98,
}  # fmt: skip


def measure(folder: Path, seed: int, options: argparse.Namespace) -> dict:
    """Train one seed and return its numbers."""
    pairs, held_out = write_films(
        folder / "films", seed=seed, train_pairs=options.train_pairs, test_pairs=options.test_pairs
    )
    model, processor = build_tiny([*words(), *vocabulary()], seed=seed)
    model.save_pretrained(folder / "tiny")
    processor.save_pretrained(folder / "tiny")
    given = {
        **OPTIONS, "model": folder / "tiny", "data": pairs, "output_dir": folder / "sft", "max_steps": options.steps,
        "learning_rate": options.learning_rate, "seed": seed,
    }  # fmt: skip
    began, cpu = time.monotonic(), time.process_time()
    train("sft", None, [text for key, value in given.items() for text in (f"--{key}", str(value))])
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    rows = list(load_pairs(held_out, video_frames=FRAMES))
    backend = TransformersBackend(*load_model_and_processor(str(folder / "sft")), batch_size=300)
    labels = [row["preferred"] for row in rows]
    as_filmed = judge_pairs(backend, rows, max_new_tokens=64, video_frames=FRAMES)
    backwards = (
        Pair(
            i, row["question"], row_pictures(row, FRAMES)[::-1], row["response_1"], row["response_2"], row["preferred"]
        )
        for i, row in enumerate(rows)
    )
    reversed_ = [
        [vote for votes in passes for vote in votes] for passes in judge(backend, backwards, max_new_tokens=64)
    ]
    return {
        "seed": seed,
        "train_seconds": seconds,
        "train_cpu_seconds": cpu,
        "parse_rate": float(np.mean([vote.answer is not None for votes in as_filmed for vote in votes])),
        "as_filmed": accuracy(as_filmed, labels)._asdict(),
        "reversed": accuracy(reversed_, labels)._asdict(),
    }


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Folder for films and checkpoints.")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--train-pairs", type=int, default=3000)
    parser.add_argument("--test-pairs", type=int, default=300)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/bench-video.json"))
    options = parser.parse_args()
    records = [measure(options.out / f"seed{seed}", seed, options) for seed in options.seed]
    settings = {name: getattr(options, name) for name in ("steps", "learning_rate", "train_pairs", "test_pairs")}
    write_json(options.results, {"machine": describe_machine(), "frames": FRAMES, **settings, "runs": records})
    table = Table("seed", "as filmed, % [95 %]", "reversed, % [95 %]", "readable, %", "seconds", "CPU seconds")
    for one in records:
        intervals = [
            f"{100 * one[name]['mean']:.1f} [{100 * one[name]['low']:.1f}, {100 * one[name]['high']:.1f}]"
            for name in ("as_filmed", "reversed")
        ]
        times = (f"{one['train_seconds']:.0f}", f"{one['train_cpu_seconds']:.0f}")
        table.add_row(str(one["seed"]), *intervals, f"{100 * one['parse_rate']:.1f}", *times)
    Console().print(table)


if __name__ == "__main__":
    main()
