"""Summarize the cells of a study, arm by arm.

Only results count. A run that ended without one (out of memory, killed, an error) says nothing about its arm: it is
excluded from all means, rates and tests, and the arm has fewer ``seeds`` than ``wanted``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1_reward.studies.ablate.study import Setting
from r1_reward.studies.statistics import (
    detectable_difference,
    detectable_rates,
    fisher,
    mean_over_seeds,
    rate,
    share_over_seeds,
)

_ROUNDING = 1e-9  # a run exactly at the threshold is above it, however the threshold was rounded

Result = Mapping[str, Any]
"""The result of :func:`r1_reward.studies.ablate.cells.run_cell`."""


def summarise(
    results: Sequence[Result], settings: Mapping[str, Setting], *, least_accuracy: float | None = None
) -> dict[str, Any]:
    """Return the results of all arms by setting, whether or not they have any.

    Shares are in [0, 1], intervals are 95 %; None if an arm has no result. ``collapses`` counts the ``broken`` runs,
    found by the collapse rules, and with ``least_accuracy`` also those that are not broken but ended below it
    (``accuracy_lost``).
    """
    summary = {}
    for name, setting in settings.items():
        found = {arm: [one for one in results if (one["setting"], one["arm"]) == (name, arm)] for arm in setting.arms}
        baseline = found[setting.reference()]
        n = min((len(cells) for cells in found.values() if cells), default=0)
        arms = {}
        for arm, cells in found.items():
            arms[arm] = {"seeds": len(cells), "wanted": len(setting.seeds), **_describe(cells, least_accuracy)}
            if arm != setting.reference():
                arms[arm] |= _compare(cells, baseline, least_accuracy)
        summary[name] = {
            "reference": setting.reference(),
            "arms": arms,
            # The comparison with the fewest seeds detects least; the reference may have more.
            "detectable_collapse_rates": detectable_rates(
                n, round(n * _collapses(baseline, least_accuracy) / len(baseline))
            )._asdict()
            if baseline
            else None,
        }
    return summary


def is_broken(cell: Result) -> bool:
    """Return whether a rule of :mod:`r1_reward.train.monitor` was triggered, or no token could be sampled."""
    return bool(cell["collapse"] or cell["failure"])


def lost_accuracy(cell: Result, least_accuracy: float | None) -> bool:
    """Return whether a run that is not broken ended below an accuracy; False if that is None."""
    if least_accuracy is None or cell["accuracy"] is None or is_broken(cell):
        return False
    return bool(cell["accuracy"] < least_accuracy - _ROUNDING)


def _describe(cells: Sequence[Result], least_accuracy: float | None) -> dict[str, Any]:
    collapses = _collapses(cells, least_accuracy)
    return {
        "accuracy": _interval([cell["accuracy"] for cell in cells]),
        "accuracies": [cell["accuracy"] for cell in cells],
        "collapses": collapses,
        "broken": sum(map(is_broken, cells)),
        "accuracy_lost": None if least_accuracy is None else collapses - sum(map(is_broken, cells)),
        "collapse_rate": rate(collapses, len(cells))._asdict() if cells else None,
        "consistent": _interval([cell.get("consistent") for cell in cells]),
        "consistents": [cell.get("consistent") for cell in cells],
        "sampled_consistency": [
            sampled_consistency(cell["log"], cell["options"].get("referee_noise", 0.0)) for cell in cells
        ],
        "parse_rates": [cell["parse_rate"] for cell in cells],
        "mean_tokens": _mean([cell.get("mean_tokens") for cell in cells]),
        # Prompts, with their pictures, count too; summaries of earlier versions have this key.
        "generated_tokens": _mean([cell.get("tokens") for cell in cells]),
        "verdicts": [cell["verdict"] for cell in cells],
    }


def _compare(cells: Sequence[Result], baseline: Sequence[Result], least_accuracy: float | None) -> dict[str, Any]:
    """Return how an arm differs from the reference; empty if one of them has no results, or they share no seed."""
    compared: dict[str, Any] = {}
    of_seed = {cell["seed"]: cell["accuracy"] for cell in baseline}
    both = [(cell["accuracy"], of_seed.get(cell["seed"])) for cell in cells]
    differences = [own - other for own, other in both if own is not None and other is not None]
    if differences:
        compared["difference"] = mean_over_seeds(differences)._asdict()
        compared["detectable_difference"] = detectable_difference(differences)
    if cells and baseline:
        own, other = (_collapses(some, least_accuracy) for some in (cells, baseline))
        compared["collapse_p"] = fisher(own, other, len(cells), len(baseline))
    return compared


def sampled_consistency(
    log: Sequence[Mapping[str, Any]], noise: float, *, steps: int = 5
) -> tuple[float, float] | None:
    """Return the consistency of right rollouts in the first and last ``steps`` logs, as an error-free referee sees it.

    A referee that reverses its verdict with probability n reports c (1 - n) + (1 - c) n for a true share c. None if n
    is 1/2, which hides c, or without logs.
    """
    reported = [row["reward/consistency"] for row in log if row.get("reward/consistency") is not None]
    if not reported or noise == 0.5:
        return None
    shares = [(share - noise) / (1 - 2 * noise) for share in reported]
    return float(np.mean(shares[:steps])), float(np.mean(shares[-steps:]))


def _collapses(cells: Sequence[Result], least_accuracy: float | None) -> int:
    return sum(is_broken(cell) or lost_accuracy(cell, least_accuracy) for cell in cells)


def _interval(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return share_over_seeds(known)._asdict() if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
