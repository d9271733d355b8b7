"""Terminals and pipes of another encoding than UTF-8: what they lack is replaced; nothing ends in a stack trace."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from scripted_server import reply

TEXT = "Seen 😀 中文 “quoted” naïve"
ENCODINGS = [
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "cp437"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1:strict"},
    {"PYTHONIOENCODING": "utf-8:strict"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


def run(environment, *arguments):
    names = ("PYTHONIOENCODING", "LC_ALL", "LANG", "PYTHONUTF8", "PYTHONCOERCECLOCALE")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-m", "r1_reward", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env={**clean, "COLUMNS": "200", **environment}, timeout=300)


@pytest.mark.parametrize("environment", ENCODINGS, ids=lambda environment: " ".join(environment.values()))
def test_a_judgement_is_printed_whatever_the_terminal_lacks(server, environment):
    server.default = [reply(f"<think>{TEXT}</think><answer>1</answer>")]
    asked = ("--model", "judge", "--base-url", server.url, "--question", "Which?", "--one-order")
    done = run(environment, "compare", *asked, "--a", "one 😀", "--b", "two 中")
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr[-800:]
    assert b"is better" in done.stdout


@pytest.mark.parametrize("environment", ENCODINGS[:2], ids=lambda environment: " ".join(environment.values()))
def test_a_mistake_is_told_whatever_the_terminal_lacks(environment, tmp_path):
    done = run(environment, "data", "validate", tmp_path / "paare_😀_中文.jsonl")
    assert done.returncode == 2 and b"Traceback" not in done.stderr, done.stderr[-800:]
    assert b"error: " in done.stderr
    (tmp_path / "😀.jsonl").write_text('{"id": "😀", "question": "中文"}\n', encoding="utf-8")
    done = run(environment, "data", "validate", tmp_path / "😀.jsonl")
    assert done.returncode in (1, 2) and b"Traceback" not in done.stderr, done.stderr[-800:]
    assert b"response_1" in done.stdout + done.stderr
