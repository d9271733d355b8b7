"""``r1-reward ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ablate(
    config: Annotated[Path, typer.Option("--config", help="A study; see recipes/ablate-tiny.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Study folder; the same command goes on where it stopped.")] = Path(
        "runs/ablate"
    ),
    workers: Annotated[int, typer.Option("--workers", min=1, help="Runs at once, each in a process of its own.")] = 1,
    report_only: Annotated[bool, typer.Option("--report-only", help="Only write the report of what is there.")] = False,
) -> None:
    """Run a grid of algorithms, seeds and rewards from one start, and write one report."""
    from r1_reward.models.quiet import quiet_libraries
    from r1_reward.studies.ablate.cells import finished, run_study
    from r1_reward.studies.ablate.report import write_report
    from r1_reward.studies.ablate.study import load_study

    study = load_study(config)
    quiet_libraries()
    if not report_only:
        run_study(study, out, typer.echo, workers=workers)
    record = write_report(study, finished(study, out), out)
    for name, setting in record["settings"].items():
        typer.echo(f"{name} (against {setting['reference']})")
        for arm, numbers in setting["arms"].items():
            mean, low, high = (100 * numbers["accuracy"][key] for key in ("mean", "low", "high"))
            collapsed = f"{numbers['collapses']} of {numbers['seeds']} collapsed"
            typer.echo(f"  {arm:<28} {mean:5.1f} [{low:5.1f}, {high:5.1f}]  {collapsed}")
    typer.echo(f"report: {out / 'report.html'}")
