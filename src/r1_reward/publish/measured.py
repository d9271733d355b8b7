"""Measurements of a model: the metrics of benchmark runs and of the demo, in one form for the card.

All numbers come from ``metrics.json``. A run that judged another model, or older weights under the same path, is
refused: a card with another model's numbers is worse than a card without numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json
from r1_reward.store.identity import folder_identity

METRICS = "metrics.json"
LEAN = 0.6
"""The card reports a position bias when more than this share of the readable votes name one position."""

_TRICKS = {"always_1": "response shown first", "longer": "longer response", "shorter": "shorter response"}


class Category(NamedTuple):
    """One category of a benchmark; fractions in [0, 1]."""

    name: str
    n: int
    accuracy: float | None
    low: float | None
    high: float | None


class Measured(NamedTuple):
    """One evaluation; fractions in [0, 1], intervals at 95 %, None for unknown numbers."""

    title: str
    dataset: str
    """Hub id, or a name for data that are not on the Hub."""
    revision: str | None
    protocol: str
    n: int
    expected: int
    complete: bool
    overall: float | None
    interval: tuple[float, float] | None
    macro: float | None
    macro_interval: tuple[float, float] | None
    acc_plus: float | None
    categories: tuple[Category, ...]
    parse_rate: float | None
    flip_rate: float | None
    first_share: float | None
    right_first: float | None
    """Accuracy when the preferred response was shown first."""
    right_second: float | None
    baselines: dict[str, float | None]
    """Accuracy of trivial baselines (first, longer, shorter) on the same rows and orders."""
    known_issues: int
    truncated: float | None = None
    """Share of the votes truncated at the token limit."""
    official: bool = True
    """Whether the rows are all those of the benchmark."""


def find_runs(folder: Path) -> list[Path]:
    """Return the benchmark runs inside a model's folder, sorted by name."""
    found = {path.parent for pattern in ("*/run.json", "*/*/run.json") for path in folder.glob(pattern)}
    return sorted(path for path in found if (path / METRICS).is_file())


def read_run(run: Path, names: Sequence[str]) -> Measured:
    """Return the measurements in a run folder of ``r1-reward bench run``.

    ``names`` are the folders and names under which the run may have judged the model.

    Raises:
        UserError: the folder does not hold a finished run, or the run judged another model or other weights.
    """
    from r1_reward.bench.benchmarks import benchmark_names, find_benchmark

    if not (run / METRICS).is_file():
        raise UserError(f"{run}: no {METRICS} in this folder; give one that `r1-reward bench run` has finished.")
    metrics = read_json(run / METRICS)
    if not isinstance(metrics, dict) or metrics.get("suite") not in benchmark_names() or "settings" not in metrics:
        raise UserError(f"{run / METRICS}: not written by `r1-reward bench run`; give the folder of a run.")
    _require_same_model(run, metrics["settings"], names)
    suite = find_benchmark(metrics["suite"])
    data = metrics["settings"].get("data")
    data = data if isinstance(data, dict) else {}
    source = Path(str(data.get("source") or "")).name
    return _measured(
        metrics,
        title=suite.title if suite.hub_id else f"pairs ({source})" if source else "pairs",
        dataset=suite.hub_id or source or "pairs",
        revision=data.get("revision"),
        protocol=_protocol(metrics),
        # Runs of 0.1 do not name the size.
        official=metrics.get("limit") is None and not (suite.sizes and metrics.get("size", "") is None),
    )


def _require_same_model(run: Path, settings: Mapping[str, Any], names: Sequence[str]) -> None:
    judged = str(settings.get("model"))
    for name in names:
        if judged == name or (Path(judged).exists() and Path(name).exists() and Path(judged).samefile(name)):
            _require_same_weights(run, settings.get("weights"), Path(name))
            return
    raise UserError(
        f"{run}: this run judged {judged}, which is neither {' nor '.join(names)}. If these are the same weights "
        f"under another name, add --judged-as {judged}"
    )


def _require_same_weights(run: Path, recorded: Any, folder: Path) -> None:
    # Unknown behind a server; a Hub id is not a folder.
    if not isinstance(recorded, str) or not folder.is_dir():
        return
    now = folder_identity(folder)
    if recorded.partition(" on ")[0] != now:
        raise UserError(
            f"{run}: this run judged {folder} when it held other weights ({recorded} then, {now} now). Judge it again, "
            "or move the run out of the folder."
        )


def _protocol(metrics: Mapping[str, Any]) -> str:
    run = metrics["settings"]
    orders = {"both": "both orders", "random": "one random order", "stored": "the stored order"}.get(
        metrics["orders"], str(metrics["orders"])
    )
    votes = run.get("votes", 1)
    parts = [
        orders,
        f"{votes} vote{'s' * (votes != 1)}" + " per order" * (orders == "both orders"),
        "greedy" if run.get("temperature") == 0 else f"temperature {run.get('temperature'):g}",
        f"at most {run.get('max_new_tokens')} new tokens",
        f"unreadable verdicts: {metrics.get('rule')}",
        f"seed {run.get('seed')}",
    ]
    parts += ["behind a server"] * bool(run.get("base_url"))
    return ", ".join(parts)


