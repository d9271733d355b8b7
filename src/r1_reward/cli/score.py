"""``r1-reward score``: judge a file of any number of pairs or groups into a parquet file.

``r1-reward score pairs.jsonl --model runs/rl --out verdicts.parquet`` goes on where it stopped. It exits with code 1 if
some rows could not be judged; they are in the output, with their errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1_reward.cli.bench import BatchSize, Concurrency, Frames, MaxNewTokens, MaxPixels, Model, Workers, frames_to_show
from r1_reward.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from r1_reward.data.scoring.parts import ScoreSummary
    from r1_reward.data.scoring.score_file import ScoreState

INCOMPLETE = 1


class Stop(str, Enum):
    """Rules for leaving votes undrawn."""

    exact = "exact"
    sequential = "sequential"


def score(
    file: Annotated[Path, typer.Argument(help="Pairs or groups, a row each: .jsonl or .parquet.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="The .parquet file to write; the same command goes on where it stopped.")],
    votes: Annotated[int, typer.Option(min=1, help="Votes per pair and order shown.")] = 1,
    both_orders: Annotated[
        bool, typer.Option("--both-orders/--one-order", help="Show each response first as often as the other.")
    ] = True,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 is greedy; default 0 for one vote, 1 for several.")
    ] = None,
    stop: Annotated[Stop | None, typer.Option(help="Leave votes undrawn that (most likely) change nothing.")] = None,
    max_new_tokens: MaxNewTokens = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Decides the sampling.")] = 0,
    max_pixels: MaxPixels = None,
    frames: Frames = None,
    base_url: Annotated[
        list[str] | None, typer.Option(help="Judge by an OpenAI-compatible server; once for each server of the model.")
    ] = None,
    batch_size: BatchSize = 64,
    workers: Workers = 1,
    concurrency: Concurrency = 16,
    block_rows: Annotated[int, typer.Option(min=1, help="Rows kept together; a kill loses those under way.")] = 512,
    ray: Annotated[
        bool, typer.Option("--ray", help="Run the workers on a Ray cluster (RAY_ADDRESS, or this machine).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge millions of pairs or groups of answers; exit code 1 if rows could not be judged."""
    from r1_reward.data.scoring.judging import ScoreSettings
    from r1_reward.data.scoring.score_file import score_file

    settings = ScoreSettings(
        model=model,
        votes=votes,
        both_orders=both_orders,
        temperature=temperature,
        stop=stop.value if stop else None,
        max_new_tokens=max_new_tokens,
        seed=seed,
        max_pixels=max_pixels,
        frames=frames_to_show(frames, None if base_url else model),
    )
    quiet_libraries()
    with progress_bar(file.name) as progress:
        summary = score_file(
            file,
            out,
            settings,
            base_url=base_url or (),
            batch_size=batch_size,
            workers=workers,
            concurrency=concurrency,
            block_rows=block_rows,
            ray=ray,
            progress=progress,
        )
    show(summary, as_json)
    if summary.failed:
        raise typer.Exit(INCOMPLETE)


def show(summary: ScoreSummary, as_json: bool) -> None:
    """Print how many rows there are, how many failed, and the first of those."""
    if as_json:
        typer.echo(json.dumps({**summary._asdict(), "out": str(summary.out)}))
        return
    from r1_reward.engines.chat_protocol import excerpt

    typer.echo(f"{summary.rows} rows in {summary.out}, {summary.failed} of them with an error")
    for number, name, error in summary.first:
        typer.echo(f"  row {number}{'' if name is None else f' (id {excerpt(name)})'}: {excerpt(error)}")
    if summary.failed > len(summary.first):
        typer.echo(f"  ... and {summary.failed - len(summary.first)} more: see the column `error`")


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[ScoreState], None]]:
    """Show rows done, rows a second, time left and failures, on standard error."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task(escape(name), note="", total=None)

        def update(state: ScoreState) -> None:
            if not state.judged:  # what an earlier call judged says nothing about the speed of this one
                bar.reset(task, total=state.total, completed=state.done)
                return
            elapsed = bar.tasks[0].elapsed
            speed = f"{state.judged / elapsed:.3g} rows/s" if elapsed else ""
            failed = f", {state.failed} failed" if state.failed else ""
            bar.update(task, completed=state.done, note=speed + failed)

        yield update
