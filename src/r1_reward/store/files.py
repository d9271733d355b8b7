"""Files that are complete or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is complete or not there."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text so that the file is complete or not there."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes so that the file is complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(content)
    part.replace(path)


def read_json(path: Path) -> Any:
    """Return the value a JSON file holds.

    Raises:
        UserError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}).") from error
