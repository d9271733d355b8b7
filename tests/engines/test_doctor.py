"""The doctor: what it asks, what it concludes from it, and what the command prints and returns."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from r1_reward.engines import doctor
from r1_reward.engines.doctor import GIB, WEIGHTS_7B, Extra, Report, findings_of
from r1_reward.engines.reachable import Reached, reach, reach_all
from r1_reward.records.errors import Unknown, UserError
from r1_reward.store.installed import Unmet
from r1_reward.store.machine import Disk, Gpu, Memory, Torch

ROOT = Path(__file__).parents[2]
H100 = Gpu("H100", 80 * GIB, 79 * GIB, bf16=True)
T4 = Gpu("T4", 15 * GIB, 14 * GIB, bf16=False)
WELL = Report(
    version="0.1.0", commit=None, python="3.11.7", platform="Linux x86_64", libraries={"torch": "2.9.0"}, unmet=(),
    extras={"serve": Extra((Unmet("fastapi", "fastapi>=0.115", None),), "pip install 'r1-reward[serve]'")},
    cores=4, memory=Memory(64 * GIB, 60 * GIB), torch=Torch("2.9.0", 4, "CUDA 12.8", (H100,)), has_driver=True,
    cache=Disk("cache", 100 * GIB, writable=True), environment={}, servers=(Reached("http://a/v1", models=("m",)),),
)  # fmt: skip


@pytest.fixture
def answers():
    """A function of a status and a body: the URL of a server that answers with them; ``asked`` has what was asked."""
    servers = []

    def start(status, body=b"", kind="application/json"):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                start.asked.append((self.path, self.headers["Authorization"]))
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    start.asked = []
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# Servers.


def test_a_server_that_answers_lists_its_models(answers, monkeypatch):
    url = answers(200, b'{"object": "list", "data": [{"id": "R1-Reward"}, {"id": "other\\u001b[31m"}]}')
    assert reach(url) == Reached(url, models=("R1-Reward", "other [31m"))
    monkeypatch.setenv("OPENAI_API_KEY", " secret\n")
    reach(url + "/")
    assert answers.asked == [("/v1/models", None), ("/v1/models", "Bearer secret")]


@pytest.mark.parametrize(
    ("status", "body", "problem", "certain"),
    [
        (401, b"", "refuses the API key (HTTP 401)", True),
        (404, b"", "has nothing at", False),
        (500, b"", "answers HTTP 500", True),
        (200, b"<html>a page</html>", "other than a list of models", True),
        (200, b"[1]", "other than a list of models", True),
        (200, b'{"data": ["m"]}', "other than a list of models", True),
    ],
)
def test_what_is_wrong_with_a_server(answers, status, body, problem, certain):
    found = reach(answers(status, body))
    assert problem in found.problem and found.advice
    assert (found.models, found.certain) == (None, certain)


def test_a_server_that_is_not_there(answers):
    gone, there = "http://127.0.0.1:9/v1", answers(200, b'{"data": []}')
    first, second = reach_all([gone, there])
    assert "cannot be reached" in first.problem and first.advice == "start it or check the URL"
    assert second == Reached(there, models=())
    with pytest.raises(UserError, match="must look like"):
        reach_all([there, "localhost:8000"])


def test_a_key_that_no_header_can_hold_is_not_sent(answers, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    assert "invalid characters" in reach(answers(200, b'{"data": []}')).problem
    assert answers.asked == []


# Conclusions.


def texts(report):
    return [(finding.severity, finding.text) for finding in findings_of(report)]


def test_nothing_is_said_where_all_is_well():
    assert texts(WELL) == []


@pytest.mark.parametrize(
    ("change", "severity", "said", "advice"),
    [
        ({"unmet": (Unmet("trl", "trl<1.17,>=1.16", "1.17.0"),)}, "broken", "1.17.0 is installed", "trl<1.17,>=1.16"),
        ({"unmet": Unknown("not installed")}, "warning", "not known: not installed", "install"),
        ({"torch": Unknown("nms does not exist")}, "broken", "nms does not exist", "same release"),
        ({"servers": (Reached("u", problem="is down", advice="start it"),)}, "broken", "server u is down", "start it"),
        ({"servers": (Reached("u", problem="lists none", certain=False),)}, "warning", "lists none", ""),
        ({"torch": Torch("2.9.0", 4, None, ()), "has_driver": False}, "warning", "no GPU", "--base-url"),
        ({"torch": Torch("2.9.0", 4, None, (replace(H100, bf16=False),))}, "warning", "bfloat16", "--fp16 true"),
        ({"torch": Torch("2.9.0", 4, None, (replace(H100, free=GIB),))}, "warning", "1.0 of 80.0 GiB", "another GPU"),
        ({"environment": {"HF_HUB_OFFLINE": "1"}}, "warning", "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"),
        ({"cache": Unknown("I/O error")}, "warning", "I/O error", "HF_HOME"),
        ({"cache": Disk("c", 100 * GIB, writable=False)}, "warning", "cannot be written", "HF_HOME"),
        ({"cache": Disk("c", 2 * GIB, writable=True)}, "warning", "2.0 GiB are free", "more room"),
    ],
)  # fmt: skip
def test_one_fault_is_one_finding(change, severity, said, advice):
    (found,) = findings_of(replace(WELL, **change))
    assert found.severity == severity
    assert said in found.text and advice in found.advice


def test_a_gpu_that_torch_does_not_see():
    blind = texts(replace(WELL, torch=Torch("2.9.0+cpu", 4, None, ())))
    assert "2.9.0+cpu, which is built for the CPU alone, sees no GPU" in blind[0][1]
    blind = texts(replace(WELL, torch=Torch("2.9.0", 4, "CUDA 13.0", ())))
    assert "which is built for CUDA 13.0, sees no GPU" in blind[0][1]


def test_a_small_card_is_told_once_for_all_of_its_kind():
    two = texts(replace(WELL, torch=Torch("2.9.0", 4, "CUDA 12.8", (T4, T4))))
    assert [text for _, text in two] == [
        "T4 does not compute in bfloat16, which the recipes set",
        "T4 (15.0 GiB) cannot hold the 15.4 GiB of a 7B model in bfloat16",
    ]


@pytest.mark.parametrize(("threads", "said"), [(8, "8 threads on 4 cores"), (1, "1 of 4 cores"), (4, None)])
def test_threads_matter_on_the_cpu(threads, said):
    bare = replace(WELL, torch=Torch("2.9.0", threads, None, ()), has_driver=False)
    found = [text for _, text in texts(bare) if "torch computes" in text]
    assert len(found) == (said is not None) and (said is None or said in found[0])
    assert texts(replace(WELL, torch=Torch("2.9.0", threads, None, (H100,)))) == []


def test_offline_as_the_libraries_read_it():
    assert texts(replace(WELL, environment={"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": ""})) == []
    assert len(texts(replace(WELL, environment={"HF_HUB_OFFLINE": "ON", "HF_DATASETS_OFFLINE": "true"}))) == 2


def test_the_7b_model_is_as_large_as_is_said():
    from transformers import AutoConfig

    from r1_reward.train.memory import shape_of

    shape = shape_of(AutoConfig.from_pretrained(str(ROOT / "recipes" / "shapes" / "qwen2.5-vl-7b")))
    assert 2 * shape.parameters == WEIGHTS_7B


# The command.


@pytest.fixture
def run(monkeypatch):
    """A function of arguments that runs the command where torch is what is given, and returns the result."""
    from r1_reward.cli import _register, app

    _register()

    def invoke(*arguments, torch=WELL.torch):
        monkeypatch.setattr(doctor, "torch_here", lambda: torch)
        return CliRunner().invoke(app, ["doctor", *arguments])

    return invoke


def test_the_command_says_what_is_here(run):
    done = run()
    assert done.exit_code == 0, done.output
    for said in (
        "r1-reward 0.",
        "Python 3.",
        "transformers ",
        "trl ",
        "  serve: ",
        "cores: ",
        "GPU: H100, 79.0 of 80.0",
    ):
        assert said in done.output, said


def test_an_extra_that_is_missing_is_told_with_its_command(run, monkeypatch):
    missing = (Unmet("fastapi", "fastapi>=0.115", None), Unmet("uvicorn", "uvicorn>=0.34", "0.1"))
    monkeypatch.setattr(doctor.installed, "unmet", lambda extra="": missing if extra == "serve" else ())
    done = run()
    told = "missing fastapi, uvicorn>=0.34 is needed, 0.1 is installed: pip install 'r1-reward[serve]'"
    assert f"  serve: {told}" in done.output
    assert done.exit_code == 0


@pytest.mark.parametrize(("commit", "shown"), [(None, ["serve"]), ("22e4c1e", ["dev", "serve"])])
def test_a_release_does_not_miss_the_tools_of_the_repository(commit, shown):
    from r1_reward.cli.doctor import _lines

    lines = list(_lines(replace(WELL, commit=commit, extras=dict.fromkeys(("dev", "serve"), WELL.extras["serve"]))))
    assert [line.split(":")[0].strip() for line in lines if "missing" in line] == shown


def test_what_is_required_and_broken_is_exit_code_1(run, answers):
    done = run(torch=Unknown("torch and torchvision cannot be imported: no libcudart"))
    assert done.exit_code == 1
    assert "broken: torch and torchvision cannot be imported: no libcudart" in done.output
    good = answers(200, b'{"data": [{"id": "judge"}]}')
    done = run("--base-url", good)
    assert (done.exit_code, f"{good}: answers; models: judge" in done.output) == (0, True)
    done = run("--base-url", good, "--base-url", "http://127.0.0.1:9/v1")
    assert done.exit_code == 1 and "127.0.0.1:9/v1 cannot be reached" in done.output


def test_json_holds_all_that_is_printed(run):
    done = run("--json", torch=Unknown("no torch"))
    report = json.loads(done.output)
    assert done.exit_code == 1 and report["broken"] is True
    assert report["torch"] == {"why": "no torch"}
    assert {"severity", "text", "advice"} == set(report["findings"][0])
    assert json.loads(run("--json").output)["torch"]["gpus"][0]["name"] == "H100"


def test_the_doctor_itself_loads_no_torch():
    """Torch that does not fit the machine may end the process that imports it."""
    code = (
        "import sys\n"
        "from r1_reward.engines import doctor\n"
        "from r1_reward.records.errors import Unknown\n"
        "doctor.torch_here = lambda: Unknown('not asked')\n"
        "assert doctor.examine().broken\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
