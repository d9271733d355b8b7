"""What a teacher said, one line a try, in a file that only grows and survives a kill at any moment.

A line is written the moment its reply is there, so that a killed run has lost only what was under way::

    attempts = AttemptsFile(Path("annotated/attempts.jsonl"))
    attempts.add(AttemptRecord(key=key, id="7", attempt=1, ...))
    attempts.of(key)            # the tries of that row so far, without their texts
    attempts.text(attempt)      # the text of one, read from the file

Texts stay on disk: 200,000 rows of three tries each would not fit into memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer


class AppendLog:
    """A JSONL file of records that are only ever added, each line whole or, if it is the last, cut off again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        self._dirty = False

    def repair(self) -> Iterator[tuple[int, int, Any]]:
        """Yield offset, length and value of every whole line, then cut off a last line that a kill left unfinished.

        Raises:
            UserError: a line is not JSON.
        """
        if not self.path.exists():
            return
        whole = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise UserError(f"{self.path}, line {number}: is not JSON; remove the line to go on.") from error
                yield whole, len(line), value
                whole += len(line)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def append(self, values: Sequence[Any]) -> list[tuple[int, int]]:
        """Hand lines to the system, where a kill of this process does not reach them; return their (offset, length)."""
        if self._file is None:
            self._file = open(self.path, "ab")  # noqa: SIM115
        # ASCII escapes: no text breaks a line, and lone surrogates survive.
        lines = [json.dumps(value).encode("ascii") + b"\n" for value in values]
        places, offset = [], self._file.seek(0, os.SEEK_END)
        for line in lines:
            places.append((offset, len(line)))
            offset += len(line)
        self._file.write(b"".join(lines))
        self._file.flush()
        self._dirty = True
        return places

    def sync(self) -> None:
        """See to it that a power cut does not reach them either."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close; lines can be added again."""
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None

    def read(self, offset: int, length: int) -> Any:
        """Return the value of one line."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            return json.loads(file.read(length))


class AttemptRecord(BaseModel):
    """One line: what was asked of which row, and what came back.

    ``answer`` refers to the row's stored order, as in :class:`~r1_reward.records.schema.Judgment`; None if there
    is no verdict, and ``problem`` then says why. With an answer, ``problem`` says why the text may not be trained on,
    empty if it may. ``prompt_tokens`` is None if the teacher did not count them; ``tokens`` are those it generated.
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
    place: tuple[int, int]


class Usage(NamedTuple):
    """Tokens of all lines: shown, generated, and how many replies came without a count of what was shown."""

    attempts: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    uncounted: int = 0


class AttemptsFile:
    """The tries of all rows, by the key of the row; each (row, number) is there at most once."""

    def __init__(self, path: Path) -> None:
        """Read what is there; raises UserError if a line is none of ours or a try is there twice."""
        self._log = AppendLog(path)
        self._attempts: dict[str, list[Attempt]] = {}
        self.usage = Usage()
        for number, (offset, length, value) in enumerate(self._log.repair(), 1):
            try:
                record = AttemptRecord.model_validate(value)
            except ValidationError as error:
                raise UserError(f"{path}, line {number}: is not a teacher's try; remove the line to go on.") from error
            if any(attempt.number == record.attempt for attempt in self.of(record.key)):
                raise UserError(f"{path}, line {number}: try {record.attempt} of row {record.id} is there twice.")
            self._remember(record, (offset, length))

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
        return self._log.read(*attempt.place)["text"]

    def sync(self) -> None:
        """Bring all lines to the disk."""
        self._log.sync()

    def close(self) -> None:
        """Bring all lines to the disk and close the file."""
        self._log.close()

    def _remember(self, record: AttemptRecord, place: tuple[int, int]) -> None:
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
