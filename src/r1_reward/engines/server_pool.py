"""Several servers of one model: which of them gets the next request, and which is left alone for a while.

The least busy server is asked. One that fails rests while others can do its work, each time twice as long, and then
gets one request to show that it is back. No network here: :mod:`r1_reward.engines.server` asks and says what came of
it. All of it happens in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

from r1_reward.engines.chat_protocol import Dialect, Failure
from r1_reward.records.errors import UserError

LONGEST_WAIT = 120.0  # seconds between two tries


class Server:
    """Where a server is, and what it has been found to take."""

    def __init__(self, url: str) -> None:
        """Raise UserError if ``url`` is none."""
        self.url, self.name, self.dialect = url, server_name(url), Dialect()


class Line:
    """A server during one run: its HTTP client, what is under way, how it fares."""

    def __init__(self, server: Server, client: Any) -> None:
        self.server, self.client = server, client
        self.under_way = 0
        self.asked = 0
        self.failures = 0  # one after the other, those that began together counted once
        self.refusals = 0  # the last of them, in which there was no server at all
        self.last: Failure | None = None
        self.rests_until = 0.0
        self.on_trial = False  # has rested, and not answered since

    def rests(self) -> bool:
        """Say whether the server is being left alone."""
        return time.monotonic() < self.rests_until

    def is_open(self) -> bool:
        """Say whether the server may be asked: it neither rests nor is at work on its trial."""
        return not (self.rests() or (self.on_trial and self.under_way))


class Pool:
    """The lines of one run; ``slots`` keeps requests in the order in which they came."""

    def __init__(self, lines: Sequence[Line], concurrency: int, backoff: float) -> None:
        self.lines = lines
        self.contacts = 0
        """Tries, of all lines, in which there was a server at the other end."""
        self.slots = asyncio.Semaphore(concurrency * len(lines))
        self._concurrency, self._backoff = concurrency, backoff
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def line(self, tried: Collection[Line]) -> AsyncIterator[Line]:
        """Hold a place at the least busy server, one that was not ``tried`` if possible; wait for one if need be."""
        while (line := self._best(tried)) is None:
            self._changed.clear()
            rests = [line.rests_until - time.monotonic() for line in self.lines if line.rests()]
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(rests, default=None))
        line.under_way += 1
        line.asked += 1
        try:
            yield line
        finally:
            line.under_way -= 1
            self._changed.set()

    def _best(self, tried: Collection[Line]) -> Line | None:
        open_ = [line for line in self.lines if line.is_open()]
        # One that was not tried is worth waiting for.
        lines = [line for line in open_ if line not in tried] or open_
        free = [line for line in lines if line.under_way < self._concurrency]
        return min(free, key=lambda line: (line.under_way, line.asked), default=None)

    def others(self, tried: Collection[Line]) -> bool:
        """Say whether there is a server to turn to that was not ``tried``."""
        return any(line not in tried and line.is_open() for line in self.lines)

    def answered(self, line: Line) -> None:
        """Note that a server does its work."""
        line.failures = line.refusals = 0
        line.on_trial = False
        self._changed.set()

    def failed(self, line: Line, failure: Failure, failures_before: int) -> None:
        """Note a failure of a try that began after so many ``line.failures``, and let the server rest.

        The last one that is not resting goes on, unless it is not there.
        """
        line.last = failure
        if failure.connected:
            line.refusals = 0
        if line.failures != failures_before:
            return
        line.failures += 1
        line.refusals += not failure.connected
        if len(self.lines) > 1 and (not failure.connected or self.others([line])):
            line.rests_until = time.monotonic() + max(failure.delay, self.pause(line.failures))
            line.on_trial = True

    def pause(self, failures: int) -> float:
        """Return how many seconds to wait after so many failures in a row, somewhat random."""
        return min(self._backoff * 2.0 ** min(failures - 1, 30), LONGEST_WAIT) * random.uniform(0.75, 1.25)

    def all_gone(self, retries: int) -> bool:
        """Say whether no server has been there for more than so many tries, each after a rest."""
        return all(line.refusals > (retries if self.contacts else 0) for line in self.lines)


def server_name(base_url: str) -> str:
    """Return the URL as messages show it, without a password or a key in it; raises UserError if it is none."""
    try:
        parts = urlsplit(base_url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise UserError(f"the base URL is not a URL ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"the base URL {base_url.rpartition('@')[2]!r} must look like http://localhost:8000/v1")
    return f"server {parts.scheme}://{parts.hostname}{port}{parts.path}"
