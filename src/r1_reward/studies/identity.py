"""Which run a folder holds: an identity as JSON, and the refusal of a folder that holds another.

    require_same(folder, read_json(folder / "study.json"), identity(study), what="study")

An identity is settings and content. Files are known by their bytes, never by their names or times.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError

_ANSWERS_WITH = (
    "*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "config.json", "generation_config.json",
    "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json",
    "processor_config.json", "chat_template.*",
)  # fmt: skip
"""The files of a checkpoint that decide what it says."""


def require_same(folder: Path, stored: Any, wanted: Mapping[str, Any], *, what: str) -> None:
    """See that a folder holds the run with the identity ``wanted``; ``stored`` is the one it was begun with.

    Raises:
        UserError: it is another; the message says what differs.
    """
    if differing := differences(stored, wanted):
        raise UserError(
            f"{folder}: holds another {what} (what differs: {'; '.join(differing)}). Choose another folder with --out, "
            "or remove this one."
        )


def differences(stored: Any, wanted: Any, name: str = "") -> list[str]:
    """Return in words, as ``learning_rate 0.1, now 0.2``, where two JSON values differ."""
    wanted = json.loads(json.dumps(wanted))  # tuples become lists, as in a file
    if isinstance(stored, dict) and isinstance(wanted, dict):
        keys = list(dict.fromkeys((*stored, *wanted)))
        return [
            text
            for key in keys
            for text in differences(stored.get(key), wanted.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if stored == wanted else [f"{name} {_short(stored)}, now {_short(wanted)}"]


def _short(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:20]}..."


def pairs_digest(source: str) -> str:
    """Return a hash of the pairs in a file, a folder or a Hub dataset: every field, and the bytes of its pictures.

    All rows are read, at the speed of the disk.

    Raises:
        UserError: they cannot be read.
    """
    from r1_reward.store.pairs import load_pairs

    digest = hashlib.sha256()
    media: dict[str, str] = {}
    for row in load_pairs(source, check_images=False):
        own = [_cell_digest(cell, media) for cell in row.pop("images")]
        video = row.pop("video")
        own += [_path_digest(video, media)] if video else []
        digest.update(json.dumps([row, own], sort_keys=True).encode())
    return f"sha256:{digest.hexdigest()}"


def _cell_digest(cell: Mapping[str, Any], media: dict[str, str]) -> str:
    return hashlib.sha256(cell["bytes"]).hexdigest() if cell["bytes"] is not None else _path_digest(cell["path"], media)


def _path_digest(name: str, media: dict[str, str]) -> str:
    """Return the hash of a picture, a film or a folder of frames; ``media`` remembers those read already."""
    if name not in media:
        path = Path(name)
        media[name] = _folder_digest(path.iterdir()) if path.is_dir() else _file_digest(path)
    return media[name]


def weights_digest(checkpoint: str) -> str:
    """Return a hash of what a checkpoint answers with: its weights, configuration, tokenizer and image settings.

    Some seconds for 16 GB on a fast disk. A checkpoint of the Hub is fetched.

    Raises:
        UserError: there is no such checkpoint, or it is a folder without weights.
    """
    from r1_reward.store.hub import checkpoint_folder

    folder = checkpoint_folder(checkpoint)
    files = {path for pattern in _ANSWERS_WITH for path in folder.glob(pattern)}
    if not any(path.suffix in (".safetensors", ".bin") for path in files):
        raise UserError(f"{checkpoint}: holds no weights (*.safetensors).")
    return f"sha256:{_folder_digest(files)}"


def _folder_digest(files: Iterable[Path]) -> str:
    """Return one hash of the contents of some files, in the order of their names."""
    return hashlib.sha256("".join(_file_digest(path) for path in sorted(files)).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    return digest.hexdigest()
