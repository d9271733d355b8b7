"""What is released: the wheel holds the package and nothing else, needs only what it declares, and works by itself."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

import r1_reward

ROOT = Path(__file__).parents[1]
VERSION = r1_reward.__version__
COME_ALONG = {
    "pyarrow": "datasets", "tokenizers": "transformers", "typing_extensions": "pydantic", "starlette": "fastapi",
    "multipart": "python-multipart", "packaging": "accelerate", "psutil": "accelerate",
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


def test_what_comes_along_still_does():
    """Since openai 3 the package no longer brings httpx, which was imported on the strength of it."""
    for name, carrier in COME_ALONG.items():
        brought = {Requirement(text).name.lower().replace("_", "-") for text in distribution(carrier).requires or ()}
        homes = {home.lower().replace("_", "-") for home in packages_distributions()[name]}
        assert homes & (brought | {carrier}), f"{carrier} does not bring {name}"


def test_the_version_is_the_same_everywhere():
    assert '\nversion = { attr = "r1_reward.__version__" }' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
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
    recipes = {path for path in (ROOT / "recipes").rglob("*") if path.is_file()}
    assert {f"r1_reward/{path.relative_to(ROOT)}" for path in recipes} <= names
    assert len(names) == len(recipes) + len(files)
    assert {str(path.relative_to(package.parent)) for path in files} <= names
    assert {"r1_reward/py.typed", "r1_reward/records/templates/pairwise.txt"} <= names
    extras = set(re.findall(r"^Provides-Extra: (\S+)", metadata, re.M))
    assert {"serve", "ui", "vllm", "ray", "dev"} <= extras
    with tarfile.open(built / f"r1_reward-{VERSION}.tar.gz") as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "constraints.txt",
        "recipes/tiny.yaml",
        "setup.py",
        "tests/conftest.py",
    }
    assert needed <= inside
    assert not [name for name in inside if name.startswith(("runs", ".venv")) or name.endswith(".pyc")]


def brought_along(requirements):
    """Return the distributions that an install of these brings: they, what they require, and so on."""
    found = {}
    left = [(Requirement(text), ("",)) for text in requirements]
    while left:
        requirement, extras = left.pop()
        if requirement.marker is not None and not any(requirement.marker.evaluate({"extra": one}) for one in extras):
            continue
        key = (requirement.name.lower().replace("_", "-"), *sorted(requirement.extras))
        if key not in found:
            try:
                found[key] = distribution(requirement.name)
            except PackageNotFoundError:  # one that this environment does without, too
                continue
            left += [(Requirement(text), ("", *requirement.extras)) for text in found[key].requires or ()]
    return list(found.values())


def requirements_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"r1_reward-{VERSION}.dist-info/METADATA").decode()
    return re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)


@pytest.fixture(scope="module")
def bare(built, tmp_path_factory):
    """A function that runs the command where the wheel was installed without extras, and returns how it ended.

    The environment borrows what the wheel requires from this one, and nothing else, so that no network is needed.
    """
    home = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    python, command = home / "venv" / "bin" / "python", home / "venv" / "bin" / "r1-reward"
    wheel = built / f"r1_reward-{VERSION}-py3-none-any.whl"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    (site,) = (home / "venv" / "lib").glob("python*/site-packages")
    for one in brought_along(requirements_of(wheel)):
        for name in {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(one.locate_file(name))
    private = ("PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in private} | {"HF_HUB_OFFLINE": "1"}

    def run(*arguments, code=0, program=command):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, cwd=home, env=environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    run.folder, run.python, run.site = home, python, site
    return run


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(bare):
    """Without any extra: the demo, a card, and a verdict of the model that the demo made."""
    code = "import r1_reward; print(r1_reward.__file__)"
    assert Path(bare("-c", code, program=bare.python).strip()).is_relative_to(bare.site)
    assert bare("--version").strip() == VERSION
    assert bare("-c", "import r1_reward as r; [getattr(r, name) for name in r.__all__]", program=bare.python) == ""
    assert "push" in bare("--help")
    copied = {path: (ROOT / path).read_bytes() for path in bare("recipes").splitlines()}
    assert {"recipes/tiny.yaml", "recipes/accelerate/one-gpu.yaml", "recipes/shapes/qwen2.5-vl-7b/config.json"} <= set(
        copied
    )
    assert all((bare.folder / path).read_bytes() == content for path, content in copied.items())
    assert "recipes: exists" in bare("recipes", code=2)
    assert "report: demo" in bare("demo", "--quick", "--out", "demo")
    assert json.loads((bare.folder / "demo" / "metrics.json").read_text())["n_pairs"] == 24
    assert (bare.folder / "demo" / "report.html").stat().st_size > 10_000
    assert "written to" in bare("push", "demo/rl", "me/judge", "--license", "mit", "--dry-run")
    assert "r1-reward demo --seed 0" in (bare.folder / "demo" / "rl-hub" / "README.md").read_text()
    Image.new("RGB", (56, 56), "white").save(bare.folder / "white.png")
    asked = ("--image", "white.png", "--question", "Which digit?", "--a", "A three.", "--b", "An eight.")
    verdict = json.loads(bare("compare", "--model", "demo/rl", "--max-new-tokens", "8", "--json", *asked))
    assert len(verdict["votes"]) == 2 and all(vote["tokens"] for vote in verdict["votes"])


@pytest.mark.slow
def test_without_an_extra_its_name_is_told(bare, checkpoint):
    (bare.folder / "film.mp4").write_bytes(b"film")
    (bare.folder / "results.xlsx").write_bytes(b"sheet")
    pair = {"id": "1", "question": "?", "images": [], "response_1": "a", "response_2": "b", "preferred": 1}
    (bare.folder / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    judge = ("--model", str(checkpoint), "--max-new-tokens", "4")
    answers = ("--question", "Which?", "--a", "one", "--b", "two")
    for extra, arguments in {
        "serve": ("serve", *judge),
        "ui": ("ui", *judge),
        "video": ("compare", *judge, *answers, "--video", "film.mp4"),
        "xlsx": ("bench", "score", "vl-rewardbench", "results.xlsx"),
        "ray": ("score", "pairs.jsonl", *judge, "--out", "scores.parquet", "--ray"),
        "vllm": ("compare", *judge, *answers, "--engine", "vllm"),
    }.items():
        said = " ".join(bare(*arguments, code=2).split())
        assert f"pip install 'r1-reward[{extra}]'" in said, (extra, said)
        assert "Traceback" not in said


@pytest.mark.slow
def test_the_doctor_knows_what_is_not_installed(bare):
    report = json.loads(bare("doctor", "--json"))
    assert (report["unmet"], report["broken"], report["commit"]) == ([], False, None)
    missing = {name: {one["name"] for one in extra["missing"]} for name, extra in report["extras"].items()}
    assert missing["serve"] >= {"fastapi", "uvicorn"} and missing["ui"] >= {"gradio", "fastapi"}
    assert (missing["video"], missing["xlsx"]) == ({"av"}, {"openpyxl"})
    assert report["extras"]["serve"]["install"] == "pip install 'r1-reward[serve]'"
