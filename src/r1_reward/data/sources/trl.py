"""TRL's preference format: ``prompt``, ``chosen`` and ``rejected`` as lists of messages, and ``images``.

Preferred is ``chosen``. A field may also be plain text; a message's content is text or a list of parts, whose images
are those of ``images`` in order, or name their own where the row has no ``images``. Pictures between texts, and those
of an answer, keep their places as parts. The prompt may be missing if ``chosen`` and ``rejected`` both begin with it.
Dropped: several turns, a system message, prompts that differ, audio, and rows that mark another number of images than
they have. Ids come from ``id`` or ``idx``; ``criteria`` are kept.
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
    require_same_question,
    turns,
    with_pictures,
)
from r1_reward.records.content import Content, places_of

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
    (question, chosen), (other, rejected) = sides
    images = _images(row, (question, chosen, rejected))
    question, answers, left = with_pictures(question, (chosen, rejected), images, "prompt" if before else "chosen")
    if not before:
        other, *_ = with_pictures(other, (chosen, rejected), images, "rejected")
        require_same_question(question, other, "chosen and rejected ask")
    yield Candidate(
        row.label("id", "idx"), question, answers[0], answers[1], left, kind=row.label("kind"), kept=row.criteria()
    )


def _chat(value: Any, name: str, role: str) -> list[tuple[str, Content]]:
    """Return the turns of a field; plain text is one turn of ``role``."""
    return [(role, a_text(value, name))] if isinstance(value, str) else list(turns(value, name))


def _images(row: Row, contents: tuple[Content, ...]) -> tuple[Mapping[str, Any], ...]:
    """Return the images of a row; none where its parts hold their own."""
    listed = row.data.get("images")
    own = any(place.source is not None for content in contents for place in places_of(content))
    if own and not listed and row.data.get("image") is None:
        return ()
    if listed is None:
        return (row.image("image", "images"),)
    cells = [an_image(value, f"images[{index}]") for index, value in enumerate(row.list("images"))]
    if not cells or None in cells:
        raise Drop("no image", "images")
    return tuple(cell for cell in cells if cell is not None)
