"""Puts the recipes into the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecipes(build_py):
    """Copies ``recipes/``, which lies beside ``src/``, into the package; an editable install reads it there."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            target = Path(self.build_lib, "r1_reward", "recipes")
            shutil.copytree("recipes", target, ignore=ignored, dirs_exist_ok=True)


setup(cmdclass={"build_py": WithRecipes})
