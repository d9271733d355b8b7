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
    """The input is wrong, not the program; the message alone says how to fix it."""


def kind_of(value: Any) -> str:
    """Return the type of a JSON value in words."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return names.get(type(value)) or ("a list" if isinstance(value, list) else "an object")
