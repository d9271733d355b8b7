"""What is under way, and what ``/metrics`` tells Prometheus."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from r1_reward.judge.voting import Verdict

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class State:
    """What is under way."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests taken and not yet answered, without those that wait."""
        self.waiting = 0
        """Requests whose groups are not yet answered."""
        self.line: deque[asyncio.Future[None]] = deque()
        """Requests that are not yet taken, first come first."""
        self.closing = False

    @property
    def open(self) -> int:
        """How many requests are to be answered."""
        return self.in_flight + self.waiting + len(self.line)

    def begin(self) -> None:
        """Take a request."""
        self.in_flight += 1

    def end(self) -> None:
        """Count a request as answered, or as outside; the next in the line may come."""
        self.in_flight -= 1
        self._call_next()

    def close(self) -> None:
        """Let none in any more; those in the line are to be told so."""
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
        """Let a request that was taken wait outside the gate."""
        self.waiting += 1
        self.end()

    def go_on(self) -> None:
        """Take it in again."""
        self.waiting -= 1
        self.begin()

    async def stand_in_line(self) -> None:
        """Wait until a request has left; another may have come in its place."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.line.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was called, and does not come
                self._call_next()
            raise


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "r1_reward"}
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], **own)
        self.seconds = Histogram("request_seconds", "From request to answer.", ["route"], buckets=_SECONDS, **own)
        self.in_flight = Gauge("requests_in_flight", "Requests taken and not yet answered.", **own)
        self.waiting = Gauge("requests_waiting", "Requests whose groups are not yet answered.", **own)
        self.groups_waiting = Gauge("groups_waiting", "Groups that wait for the rest of their samples.", **own)
        self.groups = Counter("groups", "Groups completed, expired, failed.", ["outcome"], **own)
        self.queue = Gauge("queue_comparisons", "Comparisons that wait for the model.", **own)
        self.batch = Histogram("batch_comparisons", "Comparisons judged together.", buckets=_SIZES, **own)
        self.tokens = Counter("generated_tokens", "Tokens generated for votes.", **own)
        self.votes = Counter("votes", "Votes drawn.", ["outcome"], **own)
        self.failures = Counter("failed_comparisons", "Comparisons the model or its server could not judge.", **own)

    def judged(self, verdict: Verdict) -> None:
        """Count what one verdict took."""
        self.tokens.inc(verdict.tokens)
        self.votes.labels("readable").inc(verdict.readable)
        self.votes.labels("unreadable").inc(verdict.unreadable)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)
