"""Leave padding that no row of a batch needs out of the forward pass.

TRL pads a rollout's prompts and responses to its longest ones, and every micro-batch of the update carries that width,
though its own rows may be half as long. :func:`skip_padding` cuts the columns that are padding in all rows before the
pass and gives zeros back in their place.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import Tensor

TOKEN_KEYS = ("input_ids", "attention_mask", "labels", "token_type_ids", "mm_token_type_ids")
"""Arguments of the forward pass with one value a token."""


def skip_padding(model: Any) -> None:
    """Let ``model``, which has TRL's fused head (``add_fused_lm_head``), skip columns that are padding in all rows.

    Its output has the shape it had: log-probabilities and entropies are 0 in the columns left out. Ordinary calls of
    the model, those of generation among them, are not touched.
    """
    forward = model.forward

    @functools.wraps(forward.__func__)  # generate() reads the names of the arguments
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
    """Return the first column of a (B, S) mask that any row uses, and the one after the last; (0, S) if none is."""
    used = attention_mask.any(0).nonzero()
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, attention_mask.size(1))
