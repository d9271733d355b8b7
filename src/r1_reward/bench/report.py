"""Write the results of a finished run: metrics.json, report.md with tables, voting.png with the voting curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1_reward.bench.benchmarks import find_benchmark
from r1_reward.bench.metrics import Rule
from r1_reward.bench.run import readings_of
from r1_reward.judge.unreadable import FEW, Readings, limit_of
from r1_reward.judge.votes import ORDERS
from r1_reward.records.dialects import DEFAULT, find_dialect
from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json, write_json, write_text
from r1_reward.store.prediction_file import write_predictions_card
from r1_reward.store.run_folder import read_remarks

RULES = {
    "wrong": "an unreadable verdict is wrong (released r1_reward, UnifiedReward); votes split evenly count one half",
    "drop": "rows without a verdict that has more than half of all votes are left out (official VL-RewardBench)",
    "coin": "an unreadable vote is decided by a fair coin; votes split evenly count one half",
}


def write_metrics(
    out: Path, *, expected: int, missing: Mapping[int, str], notes: list[str], rule: Rule = "wrong"
) -> dict[str, Any]:
    """Compute the metrics of a run folder's predictions, write all files and return the metrics.

    ``expected`` is the number of rows to judge; ``missing`` maps rows that could not be judged to the reason.
    """
    from r1_reward.bench.predictions import tally_run
    from r1_reward.bench.summary import Tally

    run = read_json(out / "run.json")
    suite = find_benchmark(run["suite"])
    judged = (out / "predictions.jsonl").stat().st_size > 0
    tally = tally_run(out) if judged else Tally()
    summary: dict[str, Any] = (
        tally.summary(rule=rule, acc_plus=suite.acc_plus, official=suite.official) if len(tally) else {"n": 0}
    )
    if len(tally) and summary["parse_rate"] < FEW:
        summary["unreadable"] = _why(out, run)
    metrics = {
        "suite": suite.name,
        "name": run["model"],
        "orders": run["orders"],
        **summary,
        "expected": expected,
        "size": (run.get("data") or {}).get("size"),
        "limit": run.get("limit"),
        "complete": not missing and len(tally) == expected,
        "ties_left_out": (run.get("data") or {}).get("ties_left_out", 0),
        "missing": [{"index": index, "reason": reason} for index, reason in sorted(missing.items())],
        "notes": [*notes, *read_remarks(out)],
        "settings": run,
    }
    write_json(out / "metrics.json", metrics)
    if metrics.get("voting_curve"):
        plot_voting(metrics, out / "voting.png")
    write_text(out / "report.md", to_markdown(metrics))
    if judged:
        write_predictions_card(out, {"train": "predictions.jsonl"})
    return metrics


def export_run(run: Path, out: Path) -> list[Path]:
    """Write the predictions of a run folder to a folder in the benchmark's official format; return the files.

    Raises:
        UserError: the folder is not a finished run, or the benchmark has no official format.
    """
    settings = read_json(run / "run.json")
    suite = find_benchmark(settings["suite"]) if isinstance(settings, dict) and "suite" in settings else None
    if suite is None:
        raise UserError(f"{run}: not the folder of a benchmark run.")
    if suite.form is None:
        raise UserError(f"{run}: {suite.title} has no official prediction format; use predictions.jsonl instead.")
    predictions = run / "predictions.jsonl"
    if not predictions.is_file() or not predictions.stat().st_size:
        raise UserError(f"{run}: no row is judged yet; finish the run with the same command that began it.")
    with open(predictions, encoding="utf-8") as lines:
        files = suite.form.write(map(json.loads, lines))
    out.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        write_json(out / name, value)
    return [out / name for name in files]


def _why(out: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return why the verdicts of a run cannot be read, as reported by :meth:`Readings.report`."""
    dialect = find_dialect(run.get("dialect", DEFAULT))
    readings = Readings(dialect)
    with open(out / "predictions.jsonl", encoding="utf-8") as lines:
        for line in lines:
            for reading in readings_of(json.loads(line), dialect):
                readings.add(reading)
    return readings.report(limit_of(run["max_new_tokens"]))


def to_markdown(metrics: Mapping[str, Any]) -> str:
    """Return the numbers of a run or scored file as Markdown; accuracies in percent, intervals at 95 %."""
    parts = [f"# {plain(metrics['name'])} on {metrics['suite']}\n", *_headline(metrics)]
    if not metrics["n"]:
        return "\n".join([*parts, "No row was judged."]) + "\n"
    parts += _official(metrics)
    parts += _categories(metrics)
    parts += _baselines(metrics)
    parts += _behaviour(metrics)
    parts += _curve(metrics)
    parts += _known_issues(metrics)
    return "\n".join(parts) + "\n"


