"""``r1-reward data annotate`` and ``r1-reward data split-difficulty``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1_reward.cli.bench import Frames, frames_to_show
from r1_reward.records.errors import UserError

if TYPE_CHECKING:
    from r1_reward.data.annotation import AnnotateState

INCOMPLETE = 1
File = Annotated[Path, typer.Argument(help="A pair file, or a folder that `data import` or `data mix` wrote.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences a checkpoint in this process generates at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def annotate(
    file: File,
    teacher: Annotated[str, typer.Option(help="openai:MODEL, server:MODEL@URL, or a checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder; the same command goes on where it stopped.")],
    attempts: Annotated[int, typer.Option(min=1, help="Tries until the teacher agrees with the label.")] = 3,
    temperatures: Annotated[str, typer.Option(help="One for each try; 0 is greedy.")] = "0,0.7,1.0",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest judgement; one that is cut off is none.")] = 1024,
    frames: Frames = None,
    reorder: Annotated[bool, typer.Option("--reorder", help="Later tries see the answers in random order.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides orders and sampling.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests open at the server at once.")] = 16,
    requests_per_minute: Annotated[float | None, typer.Option(min=0.01, help="No more requests than these.")] = None,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds one request may take.")] = 120.0,
    retries: Annotated[int, typer.Option(min=0, help="How often a request that failed is repeated.")] = 5,
    price_in: Annotated[float | None, typer.Option(min=0.0, help="Price of a million tokens shown.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0.0, help="Price of a million tokens generated.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0.0, help="Stop before the folder has cost more.")] = None,
    batch_size: BatchSize = 64,
    as_json: AsJson = False,
    resume: Annotated[bool, typer.Option("--resume", help="Accepted, not needed: a run always goes on.")] = False,  # noqa: ARG001
) -> None:
    """Have a teacher judge every pair until it agrees with the label; exit code 1 if rows are left."""
    from r1_reward.data import annotate as annotating
    from r1_reward.data.teacher import parse_teacher
    from r1_reward.models.quiet import quiet_libraries

    spec = parse_teacher(teacher)
    settings = annotating.AnnotateSettings(
        teacher=teacher,
        attempts=attempts,
        temperatures=_numbers("--temperatures", temperatures),
        max_new_tokens=max_new_tokens,
        seed=seed,
        reorder=reorder,
        frames=frames_to_show(frames, None if spec.url else spec.model),
    )
    quiet_libraries()
    with _annotation_bar() as progress:
        report = annotating.annotate(
            file,
            out,
            settings,
            money=annotating.Money(price_in, price_out, max_cost),
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            timeout=timeout,
            retries=retries,
            batch_size=batch_size,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print_annotation(report)
    typer.echo(f"files: {out}", err=as_json)
    if not report["complete"]:
        raise typer.Exit(INCOMPLETE)


def split_difficulty(
    file: File,
    sft: Annotated[Path, typer.Option(help="Folder for imitation: rows with reasoning that agrees.")],
    rl: Annotated[Path, typer.Option(help="Folder for reinforcement: rows of two tries or more, and failed ones.")],
    model: Annotated[str | None, typer.Option(help="Take this model's pass rate for --rl instead of attempts.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Judgements a row, for the pass rate.")] = 8,
    min_pass_rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave harder rows out.")] = 0.0,
    max_pass_rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave easier rows out.")] = 0.99,
    temperature: Annotated[float, typer.Option(min=0.0, help="For the samples.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest sample.")] = 1024,
    frames: Frames = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides orders and samples.")] = 0,
    curriculum: Annotated[bool, typer.Option("--curriculum", help="Order --rl from easy to hard.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the pairs the folders hold.")] = False,
    batch_size: BatchSize = 64,
    as_json: AsJson = False,
) -> None:
    """Divide annotated pairs into those for imitation and those for reinforcement learning."""
    from r1_reward.data.difficulty import split_difficulty as split
    from r1_reward.data.pass_rates import PassRates
    from r1_reward.data.teacher import parse_teacher
    from r1_reward.models.quiet import quiet_libraries

    rates = None
    if model is not None:
        spec = parse_teacher(model)
        shown = frames_to_show(frames, None if spec.url else spec.model)
        rates = PassRates(model, samples, min_pass_rate, max_pass_rate, temperature, max_new_tokens, seed, shown)
    quiet_libraries()
    with _counting_bar("pass rates") as progress:
        reports = split(
            file, sft, rl, rates, curriculum=curriculum, overwrite=overwrite, batch_size=batch_size, progress=progress
        )
    if as_json:
        typer.echo(json.dumps({"sft": reports[0], "rl": reports[1]}))
        return
    _print_split(*reports)
    typer.echo(f"files: {sft} {rl}")


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"{option} {text}: must be numbers with commas between them, such as 0,0.7,1.0.") from error


def _print_annotation(report: dict[str, Any]) -> None:
    """Print rows by attempts, what every try came to, what was left out, cost and warnings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    rows = Table("attempts", "rows", title="tries until the teacher agrees")
    for name, count in report["attempts"].items():
        rows.add_row(name, f"{count:,}")
    console.print(rows)
    tries = Table("try", "what came back", "replies")
    for number, outcomes in report["outcomes"].items():
        for outcome, count in outcomes.items():
            tries.add_row(number, outcome, f"{count:,}")
    console.print(tries)
    for reason, count in report["dropped"].items():
        console.print(Text(f"left out, {reason}: {count:,} (see dropped.jsonl)"))
    usage, cost = report["usage"], report["cost"]
    price = "" if cost is None else f", cost {cost:,.2f}"
    console.print(
        Text(
            f"{report['written']:,} of {report['rows']:,} rows written, {report['with_reasoning']:,} with reasoning; "
            f"{usage['attempts']:,} replies, {usage['prompt_tokens']:,} tokens shown, {usage['tokens']:,} generated"
            f"{price}"
        )
    )
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))
    if report["left"]:
        why = "--max-cost is reached; " if report["stopped"] == "cost" else ""
        console.print(Text(f"{why}{report['left']:,} rows are left; the same command goes on", style="yellow"))


def _print_split(sft: dict[str, Any], rl: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("difficulty" if sft["rule"] == "attempts" else "right samples", "rows")
    for level, count in sft["levels"].items():
        table.add_row(level, f"{count:,}")
    console.print(table)
    neither = sum(sft["neither"].values())
    typer.echo(
        f"{sft['rows']:,} rows: {sft['written']:,} for imitation, {rl['written']:,} for reinforcement, "
        f"{sft['in_both']:,} of them in both, {neither:,} in neither"
    )
    for reason, count in sft["neither"].items():
        typer.echo(f"in neither, {reason}: {count:,} (see dropped.jsonl of --rl)")


@contextmanager
def _annotation_bar() -> Iterator[Callable[[AnnotateState], None]]:
    """Show rows done, agreement, cost so far and in the end, and the time left, on standard error."""
    with _bar("annotate") as update:

        def show(state: AnnotateState) -> None:
            note = f"agrees on {state.agreed / state.done:.0%}" if state.done else ""
            if state.cost is not None:
                note += f", cost {state.cost:,.2f}"
            if state.estimate is not None:
                note += f" of about {state.estimate:,.2f}"
            update(state.done, state.total, note)

        yield show


@contextmanager
def _counting_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    with _bar(name) as update:
        yield lambda done, total: update(done, total, "")


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: list[TaskID] = []

        def update(done: int, total: int, note: str) -> None:
            tasks.extend([] if tasks else [bar.add_task(name, note="", total=None)])  # no bar before there is news
            bar.update(tasks[0], completed=done, total=total, note=note)

        yield update
