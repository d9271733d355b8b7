"""The report of a demo run: one self-contained report.html, and summary.png for a README.

Everything is read from the run folder (metrics.json, predictions, training logs, held-out pairs); nothing is measured
here. A model's texts are untrusted: the template has autoescape on and no script. Every claim is computed from the
interval it cites::

    verdict_sentence({"mean": 0.01, "low": -0.01, "high": 0.03}, "RL", "SFT")
    # "This run does not show whether RL is more or less accurate than SFT: +1.0 points (95 % interval ...)"
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r1_reward.models.tiny_words import GROUPS
from r1_reward.records.schema import Judgment
from r1_reward.store.files import read_json, write_bytes, write_text
from r1_reward.store.machine import machine_text
from r1_reward.studies import report
from r1_reward.studies.demo import figures
from r1_reward.studies.demo.files import read_predictions

OUTCOMES = (
    ("gained", "wrong before, right after RL", (False, True), 3),
    ("kept", "right before and after", (True, True), 2),
    ("missed", "wrong before and after", (False, False), 2),
    ("lost", "right before, wrong after RL", (True, False), 1),
)
"""Gallery: name, meaning, (SFT right, RL right), number of cards; an unreadable verdict counts as wrong."""

MAX_TEXT = 800
"""Maximum characters of a model's text on a card."""

_TAG = re.compile(r"(</?(?:think|answer)>)")


@dataclass(frozen=True)
class Run:
    """The data that the report reads from a run folder."""

    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    greedy: dict[str, list[list[Judgment]]]
    logs: dict[str, list[dict[str, Any]]]


def write_report(folder: Path) -> Path:
    """Write report.html and summary.png to a demo run folder and return the path of the report."""
    run = _read_run(folder)
    summary = figures.summary_figure(run.metrics)
    write_bytes(folder / "summary.png", report.png(summary, dpi=figures.SUMMARY_DPI))
    write_text(folder / "report.html", render(run, _test_pairs(folder)))
    return folder / "report.html"


def render(run: Run, pairs: dict[str, dict[str, Any]]) -> str:
    """Return the report as HTML; ``pairs`` are the held-out pairs by id, with their images."""
    panels = ((panel.title, figures.training_figure(panel, run.logs["rl"])) for panel in figures.RL_PANELS)
    return report.render(
        "demo.html",
        metrics=run.metrics,
        models={name: label for name, label in figures.MODELS.items() if name in run.metrics},
        sentences=_sentences(run.metrics),
        gains=_gains(run.metrics),
        machine=machine_text(run.metrics.get("machine") or {}),
        cards=gallery(run, pairs),
        outcomes=_count_outcomes(run),
        kinds=_kind_rows(run.metrics),
        lengths=_length_rows(run),
        pictures=_pictures(run),
        panels=[(title, report.svg_url(figure)) for title, figure in panels],
    )


# ---- reading


def _read_run(folder: Path) -> Run:
    metrics = read_json(folder / "metrics.json")
    rows: list[dict[str, Any]] = []
    greedy = {}
    for name in figures.MODELS:
        path = folder / "predictions" / f"{name}-greedy.jsonl"
        if path.is_file():
            rows, greedy[name] = read_predictions(path)
    logs = {}
    for name in ("ground", "sft", "control", "rl"):
        path = folder / f"{name}-log.json"
        logs[name] = read_json(path) if path.is_file() else []
    return Run(metrics, rows, greedy, logs)


def _test_pairs(folder: Path) -> dict[str, dict[str, Any]]:
    from r1_reward.store.pairs import load_pairs

    return {row["id"]: row for row in load_pairs(folder / "data" / "test.parquet", check_images=False)}


# ---- sentences and numbers


def verdict_sentence(difference: Any, after: str, before: str) -> str:
    """Return in words what a paired difference of accuracies shows: a gain, a loss, or neither."""
    interval = report.triple(difference)
    if interval is None:
        return f"The difference between {after} and {before} was not measured."
    _, low, high = interval
    numbers = f"{report.signed(interval[0])} points (95 % interval {report.bounds_text(difference)})"
    if low > 0 or high < 0:
        word = "more" if low > 0 else "less"
        return f"{after} is {word} accurate than {before}: {numbers}; the interval excludes 0."
    return (
        f"This run does not show whether {after} is more or less accurate than {before}: "
        f"{numbers}; the interval includes 0."
    )


def _sentences(metrics: dict[str, Any]) -> dict[str, str]:
    difference = metrics.get("rl_minus_control") or {}
    by_group = difference.get("by_group") or {}
    return {
        "rl": verdict_sentence(metrics.get("paired_difference"), "RL", "SFT"),
        "control": verdict_sentence(difference, "RL", "the control"),
        **{group: verdict_sentence(by_group.get(group), "RL", "the control") for group in GROUPS},
    }


