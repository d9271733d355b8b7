"""Collect finished runs of the demo into benchmarks/results, and fill the tables and the picture that show them.

    r1-reward demo --seed 0        # and other seeds: runs/demo-seedN
    python benchmarks/demo_results.py --runs runs --seeds 0 1 2 --tuned-on 101 102 103

The picture is that of the first seed.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from pages import fill

from r1_reward.store.files import read_json, write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HEAD = "seed | SFT: explained, labels only | control | RL | RL - control, all, points [95 %] | explained | labels only"
HEADINGS = [*HEAD.split(" | "), "text alone", "seconds"]


def row_of(metrics: dict[str, Any]) -> list[str]:
    """Return a run's row of the table."""
    gained = metrics["rl_minus_control"]
    groups = ("explained", "labels only")
    accuracies = [
        ", ".join(f"{metrics[model]['by_kind'][group]['mean']:.3f}" for group in groups)
        for model in ("sft", "control", "rl")
    ]
    return [
        str(metrics["seed"]),
        *accuracies,
        f"**{points(gained)}**",
        *(points(gained["by_group"][group]) for group in groups),
        f"{metrics['world']['text_alone']['all']['mean']:.3f}",
        f"{metrics['seconds']:.0f}",
    ]


def points(interval: dict[str, float]) -> str:
    """Return a difference of accuracies and its interval in points."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * interval[name] for name in ("mean", "low", "high")))


def main() -> None:
    """Copy metrics.json of each run, and fill README.md, docs/demo.md and the README's picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Folder with demo-seedN.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of the table.")
    parser.add_argument("--tuned-on", type=int, nargs="+", required=True, help="Seeds on which settings were chosen.")
    given = parser.parse_args()
    rows = []
    for seed in given.seeds:
        metrics = read_json(given.runs / f"demo-seed{seed}" / "metrics.json")
        write_json(RESULTS / f"demo-seed{seed}.json", {**metrics, "tuned_on": given.tuned_on})
        rows.append(row_of(metrics))
    for page in (ROOT / "README.md", ROOT / "docs" / "demo.md"):
        fill(page, "demo results", HEADINGS, rows)
    first = given.runs / f"demo-seed{given.seeds[0]}"
    shutil.copy(first / "summary.png", ROOT / "docs" / "images" / "demo-summary.png")


if __name__ == "__main__":
    main()
