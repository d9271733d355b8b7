"""Ask a server that speaks the OpenAI chat protocol: vLLM, SGLang, ``transformers serve``, llama.cpp, OpenAI itself.

The same contract as the engine in this process, requests in and completions out, in order::

    engine = ServerEngine("yifanzhang114/R1-Reward", "http://localhost:8000/v1")
    for completions in engine.generate(requests):
        ...

What comes back is a completion or a failure, never something in between: half a JSON, no choice, or null where the
text should be is asked for again, and a request that keeps failing yields a :class:`EngineError` in its place. What
would fail for every request (a wrong key, an unknown model, no server) ends the run at once with a ``UserError``.

Several servers of the same model share the work: give a list of URLs. The least busy one is asked; what one fails to
answer is asked of the others, and it is left alone for a while and then tried again. Only when none of them is there
does the run end.

Every completion is an HTTP request of its own with its own seed, so that it depends on the request and the seed alone,
as far as the server keeps that. ``batch_votes=True`` gives this up for speed: one request (``n``) asks for all
completions of a prompt, which a server then reads once. They come from the first seed together, so that the second
vote is another one if three are drawn instead of two. A server that ignores or refuses ``n`` is asked one by one, and
so is any server at temperature 0.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Sequence
from typing import Any

import openai

from r1_reward.engines.chat_protocol import LATER, Dialect, Failure, chat_messages, excerpt, read_replies, retry_after
from r1_reward.engines.engine import Answered, EngineError, Generative, Request
from r1_reward.engines.server_pool import LONGEST_WAIT, Line, Pool, Server
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion

_CONNECT_TIMEOUT = 10.0
_OPENAI = "https://api.openai.com/v1"


class ServerEngine(Generative):
    """A model behind an OpenAI-compatible server, asked for several completions at a time."""

    special_tokens: tuple[str, ...] = ()
    """Nothing is known about the server's tokenizer."""

    def __init__(
        self,
        model: str,
        base_url: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        concurrency: int = 16,
        timeout: float = 120.0,
        retries: int = 5,
        backoff: float = 1.0,
        batch_votes: bool = False,
    ) -> None:
        """Name a model as the server does, and the URL before ``/chat/completions``, or those of several servers.

        ``base_url`` defaults to ``OPENAI_BASE_URL`` or OpenAI itself, ``api_key`` to ``OPENAI_API_KEY``; a server of
        one's own needs none. ``concurrency`` counts HTTP requests at once, to each server. ``timeout`` is the seconds
        one try may take up to its last byte. A failed try is repeated ``retries`` times, ``backoff`` seconds later at
        first and twice as long each time, or when ``Retry-After`` says; with several servers the others are asked
        first, at once. ``batch_votes`` asks for all completions of a request together; see above for what that costs.

        Raises:
            UserError: a URL is none or given twice, OpenAI is asked without a key, or a number is out of range.
        """
        given = [base_url] if isinstance(base_url, str) else list(base_url or ())
        urls = [url for url in given if url] or [url for url in [os.environ.get("OPENAI_BASE_URL")] if url]
        key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not key and not urls:
            raise UserError("OpenAI wants a key: set OPENAI_API_KEY, or give the base URL of your own server")
        if not (key.isascii() and key.isprintable()):
            raise UserError("the API key has characters that no key has; copy it again")
        if concurrency < 1 or retries < 0 or not timeout > 0 or not backoff >= 0:
            raise UserError(
                f"concurrency {concurrency}, timeout {timeout}, retries {retries}, backoff {backoff}: "
                "at least 1 request at a time, more than 0 seconds, and no negative numbers"
            )
        if twice := [url for number, url in enumerate(urls) if url in urls[:number]]:
            raise UserError(f"{Server(twice[0]).name} is given twice; raise the concurrency to ask it for more at once")
        self.model, self.batch_votes = model, batch_votes
        self.concurrency, self.timeout, self.retries, self.backoff = concurrency, timeout, retries, backoff
        self._servers = [Server(url) for url in urls or [_OPENAI]]
        self._name, self._key = ", ".join(server.name for server in self._servers), key

    def open(self) -> _Session:
        """Start a session; room is for ``2 * concurrency`` requests for each server.

        ``tokens`` of a completion is 0 if the server does not count them. Leaving the session cancels what is under
        way.

        Raises:
            UserError: (when collecting) no request can succeed: no server, a key or model it does not know.
            ValueError: (when submitting) a request has not as many images as image parts.
        """
        return _Session(self)


