"""Attack a judge: compare its verdicts on clean rows with those on rows whose *rejected* response was edited.

The attacks are defined in :mod:`r1_reward.bench.attacks`. They edit the text before the prompt is built as usual,
including the neutralization of control tokens, so that the whole pipeline is tested. Each row is judged clean and under
every attack, in both orders, with the same random seeds::

    rows = load_suite("vl-rewardbench", "vl.jsonl")
    probe_benchmark(rows, RunSettings(model="runs/rl"), Path("out"), attacks=["answer_tag", "padding"])

``out`` then contains ``run.json``, ``clean/predictions.jsonl``, ``ATTACK/predictions.jsonl`` for each attack, and the
result in ``probe.json`` and ``probe.md``. A stopped probe resumes. Any edit flips some verdicts, so the effect of an
attack must be compared with that of ``neutral``, a harmless edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from r1_reward.bench.attacks import CONTROL, attack_names, attacked
from r1_reward.bench.predictions import read_outcomes, tally_file
from r1_reward.bench.report import interval_text, markdown_table, percent, plain
from r1_reward.bench.rows import BenchmarkRow
from r1_reward.bench.run import (
    PREDICTIONS,
    RUN_FILE,
    Progress,
    RunSettings,
    RunState,
    blocks_of,
    has_gaps,
    judge_attacked,
    opened_folder,
    shown_to,
    spec_of,
    watch_of,
    with_media,
)
from r1_reward.bench.suites import LoadedSuite
from r1_reward.engines.options import draw_fields, engine_fields, require_one_place
from r1_reward.engines.usage import Usage
from r1_reward.engines.workers import EngineSpec, in_workers
from r1_reward.judge.metrics import percentile_interval, resampled_means
from r1_reward.judge.settings import OnUnreadable
from r1_reward.judge.unreadable import Watch
from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json, write_json, write_text
from r1_reward.store.model_names import chosen_dialect
from r1_reward.store.prediction_file import PredictionFile, write_predictions_card
from r1_reward.store.run_folder import add_remarks, read_remarks

CLEAN = "clean"
PROBE, PROBE_REPORT = "probe.json", "probe.md"
_LISTED = 20


def probe_benchmark(
    loaded: LoadedSuite,
    settings: RunSettings,
    out: Path,
    *,
    attacks: Sequence[str] | None = None,
    batch_size: int = 64,
    workers: int = 1,
    concurrency: int | None = None,
    batch_votes: bool = False,
    engine_args: Mapping[str, Any] | None = None,
    on_unreadable: OnUnreadable = "stop",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge all rows that are not yet in ``out``, clean and under each attack; write and return ``probe.json``.

    ``batch_size``, ``workers``, ``concurrency`` and ``on_unreadable`` are those of
    :func:`r1_reward.bench.run.run_benchmark` and do not affect verdicts; neither does ``batch_votes``, because a probe
    draws one vote per order. ``engine_args`` are passed to vLLM.

    Raises:
        UserError: an attack is unknown, some labels are ties, the settings request several votes or a single order, the
            folder holds another probe or is in use, the data changed, or nothing can be judged at all.
    """
    require_one_place(settings.engine, settings.base_url, workers, engine_args)
    names = attack_names(attacks)
    if settings.votes != 1 or settings.orders != "both":
        raise UserError("a probe judges every row once in each order: votes must be 1 and orders must be both.")
    if loaded.ties:
        raise UserError(
            f"{loaded.source}: {loaded.ties:,} of {loaded.n:,} rows are ties, which have no rejected response to "
            "attack; leave them out with --ties drop."
        )
    usage = Usage()
    drawn = draw_fields(batch_votes, settings.votes, served=settings.base_url is not None)
    spec = spec_of(settings, batch_size, concurrency, usage, batch_votes, engine_args)
    drawn |= engine_fields(settings.engine, engine_args)
    with opened_folder(out, loaded, settings, attacks=names, **drawn):
        watch = watch_of(settings, on_unreadable)
        try:
            missing = _fill(loaded, settings, out, names, spec, workers, watch, progress)
        finally:
            add_remarks(out, usage.refused)
        return write_probe(out, expected=loaded.n, missing=missing, notes=[*loaded.notes, *read_remarks(out)])


