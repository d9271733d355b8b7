"""The trainers' client of a judge server, against the real server on loopback."""

from __future__ import annotations

import asyncio
import io
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image
from served import ScriptedJudge, Served, base64_png, png, wait_until

from r1_reward.serve.judge_client import JudgeFailed, JudgeServer, Scored

QUESTION = "Which is larger?"


@pytest.fixture(scope="module")
def server():
    with Served(max_chars=100, group_wait=5) as server:
        yield server


@pytest.fixture
def judge(server):
    return JudgeServer(f"http://127.0.0.1:{server.port}")


def test_a_whole_group_in_one_call(server, judge):
    plain = server.post("/v1/reward", {"question": QUESTION, "responses": ["4", "7", "5"]})[1]["rewards"]
    assert judge.rewards_now(QUESTION, ["4", "7", "5"]) == [Scored(reward, None) for reward in plain]
    assert [one.reward for one in judge.rewards_now(QUESTION, ["3", "3"])] == [0.0, 0.0]
    assert judge.rewards_now(QUESTION, []) == []


def test_samples_that_arrive_alone_are_judged_together(judge):
    async def samples():
        asked = (judge.rewards(QUESTION, [text], group="alone", group_size=4) for text in "4792")
        return await asyncio.gather(*asked)

    together = judge.rewards_now(QUESTION, list("4792"))
    assert [one for (one,) in asyncio.run(samples())] == together
    assert [one.reward for one in together] == pytest.approx([-0.8 / 3, 0.8 / 3, 0.8, -0.8])


def test_what_cannot_be_judged_has_no_reward_and_says_why(judge):
    long, other, third = judge.rewards_now(QUESTION, ["1" * 101, "4", "7"])
    assert long.reward is None and "101 characters" in long.why and "--max-chars" in long.why
    assert (other, third) == (Scored(-0.8, None), Scored(0.8, None))
    for one in judge.rewards_now("unreadable?", ["4", "7"]):
        assert one.reward is None and "could be read" in one.why
    (alone,) = judge.rewards_now(QUESTION, ["4"])
    assert alone.reward is None and alone.why
    assert all(one.why for one in judge.rewards_now(QUESTION, ["1" * 101, "2" * 101]))


@pytest.mark.parametrize("blank", ["", " \n", "\u200b", "\ufeff "])
def test_a_blank_response_loses_and_the_others_keep_their_rewards(server, judge, blank):
    assert judge.rewards_now(QUESTION, [blank, "4", "7"]) == [Scored(-0.8, None), Scored(0, None), Scored(0.8, None)]
    assert any("(empty response)" in shown for shown in server.judge.seen)


def test_pictures_in_every_form(server, judge, tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(png(7, 5))
    images = [png(7, 5), Image.new("RGB", (7, 5)), str(file), file, {"bytes": png(7, 5), "path": None},
              {"base64": base64_png(7, 5)}, f"data:image/png;base64,{base64_png(7, 5)}", base64_png(7, 5),
              f"file://{file}", {"bytes": None, "path": str(file)}, {"bytes": bytearray(png(7, 5))},
              memoryview(png(7, 5)), {"type": "image", "image": Image.new("RGB", (7, 5))}]  # fmt: skip
    server.judge.images.clear()
    judge.rewards_now(QUESTION, ["4", "7"], images)
    assert server.judge.images == [[(7, 5)] * len(images)] * 2
    server.judge.images.clear()
    judge.rewards_now(["Is ", {"type": "image"}, " larger?"], ["4", "7"], [images[1]])
    judge.rewards_now(["Is ", {"type": "image", "image": images[1]}, " larger?"], ["4", "7"])
    assert server.judge.images == [[(7, 5)]] * 4


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "F", "I;16", "I", "1", "P", "LA", "RGBA"])
def test_open_pictures_of_every_mode(server, judge, mode):
    server.judge.images.clear()
    judge.rewards_now(QUESTION, ["4", "7"], [Image.new(mode, (7, 5))])
    assert server.judge.images == [[(7, 5)]] * 2


