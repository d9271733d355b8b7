"""Calibrated probabilities: temperature scaling (Guo et al. 2017, arXiv 1706.04599) of a judge.

If a calibrated judge says 0.8, it is right in 80 of 100 such cases. One number, the temperature T, is fitted on pairs
whose better response is known: p becomes sigmoid(logit(p) / T). T > 1 means that the judge was overconfident. The
preferred response never changes, because 1/2 stays 1/2.

>>> probabilities, labels = [0.99] * 6 + [0.01] * 6, [True] * 5 + [False] * 6 + [True]  # always sure, 10 of 12 right
>>> calibration = fit_calibration(probabilities, labels)
>>> round(calibration.apply(0.99), 3)
0.833

Shapes: ``probabilities`` (n,) are those of response 1 being better, in [0, 1]; ``labels`` (n,) say whether it is.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json, write_json
from r1_reward.store.hub import checkpoint_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

FILE_NAME = "calibration.json"
"""The file in a checkpoint folder that holds its calibration."""

BINS = 15
"""The number of bins of equal width over the confidences, from 1/2 to 1."""

LEAST_PAIRS = 10
TEMPERATURES = (0.05, 20.0)
"""The range in which a temperature is searched for."""

_CLIP = 1e-6


class Calibration(BaseModel):
    """A fitted temperature, and the calibration errors on its n pairs before and after."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    temperature: float = Field(gt=0)
    n: int = Field(ge=1)
    ece_before: float = Field(ge=0, le=1)
    ece_after: float = Field(ge=0, le=1)
    brier_before: float = Field(ge=0, le=1)
    brier_after: float = Field(ge=0, le=1)

    @property
    def at_bound(self) -> bool:
        """Whether the temperature is at an end of its range: the judge's confidence says nothing about its accuracy."""
        return any(abs(math.log(self.temperature / bound)) < 1e-3 for bound in TEMPERATURES)

    def apply(self, probability: float) -> float:
        """Return the calibrated probability, in [0, 1]; the given one is clipped to at least 1e-6 from 0 and 1.

        Raises:
            ValueError: the probability is not in [0, 1].
        """
        return float(_scaled(_probabilities([probability]), self.temperature)[0])

    def save(self, folder: Path) -> None:
        """Write ``calibration.json`` into the folder."""
        write_json(Path(folder) / FILE_NAME, self.model_dump())

    @classmethod
    def load(cls, checkpoint: str | Path) -> Calibration | None:
        """Return the calibration of a checkpoint (a folder or Hub id), None if it has none.

        Raises:
            UserError: its ``calibration.json`` cannot be read or was not written by :meth:`save`.
        """
        path = checkpoint_file(checkpoint, FILE_NAME)
        if path is None:
            return None
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise UserError(f"{path}: {where}: {first['msg']}; calibrate again or delete the file.") from error


def fit_calibration(probabilities: ArrayLike, labels: ArrayLike) -> Calibration:
    """Return the temperature, in [0.05, 20], with the smallest log-loss on these pairs.

    Raises:
        UserError: there are fewer than 10 pairs, the same response is better in all of them, or the judge is right, or
            wrong, on all of them, so that no temperature fits.
        ValueError: a probability is not in [0, 1], a label is not a boolean, or their numbers differ.
    """
    p, y = _checked(probabilities, labels)
    _require_enough(p, y)
    z = logit(np.clip(p, _CLIP, 1 - _CLIP))
    toward = np.where(y, z, -z)

    def log_loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -toward / math.exp(log_temperature)).mean())

    # Convex in 1/T, so there is one minimum.
    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(log_loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7})
    temperature = math.exp(float(found.x))
    after = _scaled(p, temperature)
    return Calibration(
        temperature=temperature,
        n=len(p),
        ece_before=expected_calibration_error(p, y),
        ece_after=expected_calibration_error(after, y),
        brier_before=brier(p, y),
        brier_after=brier(after, y),
    )


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean, over pairs, of the gap between the accuracy and the mean confidence of a pair's bin.

    Confidence is max(p, 1 - p), in 15 bins of equal width over [1/2, 1]. A probability of exactly 1/2 is half right.

    Raises:
        ValueError: there are no pairs, a probability is not in [0, 1], a label no boolean, or their numbers differ.
    """
    counts, confidence, accuracy = _reliability(*_checked(probabilities, labels))
    return float(counts @ np.abs(accuracy - confidence) / counts.sum())


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean of (p - label)^2, in [0, 1]; always saying 1/2 gives 1/4.

    Raises:
        ValueError: there are no pairs, a probability is not in [0, 1], a label no boolean, or their numbers differ.
    """
    p, y = _checked(probabilities, labels)
    return float(np.mean((p - y) ** 2))


