"""The figures of a demo report: functions from measured numbers to a matplotlib ``Figure``.

Figures are built without pyplot, so no global state changes and no window system is needed. Numbers that were not
measured (None, NaN, a missing key) are left out; a panel without any says so. Colors are Okabe and Ito's, and every
model also has its own marker.

    svg_url(accuracy_figure(metrics))     # studies.report: "data:image/svg+xml;base64,..."
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from r1_reward.studies.report import number, triple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from r1_reward.records.schema import Judgment

MODELS = {"base": "Base, untrained", "sft": "SFT", "control": "Control: SFT continued", "rl": "RL"}
COLOURS = {"base": "#8c8c8c", "sft": "#0072B2", "control": "#56B4E9", "rl": "#D55E00"}
GREEN, INK, MUTED, GRID = "#00795A", "#22252a", "#666b73", "#e4e6ea"
MARKERS = {"base": "s", "sft": "o", "control": "^", "rl": "D"}
WIDE, SMALL = (5.0, 3.3), (3.5, 2.3)
SUMMARY_SIZE, SUMMARY_DPI = (8.0, 3.0), 200


class Line(NamedTuple):
    """One line of a training panel: the logged key, its label, its color."""

    key: str
    name: str
    colour: str = COLOURS["rl"]


class Panel(NamedTuple):
    """One training panel: title, y-axis label with its unit, lines."""

    title: str
    unit: str
    lines: tuple[Line, ...]


RL_PANELS = (
    Panel("Reward R", "mean of rollouts, 0 to 2", (Line("reward", ""),)),
    Panel(
        "Its three parts",
        "mean, 0 to 1",
        (
            Line("reward/result", "result"),
            Line("reward/format", "format", COLOURS["sft"]),
            Line("reward/consistency", "consistency", GREEN),
        ),
    ),
    Panel("Accuracy of the rollouts", "share of rollouts", (Line("accuracy", ""),)),
    Panel("Readable answers (parse rate)", "share of rollouts", (Line("parse_rate", ""),)),
    Panel("Response length", "tokens, mean", (Line("completions/mean_length", ""),)),
    Panel("Truncated at the token limit", "share of rollouts", (Line("completions/clipped_ratio", ""),)),
    Panel("Entropy", "nats per token", (Line("entropy", ""),)),
    Panel("Approximate KL, new to old policy", "nats per token", (Line("approx_kl", ""),)),
    Panel("Largest |log-ratio|", "nats", (Line("max_log_ratio", ""),)),
    Panel(
        "Clipped and filtered",
        "share of tokens",
        (
            Line("filtered", "filtered"),
            Line("ppo_clipped", "PPO-clipped", COLOURS["sft"]),
            Line("pre_clipped", "Pre-CLIPped", GREEN),
        ),
    ),
    Panel("Policy loss", "loss", (Line("policy_loss", ""),)),
    Panel("Gradient norm", "before clipping at 1", (Line("grad_norm", ""),)),
)


def accuracy_figure(metrics: dict[str, Any]) -> Figure:
    """Return the accuracy of every model as bars with 95 % intervals."""
    figure, axes = _figure(WIDE)
    _draw_accuracy(axes, metrics)
    return figure


def kinds_figure(metrics: dict[str, Any], groups: Mapping[str, Sequence[str]]) -> Figure:
    """Return accuracy by kind of question, grouped; the first row of each group is the whole group."""
    models = [name for name in ("sft", "control", "rl") if name in metrics]
    figure, axes = _figure((WIDE[0], 4.5))
    ticks, labels, bold, y = [], [], [], 0.0
    for group, kinds in groups.items():
        for kind in (group, *kinds):
            cells = {name: metrics[name].get("by_kind", {}).get(kind, {}) for name in models}
            count = next((cell["n"] for cell in cells.values() if "n" in cell), None)
            if count is None:
                continue
            for offset, name in zip(np.linspace(-0.22, 0.22, len(models)), models, strict=True):
                _dot(axes, cells[name], y + offset, name)
            ticks.append(y)
            labels.append(f"all {group}\n(n = {count})" if kind == group else f"{kind} (n = {count})")
            bold.append(kind == group)
            y += 1
        y += 0.4
    axes.set_yticks(ticks, labels)
    for label, is_group in zip(axes.get_yticklabels(), bold, strict=True):
        label.set_fontweight("bold" if is_group else "normal")
    axes.set_ylim(max(y - 0.7, 0.6), -0.7)
    _coin(axes)
    _percent_axis(axes, "accuracy (%), bars: 95 % interval")
    for name in models:
        axes.plot([], [], MARKERS[name], color=COLOURS[name], label=MODELS[name])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, **_PLAIN_LEGEND)
    return figure


def voting_figure(metrics: dict[str, Any], kind: str) -> Figure:
    """Return the ``majority`` or ``any`` curve of the voting models, with their greedy accuracy."""
    figure, axes = _figure(WIDE)
    _draw_voting(axes, metrics, (kind,))
    return figure


def lengths_figure(judgments: dict[str, list[list[Judgment]]]) -> Figure:
    """Return the distribution of response lengths of the greedy judgments."""
    figure, axes = _figure(WIDE)
    tokens = {name: [j.tokens for votes in rows for j in votes] for name, rows in judgments.items() if rows}
    longest = max((max(values) for values in tokens.values()), default=1)
    edges = np.arange(0, longest + 3, max(1, round(longest / 40))) - 0.5
    for name, values in tokens.items():
        weights = np.full(len(values), 100 / len(values))
        label = f"{MODELS[name]}: mean {np.mean(values):.1f}"
        axes.hist(values, edges, weights=weights, histtype="stepfilled", alpha=0.25, color=COLOURS[name])
        axes.hist(values, edges, weights=weights, histtype="step", color=COLOURS[name], linewidth=1.6, label=label)
    axes.set_xlim(max(0, min((min(values) for values in tokens.values()), default=0) - 4), longest + 3)
    axes.set_xlabel("response length (tokens)")
    axes.set_ylabel("judgments (%)")
    if tokens:
        axes.legend(loc="upper left", **_PLAIN_LEGEND)
    return figure


def attempts_figure(attempts: dict[str, int]) -> Figure:
    """Return how many attempts the SFT model needed, in percent of the sampled pairs."""
    figure, axes = _figure((WIDE[0], 2.6))
    names = {"1": "1 try", "2": "2 tries", "3": "3 tries", "failed": "never right"}
    counts = [attempts.get(key, 0) for key in names]
    total = max(sum(counts), 1)
    shades = ["#b9bec6", *[COLOURS["rl"]] * 3]
    bars = axes.barh(list(names.values()), [100 * count / total for count in counts], color=shades, height=0.65)
    axes.bar_label(bars, [f" {count:,} ({100 * count / total:.0f} %)" for count in counts], color=INK, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(100 * max(counts) / total * 1.22, 1))
    axes.set_xlabel(f"share of {sum(counts):,} taught pairs (%)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID)
    return figure


def sft_figure(phases: Sequence[tuple[str, str, list[dict[str, Any]]]], key: str, unit: str) -> Figure:
    """Return one logged value over consecutive phases, each given as (name, color, log)."""
    figure, axes = _figure(WIDE)
    start, lowest = 0, math.inf
    for name, colour, log in phases:
        steps, values = _series(log, key)
        if len(values):
            _draw_series(axes, steps + start, values, colour)
            axes.plot([], [], color=colour, linewidth=2, label=name)
            start, lowest = start + int(steps.max()), min(lowest, float(values.min()))
    axes.set_xlabel("optimiser step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(unit)
    if start == 0:
        _note(axes, "not logged")
        return figure
    low, high = axes.get_ylim()
    ticks = [
        tick
        for tick in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
        if max(low, lowest) <= tick <= high
    ]
    if key == "loss" and lowest > 0 and len(ticks) > 2:
        axes.set_yscale("log")
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks([], minor=True)
        axes.set_ylabel(f"{unit}, log scale")
    axes.grid(axis="y", color=GRID)
    axes.legend(loc="best", **_PLAIN_LEGEND)
    return figure


def training_figure(panel: Panel, log: list[dict[str, Any]]) -> Figure:
    """Return one small panel of RL curves; the thick line is a moving mean of the thin one."""
    figure, axes = _figure(SMALL)
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel("RL step", fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(panel.unit, fontsize=9)
    ends, everything = [], []
    for line in panel.lines:
        steps, values = _series(log, line.key)
        if len(values):
            mean = _draw_series(axes, steps, values, line.colour)
            ends.append((float(mean[-1]), line.name, line.colour))
            everything.append(values)
        elif line.name and log:
            ends.append((0.0, f"{line.name}: none", MUTED))
    axes.grid(axis="y", color=GRID)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    if not everything:
        _note(axes, "not logged")
    elif not np.any(np.concatenate(everything)):
        axes.set_ylim(-0.05, 1)
        _note(axes, "0 at every step")
    if len(panel.lines) > 1:
        _end_labels(axes, ends, fontsize=8.5)
    return figure


def summary_figure(metrics: dict[str, Any]) -> Figure:
    """Return the README's figure: accuracy on all pairs, on kinds the teacher explains, and on the others."""
    figure, axes = _figure(SUMMARY_SIZE, columns=3)
    figure.set_layout_engine("constrained", w_pad=0.06, wspace=0.04)
    models = [name for name in ("sft", "control", "rl") if name in metrics]
    panels = {
        "all": "All held-out pairs",
        "explained": "The teacher explains these",
        "labels only": "Only labels know these",
    }
    for one, (group, title) in zip(axes, panels.items(), strict=True):
        cells = {
            name: metrics[name] if group == "all" else metrics[name].get("by_kind", {}).get(group) for name in models
        }
        _draw_bars(one, {name: triple(cell) for name, cell in cells.items()})
        known = [cell["n"] for cell in cells.values() if cell and "n" in cell]
        count = metrics.get("n_pairs", 0) if group == "all" else known[0] if known else 0
        one.set_title(f"{title}\n(n = {count:,})", loc="left", fontsize=10, fontweight="bold", color=INK)
        if one is not axes[0]:
            one.set_yticklabels([])
    return figure


