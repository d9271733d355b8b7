"""The card of a folder of rows: a README.md whose metadata tells `datasets` and the Hub which files have the rows.

Such folders also have reports, lists of dropped rows and images; `datasets` would load all of these as rows of one
table, or take the folder for an image folder. With the card, the folder itself loads::

    write_card(folder, {"default": {"train": "pairs-*.parquet"}}, "Preference pairs", "Each row is ...")
    datasets.load_dataset(str(folder))          # {"train": ...}

A README.md that somebody else wrote, or took over by deleting the line :data:`MARK`, is never replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from r1_reward.records.markdown import escape_markdown
from r1_reward.store.files import write_text

CARD = "README.md"
MARK = "<!-- Written by r1-reward. Without this line the card is yours, and no command replaces it. -->"

_EARLIER = "Made by `r1-reward data mix`"  # in cards from before the mark existed, and in none since

Configs = Mapping[str, Mapping[str, str]]
"""The files of each split, per configuration (``default`` first), as a path or pattern relative to the folder."""


Columns = Sequence[Mapping[str, Any]]
"""The columns of a configuration in the Hub's notation: ``{"name": "id", "dtype": "string"}``."""


def card_head(configs: Configs, *, features: Mapping[str, Columns] = MappingProxyType({}), **more: Any) -> str:
    """Return the metadata of a card: the files of each configuration, and ``more`` fields for the Hub.

    ``features`` are the columns of configurations whose files do not determine them, such as JSONL with a column that
    is null in all of the first rows.
    """
    listed = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in splits.items()]}
        for name, splits in configs.items()
    ]
    head: dict[str, Any] = {"configs": listed}
    if features:
        head["dataset_info"] = [
            {"config_name": name, "features": [dict(one) for one in columns]} for name, columns in features.items()
        ]
    return f"---\n{yaml.safe_dump(head | more, sort_keys=False, allow_unicode=True)}---\n{MARK}\n"


def write_card(
    folder: Path, configs: Configs, title: str, text: str, *, features: Mapping[str, Columns] = MappingProxyType({})
) -> bool:
    """Write the card of a folder unless its README.md is somebody else's; return whether the card is ours.

    ``title`` is escaped, ``text`` is Markdown. An unchanged card is not rewritten, so that a resumed run leaves it.
    """
    path = folder / CARD
    if not may_replace(path):
        return False
    told = f"{card_head(configs, features=features)}# {escape_markdown(title)}\n\n{text.strip()}\n"
    if not path.exists() or path.read_text(encoding="utf-8") != told:
        write_text(path, told)
    return True


def may_replace(path: Path) -> bool:
    """Return whether a README.md does not exist, or is still this package's own card."""
    if not path.exists():
        return True
    try:
        held = path.read_text(encoding="utf-8")
    except (OSError, ValueError):  # not a text of ours
        return False
    return MARK in held or _EARLIER in held
