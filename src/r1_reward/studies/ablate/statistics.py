"""What the cells of a study say together: accuracy over seeds, collapse rates, differences, and what could be seen.

The unit is the seed. Accuracy of an arm gets a t interval over its seeds; a collapse rate Clopper and Pearson's exact
interval; two arms are compared seed by seed (a paired t interval) and, for collapse, by Fisher's exact test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize, stats

from r1_reward.judge.metrics import Interval


def share_over_seeds(shares: Sequence[float]) -> Interval:
    """Return the mean of shares with its 95 % t interval, cut to [0, 1]; the bounds are NaN for a single seed."""
    mean, low, high = mean_over_seeds(shares)
    return Interval(mean, float(np.maximum(low, 0.0)), float(np.minimum(high, 1.0)))


def mean_over_seeds(values: Sequence[float]) -> Interval:
    """Return the mean with its 95 % t interval; the bounds are NaN for a single seed."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if array.size < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.975, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size))
    return Interval(mean, mean - half, mean + half)


def rate(count: int, n: int) -> Interval:
    """Return a share with Clopper and Pearson's exact 95 % interval."""
    interval = stats.binomtest(count, n).proportion_ci(confidence_level=0.95, method="exact")
    return Interval(count / n, float(interval.low), float(interval.high))


def fisher(count_a: int, count_b: int, n_a: int, n_b: int) -> float:
    """Return the two-sided p-value that two shares are the same."""
    return float(stats.fisher_exact([[count_a, n_a - count_a], [count_b, n_b - count_b]]).pvalue)


def detectable_rate(n: int, base: int = 0, *, power: float = 0.8, level: float = 0.05) -> float | None:
    """Return the smallest collapse rate that ``n`` seeds an arm would tell from ``base`` of n with that power.

    None if even certain collapse would not be told apart. Exact, by enumeration, in steps of 0.01.
    """
    significant = np.array([fisher(base, count, n, n) < level for count in range(n + 1)])
    for percent in range(1, 101):
        outcomes = stats.binom.pmf(np.arange(n + 1), n, percent / 100)
        if outcomes[significant].sum() >= power:
            return percent / 100
    return None


def detectable_difference(differences: Sequence[float], *, power: float = 0.8, level: float = 0.05) -> float:
    """Return the smallest true difference that a paired t-test over as many seeds would have told from 0.

    The spread of the ``differences`` found stands for the true one. NaN for a single seed.
    """
    n = len(differences)
    if n < 2:
        return float("nan")
    standard_error = float(np.std(differences, ddof=1)) / np.sqrt(n)
    critical = stats.t.ppf(1 - level / 2, n - 1)
    # The power of a t-test is a tail of the noncentral t distribution; the other tail is negligible.
    shift = optimize.brentq(lambda shift: stats.nct.sf(critical, n - 1, shift) - power, 0.0, 100.0)
    return float(shift * standard_error)


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


def summarise(results: Sequence[Mapping[str, Any]], reference: Mapping[str, str]) -> dict[str, Any]:
    """Return setting -> what its arms came to; ``reference`` names each setting's baseline."""
    settings: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for result in results:
        settings.setdefault(result["setting"], {}).setdefault(result["arm"], []).append(result)
    summary = {}
    for name, arms in settings.items():
        baseline = arms.get(reference[name], [])
        n = min(len(cells) for cells in arms.values())
        summary[name] = {
            "reference": reference[name],
            "arms": {arm: _arm(cells, baseline) for arm, cells in arms.items()},
            "detectable_collapse_rate": detectable_rate(n, min(n, _collapses(baseline))) if baseline else None,
        }
    return summary


def _arm(cells: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    collapses = _collapses(cells)
    described = {
        "seeds": len(cells),
        "accuracy": share_over_seeds([cell["accuracy"] for cell in cells])._asdict(),
        "accuracies": [cell["accuracy"] for cell in cells],
        "collapses": collapses,
        "collapse_rate": rate(collapses, len(cells))._asdict(),
        "consistent": _interval([cell.get("consistent") for cell in cells]),
        "consistents": [cell.get("consistent") for cell in cells],
        "sampled_consistency": [
            sampled_consistency(cell["log"], cell["options"].get("referee_noise", 0.0)) for cell in cells
        ],
        "parse_rates": [cell["parse_rate"] for cell in cells],
        "mean_tokens": _mean(cell.get("mean_tokens") for cell in cells),
        "generated_tokens": _mean(cell.get("tokens") for cell in cells),
        "verdicts": [cell["verdict"] for cell in cells],
    }
    of_seed = {cell["seed"]: cell["accuracy"] for cell in baseline}
    paired = [cell["accuracy"] - of_seed[cell["seed"]] for cell in cells if cell["seed"] in of_seed]
    if paired and baseline is not cells:
        described["difference"] = mean_over_seeds(paired)._asdict()
        described["detectable_difference"] = detectable_difference(paired)
        described["collapse_p"] = fisher(collapses, _collapses(baseline), len(cells), len(baseline))
    return described


def _collapses(cells: Sequence[Mapping[str, Any]]) -> int:
    return sum(bool(cell["collapse"] or cell["failure"]) for cell in cells)


def _interval(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return share_over_seeds(known)._asdict() if known else None


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
