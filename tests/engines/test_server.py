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

from r1_reward.engines.client import RejectedError, ServerError, ServerGone
from r1_reward.engines.engine import EngineError, Request
from r1_reward.engines.server import ServerEngine
from r1_reward.engines.server_pool import server_name
from r1_reward.engines.usage import Usage
from r1_reward.engines.workers import EngineSpec, in_workers
from r1_reward.records.errors import UserError

pytestmark = [
    pytest.mark.filterwarnings("error"),  # above all, coroutines never awaited and sockets left open
    pytest.mark.usefixtures("no_waits"),
]


def engine_of(server, **options):
    return ServerEngine("judge", server.url, **{"retries": 2, "timeout": 30.0, **options})


def ask(text, seeds=(0,), **options):
    return Request([{"role": "user", "content": text}], [], tuple(seeds), **options)


def free_url():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


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
        assert len(drawn) - answered < 20  # 6 in flight, and answers out of order
    results.close()
    assert len(drawn) < 50


def test_the_body_of_a_request(server):
    content = [{"type": "text", "text": "?"}, {"type": "image"}, {"type": "text", "text": "!"}]
    request = Request([{"role": "user", "content": content}], [Image.new("RGB", (3, 2))], (5,), max_new_tokens=9)
    assert texts(engine_of(server).generate([request])) == [[JUDGMENT]]
    body = server.bodies[-1]
    [message] = body.pop("messages")
    assert body == {"model": "judge", "seed": 5, "temperature": 0, "max_tokens": 9, "logprobs": True, "top_logprobs": 5}
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text"]
    assert message["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    list(engine_of(server, logprobs=False).generate([ask("x", temperature=0.7)]))
    assert (server.bodies[-1]["temperature"], server.bodies[-1]["top_p"]) == (0.7, 1.0)
    assert "logprobs" not in server.bodies[-1]


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
    assert texts(engine.generate(ask(text, temperature=1.0) for text in "ab")) == [[JUDGMENT]] * 2
    before = len(server.bodies)
    assert texts(engine.generate(ask(text, temperature=1.0) for text in "cd")) == [[JUDGMENT]] * 2
    assert [field in body for body in server.bodies[before:]] == [False, False]
    assert ("max_completion_tokens" in server.bodies[-1]) == (field == "max_tokens")


def test_a_rate_limit_is_waited_out_unless_that_takes_too_long(server):
    server.scripts["x"] = [status(429, **{"retry-after": "0.2"}), reply()]
    server.scripts["hour"] = [status(429, **{"retry-after": "3600"})]
    [fine, error, other] = engine_of(server).generate(map(ask, ["x", "hour", "y"]))
    assert (fine[0].text, other[0].text) == (JUDGMENT, JUDGMENT)
    assert server.times[-1] - server.times[0] >= 0.19
    assert "asks to wait 3600 seconds" in str(error)
    assert "in 1 try" in str(error)


FAILURES = {
    "null": (reply(None), "no text", "bad reply"),
    "half": (raw(json.dumps(reply())[:60]), "not one complete JSON", "bad reply"),
    "a page": (raw("<html>\x1b[2J\nlogin", "text/html"), "text/html instead of JSON: <html> [2J login", "bad reply"),
    "500": (status(500, "\n".join(["out of memory"] * 99)), "it answers 500: ", "HTTP 500"),
    "429": (status(429), "lower the concurrency", "HTTP 429"),
    "hang": (hang, "within 0.3 seconds", "timeout"),
    "drip": (drip, "within 0.3 seconds", "timeout"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_retried_and_then_costs_only_its_own_row(server, name):
    step, reason, kind = FAILURES[name]
    server.scripts = {"never": [step], "later": [step, reply()]}
    requests = [ask("a"), ask("never", (1, 2)), ask("later"), ask("b")]
    engine = engine_of(server, retries=1, timeout=0.3 if step in (hang, drip) else 30)
    [first, error, again, last] = engine.generate(requests)
    assert [row[0].text for row in (first, again, last)] == [JUDGMENT] * 3
    assert isinstance(error, ServerError)
    assert not isinstance(error, RejectedError)
    assert error.kind == kind
    # Once one vote of a row has failed, the try of the other is canceled, perhaps before it reaches the server.
    assert len(server.bodies) <= engine.usage.calls <= len(server.bodies) + 1
    assert 3 <= engine.usage.failures <= engine.usage.calls - 3
    assert (engine.usage.prompt_tokens, engine.usage.completion_tokens) == (9, 21)
    assert server.url in engine.usage.last_failure
    assert reason in str(error)
    assert str(error).startswith(f"server {server.url} returned no completion in 2 tries (")
    assert len(str(error)) < 500
    assert str(error).isprintable()
    # Two votes, two tries each; one more if it says that it is busy and answers others meanwhile.
    assert 2 <= server.calls["never"] <= (8 if kind in ("HTTP 429", "HTTP 503") else 4)
    assert server.calls["later"] == 2


@pytest.mark.parametrize("code", [400, 413, 422, 403])
def test_a_request_that_the_server_will_never_accept_is_not_retried(server, code):
    server.scripts["x"] = [status(code, "longer than the context")]
    [_, error, fine] = engine_of(server, concurrency=1).generate(map(ask, "axb"))
    assert isinstance(error, RejectedError)
    assert error.kind == f"HTTP {code}"
    assert f"in 1 try (it answers {code}: " in str(error)
    assert "longer than the context" in str(error)
    assert server.calls["x"] == 1
    assert fine[0].text == JUDGMENT


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (401, "rejects the API key"),
        (402, "the account's credit"),
        (404, "does not know the model 'judge'"),
        (429, "the account's credit"),
    ],
)
def test_what_fails_for_every_request_ends_the_run_at_once(server, code, reason):
    async def refuse():
        while server.calls["slow"] == 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # the first answer was sent long before
        why = "no such key" if code == 401 else "insufficient_quota"
        return status(code, f"{why} for sk-very-secret")()

    server.scripts = {"slow": [hang], "x": [refuse]}
    results = engine_of(server, api_key="sk-very-secret").generate(map(ask, ["a", "slow", "x", "b"]))
    assert next(results)[0].text == JUDGMENT
    started = time.monotonic()
    with pytest.raises(UserError, match=reason) as caught:
        list(results)
    assert time.monotonic() - started < 28  # the slow one is given up after 30
    assert not isinstance(caught.value, EngineError)
    assert server.url in str(caught.value)
    assert "sk-very-secret" not in str(caught.value)
    assert server.calls["x"] == 1


def test_a_key_that_may_not_use_the_model_ends_the_run(server):
    server.default = [status(403)]
    with pytest.raises(UserError, match="does not let this key use the model 'judge'") as caught:
        list(engine_of(server).generate([ask("a")]))
    assert not isinstance(caught.value, EngineError)


def test_a_lost_row_causes_no_further_requests(server):
    server.scripts["x"] = [status(500)]
    results = engine_of(server, concurrency=1, retries=0).generate([ask("x", range(9)), ask("y")])
    assert [type(result) for result in results] == [ServerError, list]
    assert server.calls["x"] <= 2  # the next one may be out before the first is known to have failed


def test_no_server_ends_the_run_at_once():
    with pytest.raises(ServerGone, match=r"cannot be reached .*base URL"):
        list(ServerEngine("judge", free_url(), retries=10**6).generate(ask(str(i)) for i in itertools.count()))


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
        list(ServerEngine("judge", url, retries=2).generate([ask("x")]))
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
        engine = ServerEngine("judge", url, retries=3, concurrency=1)
        assert texts(engine.generate([ask("x")])) == [[JUDGMENT]]
        [error] = ServerEngine("judge", url, retries=2).generate([ask("x")])
        assert "in 3 tries (the connection was lost" in str(error)
        rude.shutdown()


def threads():
    gc.collect()
    return [thread.name for thread in threading.enumerate()].count("server-engine")


def test_all_sessions_of_an_engine_share_its_connections(server):
    others = threads()
    engine = engine_of(server, concurrency=1)
    for _ in range(3):
        assert texts(engine.generate(map(ask, "ab"))) == [[JUDGMENT]] * 2
    with engine.open() as one, engine.open() as two:
        for session in (one, two):
            session.submit("ticket", ask("c"))
        assert [session.collect()[0][0] for session in (one, two)] == ["ticket"] * 2
        assert one.collect() == []
    assert (len(server.bodies), len(server.ports), threads()) == (8, 1, others + 1)
    engine.close()
    engine.close()
    assert threads() == others
    assert texts(engine.generate([ask("d")])) == [[JUDGMENT]]
    assert len(server.ports) == 2


def test_requests_flow_past_a_slow_one_across_blocks(server):
    async def slow():
        while len(server.bodies) < 41:
            await asyncio.sleep(0.01)
        return reply("slow")

    server.scripts["0"] = [slow]
    blocks = [[str(4 * block + i) for i in range(4)] for block in range(10)] + [["last"]]
    spec = EngineSpec("judge", base_url=server.url, concurrency=4)
    judged = list(in_workers(lambda engine, rows, _: engine.generate(map(ask, rows)), blocks, None, spec))
    assert [block for block, _ in judged] == blocks
    assert texts(judged[0][1]) == [["slow"], *[[JUDGMENT]] * 3]


def test_answers_before_a_fatal_error_are_returned_first(server):
    server.scripts["bad"] = [status(401)]
    engine = engine_of(server)
    with engine.open() as session:
        for number, text in enumerate(["a", "bad", "b"], 1):
            session.submit(text, ask(text))
            while session._answered.qsize() < number:
                time.sleep(0.01)
        assert [ticket for ticket, _ in session.collect()] == ["a"]
        with pytest.raises(UserError, match="rejects the API key"):
            session.collect()
        assert [ticket for ticket, _ in session.collect()] == ["b"]
        assert session.collect() == []


def test_a_request_has_a_limit_over_all_its_tries(server):
    server.scripts = {"x": [hang], "y": [status(429, **{"retry-after": "100"})], "z": [status(500)]}
    engine = engine_of(server, limit=0.3, retries=10**6)
    started = time.monotonic()
    [hung, later, failing, fine] = engine.generate(map(ask, ["x", "y", "z", "a"]))
    assert time.monotonic() - started < 10
    assert [error.kind for error in (hung, later, failing)] == ["timeout", "HTTP 429", "timeout"]
    assert "within 0.3 seconds over all tries" in str(hung)
    assert fine[0].text == JUDGMENT


def test_every_try_counts_toward_the_rate_limit(server, monkeypatch):
    taken = []
    monkeypatch.setattr("r1_reward.engines.client.Pace.delay", lambda self, now: taken.append(now) or 0.0)
    server.scripts["x"] = [status(500), raw("{"), reply()]
    assert texts(engine_of(server, requests_per_minute=5).generate([ask("x")])) == [[JUDGMENT]]
    assert len(taken) == len(server.bodies) == 3


def test_usage_is_counted_in_the_callers_object(server):
    usage = Usage(calls=100)
    list(engine_of(server, usage=usage).generate([ask("x", (1, 2))]))
    assert (usage.calls, usage.failures, usage.prompt_tokens, usage.completion_tokens) == (102, 0, 6, 14)
    assert usage.request_seconds > 0
    assert usage.cost(1e6, 2e6) == 6 + 28


def test_messages_never_show_the_key(server):
    server.default = [status(500, "bad key sk-very-secret")]
    engine = engine_of(server, api_key="sk-very-secret")
    [error] = engine.generate([ask("x")])
    for message in (str(error), engine.usage.last_failure):
        assert "bad key [the key]" in message


def test_an_error_keeps_no_reference_to_its_request(server):
    server.scripts["x"] = [status(500)]
    [error] = engine_of(server, retries=0).generate([ask("x")])
    assert error.__traceback__ is error.__cause__ is error.__context__ is None


def test_closing_early_cancels_everything(server):
    server.default = [hang]
    server.scripts["first"] = [reply()]
    others = threads()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ResourceWarning)  # sockets left open
        warnings.simplefilter("always", RuntimeWarning)  # coroutines never awaited
        engine = engine_of(server, concurrency=8)
        results = engine.generate(map(ask, ["first", *"abcd"]))
        assert next(results)[0].text == JUDGMENT
        deadline = time.monotonic() + 20
        while server.active < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        results.close()
        del results, engine
        assert threads() == others
    assert not [str(warning.message) for warning in caught]
    while server.active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.active == 0, "the server still works on cancelled requests"
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
        ({"base_url": "https://api.openai.com/v1"}, "OPENAI_API_KEY"),
        ({"api_key": "se\u00adcret"}, "contains invalid characters"),
        ({"concurrency": 0}, "concurrency 0"),
        ({"timeout": 0}, "timeout 0"),
        ({"timeout": float("nan")}, "timeout nan"),
        ({"limit": -1}, "limit -1"),
        ({"retries": -1}, "retries -1"),
        ({"requests_per_minute": -1}, "requests per minute -1"),
    ],
)
def test_wrong_settings(options, reason):
    with pytest.raises(UserError, match=reason):
        ServerEngine("judge", **{"base_url": "http://localhost/v1", **options})


def test_messages_never_show_the_password_in_a_url():
    assert server_name("http://me:hush@localhost:9/v1?key=hush") == "server http://localhost:9/v1"
    with pytest.raises(UserError) as caught:
        ServerEngine("judge", "me:hush@localhost")
    assert "hush" not in str(caught.value)
