"""One attention call for all windows of all images in a vision tower, instead of one call per window.

Qwen-VL's towers attend within windows of 64 patches, or within an image. With PyTorch's attention ("sdpa"),
transformers calls it once per window and layer: forty times per layer for an image of 640 visual tokens, so that a GPU
is mostly idle. ``varlen_attn``, PyTorch's own FlashAttention over sequences of different lengths, handles all windows
in one call and needs no package besides PyTorch. benchmarks/bench_update.py measures the difference.

    pack_vision_attention(model)     # does nothing where it does not apply
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NAME = "r1_reward_flash_varlen"
"""The registered implementation; transformers passes sequence lengths only to names that contain "flash"."""

PACKED_TOWERS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Model types whose towers pack all images into one sequence with cumulative lengths."""


def pack_vision_attention(model: Any) -> bool:
    """Make the vision tower of ``model`` attend to all its windows in one call; return whether this applies.

    It applies to towers of :data:`PACKED_TOWERS` with PyTorch's attention, not to other choices (flash_attention_2,
    eager), and needs ``varlen_attn`` (PyTorch 2.10 or newer). Only the tower's configuration changes; the model's own
    stays the same, for saving and for building other models.
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
        attention_mask: Not used; the lengths define the mask.
        cu_seq_lens_q: (sequences + 1,) start of each sequence, and the number of patches.
        max_length_q: Length of the longest sequence; computed if None.
        scaling: Scale of the scores; None is 1 / sqrt(head size).

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
