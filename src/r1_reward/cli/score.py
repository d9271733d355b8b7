"""``r1-reward score``: judge a file of pairs or groups of any size into a parquet file.

``r1-reward score pairs.jsonl --model runs/rl --out verdicts.parquet`` resumes where it stopped. It exits with code 1 if
some rows could not be judged; the output lists them with their errors. If none of the first 50 votes can be read, it
stops and says why.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1_reward.cli.judging import AsJson, Frames, with_frames
from r1_reward.cli.options import Fields, with_settings
from r1_reward.cli.progress import progress_bar
from r1_reward.data.scoring.settings import ScoreOptions, ScoreSettings
from r1_reward.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from r1_reward.data.scoring.parts import ScoreSummary
    from r1_reward.data.scoring.score_file import ScoreState

INCOMPLETE = 1


@with_settings
def score(
    file: Annotated[Path, typer.Argument(help="Pairs or groups, one per row: .jsonl or .parquet.")],
    settings: Annotated[ScoreSettings, Fields(names={"both_orders": "--both-orders/--one-order"}, without=("frames",))],
    out: Annotated[Path, typer.Option(help="The .parquet file to write; the same command resumes where it stopped.")],
    options: ScoreOptions,
    frames: Frames = None,
    as_json: AsJson = False,
) -> None:
    """Judge millions of pairs or groups of answers; exit code 1 if rows could not be judged."""
    from r1_reward.data.scoring.score_file import score_file

    settings = with_frames(settings, frames, None if options.base_url else settings.model)
    quiet_libraries()
    with progress_bar(file.name) as update:
        start = time.monotonic()

        def progress(state: ScoreState) -> None:
            nonlocal start
            if not state.judged:  # rows judged by an earlier call say nothing about the speed of this one
                start = time.monotonic()
            speed = f"{state.judged / max(time.monotonic() - start, 1e-9):.3g} rows/s" if state.judged else ""
            update(state.done, state.total, speed + (f", {state.failed} failed" if state.failed else ""))

        summary = score_file(file, out, settings, **options.model_dump(), progress=progress)
    show(summary, as_json)
    if summary.failed or (summary.votes and not summary.readable):
        raise typer.Exit(INCOMPLETE)


def show(summary: ScoreSummary, as_json: bool) -> None:
    """Print the number of rows, of failed rows, the first failures, and what the server refused."""
    from r1_reward.data.scoring.parts import remarks_of

    remarks = remarks_of(summary.out)
    if as_json:
        more = {"remarks": remarks} if remarks else {}
        typer.echo(json.dumps({**summary._asdict(), "out": str(summary.out), **more}))
        return
    from r1_reward.engines.chat_protocol import excerpt

    typer.echo(f"{summary.rows} rows in {summary.out}, {summary.failed} of them with an error")
    if summary.votes:
        readable, cut = (f"{count / summary.votes:.1%}" for count in (summary.readable, summary.truncated or 0))
        typer.echo(f"{summary.votes:,} votes: {readable} are readable, {cut} were cut by the token limit")
        if not summary.readable:
            typer.echo("warning: none of the votes can be read, so no row has a verdict", err=True)
    if summary.ranked:
        typer.echo(f"{summary.ranked:,} groups have a ranking: the top choice is the best of {summary.top_is_best:.1%}")
    for remark in remarks:
        typer.echo(f"note: {remark}")
    for number, name, error in summary.first:
        typer.echo(f"  row {number}{'' if name is None else f' (id {excerpt(name)})'}: {excerpt(error)}")
    if summary.failed > len(summary.first):
        typer.echo(f"  ... and {summary.failed - len(summary.first)} more: see the column `error`")
