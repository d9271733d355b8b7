"""Several servers of one model: which of them gets the next request, and which rests after a failure.

The least busy server gets the request. A server that fails rests while others can do its work, each time twice as long,
and then gets one request to show that it has recovered.

Unless the number of concurrent requests to a server is set, it is found by trial. vLLM needs many to be fast; a server
that handles one at a time (``transformers serve``) queues them, and with too many the last would time out. So each
server starts with a few. The time of each answer tells how long the last of all concurrent requests would wait if the
server handled them one after another; if that is less than half of the timeout, one more is allowed, up to 64. A
timeout, or a status that says "too many" (429, 503), halves the number, down to one. A request with such a status on
its last try queues again for one of the places that are left.

There is no network access here: :mod:`r1_reward.engines.client` sends requests and reports the outcome. Everything runs
in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from urllib.parse import urlsplit

from r1_reward.engines.chat_protocol import Failure
from r1_reward.engines.dialect import Dialect
from r1_reward.records.errors import UserError

FIRST_REST = 1.0  # seconds a server rests after a failure, if it does not ask for more
LONGEST_WAIT = 120.0  # seconds between two tries
MOST = 64  # concurrent requests to a server that keeps up; with more vLLM gets little faster
_AT_FIRST = 16  # a server that handles one at a time, in up to 7 s each, answers the last within 120 s
_SOON = 1 / 2  # of the timeout
_BUSY = (429, 503, 529)  # too many concurrent requests
_SAYS_BUSY = [f"HTTP {status}" for status in _BUSY]


class Server:
    """A server's address, the parameters it accepts, and its state."""

    def __init__(self, url: str, dialect: Dialect) -> None:
        """Raise UserError if ``url`` is not a URL."""
        self.url, self.name, self.dialect = url, server_name(url), dialect
        self.under_way = 0
        self.asked = 0
        self.heard = False
        """Whether it has ever been reached."""
        self.answered = False
        """Whether it has ever completed a request."""
        self.sampled = False
        """Whether it was ever asked to sample with a seed."""
        self.refusal: Failure | None = None
        """The failure of the latest try, if it could not be reached."""
        self.failures = 0  # consecutive ones, those that began together counted once
        self.rests_until = 0.0
        self.on_trial = False  # has rested, and not answered since
        self.sent = 0
        """Requests it has not answered yet, without those that wait for their next try."""
        self.window = float(_AT_FIRST)
        """How many requests may be in flight at it now."""
        self.narrowed_at = -math.inf  # by the clock of `time.monotonic`

    def rests(self) -> bool:
        """Return whether the server is resting."""
        return time.monotonic() < self.rests_until

    def is_open(self) -> bool:
        """Return whether the server may be asked: it is neither resting nor busy with its trial request."""
        return not (self.rests() or (self.on_trial and self.under_way))


class Pool:
    """The servers that share the work, each with ``concurrency`` requests in flight, or as many as it keeps up with."""

    def __init__(self, servers: Sequence[Server], concurrency: int | None) -> None:
        self.servers = servers
        self._fixed = concurrency is not None
        for server in servers:
            server.window = float(concurrency or _AT_FIRST)
        self._slots = asyncio.Semaphore(sum(int(server.window) for server in servers))
        self._owed = 0  # slots to remove when they are released
        self.answers = 0
        """Requests that the servers have completed."""
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the slots, as many as all servers have places; they are granted in the order of asking."""
        await self._slots.acquire()
        try:
            yield
        finally:
            self._free_slot()

    def _free_slot(self) -> None:
        if self._owed:
            self._owed -= 1
        else:
            self._slots.release()

    def took(self, server: Server, seconds: float, timeout: float, status: int | None, *, place: int) -> None:
        """Record how long a try took and its status: 408 for a timeout, None for a connection error.

        ``place`` is the number of requests the server had when the try began, including this one.
        """
        if self._fixed:
            return
        if status == 408 or status in _BUSY:
            now = time.monotonic()
            if now - seconds > server.narrowed_at:  # concurrent failures narrow it once
                server.narrowed_at = now
                self._set_window(server, server.window / 2)
        elif status is not None and seconds * server.window / place < timeout * _SOON:
            # Grow fast until the first overload, then slowly.
            careful = math.isfinite(server.narrowed_at)
            self._set_window(server, server.window + (1.0 / server.window if careful else 1.0))

    def _set_window(self, server: Server, window: float) -> None:
        before, server.window = int(server.window), min(max(window, 1.0), MOST)
        change = int(server.window) - before
        self._owed += max(-change, 0)
        for _ in range(change):
            self._free_slot()
        if change > 0:
            self._changed.set()

    @contextlib.asynccontextmanager
    async def place(self, tried: Collection[Server]) -> AsyncIterator[Server]:
        """Hold a place at the least busy server, preferably one not yet ``tried``; wait for one if necessary."""
        while (server := self._best(tried)) is None:
            self._changed.clear()
            rests = [server.rests_until - time.monotonic() for server in self.servers if server.rests()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(rests, default=None)):
                    await self._changed.wait()
        server.under_way += 1
        server.asked += 1
        try:
            yield server
        finally:
            server.under_way -= 1
            self._changed.set()

    def _best(self, tried: Collection[Server]) -> Server | None:
        open_ = [server for server in self.servers if server.is_open()]
        # A server that was not tried is worth waiting for.
        servers = [server for server in open_ if server not in tried] or open_
        free = [server for server in servers if server.under_way < int(server.window)]
        return min(free, key=lambda server: (server.under_way, server.asked), default=None)

    def others(self, tried: Collection[Server]) -> bool:
        """Return whether any open server has not been ``tried``."""
        return any(server not in tried and server.is_open() for server in self.servers)

    def answered(self, server: Server) -> None:
        """Record that a server completed a request."""
        server.answered = True
        self.answers += 1
        server.failures, server.on_trial = 0, False
        self._changed.set()

    def failed(self, server: Server, failure: Failure, failures_before: int) -> None:
        """Record the failure of a request that began after ``failures_before`` failures, and let the server rest.

        The last server that is not resting continues, unless it cannot be reached.
        """
        if server.failures != failures_before:
            return
        server.failures += 1
        if len(self.servers) > 1 and (not failure.connected or self.others([server])):
            pause = min(FIRST_REST * 2.0 ** min(server.failures - 1, 30), LONGEST_WAIT) * random.uniform(0.75, 1.25)
            server.rests_until = time.monotonic() + max(failure.delay, pause)
            server.on_trial = True

    def says_busy(self, failure: Failure) -> bool:
        """Return whether a server was too busy and its concurrency is found by trial."""
        return not self._fixed and failure.kind in _SAYS_BUSY

    def full(self, server: Server) -> bool:
        """Return whether other requests fill all places that a server has now."""
        return server.under_way >= max(int(server.window), 2)

    def anybody_heard(self) -> bool:
        """Return whether any server has ever been reached."""
        return any(server.heard for server in self.servers)

    def gone(self) -> bool:
        """Return whether the latest try at every server failed to reach it."""
        return all(server.refusal is not None for server in self.servers)


def server_name(base_url: str) -> str:
    """Return the URL for messages, without a password or key; raise UserError if it is not a URL."""
    try:
        parts = urlsplit(base_url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise UserError(f"the base URL is not a URL ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"the base URL {base_url.rpartition('@')[2]!r} must look like http://localhost:8000/v1")
    return f"server {parts.scheme}://{parts.hostname}{port}{parts.path}"
