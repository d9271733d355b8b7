"""Several responses to one question, their ranking, and the pairs it implies.

>>> group = ResponseGroup(id="7", question="Which digit?", responses=["Three.", "Eight.", "Two."], ranking=[1, 2, 2])
>>> [(pair.id, pair.preferred) for pair in pairs_of(group)]
[('7:1-2', 1), ('7:1-3', 1)]
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from r1_reward.records.content import ContentError, fill_places
from r1_reward.records.schema import Label, NonBlank, NonBlankContent, PreferencePair


class ResponseGroup(BaseModel):
    """A question and N responses, optionally ranked: 1 is best, equal numbers tie.

    Contents, ``images``, ``video`` and ``criteria`` are those of a :class:`~r1_reward.records.schema.PreferencePair`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    question: NonBlankContent
    images: list[str] = Field(default_factory=list)
    video: str | None = None
    responses: Annotated[list[NonBlankContent], Field(min_length=1)]
    ranking: list[Annotated[int, Field(ge=1)]] | None = None
    criteria: NonBlank | None = None
    source: str = ""
    kind: str = ""

    @model_validator(mode="after")
    def _fits(self) -> ResponseGroup:
        """Check that every response has a rank, and fill the image parts."""
        if self.ranking is not None and len(self.ranking) != len(self.responses):
            reason = f"has {len(self.ranking)} ranks for {len(self.responses)} responses"
            raise PydanticCustomError("ranking", "{reason}", {"reason": reason})
        try:
            (self.question, *self.responses), self.images = fill_places([self.question, *self.responses], self.images)
        except ContentError as error:
            raise PydanticCustomError("places", "{reason}", {"reason": str(error)}) from error
        return self


def pairs_of(group: ResponseGroup, *, ties: bool = False) -> Iterator[PreferencePair]:
    """Yield a pair for every two responses of different rank and, with ``ties``, of equal rank.

    Ids consist of the group's id and the numbers of the responses, from 1. A group without a ranking has no pairs.
    """
    ranks = group.ranking or []
    for (i, first), (j, second) in combinations(enumerate(ranks), 2):
        preferred: Label = 0 if first == second else 1 if first < second else 2
        if preferred or ties:
            yield PreferencePair(
                id=f"{group.id}:{i + 1}-{j + 1}",
                question=group.question,
                images=group.images,
                video=group.video,
                response_1=group.responses[i],
                response_2=group.responses[j],
                preferred=preferred,
                criteria=group.criteria,
                source=group.source,
                kind=group.kind,
            )
