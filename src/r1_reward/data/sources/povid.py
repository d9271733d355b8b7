"""POVID: a good description of an image, and the same text with errors inserted by GPT-4V.

The answer in ``conversations`` is preferred to the one in ``rejected_conversations``. ``<image>`` before the question
is removed. Conversations with several turns are dropped, and so are rows whose two sides have different questions. The
images (COCO train2014) are not part of the dataset; they are looked up below the image folder by path, then by bare
name.
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
