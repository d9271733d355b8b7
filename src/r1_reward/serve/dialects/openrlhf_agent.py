"""OpenRLHF's agent: the judge's rewards for a policy that sees pictures (``--train.agent_func_path``).

OpenRLHF's reward URL is asked for one sample at a time and never gets the pictures. This file replaces the executor
that asks it, and so has both: all samples of a prompt, and the pictures the policy saw. They go to the judge in one
request::

    export R1_REWARD_SERVER=http://judge:8000
    AGENT=$(python -c "import r1_reward; print(r1_reward.__path__[0])")/serve/dialects/openrlhf_agent.py
    python -m openrlhf.cli.train_ppo_ray --train.agent_func_path $AGENT --rollout.n_samples_per_prompt 8 ...

For other options of the judge, name a file of your own::

    from r1_reward.serve.dialects.openrlhf_agent import AgentExecutor as Judged

    class AgentExecutor(Judged):
        options = {"votes": 3, "schedule": "circular"}

A response that cannot be judged (too long, or unreadable for the judge) earns :attr:`AgentExecutor.worst`, and
``scored`` in the log is 0 for it. A judge that fails, a prompt whose pictures cannot be had, and a prompt with one
sample end the run with a message: OpenRLHF has no missing reward, and any number would be trained on.

In the trainer's processes this needs OpenRLHF, httpx and what ``pip install --no-deps r1-reward`` brings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from openrlhf.utils.agent import SingleTurnAgentExecutor
from openrlhf.utils.vlm_utils import load_images

from r1_reward.serve.judge_client import JudgeServer, Scored
from r1_reward.serve.labels import read_label
from r1_reward.serve.outcomes import WORST, as_probability, filled
from r1_reward.serve.templates import clean, question_of


class AgentExecutor(SingleTurnAgentExecutor):
    """Generates as OpenRLHF does, and lets the samples of each prompt be judged against each other."""

    options: ClassVar[Mapping[str, Any]] = {}
    """Of :class:`~r1_reward.serve.judge_client.JudgeServer`: votes, kind, schedule, url, timeout, ..."""
    worst: ClassVar[float] = WORST
    """What a response earns that cannot be judged, or less if another of its group earned less."""

    def __init__(self) -> None:
        super().__init__()  # without a reward URL, so that it asks nobody
        self._server = JudgeServer(**self.options)
        self._joining: dict[tuple[int, ...], _Siblings] = {}

    async def execute(
        self,
        prompt: str,
        label: Any,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Any = None,
    ) -> dict[str, Any]:
        """Return OpenRLHF's record of one sample, its reward included.

        Raises:
            JudgeFailed: the judge gave no answer.
            PromptError, LabelError, ValueError: the prompt cannot be shown to the judge as the policy saw it.
        """
        siblings = await self._siblings(prompt, label, sampling_params, images)
        with siblings:
            output: dict[str, Any] = await super().execute(
                prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images
            )
            ((start, end),) = output["action_ranges"]
            written = hf_tokenizer.decode(output["observation_tokens"][start:end], skip_special_tokens=False)
            place = siblings.add(clean(written))
            if siblings.complete:
                siblings.scored.set_result(await self._judge(prompt, label, images, siblings.responses))
        scored = await asyncio.shield(siblings.scored)
        reward = filled([one.reward for one in scored], self.worst)[place]
        output["reward"] = reward
        output["scores"] = as_probability(reward, self.options.get("kind", "win_rate"))  # for dynamic filtering
        output["extra_logs"] = {"scored": float(scored[place].reward is not None)}
        return output

    async def _siblings(self, prompt: str, label: Any, sampling_params: Any, images: Any) -> _Siblings:
        """Return the samples of one prompt, this one included, once all of them have begun.

        ``RolloutRayActor.generate_responses`` begins all of them at once and passes each the very same objects. Another
        prompt, though it has the same text, has other ones. So nobody has to say how many there are.
        """
        key = tuple(map(id, (prompt, label, sampling_params, images)))
        siblings = self._joining.setdefault(key, _Siblings())
        siblings.expected += 1
        await asyncio.sleep(0)  # the others are in the queue of the loop, in front of us
        self._joining.pop(key, None)
        if siblings.expected == 1:
            raise ValueError(
                "a prompt has 1 sample, and the judge has nothing to compare it with; set "
                "--rollout.n_samples_per_prompt (--eval.n_samples_per_prompt in evaluations) to 2 at least"
            )
        return siblings

    async def _judge(self, prompt: str, label: Any, images: Any, responses: list[str]) -> list[Scored]:
        said = read_label(label)
        pictures = await asyncio.to_thread(_load, images or [_named(one) for one in said.images])
        question, beside = question_of(prompt, pictures, said.question).apart()
        return await self._server.rewards(question, responses, beside)


class _Siblings:
    """The samples of one prompt on their way to the judge; one that fails takes the others with it."""

    def __init__(self) -> None:
        self.expected = 0
        self.responses: list[str] = []
        self.scored: asyncio.Future[list[Scored]] = asyncio.get_running_loop().create_future()

    def add(self, response: str) -> int:
        """Take a response; return its place."""
        self.responses.append(response)
        return len(self.responses) - 1

    @property
    def complete(self) -> bool:
        """Whether all are there, and none has failed."""
        return len(self.responses) == self.expected and not self.scored.done()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if error is not None and not self.scored.done():
            self.scored.set_exception(error if isinstance(error, Exception) else RuntimeError("a sample was cancelled"))
            self.scored.exception()  # nobody may be waiting for it


def _load(images: Any) -> list[Any]:
    """Return the pictures as the policy sees them; raises ValueError if OpenRLHF could not load one."""
    wanted = [image for image in (images if isinstance(images, list) else [images]) if image is not None]
    loaded: list[Any] = load_images(wanted)
    if len(loaded) != len(wanted):
        raise ValueError(f"{len(loaded)} of {len(wanted)} pictures could be loaded, and the judge needs all of them")
    return loaded


def _named(image: str | dict[str, str]) -> str:
    """Return a label's picture as OpenRLHF names one."""
    return image if isinstance(image, str) else next(iter(image.values()))
