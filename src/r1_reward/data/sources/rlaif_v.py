"""RLAIF-V: two answers of an open model, compared by the number of claims another open model found false.

Preferred is ``chosen``. ``kind`` is ``origin_dataset``, where the image came from. Images are embedded, or found by
``image_path`` below the image folder.
"""

from __future__ import annotations

from collections.abc import Iterator

from r1_reward.data.sources.common import Candidate, Drop, Row, without_image_tags


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
