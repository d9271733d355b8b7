"""``r1-reward serve`` in its own process, with the tiny checkpoint, and the options it refuses."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from r1_reward.cli.serve import serve
from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.errors import UserError
from r1_reward.serve.server import listen
from r1_reward.serve.settings import ServerSettings
from r1_reward.store.pairs import load_pairs

COMMAND = [sys.executable, "-c", "import typer; from r1_reward.cli.serve import serve; typer.run(serve)"]


class Process:
    """The command, started on a free port."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        found = re.search(r"serving (\S+) at http://127\.0\.0\.1:(\d+)$", line.strip())
        assert found, line + self.process.stderr.read()
        self.name, self.port = found[1], int(found[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def ask(self, method, path, value=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        body = None if value is None else json.dumps(value)
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        answer = response.status, json.loads(response.read())
        connection.close()
        return answer


@pytest.fixture(scope="module")
def rows(pair_file):
    return [dict(row) for row in load_pairs(pair_file).select(range(4))]


def request_of(row, **options):
    images = [{"base64": base64.b64encode(Path(cell["path"]).read_bytes()).decode()} for cell in row["images"]]
    fields = {name: row[name] for name in ("question", "response_1", "response_2")}
    return {**fields, "images": images, **options}


@pytest.mark.slow
def test_the_command_answers_as_the_library_does_and_exits_cleanly(checkpoint, rows, monkeypatch):
    monkeypatch.setenv("SERVE_KEY", "a key")
    key = {"Authorization": "Bearer a key"}
    options = ("--model", str(checkpoint), "--api-key-env", "SERVE_KEY", "--max-new-tokens", "24")
    model = RewardModel.from_pretrained(checkpoint, max_new_tokens=24)
    with Process(*options) as served:
        assert served.name == checkpoint.name  # not its path
        status, health = served.ask("GET", "/health")
        assert (status, health["ready"], health["model"]) == (200, True, checkpoint.name)
        assert served.ask("POST", "/v1/compare", request_of(rows[0]))[0] == 401
        answers = {}

        def ask(number, votes):
            request = request_of(rows[number], votes=votes)
            answers[number, votes] = served.ask("POST", "/v1/compare", request, **key)

        threads = [threading.Thread(target=ask, args=(n, votes)) for n in range(4) for votes in (1, 3)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60
        while served.ask("GET", "/health")[1]["in_flight"] < 8 and len(answers) < 8:
            assert time.monotonic() < end
        served.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(120)
        assert served.process.wait(60) == 0, served.process.stderr.read()
        assert "Traceback" not in served.process.stderr.read()
    for (number, votes), (status, answer) in answers.items():
        row = rows[number]
        images = [cell["path"] for cell in row["images"]]
        expected = model.compare(row["question"], images, row["response_1"], row["response_2"], votes=votes)
        assert status == 200 and answer["preferred"] == expected.preferred
        assert [vote["answer"] for vote in answer["votes"]] == [vote.answer for vote in expected.votes]
        assert [vote["tokens"] for vote in answer["votes"]] == [vote.tokens for vote in expected.votes]
        for vote, own in zip(answer["votes"], expected.votes, strict=True):
            assert own.answer is not None or vote["reasoning"] == own.text
    assert len(answers) == 8


def refused(*arguments):
    app = typer.Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, UserError), result
    return str(result.exception)


def test_the_command_refuses_to_start_with_invalid_options(checkpoint, tmp_path, monkeypatch):
    model = ("--model", str(checkpoint))
    assert "--insecure" in refused(*model, "--host", "0.0.0.0")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert "NO_SUCH_KEY" in refused(*model, "--api-key-env", "NO_SUCH_KEY")
    monkeypatch.setenv("NO_SUCH_KEY", " ")
    assert "NO_SUCH_KEY" in refused(*model, "--api-key-env", "NO_SUCH_KEY")
    assert "not a directory" in refused(*model, "--allow-folder", str(tmp_path / "none"))
    assert "--model-pixels" in refused(*model, "--base-url", "http://127.0.0.1:9/v1", "--model-pixels", "100")
    assert str(tmp_path / "none") in refused("--model", str(tmp_path / "none"))


def test_a_port_that_is_taken(checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused("--model", str(checkpoint), "--port", str(port), "--base-url", "http://127.0.0.1:9/v1")
    assert f"port {port}" in message and "in use" in message.lower()


def test_importing_the_command_loads_no_server():
    code = "import sys; import r1_reward.cli.serve; sys.exit(any(m in sys.modules for m in ('fastapi', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


def test_an_answer_does_not_wait_for_an_acknowledgment():
    with (
        listen(ServerSettings(port=0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
