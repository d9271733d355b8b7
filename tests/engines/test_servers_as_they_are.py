"""The client against servers that answer like real ones: refused parameters, no credit, parts, finish reasons, proxies.

The bodies are those of OpenAI, Mistral, Anthropic, Google and others, from a scripted server on loopback.
"""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading

import pytest
from fastapi import Response
from fastapi.responses import JSONResponse
from scripted_server import JUDGMENT, ScriptedServer, reply, status

from r1_reward.engines.client import ServerError, ServerGone
from r1_reward.engines.engine import EngineError, Request
from r1_reward.engines.proxies import is_here, proxy_advice
from r1_reward.engines.server import ServerEngine
from r1_reward.records.errors import UserError

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_waits")]


def engine_of(*servers, **options):
    return ServerEngine("judge", [server.url for server in servers], **{"retries": 2, "timeout": 30.0, **options})


def ask(text, temperature=0.0, seeds=(0,), **options):
    return Request([{"role": "user", "content": text}], [], tuple(seeds), temperature, **options)


def refuses(**rules):
    """A step that answers 4xx with what ``rules`` say about a parameter of the body, else with a judgment."""

    def step(body):
        for name, (code, answer, allowed) in rules.items():
            if name in body and body[name] not in allowed:
                return JSONResponse(answer, code)
        return reply()

    return step


def openai(message, param=None, code=None):
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


ONLY_1 = openai("Unsupported value: 'temperature' does not support 0. Only the default (1) is.", "temperature")
INSTEAD = openai(
    "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "max_tokens"
)
FORBIDDEN = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}

