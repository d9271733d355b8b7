"""An append-only file of a teacher's replies, one line per attempt, that survives a kill at any moment.

Each line is written as soon as its reply arrives, so a killed run loses only the requests in flight::

    attempts = AttemptsFile(Path("annotated/attempts.jsonl"))
    attempts.add(AttemptRecord(key=key, id="7", attempt=1, ...))
    attempts.of(key)            # the attempts on that row so far, without their texts
    attempts.text(attempt)      # the text of one, read from the file

Texts stay on disk: 200,000 rows with three attempts each would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer
from r1_reward.store.append_log import AppendLog, Place

REJECTED = "rejected"
"""The problem of an attempt whose text the server rejected: it sent no reply and charges nothing."""


class AttemptRecord(BaseModel):
    """One line: an attempt on a row and the reply.

    ``answer`` refers to the row's stored order, as in :class:`~r1_reward.records.schema.Judgment`. None means that
    there is no verdict, which does not count as contradicting the label; ``problem`` then says why. With an answer,
    ``problem`` says why the text is unusable for training, and is empty if it is usable. ``prompt_tokens`` is None if
    the server did not report it; ``tokens`` counts the generated ones.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    key: str
    id: str
    attempt: int = Field(ge=1)
    swapped: bool
    temperature: float
    answer: Answer | None
    problem: str
    text: str
    tokens: int = Field(ge=0)
    prompt_tokens: int | None = Field(ge=0)


class Attempt(NamedTuple):
    """The part of a line that is kept in memory."""

    number: int
    swapped: bool
    answer: Answer | None
    problem: str
    place: Place


class Usage(NamedTuple):
    """Token totals over all replies, not counting rejections; ``uncounted`` replies have no count of prompt tokens."""

    attempts: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    uncounted: int = 0


def had_verdicts(path: Path) -> dict[str, bool]:
    """Return, by row key, whether any attempt in the file had a verdict, right or wrong.

    The file is only read; an unfinished last line is ignored.

    Raises:
        UserError: a line is not an attempt.
    """
    found: dict[str, bool] = {}
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                record = AttemptRecord.model_validate_json(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not a teacher's attempt.") from error
            found[record.key] = found.get(record.key, False) or record.answer is not None
    return found


class AttemptsFile:
    """The attempts on all rows, by row key; each (row, number) occurs at most once."""

    def __init__(self, path: Path) -> None:
        """Read the file, if it exists; raises UserError if a line is not an attempt or repeats one."""
        self._log = AppendLog(path, "a teacher's attempt", AttemptRecord.model_validate)
        self._attempts: dict[str, list[Attempt]] = {}
        self.usage = Usage()
        for line, place, record in self._log.entries():
            if any(attempt.number == record.attempt for attempt in self.of(record.key)):
                raise self._log.wrong(line, f"attempt {record.attempt} on row {record.id} appears twice")
            self._remember(record, place)

    def of(self, key: str) -> Sequence[Attempt]:
        """Return the attempts on a row, in order."""
        return self._attempts.get(key, ())

    def add(self, *records: AttemptRecord) -> None:
        """Append lines; they survive a kill once this returns, and a power failure after :meth:`sync`."""
        places = self._log.append([record.model_dump() for record in records])
        for record, place in zip(records, places, strict=True):
            self._remember(record, place)

    def text(self, attempt: Attempt) -> str:
        """Return the teacher's reply, verbatim."""
        return self._log.read(attempt.place)["text"]

    def sync(self) -> None:
        """Flush all lines to disk."""
        self._log.sync()

    def close(self) -> None:
        """Flush all lines to disk and close the file."""
        self._log.close()

    def _remember(self, record: AttemptRecord, place: Place) -> None:
        attempt = Attempt(record.attempt, record.swapped, record.answer, record.problem, place)
        self._attempts.setdefault(record.key, []).append(attempt)
        self._attempts[record.key].sort()
        known = self.usage
        self.usage = Usage(
            known.attempts + (record.problem != REJECTED),
            known.prompt_tokens + (record.prompt_tokens or 0),
            known.tokens + record.tokens,
            known.uncounted + (record.prompt_tokens is None),
        )
