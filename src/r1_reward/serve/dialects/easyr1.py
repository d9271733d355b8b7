"""EasyR1: a batch reward function that calls a judge behind ``r1-reward serve``.

EasyR1 calls a function from a file with the whole batch. For each sample it passes only the response, its length, and
the row's ``ground_truth``, so the question must be in ``ground_truth`` (the column named by ``data.answer_key``), as
the JSON of an object::

    {"question": "<image>Which digit?", "images": ["scenes/7.png"], "answer": "eight"}

``images`` are paths, URLs, data URIs, or ``{"path"|"url"|"base64": ...}``, one for each ``<image>``, or in front of a
question without ``<image>``. ``answer`` is the reference answer, for samples without siblings. Import the function in a
file of your own::

    # reward.py, for worker.reward.reward_function=./reward.py:compute_score
    from r1_reward.serve.dialects.easyr1 import REWARD_NAME, REWARD_TYPE, compute_score

and set its options with ``worker.reward.reward_function_kwargs='{"url": "http://judge:8000", "votes": 2}'``.

Samples with equal ``ground_truth``, wherever they are in the batch, form a group and are judged against each other. A
sample that silences the judge, or is too long for it, earns ``worst`` (-1). All other failures raise and end the run:
EasyR1 does not support missing rewards and would train on any number.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from r1_reward.serve.chats import PromptError, read_turn
from r1_reward.serve.judge_client import JudgeServer, Scored
from r1_reward.serve.labels import LabelError, read_label
from r1_reward.serve.plugs import against, earned, judge_of, reference_of, shown
from r1_reward.serve.templates import Prompt, ask

REWARD_NAME = "r1_reward"
REWARD_TYPE = "batch"
_AT_ONCE = 64
"""Groups sent to the server at once; the server has its own queue."""
_ALONE = (
    "has only one sample, so the judge has nothing to compare it with: set worker.rollout.n (in validation "
    "worker.rollout.val_override_config.n) to at least 2, or put the reference answer into its ground_truth as answer"
)


class Group(NamedTuple):
    """The samples of one prompt."""

    prompt: Prompt
    answer: str | None
    """The reference answer."""
    places: list[int]
    """Indices of its samples in the batch."""


def compute_score(
    reward_inputs: Sequence[Mapping[str, Any]], *, image_dir: str | None = None, **options: Any
) -> list[dict[str, float]]:
    """Return for each sample ``overall``, its net win rate over its siblings in [-1, 1], and whether it was ``scored``.

    Args:
        reward_inputs: EasyR1's: ``response`` and ``ground_truth`` of each sample.
        image_dir: Folder of relative picture paths, as EasyR1's ``data.image_dir``.
        options: ``url``, ``votes``, ``worst``, ...: see :func:`r1_reward.serve.plugs.judge_of`.

    Raises:
        ValueError: a ``ground_truth`` has no question, or a sample has neither siblings nor a reference answer.
        JudgeFailed: the judge failed to answer.
    """
    judge, worst = judge_of(options)
    groups = read_groups(reward_inputs)
    responses = [str(one["response"]) for one in reward_inputs]
    with ThreadPoolExecutor(1) as thread:  # since EasyR1's worker may have a running event loop
        scored = thread.submit(asyncio.run, _judge_all(judge, groups, responses, image_dir)).result()
    told = {
        place: earned(one, worst)
        for group, of_group in zip(groups, scored, strict=True)
        for place, one in zip(group.places, of_group, strict=True)
    }
    return [{"overall": told[place]["score"], "scored": told[place]["scored"]} for place in range(len(responses))]


def read_groups(reward_inputs: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Return the samples grouped by ``ground_truth``, in order of first occurrence.

    Raises:
        ValueError: a ``ground_truth`` cannot be read.
    """
    groups: dict[str, Group] = {}
    for place, one in enumerate(reward_inputs):
        try:
            said = _object(one["ground_truth"])
            key = json.dumps(said, sort_keys=True)
            if key not in groups:
                groups[key] = _group(said)
        except (LabelError, PromptError, ValueError) as error:
            raise ValueError(f"the ground_truth of sample {place} {error}") from error
        groups[key].places.append(place)
    return list(groups.values())


def _object(ground_truth: Any) -> dict[str, Any]:
    try:
        said = json.loads(ground_truth) if isinstance(ground_truth, str) else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or "question" not in said:
        form = '{"question": ..., "images": [...], "answer": ...}'
        raise ValueError(f"is {ground_truth!r:.60}; it must be the JSON of an object {form}")
    return said


def _group(said: dict[str, Any]) -> Group:
    label = read_label(said)
    if label.question is None:
        raise ValueError("has no question")
    prompt = ask([read_turn("user", label.question)], label.images)
    return Group(prompt, reference_of(said.get("answer")), [])


async def _judge_all(
    judge: JudgeServer, groups: list[Group], responses: list[str], image_dir: str | None
) -> list[list[Scored]]:
    """Return the rewards of each group; raise the first failure."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def judge_one(group: Group) -> list[Scored]:
        written = [responses[place] for place in group.places]
        async with room:
            if len(written) > 1:
                question, images = shown(group.prompt, image_dir)
                return await judge.rewards(question, written, images)
            if group.answer is None:
                raise ValueError(f"the prompt of sample {group.places[0]} {_ALONE}")
            return [await against(judge, group.prompt, written[0], group.answer, image_dir)]

    return await asyncio.gather(*(judge_one(group) for group in groups))
