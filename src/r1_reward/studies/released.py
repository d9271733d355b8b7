"""Three differences between the released code of R1-Reward and the paper, as switches for experiments.

Read in github.com/yfzhang114/r1_reward, commit 176aba8 (paths below ``openrlhf/``):

* Log-probabilities of the policy, old (trainer/ppo_utils/experience_maker.py) and new (trainer/ppo_trainer.py), are
  computed without the pictures; those of the reference with them. Here pictures are blanked: pixel values are 0, the
  placeholders and the sequence length remain. The released code passes no pictures at all, so its model sees the
  placeholders' own embeddings. In both cases the policy gets no information about the picture.
* Every model of its trainer, including the reference, gets one-dimensional positions (models/actor.py).
* The bounds of the advantage filter are the mean of the *raw* returns plus and minus 3, and are applied to z-scores
  (trainer/ppo_utils/replay_buffer.py).

Example: the policy is right in 7 of 10 samples, with a return of 2.0 each; wrong ones have 0.5. No sample is beyond 3
standard deviations, but the released bounds are -1.45 and 4.55 and remove every wrong sample.

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
    """The faults in the policy's log-probabilities."""

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
    """Apply the released filter: set z-scores outside ``[mean_return - threshold, mean_return + threshold]`` to 0.

    The released code also sets values beyond 10 to 0. Rewards here are between 0 and 2, and so is their mean, so the
    first rule already covers that.

    Args:
        z: Standardized returns, any shape.
        mean_return: Mean of the raw returns over the tokens of the global batch, in units of the reward.
        threshold: Half the width of the interval to keep.
    """
    outside = (z < mean_return - threshold) | (z > mean_return + threshold)
    return torch.where(outside, torch.zeros_like(z), z)


def positions_1d(attention_mask: Tensor) -> Tensor:
    """Return (B, S) positions 0, 1, 2, ... over the attended tokens of a (B, S) mask; 0 at padding before them."""
    return (attention_mask.long().cumsum(1) - 1).clamp_min(0)


@contextmanager
def one_dimensional_positions(model: Any) -> Iterator[None]:
    """Give a model with M-RoPE one-dimensional positions inside the block: all three components are equal.

    Raises:
        UserError: The model has no M-RoPE, so nothing would change.
    """
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    rope = getattr(whole.config.get_text_config(), "rope_parameters", None) or {}
    if "mrope_section" not in rope:
        raise UserError(
            f"logps: {type(whole).__name__} has no M-RoPE, so its positions are already 1-dimensional; use sighted or "
            "blind."
        )

    def number(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positions = positions_1d(kwargs["attention_mask"])
        return args, {**kwargs, "position_ids": positions.expand(3, -1, -1)}

    # The backbone, not the model: only there has padding been removed from the mask (models/padding.py).
    handle = whole.base_model.register_forward_pre_hook(number, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
