"""Atomic writes: a file is either complete or does not exist."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(content)
    part.replace(path)


@contextmanager
def complete_file(path: Path, *, beside: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to, and move it to ``path``, flushed to disk, when the block ends.

    After an exception the temporary file is deleted. Its name is ``beside`` plus ``.part`` (default: the name of the
    file, hidden).
    """
    name = path.with_name(f".{path.name}.{os.getpid()}") if beside is None else beside
    part = name.with_name(f"{name.name}.part")
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Replace ``folder``, if it exists, by a complete new one, and only then delete the old one.

    A kill in between leaves the old folder as ``.NAME.old``; :func:`restore_folder` restores it.
    """
    old = _old(folder)
    if folder.exists():
        _delete(old)
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        restore_folder(folder)
        raise
    _delete(old)


def restore_folder(folder: Path) -> None:
    """Restore the folder that an interrupted :func:`replace_folder` moved away."""
    if not folder.exists() and _old(folder).is_dir():
        os.replace(_old(folder), folder)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _delete(folder: Path) -> None:
    if folder.is_symlink():  # which rmtree does not delete
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Return the value in a JSON file.

    Raises:
        UserError: If it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}).") from error
