"""RLAIF-V: two answers of an open model, compared by the number of claims another open model found false.

Preferred is ``chosen``. ``kind`` is ``origin_dataset``, where the image came from. Images are embedded, or found by
``image_path`` below the image folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from r1_reward.data.sources.common import Candidate, Drop, Row, without_image_tags

_MARKS = ("ds_name", "idx", "image_path", "origin_dataset", "origin_split")  # columns that others do not have


def is_own(row: Mapping[str, Any]) -> bool:
    """Say whether a row has a column that tells it from other rows of question, chosen and rejected."""
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
