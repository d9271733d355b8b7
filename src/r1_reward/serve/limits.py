"""The gate in front of every route: API keys, concurrent requests, body sizes, and request metrics.

It works on ASGI messages, so it counts a body while it streams in, and reads nothing of a request that is refused for
its key, its length, or because too many requests are in progress.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Container, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r1_reward.serve.errors import Refusal
from r1_reward.serve.metrics import Metrics, State
from r1_reward.serve.routes import OURS, ErrorForm
from r1_reward.serve.settings import ServerSettings

_OPEN = ("/health", "/openapi.json")
_CLOSE = {"Connection": "close"}  # the rest of the body is not read


class Gate:
    """ASGI middleware that refuses what the settings do not allow."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        state: State,
        metrics: Metrics,
        judging: Mapping[str, ErrorForm],
        patient: Container[str] = (),
    ) -> None:
        """Wrap ``app``.

        ``judging`` maps the paths that use the model to the form of their errors. When the server is full, up to
        ``max_waiting`` requests wait for room: all requests to ``patient`` paths, and elsewhere those with the header
        ``Prefer: wait``.
        """
        self.patient = patient
        self.app, self.settings, self.state, self.metrics, self.judging = app, settings, state, metrics, judging

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in (*self.judging, *_OPEN, "/metrics") else "other"
        started, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pass(scope, receive, sending)
        finally:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        judging = scope["path"] in self.judging and scope["method"] == "POST"
        refusal = self._refusal(scope["path"], headers, judging)
        if refusal is None and judging and self._is_full:
            waits = scope["path"] in self.patient or headers.get(b"prefer", b"").strip().lower() == b"wait"
            refusal = await self._room(waits)
        if refusal is not None:
            await self.judging.get(scope["path"], OURS).response(refusal)(scope, receive, send)
            return
        if not judging:
            await self.app(scope, self._counted(receive), send)
            return
        self.state.begin()
        try:
            await self.app(scope, self._counted(receive), send)
        finally:
            self.state.end()

    def _refusal(self, path: str, headers: dict[bytes, bytes], judging: bool) -> Refusal | None:
        """Return why a request is refused before its body is read, or None if it is not."""
        if path not in _OPEN and not self._has_key(headers):
            return Refusal(401, "the API key is missing or wrong", headers={"WWW-Authenticate": "Bearer", **_CLOSE})
        if headers.get(b"sec-fetch-site") == b"cross-site":
            return Refusal(403, "requests from other websites are not allowed", headers=_CLOSE)
        if not judging:
            return None
        if self.state.closing:
            return self._closing()
        if headers.get(b"content-length", b"0").isdigit() and int(headers.get(b"content-length", b"0")) > self._limit:
            return self._too_large()
        return None

    @property
    def _is_full(self) -> bool:
        return self.state.in_flight >= self.settings.max_queue

    async def _room(self, waits: bool) -> Refusal | None:
        """Wait until there is room if the client ``waits``; otherwise return why the request is refused."""
        while self._is_full and not self.state.closing:
            if not waits or self.state.waiting + len(self.state.line) >= self.settings.max_waiting:
                full = f"{self.state.in_flight} requests are in progress, the limit of this server (--max-queue)"
                return Refusal(429, f"{full}; try again later", headers={"Retry-After": "1", **_CLOSE})
            await self.state.stand_in_line()
        return self._closing() if self.state.closing else None

    def _closing(self) -> Refusal:
        return Refusal(503, "the server is shutting down", headers={"Retry-After": "5", **_CLOSE})

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        if self.settings.api_key is None:
            return True
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        # Compare in constant time, so that timing does not reveal the key.
        right = secrets.compare_digest(key.strip(), self.settings.api_key.strip().encode())
        return right and scheme.lower() == b"bearer"

    @property
    def _limit(self) -> int:
        return self.settings.max_body

    def _too_large(self) -> Refusal:
        return Refusal(
            413, f"the body is larger than {self.settings.max_body_mb:g} MiB (--max-body-mb)", headers=_CLOSE
        )

    def _counted(self, receive: Receive) -> Receive:
        """Return ``receive`` with a limit on the total bytes, whatever the Content-Length says."""
        total = 0

        async def counting() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._limit:
                raise self._too_large()
            return message

        return counting