@pytest.mark.parametrize("name", ["50 %.png", "a b.png", "a#1.png", "50%25.png", "\u00fc.png"])
def test_file_urls_are_read_quoted_and_unquoted(server, judge, tmp_path, name):
    file = tmp_path / name
    file.write_bytes(png(7, 5))
    server.judge.images.clear()
    judge.rewards_now(QUESTION, ["4", "7"], [f"file://{file}", file.as_uri()])
    assert server.judge.images == [[(7, 5)] * 2] * 2


def cut_picture():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 99).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[:2000]))


@pytest.mark.parametrize(
    "image", [7, {"colour": "red"}, "no/such/file.png", "file:///no/such.png", "a\0b.png", None, [], cut_picture()]
)
def test_the_error_says_what_is_not_a_picture(judge, image):
    with pytest.raises(JudgeFailed, match="picture"):
        judge.rewards_now(QUESTION, ["4", "7"], [image])


@pytest.mark.parametrize(
    ("question", "options", "said"),
    [
        ("it fails", {}, "502.*answers 500"),
        ("it explodes", {}, "500"),
        ("<image> Which?", {}, "422.*image"),
        (QUESTION, {"votes": 99}, "422.*votes"),
        (QUESTION, {"colour": "red"}, "422.*colour"),
        (QUESTION, {"schedule": "random"}, "422.*schedule"),
    ],
)
def test_failures_raise(server, question, options, said):
    judge = JudgeServer(f"http://127.0.0.1:{server.port}/", **options)
    with pytest.raises(JudgeFailed, match=said):
        judge.rewards_now(question, ["4", "7"])
    if not options:
        with pytest.raises(JudgeFailed, match=said):
            judge.rewards_now(question, ["4"] * 2 + ["7"], group=f"it {question}", group_size=3)


def test_options_reach_the_judge(server):
    options = {"votes": 2, "schedule": "circular", "kind": "bradley_terry"}
    plain = server.post("/v1/reward", {"question": QUESTION, "responses": list("12345"), **options})[1]["rewards"]
    before = len(server.judge.seen)
    judge = JudgeServer(f"http://127.0.0.1:{server.port}", **options)
    assert [one.reward for one in judge.rewards_now(QUESTION, list("12345"))] == pytest.approx(plain)
    assert len(server.judge.seen) - before == 5 * 2


def test_address_and_key_come_from_the_environment(monkeypatch):
    with Served(api_key="secret") as server:
        monkeypatch.setenv("R1_REWARD_SERVER", f"http://127.0.0.1:{server.port}")
        with pytest.raises(JudgeFailed, match="401.*key"):
            JudgeServer().rewards_now(QUESTION, ["4", "7"])
        monkeypatch.setenv("R1_REWARD_API_KEY", "secret")
        assert JudgeServer().rewards_now(QUESTION, ["4", "7"])[1].reward == 0.8
        assert JudgeServer(api_key="secret").rewards_now(QUESTION, ["4", "7"])[1].reward == 0.8
        with pytest.raises(JudgeFailed, match="401"):
            JudgeServer(api_key="wrong").rewards_now(QUESTION, ["4", "7"])
    for url in ("", "judge:8000", "ftp://judge"):
        monkeypatch.setenv("R1_REWARD_SERVER", url)
        with pytest.raises(JudgeFailed, match="R1_REWARD_SERVER"):
            JudgeServer()


def test_a_full_server_is_retried_until_the_timeout():
    judge = ScriptedJudge()
    judge.may_work.clear()
    with Served(judge, max_queue=1) as server:
        first = threading.Thread(target=server.post, args=("/v1/compare", {
            "question": "?", "response_1": "1", "response_2": "2"}))  # fmt: skip
        first.start()
        wait_until(lambda: server.service.state.in_flight == 1)
        url = f"http://127.0.0.1:{server.port}"
        begun = time.monotonic()
        with pytest.raises(JudgeFailed, match=r"within 0\.5 seconds"):
            JudgeServer(url, timeout=0.5).rewards_now(QUESTION, ["4", "7"])
        assert time.monotonic() - begun < 30
        threading.Timer(0.3, judge.may_work.set).start()
        assert JudgeServer(url, timeout=20).rewards_now(QUESTION, ["4", "7"])[1].reward == 0.8
        first.join()


