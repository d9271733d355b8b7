"""``r1-reward bench``: run a judge on a benchmark, score predictions, compare runs, attack a judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1_reward.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from r1_reward.bench.run import RunState

app = typer.Typer(no_args_is_help=True)
INCOMPLETE = 1


class Orders(str, Enum):
    """Order protocols."""

    both = "both"
    random = "random"
    stored = "stored"
    preferred_first = "preferred-first"


class Rule(str, Enum):
    """Rules for unreadable verdicts."""

    wrong = "wrong"
    drop = "drop"
    coin = "coin"


class Format(str, Enum):
    """Formats of a table."""

    terminal = "terminal"
    markdown = "markdown"
    latex = "latex"
    html = "html"


Suite = Annotated[
    str, typer.Argument(help="vl-rewardbench, multimodal-rewardbench, mm-rlhf-rewardbench, or pairs (any pair file).")
]
Model = Annotated[str, typer.Option(help="A checkpoint folder or Hub id; with --base-url the server's model name.")]
Out = Annotated[Path, typer.Option(help="Run folder; the same command goes on where it stopped.")]
Data = Annotated[
    str | None, typer.Option(help="JSONL, JSON, parquet file or folder, or Hub id; default the benchmark on the Hub.")
]
ImageRoot = Annotated[Path | None, typer.Option(help="What image paths are relative to; default the data's folder.")]
Split = Annotated[str | None, typer.Option(help="Split of a folder or Hub dataset.")]
Revision = Annotated[str | None, typer.Option(help="Revision of a Hub dataset.")]
AllowPartial = Annotated[bool, typer.Option("--allow-partial", help="Accept other numbers of rows than official.")]
RuleOption = Annotated[Rule, typer.Option(help="What an unreadable verdict counts as.")]
Votes = Annotated[int, typer.Option(min=1, help="Votes per row and pass; more than 1 needs a temperature.")]
OrdersOption = Annotated[Orders, typer.Option(help="Which response is shown first; see docs/benchmarks.md.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest judgement.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides orders and sampling.")]
Frames = Annotated[
    int | None, typer.Option(min=1, help="Frames shown of a video; default as the checkpoint was trained, else 8.")
]
BenchFrames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        min=1,
        help="Frames shown of a video; default as the checkpoint was trained, else 8 (MM-RLHF-RewardBench: 32).",
    ),
]
MaxPixels = Annotated[int | None, typer.Option(min=1, help="Scale larger images down (the paper: 501760).")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences generated at once by each worker.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each with the model; one for each GPU.")]
BaseUrl = Annotated[str | None, typer.Option(help="Judge by an OpenAI-compatible server, such as http://HOST/v1.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests open at the server at once.")]
Resume = Annotated[bool, typer.Option("--resume", help="Accepted, not needed: a run always goes on.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def run(
    suite: Suite,
    model: Model,
    out: Out,
    data: Data = None,
    image_root: ImageRoot = None,
    split: Split = None,
    revision: Revision = None,
    allow_partial: AllowPartial = False,
    votes: Votes = 1,
    orders: OrdersOption = Orders.both,
    temperature: Temperature = 0.0,
    max_new_tokens: MaxNewTokens = 1024,
    seed: Seed = 0,
    frames: BenchFrames = None,
    max_pixels: MaxPixels = None,
    base_url: BaseUrl = None,
    rule: RuleOption = Rule.wrong,
    batch_size: BatchSize = 64,
    workers: Workers = 1,
    concurrency: Concurrency = 16,
    as_json: AsJson = False,
    resume: Resume = False,  # noqa: ARG001
) -> None:
    """Judge a benchmark, row by row into --out; exit code 1 if rows could not be judged."""
    from r1_reward.bench.report import write_metrics
    from r1_reward.bench.run import RunSettings, run_benchmark
    from r1_reward.bench.suites import load_suite

    settings = RunSettings(
        model=model,
        votes=votes,
        orders=orders.value,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
        frames=frames_to_show(frames, None if base_url else model, official_frames(suite)),
        max_pixels=max_pixels,
        base_url=base_url,
    )
    loaded = load_suite(suite, data, image_root=image_root, split=split, revision=revision, allow_partial=allow_partial)
    quiet_libraries()
    with progress_bar(loaded.suite.name) as progress:
        missing = run_benchmark(
            loaded, settings, out, batch_size=batch_size, workers=workers, concurrency=concurrency, progress=progress
        )
    metrics = write_metrics(out, expected=loaded.n, missing=missing, notes=loaded.notes, rule=rule.value)
    show(metrics, as_json)
    typer.echo(f"files: {out}", err=as_json)
    if not metrics["complete"]:
        raise typer.Exit(INCOMPLETE)


@app.command()
def score(
    suite: Suite,
    file: Annotated[Path, typer.Argument(help="Predictions: r1_reward's, Multimodal RewardBench's, or ours.")],
    data: Data = None,
    image_root: ImageRoot = None,
    rule: RuleOption = Rule.wrong,
    allow_partial: AllowPartial = False,
    name: Annotated[str | None, typer.Option(help="What tables call this judge; default the file's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score predictions that others wrote."""
    from r1_reward.bench.score import score_file

    metrics = score_file(
        suite, file, data=data, image_root=image_root, rule=rule.value, allow_partial=allow_partial, name=name
    )
    show(metrics, as_json)


