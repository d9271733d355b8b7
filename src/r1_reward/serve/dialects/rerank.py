"""The reranking and scoring APIs of vLLM, Cohere and Jina: order documents by how well they answer a query.

    POST /v1/rerank {"query": "Which digit?", "documents": ["A three.", "An eight."], "top_n": 1}
    {"results": [{"index": 1, "document": {"text": "An eight."}, "relevance_score": 0.96}], ...}

The query is the question, and the documents are the responses, judged against each other. A relevance score is the
probability, in [0, 1], that a document is better than another one of its request; 0.5 means as good as the others.
Scores of different requests cannot be compared. A single document is refused, unless the judge is a scalar model, which
returns the sigmoid of its reward. The URL may say how documents are compared (``?schedule=circular&votes=3``).
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from r1_reward.judge.groups import Group
from r1_reward.records.content import Content, blank, text_of
from r1_reward.serve.dialects.openai import NO_MODEL, STATUSES, require_model, require_neutral
from r1_reward.serve.errors import Refusal
from r1_reward.serve.grouping import GroupOptions, group_options, score_each
from r1_reward.serve.outcomes import as_probability, sigmoid
from r1_reward.serve.pictures import named_contents
from r1_reward.serve.routes import Call, ErrorForm, Route
from r1_reward.serve.schemas import (
    Base64Image,
    ImagePart,
    ImageUrlPart,
    Part,
    PartsOrText,
    PathImage,
    TextPart,
    UrlImage,
)
from r1_reward.serve.service import Opened, Service, Unopened, different, pairs_of
from r1_reward.serve.settings import ServerSettings
from r1_reward.store.encoded import kind_of_source

# Values without an effect; anything else would change the scores.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "use_activation": (True,),
    "activation": (True,),
    "rank_fields": (["text"],),
    "instruction": ("",),
    "chat_template_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "truncate_prompt_tokens": (-1,),
    "padding": ("do_not_pad",),
    "max_tokens_per_query": (0,),
    "max_tokens_per_doc": (0,),
    "max_chunks_per_doc": (),
}
_ALONE = (
    "a single document cannot be scored: this judge compares the documents of a query with each other; send two or "
    "more, or serve a scalar reward model"
)


class Document(BaseModel):
    """A text, a picture (Jina's form: URL, data URL or base64) or both, or a list of parts (vLLM's form)."""

    text: str | None = None
    image: str | None = None
    content: Annotated[list[Part], Field(min_length=1, fail_fast=True)] | None = None

    def sent(self, field: str) -> PartsOrText:
        """Return the document's texts and pictures; raises Refusal if it is empty."""
        if self.content is not None:
            return self.content
        text = [] if self.text is None else [TextPart(type="text", text=self.text)]
        if self.image is not None:
            linked = self.image[:5].lower() in ("http:", "https", "data:")
            source = UrlImage(url=self.image) if linked else Base64Image(base64=self.image)
            return [ImagePart(type="image", image=source), *text]
        if self.text is None:
            raise Refusal(422, 'must be text, {"text": ...}, {"image": ...} or {"content": [...]}', field)
        return self.text


def _kind(value: Any) -> str | None:
    kinds: dict[type, str] = {str: "(words)", dict: "(document)", Document: "(document)", list: "(list)"}
    return kinds.get(type(value))


_WRONG: dict[str, Any] = {"custom_error_type": "document", "custom_error_message": "must be text or a document"}
AnyDocument = Annotated[
    Annotated[str, Tag("(words)")] | Annotated[Document, Tag("(document)")], Discriminator(_kind, **_WRONG)
]
OneOrMore = Annotated[
    Annotated[str, Tag("(words)")]
    | Annotated[Document, Tag("(document)")]
    | Annotated[list[AnyDocument], Tag("(list)")],
    Discriminator(_kind, **_WRONG),
]


class RerankRequest(BaseModel):
    """A query, and documents to order by how well they answer it."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = Field(default=None, description="The model's name in ``GET /v1/models``.")
    query: AnyDocument
    documents: OneOrMore = Field(description="Two or more documents, or at least one for a scalar judge.")
    top_n: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="How many documents to return; 0 or null returns all."
    )
    return_documents: bool | None = Field(default=None, description="Default true, as in vLLM.")


class RerankedDocument(BaseModel):
    """A document as it was sent."""

    text: str | None = None
    multi_modal: list[dict[str, Any]] | None = None


class RerankResult(BaseModel):
    """A document, and how well it answers compared with the others."""

    index: int
    document: RerankedDocument | None = None
    relevance_score: float = Field(description="Probability of being better than another document, in [0, 1].")


class RerankUsage(BaseModel):
    """Tokens the judge generated; prompt tokens are not counted."""

    prompt_tokens: int = 0
    completion_tokens: int
    total_tokens: int


class RerankResponse(BaseModel):
    """Documents, best first."""

    id: str
    model: str
    usage: RerankUsage
    results: list[RerankResult]


class ScoreRequest(BaseModel):
    """Queries and documents, under one of the four pairs of names that vLLM accepts."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = Field(default=None, description="The model's name in ``GET /v1/models``.")
    queries: OneOrMore | None = Field(default=None, description="One query for all documents, or one per document.")
    documents: OneOrMore | None = None
    items: OneOrMore | None = Field(default=None, description="Alias of documents.")
    text_1: OneOrMore | None = Field(default=None, description="Alias of queries.")
    text_2: OneOrMore | None = Field(default=None, description="Alias of documents.")
    data_1: OneOrMore | None = Field(default=None, description="Alias of queries.")
    data_2: OneOrMore | None = Field(default=None, description="Alias of documents.")


