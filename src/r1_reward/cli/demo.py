"""``r1-reward demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default runs/demo-seedN.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides data, weights and sampling.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last finished phase or checkpoint.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A smoke test: every phase, far too small to learn.")] = False,
) -> None:
    """Train a tiny vision-language model to judge answers about handwriting; evaluate it; write a report."""
    from r1_reward.studies.demo import QUICK, run_demo

    report, summary = run_demo(
        out or Path("runs") / f"demo-seed{seed}", seed=seed, resume=resume, sizes=QUICK if quick else None
    )
    typer.echo(summary)
    typer.echo(f"report: {report}")