class _Refused(Exception):
    """The server takes the request only in another dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect


class _Course:
    """How one HTTP request has fared so far."""

    def __init__(self) -> None:
        self.tries = 0
        self.tried: set[Line] = set()  # since the last pause
        self.contacts = 0  # of the whole run when it last reached a server
        self.pause = 0.0  # seconds before the next try


class _Session:
    """One run of ``generate``: an event loop in a thread of its own, and everything under way in it."""

    def __init__(self, engine: ServerEngine) -> None:
        self.engine = engine
        self._answered: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._under_way = 0
        self._rows: set[Any] = set()
        lines = [Line(server, self._client(server.url)) for server in engine._servers]
        self._pool = Pool(lines, engine.concurrency, engine.backoff)

    def _client(self, url: str) -> openai.AsyncOpenAI:
        engine = self.engine
        return openai.AsyncOpenAI(
            api_key=engine._key or "none",
            base_url=url,
            timeout=openai.Timeout(engine.timeout, connect=min(engine.timeout, _CONNECT_TIMEOUT)),
            max_retries=0,  # the library would not retry half a JSON
        )

    def __enter__(self) -> _Session:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel(self) -> None:
        # Our own tasks only: those that the HTTP library started want to be cancelled by it.
        rows = list(self._rows)
        for row in rows:
            row.cancel()
        await asyncio.gather(*rows, return_exceptions=True)
        for line in self._pool.lines:
            await line.client.close()

    def room(self) -> int:
        return 2 * self.engine.concurrency * len(self._pool.lines) - self._under_way

    def submit(self, ticket: Any, request: Request) -> None:
        self._under_way += 1
        work = self._answer(chat_messages(request), request)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.add_done_callback(lambda done: self._answered.put((ticket, done)))

    def collect(self) -> list[tuple[Any, Answered]]:
        if not self._under_way:
            return []
        ready = [self._answered.get()]
        while not self._answered.empty():
            ready.append(self._answered.get())
        self._under_way -= len(ready)
        return [(ticket, future.result()) for ticket, future in ready]

    async def _answer(self, messages: list[dict[str, Any]], request: Request) -> Answered:
        row = asyncio.current_task()
        self._rows.add(row)
        votes: list[asyncio.Task[list[Completion]]] = []
        seeds = request.seeds
        try:
            together: list[Completion] = []
            if self._asks_for_several(request) and len(seeds) > 1:
                together = await self._complete(messages, request)
            alone = [request._replace(seeds=(seed,)) for seed in seeds[len(together) :]]
            votes = [asyncio.create_task(self._complete(messages, one)) for one in alone]
            return [*together, *(vote for (vote,) in await asyncio.gather(*votes))]
        except EngineError as error:
            return error
        finally:
            for vote in votes:  # one missing makes the others useless
                vote.cancel()
            await asyncio.gather(*votes, return_exceptions=True)
            self._rows.discard(row)

    def _asks_for_several(self, request: Request) -> bool:
        several = any(server.dialect.several for server in self.engine._servers)
        return self.engine.batch_votes and several and request.temperature > 0

    async def _complete(self, messages: list[dict[str, Any]], request: Request) -> list[Completion]:
        """Return what one HTTP request gives: a completion for each seed, or only some if the server ignores ``n``."""
        # Waiting keeps the slot: a server in trouble gets fewer requests, not others instead.
        async with self._pool.slots:
            course = _Course()
            course.contacts = self._pool.contacts
            while True:
                async with self._pool.line(course.tried) as line:
                    completions = await self._ask(line, messages, request, course)
                if completions:
                    return completions
                await asyncio.sleep(course.pause)

    async def _ask(
        self, line: Line, messages: list[dict[str, Any]], request: Request, course: _Course
    ) -> list[Completion]:
        """Return the completions, none if another try is due; raises what ends the row or the run."""
        pool, dialect, failures_before = self._pool, line.server.dialect, line.failures
        while True:
            wanted = len(request.seeds) if dialect.several else 1
            try:
                completions = await self._try(line, messages, request, dialect, wanted)
            except _Refused as refused:
                dialect = refused.dialect
            except Failure as failure:
                pool.failed(line, failure, failures_before)
                self._require_hope(line, failure, course)
                course.tried.add(line)
                course.pause = 0.0
                if not pool.others(course.tried):
                    course.tried.clear()
                    if not line.rests():  # else the pool waits
                        course.pause = max(failure.delay, pool.pause(course.tries))
                return []
            else:
                line.server.dialect = dialect._replace(several=len(completions) == wanted and dialect.several)
                pool.answered(line)
                return completions

    def _require_hope(self, line: Line, failure: Failure, course: _Course) -> None:
        """Raise what ends the run or the row if after this failure another try is of no use."""
        engine, pool, alone = self.engine, self._pool, len(self._pool.lines) == 1
        course.tries += failure.connected or alone  # where others are left, one that is gone costs no try
        too_long = failure.delay > LONGEST_WAIT and not pool.others([line])
        last = course.tries > engine.retries + len(pool.lines) - 1 or not failure.again or too_long
        if not failure.connected:
            # Refused from the start, or all the while that this one tried: nobody else will get through.
            refused_throughout = not pool.contacts or (last and pool.contacts == course.contacts)
            if alone and refused_throughout:
                raise UserError(f"{engine._name} cannot be reached ({failure}); {failure.advice}") from failure
            if not alone and pool.all_gone(engine.retries):
                raise UserError(f"no server is left: {self._last_words()}; {failure.advice}") from failure
        if last:
            count = f"{course.tries} {'try' if course.tries == 1 else 'tries'}"
            raise EngineError(
                f"{line.server.name} gave no completion in {count} ({failure}); {failure.advice}"
            ) from failure
        if failure.connected:
            course.contacts = pool.contacts

    def _last_words(self) -> str:
        return "; ".join(f"{line.server.name} cannot be reached ({line.last})" for line in self._pool.lines)

    async def _try(
        self, line: Line, messages: list[dict[str, Any]], request: Request, dialect: Dialect, wanted: int
    ) -> list[Completion]:
        create: Any = line.client.chat.completions.with_raw_response.create
        call = create(
            model=self.engine.model,
            messages=messages,
            **dialect.options(request.seeds[0], request.temperature, request.max_new_tokens, wanted),
        )
        try:
            # The client's own limit is on silence, and a byte now and then would keep it waiting for ever.
            reply = await asyncio.wait_for(call, self.engine.timeout)
        except openai.APIStatusError as error:
            self._pool.contacts += 1
            raise self._status_error(error, line.server.name, dialect, wanted) from error
        except (openai.APIConnectionError, asyncio.TimeoutError) as error:
            raise self._connection_error(error) from error
        self._pool.contacts += 1
        return read_replies(reply.content, reply.headers.get("content-type", "application/json"), wanted)

    def _connection_error(self, error: Exception) -> Failure:
        """Return what it means that there was no complete answer, and count it if somebody was there."""
        cause = error.__cause__ or error
        # By name, because the client's HTTP library differs between its versions.
        if type(cause).__name__ in ("ConnectError", "ConnectTimeout"):
            reason = excerpt(f"{type(cause).__name__}: {cause}")
            return Failure(reason, "start it or check the base URL", connected=False)
        self._pool.contacts += 1
        if isinstance(error, (openai.APITimeoutError, asyncio.TimeoutError)):
            advice = "raise the timeout, or lower the concurrency"
            return Failure(f"no complete answer within {self.engine.timeout:g} seconds", advice)
        return Failure(excerpt(f"the connection broke off ({cause})"), LATER)

    def _status_error(self, error: openai.APIStatusError, name: str, dialect: Dialect, wanted: int) -> Exception:
        """Return what an HTTP status means for the run."""
        status, body = error.status_code, error.response.text
        if status < 500 and (other := dialect.without(body, wanted)) != dialect:
            return _Refused(other)
        if len(self.engine._key) >= 8:  # some servers quote it
            body = body.replace(self.engine._key, "[the key]")
        said = f"{status}: {excerpt(body[:2000])}" if body.strip() else str(status)
        if status == 401:
            return UserError(f"{name} refuses the API key ({said}); set OPENAI_API_KEY or give the right one")
        if status == 403:
            return UserError(f"{name} does not let this key use the model {self.engine.model!r} ({said})")
        if status == 404:
            return UserError(
                f"{name} does not know the model {self.engine.model!r}, or has nothing at this address ({said}); "
                "check the name, and that the base URL ends where /chat/completions begins, most often in /v1"
            )
        if status in (408, 409, 429) or status >= 500:
            delay = retry_after(error.response.headers.get("retry-after"))
            asked = f", and asks to wait {delay:.0f} seconds" if delay > LONGEST_WAIT else ""
            advice = "lower the concurrency, or run again later" if status == 429 else LATER
            return Failure(f"it answers {said}{asked}", advice, delay=delay)
        return Failure(f"it answers {said}", "the server will not take this request as it is", again=False)
