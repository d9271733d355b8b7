"""MM-RLHF, ``dpo_pairs.jsonl``: people ranked three to five answers to an instruction; a row has two of unequal rank.

``chosen`` is preferred. The file contains no ties. ``kind`` is the part (long, short, mcq, safety, video): the first
folder in the path of the image, or ``video`` for rows with a video; empty if the path has no such folder. A row must
have an image or a video, not both. The annotators' reasons (``chosen_reason``) are not imported, because pairs have no
field for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from r1_reward.data.sources.common import Candidate, Drop, Row, a_text, an_image, without_image_tags

PARTS = ("long", "short", "mcq", "safety", "video")


def read(row: Row) -> Iterator[Candidate | Drop]:
    """Yield the pair of a row."""
    image, video = an_image(row.data.get("image"), "image"), row.data.get("video") or None
    if image is not None and video is not None:
        raise Drop("several media", "both image and video")
    if image is None and video is None:
        raise Drop("no image" if {"image", "video"} & set(row.data) else "missing field", "image or video")
    path = (image["path"] or "") if image is not None else a_text(video, "video")
    yield Candidate(
        id=row.label("id"),
        question=without_image_tags(row.text("prompt"), "prompt", None if video else 1),
        chosen=row.text("chosen"),
        rejected=row.text("rejected"),
        images=() if image is None else (image,),
        video=video,
        kind="video" if video else part_of(path),
    )


def is_own(row: Mapping[str, Any]) -> bool:
    """Return whether the image or video of a row is in one of the dataset's parts."""
    media = row.get("image") or row.get("video")
    path = media.get("path") if isinstance(media, Mapping) else media
    return isinstance(path, str) and part_of(path) != ""


def part_of(path: str) -> str:
    """Return the part of a path relative to the dataset's root; empty if its first folder is not a part."""
    folders = [folder for folder in PurePosixPath(path).parts[:-1] if folder != "."]
    return folders[0] if folders and folders[0] in PARTS else ""