class ScoreOut(BaseModel):
    """The score of one document."""

    index: int
    object: Literal["score"] = "score"
    score: float = Field(description="Probability of being better than another document of the query, in [0, 1].")


class ScoreResponse(BaseModel):
    """One score per document, in order."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ScoreOut]
    usage: RerankUsage


class ErrorInfo(BaseModel):
    """What is wrong, and in which field; ``code`` is the status."""

    message: str
    type: str
    param: str | None
    code: int


class BothErrors(BaseModel):
    """An error in the forms of vLLM and Cohere."""

    message: str
    error: ErrorInfo


def _error(refusal: Refusal) -> dict[str, Any]:
    status = STATUSES.get(refusal.status, refusal.status)
    kind = HTTPStatus(status).phrase.replace(" ", "").removesuffix("Error") + "Error"
    told = {"message": refusal.message, "type": kind, "param": refusal.field, "code": status}
    return {"message": refusal.message, "error": told}


ERRORS = ErrorForm(BothErrors, _error, STATUSES, NO_MODEL)


def routes(settings: ServerSettings) -> tuple[Route, ...]:
    """Return the routes of rerankers and scorers."""
    options = group_options(settings)
    reranking = ("/rerank", "/v1/rerank", "/v2/rerank")
    return (
        *(Route(path, RerankRequest, RerankResponse, rerank, options=options, errors=ERRORS) for path in reranking),
        *(
            Route(path, ScoreRequest, ScoreResponse, score, options=options, errors=ERRORS)
            for path in ("/score", "/v1/score")
        ),
    )


# The answers.


async def rerank(service: Service, call: Call[RerankRequest, GroupOptions]) -> RerankResponse:
    """Order documents by how often each is the better answer to the query."""
    asked = call.body
    _require_taken(asked.model, asked.model_extra, service)
    query = _Sent("query", asked.query)
    documents = _listed("documents", asked.documents)
    scores, usage = await _scores(service, call, [(query, one) for one in documents], "documents")
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: asked.top_n or None]
    shown = asked.return_documents is not False
    results = [
        RerankResult(
            index=index,
            relevance_score=scores[index],
            document=_returned(documents[index].value) if shown else None,
        )
        for index in order
    ]
    name = service.settings.model_name
    return RerankResponse(id=f"rerank-{uuid.uuid4().hex}", model=name, usage=usage, results=results)


async def score(service: Service, call: Call[ScoreRequest, GroupOptions]) -> ScoreResponse:
    """Score each document by how often it is the better answer to its query."""
    asked = call.body
    _require_taken(asked.model, asked.model_extra, service)
    first, second = _names(asked)
    queries, documents = (_listed(name, getattr(asked, name)) for name in (first, second))
    if len(queries) == 1:
        queries *= len(documents)
    if len(queries) != len(documents):
        reason = f"has {len(queries)} queries for {len(documents)} documents; send one query, or one per document"
        raise Refusal(422, reason, first)
    scores, usage = await _scores(service, call, list(zip(queries, documents, strict=True)), second)
    data = [ScoreOut(index=index, score=one) for index, one in enumerate(scores)]
    name = f"score-{uuid.uuid4().hex}"
    return ScoreResponse(id=name, created=int(time.time()), model=service.settings.model_name, data=data, usage=usage)


class _Sent(NamedTuple):
    """A query or a document, and its field, named in messages."""

    field: str
    value: str | Document

    @property
    def content(self) -> PartsOrText:
        return self.value if isinstance(self.value, str) else self.value.sent(self.field)


class _Asked(NamedTuple):
    """The documents of one query, and their places in the request."""

    unopened: Unopened
    places: list[int]

    @property
    def documents(self) -> list[Content]:
        return list(self.unopened.contents.values())[1:]


def _require_taken(model: str | None, extra: Mapping[str, Any] | None, service: Service) -> None:
    require_model(model, service)
    require_neutral(extra, _NEUTRAL, "is not supported: whole documents are compared")


def _names(asked: ScoreRequest) -> tuple[str, str]:
    """Return the field names under which queries and documents were sent."""
    pairs = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))
    came = {name for pair in pairs for name in pair if getattr(asked, name) is not None}
    for pair in pairs:
        if came == set(pair):
            return pair
    said = " and ".join(sorted(came)) or "none of them"
    raise Refusal(422, f"send either queries and documents, or text_1 and text_2; got {said}")


def _listed(field: str, value: Any) -> list[_Sent]:
    if not isinstance(value, list):
        return [_Sent(field, value)]
    return [_Sent(f"{field}[{number}]", one) for number, one in enumerate(value)]


async def _scores(
    service: Service, call: Call[Any, GroupOptions], pairs: Sequence[tuple[_Sent, _Sent]], field: str
) -> tuple[list[float], RerankUsage]:
    """Return a score in [0, 1] for each pair of a query and a document, and the token usage.

    Raises:
        Refusal: there are no documents, a query has only one and the judge is not scalar, or one cannot be scored.
    """
    if not pairs:
        raise Refusal(422, "is empty; send at least two documents", field)
    scalar = service.batcher.model.engine.deterministic
    groups = await service.read(call.budget, lambda: _groups(pairs))
    for one in groups:
        _spend(one, call, field, scalar)
    opened = await service.open([one.unopened for one in groups], call.budget)
    work = _alone if scalar else _against_each_other
    judged, tokens = await service.in_rounds(call.budget, lambda model: work(model, opened, call.options))
    scores: list[float | None] = [None] * len(pairs)
    for one, own in zip(groups, judged, strict=True):
        for place, value in zip(one.places, own, strict=True):
            scores[place] = value
    found = [value for value in scores if value is not None]
    if len(found) < len(scores):
        missing = ", ".join(pairs[place][1].field for place, value in enumerate(scores) if value is None)
        raise Refusal(502, f"the judge gave no readable result for {missing[:200]}", field)
    return found, RerankUsage(completion_tokens=tokens, total_tokens=tokens)


def _groups(pairs: Sequence[tuple[_Sent, _Sent]]) -> list[_Asked]:
    """Return the documents grouped by query, in order of first occurrence."""
    groups: dict[str, tuple[dict[str, PartsOrText], list[int]]] = {}
    for place, (query, document) in enumerate(pairs):
        value = query.value
        key = value if isinstance(value, str) else "\0" + value.model_dump_json()  # texts never equal documents
        sent, places = groups.setdefault(key, ({query.field: query.content}, []))
        sent[document.field] = document.content
        places.append(place)
    return [_Asked(Unopened(*named_contents(sent, [])), places) for sent, places in groups.values()]


def _spend(asked: _Asked, call: Call[Any, GroupOptions], field: str, scalar: bool) -> None:
    """Count the documents of a query against the request's budget."""
    budget, options = call.budget, call.options
    budget.responses(len(asked.places), field)
    for name, content in asked.unopened.contents.items():
        budget.text(text_of(content), name)
        if blank(content):
            raise Refusal(422, "is blank", name)
    if scalar:
        budget.judgments(different(asked.documents), votes=1, both_orders=False, field=field)
        return
    if len(asked.places) < 2:
        raise Refusal(422, _ALONE, list(asked.unopened.contents)[-1])
    pairs = pairs_of(asked.documents, options.schedule, options.comparisons)
    budget.judgments(pairs, votes=options.votes, both_orders=options.both_orders, field=field)