@app.command()
def table(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or files that `score --json` printed.")],
    format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.terminal,
    published: Annotated[bool, typer.Option(help="Set the published rows beside the runs.")] = True,
) -> None:
    """Compare runs with each other and with the published rows."""
    from r1_reward.bench import table as tables
    from r1_reward.bench import table_formats

    built = tables.build_tables([tables.load_run(path) for path in runs], published=published)
    if format is Format.terminal:
        from rich.console import Console

        table_formats.to_terminal(built, Console())
        return
    render: dict[Format, Callable[[Any], str]] = {
        Format.markdown: table_formats.to_markdown,
        Format.latex: table_formats.to_latex,
        Format.html: table_formats.to_html,
    }
    typer.echo(render[format](built))


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A run folder.")],
    after: Annotated[Path, typer.Argument(help="Another run folder on the same rows.")],
    rule: RuleOption = Rule.wrong,
    as_json: AsJson = False,
) -> None:
    """Say how much better AFTER is than BEFORE on the same rows: paired difference, 95 % interval, McNemar's test."""
    from r1_reward.bench.predictions import tally_run
    from r1_reward.bench.summary import compare_tallies

    result = compare_tallies(tally_run(before), tally_run(after), rule=rule.value)
    if as_json:
        typer.echo(json.dumps(result))
        return
    gain, test = result["difference"], result["mcnemar"]
    typer.echo(f"{result['n']} rows in both; {result['a_only']} only before, {result['b_only']} only after")
    mean, low, high = (100 * gain[name] for name in ("mean", "low", "high"))
    typer.echo(f"after - before: {mean:+.2f} points [{low:+.2f}, {high:+.2f}]")
    typer.echo(f"{test['better']} rows better, {test['worse']} worse, McNemar p = {test['p']:.3g}")


@app.command()
def probe(
    suite: Suite,
    model: Model,
    out: Out,
    attacks: Annotated[str | None, typer.Option(help="Some attacks only, such as answer_tag,padding.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many rows only, evenly spaced.")] = None,
    data: Data = None,
    image_root: ImageRoot = None,
    split: Split = None,
    revision: Revision = None,
    allow_partial: AllowPartial = False,
    temperature: Temperature = 0.0,
    max_new_tokens: MaxNewTokens = 1024,
    seed: Seed = 0,
    frames: BenchFrames = None,
    max_pixels: MaxPixels = None,
    base_url: BaseUrl = None,
    batch_size: BatchSize = 64,
    workers: Workers = 1,
    concurrency: Concurrency = 16,
    as_json: AsJson = False,
) -> None:
    """Attack a judge: how many of its right verdicts an edit of the rejected response turns; exit code 1 as for run."""
    from r1_reward.bench.attacks import attack_names
    from r1_reward.bench.probes import probe_benchmark, to_markdown
    from r1_reward.bench.run import RunSettings
    from r1_reward.bench.suites import load_suite

    names = attack_names(None if attacks is None else [name.strip() for name in attacks.split(",")])
    settings = RunSettings(
        model=model,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
        frames=frames_to_show(frames, None if base_url else model, official_frames(suite)),
        max_pixels=max_pixels,
        base_url=base_url,
    )
    loaded = load_suite(suite, data, image_root=image_root, split=split, revision=revision, allow_partial=allow_partial)
    quiet_libraries()
    with progress_bar(f"{loaded.suite.name}, attacked") as progress:
        result = probe_benchmark(
            loaded,
            settings,
            out,
            attacks=names,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
            concurrency=concurrency,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(result))
    else:
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(to_markdown(result)))
    typer.echo(f"files: {out}", err=as_json)
    if not result["complete"]:
        raise typer.Exit(INCOMPLETE)


def official_frames(suite: str) -> int | None:
    """Return how many frames of a video the benchmark's own evaluator shows, None if it has no say."""
    from r1_reward.bench.benchmarks import find_benchmark

    protocol = find_benchmark(suite).protocol
    return None if protocol is None else protocol.frames


def frames_to_show(asked: int | None, checkpoint: str | None, default: int | None = None) -> int:
    """Return how many frames of a video to show: those asked for, else those the checkpoint was trained with."""
    from r1_reward.models.checkpoint import video_frames_of_checkpoint
    from r1_reward.store.video import FRAMES

    own = video_frames_of_checkpoint(checkpoint) if asked is None and checkpoint is not None else None
    return asked or own or default or FRAMES


def show(metrics: dict[str, Any], as_json: bool) -> None:
    """Print metrics as one JSON object or as tables."""
    if as_json:
        typer.echo(json.dumps(metrics))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    from r1_reward.bench.report import to_markdown

    Console().print(Markdown(to_markdown(metrics)))


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[RunState], None]]:
    """Show rows done, rows a second, time left and the accuracy so far, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, note="", total=None)

        def update(state: RunState) -> None:
            note = f"accuracy so far {state.right / state.judged:.3f}" if state.judged else ""
            bar.update(task, completed=state.done, total=state.total, note=note)

        yield update
