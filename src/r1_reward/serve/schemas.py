"""The models of requests and responses, which are also the OpenAPI document's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_core import PydanticCustomError

from r1_reward.judge.ranking import Ranking
from r1_reward.judge.settings import ScheduleName, require_budgeted
from r1_reward.judge.voting import Verdict
from r1_reward.records.dialect import Dialect
from r1_reward.records.schema import Answer, Judgment, Label
from r1_reward.records.texts import SEEN, is_blank
from r1_reward.serve.judge_client import Scored
from r1_reward.serve.settings import ServerSettings

Kind = Literal["win_rate", "bradley_terry"]
StopRule = Literal["exact", "sequential"]

_NO_VOTE = "no vote can be read, so there is no verdict"
_SAY_TIE = "more votes say tie than prefer either response"
_NO_COMPARISON = "no comparison could be read; {}"


# JSON has only one number type, and some clients write 1.0 for 1.
_WHOLE = BeforeValidator(lambda n: int(n) if isinstance(n, float) and n.is_integer() else n)
_VOTES = "Votes per order; a single vote is greedy, several are sampled."


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# Union tags are in parentheses, to tell them from field names in the locations of errors.


class Base64Image(_Request):
    """A picture in the request body."""

    base64: str = Field(description="A picture file in base64, or a data URL.", json_schema_extra={"format": "picture"})


class UrlImage(_Request):
    """A picture on a host the operator allows (--allow-host), or a data URL."""

    url: str


class PathImage(_Request):
    """A picture in a folder the operator allows (--allow-folder); the path may be relative to that folder."""

    path: str


class _LinkedImage(_Request):
    url: str = Field(description="A data URL, or a URL on a host the operator allows (--allow-host).")
    detail: Literal["auto", "low", "high"] | None = Field(default=None, description="Accepted, but has no effect.")


class ImageUrl(_Request):
    """A picture in OpenAI's form."""

    image_url: _LinkedImage
    type: Literal["image_url"] = "image_url"

    @property
    def url(self) -> str:
        """The picture's URL, as in :class:`UrlImage`."""
        return self.image_url.url


def _holder(image: Any) -> str | None:
    """Return the tag of a picture from its only key."""
    keys = list(image) if isinstance(image, dict) else list(getattr(type(image), "model_fields", ()))
    keys = [key for key in keys if key != "type" or "image_url" not in keys]
    return f"({keys[0]})" if len(keys) == 1 else None


ImageInput = Annotated[
    Annotated[Base64Image, Tag("(base64)")]
    | Annotated[UrlImage, Tag("(url)")]
    | Annotated[PathImage, Tag("(path)")]
    | Annotated[ImageUrl, Tag("(image_url)")],
    Discriminator(
        _holder,
        custom_error_type="picture",
        custom_error_message='must be {"base64": ...}, {"url": ...}, {"path": ...} or {"image_url": {"url": ...}}',
    ),
]


class TextPart(_Request):
    """A text part."""

    type: Literal["text"]
    text: str


class ImagePart(_Request):
    """A picture at its place; without ``image``, the next of ``images`` or of a form's files."""

    type: Literal["image"]
    image: ImageInput | None = None


class ImageUrlPart(_Request):
    """A picture at its place, in OpenAI's form."""

    type: Literal["image_url"]
    image_url: _LinkedImage


def _kind_of_part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return f"({kind})"


Part = Annotated[
    Annotated[TextPart, Tag("(text)")]
    | Annotated[ImagePart, Tag("(image)")]
    | Annotated[ImageUrlPart, Tag("(image_url)")],
    Discriminator(
        _kind_of_part,
        custom_error_type="part",
        custom_error_message='must be {"type": "text", "text": ...}, {"type": "image", "image": ...} or '
        '{"type": "image_url", "image_url": {"url": ...}}',
    ),
]


def _kind_of_content(content: Any) -> str | None:
    return "(words)" if isinstance(content, str) else "(parts)" if isinstance(content, list) else None


def _contents(words: Any, parts: Any) -> Any:
    """Return the type of a text, or a list of parts."""
    return Annotated[
        Annotated[words, Tag("(words)")] | Annotated[parts, Tag("(parts)")],
        Discriminator(
            _kind_of_content, custom_error_type="content", custom_error_message="must be text or a list of parts"
        ),
    ]


PartsOrText: TypeAlias = str | list[TextPart | ImagePart | ImageUrlPart]
"""A question or a response as it was sent."""
_CONTENT = "Text, or a list of parts: texts and pictures in order."
_CRITERIA = "The criteria to judge the responses by."


class Question(_Request):
    """A question about pictures, and how to draw votes."""

    model: str | None = Field(default=None, description="The model's name in ``GET /v1/models``.")
    question: PartsOrText = Field(description=_CONTENT)
    images: list[ImageInput] = Field(
        default_factory=list, description="Shown in front of the question, or at the parts without a picture."
    )
    criteria: str | None = Field(default=None, description=_CRITERIA)
    votes: Annotated[int, Field(ge=1), _WHOLE] = Field(default=1, description=_VOTES)
    both_orders: bool = Field(default=True, description="Judge the responses in both orders.")
    stop: StopRule | None = Field(default=None, description="Skip votes that cannot change the verdict.")


