"""Append-only JSONL files that survive a kill at any moment.

:class:`AppendLog` has one writer. A line has reached the operating system when ``append`` returns, and the disk after
``sync``; an incomplete last line left by a kill is truncated when the file is read again::

    log = AppendLog(Path("attempts.jsonl"), "a teacher's try")
    known = {entry.value["key"]: entry.place for entry in log.entries()}   # also repairs the file
    (place,) = log.append([{"key": "7", "text": "..."}])
    log.read(place)                                                        # {"key": "7", ...}, from the disk

:class:`SharedLog` has any number of writers, in any number of processes, and never changes existing lines::

    log = SharedLog(Path("verdicts.jsonl"))
    log.put({"key": "7", "verdict": 1})
    for value in log.added():                                              # new values of any process since last time
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
    """The position of a line, in bytes."""

    offset: int
    length: int


class Entry(NamedTuple):
    """One line of a log."""

    line: int
    """From 1."""
    place: Place
    value: Any


class AppendLog:
    """A JSONL file with one writer; error messages call a line ``what``, such as "a prediction".

    ``parse`` converts the JSON value of a line for :meth:`entries`; it raises ValueError, KeyError or TypeError for an
    invalid line.
    """

    def __init__(self, path: Path, what: str, parse: Callable[[Any], Any] = lambda value: value) -> None:
        self.path, self.what, self._parse = path, what, parse
        self._file: Any = None
        self._dirty = False

    def entries(self) -> Iterator[Entry]:
        """Yield every complete line, then truncate an incomplete last line that a kill left.

        Raises:
            UserError: If a line is invalid.
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
                    raise self.wrong(number, f"is not {self.what}; delete the line to continue") from error
                yield Entry(number, Place(whole, len(line)), value)
                whole += len(line)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def wrong(self, line: int, reason: str) -> UserError:
        """Return the error for an invalid line, such as a duplicate."""
        return UserError(f"{self.path}, line {line}: {reason}.")

    def append(self, values: Sequence[Any]) -> list[Place]:
        """Write lines to the operating system, where they survive a kill of this process; return their places."""
        if self._file is None:
            self._file = open(self.path, "ab")  # noqa: SIM115
        # ASCII escapes: no text contains a line break, and lone surrogates survive.
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
        """Flush all lines to the disk, where they also survive a power failure."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close; the next append reopens the file."""
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

    Each value is a single write with a line break on both sides, so that half a line from a killed process damages no
    other. Lines that are not JSON are skipped; the caller checks the values.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def added(self) -> Iterator[Any]:
        """Yield the values added since the last call, by this process or another; raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            added = file.read()
        added = added[: added.rfind(b"\n") + 1]  # an incomplete line is read next time
        self._read += len(added)
        for line in added.splitlines():
            with suppress(ValueError):  # half a line, or an empty one
                yield json.loads(line)

    def put(self, value: Any) -> None:
        """Add a value; raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)  # it may have been deleted meanwhile
        with self.path.open("ab", buffering=0) as file:
            file.write(f"\n{json.dumps(value)}\n".encode())