def reliability_plot(probabilities: ArrayLike, labels: ArrayLike, calibration: Calibration) -> Figure:
    """Return accuracy against confidence before and after calibration, over a histogram of the confidences.

    Raises:
        ValueError: there are no pairs, a probability is not in [0, 1], a label no boolean, or their numbers differ.
    """
    from matplotlib.figure import Figure

    p, y = _checked(probabilities, labels)
    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([50, 100], [50, 100], ":", color="#8c8c8c", label="perfectly calibrated")
    before = ("before", expected_calibration_error(p, y), "#8c8c8c", "s")
    scaled = _scaled(p, calibration.temperature)
    after = (f"T = {calibration.temperature:.2f}", expected_calibration_error(scaled, y), "#D55E00", "o")
    for values, series in ((p, before), (scaled, after)):
        _draw_reliability(upper, lower, _reliability(values, y), *series)
    upper.set(ylabel="right (%)", ylim=(-3, 103), title=f"Confidence and accuracy, {len(p)} pairs")
    lower.set(xlabel="confidence (%)", ylabel="pairs")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    upper.legend(frameon=False, loc="lower right")
    return figure


def _draw_reliability(
    upper: Axes, lower: Axes, bins: tuple[np.ndarray, ...], name: str, ece: float, colour: str, marker: str
) -> None:
    counts, confidence, accuracy = bins
    some = counts > 0
    label = f"{name}, expected calibration error {100 * ece:.1f} %"
    upper.plot(100 * confidence[some], 100 * accuracy[some], marker + "-", color=colour, markersize=4, label=label)
    edges = np.linspace(50, 100, BINS + 1)
    lower.stairs(counts, edges, color=colour, fill=marker == "s", alpha=0.5 if marker == "s" else 1)


def _reliability(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the (BINS,) counts, mean confidences and accuracies; the latter are 0 in an empty bin."""
    confidence = np.maximum(p, 1 - p)
    right = np.where(p == 0.5, 0.5, (p > 0.5) == y)
    place = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = (np.bincount(place, values, minlength=BINS) for values in (confidence, right))
    mean_confidence, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return counts, mean_confidence, accuracy


def _scaled(p: np.ndarray, temperature: float) -> np.ndarray:
    return expit(logit(np.clip(p, _CLIP, 1 - _CLIP)) / temperature)


def _require_enough(p: np.ndarray, y: np.ndarray) -> None:
    if len(p) < LEAST_PAIRS:
        raise UserError(f"{len(p)} judged pairs are too few to calibrate on; pass at least {LEAST_PAIRS}.")
    if y.all() or not y.any():
        raise UserError(
            f"response {1 if y.all() else 2} is better in all {len(p)} pairs, so a judge that always prefers it would "
            "look calibrated; pass pairs of both kinds, for example by swapping the responses in half of them."
        )
    right, wrong = (int(((p != 0.5) & ((p > 0.5) == side)).sum()) for side in (y, ~y))
    if not right or not wrong:
        raise UserError(
            f"the judge is right on {right} and wrong on {wrong} of {len(p)} pairs; a temperature can only be fitted "
            "if it is sometimes right and sometimes wrong. Pass more, or harder, pairs."
        )


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays of floats and booleans, of the same length, at least 1."""
    p, y = _probabilities(probabilities), np.asarray(labels)
    if p.shape != y.shape or p.ndim != 1 or not len(p):
        raise ValueError(f"need as many probabilities as labels, and at least one, got {p.shape} and {y.shape}")
    if y.dtype != bool and not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be booleans: is response 1 the better one?")
    return p, y.astype(bool)


def _probabilities(values: ArrayLike) -> np.ndarray:
    p = np.asarray(values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probabilities must be in [0, 1], got {p[~((p >= 0) & (p <= 1))][0]}")
    return p
