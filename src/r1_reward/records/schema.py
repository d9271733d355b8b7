"""The records that travel through the package: a preference pair, a completion, one vote, all votes.

``PreferencePair`` is one row of a pair file (JSONL, parquet or the Hub)::

    {"id": "7", "question": "Which digit is top left?", "images": ["scenes/7.png"],
     "response_1": "It is a three.", "response_2": "It is an eight.", "preferred": 1, "source": "handwriting"}
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from r1_reward.records.texts import is_blank

Answer = Literal[1, 2]
"""Which of the two responses is better."""

FRAMES = 8
"""How many frames of a video are shown where nobody says otherwise."""


def _not_blank(text: str) -> str:
    if is_blank(text):
        raise PydanticCustomError("blank", "is blank")
    return text


NonBlank = Annotated[str, AfterValidator(_not_blank)]


class PreferencePair(BaseModel):
    """A question about images (or a video), two responses, and which of them is preferred.

    ``images`` are paths relative to the file that holds the row. ``reasoning`` is a teacher's judgement text, if it
    wrote one that agrees with the label; ``attempts`` is how many tries the teacher needed (method section 4), None
    when it was never asked or never agreed. ``kind`` groups rows in reports. ``provenance`` says where an imported row
    was read, as ``source:file:row`` (rows and lines count from 1).
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    question: NonBlank
    images: list[str] = Field(default_factory=list)
    video: str | None = None
    response_1: NonBlank
    response_2: NonBlank
    preferred: Answer
    source: str = ""
    kind: str = ""
    provenance: str = ""
    reasoning: str | None = None
    attempts: int | None = Field(default=None, ge=1)

    def content_hash(self) -> str:
        """Return 16 hex digits that depend on what is judged (question, media, responses), not on id or label."""
        content = json.dumps([self.question, self.images, self.video, self.response_1, self.response_2])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class Completion(BaseModel):
    """One text an engine generated, behind a ``<think>`` that the chat template may have written.

    ``tokens`` counts its generated tokens and ``truncated`` says that the limit cut it. ``probability`` is what the
    model gives the answer 1 against 2 at the answer's token, in [0, 1]; None where that cannot be known.
    ``prompt_tokens`` counts what was shown, None where nobody counted; ``refused`` says that the model declined or a
    filter cut it off.
    """

    text: str
    tokens: int
    truncated: bool = False
    probability: float | None = None
    prompt_tokens: int | None = None
    refused: bool = False

    @property
    def cut(self) -> bool:
        """Whether the text was broken off, so that nobody knows what would have come next."""
        return self.truncated or self.refused


class Judgment(BaseModel):
    """One vote: what one completion says about one pair in one order.

    ``answer`` refers to the *stored* order of the pair, whatever order was shown; None means no readable vote.
    ``swapped`` is True when response 2 was shown first. ``probability`` is the model's for response 1 of the stored
    order, in [0, 1], from the token of the answer; None without an answer or where the engine cannot tell.
    """

    answer: Answer | None
    swapped: bool
    text: str
    well_formed: bool
    tokens: int
    truncated: bool = False
    probability: float | None = None
