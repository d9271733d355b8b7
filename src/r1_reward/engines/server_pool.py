"""Several servers of one model: which of them gets the next request, and which is left alone for a while.

The least busy server is asked. One that fails rests while others can do its work, each time twice as long, and then
gets one request to show that it is back.

How many requests are open at a server at once is found out, unless somebody says it. vLLM needs many to be fast; a
server that works on one at a time (``transformers serve``) lets them wait, and with too many the last of them would not
be answered before the time-out. So each server begins with a few. An answer tells how long the last of as many as may
be open would wait if they were worked on one after the other; if that is less than half of the time-out, there is room
for one more, up to 64. A time-out, or an answer that says "too many" (429, 503), leaves half of them, in the end one
at a time. A request that was told so at its last try stands in line again, for one of the fewer places that are left.
No network here: :mod:`r1_reward.engines.client` asks and says what came of it. All of it happens in one event loop.
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

FIRST_REST = 1.0  # seconds a server is left alone after a failure, if it does not say how long
LONGEST_WAIT = 120.0  # seconds between two tries
MOST = 64  # requests at once at a server that keeps up; beyond them vLLM gets little faster
_AT_FIRST = 16  # a server that works on one at a time and takes up to 7 s for it answers the last in 120 s
_SOON = 1 / 2  # of the time-out
_BUSY = (429, 503, 529)  # too many requests at once
_SAYS_BUSY = [f"HTTP {status}" for status in _BUSY]


class Server:
    """Where a server is, what it has been found to accept, and how it fares."""

    def __init__(self, url: str, dialect: Dialect) -> None:
        """Raise UserError if ``url`` is not a URL."""
        self.url, self.name, self.dialect = url, server_name(url), dialect
        self.under_way = 0
        self.asked = 0
        self.heard = False
        """Whether anybody has ever been there."""
        self.answered = False
        """Whether it has ever completed a request."""
        self.sampled = False
        """Whether it was ever asked to sample by a seed."""
        self.refusal: Failure | None = None
        """The latest try, if nobody was there."""
        self.failures = 0  # one after the other, those that began together counted once
        self.rests_until = 0.0
        self.on_trial = False  # has rested, and not answered since
        self.sent = 0
        """Requests that it has and has not answered; one that waits for its next try is not among them."""
        self.window = float(_AT_FIRST)
        """How many requests may be open at it now."""
        self.narrowed_at = -math.inf  # by the clock of `time.monotonic`

    def rests(self) -> bool:
        """Say whether the server is being left alone."""
        return time.monotonic() < self.rests_until

    def is_open(self) -> bool:
        """Say whether the server may be asked: it neither rests nor is at work on its trial."""
        return not (self.rests() or (self.on_trial and self.under_way))


class Pool:
    """The servers that share the work, with ``concurrency`` requests open at each, or as many as it keeps up with."""

    def __init__(self, servers: Sequence[Server], concurrency: int | None) -> None:
        self.servers = servers
        self._fixed = concurrency is not None
        for server in servers:
            server.window = float(concurrency or _AT_FIRST)
        self._slots = asyncio.Semaphore(sum(int(server.window) for server in servers))
        self._owed = 0  # slots to be taken away when they are given back
        self.answers = 0
        """Requests that any of them has completed."""
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of as many slots as all servers have places; they are given in the order of asking."""
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
        """Note how long a try took and its status: 408 if it was in vain, None if the connection was at fault.

        ``place`` counts the requests that the server had when it began, itself included.
        """
        if self._fixed:
            return
        if status == 408 or status in _BUSY:
            now = time.monotonic()
            if now - seconds > server.narrowed_at:  # those that were open together narrow it once
                server.narrowed_at = now
                self._set_window(server, server.window / 2)
        elif status is not None and seconds * server.window / place < timeout * _SOON:
            # Fast until it was too much once, then with care.
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
        """Hold a place at the least busy server, one that was not ``tried`` if possible; wait for one if need be."""
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
        # One that was not tried is worth waiting for.
        servers = [server for server in open_ if server not in tried] or open_
        free = [server for server in servers if server.under_way < int(server.window)]
        return min(free, key=lambda server: (server.under_way, server.asked), default=None)

    def others(self, tried: Collection[Server]) -> bool:
        """Say whether there is a server to turn to that was not ``tried``."""
        return any(server not in tried and server.is_open() for server in self.servers)

    def answered(self, server: Server) -> None:
        """Note that a server does its work."""
        server.answered = True
        self.answers += 1
        server.failures, server.on_trial = 0, False
        self._changed.set()

    def failed(self, server: Server, failure: Failure, failures_before: int) -> None:
        """Note a failure of a request that began after so many ``server.failures``, and let the server rest.

        The last one that is not resting continues, unless nobody is there.
        """
        if server.failures != failures_before:
            return
        server.failures += 1
        if len(self.servers) > 1 and (not failure.connected or self.others([server])):
            pause = min(FIRST_REST * 2.0 ** min(server.failures - 1, 30), LONGEST_WAIT) * random.uniform(0.75, 1.25)
            server.rests_until = time.monotonic() + max(failure.delay, pause)
            server.on_trial = True

    def says_busy(self, failure: Failure) -> bool:
        """Say whether a server had too much to do, where it is found out how much it can do."""
        return not self._fixed and failure.kind in _SAYS_BUSY

    def full(self, server: Server) -> bool:
        """Say whether a server has other requests in all the places it has by now."""
        return server.under_way >= max(int(server.window), 2)

    def anybody_heard(self) -> bool:
        """Say whether any of the servers has ever been there."""
        return any(server.heard for server in self.servers)

    def gone(self) -> bool:
        """Say whether nobody was there when each of the servers was last asked."""
        return all(server.refusal is not None for server in self.servers)


def server_name(base_url: str) -> str:
    """Return the URL as messages show it, without a password or a key in it; raises UserError if it is not a URL."""
    try:
        parts = urlsplit(base_url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise UserError(f"the base URL is not a URL ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"the base URL {base_url.rpartition('@')[2]!r} must look like http://localhost:8000/v1")
    return f"server {parts.scheme}://{parts.hostname}{port}{parts.path}"
