"""Answer a validated request: open its pictures, queue its comparisons, and wait until the deadline at most.

All routes work alike: :meth:`Service.open` opens the pictures, then :meth:`Service.compare` judges one pair, or
:meth:`Service.in_rounds` runs work that calls the model several times. Every failure becomes a
:class:`~r1_reward.serve.errors.Refusal` with its status, and nothing of a failed request stays in the queue.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from r1_reward.engines.engine import EngineError
from r1_reward.engines.length import PromptTooLong
from r1_reward.judge.completions import Ask
from r1_reward.judge.groups import Group
from r1_reward.judge.prepare import InvalidPair, OpenedImages, PairToJudge
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.schedules import count_comparisons
from r1_reward.judge.settings import ScheduleName
from r1_reward.judge.voting import Verdict
from r1_reward.records.content import Content, Shown
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion
from r1_reward.serve.batching import Batcher, Expired, QueuedModel, Sampling, Unavailable, Writing
from r1_reward.serve.budget import Budget, Clock
from r1_reward.serve.cohorts import Cohorts, Prompt
from r1_reward.serve.errors import Refusal
from r1_reward.serve.grouping import reasoned, score_each
from r1_reward.serve.judge_client import Scored
from r1_reward.serve.metrics import Metrics, State
from r1_reward.serve.pictures import PictureReader, PictureSource, key_of_sent
from r1_reward.serve.settings import ServerSettings

_T = TypeVar("_T")
_RANKING_THREADS = 64  # a request that compares in rounds occupies a thread; further ones wait for a free thread


class Unopened(NamedTuple):
    """A question, and responses that may have pictures, as named in a request."""

    contents: Mapping[str, Content]
    """By the field that messages name; every picture is a :class:`~r1_reward.serve.pictures.Named`."""
    images: Sequence[PictureSource]
    """Pictures in front of the question."""
    field: str = "images"
    """The name of these pictures in messages."""


class Opened(NamedTuple):
    """The same, with its pictures opened."""

    images: OpenedImages
    contents: list[Shown]


class Service:
    """One model and everything in front of it; :func:`r1_reward.serve.api.create_app` serves it over HTTP."""

    def __init__(self, model: RewardModel, settings: ServerSettings, clock: Clock = time.monotonic) -> None:
        self.settings, self.metrics, self.state, self._clock = settings, Metrics(), State(), clock
        self.started = int(time.time())
        wait = settings.batch_wait_ms / 1000
        self.batcher = Batcher(model, max_batch=settings.max_batch, wait=wait, metrics=self.metrics, clock=clock)
        self.metrics.queue.set_function(lambda: len(self.batcher))
        self.metrics.in_flight.set_function(lambda: self.state.in_flight)
        self.cohorts = Cohorts(settings, self.metrics, self.state, self._reward, clock)
        self._pictures = PictureReader(settings)
        self._openers = ThreadPoolExecutor(os.cpu_count() or 1, "pictures")
        self._rankers = ThreadPoolExecutor(_RANKING_THREADS, "ranking")

    def budget(self) -> Budget:
        """Return the budget of a request that arrives now."""
        return Budget(self.settings, self._clock)

    async def open(self, asked: Sequence[Unopened], budget: Budget) -> list[Opened]:
        """Return contents and the pictures in front of them, all opened.

        Raises:
            Refusal: a picture is invalid, the pictures exceed the budget, or time is up.
        """

        def work() -> list[Opened]:
            return [Opened(*self._pictures.open_contents(one.contents, one.images, budget, one.field)) for one in asked]

        return await self._until(budget, self._openers.submit(work))

    async def compare(self, pair: PairToJudge, sampling: Sampling, budget: Budget) -> Verdict:
        """Return the verdict on one pair; raises Refusal if judging fails."""
        result: Verdict | EngineError = await self._judged(budget, lambda model: model.submit([pair], sampling)[0])
        if isinstance(result, EngineError):
            raise _refused(result)
        return result

    async def write(self, ask: Ask, writing: Writing, budget: Budget) -> list[Completion]:
        """Return the texts of judgments of one pair in the order shown; raises Refusal if judging fails."""
        result: list[Completion] | EngineError = await self._judged(
            budget, lambda model: model.submit([ask], writing)[0]
        )
        if isinstance(result, EngineError):
            raise _refused(result)
        return result

    async def in_rounds(self, budget: Budget, work: Callable[[QueuedModel], _T]) -> _T:
        """Run ``work`` with the model in a thread and return its result; raises Refusal if it fails."""
        return await self._judged(budget, lambda model: self._rankers.submit(work, model))

    async def read(self, budget: Budget, work: Callable[[], _T]) -> _T:
        """Run slow parsing of a request in a thread and return its result."""
        return await self._until(budget, self._openers.submit(work))

    async def _reward(self, prompt: Prompt, responses: list[Shown]) -> list[Scored]:
        """Return the rewards of a complete group, which gets a full request's time."""
        group = Group(prompt.question, prompt.images, responses, prompt.criteria)
        (scored,) = await self.in_rounds(self.budget(), lambda model: score_each(model, [group], prompt.options))
        return reasoned(scored)

    def refuse(self) -> None:
        """Stop accepting requests: incomplete groups are refused, complete ones are still judged."""
        self.state.close()
        self.cohorts.close()

    async def close(self) -> None:
        """Finish the accepted requests and end the threads."""
        self.refuse()
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        for pool in (self._openers, self._rankers):
            pool.shutdown()
        self.batcher.close()

    async def _judged(self, budget: Budget, begin: Callable[[QueuedModel], Future[_T]]) -> _T:
        """Start work with the model and wait for it; turn its errors into refusals."""
        model = QueuedModel(self.batcher, budget)
        try:
            return await self._until(budget, begin(model))
        except Expired as error:
            raise budget.timed_out() from error
        except Unavailable as error:
            raise Refusal(503, str(error), headers={"Retry-After": "5"}) from error
        except UserError as error:
            raise _refused(error) from error
        finally:
            model.give_up()

    async def _until(self, budget: Budget, work: Future[_T]) -> _T:
        """Wait for work until the deadline, and then cancel it if it has not started."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), budget.left())
        except TimeoutError as error:
            raise budget.timed_out() from error


def pairs_of(
    responses: Sequence[Content], schedule: ScheduleName = "round-robin", comparisons: int | None = None
) -> int:
    """Return how many pairs of different responses a schedule compares; equal ones are judged once."""
    return count_comparisons(schedule, different(responses), comparisons)


def different(responses: Sequence[Content]) -> int:
    """Return how many different responses were sent."""
    return len(set(map(key_of_sent, responses)))


def _refused(error: UserError) -> Refusal:
    """Return the refusal for an error, which blames either the request or the model."""
    if isinstance(error, PromptTooLong):
        return Refusal(413, str(error))
    if isinstance(error, EngineError) and not isinstance(error, InvalidPair):
        return Refusal(502, f"the model could not judge this request: {error}")
    return Refusal.wrong(error)
