"""Steps that half precision would round away are refused, and the prediction is what Adam does."""

from __future__ import annotations

import copy

import pytest
import torch

from r1_reward.records.errors import UserError
from r1_reward.train.precision import require_room_for_updates, share_lost


def test_share_lost_by_hand():
    # bfloat16 between 1/64 and 1/32: numbers lie 2^-13 apart, so a step below 2^-14 = 6.1e-5 is lost.
    weights = torch.full((10,), 0.02, dtype=torch.bfloat16)
    assert share_lost(weights, 6.0e-5) == 1.0
    assert share_lost(weights, 6.2e-5) == 0.0
    small = torch.full((10,), 1e-4, dtype=torch.bfloat16)
    assert share_lost(torch.cat([weights, small]), 1e-6) == 0.5
    assert share_lost(weights.float(), 1e-6) == 0.0
    assert share_lost(torch.empty(0), 1e-6) == 0.0


def test_the_prediction_is_what_adam_does():
    weights = torch.nn.Parameter((torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 1e-3).bfloat16())
    before = weights.detach().clone()
    optimizer = torch.optim.AdamW([weights], lr=1e-6, weight_decay=0.0)
    weights.grad = weights.detach().sign()  # towards zero, as share_lost steps
    optimizer.step()
    kept = (weights == before).double().mean().item()
    assert 0.5 < kept < 1.0
    assert kept == pytest.approx(share_lost(before, 1e-6), abs=0.005)


def test_coarse_weights_are_refused_with_the_remedy(tiny):
    model = copy.deepcopy(tiny[0])
    require_room_for_updates(model, 1e-6)
    model.bfloat16()
    with pytest.raises(UserError, match="dtype: float32"):
        require_room_for_updates(model, 1e-6)
    require_room_for_updates(model, 1e-2)
    model.requires_grad_(False)
    require_room_for_updates(model, 1e-6)
