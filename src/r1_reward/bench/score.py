"""Score a prediction file from any supported project, and report what cannot be determined from it.

    scored = score_file("vl-rewardbench", "r1_reward.jsonl")
    scored["overall"], scored["groupings"]["paper"]["macro"]     # fractions
    scored["notes"]                                              # what to know before comparing them

The numbers are those of :meth:`r1_reward.bench.summary.Tally.summary`. Numbers that a format does not provide are None,
and a note says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from r1_reward.bench.benchmark import Benchmark, PredictionFormat, Size, Ties
from r1_reward.bench.benchmarks import find_benchmark
from r1_reward.bench.metrics import Counts, Rule
from r1_reward.bench.predictions import FileReading, detect_format, others_formats, read_file
from r1_reward.bench.sizes import Scan, match_size
from r1_reward.bench.suites import LoadedSuite, load_suite, mapping_notes
from r1_reward.bench.summary import Tally
from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json

_GROUPS_UNTOLD = (
    "It is unknown whether the file has all comparisons of each group; pass the benchmark's rows with --data to check. "
    "Incomplete groups are scored by the comparisons that they have."
)
_PERFECT_OR_CONSTANT = (
    "At least 99 % of these verdicts choose the response shown first: a perfect judge and one that always says 1 give "
    "the same file. Judge the rows in both orders to distinguish them."
)


def score_file(
    suite: str,
    file: str | Path,
    *,
    data: str | Path | None = None,
    image_root: str | Path | None = None,
    ties: Ties | None = None,
    columns: Mapping[str, str] | None = None,
    rule: Rule = "wrong",
    seed: int = 0,
    allow_partial: bool = False,
    votes: int | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Return the scores of a prediction file as a JSON-serializable dict; scores are fractions.

    ``data`` (with ``image_root``, ``ties``, ``columns``) are the benchmark's own rows, as for :func:`load_suite`, which
    supply what the file leaves out; image files are not checked. ``votes`` is the number of votes per item to draw from
    a file with one vote per line, like its official script (default: all). ``name`` is the judge's name in tables
    (default: the file's stem).

    Raises:
        UserError: the file or a row cannot be read, rows are missing or superfluous without ``allow_partial``, or
            ``votes`` cannot be drawn from it.
    """
    entry, path = find_benchmark(suite), Path(file)
    format = detect_format(suite, path)
    foreign, _ = others_formats().get(format, (None, None))
    own = entry.form if entry.form is not None and format == entry.form.name else None
    rows = _load(entry, data, image_root, ties, columns, allow_partial)
    run = {} if foreign or own else _read_run(entry, path)
    reading = read_file(suite, path, rows=rows, votes=votes)
    tally, by_text = reading.tally, _readable(reading.by_text)
    counts = tally.counts()
    # Predictions in the benchmark's own format are already joined with all rows of their tasks.
    expected, size, complaints = _complaints(entry, counts, None if own else rows, run)
    if complaints and not allow_partial:
        hint = foreign.missing_rows_hint if foreign else ""
        raise UserError(f"{path}: {' '.join(complaints)}{hint} To score these rows anyway, use --allow-partial.")
    limit = run.get("limit")
    size = size if limit is None else None
    joined = rows is not None and rows.n == len(tally)
    notes = [f"Missing or different rows: {complaint}" for complaint in complaints]
    blind = foreign is not None and not foreign.tells_unreadable and by_text is None
    notes += [] if limit is None else [f"Only a part of the benchmark was judged (`--limit {limit}`)."]
    notes += _notes_of(foreign, reading, blind) if foreign else own.notes if own else ()
    notes += _missing_notes(counts, told=joined or foreign is None)
    judged = run.get("data")
    if entry.grouped and entry.comparisons is None and rows is None and not isinstance(judged, dict):
        notes.append(_GROUPS_UNTOLD)
    notes += _lost_notes(entry, counts)
    notes += mapping_notes(entry, columns or {}) if rows is not None else []
    used: Rule = "wrong" if blind else rule
    options: dict[str, Any] = {
        "seed": seed, "acc_plus": entry.acc_plus, "categories": entry.categories, "official": entry.official,
    }  # fmt: skip
    # The rule wrong uses the file's own scores; everything else needs the texts.
    summary = (tally if by_text is None or used == "wrong" else by_text).summary(rule=used, **options)
    if blind:
        summary |= {"parse_rate": None, "rules": {"wrong": summary["rules"]["wrong"]}}
    elif by_text is not None:
        scores, texts = tally.summary(**options), by_text.summary(**options)
        summary |= {"parse_rate": texts["parse_rate"], "rules": {**texts["rules"], "wrong": scores["rules"]["wrong"]}}
    orders = foreign.orders if foreign else own.orders if own else run.get("orders", "unknown")
    if foreign and orders == "preferred-first" and (summary["overall"] or 0) >= 0.99:
        notes.append(_PERFECT_OR_CONSTANT)
    if not joined and foreign:
        summary["known_issues"] = {"n": None, "without_them": None, "rows": []}
    return {
        "suite": entry.name,
        "name": path.stem if name is None else name,
        "file": str(file),
        "format": format,
        "orders": orders,
        "expected": expected,
        "size": size,
        "limit": limit,
        "complete": not complaints,
        "ties_left_out": left_out[1] if (left_out := _without_ties(len(tally), rows, run)) else 0,
        "notes": notes,
        **summary,
    }


