"""The report of a study: its questions, a table for each, and every run of every seed as a line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1_reward.store.files import read_json, write_bytes, write_json, write_text
from r1_reward.store.machine import describe_machine
from r1_reward.studies.ablate.figures import curves, ends, noise_grid, worked_case
from r1_reward.studies.ablate.results import START_FILE, failed
from r1_reward.studies.ablate.study import Study
from r1_reward.studies.ablate.summary import lost_accuracy, summarise
from r1_reward.studies.report import data_url, png, render

Record = Mapping[str, Any]
"""The content of summary.json."""


def write_report(study: Study, results: Sequence[Mapping[str, Any]], out: Path) -> dict[str, Any]:
    """Write report.html, report.md, summary.json and figures/ for the existing results, and return the summary."""
    start = read_json(out / START_FILE) if (out / START_FILE).exists() else {}
    least = _least_accuracy(study, start)
    record = {
        "machine": describe_machine(),
        "study": study.model_dump(),
        "start": {key: value for key, value in start.items() if key != "right"},
        "cells": len(results),
        "cells_wanted": sum(1 for _ in study.cells()),
        "cell_seconds": sum(result["seconds"] for result in results),
        "failed": failed(study, out),
        "least_accuracy": least,
        "least_entropy": study.thresholds().entropy,
        "settings": summarise(results, study.settings, least_accuracy=least),
    }
    write_json(out / "summary.json", record)
    noisy = varies_noise(record)
    levels = (start.get("accuracy"), least)
    pictures = {name: _draw(out, name, results, levels, grid=name in noisy) for name in record["settings"]}
    page = render("ablate.html", record=record, pictures=pictures, worked=_save(out, "worked case", worked_case()))
    write_text(out / "report.html", page)
    write_text(out / "report.md", as_markdown(record))
    return record


def as_markdown(record: Record) -> str:
    """Return report.md, also for a summary.json of an earlier version."""
    return render("ablate.md", record=record, noisy=varies_noise(record))


def varies_noise(record: Record) -> list[str]:
    """Return the settings whose arms differ in the referee's noise."""
    common = record["study"]["common"]
    found = []
    for name, setting in record["study"]["settings"].items():
        options = [{**common, **setting["common"], **own} for own in setting["arms"].values()]
        if len({one.get("referee_noise", 0.0) for one in options}) > 1:
            found.append(name)
    return found


def _least_accuracy(study: Study, start: Mapping[str, Any]) -> float | None:
    """Return the accuracy below which a run counts as collapsed, or None if the study does not count such runs."""
    if study.collapse_points is None or "accuracy" not in start:
        return None
    return max(0.0, start["accuracy"] - study.collapse_points)


def _draw(
    out: Path,
    setting: str,
    results: Sequence[Mapping[str, Any]],
    levels: tuple[float | None, float | None],
    *,
    grid: bool,
) -> list[str]:
    """Save the figures of a setting and return them as data URLs; ``levels`` are as in `figures.ends`."""
    cells = [result for result in results if result["setting"] == setting]
    if not cells:
        return []
    lost = [lost_accuracy(cell, levels[1]) for cell in cells]
    drawn = [_save(out, f"{setting} ends", ends(cells, *levels)), _save(out, f"{setting} curves", curves(cells, lost))]
    return [_save(out, f"{setting} grid", noise_grid(cells)), *drawn] if grid else drawn


def _save(out: Path, name: str, figure: Any) -> str:
    content = png(figure)
    write_bytes(out / "figures" / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.png", content)
    return data_url(content)
