"""Restore saved weights into a model in training.

`Trainer` compares the names in the file with the names in the model and only warns about those that differ. For
Qwen-VL all of them do (`save_pretrained` writes ``visual.blocks...``, the model has ``model.visual.blocks...``), so it
restores nothing and continues with the initial weights::

    train_from(trainer, "runs/rl/checkpoint-100")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer


def restore_weights(trainer: Trainer, folder: str | Path) -> None:
    """Copy the weights in ``folder``, written by ``trainer.save_model``, into the trainer's model, bit for bit.

    If only adapters were saved, only they are restored. With FSDP2, call this before training starts, while the weights
    are unsharded. Weights sharded by DeepSpeed are not supported.

    Raises:
        RuntimeError: The folder holds weights of another architecture.
    """
    model: Any = trainer.model
    if isinstance(model, PreTrainedModel):
        model.load_state_dict(type(model).from_pretrained(folder, dtype="auto").state_dict())
        # Trainer would report every weight as missing, although all were just restored.
        trainer._issue_warnings_after_load = lambda load_result: None  # type: ignore[method-assign]  # noqa: ARG005
    else:
        trainer._load_from_checkpoint(str(folder))  # adapters have the same names in file and model


def train_from(trainer: Trainer, checkpoint: str | None) -> None:
    """Train to the end, from a checkpoint if given, including its weights."""
    if checkpoint is not None and not trainer.is_deepspeed_enabled:
        restore_weights(trainer, checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
