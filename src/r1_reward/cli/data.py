"""``r1-reward data``: check pair files and create them: import, mix, annotate, split by difficulty.

``r1-reward data validate pairs.jsonl`` lists all problems of a file of pairs or ranked groups, or says that there are
none; for a file with other rows it says which command reads them. It exits with code 0 if the file is valid and 2 if it
is invalid or missing.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1_reward.cli import data_annotate, data_import, data_mix
from r1_reward.cli.options import with_settings
from r1_reward.records.errors import UserError
from r1_reward.records.settings import at_home

if TYPE_CHECKING:
    from r1_reward.bench.file_kinds import FileKind
    from r1_reward.records.checks import Problem

app = typer.Typer(no_args_is_help=True)
app.command("import")(data_import.import_source)
app.command("mix")(data_mix.mix_sources)
app.command("annotate")(data_annotate.annotate)
app.command("split-difficulty")(data_annotate.split_difficulty)
app.command("export")(data_import.export)


@app.command()
@with_settings
def validate(
    file: Annotated[str, typer.Argument(help="A .jsonl or .parquet file, a folder, or a Hub dataset (owner/name).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    split: Annotated[str, typer.Option(help="Split of a folder of parquet files or of a Hub dataset.")] = "train",
    frames: Annotated[int, typer.Option(min=1, help="Frames of each video that must be readable.")] = 8,
) -> None:
    """Check every row, image and video of a file of pairs or ranked groups, and list all problems."""
    from r1_reward.bench.file_kinds import hint
    from r1_reward.store.group_files import is_group_file
    from r1_reward.store.pairs import PairFileError, load_pairs

    if is_group_file(at_home(file)):
        _validate_groups(file, as_json, frames)
        return
    try:
        pairs = load_pairs(at_home(file), split=split, video_frames=frames, check_reasoning=True, ties=True)
    except PairFileError as error:
        kinds = _other_kinds(file, split)
        if as_json:
            _print_json(error.rows, error.problems, kinds)
        else:
            _print_table(file, error.rows, error.problems)
            if kinds:
                typer.echo(f"{hint(kinds)}.")
        raise typer.Exit(2) from None
    except UserError as error:
        if kinds := _other_kinds(file, split):
            raise UserError(f"{error} {hint(kinds)}.") from error
        raise
    if as_json:
        ties = list(pairs["preferred"]).count(0)
        _print_json(len(pairs), [], [], **({"ties": ties} if ties else {}))
    else:
        typer.echo(_summary(pairs))


def _validate_groups(file: str, as_json: bool, frames: int) -> None:
    from r1_reward.store.group_files import check_groups
    from r1_reward.store.pairs import PairFileError

    try:
        counts = check_groups(at_home(file), video_frames=frames)
    except PairFileError as error:
        if as_json:
            _print_json(error.rows, error.problems, [])
        else:
            _print_table(file, error.rows, error.problems)
        raise typer.Exit(2) from None
    if as_json:
        _print_json(counts.groups, [], [], groups=counts._asdict())
        return
    told = f"{_count(counts.groups, 'group')} of {_count(counts.responses, 'response')}, all valid"
    ranked = (
        f"{counts.ranked} with a ranking, which gives {_count(counts.pairs, 'pair')} and {_count(counts.ties, 'tie')}"
    )
    typer.echo(f"{told}: {ranked}")


def _other_kinds(file: str, split: str) -> list[FileKind]:
    """Return what an invalid file may be instead of a pair file."""
    from r1_reward.bench.file_kinds import looks_like

    return [kind for kind in looks_like(file, split=split) if kind.name != "pairs"]


def _summary(pairs: Any) -> str:
    """Describe a valid dataset in one line."""
    labels, kinds = Counter(pairs["preferred"]), set(pairs["kind"]) - {""}
    parts = f"{labels[1]} preferred 1, {labels[2]} preferred 2, {_count(len(kinds), 'kind')}"
    told = f"{_count(len(pairs), 'pair')}, all valid: {parts}"
    if not labels[0]:
        return told
    return (
        f"{told}, {_count(labels[0], 'tie')} (preferred 0: can be judged, but not trained on; training refuses "
        "them, and `r1-reward data mix` removes them)"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _print_json(rows: int, problems: list[Problem], kinds: list[FileKind], **counts: Any) -> None:
    report = {"rows": rows, "valid": not problems, "problems": [problem._asdict() for problem in problems], **counts}
    if kinds:
        report["looks_like"] = [kind._asdict() for kind in kinds]
    typer.echo(json.dumps(report))


def _print_table(file: str, rows: int, problems: list[Problem]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from r1_reward.records.checks import also_lines, summarise

    table = Table("file", "line", "field", "reason")
    for problem, also in summarise(problems):
        line = f"{problem.line} and {also_lines(also)}" if also else str(problem.line)
        # Text, not str: rich would parse "[0]" in "images[0]" as markup.
        table.add_row(*map(Text, (problem.file, line, problem.field, problem.reason)))
    console = Console()
    console.print(table)
    console.print(f"{_count(len(problems), 'problem')} in {_count(rows, 'row')} of {file}", markup=False)