_Judged = tuple[list[list[float | None]], int]


def _against_each_other(model: Any, opened: list[Opened], options: GroupOptions) -> _Judged:
    """Return each document's probability of winning (None if no comparison was readable), and the tokens generated."""
    groups = [Group(query, images, documents) for images, (query, *documents) in opened]
    scored = score_each(model, groups, options.model_dump())
    if too_long := [error for group in scored for error in group.errors]:
        raise too_long[0]
    kind = options.kind
    found = [[None if one is None else as_probability(one, kind) for one in group.rewards] for group in scored]
    return found, sum(vote.tokens for group in scored for vote in group.votes)


def _alone(model: Any, opened: list[Opened], _: GroupOptions) -> _Judged:
    """Return the sigmoid of each document's reward (None if it is not finite), and the tokens generated."""
    scores = model.scores([(query, images, one) for images, (query, *documents) in opened for one in documents])
    left = iter(scores)
    found = [
        [sigmoid(one.reward) if math.isfinite(one.reward) else None for one in islice(left, len(contents) - 1)]
        for _, contents in opened
    ]
    return found, sum(one.tokens for one in scores)


def _returned(document: str | Document) -> RerankedDocument:
    if isinstance(document, str):
        return RerankedDocument(text=document)
    if document.content is None and document.image is None:
        return RerankedDocument(text=document.text)
    parts = document.sent("documents")
    assert not isinstance(parts, str)
    return RerankedDocument(multi_modal=[_part(part) for part in parts])


def _part(part: TextPart | ImagePart | ImageUrlPart) -> dict[str, Any]:
    """Return a part in vLLM's chat form; paths, which only this server accepts, are returned as sent."""
    if isinstance(part, ImagePart) and not isinstance(part.image, PathImage | None):
        coded = part.image.base64 if isinstance(part.image, Base64Image) else part.image.url
        url = coded if kind_of_source(coded) in ("url", "data") else f"data:image;base64,{coded}"
        return {"type": "image_url", "image_url": {"url": url}}
    return part.model_dump(exclude_none=True)
