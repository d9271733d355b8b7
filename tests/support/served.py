"""A real server on loopback around a judge that follows a script, and a client to ask it.

    with Served(ScriptedJudge()) as server:
        status, answer = server.post("/v1/compare", {"question": "?", "response_1": "4", "response_2": "7"})

The judge prefers the response with the larger number at its end, whatever the order.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fakes import FakeEngine, shown
from PIL import Image

from r1_reward.engines.engine import EngineError
from r1_reward.engines.length import PromptTooLong
from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion
from r1_reward.serve.api import create_app
from r1_reward.serve.server import DrainingServer
from r1_reward.serve.settings import ServerSettings


class ScriptedJudge(FakeEngine):
    """An engine that reads numbers; words in a question make it fail in various ways.

    ``calls`` holds the questions of each batch, ``seen`` every (question, first, second) shown. It works only while
    ``may_work`` is set, and sets ``busy`` when it begins.
    """

    def __init__(self, seconds=0.0):
        self.calls, self.seen, self.images, self.temperatures = [], [], [], []
        self.seconds = seconds
        self.may_work, self.busy = threading.Event(), threading.Event()
        self.may_work.set()

    def answer(self, requests):
        asked = [shown(request) for request in requests]
        self.calls.append([question for question, _, _ in asked])
        self.seen.extend(asked)
        self.images.extend([image.size for image in request.images] for request in requests)
        self.temperatures.append(requests[0].temperature)
        self.busy.set()
        assert self.may_work.wait(30)
        time.sleep(self.seconds)
        for request, (question, first, second) in zip(requests, asked, strict=True):
            if "down" in question:
                raise UserError("server http://judge: cannot be reached")
            if "explodes" in question:
                raise RuntimeError("secret detail in /home/secret")
            if "fails" in question:
                yield EngineError("server http://judge: it answers 500")
            else:
                yield [self.judge(question, first, second, seed, request.temperature) for seed in request.seeds]

    def judge(self, question, first, second, seed, temperature):
        if "unreadable" in question:
            return Completion(text="I would not say.", tokens=4)
        better = 1 if number(first) > number(second) else 2
        if temperature and seed % 5 == 0:
            better = 3 - better  # some votes are wrong
        text = f"<think>{first} against {second}, seed {seed}.</think><answer>{better}</answer>"
        return Completion(text=text, tokens=9, probability=0.9 if better == 1 else 0.1)


class ShortJudge(ScriptedJudge):
    """A judge whose context is too short for questions and responses with the word "endless"."""

    def answer(self, requests):
        for request, answer in zip(requests, super().answer(requests), strict=True):
            endless = "endless" in request.messages[0]["content"][-1]["text"]
            yield PromptTooLong.counted(9000, 4096, 512) if endless else answer


def number(text):
    return int(re.search(r"(\d+)\D*$", text)[1]) if re.search(r"\d", text) else -1


class Served:
    """A server in a thread of this process, at a free port."""

    def __init__(self, judge=None, model=None, clock=time.monotonic, **settings):
        self.judge = judge if judge is not None or model is not None else ScriptedJudge()
        self.settings = ServerSettings(**{"timeout": 30.0, **settings})
        self.app = create_app(model or RewardModel(self.judge), self.settings, clock=clock)
        self.service = self.app.state.service
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # see r1_reward.serve.server
        self.port = self._socket.getsockname()[1]
        self.server = DrainingServer(uvicorn.Config(self.app, log_level="critical"), self.service)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self):
        self._thread.start()
        while not self.server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_):
        self.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def stop(self):
        """Begin to end, as a signal does."""
        self.server.should_exit = True

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method, path, body=None, headers=None):
        """Return status, headers and body."""
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def post(self, path, value, **headers):
        """Post JSON; return the status and the JSON of the answer."""
        headers = {"Content-Type": "application/json", **headers}
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, _, answer = self.ask("POST", path, body, headers)
        return status, json.loads(answer)

    def metric(self, name, **labels):
        """Return a number ``/metrics`` tells, 0 if it does not."""
        return self.service.metrics.registry.get_sample_value(f"r1_reward_{name}", labels) or 0


class Clock:
    """A clock that stands still until a test sets ``now``."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def together(*calls):
    """Run functions at once and return their results in order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def wait_until(condition):
    """Wait for what another thread is about to bring about."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.005)


def png(width=3, height=2, colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def base64_png(*args):
    return base64.b64encode(png(*args)).decode()


def form(request, *images):
    """Return the body and the content type of a form."""
    parts = [(b'name="request"', b"application/json", json.dumps(request).encode())]
    parts += [(b'name="images"; filename="a.png"', b"image/png", image) for image in images]
    body = b"".join(
        b"--xyz\r\nContent-Disposition: form-data; "
        + name
        + b"\r\nContent-Type: "
        + kind
        + b"\r\n\r\n"
        + data
        + b"\r\n"
        for name, kind, data in parts
    )
    return body + b"--xyz--\r\n", "multipart/form-data; boundary=xyz"


def pair(first="4", second="7", question="Which is larger?", **fields):
    return {"question": question, "response_1": first, "response_2": second, **fields}
