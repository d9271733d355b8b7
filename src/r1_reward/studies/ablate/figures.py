"""Figures of a study: a line and a dot for every run of every seed, referee noise, the paper's example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from r1_reward.studies.ablate.summary import is_broken

PANELS = (  # logged key, title, scale of the y axis
    ("policy_loss", "|policy loss|", "log"),
    ("grad_norm", "gradient norm", "log"),
    ("reward", "reward of the rollouts", "linear"),
    ("held_out/accuracy", "held-out accuracy, both orders", "linear"),
    ("completions/mean_length", "response length, tokens", "linear"),
    ("entropy", "entropy, nats per token", "linear"),
    ("max_log_ratio", "largest |log-ratio|, nats", "linear"),
    ("filtered", "share of advantages filtered", "linear"),
    ("pre_clipped", "share of tokens pre-clipped", "linear"),
    ("mismatch/mean_abs", "loss against sampler: mean |log-prob. gap|, nats", "linear"),
    ("pre_clip/changed", "Pre-CLIP: share of tokens whose gradient it drops", "linear"),
    ("pre_clip/parameter_cosine", "Pre-CLIP: cosine to the unclipped gradient", "linear"),
    ("pre_clip/parameter_norm_ratio", "Pre-CLIP: gradient norm relative to unclipped", "log"),
)
COLOURS = (
    "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333", "#999933",
    "#882255", "#44AA99", "#661100", "#AA4499", "#117733", "#6699CC", "#DDCC77", "#AAAAAA",
)  # fmt: skip


def curves(cells: Sequence[Mapping[str, Any]], lost: Sequence[bool] | None = None) -> Any:
    """Return a figure with a panel per metric and a line per run, for all seeds of all arms.

    A line ends with a cross if the run collapsed, with a triangle if it ``lost`` its accuracy.
    """
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    shown = [panel for panel in PANELS if any(_points(cell, panel[0]) for cell in cells)]
    rows = max(1, math.ceil(len(shown) / 3))
    figure = Figure(figsize=(13, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False).flat
    for axis, (key, title, scale) in zip(axes, shown, strict=False):
        if not any(value for cell in cells for _, value in _points(cell, key)):
            scale = "linear"  # all values are zero
        for cell, fell in zip(cells, lost or [False] * len(cells), strict=True):
            colour = COLOURS[arms.index(cell["arm"]) % len(COLOURS)]
            points = _points(cell, key)
            values = [abs(value) if scale == "log" else value for _, value in points]
            axis.plot([step for step, _ in points], values, color=colour, alpha=0.55, linewidth=1.0)
            if points and (cell["collapse"] or fell):
                axis.plot([points[-1][0]], [values[-1]], "x" if cell["collapse"] else "v", color=colour, markersize=6)
        axis.set(title=title, xlabel="step", yscale=scale)
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(figure.axes)[len(shown) :]:
        axis.set_visible(False)
    lines = [figure.axes[0].plot([], [], color=COLOURS[i % len(COLOURS)])[0] for i in range(len(arms))]
    figure.legend(lines, arms, loc="outside lower center", ncols=min(4, len(arms)), frameon=False)
    return figure


def ends(cells: Sequence[Mapping[str, Any]], start: float | None = None, least: float | None = None) -> Any:
    """Return the held-out accuracy at the end of every run of a setting: a column per arm, a dot per seed.

    A run that a collapse rule ended has a cross. ``start`` and ``least`` are the accuracies before training and below
    which a run has collapsed; each is a line.
    """
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    figure = Figure(figsize=(max(4.0, 1.05 * len(arms) + 1.4), 3.4), layout="constrained")
    axis = figure.subplots()
    for level, name, style in ((start, "start", "-"), (least, "collapsed below", ":")):
        if level is not None:
            axis.axhline(100 * level, color="#666b73", linestyle=style, linewidth=0.9, label=name)
    for place, arm in enumerate(arms):
        own = [cell for cell in cells if cell["arm"] == arm]
        for i, cell in enumerate(own):
            shift = 0.5 * ((i + 0.5) / len(own) - 0.5)
            marker = "x" if is_broken(cell) else "o"
            axis.plot(place + shift, 100 * cell["accuracy"], marker, color=COLOURS[place % len(COLOURS)], markersize=5)
    axis.set_xticks(range(len(arms)), [arm.replace(", ", "\n") for arm in arms], fontsize=8)
    axis.set(ylabel="held-out accuracy at the end, %", ylim=(-4, 104))
    axis.grid(axis="y", alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.plot([], [], "x", color="#333333", label="unreadable or broken")
    figure.legend(frameon=False, fontsize=8, loc="outside upper right", ncols=3)
    return figure


def _points(cell: Mapping[str, Any], key: str) -> list[tuple[int, float]]:
    rows = [(row["step"], row[key]) for row in cell["log"] if isinstance(row.get(key), (int, float))]
    return [(step, value) for step, value in rows if math.isfinite(value)]


def noise_grid(cells: Sequence[Mapping[str, Any]]) -> Any:
    """Return accuracy and consistency against the referee's noise, a line per weight; dots are seeds, lines means."""
    from matplotlib.figure import Figure

    default = 0.5  # of StableReinforceConfig.consistency_weight
    weights = sorted({cell["options"].get("consistency_weight", default) for cell in cells})
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axis, key, title in zip(
        figure.subplots(1, 2),
        ("accuracy", "consistent"),
        ("held-out accuracy", "consistent outputs, share of readable ones"),
        strict=True,
    ):
        for colour, weight in zip(COLOURS, weights, strict=False):
            chosen = [cell for cell in cells if cell["options"].get("consistency_weight", default) == weight]
            points: dict[float, list[float]] = {}
            for cell in chosen:
                if cell.get(key) is not None:
                    points.setdefault(cell["options"].get("referee_noise", 0.0), []).append(cell[key])
            noises = sorted(points)
            means = [sum(points[noise]) / len(points[noise]) for noise in noises]
            if len(noises) == 1:  # at weight 0 noise has no effect
                axis.axhline(means[0], color=colour, linestyle=":", label=f"weight {weight:g}")
            else:
                axis.plot(noises, means, color=colour, label=f"weight {weight:g}")
            for noise in noises:
                axis.plot([noise] * len(points[noise]), points[noise], ".", color=colour, alpha=0.6)
        axis.set(title=title, xlabel="probability that the referee's verdict is reversed")
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def worked_case() -> Any:
    """Return a figure of the paper's example: one wrong sample among 256, under each algorithm."""
    import torch
    from matplotlib.figure import Figure

    from r1_reward.train.algorithms import ALGORITHMS, advantages_of

    rewards = torch.ones(256)
    rewards[77] = 0.0
    mask = torch.ones(256, 1)
    names, wrong, right = [], [], []
    for name in ALGORITHMS:
        values = advantages_of(name, rewards, mask, group_size=4)[:, 0]
        names.append(name)
        wrong.append(float(values[77]))
        right.append(float(values[0]))
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axis = figure.subplots()
    places = range(len(names))
    axis.bar([x - 0.2 for x in places], wrong, 0.4, color="#D55E00", label="the wrong sample")
    axis.bar([x + 0.2 for x in places], right, 0.4, color="#0072B2", label="a right sample of another group")
    for x, value in zip(places, wrong, strict=True):
        axis.annotate(f"{value:.2f}", (x - 0.2, value), ha="center", va="top" if value < 0 else "bottom", fontsize=8)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(list(places), names, rotation=15, fontsize=8)
    axis.set(ylabel="advantage of its tokens", title="255 right samples and one wrong one, groups of 4")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return figure
