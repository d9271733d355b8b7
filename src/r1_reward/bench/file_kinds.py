"""Guess the kind of a file from the readers that can parse its first rows, and suggest a command for it.

There is no table of column names: every source, benchmark and prediction format tries to parse the rows, so every
suggested command can read the file::

    for kind in looks_like("all.jsonl"):
        print(kind.what, kind.command)      # R1-Reward-RL rows  r1-reward data import r1-reward-rl --from all.jsonl ...
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from r1_reward.bench.benchmark import Benchmark
from r1_reward.bench.benchmarks import benchmark_names, find_benchmark
from r1_reward.bench.fields import Draft, Fields
from r1_reward.bench.predictions import OURS, formats_of, others_formats, written_by
from r1_reward.data.attempts_file import AttemptRecord
from r1_reward.data.scoring.judging import SCHEMAS
from r1_reward.data.sources import SOURCES
from r1_reward.data.sources.common import Candidate, Drop, Row
from r1_reward.records.checks import text_problems, to_pair
from r1_reward.records.content import ContentError, Place, places_of
from r1_reward.records.errors import UserError
from r1_reward.store.part_columns import with_media
from r1_reward.store.rows import KINDS, RawRow, open_source
from r1_reward.store.sheets import SHEETS, sheet_rows

_SAMPLE = 20  # rows that are parsed
_MOST = 10_000  # rows that are counted; no benchmark here has more
_FOREIGN = 0.25  # share of the parsed rows that may be of another kind
_LISTED = 3
_FITS, _DROPPED, _ELSE = "fits", "dropped", "else"
"""A row is valid, is of this kind but unusable (a tie, a blank answer), or is of another kind."""


class FileKind(NamedTuple):
    """A guess at the kind of a file."""

    name: str
    """Name of the reader: a source, a benchmark, or a kind that the package itself writes."""
    what: str
    """Description that completes "this looks like ..."."""
    command: str
    """The command that reads it, with placeholders in capitals."""


def looks_like(path: str | Path, *, split: str = "train") -> list[FileKind]:
    """Return the possible kinds of a file, folder or dataset, most likely first; empty if no reader knows its rows."""
    rows: list[dict[str, Any]] = []
    count = 0
    for one in dict.fromkeys((split, "test")):  # benchmarks have no train split
        if rows:
            break
        count = 0
        with suppress(UserError):
            for raw in islice(_open(path, one), _MOST + 1):
                count += 1
                if len(rows) < _SAMPLE and raw.broken is None and isinstance(raw.data, dict):
                    rows.append(raw.data)
    return kinds_of(rows, count, str(path), of_tasks=_of_tasks(Path(path)))


def _of_tasks(path: Path) -> list[Benchmark]:
    """Return the benchmarks with their own way to open files that can parse the rows of this path."""
    found = []
    for suite in map(find_benchmark, benchmark_names()):
        if suite.open is None or not suite.marks or not path.exists():
            continue
        try:
            raws = list(islice(suite.open(path, None, suite.hub_split, None).rows(), _SAMPLE))
        except UserError:
            continue
        rows = [raw.data for raw in raws if raw.broken is None and isinstance(raw.data, dict)]
        if _are(rows, _by(suite)) and _most(rows, suite.own):
            found.append(suite)
    return found


def _open(path: str | Path, split: str) -> Iterator[RawRow]:
    if Path(path).suffix.lower() in SHEETS:
        return sheet_rows(Path(path))
    return open_source(path, split=split, kinds=KINDS).rows()


def hint(kinds: Sequence[FileKind]) -> str:
    """Return a sentence that names the possible kinds, empty if there are none."""
    if not kinds:
        return ""
    named = [f"{kind.what}: `{kind.command}`" for kind in kinds[:_LISTED]]
    return f"This looks like {'; or '.join(named)}"


def kinds_of(
    rows: Sequence[Mapping[str, Any]], count: int, path: str, *, of_tasks: Sequence[Benchmark] = ()
) -> list[FileKind]:
    """Return the possible kinds of a file with ``count`` rows, given its first ``rows``; ``path`` is for commands.

    ``of_tasks`` are benchmarks that recognized the file itself, because its rows alone are not enough.
    """
    file = shlex.quote(path)
    exact = [kind for kind, reads in _of_the_package(file) if _are(rows, reads)] or list(_predictions(rows, file))
    if exact:
        return exact[:1]
    sources = [name for name in SOURCES if _are(rows, _by_source(name))]
    own = [name for name in sources if _most(rows, SOURCES[name].own)]
    judged = [
        suite
        for suite in map(find_benchmark, benchmark_names())
        if not suite.open and _are(rows, _by(suite)) and _most(rows, suite.own)
    ]
    judged = [*of_tasks, *judged]
    whole = [suite for suite in judged if suite in of_tasks or any(count in size.counts for size in suite.sizes)]
    benchmarks = [
        FileKind(
            suite.name,
            f"rows of {suite.title}",
            f"r1-reward bench run {suite.name} --data {file} --model MODEL --out DIR",
        )
        for suite in whole or judged
    ]
    if whole:
        return benchmarks
    # TRL's format comes last: many projects have plain prompt, chosen and rejected.
    closer = [name for name in own if name != "trl"]
    if closer:
        return [*(_to_import(name, file, own=True) for name in closer), *benchmarks]
    others = [_to_import(name, file, own=name in own) for name in sources if name != "trl"]
    return [*benchmarks, *others] or [_to_import(name, file, own=True) for name in own]


def _most(rows: Sequence[Mapping[str, Any]], own: Callable[[Mapping[str, Any]], bool]) -> bool:
    return sum(map(own, rows)) >= (1 - _FOREIGN) * len(rows)


def _to_import(name: str, file: str, *, own: bool) -> FileKind:
    title = SOURCES[name].title or name
    what = f"{title} rows" if own else f"rows with the fields of {title}"
    return FileKind(name, what, f"r1-reward data import {name} --from {file} --out DIR")


def _are(rows: Sequence[Mapping[str, Any]], reads: Callable[[Mapping[str, Any]], str]) -> bool:
    found = [reads(row) for row in rows]
    return _FITS in found and found.count(_ELSE) <= _FOREIGN * len(found)


def _by_source(name: str) -> Callable[[Mapping[str, Any]], str]:
    def reads(row: Mapping[str, Any]) -> str:
        try:
            items = list(SOURCES[name].read(Row(row)))
        except Drop as drop:
            return _ELSE if drop.reason in ("missing field", "wrong type") else _DROPPED
        return _FITS if any(isinstance(item, Candidate) for item in items) else _DROPPED

    return reads


def _by(suite: Benchmark) -> Callable[[Mapping[str, Any]], str]:
    def reads(row: Mapping[str, Any]) -> str:
        fields = Fields(row)
        parsed = suite.parse(fields)
        drafts = [parsed] if isinstance(parsed, Draft) else parsed
        if not fields.problems:
            shown = all(draft.images or draft.video or draft.places for draft in drafts)
            return _FITS if drafts and (shown or not suite.needs_media) else _ELSE
        return _DROPPED if all(reason == "is blank" for _, reason in fields.problems) else _ELSE

    return reads


def _predictions(rows: Sequence[Mapping[str, Any]], file: str) -> Iterator[FileKind]:
    """Yield the prediction formats that the rows have."""
    formats = others_formats()
    found = {name for row in rows for name in formats_of(row, formats)}
    for name in sorted(found):
        if not _are(rows, lambda row, name=name: _FITS if name in formats_of(row, formats) else _ELSE):  # type: ignore[misc]
            continue
        owner = formats[name][1] if name in formats else None
        writer = "this package" if name == OURS else written_by(formats[name])
        suite = owner.name if owner else "BENCHMARK"
        yield FileKind(name, f"predictions of {writer}", f"r1-reward bench score {suite} {file}")


def _of_the_package(file: str) -> Iterator[tuple[FileKind, Callable[[Mapping[str, Any]], str]]]:
    """Yield the kinds that the package itself writes and reads, each with a function that recognizes a row."""

    def known(test: Callable[[Mapping[str, Any]], bool]) -> Callable[[Mapping[str, Any]], str]:
        return lambda row: _FITS if test(row) else _ELSE

    yield FileKind("pairs", "pairs", f"r1-reward data validate {file}"), known(_is_pair)
    yield (
        FileKind("groups", "groups of responses", f"r1-reward score {file} --model MODEL --out FILE.parquet"),
        known(_is_group),
    )
    yield (
        FileKind("scores", "the output of this command", f"r1-reward score FILE --model MODEL --out {file}"),
        known(_is_score),
    )
    yield (
        FileKind(
            "attempts", "a teacher's attempts, which belong to a pair folder",
            "r1-reward data annotate PAIRS --teacher TEACHER --out FOLDER",
        ),
        known(_is_attempt),
    )  # fmt: skip


def _is_score(row: Mapping[str, Any]) -> bool:
    added = {"votes", "ties", "unreadable", "truncated", "top_is_best"}  # since 0.1.0
    return any(set(schema.names) - added <= set(row) <= set(schema.names) for schema in SCHEMAS.values())


def _is_pair(row: Mapping[str, Any]) -> bool:
    given = {name: value for name, value in row.items() if value is not None}
    cells = given.get("images", [])
    images = ["" if isinstance(cell, Mapping | bytes) else cell for cell in cells] if isinstance(cells, list) else cells
    pair, _ = to_pair({**with_media(given, _as_path), "images": images})
    return pair is not None and not list(text_problems(given))


def _as_path(place: Place) -> Any:
    return "cell" if isinstance(place.source, Mapping | bytes) else place.source


def _is_group(row: Mapping[str, Any]) -> bool:
    """Return whether `score` accepts a row as a group; other projects have question and responses, too."""
    responses = row.get("responses")
    if not isinstance(responses, list):
        return False
    try:
        places = [place for content in (row.get("question"), *responses) for place in places_of(content)]
    except ContentError:
        return False
    return bool(places) or isinstance(row.get("images"), list)


def _is_attempt(row: Mapping[str, Any]) -> bool:
    try:
        AttemptRecord.model_validate(row)
    except ValidationError:
        return False
    return True
