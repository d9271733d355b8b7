"""The one client for OpenAI-compatible chat servers, used for judges, referees and teachers alike.

The ``openai`` library retries failures, waits between tries and obeys ``Retry-After``. This module adds:

- Each try has a time limit as a whole (the library only limits silence) and a rate limit, is counted, and fails if a
  200 response has no complete completion.
- A parameter that a server refuses (``temperature``, ``seed``, ``logprobs``, ...) is left out from then on. The loss is
  logged once and kept in ``usage.refused`` for the run's report.
- Several servers share the work; a request that one fails to answer goes to the others at once. If a server rejects a
  request because too many are in flight, it waits for a place while fewer are in flight.
- Errors say who failed, why, and what to do. If every request would fail (a wrong key, an unknown model, no credit, no
  server), the error is a ``UserError``; if only one does, it is a :class:`ServerError`, or a :class:`RejectedError` if
  the server will never accept that request.

:class:`~r1_reward.engines.server.ServerEngine` runs it in a thread; nothing else uses it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Coroutine, Sequence
from importlib import import_module
from typing import Any, TypeVar

import openai

from r1_reward.engines.chat_protocol import LATER, Failure, excerpt, read_replies, retry_after
from r1_reward.engines.dialect import Dialect
from r1_reward.engines.engine import EngineError, ReadsTextOnly, Request
from r1_reward.engines.length import SHORTER, PromptTooLong, says_too_long
from r1_reward.engines.proxies import client_options, proxy_advice
from r1_reward.engines.refusals import disguised_status, is_refusal, reads_text_only, used_up
from r1_reward.engines.server_pool import LONGEST_WAIT, MOST, Pool, Server
from r1_reward.engines.usage import Usage
from r1_reward.records import dialect as judging
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")
OPENAI = "https://api.openai.com/v1"
TOO_LONG = "too long"
"""The kind of a :class:`TooLongError`."""
TEXT_ONLY = "text only"
"""The kind of a :class:`TextOnlyError`."""
_CONNECT_TIMEOUT = 10.0
_DEAD_ENGINE = re.compile(r"engine ?(?:core|dead)|engine (?:process|loop) (?:is |has )?(?:dead|died)", re.IGNORECASE)
_MAY_HAVE_DIED = (
    ". If it is vLLM on a CPU, our seeds may have crashed it: it cannot sample with a seed after a chunked prefill. "
    "Start it with --no-enable-chunked-prefill, or with a --max-num-batched-tokens, such as 16384, that holds all "
    "concurrent prompts"
)
_PER_CLIENT = 64  # concurrent requests: the HTTP library scans all connections of a client for every request
# The HTTP library that this version of `openai` is built on: httpx up to its version 2, httpx2 later.
_http: Any = import_module(openai.DefaultAsyncHttpxClient.__bases__[0].__module__.partition(".")[0])


class ServerError(EngineError):
    """One request was not answered; ``kind`` says why: "timeout", "no connection", "bad reply", "HTTP 500", ..."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class RejectedError(ServerError):
    """The server will never accept this request: its text is too long, or a filter blocks it."""


class TooLongError(RejectedError, PromptTooLong):
    """The prompt is longer than the server's model can read."""


class TextOnlyError(RejectedError, ReadsTextOnly):
    """The server's model reads text only, and the request shows pictures."""

    def __init__(self, model: str, pictures: int, said: str) -> None:
        ReadsTextOnly.__init__(self, model, pictures, said)
        self.kind = TEXT_ONLY


class ServerGone(UserError):
    """None of the servers can be reached."""


class Pace:
    """Spaces requests evenly, to stay within the requests allowed per minute."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Return the seconds until the next free place, and take that place."""
        place = max(now, self._next)
        self._next = place + self._gap
        return place - now


