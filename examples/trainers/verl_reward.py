"""A reward function for verl: ``r1-reward serve`` judges the solutions.

    custom_reward_function.path=examples/trainers/verl_reward.py
    custom_reward_function.name=compute_score_batch   reward_model.reward_manager=batch

The batch variant judges the solutions to each question against each other. With verl's other reward managers solutions
come alone: take ``compute_score``, which judges a solution against the reference answer in ``ground_truth``.

``extra_info`` of a row holds the ``question`` and, for ``images``, the paths of its pictures. verl has no reward for
"cannot be judged": such a solution gets 0.0, the mean of a group's net win rates, which pushes it nowhere. A server
that cannot be reached raises; it is never a reward.
"""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

SERVER = os.environ.get("R1_REWARD_SERVER", "http://127.0.0.1:8000")
KEY = os.environ.get("R1_REWARD_API_KEY")
AT_ONCE = 16


def compute_score(
    data_source: str,  # noqa: ARG001  verl passes these by name
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    **options: Any,
) -> float:
    """Return 2 P(the solution is better than the reference) - 1, in [-1, 1]."""
    question, images = _question(extra_info)
    return _rewards(question, images, [solution_str, ground_truth], options)[0]


def compute_score_batch(
    data_sources: list[str],  # noqa: ARG001
    solution_strs: list[str],
    ground_truths: list[str],  # noqa: ARG001
    extra_infos: list[dict[str, Any]],
    **options: Any,
) -> list[float]:
    """Return the net win rate of each solution over the others to the same question, in [-1, 1]."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for place, extra_info in enumerate(extra_infos):
        groups.setdefault(_question(extra_info), []).append(place)

    def judge(group: tuple[tuple[str, tuple[str, ...]], list[int]]) -> list[float]:
        (question, images), places = group
        return _rewards(question, images, [solution_strs[place] for place in places], options)

    scores = [0.0] * len(solution_strs)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for places, rewards in zip(groups.values(), pool.map(judge, groups.items()), strict=True):
            for place, reward in zip(places, rewards, strict=True):
                scores[place] = reward
    return scores


def _question(extra_info: dict[str, Any] | None) -> tuple[str, tuple[str, ...]]:
    if not extra_info or not extra_info.get("question"):
        raise ValueError("extra_info of every row must hold the question")
    images = extra_info.get("images")
    return str(extra_info["question"]), tuple(images if images is not None else ())


def _rewards(question: str, images: tuple[str, ...], responses: list[str], options: dict[str, Any]) -> list[float]:
    request = {
        "question": question,
        "images": [{"base64": base64.b64encode(Path(path).read_bytes()).decode()} for path in images],
        "responses": [response if response.strip() else "(empty response)" for response in responses],
        **options,  # votes, both_orders, kind: custom_reward_function.reward_kwargs
    }
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    answer = requests.post(f"{SERVER}/v1/reward", json=request, headers=headers, timeout=600)
    if not answer.ok:
        raise RuntimeError(f"{SERVER}: {answer.status_code}: {answer.text[:500]}")
    return [0.0 if reward is None else reward for reward in answer.json()["rewards"]]
