"""RLAIF-V: two answers of an open model, compared by the number of claims that another open model found to be false.

``chosen`` is preferred. ``kind`` is ``origin_dataset``, the dataset of the image. Images are embedded, or looked up by
``image_path`` below the image folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from r1_reward.data.sources.common import Candidate, Drop, Row, without_image_tags

_MARKS = ("ds_name", "idx", "image_path", "origin_dataset", "origin_split")  # columns that no other source has


def is_own(row: Mapping[str, Any]) -> bool:
    """Return whether a row has a column that distinguishes it from other rows with question, chosen and rejected."""
    return any(name in row for name in _MARKS)


def read(row: Row) -> Iterator[Candidate | Drop]:
    """Yield the pair of a row."""
    yield Candidate(
        id=row.label("idx", "id"),
        question=without_image_tags(row.text("question"), "question", 1),
        chosen=row.text("chosen"),
        rejected=row.text("rejected"),
        images=(row.image("image", "image_path"),),
        kind=row.label("origin_dataset"),
    )
