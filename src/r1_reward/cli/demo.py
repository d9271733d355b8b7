"""``r1-reward demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1_reward.cli.options import Fields, with_settings
from r1_reward.studies.demo.config import DemoConfig


@with_settings
def demo(
    config: Annotated[DemoConfig, Fields(only=("seed",))],
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default: runs/demo-seedN.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume after the last finished phase or checkpoint.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A smoke test: every phase, far too small to learn.")] = False,
) -> None:
    """Train a tiny vision-language model to judge answers about handwriting, evaluate it and write a report."""
    from r1_reward.studies.demo import QUICK, run_demo

    report, summary = run_demo(
        out or Path("runs") / f"demo-seed{config.seed}", seed=config.seed, resume=resume, sizes=QUICK if quick else None
    )
    typer.echo(summary)
    typer.echo(f"report: {report}")
