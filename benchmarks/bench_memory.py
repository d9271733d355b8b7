"""Measure memory of a benchmark run against its number of rows: checks, judge and metrics on 50,000 generated rows.

    python benchmarks/bench_memory.py --rows 50000

The rows have the schema of MM-RLHF-RewardBench and share a few pictures; the judge is the untrained tiny model with a
few tokens per verdict, so that mainly the harness is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import matplotlib

from r1_reward.bench.report import write_metrics
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.data.handwriting import build_world
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine

matplotlib.use("Agg")
from matplotlib import pyplot


def generate(folder: Path, count: int) -> Path:
    """Write ``count`` rows and the pictures they show; return the JSONL file."""
    world = build_world(seed=0, train_pairs=500, test_pairs=10, captions=1)
    (folder / "short").mkdir()
    names = []
    for number, image in enumerate(list(world.images.values())[:200]):
        image.save(folder / "short" / f"{number}.png")
        names.append(f"short/{number}.png")
    path = folder / "rows.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            pair = world.train[number % len(world.train)]
            row = {
                "id": f"generated_{number}",
                "image": names[number % len(names)],
                "prompt": f"{pair.question} ({number})",
                "chosen": pair.response_1,
                "rejected": pair.response_2,
            }
            file.write(json.dumps(row) + "\n")
    return path


def resident() -> float:
    """Return this process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Measure, plot and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-memory.json"))
    options = parser.parse_args()
    samples: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = generate(folder, options.rows)
        loaded = load_suite("mm-rlhf-rewardbench", data, allow_partial=True)
        checked = resident()
        start = time.perf_counter()
        settings = RunSettings(model="tiny", orders="stored", max_new_tokens=4)
        missing = run_benchmark(
            loaded,
            settings,
            folder / "out",
            batch_size=256,
            on_unreadable="warn",  # the model has random weights
            progress=lambda state: samples.append((state.done, resident())),
        )
        seconds = time.perf_counter() - start
        write_metrics(folder / "out", expected=loaded.n, missing=missing, notes=loaded.notes)
        size = (folder / "out" / "predictions.jsonl").stat().st_size
    early = max(memory for done, memory in samples if done <= options.rows // 10)
    late = max(memory for done, memory in samples if done > options.rows * 9 // 10)
    result = {
        "machine": describe_machine(),
        "rows": options.rows,
        "seconds": seconds,
        "predictions_mib": size / 2**20,
        "resident_mib": {
            "after_checking_all_rows": checked,
            "peak_in_the_first_tenth": early,
            "peak_in_the_last_tenth": late,
            "after_metrics": resident(),
        },
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    write_json(options.out, result)
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(*zip(*samples, strict=True), color="#2563eb")
    axes.set(xlabel="rows judged", ylabel="resident memory (MiB)", ylim=(0, None), title="Memory of a benchmark run")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out.with_suffix(".png"), dpi=130)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
