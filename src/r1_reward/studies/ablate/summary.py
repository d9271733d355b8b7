"""What the cells of a study say together, arm by arm.

Only results are counted. A run that ended without one (out of memory, killed, an error) says nothing of its arm: it is
in no mean, no rate and no test, and the arm has fewer ``seeds`` than it has ``wanted``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1_reward.studies.ablate.study import Setting
from r1_reward.studies.statistics import (
    detectable_difference,
    detectable_rate,
    fisher,
    mean_over_seeds,
    rate,
    share_over_seeds,
)

Result = Mapping[str, Any]
"""What :func:`r1_reward.studies.ablate.cells.run_cell` returned."""


def summarise(results: Sequence[Result], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Return setting -> what its arms came to, all of them, whether they have results or not.

    Shares lie in [0, 1], intervals are 95 %; None where an arm has no result to say it by.
    """
    summary = {}
    for name, setting in settings.items():
        found = {arm: [one for one in results if (one["setting"], one["arm"]) == (name, arm)] for arm in setting.arms}
        baseline = found[setting.reference()]
        n = min((len(cells) for cells in found.values() if cells), default=0)
        arms = {}
        for arm, cells in found.items():
            arms[arm] = {"seeds": len(cells), "wanted": len(setting.seeds), **_describe(cells)}
            if arm != setting.reference():
                arms[arm] |= _compare(cells, baseline)
        summary[name] = {
            "reference": setting.reference(),
            "arms": arms,
            "detectable_collapse_rate": detectable_rate(n, min(n, _collapses(baseline))) if baseline else None,
        }
    return summary


def _describe(cells: Sequence[Result]) -> dict[str, Any]:
    collapses = _collapses(cells)
    return {
        "accuracy": _interval([cell["accuracy"] for cell in cells]),
        "accuracies": [cell["accuracy"] for cell in cells],
        "collapses": collapses,
        "collapse_rate": rate(collapses, len(cells))._asdict() if cells else None,
        "consistent": _interval([cell.get("consistent") for cell in cells]),
        "consistents": [cell.get("consistent") for cell in cells],
        "sampled_consistency": [
            sampled_consistency(cell["log"], cell["options"].get("referee_noise", 0.0)) for cell in cells
        ],
        "parse_rates": [cell["parse_rate"] for cell in cells],
        "mean_tokens": _mean([cell.get("mean_tokens") for cell in cells]),
        "generated_tokens": _mean([cell.get("tokens") for cell in cells]),
        "verdicts": [cell["verdict"] for cell in cells],
    }


def _compare(cells: Sequence[Result], baseline: Sequence[Result]) -> dict[str, Any]:
    """Return how an arm differs from the reference; nothing if one of them has no results, or no seed is in both."""
    compared: dict[str, Any] = {}
    of_seed = {cell["seed"]: cell["accuracy"] for cell in baseline}
    both = [(cell["accuracy"], of_seed.get(cell["seed"])) for cell in cells]
    differences = [own - other for own, other in both if own is not None and other is not None]
    if differences:
        compared["difference"] = mean_over_seeds(differences)._asdict()
        compared["detectable_difference"] = detectable_difference(differences)
    if cells and baseline:
        compared["collapse_p"] = fisher(_collapses(cells), _collapses(baseline), len(cells), len(baseline))
    return compared


def sampled_consistency(
    log: Sequence[Mapping[str, Any]], noise: float, *, steps: int = 5
) -> tuple[float, float] | None:
    """Return the consistency of right rollouts in the first and last ``steps`` logs, as a faultless referee sees it.

    A referee that reverses its verdict with probability n reports c (1 - n) + (1 - c) n where the share is c. None if
    n is 1/2, which hides c, or without logs.
    """
    reported = [row["reward/consistency"] for row in log if row.get("reward/consistency") is not None]
    if not reported or noise == 0.5:
        return None
    shares = [(share - noise) / (1 - 2 * noise) for share in reported]
    return float(np.mean(shares[:steps])), float(np.mean(shares[-steps:]))


def _collapses(cells: Sequence[Result]) -> int:
    return sum(bool(cell["collapse"] or cell["failure"]) for cell in cells)


def _interval(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return share_over_seeds(known)._asdict() if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
