"""The gate over a real socket: keys, concurrent requests, body sizes."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import socket
import threading

import pytest
from served import ScriptedJudge, Served, form, pair, together, wait_until

from r1_reward.serve import limits


def talk(server, *lines, body=b"", pieces=None):
    """Send raw HTTP, then read until the server closes; return the status and the rest."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "Host: x", "Connection: close", "", ""]).encode() + body)
        with contextlib.suppress(ConnectionError):  # it disconnects clients that keep sending
            for piece in pieces or ():
                connection.sendall(piece)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


def chunks(total, size=1 << 20):
    """Yield a chunked body of ``total`` bytes that ends properly."""
    piece = b"%x\r\n" % size + b"x" * size + b"\r\n"
    for _ in range(total // size):
        yield piece
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=xyz"])
def test_a_body_of_a_gigabyte_is_refused_unread(kind):
    with Served(max_body_mb=1) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        post = ("POST /v1/compare HTTP/1.1", f"Content-Type: {kind}")
        status, answer = talk(server, *post, f"Content-Length: {1 << 30}")  # not one byte of it was sent
        assert (
            status == 413 and json.loads(answer)["error"]["message"] == "the body is larger than 1 MiB (--max-body-mb)"
        )
        # Without a length, so that only counting can tell.
        sent = []
        part = b'--xyz\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
        pieces = (
            sent.append(1) or piece for piece in itertools.chain([b"%x\r\n%s\r\n" % (len(part), part)], chunks(1 << 30))
        )
        status, answer = talk(server, *post, "Transfer-Encoding: chunked", pieces=pieces)
        assert status == 413
        assert len(sent) < 200
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
        assert server.post("/v1/compare", pair())[0] == 200


def test_a_body_longer_than_announced_is_not_read_further():
    with Served(max_body_mb=1) as server:
        body = json.dumps(pair()).encode()
        lines = ("POST /v1/compare HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(body)}")
        status, answer = talk(server, *lines, body=body + b"x" * 1000)
        assert status == 200 and json.loads(answer)["preferred"] == 2


def test_a_body_just_within_the_limit_is_accepted():
    with Served(max_body_mb=0.001) as server:
        body = json.dumps(pair()).encode()
        room = server.settings.max_body - len(body)
        assert server.post("/v1/compare", body + b" " * room)[0] == 200
        assert server.post("/v1/compare", body + b" " * (room + 1))[0] == 413


def test_the_key_is_checked_before_anything_is_read():
    with Served(api_key="right") as server:
        for key in (None, "Bearer wrong", "Bearer right2", "Bearer", "Basic right", "right", "Bearer r\xefght"):
            headers = {"Authorization": key} if key else {}
            status, headers, answer = server.ask("POST", "/v1/compare", b"not even JSON", headers)
            assert status == 401 and headers["www-authenticate"] == "Bearer"
            assert json.loads(answer)["error"]["message"] == "the API key is missing or wrong"
            assert server.ask("GET", "/metrics", headers={"Authorization": key} if key else {})[0] == 401
        for key in ("Bearer right", "bearer right"):
            assert server.post("/v1/compare", pair(), Authorization=key)[0] == 200
        assert server.ask("GET", "/health")[0] == 200
        assert len(server.judge.calls) == 2


def test_keys_are_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(limits.secrets, "compare_digest", lambda *keys: compared.append(keys) or True)
    with Served(api_key="right") as server:
        assert server.post("/v1/compare", pair(), Authorization="Bearer wrong")[0] == 200
    assert compared == [(b"wrong", b"right")]


def test_requests_from_other_websites_are_refused():
    with Served() as server:
        body, kind = form(pair())
        headers = {"Content-Type": kind, "Origin": "https://elsewhere.example"}
        assert server.ask("POST", "/v1/compare", body, {**headers, "Sec-Fetch-Site": "cross-site"})[0] == 403
        assert server.ask("POST", "/v1/compare", body, {**headers, "Sec-Fetch-Site": "same-origin"})[0] == 200


def test_more_requests_than_the_queue_holds_get_429_and_none_is_lost():
    judge = ScriptedJudge()
    judge.may_work.clear()
    with Served(judge, max_queue=3) as server:
        answers = {}

        def ask(number):
            answers[number] = server.post("/v1/compare", pair(str(number), "0"))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.service.state.in_flight == 3)
        status, headers, answer = server.ask(
            "POST", "/v1/compare", json.dumps(pair()), {"Content-Type": "application/json"}
        )
        assert status == 429 and int(headers["retry-after"]) >= 1
        assert "3 requests are in progress" in json.loads(answer)["error"]["message"]
        assert json.loads(server.ask("GET", "/health")[2])["in_flight"] == 3
        judge.may_work.set()
        for thread in threads:
            thread.join()
        assert [answers[number][0] for number in range(1, 4)] == [200] * 3
        assert all(answers[number][1]["preferred"] == 1 for number in range(1, 4))
        assert server.post("/v1/compare", pair())[0] == 200


def test_a_body_that_never_arrives_times_out():
    with Served(timeout=0.3) as server:
        lines = ("POST /v1/compare HTTP/1.1", "Content-Type: application/json", "Content-Length: 100")
        status, answer = talk(server, *lines, body=b'{"question": ')
        assert status == 408 and "in time" in json.loads(answer)["error"]["message"]
        wait_until(lambda: server.service.state.in_flight == 0)


def test_a_client_that_disconnects_leaves_nothing_behind(caplog):
    with Served() as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                b"POST /v1/compare HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            wait_until(lambda: server.service.state.in_flight == 1)
        wait_until(lambda: server.service.state.in_flight == 0)
        assert server.post("/v1/compare", pair())[0] == 200
    assert "Traceback" not in caplog.text


def test_shutting_down_finishes_accepted_requests_and_refuses_the_rest():
    judge = ScriptedJudge()
    judge.may_work.clear()
    with Served(judge) as server:
        answers = []
        asked = {"question": "?", "responses": list("123456789")}
        taken = [
            threading.Thread(target=lambda path=path, value=value: answers.append(server.post(path, value)))
            for path, value in (("/v1/compare", pair()), ("/v1/rank", {**asked, "budget": 20}))
        ]
        for thread in taken:
            thread.start()
        wait_until(lambda: server.service.state.in_flight == 2)
        server.stop()
        wait_until(lambda: server.service.state.closing)
        status, headers, answer = server.ask(
            "POST", "/v1/compare", json.dumps(pair()), {"Content-Type": "application/json"}
        )
        assert status == 503 and "shutting down" in json.loads(answer)["error"]["message"] and "retry-after" in headers
        status, _, answer = server.ask("GET", "/health")
        assert status == 503 and json.loads(answer)["ready"] is False
        judge.may_work.set()
        for thread in taken:
            thread.join(30)
        assert sorted(status for status, _ in answers) == [200, 200]
    with pytest.raises(OSError):
        server.ask("GET", "/health")


def test_five_hundred_requests_at_once_are_all_answered_correctly():
    with Served(max_queue=498) as server:

        def ask(number):
            status, answer = server.post("/v1/compare", pair(str(number), str(number * 7 % 499), votes=1))
            return status, answer["preferred"]

        answers = together(*(lambda number=number: ask(number) for number in range(1, 499)))
        expected = [(200, 1 if number > number * 7 % 499 else 2) for number in range(1, 499)]
        assert answers == expected
        assert len(server.judge.calls) < 400  # they shared batches
        assert server.metric("requests_total", route="/v1/compare", status="200") == 498
        assert server.service.state.in_flight == 0 and len(server.service.batcher) == 0
