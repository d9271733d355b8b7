"""The switches around StableReinforce's maths: the filter's modes, centering, and the bias Pre-CLIP adds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from r1_reward.algorithm import center, filter_outliers, policy_loss, pre_clip_bias

torch.set_num_threads(1)

NAN, INF = math.nan, math.inf


def random_batch(seed, spread):
    """B in 1..5, T in 1..6, float64, with padding, holes and garbage outside the mask."""
    rng = torch.Generator().manual_seed(seed)
    b, t = int(torch.randint(1, 6, (), generator=rng)), int(torch.randint(1, 7, (), generator=rng))
    mask = torch.rand(b, t, generator=rng) < 0.7
    old = -torch.rand(b, t, generator=rng, dtype=torch.float64)
    new = old + spread * torch.randn(b, t, generator=rng, dtype=torch.float64)
    advantages = torch.randn(b, t, generator=rng, dtype=torch.float64)
    garbage = torch.tensor([NAN, INF, -INF], dtype=torch.float64)[torch.randint(0, 3, (3, b, t), generator=rng)]
    new, old, advantages = (torch.where(mask, x, g) for x, g in zip((new, old, advantages), garbage, strict=True))
    return new, old, advantages, mask


# ---------------------------------------------------------------- the filter


def test_clamp_by_hand():
    z = torch.tensor([-15.97, -3.0001, -3.0, -0.5, 0.0, 3.0, 3.0001, INF, -INF])
    assert_close(filter_outliers(z, mode="clamp"), torch.tensor([-3.0, -3.0, -3.0, -0.5, 0.0, 3.0, 3.0, 3.0, -3.0]))
    assert_close(filter_outliers(z, 0.25, "clamp"), torch.tensor([-0.25] * 4 + [0.0] + [0.25] * 3 + [-0.25]))


@given(st.lists(st.floats(-50, 50, width=32), min_size=1), st.floats(0.1, 10))
def test_the_modes_differ_only_beyond_the_threshold(values, threshold):
    z = torch.tensor(values)
    dropped, clamped = filter_outliers(z, threshold), filter_outliers(z, threshold, "clamp")
    beyond = z.abs() > threshold
    assert torch.equal(dropped[~beyond], z[~beyond])
    assert torch.equal(clamped[~beyond], z[~beyond])
    assert (dropped[beyond] == 0).all()
    assert_close(clamped[beyond], z[beyond].sign() * threshold)


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="'drop' or 'clamp', got 'zero'"):
        filter_outliers(torch.zeros(1), mode="zero")


# ---------------------------------------------------------------- centring


def test_center_by_hand():
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, NAN, 6.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    # used: 1 2 3 6, mean 3
    assert_close(center(values, mask), torch.tensor([[-2.0, -1.0, 0.0], [0.0, 0.0, 3.0]]))


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e10 / 3, -1e30])
def test_center_of_equal_values_is_exactly_zero(value):
    assert center(torch.full((7, 3), value, dtype=torch.float64), torch.ones(7, 3)).count_nonzero() == 0


def test_center_averages_over_all_processes():
    # the other process holds three tokens that sum to 30: mean (1 + 3 + 30) / 5 = 6.8
    other = torch.tensor([5.0, 12.0, 13.0], dtype=torch.float64)
    centred = center(torch.tensor([[1.0, 3.0]]), torch.ones(1, 2), gather=lambda own: torch.cat([own, other]))
    assert_close(centred, torch.tensor([[-5.8, -3.8]]))


# ---------------------------------------------------------------- the bias of Pre-CLIP


def gradients(new, old, advantages, mask, **options):
    """The twin: d loss / d logps of the real loss, by autograd, with and without Pre-CLIP."""
    pair = []
    for pre_clip in (options.pop("pre_clip", (1e-3, 1e3)), None):
        leaf = new.clone().requires_grad_()
        policy_loss(leaf, old, advantages, mask, pre_clip=pre_clip, **options).loss.backward()
        pair.append(torch.where(mask.bool(), leaf.grad, 0.0))
    return pair


def test_bias_by_hand():
    # one sequence of 2 tokens, one of 1. log-ratios: 8 (outside), 0 | 7 (outside). All advantages negative.
    # free gradient  e^8 * 1/2, 2/2 | e^7 * 3      with Pre-CLIP  0, 1 | 0
    new = torch.tensor([[8.0, 0.0], [7.0, 0.0]], dtype=torch.float64)
    advantages = torch.tensor([[-1.0, -2.0], [-3.0, -9.0]], dtype=torch.float64)
    bias = pre_clip_bias(new, torch.zeros(2, 2), advantages, torch.tensor([[1, 1], [1, 0]]))
    expected = 1 / math.sqrt((math.exp(8) / 2) ** 2 + 1 + (3 * math.exp(7)) ** 2)
    assert bias.norm_ratio.item() == pytest.approx(expected)
    assert bias.cosine.item() == pytest.approx(expected)
    assert bias.changed_share.item() == pytest.approx(2 / 3)
    # with a constant length the first sequence's tokens weigh as much as the second's
    even = pre_clip_bias(
        new, torch.zeros(2, 2), advantages, torch.tensor([[1, 1], [1, 0]]), constant_length=7
    )  # fmt: skip
    assert even.cosine.item() == pytest.approx(2 / math.sqrt(math.exp(8) ** 2 + 4 + (3 * math.exp(7)) ** 2))


@pytest.mark.parametrize("pre_clip", [(1e-3, 1e3), (0.5, 2.0), (0.9, 1.1)])
@pytest.mark.parametrize("spread", [0.3, 3.0, 8.0])
@pytest.mark.parametrize("seed", range(8))
def test_bias_equals_autograd_through_the_loss(seed, spread, pre_clip):
    batch = random_batch(seed, spread)
    clipped, free = gradients(*batch, pre_clip=pre_clip)
    bias = pre_clip_bias(*batch, pre_clip=pre_clip)
    norms = clipped.norm() * free.norm()
    cosine = (clipped * free).sum() / norms if norms > 0 else torch.tensor(float(free.norm() == 0)).double()
    assert_close(bias.cosine, cosine)
    assert_close(bias.norm_ratio, clipped.norm() / free.norm() if free.norm() > 0 else torch.ones(()).double())
    assert_close(bias.changed_share, (clipped != free).sum() / batch[3].sum().clamp_min(1).double())


@given(st.integers(0, 10_000))
def test_nothing_changed_is_one_one_zero(seed):
    batch = random_batch(seed, 1.0)  # log-ratios far below log 1e3
    assert [x.item() for x in pre_clip_bias(*batch)] == [1.0, 1.0, 0.0]
    wild = random_batch(seed, 20.0)
    assert [x.item() for x in pre_clip_bias(*wild, pre_clip=None)] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "expected"),
    [
        (INF, -1.0, (0.0, 0.0, 0.5)),  # an infinite gradient, gone
        (2e4, -1.0, (0.0, 0.0, 0.5)),  # overflows float64
        (INF, 1.0, (1.0, 1.0, 0.0)),  # PPO's clip had taken its gradient already
        (-INF, 1.0, (1.0, 1.0, 0.0)),  # a ratio of 0 has none
        (-INF, -1.0, (1.0, 1.0, 0.0)),
        (INF, 0.0, (1.0, 1.0, 0.0)),
    ],
)
def test_infinite_ratios(log_ratio, advantage, expected):
    new = torch.tensor([[log_ratio, 0.1]])
    bias = pre_clip_bias(new, torch.zeros(1, 2), torch.tensor([[advantage, 1.0]]), torch.ones(1, 2))
    assert tuple(x.item() for x in bias) == expected


def test_overflowing_ratios_are_still_compared():
    # free gradients e^710, which is inf in float64, and e^709, whose square is; a bound of 1e308 = e^709.2 takes the
    # first away: kept 1 / sqrt(1 + e^2)
    new = torch.tensor([[710.0, 709.0]], dtype=torch.float64)
    bias = pre_clip_bias(new, torch.zeros(1, 2), -torch.ones(1, 2), torch.ones(1, 2), pre_clip=(1e-3, 1e308))
    assert bias.cosine.item() == pytest.approx(1 / math.sqrt(1 + math.e**2))


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_no_tokens_no_bias(shape):
    nothing = pre_clip_bias(torch.full(shape, NAN), torch.zeros(shape), torch.ones(shape), torch.zeros(shape))
    assert [x.item() for x in nothing] == [1.0, 1.0, 0.0]


def test_bias_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"advantages \(2,\)"):
        pre_clip_bias(torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2), torch.zeros(2, 2))