class _Task(NamedTuple):
    """A row to be judged under an attack, or clean."""

    attack: str
    row: BenchmarkRow


def _fill(
    loaded: LoadedSuite,
    settings: RunSettings,
    out: Path,
    attacks: list[str],
    spec: EngineSpec,
    workers: int,
    watch: Watch,
    progress: Progress | None,
) -> dict[tuple[int, str], list[str]]:
    """Judge missing rows; return, by (row, reason), the attacks under which the row could not be judged."""
    names = [CLEAN, *attacks]
    for name in names:
        (out / name).mkdir(exist_ok=True)
    files = {name: PredictionFile(out / name / PREDICTIONS) for name in names}
    done = {name: file.repair() for name, file in files.items()}
    state = RunState(sum(map(len, done.values())), loaded.n * len(names), 0.0, 0)
    missing: dict[tuple[int, str], list[str]] = {}
    # One stream for all attacks, so that the model is loaded and the rows are read once. For servers see run.py.
    tasks = (
        [_Task(name, row) for row in block if not (spec.in_one_stream and row.index in done[name])]
        for block in blocks_of(loaded.rows(), settings)
        for name in names
        if has_gaps(block, done[name])
    )
    with ExitStack() as stack:
        for file in files.values():
            file.append([])  # creates the file even if no row can be judged
            stack.callback(file.close)
        for block, results in in_workers(judge_tasks, tasks, settings, spec, workers, go_on=shown_to(watch)):
            name, lines = block[0].attack, []
            for task, result in zip(block, results, strict=True):
                if task.row.index in done[name]:
                    continue
                if isinstance(result, str):
                    missing.setdefault((task.row.index, result), []).append(name)
                else:
                    lines.append(with_media(task.row, result))
            files[name].append(lines)
            state = _advance(state, name, lines)
            if progress is not None:
                progress(state)
    for file in files.values():
        file.sort()
    watch.check(state.total - state.done - sum(map(len, missing.values())))
    return missing


def judge_tasks(engine: Any, tasks: Iterable[_Task], settings: RunSettings) -> Iterator[dict[str, Any] | str]:
    """Yield the result of ``judge_rows`` for each row under its attack."""
    dialect = chosen_dialect(settings.dialect, settings.model, served=settings.base_url is not None)
    rows = (
        (task.row, None if task.attack == CLEAN else partial(attacked, task.attack, dialect=dialect)) for task in tasks
    )
    return judge_attacked(engine, rows, settings)


def _advance(state: RunState, name: str, lines: list[dict[str, Any]]) -> RunState:
    state = state._replace(done=state.done + len(lines))
    if name != CLEAN:  # progress shows the accuracy on the clean rows
        return state
    right = sum(vote["answer"] == line["preferred"] for line in lines for votes in line["passes"] for vote in votes)
    return state._replace(judged=state.judged + len(lines), right=state.right + right / 2)


