"""JSONL files of records that are only ever added, and that survive a kill at any moment.

:class:`AppendLog` has one writer. A line is in the system's hands when ``append`` returns and on the disk after
``sync``; a last line that a kill left unfinished is cut off when the file is opened again::

    log = AppendLog(Path("attempts.jsonl"), "a teacher's try")
    known = {entry.value["key"]: entry.place for entry in log.entries()}   # repairs the file, too
    (place,) = log.append([{"key": "7", "text": "..."}])
    log.read(place)                                                        # {"key": "7", ...}, from the disk

:class:`SharedLog` has any number of writers, in any number of processes, and never changes what is there::

    log = SharedLog(Path("verdicts.jsonl"))
    log.put({"key": "7", "verdict": 1})
    for value in log.added():                                              # what anyone put since the last time
        ...
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.records.errors import UserError


class Place(NamedTuple):
    """Where a line is, in bytes."""

    offset: int
    length: int


class Entry(NamedTuple):
    """One line of a log."""

    line: int
    """From 1."""
    place: Place
    value: Any


class AppendLog:
    """A JSONL file with one writer; ``what`` names a line in messages, such as "a prediction".

    ``parse`` turns the JSON value of a line into what :meth:`entries` gives; it raises ValueError, KeyError or
    TypeError for a line that is not one.
    """

    def __init__(self, path: Path, what: str, parse: Callable[[Any], Any] = lambda value: value) -> None:
        self.path, self.what, self._parse = path, what, parse
        self._file: Any = None
        self._dirty = False

    def entries(self) -> Iterator[Entry]:
        """Yield every whole line, then cut off a last line that a kill left unfinished.

        Raises:
            UserError: a line is not what it should be.
        """
        if not self.path.exists():
            return
        whole = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    value = self._parse(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise self.wrong(number, f"is not {self.what}; remove the line to go on") from error
                yield Entry(number, Place(whole, len(line)), value)
                whole += len(line)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def wrong(self, line: int, reason: str) -> UserError:
        """Return the error that says what is wrong with a line, such as that it is there twice."""
        return UserError(f"{self.path}, line {line}: {reason}.")

    def append(self, values: Sequence[Any]) -> list[Place]:
        """Hand lines to the system, where a kill of this process does not reach them; return their places."""
        if self._file is None:
            self._file = open(self.path, "ab")  # noqa: SIM115
        # ASCII escapes: no text breaks a line, and lone surrogates survive.
        lines = [json.dumps(value).encode("ascii") + b"\n" for value in values]
        places, offset = [], self._file.seek(0, os.SEEK_END)
        for line in lines:
            places.append(Place(offset, len(line)))
            offset += len(line)
        self._file.write(b"".join(lines))
        self._file.flush()
        self._dirty = True
        return places

    def sync(self) -> None:
        """Bring all lines to the disk, where a power cut does not reach them either."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close; lines can be added again."""
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None

    def read(self, place: Place) -> Any:
        """Return the JSON value of one line."""
        with open(self.path, "rb") as file:
            file.seek(place.offset)
            return json.loads(file.read(place.length))


class SharedLog:
    """A JSONL file with many writers.

    Each value is one write with a line break on both sides: what a killed process leaves of a line spoils no other.
    Lines that are not JSON are passed over; the values are for the caller to check.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def added(self) -> Iterator[Any]:
        """Yield the values added since the last time, by this process or another; raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            added = file.read()
        added = added[: added.rfind(b"\n") + 1]  # a line under way is read the next time
        self._read += len(added)
        for line in added.splitlines():
            with suppress(ValueError):  # half a line, or an empty one
                yield json.loads(line)

    def put(self, value: Any) -> None:
        """Add a value; raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)  # should somebody have removed it meanwhile
        with self.path.open("ab", buffering=0) as file:
            file.write(f"\n{json.dumps(value)}\n".encode())
