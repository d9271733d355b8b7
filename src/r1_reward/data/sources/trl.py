"""TRL's preference format: ``prompt``, ``chosen`` and ``rejected`` as lists of messages, and ``images``.

Preferred is ``chosen``. A field may also be plain text; a message's content is text or a list of parts, in which an
image between two texts is named by its number ("Is image 1 taken after image 2?"); the prompt may be missing if
``chosen`` and ``rejected`` both begin with it. Dropped: several turns, a system message, prompts that differ, and rows
whose prompt has places for another number of images than the row has, or parts (video, audio, an image in an answer)
that a pair of images cannot carry. Ids come from ``id`` or ``idx``.
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
    media_parts,
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
    for name in ("chosen", "rejected") if prompt is None else ("prompt", "chosen", "rejected"):
        _require_places(row.data[name], name, len(images))
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


def _require_places(chat: Any, name: str, images: int) -> None:
    """Raise Drop if the turns of a chat show other pictures than the row has, or an answer shows any."""
    for turn in chat if isinstance(chat, list) else ():
        marked = media_parts(turn["content"], "image")
        if media_parts(turn["content"], "video"):
            raise Drop("picture places", f"{name} has a video part, and rows of this form carry images only")
        if marked and turn["role"] == "assistant":
            raise Drop("picture places", f"the answer of {name} has an image part, which a pair cannot carry")
        if marked and marked != images:
            raise Drop("picture places", f"{name} marks {marked} images and the row has {images}")
