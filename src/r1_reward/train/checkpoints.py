"""Atomic checkpoints, and the search for the newest one that a run can resume from.

A checkpoint is written to ``output_dir/_saving``, sealed with a list of its files, and only then renamed: a save that
is killed, or fails on a full disk, leaves no ``checkpoint-N`` behind. Before a run resumes from one, every file in it
is read, because names and sizes alone do not reveal damage::

    with saving("checkpoint-8", output_dir):
        ...                                      # write to output_dir/_saving/checkpoint-8
        publish(staged, output_dir / "checkpoint-8")
    keep_newest(output_dir, 2)
    path = checkpoint_to_resume(output_dir)
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError
from r1_reward.store.files import write_json

logger = logging.getLogger(__name__)

STAGING = "_saving"
"""Folder in which checkpoints are assembled and old ones deleted; its content may be deleted at any time."""
SEAL = "complete.json"
"""List of a checkpoint's files; written last."""
_MODEL_ONLY = "saved with save_only_model; start from it with --model {checkpoint}"
_CHUNK = 1 << 24


def checkpoints(folder: Path) -> list[Path]:
    """Return the ``checkpoint-N`` folders, newest last, whether intact or not."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=_step)


def checkpoint_to_resume(folder: Path) -> Path | None:
    """Return the newest checkpoint that can be resumed, or None if there are no checkpoints; warn about the others.

    Raises:
        UserError: None of the checkpoints can be resumed.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(folder)):
        problem = damage(path) or (None if _has_optimizer(path) else _MODEL_ONLY.format(checkpoint=path))
        if problem is None:
            if damaged:
                logger.warning("%s; resuming from %s, the newest intact checkpoint.", "; ".join(damaged), path.name)
            return path
        damaged.append(f"{path.name} cannot be used ({problem})")
    if damaged:
        good = " or with --model " + str(folder / "last-good") if (folder / "last-good").is_dir() else ""
        raise UserError(
            f"{folder}: no checkpoint can be resumed: {'; '.join(damaged)}. Restore an intact one, or start again "
            f"in another --output_dir{good}."
        )
    return None


def damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None if all of its files exist and can be read."""
    try:
        entries = _sealed(checkpoint)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{SEAL} is damaged"
    try:
        return _differs(checkpoint, entries) or _unreadable(checkpoint, entries) or _missing(checkpoint)
    except OSError as error:
        return f"{Path(str(error.filename or checkpoint)).name}: {error.strerror}"


def publish(staged: Path, final: Path) -> None:
    """Seal a checkpoint and move it to its final name, replacing an existing one."""
    seal(staged)
    if final.exists():
        final.replace(staged.with_name(f"replaced-{final.name}"))
    staged.replace(final)
    _sync(final.parent)


def seal(checkpoint: Path) -> None:
    """Write the list of a checkpoint's files into it, after flushing all of them to disk."""
    entries = {}
    for path in _files(checkpoint):
        entry: dict[str, int] = {"bytes": path.stat().st_size}
        if path.suffix == ".safetensors":  # the only format here without a checksum
            entry["crc32"] = _checksum(path)
        entries[path.relative_to(checkpoint).as_posix()] = entry
        _sync(path)
    write_json(checkpoint / SEAL, {"files": entries})
    _sync(checkpoint / SEAL)
    _sync(checkpoint)


def keep_newest(folder: Path, limit: int | None) -> None:
    """Delete all but the newest ``limit`` complete checkpoints; incomplete ones are neither counted nor touched."""
    if limit is None or limit < 1:
        return
    whole = [path for path in checkpoints(folder) if _is_complete(path)]
    for path in whole[:-limit]:
        (folder / STAGING).mkdir(exist_ok=True)
        # A half-deleted checkpoint would look damaged.
        path.replace(folder / STAGING / f"old-{path.name}")
    clear_staging(folder)


def clear_staging(folder: Path) -> None:
    """Delete unfinished saves."""
    shutil.rmtree(folder / STAGING, ignore_errors=True)


