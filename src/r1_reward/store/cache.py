"""The caches of Hugging Face's libraries: where they are, and what to say when they cannot be written."""

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
    """Return where this package keeps things of a kind in the cache of `datasets`; it need not be there."""
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / name


@contextmanager
def writing_cache() -> Iterator[None]:
    """Turn the system's refusal to write inside the block into a UserError that says which folder and how to move it.

    Other errors pass as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        place = error.filename or cache_folder("")
        raise UserError(
            f"{place}: the cache of Hugging Face's libraries cannot be written there ({error.strerror}). Set HF_HOME "
            "(or HF_DATASETS_CACHE for rows, HF_HUB_CACHE for downloads) to a folder with room that you may write to."
        ) from error