class CompareRequest(Question):
    """Which of two responses is better?"""

    response_1: PartsOrText = Field(description=_CONTENT)
    response_2: PartsOrText = Field(description=_CONTENT)


class RankRequest(Question):
    """What is the order of the responses, from best to worst?"""

    responses: list[PartsOrText] = Field(min_length=1)
    budget: Annotated[int, Field(ge=0, le=1_000_000), _WHOLE] | None = Field(
        default=None, description="The maximum number of comparisons."
    )


class Grouping(BaseModel):
    """Which responses are compared, and the kind of reward; in bodies and in URLs."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"schedule": {"const": "adaptive"}}, "required": ["schedule"]},
                {"properties": {"comparisons": {"type": "null"}}},
            ]
        }
    )
    kind: Kind = "win_rate"
    schedule: ScheduleName = Field(
        default="round-robin",
        description="Compare all pairs, each response with the next, in a knockout, or the most uncertain pairs.",
    )
    comparisons: Annotated[int, Field(ge=1, le=1_000_000), _WHOLE] | None = Field(
        default=None,
        description="The maximum number of comparisons of the adaptive schedule; default twice the responses.",
    )

    @field_validator("comparisons")
    @classmethod
    def _only_adaptive_has_a_budget(cls, comparisons: int | None, others: ValidationInfo) -> int | None:
        if "schedule" in others.data:
            require_budgeted(others.data["schedule"], comparisons)
        return comparisons


_Name = Annotated[str, Field(min_length=1, max_length=256)]


class RewardRequest(Grouping, Question):
    """How good is each response, measured against the others?"""

    responses: list[PartsOrText] = Field(min_length=1)
    group: _Name | None = Field(
        default=None, description="An id; these responses are judged together with those of other requests with it."
    )
    group_size: Annotated[int, Field(ge=2), _WHOLE] | None = Field(
        default=None, description="How many responses the group has, over all its requests."
    )
    samples: list[_Name] | None = Field(
        default=None, description="An id for each of these responses; a response sent again gets the same answer."
    )


def _not_blank(content: Any) -> Any:
    texts = [content] if isinstance(content, str) else [getattr(part, "text", "a picture") for part in content]
    if all(map(is_blank, texts)):
        raise PydanticCustomError("blank", "is blank")
    return content


class Vote(BaseModel):
    """One judgment of the pair by the model."""

    answer: Label | None = Field(
        description="The better response (1 or 2, as sent), 0 for a tie; null if the vote is unreadable."
    )
    swapped: bool = Field(description="Whether response 2 was shown first.")
    reasoning: str = Field(description="The analysis before the answer; the whole text if the vote is unreadable.")
    tokens: int
    truncated: bool = Field(description="Whether the text was truncated at the token limit.")
    probability: float | None = Field(description="Probability that response 1 is better, from the answer's token.")


class CompareResponse(BaseModel):
    """The verdict of all votes."""

    preferred: Answer | None = Field(description="The better response; null for a tie or without a readable vote.")
    probability: float | None = Field(
        description="Probability that response 1 is better; null without a readable vote."
    )
    for_1: int
    for_2: int
    ties: int = Field(description="Votes that say tie; only some judges can.")
    unreadable: int
    flips: float | None = Field(description="Share of votes that change with the order shown.")
    tokens: int
    votes: list[Vote]
    message: str | None = Field(description="Why there is no verdict.")


class ComparisonOut(BaseModel):
    """One comparison of two responses, by index from 0."""

    first: int
    second: int
    probability: float | None = Field(
        description="Probability that the first response is better; null without a readable vote."
    )


class RankResponse(BaseModel):
    """Responses by index from 0, best first, and their Bradley-Terry scores in logits with mean 0."""

    order: list[int]
    scores: list[float]
    standard_errors: list[float]
    comparisons: list[ComparisonOut]
    message: str | None = Field(description="Why the order is meaningless, if it is.")


class RewardResponse(BaseModel):
    """One reward per response, in order; null if a response has none."""

    rewards: list[float | None]
    message: str | None = Field(description="Why rewards are null.")


class GroupRewardResponse(RewardResponse):
    """The rewards of some responses of a group."""

    reasons: list[str | None] = Field(description="For each response, why its reward is null.")


class Health(BaseModel):
    """The state of the server."""

    model: str
    ready: bool = Field(description="Whether the server accepts requests.")
    queue: int = Field(description="Comparisons waiting for the model.")
    in_flight: int = Field(description="Requests accepted and not yet answered.")
    waiting: int = Field(description="Requests whose groups are not yet complete, or not yet judged.")


class ErrorDetail(BaseModel):
    """What is wrong, and in which field."""

    message: str
    field: str | None


class ErrorResponse(BaseModel):
    """An error."""

    error: ErrorDetail


class RequestModels:
    """The request models, with one server's limits in their schemas; the request's budget enforces the limits."""

    def __init__(self, settings: ServerSettings) -> None:
        most_candidates = min(settings.max_candidates, settings.max_responses)
        text = Annotated[
            str,
            AfterValidator(_not_blank),
            Field(json_schema_extra={"maxLength": settings.max_chars, "pattern": SEEN}),
        ]
        # Only this limit is enforced here: otherwise millions of parts would be parsed before they are counted.
        parts = Annotated[
            list[Part],
            Field(max_length=settings.max_parts, fail_fast=True, json_schema_extra={"minItems": 1}),
            AfterValidator(_not_blank),
        ]
        content = _contents(text, parts)
        most_images: dict[str, Any] = {"maxItems": settings.max_images}
        most_votes: dict[str, Any] = {"maximum": settings.max_votes}
        most_responses: dict[str, Any] = {"maxItems": most_candidates}
        question: dict[str, Any] = {
            "question": (content, Field(description=_CONTENT)),
            "images": (
                list[ImageInput],
                Field(
                    default_factory=list,
                    fail_fast=True,
                    description=Question.model_fields["images"].description,
                    json_schema_extra=most_images,
                ),
            ),
            "criteria": (text | None, Field(default=None, description=_CRITERIA)),
            "votes": (
                Annotated[int, Field(ge=1), _WHOLE],
                Field(default=1, description=_VOTES, json_schema_extra=most_votes),
            ),
        }
        responses: dict[str, Any] = {
            **question,
            "responses": (
                list[content],  # type: ignore[valid-type]
                Field(min_length=1, fail_fast=True, json_schema_extra=most_responses),
            ),
        }
        response: Any = (content, Field(description=_CONTENT))
        self.compare = _limited(CompareRequest, {**question, "response_1": response, "response_2": response})
        self.rank = _limited(RankRequest, responses)
        size = RewardRequest.model_fields["group_size"]
        group_size: Any = (
            Annotated[int, Field(ge=2, json_schema_extra={"maximum": most_candidates}), _WHOLE] | None,
            Field(default=None, description=size.description),
        )
        self.reward = _limited(RewardRequest, {**responses, "group_size": group_size})


_Model = TypeVar("_Model", bound=BaseModel)


def _limited(model: type[_Model], fields: dict[str, Any]) -> type[_Model]:
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)


def compare_response(verdict: Verdict, dialect: Dialect) -> CompareResponse:
    """Return the response for a verdict; ``dialect`` is the judge's, in which its votes are written."""
    tied = _SAY_TIE if verdict.says_tie else "the votes are tied" if verdict.readable else _NO_VOTE
    return CompareResponse(
        preferred=verdict.preferred,
        probability=verdict.probability,
        for_1=verdict.for_1,
        for_2=verdict.for_2,
        ties=verdict.ties,
        unreadable=verdict.unreadable,
        flips=verdict.flips,
        tokens=verdict.tokens,
        votes=[_vote(vote, dialect) for vote in verdict.votes],
        message=tied if verdict.preferred is None else None,
    )


