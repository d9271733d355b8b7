"""``r1-reward data import`` and ``export``: convert public sources to pair folders, and pairs to other formats.

``r1-reward data import rlaif-v --from rlaif-v/ --out pairs/rlaif-v`` reads a source and prints how many rows were read,
kept and dropped. The exit code is 2 if nothing could be imported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from r1_reward.cli.options import with_settings
from r1_reward.cli.progress import counter
from r1_reward.records.errors import UserError
from r1_reward.records.settings import at_home

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the content of --out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")]


@with_settings
def import_source(
    source: Annotated[
        str,
        typer.Argument(
            help="mm-rlhf, rlaif-v, vl-feedback, povid, wildvision-battle, r1-reward-rl, trl (prompt, chosen, "
            "rejected message lists), or groups (responses and their ranking)."
        ),
    ],
    origin: Annotated[
        str, typer.Option("--from", help="A .jsonl, .json or .parquet file, a folder of those, or a Hub dataset.")
    ],
    out: Annotated[Path, typer.Option(help="Pair folder to write.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of relative image paths; default: the folder of --from.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides which answer becomes response 1.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most this many rows.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a folder or Hub dataset.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Read a public source of preference pairs into a pair folder, and account for every row left out."""
    from r1_reward.data.importing import DROPPED, NothingImported, import_pairs
    from r1_reward.models.quiet import quiet_libraries

    quiet_libraries()
    try:
        with counter(source) as note:
            report = import_pairs(
                source, at_home(origin), out, images=images, seed=seed, limit=limit, split=split, config=config,
                overwrite=overwrite, progress=lambda read, kept: note(f"{read:,} rows read, {kept:,} pairs kept"),
            )  # fmt: skip
    except NothingImported as error:
        from r1_reward.bench.file_kinds import hint, looks_like

        kinds = [kind for kind in looks_like(at_home(origin)) if kind.name != source]
        raise UserError(f"{error} {hint(kinds)}." if kinds else str(error)) from error
    _show(report, as_json, unit="rows read", left=f"dropped, each in {out / DROPPED}", out=out)


@with_settings
def export(
    to: Annotated[
        Literal["r1-reward-rl", "trl-preference"],
        typer.Argument(
            help="The format: r1-reward-rl, the released RL rows, or trl-preference, prompt, chosen, rejected and "
            "images for TRL's DPOTrainer and RewardTrainer."
        ),
    ],
    pairs: Annotated[Path, typer.Argument(help="A pair file or pair folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write the rows to.")],
    frames: Annotated[int | None, typer.Option(min=1, help="Images per video in r1-reward-rl; default 8.")] = None,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="For trl-preference: leave out pairs with pictures, for text models.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write pairs as rows of another project's format."""
    from r1_reward.data.exporting import DROPPED, export_r1_reward_rl, export_trl_preference
    from r1_reward.records.schema import FRAMES

    if to == "trl-preference":
        if frames is not None:
            raise UserError("--frames: trl-preference does not support videos; use it with r1-reward-rl only.")
        report = export_trl_preference(pairs, out, text_only=text_only, overwrite=overwrite)
    else:
        if text_only:
            raise UserError("--text-only: every row of r1-reward-rl has an image; use it with trl-preference only.")
        report = export_r1_reward_rl(pairs, out, video_frames=frames or FRAMES, overwrite=overwrite)
    _show(report, as_json, unit="pairs read", left=f"dropped, each in {out / DROPPED}", out=out)


def _show(report: dict[str, Any], as_json: bool, *, unit: str, left: str, out: Path) -> None:
    """Print a report as JSON or as a table, and its warnings on standard error."""
    if as_json:
        typer.echo(json.dumps(report))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("", "count")
        table.columns[1].justify = "right"
        dropped = report["dropped"]
        lines = [(unit, report["read"]), ("pairs kept", report["kept"]), (left, sum(dropped.values()))]
        for name, count in [*lines, *((f"  {reason}", count) for reason, count in dropped.items())]:
            table.add_row(Text(name), f"{count:,}")
        Console().print(table)
        typer.echo(f"files: {out}")
    for warning in report.get("warnings", []):
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)
