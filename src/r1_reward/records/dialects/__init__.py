"""The dialects, one file each. A file that defines ``DIALECT`` is found by its name; there is no list to edit.

find_dialect("rm-r1").title                     # imports dialects/rm_r1.py
dialect_of("UnifiedReward-Think-qwen-7b").name  # "unified-reward-think", from the model's name and never from a text
register(Dialect(name="mine", ...))             # one defined outside this package
"""

from __future__ import annotations

import difflib
import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from r1_reward.records.errors import UserError

if TYPE_CHECKING:
    from r1_reward.records.dialect import Dialect

DEFAULT = "r1-reward"
"""The dialect of a model whose name matches no other."""

AUTO = "auto"
"""Not a dialect, but the choice by the model's name."""

REGISTERED: dict[str, Dialect] = {}
"""Dialects added with :func:`register`, by name."""


def dialect_names() -> list[str]:
    """Return the names of all dialects, the default first, without importing them."""
    files = {module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)}
    return [DEFAULT, *sorted(files - {DEFAULT}), *REGISTERED]


def find_dialect(name: str) -> Dialect:
    """Return a dialect by name; raises UserError if it does not exist."""
    if name in REGISTERED:
        return REGISTERED[name]
    names = dialect_names()
    if name in names:
        found: Dialect = import_module(f"{__name__}.{name.replace('-', '_')}").DIALECT
        return found
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(names)}, or auto (by the model's name)."
    raise UserError(f"{name!r} is not a dialect; {hint}")


def dialect_of(*model_names: str) -> Dialect:
    """Return the dialect of the first of a model's names that matches one, else the default.

    Raises:
        UserError: If a name matches two dialects.
    """
    for model in model_names:
        speakers = [dialect for dialect in map(find_dialect, dialect_names()) if dialect.speaks(model)]
        if len(speakers) > 1:
            both = " and ".join(dialect.name for dialect in speakers)
            raise UserError(f"{model}: the name matches the dialects {both}; choose one of them with --dialect.")
        if speakers:
            return speakers[0]
    return find_dialect(DEFAULT)


def register(dialect: Dialect) -> Dialect:
    """Add a dialect of your own and return it; raises UserError if its name is taken."""
    if dialect.name in (*dialect_names(), AUTO):
        raise UserError(f"dialect {dialect.name!r} already exists; choose another name.")
    REGISTERED[dialect.name] = dialect
    return dialect