# ---- drawing on given axes

_PLAIN_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 9, "handlelength": 1.4, "columnspacing": 1.2}


def _figure(size: tuple[float, float], columns: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, columns)
    for one in np.atleast_1d(axes):
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color("#b5bac2")
        one.tick_params(colors=INK, labelsize=9, color="#b5bac2")
        one.xaxis.label.set_color(INK)
        one.yaxis.label.set_color(INK)
        one.set_axisbelow(True)
    return figure, axes


def _draw_accuracy(axes: Axes, metrics: dict[str, Any]) -> None:
    models = [name for name in MODELS if name in metrics]
    for y, name in enumerate(models):
        interval = triple(metrics[name])
        if interval is None:
            axes.text(1, y, "not measured", va="center", color=MUTED)
            continue
        mean, low, high = (100 * value for value in interval)
        axes.barh(y, mean, color=COLOURS[name], height=0.6)
        axes.errorbar(mean, y, xerr=[[mean - low], [high - mean]], color=INK, capsize=3, linewidth=1.2)
        readable = number(metrics[name].get("parse_rate"))
        text = f"{mean:.1f} %"
        if readable is not None and readable < 0.9:
            text += f" ({100 * readable:.0f} % readable)"
        style: dict[str, Any] = {"color": INK, "fontsize": 9.5, "fontweight": "bold" if name == "rl" else "normal"}
        axes.text(high + 2, y, text, va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, **style)
    axes.set_yticks(range(len(models)), [MODELS[name].replace(": ", ":\n").replace(", ", ",\n") for name in models])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(models) - 0.5, -0.75)
    _coin(axes)
    _percent_axis(axes, "accuracy (%), lines: 95 % interval")
    axes.set_xlim(0, 116)


