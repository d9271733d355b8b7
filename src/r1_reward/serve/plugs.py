"""Shared code of plug-ins for trainers that need a number for every response: verl, EasyR1.

    judge, worst = judge_of({"url": "http://judge:8000", "votes": 2})
    scored = await against(judge, prompt, "A three.", reference="An eight.")
    earned(scored, worst)                          # {"score": -0.99, "scored": 1.0, "why": ""}
    earned(Scored(None, "is too long"), worst)     # {"score": -1.0, "scored": 0.0, "why": "is too long"}

A response that silences the judge, or is too long for it, earns the worst reward. A reward of 0 would be wrong: the
reference itself earns 0, so the policy would learn to write such responses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from r1_reward.records.texts import is_blank
from r1_reward.serve.judge_client import UNREADABLE, JudgeServer, Scored
from r1_reward.serve.outcomes import worst_of
from r1_reward.serve.templates import Prompt
from r1_reward.store.encoded import decode_bare, kind_of_source


def judge_of(options: Mapping[str, Any]) -> tuple[JudgeServer, float]:
    """Return the judge in a trainer's settings, and the reward of responses that it cannot judge.

    Args:
        options: Those of :class:`~r1_reward.serve.judge_client.JudgeServer`, and ``worst``.

    Raises:
        ValueError: ``worst`` is not a number, or is missing for rewards without a lower bound.
        JudgeFailed: no server URL is given.
    """
    given = dict(options)
    worst = worst_of(given.get("kind", "win_rate"), given.pop("worst", None))
    return JudgeServer(**given), worst


def earned(scored: Scored, worst: float) -> dict[str, Any]:
    """Return ``score``, ``scored`` (1 if the judge gave the score, else 0), and ``why`` it did not."""
    missing = scored.reward is None
    score = worst if scored.reward is None else scored.reward
    return {"score": float(score), "scored": 0.0 if missing else 1.0, "why": scored.why or ""}


async def against(
    judge: JudgeServer, prompt: Prompt, response: str, reference: str, folder: str | None = None
) -> Scored:
    """Return the reward of a response against the reference answer: 2 P(it is better) - 1, in [-1, 1].

    For ``folder`` see :func:`shown`.

    Raises:
        ValueError: the reference answer is too long for the server or the judge, and longer than the response.
        JudgeFailed: the judge failed to answer.
    """
    question, images = shown(prompt, folder)
    own, other = await judge.rewards(question, [response, reference], images)
    too_long = own.reward is None and own.why != UNREADABLE
    if too_long and len(reference) > len(response):
        together = " (with the question and the response)" if own.why == other.why else ""
        raise ValueError(f"the reference answer cannot be judged{together}: {other.why}")
    return own


def reference_of(value: Any) -> str | None:
    """Return a row's reference answer, or None if it is missing or blank.

    Raises:
        ValueError: it is not text.
    """
    if value is None or (isinstance(value, str) and is_blank(value)):
        return None
    if not isinstance(value, str):
        raise ValueError(f"the reference answer must be text, not {value!r:.60}")
    return value


def shown(prompt: Prompt, folder: str | None = None) -> tuple[Any, list[Any]]:
    """Return the question and pictures of a prompt in the client's form; paths are relative to ``folder``."""
    question, images = prompt.apart()
    return question, [_found(image, folder) for image in images]


def _found(image: Any, folder: str | None) -> Any:
    """Return a picture, with its relative path joined to the folder."""
    is_path = isinstance(image, str) and image[:7].lower() != "file://" and kind_of_source(image) == "path"
    if not folder or not is_path or decode_bare(image) is not None:
        return image
    return os.path.join(folder, image)