def _headline(metrics: Mapping[str, Any]) -> list[str]:
    lines = _unreadable(metrics)
    if metrics.get("constant"):
        position = metrics["constant"].removeprefix("always ")
        lines.append(
            f"**This judge always says {position}**: {percent(metrics['first_share'])} % of its readable votes choose "
            "the response shown first. It ignores the responses, so its accuracy only measures the order protocol.\n"
        )
    if not metrics["complete"]:
        lines.append(f"**Incomplete: {metrics.get('rows', 0)} of {metrics['expected']} rows.**")
        lines += [*_missing(metrics.get("missing", [])), ""]
    lines += [f"- {note}" for note in metrics.get("notes", [])]
    orders = metrics["orders"]
    lines.append(f"- Orders: {orders}" + (f" ({ORDERS[orders]})." if orders in ORDERS else "."))
    if metrics["n"]:
        lines.append(f"- Votes per pass: {metrics['votes']}; passes: {metrics['passes']}.")
        lines.append(f"- Rule: `{metrics['rule']}`, {RULES[metrics['rule']]}.")
    if dialect := metrics.get("settings", {}).get("dialect"):
        lines.append(f"- Dialect: `{plain(dialect)}`.")
    if protocol := find_benchmark(metrics["suite"]).protocol:
        lines.append(f"- Official evaluator: {protocol}.")
    return [*lines, ""]


def _official(metrics: Mapping[str, Any]) -> list[str]:
    """Return the benchmark's official score, if it has one."""
    official = metrics.get("official")
    if not official:
        return []
    rows = [
        [
            plain(name),
            "undefined" if value is None else percent(value),
            interval_text(official["intervals"].get(name)),
        ]
        for name, value in official["values"].items()
    ]
    about = f"{official['about']}\n" if official["about"] else ""
    return ["## Official score\n", *([about] if about else []), markdown_table(["number", "%", "95 %"], rows)]