def _draw_bars(axes: Axes, intervals: Mapping[str, tuple[float, float, float] | None]) -> None:
    """Draw accuracies of models as bars with their 95 % intervals."""
    for y, (name, interval) in enumerate(intervals.items()):
        if interval is None:
            axes.text(1, y, "not measured", va="center", color=MUTED)
            continue
        mean, low, high = (100 * value for value in interval)
        axes.barh(y, mean, color=COLOURS[name], height=0.62)
        axes.errorbar(mean, y, xerr=[[mean - low], [high - mean]], color=INK, capsize=3, linewidth=1.2)
        axes.text(2, y, f"{mean:.1f} %", va="center", color="white", fontsize=9.5, fontweight="bold")
    axes.set_yticks(range(len(intervals)), [MODELS[name].replace(": ", ":\n") for name in intervals])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(intervals) - 0.5, -0.75)
    _coin(axes)
    _percent_axis(axes, "accuracy (%)")


def _draw_voting(axes: Axes, metrics: dict[str, Any], kinds: Sequence[str]) -> None:
    ends, votes = [], 1
    for name in ("sft", "rl"):
        row = metrics.get(name) or {}
        for kind in kinds:
            curve = [(k, triple(point)) for k, point in enumerate((row.get("voting") or {}).get(kind) or [], 1)]
            points = [(k, *(100 * value for value in point)) for k, point in curve if point is not None]
            if not points:
                continue
            k, mean, low, high = (np.array(column) for column in zip(*points, strict=True))
            axes.fill_between(k, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
            axes.plot(k, mean, color=COLOURS[name], marker=MARKERS[name], markersize=4, linewidth=1.8)
            ends.append((float(mean[-1]), f"{MODELS[name]} {kind}@{k[-1]}: {mean[-1]:.1f}", COLOURS[name]))
            votes = max(votes, int(k[-1]))
        greedy = number(row.get("accuracy"))
        if greedy is not None and ends:
            axes.axhline(100 * greedy, color=COLOURS[name], linestyle=(0, (2, 2)), linewidth=1.2)
            ends.append((100 * greedy, f"{MODELS[name]} greedy: {100 * greedy:.1f}", COLOURS[name]))
    axes.set_xlabel("votes k")
    axes.set_ylabel("accuracy (%)" if "majority" in kinds else "at least one of k right (%)")
    if not ends:
        _note(axes, "no votes were drawn")
        return
    floor, ceiling = axes.get_ylim()
    if ceiling - floor < 2:
        axes.set_ylim(floor - 1, ceiling + 1)
    axes.set_xticks([k for k in range(1, votes + 1) if k % 2 or votes < 6])
    axes.grid(axis="y", color=GRID)
    _end_labels(axes, ends)


def _dot(axes: Axes, cell: dict[str, Any], y: float, name: str) -> None:
    interval = triple(cell)
    if interval is not None:
        mean, low, high = (100 * value for value in interval)
        axes.plot([low, high], [y, y], color=COLOURS[name], linewidth=1.6, alpha=0.75)
        axes.plot(mean, y, MARKERS[name], color=COLOURS[name], markersize=6)


def _coin(axes: Axes) -> None:
    axes.axvline(50, color=MUTED, linestyle=(0, (4, 3)), linewidth=1, zorder=0.9)
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
    axes.annotate("coin", (50, 1), xytext=(4, -2), color=MUTED, fontsize=8.5, **place)


def _percent_axis(axes: Axes, label: str) -> None:
    axes.set_xlim(0, 103)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel(label)
    axes.grid(axis="x", color=GRID)


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def _end_labels(axes: Axes, ends: Sequence[tuple[float, str, str]], fontsize: float = 9) -> None:
    """Write labels right of the axes, at the height of each value or as close as possible without overlap."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    height = axes.figure.bbox.height / axes.figure.dpi * 72 * 0.72  # approximate height of the axes in points
    gap = 1.35 * fontsize / height
    places: list[float] = []
    ordered = sorted(ends)
    for value, _, _ in ordered:
        place = (value - low) / (high - low or 1)
        places.append(max(place, places[-1] + gap) if places else max(place, 0.0))
    for i in reversed(range(len(places))):  # move labels above the top back down, which pushes those below
        places[i] = min(places[i], max(1.0, gap * len(places)) - gap * (len(places) - 1 - i))
    for place, (_, text, colour) in zip(places, ordered, strict=True):
        spot: dict[str, Any] = {
            "xycoords": "axes fraction",
            "annotation_clip": False,
            "va": "center",
            "fontsize": fontsize,
        }
        axes.annotate(text, (1.02, place), color=colour, **spot)


def _series(log: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps at which a key was logged as a number, and the values."""
    points = [(row.get("step", i), number(row.get(key))) for i, row in enumerate(log, 1) if "loss" in row]
    known = [(step, value) for step, value in points if value is not None]
    return np.array([step for step, _ in known], dtype=int), np.array([value for _, value in known], dtype=float)


def _draw_series(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str) -> np.ndarray:
    """Draw each step thin and the centered moving mean thick; return the mean."""
    if len(values) < 16:
        axes.plot(steps, values, color=colour, marker="o", markersize=3, linewidth=1.5)
        return values
    axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.4)
    mean = moving_mean(values)
    axes.plot(steps, mean, color=colour, linewidth=1.8)
    return mean


def moving_mean(values: np.ndarray) -> np.ndarray:
    """Return the centered mean of (n,) values over about a twelfth of them; near the ends over fewer."""
    kernel = np.ones(1 + 2 * (len(values) // 24))
    return np.convolve(values, kernel, mode="same") / np.convolve(np.ones(len(values)), kernel, mode="same")
