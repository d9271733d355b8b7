"""Comparisons of many requests share the model's batches.

One thread owns the model. It takes what has been waiting for a few milliseconds, or a full batch, and judges it in one
call; what was asked for with other options goes into another batch. A verdict depends on the comparison and its options
alone, so it is the same whatever it shared a batch with::

    batcher = Batcher(model, max_batch=64, wait=0.005, metrics=Metrics())
    (future,) = batcher.submit([PairToJudge("Which digit?", images, "A three.", "An eight.")], Sampling())
    future.result()                                                    # a Verdict, or an error

:class:`QueuedModel` is a reward model whose comparisons all go this way; ranking and rewards work as ever.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, NamedTuple, TypeAlias

from r1_reward.engines.engine import Answered, EngineError
from r1_reward.engines.scalar import Score
from r1_reward.judge.completions import Ask, draw_completions
from r1_reward.judge.prepare import Images, PairToJudge, check_group
from r1_reward.judge.reward_model import RewardModel, Stop
from r1_reward.judge.votes import read_judgment
from r1_reward.judge.voting import Verdict, majority
from r1_reward.records.content import Content, Shown
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion
from r1_reward.serve.budget import Budget, Clock
from r1_reward.serve.metrics import Metrics

_LOG = logging.getLogger(__name__)
Result = Verdict | list[Completion] | Score | EngineError


class Sampling(NamedTuple):
    """How votes are drawn; comparisons with the same sampling can share a batch."""

    votes: int = 1
    both_orders: bool = True
    temperature: float | None = None
    stop: Stop | None = None

    def ask(self, model: RewardModel, pairs: Sequence[PairToJudge]) -> Iterator[Verdict | EngineError]:
        """Return what the model says of pairs."""
        return model.compare_many(pairs, **self._asdict())


class Writing(NamedTuple):
    """How the texts of judgements are drawn; every item is an :class:`~r1_reward.judge.completions.Ask`."""

    temperature: float
    max_new_tokens: int

    def ask(self, model: RewardModel, asks: Sequence[Ask]) -> Iterator[Answered]:
        """Return what the model writes about pairs as they are shown."""
        return draw_completions(model.engine, asks, **self._asdict(), video_frames=model.video_frames)


class Alone(NamedTuple):
    """How single responses are scored by a scalar judge; every item is question, pictures in front, and response."""

    max_new_tokens: int

    def ask(self, model: RewardModel, items: Sequence[Any]) -> Iterator[Score | EngineError]:
        """Return the score of each response."""
        engine: Any = model.engine
        return iter(engine.score(items, **self._asdict()))


How: TypeAlias = Sampling | Writing | Alone


class Unavailable(Exception):
    """The model, or the server behind it, can judge nothing at the moment; the message is meant for a person."""


class Expired(Exception):
    """The deadline passed before the model had judged what was asked."""


class _Job(NamedTuple):
    item: Any
    """A pair, or what else its sampling is about."""
    future: Future[Any]
    since: float
    deadline: float


class Batcher:
    """The queue in front of a model and the thread that empties it."""

    def __init__(
        self, model: RewardModel, *, max_batch: int, wait: float, metrics: Metrics, clock: Clock = time.monotonic
    ) -> None:
        """Take a model for this thread alone; ``wait`` is the seconds a comparison waits for company."""
        self.model, self.max_batch, self.wait, self.metrics, self._clock = model, max_batch, wait, metrics, clock
        self._waiting: dict[How, deque[_Job]] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Return how many comparisons wait; what was cancelled does not."""
        with self._changed:
            return sum(not job.future.cancelled() for jobs in self._waiting.values() for job in jobs)

    def submit(self, items: Iterable[Any], sampling: How, *, deadline: float = math.inf) -> list[Future[Any]]:
        """Queue pairs to compare or to write about, the pictures of which should be open.

        What is cancelled is dropped. Every other future ends: with a verdict or completions, with the error of its pair
        as its *result*, with :class:`Expired` if the model has not begun it by the ``deadline`` (on the batcher's
        clock), with :class:`Unavailable`, or with what the model raised.
        """
        since = self._clock()
        jobs = [_Job(item, Future(), since, deadline) for item in items]
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            if jobs:
                self._waiting.setdefault(sampling, deque()).extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    def close(self) -> None:
        """Judge what waits, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            sampling, jobs = batch
            if jobs:
                self.metrics.batch.observe(len(jobs))
                self._judge(jobs, sampling)

    def _next(self) -> tuple[How, list[_Job]] | None:
        """Wait for a batch: the comparisons that have waited longest, and those with the same sampling."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closing:
                        return None
                    self._changed.wait()
                    continue
                sampling, jobs = min(self._waiting.items(), key=lambda group: group[1][0].since)
                left = jobs[0].since + self.wait - self._clock()
                if len(jobs) >= self.max_batch or left <= 0 or self._closing:
                    break
                self._changed.wait(left)
            batch: list[_Job] = []
            while jobs and len(batch) < self.max_batch:
                job = jobs.popleft()
                if not job.future.set_running_or_notify_cancel():
                    continue
                if self._clock() > job.deadline:
                    job.future.set_exception(Expired())  # not cancelled: whoever waits for it is to be told
                else:
                    batch.append(job)
            if not jobs:
                del self._waiting[sampling]
            return sampling, batch

    def _judge(self, jobs: Sequence[_Job], sampling: How) -> None:
        """Give every job its result, whatever happens."""
        left = deque(jobs)
        try:
            for result in sampling.ask(self.model, [job.item for job in jobs]):
                self._count(result)
                left.popleft().future.set_result(result)
            if left:
                raise RuntimeError(f"{len(jobs) - len(left)} verdicts for {len(jobs)} pairs")
        except UserError as error:
            _LOG.error("nothing can be judged: %s", error)
            for job in left:
                job.future.set_exception(Unavailable(str(error)))
        except BaseException as error:  # noqa: BLE001  the thread must outlive whatever a model raises
            _LOG.exception("the model failed")
            if len(jobs) > 1:  # one by one, so that a pair that breaks the model breaks nobody else's request
                for job in left:
                    self._judge([job], sampling)
            for job in left if len(jobs) == 1 else ():
                job.future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _count(self, result: Result) -> None:
        if isinstance(result, EngineError):
            self.metrics.failures.inc()
        elif isinstance(result, Verdict):
            self.metrics.judged(result)
        elif isinstance(result, Score):
            self.metrics.tokens.inc(result.tokens)
        else:
            dialect = self.model.engine.dialect
            self.metrics.judged(majority([read_judgment(one, swapped=False, dialect=dialect) for one in result]))


