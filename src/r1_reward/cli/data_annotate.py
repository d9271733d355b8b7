"""``r1-reward data annotate`` and ``r1-reward data split-difficulty``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1_reward.cli.judging import AsJson, Frames, Resume, frames_to_show, with_frames
from r1_reward.cli.options import Fields, Partial, with_settings
from r1_reward.cli.progress import progress_bar
from r1_reward.data.settings import AnnotateSettings, Money, PassRates, TeacherOptions
from r1_reward.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from r1_reward.data.annotation import AnnotateState

INCOMPLETE = 1
File = Annotated[Path, typer.Argument(help="A pair file, or a folder that `data import` or `data mix` wrote.")]


@with_settings
def annotate(
    file: File,
    settings: Annotated[AnnotateSettings, Fields(without=("frames",), joined=("temperatures",))],
    out: Annotated[Path, typer.Option(help="Output folder; the same command resumes where it stopped.")],
    options: TeacherOptions,
    money: Annotated[Money, Fields(names={"limit": "--max-cost"})],
    frames: Frames = None,
    as_json: AsJson = False,
    resume: Resume = False,  # noqa: ARG001
) -> None:
    """Let a teacher judge every pair until it agrees with the label; exit code 1 if rows remain."""
    from r1_reward.data.annotate import annotate as run
    from r1_reward.data.teacher import parse_teacher

    spec = parse_teacher(settings.teacher)
    settings = with_frames(settings, frames, None if spec.url else spec.model)
    quiet_libraries()
    with progress_bar("annotate") as update:

        def progress(state: AnnotateState) -> None:
            update(state.done, state.total, _note(state))

        report = run(file, out, settings, money=money, **options.model_dump(), progress=progress)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print_annotation(report)
    typer.echo(f"files: {out}", err=as_json)
    if not report["complete"]:
        raise typer.Exit(INCOMPLETE)


@with_settings
def split_difficulty(
    file: File,
    sft: Annotated[Path, typer.Option(help="Folder for imitation: rows whose reasoning agrees.")],
    rl: Annotated[
        Path, typer.Option(help="Folder for reinforcement: rows that took two or more tries, or never agreed.")
    ],
    rates: Annotated[
        Partial[PassRates],
        Fields(names={"lowest": "--min-pass-rate", "highest": "--max-pass-rate"}, without=("model", "frames")),
    ],
    options: Annotated[TeacherOptions, Fields(only=("batch_size", "on_unreadable"))],
    model: Annotated[str | None, typer.Option(help="Select --rl by this model's pass rate, not by attempts.")] = None,
    frames: Frames = None,
    curriculum: Annotated[bool, typer.Option("--curriculum", help="Sort --rl from easy to hard.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing pairs in the folders.")] = False,
    as_json: AsJson = False,
) -> None:
    """Split annotated pairs into those for imitation and those for reinforcement learning."""
    from r1_reward.data.difficulty import split_difficulty as split
    from r1_reward.data.teacher import parse_teacher

    measured = None
    if model is not None:
        spec = parse_teacher(model)
        measured = rates(model=model, frames=frames_to_show(frames, None if spec.url else spec.model))
    quiet_libraries()
    how: dict[str, Any] = {"curriculum": curriculum, "overwrite": overwrite}
    how |= options.model_dump(include={"batch_size", "on_unreadable"})
    if measured is None:
        reports = split(file, sft, rl, **how)
    else:
        with progress_bar("pass rates") as update:
            reports = split(file, sft, rl, measured, **how, progress=lambda done, total: update(done, total, ""))
    if as_json:
        typer.echo(json.dumps({"sft": reports[0], "rl": reports[1]}))
        return
    _print_split(*reports)
    typer.echo(f"files: {sft} {rl}")


def _note(state: AnnotateState) -> str:
    """Return the agreement, the cost so far and the estimated total."""
    note = f"agrees on {state.agreed / state.done:.0%}" if state.done else ""
    if state.cost is not None:
        note += f", cost {state.cost:,.2f}"
    if state.estimate is not None:
        note += f" of about {state.estimate:,.2f}"
    return note


def _print_annotation(report: dict[str, Any]) -> None:
    """Print rows by attempts, the result of every try, what was left out, cost and warnings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    rows = Table("attempts", "rows", title="tries until the teacher agrees")
    for name, count in report["attempts"].items():
        rows.add_row(name, f"{count:,}")
    console.print(rows)
    tries = Table("try", "result", "replies")
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
            f"{usage['attempts']:,} replies, {usage['prompt_tokens']:,} prompt tokens, {usage['tokens']:,} generated"
            f"{price}"
        )
    )
    if report.get("parse_rate") is not None:
        readable, cut = f"{report['parse_rate']:.1%}", f"{report['truncated']:.1%}"
        console.print(Text(f"{readable} of the replies have a verdict, {cut} were cut by the token limit"))
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))
    if report["left"]:
        reasons = {"cost": "--max-cost is reached; ", "unreadable": "stopped (--on-unreadable warn continues); "}
        why = reasons.get(report["stopped"], "")
        console.print(Text(f"{why}{report['left']:,} rows remain; run the same command to continue", style="yellow"))


def _print_split(sft: dict[str, Any], rl: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table("difficulty" if sft["rule"] == "attempts" else "right samples", "rows")
    for level, count in sft["levels"].items():
        table.add_row(level, f"{count:,}")
    console.print(table)
    if samples := sft.get("samples"):
        typer.echo(
            f"{samples['readable']} of {samples['votes']} samples are readable, {samples['truncated']} were cut by the "
            "token limit"
        )
    neither = sum(sft["neither"].values())
    typer.echo(
        f"{sft['rows']:,} rows: {sft['written']:,} for imitation, {rl['written']:,} for reinforcement, "
        f"{sft['in_both']:,} of them in both, {neither:,} in neither"
    )
    for reason, count in sft["neither"].items():
        typer.echo(f"in neither, {reason}: {count:,} (see dropped.jsonl of --rl)")
    for warning in sft.get("warnings", ()):
        console.print(Text(f"warning: {warning}", style="yellow"))
