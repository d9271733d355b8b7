"""The tutorials run: their code blocks in order, with the tiny model in the place of one that took time to train.

Blocks marked ``python`` are executed and share their names, ``pycon`` ones are checked with doctest, ``bash`` ones are
given to the command, in this process, or to the shell. ``text`` and ``console`` blocks are what a person saw who ran
what took too long; tests/test_docs.py still checks the commands and options they show.
"""

from __future__ import annotations

import doctest
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1_reward.bench.benchmarks import REGISTERED
from r1_reward.data.sources import SOURCES
from r1_reward.train.algorithms import ALGORITHMS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of the code blocks of a tutorial, in order."""
    text = (ROOT / "docs" / "tutorials" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path, monkeypatch, checkpoint, pair_file):
    """An empty folder with what the tutorials start from: the repository's files, and a finished demo."""
    from r1_reward.store.pairs import load_pairs, save_pairs

    for name in ("examples", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    demo = tmp_path / "runs" / "demo-seed0"
    for name in ("sft", "rl"):
        shutil.copytree(checkpoint, demo / name)
    (demo / "data").mkdir()
    for name in ("train", "test"):
        save_pairs(load_pairs(pair_file).select(range(16)), demo / "data" / f"{name}.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.fixture
def tables():
    """Tables that a tutorial adds to are as before when it ends."""
    before = [(table, dict(table)) for table in (ALGORITHMS, REGISTERED, SOURCES)]
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)


@contextmanager
def served(model: str) -> Iterator[str]:
    """The server of `r1-reward serve --model MODEL` on a free port; yields its address."""
    import uvicorn

    from r1_reward.judge.reward_model import RewardModel
    from r1_reward.serve.api import create_app
    from r1_reward.serve.settings import ServerSettings

    app = create_app(RewardModel.from_pretrained(model, max_new_tokens=64), ServerSettings(model_name="rl"))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def run_python(code: str, names: dict[str, object], place: str) -> None:
    exec(compile(code, place, "exec"), names)


def run_doctest(code: str, names: dict[str, object], place: str) -> None:
    test = doctest.DocTestParser().get_doctest(code, names, place, place, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    runner.run(test, out=said.append, clear_globs=False)
    names.update(test.globs)
    assert runner.failures == 0, "".join(said)


def run_shell(code: str) -> None:
    """Run the lines of a block; r1-reward in this process, which has its imports behind it already."""
    from typer.testing import CliRunner

    from r1_reward.cli import _register, app

    _register()
    for line in re.sub(r"\\\n\s*", " ", code).splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "r1-reward":
            # The pages' judge is the demo's; here it is one that was hardly trained, and no verdict at all is an error.
            judges = words[1] == "score" or words[1:3] in (["bench", "run"], ["bench", "probe"])
            go_on = ["--on-unreadable", "warn"] if judges else []
            done = CliRunner().invoke(app, [*words[1:], *go_on], catch_exceptions=False)
            unread = re.search("(no|not one|none of the) (verdict|vote)s? can be read", done.output, re.IGNORECASE)
            mute = done.exit_code == 1 and unread
            assert done.exit_code == 0 or mute, f"{line}\n{done.output}"
        else:
            words[0] = sys.executable if words[0] == "python" else words[0]
            done = subprocess.run(words, check=True, timeout=120, capture_output=True, text=True)
            assert '"error"' not in done.stdout, done.stdout


def run_page(page: str, address: str = "") -> dict[str, object]:
    """Run all blocks of a page; ``address`` stands for the server that the page speaks to."""
    names: dict[str, object] = {"__name__": f"tutorial_{page}"}
    for number, (language, code) in enumerate(blocks(page), 1):
        code = code.replace("http://127.0.0.1:8000", address or "http://127.0.0.1:8000")
        place = f"{page}.md, block {number}"
        if language == "python":
            run_python(code, names, place)
        elif language == "pycon":
            run_doctest(code, names, place)
        elif language == "bash":
            run_shell(code)
        else:
            assert language in ("text", "console", "json", "yaml"), f"{place}: a block in {language}"
    return names


def test_train(workplace):
    run_page("train")
    log = json.loads((workplace / "runs" / "tiny-rl" / "checkpoint-12" / "trainer_state.json").read_text())
    assert log["global_step"] == 12, "resumed after the eight updates of the recipe"
    assert (workplace / "runs" / "tiny-sft" / "model.safetensors").is_file()


def test_evaluate(workplace):
    names = run_page("evaluate")
    assert names["metrics"]["n"] == 16
    assert (workplace / "runs" / "probe" / "probe.json").is_file()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_serve(workplace):
    with served("runs/demo-seed0/rl") as address:
        names = run_page("serve", address)
    assert names["values"] == [None, None, None], "a model with random weights says nothing that can be read"
    assert (workplace / "scores.parquet").is_file()


def test_extend(workplace, tables):
    subprocess.run([sys.executable, "examples/photographs.py", "runs/photographs"], check=True, timeout=120)
    names = run_page("extend")
    assert type(names["trainer"].referee).__name__ == "RuleReferee"
    assert names["trainer"].algorithm.name == "median"
    assert (workplace / "runs" / "mine" / "metrics.json").is_file()
