"""WildVision-Battle: visitors of an arena voted on the answers of two anonymous models.

The answer of the ``winner`` (``model_a`` or ``model_b``) is preferred. Rows are dropped for both kinds of tie (``tie``,
``tie (bothbad)``) and any other winner; for several turns, because the vote is about all of them; if ``judge`` names a
language model; and if an answer is an error message. ``kind`` is ``domain``, if given.
"""

from __future__ import annotations

import re
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
from r1_reward.data.sources.error_marks import error_mark
from r1_reward.records.content import text_of

_TIES = ("tie", "tie (bothbad)")
_MACHINES = re.compile(r"gpt|claude|gemini|llama|llava|qwen|vlm|llm", re.IGNORECASE)


def read(row: Row) -> Iterator[Candidate | Drop]:
    """Yield the pair of a row."""
    winner, judge = row.value("winner"), row.label("judge")
    if winner in _TIES:
        raise Drop("tie", str(winner))
    if winner not in ("model_a", "model_b"):
        raise Drop("unreadable label", f"winner {str(winner)[:60]!r} is not model_a or model_b")
    if _MACHINES.search(judge):
        raise Drop("machine judge", judge[:60])
    if (turn := row.data.get("turn")) not in (None, 1):
        raise Drop("several turns", f"turn {str(turn)[:20]}")
    chats = []
    for name in ("conversation_a", "conversation_b"):
        question, answer = one_exchange(list(turns(row.value(name), name)), name, ("user", "assistant"))
        if error_mark(text_of(answer)) is not None:
            raise Drop("error reply", name)
        chats.append((question, [answer], name))
    image = row.image("image")
    sides = [with_pictures(question, answers, [image], name) for question, answers, name in chats]
    (question, [first], images), (other, [second], _) = sides
    require_same_question(question, other, "the two conversations ask")
    chosen, rejected = (first, second) if winner == "model_a" else (second, first)
    yield Candidate(row.label("question_id"), question, chosen, rejected, images, kind=row.label("domain"))
