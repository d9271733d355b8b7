"""The state of an annotation folder: which rows are due, what the teacher replied, and the resulting pairs.

See :mod:`r1_reward.data.annotate` for the overview. The loop that asks the teacher looks like this::

    for job in run.due():
        while (attempt := run.next_attempt(job)) is not None:
            request = run.request(job, attempt)
            run.keep(job, run.record(job, attempt, completion), completion)  # or run.reject(...), run.leave(...)
    report = run.write("")
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.data.annotation_report import Summary
from r1_reward.data.attempts_file import REJECTED, Attempt, AttemptRecord, AttemptsFile, Usage
from r1_reward.data.settings import AnnotateSettings, Money
from r1_reward.data.teacher import read_reply
from r1_reward.engines.client import RejectedError, TextOnlyError, TooLongError
from r1_reward.engines.engine import GIVE_UP, EngineError, Generative, ReadsTextOnly
from r1_reward.engines.length import PromptTooLong
from r1_reward.judge.prepare import prepare
from r1_reward.judge.settings import OnUnreadable
from r1_reward.judge.unreadable import Watch, limit_of, reading_of_completion
from r1_reward.records.content import Place
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS, Completion
from r1_reward.store.identity import data_identity, media_digest
from r1_reward.store.images import ImageError
from r1_reward.store.part_columns import with_media
from r1_reward.store.run_folder import read_remarks
from r1_reward.store.shards import PairWriter, pair_files, read_rows

ATTEMPTS, DROPPED = "attempts.jsonl", "dropped.jsonl"
REPEATED, TIE = "repeated", "tie"
_REASONS = {
    REPEATED: "repeats an earlier row (same id and content)",
    TIE: "neither response is preferred, so no judgment can agree with the label",
}
"""Why the teacher is not asked about a row."""


class Job(NamedTuple):
    """One input row. ``key`` depends on the id and on what the teacher is shown, not on the label."""

    file: str
    number: int
    key: str
    row: dict[str, Any]
    reason: str = ""
    """Why the teacher cannot be asked about it; empty if it can."""


class AnnotateState(NamedTuple):
    """Progress of a run; ``cost`` is that of :meth:`Money.cost`."""

    done: int
    total: int
    agreed: int
    usage: Usage
    cost: float | None
    estimate: float | None
    """Estimated cost of the whole folder at the current rate."""


Progress = Callable[[AnnotateState], None]


def read_jobs(path: str | Path) -> Iterator[Job]:
    """Yield the rows of a pair file or folder with their keys; ``reason`` is set on rows that cannot be annotated."""
    seen: set[str] = set()
    for file in pair_files(path):
        for number, row in enumerate(read_rows(file), 1):
            key = row_key(row)
            reason = REPEATED if key in seen else "" if row["preferred"] else TIE
            seen.add(key)
            yield Job(str(file), number, key, row, reason)


def row_key(row: dict[str, Any]) -> str:
    """Return 16 hex digits that depend on the id and on what is shown: contents, criteria, the bytes of all media."""
    images = [hashlib.sha256(cell["bytes"]).hexdigest() for cell in row["images"]]
    video = media_digest([row["video"]]) if row["video"] else None
    question, *responses = (with_media(row, _digest)[name] for name in CONTENTS)
    shown = [row["id"], question, images, video, *responses, *([row["criteria"]] if row.get("criteria") else [])]
    content = json.dumps(shown)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _digest(place: Place) -> str:
    return (
        str(media_digest([place.source]))
        if place.kind == "video"
        else hashlib.sha256(place.source["bytes"]).hexdigest()
    )


class Standing(NamedTuple):
    """The combined result of a row's attempts."""

    agreed: int | None
    """Number of the first attempt that agrees with the label."""
    taught: Attempt | None
    """The first of those whose text is usable for training."""
    rejected: Attempt | None
    """The attempt that the server rejected."""
    settled: bool
    """Whether no further attempt is due."""


def standing(attempts: Sequence[Attempt], preferred: int, limit: int) -> Standing:
    """Compare a row's attempts with its label."""
    agreeing = [attempt for attempt in attempts if attempt.answer == preferred]
    taught = next((attempt for attempt in agreeing if not attempt.problem), None)
    rejected = next((attempt for attempt in attempts if attempt.problem == REJECTED), None)
    settled = taught is not None or rejected is not None or len(attempts) >= limit
    return Standing(agreeing[0].number if agreeing else None, taught, rejected, settled)


