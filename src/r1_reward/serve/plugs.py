"""What plugs in a trainer's process share where the trainer wants a number for every response: verl, EasyR1.

    judge, worst = judge_of({"url": "http://judge:8000", "votes": 2})
    scored = await against(judge, prompt, "A three.", reference="An eight.")
    earned(scored, worst)                          # {"score": -0.99, "scored": 1.0, "why": ""}
    earned(Scored(None, "is too long"), worst)     # {"score": -1.0, "scored": 0.0, "why": "is too long"}

A response that silences the judge, or is too long for it, earns the worst reward there is. Against a reference 0 is
what the reference itself earns, so a policy that is paid 0 for such a response learns to write it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from r1_reward.records.texts import is_blank
from r1_reward.serve.judge_client import JudgeServer, Scored
from r1_reward.serve.outcomes import WORST
from r1_reward.serve.templates import Prompt
from r1_reward.store.encoded import decode_bare, kind_of_source


def judge_of(options: Mapping[str, Any]) -> tuple[JudgeServer, float]:
    """Return the judge that a trainer's settings name, and what a response earns that it cannot judge.

    Args:
        options: Those of :class:`~r1_reward.serve.judge_client.JudgeServer`, and ``worst``.

    Raises:
        ValueError: ``worst`` is not a number, or is missing where rewards have no lowest.
        JudgeFailed: no server is named.
    """
    given = dict(options)
    worst = given.pop("worst", None)
    if worst is None:
        if given.get("kind", "win_rate") != "win_rate":
            raise ValueError(
                f"rewards of kind {given['kind']!r} have no lowest; say with worst (a number like -5) what a response "
                "earns that cannot be judged"
            )
        worst = WORST
    if isinstance(worst, bool) or not isinstance(worst, int | float) or not math.isfinite(worst):
        raise ValueError(f"worst must be a number, not {worst!r}")
    return JudgeServer(**given), float(worst)


def earned(scored: Scored, worst: float) -> dict[str, Any]:
    """Return ``score``, whether the judge gave it (``scored``, 1 or 0), and ``why`` not: the same keys each time."""
    missing = scored.reward is None
    score = worst if scored.reward is None else scored.reward
    return {"score": float(score), "scored": 0.0 if missing else 1.0, "why": scored.why or ""}


async def against(
    judge: JudgeServer, prompt: Prompt, response: str, reference: str, folder: str | None = None
) -> Scored:
    """Return what a response earns against the reference answer: 2 P(it is better) - 1, in [-1, 1].

    ``folder`` is that of :func:`shown`.

    Raises:
        ValueError: the reference answer is too long for the judge.
        JudgeFailed: the judge gave no answer.
    """
    question, images = shown(prompt, folder)
    own, other = await judge.rewards(question, [response, reference], images)
    if own.reward is None and own.why != other.why and len(reference) > len(response):
        raise ValueError(f"the reference answer cannot be judged: {other.why}")
    return own


def reference_of(value: Any) -> str | None:
    """Return a row's reference answer, None where it says nothing; raises ValueError where it is not text."""
    if value is None or (isinstance(value, str) and is_blank(value)):
        return None
    if not isinstance(value, str):
        raise ValueError(f"the reference answer must be a text, not {value!r:.60}")
    return value


def shown(prompt: Prompt, folder: str | None = None) -> tuple[Any, list[Any]]:
    """Return the question and the pictures of a prompt as the client sends them; relative paths begin in ``folder``."""
    question, images = prompt.apart()
    return question, [_found(image, folder) for image in images]


def _found(image: Any, folder: str | None) -> Any:
    """Return a picture whose relative path begins in a folder."""
    is_path = isinstance(image, str) and image[:7].lower() != "file://" and kind_of_source(image) == "path"
    if not folder or not is_path or decode_bare(image) is not None:
        return image
    return os.path.join(folder, image)
