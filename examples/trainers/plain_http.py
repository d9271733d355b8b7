"""Rewards over plain HTTP, for any trainer, with pictures as uploaded files.

python examples/trainers/plain_http.py "Which digit is top left?" scene.png "A three." "An eight."
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx


def rewards(
    server: str, question: str, pictures: Sequence[Path], responses: Sequence[str], *, key: str | None = None
) -> list[float | None]:
    """Return the net win rate of each response over the others, in [-1, 1]; None if it cannot be judged."""
    request = json.dumps({"question": question, "responses": list(responses)})
    parts = [("request", (None, request.encode(), "application/json"))]
    parts += [("images", (picture.name, picture.read_bytes(), "image/*")) for picture in pictures]
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx.post(f"{server}/v1/reward", files=parts, headers=headers, timeout=600)
    answer.raise_for_status()
    found: list[float | None] = answer.json()["rewards"]
    return found


if __name__ == "__main__":
    question, picture, *responses = sys.argv[1:]
    print(json.dumps(rewards("http://127.0.0.1:8000", question, [Path(picture)], responses)))  # noqa: T201
