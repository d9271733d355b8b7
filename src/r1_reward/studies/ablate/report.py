"""One page for a study: what was asked, a table an answer, and every run of every seed as a line."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1_reward.store.files import read_json, write_bytes, write_json, write_text
from r1_reward.studies.ablate.cells import START_FILE
from r1_reward.studies.ablate.figures import curves, has_noise_grid, noise_grid, worked_case
from r1_reward.studies.ablate.statistics import summarise
from r1_reward.studies.ablate.study import Study


def write_report(study: Study, results: Sequence[Mapping[str, Any]], out: Path) -> dict[str, Any]:
    """Write report.html, report.md, summary.json and figures/ for the results there are, and return the summary."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    from r1_reward.studies.demo.metrics import describe_machine

    summary = summarise(results, {name: setting.reference() for name, setting in study.settings.items()})
    start = read_json(out / START_FILE) if (out / START_FILE).exists() else {}
    record = {
        "machine": describe_machine(),
        "study": study.model_dump(),
        "start": {key: value for key, value in start.items() if key != "right"},
        "cells": len(results),
        "cells_wanted": sum(1 for _ in study.cells()),
        "cell_seconds": sum(result["seconds"] for result in results),
        "settings": summary,
    }
    write_json(out / "summary.json", record)
    sections = []
    for name, numbers in summary.items():
        cells = [result for result in results if result["setting"] == name]
        pictures = [_picture(out, f"{name} curves", curves(cells))]
        noise = has_noise_grid(cells)
        if noise:
            pictures.insert(0, _picture(out, f"{name} grid", noise_grid(cells)))
        sections.append(
            {"name": name, "setting": study.settings[name], "numbers": numbers, "pictures": pictures, "noise": noise}
        )
    environment = Environment(
        loader=PackageLoader("r1_reward.studies"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["points"] = lambda value: "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"
    content = {
        "record": record,
        "sections": sections,
        "worked": _picture(out, "worked case", worked_case()),
        "curve_pairs": study.curve_pairs,
    }
    for page in ("html", "md"):
        write_text(out / f"report.{page}", environment.get_template(f"ablate.{page}").render(content))
    return record


def _picture(out: Path, name: str, figure: Any) -> str:
    """Write a figure to the study's folder and return it as a data URL."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    write_bytes(out / "figures" / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.png", file.getvalue())
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
