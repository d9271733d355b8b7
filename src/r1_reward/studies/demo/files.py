"""The predictions of a demo run, and the dataset cards with which `datasets` loads its folders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from r1_reward.records.schema import Judgment
from r1_reward.store.dataset_card import Columns, write_card
from r1_reward.store.files import write_text
from r1_reward.store.prediction_file import VOTE

_COLUMNS: Columns = (
    *(
        {"name": name, "dtype": dtype}
        for name, dtype in {"id": "string", "kind": "string", "preferred": "int64"}.items()
    ),
    {"name": "judgments", "list": [{"name": name, "dtype": dtype} for name, dtype in VOTE.items()]},
)


def write_data_card(folder: Path) -> None:
    """Write the dataset card of the folder of pairs and captions."""
    pairs = {name: f"{name}.parquet" for name in ("train", "test")}
    text = "Pairs about scanned digits, and the captions from which a tiny model learns to read them (`captions`)."
    write_card(folder, {"default": pairs, "captions": {"train": "captions.parquet"}}, "Pairs of the demo", text)


def write_predictions_card(folder: Path) -> None:
    """Write the dataset card of the folder of predictions, with a split for each existing file."""
    splits = {file.stem.replace("-", "_"): file.name for file in sorted(folder.glob("*.jsonl"))}
    text = "The votes of each trained model on the test pairs."
    write_card(folder, {"default": splits}, "Predictions of the demo", text, features={"default": _COLUMNS})


def write_predictions(path: Path, rows: Iterable[dict[str, Any]], judgments: list[list[Judgment]]) -> None:
    """Write one line per pair: its id, the preferred response, every vote."""
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
    """Return the rows (id, kind, preferred) and the votes of each row."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return rows, [[Judgment(**judgment) for judgment in row.pop("judgments")] for row in rows]
