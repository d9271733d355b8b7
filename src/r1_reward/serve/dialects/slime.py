"""slime's reward function: the samples of a prompt are judged against each other (``--group-rm --custom-rm-path``).

    export R1_REWARD_SERVER=http://judge:8000
    python train.py --group-rm --custom-rm-path r1_reward.serve.dialects.slime.rewards --n-samples-per-prompt 8 ...

For other options of the judge, pass a function of your own::

    rewards = judged_by(votes=3, schedule="circular")

slime calls it with all samples of a prompt and the pictures the policy saw (``--multimodal-keys``). Without
``--group-rm``, slime calls it with one sample, which waits at the server for its siblings; this does not work with
rollouts that end early (``--over-sampling-batch-size``, ``--partial-rollout``). slime's evaluations do not support
``--group-rm``.

A response that cannot be judged (too long, or unreadable for the judge) earns the worst reward. Bradley-Terry scores
have no lower bound, so without ``--group-rm`` they need ``judged_by(kind="bradley_terry", worst=-5)``. The run ends
with a message if the judge fails, if the pictures of a prompt are missing, or if a prompt has only one sample: slime
does not support missing rewards and would train on any number. The trainer's processes need httpx and ``pip install
--no-deps r1-reward``.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from r1_reward.serve.chats import PromptError
from r1_reward.serve.judge_client import JudgeServer
from r1_reward.serve.labels import read_label
from r1_reward.serve.outcomes import filled, worst_of
from r1_reward.serve.templates import Prompt, clean, question_of

RewardFunction = Callable[..., Awaitable[Any]]
_RUN = uuid.uuid4().hex
"""Distinguishes the groups of this process from those of other runs on the same server."""


def judged_by(*, worst: float | None = None, **options: Any) -> RewardFunction:
    """Return a function for ``--custom-rm-path``.

    Args:
        worst: Reward of a response that cannot be judged, unless another of its group is known to have earned less; by
            default the lowest win rate.
        options: Those of ``JudgeServer``.
    """

    async def rewards(args: Any, samples: Any, **_: Any) -> Any:
        """Return a reward for each sample of a prompt, or the reward of a single sample.

        Raises:
            JudgeFailed: the judge failed to answer.
            PromptError: the prompt cannot be shown to the judge as the policy saw it.
            LabelError: the label cannot be read.
            ValueError: a single sample needs ``worst``, which is not set.
        """
        server = JudgeServer(**options)  # created late: processes that never call this import the module, too
        if not isinstance(samples, list):
            least = worst_of(options.get("kind", "win_rate"), worst)  # the others' rewards are not known here
            return await _alone(server, args, samples, least)
        _require_one_prompt(samples)
        question, images = _question(samples[0]).apart()
        scored = await server.rewards(question, [clean(sample.response) for sample in samples], images)
        return filled([one.reward for one in scored], worst)

    return rewards


rewards = judged_by()


async def _alone(server: JudgeServer, args: Any, sample: Any, worst: float) -> float:
    """Return the reward of a sample whose siblings arrive in other calls, ``worst`` if it cannot be judged."""
    if sample.group_index is None or args.n_samples_per_prompt < 2:
        raise PromptError(
            "got a single sample, so the judge has nothing to compare it with: use --group-rm and set "
            "--n-samples-per-prompt to at least 2; slime's evaluations have no groups"
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
    return worst if scored.reward is None else scored.reward


def _require_one_prompt(samples: list[Any]) -> None:
    """Raise PromptError unless these are several responses to one prompt."""
    if any(isinstance(sample, list) for sample in samples):
        raise PromptError("the samples are lists of turns, but the judge compares responses to one prompt")
    if len(samples) < 2:
        raise PromptError(
            "a prompt has only 1 sample, so the judge has nothing to compare it with; set --n-samples-per-prompt to at "
            "least 2"
        )
    if any((one.group_index, one.prompt) != (samples[0].group_index, samples[0].prompt) for one in samples):
        raise PromptError("the samples belong to several prompts; this --custom-rm-path function needs --group-rm")
    numbers = [sample.index for sample in samples if sample.index is not None]
    if len(set(numbers)) < len(numbers):
        raise PromptError("some samples are turns of one response, but the judge compares whole responses")


def _question(sample: Any) -> Prompt:
    """Return the question for the judge, with the pictures the policy saw."""
    label = read_label(sample.label)
    seen = sample.multimodal_inputs or {}
    if seen.get("videos"):
        raise PromptError("has videos, which slime passes on as tensors that cannot be shown to the judge")
    # The policy's pictures are already open, and are all pictures of the prompt.
    return question_of(sample.prompt, seen.get("images") or label.images, label.question)
