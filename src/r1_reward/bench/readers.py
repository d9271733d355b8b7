"""The rows of a pair file as those of a benchmark, and the pictures of a row.

Raw rows of all other files come from :mod:`r1_reward.store.rows`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from r1_reward.bench.rows import BenchmarkRow
from r1_reward.store.images import ImageError
from r1_reward.store.rows import RawRow, RowSource
from r1_reward.store.video import row_pictures

if TYPE_CHECKING:
    from PIL import Image


def open_pairs(source: str | Path, split: str) -> RowSource:
    """Return the rows of a pair file, checked by :func:`r1_reward.store.pairs.load_pairs`, with relative paths.

    Rows may repeat, as they do in real sources; each is judged. Raises PairFileError if a row is wrong, UserError if
    there is no such file.
    """
    from r1_reward.store.pairs import load_pairs

    dataset = load_pairs(source, split=split, check_images=False, repeats=True)
    path = Path(source)
    folder = Path(os.path.abspath(path if path.is_dir() else path.parent if path.exists() else "."))

    def relative(path: str | None) -> str | None:
        return path and os.path.relpath(path, folder)

    def rows() -> Iterator[RawRow]:
        for number, row in enumerate(dataset, 1):
            images = [cell if cell["bytes"] is not None else relative(cell["path"]) for cell in row["images"] or []]
            yield RawRow(str(source), number, {**row, "images": images, "video": relative(row["video"])})

    return RowSource(str(source), folder, rows)


def row_images(row: BenchmarkRow, frames: int = 32) -> list[Image.Image]:
    """Return the pictures of a row as RGB: its images, then up to ``frames`` frames of its video.

    Raises ImageError with position and id of the row in the message.
    """
    try:
        return row_pictures({"images": row.images, "video": row.video}, frames)
    except ImageError as error:
        raise ImageError(f"row {row.index} (id {row.id}): {error.name}", error.reason) from error
