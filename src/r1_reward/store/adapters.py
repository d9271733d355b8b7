"""LoRA adapters as checkpoints: a folder or Hub id with ``adapter_config.json`` and no full weights.

:func:`r1_reward.models.checkpoint.load_model_and_processor` merges them into their base model. Adapters trained on a
merged model name the folder of the earlier adapters as their base, so chains of adapters load.
"""

from __future__ import annotations

from pathlib import Path

from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json
from r1_reward.store.hub import checkpoint_file

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapters(path: str | Path) -> bool:
    """Return whether a checkpoint has only adapters."""
    return checkpoint_file(path, "config.json") is None and checkpoint_file(path, ADAPTER_CONFIG) is not None


def adapted_model(path: str | Path) -> str:
    """Return the folder or Hub id of the adapters' base model.

    Raises:
        UserError: If ``adapter_config.json`` is missing, damaged or names no base model.
    """
    file = checkpoint_file(path, ADAPTER_CONFIG)
    if file is None:
        raise UserError(f"{path}: not a folder of adapters ({ADAPTER_CONFIG} is missing).")
    config = read_json(file)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        raise UserError(f"{file}: base_model_name_or_path is missing, so the base model of these adapters is unknown.")
    return name
