"""Serve a scalar judge with vLLM's and SGLang's protocols for reward models: one number per chat.

    POST /classify       {"model": "R1-Scalar", "input": "<|im_start|>user\\n...", "use_activation": false}
                         -> {"data": [{"index": 0, "label": "LABEL_0", "probs": [1.25], "num_classes": 1}], ...}
    POST /pooling        {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}
                         -> {"data": [{"index": 0, "object": "pooling", "data": [0.7773]}], ...}
    POST /v1/embeddings  {"input": "..."} -> {"data": [{"object": "embedding", "index": 0, "embedding": [1.25]}], ...}

The number is the reward in logits, or its sigmoid with activation, which is the default of the first two routes. A chat
ends with the response; the turns before it are the question, as in every other dialect. It is sent as messages, or as a
text in a chat template, as verl does. A text with places for pictures is refused, since no pictures come with it. A
judge that compares cannot score a single response, so it refuses these requests.
"""

from __future__ import annotations

import base64
import math
import struct
import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from r1_reward.records.content import Content, Piece, Place, blank, map_media, text_of
from r1_reward.serve.chats import PromptError, Turn, joined
from r1_reward.serve.dialects import openai, rerank
from r1_reward.serve.dialects.openai import Message, linked, read_messages, require_model, require_neutral
from r1_reward.serve.dialects.rerank import RerankUsage
from r1_reward.serve.errors import Refusal
from r1_reward.serve.judge_client import or_empty
from r1_reward.serve.outcomes import sigmoid
from r1_reward.serve.routes import Call, Route
from r1_reward.serve.service import Service, Unopened
from r1_reward.serve.settings import ServerSettings
from r1_reward.serve.templates import ask, clean, read_turns, turn_starts

_LABEL = "LABEL_0"  # default label of a classifier with one class
_COMPARES = (
    "this judge compares responses and cannot score a single one: post the responses to one prompt to /v1/reward, "
    "/rerank or /score; if they arrive one by one, use /v1/reward with a group; or serve a scalar reward model"
)
_NO_CHAT = (
    "is not a chat in its template (such as ChatML or Llama 3) that ends with the assistant's response; send it in "
    "that form, or as messages"
)
# Values without an effect; anything else would change the number, or is not supported.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "truncate_prompt_tokens": (-1,),
    "padding": ("do_not_pad",),
    "mm_processor_kwargs": ({},),
    "add_generation_prompt": (False,),
    "continue_final_message": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "media_io_kwargs": ({},),
    "dimensions": (1,),
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
    "activation": (True,),
    "softmax": (True,),
    "normalize": (),
    "text": (),
    "data": (),
}

