"""Ask the teacher about the rows of an annotation: many at once, each row's tries one after the other.

A checkpoint in this process and a model behind a server are asked alike, through the loop that draws all votes. Every
reply is written down when it comes: it has been paid for. So a run that has to end (money, a key that is refused, a
teacher of whom nothing can be read) waits for what it has asked already.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from r1_reward.data.annotation import Annotation, Job
from r1_reward.engines.client import RejectedError
from r1_reward.engines.engine import Answered, EngineError, Generative, Request
from r1_reward.judge.votes import work_off
from r1_reward.records.errors import UserError

SYNC_SECONDS = 1.0  # what a power cut may cost; a mere kill costs nothing


def teach(run: Annotation, engine: Generative) -> str:
    """Ask about all rows that are due; return why it stopped before the end: ``cost``, ``unreadable``, or nothing.

    Raises:
        UserError: no further row can be asked about; what was answered is kept.
    """
    run.engine = engine
    till = _Till(run)
    for _ in work_off(engine, (_Lesson(run, job, till) for job in run.due()), in_order=False, admit=till.admit):
        pass
    return "" if till.open else "unreadable" if run.watch.stopped else "cost"


class _Lesson:
    """One row and its tries, until one agrees with the label."""

    def __init__(self, run: Annotation, job: Job, till: _Till) -> None:
        self._run, self._job, self._till = run, job, till
        self._attempt: int | None = None
        self._over = False

    def requests(self) -> list[Request]:
        """Return the try that is due."""
        self._attempt = None if self._over else self._run.next_attempt(self._job)
        if self._attempt is None:
            return []
        try:
            return [self._run.request(self._job, self._attempt)]
        except UserError as error:  # its own row is left out, not the others
            self._run.leave(self._job, error)
            return []

    def take(self, answers: Sequence[Answered]) -> None:
        """Write the reply down, or why there is none."""
        [answer] = answers
        run, job, attempt = self._run, self._job, self._attempt
        assert attempt is not None
        self._till.settle()
        if not isinstance(answer, EngineError):
            run.keep(job, run.record(job, attempt, answer[0]), answer[0])
        elif isinstance(answer, RejectedError) and run.attempts.usage.attempts:
            run.reject(job, attempt, answer)
        else:  # a server that has only rejected perhaps rejects everything: nothing to note about the row
            self._over = True
            run.leave(job, answer)


class _Till:
    """Watches over the money, and over when replies are brought to the disk."""

    def __init__(self, run: Annotation) -> None:
        self._run = run
        self._under_way = 0
        self._synced = time.monotonic()
        self.open = True
        """Whether the latest request was admitted."""

    def admit(self) -> bool:
        """Say whether one more request of the usual price fits below the limit, together with those under way.

        Nothing fits any more once the teacher has turned out to be unreadable.
        """
        self.open = not self._run.watch.stopped and self._fits()
        self._under_way += self.open
        return self.open

    def settle(self) -> None:
        """Note that a request is not under way any more."""
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
                "--max-cost cannot be kept: the teacher's server does not say how many tokens it was shown. "
                "What was answered is kept; run the same command without --max-cost to continue from there."
            )
        spent = money.cost(usage) or 0.0
        if not usage.attempts:  # nothing is known yet but the longest reply; the first request shows what one costs
            each = settings.max_new_tokens * (money.price_out or 0.0) / 1e6
            return not self._under_way or (self._under_way + 1) * each <= money.limit
        return spent + (self._under_way + 1) * spent / usage.attempts <= money.limit
