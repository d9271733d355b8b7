"""Packed attention stays within each sequence, and the tower's output does not change."""

from __future__ import annotations

import copy

import pytest
import torch

from r1_reward.models.vision_attention import NAME, pack_vision_attention, packed_attention


def slow_attention(query, key, value, lengths, scaling):
    """Attend patch by patch; (1, heads, patches, size) in, (1, patches, heads, size) out."""
    result = torch.zeros_like(query)
    start = 0
    for length in lengths:
        for patch in range(start, start + length):
            for head in range(query.size(1)):
                scores = key[0, head, start : start + length] @ query[0, head, patch] * scaling
                result[0, head, patch] = torch.softmax(scores, 0) @ value[0, head, start : start + length]
        start += length
    return result.transpose(1, 2)


def test_attends_within_sequences_only():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 9, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    lengths = [4, 2, 3]
    ends = torch.tensor([0, 4, 6, 9], dtype=torch.int32)
    output, weights = packed_attention(None, query, key, value, cu_seq_lens_q=ends, scaling=0.3)
    assert weights is None
    torch.testing.assert_close(output, slow_attention(query, key, value, lengths, 0.3))


def test_a_packed_tower_gives_the_same_output(tiny):
    plain = tiny[0]
    packed = copy.deepcopy(plain)
    assert pack_vision_attention(packed)
    assert packed.model.visual.blocks[0].attn.config._attn_implementation == NAME
    assert plain.model.visual.blocks[0].attn.config._attn_implementation == "sdpa"
    grid = torch.tensor([[1, 8, 12], [1, 4, 4]])
    pixels = torch.randn(8 * 12 + 4 * 4, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(0))
    expected = plain.model.visual(pixels, grid_thw=grid).pooler_output
    torch.testing.assert_close(packed.model.visual(pixels, grid_thw=grid).pooler_output, expected)


def test_other_attention_is_left_unchanged(tiny):
    model = copy.deepcopy(tiny[0])
    model.config.vision_config._attn_implementation = "eager"
    assert not pack_vision_attention(model)
    assert model.config.vision_config._attn_implementation == "eager"


def test_only_the_towers_configuration_changes(tiny, tmp_path):
    model = copy.deepcopy(tiny[0])
    pack_vision_attention(model)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text(encoding="utf-8")
    again = type(model)(model.config)  # for a name with "flash", transformers would look for a package
    assert again.model.visual.blocks[0].attn.config._attn_implementation == "sdpa"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernel_agrees_with_float32():
    generator = torch.Generator("cuda").manual_seed(0)
    query, key, value = (torch.randn(1, 16, 300, 80, device="cuda", generator=generator) for _ in range(3))
    ends = torch.tensor([0, 64, 128, 300], dtype=torch.int32, device="cuda")
    exact, _ = packed_attention(None, query, key, value, cu_seq_lens_q=ends)
    half, _ = packed_attention(None, *(t.bfloat16() for t in (query, key, value)), cu_seq_lens_q=ends)
    assert (half.float() - exact).norm() / exact.norm() < 1e-2
