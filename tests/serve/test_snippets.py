"""The snippets of examples/trainers and docs/trainers.md, called as the trainers call them."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from served import Served, png

ROOT = Path(__file__).parents[2]


def snippet(name):
    spec = importlib.util.spec_from_file_location(f"snippet_{name}", ROOT / "examples" / "trainers" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server():
    with Served(unscored_reward=0.0) as server:
        yield server


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "scene.png").write_bytes(png(5, 4))
    return tmp_path / "scene.png"


# OpenRLHF: a request with many samples.


def test_openrlhf_many_samples_in_a_request(server):
    body = {"query": ["Q? 4", "Q? 7"], "prompts": ["Q? ", "Q? "], "labels": ["", ""]}
    status, answer = server.post("/get_reward", body)
    assert status == 200
    assert answer["rewards"] == pytest.approx([-0.8, 0.8])
    assert server.post("/get_reward", {"query": ["Q? 4"], "prompts": ["Q? "], "labels": [""]})[1]["rewards"] == [0.0]


# Plain HTTP.


def test_plain_http(server, picture):
    rewards = snippet("plain_http").rewards
    address = f"http://127.0.0.1:{server.port}"
    assert rewards(address, "Which is larger?", [picture], ["4", "7", "5"]) == pytest.approx([-0.8, 0.8, 0.0])
    assert rewards(address, "Which is larger?", [], ["4", "7"]) == pytest.approx([-0.8, 0.8])
    assert set(map(tuple, server.judge.images)) == {((5, 4),), ()}
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        rewards(address, " ", [], ["4", "7"])


def blocks(language):
    """Return the code blocks of docs/trainers.md in a language."""
    text = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_from_the_page(server, picture):
    commands = [block for block in blocks("bash") if block.startswith("curl")]
    assert len(commands) == 2
    for command in commands:
        command = command.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{server.port}")
        done = subprocess.run(["bash", "-c", command], cwd=picture.parent, capture_output=True, timeout=60, check=True)
        answer = json.loads(done.stdout)
        assert "error" not in answer, answer
        assert set(answer) & {"rewards", "preferred"}


# TRL, with the real trainer.


def test_trl_trains_a_step_with_the_snippet(checkpoint, pair_file, tmp_path):
    data = pair_file.parent / "questions.jsonl"
    rows = [json.loads(line) for line in pair_file.read_text().splitlines()[:4]]
    lines = [{"question": row["question"], "images": row["images"]} for row in rows]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {
        "max_steps": 1, "max_completion_length": 4, "use_cpu": True, "bf16": False, "report_to": "none",
        "gradient_checkpointing": False, "disable_tqdm": True, "save_strategy": "no",
    }  # fmt: skip
    program = snippet("trl_grpo")
    program.GROUP_SIZE, program.JUDGMENT_TOKENS = 2, 4  # an untrained judge would never stop
    program.train(str(checkpoint), str(checkpoint), data, tmp_path / "out", **options)
    assert (tmp_path / "out" / "config.json").is_file()


def test_every_python_block_of_the_page_is_in_an_example():
    """All Python on the page is code that the tests above run."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "examples" / "trainers").glob("*.py"))
    dialects = (ROOT / "src" / "r1_reward" / "serve" / "dialects").glob("*.py")
    sources += "\n".join(path.read_text(encoding="utf-8") for path in dialects)
    for block in blocks("python"):
        for line in block.splitlines():
            assert line.strip() in sources, line