_Kind = Annotated[str, Tag("(words)")] | Annotated[list[str], Tag("(list)")]
_Input = Annotated[
    _Kind,
    Discriminator(
        lambda value: {str: "(words)", list: "(list)"}.get(type(value)),
        custom_error_type="input",
        custom_error_message="must be text or a list of texts",
    ),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = Field(default=None, description="The model's name in ``GET /v1/models``.")
    input: _Input | None = Field(default=None, description="One or more chats, each as text in its chat template.")
    messages: Annotated[list[Message], Field(min_length=1)] | None = Field(
        default=None, description="One chat, instead of ``input``; the last message is the assistant's response."
    )


class ClassifyRequest(_Request):
    """Chats to score."""

    use_activation: bool | None = Field(default=None, description="Default true: the sigmoid of the reward.")


class PoolingRequest(ClassifyRequest):
    """Chats to score, with the task and the encoding of the number."""

    task: str | None = Field(default=None, description="Only ``classify``, the default.")
    encoding_format: Literal["float", "base64"] | None = None


class EmbeddingRequest(_Request):
    """Chats to score, in SGLang's form."""

    encoding_format: Literal["float", "base64"] | None = None


class Classified(BaseModel):
    """The score of one chat."""

    index: int
    label: str = _LABEL
    probs: list[float] = Field(description="One number: the reward, or its sigmoid.")
    num_classes: int = 1


class Pooled(BaseModel):
    """The score of one chat, in the form of ``/pooling``."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: list[float] | str


class Embedded(BaseModel):
    """The score of one chat, in the form of an embedding."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class _Response(BaseModel):
    object: Literal["list"] = "list"
    model: str
    usage: RerankUsage


class ClassifyResponse(_Response):
    """One entry per chat, in order."""

    id: str
    created: int
    data: list[Classified]


class PoolingResponse(_Response):
    """One entry per chat, in order."""

    id: str
    created: int
    data: list[Pooled]


class EmbeddingResponse(_Response):
    """One entry per chat, in order."""

    data: list[Embedded]


def routes(_: ServerSettings) -> tuple[Route, ...]:
    """Return the routes of vLLM and of SGLang."""
    return (
        *(
            Route(path, ClassifyRequest, ClassifyResponse, classify, errors=rerank.ERRORS)
            for path in ("/classify", "/v1/classify")
        ),
        Route("/pooling", PoolingRequest, PoolingResponse, pooling, errors=rerank.ERRORS),
        Route("/v1/embeddings", EmbeddingRequest, EmbeddingResponse, embeddings, errors=openai.ERRORS),
    )


# The answers.


async def classify(service: Service, call: Call[ClassifyRequest, None]) -> ClassifyResponse:
    """Score chats with a scalar judge, in the form of vLLM's classification API."""
    rewards, usage = await _rewards(service, call)
    numbers = _activated(rewards, call.body.use_activation)
    data = [Classified(index=index, probs=[number]) for index, number in enumerate(numbers)]
    return ClassifyResponse(id=f"classify-{uuid.uuid4().hex}", **_head(service), data=data, usage=usage)


async def pooling(service: Service, call: Call[PoolingRequest, None]) -> PoolingResponse:
    """Score chats with a scalar judge, in the form of vLLM's pooling API."""
    asked = call.body
    if asked.task not in (None, "classify"):
        raise Refusal(422, f"unsupported task {asked.task[:40]!r}; this server has only 'classify'", "task")
    rewards, usage = await _rewards(service, call)
    numbers = _activated(rewards, asked.use_activation)
    data = [Pooled(index=index, data=_encoded(one, asked.encoding_format)) for index, one in enumerate(numbers)]
    return PoolingResponse(id=f"pooling-{uuid.uuid4().hex}", **_head(service), data=data, usage=usage)


async def embeddings(service: Service, call: Call[EmbeddingRequest, None]) -> EmbeddingResponse:
    """Score chats with a scalar judge, in the form of SGLang's reward models: an embedding of one number."""
    rewards, usage = await _rewards(service, call)
    form = call.body.encoding_format
    data = [Embedded(index=index, embedding=_encoded(one, form)) for index, one in enumerate(rewards)]
    return EmbeddingResponse(model=service.settings.model_name, data=data, usage=usage)


def _head(service: Service) -> dict[str, Any]:
    return {"created": int(time.time()), "model": service.settings.model_name}


def _activated(rewards: list[float], wanted: bool | None) -> list[float]:
    return rewards if wanted is False else [sigmoid(reward) for reward in rewards]


def _encoded(number: float, form: str | None) -> list[float] | str:
    return base64.b64encode(struct.pack("<f", number)).decode() if form == "base64" else [number]


async def _rewards(service: Service, call: Call[Any, None]) -> tuple[list[float], RerankUsage]:
    """Return the reward of each chat, and the token usage.

    Raises:
        Refusal: the judge is not scalar, a chat cannot be read, or its reward is not finite.
    """
    asked, budget = call.body, call.budget
    require_model(asked.model, service)
    if not service.batcher.model.engine.deterministic:
        raise Refusal(422, _COMPARES, "model")
    require_neutral(asked.model_extra, _NEUTRAL, "is not supported: chats are scored as the judge was trained")
    chats = await service.read(budget, lambda: _chats(asked, service.settings))
    for chat in chats:
        budget.responses(1, chat.field)
        budget.text(text_of(chat.question), f"{chat.field} (question)")
        budget.text(text_of(chat.response), f"{chat.field} (response)")
    budget.judgments(len(chats), votes=1, both_orders=False, field=chats[0].field.partition("[")[0])
    opened = await service.open([chat.unopened for chat in chats], budget)
    candidates = [(question, images, response) for images, (question, response) in opened]
    scores = await service.in_rounds(budget, lambda model: model.scores(candidates))
    for chat, score in zip(chats, scores, strict=True):
        if not math.isfinite(score.reward):
            raise Refusal(502, "the judge's reward is not a finite number", chat.field)
    tokens = sum(score.tokens for score in scores)
    return [score.reward for score in scores], RerankUsage(completion_tokens=tokens, total_tokens=tokens)


# The request.


class _Chat(NamedTuple):
    """A question and a response, with named pictures."""

    field: str
    """The chat's field, named in messages."""
    question: Content
    images: list[Any]
    """Pictures in front of the question."""
    response: Content

    @property
    def unopened(self) -> Unopened:
        contents = {f"{self.field} (question)": self.question, f"{self.field} (response)": self.response}
        return Unopened(contents, self.images, f"{self.field} (pictures)")


def _chats(asked: _Request, settings: ServerSettings) -> list[_Chat]:
    """Return the chats of a request; raises Refusal if one has no response or lacks its pictures."""
    if (asked.input is None) == (asked.messages is None):
        raise Refusal(422, "send either input or messages: chats that end with the assistant's response")
    if asked.messages is not None:
        *before, last = read_messages(asked.messages, settings)
        if last.role != "assistant":
            raise Refusal(422, "must end with the response, an assistant message", "messages")
        field = f"messages[{len(before)}].content"
        return [_chat("messages", before, joined(_linked(last.pieces, field)))]
    if isinstance(asked.input, str):
        return [_in_template(asked.input, "input")]
    if not asked.input:
        raise Refusal(422, "is empty; send at least one chat", "input")
    return [_in_template(text, f"input[{number}]") for number, text in enumerate(asked.input or ())]


def _in_template(text: str, field: str) -> _Chat:
    if not turn_starts(text):
        raise Refusal(422, _NO_CHAT, field)
    *before, last = read_turns(text)
    if last.role != "assistant":
        raise Refusal(422, _NO_CHAT, field)
    return _chat(field, before, clean("".join(piece for piece in last.pieces if isinstance(piece, str))))


def _chat(field: str, before: Sequence[Turn], response: Content) -> _Chat:
    try:
        prompt = ask(before)
    except PromptError as error:
        raise Refusal(422, str(error), field) from error
    question = map_media(prompt.question, lambda place: linked(place.source, field))
    if blank(question):
        raise Refusal(422, "has a blank question", field)
    images = [linked(source, field).source for source in prompt.images]
    return _Chat(field, question, images, or_empty(response))


def _linked(pieces: Sequence[Piece], field: str) -> list[Piece]:
    """Return pieces with every picture named."""
    return [piece if isinstance(piece, str) else Place("image", linked(piece.source, field)) for piece in pieces]
