"""The ``r1-reward`` command: one file per sub-command, which parses options, calls one function and prints."""

from __future__ import annotations

import errno
import functools
import sys
import warnings
from typing import Any

import typer

from r1_reward.records.errors import UserError

INTERRUPTED = 130

app = typer.Typer(
    help="Train, evaluate and serve generative multimodal reward models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version, with the commit where there is one."),
) -> None:
    if version:
        from r1_reward.store.installed import version_text

        typer.echo(version_text())
        raise typer.Exit


@functools.cache
def _register() -> None:
    from r1_reward.cli import ablate, bench, compare, data, demo, doctor, plan, push, recipes, score, serve, train, ui

    app.add_typer(data.app, name="data", help="Import, mix, annotate, split and check preference pairs.")
    app.add_typer(bench.app, name="bench", help="Judge benchmarks, score predictions, compare runs, attack a judge.")
    app.add_typer(train.app, name="train", help="Train a reward model on preference pairs.")
    app.command(
        "plan",
        help="Estimate memory, steps and tokens of a training run before it is launched.",
        context_settings=plan.OVERRIDES,
    )(plan.plan)
    app.command("ablate", help="Run a grid of algorithms and seeds from one start, with one report.")(ablate.ablate)
    app.command("compare", help="Say which of two answers is better, and why.")(compare.compare)
    app.command("rank", help="Order answers from best to worst.")(compare.rank)
    app.command("score", help="Judge a file of pairs or groups of any size into a parquet file.")(score.score)
    app.command("serve", help="Serve comparisons, rankings and rewards over HTTP.")(serve.serve)
    app.command("ui", help="Open a web page to compare answers and watch the votes come in.")(ui.ui)
    app.command("calibrate", help="Calibrate the model's probabilities on labeled pairs.")(compare.calibrate)
    app.command("push", help="Publish a trained model and its card on the Hugging Face Hub.")(push.push)
    app.command("doctor", help="Report what is installed, what the machine has, and what would be slow or fail.")(
        doctor.doctor
    )
    app.command("recipes", help="Copy the recipes for training and studies to where they can be changed.")(
        recipes.recipes
    )
    app.command("demo", help="Train and evaluate a tiny reward model on real handwriting, with a report.")(demo.demo)


def main() -> None:
    """Run the command; a user error prints one message and exits with code 2, an interruption with 130."""
    _register()
    for stream in (sys.stdout, sys.stderr):
        _never_fails(stream)
    if not sys.warnoptions:  # one library's use of another's old names, which no option of ours changes
        warnings.simplefilter("ignore", FutureWarning)
    try:
        app()
    except UserError as error:
        _fail(f"{error}{_other_kind(error)}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        _fail(str(error))
    except SystemExit as end:
        if end.code == INTERRUPTED:
            advice = "interrupted; run the same command again, with --resume if it has that option, to continue"
            typer.secho(advice, fg=typer.colors.YELLOW, err=True)
        raise


def _never_fails(stream: Any) -> None:
    """Let a stream replace characters that its encoding lacks with "?", such as an emoji in code page 1252.

    Otherwise the command would end in a stack trace after judging. Files are always UTF-8.
    """
    if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _other_kind(error: UserError) -> str:
    """Return a line that says what a file without pairs seems to be; empty for any other error."""
    from r1_reward.records.checks import PairFileError

    if not isinstance(error, PairFileError):
        return ""
    from r1_reward.bench.file_kinds import hint, looks_like

    kinds = [kind for kind in looks_like(error.problems[0].file) if kind.name != "pairs"]
    return f"\n{hint(kinds)}." if kinds else ""


def _fail(message: str) -> None:
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    sys.exit(2)
