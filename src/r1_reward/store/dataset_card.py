"""The card of a folder with rows: README.md, whose head tells `datasets` and the Hub which files are the rows.

Folders hold more than rows (reports, lists of what was dropped, pictures), and `datasets` takes files of every kind for
rows of one table, or a folder with pictures for a folder *of* pictures. With the card the folder itself loads::

    write_card(folder, {"default": {"train": "pairs-*.parquet"}}, "Preference pairs", "Each row is ...")
    datasets.load_dataset(str(folder))          # {"train": ...}

A README.md that somebody else wrote, or made their own by taking out the line :data:`MARK`, is never replaced.
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

_EARLIER = "Made by `r1-reward data mix`"  # what cards of mixtures said while there was no mark, and none says now

Configs = Mapping[str, Mapping[str, str]]
"""By configuration, ``default`` first: the files of each split, as a path or pattern relative to the folder."""


Columns = Sequence[Mapping[str, Any]]
"""The columns of a configuration in the Hub's notation: ``{"name": "id", "dtype": "string"}``."""


def card_head(configs: Configs, *, features: Mapping[str, Columns] = MappingProxyType({}), **more: Any) -> str:
    """Return the head of a card: the files of each configuration, and ``more`` of what the Hub reads.

    ``features`` are the columns of configurations whose files leave them open: JSON lines do, of a column that is null
    in all of the first rows.
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
    """Write the card of a folder, and return whether it was written: a README.md of somebody else's stays.

    ``title`` is escaped, ``text`` is Markdown. Only what changes the card is written anew: a run that is taken up again
    leaves the one it finds.
    """
    path = folder / CARD
    if not may_replace(path):
        return False
    told = f"{card_head(configs, features=features)}# {escape_markdown(title)}\n\n{text.strip()}\n"
    if not path.exists() or path.read_text(encoding="utf-8") != told:
        write_text(path, told)
    return True


def may_replace(path: Path) -> bool:
    """Return whether a README.md is not there, or is a card that this package wrote and nobody made their own."""
    if not path.exists():
        return True
    try:
        held = path.read_text(encoding="utf-8")
    except (OSError, ValueError):  # not our text, whatever it is
        return False
    return MARK in held or _EARLIER in held
