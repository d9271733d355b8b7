"""The records that travel through the package: a preference pair, a completion, one vote, all votes.

``PreferencePair`` is one row of a pair file (JSONL, parquet or the Hub)::

    {"id": "7", "question": "Which digit is top left?", "images": ["scenes/7.png"],
     "response_1": "It is a three.", "response_2": "It is an eight.", "preferred": 1, "source": "handwriting"}

A question and each response is a text or a list of parts (:mod:`r1_reward.records.content`), as where two generated
pictures are compared::

    {"id": "8", "question": "Draw a three.", "preferred": 2,
     "response_1": [{"type": "image", "image": "a.png"}],
     "response_2": [{"type": "text", "text": "Here: "}, {"type": "image", "image": "b.png"}]}
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from r1_reward.records.content import ContentError, blank, fill_places, places_of, to_parts
from r1_reward.records.errors import kind_of

Answer = Literal[1, 2]
"""Which of the two responses is better."""
Label = Literal[0, 1, 2]
"""The same, or 0 for a tie: neither is better."""

FRAMES = 8
"""How many frames of a video are shown where nobody says otherwise."""


def _read(value: Any) -> str | list[dict[str, Any]]:
    """Return a content in the form of files; pictures and videos are named by their paths."""
    try:
        content = to_parts(value)
        for number, place in enumerate(places_of(content), 1):
            if not isinstance(place.source, str | None):
                raise ContentError(f"{place.kind} {number} must be a path, not {kind_of(place.source)}")
            if place.source is None and place.kind == "video":
                raise ContentError("has a video part that names no video")
    except ContentError as error:
        raise PydanticCustomError("content", "{reason}", {"reason": str(error)}) from error
    return content


def _not_blank(content: Any) -> Any:
    if blank(content):
        raise PydanticCustomError("blank", "is blank")
    return content


NonBlank = Annotated[str, AfterValidator(_not_blank)]
NonBlankContent = Annotated[str | list[dict[str, Any]], BeforeValidator(_read), AfterValidator(_not_blank)]


class PreferencePair(BaseModel):
    """A question about images (or a video), two responses, and which of them is preferred.

    ``images`` and ``video`` stand in front of the question; pictures elsewhere are parts of a content. Paths are
    relative to the file that holds the row. ``preferred`` is 0 for a tie, which only judging knows: the training prompt
    asks for a winner. ``criteria`` says by what the responses are to be judged, where that is given.

    ``reasoning`` is a teacher's judgement text, if it wrote one that agrees with the label; ``attempts`` is how many
    tries the teacher needed (method section 4), None when it was never asked or never agreed. ``kind`` groups rows in
    reports. ``provenance`` says where an imported row was read, as ``source:file:row`` (rows and lines count from 1).
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    question: NonBlankContent
    images: list[str] = Field(default_factory=list)
    video: str | None = None
    response_1: NonBlankContent
    response_2: NonBlankContent
    preferred: Label
    criteria: NonBlank | None = None
    source: str = ""
    kind: str = ""
    provenance: str = ""
    reasoning: str | None = None
    attempts: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _pictures_have_places(self) -> PreferencePair:
        """Give image parts without a picture the next of the row's images."""
        try:
            filled, left = fill_places([getattr(self, name) for name in CONTENTS], self.images)
        except ContentError as error:
            raise PydanticCustomError("places", "{reason}", {"reason": str(error)}) from error
        if left != self.images:
            for name, content in zip(CONTENTS, filled, strict=True):
                setattr(self, name, content)
            self.images = left
        return self

    def content_hash(self) -> str:
        """Return 16 hex digits that depend on what is judged (question, media, responses), not on id or label."""
        question, *responses = (getattr(self, name) for name in CONTENTS)
        content = [question, self.images, self.video, *responses]
        content += [] if self.criteria is None else [self.criteria]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


CONTENTS = ("question", "response_1", "response_2")
"""The fields of a pair that may hold parts, in the order in which they are shown."""


class Completion(BaseModel):
    """One text an engine generated, behind a ``<think>`` that the chat template may have written.

    ``tokens`` counts its generated tokens and ``truncated`` says that the limit cut it. ``probability`` is what the
    model gives the answer 1 against 2 at the answer's token, in [0, 1]; None where that cannot be known.
    ``prompt_tokens`` counts what was shown, None where nobody counted; ``refused`` says that the model declined or a
    filter cut it off. ``finish`` is the server's word for why the text ended, empty where it gave none.
    """

    text: str
    tokens: int
    truncated: bool = False
    probability: float | None = None
    prompt_tokens: int | None = None
    refused: bool = False
    finish: str = ""

    @property
    def cut(self) -> bool:
        """Whether the text was broken off, so that nobody knows what would have come next."""
        return self.truncated or self.refused


class Judgment(BaseModel):
    """One vote: what one completion says about one pair in one order.

    ``answer`` refers to the *stored* order of the pair, whatever order was shown; 0 means that the judge said tie, None
    that there is no readable vote. ``swapped`` is True when response 2 was shown first. ``probability`` is the model's
    for response 1 of the stored order, in [0, 1], from the token of the answer; None without an answer or where the
    engine cannot tell.
    """

    answer: Label | None
    swapped: bool
    text: str
    well_formed: bool
    tokens: int
    truncated: bool = False
    probability: float | None = None
