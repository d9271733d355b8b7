"""The habits of the repository agree with each other: versions of Python, commands of make, checks before a commit."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CHECKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
HOOKS = {hook["id"]: hook for repository in CHECKS["repos"] for hook in repository["hooks"]}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_ci_runs_every_version_of_python_that_is_promised():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["ci"]
    tested = job["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    promised = [one.rpartition(" ")[2] for one in PROJECT["project"]["classifiers"] if one.startswith(prefix)]
    assert tested == promised
    assert PROJECT["project"]["requires-python"] == f">={tested[0]}"
    assert PROJECT["tool"]["mypy"]["python_version"] == tested[0]
    assert any(".ci/run" in step.get("run", "") for step in job["steps"])


def recipe(target):
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]


def test_make_alone_lists_every_target():
    targets = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    assert {"install", "lint", "test", "demo", "docs", "check", "help"} <= targets
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = re.findall(r"^  make (\w+) +\S.*$", listed, re.MULTILINE)
    assert set(named) == targets - {"help"}
    assert targets == set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def test_a_commit_is_checked_by_what_make_lint_runs():
    assert {"ruff", "ruff-format", "codespell", "end-of-file", "trailing-whitespace"} == set(HOOKS)
    for hook in HOOKS.values():
        if hook["language"] == "system":
            program = hook["entry"].split()[0].removeprefix(".venv/bin/")
            assert f"$(BIN)/{program}" in recipe("lint"), hook["id"]


def pattern(hook):
    """A function of a text that says whether pre-commit would complain of it."""
    found = HOOKS[hook]
    whole = "--multiline" in found.get("args", ())  # else it looks at lines, with their ends
    compiled = re.compile(found["entry"].encode(), re.DOTALL | re.MULTILINE if whole else 0)

    def complains(text):
        return any(compiled.search(part) for part in ([text] if whole else text.splitlines(keepends=True)))

    return complains


@pytest.mark.parametrize(
    ("hook", "good", "bad"),
    [
        ("end-of-file", ["a\n", "a\nb\n"], ["a", "a\n\n"]),
        ("trailing-whitespace", ["a\n", "a b\n"], ["a \n", "a\n\tb\t\n", "a "]),
    ],
)
def test_what_the_patterns_find(hook, good, bad):
    complains = pattern(hook)
    assert [text for text in good if complains(text.encode())] == []
    assert [text for text in bad if not complains(text.encode())] == []


@pytest.mark.parametrize("hook", ["end-of-file", "trailing-whitespace"])
def test_every_file_is_as_the_patterns_want_it(hook):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "-C", ROOT, "grep", "-Ilz", ""], capture_output=True, text=True, check=True).stdout
    files = [name for name in listed.split("\0") if name and not re.search(CHECKS["exclude"], name)]
    assert len(files) > 500
    complains = pattern(hook)
    assert [name for name in files if complains((ROOT / name).read_bytes())] == []
