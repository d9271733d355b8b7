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
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, NamedTuple

from r1_reward.engines.engine import EngineError
from r1_reward.judge.prepare import PairToJudge
from r1_reward.judge.reward_model import RewardModel, Stop
from r1_reward.judge.voting import Verdict
from r1_reward.records.errors import UserError
from r1_reward.serve.errors import timed_out
from r1_reward.serve.metrics import Metrics

_LOG = logging.getLogger(__name__)
Result = Verdict | EngineError


class Sampling(NamedTuple):
    """How votes are drawn; comparisons with the same sampling can share a batch."""

    votes: int = 1
    both_orders: bool = True
    temperature: float | None = None
    stop: Stop | None = None


class Unavailable(Exception):
    """The model, or the server behind it, can judge nothing at the moment; the message is meant for a person."""


class _Job(NamedTuple):
    pair: PairToJudge
    future: Future[Result]
    since: float
    deadline: float


class Batcher:
    """The queue in front of a model and the thread that empties it."""

    def __init__(self, model: RewardModel, *, max_batch: int, wait: float, metrics: Metrics) -> None:
        """Take a model for this thread alone; ``wait`` is the seconds a comparison waits for company."""
        self.model, self.max_batch, self.wait, self.metrics = model, max_batch, wait, metrics
        self._waiting: dict[Sampling, deque[_Job]] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Return how many comparisons wait."""
        with self._changed:
            return sum(len(jobs) for jobs in self._waiting.values())

    def submit(
        self, pairs: Iterable[PairToJudge], sampling: Sampling, *, deadline: float = math.inf
    ) -> list[Future[Result]]:
        """Queue comparisons, the pictures of which should be open.

        What is cancelled, or not begun by the ``deadline`` (on the clock of ``time.monotonic``), is dropped. A future
        ends with a verdict, with the error of its pair as its *result*, or with :class:`Unavailable`.
        """
        since = time.monotonic()
        jobs = [_Job(pair, Future(), since, deadline) for pair in pairs]
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

    def _next(self) -> tuple[Sampling, list[_Job]] | None:
        """Wait for a batch: the comparisons that have waited longest, and those with the same sampling."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closing:
                        return None
                    self._changed.wait()
                    continue
                sampling, jobs = min(self._waiting.items(), key=lambda group: group[1][0].since)
                left = jobs[0].since + self.wait - time.monotonic()
                if len(jobs) >= self.max_batch or left <= 0 or self._closing:
                    break
                self._changed.wait(left)
            batch: list[_Job] = []
            while jobs and len(batch) < self.max_batch:
                job = jobs.popleft()
                if time.monotonic() > job.deadline:
                    job.future.cancel()
                if job.future.set_running_or_notify_cancel():
                    batch.append(job)
            if not jobs:
                del self._waiting[sampling]
            return sampling, batch

    def _judge(self, jobs: Sequence[_Job], sampling: Sampling) -> None:
        """Give every job its result, whatever happens."""
        done = 0
        try:
            for result in self.model.compare_many([job.pair for job in jobs], **sampling._asdict()):
                self._count(result)
                jobs[done].future.set_result(result)
                done += 1
            if done < len(jobs):
                raise RuntimeError(f"{done} verdicts for {len(jobs)} pairs")
        except UserError as error:
            _LOG.error("nothing can be judged: %s", error)
            for job in jobs[done:]:
                job.future.set_exception(Unavailable(str(error)))
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever a model raises
            _LOG.exception("the model failed")
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs[done:]:  # one by one, so that a pair that breaks the model breaks nobody else's request
                self._judge([job], sampling)

    def _count(self, result: Result) -> None:
        if isinstance(result, EngineError):
            self.metrics.failures.inc()
        else:
            self.metrics.judged(result)


class QueuedModel(RewardModel):
    """A reward model for one request: it asks a batcher for every comparison, and gives up at the deadline."""

    def __init__(self, batcher: Batcher, *, deadline: float, timeout: float) -> None:
        """Share a batcher's model; ``deadline`` is on the clock of ``time.monotonic``, ``timeout`` what to call it."""
        model = batcher.model
        super().__init__(
            model.engine, max_new_tokens=model.max_new_tokens, calibration=model.calibration, seed=model.seed
        )
        self._batcher, self._deadline, self._timeout = batcher, deadline, timeout

    def compare_many(
        self, items: Iterable[PairToJudge | Mapping[str, Any]], **options: Any
    ) -> Iterator[Verdict | EngineError]:
        """Yield the verdict on each pair, in order; options as for :meth:`RewardModel.compare`.

        Raises:
            Refusal: the deadline has passed; what the model has not begun is dropped.
            Unavailable: nothing can be judged at the moment.
        """
        futures = self.submit(items, Sampling(**options))  # type: ignore[arg-type]
        try:
            for future in futures:
                yield future.result(max(0.0, self._deadline - time.monotonic()))
        except FutureTimeout as error:
            raise timed_out(self._timeout) from error
        finally:
            for future in futures:
                future.cancel()

    def submit(self, pairs: Iterable[PairToJudge], sampling: Sampling) -> list[Future[Result]]:
        """Queue comparisons; raises UserError if this model does not take the sampling."""
        self._plan(**sampling._asdict())
        return self._batcher.submit(pairs, sampling, deadline=self._deadline)
