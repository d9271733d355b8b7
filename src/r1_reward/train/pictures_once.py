"""Open and process the pictures of a rollout once.

TRL hands the whole rollout batch to the trainer at every step of gradient accumulation and uses it at the first; it
runs the processor for generation and again for the log-probabilities, and for some families a third time, for tiles.
Rows therefore carry their pictures as stored, :func:`open_pictures` decodes them when a rollout begins, and
:func:`processed_once` remembers what the image processor made of them until it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from r1_reward.store.video import FRAMES, row_pictures


def open_pictures(rows: Sequence[Mapping[str, Any]], video_frames: int = FRAMES) -> list[dict[str, Any]]:
    """Return the rows with their ``images`` decoded; rows that show the same pictures (a group's) share them.

    Behind them come up to ``video_frames`` frames of the row's video, and the ``prompt`` gets a place for each.

    Raises:
        ImageError: a picture or video cannot be read.
    """
    opened: dict[Any, list[Any]] = {}
    result = []
    for row in rows:
        key = (row.get("video"), *((cell.get("path"), cell.get("bytes")) for cell in row["images"]))
        if key not in opened:
            opened[key] = row_pictures(row, video_frames)
        result.append({**row, "images": opened[key], "prompt": _with_places(row["prompt"], len(opened[key]))})
    return result


def _with_places(prompt: Sequence[Mapping[str, Any]], pictures: int) -> list[dict[str, Any]]:
    """Return a prompt of one turn with so many image parts in front of its text."""
    (turn,) = prompt
    text = [part for part in turn["content"] if part["type"] != "image"]
    return [{**turn, "content": [*({"type": "image"} for _ in range(pictures)), *text]}]


@contextmanager
def processed_once(processor: Any) -> Iterator[None]:
    """Let ``processor`` process equal lists of pictures, with equal options, once inside the block.

    The results share their tensors, which nobody may change in place.
    """
    image_processor = getattr(processor, "image_processor", None)
    if image_processor is None:
        yield
        return
    known: dict[Any, tuple[Any, Any]] = {}
    process = image_processor.preprocess

    def preprocess(images: Any, *args: Any, **options: Any) -> Any:
        options["return_tensors"] = "pt"  # asked for the second time only, but good for the first
        key = (_identities(images), repr(args), repr(sorted(options.items(), key=str)))
        if key not in known:
            known[key] = (images, process(images, *args, **options))  # images are kept, so that ids stay theirs
        result = known[key][1]
        return type(result)(dict(result))

    image_processor.preprocess = preprocess
    try:
        yield
    finally:
        del image_processor.preprocess


def _identities(images: Any) -> Any:
    return tuple(map(_identities, images)) if isinstance(images, (list, tuple)) else id(images)