SERVERS = {
    "GPT-5": (
        refuses(
            temperature=(400, ONLY_1, [1]),
            logprobs=(403, openai("You are not allowed to request logprobs from this model", "logprobs"), []),
            max_tokens=(400, INSTEAD, []),
        ),
        {"seed", "max_completion_tokens"},
        ["not greedy", "vote counts", "max_completion_tokens"],
    ),
    "Mistral": (
        refuses(seed=(422, {"object": "error", "message": FORBIDDEN}, []), logprobs=(422, "no logprobs", [])),
        {"temperature", "max_tokens"},
        ["not reproducible", "vote counts"],
    ),
    "a server that takes nothing": (
        refuses(**{
            name: (400, openai(f"Unsupported parameter: '{name}'", name), [])
            for name in ("temperature", "seed", "logprobs", "max_tokens", "max_completion_tokens")
        }),
        set(),
        ["not greedy", "not reproducible", "vote counts", "only the server limits an answer"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SERVERS)
def test_a_refused_parameter_is_left_out_logged_once_and_kept_for_the_report(server, caplog, name):
    step, left, losses = SERVERS[name]
    server.default = [step]
    engine = engine_of(server, retries=0)
    with caplog.at_level(logging.WARNING):
        for text in "abcd":
            [[completion]] = engine.generate([ask(text)])
            assert completion.text == JUDGMENT
    assert set(server.bodies[-1]) - {"model", "messages"} == left
    assert all(set(body) == set(server.bodies[-1]) for body in server.bodies[-3:]), "learned once"
    assert caplog.messages == engine.usage.refused
    assert len(caplog.messages) == len(losses)
    assert all(server.url in message and "refuses" in message for message in caplog.messages)
    assert all(any(loss in message for message in caplog.messages) for loss in losses)


def test_many_concurrent_requests_learn_the_same_and_log_it_once(server, caplog):
    server.default = [SERVERS["GPT-5"][0]]
    engine = engine_of(server, retries=0, concurrency=8)
    mixed = [ask(str(i), temperature=float(i % 2)) for i in range(40)]
    assert [[c.text for c in row] for row in engine.generate(mixed)] == [[JUDGMENT]] * 40
    assert len(caplog.messages) == len(engine.usage.refused) == 3
    before = len(server.bodies)
    list(engine.generate([ask("x"), ask("y", 1.0)]))
    assert len(server.bodies) == before + 2, "one request lost what another had learned"


def test_several_servers_that_refuse_the_same_are_named_once(caplog):
    servers = [ScriptedServer(), ScriptedServer()]
    for server in servers:
        server.default = [SERVERS["Mistral"][0]]
    engine = engine_of(*servers, retries=0, concurrency=2)
    assert len(list(engine.generate(ask(str(i)) for i in range(20)))) == 20
    assert len(engine.usage.refused) == 2
    for server in servers:
        server.stop()


def test_a_refusal_that_leaving_out_does_not_fix_is_not_remembered(server, caplog):
    server.scripts["x"] = [status(400, "the temperature of this text is not allowed")]
    engine = engine_of(server, retries=0)
    [error] = engine.generate([ask("x")])
    [[fine]] = engine.generate([ask("y")])
    assert isinstance(error, EngineError)
    assert "the temperature of this text" in str(error)
    assert fine.text == JUDGMENT
    assert "temperature" in server.bodies[-1]
    assert not caplog.messages


def test_a_server_without_temperature_0_gets_the_lowest_it_accepts(server):
    def step(body):
        cold = body.get("temperature") == 0
        error = {"error": "Input validation error: `temperature` must be strictly positive", "error_type": "validation"}
        return JSONResponse(error, 422) if cold else reply()

    server.default = [step]
    engine = engine_of(server, retries=0)
    for request in (ask("a"), ask("b", 0.7), ask("c")):
        list(engine.generate([request]))
    assert [body["temperature"] for body in server.bodies] == [0.0, 0.01, 0.7, 0.01]
    assert "nearly greedy" in engine.usage.refused[0]


@pytest.mark.parametrize("code", [500, 200])
def test_a_refusal_under_another_status(server, code):
    """llama.cpp has used 500, text-generation-inference 200."""
    error = {"error": "Unsupported param: logprobs", "error_type": "validation"}
    server.default = [lambda body: JSONResponse(error, code) if "logprobs" in body else reply()]
    [[completion]] = engine_of(server).generate([ask("x")])
    assert completion.text == JUDGMENT
    assert len(server.bodies) == 2, "retried as if it could pass"


ALTERNATIVES = {"1": -0.1, "2": -2.3, "x": -5.0}


def at_most(most, code, refusal):
    """A step of a server that returns at most this many alternatives at a position."""

    def step(body):
        if body.get("top_logprobs", 0) > most:
            return JSONResponse(refusal, code)
        if not body.get("logprobs"):
            return reply("<answer>1</answer>")
        top = [{"token": t, "logprob": p} for t, p in list(ALTERNATIVES.items())[: body["top_logprobs"]]]
        places = [
            {"token": "<answer>", "logprob": 0.0, "top_logprobs": []},
            {"token": "1", "logprob": -0.1, "top_logprobs": top},
            {"token": "</answer>", "logprob": 0.0, "top_logprobs": []},
        ]
        return reply("<answer>1</answer>", logprobs={"content": places})

    return step


TOO_MANY = "Requested sample logprobs of 5, which is greater than max allowed: {}"


@pytest.mark.parametrize(
    ("most", "code", "refusal"),
    [
        (2, 400, openai(TOO_MANY.format(2), "logprobs", 400)),
        (4, 400, {"object": "error", "message": TOO_MANY.format(4)}),
        (3, 422, {"detail": [{"loc": ["body", "top_logprobs"], "msg": "Input should be less than or equal to 3"}]}),
        (2, 422, {"error": "Input validation error: `top_n_tokens` must be <= 2", "error_type": "validation"}),
        (2, 400, openai("top_logprobs?")),
    ],
)
def test_a_server_with_fewer_alternatives_keeps_its_probabilities(server, caplog, most, code, refusal):
    server.default = [at_most(most, code, refusal)]
    engine = engine_of(server, retries=0)
    with caplog.at_level(logging.WARNING):
        for text in "abc":
            [[completion]] = engine.generate([ask(text)])
            assert completion.probability == pytest.approx(0.9, abs=0.01)
    assert [body["top_logprobs"] for body in server.bodies] == [5, 2, 2, 2]
    (said,) = caplog.messages
    assert "refuses top_logprobs 5: 2 is sent instead" in said
    assert engine.usage.refused == [said]


@pytest.mark.parametrize("most", [0, 1])
def test_a_server_without_two_alternatives_has_no_probabilities_and_that_is_logged(server, caplog, most):
    server.default = [at_most(most, 400, openai(TOO_MANY.format(most), "logprobs", 400))]
    engine = engine_of(server, retries=0)
    with caplog.at_level(logging.WARNING):
        for text in "abc":
            [[completion]] = engine.generate([ask(text)])
            assert completion.probability is None
    assert [body.get("top_logprobs") for body in server.bodies] == [5, 2, None, None, None]
    (said,) = caplog.messages
    assert "estimated from vote counts" in said


# A server that dies.


@pytest.mark.parametrize(
    ("temperature", "seeds_taken", "named"),
    [(1.0, True, True), (0.3, True, True), (0.0, True, False), (1.0, False, False)],
)
def test_a_server_that_crashes_on_seeds_is_named_with_the_cause(temperature, seeds_taken, named):
    victim = ScriptedServer()
    engine = engine_of(victim, retries=0)
    (server,) = engine.client.pool.servers
    server.dialect = server.dialect._replace(seed=seeds_taken)
    assert len(list(engine.generate([ask(str(i), temperature) for i in range(5)]))) == 5
    victim.stop()
    with pytest.raises(ServerGone, match="cannot be reached") as caught:
        list(engine.generate([ask("x", temperature)]))
    assert ("--max-num-batched-tokens" in str(caught.value)) is named
    assert ("If it is vLLM on a CPU" in str(caught.value)) is named


def test_a_server_that_was_never_reached_did_not_crash():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with pytest.raises(ServerGone) as caught:
        list(ServerEngine("judge", url, retries=0).generate([ask("x", 1.0)]))
    assert "vLLM" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("EngineCore encountered an issue. See stack trace (above) for the root cause.", True),
        ("EngineDeadError: the engine is dead", True),
        ("Engine loop has died", True),
        ("Internal Server Error", False),
        ("the database is dead", False),
    ],
)
def test_a_dead_engine_behind_a_server_that_answers_is_named_too(server, said, named):
    server.default = [status(500, said)]
    for temperature in (1.0, 0.0):
        [error] = engine_of(server, retries=0).generate([ask("x", temperature)])
        assert ("--max-num-batched-tokens" in str(error)) is (named and temperature > 0)


