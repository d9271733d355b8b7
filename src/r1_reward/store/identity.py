"""The identity of a run's inputs: digests of its data, media and weights.

Names do not identify content: a checkpoint is trained again under its old path, an image is replaced, a Hub repository
changes. Run folders (:mod:`r1_reward.store.run_folder`) therefore record digests::

    weights_identity("runs/rl")                 # "sha256:3fd1..." of weights, configuration, tokenizer and template
    weights_identity("Qwen/Qwen2.5-VL-7B-Instruct")     # "Qwen/Qwen2.5-VL-7B-Instruct@cc594898..." (the Hub's commit)
    data_identity("pairs.jsonl")                # "sha256:..." of the file and of every image and video it names
    media_digest(["images/7.png"])              # "9b1c..." of the files' bytes, in this order

Files are read in full; :mod:`r1_reward.store.digests` says what that costs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

from r1_reward.records.content import Place
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS
from r1_reward.store.adapters import ADAPTER_CONFIG, adapted_model, is_adapters
from r1_reward.store.digests import file_digest, threads
from r1_reward.store.files import read_json
from r1_reward.store.hub import checkpoint_file, is_hub_id
from r1_reward.store.part_columns import media_at
from r1_reward.store.rows import hub_dataset, line_rows, may_be_hub_id, parquet_rows
from r1_reward.store.shards import pair_files
from r1_reward.store.video import find_video

SERVED = "Weights: a server reports only the model's name, so a change of its weights goes unnoticed."

_BUILT_IN = {"tiny": "tiny: random weights of seed 0"}
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
_BESIDE_WEIGHTS = (
    "config.json", "generation_config.json", ADAPTER_CONFIG, "scalar.json", "*processor_config.json", "tokenizer*",
    "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "chat_template*", "*.jinja",
    "*.py",
)  # fmt: skip
_NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin")

_CONTENTS = (*CONTENTS, "responses")
_NAMES = [
    "images.path", "images.element", "images.item", "video",
    *(f"{name}.{part}" for name in _CONTENTS for part in ("type", "text", "image", "path", "video")),
]  # fmt: skip
"""The columns of a parquet file that name images and videos without embedding them."""

_MISSING = "missing"
_AT_ONCE = 256  # files passed to the threads at once


def weights_fields(model: str | Path, *, served: bool = False) -> dict[str, Any]:
    """Return the fields of a ``run.json`` that identify the weights, which are null behind a server."""
    if served:
        return {"weights": None, "notes": [SERVED]}
    return {"weights": weights_identity(model)}


def weights_identity(model: str | Path) -> str:
    """Return the identity of a local model: its weights and everything else that decides its output.

    For a folder, this is a digest of its weights, configuration, tokenizer, processor, chat template, adapters and
    scalar head; other files that training writes do not count. For a Hub id, it is the commit. The identity of LoRA
    adapters includes that of their base model. ``tiny`` is identified by its definition.

    Raises:
        UserError: If the checkpoint does not exist, or one of its files cannot be read.
    """
    return _weights_identity(str(model), ())


def _weights_identity(model: str, on_the_way: tuple[str, ...]) -> str:
    if model in _BUILT_IN:
        return _BUILT_IN[model]
    if model in on_the_way:
        raise UserError(f"{model}: these adapters are their own base model ({' -> '.join((*on_the_way, model))}).")
    own = folder_identity(Path(model)) if Path(model).is_dir() else _commit(model)
    base = _base_model(model)
    return own if base is None else f"{own} on {_weights_identity(base, (*on_the_way, model))}"


def _base_model(model: str) -> str | None:
    """Return the base model of a checkpoint of adapters; None for a full checkpoint."""
    scalar = checkpoint_file(model, "scalar.json")
    if scalar is not None and checkpoint_file(model, ADAPTER_CONFIG) is not None:
        manifest = read_json(scalar)
        base = manifest.get("base_model") if isinstance(manifest, dict) else None
        return base if isinstance(base, str) else adapted_model(model)
    return adapted_model(model) if is_adapters(model) else None


def folder_identity(folder: Path) -> str:
    """Return the identity of a local checkpoint, see :func:`weights_identity`; of adapters without their base model."""
    files = [*folder.iterdir(), *folder.glob("additional_chat_templates/*.jinja")]
    names = sorted(path.relative_to(folder).as_posix() for path in files if path.is_file())
    weights = {name for name in names if _is_any(name, _WEIGHTS) and name not in _NOT_WEIGHTS}
    if not weights or not {"config.json", ADAPTER_CONFIG}.intersection(names):
        missing = "its weights are" if "config.json" in names else "config.json is"
        raise UserError(f"{folder}: not a checkpoint ({missing} missing).")
    digest = hashlib.sha256()
    for name in names:
        if name in weights or _is_any(name, _BESIDE_WEIGHTS):
            digest.update(f"{name}\0{file_digest(folder / name)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _is_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _commit(model: str) -> str:
    """Return a Hub id with its cached commit, after checking the Hub for a newer one."""
    file = checkpoint_file(model, "config.json") or checkpoint_file(model, ADAPTER_CONFIG)
    if not is_hub_id(model) or file is None:
        raise UserError(f"{model}: no such checkpoint, locally or on the Hub.")
    commit = next((part.name for part in file.parents if part.parent.name == "snapshots"), None)
    if commit is None:
        raise UserError(f"{model}: the Hub's cache does not record the commit of {file}.")
    return f"{model}@{commit}"


def data_identity(path: str | Path) -> str:
    """Return the identity of a pair file, a folder or a Hub dataset: a digest of its bytes and of the media it names.

    Images and videos count by content, not location; a missing one counts as missing. Of a Hub dataset, the ``train``
    split is read.

    Raises:
        UserError: If the file does not exist or cannot be read.
    """
    digest = hashlib.sha256()
    if not Path(path).exists() and may_be_hub_id(path):
        for row in hub_dataset(str(path), "train"):
            digest.update(json.dumps(row, sort_keys=True, default=_hashed).encode())
        return f"sha256:{digest.hexdigest()}"
    for file in pair_files(path):
        digest.update(f"{file_digest(file)}\n{media_digest(media_of(file))}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _hashed(value: Any) -> str:
    """Return a JSON value for one that JSON lacks: a digest for bytes, else its text."""
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def media_of(file: Path) -> Iterator[str]:
    """Yield the images and videos that the rows of a JSONL or parquet file name, in row order.

    Raises UserError if a ``.parquet`` file is not parquet.
    """
    if file.suffix != ".parquet":
        rows = (raw.data for raw in line_rows(file) if isinstance(raw.data, dict))
    elif any(map(os.path.exists, _named(file, _NAMES))):
        rows = (row for _, row in parquet_rows(file, ["images", "video", *_CONTENTS]))
    else:  # every image is embedded; no need to read the image bytes, most of the file, a second time
        return
    for row in rows:
        yield from media_files(row, file.parent)


def _named(file: Path, columns: list[str]) -> Iterator[str]:
    return (name for _, row in parquet_rows(file, columns) for name in media_files(row, file.parent))


def media_files(row: Mapping[str, Any], folder: str | Path) -> Iterator[str]:
    """Yield the media files of any kind of row: images named by path, its video, then the media inside its contents.

    Anything that is not a path is skipped; validation reports it.
    """
    cells = row.get("images")
    places = [Place("image", cell) for cell in (cells if isinstance(cells, list | tuple) else ())]
    places.append(Place("video", row.get("video")))
    responses = row.get("responses")
    contents = [row.get(name) for name in CONTENTS]
    for content in [*contents, *(responses if isinstance(responses, list | tuple) else ())]:
        places += [place for _, place in media_at(content, "")]
    for place in places:
        cell = place.source
        path = cell.get("path") if isinstance(cell, Mapping) and cell.get("bytes") is None else cell
        if isinstance(path, str) and path:
            yield os.path.join(folder, path)


def media_digest(files: Iterable[str]) -> str | None:
    """Return a digest (16 hex digits) of the bytes of images and videos, in this order; None if there are none.

    A video may be a folder of frames. Each path is read once.
    """
    digest, known = hashlib.sha256(), dict[str, str]()
    files = iter(files)
    with ThreadPoolExecutor(threads()) as pool:
        while names := list(islice(files, _AT_ONCE)):
            new = [name for name in dict.fromkeys(names) if name not in known]
            known.update(zip(new, pool.map(_medium_digest, new), strict=True))
            for name in names:
                digest.update(f"{known[name]}\n".encode())
    return digest.hexdigest()[:16] if known else None


def _medium_digest(path: str) -> str:
    try:
        return ",".join(file_digest(file) for file in find_video(path) or [Path(path)])
    except (UserError, ValueError):  # opening it later reports the problem
        return _MISSING
