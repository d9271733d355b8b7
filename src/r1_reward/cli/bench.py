"""``r1-reward bench``: run a judge on a benchmark, score predictions, compare runs, attack a judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from r1_reward.bench.benchmarks import benchmark_names, find_benchmark
from r1_reward.bench.settings import Rule, RunOptions, RunSettings, SuiteRows
from r1_reward.cli.judging import AsJson, Resume, with_frames
from r1_reward.cli.options import Fields, with_settings
from r1_reward.cli.progress import progress_bar
from r1_reward.models.quiet import quiet_libraries
from r1_reward.records.errors import UserError

if TYPE_CHECKING:
    from r1_reward.bench.run import RunState
    from r1_reward.bench.suites import LoadedSuite

app = typer.Typer(no_args_is_help=True)
INCOMPLETE = 1

Format = Literal["terminal", "markdown", "latex", "html"]

Suite = Annotated[str, typer.Argument(help=f"{', '.join(benchmark_names())} (pairs: any pair file).")]
Out = Annotated[Path, typer.Option(help="Run folder; the same command resumes where it stopped.")]
RuleOption = Annotated[
    Rule,
    typer.Option(help="Unreadable verdicts: count as wrong, drop rows without a majority of all votes, or flip coins."),
]
Frames = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Frames shown of each video; default: as in training, else the benchmark's own number, else 8.",
    ),
]
Engine = Annotated[RunOptions, Fields(without=("base_url",))]
"""At most one server judges a benchmark: its address is part of the run's identity."""


@app.command()
@with_settings
def run(
    suite: Suite,
    settings: Annotated[RunSettings, Fields(without=("frames",))],
    out: Out,
    rows: SuiteRows,
    engine: Engine,
    frames: Frames = None,
    rule: RuleOption = "wrong",
    as_json: AsJson = False,
    resume: Resume = False,  # noqa: ARG001
) -> None:
    """Judge a benchmark and write each row to --out; exit code 1 if rows failed or no verdict can be read."""
    from r1_reward.bench.report import write_metrics
    from r1_reward.bench.run import run_benchmark
    from r1_reward.bench.suites import load_suite

    settings = with_frames(settings, frames, None if settings.base_url else settings.model, official_frames(suite))
    loaded = load_suite(suite, rows.data, **rows.options())
    if loaded.suite.grouped:
        typer.echo(_cost(loaded, settings), err=True)
    quiet_libraries()
    with progress_bar(loaded.suite.name) as update:
        speed = engine.model_dump(exclude={"base_url"})
        missing = run_benchmark(loaded, settings, out, **speed, progress=partial(_show_state, update))
    metrics = write_metrics(out, expected=loaded.n, missing=missing, notes=loaded.notes, rule=rule)
    show(metrics, as_json)
    typer.echo(f"files: {out}", err=as_json)
    if not metrics["complete"] or metrics.get("parse_rate") == 0:
        raise typer.Exit(INCOMPLETE)


@app.command()
@with_settings
def score(
    suite: Suite,
    file: Annotated[
        Path,
        typer.Argument(
            help="Predictions: ours, r1_reward's, or from the benchmark's scripts, VLMEvalKit or lmms-eval."
        ),
    ],
    rows: Annotated[SuiteRows, Fields(only=("data", "image_root", "ties", "columns", "allow_partial"))],
    rule: RuleOption = "wrong",
    votes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Votes per item, drawn as in the official script; default: all. For files with a line per vote."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of this judge in tables; default: the file's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score predictions written by other tools."""
    from r1_reward.bench.score import score_file

    options = rows.options()
    given = {"data": rows.data, **{name: options[name] for name in ("image_root", "ties", "columns", "allow_partial")}}
    show(score_file(suite, file, **given, rule=rule, votes=votes, name=name), as_json)


@app.command()
@with_settings
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
) -> None:
    """Write a run's predictions in the format of the benchmark's own scripts, if it has any."""
    from r1_reward.bench.report import export_run

    for file in export_run(run, out):
        typer.echo(file)


