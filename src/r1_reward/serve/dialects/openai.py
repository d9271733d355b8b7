"""OpenAI's chat protocol: the request is a judging prompt with two responses, the answer is the judgment.

    client = openai.OpenAI(base_url="http://localhost:8000/v1", api_key="none")
    prompt = r1_reward.build_prompt("Which digit?", "A three.", "An eight.")
    client.chat.completions.create(model="R1-Reward", messages=[{"role": "user", "content": prompt}])

The prompt's wording is parsed (:mod:`r1_reward.records.asked`), so that the same limits apply to its pictures and texts
as on every other route. The judge sees the responses in the order of the prompt. A prompt in the judge's own dialect
gets the judge's text verbatim; a prompt in another dialect gets its reasoning and verdict in that form. Anything that
is not a comparison is refused, and so is every parameter that would be ignored.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from r1_reward.judge.completions import Ask
from r1_reward.judge.prepare import PairToJudge
from r1_reward.judge.votes import content_number
from r1_reward.records.asked import Asked, NotAComparison, in_form, take_apart
from r1_reward.records.content import Piece, Place, blank, text_of
from r1_reward.records.dialect import Dialect
from r1_reward.records.schema import Completion
from r1_reward.serve.batching import Writing
from r1_reward.serve.chats import PromptError, Turn, read_turn
from r1_reward.serve.errors import Refusal
from r1_reward.serve.pictures import Named
from r1_reward.serve.routes import Call, ErrorForm, Route
from r1_reward.serve.schemas import UrlImage
from r1_reward.serve.service import Service, Unopened
from r1_reward.serve.settings import ServerSettings

_INSTRUCTING = ("system", "developer")
_CONTENTS = ("question", "response 1", "response 2")
_LONGEST_WORDING = 20_000  # characters of a prompt besides the question and the responses
_SURE = -9999.0  # OpenAI's log-probability of an impossible token
# Values without an effect are accepted, since clients fill in defaults; anything else would change the judgment.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    # sampling, and where it stops
    **dict.fromkeys(("top_p", "best_of", "repetition_penalty", "length_penalty"), (1,)),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "min_p", "min_tokens"), (0,)),
    **dict.fromkeys(("stop", "stop_token_ids", "bad_words", "allowed_token_ids", "logits_processors"), ([], "")),
    **dict.fromkeys(("use_beam_search", "ignore_eos", "echo", "continue_final_message"), (False,)),
    **dict.fromkeys(("logit_bias", "structured_outputs", "chat_template_kwargs", "mm_processor_kwargs"), ({},)),
    "top_k": (-1, 0),
    "reasoning_effort": (),
    # the form of the output
    **dict.fromkeys(("tools", "functions", "documents"), ([],)),
    **dict.fromkeys(("tool_choice", "function_call"), ("none", "auto")),
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar", "regex", "ebnf"), ()),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    **dict.fromkeys(("audio", "web_search_options", "prompt_logprobs"), ()),
    # what the judge is shown
    "chat_template": (),
    "add_generation_prompt": (True,),
    "truncate_prompt_tokens": (-1,),
}


class Message(BaseModel):
    """One turn: its text, or texts and pictures in order."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    """What the end of a stream contains."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A judging prompt, and how to sample its judgments; other keys are accepted if they have no effect."""

    model_config = ConfigDict(extra="allow", strict=True)

    messages: list[Message] = Field(min_length=1, description="One user message: the prompt of a dialect.")
    model: str | None = Field(default=None, description="The model's name in ``GET /v1/models``.")
    n: Annotated[int, Field(ge=1)] | None = Field(default=None, description="The number of judgments.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=None, description="Default 0 for one judgment, 1 for several."
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Maximum tokens of a judgment; the server's own limit also applies."
    )
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = Field(default=None, description="By default derived from the prompt.")
    logprobs: bool | None = Field(default=None, description="Return the probability of the verdict's token.")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = Field(default=None, description="Send server-sent events once the judgment is complete.")
    stream_options: StreamOptions | None = None


class Answered(BaseModel):
    """What the judge wrote."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class TopLogprob(BaseModel):
    """A token and the natural logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    """A token with its alternatives."""

    top_logprobs: list[TopLogprob] = Field(default_factory=list)


class Logprobs(BaseModel):
    """The text as three tokens: before, at and after the verdict; only the verdict has alternatives."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(BaseModel):
    """One judgment."""

    index: int
    message: Answered
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length", "content_filter"]


class Usage(BaseModel):
    """Token counts; prompt tokens are 0 if the judge's engine does not count them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatResponse(BaseModel):
    """Judgments of one pair."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Model(BaseModel):
    """The served judge."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "r1-reward"


class ModelList(BaseModel):
    """A list of the one served judge."""

    object: Literal["list"] = "list"
    data: list[Model]


class ErrorOut(BaseModel):
    """What is wrong, and in which field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error in the form of OpenAI and vLLM."""

    error: ErrorOut


_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


