"""Several servers of one model: which of them gets the next request, and which is left alone for a while.

The least busy server is asked. One that fails rests while others can do its work, each time twice as long, and then
gets one request to show that it is back. No network here: :mod:`r1_reward.engines.client` asks and says what came of
it. All of it happens in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from urllib.parse import urlsplit

from r1_reward.engines.chat_protocol import Failure
from r1_reward.engines.dialect import Dialect
from r1_reward.records.errors import UserError

FIRST_REST = 1.0  # seconds a server is left alone after a failure, if it does not say how long
LONGEST_WAIT = 120.0  # seconds between two tries


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
        self.refusal: Failure | None = None
        """The latest try, if nobody was there."""
        self.failures = 0  # one after the other, those that began together counted once
        self.rests_until = 0.0
        self.on_trial = False  # has rested, and not answered since

    def rests(self) -> bool:
        """Say whether the server is being left alone."""
        return time.monotonic() < self.rests_until

    def is_open(self) -> bool:
        """Say whether the server may be asked: it neither rests nor is at work on its trial."""
        return not (self.rests() or (self.on_trial and self.under_way))


class Pool:
    """The servers that share the work; ``slots`` keeps requests in the order in which they came."""

    def __init__(self, servers: Sequence[Server], concurrency: int) -> None:
        self.servers = servers
        self.slots = asyncio.Semaphore(concurrency * len(servers))
        self._concurrency = concurrency
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def place(self, tried: Collection[Server]) -> AsyncIterator[Server]:
        """Hold a place at the least busy server, one that was not ``tried`` if possible; wait for one if need be."""
        while (server := self._best(tried)) is None:
            self._changed.clear()
            rests = [server.rests_until - time.monotonic() for server in self.servers if server.rests()]
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(rests, default=None))
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
        free = [server for server in servers if server.under_way < self._concurrency]
        return min(free, key=lambda server: (server.under_way, server.asked), default=None)

    def others(self, tried: Collection[Server]) -> bool:
        """Say whether there is a server to turn to that was not ``tried``."""
        return any(server not in tried and server.is_open() for server in self.servers)

    def answered(self, server: Server) -> None:
        """Note that a server does its work."""
        server.answered = True
        server.failures, server.on_trial = 0, False
        self._changed.set()

    def failed(self, server: Server, failure: Failure, failures_before: int) -> None:
        """Note a failure of a request that began after so many ``server.failures``, and let the server rest.

        The last one that is not resting goes on, unless nobody is there.
        """
        if server.failures != failures_before:
            return
        server.failures += 1
        if len(self.servers) > 1 and (not failure.connected or self.others([server])):
            pause = min(FIRST_REST * 2.0 ** min(server.failures - 1, 30), LONGEST_WAIT) * random.uniform(0.75, 1.25)
            server.rests_until = time.monotonic() + max(failure.delay, pause)
            server.on_trial = True

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