def _is_unusable(error: UserError) -> bool:
    """Return whether the teacher can never be asked about a row: a checkpoint stays as it is, a server may change."""
    if not isinstance(error, EngineError):
        return True
    return isinstance(error, PromptTooLong | ReadsTextOnly) and not isinstance(error, RejectedError)


class Annotation:
    """A folder being annotated: which rows are due, what the teacher replied, and the resulting pairs."""

    def __init__(
        self,
        path: str | Path,
        out: Path,
        settings: AnnotateSettings,
        money: Money,
        progress: Progress | None,
        on_unreadable: OnUnreadable = "stop",
    ) -> None:
        self.path, self.out, self.settings, self.money, self.progress = path, out, settings, money, progress
        self.dialect = settings.spoken()
        limit = limit_of(settings.max_new_tokens)
        self.watch = Watch(settings.teacher, on_unreadable, limit=limit, dialect=self.dialect)
        """Sees every reply of this call; once it has stopped, no more requests should be sent."""
        self.attempts = AttemptsFile(out / ATTEMPTS)
        self.gaps: dict[str, tuple[str, str]] = {}
        """Rows without an outcome: key to (reason, detail)."""
        self.engine = Generative()
        """Builds the requests; set by the caller that asks the teacher."""
        self.engine.dialect = self.dialect
        self._total = sum(1 for _ in read_rows(path, ["id"]))
        self._done = self._agreed = self._failed_in_a_row = 0
        self._answered = False  # whether this call has had a reply
        self._gave_up = False
        self._rejected: list[AttemptRecord] = []  # not recorded yet, see reject()

    def due(self) -> Iterator[Job]:
        """Yield the rows that still need an attempt."""
        for job in read_jobs(self.path):
            if job.reason:
                self._done += 1
            elif self.standing(job).settled:
                self._count(job)
            else:
                yield job

    def standing(self, job: Job) -> Standing:
        """Return the combined result of a row's attempts so far."""
        return standing(self.attempts.of(job.key), job.row["preferred"], self.settings.attempts)

    def next_attempt(self, job: Job) -> int | None:
        """Return the number of the next attempt, None if the row needs no more."""
        return None if self.standing(job).settled else len(self.attempts.of(job.key)) + 1

    def swapped(self, job: Job, attempt: int) -> bool:
        """Return whether response 2 is shown first; the first attempt always uses the stored order."""
        return self.settings.reorder and attempt > 1 and self._number("order", job, attempt) % 2 == 1

    def request(self, job: Job, attempt: int) -> Any:
        """Return the request for an attempt; raises UserError if the row cannot be shown, such as a broken image."""
        settings, pair = self.settings, prepare(job.row, video_frames=self.settings.frames)
        first, second = pair.shown(self.swapped(job, attempt))
        return self.engine.compare(
            pair.question,
            pair.images.pictures,
            first,
            second,
            seeds=(self._number("seed", job, attempt),),
            temperature=settings.temperatures[attempt - 1],
            max_new_tokens=settings.max_new_tokens,
        )

    def _number(self, purpose: str, job: Job, attempt: int) -> int:
        digest = hashlib.sha256(f"{purpose}:{self.settings.seed}:{job.key}:{attempt}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 2

    def record(self, job: Job, attempt: int, completion: Completion) -> AttemptRecord:
        """Return the record of a reply, its answer converted to the stored order."""
        swapped = self.swapped(job, attempt)
        shown, problem = read_reply(completion, special_tokens=self.engine.special_tokens, dialect=self.dialect)
        return AttemptRecord(
            key=job.key,
            id=job.row["id"],
            attempt=attempt,
            swapped=swapped,
            temperature=self.settings.temperatures[attempt - 1],
            answer=None if shown is None else 1 if (shown == 1) != swapped else 2,
            problem=problem,
            text=completion.text,
            tokens=completion.tokens,
            prompt_tokens=completion.prompt_tokens,
        )

    def keep(self, job: Job, record: AttemptRecord, completion: Completion) -> None:
        """Append a reply to the file; it survives a kill once this returns. The watch sees ``completion``."""
        self._answered = True
        self.record_rejected()
        self.attempts.add(record)
        readable = record.answer is not None or record.problem == "tie"
        self.watch.add([reading_of_completion(completion, readable=readable, dialect=self.dialect)])
        self._failed_in_a_row = 0
        if self.standing(job).settled:
            self._count(job)
        self._show()

    def reject(self, job: Job, attempt: int, error: RejectedError) -> None:
        """Note that the server rejected a row; the next reply records it, so that the row is not sent again.

        A server that rejects everything is at fault, not the rows, so a rejection also counts as a row without a reply,
        unless it says that the row's prompt is too long.

        Raises:
            UserError: as :meth:`leave`; the rejections since the last reply are not recorded.
        """
        record = self.record(job, attempt, Completion(text=str(error), tokens=0, prompt_tokens=0, refused=True))
        if not self._gave_up:  # requests in flight may still be answered
            self._rejected.append(record.model_copy(update={"problem": REJECTED}))
        self.leave(job, error)

    def record_rejected(self) -> None:
        """Record the rejections noted so far, if this call has had a reply."""
        if self._answered and self._rejected:
            self.attempts.add(*self._rejected)
            self._done += len(self._rejected)
            self._rejected.clear()
            self._show()

    def leave(self, job: Job, error: UserError) -> None:
        """Note a row without an outcome; raises UserError after ``GIVE_UP`` consecutive rows without a reply."""
        unusable = _is_unusable(error)
        about_the_row = isinstance(error, TooLongError) or (isinstance(error, TextOnlyError) and self._answered)
        reason = "image" if isinstance(error, ImageError) else "not shown" if unusable else "no reply"
        self.gaps[job.key] = (reason, str(error))
        self._done += unusable
        self._failed_in_a_row += not (unusable or about_the_row)
        if self._failed_in_a_row >= GIVE_UP:
            self._gave_up = True
            self._rejected.clear()
            raise UserError(
                f"{GIVE_UP} rows in a row got no reply; the last error: {error}\n"
                "All replies so far are kept; run the same command again to resume. If the server is right to reject "
                f"these rows, remove them from {self.path} first."
            )
        self._show()

    def _count(self, job: Job) -> None:
        self._done += 1
        self._agreed += self.standing(job).agreed is not None

    def _show(self) -> None:
        if self.progress is not None:
            self.progress(self.state())

    def state(self) -> AnnotateState:
        """Return the progress of the run."""
        usage = self.attempts.usage
        cost = self.money.cost(usage)
        estimate = None if cost is None or not self._done else cost * self._total / self._done
        return AnnotateState(self._done, self._total, self._agreed, usage, cost, estimate)

    def write(self, stopped: str) -> dict[str, Any]:
        """Write the pairs, dropped.jsonl and report.json from the replies so far; return the report."""
        summary = Summary(self.settings.attempts)
        with PairWriter(self.out, overwrite=True, lock=False) as writer:
            with open(writer.staging / DROPPED, "w", encoding="ascii") as dropped:
                for job in read_jobs(self.path):
                    reason, detail = self._outcome(job)
                    if reason:
                        summary.drop(reason)
                        line = {"source": job.row["source"], "file": job.file, "row": job.number}
                        line |= {"id": job.row["id"], "reason": reason, "detail": detail}
                        dropped.write(json.dumps(line) + "\n")
                        continue
                    stands = self.standing(job)
                    row = self._taught(job, stands)
                    writer.add(row)
                    summary.add(job.row, row, self.attempts.of(job.key))
            report = self._report(summary, stopped)
            writer.close(report)
        return report

    def _report(self, summary: Summary, stopped: str) -> dict[str, Any]:
        usage = self.attempts.usage
        report = {
            **summary.report(),
            "stopped": stopped,
            "input": data_identity(self.path),
            "settings": self.settings.describe(),
            "usage": usage._asdict(),
            "cost": self.money.cost(usage),
        }
        if self.watch.words:
            report["warnings"].append(self.watch.words)
        if self.money.price_in is not None and usage.uncounted:
            report["warnings"].append(
                f"the cost is a lower bound: the server did not report token counts for {usage.uncounted} replies."
            )
        report["warnings"] += [f"{remark}." for remark in read_remarks(self.out)]
        return report

    def _outcome(self, job: Job) -> tuple[str, str]:
        """Return (reason, detail) for a row that is left out, empty strings for one that is kept."""
        if job.reason:
            return job.reason, _REASONS[job.reason]
        stands = self.standing(job)
        if stands.rejected is not None:
            return REJECTED, self.attempts.text(stands.rejected)
        if stands.settled:
            return "", ""
        return self.gaps.get(job.key, ("not asked", "the run stopped before this row"))

    def _taught(self, job: Job, stands: Standing) -> dict[str, Any]:
        """Return the row with reasoning and attempts, its responses in the order that the reasoning refers to."""
        row = {**job.row, "attempts": stands.agreed, "reasoning": None}
        if stands.taught is not None:
            row["reasoning"] = self.dialect.as_ours(self.attempts.text(stands.taught))
            if stands.taught.swapped:
                row["response_1"], row["response_2"] = row["response_2"], row["response_1"]
                row["preferred"] = 3 - row["preferred"]
        return row
