"""LoRA adapters as checkpoints: a folder, or Hub id, with ``adapter_config.json`` and no weights of its own.

    model, processor = load_adapted("runs/lora-rl")

The adapters are merged into the model they were trained on, so what comes back is an ordinary model: to judge with, or
to train further. Adapters trained on a merged model name the adapters' folder as theirs, so a chain of them loads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json
from r1_reward.store.hub import checkpoint_file, checkpoint_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapters(path: str | Path) -> bool:
    """Say whether a checkpoint is nothing but adapters."""
    return checkpoint_file(path, "config.json") is None and checkpoint_file(path, ADAPTER_CONFIG) is not None


def adapted_model(path: str | Path) -> str:
    """Return the folder or Hub id of the model that adapters belong to.

    Raises:
        UserError: ``adapter_config.json`` is missing, damaged or names none.
    """
    file = checkpoint_file(path, ADAPTER_CONFIG)
    if file is None:
        raise UserError(f"{path}: no adapters here ({ADAPTER_CONFIG} is missing).")
    config = read_json(file)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        raise UserError(f"{file}: base_model_name_or_path is missing, so these adapters belong to no model.")
    return name


def load_adapted(
    path: str, *, dtype: str = "auto", attn_implementation: str | None = None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Return the model that adapters were trained on with the adapters merged into it, and the adapters' processor.

    Raises:
        UserError: the model is not where the adapters say, or they are damaged or do not fit it.
    """
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoProcessor

    from r1_reward.models.checkpoint import load_model_and_processor

    name, folder = adapted_model(path), str(checkpoint_folder(path))
    try:
        base, _ = load_model_and_processor(name, dtype=dtype, attn_implementation=attn_implementation)
    except UserError as error:
        raise UserError(f"{path}: holds adapters of {name}, which cannot be loaded: {error}") from error
    try:
        model: Any = PeftModel.from_pretrained(base, folder).merge_and_unload()
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot put these adapters on {name}: {first}") from error
    return model, processor
