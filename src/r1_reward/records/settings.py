"""What settings are: frozen pydantic models, each field with its meaning, whose mistakes speak to a person.

A field is written once: type, default, bounds and meaning. The options of a command (:mod:`r1_reward.cli.options`), the
pages of the site and what the library takes all come from it::

    class Sampling(Settings):
        votes: int = Field(default=1, ge=1, description="Votes per row.")

    Sampling(votes=0)       # UserError: votes: must be 1 or more, not 0.
    Sampling(vote=3)        # UserError: unknown key 'vote'. Did you mean 'votes'?
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from r1_reward.records.errors import UserError

_BOUNDS = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
}
_LISTED = 20  # known names that are told where none is near


class Strict(BaseModel):
    """A part of settings that come from a file: its mistakes are told, with their place, by the whole.

    A text or path that begins with ``~/`` or ``~NAME/`` means the home folder, in any field: a shell replaces ``~`` in
    ``--out ~/x``, but neither in ``--out=~/x`` nor in a file. No field holds prose that could begin so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        return at_home(value)


class Settings(Strict):
    """Settings of a person's; raises UserError, one line a mistake, where they make no sense."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError("\n".join(explain(error, type(self)))) from error


def at_home(value: Any) -> Any:
    """Return a path with ``~`` replaced by the home folder, alone or in lists and dicts; anything else as it is."""
    if type(value) in (list, tuple):
        return type(value)(map(at_home, value))
    if type(value) is dict:
        return {key: at_home(one) for key, one in value.items()}
    if isinstance(value, str) and value.startswith("~"):
        return os.path.expanduser(value)
    if isinstance(value, Path) and value.parts[:1] and value.parts[0].startswith("~"):
        return Path(os.path.expanduser(value))
    return value


def explain(error: ValidationError, model: type[BaseModel], name: Callable[[str], str] = str) -> list[str]:
    """Return a line for each mistake; ``name`` turns the name of a field into what the reader knows it by."""
    return [_explain(one, model, name) for one in error.errors(include_url=False)]


def _explain(error: Any, model: type[BaseModel], name: Callable[[str], str]) -> str:
    parts = [str(part) for part in error["loc"] if part != "[key]"]
    place = ".".join([name(parts[0]), *parts[1:]]) if parts else ""
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        return unknown(place, _holder(model, parts).model_fields)
    if kind == "missing":
        return f"{place!r} is missing."
    if kind == "value_error":  # what a validator of ours says is a whole sentence
        message = message.removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    if kind == "literal_error":
        message = "must be " + error["ctx"]["expected"].replace("'", "")
    said = _BOUNDS[kind].format(**error["ctx"]) if kind in _BOUNDS else message.replace("Input should", "must", 1)
    return f"{place or 'settings'}: {said}, not {error['input']!r}."


def unknown(place: str, known: Collection[str], what: str = "key") -> str:
    """Say that a name is not known, and the nearest one that is."""
    near = difflib.get_close_matches(place.rpartition(".")[2], known, n=1)
    if near:
        return f"unknown {what} {place!r}. Did you mean {near[0]!r}?"
    return f"unknown {what} {place!r}." + (f" There are {', '.join(known)}." if len(known) <= _LISTED else "")


def _holder(model: type[BaseModel], place: list[str]) -> type[BaseModel]:
    """Return the model whose field the last part of a place would be."""
    for part in place[:-1]:  # keys of mappings and places in lists lead no deeper
        field = model.model_fields.get(part)
        model = next(_models(field.annotation), model) if field is not None else model
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