def _readable(by_text: Tally | None) -> Tally | None:
    """Return the votes of the texts, or None if none can be read: then their format is unknown."""
    return by_text if by_text is not None and (by_text.counts().right + by_text.counts().wrong).any() else None


def _notes_of(format: PredictionFormat, reading: FileReading, blind: bool) -> list[str]:
    if format.tells_unreadable or not blind:
        return [*format.notes, *format.remarks(reading.remarks)]
    return [format.blind_note, *format.notes]


def _load(
    entry: Benchmark,
    data: str | Path | None,
    image_root: str | Path | None,
    ties: Ties | None,
    columns: Mapping[str, str] | None,
    allow_partial: bool,
) -> LoadedSuite | None:
    if data is not None:
        return load_suite(
            entry.name,
            data,
            image_root=image_root,
            ties=ties,
            columns=columns,
            allow_partial=allow_partial,
            check_media=False,
        )
    if image_root is not None:
        raise UserError(f"--image-root {image_root} has no effect without --data.")
    if columns:
        raise UserError(f"--columns {next(iter(columns))}=... has no effect without --data.")
    if ties is not None:
        raise UserError(f"--ties {ties} has no effect without --data.")
    return None


def _read_run(entry: Benchmark, path: Path) -> dict[str, Any]:
    """Return the run.json next to our predictions, empty if there is none; raises UserError if the suite differs."""
    file = path.with_name("run.json")
    if not file.exists():
        return {}
    run = read_json(file)
    if not isinstance(run, dict) or not isinstance(run.get("orders"), str):
        raise UserError(
            f"{file}: not the run.json of a benchmark run (it has no orders); fix the file or move it away."
        )
    if run.get("suite") != entry.name:
        raise UserError(f"{file}: the run is on {run.get('suite')!r}; score it as that benchmark, not as {entry.name}.")
    return run


def _complaints(
    entry: Benchmark, counts: Counts, rows: LoadedSuite | None, run: dict[str, Any]
) -> tuple[int | None, str | None, list[str]]:
    """Return the expected number of rows (None if unknown), the label of the matching official size, and complaints."""
    n, expected = len(counts.index), None
    told, complaint = _without_ties(n, rows, run), None
    if told is None:
        found, complaint = _compare(entry, counts)
    size = told[0] if told else found and found.label
    complaints = [complaint] if complaint else []
    sizes = [] if entry.grouped else [one.rows for one in entry.sizes if one.rows is not None]
    if size is not None:
        expected = n
    elif sizes:
        expected = min(sizes, key=lambda rows: abs(rows - n))
    judged = run.get("data")
    planned = judged.get("n") if isinstance(judged, dict) else None
    for source, count in (("--data", rows and rows.n), ("the run.json next to it", planned)):
        if isinstance(count, int):
            expected = count if expected is None else expected
            if count != n:
                complaints.append(f"The file has {n:,} rows, but {source} has {count:,}.")
    return expected, size, complaints


def _without_ties(n: int, rows: LoadedSuite | None, run: dict[str, Any]) -> tuple[str, int] | None:
    """Return the official size and the number of ties left out, according to ``--data`` or run.json; None if unknown.

    The file alone does not show what was left out.
    """
    judged = rows.describe() if rows is not None else run.get("data")
    if not isinstance(judged, dict) or judged.get("n") != n:
        return None
    size, left_out = judged.get("size"), judged.get("ties_left_out")
    return (size, left_out) if isinstance(size, str) and type(left_out) is int else None


def _compare(entry: Benchmark, counts: Counts) -> tuple[Size | None, str | None]:
    """Return the official size that the rows have, or a complaint; without categories only totals are compared."""
    n = len(np.unique(counts.ids)) if entry.grouped else len(counts.index)
    if not (counts.category >= 0).any():
        totals = tuple(
            size._replace(categories=None, ids=size.ids and {"all": sum(size.ids.values())}) for size in entry.sizes
        )
        ids = Counter(all=len(np.unique(counts.ids)))
        return match_size(replace(entry, sizes=totals), Scan(n, Counter(), ids, {}, ""))
    members = {name: counts.category == number for number, name in enumerate(counts.categories)}
    if (counts.category < 0).any():
        members["no category"] = counts.category < 0
    ids = Counter({name: len(np.unique(counts.ids[rows])) for name, rows in members.items()})
    categories = ids if entry.grouped else Counter({name: int(rows.sum()) for name, rows in members.items()})
    return match_size(entry, Scan(categories.total(), categories, ids, {}, ""))


def _missing_notes(counts: Counts, *, told: bool) -> list[str]:
    """Return a note on the information that the file lacks, if any.

    If the rows themselves are known (``told``), only categories can be missing: lengths are undefined for ties and
    images.
    """
    missing = []
    if unknown := int((counts.category < 0).sum()):
        missing.append("the categories" if unknown == len(counts.index) else f"the categories of {unknown:,} rows")
    if not told and (counts.longer == Counts.UNKNOWN).any():
        missing.append("which response is longer")
    if not told:
        missing.append("which rows are known or suspected to be wrong")
    return [f"The file lacks {', '.join(missing)}; pass the benchmark's rows with --data."] if missing else []


def _lost_notes(entry: Benchmark, counts: Counts) -> list[str]:
    """Return a note if ids repeat although its size has unique ids: it may be another version with missing rows."""
    n = len(counts.index)
    repeated = n - len(np.unique(counts.ids))
    notes = [size.repeats_note for size in entry.sizes if size.rows == n and size.repeats_note]
    return [note.format(repeated=repeated) for note in notes if repeated]