class ChatClient:
    """A model behind one server or several, within one event loop; see :class:`ServerEngine` for the arguments."""

    def __init__(
        self,
        model: str,
        base_url: str | Sequence[str] | None,
        *,
        api_key: str | None,
        concurrency: int | None,
        timeout: float,
        retries: int,
        limit: float | None,
        requests_per_minute: float | None,
        logprobs: bool,
        usage: Usage,
        verdicts: judging.Dialect,
    ) -> None:
        """Raise UserError if a URL is invalid or given twice, OpenAI has no key, or a number is out of range."""
        given = [base_url] if isinstance(base_url, str) else list(base_url or ())
        urls = [url for url in (*given, *([] if any(given) else [os.environ.get("OPENAI_BASE_URL")])) if url]
        self._key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not self._key and (not urls or OPENAI in urls):
            raise UserError("OpenAI requires a key: set OPENAI_API_KEY, or give the base URL of your own server")
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError("the API key contains invalid characters; check that it was copied correctly")
        positive = [value > 0 for value in (timeout, limit, requests_per_minute) if value is not None]
        if (concurrency is not None and concurrency < 1) or retries < 0 or not all(positive):
            open_ = "" if concurrency is None else f"concurrency {concurrency}, "
            raise UserError(
                f"{open_}timeout {timeout}, retries {retries}, limit {limit}, requests per minute "
                f"{requests_per_minute}: concurrency must be at least 1, retries at least 0, the others more than 0"
            )
        servers = [Server(url, Dialect(logprobs=logprobs)) for url in urls or [OPENAI]]
        if twice := [server.name for number, server in enumerate(servers) if server.url in urls[:number]]:
            raise UserError(f"{twice[0]} is given twice; raise the concurrency to send it more requests at once")
        self.model, self.retries, self.limit, self.usage = model, retries, limit, usage
        self.verdicts = verdicts
        self.pool = Pool(servers, concurrency)
        self.pace = Pace(requests_per_minute)
        self.timeout = timeout
        self._shares = -(-(concurrency or MOST) // _PER_CLIENT)
        self._clients: dict[tuple[str, int], openai.AsyncOpenAI] = {}
        self._no_pictures = ""  # the server's message that the model reads text only
        self._pictures_seen = False

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        clients = list(self._clients.values())
        self._clients = {}
        for client in clients:
            await client.close()

    async def complete(self, messages: list[dict[str, Any]], request: Request) -> list[Completion]:
        """Return the completions of one HTTP request: one for each seed, or fewer if the server ignores ``n``.

        ``messages`` are the request's, in the form of :func:`~r1_reward.engines.chat_protocol.chat_messages`.

        Raises:
            ServerError: this request was not answered; others may be.
            UserError: no request will be answered.
        """
        if request.images and self._no_pictures:
            raise TextOnlyError(self.model, len(request.images), self._no_pictures)
        clock = asyncio.get_running_loop().time
        rounds, left = 0, self.limit
        while True:
            # A waiting request keeps its slot: a struggling server should get fewer requests, not different ones.
            async with self.pool.slot():
                answers, began = self.pool.answers, clock()
                try:
                    return await _within(left, self._somewhere(messages, request))
                except TimeoutError as error:
                    names = ", ".join(server.name for server in self.pool.servers)
                    raise ServerError(
                        f"{names} returned no completion within {self.limit:g} seconds over all tries; "
                        "raise the timeout, or lower the concurrency",
                        "timeout",
                    ) from error
                except _Crowded as crowded:
                    others = crowded.full or self.pool.answers > answers  # it answers others meanwhile
                    if rounds == self.retries or not others:
                        raise crowded.error from crowded
                    rounds += 1
                    await asyncio.sleep(crowded.delay)
                    left = None if left is None else max(left - (clock() - began), 0.0)
            # It has given up its slot, so it queues again for one of the places that are left.

    async def _somewhere(self, messages: list[dict[str, Any]], request: Request) -> list[Completion]:
        """Ask one server after another, and retry only on the last one that is open."""
        pool, tries = self.pool, 0
        tried: set[Server] = set()
        while True:
            async with pool.place(tried) as server:
                tried.add(server)
                last = not pool.others(tried)
                failures_before = server.failures
                try:
                    completions = await self._ask(server, messages, request, self.retries if last else 0)
                except _Unanswered as unanswered:
                    failure, tries = unanswered.failure, tries + unanswered.tries
                    if failure.again:
                        pool.failed(server, failure, failures_before)
                    crowded = failure.delay <= self.longest_wait and pool.says_busy(failure)
                    full = pool.full(server)
                else:
                    pool.answered(server)
                    return completions
            if failure.again and not last:
                continue
            if failure.kind == TEXT_ONLY:
                raise self._blind(server, failure, request) from failure
            error = self._given_up(server, failure, tries)
            raise (_Crowded(error, failure.delay, full) if crowded else error) from failure

    def _blind(self, server: Server, failure: Failure, request: Request) -> TextOnlyError:
        """Return the error for a request with pictures; unless one was answered before, no more are sent."""
        said = f"{server.name}: {failure}"
        if not self._pictures_seen and not self._no_pictures:
            self._no_pictures = said
            self.usage.refused.append(f"{server.name} refuses pictures: requests with pictures get no answer")
            _LOG.warning("%s (%s)", self.usage.refused[-1], failure)
        return TextOnlyError(self.model, len(request.images), said)

    def _given_up(self, server: Server, failure: Failure, tries: int) -> UserError:
        """Return the error that ends the run, or only the request, after its last try."""
        if not failure.connected and self.pool.gone():
            words = "; ".join(f"{one.name} cannot be reached ({one.refusal})" for one in self.pool.servers)
            words = words if len(self.pool.servers) == 1 else f"no server is left: {words}"
            died = any(one.heard and one.sampled for one in self.pool.servers)
            return ServerGone(f"{words}; {failure.advice}{_MAY_HAVE_DIED if died else ''}")
        kind = ServerError if failure.again else TooLongError if failure.kind == TOO_LONG else RejectedError
        count = f"{tries} {'try' if tries == 1 else 'tries'}"
        return kind(f"{server.name} returned no completion in {count} ({failure}); {failure.advice}", failure.kind)

    async def _ask(
        self, server: Server, messages: list[dict[str, Any]], request: Request, retries: int
    ) -> list[Completion]:
        """Ask one server in the dialect it accepts."""
        dialect = server.dialect
        # A copy is cheap: it shares connections and settings.
        client = self._client(server).with_options(max_retries=retries)
        while True:
            wanted = len(request.seeds) if dialect.several else 1
            options = dialect.options(request.seeds[0], request.temperature, request.max_new_tokens, wanted)
            server.sampled = server.sampled or (request.temperature > 0 and "seed" in options)
            try:
                # Like `chat.completions.create`, but without its search through every message for files.
                body = {"model": self.model, "messages": messages, **options}
                response = await client.post("/chat/completions", body=body, cast_to=_http.Response)
            except openai.APIStatusError as error:
                about_options = is_refusal(error.status_code, error.response.text)
                poorer = dialect.without(error.response.text, options) if about_options else dialect
                if poorer == dialect:
                    refusal = self._refused(error.response, server, pictures=bool(request.images))
                    raise _Unanswered(refusal, error.request) from error
                dialect = poorer
            except openai.APIConnectionError as error:
                raise _Unanswered(_broken(error.__cause__ or error, server, self.timeout), error.request) from error
            except Failure as failure:
                raise _Unanswered(failure) from failure
            else:
                completions = response.extensions["completions"][:wanted]
                self._pictures_seen = self._pictures_seen or bool(request.images)
                self._learn(server, dialect, request.temperature)
                if len(completions) < wanted:
                    self._learn(server, dialect._replace(several=False), request.temperature, "ignores")
                return [_cut_at(request.max_new_tokens, completion) for completion in completions]

    def _learn(self, server: Server, dialect: Dialect, temperature: float, does: str = "refuses") -> None:
        """Record what a server refuses or ignores, now that it has answered, and log what is new."""
        before, server.dialect = server.dialect, server.dialect.joined(dialect)
        for loss in server.dialect.losses(before, temperature):
            if not any(known.endswith(loss) for known in self.usage.refused):  # once for all servers
                self.usage.refused.append(f"{server.name} {does} {loss}")
                _LOG.warning("%s", self.usage.refused[-1])

    def _client(self, server: Server) -> openai.AsyncOpenAI:
        key = (server.url, server.asked % self._shares)
        if key not in self._clients:
            limit = openai.Timeout(self.timeout, connect=min(self.timeout, _CONNECT_TIMEOUT))
            try:
                http_client = _Try(self, server)
            except (ImportError, ValueError, _http.InvalidURL) as error:
                raise UserError(
                    f"{server.name} cannot be asked: the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is not usable "
                    f"({excerpt(str(error))}); correct or unset it"
                ) from error
            self._clients[key] = openai.AsyncOpenAI(
                api_key=self._key or "none", base_url=server.url, timeout=limit, http_client=http_client
            )
        return self._clients[key]

    def _refused(self, response: Any, server: Server, *, pictures: bool) -> Failure:
        """Return the failure that an HTTP status means for one request; raise UserError if it affects all of them."""
        if (failure := response.extensions.get("failure")) is not None:
            return failure
        status, said = response.status_code, self.words(response)
        if pictures and reads_text_only(response.text):
            self.usage.failures += not _may_pass(status)  # else it was counted on arrival
            return Failure(f"it answers {said}", "judge these with a vision model", TEXT_ONLY, again=False)
        proxied = proxy_advice(server.url)
        if what := used_up(status, response.text):
            raise UserError(
                f"{server.name}: {what} is used up ({said}); top it up or wait until it renews, then run the same "
                "command again: finished answers are kept"
            )
        if status == 401:
            raise UserError(f"{server.name} rejects the API key ({said}); set OPENAI_API_KEY or pass the correct key")
        if status == 407:
            raise UserError(f"the proxy for {server.name} requires a password ({said}){proxied}")
        if status == 403 and not server.answered:  # later, it may be a gateway that filters a single text
            raise UserError(f"{server.name} does not let this key use the model {self.model!r} ({said}){proxied}")
        if status == 404:
            raise UserError(
                f"{server.name} does not know the model {self.model!r}, or has nothing at this address ({said}); "
                f"check the name, and that the base URL ends before /chat/completions, usually in /v1{proxied}"
            )
        if _may_pass(status):
            delay = retry_after(response.headers.get("retry-after"))
            asked = f", and asks to wait {delay:.0f} seconds" if delay > self.longest_wait else ""
            advice = "lower the concurrency or the requests per minute, or run again later" if status == 429 else LATER
            advice += _MAY_HAVE_DIED if server.sampled and _DEAD_ENGINE.search(response.text) else ""
            return Failure(f"it answers {said}{asked}", advice + proxied, f"HTTP {status}", delay=delay)
        self.usage.failures += 1
        if says_too_long(response.text):
            advice = f"the prompt is too long for its model: {SHORTER}, or ask for fewer new tokens"
            return Failure(f"it answers {said}", advice, TOO_LONG, again=False)
        advice = "the server will not accept this request"
        return Failure(f"it answers {said}", advice, f"HTTP {status}", again=False)

    def words(self, response: Any) -> str:
        """Return the status and text of a refusal, with the key redacted."""
        status, body = response.status_code, response.text
        if len(self._key) >= 8:  # some servers quote it
            body = body.replace(self._key, "[the key]")
        return f"{status}: {excerpt(body[:2000])}" if body.strip() else str(status)

    @property
    def longest_wait(self) -> float:
        """Return the longest ``Retry-After``, in seconds, that a request waits for."""
        return LONGEST_WAIT if self.limit is None else min(self.limit, LONGEST_WAIT)


class _Crowded(Exception):
    """A server was too busy for a request; ``error`` is what to raise if it stays so."""

    def __init__(self, error: UserError, delay: float, full: bool) -> None:
        self.error, self.delay, self.full = error, delay, full


class _Unanswered(Exception):
    """A server did not answer a request in ``tries`` tries."""

    def __init__(self, failure: Failure, request: Any = None) -> None:
        self.failure = failure
        self.tries = 1 + int(request.headers.get("x-stainless-retry-count", 0) if request is not None else 0)


class _Try(openai.DefaultAsyncHttpxClient):
    """The HTTP client that the library calls for every try: it sends the request and reads the reply."""

    def __init__(self, client: ChatClient, server: Server) -> None:
        super().__init__(**client_options(server.url))
        self._of, self._server = client, server

    async def send(self, request: Any, **options: Any) -> Any:
        """Return the response; the library retries on the HTTP library's errors and on a status that may pass."""
        client, server, usage = self._of, self._server, self._of.usage
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(client.pace.delay(clock()))
        usage.calls += 1
        started = clock()
        place = server.sent = server.sent + 1
        status = None
        try:
            response = await _within(client.timeout, super().send(request, **options))
            status = response.status_code
        except (TimeoutError, _http.RequestError) as error:
            failure = _broken(error, server, client.timeout)
            status = 408 if failure.kind == "timeout" else None
            self._note(failure)
            if not failure.connected and not client.pool.anybody_heard():
                raise failure from error  # unknown to the library, which therefore does not retry
            if isinstance(error, TimeoutError):
                raise _http.ReadTimeout(str(failure), request=request) from error
            raise
        finally:
            server.sent -= 1
            usage.request_seconds += (seconds := clock() - started)
            client.pool.took(server, seconds, client.timeout, status, place=place)
        server.heard, server.refusal = True, None
        if response.is_success:
            self._read(response)
        if not response.is_success and _may_pass(response.status_code) and "failure" not in response.extensions:
            self._note(Failure(f"it answers {client.words(response)}", LATER))
            wait = retry_after(response.headers.get("retry-after"))
            said = (response.status_code, response.text)
            blind = response.status_code in (500, 501) and reads_text_only(response.text)
            if wait > client.longest_wait or used_up(*said) or is_refusal(*said) or blind:
                response.headers["x-should-retry"] = "false"
        return response

    def _read(self, response: Any) -> None:
        try:
            kind = response.headers.get("content-type", "application/json")
            completions = read_replies(response.content, kind, self._of.verdicts)
        except Failure as failure:
            if (status := disguised_status(response.content)) is not None:  # an error in a 200
                response.status_code = status
                return
            self._note(failure)
            response.extensions["failure"] = failure
            # Reported to the library as a bad gateway, so that it retries.
            response.status_code, response.headers["x-should-retry"] = 502, "true"
        else:
            usage = self._of.usage
            usage.prompt_tokens += completions[0].prompt_tokens or 0
            usage.completion_tokens += sum(completion.tokens for completion in completions)
            response.extensions["completions"] = completions

    def _note(self, failure: Failure) -> None:
        usage, server = self._of.usage, self._server
        usage.failures += 1
        usage.last_failure = f"{server.name}{'' if failure.connected else ' cannot be reached'} ({failure})"
        if failure.connected:
            server.heard, server.refusal = True, None
        else:
            server.refusal = failure


async def _within(seconds: float | None, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return the result of ``work``, or raise TimeoutError after ``seconds``.

    ``asyncio.wait_for`` will not do: in Python 3.11 it loses a cancellation that arrives just as its work ends, and a
    limit around it would then wait forever.
    """
    async with asyncio.timeout(seconds):
        return await work


def _broken(error: BaseException, server: Server, timeout: float) -> Failure:
    """Return the failure for a try without a complete answer."""
    if isinstance(error, Failure):
        return error
    proxied = proxy_advice(server.url)
    if isinstance(error, (_http.ConnectError, _http.ConnectTimeout, _http.ProxyError)):
        reason = excerpt(f"{type(error).__name__}: {error}")
        advice = proxied.removeprefix("; ") or "start it or check the base URL"
        return Failure(reason, advice, "no connection", connected=False)
    if isinstance(error, (TimeoutError, _http.TimeoutException)):
        advice = "raise the timeout, or lower the concurrency"
        return Failure(f"no complete answer within {timeout:g} seconds", advice + proxied, "timeout")
    return Failure(excerpt(f"the connection was lost ({error})"), LATER + proxied, "no connection")


def _may_pass(status: int) -> bool:
    return status in (408, 409, 429) or status >= 500


def _cut_at(limit: int, completion: Completion) -> Completion:
    """Return the completion, marked as truncated if it reached the limit and the server gave no finish reason."""
    cut = not completion.finish and completion.tokens >= limit
    return completion.model_copy(update={"truncated": True}) if cut else completion
