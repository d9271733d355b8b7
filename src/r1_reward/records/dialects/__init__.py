"""The dialects, one file each. A file that holds ``DIALECT`` is found by its own name: no list names it.

find_dialect("rm-r1").title                     # reads dialects/rm_r1.py
dialect_of("UnifiedReward-Think-qwen-7b").name  # "unified-reward-think", by the model's name and never by a text
register(Dialect(name="mine", ...))             # one that lives outside of this package
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
"""The dialect of a model whose name says nothing."""

AUTO = "auto"
"""Not a dialect: the one that the model's name says."""

REGISTERED: dict[str, Dialect] = {}
"""The dialects of :func:`register`, by name."""


def dialect_names() -> list[str]:
    """Return the names of all dialects, the default first; reads none of their files."""
    files = {module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)}
    return [DEFAULT, *sorted(files - {DEFAULT}), *REGISTERED]


def find_dialect(name: str) -> Dialect:
    """Return a dialect; raises UserError if there is none of that name."""
    if name in REGISTERED:
        return REGISTERED[name]
    names = dialect_names()
    if name in names:
        found: Dialect = import_module(f"{__name__}.{name.replace('-', '_')}").DIALECT
        return found
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}, and auto, by the model's name."
    raise UserError(f"{name!r} is not a dialect; {hint}")


def dialect_of(*model_names: str) -> Dialect:
    """Return the dialect that a model's names say: of the first name that says one, else the default.

    Raises:
        UserError: a name says two of them.
    """
    for model in model_names:
        speakers = [dialect for dialect in map(find_dialect, dialect_names()) if dialect.speaks(model)]
        if len(speakers) > 1:
            both = " and ".join(dialect.name for dialect in speakers)
            raise UserError(f"{model}: its name is that of a judge of {both}; choose one of them with --dialect.")
        if speakers:
            return speakers[0]
    return find_dialect(DEFAULT)


def register(dialect: Dialect) -> Dialect:
    """Add a dialect of your own and return it; raises UserError if its name is taken."""
    if dialect.name in (*dialect_names(), AUTO):
        raise UserError(f"there is a dialect {dialect.name!r} already; choose another name.")
    REGISTERED[dialect.name] = dialect
    return dialect
