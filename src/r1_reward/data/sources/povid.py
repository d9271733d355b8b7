"""POVID: a good description of an image, and the same text with mistakes that GPT-4V put in.

Preferred is the answer in ``conversations``, dispreferred the one in ``rejected_conversations``. The ``<image>`` before
the question is taken off. Dropped: conversations of several turns, and rows whose two sides ask different questions.
Images are not shipped: they are looked for under their path, then under their bare name, below the image folder
(COCO train2014).
"""

from __future__ import annotations

from collections.abc import Iterator

from r1_reward.data.sources.common import (
    Candidate,
    Drop,
    Row,
    one_exchange,
    require_same_question,
    turns,
    with_pictures,
)

_FIELDS = ("from", "value")


def read(row: Row) -> Iterator[Candidate | Drop]:
    """Yield the pair of a row."""
    names = ("conversations", "rejected_conversations")
    chats = [one_exchange(list(turns(row.value(name), name, _FIELDS)), name, ("human", "gpt")) for name in names]
    image = row.image("image")
    sides = [
        with_pictures(question, [answer], [image], name) for name, (question, answer) in zip(names, chats, strict=True)
    ]
    (question, [chosen], images), (other, [rejected], _) = sides
    require_same_question(question, other, "the two conversations ask")
    yield Candidate(row.label("id"), question, chosen, rejected, images)
