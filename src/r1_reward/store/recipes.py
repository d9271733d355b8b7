"""The recipes that come with the package: YAML files for ``train``, ``ablate``, ``data mix`` and ``accelerate launch``.

copy_recipes(Path("recipes"))        # then: r1-reward train rl --config recipes/tiny.yaml --data FILE
"""

from __future__ import annotations

import shutil
from pathlib import Path

import r1_reward
from r1_reward.records.errors import UserError

_PACKAGE = Path(r1_reward.__file__).parent


def recipes_folder() -> Path:
    """Return the folder of the recipes: in an installed package within it, in a checkout beside ``src/``."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "recipes"


def copy_recipes(folder: Path) -> list[Path]:
    """Copy the recipes into a new folder and return the copies.

    Raises:
        UserError: ``folder`` exists, or cannot be written.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"{folder}: exists, and recipes that were changed there would be lost; use --out.") from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be created ({error.strerror}).") from error
    try:
        shutil.copytree(recipes_folder(), folder, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(folder, ignore_errors=True)  # half a copy, which would block the next call
        raise UserError(f"{folder}: cannot copy the recipes: {error}") from error
    return sorted(path for path in folder.rglob("*") if path.is_file())