def _gains(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """Return RL minus control on all pairs and on labels-only pairs: title, difference, its bounds in words."""
    every = metrics.get("rl_minus_control") or {}
    cells = {"all pairs": every, "labels only": (every.get("by_group") or {}).get("labels only") or {}}
    return [(title, cell, report.bounds_text(cell or None)) for title, cell in cells.items()]


def _kind_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one table row per kind and group: name, whether it is a group, pairs, accuracy of each model."""
    rows = []
    for group, kinds in GROUPS.items():
        for kind in (group, *kinds):
            cells = {name: (metrics.get(name) or {}).get("by_kind", {}).get(kind) for name in figures.MODELS}
            known = [cell for cell in cells.values() if cell]
            if known:
                rows.append({"name": kind, "is_group": kind == group, "n": known[0].get("n"), "cells": cells})
    return rows


def _length_rows(run: Run) -> list[dict[str, Any]]:
    """Return one row per model for the table of response lengths, in tokens."""
    limit = report.number((run.metrics.get("config") or {}).get("max_new_tokens"))
    rows = []
    for name, judgments in run.greedy.items():
        tokens = np.array([judgment.tokens for votes in judgments for judgment in votes])
        if tokens.size:
            rows.append(
                {
                    "name": name,
                    "label": figures.MODELS[name],
                    "mean": float(tokens.mean()),
                    "median": float(np.median(tokens)),
                    "high": float(np.quantile(tokens, 0.9)),
                    "limited": None if limit is None else float((tokens >= limit).mean()),
                }
            )
    return rows


# ---- gallery


def verdict(judgment: Judgment, preferred: int) -> str:
    """Return ``right``, ``wrong`` or ``unreadable``."""
    if judgment.answer is None:
        return "unreadable"
    return "right" if judgment.answer == preferred else "wrong"


def choose(outcomes: list[str], kinds: list[str]) -> list[int]:
    """Return the pairs that the gallery shows, by a fixed rule.

    For each outcome these are the first pairs in file order, as many as ``OUTCOMES`` says, with kinds not shown yet
    first; if an outcome has too few, the others fill its places in the same way.
    """
    chosen: list[int] = []

    def take(outcome: str, count: int) -> None:
        for _ in range(count):
            left = [i for i, name in enumerate(outcomes) if name == outcome and i not in chosen]
            if not left:
                return
            shown = Counter(kinds[i] for i in chosen)
            chosen.append(min(left, key=lambda i: (shown[kinds[i]], i)))

    for name, _, _, count in OUTCOMES:
        take(name, count)
    for name, *_ in OUTCOMES:
        take(name, sum(count for *_, count in OUTCOMES) - len(chosen))
    order = [name for name, *_ in OUTCOMES]
    return sorted(chosen, key=lambda i: (order.index(outcomes[i]), i))


def gallery(run: Run, pairs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cards of the gallery: picture, question, responses, both models' texts and their verdicts."""
    outcomes = _outcomes(run)
    meaning = {name: text for name, text, *_ in OUTCOMES}
    cards = []
    for i in choose(outcomes, [row["kind"] for row in run.rows]) if outcomes else []:
        pair = pairs.get(run.rows[i]["id"])
        if pair is None:
            continue
        cards.append(
            {
                "id": pair["id"],
                "kind": pair["kind"],
                "outcome": outcomes[i],
                "meaning": meaning[outcomes[i]],
                "pictures": _pictures_of(pair),
                "question": pair["question"],
                "responses": [pair["response_1"], pair["response_2"]],
                "preferred": pair["preferred"],
                "texts": [
                    {"model": model, "when": when, **_text_view(run.greedy[model][i], pair["preferred"])}
                    for model, when in (("sft", "Before RL"), ("rl", "After RL"))
                ],
            }
        )
    return cards


def _outcomes(run: Run) -> list[str]:
    """Return the outcome of each pair, in the stored order of its responses."""
    if "sft" not in run.greedy or "rl" not in run.greedy:
        return []
    names = {flags: name for name, _, flags, _ in OUTCOMES}
    return [
        names[_as_stored(before).answer == row["preferred"], _as_stored(after).answer == row["preferred"]]
        for row, before, after in zip(run.rows, run.greedy["sft"], run.greedy["rl"], strict=True)
    ]


def _count_outcomes(run: Run) -> list[tuple[str, str, int]]:
    """Return the name, meaning and number of pairs of every outcome."""
    counts = Counter(_outcomes(run))
    return [(name, meaning, counts[name]) for name, meaning, *_ in OUTCOMES]


def _as_stored(votes: list[Judgment]) -> Judgment:
    return next((judgment for judgment in votes if not judgment.swapped), votes[0])


def _text_view(votes: list[Judgment], preferred: int) -> dict[str, Any]:
    judgment = _as_stored(votes)
    text = judgment.text if len(judgment.text) <= MAX_TEXT else judgment.text[:MAX_TEXT] + " […]"
    return {
        "verdict": verdict(judgment, preferred),
        "swapped": next((verdict(vote, preferred) for vote in votes if vote.swapped), None),
        "well_formed": judgment.well_formed,
        "tokens": judgment.tokens,
        "parts": [(part, bool(_TAG.fullmatch(part))) for part in _TAG.split(text) if part],
    }


def _pictures_of(pair: dict[str, Any]) -> list[dict[str, Any]]:
    from r1_reward.store.images import decode_images

    return [
        {
            "uri": report.picture_url(image),
            "width": image.width,
            "height": image.height,
            "scale": max(1, 168 // image.width),
        }
        for image in decode_images(pair)
    ]


# ---- figures


def _pictures(run: Run) -> dict[str, str]:
    colours = figures.COLOURS
    phases = [
        ("grounding on captions", colours["base"], run.logs["ground"]),
        ("SFT: cold start", colours["sft"], run.logs["sft"]),
        ("control: SFT continued", colours["control"], run.logs["control"]),
    ]
    drawn = {
        "accuracy": figures.accuracy_figure(run.metrics),
        "kinds": figures.kinds_figure(run.metrics, GROUPS),
        "majority": figures.voting_figure(run.metrics, "majority"),
        "any": figures.voting_figure(run.metrics, "any"),
        "loss": figures.sft_figure(phases, "loss", "loss (nats per token)"),
        "token_accuracy": figures.sft_figure(phases, "mean_token_accuracy", "token accuracy (share)"),
        "lengths": figures.lengths_figure({name: run.greedy.get(name, []) for name in ("sft", "rl")}),
        "attempts": figures.attempts_figure(run.metrics.get("attempts") or {}),
    }
    return {name: report.svg_url(figure) for name, figure in drawn.items()}
