"""Digests of files' contents; names and times do not matter.

Files are read in full, so every changed byte is noticed. A digest is the SHA-256 of the SHA-256 of each 64 MiB piece;
pieces are hashed in parallel, one thread per core. On two busy cores, 4 GiB took 3.2 seconds from the page cache and
4.5 from disk: 12 and 17 for 16 GB; more cores are faster, up to the speed of the disk
(``benchmarks/bench_identity.py``). A known file takes less than a millisecond: digests of files of 32 MiB and more are
cached in ``~/.cache/r1-reward/digests.jsonl`` (or under ``XDG_CACHE_HOME``), by path, size, inode, mtime and ctime. No
copying tool can set ctime, so a file replaced under its old mtime is read again. On a file system without ctime (some
network mounts), a file overwritten in place with the same size and a restored mtime would go unnoticed; delete the
cache to have all files read again, which is safe at any time::

    file_digest("model.safetensors")        # 64 hex digits
"""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from r1_reward.records.errors import UserError
from r1_reward.store.append_log import SharedLog

_PIECE = 64 << 20
_BUFFER = 4 << 20
_REMEMBERED = 32 << 20  # smaller files are fast enough to read again
_SETTLED = 2.0  # seconds after a change before a file system's timestamps reliably show the next one


def file_digest(path: str | Path) -> str:
    """Return the digest of a file's bytes in hex: the SHA-256 of the SHA-256 of its 64 MiB pieces.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        before = os.stat(path)
        if before.st_size < _REMEMBERED:
            return _read_digest(str(path))
        memory = _Memory.of_user()
        key = _stamp(path, before)
        if (known := memory.get(key)) is not None:
            return known
        started = time.time()
        digest = _read_digest(str(path))
        # A file just written may be written again within one tick of the file system's clock.
        if _stamp(path, os.stat(path)) == key and started - before.st_ctime > _SETTLED:
            memory.put(key, digest)
        return digest
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _stamp(path: str | Path, stat: os.stat_result) -> str:
    return f"{os.path.realpath(path)}:{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def _read_digest(path: str) -> str:
    size = os.stat(path).st_size
    starts = range(0, max(size, 1), _PIECE)
    if len(starts) == 1:
        pieces = [_piece_digest(path, 0)]
    else:
        with ThreadPoolExecutor(threads()) as pool:
            pieces = list(pool.map(lambda start: _piece_digest(path, start), starts))
    return hashlib.sha256(b"".join(pieces)).hexdigest()


def _piece_digest(path: str, start: int) -> bytes:
    digest, left, buffer = hashlib.sha256(), _PIECE, memoryview(bytearray(_BUFFER))
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while left and (read := file.readinto(buffer[: min(left, _BUFFER)])):
            digest.update(buffer[:read])
            left -= read
    return digest.digest()


def threads() -> int:
    """Return the number of threads that read files in parallel."""
    return min(16, os.cpu_count() or 1)


class _Memory:
    """Digests of large files already read, shared by all processes of a user through a file."""

    _of: dict[Path, _Memory] = {}

    def __init__(self, path: Path) -> None:
        self._log, self._digests = SharedLog(path), dict[str, str]()

    @classmethod
    def of_user(cls) -> _Memory:
        """Return the memory of the current user."""
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        path = Path(home, "r1-reward", "digests.jsonl")
        return cls._of.setdefault(path, cls(path))

    def get(self, key: str) -> str | None:
        if key not in self._digests:
            with suppress(OSError):  # no file yet, or no writable home
                for entry in self._log.added():
                    if isinstance(entry, dict) and isinstance(entry.get("digest"), str):
                        self._digests[str(entry.get("file"))] = entry["digest"]
        return self._digests.get(key)

    def put(self, key: str, digest: str) -> None:
        self._digests[key] = digest
        with suppress(OSError):  # no writable home: every run reads the files again
            self._log.put({"file": key, "digest": digest})
