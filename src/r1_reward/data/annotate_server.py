"""Annotate with a teacher behind a server: many rows at once, each row's tries one after the other.

Twice as many rows are under way as requests may be open, so that a free place at the server never waits for a picture
to be read. A run that has to end (money, a key that is refused) lets what was asked come back first: it is paid for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from r1_reward.data.annotation import Annotation, Job
from r1_reward.data.teacher import RejectedError, ServerTeacher
from r1_reward.engines.chat_protocol import chat_messages
from r1_reward.engines.engine import EngineError
from r1_reward.records.errors import UserError
from r1_reward.store.images import ImageError

_SYNC_SECONDS = 1.0  # what a power cut may cost; a mere kill costs nothing


def teach_by_server(run: Annotation, teacher: ServerTeacher, concurrency: int) -> str:
    """Ask about all rows that are due; return why it stopped before the end, empty if it did not.

    Raises:
        UserError: no further row can be asked about; what was answered is kept.
    """
    if concurrency < 1:
        raise UserError(f"--concurrency {concurrency}: must be 1 or more.")
    return asyncio.run(_Teaching(run, teacher, concurrency).all())


class _Teaching:
    """One run within its event loop."""

    def __init__(self, run: Annotation, teacher: ServerTeacher, concurrency: int) -> None:
        self.run, self.teacher, self.concurrency = run, teacher, concurrency
        self.stopped = ""
        self._fatal: UserError | None = None
        self._under_way = 0

    async def all(self) -> str:
        self._slots, self._reading = asyncio.Semaphore(self.concurrency), asyncio.Lock()
        self._freed = asyncio.Condition()
        due = self.run.due()
        async with self.teacher:
            tasks = [asyncio.create_task(self._work(due)) for _ in range(2 * self.concurrency)]
            syncing = asyncio.create_task(self._sync())
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in (*tasks, syncing):
                    task.cancel()
                await asyncio.gather(*tasks, syncing, return_exceptions=True)
        if self._fatal is not None:
            raise self._fatal
        return self.stopped

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_SECONDS)
            await asyncio.to_thread(self.run.attempts.sync)

    async def _work(self, due: Iterator[Job]) -> None:
        """Take row after row until there is none, or the run has to end."""
        while not self.stopped:
            try:
                async with self._reading:
                    job = await asyncio.to_thread(next, due, None)
                if job is None:
                    return
                await self._settle(job)
            except UserError as error:
                self.stopped = self.stopped or "error"
                self._fatal = self._fatal or error

    async def _settle(self, job: Job) -> None:
        """Make the tries that are due until one agrees, or the run has to end."""
        while not self.stopped and (attempt := self.run.next_attempt(job)) is not None:
            try:
                messages, seed = await asyncio.to_thread(self._prepare, job, attempt)
                async with self._slots:
                    if await self._may_spend():
                        await self._try(job, attempt, messages, seed)
            except (EngineError, ImageError) as error:
                self.run.leave(job, error)
                return

    def _prepare(self, job: Job, attempt: int) -> tuple[list[dict[str, Any]], int]:
        request = self.run.request(job, attempt)
        return chat_messages(request), request.seeds[0]

    async def _try(self, job: Job, attempt: int, messages: list[dict[str, Any]], seed: int) -> None:
        run = self.run
        self._under_way += 1
        try:
            reply = await self.teacher.ask(
                messages,
                seed=seed,
                temperature=run.settings.temperatures[attempt - 1],
                max_new_tokens=run.settings.max_new_tokens,
            )
            run.keep(job, run.record(job, attempt, reply))
        except RejectedError as error:
            if not run.attempts.usage.attempts:  # perhaps it rejects everything: nothing to note about the row
                raise
            run.reject(job, attempt, error)
        finally:
            self._under_way -= 1
            async with self._freed:
                self._freed.notify_all()

    async def _may_spend(self) -> bool:
        """Wait until one more request of the usual price fits below the limit; False if it never will."""
        while not self.stopped and not self._fits():
            if not self._under_way:
                self.stopped = "cost"
                break
            async with self._freed:
                await self._freed.wait()
        return not self.stopped

    def _fits(self) -> bool:
        money, usage, settings = self.run.money, self.run.attempts.usage, self.run.settings
        if money.limit is None:
            return True
        if usage.uncounted:
            raise UserError(
                "--max-cost cannot be kept: the teacher's server does not say how many tokens it was shown. "
                "What was answered is kept; the same command without --max-cost goes on from there."
            )
        spent = money.cost(usage) or 0.0
        if not usage.attempts:  # nothing is known yet but the longest reply; the first request shows what one costs
            each = settings.max_new_tokens * (money.price_out or 0.0) / 1e6
            return not self._under_way or (self._under_way + 1) * each <= money.limit
        return spent + (self._under_way + 1) * spent / usage.attempts <= money.limit
