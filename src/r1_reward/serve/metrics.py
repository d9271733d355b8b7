"""The requests in progress, and the Prometheus metrics of ``/metrics``."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from r1_reward.judge.voting import Verdict

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class State:
    """The requests in progress."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests accepted and not yet answered, without those that wait."""
        self.waiting = 0
        """Requests whose groups are not yet answered."""
        self.line: deque[asyncio.Future[None]] = deque()
        """Requests not yet accepted, in order of arrival."""
        self.closing = False

    @property
    def open(self) -> int:
        """How many requests are not yet answered."""
        return self.in_flight + self.waiting + len(self.line)

    def begin(self) -> None:
        """Accept a request."""
        self.in_flight += 1

    def end(self) -> None:
        """Count a request as answered or as waiting; the next in line may enter."""
        self.in_flight -= 1
        self._call_next()

    def close(self) -> None:
        """Stop accepting requests; those in line are refused."""
        self.closing = True
        for place in self.line:
            if not place.done():
                place.set_result(None)
        self.line.clear()

    def _call_next(self) -> None:
        while self.line:
            first = self.line.popleft()
            if not first.done():
                first.set_result(None)
                break

    def wait(self) -> None:
        """Let an accepted request wait outside the gate."""
        self.waiting += 1
        self.end()

    def go_on(self) -> None:
        """Let it in again."""
        self.waiting -= 1
        self.begin()

    async def stand_in_line(self) -> None:
        """Wait until a request has left; another may have taken its place."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.line.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was called but will not enter
                self._call_next()
            raise


class Waits:
    """The waits of one request for its groups; while any of them lasts, the request waits outside the gate."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._open = 0

    def __enter__(self) -> None:
        if self._open == 0:
            self._state.wait()
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if self._open == 0:
            self._state.go_on()


class Metrics:
    """The metrics of one server, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "r1_reward"}
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], **own)
        self.seconds = Histogram("request_seconds", "Time from request to answer.", ["route"], buckets=_SECONDS, **own)
        self.in_flight = Gauge("requests_in_flight", "Requests accepted and not yet answered.", **own)
        self.waiting = Gauge("requests_waiting", "Requests whose groups are not yet answered.", **own)
        self.groups_waiting = Gauge("groups_waiting", "Groups waiting for the rest of their samples.", **own)
        self.groups = Counter("groups", "Groups completed, expired or failed.", ["outcome"], **own)
        self.queue = Gauge("queue_comparisons", "Comparisons waiting for the model.", **own)
        self.batch = Histogram("batch_comparisons", "Comparisons per batch.", buckets=_SIZES, **own)
        self.tokens = Counter("generated_tokens", "Tokens generated for votes.", **own)
        self.votes = Counter("votes", "Votes drawn.", ["outcome"], **own)
        self.failures = Counter("failed_comparisons", "Comparisons the model or its server could not judge.", **own)

    def judged(self, verdict: Verdict) -> None:
        """Count the tokens and votes of one verdict."""
        self.tokens.inc(verdict.tokens)
        self.votes.labels("readable").inc(verdict.readable)
        self.votes.labels("unreadable").inc(verdict.unreadable)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
