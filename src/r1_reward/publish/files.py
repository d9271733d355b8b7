"""Select the files of a trained folder that are published, and check that they are complete.

Only files whose names are on a list are published, so optimizer states, checkpoints, caches of verdicts, logs and
pictures are never uploaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.judge.calibration import FILE_NAME as CALIBRATION
from r1_reward.records.errors import UserError
from r1_reward.store.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from r1_reward.store.files import read_json
from r1_reward.train.checkpoints import SEAL, checkpoints, damage

INDEX = "model.safetensors.index.json"
SCALAR = ("scalar.json", "scalar_head.safetensors")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
COPIED = (
    "config.json", "generation_config.json", INDEX, ADAPTER_CONFIG, ADAPTER_WEIGHTS, *SCALAR, *PROCESSORS,
    "video_preprocessor_config.json", *TOKENIZERS, "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "chat_template.json", CALIBRATION,
)  # fmt: skip
"""Files copied from the folder besides the weights; README.md and config.yaml are generated."""

_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


class Weights(NamedTuple):
    """What the headers of the weight files say."""

    kind: str
    """``full``, ``adapters``, or ``scalar`` (a reward head on either)."""
    files: tuple[str, ...]
    parameters: int
    """Number of elements in all tensors."""
    dtypes: tuple[str, ...]


def is_published(name: str) -> bool:
    """Say whether a file of this name belongs to a published model."""
    return name in (*COPIED, "README.md", "config.yaml") or _WEIGHTS.fullmatch(name) is not None


def published_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are published unchanged, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_file() and _is_copied(path.name))


def left_out(folder: Path) -> list[str]:
    """Return the names of unpublished files and folders; folders end with a slash."""
    return sorted(
        path.name + "/" * path.is_dir() for path in folder.iterdir() if path.is_dir() or not is_published(path.name)
    )


def _is_copied(name: str) -> bool:
    return name in COPIED or _WEIGHTS.fullmatch(name) is not None


def check_weights(folder: Path) -> Weights:
    """Check the header of every weight file and return what the folder's weights are.

    This detects truncated and overwritten files. It detects changed values inside a tensor only in a ``checkpoint-N``,
    which has checksums; safetensors files have none.

    Raises:
        UserError: there are no weights, some are missing, or a file is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one that `r1-reward train` wrote.")
    if (folder / SEAL).is_file() and (problem := damage(folder)) is not None:
        raise UserError(
            f"{folder}: {problem}; publish another checkpoint, or delete its {SEAL} if you removed files on purpose."
        )
    names = [path.name for path in published_files(folder) if path.name.endswith(".safetensors")]
    full = [name for name in names if _WEIGHTS.fullmatch(name)]
    if not full and ADAPTER_WEIGHTS not in names:
        raise UserError(f"{folder}: no weights (*.safetensors) in this folder.{_nearest_checkpoint(folder)}")
    tensors = {name: _read_header(folder / name) for name in names}
    if full:
        _require_all_shards(folder, tensors)
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: config.json is missing; the weights cannot be loaded without it.")
    kind = "scalar" if SCALAR[0] in {path.name for path in published_files(folder)} else "full" if full else "adapters"
    if kind == "scalar" and SCALAR[1] not in names:
        raise UserError(f"{folder}: {SCALAR[1]} is missing, but {SCALAR[0]} says this is a scalar reward model.")
    shapes = [shape for name in names for shape in tensors[name].values()]
    dtypes = sorted({dtype for _, dtype in shapes})
    return Weights(kind, tuple(names), sum(count for count, _ in shapes), tuple(dtypes))


def check_processor(folder: Path) -> None:
    """Check that the tokenizer, image processor and chat template exist.

    Raises:
        UserError: one of them is missing.
    """
    names = {path.name for path in published_files(folder)}
    advice = "save it with `AutoProcessor.from_pretrained(BASE).save_pretrained(DIR)`."
    for what, needed in (("processor", PROCESSORS), ("tokenizer", TOKENIZERS)):
        if not names.intersection(needed):
            raise UserError(f"{folder}: the {what} is missing ({' or '.join(needed)}); {advice}")
    if names.intersection(("chat_template.jinja", "chat_template.json")):
        return
    inside = [folder / name for name in (*PROCESSORS, "tokenizer_config.json") if name in names]
    if not any(_object(path).get("chat_template") for path in inside):
        raise UserError(f"{folder}: the chat template is missing (chat_template.jinja); {advice}")


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def _read_header(path: Path) -> dict[str, tuple[int, str]]:
    """Return the size and dtype of every tensor of a file."""
    from safetensors import SafetensorError, safe_open

    try:
        # safe_open is not a mapping: it cannot be iterated over.
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (_product(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged or truncated ({error}); copy or train it again.") from error


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _require_all_shards(folder: Path, tensors: dict[str, dict[str, tuple[int, str]]]) -> None:
    shards = [name for name in tensors if name.startswith("model-")]
    if "model.safetensors" in tensors:
        if shards or (folder / INDEX).is_file():
            raise UserError(
                f"{folder}: holds both model.safetensors and shards from another save; delete the outdated ones."
            )
        return
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder}: {INDEX} of the {len(shards)} shards is missing; copy it here, too.")
    places = _object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{folder / INDEX}: has no weight_map; save the model again.")
    if absent := sorted(set(places.values()) - set(shards)):
        raise UserError(f"{folder}: {INDEX} lists {', '.join(absent)}, but the folder does not have it; copy it here.")
    if astray := [name for name, file in places.items() if name not in tensors[file]]:
        raise UserError(
            f"{folder}: {INDEX} lists {astray[0]} in {places[astray[0]]}, which does not hold it; copy both again."
        )
    if extra := sorted(set(shards) - set(places.values())):
        raise UserError(f"{folder}: {INDEX} does not list {', '.join(extra)}; delete shards from other saves.")


def _nearest_checkpoint(folder: Path) -> str:
    if found := checkpoints(folder):
        return f" The newest checkpoint is {found[-1]}."
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pth"))
    weights = [
        path.name for path in pickled if path.name.startswith(("pytorch_model", "adapter_model", "consolidated"))
    ]
    return f" {weights[0]} is a pickle, which can run code when loaded; save it as safetensors." if weights else ""
