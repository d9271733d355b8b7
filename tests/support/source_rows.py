"""Rows, pictures and files that the tests of importing and exporting share."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from r1_reward.store.shards import read_rows


def png(number: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


def rlaif(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "idx": str(number), "question": f"What is {number}?", "chosen": f"Good {number}.", "rejected": f"Bad {number}.",
        "image": f"images/{number}.png", "origin_dataset": "COCO",
    }  # fmt: skip
    return row | changes


def write_lines(file: Path, rows: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def rows_of(out: Path) -> list[dict[str, Any]]:
    return list(read_rows(out))
