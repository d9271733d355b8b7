"""Compute metrics.json of a demo run from its saved predictions, without running a model."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from r1_reward.judge import metrics
from r1_reward.models.tiny_words import GROUPS
from r1_reward.records.schema import Judgment
from r1_reward.store.machine import describe_machine
from r1_reward.studies.demo.files import read_predictions
from r1_reward.studies.statistics import paired_difference

if TYPE_CHECKING:
    from r1_reward.studies.demo.config import DemoConfig


def demo_metrics(folder: Path, config: DemoConfig, seconds: dict[str, float], command: str) -> dict[str, Any]:
    """Return everything the report shows; accuracies in [0, 1], times in seconds, intervals at 95 %."""
    from r1_reward.studies.demo.config import MODELS, VOTING_MODELS

    world = json.loads((folder / "data" / "world.json").read_text(encoding="utf-8"))
    greedy = {name: read_predictions(folder / "predictions" / f"{name}-greedy.jsonl") for name in MODELS}
    rows = greedy["sft"][0]
    result: dict[str, Any] = {
        "command": command,
        "seed": config.seed,
        "n_pairs": len(rows),
        "n_judgments": 2 * len(rows),
        "seconds": sum(seconds.values()),
        "phases": seconds,
        "machine": describe_machine(),
        "world": world,
        "attempts": _count_attempts(folder / "attempts.jsonl"),
        "config": config.model_dump(),
    }
    for name in MODELS:
        result[name] = describe(rows, greedy[name][1])
        if name in VOTING_MODELS:
            voted, votes = read_predictions(folder / "predictions" / f"{name}-votes.jsonl")
            curve = metrics.voting_curve(votes, [row["preferred"] for row in voted])
            result[name]["voting_pairs"] = len(voted)
            result[name]["voting"] = {kind: [i._asdict() for i in curve[kind]] for kind in curve}
    for key, after, before in (
        ("paired_difference", "rl", "sft"),
        ("control_difference", "control", "sft"),
        ("rl_minus_control", "rl", "control"),
    ):
        result[key] = difference(rows, greedy[after][1], greedy[before][1])
    result["control_steps"] = len(_steps(folder / "control-log.json"))
    result["rl_consistency"] = _steps(folder / "rl-log.json")[-1].get("reward/consistency")
    return result


def describe(rows: list[dict[str, Any]], judgments: list[list[Judgment]]) -> dict[str, Any]:
    """Return what the votes of one model on pairs (kind, preferred) come to, in all, by kind and by group of kinds."""
    labels = [row["preferred"] for row in rows]
    overall = metrics.accuracy(judgments, labels)
    by_kind = {}
    for name, chosen in _places(rows, single=True).items():
        interval = metrics.accuracy([judgments[i] for i in chosen], [labels[i] for i in chosen])
        by_kind[name] = {**interval._asdict(), "n": len(chosen)}
    return {
        "accuracy": overall.mean,
        "low": overall.low,
        "high": overall.high,
        "by_kind": by_kind,
        "by_position": metrics.accuracy_by_position(judgments, labels),
        "flip_rate": metrics.flip_rate(judgments),
        "parse_rate": metrics.parse_rate(judgments),
        "well_formed": float(np.mean([judgment.well_formed for votes in judgments for judgment in votes])),
        "mean_tokens": metrics.mean_tokens(judgments),
    }


def difference(rows: list[dict[str, Any]], after: list[list[Judgment]], before: list[list[Judgment]]) -> dict[str, Any]:
    """Return accuracy after minus accuracy before with its interval, of all pairs and ``by_group``."""
    labels = [row["preferred"] for row in rows]
    by_group = {
        group: paired_difference([after[i] for i in own], [before[i] for i in own], [labels[i] for i in own])._asdict()
        for group, own in _places(rows).items()
    }
    return {**paired_difference(after, before, labels)._asdict(), "by_group": by_group}


def _places(rows: list[dict[str, Any]], *, single: bool = False) -> dict[str, list[int]]:
    """Return the indices of the pairs of each group of kinds and each ``single`` kind, without empty ones."""
    groups = {**({kind: (kind,) for kinds in GROUPS.values() for kind in kinds} if single else {}), **GROUPS}
    found = {name: [i for i, row in enumerate(rows) if row["kind"] in kinds] for name, kinds in groups.items()}
    return {name: places for name, places in found.items() if places}


def _count_attempts(path: Path) -> dict[str, int]:
    counts = Counter(
        str(json.loads(line)["attempts"] or "failed") for line in path.read_text(encoding="utf-8").splitlines()
    )
    return {key: counts.get(key, 0) for key in ("1", "2", "3", "failed")}


def _steps(path: Path) -> list[dict[str, Any]]:
    """Return the logged training steps, without the final summary line."""
    return [row for row in json.loads(path.read_text(encoding="utf-8")) if "loss" in row]
