"""Ask the teacher about the rows of an annotation: many rows concurrently, the attempts on each row in sequence.

Local checkpoints and servers go through the same loop that draws all votes. Every reply is recorded as soon as it
arrives, because it has been paid for. For the same reason, a run that has to stop (budget reached, API key rejected,
unreadable teacher) waits for the requests in flight.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from r1_reward.data.annotation import Annotation, Job
from r1_reward.engines.client import RejectedError
from r1_reward.engines.engine import Answered, EngineError, Generative, ReadsTextOnly, Request
from r1_reward.judge.votes import work_off
from r1_reward.records.errors import UserError

SYNC_SECONDS = 1.0  # replies that a power failure may lose; a kill loses none


def teach(run: Annotation, engine: Generative) -> str:
    """Ask about all rows that are due; return why it stopped early (``cost`` or ``unreadable``), or "".

    Raises:
        UserError: the teacher cannot be asked any more; all replies so far are kept.
    """
    run.engine = engine
    till = _Till(run)
    for _ in work_off(engine, (_Lesson(run, job, till) for job in run.due()), in_order=False, admit=till.admit):
        pass
    run.record_rejected()
    return "" if till.open else "unreadable" if run.watch.stopped else "cost"


class _Lesson:
    """One row and its attempts, until one agrees with the label."""

    def __init__(self, run: Annotation, job: Job, till: _Till) -> None:
        self._run, self._job, self._till = run, job, till
        self._attempt: int | None = None
        self._over = False

    def requests(self) -> list[Request]:
        """Return the request of the next attempt, or nothing if none is due."""
        self._attempt = None if self._over else self._run.next_attempt(self._job)
        if self._attempt is None:
            return []
        try:
            return [self._run.request(self._job, self._attempt)]
        except UserError as error:  # skip this row only
            self._run.leave(self._job, error)
            return []

    def take(self, answers: Sequence[Answered]) -> None:
        """Record the reply, or the reason why there is none."""
        [answer] = answers
        run, job, attempt = self._run, self._job, self._attempt
        assert attempt is not None
        self._till.settle()
        if not isinstance(answer, EngineError):
            run.keep(job, run.record(job, attempt, answer[0]), answer[0])
            return
        self._over = True
        # A server that reads text only answers rows without pictures; one that reads pictures may take its place.
        if isinstance(answer, RejectedError) and not isinstance(answer, ReadsTextOnly):
            run.reject(job, attempt, answer)
        else:
            run.leave(job, answer)


class _Till:
    """Enforces the budget, and flushes replies to disk regularly."""

    def __init__(self, run: Annotation) -> None:
        self._run = run
        self._under_way = 0
        self._synced = time.monotonic()
        self.open = True
        """Whether the latest request was admitted."""

    def admit(self) -> bool:
        """Return whether one more request at the average price fits the budget, counting those in flight.

        Once the teacher has turned out to be unreadable, no request is admitted.
        """
        self.open = not self._run.watch.stopped and self._fits()
        self._under_way += self.open
        return self.open

    def settle(self) -> None:
        """Note that a request has been answered."""
        self._under_way -= 1
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._synced = time.monotonic()
            self._run.attempts.sync()

    def _fits(self) -> bool:
        money, usage, settings = self._run.money, self._run.attempts.usage, self._run.settings
        if money.limit is None:
            return True
        if usage.uncounted:
            raise UserError(
                "--max-cost cannot be enforced: the teacher's server does not report prompt tokens. All replies so far "
                "are kept; run the same command without --max-cost to resume."
            )
        spent = money.cost(usage) or 0.0
        if not usage.attempts:  # only the maximum length is known until the first reply shows what a request costs
            each = settings.max_new_tokens * (money.price_out or 0.0) / 1e6
            return not self._under_way or (self._under_way + 1) * each <= money.limit
        return spent + (self._under_way + 1) * spent / usage.attempts <= money.limit
