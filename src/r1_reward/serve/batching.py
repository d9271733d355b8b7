"""Batch comparisons across requests.

One thread owns the model. It collects comparisons for a few milliseconds, or until the batch is full, and judges them
in one call; comparisons with other options go into another batch. A verdict depends only on the comparison and its
options, so it is the same whatever else is in the batch::

    batcher = Batcher(model, max_batch=64, wait=0.005, metrics=Metrics())
    (future,) = batcher.submit([PairToJudge("Which digit?", images, "A three.", "An eight.")], Sampling())
    future.result()                                                    # a Verdict, or an error

:class:`QueuedModel` is a reward model that sends its comparisons through a batcher; it ranks and rewards as usual.
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
        """Return the model's verdicts on pairs."""
        return model.compare_many(pairs, **self._asdict())


class Writing(NamedTuple):
    """How the texts of judgments are drawn; every item is an :class:`~r1_reward.judge.completions.Ask`."""

    temperature: float
    max_new_tokens: int

    def ask(self, model: RewardModel, asks: Sequence[Ask]) -> Iterator[Answered]:
        """Return what the model writes about each item."""
        return draw_completions(model.engine, asks, **self._asdict(), video_frames=model.video_frames)


class Alone(NamedTuple):
    """How a scalar judge scores single responses; every item is question, pictures in front, and response."""

    max_new_tokens: int

    def ask(self, model: RewardModel, items: Sequence[Any]) -> Iterator[Score | EngineError]:
        """Return the score of each response."""
        engine: Any = model.engine
        return iter(engine.score(items, **self._asdict()))


How: TypeAlias = Sampling | Writing | Alone


class Unavailable(Exception):
    """The model, or the server behind it, cannot judge anything at the moment; the message says why."""


class Expired(Exception):
    """The deadline passed before the model judged the request."""


class _Job(NamedTuple):
    item: Any
    """A pair, or whatever its sampling takes."""
    future: Future[Any]
    since: float
    deadline: float


class Batcher:
    """The queue in front of a model and the thread that empties it."""

    def __init__(
        self, model: RewardModel, *, max_batch: int, wait: float, metrics: Metrics, clock: Clock = time.monotonic
    ) -> None:
        """Take exclusive use of a model; a comparison waits up to ``wait`` seconds for others to share its batch."""
        self.model, self.max_batch, self.wait, self.metrics, self._clock = model, max_batch, wait, metrics, clock
        self._waiting: dict[How, deque[_Job]] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Return how many comparisons are waiting, without canceled ones."""
        with self._changed:
            return sum(not job.future.cancelled() for jobs in self._waiting.values() for job in jobs)

    def submit(self, items: Iterable[Any], sampling: How, *, deadline: float = math.inf) -> list[Future[Any]]:
        """Queue pairs to compare or to write about; their pictures should be open.

        Canceled futures are dropped. Every other future ends with a verdict or completions, with the error of its pair
        as its *result*, with :class:`Expired` if the model has not started it by the ``deadline`` (on the batcher's
        clock), with :class:`Unavailable`, or with the model's exception.
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
        """Judge what is waiting, then end the thread."""
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
        """Wait for a batch: the longest-waiting comparison and others with the same sampling."""
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
                    job.future.set_exception(Expired())  # rather than cancel: the waiting request must learn why
                else:
                    batch.append(job)
            if not jobs:
                del self._waiting[sampling]
            return sampling, batch

    def _judge(self, jobs: Sequence[_Job], sampling: How) -> None:
        """Set every job's result, whatever happens."""
        left = deque(jobs)
        try:
            for result in sampling.ask(self.model, [job.item for job in jobs]):
                self._count(result)
                left.popleft().future.set_result(result)
            if left:
                raise RuntimeError(f"{len(jobs) - len(left)} verdicts for {len(jobs)} pairs")
        except UserError as error:
            _LOG.error("the model cannot judge: %s", error)
            for job in left:
                job.future.set_exception(Unavailable(str(error)))
        except BaseException as error:  # noqa: BLE001  the thread must survive anything a model raises
            _LOG.exception("the model failed")
            if len(jobs) > 1:  # retry one by one, so that a pair that breaks the model fails only its own request
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
    """A reward model for one request: it sends every comparison to a batcher, and gives up when time is up."""

    def __init__(self, batcher: Batcher, budget: Budget) -> None:
        """Share a batcher's model until the budget's deadline."""
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
            Expired: time is up, or the client has disconnected; what the model has not started is dropped.
            Unavailable: the model cannot judge at the moment.
        """
        return self._wait(self.submit(items, Sampling(**options)))

    def scores(self, candidates: Sequence[tuple[Content, Images, Shown]]) -> list[Score]:
        """Return a scalar judge's score of each response, given as question, pictures in front, and response.

        Raises:
            EngineError: a response has no score.
            Expired: see :meth:`compare_many`.
            Unavailable: see :meth:`compare_many`.
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
        """Yield the results in order; cancel the rest if the caller stops early."""
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
            UserError: this model does not support the sampling.
            Expired: the request was given up.
        """
        if isinstance(sampling, Sampling):
            self._plan(**sampling._asdict())
        if self._given_up:
            raise Expired
        self._asked = self._batcher.submit(items, sampling, deadline=self._budget.deadline)
        return self._asked

    def give_up(self) -> None:
        """Cancel what the model has not started and submit nothing more."""
        self._given_up = True
        for future in self._asked:
            future.cancel()
