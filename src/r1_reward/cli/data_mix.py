"""``r1-reward data mix``: one training set from several sources, without duplicates or benchmark rows.

``r1-reward data mix --config recipes/data-200k.yaml --out data/mixed`` prints how many rows each source contributed and
how many were removed; README.md in the folder has the details.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from r1_reward.cli.options import with_settings


@with_settings
def mix_sources(
    config: Annotated[Path, typer.Option("--config", help="YAML file; see recipes/data-200k.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: `out` of the config.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Overrides the config's seed.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing mixture in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Mix sources by count: deduplicate, decontaminate, balance, split by picture and write a data card."""
    from r1_reward.bench.suites import load_suite
    from r1_reward.data.mix_config import load_mix
    from r1_reward.data.mixing import mix
    from r1_reward.models.quiet import quiet_libraries

    quiet_libraries()
    settings = load_mix(config)
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})

    def say(text: str) -> None:
        typer.echo(text, err=True)

    report = mix(settings, out, overwrite=overwrite, open_benchmark=load_suite, say=say).report
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print_table(report, Path(out or settings.out or ""))


def _print_table(report: dict[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("source", *(heading for heading in ("read", "removed", "not drawn", "taken")), "reason for removal")
    for name, source in report["sources"].items():
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in source["removed"].items())
        numbers = (source["read"], sum(source["removed"].values()), source["not_drawn"], source["taken"])
        table.add_row(name, *(f"{number:,}" for number in numbers), reasons)
    console = Console()
    console.print(table)
    for warning in report["warnings"]:
        console.print(f"warning: {warning}", markup=False)
    if not report["benchmarks"]:
        console.print("warning: no benchmark was given, so rows were not checked for overlap with one.")
    labels = report["labels"]
    ones, twos = (sum(side[label] for side in labels.values()) for label in ("1", "2"))
    console.print(
        f"{report['rows']:,} pairs ({report['train']:,} train, {report['test']:,} test), {ones:,} prefer response 1 "
        f"and {twos:,} response 2: {folder}",
        markup=False,
        soft_wrap=True,
    )
