"""The names of a model, and the dialect that they say: what a judge is asked and how it answers.

    chosen_dialect("auto", "CodeGoat24/UnifiedReward-Think-qwen-7b").name       # "unified-reward-think"
    chosen_dialect("auto", "runs/rl").name                                      # "r1-reward", the default
    chosen_dialect("boxed", "runs/rl").name                                     # as asked

A folder may be called anything, so its model card and configuration are asked as well. The texts that a judge writes
are never looked at: a judge that was asked in another's words may answer in any form.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects import AUTO, DEFAULT, dialect_of, find_dialect
from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json
from r1_reward.store.hub import checkpoint_file

_HEADING = re.compile(r"^#[ \t]+(.+)$", re.MULTILINE)
_SAME_MODEL = ("quantized", "merge")  # whose base speaks as they do; what was trained further may not
_OURS = "r1-reward"
_READ = 100_000  # characters of a model card


def chosen_dialect(asked: str, model: str | Path, *, served: bool = False) -> Dialect:
    """Return the dialect that was asked for; for ``auto`` the one that a name of the model says, else the default.

    Of a model behind a server only its name there is known.

    Raises:
        UserError: there is no such dialect, or a name says two of them.
    """
    return find_dialect(asked) if asked != AUTO else dialect_of(*model_names(str(model), served=served))


def dialect_fields(asked: str, model: str | Path, *, served: bool = False) -> dict[str, str]:
    """Return the field of a run's identity that says which dialect decides its verdicts.

    Of the default that is none: folders of releases that knew no other lack it.
    """
    name = chosen_dialect(asked, model, served=served).name
    return {} if name == DEFAULT else {"dialect": name}


def model_names(model: str, *, served: bool = False) -> Iterator[str]:
    """Yield what a model is called, the likeliest to be right first: as given, on its card, in its configuration."""
    yield "/".join(Path(model).parts[-2:]) if served or not Path(model).exists() else Path(model).resolve().name
    if served:
        return
    yield from _names_in(Path(model)) if Path(model).exists() else _names_on_hub(model)


@functools.cache
def _names_on_hub(model: str) -> tuple[str, ...]:
    """Return what a model of the Hub is called in its files, which are asked for once."""
    return tuple(_names_in(model))


def _names_in(model: str | Path) -> Iterator[str]:
    yield from _names_on_card(_text(checkpoint_file(model, "README.md")))
    name = _config(checkpoint_file(model, "config.json")).get("_name_or_path")
    if isinstance(name, str):
        yield "/".join(Path(name).parts[-2:])


def _names_on_card(card: str) -> Iterator[str]:
    head, body = _front_matter(card)
    tags = head.get("tags")
    if isinstance(tags, list) and _OURS in tags:
        yield _OURS
    for name in (head.get("model_name"), *([head.get("base_model")] if _same_as_base(head) else [])):
        yield from (one for one in (name if isinstance(name, list) else [name]) if isinstance(one, str))
    heading = _HEADING.search(body)
    if heading is not None:
        yield heading[1]


def _same_as_base(head: dict[str, Any]) -> bool:
    return head.get("base_model_relation") in _SAME_MODEL


def _front_matter(card: str) -> tuple[dict[str, Any], str]:
    """Return the metadata at the head of a model card, and the rest; no metadata if it cannot be read."""
    import yaml

    parts = re.split(r"^---[ \t]*$", card, maxsplit=2, flags=re.MULTILINE)
    if len(parts) < 3 or parts[0].strip():
        return {}, card
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        head = None
    return head if isinstance(head, dict) else {}, parts[2]


def _text(path: Path | None) -> str:
    return "" if path is None else path.read_text(encoding="utf-8", errors="replace")[:_READ]


def _config(path: Path | None) -> dict[str, Any]:
    """Return a configuration; whoever loads the checkpoint says what is wrong with it."""
    try:
        held = None if path is None else read_json(path)
    except UserError:
        held = None
    return held if isinstance(held, dict) else {}
