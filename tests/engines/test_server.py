"""The server engine against a scripted server: order, retries, what ends a run, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import warnings

import pytest
from PIL import Image
from scripted_server import JUDGMENT, ScriptedServer, drip, hang, raw, reply, status

from r1_reward.engines.engine import EngineError, Request
from r1_reward.engines.server import ServerEngine
from r1_reward.records.errors import UserError

pytestmark = pytest.mark.filterwarnings("error")  # above all, coroutines never awaited and sockets left open


def engine_of(server, **options):
    return ServerEngine("judge", server.url, **{"backoff": 0.01, "retries": 2, "timeout": 30.0, **options})


def ask(text, seeds=(0,)):
    return Request([{"role": "user", "content": text}], [], tuple(seeds))


def texts(results):
    return [result if isinstance(result, EngineError) else [c.text for c in result] for result in results]


def test_every_seed_of_every_request_is_answered_in_order_within_the_concurrency(server):
    async def echo(body):
        text = body["messages"][0]["content"]
        await asyncio.sleep(0.001 * (int(text) * 7 % 20))  # later ones overtake
        return reply(f"{text}/{body['seed']}")

    server.default = [echo]
    requests = (ask(str(i), range(i, i + i % 4)) for i in range(40))
    results = list(engine_of(server, concurrency=5).generate(requests))
    assert texts(results) == [[f"{i}/{seed}" for seed in range(i, i + i % 4)] for i in range(40)]
    assert len(server.bodies) == sum(i % 4 for i in range(40))
    assert 2 <= server.peak <= 5


def test_an_endless_stream_is_read_only_a_little_ahead(server):
    drawn = []

    def requests():
        for i in itertools.count():
            drawn.append(i)
            yield ask(str(i))

    results = engine_of(server, concurrency=3).generate(requests())
    assert not drawn
    for answered in range(1, 31):
        next(results)
        assert len(drawn) - answered < 6
    results.close()
    assert len(server.bodies) <= len(drawn) <= 36


def test_the_body_of_a_request(server):
    content = [{"type": "text", "text": "?"}, {"type": "image"}, {"type": "text", "text": "!"}]
    request = Request([{"role": "user", "content": content}], [Image.new("RGB", (3, 2))], (5,))
    assert texts(engine_of(server).generate([request], max_new_tokens=9)) == [[JUDGMENT]]
    body = server.bodies[0]
    [message] = body.pop("messages")
    assert body == {"model": "judge", "seed": 5, "temperature": 0, "max_tokens": 9, "logprobs": True, "top_logprobs": 5}
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text"]
    assert message["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    list(engine_of(server).generate([ask("x")], temperature=0.7))
    assert (server.bodies[1]["temperature"], server.bodies[1]["top_p"]) == (0.7, 1.0)


def test_too_few_images_is_the_callers_mistake(server):
    with pytest.raises(ValueError, match="0 images for 1 image parts"):
        list(engine_of(server).generate([Request([{"role": "user", "content": [{"type": "image"}]}], [])]))


@pytest.mark.parametrize(
    ("field", "refusal"),
    [
        ("logprobs", status(400, "logprobs are not supported")),
        ("logprobs", status(403, "You are not allowed to request logprobs from this model")),
        ("max_tokens", status(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")),
        ("top_p", status(422, "`temperature` and `top_p` cannot both be specified")),
    ],
)
def test_what_a_server_refuses_is_left_out_from_then_on(server, field, refusal):
    server.default = [lambda body: refusal() if field in body else reply()]
    engine = engine_of(server, retries=0)
    assert texts(engine.generate(map(ask, "ab"), temperature=1.0)) == [[JUDGMENT]] * 2
    before = len(server.bodies)
    assert texts(engine.generate(map(ask, "cd"), temperature=1.0)) == [[JUDGMENT]] * 2
    assert [field in body for body in server.bodies[before:]] == [False, False]
    assert ("max_completion_tokens" in server.bodies[-1]) == (field == "max_tokens")


def test_a_rate_limit_is_waited_for(server):
    limit = {"retry-after": "0.5"}
    server.scripts["x"] = [status(429, **limit), status(429, **limit), reply()]
    assert texts(engine_of(server).generate([ask("x")])) == [[JUDGMENT]]
    assert all(0.48 < b - a < 2 for a, b in itertools.pairwise(server.times))


def test_nobody_waits_for_an_hour(server):
    server.scripts["x"] = [status(429, **{"retry-after": "3600"})]
    [error, fine] = engine_of(server).generate([ask("x"), ask("y")])
    assert "asks to wait 3600 seconds" in str(error)
    assert "in 1 try" in str(error)
    assert fine[0].text == JUDGMENT


def test_waits_double(server):
    server.scripts["x"] = [status(500), status(503), status(500), reply()]
    assert texts(engine_of(server, backoff=0.1, retries=3).generate([ask("x")])) == [[JUDGMENT]]
    waits = [b - a for a, b in itertools.pairwise(server.times)]
    assert all(0.07 * 2**k < waited < 0.13 * 2**k + 1 for k, waited in enumerate(waits))


FAILURES = {
    "null": (reply(None), "no text"),
    "an error instead": ({"error": {"message": "overloaded"}}, "overloaded"),
    "empty": (raw(""), "nothing"),
    "half": (raw(json.dumps(reply())[:60]), "not one complete JSON"),
    "a page": (raw("<html>\x1b[2J\nlogin", "text/html"), "text/html instead of JSON: <html> [2J login"),
    "500": (status(500, "\n".join(["out of memory"] * 99)), "it answers 500: "),
    "429": (status(429), "lower the concurrency"),
    "hang": (hang, "within 0.5 seconds"),
    "drip": (drip, "within 0.5 seconds"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_asked_for_again_and_then_costs_its_own_row_only(server, name):
    step, reason = FAILURES[name]
    server.scripts = {"never": [step], "later": [step, reply()]}
    requests = [ask("a"), ask("never", (1, 2)), ask("later"), ask("b")]
    timeout = 0.5 if step in (hang, drip) else 30
    [first, error, again, last] = engine_of(server, retries=1, timeout=timeout).generate(requests)
    assert [row[0].text for row in (first, again, last)] == [JUDGMENT] * 3
    assert isinstance(error, EngineError)
    assert reason in str(error)
    assert str(error).startswith(f"server {server.url} gave no completion in 2 tries (")
    assert len(str(error)) < 500
    assert str(error).isprintable()
    assert 2 <= server.calls["never"] <= 4
    assert server.calls["later"] == 2


def test_a_request_the_server_cannot_take_is_not_repeated(server):
    server.scripts["x"] = [status(400, "longer than the context")]
    [error, fine] = engine_of(server).generate([ask("x"), ask("y")])
    assert "in 1 try (it answers 400: " in str(error)
    assert "longer than the context" in str(error)
    assert server.calls["x"] == 1
    assert fine[0].text == JUDGMENT


@pytest.mark.parametrize(
    ("code", "reason"), [(401, "API key"), (403, "this key"), (404, "does not know the model 'judge'")]
)
def test_what_fails_for_all_ends_the_run_at_once(server, code, reason):
    async def refuse():
        await asyncio.sleep(0.3)
        return status(code, "bad key sk-very-secret")()

    server.scripts = {"slow": [hang], "x": [refuse]}
    results = engine_of(server, api_key="sk-very-secret").generate(map(ask, ["a", "slow", "x", "b"]))
    assert next(results)[0].text == JUDGMENT
    started = time.monotonic()
    with pytest.raises(UserError, match=reason) as caught:
        list(results)
    assert time.monotonic() - started < 20  # the slow one is given up after 30
    assert not isinstance(caught.value, EngineError)
    assert server.url in str(caught.value)
    assert "sk-very-secret" not in str(caught.value)
    assert server.calls["x"] == 1


def test_the_run_ends_at_once_even_if_requests_come_slowly(server):
    server.scripts = {"0": [hang], "1": [status(401)]}
    drawn = []

    def requests():
        for i in range(600):
            drawn.append(i)
            yield ask(str(i))
            time.sleep(0.05)

    with pytest.raises(UserError, match="refuses the API key"):
        list(engine_of(server, concurrency=600).generate(requests()))
    assert len(drawn) < 600


def test_nothing_more_is_asked_about_a_row_that_is_lost(server):
    server.scripts["x"] = [status(500)]
    results = engine_of(server, concurrency=1, retries=0).generate([ask("x", range(9)), ask("y")])
    assert [type(result) for result in results] == [EngineError, list]
    assert server.calls["x"] <= 2  # the next one may be out before the first is known to have failed


def test_no_server_ends_the_run_at_once():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with pytest.raises(UserError, match=r"cannot be reached .*base URL") as caught:
        list(ServerEngine("judge", url).generate(ask(str(i)) for i in itertools.count()))
    assert not isinstance(caught.value, EngineError)


def test_a_server_that_dies_halfway_keeps_what_it_answered():
    server = ScriptedServer()
    results = engine_of(server, concurrency=2).generate(ask(str(i)) for i in itertools.count())
    answered = [next(results) for _ in range(10)]
    server.stop()
    with pytest.raises(UserError, match="cannot be reached"):
        for result in results:
            answered.append(result)
    good = [row for row in answered if not isinstance(row, EngineError)]
    assert 10 <= len(good) <= len(server.bodies)
    assert {row[0].text for row in good} == {JUDGMENT}


def test_a_server_that_dies_in_the_middle_of_an_answer_ends_the_run():
    listener = socket.create_server(("127.0.0.1", 0))

    def accept_once():
        connection, _ = listener.accept()
        listener.close()
        connection.close()

    thread = threading.Thread(target=accept_once)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with pytest.raises(UserError, match="cannot be reached"):
        list(ServerEngine("judge", url, backoff=0.01, retries=2).generate([ask("x")]))
    thread.join()


def test_dropped_connections_and_short_bodies():
    body = json.dumps(reply()).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    answers = iter([b"", head % len(body) + body[:50], b"HTTP/1.", head % len(body) + body, *[b""] * 3])

    class Rude(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65536)
            self.request.sendall(next(answers))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Rude) as rude:
        threading.Thread(target=rude.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{rude.server_address[1]}/v1"
        engine = ServerEngine("judge", url, backoff=0.01, retries=3, concurrency=1)
        assert texts(engine.generate([ask("x")])) == [[JUDGMENT]]
        engine.retries = 2
        [error] = engine.generate([ask("x")])
        assert "in 3 tries (the connection broke off" in str(error)
        rude.shutdown()


def test_closing_early_cancels_everything(server):
    server.default = [hang]
    server.scripts["first"] = [reply()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ResourceWarning)  # sockets left open
        warnings.simplefilter("always", RuntimeWarning)  # coroutines never awaited
        results = engine_of(server, concurrency=8).generate(map(ask, ["first", *"abcd"]))
        assert next(results)[0].text == JUDGMENT
        deadline = time.monotonic() + 20
        while server.active < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        results.close()
        gc.collect()
    assert not [str(warning.message) for warning in caught]
    assert "openai-engine" not in [thread.name for thread in threading.enumerate()]
    while server.active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.active == 0, "the server is still working for nobody"
    assert len(server.bodies) == 5


INTERRUPTED = """
import sys
from r1_reward.engines.server import ServerEngine, Request
engine = ServerEngine("judge", sys.argv[1])
try:
    for _ in engine.generate(Request([{"role": "user", "content": str(i)}], [], (1, 2)) for i in range(99)):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_interrupting_is_clean(server):
    server.default = [hang]
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", INTERRUPTED, server.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while server.active < 16 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=10)
    assert (out, errors, process.returncode) == ("interrupted\n", "", 0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"base_url": "localhost:8000"}, "must look like http"),
        ({"base_url": "http://host:port/v1"}, "not a URL"),
        ({"base_url": None}, "OPENAI_API_KEY"),
        ({"api_key": "se\u00adcret"}, "copy it again"),
        ({"concurrency": 0}, "concurrency 0"),
        ({"timeout": 0}, "timeout 0"),
        ({"retries": -1}, "retries -1"),
    ],
)
def test_wrong_settings(options, reason):
    with pytest.raises(UserError, match=reason):
        ServerEngine("judge", **{"base_url": "http://localhost/v1", **options})


def test_messages_never_show_the_password_in_a_url():
    engine = ServerEngine("judge", "http://me:hush@localhost:9/v1?key=hush")
    assert engine._name == "server http://localhost:9/v1"
    with pytest.raises(UserError) as caught:
        ServerEngine("judge", "me:hush@localhost")
    assert "hush" not in str(caught.value)
