"""Errors meant for a person: what was wrong, where, and what to do about it.

The command prints the message of a :class:`UserError` and exits with code 2; library users can catch it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Unknown:
    """In place of a fact that could not be found out: why it could not."""

    why: str


class UserError(Exception):
    """The input, not the program, is at fault; the message alone tells how to mend it."""


def kind_of(value: Any) -> str:
    """Name the type of a JSON value."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return names.get(type(value)) or ("a list" if isinstance(value, list) else "an object")