def error_body(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal in OpenAI's form."""
    kind = "server_error" if refusal.status >= 500 else _TYPES.get(refusal.status, "invalid_request_error")
    code = _CODES.get(refusal.status)
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.field, "code": code}}


STATUSES, NO_MODEL = {422: 400}, {404: "No such model."}
ERRORS = ErrorForm(ErrorBody, error_body, STATUSES, NO_MODEL)


def routes(_: ServerSettings) -> tuple[Route, ...]:
    """Return the two routes that chat clients use."""
    return (
        Route("/v1/models", None, ModelList, models, errors=ERRORS),
        Route("/v1/chat/completions", ChatRequest, ChatResponse, chat, errors=ERRORS, streams=True),
    )


async def models(service: Service, _: Call[Any, None]) -> ModelList:
    """Return the name of the served judge."""
    return ModelList(data=[Model(id=service.settings.model_name, created=service.started)])


async def chat(service: Service, call: Call[ChatRequest, None]) -> ChatResponse | Response:
    """Judge the two responses of a judging prompt in its order, and return the judge's text."""
    asked, budget = call.body, call.budget
    require_model(asked.model, service)
    require_neutral(asked.model_extra, _NEUTRAL, "is not supported: judgments have a fixed form")
    judge = service.batcher.model
    count = asked.n or 1
    if count > 1 and judge.engine.deterministic:
        raise Refusal(422, f"a scalar reward model returns the same judgment {count} times; ask for one", "n")
    budget.judgments(1, votes=count, both_orders=False, field="n", votes_field="n")
    prompt = await service.read(budget, lambda: _read_prompt(asked.messages, service.settings))
    field = f"messages[{len(asked.messages) - 1}].content"
    contents = dict(zip(_CONTENTS, (prompt.question, *prompt.responses), strict=True))
    for name, content in contents.items():
        budget.text(text_of(content), f"{field} ({name})")
    images = [named.source for named in prompt.pictures]
    ((opened, (question, first, second)),) = await service.open([Unopened(contents, images, field)], budget)
    temperature = asked.temperature if asked.temperature is not None else float(count > 1)
    limits = (asked.max_tokens, asked.max_completion_tokens, judge.max_new_tokens)
    writing = Writing(temperature, min(limit for limit in limits if limit is not None))
    ask = Ask(PairToJudge(question, opened, first, second), _seeds(asked, count, judge.seed))
    completions = await service.write(ask, writing, budget)
    answer = _response(completions, asked, service.settings.model_name, prompt.dialect, judge.engine.dialect)
    if not asked.stream:
        return answer
    include_usage = asked.stream_options is not None and asked.stream_options.include_usage
    return StreamingResponse(_events(answer, include_usage), media_type="text/event-stream")


def require_model(name: str | None, service: Service) -> None:
    """Raise Refusal if a request names another model than the served one; OWNER/NAME matches NAME."""
    served = service.settings.model_name
    if name and served not in (name, name.rpartition("/")[2]):
        raise Refusal(404, f"no model {name[:100]!r} on this server; it serves {served!r}", "model")


def require_neutral(sent: Mapping[str, Any] | None, neutral: Mapping[str, tuple[Any, ...]], reason: str) -> None:
    """Raise Refusal if a request has one of these keys with a value other than its neutral ones."""
    for name, value in (sent or {}).items():
        if name in neutral and value is not None and value not in neutral[name]:
            raise Refusal(422, f"{name} {reason}; leave it out", name)


# The request.


def _read_prompt(messages: Sequence[Message], settings: ServerSettings) -> Asked:
    """Return the comparison in a chat, with its pictures named.

    Raises:
        Refusal: the chat is not a comparison of two responses.
    """
    turns = read_messages(messages, settings)
    told = [turn for turn in turns if turn.role in _INSTRUCTING]
    rest = [turn for turn in turns if turn.role not in _INSTRUCTING]
    if len(rest) != 1 or rest[0].role != "user":
        said = ", ".join(turn.role[:20] for turn in rest[:4]) or "none"
        reason = (
            f"must be one user message with a question and two responses, optionally after system messages; got {said}"
        )
        raise Refusal(422, reason, "messages")
    if any(isinstance(piece, Place) for turn in told for piece in turn.pieces):
        raise Refusal(422, "a system message has a picture; put it into the user message", "messages")
    pieces = _named(rest[0], f"messages[{turns.index(rest[0])}].content")
    system = "\n".join(piece for turn in told for piece in turn.pieces if isinstance(piece, str))
    longest = 3 * settings.max_chars + _LONGEST_WORDING
    length = len(system) + sum(len(piece) for piece in pieces if isinstance(piece, str))
    if length > longest:
        reason = f"{length:,} characters; this server takes at most {settings.max_chars:,} per response (--max-chars)"
        raise Refusal(422, reason, "messages")
    try:
        asked = take_apart(system, pieces)
    except NotAComparison as error:
        raise Refusal(422, f"this chat {error}", "messages") from error
    for name, content in zip(_CONTENTS, (asked.question, *asked.responses), strict=True):
        if blank(content):
            raise Refusal(422, f"the {name} in the prompt is blank", "messages")
    return asked


def read_messages(messages: Sequence[Message], settings: ServerSettings) -> list[Turn]:
    """Return the turns of a chat; raises Refusal if it has too many parts, or an unsupported part."""
    turns: list[Turn] = []
    size = sum(len(message.content or ()) for message in messages if not isinstance(message.content, str))
    if size > 3 * settings.max_parts:
        most = f"{size:,} parts; this server takes at most {3 * settings.max_parts} (three times --max-parts)"
        raise Refusal(422, most, "messages")
    for number, message in enumerate(messages):
        try:
            turns.append(read_turn(message.role, message.content))
        except PromptError as error:
            raise Refusal(422, str(error), f"messages[{number}]") from error
    return turns


def linked(source: Any, name: str) -> Named:
    """Return the picture of a message part; raises Refusal if the part has none."""
    if source is None:
        raise Refusal(422, "has a placeholder for an image, but none was given", name)
    if not isinstance(source, str):
        raise Refusal(422, "must give its picture as text: a data URL, or a URL", name)
    return Named(UrlImage(url=source), name)


def _named(turn: Turn, field: str) -> list[Piece]:
    """Return the pieces of a turn with every picture named."""
    pieces: list[Piece] = []
    for piece in turn.pieces:
        if isinstance(piece, Place):
            name = f"{field} (picture {1 + sum(isinstance(one, Place) for one in pieces)})"
            piece = Place("image", linked(piece.source, name))
        pieces.append(piece)
    return pieces


def _seeds(asked: ChatRequest, count: int, seed: int) -> tuple[int, ...]:
    """Return a seed for each judgment: the requested seed and others derived from it, or else from the prompt."""
    if asked.seed is not None:
        return (asked.seed, *(content_number("chat", asked.seed, number) for number in range(1, count)))
    said = json.dumps([message.model_dump() for message in asked.messages])
    return tuple(content_number("chat", seed, said, number) for number in range(count))


# The answer.


def _response(
    completions: Sequence[Completion], asked: ChatRequest, model: str, dialect: Dialect, judge: Dialect
) -> ChatResponse:
    choices = []
    for number, one in enumerate(completions):
        told = in_form(dialect, judge, one.text, cut=one.cut, probability=one.probability)
        text = told.encode("utf-8", "replace").decode()
        logprobs = _logprobs(text, one.probability, dialect) if asked.logprobs else None
        finish: Any = "content_filter" if one.refused else "length" if one.truncated else "stop"
        choices.append(Choice(index=number, message=Answered(content=text), logprobs=logprobs, finish_reason=finish))
    shown, written = completions[0].prompt_tokens or 0, sum(one.tokens for one in completions)
    usage = Usage(prompt_tokens=shown, completion_tokens=written, total_tokens=shown + written)
    name = f"chatcmpl-{uuid.uuid4().hex}"
    return ChatResponse(id=name, created=int(time.time()), model=model, choices=choices, usage=usage)


def _logprobs(text: str, probability: float | None, dialect: Dialect) -> Logprobs | None:
    """Return the log-probabilities of the two verdicts at the verdict's place, or None if they are unknown."""
    at = dialect.place(text)
    if probability is None or at is None or dialect.verdicts is None or text[at] not in dialect.verdicts:
        return None
    first, second = dialect.verdicts
    known = {first: _log(probability), second: _log(1 - probability)}
    either = [_top(verdict, known[verdict]) for verdict in sorted(known, key=known.__getitem__, reverse=True)]
    spoken = TokenLogprob(**_top(text[at], known[text[at]]).model_dump(), top_logprobs=either)
    around = [TokenLogprob(**_top(part, 0.0).model_dump()) if part else None for part in (text[:at], text[at + 1 :])]
    return Logprobs(content=[token for token in (around[0], spoken, around[1]) if token is not None])


def _top(token: str, logprob: float) -> TopLogprob:
    return TopLogprob(token=token, logprob=logprob, bytes=list(token.encode()))


def _log(probability: float) -> float:
    return max(math.log(probability), _SURE) if probability > 0 else _SURE


async def _events(answer: ChatResponse, include_usage: bool) -> AsyncIterator[str]:
    """Yield an answer as server-sent events, each judgment in one piece, since it is already complete."""
    head = {"id": answer.id, "object": "chat.completion.chunk", "created": answer.created, "model": answer.model}

    def event(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> str:
        told = {"usage": usage} if include_usage else {}
        return f"data: {json.dumps({**head, 'choices': choices, **told})}\n\n"

    for choice in answer.choices:
        logprobs = None if choice.logprobs is None else choice.logprobs.model_dump()
        part = {"index": choice.index, "finish_reason": None, "logprobs": None}
        yield event([{**part, "delta": {"role": "assistant", "content": ""}}])
        yield event([{**part, "delta": {"content": choice.message.content}, "logprobs": logprobs}])
        yield event([{**part, "delta": {}, "finish_reason": choice.finish_reason}])
    if include_usage:
        yield event([], answer.usage.model_dump())
    yield "data: [DONE]\n\n"
