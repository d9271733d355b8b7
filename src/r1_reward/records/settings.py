"""Settings: frozen pydantic models with documented fields and readable validation errors.

A field is defined once: type, default, bounds and meaning. The options of a command (:mod:`r1_reward.cli.options`), the
reference pages and the arguments of the library all derive from it::

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
_LISTED = 20  # list the known names if there are no more than this


class Strict(BaseModel):
    """A part of settings that come from a file; the settings as a whole report its errors, with their place.

    In any field, a leading ``~/`` or ``~NAME/`` means the home folder: a shell expands ``~`` in ``--out ~/x``, but
    neither in ``--out=~/x`` nor in a file. No field is free text that could begin this way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        return at_home(value)


class Settings(Strict):
    """Settings that a person writes; raises UserError, one line per error, if they are invalid."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError("\n".join(explain(error, type(self)))) from error


def at_home(value: Any) -> Any:
    """Expand ``~`` in a path, also in lists and dicts; anything else is returned unchanged."""
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
    """Return one line per error; ``name`` maps a field's name to the one its reader knows, such as an option."""
    return [_explain(one, model, name) for one in error.errors(include_url=False)]


def _explain(error: Any, model: type[BaseModel], name: Callable[[str], str]) -> str:
    parts = [str(part) for part in error["loc"] if part != "[key]"]
    place = ".".join([name(parts[0]), *parts[1:]]) if parts else ""
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        return unknown(place, _holder(model, parts).model_fields)
    if kind == "missing":
        return f"{place!r} is missing."
    if kind == "value_error":  # our own validators write whole sentences
        message = message.removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    if kind == "literal_error":
        message = "must be " + error["ctx"]["expected"].replace("'", "")
    said = _BOUNDS[kind].format(**error["ctx"]) if kind in _BOUNDS else message.replace("Input should", "must", 1)
    return f"{place or 'settings'}: {said}, not {error['input']!r}."


def unknown(place: str, known: Collection[str], what: str = "key") -> str:
    """Return a message for an unknown name, with the closest known one."""
    near = difflib.get_close_matches(place.rpartition(".")[2], known, n=1)
    if near:
        return f"unknown {what} {place!r}. Did you mean {near[0]!r}?"
    return f"unknown {what} {place!r}." + (f" Choose from {', '.join(known)}." if len(known) <= _LISTED else "")


def _holder(model: type[BaseModel], place: list[str]) -> type[BaseModel]:
    """Return the model that the last part of a place would be a field of."""
    for part in place[:-1]:  # mapping keys and list indices are not fields
        field = model.model_fields.get(part)
        model = next(_models(field.annotation), model) if field is not None else model
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