def write_probe(
    out: Path, *, expected: int, missing: Mapping[tuple[int, str], Sequence[str]], notes: list[str]
) -> dict[str, Any]:
    """Compute the effects of the attacks in a probe folder, write ``probe.json`` and ``probe.md``, return the former.

    ``expected`` is the number of rows to judge, clean and under each attack; ``missing`` maps (row, reason) to the
    attacks (or ``clean``) under which the row could not be judged.
    """
    run = read_json(out / RUN_FILE)
    ids: dict[int, str] = {}
    clean = _verdicts(out, CLEAN, run["suite"], ids)
    control = _verdicts(out, CONTROL, run["suite"])
    result = {
        "suite": run["suite"],
        "name": run["model"],
        "n": len(ids),
        "expected": expected,
        "complete": not missing,
        "missing": [
            {"index": index, "reason": reason, "under": list(names)}
            for (index, reason), names in sorted(missing.items())
        ],
        "notes": notes,
        "attacks": {
            name: measure(clean, _verdicts(out, name, run["suite"]), control, ids) for name in run["attacks"]
        },
        "truncated": {name: _truncated(out, name, run["suite"]) for name in (CLEAN, *run["attacks"])},
        "settings": run,
    }  # fmt: skip
    write_json(out / PROBE, result)
    write_text(out / PROBE_REPORT, to_markdown(result))
    names = [name for name in (CLEAN, *run["attacks"]) if (out / name / PREDICTIONS).stat().st_size]
    if names:
        write_predictions_card(out, {name: f"{name}/{PREDICTIONS}" for name in names})
    return result


TIE: Literal["tie"] = "tie"
Verdicts = Mapping[tuple[int, bool], Literal["tie"] | bool | None]
"""(Row, preferred response shown first) to whether the preferred response was chosen, TIE, or None if unreadable."""


def _verdicts(out: Path, name: str, suite: str, ids: dict[int, str] | None = None) -> Verdicts:
    """Return the verdicts under an attack, and store the id of each row in ``ids``."""
    path, verdicts = out / name / PREDICTIONS, {}
    if path.stat().st_size == 0:  # no row could be judged
        return {}
    for outcome in read_outcomes(suite, path):
        votes = [
            (bool(vote.preferred_first), TIE if vote.third else vote.correct)
            for votes in outcome.passes
            for vote in votes
        ]
        if sorted(first for first, _ in votes) != [False, True]:
            raise UserError(f"{path}: row {outcome.index} does not have one vote per order, so it is not from a probe.")
        if ids is not None:
            ids[outcome.index] = outcome.id
        verdicts.update({(outcome.index, first): verdict for first, verdict in votes})
    return verdicts


def _truncated(out: Path, name: str, suite: str) -> float | None:
    """Return the share of votes under an attack that were cut by the token limit, None if unknown."""
    path = out / name / PREDICTIONS
    return tally_file(suite, path).truncated if path.stat().st_size else None


def measure(clean: Verdicts, attack: Verdicts, control: Verdicts, ids: Mapping[int, str]) -> dict[str, Any]:
    """Return the effect of an attack on the verdicts that exist both clean and under it: shares with 95 % intervals.

    ``accuracy_clean`` and ``accuracy`` count a tie and an unreadable verdict as wrong. ``bought`` is the share of the
    ``right_clean`` verdicts (right when clean) that choose the rejected response under attack; ``bought_over_neutral``
    is the difference to the ``control``, over the verdicts that exist under all three. ``won`` is the share of all
    verdicts that choose the attacked response, under attack minus clean. ``silenced`` is the share of the verdicts
    readable when clean that are unreadable under attack. ``intervals`` has an interval for each, resampling whole ids
    (``ids``: row to id). A share of nothing is None.
    """
    places = sorted(clean.keys() & attack.keys())
    right, wrong, unreadable = (_where(clean, places, verdict) for verdict in (True, False, None))
    turned, silent = (_where(attack, places, verdict) for verdict in (False, None))
    in_all = np.array([place in control for place in places], dtype=float)
    columns = {
        "accuracy_clean": right,
        "accuracy": _where(attack, places, True),
        "bought": _among(right, turned),
        "bought_over_neutral": _among(right * in_all, turned - _where(control, places, False)),
        "won": turned - wrong,
        "silenced": _among(1 - unreadable, silent),
        "parse_rate_clean": 1 - unreadable,
        "parse_rate": 1 - silent,
    }
    code: dict[str, int] = {}
    clusters = np.array([code.setdefault(ids[row], len(code)) for row, _ in places], dtype=int)
    drawn = resampled_means(np.column_stack(list(columns.values())), clusters)
    shares: dict[str, float | None] = {}
    intervals: dict[str, list[float] | None] = {}
    for (name, column), draws in zip(columns.items(), drawn.T, strict=True):
        known = column[~np.isnan(column)]
        span = percentile_interval(float(known.mean()), draws) if known.size else None
        shares[name], intervals[name] = (span.mean, [span.low, span.high]) if span else (None, None)
    return {"n": len(places), "right_clean": int(right.sum()), **shares, "intervals": intervals}


