"""``r1-reward recipes``: copy the recipes that come with the package to where they can be read and changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recipes(
    out: Annotated[Path, typer.Option("--out", help="The new folder.")] = Path("recipes"),
) -> None:
    """Copy the recipes for train, ablate, data mix and accelerate launch, and list them."""
    from r1_reward.store.recipes import copy_recipes

    typer.echo("\n".join(str(path) for path in copy_recipes(out)))