def _missing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the reasons why rows could not be judged, without repeats."""
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row["reason"], []).append(row["index"])
    lines, left = [], len(rows)
    for reason, own in list(numbers.items())[:20]:
        some = ", ".join(map(str, own[:5])) + (", ..." if len(own) > 5 else "")
        lines.append(f"- {f'row {some}' if len(own) == 1 else f'{len(own):,} rows ({some})'}: {reason}")
        left -= len(own)
    return [*lines, f"- and {left:,} more, in metrics.json"] if left else lines


def _unreadable(metrics: Mapping[str, Any]) -> list[str]:
    """Return a warning to show before all numbers if hardly any verdict can be read."""
    share = metrics.get("parse_rate")
    if share is None or share >= FEW:
        return []
    head = "No verdict can be read" if share == 0 else f"Only {percent(share)} % of the verdicts can be read"
    cut = metrics.get("truncated")
    said = f"**{head}**" + ("" if cut is None else f"; {percent(cut)} % were cut by the token limit")
    meaning = " The rule `wrong` turns this into an accuracy of 0, which means nothing." if share == 0 else ""
    lines = [f"{said}.{meaning}"]
    if why := metrics.get("unreadable"):
        example = why["example"].replace("`", "'") or "(empty)"
        lines.append(f"{why['cause'].replace('<', chr(92) + '<')} Example: `{example}`")
    return ["\n\n".join(lines) + "\n"]


def _categories(metrics: Mapping[str, Any]) -> list[str]:
    plus = metrics.get("acc_plus") is not None
    head = ["category", "n", "accuracy", "95 %"] + (["ACC+", "ids"] if plus else [])
    rows = []
    for name, one in metrics["categories"].items():
        row = [plain(name), one["n"], percent(one["accuracy"]), interval_text([one["low"], one["high"]])]
        rows.append(row + ([percent(one.get("acc_plus")), one.get("ids", "–")] if plus else []))
    spans = metrics["intervals"]
    overall: list[Any] = ["**overall**", metrics["n"], percent(metrics["overall"]), interval_text(spans["overall"])]
    overall += [percent(metrics["acc_plus"]), ""] if plus else []
    rows.append(overall)
    if metrics["macro"] is not None:
        rows.append(["**macro**", "", percent(metrics["macro"]), interval_text(spans["macro"]), *([""] * 2 * plus)])
    parts = [markdown_table(head, rows)]
    paper = (metrics.get("groupings") or {}).get("paper")
    if paper:
        rows = [[plain(name), one["n"], percent(one["accuracy"])] for name, one in paper["categories"].items()]
        rows.append(["**macro**", "", percent(paper["macro"])])
        parts += ["In the R1-Reward paper's grouping, comparable only with the rows of that paper:\n"]
        parts += [markdown_table(["category", "n", "accuracy"], rows)]
    return parts


def _baselines(metrics: Mapping[str, Any]) -> list[str]:
    names = {
        "always_1": "always the first response",
        "longer": "the longer response",
        "shorter": "the shorter response",
        "random": "random",
    }
    rows = []
    for key, name in names.items():
        values = metrics["baselines"].get(key)
        cells = [percent(values[column]) if values else "unknown" for column in ("overall", "macro")]
        rows.append([name, *cells])
    parts = ["Trivial baselines on the same rows and orders:\n", markdown_table(["judge", "overall", "macro"], rows)]
    rows = [
        [f"`{rule}`", values["n"], percent(values["overall"]), percent(values["macro"])]
        for rule, values in metrics["rules"].items()
    ]
    return [*parts, "By rule for unreadable verdicts:\n", markdown_table(["rule", "n", "overall", "macro"], rows)]


def _behaviour(metrics: Mapping[str, Any]) -> list[str]:
    position = metrics.get("by_position") or {}
    rows = [
        ["readable verdicts", percent(metrics["parse_rate"])],
        ["verdicts cut by the token limit", percent(metrics.get("truncated"))],
        ["accuracy, preferred shown first", percent(position.get("first"))],
        ["accuracy, preferred shown second", percent(position.get("second"))],
        ["verdicts that flip with the order", percent(metrics["flip_rate"])],
        ["votes for the response shown first", percent(metrics["first_share"])],
        ["mean tokens", _number(metrics["mean_tokens"])],
        ["mean characters", _number(metrics["mean_characters"])],
    ]
    return [markdown_table(["", ""], rows)]


def _curve(metrics: Mapping[str, Any]) -> list[str]:
    curve = metrics.get("voting_curve")
    if not curve:
        return []
    rows = [
        [k, *(f"{percent(point['mean'])} {interval_text([point['low'], point['high']])}" for point in pair)]
        for k, pair in enumerate(zip(curve["majority"], curve["any"], strict=True), 1)
    ]
    text = "Voting: exact mean over all subsets of k votes; a tie counts one half (rule `wrong`).\n"
    return [text, markdown_table(["k", "majority@k", "any@k"], rows)]


def _known_issues(metrics: Mapping[str, Any]) -> list[str]:
    known = metrics["known_issues"]
    if not known["n"]:
        return []
    without = known["without_them"]
    lines = [f"{known['n']} rows are known or suspected to be wrong; they are included above."]
    if without:
        lines[0] += f" Without them: {percent(without['overall'])} % on {without['n']} rows."
    lines += ["", *(f"- row {row['index']}, {plain(row['id'])}: {plain(row['issue'])}" for row in known["rows"][:20])]
    lines += [f"- and {known['n'] - 20} more, in metrics.json"] if known["n"] > 20 else []
    return [*lines, ""]


def plot_voting(metrics: Mapping[str, Any], path: Path) -> None:
    """Plot majority@k and any@k with their 95 % bands, like figure 4 of the paper."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    names = {"majority": "majority of k votes", "any": "any of k votes right"}
    for (kind, label), colour in zip(names.items(), ("#2563eb", "#d97706"), strict=True):
        points = metrics["voting_curve"][kind]
        ks = range(1, len(points) + 1)
        axes.plot(ks, [100 * p["mean"] for p in points], "o-", color=colour, markersize=3.5, label=label)
        low, high = ([100 * p[side] for p in points] for side in ("low", "high"))
        axes.fill_between(ks, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="votes k", ylabel="accuracy (%)", title=f"{plain(metrics['name'])} on {metrics['suite']}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def markdown_table(head: list[str], rows: list[list[Any]]) -> str:
    """Return a Markdown table with all columns except the first aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def percent(value: float | None) -> str:
    """Format a share as percent with two decimals, a dash for None."""
    return "–" if value is None else f"{100 * value:.2f}"


def interval_text(span: list[float | None] | None) -> str:
    """Format the bounds of an interval in percent with one decimal, an empty string if they are unknown."""
    return "" if not span or None in span else f"[{100 * span[0]:.1f}, {100 * span[1]:.1f}]"  # type: ignore[operator]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def plain(text: str) -> str:
    """Return a name in one line, without characters that Markdown or matplotlib would treat as markup."""
    return " ".join(str(text).translate({ord(c): " " for c in "|`$<>*"}).split())
