"""What is released: the wheel holds the package and nothing else, needs only what it declares, and works by itself."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import r1_reward

ROOT = Path(__file__).parents[1]
VERSION = r1_reward.__version__
COME_ALONG = {
    "pyarrow": "datasets", "tokenizers": "transformers", "typing_extensions": "pydantic", "starlette": "fastapi",
    "multipart": "python-multipart", "httpx": "openai",
}  # fmt: skip
"""Imported packages that a declared one cannot be without."""
PLUGGED_INTO = {"openrlhf", "swift", "verl"}
"""Trainers that load a plug of ours, and so are there when it is imported."""


def imported() -> set[str]:
    """Return the top-level packages that any module of the package imports, at once or when it is used."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"r1_reward"} - PLUGGED_INTO


def declared() -> set[str]:
    """Return the distributions that pyproject.toml names, normalised."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = text.split("\ndependencies = [")[1].split("[project.scripts]")[0].split("dev = [")[0]
    return {name.lower().replace("_", "-") for name in re.findall(r'"([\w-]+)(?:\[\w+\])?[<>=~"]', needed)}


def test_every_import_is_declared():
    distributions, known = packages_distributions(), declared()
    assert {"torch", "trl", "fastapi", "gradio"} <= known
    missing = {}
    for name in imported():
        homes = {home.lower().replace("_", "-") for home in distributions.get(name, [name])}
        if not (homes | {COME_ALONG.get(name, name)}) & known:
            missing[name] = sorted(homes)
    assert missing == {}


def test_the_version_is_the_same_everywhere():
    assert f'\nversion = "{VERSION}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(VERSION)}\]? - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build wheel and source distribution from a copy with the litter of daily work in it; return their folder."""
    folder = tmp_path_factory.mktemp("build")
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis")
    source = Path(shutil.copytree(ROOT, folder / "source", ignore=ignored))
    for litter in ("runs/demo/metrics.json", "src/r1_reward/__pycache__/x.cpython-311.pyc", ".venv/pyvenv.cfg"):
        (source / litter).parent.mkdir(parents=True, exist_ok=True)
        (source / litter).write_text("litter")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built / f"r1_reward-{VERSION}-py3-none-any.whl") as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = wheel.read(f"r1_reward-{VERSION}.dist-info/METADATA").decode()
    package = ROOT / "src" / "r1_reward"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {str(path.relative_to(package.parent)) for path in files}
    assert {"r1_reward/py.typed", "r1_reward/records/templates/pairwise.txt"} <= names
    extras = set(re.findall(r"^Provides-Extra: (\S+)", metadata, re.M))
    assert {"serve", "ui", "vllm", "quant", "ray", "dev"} <= extras
    with tarfile.open(built / f"r1_reward-{VERSION}.tar.gz") as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {"LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "recipes/tiny.yaml", "tests/conftest.py"}
    assert needed <= inside
    assert not [name for name in inside if name.startswith(("runs", ".venv")) or name.endswith(".pyc")]


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(built, tmp_path):
    """Installed alone into an empty environment that borrows this one's dependencies, so that no network is needed."""
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python, command = home / "bin" / "python", home / "bin" / "r1-reward"
    wheel = built / f"r1_reward-{VERSION}-py3-none-any.whl"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    (site,) = (home / "lib").glob("python*/site-packages")
    # A .pth file of a folder that is added by a .pth file is not read, so the checkout's editable install stays out.
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    private = ("PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in private} | {"HF_HUB_OFFLINE": "1"}

    def run(*arguments):
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert Path(run(python, "-c", "import r1_reward; print(r1_reward.__file__)").strip()).is_relative_to(site)
    assert run(command, "--version").strip() == VERSION
    assert "push" in run(command, "--help")
    assert "report: demo" in run(command, "demo", "--quick", "--out", "demo")
    assert json.loads((tmp_path / "demo" / "metrics.json").read_text())["n_pairs"] == 24
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    assert "written to" in run(command, "push", "demo/rl", "me/judge", "--license", "mit", "--dry-run")
    assert "r1-reward demo --seed 0" in (tmp_path / "demo" / "rl-hub" / "README.md").read_text()
