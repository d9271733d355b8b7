"""Rows for the tests of the data recipe: sentences and pictures that differ as those of real rows do."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from r1_reward.store.shards import PairWriter

_WORDS = [
    "".join(random.Random(number).choices("aeioubcdfghklmnprstvw", k=3 + number % 7)) for number in range(2000)
]  # fmt: skip


def sentence(seed: int | str, words: int = 40) -> str:
    rng = random.Random(f"text {seed}")
    return " ".join(rng.choice(_WORDS) for _ in range(words)).capitalize() + "."


def reworded(text: str, places: int = 1) -> str:
    """The text with some words replaced, spread evenly."""
    words = text.split()
    for number in range(places):
        words[(number + 1) * len(words) // (places + 1)] = "xyz"
    return " ".join(words)


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A picture of soft coloured blobs, like no other."""
    blobs = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cell(seed: int, kind: str = "PNG", **options: Any) -> dict[str, Any]:
    return {"bytes": encoded(picture(seed), kind, **options), "path": f"{seed}.{kind.lower()}"}


def make_row(number: int, source: str = "one", **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": f"{source}:{number}", "question": sentence(f"{source} q {number}", 8), "images": [cell(number)],
        "response_1": sentence(f"{source} a {number}"), "response_2": sentence(f"{source} b {number}"),
        "preferred": 1, "source": source, "kind": "", "provenance": f"{source}:rows.jsonl:{number}",
    }  # fmt: skip
    return {**row, **changes}


def write_folder(folder: Path, rows: list[dict[str, Any]], **options: Any) -> str:
    with PairWriter(folder, **options) as writer:
        for row in rows:
            writer.add(row)
        writer.close({"rows": len(rows)})
    return str(folder)
