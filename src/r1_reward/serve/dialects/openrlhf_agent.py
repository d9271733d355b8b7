"""An OpenRLHF agent that rewards a multimodal policy with a judge (``--train.agent_func_path``).

OpenRLHF calls its reward URL for one sample at a time, and without pictures. This file replaces the executor that calls
the URL, so it has all samples of a prompt and the pictures the policy saw. It sends them to the judge in one request::

    export R1_REWARD_SERVER=http://judge:8000
    AGENT=$(python -c "import r1_reward; print(r1_reward.__path__[0])")/serve/dialects/openrlhf_agent.py
    python -m openrlhf.cli.train_ppo_ray --train.agent_func_path $AGENT --rollout.n_samples_per_prompt 8 ...

For other options of the judge, pass a file of your own::

    from r1_reward.serve.dialects.openrlhf_agent import AgentExecutor as Judged

    class AgentExecutor(Judged):
        options = {"votes": 3, "schedule": "circular"}

A response that cannot be judged (too long, or unreadable for the judge) earns :attr:`AgentExecutor.worst`, and its
``scored`` in the log is 0. The run ends with a message if the judge fails, if the pictures of a prompt are missing, or
if a prompt has only one sample: OpenRLHF does not support missing rewards and would train on any number.

The trainer's processes need OpenRLHF, httpx and ``pip install --no-deps r1-reward``.
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
    """Generates as OpenRLHF does, and has the samples of each prompt judged against each other."""

    options: ClassVar[Mapping[str, Any]] = {}
    """Options of :class:`~r1_reward.serve.judge_client.JudgeServer`: votes, kind, schedule, url, timeout, ..."""
    worst: ClassVar[float] = WORST
    """Reward of a response that cannot be judged, unless another of its group earned less."""

    def __init__(self) -> None:
        super().__init__()  # without a reward URL, so that it calls none
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
        """Return OpenRLHF's record of one sample, including its reward.

        Raises:
            JudgeFailed: the judge failed to answer.
            ValueError: the prompt cannot be shown to the judge as the policy saw it, or has only one sample.
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
        """Return the samples of one prompt, including this one, once all of them have started.

        ``RolloutRayActor.generate_responses`` starts all of them at once with the same objects. A different prompt has
        different objects, even if its text is the same. So their number need not be configured.
        """
        key = tuple(map(id, (prompt, label, sampling_params, images)))
        siblings = self._joining.setdefault(key, _Siblings())
        siblings.expected += 1
        await asyncio.sleep(0)  # the others are ahead of us in the event loop's queue
        self._joining.pop(key, None)
        if siblings.expected == 1:
            raise ValueError(
                "a prompt has only 1 sample, so the judge has nothing to compare it with; set "
                "--rollout.n_samples_per_prompt (--eval.n_samples_per_prompt in evaluations) to at least 2"
            )
        return siblings

    async def _judge(self, prompt: str, label: Any, images: Any, responses: list[str]) -> list[Scored]:
        said = read_label(label)
        pictures = await asyncio.to_thread(_load, images or [_named(one) for one in said.images])
        question, beside = question_of(prompt, pictures, said.question).apart()
        return await self._server.rewards(question, responses, beside)


class _Siblings:
    """The samples of one prompt on their way to the judge; if one fails, all fail."""

    def __init__(self) -> None:
        self.expected = 0
        self.responses: list[str] = []
        self.scored: asyncio.Future[list[Scored]] = asyncio.get_running_loop().create_future()

    def add(self, response: str) -> int:
        """Add a response and return its index."""
        self.responses.append(response)
        return len(self.responses) - 1

    @property
    def complete(self) -> bool:
        """Whether all samples have arrived and none has failed."""
        return len(self.responses) == self.expected and not self.scored.done()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if error is not None and not self.scored.done():
            self.scored.set_exception(error if isinstance(error, Exception) else RuntimeError("a sample was canceled"))
            self.scored.exception()  # marks it as retrieved, since nobody may be waiting for it


def _load(images: Any) -> list[Any]:
    """Return the pictures as the policy sees them; raises ValueError if OpenRLHF cannot load one."""
    wanted = [image for image in (images if isinstance(images, list) else [images]) if image is not None]
    loaded: list[Any] = load_images(wanted)
    if len(loaded) != len(wanted):
        raise ValueError(f"OpenRLHF loaded only {len(loaded)} of {len(wanted)} pictures; the judge needs all of them")
    return loaded


def _named(image: str | dict[str, str]) -> str:
    """Return a label's picture in OpenRLHF's form."""
    return image if isinstance(image, str) else next(iter(image.values()))