def _measured(
    metrics: Mapping[str, Any], *, title: str, dataset: str, revision: str | None, protocol: str, official: bool
) -> Measured:
    spans = metrics.get("intervals") or {}
    position = metrics.get("by_position") or {}
    baselines = metrics.get("baselines") or {}
    categories = tuple(
        Category(name, one["n"], one["accuracy"], one["low"], one["high"])
        for name, one in (metrics.get("categories") or {}).items()
    )
    return Measured(
        title=title,
        dataset=dataset,
        revision=revision,
        protocol=protocol,
        n=metrics["n"],
        expected=metrics["expected"],
        complete=metrics["complete"],
        overall=metrics.get("overall"),
        interval=_pair(spans.get("overall")),
        macro=metrics.get("macro") if len(categories) > 1 else None,
        macro_interval=_pair(spans.get("macro")),
        acc_plus=metrics.get("acc_plus"),
        categories=categories if len(categories) > 1 else (),
        parse_rate=metrics.get("parse_rate"),
        flip_rate=metrics.get("flip_rate"),
        first_share=metrics.get("first_share"),
        right_first=position.get("first"),
        right_second=position.get("second"),
        baselines={name: (baselines.get(name) or {}).get("overall") for name in ("always_1", "longer", "shorter")},
        known_issues=(metrics.get("known_issues") or {}).get("n", 0),
        truncated=metrics.get("truncated"),
        official=official,
    )


def _pair(span: Sequence[float] | None) -> tuple[float, float] | None:
    return (span[0], span[1]) if span else None


def read_demo(folder: Path) -> Measured | None:
    """Return what ``r1-reward demo`` measured on one of its models, or None if the folder is not one of them."""
    demo = demo_metrics(folder)
    one = demo.get(folder.name) if demo else None
    if demo is None or not isinstance(one, dict):
        return None
    tokens = demo["config"]["max_new_tokens"]
    return Measured(
        title="handwriting, held-out scans and scenes (r1-reward demo)",
        dataset="r1-reward-demo",
        revision=None,
        protocol=f"both orders, 1 vote per order, greedy, at most {tokens} new tokens, unreadable verdicts: wrong, "
        f"seed {demo['seed']}",
        n=demo["n_pairs"],
        expected=demo["n_pairs"],
        complete=True,
        overall=one["accuracy"],
        interval=(one["low"], one["high"]),
        macro=None,
        macro_interval=None,
        acc_plus=None,
        categories=tuple(
            Category(name, kind["n"], kind["mean"], kind["low"], kind["high"])
            for name, kind in one["by_kind"].items()
            if name not in ("easy", "hard")
        ),
        parse_rate=one["parse_rate"],
        flip_rate=one["flip_rate"],
        first_share=None,
        right_first=one["by_position"].get("first"),
        right_second=one["by_position"].get("second"),
        baselines={},
        known_issues=0,
    )


def demo_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the metrics of the demo run that made the model in a folder, or None if no demo run did."""
    path = folder.resolve().parent / METRICS
    if not (path.is_file() and (path.parent / "state.json").is_file()):
        return None
    metrics = read_json(path)
    return metrics if isinstance(metrics, dict) and {"paired_difference", "world", "config"} <= metrics.keys() else None


def limitations(one: Measured) -> list[str]:
    """Return, in sentences, the weaknesses that a measurement shows."""
    where, found = f"on {one.title}", []
    if one.parse_rate is not None and one.parse_rate < 1:
        found.append(f"{_percent(1 - one.parse_rate)} of its verdicts {where} could not be read; they count as wrong.")
    if one.truncated:
        found.append(f"{_percent(one.truncated)} of its verdicts {where} were truncated at the token limit.")
    if one.flip_rate:
        found.append(f"{_percent(one.flip_rate)} of its verdicts {where} changed with the order of the responses.")
    if one.first_share is not None and not 1 - LEAN <= one.first_share <= LEAN:
        place = "first" if one.first_share > LEAN else "second"
        share = one.first_share if one.first_share > LEAN else 1 - one.first_share
        found.append(f"It favors the response shown {place}: {_percent(share)} of its readable votes {where}.")
    if one.right_first is not None and one.right_second is not None:
        found.append(
            f"Accuracy {where} is {_percent(one.right_first)} when the preferred response is shown first and "
            f"{_percent(one.right_second)} when it is shown second."
        )
    for name, trick in _TRICKS.items():
        blind = one.baselines.get(name)
        if blind is not None and one.overall is not None and blind >= one.overall:
            found.append(f"Always picking the {trick} is at least as accurate {where}: {_percent(blind)}.")
    if one.interval is not None and one.interval[0] <= 0.5:
        found.append(f"Its accuracy {where} may be no better than chance: the 95 % interval reaches down to 50 %.")
    if not one.complete:
        found.append(f"The measurement {where} is incomplete: {one.n} of {one.expected} rows.")
    if not one.official:
        found.append(f"The {one.n} rows {where} are not all those of the benchmark: this is not its score.")
    return found


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"