class QueuedModel(RewardModel):
    """A reward model for one request: it asks a batcher for every comparison, and gives up when time is up."""

    def __init__(self, batcher: Batcher, budget: Budget) -> None:
        """Share a batcher's model; the budget says how long."""
        model = batcher.model
        super().__init__(
            model.engine,
            max_new_tokens=model.max_new_tokens,
            calibration=model.calibration,
            seed=model.seed,
            video_frames=model.video_frames,
        )
        self._batcher, self._budget = batcher, budget
        self._asked: list[Future[Any]] = []
        self._given_up = False

    def compare_many(
        self, items: Iterable[PairToJudge | Mapping[str, Any]], **options: Any
    ) -> Iterator[Verdict | EngineError]:
        """Yield the verdict on each pair, in order; options as for :meth:`RewardModel.compare`.

        Raises:
            Expired: time is up, or nobody waits any more; what the model has not begun is dropped.
            Unavailable: nothing can be judged at the moment.
        """
        return self._wait(self.submit(items, Sampling(**options)))

    def scores(self, candidates: Sequence[tuple[Content, Images, Shown]]) -> list[Score]:
        """Return what a scalar judge says of each response alone: of a question, pictures in front, and a response.

        Raises:
            EngineError: one of them has no score.
            Expired: as of :meth:`compare_many`, like Unavailable.
        """
        items = []
        for question, images, response in candidates:
            shown, opened = check_group(question, images, video_frames=self.video_frames)
            items.append((shown, list(opened.pictures), response))
        scores: list[Score] = []
        for score in self._wait(self.submit(items, Alone(self.max_new_tokens))):
            if isinstance(score, EngineError):
                raise score
            scores.append(score)
        return scores

    def _wait(self, futures: list[Future[Any]]) -> Iterator[Any]:
        """Yield the results in order; drop what is left when nobody takes them."""
        try:
            for future in futures:
                yield future.result(self._budget.left())
        except (FutureTimeout, CancelledError) as error:
            raise Expired from error
        finally:
            for future in futures:
                future.cancel()

    def submit(self, items: Iterable[Any], sampling: How) -> list[Future[Any]]:
        """Queue pairs to compare or to write about.

        Raises:
            UserError: this model does not take the sampling.
            Expired: nobody waits any more.
        """
        if isinstance(sampling, Sampling):
            self._plan(**sampling._asdict())
        if self._given_up:
            raise Expired
        self._asked = self._batcher.submit(items, sampling, deadline=self._budget.deadline)
        return self._asked

    def give_up(self) -> None:
        """Take back what the model has not begun and ask for nothing more."""
        self._given_up = True
        for future in self._asked:
            future.cancel()
