"""The names of a model, and the dialect they imply: the prompt and answer form of a judge.

    chosen_dialect("auto", "CodeGoat24/UnifiedReward-Think-qwen-7b").name       # "unified-reward-think"
    chosen_dialect("auto", "runs/rl").name                                      # "r1-reward", the default
    chosen_dialect("boxed", "runs/rl").name                                     # as asked

A folder may have any name, so its model card and configuration are read as well. A judge's outputs are never used: a
judge prompted in another dialect may answer in any form.
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
_SAME_MODEL = ("quantized", "merge")  # these share the dialect of their base; a finetune may not
_OURS = "r1-reward"
_READ = 100_000  # characters of a model card


def chosen_dialect(asked: str, model: str | Path, *, served: bool = False) -> Dialect:
    """Return the requested dialect; for ``auto``, the one that a name of the model implies, else the default.

    For a ``served`` model, only its name on the server is known.

    Raises:
        UserError: If the dialect does not exist, or a name matches two of them.
    """
    return find_dialect(asked) if asked != AUTO else dialect_of(*model_names(str(model), served=served))


def dialect_fields(asked: str, model: str | Path, *, served: bool = False) -> dict[str, str]:
    """Return the field of a run's identity that records the dialect of its verdicts.

    The default dialect is not recorded, for compatibility with run folders from before there were others.
    """
    name = chosen_dialect(asked, model, served=served).name
    return {} if name == DEFAULT else {"dialect": name}


def model_names(model: str, *, served: bool = False) -> Iterator[str]:
    """Yield the names of a model, most reliable first: as given, on its card, in its configuration."""
    yield "/".join(Path(model).parts[-2:]) if served or not Path(model).exists() else Path(model).resolve().name
    if served:
        return
    yield from _names_in(Path(model)) if Path(model).exists() else _names_on_hub(model)


@functools.cache
def _names_on_hub(model: str) -> tuple[str, ...]:
    """Return the names in the files of a model on the Hub, cached."""
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
    """Return the metadata of a model card, empty if unreadable, and the text below."""
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
    """Return a configuration, empty if unreadable; loading the checkpoint reports the problem."""
    try:
        held = None if path is None else read_json(path)
    except UserError:
        held = None
    return held if isinstance(held, dict) else {}
