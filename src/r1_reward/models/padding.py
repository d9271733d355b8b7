"""Skip columns of padding in the forward pass.

TRL pads prompts and responses to the longest of a rollout, and every micro-batch of the update keeps that width, though
its own rows may be half as long. :func:`skip_padding` removes the columns that are padding in all rows before the
forward pass and returns zeros for them.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import Tensor

TOKEN_KEYS = ("input_ids", "attention_mask", "labels", "token_type_ids", "mm_token_type_ids")
"""Arguments of the forward pass with one value per token."""


def skip_padding(model: Any) -> None:
    """Make ``model``, which has TRL's fused head (``add_fused_lm_head``), skip columns that are padding in all rows.

    The output keeps its shape: log-probabilities and entropies are 0 in the skipped columns. Other calls of the model,
    including generation, are unchanged.
    """
    forward = model.forward

    @functools.wraps(forward.__func__)  # generate() inspects the argument names
    def fused_forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:  # noqa: ARG001
        if not fused_lm_head:
            return forward(*args, **kwargs)
        first, end = used_columns(kwargs["attention_mask"])
        width = kwargs["attention_mask"].size(1)
        cut = {name: kwargs[name][:, first:end] for name in TOKEN_KEYS if kwargs.get(name) is not None}
        output = forward(*args, fused_lm_head=True, **{**kwargs, **cut})
        for name in ("log_probs", "entropy"):
            values = getattr(output, name)
            if values is not None:  # one column fewer than tokens: each belongs to the next token
                setattr(output, name, torch.nn.functional.pad(values, (first, width - end)))
        return output

    model.forward = types.MethodType(fused_forward, model)


def used_columns(attention_mask: Tensor) -> tuple[int, int]:
    """Return the range of columns of a (B, S) mask that any row uses, end exclusive; (0, S) if none is used."""
    used = attention_mask.any(0).nonzero()
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, attention_mask.size(1))
