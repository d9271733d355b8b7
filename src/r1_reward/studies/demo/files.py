"""The predictions of a demo run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from r1_reward.records.schema import Judgment
from r1_reward.store.files import write_text


def write_predictions(path: Path, rows: Iterable[dict[str, Any]], judgments: list[list[Judgment]]) -> None:
    """Write one line per pair: which pair, what is right, every vote."""
    lines = [
        json.dumps(
            {
                "id": row["id"],
                "kind": row["kind"],
                "preferred": row["preferred"],
                "judgments": [judgment.model_dump() for judgment in votes],
            }
        )
        for row, votes in zip(rows, judgments, strict=True)
    ]
    write_text(path, "\n".join(lines) + "\n")


def read_predictions(path: Path) -> tuple[list[dict[str, Any]], list[list[Judgment]]]:
    """Return the rows (id, kind, preferred) and the votes of each."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return rows, [[Judgment(**judgment) for judgment in row.pop("judgments")] for row in rows]
