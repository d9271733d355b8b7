"""A cache of a referee's verdicts: one line per verdict, in a file that survives kills and serves many processes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from r1_reward.records.errors import UserError
from r1_reward.store.append_log import SharedLog

_START = b'\n{"key": '  # of every line, and so of every cache


class VerdictCache:
    """Verdicts by the hash of the request, in memory and, with a path, in an append-only file.

    Processes that share the file see each other's verdicts at the next ``refresh``.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or create the file; raise UserError if it cannot be written or is not a cache."""
        self._verdicts: dict[str, float] = {}
        self._log = None if path is None else SharedLog(path)
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
            raise UserError(f"{path}: not a referee's cache; choose another file, or remove this one")
        self.refresh()

    def refresh(self) -> None:
        """Read the verdicts that this or another process has added; raise UserError if the file cannot be read."""
        if self._log is None:
            return
        try:
            for record in self._log.added():
                with suppress(TypeError, KeyError):  # not a verdict: skipping it costs one request
                    if record["verdict"] in (0, 1):
                        self._verdicts[str(record["key"])] = float(record["verdict"])
        except OSError as error:
            raise UserError(f"{self._log.path}: the referee's cache cannot be read ({error.strerror})") from error

    def get(self, key: str) -> float | None:
        """Return the cached verdict, None if there is none."""
        return self._verdicts.get(key)

    def put(self, key: str, verdict: float) -> None:
        """Add a verdict, 0.0 or 1.0; raise UserError if the file cannot be written."""
        self._verdicts[key] = verdict
        if self._log is None:
            return
        try:
            self._log.put({"key": key, "verdict": int(verdict)})
        except OSError as error:
            raise UserError(f"{self._log.path}: the referee's cache cannot be written ({error.strerror})") from error
