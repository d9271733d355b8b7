"""From a checked request to its answer: open the pictures, join the queue, wait until the deadline at most."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from r1_reward.engines.engine import EngineError
from r1_reward.judge.prepare import InvalidPair, OpenedImages, PairToJudge
from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.errors import UserError
from r1_reward.serve import schemas
from r1_reward.serve.batching import Batcher, QueuedModel, Sampling, Unavailable
from r1_reward.serve.dialects.openrlhf import Group, read_groups
from r1_reward.serve.errors import Refusal, timed_out
from r1_reward.serve.limits import State
from r1_reward.serve.metrics import Metrics
from r1_reward.serve.pictures import PictureReader
from r1_reward.serve.settings import ServerSettings

_T = TypeVar("_T")
_RANKING_THREADS = 64  # requests that compare in rounds wait in threads; more of them wait for a thread


class Service:
    """One model and everything in front of it; :func:`r1_reward.serve.api.create_app` puts it behind HTTP."""

    def __init__(self, model: RewardModel, settings: ServerSettings) -> None:
        self.settings, self.metrics, self.state = settings, Metrics(), State()
        wait = settings.batch_wait_ms / 1000
        self.batcher = Batcher(model, max_batch=settings.max_batch, wait=wait, metrics=self.metrics)
        self.metrics.queue.set_function(lambda: len(self.batcher))
        self.metrics.in_flight.set_function(lambda: self.state.in_flight)
        self._pictures = PictureReader(settings)
        self._openers = ThreadPoolExecutor(os.cpu_count() or 1, "pictures")
        self._rankers = ThreadPoolExecutor(_RANKING_THREADS, "ranking")

    def deadline(self) -> float:
        """Return until when, on the clock of ``time.monotonic``, a request that comes now is worked on."""
        return time.monotonic() + self.settings.timeout

    async def compare(
        self, asked: schemas.CompareRequest, uploads: list[bytes], deadline: float
    ) -> schemas.CompareResponse:
        """Answer ``/v1/compare``."""
        images = await self._open(asked, uploads, deadline)
        pair = PairToJudge(asked.question, images, asked.response_1, asked.response_2)
        model = self._model(deadline)
        (future,) = _checked(lambda: model.submit([pair], _sampling(asked)))
        try:
            result = await self._until(deadline, asyncio.wrap_future(future))
        except Unavailable as error:
            raise Refusal(503, str(error), headers={"Retry-After": "5"}) from error
        if isinstance(result, EngineError):
            raise _refused(result)
        return schemas.compare_response(result)

    async def rank(self, asked: schemas.RankRequest, uploads: list[bytes], deadline: float) -> schemas.RankResponse:
        """Answer ``/v1/rank``."""
        images = await self._open(asked, uploads, deadline)
        rank = partial(self._model(deadline).rank, asked.question, images, asked.responses, budget=asked.budget)
        options = _sampling(asked)._asdict()
        return schemas.rank_response(await self._in_rounds(deadline, lambda: rank(**options)))

    async def reward(
        self, asked: schemas.RewardRequest, uploads: list[bytes], deadline: float
    ) -> schemas.RewardResponse:
        """Answer ``/v1/reward``."""
        images = await self._open(asked, uploads, deadline)
        reward = partial(self._model(deadline).rewards, asked.question, images, asked.responses, kind=asked.kind)
        options = _sampling(asked)._asdict()
        return schemas.reward_response(await self._in_rounds(deadline, lambda: reward(**options)))

    async def remote_reward(
        self, asked: schemas.RemoteRewardRequest, kind: schemas.Kind, sampling: Sampling, deadline: float
    ) -> schemas.RemoteRewardResponse:
        """Answer ``/get_reward``: the responses to each prompt are judged against each other."""
        groups = await self._until(deadline, self._run(self._openers, lambda: read_groups(asked)))
        for group in groups:
            self._check_group(group)
        judged = [asyncio.ensure_future(self._reward_group(group, kind, sampling, deadline)) for group in groups]
        try:
            by_group = await asyncio.gather(*judged)
        finally:
            for one in judged:
                one.cancel()
        rewards: list[float | None] = [None] * len(asked.query)
        sizes = [0.0] * len(asked.query)
        for group, own in zip(groups, by_group, strict=True):
            for place, reward in zip(group.places, own, strict=True):
                rewards[place], sizes[place] = reward, float(len(group.places))
        scored = [float(reward is not None) for reward in rewards]
        filled = [self.settings.unscored_reward if reward is None else reward for reward in rewards]
        return schemas.RemoteRewardResponse(
            rewards=filled,
            scores=[None if reward is None else _as_probability(reward, kind) for reward in filled],
            extra_logs={"scored": scored, "responses_to_prompt": sizes},
        )

    def _check_group(self, group: Group) -> None:
        first = f"prompts[{group.places[0]}]"
        if len(group.responses) > self.settings.max_candidates:
            count = f"{len(group.responses)} responses to one prompt; at most {self.settings.max_candidates}"
            raise Refusal(422, f"{count} are accepted", first)
        if len(group.question) > self.settings.max_chars:
            raise Refusal(422, f"the question has more than {self.settings.max_chars:,} characters", first)

    async def _reward_group(
        self, group: Group, kind: schemas.Kind, sampling: Sampling, deadline: float
    ) -> list[float | None]:
        """Return the reward of each response; one that is too long to be shown has none."""
        place = group.places[0]
        opening = partial(self._pictures.open, group.images, deadline=deadline, field=f"prompts[{place}].images")
        shown = [i for i, response in enumerate(group.responses) if len(response) <= self.settings.max_chars]
        rewards: list[float | None] = [None] * len(group.responses)
        if not shown:
            return rewards
        images = await self._until(deadline, self._run(self._openers, opening))
        responses = [group.responses[i] for i in shown]
        reward = partial(self._model(deadline).rewards, group.question, images, responses, kind=kind)
        for i, own in zip(shown, await self._in_rounds(deadline, lambda: reward(**sampling._asdict())), strict=True):
            rewards[i] = own
        return rewards

    async def close(self) -> None:
        """Finish what was taken and end the threads."""
        self.state.closing = True
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        for pool in (self._openers, self._rankers):
            pool.shutdown()
        self.batcher.close()

    def _model(self, deadline: float) -> QueuedModel:
        return QueuedModel(self.batcher, deadline=deadline, timeout=self.settings.timeout)

    async def _open(self, asked: schemas.Question, uploads: list[bytes], deadline: float) -> OpenedImages:
        opening = partial(self._pictures.open, asked.images, uploads, deadline=deadline)
        return await self._until(deadline, self._run(self._openers, opening))

    async def _in_rounds(self, deadline: float, work: Callable[[], _T]) -> _T:
        """Run what asks the queued model again and again, in a thread."""
        try:
            return await self._until(deadline, self._run(self._rankers, lambda: _checked(work)))
        except Unavailable as error:
            raise Refusal(503, str(error), headers={"Retry-After": "5"}) from error

    def _run(self, pool: ThreadPoolExecutor, work: Callable[[], _T]) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(pool, work)

    async def _until(self, deadline: float, work: asyncio.Future[_T]) -> _T:
        """Wait for work until the deadline; cancelled work that has not begun never begins."""
        try:
            return await asyncio.wait_for(work, max(0.0, deadline - time.monotonic()))
        except asyncio.TimeoutError as error:
            raise timed_out(self.settings.timeout) from error


def _sampling(asked: schemas.Question) -> Sampling:
    return Sampling(asked.votes, asked.both_orders, None, asked.stop)


def _checked(work: Callable[[], _T]) -> _T:
    """Do work; what is wrong with the request, or with the model's answer to it, becomes a refusal."""
    try:
        return work()
    except UserError as error:
        raise _refused(error) from error


def _refused(error: UserError) -> Refusal:
    if isinstance(error, EngineError) and not isinstance(error, InvalidPair):
        return Refusal(502, f"the model could not judge this: {error}")
    field, colon, _ = str(error).partition(":")
    return Refusal(422, str(error), field if colon and field.isidentifier() else None)


def _as_probability(reward: float, kind: schemas.Kind) -> float:
    """Return a net win rate, or a Bradley-Terry score in logits, as a probability of winning."""
    return (reward + 1) / 2 if kind == "win_rate" else 0.5 + 0.5 * math.tanh(reward / 2)
