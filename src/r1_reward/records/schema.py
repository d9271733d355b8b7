"""The record types of the package: a preference pair, a completion, and one vote of a judge.

``PreferencePair`` is one row of a pair file (JSONL, parquet or the Hub)::

    {"id": "7", "question": "Which digit is top left?", "images": ["scenes/7.png"],
     "response_1": "It is a three.", "response_2": "It is an eight.", "preferred": 1, "source": "handwriting"}

The question and each response is a text or a list of parts (:mod:`r1_reward.records.content`), for example to compare
two generated images::

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
"""The better of two responses."""
Label = Literal[0, 1, 2]
"""The better of two responses, or 0 for a tie."""

FRAMES = 8
"""Default number of frames shown of a video."""


def _read(value: Any) -> str | list[dict[str, Any]]:
    """Return a content as it is stored in files, with images and videos as paths."""
    try:
        content = to_parts(value)
        for number, place in enumerate(places_of(content), 1):
            if not isinstance(place.source, str | None):
                raise ContentError(f"{place.kind} {number} must be a path, not {kind_of(place.source)}")
            if place.source is None and place.kind == "video":
                raise ContentError("has a video part without a video")
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

    ``images`` and ``video`` come before the question; other images are parts of a content. Paths are relative to the
    row's file. ``preferred`` is 0 for a tie, which is for judging only: the training prompt asks for a winner.
    ``criteria`` is an optional criterion to judge by.

    ``reasoning`` is a teacher's judgment, if it wrote one that agrees with the label; ``attempts`` is the number of
    tries the teacher needed (method section 4), None if it was never asked or never agreed. ``kind`` groups rows in
    reports. ``provenance`` is the source of an imported row, as ``source:file:row`` (rows and lines count from 1).
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
        """Fill image parts without a source from the row's images."""
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
        """Return a hash (16 hex digits) of what is judged (question, media, responses), independent of id and label."""
        question, *responses = (getattr(self, name) for name in CONTENTS)
        content = [question, self.images, self.video, *responses]
        content += [] if self.criteria is None else [self.criteria]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


CONTENTS = ("question", "response_1", "response_2")
"""The fields of a pair that may have parts, in the order of the prompt."""


class Completion(BaseModel):
    """One text that an engine generated, including a ``<think>`` that the chat template wrote.

    ``tokens`` is the number of generated tokens; ``truncated`` says that the limit cut the text off. ``probability`` is
    the model's probability of answer 1 against 2 at the answer token, in [0, 1]; None if unknown. ``prompt_tokens`` is
    the length of the prompt, None if unknown; ``refused`` says that the model declined or a filter cut the text off.
    ``finish`` is the server's finish reason, empty if it gave none.
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
        """Whether the text was cut off, by the token limit or a refusal."""
        return self.truncated or self.refused


class Judgment(BaseModel):
    """One vote: the verdict of one completion on one pair in one order.

    ``answer`` refers to the *stored* order of the pair, whatever order was shown; 0 is a tie, None an unreadable vote.
    ``swapped`` is True if response 2 was shown first. ``probability`` is the model's probability of response 1 of the
    stored order, in [0, 1], from the answer token; None without an answer, or if the engine does not report it.
    """

    answer: Label | None
    swapped: bool
    text: str
    well_formed: bool
    tokens: int
    truncated: bool = False
    probability: float | None = None
