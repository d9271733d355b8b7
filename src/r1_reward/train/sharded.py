"""FSDP2, where every process holds a shard of every weight: sample from unsharded weights, save and load whole files.

Checkpoints are those of an unsharded run: weights that ``from_pretrained`` reads, and torch's ``optimizer.pt``. So a
run can be resumed with another number of processes, and with or without FSDP2::

    class ColdStartTrainer(WholeCheckpoints, SFTTrainer): ...

    with unsharded(trainer.model):      # does nothing without FSDP2
        trainer.model.generate(...)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from r1_reward.records.errors import UserError

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"


@contextmanager
def unsharded(model: torch.nn.Module) -> Iterator[None]:
    """Keep the whole weights of a model sharded by FSDP2 on every process inside the block.

    By default FSDP2 gathers each layer for each generated token, and processes wait for each other every time: a rank
    with fewer tokens to generate would make the others wait forever.
    """
    from torch.distributed.fsdp import FSDPModule

    parts: list[Any] = [module for module in model.modules() if isinstance(module, FSDPModule)]
    groups = [group for part in parts for group in part._get_fsdp_state()._fsdp_param_groups]
    kept = [group.post_forward_mesh_info for group in groups]
    try:
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        yield
    finally:
        for group, mesh in zip(groups, kept, strict=True):
            group.post_forward_mesh_info = mesh  # some, such as the root, are never resharded after a forward pass
        for part in parts:
            part.reshard()


class WholeCheckpoints(Trainer):
    """Mixin for trainers: with FSDP2, checkpoints hold the whole weights and the whole optimizer state.

    Weights must be restored before training starts, see `r1_reward.train.restore.train_from`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled:
            _check_plugin(self.accelerator.state.fsdp_plugin)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.is_fsdp_enabled and state_dict is not None:
            # Gathering duplicates a weight that two modules share.
            tied = getattr(self.accelerator.unwrap_model(self.model), "all_tied_weights_keys", None) or {}
            state_dict = {name: weight for name, weight in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        optimizer, scheduler = self._both()
        state = optimizer.state_dict()
        state["state"] = {
            number: {name: _whole(value, keep=self.args.should_save) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER)
            torch.save(scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # Sharded weights are passed as `model`, and already are the checkpoint's.
        if model is None or not self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        # Memory-mapped: each process reads only its own shards of the file.
        state = torch.load(Path(checkpoint) / OPTIMIZER, map_location="cpu", mmap=True, weights_only=True)
        optimizer, scheduler = self._both()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state["state"] = {
            number: {name: _shard_like(parameters[number], value) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        optimizer.load_state_dict(state)
        scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER, weights_only=True))

    def _both(self) -> tuple[Any, Any]:
        return self.optimizer, self.lr_scheduler


def _check_plugin(plugin: Any) -> None:
    if plugin.fsdp_version != 2:
        raise UserError("FSDP: only version 2 is supported; set fsdp_version: 2 in the accelerate configuration.")
    if "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise UserError(
            "FSDP: a checkpoint of sharded weights cannot be loaded; set fsdp_state_dict_type: FULL_STATE_DICT in the "
            "accelerate configuration."
        )


def _whole(value: Any, *, keep: bool) -> Any:
    """Gather a sharded tensor on the CPU, or return None without ``keep``; every process must call this."""
    from torch.distributed.tensor import DTensor

    whole = value.full_tensor() if isinstance(value, DTensor) else value
    if not isinstance(whole, Tensor):
        return whole
    return whole.cpu() if keep else None


def _shard_like(parameter: Tensor, value: Any) -> Any:
    """Return this process's shard of a whole tensor of the parameter's shape; other values unchanged."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not (isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape):
        return value
    device = parameter.to_local().device
    return distribute_tensor(value.to(device), parameter.device_mesh, parameter.placements, src_data_rank=None)