def test_an_unreachable_server_and_a_foreign_one(monkeypatch):
    monkeypatch.setattr("r1_reward.serve.judge_client._PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(JudgeFailed, match=f"{port}: ConnectError"):
        JudgeServer(f"http://127.0.0.1:{port}").rewards_now(QUESTION, ["4", "7"])

    for body in ("<html>", '{"detail": "Not Found"}', '{"error": "no"}', '{"error": {"message": 7, "field": null}}'):
        with (
            Scripted((404, {}, body)) as other,
            pytest.raises(JudgeFailed, match="404: not an answer of r1-reward serve"),
        ):
            other.judge.rewards_now(QUESTION, ["4", "7"])


@pytest.mark.parametrize("text", ["\ud800 7", "7 \udfff", "\U0001f600 \ud83d 7"])
def test_text_with_lone_surrogates_is_judged(server, judge, text):
    assert judge.rewards_now(QUESTION, ["4", text])[1].reward == 0.8
    assert judge.rewards_now([text, {"type": "text", "text": text}], ["4", "7"])[1].reward == 0.8


class Scripted:
    """A server that gives each request the next of a list of answers: status, headers, body."""

    def __init__(self, *answers):
        self.asked, left = 0, list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):
                handler.rfile.read(int(handler.headers["Content-Length"]))
                self.asked += 1
                status, headers, body = left.pop(0) if len(left) > 1 else left[0]
                handler.send_response(status)
                for name, value in {**headers, "Content-Length": len(body)}.items():
                    handler.send_header(name, value)
                handler.end_headers()
                handler.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.judge = JudgeServer(f"http://127.0.0.1:{self._server.server_port}", timeout=5)

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize(
    "body",
    [
        "null", "{}", "[]", "7", '{"rewards": null}', '{"rewards": [0.5]}', '{"rewards": [0.5, 0.5, 0.5]}',
        '{"rewards": [NaN, 1]}', '{"rewards": [Infinity, 1]}', '{"rewards": ["good", 1]}', '{"rewards": [true, 1]}',
        '{"rewards": [0.1, 0.2], "reasons": ["x"]}', '{"rewards": {"a": 1, "b": 2}}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_malformed_answer_is_a_failure_and_never_a_reward(body):
    with Scripted((200, {}, body)) as other, pytest.raises(JudgeFailed, match="200: not an answer of r1-reward serve"):
        other.judge.rewards_now(QUESTION, ["4", "7"])


GOOD = (200, {}, '{"rewards": [-0.8, 0.8], "reasons": [null, null]}')


@pytest.mark.parametrize(
    "busy",
    [
        (429, {}, "slow down"),
        (429, {"Retry-After": "0"}, "{}"),
        (429, {"Retry-After": "soon"}, "{}"),
        (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "<html>"),
        (503, {"Retry-After": "0.5"}, "{}"),
    ],
)
def test_a_server_without_room_is_retried(monkeypatch, busy):
    monkeypatch.setattr("r1_reward.serve.judge_client._PAUSE", 0.01)
    with Scripted(busy, busy, GOOD) as other:
        assert [one.reward for one in other.judge.rewards_now(QUESTION, ["4", "7"])] == [-0.8, 0.8]
        assert other.asked == 3


@pytest.mark.parametrize("status", [401, 403, 500, 502, 503, 504])
def test_final_errors_are_not_retried(status):
    with Scripted((status, {}, '{"error": {"field": null, "message": "no"}}'), GOOD) as other:
        with pytest.raises(JudgeFailed, match=f"{status}: no"):
            other.judge.rewards_now(QUESTION, ["4", "7"])
        assert other.asked == 1


def test_it_works_inside_a_running_event_loop(judge):
    async def inside():
        return judge.rewards_now(QUESTION, ["4", "7"])

    assert asyncio.run(inside())[1].reward == 0.8


def test_it_needs_only_httpx():
    code = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "numpy", "PIL", "fastapi", "pydantic", "trl"}:
            raise ImportError(name)
sys.meta_path.insert(0, Only())
from r1_reward.serve.judge_client import JudgeServer
JudgeServer("http://x")
"""
    source = str(Path(__file__).parents[2] / "src")
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {source!r})\n{code}"], check=True)
