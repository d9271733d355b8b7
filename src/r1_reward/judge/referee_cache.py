"""What a referee has said before: one line per verdict, in a file that outlives kills and serves many processes."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from r1_reward.records.errors import UserError

_START = b'\n{"key": '  # of every line, hence of every cache


class VerdictCache:
    """Verdicts by the hash of what was asked, in memory and, with a path, in a JSONL file that only ever grows.

    One write per verdict and a line break on both sides: what a killed process leaves of a line spoils no other, and
    processes that share the file see each other's lines at the next ``refresh``.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or make the file; raises UserError if it cannot be written or holds something else."""
        self._verdicts: dict[str, float] = {}
        self._path = path
        self._read = 0
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:
                file.seek(0)
                start = file.read(len(_START))
        except OSError as error:
            raise UserError(f"{path}: cannot be used as the referee's cache ({error.strerror})") from error
        if not _START.startswith(start):
            raise UserError(f"{path}: is no cache of a referee; name another file, or remove this one")
        self.refresh()

    def refresh(self) -> None:
        """Read the lines added since the last time, by this process or another; raises UserError."""
        if self._path is None:
            return
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
        except OSError as error:
            raise UserError(f"{self._path}: the referee's cache cannot be read ({error.strerror})") from error
        added = added[: added.rfind(b"\n") + 1]  # a line under way is read the next time
        self._read += len(added)
        for line in added.splitlines():
            with suppress(ValueError, TypeError, KeyError):  # half a line costs one request
                record = json.loads(line)
                if record["verdict"] in (0, 1):
                    self._verdicts[str(record["key"])] = float(record["verdict"])

    def get(self, key: str) -> float | None:
        """Return the verdict, None if there is none."""
        return self._verdicts.get(key)

    def put(self, key: str, verdict: float) -> None:
        """Remember a verdict, 0.0 or 1.0; raises UserError if the file does not take it."""
        self._verdicts[key] = verdict
        if self._path is None:
            return
        line = f"\n{json.dumps({'key': key, 'verdict': int(verdict)})}\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)  # should somebody have removed it during the run
            with self._path.open("ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as error:
            raise UserError(f"{self._path}: the referee's cache cannot be written ({error.strerror})") from error