# Credit.

QUOTA = "You exceeded your current quota, please check your plan and billing details."
GOOGLE = {"error": {"code": 429, "message": QUOTA, "status": "RESOURCE_EXHAUSTED", "details": []}}
PER_DAY = [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]
PER_MINUTE = [{"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]}]

OUT_OF_MONEY = {
    "OpenAI": (429, openai(QUOTA, code="insufficient_quota")),
    "OpenAI, a hard limit": (400, openai("Billing hard limit has been reached", code="billing_hard_limit_reached")),
    "Anthropic": (400, {"type": "error", "error": {"message": "Your credit balance is too low to access the API."}}),
    "OpenRouter": (
        402,
        {"error": {"message": "This request requires more credits, or fewer max_tokens.", "code": 402}},
    ),
    "OpenRouter, in a 200": (200, {"error": {"message": "Insufficient credits", "code": 402}}),
    "DeepSeek": (402, openai("Insufficient Balance")),
    "a gateway that says 401": (401, openai("Insufficient balance")),
    "Cohere": (429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}),
    "Gemini": (429, [{"error": {**GOOGLE["error"], "details": PER_DAY}}]),
    "Groq": (429, openai("Rate limit reached on tokens per day (TPD): Limit 500000.", code="rate_limit_exceeded")),
}


@pytest.mark.parametrize("name", OUT_OF_MONEY)
def test_no_credit_ends_the_run_at_once_and_keeps_the_answers(server, name):
    code, answer = OUT_OF_MONEY[name]
    server.scripts["poor"] = [lambda: JSONResponse(answer, code)]
    results = engine_of(server, concurrency=1, retries=5).generate(map(ask, ["a", "b", "poor", *"cdefgh"]))
    assert [next(results)[0].text for _ in range(2)] == [JUDGMENT] * 2
    with pytest.raises(UserError, match="used up") as caught:
        list(results)
    assert not isinstance(caught.value, EngineError)
    assert server.url in str(caught.value)
    assert server.calls["poor"] == 1
    assert all(set(body) == set(server.bodies[0]) for body in server.bodies), "taken for a refusal of max_tokens"


@pytest.mark.parametrize(
    "limit", [openai("Rate limit reached on tokens per min (TPM): Limit 30000."), [GOOGLE], "Too Many Requests"]
)
def test_a_rate_limit_passes(server, limit):
    if isinstance(limit, list):
        limit = [{"error": {**GOOGLE["error"], "details": PER_MINUTE}}]
    server.scripts["x"] = [lambda: JSONResponse(limit, 429), lambda: JSONResponse(limit, 429), reply()]
    [[completion]] = engine_of(server).generate([ask("x")])
    assert completion.text == JUDGMENT
    assert server.calls["x"] == 3


# Content and finish reasons.


def test_parts_and_missing_finish_reasons_are_read_at_the_first_try(server):
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Seen."}]}
    parts = [thought, {"type": "text", "text": "<answer>1</answer>"}]
    server.scripts = {"parts": [reply(parts)], "null": [reply(finish=None)], "both": [reply(parts, finish=None)]}
    rows = list(engine_of(server).generate(map(ask, server.scripts)))
    assert [[c.text for c in row] for row in rows] == [[JUDGMENT]] * 3
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("finish", "usage", "cut"),
    [(None, 7, True), ("null", 8, True), (None, 6, False), ("stop", 7, False), ("length", 3, True)],
)
def test_without_a_reason_a_text_as_long_as_its_limit_was_cut(server, finish, usage, cut):
    server.default = [reply(finish=finish, usage=usage)]
    [[completion]] = engine_of(server).generate([ask("x", max_new_tokens=7)])
    assert completion.truncated is cut


