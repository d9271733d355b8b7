"""What a teacher said, one line a try, in a file that only grows and survives a kill at any moment.

A line is written the moment its reply is there, so that a killed run has lost only what was under way::

    attempts = AttemptsFile(Path("annotated/attempts.jsonl"))
    attempts.add(AttemptRecord(key=key, id="7", attempt=1, ...))
    attempts.of(key)            # the tries of that row so far, without their texts
    attempts.text(attempt)      # the text of one, read from the file

Texts stay on disk: 200,000 rows of three tries each would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer
from r1_reward.store.append_log import AppendLog, Place


class AttemptRecord(BaseModel):
    """One line: what was asked of which row, and what came back.

    ``answer`` refers to the row's stored order, as in :class:`~r1_reward.records.schema.Judgment`; None if there
    is not a verdict, and does not contradict the label either; ``problem`` then says why. With an answer,
    ``problem`` says why the text may not be trained on, empty if it may. ``prompt_tokens`` is None if the teacher did
    not count them; ``tokens`` are those it generated.
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
    """What is kept in memory of a line."""

    number: int
    swapped: bool
    answer: Answer | None
    problem: str
    place: Place


class Usage(NamedTuple):
    """Tokens of all lines: shown, generated, and how many replies came without a count of what was shown."""

    attempts: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    uncounted: int = 0


def had_verdicts(path: Path) -> dict[str, bool]:
    """Return, for the key of each row in a file of tries, whether any of them had a verdict, right or wrong.

    The file is only read: a line that is being written, or was left unfinished, is passed over.

    Raises:
        UserError: a line is none of ours.
    """
    found: dict[str, bool] = {}
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                record = AttemptRecord.model_validate_json(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: is not a teacher's try.") from error
            found[record.key] = found.get(record.key, False) or record.answer is not None
    return found


class AttemptsFile:
    """The tries of all rows, by the key of the row; each (row, number) is there at most once."""

    def __init__(self, path: Path) -> None:
        """Read what is there; raises UserError if a line is none of ours or a try is there twice."""
        self._log = AppendLog(path, "a teacher's try", AttemptRecord.model_validate)
        self._attempts: dict[str, list[Attempt]] = {}
        self.usage = Usage()
        for line, place, record in self._log.entries():
            if any(attempt.number == record.attempt for attempt in self.of(record.key)):
                raise self._log.wrong(line, f"try {record.attempt} of row {record.id} is there twice")
            self._remember(record, place)

    def of(self, key: str) -> Sequence[Attempt]:
        """Return the tries of a row, in the order they were made."""
        return self._attempts.get(key, ())

    def add(self, *records: AttemptRecord) -> None:
        """Write lines; they survive a kill when this returns, and a power cut after :meth:`sync`."""
        places = self._log.append([record.model_dump() for record in records])
        for record, place in zip(records, places, strict=True):
            self._remember(record, place)

    def text(self, attempt: Attempt) -> str:
        """Return what the teacher said, to the letter."""
        return self._log.read(attempt.place)["text"]

    def sync(self) -> None:
        """Bring all lines to the disk."""
        self._log.sync()

    def close(self) -> None:
        """Bring all lines to the disk and close the file."""
        self._log.close()

    def _remember(self, record: AttemptRecord, place: Place) -> None:
        attempt = Attempt(record.attempt, record.swapped, record.answer, record.problem, place)
        self._attempts.setdefault(record.key, []).append(attempt)
        self._attempts[record.key].sort()
        known = self.usage
        self.usage = Usage(
            known.attempts + 1,
            known.prompt_tokens + (record.prompt_tokens or 0),
            known.tokens + record.tokens,
            known.uncounted + (record.prompt_tokens is None),
        )