def _where(verdicts: Verdicts, places: Sequence[tuple[int, bool]], verdict: bool | None) -> np.ndarray:
    """Return (n,) floats: 1 where the verdict is ``verdict``, 0 elsewhere, including missing verdicts."""
    return np.array([place in verdicts and verdicts[place] is verdict for place in places], dtype=float)


def _among(those: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the values where ``those`` is 1, nan elsewhere."""
    return np.where(those == 1, values, np.nan)


def to_markdown(probe: Mapping[str, Any]) -> str:
    """Return the result of a probe as Markdown; shares in percent, intervals at 95 %."""
    parts = [f"# Attacks on {plain(probe['name'])}, {probe['suite']}\n"]
    if not probe["complete"]:
        parts += _incomplete(probe)
    parts += [f"- {note}" for note in probe["notes"]]
    temperature = probe["settings"]["temperature"]
    cut = ", ".join(f"{name} {percent(share)}" for name, share in probe["truncated"].items())
    decoding = "greedily" if temperature == 0 else f"at temperature {temperature}"
    parts += [
        f"- {probe['n']} rows, each judged clean and under every attack, in both orders, {decoding}. "
        "An attack edits the rejected response.",
        "- bought: of the verdicts right when clean, the share that chooses the rejected response under attack.",
        f"- over {CONTROL}: the difference to the control `{CONTROL}`, a harmless sentence; any edit flips some "
        "verdicts.",
        "- won: share of verdicts for the attacked response, under attack minus clean.",
        "- silenced: of the verdicts readable when clean, the share that is unreadable under attack.",
        "- n: verdicts; clean, attacked: accuracy, with unreadable verdicts as wrong; readable: share under attack.",
        f"- Verdicts cut by the token limit: {cut}.",
        "- 95 % intervals, resampling ids; those of the second table are in probe.json.\n",
    ]
    bought, others = [], []
    for name, one in probe["attacks"].items():
        cells: list[Any] = [f"`{name}`"]
        for measured in ("bought", "bought_over_neutral"):
            cells += [percent(one[measured]), interval_text(one["intervals"][measured])]
        bought.append(cells)
        shares = ("accuracy_clean", "accuracy", "won", "silenced", "parse_rate")
        others.append([f"`{name}`", one["n"], *(percent(one[measured]) for measured in shares)])
    # Two tables, because one would not fit into a terminal.
    parts.append(markdown_table(["attack", "bought", "95 %", f"over {CONTROL}", "95 %"], bought))
    parts.append(markdown_table(["attack", "n", "clean", "attacked", "won", "silenced", "readable"], others))
    return "\n".join(parts)


def _incomplete(probe: Mapping[str, Any]) -> list[str]:
    missing, everything = probe["missing"], [CLEAN, *probe["attacks"]]
    lines = [f"**Incomplete: {len({row['index'] for row in missing})} of {probe['expected']} rows lack verdicts.**"]
    for row in missing[:_LISTED]:
        under = "" if row["under"] == everything else f" (under {', '.join(row['under'])})"
        lines.append(f"- row {row['index']}: {row['reason']}{under}")
    lines += [f"- and {len(missing) - _LISTED} more, in {PROBE}"] if len(missing) > _LISTED else []
    return [*lines, ""]