@app.command()
@with_settings
def table(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or files that `score --json` printed.")],
    format: Annotated[Format, typer.Option("--format", help="Output format.")] = "terminal",
    published: Annotated[bool, typer.Option(help="Include the published rows.")] = True,
) -> None:
    """Compare runs with each other and with the published rows."""
    from r1_reward.bench import table_formats
    from r1_reward.bench.overview import build_tables
    from r1_reward.bench.table import load_run

    built = build_tables([load_run(path) for path in runs], published=published)
    if format == "terminal":
        from rich.console import Console

        table_formats.to_terminal(built, Console())
        return
    render: dict[str, Callable[[Any], str]] = {
        "markdown": table_formats.to_markdown,
        "latex": table_formats.to_latex,
        "html": table_formats.to_html,
    }
    typer.echo(render[format](built))


@app.command()
@with_settings
def compare(
    before: Annotated[Path, typer.Argument(help="A run folder.")],
    after: Annotated[Path, typer.Argument(help="Another run folder on the same rows.")],
    rule: RuleOption = "wrong",
    as_json: AsJson = False,
) -> None:
    """Compare AFTER with BEFORE on the same rows: paired difference, 95 % interval, McNemar's test."""
    from r1_reward.bench.predictions import tally_run
    from r1_reward.bench.summary import compare_tallies

    result = compare_tallies(tally_run(before), tally_run(after), rule=rule)
    if as_json:
        typer.echo(json.dumps(result))
        return
    gain, test = result["difference"], result["mcnemar"]
    if not result["n"]:
        raise UserError(f"{before} and {after}: no row is scored in both, so there is nothing to compare.")
    typer.echo(f"{result['n']} rows in both; {result['a_only']} only before, {result['b_only']} only after")
    mean, low, high = (100 * gain[name] for name in ("mean", "low", "high"))
    typer.echo(f"after - before: {mean:+.2f} points [{low:+.2f}, {high:+.2f}]")
    typer.echo(f"{test['better']} rows better, {test['worse']} worse, McNemar p = {test['p']:.3g}")
    for name, run in (("before", result["a"]), ("after", result["b"])):
        readable, cut = (share if share is None else f"{share:.1%}" for share in (run["parse_rate"], run["truncated"]))
        typer.echo(f"{name}: {readable} of the votes are readable, {cut or 'an unknown share'} were cut by the limit")


@app.command()
@with_settings
def probe(
    suite: Suite,
    settings: Annotated[RunSettings, Fields(without=("votes", "orders", "frames"))],
    out: Out,
    rows: SuiteRows,
    engine: Engine,
    attacks: Annotated[str | None, typer.Option(help="Only these attacks, such as answer_tag,padding.")] = None,
    frames: Frames = None,
    as_json: AsJson = False,
) -> None:
    """Attack a judge: count right verdicts that edits of the rejected response flip; exit code 1 as for run."""
    from r1_reward.bench.attacks import attack_names
    from r1_reward.bench.probes import probe_benchmark, to_markdown
    from r1_reward.bench.suites import load_suite

    names = attack_names(None if attacks is None else [name.strip() for name in attacks.split(",")])
    settings = with_frames(settings, frames, None if settings.base_url else settings.model, official_frames(suite))
    loaded = load_suite(suite, rows.data, **rows.options())
    quiet_libraries()
    with progress_bar(f"{loaded.suite.name}, attacked") as update:
        result = probe_benchmark(
            loaded,
            settings,
            out,
            attacks=names,
            **engine.model_dump(exclude={"base_url"}),
            progress=partial(_show_state, update),
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


def _cost(loaded: LoadedSuite, settings: RunSettings) -> str:
    """Describe the number of judgments of a run over groups, which does not follow from the number of groups."""
    plan = settings.plan()
    judgements = loaded.n * plan.passes * plan.votes
    return (
        f"{loaded.suite.title}: {loaded.units:,} {loaded.suite.unit}, {loaded.n:,} comparisons; orders: {plan.passes}, "
        f"votes: {plan.votes}: {judgements:,} judgments"
    )


def official_frames(suite: str) -> int | None:
    """Return how many frames per video the benchmark's own evaluator shows, or None if it does not specify."""
    protocol = find_benchmark(suite).protocol
    return None if protocol is None else protocol.frames


def show(metrics: dict[str, Any], as_json: bool) -> None:
    """Print metrics as one JSON object or as tables."""
    if as_json:
        typer.echo(json.dumps(metrics))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    from r1_reward.bench.report import to_markdown

    Console().print(Markdown(to_markdown(metrics)))


def _show_state(update: Callable[[int, int, str], None], state: RunState) -> None:
    note = f"accuracy so far {state.right / state.judged:.3f}" if state.judged else ""
    update(state.done, state.total, note)