@contextmanager
def saving(what: str, folder: Path) -> Iterator[None]:
    """Turn a failure to write ``what`` to ``folder`` into an error that says what is left and what to do.

    Raises:
        UserError: Replaces OSError, SafetensorError and RuntimeError (which torch.save raises on a full disk).
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "inline_container" in reason:  # a C++ assertion about positions, which does not mention the full disk
            reason = "a file could not be written completely"
        raise UserError(f"cannot save {what} in {folder}: {reason}{_room(folder)}. {_advice(folder)}") from error


def _advice(folder: Path) -> str:
    left = [path.name for path in checkpoints(folder) if _is_complete(path) and _has_optimizer(path)]
    if not left:
        return "There is no checkpoint to resume yet: fix the folder and start again."
    return f"Older checkpoints are intact: fix the folder, then --resume continues from {left[-1]}."


def _room(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 1e6:,.1f} MB free)"
    except OSError:
        return ""


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder) != Path(SEAL))


def _sealed(checkpoint: Path) -> dict[str, dict[str, int]]:
    """Return the listed files; empty for a checkpoint written by plain transformers, which has no list."""
    if not (checkpoint / SEAL).is_file():
        return {}
    entries = _read_json(checkpoint / SEAL)["files"]
    return {str(name): {str(key): int(value) for key, value in entry.items()} for name, entry in entries.items()}


def _is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint has all listed files, without reading them."""
    try:
        entries = _sealed(checkpoint)
        return bool(entries) and _differs(checkpoint, entries) is None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _differs(checkpoint: Path, entries: dict[str, dict[str, int]]) -> str | None:
    """Compare names and sizes with the list."""
    for name, entry in entries.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {entry['bytes']}"
    return None


def _unreadable(checkpoint: Path, entries: dict[str, dict[str, int]]) -> str | None:
    """Read every file in the format its name implies, and verify known checksums."""
    for path in _files(checkpoint):
        name = path.relative_to(checkpoint).as_posix()
        problem = _READERS[path.suffix](path) if path.suffix in _READERS else None
        expected = entries.get(name, {}).get("crc32")
        if problem is None and expected is not None and _checksum(path) != expected:
            problem = "is damaged (checksum)"
        if problem is not None:
            return f"{name} {problem}"
    return None


def _missing(checkpoint: Path) -> str | None:
    state = checkpoint / "trainer_state.json"
    if not state.is_file():
        return f"{state.name} is missing"
    if _read_json(state).get("global_step") != _step(checkpoint):
        return f"{state.name} does not belong to step {_step(checkpoint)}"
    names = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*")}
    for index in checkpoint.glob("*.index.json"):
        for shard in sorted(set(_read_json(index).get("weight_map", {}).values())):
            if shard not in names:
                return f"{shard} is missing"
    if not any(re.match(r".*model.*\.(safetensors|bin)$|pytorch_model|global_step", name) for name in names):
        return "the weights are missing"
    sealed = (checkpoint / SEAL).is_file()  # then a missing optimizer is not damage: save_only_model
    return None if sealed or _has_optimizer(checkpoint) else "optimizer.pt is missing"


def _has_optimizer(checkpoint: Path) -> bool:
    """Return whether a checkpoint has the state of the optimizer, without which a run would restart its schedule."""
    return any(re.match(r"optimizer|global_step", path.name) for path in checkpoint.iterdir())


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _json_problem(path: Path) -> str | None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return "is not valid JSON"
    return None


def _safetensors_problem(path: Path) -> str | None:
    """Compare the size with the header: its length in 8 bytes, the offsets of all tensors as JSON, then the tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            return "is truncated"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "has a damaged header"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"has {size} bytes instead of {expected}"


def _zip_problem(path: Path) -> str | None:
    """Verify the checksums of all parts: torch.save writes zip files, and torch.load does not check them."""
    try:
        with zipfile.ZipFile(path) as archive:
            return None if archive.testzip() is None else "is damaged (checksum)"
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, zlib.error):
        return "is truncated or damaged"


_READERS = {
    ".json": _json_problem,
    ".safetensors": _safetensors_problem,
    ".pt": _zip_problem,
    ".pth": _zip_problem,
    ".bin": _zip_problem,
}


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total = zlib.crc32(chunk, total)
    return total


def _sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
