"""The command as a public interface: which options every command has, that help is quick, how a mistake is told."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer

from r1_reward.cli import _register, app

SNAPSHOT = Path(__file__).with_name("options.json")
"""Option names of each command. A name that goes breaks somebody's script; one that comes is to be added here."""


@pytest.fixture(scope="module")
def commands():
    found = {}

    def walk(command, name):
        for key, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {key}".strip())
        if not hasattr(command, "commands"):
            found[name] = command

    _register()
    walk(typer.main.get_command(app), "")
    return found


def test_every_command_has_the_options_it_had(commands):
    names = {
        name: sorted(word for one in command.params for word in (*one.opts, *one.secondary_opts))
        for name, command in commands.items()
    }
    assert names == json.loads(SNAPSHOT.read_text())


def test_every_option_says_what_it_is_for(commands):
    mute = [(name, one.name) for name, command in commands.items() for one in command.params if not one.help]
    assert mute == []


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "r1_reward", *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments", [(), ("bench", "run"), ("data", "annotate"), ("score",), ("serve",), ("demo",), ("doctor",)]
)
def test_help_loads_nothing_heavy(arguments):
    done = run(*arguments, "--help")
    assert done.returncode == 0, done.stderr[-500:]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not loaded & {"torch", "transformers", "datasets", "pyarrow", "scipy", "numpy", "PIL", "fastapi", "openai"}


def test_the_version_loads_nothing_heavy():
    done = run("--version")
    assert done.returncode == 0, done.stderr[-500:]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not loaded & {"torch", "transformers", "datasets", "huggingface_hub", "numpy", "openai"}


def test_a_mistake_is_one_message_and_code_2():
    for arguments, said in (
        (("bench", "run", "pairs", "--modle", "m", "--out", "o"), "--model"),
        (("score", "f.jsonl", "--model", "m", "--out", "o.parquet", "--votes", "3", "--temperature", "0"), "greedy"),
        (("data", "annotate", "f", "--teacher", "t", "--out", "o", "--price-in", "1"), "--price-out"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_warnings_about_other_libraries_names_are_not_shown(monkeypatch):
    from r1_reward import cli

    _register()
    monkeypatch.setattr(sys, "warnoptions", [])
    monkeypatch.setattr(cli, "app", lambda: warnings.warn("`old` is deprecated", FutureWarning, stacklevel=1))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cli.main()
    assert said == []
