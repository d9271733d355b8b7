"""An engine for servers with the OpenAI chat protocol: vLLM, SGLang, ``transformers serve``, llama.cpp, OpenAI itself.

It has the contract of the in-process engine, requests in and completions out, in order::

    engine = ServerEngine("yifanzhang114/R1-Reward", "http://localhost:8000/v1")
    for completions in engine.generate(requests):
        ...

A request yields a completion or a failure, never something in between: invalid JSON, no choice, or null instead of text
is retried, and a request that keeps failing yields a :class:`~r1_reward.engines.client.ServerError` in its place. A
problem that affects every request (a wrong key, an unknown model, no server) ends the run at once with a ``UserError``.

Several servers of the same model share the work: pass a list of URLs. The least busy one gets the request; a request
that one fails to answer goes to the others, and that server rests for a while. The run ends only when none of them can
be reached.

Every completion is its own HTTP request with its own seed, so that it depends only on the request and the seed, as far
as the server guarantees that. ``batch_votes=True`` gives this up for speed: one request (``n``) asks for all
completions of a prompt, which the server then reads once. They share the first seed, so the second vote of three
differs from the second vote of two. A server that ignores or refuses ``n`` is asked for one completion at a time, and
so is any server at temperature 0.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from r1_reward.engines.chat_protocol import chat_messages
from r1_reward.engines.client import ChatClient
from r1_reward.engines.engine import Answered, EngineError, Generative, Request
from r1_reward.engines.server_pool import MOST
from r1_reward.engines.usage import Usage
from r1_reward.records.dialect import Dialect
from r1_reward.records.schema import Completion

_PATIENCE = 10.0  # seconds to wait for the thread to end, since the garbage collector may be the caller


class ServerEngine(Generative):
    """A model behind OpenAI-compatible servers, asked for several completions at a time.

    All sessions share its connections, which live in their own thread until :meth:`close` or until the engine is
    garbage collected.
    """

    special_tokens: tuple[str, ...] = ()
    """Empty: the server's tokenizer is unknown."""

    def __init__(
        self,
        model: str,
        base_url: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        concurrency: int | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        batch_votes: bool = False,
        logprobs: bool = True,
        limit: float | None = None,
        requests_per_minute: float | None = None,
        usage: Usage | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        """Take the model's name on the server, and the URL before ``/chat/completions``, or several of them.

        ``base_url`` defaults to ``OPENAI_BASE_URL`` or OpenAI itself, ``api_key`` to ``OPENAI_API_KEY``; your own
        server usually needs none. ``concurrency`` is the number of concurrent requests to each server; by default as
        many as it answers in time, up to 64, see :mod:`r1_reward.engines.server_pool`. ``timeout`` is the seconds one
        try may take up to its last byte, ``limit`` the seconds of a request with all tries and pauses, without its time
        in the queue. A failed try is retried up to ``retries`` times, after half a second at first, then twice as long
        each time up to 8 seconds, or as ``Retry-After`` says; with several servers the others are asked first, at once.
        ``requests_per_minute`` includes retries. ``batch_votes`` asks for all completions of a request together; see
        above for what that costs. Without ``logprobs`` no completion has a probability. ``usage`` counts requests and
        replies, and names the parameters that a server refused and that are therefore left out: a temperature of 0 is
        greedy decoding only if the server accepts it. ``dialect`` sets the prompt and answer format; None is the
        default one.

        Raises:
            UserError: a URL is invalid or given twice, OpenAI has no key, or a number is out of range.
        """
        self.model, self.concurrency, self.batch_votes = model, concurrency, batch_votes
        self.dialect = dialect or self.dialect
        self.usage = Usage() if usage is None else usage
        self._make_client = partial(
            ChatClient,
            model,
            base_url,
            api_key=api_key,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            limit=limit,
            requests_per_minute=requests_per_minute,
            logprobs=logprobs,
            usage=self.usage,
            verdicts=self.dialect,
        )
        self.client = self._make_client()  # no connection yet
        self._lock = threading.Lock()
        self._loop: _Loop | None = None

    @property
    def refused(self) -> Sequence[str]:
        """The parameters that the servers have refused so far; see ``usage``."""
        return self.usage.refused

    def open(self) -> _Session:
        """Start a session with room for twice as many requests as may be in flight.

        ``tokens`` of a completion is 0 if the server does not count them. Leaving the session cancels the requests in
        flight.

        Raises:
            UserError: (when collecting) no request can succeed: no server, an unknown key or model.
            ValueError: (when submitting) the numbers of a request's images and image parts differ.
        """
        with self._lock:
            if self._loop is None or not self._loop.is_alive():
                if self._loop is not None:  # its thread stayed in the process this one was forked from
                    self.client = self._make_client()
                self._loop = _Loop(self.client)
                self._finalizer = weakref.finalize(self, self._loop.close)  # also at exit
            return _Session(self, self._loop)

    def close(self) -> None:
        """Close the connections and end the thread; the next session starts new ones."""
        with self._lock:
            if self._loop is not None:
                self._finalizer()
                self._loop = None


class _Loop:
    """An event loop in its own thread, with the client that runs in it."""

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self.rows: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="server-engine", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        if threading.current_thread() is self._thread:  # the engine was garbage collected in this thread
            self._loop.create_task(self._end())
            return
        if self.is_alive():  # not in a forked process
            self.start(self._end())
            self._thread.join(_PATIENCE)

    async def _end(self) -> None:
        await self.cancel(self.rows)
        await self.client.close()
        self._loop.stop()

    async def cancel(self, rows: set[asyncio.Task[Any]]) -> None:
        # Only our own tasks: the HTTP library must cancel those that it started.
        rows = set(rows)
        for row in rows:
            row.cancel()
        await asyncio.gather(*rows, return_exceptions=True)


class _Session:
    """One caller's requests in flight."""

    def __init__(self, engine: ServerEngine, loop: _Loop) -> None:
        self._engine, self._client, self._loop = engine, loop.client, loop
        self._answered: queue.SimpleQueue[tuple[Any, Future[Answered]]] = queue.SimpleQueue()
        self._room = 2 * (engine.concurrency or MOST) * len(self._client.pool.servers)
        self._under_way = 0
        self._rows: set[asyncio.Task[Any]] = set()
        self._fatal: BaseException | None = None

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop.is_alive():
            self._loop.start(self._loop.cancel(self._rows)).result()

    def room(self) -> int:
        return self._room - self._under_way

    def submit(self, ticket: Any, request: Request) -> None:
        messages = chat_messages(request)
        self._under_way += 1
        future = self._loop.start(self._answer(messages, request))
        future.add_done_callback(_into(self._answered, ticket))

    def collect(self) -> list[tuple[Any, Answered]]:
        """Return what is ready; an error that ends the run is raised after all answers before it are returned."""
        ready: list[tuple[Any, Answered]] = []
        while self._under_way and self._fatal is None and not (ready and self._answered.empty()):
            ticket, future = self._answered.get()
            self._under_way -= 1
            self._fatal = future.exception()
            if self._fatal is None:
                ready.append((ticket, future.result()))
        if self._fatal is not None and not ready:
            fatal, self._fatal = self._fatal, None
            raise fatal
        return ready

    async def _answer(self, messages: list[dict[str, Any]], request: Request) -> Answered:
        row = asyncio.current_task()
        assert row is not None
        self._rows.add(row)
        self._loop.rows.add(row)
        votes: list[asyncio.Task[list[Completion]]] = []
        seeds = request.seeds
        try:
            together: list[Completion] = []
            if self._asks_for_several(request) and len(seeds) > 1:
                together = await self._client.complete(messages, request)
            alone = [request._replace(seeds=(seed,)) for seed in seeds[len(together) :]]
            votes = [asyncio.create_task(self._client.complete(messages, one)) for one in alone]
            return [*together, *(vote for (vote,) in await asyncio.gather(*votes))]
        except EngineError as error:
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)  # its frames hold the pictures
        finally:
            for vote in votes:  # if one is missing, the others are useless
                vote.cancel()
            await asyncio.gather(*votes, return_exceptions=True)
            self._rows.discard(row)
            self._loop.rows.discard(row)

    def _asks_for_several(self, request: Request) -> bool:
        several = any(server.dialect.several for server in self._client.pool.servers)
        return self._engine.batch_votes and several and request.temperature > 0


def _into(answered: queue.SimpleQueue[tuple[Any, Future[Answered]]], ticket: Any) -> Callable[[Future[Answered]], None]:
    return lambda future: answered.put((ticket, future))
