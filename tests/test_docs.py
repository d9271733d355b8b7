"""What the documentation names exists: files, tests, functions, commands with their options, links and headings."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import r1_reward

ROOT = Path(__file__).parents[1]
PAGES = [
    str(page.relative_to(ROOT))
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
]
FOLDERS = "benchmarks|docs|examples|recipes|src|tests"
SUFFIXES = ("py", "md", "txt", "json", "jsonl", "yaml", "html", "png", "parquet")
SETTINGS_OF_TRAINERS = {
    "docs/trainers.md": {
        "algorithm.filter_groups",
        "algorithm.online_filtering",
        "data.answer_key",
        "data.train_batch_size",
    }
}
"""Of each page: what verl and EasyR1 call their settings, where a module of ours has the name of the first part."""
MODULES = {module.name for module in pkgutil.iter_modules(r1_reward.__path__)}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def fenced(text: str) -> list[tuple[str, str]]:
    """Language and content of every code block."""
    return re.findall(r"^ *```([\w-]*)[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """Every inline code span outside code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_a_list_or_table_begins_after_a_blank_line(page):
    """GitHub shows it anyway, but for the documentation's Markdown it is part of the paragraph before."""
    prose = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^(?!- |\d+\. |[ |#<])(\S.*)\n(?:- |\d+\. |\|)", prose, re.MULTILINE) == []


# Files and tests.


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page):
    named = re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./*-]*[\w*]", text_of(page))
    missing = sorted({name for name in named if not any(ROOT.glob(name))})
    assert not missing, f"{page} names files that do not exist"


@pytest.mark.parametrize("page", PAGES)
def test_tests_exist(page):
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", text_of(page))
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in text_of(file)]
    assert not missing, f"{page} names tests that do not exist"


def test_every_claim_of_the_paper_map_names_a_test_or_a_page():
    rows = [line for line in text_of("docs/paper_map.md").splitlines() if line.startswith("| ") and "---" not in line]
    claims = [row for row in rows if row.count("|") == 5 and not row.startswith("| paper ")]
    faults = [row for row in rows if row.count("|") == 4 and row.split("|")[1].strip() not in ("fault", "asked")]
    assert len(claims) >= 27, "the map has lost rows"
    for row in [*claims, *faults]:
        assert "tests/" in row or "](" in row, row


# Functions, classes, constants.


def dotted_names(page: str) -> Iterator[str]:
    for span in spans(text_of(page)):
        ours = span.startswith("r1_reward.")
        name = re.match(r"[A-Za-z_]\w*(?:\.\w+)*", span.removeprefix("r1_reward."))
        if name is None or name[0].rpartition(".")[2] in SUFFIXES:
            continue
        if ours or ("." in name[0] and name[0].partition(".")[0] in MODULES):
            yield name[0]


def resolve(name: str) -> Any:
    """The module, or the attribute of the deepest module, of this dotted name below r1_reward."""
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module("r1_reward." + ".".join(parts[:depth]))
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("r1_reward."):
                raise
            continue
        for attribute in parts[depth:]:
            found = getattr(found, attribute)
        return found
    raise AttributeError(name)


@pytest.mark.parametrize("page", PAGES)
def test_names_exist(page):
    missing = set()
    for name in set(dotted_names(page)):
        try:
            resolve(name)
        except AttributeError:
            missing.add(name)
    assert missing == SETTINGS_OF_TRAINERS.get(page, set()), f"{page} names what r1_reward does not have"


def test_the_paper_map_names_many_functions():
    assert len(set(dotted_names("docs/paper_map.md"))) > 40


ROOMS = "|".join(sorted(MODULES))
PLACE = re.compile(rf"(algorithm\.py|rewards\.py|(?:{ROOMS})/(?:\w+/)*(?:\w+\.(?:py|txt))?)(?:: ([\w.]+))?")
YET_TO_BE_WRITTEN = {"docs/tutorials/extend.md": {"bench/benchmarks/my_groups.py"}}
"""Of each page: files that it tells the reader to make."""


def places(page: str) -> Iterator[tuple[str, str | None]]:
    """Every `room/file.py` and `room/file.py: name` below src/r1_reward, as the page writes them."""
    for span in re.findall(r"`([^`]+)`", re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)):
        if found := PLACE.fullmatch(" ".join(span.split())):
            yield found[1], found[2]


@pytest.mark.parametrize("page", PAGES)
def test_places_in_the_package_exist(page):
    missing = set()
    for path, name in places(page):
        if not (ROOT / "src" / "r1_reward" / path).exists():
            missing.add(path)
        elif name is not None:
            try:
                resolve(f"{path.removesuffix('.py').replace('/', '.')}.{name}")
            except AttributeError:
                missing.add(f"{path}: {name}")
    assert missing == YET_TO_BE_WRITTEN.get(page, set()), f"{page} names what src/r1_reward does not have"


def test_the_architecture_is_one_page_with_every_room_in_order():
    text = text_of("ARCHITECTURE.md")
    assert len(text.splitlines()) <= 90
    assert len([name for _, name in places("ARCHITECTURE.md") if name]) > 30
    layers = (ROOT / ".importlinter").read_text(encoding="utf-8").split("layers =\n")[1].split("exhaustive")[0].split()
    rooms = [layer for layer in layers if (ROOT / "src" / "r1_reward" / layer).is_dir()]
    assert re.findall(r"^- `(\w+)/`:", text, re.MULTILINE) == rooms


# Commands.


@functools.cache
def command_line() -> Any:
    import typer

    from r1_reward.cli import _register, app

    _register()
    return typer.main.get_command(app)


@functools.cache
def config_keys(stage: str) -> frozenset[str]:
    from r1_reward.train.config import describe_keys
    from r1_reward.train.launch import config_class

    return frozenset(name for name, _, _ in describe_keys(config_class(stage)))


def commands(page: str) -> Iterator[str]:
    """Every use of r1-reward: lines of code blocks, continued ones joined, and inline spans."""
    text = text_of(page)
    for _, block in fenced(text):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if found := re.search(r"(?:^\s*(?:\$ |[A-Z_]+=\S+ )*r1-reward|-m r1_reward) (.*)", line):
                yield found[1]
    for span in spans(text):
        if span.startswith("r1-reward "):
            yield span.removeprefix("r1-reward ")


def wrong_with(words: list[str]) -> str | None:
    """What is wrong with the words behind ``r1-reward``, None if nothing is."""
    command, path = command_line(), []
    while words and hasattr(command, "commands"):
        if words[0].startswith("-") or words[0] in ("…", "..."):
            break
        if words[0].isupper():  # a placeholder, as in `r1-reward data COMMAND`
            return None
        if words[0] not in command.commands and "|" not in words[0]:
            return f"no command {' '.join([*path, words[0]])}"
        path.append(words[0].partition("|")[0])
        command = command.commands[path[-1]]
        words = words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help"}
    if path[:1] == ["train"] and len(path) == 2:
        known |= {f"--{key}" for key in config_keys(path[1])}
    if path == ["plan"]:
        known |= {f"--{key}" for stage in ("sft", "rl") for key in config_keys(stage)}
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            return f"{' '.join(path)} has no option {option}"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    wrong = []
    for command in commands(page):
        try:
            words = shlex.split(command, comments=True)
        except ValueError:  # a quote that ends on a later line
            words = command.split()
        if problem := wrong_with(words):
            wrong.append(f"r1-reward {command}: {problem}")
    assert not wrong, f"{page} shows commands that do not exist"


def test_a_wrong_command_would_be_noticed():
    assert "no command" in str(wrong_with(["bench", "walk"]))
    assert "no option --colour" in str(wrong_with(["compare", "--colour", "red"]))
    assert "no option --learning_rat" in str(wrong_with(["train", "rl", "--learning_rat", "1"]))
    assert wrong_with(["train", "rl", "--config", "x.yaml", "--learning_rate", "1", "--keys"]) is None


# Links.


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and Python-Markdown both make them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = set()
    for title in re.findall(r"^#+ +(.*?)\s*$", text, re.MULTILINE):
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()))
    return found


def generated_pages() -> set[Path]:
    """Pages that the build makes out of the code; it fails itself if a link to one leads nowhere."""
    listed = re.findall(r"\breference/\w+\.md", text_of("mkdocs.yml"))
    return {ROOT / "docs" / page for page in listed}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = Path(os.path.normpath((ROOT / page).parent / path)) if path else ROOT / page
        if file in generated_pages():
            continue
        if not file.exists() or (anchor and anchor not in slugs(file)):
            wrong.append(target)
    assert not wrong, f"{page} has links that lead nowhere"