def _vote(vote: Judgment, dialect: Dialect) -> Vote:
    reasoning = dialect.reasoning(vote)
    return Vote(
        answer=vote.answer,
        swapped=vote.swapped,
        reasoning=reasoning.encode("utf-8", "replace").decode(),  # text from a model server may contain lone surrogates
        tokens=vote.tokens,
        truncated=vote.truncated,
        probability=vote.probability,
    )


def rank_response(ranking: Ranking) -> RankResponse:
    """Return the response for a ranking."""
    readable = any(one.probability is not None for one in ranking.comparisons)
    silent = len(ranking.order) > 1 and not readable
    return RankResponse(
        order=list(ranking.order),
        scores=list(ranking.scores),
        standard_errors=list(ranking.standard_errors),
        comparisons=[ComparisonOut(**one._asdict()) for one in ranking.comparisons],
        message=_NO_COMPARISON.format("the order is meaningless") if silent else None,
    )


def reward_response(rewards: list[float | None]) -> RewardResponse:
    """Return the response for rewards."""
    missing = sum(reward is None for reward in rewards)
    why = f"{missing} of {len(rewards)} responses have no readable comparison with a different response"
    if len(rewards) == 1:
        why = "a single response has nothing to be compared with: send two or more, or its group and group_size"
    return RewardResponse(rewards=rewards, message=why if missing else None)


def group_reward_response(scored: list[Scored]) -> GroupRewardResponse:
    """Return the response for the rewards of some responses of a group."""
    reasons = [one.why for one in scored]
    first = next((why for why in reasons if why), None)
    return GroupRewardResponse(rewards=[one.reward for one in scored], reasons=reasons, message=first)
