"""The server process: ``r1-reward serve``, and ``r1-reward ui``, which adds the web page.

    serve(RewardModel.from_pretrained("yifanzhang114/R1-Reward"), ServerSettings(model_name="R1-Reward", port=8000))

On SIGTERM or SIGINT the server finishes the requests it has accepted. Meanwhile new requests get 503, and ``/health``
says not ready.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.errors import UserError
from r1_reward.serve.api import create_app
from r1_reward.serve.service import Service
from r1_reward.serve.settings import ServerSettings

_LAST_SECONDS = 3  # an open page would keep its connection forever


def serve(model: RewardModel, settings: ServerSettings, ready: Callable[[str], None] | None = None) -> None:
    """Answer requests until a signal arrives; ``ready`` is called with the server's URL.

    Raises:
        UserError: the server cannot listen on the address.
    """
    _run(lambda: create_app(model, settings), settings, ready)


def serve_page(model: RewardModel, settings: ServerSettings, ready: Callable[[str], None] | None = None) -> None:
    """Serve the page and the routes until a signal arrives; ``ready`` is called with the page's URL.

    Raises:
        UserError: the server cannot listen on the address, or gradio is not installed.
    """
    from r1_reward.serve.page import PATH, mount_page

    shared = model.shared()

    def make() -> FastAPI:
        return mount_page(create_app(shared, settings), shared, name=settings.model_name)

    _run(make, settings, None if ready is None else lambda url: ready(url + PATH), last_seconds=_LAST_SECONDS)


def _run(
    make: Callable[[], FastAPI],
    settings: ServerSettings,
    ready: Callable[[str], None] | None,
    last_seconds: int | None = None,
) -> None:
    listener = listen(settings)
    app = make()
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=last_seconds
    )
    server = DrainingServer(config, app.state.service)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if ready is not None:
        ready(f"http://{host}:{listener.getsockname()[1]}")
    with _signals_that_end():
        server.run(sockets=[listener])


class DrainingServer(uvicorn.Server):
    """Keeps listening until all requests are answered, so that late ones get 503 instead of a refused connection."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        """Store the service, which knows the requests in progress."""
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the accepted requests, then stop listening."""
        self._service.refuse()
        while self._service.state.open and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


@contextmanager
def _signals_that_end() -> Iterator[None]:
    """Ignore the signals that uvicorn raises again after its shutdown, so that the process exits normally."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(settings: ServerSettings) -> socket.socket:
    """Return a socket that listens on the configured address.

    Raises:
        UserError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
        # Connections inherit this option. asyncio only sets it on sockets that name their protocol, which this one does
        # not. Without it, every answer on a keep-alive connection waits 40 ms for an acknowledgment.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot listen on {settings.host}, port {settings.port}: {error}.") from error
