"""Check whether the weights are precise enough for the updates they will receive.

A bfloat16 number has 8 significant bits: the next one after 0.02 is 0.00012 away. Adam moves a weight by about the
learning rate per step, so at the paper's 1e-6 nearly every update is rounded away. This does not affect mixed precision
with float32 weights (``bf16: true`` and ``dtype: float32``), adapters, and DeepSpeed and FSDP, which keep float32
copies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from r1_reward.records.errors import UserError

TOO_MUCH = 0.5
_SAMPLES = 4096


def share_lost(weights: Tensor, learning_rate: float) -> float:
    """Return the share of ``weights`` that a step of ``learning_rate`` leaves unchanged in their precision.

    A step is lost if it is less than half the distance to the next number.
    """
    stepped = (weights.double() + learning_rate * -weights.double().sign()).to(weights.dtype)
    return (stepped == weights).double().mean().item() if weights.numel() else 0.0


def require_room_for_updates(model: torch.nn.Module, learning_rate: float) -> None:
    """Refuse to train half-precision weights that would round away steps of ``learning_rate``.

    Raises:
        UserError: More than half of a sample of the trained weights would not change.
    """
    trained = [weights for weights in model.parameters() if weights.requires_grad and weights.element_size() == 2]
    if not trained:
        return
    sizes = [weights.numel() for weights in trained]
    lost = sum(size * share_lost(_sample(weights), learning_rate) for size, weights in zip(sizes, trained, strict=True))
    if lost > TOO_MUCH * sum(sizes):
        name = str(trained[0].dtype).removeprefix("torch.")
        raise UserError(
            f"dtype: the weights are {name}, too coarse for learning_rate {learning_rate:g}: every step would be "
            f"rounded away for {lost / sum(sizes):.0%} of them. Set dtype: float32 (fast with bf16: true), or "
            "lora_rank, or launch with DeepSpeed or FSDP, which keep float32 copies."
        )


def _sample(weights: Tensor) -> Tensor:
    flat = weights.detach().flatten()
    return flat[:: max(1, len(flat) // _SAMPLES)]
