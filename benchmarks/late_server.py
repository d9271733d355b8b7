"""A chat server on loopback, in its own process, that answers every request after a fixed latency."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

Answer = Callable[[dict[str, Any]], str]
"""Maps the body of a request to the text of the reply; a module-level function, so that it can be pickled."""


Latency = float | Callable[[dict[str, Any]], float]
"""Seconds, or a function like ``Answer`` that returns them."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, *args: Any, answer: Answer, latency: Latency) -> None:
        self._text, self._latency = answer, latency
        super().__init__(*args)

    def do_GET(self) -> None:
        """List the one model."""
        self._wait({})
        self._send({"object": "list", "data": [{"id": "late", "object": "model", "created": 0, "owned_by": "me"}]})

    def do_POST(self) -> None:
        """Complete a chat."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": self._text(body)}
        self._wait(body)
        self._send(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "late",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 400, "completion_tokens": 200, "total_tokens": 600},
            }  # fmt: skip
        )

    def _wait(self, body: dict[str, Any]) -> None:
        time.sleep(self._latency(body) if callable(self._latency) else self._latency)

    def _send(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    """Accepts every connection at once."""

    request_queue_size = 512
    daemon_threads = True


def _serve(port: Connection, answer: Answer, latency: Latency) -> None:
    server = _Server(("127.0.0.1", 0), partial(_Handler, answer=answer, latency=latency))
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def late_server(answer: Answer, latency: Latency) -> Iterator[str]:
    """Serve inside the block and yield the base URL; ``latency`` is in seconds."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(sender, answer, latency), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}/v1"
    finally:
        process.terminate()
