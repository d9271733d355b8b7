"""Write the card of a dataset: its statistics and plots, as README.md next to the rows.

    statistics = Statistics()
    for row in rows:
        statistics.add(row, source="rlaif-v", side="train", sizes=[(640, 480)])
    write_card(folder, report, statistics)      # folder/README.md, folder/plots/*.png

Its YAML header is what the Hugging Face Hub reads, so the folder loads with ``datasets.load_dataset(folder)``. Names of
sources and parts come from the data and are escaped for Markdown.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from r1_reward.records.content import text_of
from r1_reward.records.markdown import render_markdown
from r1_reward.store.dataset_card import CARD, card_head
from r1_reward.store.files import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAIN, TEST, OTHER = "#0072B2", "#D55E00", "#999999"


class Statistics:
    """Statistics of a dataset's rows, collected row by row in a few bytes each."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """Sources, in order of first appearance."""
        self._source, self._test = array("h"), array("b")
        self._lengths = array("i")  # question, preferred response, other response
        self._sizes = array("i")  # width, height
        self._with_pictures = 0

    def add(self, row: Mapping[str, Any], source: str, side: str, sizes: Sequence[tuple[int, int]]) -> None:
        """Count a row; ``side`` is train or test, ``sizes`` are the (width, height) of its images in pixels."""
        if source not in self.names:
            self.names.append(source)
        self._source.append(self.names.index(source))
        self._test.append(side == "test")
        better, other = row[f"response_{row['preferred']}"], row[f"response_{3 - row['preferred']}"]
        self._lengths.extend(len(text_of(content)) for content in (row["question"], better, other))
        self._with_pictures += bool(sizes)
        for size in sizes:
            self._sizes.extend(size)

    @property
    def source(self) -> np.ndarray:
        """(n,) index of each row's source in ``names``."""
        return np.array(self._source, dtype=np.int64)

    @property
    def test(self) -> np.ndarray:
        """(n,) bool: whether the row is on the test side."""
        return np.array(self._test, dtype=bool)

    @property
    def lengths(self) -> np.ndarray:
        """(n, 3) lengths in characters of question, preferred response and other response."""
        return np.array(self._lengths, dtype=np.int64).reshape(-1, 3)

    @property
    def sizes(self) -> np.ndarray:
        """(images, 2) width and height in pixels."""
        return np.array(self._sizes, dtype=np.int64).reshape(-1, 2)

    def summary(self) -> dict[str, Any]:
        """Return the card's numbers: lengths and *longer wins* by source and overall, and image sizes."""
        sizes, source = self.sizes, self.source
        pictures: dict[str, Any] = {"count": len(sizes), "rows": self._with_pictures}
        if len(sizes):
            width, height = np.median(sizes, axis=0)
            largest = sizes[np.argmax(sizes.prod(axis=1))]
            pictures |= {"width": float(width), "height": float(height), "largest": largest.tolist()}
        groups = {name: self.lengths[source == place] for place, name in sorted(enumerate(self.names), key=_by_name)}
        return {
            "sources": {name: _describe(lengths) for name, lengths in groups.items()},
            "all": _describe(self.lengths),
            "pictures": pictures,
        }


def _by_name(item: tuple[int, str]) -> str:
    return item[1]


def _describe(lengths: np.ndarray) -> dict[str, float]:
    """Return row count, median lengths and the accuracy, in [0, 1], of always choosing the longer response."""
    question, better, other = np.median(lengths, axis=0).tolist()
    return {
        "rows": len(lengths),
        "question": question,
        "preferred": better,
        "other": other,
        "longer_wins": longer_wins(lengths[:, 1], lengths[:, 2]),
    }


def longer_wins(preferred: np.ndarray, other: np.ndarray) -> float:
    """Return the share of pairs, in [0, 1], whose preferred response is longer; equal lengths count one half."""
    return float(np.mean((preferred > other) + (preferred == other) / 2))


