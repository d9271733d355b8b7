"""When is RL worth it? RL minus its control against the share of pairs that the teacher can explain.

    python benchmarks/bench_crossing.py --runs runs/crossing       # 25 runs of the demo; resumes where it stopped
    python benchmarks/bench_crossing.py --runs runs/crossing --share 0.5 --seed 3    # one of them

Runs that are in the results are not repeated; ``--fill`` writes the table of docs/demo.md. Each run is the demo with
``house_share`` = 1 - share, otherwise unchanged: SFT to its plateau, then RL, and a control that continues SFT for as
long as RL took. The share counts pairs of the kinds the teacher explains; nine in ten of them have its text. At 0 there
is no text to imitate, and both start from captions alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from pages import fill

from r1_reward.models.quiet import quiet_libraries
from r1_reward.store.files import read_json, write_bytes, write_json
from r1_reward.store.machine import describe_machine, keep_freed_memory
from r1_reward.studies.demo.config import DemoConfig
from r1_reward.studies.demo.pipeline import Demo
from r1_reward.studies.demo.progress import DemoProgress
from r1_reward.studies.report import png
from r1_reward.studies.statistics import mean_over_seeds

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SEEDS = (0, 1, 2, 3, 4)
MODELS = ("sft", "control", "rl")
UNUSED = {"votes", "voting_pairs"}
"""Settings of the votes at temperature 1, which no number here comes from: the demo's own runs count as well."""
RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "demo.md"
HEADINGS = ["kinds explained", "seeds", "SFT, %", "control, %", "RL, %", "RL - control, points [95 % over seeds]"]


def settings(share: float, seed: int, sizes: dict[str, Any]) -> DemoConfig:
    """Return the settings of a run."""
    return DemoConfig(**{"votes": 1, "voting_pairs": 1, **sizes, "seed": seed, "house_share": 1 - share})


def run(folder: Path, share: float, seed: int, sizes: dict[str, Any]) -> None:
    """Run or resume the demo at one share."""
    with DemoProgress() as progress:
        Demo(folder, settings(share, seed, sizes), progress, resume=folder.exists()).run()


def folder_of(runs: Path, share: float, seed: int) -> Path:
    """Return the folder of a run."""
    return runs / f"share{share:g}-seed{seed}"


def cells(runs: Path, results: Path, sizes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results of the finished runs: share, seed, accuracies, and RL minus control with its interval.

    A run whose folder is missing is taken from the file ``results``, if it exists. A run with settings other than
    today's does not count; only those of the sampled votes may differ.
    """
    before = read_json(results)["runs"] if results.is_file() else []
    known = {(cell["share"], cell["seed"]): cell for cell in before}
    for share in SHARES:
        for seed in SEEDS:
            path = folder_of(runs, share, seed) / "metrics.json"
            if path.is_file():
                known[share, seed] = measured(read_json(path), share, seed)
    today = {key: settings(*key, sizes).model_dump(exclude=UNUSED) for key in known}
    return [known[key] for key in sorted(known) if known[key]["config"] == today[key]]


def measured(metrics: dict[str, Any], share: float, seed: int) -> dict[str, Any]:
    """Return the numbers of a run to keep."""
    accuracies = {name: metrics[name]["accuracy"] for name in MODELS}
    numbers = {name: metrics[name] for name in ("n_pairs", "seconds", "control_steps", "rl_minus_control")}
    config = {name: value for name, value in metrics["config"].items() if name not in UNUSED}
    return {"share": share, "seed": seed, **numbers, **accuracies, "config": config}


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of each share, with a 95 % t interval over seeds."""
    rows = []
    for share in SHARES:
        own = [cell for cell in found if cell["share"] == share]
        if own:
            gains = over_seeds([cell["rl_minus_control"]["mean"] for cell in own])
            models = {name: over_seeds([cell[name] for cell in own]) for name in MODELS}
            rows.append({"share": share, "seeds": len(own), "rl_minus_control": gains, **models})
    return rows


def over_seeds(values: list[float]) -> dict[str, float | None]:
    """Return mean, low and high; a single seed has no interval."""
    interval = mean_over_seeds(values)._asdict()
    return interval if len(values) > 1 else {**interval, "low": None, "high": None}


def picture(found: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Figure:
    """Return the figure: a point per seed, a line through the means."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#666b73", linewidth=1)
    at = [100 * cell["share"] for cell in found]
    axes.plot(at, [100 * cell["rl_minus_control"]["mean"] for cell in found], "o", color="#D55E00", alpha=0.45)
    means = [100 * row["rl_minus_control"]["mean"] for row in rows]
    axes.plot([100 * row["share"] for row in rows], means, color="#D55E00", linewidth=2)
    for row, mean in zip(rows, means, strict=True):
        axes.annotate(f"{mean:+.1f}", (100 * row["share"], mean), xytext=(8, 6), textcoords="offset points")
    axes.margins(0.09, 0.12)  # room for the numbers
    axes.set_xlabel("pairs of kinds that the teacher explains (%)")
    axes.set_ylabel("RL minus control (points)")
    axes.set_title("What RL adds where texts explain too little", loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e6ea")
    return figure


def table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return the cells of the page's table, a row a share; a single seed has no interval."""
    cells = []
    for row in rows:
        gain = row["rl_minus_control"]
        bounds = " [{:+.1f}, {:+.1f}]".format(100 * gain["low"], 100 * gain["high"]) if row["seeds"] > 1 else ""
        means = [f"{100 * row[name]['mean']:.1f}" for name in MODELS]
        cells.append([f"{row['share']:.0%}", str(row["seeds"]), *means, f"{100 * gain['mean']:+.1f}{bounds}"])
    return cells


def main() -> None:
    """Run the missing demos and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/crossing"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--share", type=float, choices=SHARES, action="append")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append")
    parser.add_argument("--fill", action="store_true", help="fill the table of docs/demo.md")
    parser.add_argument("--quick", action="store_true", help="smoke-test sizes, too small to learn")
    given = parser.parse_args()
    quiet_libraries()
    keep_freed_memory()
    sizes: dict[str, Any] = {}
    if given.quick:
        from r1_reward.studies.demo import QUICK

        sizes = QUICK
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out / "crossing.json"
    for seed in given.seed or SEEDS:
        for share in given.share or SHARES:
            if not any((cell["share"], cell["seed"]) == (share, seed) for cell in cells(given.runs, results, sizes)):
                run(folder_of(given.runs, share, seed), share, seed, sizes)
            found = cells(given.runs, results, sizes)
            rows = summary(found)
            write_json(results, {"machine": describe_machine(), "summary": rows, "runs": found})
            write_bytes(given.out / "crossing.png", png(picture(found, rows), dpi=160))
    if given.fill:
        fill(PAGE, "crossing results", HEADINGS, table(rows))


if __name__ == "__main__":
    main()
