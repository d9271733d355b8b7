"""Build a command's options from the fields of settings, so that name, default, bounds and help are written once.

A command takes settings as parameters; each of their fields becomes an option of the same name::

    @app.command()
    @with_settings
    def run(
        suite: Suite,
        settings: Annotated[Partial[RunSettings], Fields(without=("frames",))],
        engine: Annotated[EngineOptions, Fields(without=("base_url",))],
    ) -> None:
        run_benchmark(load_suite(suite), settings(frames=8), **engine.model_dump())

The description of a field is the help; ``ge`` and ``le`` (for integers also ``gt`` and ``lt``) are the range; a Literal
is a choice, a bool a flag, a tuple or a dict an option that may be repeated. Errors that only the settings' validation
finds name the option.

In all paths ``~`` means the home folder, even if the shell does not expand it (``--out=~/x``, quotes). Texts are left
alone, because they may be answers.

Why not a library: typer 0.29 bundles its own click, which is incompatible with pydanclick's options; pydantic-typer
names options ``--settings.votes`` and calls itself unstable; cyclopts and pydantic-settings would replace typer, and
with it the exit codes and messages of every command.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings, at_home, explain

Model = TypeVar("Model", bound=Settings)


@dataclass(frozen=True)
class Fields:
    """How a command exposes the fields of settings."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Names of options that differ from their fields: ``--limit``; ``--dir DIR`` with a metavar; ``/--no`` negated."""
    without: tuple[str, ...] = ()
    """Fields that are not options: they keep their defaults, or the command passes them to :class:`Partial`."""
    only: tuple[str, ...] = ()
    """The only fields that are options."""
    joined: tuple[str, ...] = ()
    """Tuples given as one text with commas between the items."""


class Partial(Generic[Model]):
    """Settings of which the command supplies the rest: call it with the remaining fields."""

    def __init__(self, model: type[Model], given: dict[str, Any], options: Mapping[str, str]) -> None:
        self._model, self._given, self._options = model, given, options

    def __call__(self, **more: Any) -> Model:
        """Return the settings; raises UserError, naming the options, if they are invalid."""
        try:
            return self._model(**self._given, **more)
        except UserError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            lines = explain(error.__cause__, self._model, lambda name: self._options.get(name, name))
            raise UserError("\n".join(lines)) from error


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for every field of the settings among the command's parameters."""
    hints = get_type_hints(command, include_extras=True)
    shown: list[inspect.Parameter] = []
    settings: dict[str, _Shown] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        one = _shown(hint)
        if one is None:
            shown.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            settings[parameter.name] = one
            shown += one.options.values()

    @functools.wraps(command)
    def run(**values: Any) -> None:
        built = {name: one.build(values) for name, one in settings.items()}
        command(**built, **{name: _paths_at_home(value) for name, value in values.items()})

    shown.sort(key=lambda one: one.default is not inspect.Parameter.empty)  # required options come first
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


def _paths_at_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_paths_at_home(one) for one in value]
    return at_home(value) if isinstance(value, Path) else value


class _Shown:
    """Settings exposed by a command: the option of each field, and the conversion back to settings."""

    def __init__(self, model: type[Settings], partial: bool, how: Fields) -> None:
        self.model, self.partial, self.how = model, partial, how
        fields = model.model_fields.items()
        chosen = {name: one for name, one in fields if name not in how.without and (not how.only or name in how.only)}
        self.options = {name: _option(name, one, how) for name, one in chosen.items()}

    def build(self, values: dict[str, Any]) -> Any:
        """Remove the options' values from the command's and return the settings, or the part that is known."""
        given = {name: values.pop(option.name) for name, option in self.options.items()}
        given = {
            name: not value if _says_no(name, self.how) else value
            for name, value in given.items()
            if value is not None  # not given
        }
        flags = {name: "--" + option.name.replace("_", "-") for name, option in self.options.items()}
        known = Partial(self.model, given, flags)
        return known if self.partial else known()


def _shown(hint: Any) -> _Shown | None:
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    how = next((extra for extra in extras if isinstance(extra, Fields)), Fields())
    if get_origin(kind) is Partial:
        return _Shown(get_args(kind)[0], True, how)
    if isinstance(kind, type) and issubclass(kind, Settings):
        return _Shown(kind, False, how)
    return None


def _option(name: str, of: FieldInfo, how: Fields) -> inspect.Parameter:
    kind: Any = of.annotation
    default: Any = inspect.Parameter.empty if of.is_required() else of.default
    flag = "--" + name.replace("_", "-")
    if kind is bool and default is True:
        flag += "/--no" + flag[1:]
    flag, _, metavar = how.names.get(name, flag).partition(" ")
    if name in how.joined:
        kind, default = str, ",".join(f"{item:g}" for item in default)
    elif get_origin(kind) in (tuple, dict):  # a dict's items as NAME=VALUE
        kind, default = types.GenericAlias(list, get_args(kind)[:1]) | None, None
    elif _says_no(name, how):
        default = not default
    low, high = _bounds(kind, of)
    option = typer.Option(
        flag.removeprefix("/"),
        help=of.description,
        metavar=metavar or None,
        min=low,
        max=high,
    )
    parameter = re.split("/?--", flag)[1].replace("-", "_")
    return inspect.Parameter(
        parameter, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _says_no(name: str, how: Fields) -> bool:
    return how.names.get(name, "").startswith("/")


def _bounds(kind: Any, of: FieldInfo) -> tuple[float | None, float | None]:
    """Return the minimum and maximum of an option, None for a bound that typer cannot express."""
    bounds = {
        bound: getattr(item, bound)
        for item in of.metadata
        for bound in ("ge", "gt", "le", "lt")
        if hasattr(item, bound)
    }
    low, high = bounds.get("ge"), bounds.get("le")
    if int in (kind, *get_args(kind)):
        low = bounds["gt"] + 1 if "gt" in bounds else low
        high = bounds["lt"] - 1 if "lt" in bounds else high
    return low, high
