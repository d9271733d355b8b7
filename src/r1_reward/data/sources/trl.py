"""TRL's preference format: ``prompt``, ``chosen`` and ``rejected`` as lists of messages, and ``images``.

Preferred is ``chosen``. A field may also be plain text; a message's content is text or a list of parts, in which an
image between two texts is named by its number ("Is image 1 taken after image 2?"); the prompt may be missing if
``chosen`` and ``rejected`` both begin with it. Dropped: several turns, a system message, prompts that differ, and rows
whose prompt has places for another number of images than the row has. Ids come from ``id`` or ``idx``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from r1_reward.data.sources.common import (
    Candidate,
    Drop,
    Row,
    a_text,
    an_image,
    image_parts,
    one_exchange,
    require_same_question,
    turns,
    without_image_tags,
)

_ROLES = ("user", "assistant")


def read(row: Row) -> Iterator[Candidate | Drop]:
    """Yield the pair of a row."""
    prompt = row.data.get("prompt")
    if prompt is None and isinstance(row.data.get("chosen"), str):
        raise Drop("missing field", "prompt")  # plain text cannot begin with a prompt that could be told apart
    before = [] if prompt is None else _chat(prompt, "prompt", "user")
    sides = []
    for name in ("chosen", "rejected"):
        chat = before + _chat(row.value(name), name, "assistant")
        sides.append(one_exchange(chat, name, _ROLES))
    images = _images(row)
    marked = _image_parts(prompt if prompt is not None else row.data["chosen"])
    if marked and marked != len(images):
        raise Drop("picture places", f"the prompt marks {marked} images and the row has {len(images)}")
    first, second = (
        without_image_tags(question, "prompt" if before else name, len(images))
        for name, (question, _) in zip(("chosen", "rejected"), sides, strict=True)
    )
    require_same_question(first, second, "chosen and rejected ask")
    yield Candidate(row.label("id", "idx"), first, sides[0][1], sides[1][1], images, kind=row.label("kind"))


def _chat(value: Any, name: str, role: str) -> list[tuple[str, str]]:
    """Return the turns of a field; plain text is one turn of ``role``."""
    return [(role, a_text(value, name))] if isinstance(value, str) else list(turns(value, name))


def _images(row: Row) -> tuple[Mapping[str, Any], ...]:
    if row.data.get("images") is None:
        return (row.image("image", "images"),)
    cells = [an_image(value, f"images[{index}]") for index, value in enumerate(row.list("images"))]
    if not cells or None in cells:
        raise Drop("no image", "images")
    return tuple(cell for cell in cells if cell is not None)


def _image_parts(chat: Any) -> int:
    """Count the image parts of all turns of a chat."""
    given = chat if isinstance(chat, list) else []
    return sum(image_parts(turn.get("content")) for turn in given if isinstance(turn, Mapping))