def write_card(folder: Path, report: Mapping[str, Any], statistics: Statistics) -> Path:
    """Write README.md and plots/*.png and return the path of README.md.

    ``report`` is the content of a mixture's report.json (:mod:`r1_reward.data.mixing`).
    """
    figures = {
        "sources": sources_figure(statistics), "lengths": lengths_figure(statistics),
        "longer": longer_figure(statistics),
    }  # fmt: skip
    if len(statistics.sizes):
        figures["pictures"] = pictures_figure(statistics)
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        write_bytes(folder / "plots" / f"{name}.png", buffer.getvalue())
    path = folder / CARD
    write_text(path, render_card(report))
    return path


def render_card(report: Mapping[str, Any]) -> str:
    """Return the text of README.md."""
    splits = {side: f"{side}/*.parquet" for side in ("train", "test") if side == "train" or report["test"]}
    head = card_head(
        {"default": splits}, task_categories=["image-text-to-text"], tags=["reward-model", "preference-pairs"]
    )
    return head + render_markdown("data/templates/data_card.md", report=report)


def sources_figure(statistics: Statistics) -> Figure:
    """Plot rows by source, train and test."""
    from matplotlib.figure import Figure

    names = sorted(statistics.names)
    figure = Figure(figsize=(7, 0.8 + 0.42 * len(names)), layout="constrained")
    axis = figure.subplots()
    places = [statistics.names.index(name) for name in names]
    left = np.zeros(len(names))
    for label, side, colour in (("train", False, TRAIN), ("test", True, TEST)):
        rows = statistics.source[statistics.test == side]
        counts = np.array([np.count_nonzero(rows == place) for place in places], dtype=float)
        if counts.any():
            axis.barh(names, counts, left=left, color=colour, label=label)
        left += counts
    axis.invert_yaxis()
    axis.set(xlabel="rows", title="Rows by source")
    axis.legend(frameon=False)
    return _plain(figure)


def lengths_figure(statistics: Statistics) -> Figure:
    """Plot the lengths of questions and responses on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    lengths = statistics.lengths
    bins = np.geomspace(1, max(2, int(lengths.max())) + 1, 50).tolist()
    for column, (label, colour) in enumerate(
        (("question", OTHER), ("preferred response", TRAIN), ("other response", TEST))
    ):
        axis.hist(lengths[:, column], bins=bins, histtype="step", color=colour, label=label)
    axis.set(xscale="log", xlabel="characters", ylabel="rows", title="Lengths")
    axis.legend(frameon=False)
    return _plain(figure)


def longer_figure(statistics: Statistics) -> Figure:
    """Plot how often the longer response is the preferred one, by source."""
    from matplotlib.figure import Figure

    summary = statistics.summary()
    rows = [*summary["sources"].items(), ("all sources", summary["all"])]
    figure = Figure(figsize=(7, 0.9 + 0.42 * len(rows)), layout="constrained")
    axis = figure.subplots()
    shares = [100 * one["longer_wins"] for _, one in rows]
    axis.barh([name for name, _ in rows], shares, color=[TRAIN] * (len(rows) - 1) + [OTHER])
    axis.axvline(50, color="black", linewidth=0.8)
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="%", title="Longer wins: accuracy of always choosing the longer response")
    return _plain(figure)


def pictures_figure(statistics: Statistics) -> Figure:
    """Plot image sizes, width against height, colored by how many images have that size."""
    from matplotlib.figure import Figure

    sizes, counts = np.unique(statistics.sizes, axis=0, return_counts=True)
    figure = Figure(figsize=(5, 4), layout="constrained")
    axis = figure.subplots()
    points = axis.scatter(
        sizes[:, 0], sizes[:, 1], c=counts, s=8, norm="log", cmap="viridis", rasterized=True, linewidths=0
    )
    figure.colorbar(points, ax=axis, label="images of this size")
    axis.set(xlabel="width, pixels", ylabel="height, pixels", title="Image sizes", xscale="log", yscale="log")
    return _plain(figure)


def _plain(figure: Figure) -> Figure:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure
