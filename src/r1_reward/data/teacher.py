"""The teacher: which model it is, how a hosted one is asked, and what its replies are worth.

A hosted teacher answers one request at a time over the OpenAI chat protocol, as many at once as the caller likes, and
every reply is there the moment it comes: it has been paid for::

    async with ServerTeacher("gpt-4o", "https://api.openai.com/v1", api_key=key) as teacher:
        reply = await teacher.ask(messages, seed=0, temperature=0.0, max_new_tokens=1024)
    answer, problem = read_reply(reply.completion, refused=reply.refused)

What a reply belongs to is known from its connection alone. A server that mixes up its replies cannot be found out:
nothing in a judgement names the pair it judges.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import openai

from r1_reward.engines import chat_protocol
from r1_reward.engines.chat_protocol import LATER, Dialect, Failure, excerpt, retry_after
from r1_reward.engines.engine import EngineError, Generative
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import parse_judgment
from r1_reward.records.prompt import neutralize
from r1_reward.records.schema import Answer, Completion

OPENAI = "https://api.openai.com/v1"
_LONGEST_WAIT = 120.0  # seconds between two tries; a server that asks for more has its request given up
_CONNECT_TIMEOUT = 10.0
_VERDICT_AT_THE_END = re.compile(r"</think>\s*<answer>\s*([12])\s*</answer>\Z")


class TeacherSpec(NamedTuple):
    """Which model teaches: one behind a server, or a checkpoint in this process if there is no URL."""

    model: str
    url: str | None = None

    @property
    def name(self) -> str:
        """Return what the teacher is called in files: a server may move, its model is the same teacher."""
        return self.model if self.url is None else f"{'openai' if self.url == OPENAI else 'server'}:{self.model}"

    def load(self, *, batch_size: int = 64, concurrency: int = 16) -> Generative:
        """Return an engine that generates with the model; raises UserError if it cannot be loaded."""
        if self.url is not None:
            from r1_reward.engines.server import ServerEngine

            return ServerEngine(self.model, self.url, concurrency=concurrency)
        from r1_reward.engines.in_process import TransformersEngine
        from r1_reward.models.checkpoint import load_model_and_processor
        from r1_reward.models.placing import placed

        return TransformersEngine(*placed(lambda: load_model_and_processor(self.model)), batch_size=batch_size)


def parse_teacher(text: str) -> TeacherSpec:
    """Read ``openai:MODEL``, ``server:MODEL@URL``, or else a checkpoint; raises UserError for half of one."""
    kind, _, rest = text.partition(":")
    if kind == "openai":
        if not rest:
            raise UserError("--teacher openai: names no model; write openai:MODEL, such as openai:gpt-4o.")
        return TeacherSpec(rest, OPENAI)
    if kind == "server":
        match = re.fullmatch(r"(.+?)@(https?://.+)", rest)
        if match is None or not _host(match[2]):
            raise UserError(
                f"--teacher {text}: write server:MODEL@URL, such as server:Qwen2.5-VL-72B@http://localhost:8000/v1."
            )
        return TeacherSpec(match[1], match[2])
    if not text:
        raise UserError("--teacher is empty; write openai:MODEL, server:MODEL@URL, or a checkpoint's path.")
    return TeacherSpec(text)


def _host(url: str) -> str:
    """Return host, port and path of a URL, without a password in it; nothing if it is none."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.hostname}{port}{parts.path}" if parts.hostname else ""


class RejectedError(EngineError):
    """The server will never take this request: its text is too long, or a filter does not let it pass."""


class TeacherReply(NamedTuple):
    """What came back from a server."""

    completion: Completion
    prompt_tokens: int | None
    """None if the server does not count them."""
    refused: bool
    """Whether the server says that the model declined, or that a filter cut it off."""


class Pace:
    """Spaces requests evenly, so that no minute has more of them than allowed."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Return the seconds until the next free place, which is taken with this call."""
        place = max(now, self._next)
        self._next = place + self._gap
        return place - now


class ServerTeacher:
    """A model behind an OpenAI-compatible server; a context manager, within one event loop."""

    special_tokens: tuple[str, ...] = ()
    """Nothing is known about the server's tokenizer."""

    def __init__(
        self,
        model: str,
        url: str,
        *,
        api_key: str | None = None,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        backoff: float = 1.0,
    ) -> None:
        """Name a model as the server does, and the URL before ``/chat/completions``.

        ``api_key`` defaults to ``OPENAI_API_KEY``; only OpenAI itself insists on one. ``timeout`` is the seconds a try
        may take up to its last byte. A failed try is repeated ``retries`` times, after ``backoff`` seconds at first
        and twice as long each time, or when ``Retry-After`` says. ``requests_per_minute`` counts the repeated ones.

        Raises:
            UserError: OpenAI is asked without a key, or a number is out of range.
        """
        key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not key and url == OPENAI:
            raise UserError("OpenAI wants a key: set OPENAI_API_KEY, or name a server of your own (server:MODEL@URL).")
        if not (key.isascii() and key.isprintable()):
            raise UserError("the API key has characters that no key has; copy it again.")
        if not timeout > 0 or retries < 0 or not backoff >= 0 or (requests_per_minute or 1) <= 0:
            raise UserError(
                f"timeout {timeout}, retries {retries}, backoff {backoff}, requests a minute {requests_per_minute}: "
                "more than 0 seconds and requests, and no negative numbers."
            )
        self.model, self.url, self.timeout, self.retries, self.backoff = model, url, timeout, retries, backoff
        self._key, self._name = key, f"teacher {model} at {_host(url)}"
        self._pace = Pace(requests_per_minute)
        self._dialect = Dialect(logprobs=False)
        self._answered = False

    async def __aenter__(self) -> ServerTeacher:
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.url,
            timeout=openai.Timeout(self.timeout, connect=min(self.timeout, _CONNECT_TIMEOUT)),
            max_retries=0,  # the library would not retry half a JSON
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(
        self, messages: list[dict[str, Any]], *, seed: int, temperature: float, max_new_tokens: int
    ) -> TeacherReply:
        """Return the reply to a chat in the form that :func:`r1_reward.engines.chat_protocol.chat_messages` gives it.

        Raises:
            EngineError: this request was not answered; others may be. :class:`RejectedError` if it never will be.
            UserError: no request will be.
        """
        tries, dialect = 0, self._dialect
        while True:
            await asyncio.sleep(self._pace.delay(asyncio.get_running_loop().time()))
            try:
                reply = await self._try(messages, dialect, dialect.options(seed, temperature, max_new_tokens))
            except _Refused as refused:
                dialect = refused.dialect
            except Failure as failure:
                tries += 1
                if tries > self.retries or not failure.again or failure.delay > _LONGEST_WAIT:
                    count = f"{tries} {'try' if tries == 1 else 'tries'}"
                    if not failure.connected:
                        raise UserError(
                            f"{self._name} could not be reached in {count} ({failure}); {failure.advice}"
                        ) from failure
                    kind = EngineError if failure.again else RejectedError
                    raise kind(f"{self._name} gave no reply in {count} ({failure}); {failure.advice}") from failure
                pause = min(self.backoff * 2.0 ** min(tries - 1, 30), _LONGEST_WAIT) * random.uniform(0.75, 1.25)
                await asyncio.sleep(max(failure.delay, pause))
            else:
                self._dialect, self._answered = dialect, True
                return reply

    async def _try(self, messages: list[dict[str, Any]], dialect: Dialect, options: dict[str, Any]) -> TeacherReply:
        create: Any = self._client.chat.completions.with_raw_response.create
        try:
            # The client's own limit is on silence, and a byte now and then would keep it waiting for ever.
            reply = await asyncio.wait_for(create(model=self.model, messages=messages, **options), self.timeout)
        except openai.APIStatusError as error:
            raise self._status_error(error, dialect) from error
        except (openai.APIConnectionError, asyncio.TimeoutError) as error:
            cause = error.__cause__ or error
            # By name, because the client's HTTP library differs between its versions.
            if type(cause).__name__ in ("ConnectError", "ConnectTimeout"):
                said = excerpt(f"{type(cause).__name__}: {cause}")
                raise Failure(said, "start it or check the URL", connected=False) from error
            if isinstance(error, (openai.APITimeoutError, asyncio.TimeoutError)):
                advice = "raise --timeout, or lower --concurrency"
                raise Failure(f"no complete answer within {self.timeout:g} seconds", advice) from error
            raise Failure(excerpt(f"the connection broke off ({cause})"), LATER) from error
        completion = chat_protocol.read_reply(reply.content, reply.headers.get("content-type", "application/json"))
        return TeacherReply(completion, *_more_of(reply.content))

    def _status_error(self, error: openai.APIStatusError, dialect: Dialect) -> Exception:
        """Return what an HTTP status means for the run."""
        status, body = error.status_code, error.response.text
        if status < 500 and (other := dialect.without(body)) != dialect:
            return _Refused(other)
        if len(self._key) >= 8:  # some servers quote it
            body = body.replace(self._key, "[the key]")
        said = f"{status}: {excerpt(body[:2000])}" if body.strip() else str(status)
        if status == 401:
            return UserError(f"{self._name} refuses the API key ({said}); set OPENAI_API_KEY to the right one.")
        if status == 402 or "insufficient_quota" in body:
            return UserError(f"{self._name}: the account's money is used up ({said}); the same command goes on later.")
        if status in (403, 404) and not self._answered:  # later on, gateways say 403 to a single text they filter
            return UserError(f"{self._name} is not there for this key ({said}); check model, key and URL.")
        if status in (408, 409, 429) or status >= 500:
            delay = retry_after(error.response.headers.get("retry-after"))
            asked = f", and asks to wait {delay:.0f} seconds" if delay > _LONGEST_WAIT else ""
            advice = "lower --concurrency or --requests-per-minute" if status == 429 else LATER
            return Failure(f"it answers {said}{asked}", advice, delay=delay)
        return Failure(f"it answers {said}", "the server will not take this request as it is", again=False)


class _Refused(Exception):
    """The server takes the request only in another dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect


def _more_of(body: bytes) -> tuple[int | None, bool]:
    """Return from a valid reply what a completion has no place for: tokens of the prompt, whether it is a refusal."""
    reply = json.loads(body)
    count = (reply.get("usage") or {}).get("prompt_tokens")
    choice = reply["choices"][0]
    declined = choice["message"].get("content") is None and bool(choice["message"].get("refusal"))
    counted = isinstance(count, int) and not isinstance(count, bool) and count >= 0
    return count if counted else None, declined or choice.get("finish_reason") == "content_filter"


def read_reply(
    completion: Completion, *, refused: bool = False, special_tokens: tuple[str, ...] = ()
) -> tuple[Answer | None, str]:
    """Return the verdict in the order shown, and what is wrong with the reply.

    Without a verdict the problem is one of ``refused``, ``truncated``, ``empty``, ``no answer tag``,
    ``several answers`` and ``no verdict``. With one, it says why the text may not be trained on: ``malformed``,
    ``no reasoning``, ``control token`` (one that would end the turn or add an image in training); else it is empty.
    A reply that reached the token limit is no verdict, since nobody knows what would have come next.
    """
    if refused or completion.truncated:
        return None, "refused" if refused else "truncated"
    if not completion.text.strip():
        return None, "empty"
    text = tidy(completion.text)
    parsed = parse_judgment(text)
    if parsed.answer is None:
        tail = text.rpartition("</think>")[2]
        if "<answer>" not in tail:
            return None, "no answer tag"
        return None, "several answers" if max(tail.count("<answer>"), tail.count("</answer>")) > 1 else "no verdict"
    if not parsed.well_formed:
        return parsed.answer, "malformed"
    if not parsed.reasoning:
        return parsed.answer, "no reasoning"
    hostile = neutralize(parsed.reasoning, special_tokens) != parsed.reasoning
    return parsed.answer, "control token" if hostile else ""


def tidy(text: str) -> str:
    """Return a judgement without the white space around its two parts and its digit; many teachers put a line there."""
    return _VERDICT_AT_THE_END.sub(r"</think><answer>\1</answer>", text.strip())
