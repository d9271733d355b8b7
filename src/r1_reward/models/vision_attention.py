"""One attention call for all windows of all pictures in a vision tower, instead of one call a window.

Qwen-VL's towers attend within windows of 64 patches, or within a picture. With PyTorch's attention ("sdpa")
transformers calls it once per window and layer: forty times a layer for a picture of 640 visual tokens, so that a GPU
spends its time waiting. ``varlen_attn``, PyTorch's own FlashAttention over sequences of different lengths, takes them
all at once; no package besides PyTorch is needed. benchmarks/bench_update.py measures the difference.

    pack_vision_attention(model)     # does nothing where it does not apply
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NAME = "r1_reward_flash_varlen"
"""The registered implementation. transformers hands sequence lengths only to names that contain "flash"."""

PACKED_TOWERS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Model types whose towers keep all pictures in one sequence, with cumulative lengths beside it."""


def pack_vision_attention(model: Any) -> bool:
    """Let the vision tower of ``model`` attend to all its windows in one call; return whether it does now.

    Only for towers of :data:`PACKED_TOWERS` that use PyTorch's attention: another choice (flash_attention_2, eager) is
    left alone, and so is a PyTorch without ``varlen_attn`` (before 2.10). The choice is the tower's own: the model's
    configuration stays as it was, for saving and for building other models.
    """
    tower_config: Any = getattr(model.config, "vision_config", None)
    if model.config.model_type not in PACKED_TOWERS or tower_config._attn_implementation != "sdpa":
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:
        return False
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    own = copy.deepcopy(tower_config)
    own._attn_implementation = NAME
    for module in model.modules():
        if getattr(module, "config", None) is tower_config:
            module.config = own
    return True


def packed_attention(
    module: torch.nn.Module,  # noqa: ARG001  (transformers' signature)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,  # noqa: ARG001
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int | Tensor | None = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each sequence of a packed row, as transformers' attention functions do.

    Args:
        module: The attention layer.
        query: (1, heads, patches, head size); ``key`` and ``value`` likewise.
        key: See ``query``.
        value: See ``query``.
        attention_mask: Not used: lengths say what may be seen.
        cu_seq_lens_q: (sequences + 1,) where each sequence begins, and the number of patches.
        max_length_q: The longest sequence; computed if missing.
        scaling: Factor of the scores; None is 1 / sqrt(head size).

    Returns:
        (1, patches, heads, head size), and None for the weights.
    """
    import torch

    starts = cu_seq_lens_q
    lengths = starts[1:] - starts[:-1]
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        from torch.nn.attention.varlen import varlen_attn

        longest = int(lengths.max() if max_length_q is None else max_length_q)
        starts = starts.to(torch.int32)
        query, key, value = (tensor.squeeze(0).transpose(0, 1).contiguous() for tensor in (query, key, value))
        attended: Any = varlen_attn(query, key, value, starts, starts, longest, longest, scale=scaling)
        return attended.unsqueeze(0), None
    parts = zip(*(tensor.split(lengths.tolist(), dim=2) for tensor in (query, key, value)), strict=True)
    attend = torch.nn.functional.scaled_dot_product_attention
    return torch.cat([attend(q, k, v, scale=scaling) for q, k, v in parts], dim=2).transpose(1, 2), None
