"""Load settings from YAML files; errors name the file and the field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings

Model = TypeVar("Model", bound=Settings)


def load_settings(path: Path, model: type[Model]) -> Model:
    """Return the settings in a file; raises UserError with one line per error, each naming file and field."""
    values = read_yaml(path)
    try:
        return model(**values)
    except UserError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raises UserError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        here = " `r1-reward recipes` copies the recipes here." if path.parts[:1] == ("recipes",) else ""
        raise UserError(f"{path}: no such config file.{here}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a valid YAML file: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: a config must map keys to values, but this is a {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}
