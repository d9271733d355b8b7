"""``r1-reward ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1_reward.cli.options import with_settings


@with_settings
def ablate(
    config: Annotated[Path, typer.Option("--config", help="The study's YAML file; see recipes/ablate-tiny.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Study folder; the same command resumes where it stopped.")] = Path(
        "runs/ablate"
    ),
    workers: Annotated[int, typer.Option("--workers", min=1, help="Parallel runs, each in its own process.")] = 1,
    report_only: Annotated[bool, typer.Option("--report-only", help="Only report existing results.")] = False,
) -> None:
    """Run a grid of algorithms, seeds and rewards from one start, and write one report.

    A run that fails has no result: the others still run, the failed ones are named, and the exit code is 1.
    """
    from r1_reward.models.quiet import quiet_libraries
    from r1_reward.studies.ablate.cells import run_study
    from r1_reward.studies.ablate.report import write_report
    from r1_reward.studies.ablate.results import finished, require_same_study
    from r1_reward.studies.ablate.study import load_study
    from r1_reward.studies.report import interval_text

    study = load_study(config)
    quiet_libraries()
    if report_only:
        require_same_study(study, out)
    else:
        run_study(study, out, typer.echo, workers=workers)
    record = write_report(study, finished(study, out), out)
    for name, setting in record["settings"].items():
        typer.echo(f"{name} (against {setting['reference']})")
        for arm, numbers in setting["arms"].items():
            collapsed = f"{numbers['collapses']} of {numbers['seeds']} collapsed"
            if numbers["accuracy_lost"] is not None:
                collapsed += f" ({numbers['broken']} unreadable or broken, {numbers['accuracy_lost']} accuracy lost)"
            typer.echo(f"  {arm:<28} {interval_text(numbers['accuracy']):<20} {collapsed}")
    typer.echo(f"report: {out / 'report.html'}")
    for cell, error in record["failed"].items():
        typer.secho(f"no result: {cell}: {error}", fg=typer.colors.RED, err=True)
    if record["failed"] and not report_only:
        raise typer.Exit(1)
