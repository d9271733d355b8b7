"""Read training pairs on every process, and let one process check their pictures once.

Decoding every picture and video takes minutes on large sets. The main process does it for all and stores the result in
the cache of ``datasets``, keyed by the content of the pictures, so neither a resumed run nor another run on the same
pictures decodes them again::

    pairs = checked_pairs("pairs.jsonl", split="train", video_frames=8, check_images=True)
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from r1_reward.records.content import places_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS
from r1_reward.store.cache import cache_folder
from r1_reward.store.images import ImageError
from r1_reward.store.pairs import load_pairs
from r1_reward.store.video import find_video
from r1_reward.train.processes import once

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
_BLOCK = 1 << 20


def checked_pairs(name: str, *, split: str, video_frames: int, check_images: bool) -> Dataset:
    """Load pairs with `load_pairs`; every process must call this.

    Raises:
        UserError: As for `load_pairs`, on every process.
    """
    if check_images:
        once(lambda: _check_pictures(name, split, video_frames))
    return load_pairs(name, split=split, check_images=False, video_frames=video_frames)


def fingerprint(pairs: Dataset, video_frames: int) -> str:
    """Return a SHA-256 hex digest of the bytes of all pictures and videos, the frame count and this release.

    It includes pictures and videos inside questions and responses.
    """
    seen: dict[str, bytes] = {}
    total = hashlib.sha256(f"{version('r1-reward')} {video_frames}\n".encode())
    for row in pairs.select_columns(["images", "video", *CONTENTS]):
        for digest in _digests(row, seen):
            total.update(digest)
    return total.hexdigest()


def _check_pictures(name: str, split: str, video_frames: int) -> None:
    pairs = load_pairs(name, split=split, check_images=False, video_frames=video_frames)
    known = cache_folder("r1-reward-checked-pictures") / fingerprint(pairs, video_frames)
    if known.exists():
        return
    pairs = load_pairs(name, split=split, check_images=True, video_frames=video_frames)
    if fingerprint(pairs, video_frames) != known.name:
        raise UserError(f"{name}: changed while its pictures were checked. Start again.")
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()
    except OSError as error:
        logger.warning("Cannot write %s (%s): the pictures will be checked again next time.", known, error)


def _digests(row: Mapping[str, Any], seen: dict[str, bytes]) -> Iterator[bytes]:
    """Yield a digest of each picture and video of a row; ``seen`` caches the digests of files."""
    places = [place for name in CONTENTS for place in places_of(row[name])]
    films = [row["video"], *(place.source for place in places if place.kind == "video")]
    for cell in (*row["images"], *(place.source for place in places if place.kind == "image")):
        yield _of_picture(cell, seen)
    for video in films:
        if video is None:
            continue
        try:
            files = [str(file) for file in find_video(video)] or [video]
        except ImageError:
            files = [video]  # the check reports what is wrong with it
        for file in files:
            yield _of_file(file, seen)


def _of_picture(cell: Any, seen: dict[str, bytes]) -> bytes:
    source = cell
    if isinstance(cell, Mapping):
        source = cell["path"] if cell.get("bytes") is None else cell["bytes"]
    if isinstance(source, bytes):
        return hashlib.sha256(source).digest()
    return b"" if source is None else _of_file(str(source), seen)  # None refers to one of the row's images


def _of_file(path: str, seen: dict[str, bytes]) -> bytes:
    if path not in seen:
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError:
            digest = hashlib.sha256(b"cannot be read")  # reported by the check; a failed check is not cached
        seen[path] = digest.digest()
    return seen[path]
