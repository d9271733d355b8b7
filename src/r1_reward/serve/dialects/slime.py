"""slime's reward function: the samples of a prompt are judged against each other (``--group-rm --custom-rm-path``).

    export R1_REWARD_SERVER=http://judge:8000
    python train.py --group-rm --custom-rm-path r1_reward.serve.dialects.slime.rewards --n-samples-per-prompt 8 ...

For other options of the judge, name a function of your own::

    rewards = judged_by(votes=3, schedule="circular")

slime gives it all samples of a prompt, with the pictures the policy saw (``--multimodal-keys``). Without ``--group-rm``
it is called with one sample, which waits at the server for its siblings; that suits no rollout that ends some of them
early (``--over-sampling-batch-size``, ``--partial-rollout``). slime takes no ``--group-rm`` in evaluations.

A response that cannot be judged (too long, or unreadable for the judge) earns the worst reward. A judge that fails, a
prompt whose pictures cannot be had, and a prompt with one sample end the run with a message: slime has no missing
reward, and any number would be trained on. In the trainer's processes this needs httpx and what
``pip install --no-deps r1-reward`` brings.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from r1_reward.serve.chats import PromptError
from r1_reward.serve.judge_client import JudgeServer
from r1_reward.serve.labels import read_label
from r1_reward.serve.outcomes import filled
from r1_reward.serve.templates import Prompt, clean, question_of

RewardFunction = Callable[..., Awaitable[Any]]
_RUN = uuid.uuid4().hex
"""Tells the groups of this process from those of other runs that ask the same server."""


def judged_by(**options: Any) -> RewardFunction:
    """Return a function for ``--custom-rm-path`` whose judge has these options (see ``JudgeServer``)."""

    async def rewards(args: Any, samples: Any, **_: Any) -> Any:
        """Return a reward for each sample of a prompt; for a sample that comes alone, its own.

        Raises:
            JudgeFailed: the judge gave no answer.
            PromptError, LabelError: the prompt cannot be shown to the judge as the policy saw it.
        """
        server = JudgeServer(**options)  # not before it is needed: processes that never call this load it, too
        if not isinstance(samples, list):
            return await _alone(server, args, samples)
        _require_one_prompt(samples)
        question, images = _question(samples[0]).apart()
        scored = await server.rewards(question, [clean(sample.response) for sample in samples], images)
        return filled([one.reward for one in scored])

    return rewards


rewards = judged_by()


async def _alone(server: JudgeServer, args: Any, sample: Any) -> float:
    """Return the reward of a sample whose siblings come by calls of their own."""
    if sample.group_index is None or args.n_samples_per_prompt < 2:
        raise PromptError(
            "one sample came, and the judge has nothing to compare it with: use --group-rm and --n-samples-per-prompt "
            "2 at least; evaluations of slime have no groups"
        )
    question, images = _question(sample).apart()
    (scored,) = await server.rewards(
        question,
        [clean(sample.response)],
        images,
        group=f"{_RUN}-{sample.group_index}",
        group_size=args.n_samples_per_prompt,
        samples=[str(sample.index)],
    )
    (reward,) = filled([scored.reward])
    return reward


def _require_one_prompt(samples: list[Any]) -> None:
    """Raise PromptError unless these are several responses to one prompt."""
    if any(isinstance(sample, list) for sample in samples):
        raise PromptError("the samples are lists of turns, and the judge compares responses to one prompt")
    if len(samples) < 2:
        raise PromptError(
            "a prompt has 1 sample, and the judge has nothing to compare it with; set --n-samples-per-prompt to 2 at "
            "least"
        )
    if any((one.group_index, one.prompt) != (samples[0].group_index, samples[0].prompt) for one in samples):
        raise PromptError("the samples are of several prompts; --custom-rm-path with this function needs --group-rm")
    numbers = [sample.index for sample in samples if sample.index is not None]
    if len(set(numbers)) < len(numbers):
        raise PromptError("some samples are turns of one response, and the judge compares whole responses")


def _question(sample: Any) -> Prompt:
    """Return what the judge is asked, with the pictures the policy saw."""
    label = read_label(sample.label)
    seen = sample.multimodal_inputs or {}
    if seen.get("videos"):
        raise PromptError("has videos, which slime hands on as tensors that cannot be shown to the judge")
    # Those of the policy are open already, and are all that the prompt shows.
    return question_of(sample.prompt, seen.get("images") or label.images, label.question)
