"""TRL's preference format: ``prompt``, ``chosen`` and ``rejected`` as lists of messages, and ``images``.

Preferred is ``chosen``. A field may also be plain text; a message's content is text or a list of parts; the prompt may
be missing if ``chosen`` and ``rejected`` both begin with it. Dropped: several turns, a system message, prompts that
differ, and rows whose prompt marks another number of images than the row has. Ids come from ``id`` or ``idx``.
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
    one_exchange,
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
    questions, answers = [], []
    for name in ("chosen", "rejected"):
        chat = before + _chat(row.value(name), name, "assistant")
        question, answer = one_exchange(chat, name, _ROLES)
        questions.append(without_image_tags(question, "prompt" if before else name))
        answers.append(answer)
    if questions[0].strip() != questions[1].strip():
        raise Drop("unexpected turns", "chosen and rejected ask different questions")
    images = _images(row)
    marked = _image_parts(prompt if prompt is not None else row.data["chosen"])
    if marked and marked != len(images):
        raise Drop("unexpected turns", f"the prompt marks {marked} images and the row has {len(images)}")
    yield Candidate(row.label("id", "idx"), questions[0], answers[0], answers[1], images, kind=row.label("kind"))


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
    contents = [turn.get("content") for turn in chat if isinstance(turn, Mapping)] if isinstance(chat, list) else []
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return sum(isinstance(part, Mapping) and part.get("type") == "image" for part in parts)
