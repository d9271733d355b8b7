"""The file a run adds its lines to: survives a kill at any moment, and ends up sorted by row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError


class PredictionFile:
    """One JSON object a line, one line a row of the benchmark, with at least ``index`` and ``key``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def repair(self) -> dict[int, str]:
        """Cut off a line that a crash left half written; return index -> key of the rows that are there.

        Raises:
            UserError: a line other than the last is broken, or a row is there twice.
        """
        done: dict[int, str] = {}
        whole = 0
        if not self.path.exists():
            return done
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                row = self._parse(number, line)
                if row["index"] in done:
                    raise UserError(f"{self.path}, line {number}: row {row['index']} is there twice.")
                done[row["index"]] = row["key"]
                whole += len(line)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)
        return done

    def _parse(self, number: int, line: bytes) -> Mapping[str, Any]:
        try:
            row = json.loads(line)
            if isinstance(row["index"], int) and isinstance(row["key"], str):
                return row
        except (ValueError, KeyError, TypeError):
            pass
        raise UserError(f"{self.path}, line {number}: is not a prediction; remove the line and it is judged again.")

    @contextmanager
    def appending(self) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
        """Give a function that adds lines, which are on disk when it returns."""
        with open(self.path, "ab") as file:

            def append(rows: Sequence[Mapping[str, Any]]) -> None:
                file.write(b"".join(_line(row) for row in rows))
                file.flush()
                os.fsync(file.fileno())

            yield append

    def sort(self) -> None:
        """Put the lines into the order of the rows, if rows that failed at first were added later."""
        places = []
        with open(self.path, "rb") as file:
            offset = 0
            for line in file:
                places.append((json.loads(line)["index"], offset, len(line)))
                offset += len(line)
            if places == sorted(places):
                return
            part = self.path.with_suffix(".part")
            with open(part, "wb") as sorted_file:
                for _, offset, length in sorted(places):
                    file.seek(offset)
                    sorted_file.write(file.read(length))
        os.replace(part, self.path)


def _line(row: Mapping[str, Any]) -> bytes:
    # Lone surrogates cannot be UTF-8; as escapes they survive. ensure_ascii keeps every text in one line, too.
    return json.dumps(row).encode("ascii") + b"\n"
