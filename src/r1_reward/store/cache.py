"""The caches of the Hugging Face libraries: their location, and the error when they are not writable."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1_reward.records.errors import UserError

_REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
    errno.ENOENT, errno.ELOOP, errno.EIO, errno.ENAMETOOLONG,
)  # fmt: skip


def cache_folder(name: str) -> Path:
    """Return this package's folder of that name in the cache of `datasets`; it may not exist yet."""
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / name


@contextmanager
def writing_cache() -> Iterator[None]:
    """Turn write errors inside the block into a UserError that names the folder and says how to move it.

    Other errors propagate unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        place = error.filename or cache_folder("")
        raise UserError(
            f"{place}: cannot write to the Hugging Face cache ({error.strerror}). Set HF_HOME (or HF_DATASETS_CACHE "
            "for rows, HF_HUB_CACHE for downloads) to a writable folder with enough space."
        ) from error
