"""Three things that the released code of R1-Reward does otherwise than the paper, as switches for experiments.

Read in github.com/yfzhang114/r1_reward, commit 176aba8 (paths below ``openrlhf/``):

* Log-probabilities of the policy, old (trainer/ppo_utils/experience_maker.py) and new (trainer/ppo_trainer.py), are
  computed without the pictures; those of the reference with them. Here pictures are blanked: pixel values are 0, the
  placeholders and the sequence length stay. The released code passes no pictures at all, so the model there sees the
  placeholders' own embeddings. In both cases nothing of the picture reaches the policy.
* Every model of its trainer, the reference too, gets one-dimensional positions (models/actor.py).
* The bounds of the advantage filter are the mean of the *raw* returns plus and minus 3, and are applied to z-scores
  (trainer/ppo_utils/replay_buffer.py).

Example: the policy is right in 7 of 10 samples, worth 2.0 each; wrong ones are worth 0.5. No sample lies beyond 3
standard deviations, yet the released bounds are -1.45 and 4.55 and take every wrong sample out.

>>> import torch
>>> from r1_reward.algorithm import filter_outliers, standardize
>>> returns = torch.tensor([[2.0]] * 7 + [[0.5]] * 3)
>>> z = standardize(returns, torch.ones(10, 1))
>>> [round(value, 2) for value in z[[0, -1], 0].tolist()]
[0.65, -1.53]
>>> int((filter_outliers(z) == 0).sum()), int((filter_by_raw_bounds(z, returns.mean().item()) == 0).sum())
(0, 3)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor

from r1_reward.records.errors import UserError


class Faults(NamedTuple):
    """What is wrong with the policy's log-probabilities."""

    blind: bool
    """They are computed on blanked pictures."""
    flat: bool
    """They are computed with one-dimensional positions."""


SIGHTED = "sighted"
LOGPS = {
    SIGHTED: Faults(blind=False, flat=False),
    "blind": Faults(blind=True, flat=False),
    "1d": Faults(blind=False, flat=True),
    "both": Faults(blind=True, flat=True),
}
"""The values of ``StudyConfig.logps``."""

STANDARDIZED, RAW = FILTER_BOUNDS = ("standardized", "raw")
"""The values of ``StudyConfig.filter_bounds``."""


def filter_by_raw_bounds(z: Tensor, mean_return: float, threshold: float = 3.0) -> Tensor:
    """Return z-scores with those outside ``[mean_return - threshold, mean_return + threshold]`` set to 0.

    The released filter. It then sets what lies beyond 10 to 0; rewards here are between 0 and 2, so their mean is too,
    and the first rule takes all of that already.

    Args:
        z: Standardised returns, any shape.
        mean_return: Mean of the raw returns over the tokens of the global batch, in units of the reward.
        threshold: Half the width of the interval that is kept.
    """
    outside = (z < mean_return - threshold) | (z > mean_return + threshold)
    return torch.where(outside, torch.zeros_like(z), z)


def positions_1d(attention_mask: Tensor) -> Tensor:
    """Return (B, S) positions 0, 1, 2, ... over the attended tokens of a (B, S) mask; 0 at padding before them."""
    return (attention_mask.long().cumsum(1) - 1).clamp_min(0)


@contextmanager
def one_dimensional_positions(model: Any) -> Iterator[None]:
    """Let a model with M-RoPE number its tokens one by one inside the block: all three components are the same.

    Raises:
        UserError: the model has no M-RoPE, so that nothing would change.
    """
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    rope = getattr(whole.config.get_text_config(), "rope_parameters", None) or {}
    if "mrope_section" not in rope:
        raise UserError(
            f"logps: {type(whole).__name__} has no M-RoPE, so one-dimensional positions are its own; use sighted or "
            "blind."
        )

    def number(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positions = positions_1d(kwargs["attention_mask"])
        return args, {**kwargs, "position_ids": positions.expand(3, -1, -1)}

    # The backbone and not the model: only there padding has been cut from the mask (models/padding.py).
    handle = whole.base_model.register_forward_pre_hook(number, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
