"""A checkpoint in the form vLLM reads: a folder with merged weights and the judge's processor, and a dtype.

A folder or Hub id is used directly. LoRA adapters are merged, ``tiny`` is written to disk, and a pixel budget is saved
in the processor's settings, each in a temporary folder::

    checkpoint = readable("runs/lora", max_pixels=501_760, dtype="auto")
    checkpoint.folder, checkpoint.dtype
    checkpoint.drop()
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from r1_reward.models.checkpoint import TINY, limit_pixels
from r1_reward.models.scalar import is_scalar
from r1_reward.models.text_only import load_chats, load_judge
from r1_reward.records.errors import UserError
from r1_reward.store.adapters import is_adapters
from r1_reward.store.hub import checkpoint_folder

_SAVED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Readable(NamedTuple):
    """A checkpoint that vLLM can load."""

    name: str
    """The checkpoint's name, for messages."""
    folder: Path
    processor: Any
    dtype: str
    temporary: TemporaryDirectory[str] | None

    def drop(self) -> None:
        """Delete the temporary folder."""
        if self.temporary is not None:
            self.temporary.cleanup()


def readable(model: str, *, max_pixels: int | None, dtype: str) -> Readable:
    """Return a checkpoint for vLLM; ``dtype`` is ``auto`` for that of its weights, or a name.

    Raises:
        UserError: it cannot be read, generates no text (a scalar model), or its processor has no pixel budget.
    """
    if is_scalar(model):
        raise UserError(
            f"{model}: a scalar reward model, which needs the engine transformers; to serve it with vLLM, see "
            "docs/reward_model.md."
        )
    if model == TINY or is_adapters(model):
        loaded, processor = load_judge(model, dtype=dtype)
        temporary = TemporaryDirectory(prefix="r1-reward-vllm-")
        loaded.save_pretrained(temporary.name)
        folder = Path(temporary.name)
        if max_pixels is not None:
            limit_pixels(processor, max_pixels)
        processor.save_pretrained(folder)
    else:
        folder, processor, temporary = checkpoint_folder(model), load_chats(model), None
        if max_pixels is not None:
            limit_pixels(processor, max_pixels)
            temporary = _beside(folder, processor)
            folder = Path(temporary.name)
    return Readable(model, folder, processor, _saved_dtype(folder) if dtype == "auto" else dtype, temporary)


def _beside(folder: Path, processor: Any) -> TemporaryDirectory[str]:
    """Return a folder with another processor and links to all other files."""
    temporary = TemporaryDirectory(prefix="r1-reward-vllm-")
    processor.save_pretrained(temporary.name)
    for file in folder.iterdir():
        link = Path(temporary.name) / file.name
        if file.is_file() and "processor" not in file.name and not link.exists():
            link.symlink_to(file.resolve())
    return temporary


def _saved_dtype(folder: Path) -> str:
    """Return the dtype in a checkpoint's configuration, else that of its weights."""
    from safetensors import safe_open
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    said = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    if said is not None:
        return str(said).removeprefix("torch.")
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  not a dict
                if kind := _SAVED.get(weights.get_slice(name).get_dtype()):
                    return kind
    return "float32"
