"""The demo: a tiny vision-language model learns to judge answers about handwriting, in one command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

QUICK: dict[str, int] = {
    "train_pairs": 200, "test_pairs": 24, "captions": 64, "ground_steps": 2, "sft_max_steps": 2, "sft_batch": 8,
    "dev_pairs": 8, "dev_every": 2, "attempt_pairs": 16, "rl_steps": 2, "rl_batch": 16, "votes": 3,
}  # fmt: skip
"""Sizes for a smoke test of every phase, too small to learn."""


def run_demo(
    folder: Path, *, seed: int = 0, resume: bool = False, sizes: Mapping[str, Any] | None = None
) -> tuple[Path, str]:
    """Run the demo in ``folder``; return the report's path and a short summary of the results.

    ``sizes`` overrides fields of `DemoConfig`.

    Raises:
        UserError: The folder holds another run, or cannot be written.
    """
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    from r1_reward.models.quiet import quiet_libraries
    from r1_reward.store.files import read_json
    from r1_reward.store.machine import keep_freed_memory
    from r1_reward.studies.demo.config import DemoConfig
    from r1_reward.studies.demo.pipeline import Demo
    from r1_reward.studies.demo.progress import DemoProgress

    quiet_libraries()  # they print messages and progress bars of their own; the demo has one display
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    if not torch.cuda.is_available():
        torch.set_num_threads(min(torch.get_num_threads(), 2))
        keep_freed_memory()
    config = DemoConfig(seed=seed, **(sizes or {}))
    with DemoProgress() as progress:
        report = Demo(folder, config, progress, resume=resume).run()
    return report, summary(read_json(folder / "metrics.json"))


def summary(metrics: Mapping[str, Any]) -> str:
    """Return the accuracies and the paired difference as text."""
    lines = [f"accuracy on {metrics['n_pairs']} held-out pairs, greedy, both orders:"]
    for name in ("base", "sft", "control", "rl"):
        row = metrics[name]
        lines.append(f"  {name:<8} {row['accuracy']:.3f}  [{row['low']:.3f}, {row['high']:.3f}]")
    gain = metrics["rl_minus_control"]
    for name, cell in (("all pairs", gain), *gain["by_group"].items()):
        lines.append(f"  rl - control, {name:<12} {cell['mean']:+.3f}  [{cell['low']:+.3f}, {cell['high']:+.3f}]")
    blind = metrics["world"]["text_alone"]["all"]
    lines.append(f"  text without the picture {blind['mean']:.3f}  [{blind['low']:.3f}, {blind['high']:.3f}]")
    lines.append(f"{metrics['seconds']:.0f} s in total")
    return "\n".join(lines)