# Proxies.


@pytest.fixture
def proxy():
    """A proxy that refuses everything, and counts."""

    class Refusing(socketserver.StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline().decode().split()[:2])
            page = b"<html>not for you</html>"
            head = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            self.wfile.write(head % (refusing.answer, len(page)) + page)

    asked = []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as refusing:
        refusing.answer, refusing.asked = b"503 Service Unavailable", asked
        refusing.url = f"http://127.0.0.1:{refusing.server_address[1]}"
        threading.Thread(target=refusing.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield refusing
        refusing.shutdown()


@pytest.fixture
def environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_asked_without_the_proxy(server, proxy, environment, name, host):
    environment.setenv(name, proxy.url)
    url = server.url.replace("127.0.0.1", host)
    [[completion]] = ServerEngine("judge", url, retries=0).generate([ask("x")])
    assert completion.text == JUDGMENT
    assert not proxy.asked


def test_an_unusable_proxy_does_not_affect_a_server_on_this_machine(server, environment):
    environment.setenv("ALL_PROXY", "nonsense://127.0.0.1:1")
    [[completion]] = engine_of(server, retries=0).generate([ask("x")])
    assert completion.text == JUDGMENT
    with pytest.raises(UserError, match="ALL_PROXY"):
        list(ServerEngine("judge", "http://gpu.invalid:8000/v1", retries=0).generate([ask("x")]))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_missing_proxy_is_named_with_what_to_set(environment, scheme):
    with socket.create_server(("127.0.0.1", 0)) as free:
        gone = f"http://me:hush@127.0.0.1:{free.getsockname()[1]}"
    environment.setenv(f"{scheme.upper()}_PROXY", gone)
    with pytest.raises(ServerGone, match=f"{scheme.upper()}_PROXY") as caught:
        list(ServerEngine("judge", f"{scheme}://gpu.invalid:8000/v1", retries=9).generate([ask("x")]))
    assert "add gpu.invalid to NO_PROXY" in str(caught.value)
    assert gone.rpartition("@")[2] in str(caught.value)
    assert "start it" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_proxy_that_refuses_is_named(proxy, environment):
    environment.setenv("HTTP_PROXY", proxy.url)
    [error] = ServerEngine("judge", "http://gpu.invalid:8000/v1", retries=1).generate([ask("x")])
    assert isinstance(error, ServerError)
    assert "503" in str(error)
    assert "HTTP_PROXY" in str(error)
    assert "NO_PROXY" in str(error)
    environment.setenv("HTTPS_PROXY", proxy.url)
    with pytest.raises(ServerGone, match="HTTPS_PROXY"):
        list(ServerEngine("judge", "https://gpu.invalid/v1", retries=1).generate([ask("x")]))


@pytest.mark.parametrize("answer", [b"407 Proxy Authentication Required", b"403 Forbidden", b"404 Not Found"])
def test_what_ends_a_run_through_a_proxy_names_it(proxy, environment, answer):
    proxy.answer = answer
    environment.setenv("ALL_PROXY", proxy.url)
    with pytest.raises(UserError, match="ALL_PROXY"):
        list(ServerEngine("judge", "http://gpu.invalid:8000/v1", retries=1).generate([ask("x")]))


def test_without_a_proxy_no_message_mentions_one(environment):
    assert proxy_advice("http://gpu7:8000/v1") == ""
    environment.setenv("HTTP_PROXY", "http://proxy:3128")
    environment.setenv("NO_PROXY", "gpu7,.lab.example")
    assert [bool(proxy_advice(f"http://{host}/v1")) for host in ("gpu7", "a.lab.example", "gpu8", "localhost")] == [
        False,
        False,
        True,
        False,
    ]
    assert proxy_advice("https://gpu8/v1") == "", "HTTP_PROXY is for http alone"


def test_which_hosts_are_this_machine():
    here = ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.1", "::1", "0.0.0.0"]
    assert all(map(is_here, here))
    assert not any(map(is_here, ["localhost.example", "10.0.0.1", "gpu7", "", "::2"]))


def test_a_compressed_reply_is_read(server):
    import gzip

    body = gzip.compress(json.dumps(reply()).encode())
    server.default = [lambda: Response(body, media_type="application/json", headers={"content-encoding": "gzip"})]
    [[completion]] = engine_of(server).generate([ask("x")])
    assert completion.text == JUDGMENT
