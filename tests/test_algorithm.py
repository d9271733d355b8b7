"""StableReinforce's maths: hand-computed tables, a slow-loop twin, and the properties a change would break first."""

from __future__ import annotations

import doctest
import math
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from r1_reward import algorithm
from r1_reward.algorithm import (
    discounted_returns,
    filter_outliers,
    importance_ratio,
    policy_loss,
    standardize,
)

torch.set_num_threads(1)

NAN, INF = math.nan, math.inf
DTYPES = [torch.float32, torch.float64]


# ---------------------------------------------------------------- the slow-loop twin: plain Python floats, one token at
# a time, written from the method's formulas and not from the code


def slow_returns(rewards, mask, kl, kl_coef, gamma):
    returns = [[0.0] * len(row) for row in mask]
    for i, row in enumerate(mask):
        masked = [t for t, m in enumerate(row) if m]
        for n, t in enumerate(masked):
            for steps, s in enumerate(masked[n:]):
                reward = (rewards[i] if s == masked[-1] else 0.0) - kl_coef * kl[i][s]
                returns[i][t] += gamma**steps * reward
    return returns


def slow_standardize(values, mask):
    used = [v for row, ms in zip(values, mask, strict=True) for v, m in zip(row, ms, strict=True) if m and v == v]
    if not used or min(used) == max(used):
        return [[0.0] * len(row) for row in values]
    mean = math.fsum(used) / len(used)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in used) / len(used))
    return [
        [(v - mean) / std if m and v == v else 0.0 for v, m in zip(row, ms, strict=True)]
        for row, ms in zip(values, mask, strict=True)
    ]


def slow_loss(logps, old_logps, advantages, mask, clip_eps, pre_clip):
    sequence_means = []
    for i, row in enumerate(mask):
        tokens = []
        for t, m in enumerate(row):
            if not m:
                continue
            d = logps[i][t] - old_logps[i][t]
            if pre_clip is not None:
                d = min(max(d, math.log(pre_clip[0])), math.log(pre_clip[1]))
            ratio = math.exp(d)
            clipped = min(max(ratio, 1 - clip_eps), 1 + clip_eps)
            tokens.append(-min(ratio * advantages[i][t], clipped * advantages[i][t]))
        if tokens:
            sequence_means.append(sum(tokens) / len(tokens))
    return sum(sequence_means) / len(sequence_means) if sequence_means else 0.0


def random_batch(seed, *, spread=1.0, dtype=torch.float64):
    """B in 2..6, T in 1..9: masks with padding on either side, holes and empty rows; garbage outside the mask."""
    rng = torch.Generator().manual_seed(seed)
    b, t = int(torch.randint(2, 7, (), generator=rng)), int(torch.randint(1, 10, (), generator=rng))
    mask = torch.rand(b, t, generator=rng) < 0.7
    old = -torch.rand(b, t, generator=rng, dtype=dtype)
    new = old + spread * torch.randn(b, t, generator=rng, dtype=dtype)
    advantages = torch.randn(b, t, generator=rng, dtype=dtype)
    garbage = torch.tensor([NAN, INF, -INF, 1e30], dtype=dtype)[torch.randint(0, 4, (3, b, t), generator=rng)]
    new, old, advantages = (torch.where(mask, x, g) for x, g in zip((new, old, advantages), garbage, strict=True))
    return new, old, advantages, mask


# ---------------------------------------------------------------- returns


def test_returns_by_hand():
    rewards = torch.tensor([2.0, 1.0, 3.0])
    kl = torch.tensor([[1.0, 2.0, 4.0, 9.0], [9.0, 9.0, 1.0, 2.0], [2.0, 9.0, 4.0, 9.0]])
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 1, 0]])  # right padding, left padding, a hole
    # r = -0.5 kl, plus R at the last masked token; G from the right with gamma 0.5, holes are no steps
    # row 0: r = [-0.5, -1, -2+2=0]   G2 = 0        G1 = -1 + 0    G0 = -0.5 - 0.5 = -1
    # row 1: r = [-0.5, -1+1=0]       G3 = 0        G2 = -0.5
    # row 2: r = [-1, -2+3=1]         G2 = 1        G0 = -1 + 0.5 = -0.5
    expected = torch.tensor([[-1.0, -1.0, 0.0, 0.0], [0.0, 0.0, -0.5, 0.0], [-0.5, 0.0, 1.0, 0.0]])
    assert_close(discounted_returns(rewards, mask, kl=kl, kl_coef=0.5, gamma=0.5), expected)


def test_without_kl_and_discount_every_token_carries_the_reward():
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    expected = torch.tensor([[2.0, 2.0, 0.0], [0.0, -1.0, -1.0]])
    assert_close(discounted_returns(torch.tensor([2.0, -1.0]), mask), expected)
    assert_close(discounted_returns(torch.tensor([2.0, -1.0]), mask, kl=torch.ones(2, 3)), expected)  # kl_coef is 0


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(10))
def test_returns_equal_the_slow_twin(seed, gamma):
    _, _, kl, mask = random_batch(seed)
    rewards = torch.randn(len(mask), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = slow_returns(rewards.tolist(), mask.tolist(), kl.tolist(), 0.3, gamma)
    actual = discounted_returns(rewards, mask, kl=kl, kl_coef=0.3, gamma=gamma)
    assert_close(actual, torch.tensor(expected, dtype=torch.float64))


def test_unscorable_rewards_stay_nan_inside_the_mask_only():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    kl = torch.zeros(2, 3)
    returns = discounted_returns(torch.tensor([NAN, 1.0]), mask, kl=kl, kl_coef=0.1, gamma=0.5)
    expected = torch.tensor([[NAN, NAN, 0.0], [0.25, 0.5, 1.0]])
    assert_close(returns, expected, equal_nan=True)
    # and are then left out: the other row's z-score is that of the row alone
    assert_close(standardize(returns, mask)[1:], standardize(expected[1:], mask[1:]))
    assert_close(standardize(returns, mask)[0], torch.zeros(3))


def test_integer_rewards_become_float32():
    returns = discounted_returns(torch.tensor([1, 0]), torch.ones(2, 2), gamma=0.5)
    assert_close(returns, torch.tensor([[0.5, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rewards": torch.ones(3)}, r"\(3,\) and \(2, 4\)"),
        ({"rewards": torch.ones(2, 4)}, "expected rewards"),
        ({"mask": torch.ones(2)}, "expected rewards"),
        ({"kl": torch.ones(2, 1), "kl_coef": 0.1}, "shapes differ"),
        ({"gamma": 1.5}, "gamma"),
        ({"gamma": -0.1}, "gamma"),
    ],
)
def test_returns_refuse_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        discounted_returns(**{"rewards": torch.ones(2), "mask": torch.ones(2, 4), **kwargs})


# ---------------------------------------------------------------- standardising


@pytest.mark.parametrize("dtype", DTYPES)
def test_worked_case_of_the_paper(dtype):
    # mean 255/256, variance 255/256^2, so z(0) = -(255/256) / (sqrt(255)/256) = -sqrt(255) = -15.9687 and
    # z(1) = (1/256) / (sqrt(255)/256) = 1/sqrt(255) = 0.0626. The filter removes the first and keeps the rest.
    rewards = torch.ones(256, dtype=dtype)
    rewards[7] = 0.0
    mask = torch.ones(256, 3)
    z = standardize(discounted_returns(rewards, mask), mask)
    assert z.dtype == dtype
    assert [round(value, 4) for value in z[7].tolist()] == [-15.9687] * 3
    kept = filter_outliers(z)
    assert_close(kept[7], torch.zeros(3, dtype=dtype))
    others = torch.arange(256) != 7
    assert_close(kept[others], torch.full((255, 3), 1 / math.sqrt(255), dtype=dtype))


def test_standardize_by_hand():
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, NAN, 6.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    # used: 1 2 3 6; mean 3; squared deviations 4 1 0 9; std sqrt(14/4)
    std = math.sqrt(3.5)
    expected = torch.tensor([[-2 / std, -1 / std, 0.0], [0.0, 0.0, 3 / std]])
    assert_close(standardize(values, mask), expected)


@pytest.mark.parametrize("seed", range(20))
def test_standardize_equals_the_slow_twin(seed):
    _, _, values, mask = random_batch(seed)
    values[0, 0] = NAN
    expected = slow_standardize(values.tolist(), mask.tolist())
    assert_close(standardize(values, mask), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -0.7, 1e-30, 1e10 / 3, -1e30])
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_equal_values_are_exactly_zero(value, count, dtype):
    z = standardize(torch.full((count, 3), value, dtype=dtype), torch.ones(count, 3))
    assert z.count_nonzero() == 0
    assert not z.isnan().any()


def test_a_spread_far_below_the_mean_is_still_scored():
    # one float32 step apart around 1000: careful sums see it, the textbook E[x^2] - E[x]^2 in float32 would not
    values = torch.tensor([[1000.0, 1000.0 + 2**-13]])
    assert_close(standardize(values, torch.ones(1, 2)), torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("mask", [torch.zeros(2, 3), torch.zeros(2, 0), torch.zeros(0, 3)])
def test_standardize_of_nothing_is_zeros(mask):
    assert_close(standardize(torch.full_like(mask, NAN), mask), torch.zeros_like(mask))


def test_one_infinite_value_does_not_silence_the_batch():
    values = torch.tensor([[1.0, 3.0, INF, -INF]])
    assert_close(standardize(values, torch.ones(1, 4)), torch.tensor([[-1.0, 1.0, 0.0, 0.0]]))


def test_tiny_spreads_shrink_instead_of_inflating():
    values = torch.tensor([[-1e-10, 1e-10]], dtype=torch.float64)
    assert_close(standardize(values, torch.ones(1, 2)), torch.tensor([[-0.01, 0.01]], dtype=torch.float64))


def test_standardize_refuses_a_mask_that_would_broadcast():
    with pytest.raises(ValueError, match=r"values \(2, 2\), mask \(2,\)"):
        standardize(torch.ones(2, 2), torch.ones(2))


@given(st.integers(0, 10_000), st.floats(0.01, 1e3), st.floats(-1e3, 1e3))
def test_standardize_is_affine_invariant(seed, scale, shift):
    _, _, values, mask = random_batch(seed)
    values = torch.where(mask, values, torch.zeros_like(values))
    assert_close(standardize(scale * values + shift, mask), standardize(values, mask), rtol=1e-6, atol=1e-9)


@given(st.integers(0, 10_000))
def test_scores_have_mean_zero_and_unit_std(seed):
    _, _, values, mask = random_batch(seed)
    scores = standardize(values, mask)[mask]
    if len(scores) > 1:
        assert_close(scores.mean(), torch.zeros((), dtype=scores.dtype))
        assert_close(scores.std(correction=0), torch.ones((), dtype=scores.dtype))


def in_two_processes(values, mask, split):
    """Standardise two parts as two processes would: record what each one sends, then hand out all of it."""
    halves = [(values[:split], mask[:split]), (values[split:], mask[split:])]
    sent: list[torch.Tensor] = []
    for half in halves:
        standardize(*half, gather=lambda tensor: sent.append(tensor) or tensor)
    assert len(sent) == 2  # one round
    return torch.cat([standardize(*half, gather=lambda _: torch.cat(sent)) for half in halves])


@given(st.integers(0, 10_000), st.integers(0, 6))
def test_a_batch_split_over_two_processes_scores_as_a_whole(seed, split):
    _, _, values, mask = random_batch(seed)
    assert in_two_processes(values, mask, min(split, len(values))).equal(standardize(values, mask))


@given(st.integers(0, 10_000))
def test_row_order_and_padding_do_not_change_a_bit(seed):
    _, _, values, mask = random_batch(seed)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    padded, kept = torch.nn.functional.pad(values, (2, 5)), torch.nn.functional.pad(mask, (2, 5))
    scores = standardize(padded[order], kept[order])
    assert scores[:, 2:-5].equal(standardize(values, mask)[order])


def _gloo_worker(rank, folder, batches):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

    def gather(tensor):
        parts = [None, None]
        torch.distributed.all_gather_object(parts, tensor)
        return torch.cat(parts)

    rows = slice(0, 3) if rank == 0 else slice(3, None)
    scores = [standardize(values[rows], mask[rows], gather=gather) for values, mask in batches]
    torch.save(scores, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_real_processes_equal_one():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 4, generator=generator) + 100
    mask = torch.rand(5, 4, generator=generator) < 0.7
    values[4, 0] = NAN
    empty_first = mask.clone()
    empty_first[:3] = False  # a process with nothing to score must still take part
    batches = [(values, mask), (values, empty_first)]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_gloo_worker, (folder, batches), nprocs=2)
        parts = [torch.load(f"{folder}/{rank}.pt") for rank in (0, 1)]
    for *split, whole in zip(*parts, batches, strict=True):
        assert torch.cat(split).equal(standardize(*whole))


# ---------------------------------------------------------------- the filter


def test_filter_by_hand():
    z = torch.tensor([-15.97, -3.0001, -3.0, -0.5, 0.0, 3.0, 3.0001, INF])
    assert_close(filter_outliers(z), torch.tensor([0.0, 0.0, -3.0, -0.5, 0.0, 3.0, 0.0, 0.0]))
    assert_close(filter_outliers(z, threshold=0.4), torch.zeros(8))


@given(st.lists(st.floats(width=32), min_size=1), st.floats(0, 10))
def test_filter_is_idempotent_and_only_removes(values, threshold):
    z = torch.tensor(values)
    once = filter_outliers(z, threshold)
    assert_close(filter_outliers(once, threshold), once, rtol=0, atol=0, equal_nan=True)
    assert ((once == z) | (once == 0) | z.isnan()).all()


# ---------------------------------------------------------------- the ratio


@pytest.mark.parametrize("dtype", DTYPES)
def test_ratio_by_hand(dtype):
    old = torch.zeros(7, dtype=dtype)
    new = torch.tensor([0.0, math.log(2), math.log(999), 7.0, 1e4, -7.0, -INF], dtype=dtype)
    expected = torch.tensor([1.0, 2.0, 999.0, 1e3, 1e3, 1e-3, 1e-3], dtype=dtype)
    assert_close(importance_ratio(new, old), expected)
    assert importance_ratio(new, old).dtype == dtype


def test_without_pre_clip_the_ratio_overflows_as_documented():
    ratio = importance_ratio(torch.tensor([88.0, 89.0]), torch.zeros(2), pre_clip=None)
    assert ratio.isfinite().tolist() == [True, False]


@given(st.floats(1e-3 * 1.01, 1e3 / 1.01))
def test_pre_clip_changes_nothing_inside_its_bounds(ratio):
    new, old = torch.tensor([math.log(ratio)]), torch.zeros(1)
    assert torch.equal(importance_ratio(new, old), importance_ratio(new, old, pre_clip=None))


@given(st.floats(allow_nan=False, width=32))
def test_pre_clip_always_holds(log_ratio):
    ratio = importance_ratio(torch.tensor([log_ratio]), torch.zeros(1)).item()
    assert 1e-3 * (1 - 1e-5) <= ratio <= 1e3 * (1 + 1e-5)


@pytest.mark.parametrize("pre_clip", [(0.0, 10.0), (10.0, 0.1), (-1.0, 1.0), (1.0, 1.0)])
def test_pre_clip_refuses_impossible_bounds(pre_clip):
    with pytest.raises(ValueError, match="pre_clip"):
        importance_ratio(torch.zeros(1), torch.zeros(1), pre_clip=pre_clip)


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("dtype", DTYPES)
def test_worked_losses_of_the_paper(dtype):
    new = torch.full((1, 4), -0.1, dtype=dtype)
    old = torch.tensor([[-10.0, -0.2, -0.2, -5.0]], dtype=dtype)
    advantages, mask = torch.tensor([[-1.0, -1.0, 0.5, -0.5]], dtype=dtype), torch.ones(1, 4)
    # d        9.9       0.1       0.1       4.9
    # ratio    19930.4   1.10517   1.10517   134.29      (Pre-CLIP: the first becomes 1000)
    # clip     1.2       1.10517   1.10517   1.2
    # -min     19930.4   1.10517   -0.55259  67.145
    free = policy_loss(new, old, advantages, mask, pre_clip=None)
    assert [round(x, 1) for x in free.token_loss[0].tolist()] == [19930.4, 1.1, -0.6, 67.1]
    assert_close(free.token_loss[0, 2], torch.tensor(-0.5 * math.exp(0.1), dtype=dtype))
    held = policy_loss(new, old, advantages, mask)
    assert [round(x, 1) for x in held.token_loss[0].tolist()] == [1000.0, 1.1, -0.6, 67.1]
    assert_close(held.loss, held.token_loss.mean())


def test_loss_by_hand_means_over_tokens_then_over_sequences():
    # ratios   [2, 0.5, -] [1, -, -] [-, -, -]    advantages [1, -1] [3]     eps 0.2
    # losses   -min(2, 1.2) = -1.2;  -min(-0.5, -0.8) = 0.8;  -3
    # rows     (-1.2 + 0.8)/2 = -0.2;  -3;  empty        loss = (-0.2 - 3)/2 = -1.6
    new = torch.tensor([[2.0, 0.5, 7.0], [1.0, 7.0, 7.0], [7.0, 7.0, 7.0]]).log()
    advantages = torch.tensor([[1.0, -1.0, 5.0], [3.0, 5.0, 5.0], [5.0, 5.0, 5.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    out = policy_loss(new, torch.zeros(3, 3), advantages, mask)
    assert_close(out.token_loss, torch.tensor([[-1.2, 0.8, 0.0], [-3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert_close(out.loss, torch.tensor(-1.6))
    assert_close(policy_loss(new, torch.zeros(3, 3), advantages, mask, num_sequences=8).loss, torch.tensor(-0.4))


def test_gradient_by_hand():
    # d loss / d logp of a token = -ratio * A where PPO's first branch is active and Pre-CLIP is not, else 0
    # ratio            1.1    2 (clipped: A > 0)   2 (not: A < 0)   0.5 (clipped: A < 0)   e^8 (Pre-CLIP)
    ratios, advantages = [1.1, 2.0, 2.0, 0.5, math.exp(8)], [1.0, 1.0, -1.0, -1.0, -1.0]
    logps = torch.tensor([ratios], dtype=torch.float64).log().requires_grad_()
    old, mask = torch.zeros(1, 5, dtype=torch.float64), torch.ones(1, 5)
    policy_loss(logps, old, torch.tensor([advantages], dtype=torch.float64), mask).loss.backward()
    assert_close(logps.grad, torch.tensor([[-1.1, 0.0, 2.0, 0.0, 0.0]], dtype=torch.float64) / 5)


@pytest.mark.parametrize("pre_clip", [(1e-3, 1e3), (0.5, 2.0), None])
@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(8))
def test_loss_equals_the_slow_twin(seed, spread, pre_clip):
    new, old, advantages, mask = random_batch(seed, spread=spread)
    expected = slow_loss(new.tolist(), old.tolist(), advantages.tolist(), mask.tolist(), 0.2, pre_clip)
    actual = policy_loss(new, old, advantages, mask, pre_clip=pre_clip).loss
    assert_close(actual, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(8))
def test_infinite_ratios_equal_the_slow_twin(seed):
    new, old, advantages, mask = random_batch(seed)
    new[::2] = torch.where(mask[::2], -INF, new[::2])
    old[1::2] = torch.where(mask[1::2], -INF, old[1::2])
    expected = slow_loss(new.tolist(), old.tolist(), advantages.tolist(), mask.tolist(), 0.2, (1e-3, 1e3))
    out = policy_loss(new, old, advantages, mask)
    assert_close(out.loss, torch.tensor(expected, dtype=torch.float64))
    assert out.max_log_ratio == INF
    assert out.approx_kl.isfinite()


@given(st.integers(0, 10_000))
def test_inside_the_bounds_the_loss_is_ppos(seed):
    new, old, advantages, mask = random_batch(seed)  # |log-ratio| stays far below log 1e3 = 6.9
    held, free = (policy_loss(new, old, advantages, mask, pre_clip=bounds) for bounds in ((1e-3, 1e3), None))
    assert held.max_log_ratio < 6.9
    assert torch.equal(held.token_loss, free.token_loss)
    assert held.pre_clipped == 0


@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2))
def test_padding_changes_nothing(seed, left, right, below):
    batch = random_batch(seed)
    pads = (left, right, 0, below)
    padded = [
        torch.nn.functional.pad(x, pads, value=value) for x, value in zip(batch, (NAN, -INF, INF, 0), strict=True)
    ]
    for plain, wide in zip(policy_loss(*batch), policy_loss(*padded), strict=True):
        wide = wide[: len(plain), left : left + plain.shape[1]] if plain.dim() else wide
        assert_close(wide, plain)


@given(st.integers(0, 10_000), st.randoms())
def test_order_of_sequences_changes_nothing(seed, random):
    batch = random_batch(seed)
    order = list(range(len(batch[0])))
    random.shuffle(order)
    plain, shuffled = policy_loss(*batch), policy_loss(*(x[order] for x in batch))
    assert_close(shuffled._replace(token_loss=None), plain._replace(token_loss=None))
    assert_close(shuffled.token_loss, plain.token_loss[order])


@given(st.integers(0, 10_000), st.integers(0, 6))
def test_micro_batches_with_the_big_count_add_up(seed, split):
    batch = random_batch(seed)
    whole = policy_loss(*batch).loss
    sequences = max(int(batch[3].any(1).sum()), 1)
    parts = [
        policy_loss(*(x[rows] for x in batch), num_sequences=sequences).loss
        for rows in (slice(split), slice(split, None))
    ]
    assert_close(parts[0] + parts[1], whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("garbage", [NAN, INF, -INF])
def test_masked_out_garbage_reaches_neither_loss_nor_gradient(garbage, dtype):
    clean = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], dtype=dtype)
    mask = torch.tensor([[1, 0], [1, 0]])
    dirty = torch.where(mask.bool(), clean, garbage).requires_grad_()
    clean.requires_grad_()
    old, advantages = torch.full((2, 2), -0.8, dtype=dtype), torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=dtype)
    losses = [policy_loss(new, old, advantages, mask).loss for new in (clean, dirty)]
    losses.append(policy_loss(clean, torch.where(mask.bool(), old, garbage), advantages, mask).loss)
    assert losses[0] == losses[1] == losses[2]
    losses[0].backward()
    losses[1].backward()
    assert clean.grad.abs().sum() > 0
    assert torch.equal(dirty.grad, clean.grad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("log_ratio", [-INF, -1e4, -100.0, 0.0, 100.0, 1e4, INF])
def test_with_pre_clip_everything_is_finite(log_ratio, advantage, dtype):
    old = torch.zeros(2, 3, dtype=dtype)
    new = torch.full((2, 3), log_ratio, dtype=dtype).requires_grad_()
    out = policy_loss(new, old, torch.full((2, 3), advantage, dtype=dtype), torch.ones(2, 3))
    out.loss.backward()
    assert out.loss.isfinite()
    assert out.approx_kl.isfinite()
    assert new.grad.isfinite().all()
    assert out.loss.dtype == dtype


@pytest.mark.parametrize(("advantage", "loss"), [(0.0, 0.0), (1.0, -1.2), (-1.0, INF)])
def test_overflow_without_pre_clip_is_as_documented(advantage, loss):
    new = torch.full((1, 2), 1e4).requires_grad_()
    out = policy_loss(new, torch.zeros(1, 2), torch.full((1, 2), advantage), torch.ones(1, 2), pre_clip=None)
    out.loss.backward()
    assert_close(out.loss, torch.tensor(loss))
    assert_close(new.grad, torch.full((1, 2), 0.0 if advantage >= 0 else INF))


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_an_empty_mask_gives_zero_loss_and_zero_gradient(shape):
    new = torch.full(shape, NAN).requires_grad_()
    out = policy_loss(new, torch.zeros(shape), torch.ones(shape), torch.zeros(shape))
    out.loss.backward()
    assert [x.item() for x in out if x.dim() == 0] == [0.0] * 5
    assert_close(new.grad, torch.zeros(shape))


def test_metrics_by_hand():
    # log-ratios   log 2   log 0.5   -8 (< -6.9)   8 (> 6.9)   0    log 2   log 0.5   (two masked out)
    # advantage    1       1         0             -1          1    -1      -1
    # PPO clips    yes     no        no            no          no   no      yes
    # k3           r - 1 - log r: 2-1-log 2 and 0.5-1+log 2, twice each; e^-8-1+8; e^8-1-8; 0
    ratios = [[2.0, 0.5, math.exp(-8)], [math.exp(8), 1.0, 2.0], [0.5, 1e9, 1e-9]]
    new = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 1.0, -1.0], [-1.0, 1.0, -1.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0]])
    out = policy_loss(new, torch.zeros_like(advantages), advantages, mask)
    assert_close(out.pre_clipped.item(), 2 / 7)
    assert_close(out.ppo_clipped.item(), 2 / 7)
    assert_close(out.max_log_ratio.item(), 8.0)
    k3 = 2 * (2 - 1 - math.log(2)) + 2 * (0.5 - 1 + math.log(2)) + (math.exp(-8) + 7) + (math.exp(8) - 9)
    assert_close(out.approx_kl.item(), k3 / 7)
    assert out.loss.requires_grad
    assert out.token_loss.requires_grad
    assert not any(x.requires_grad for x in out[2:])


@pytest.mark.parametrize("log_ratio", [-30.0, 30.0])
def test_max_log_ratio_is_a_magnitude_before_pre_clip(log_ratio):
    new = torch.tensor([[log_ratio, 1.0]])
    assert policy_loss(new, torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2)).max_log_ratio == 30.0


def test_lower_precision_is_upcast_to_float32():
    half = torch.tensor([[-1.0, -2.0]], dtype=torch.bfloat16)
    assert policy_loss(half, half, half, torch.ones(1, 2)).loss.dtype == torch.float32
    assert standardize(half, torch.ones(1, 2)).dtype == torch.float32


def test_no_gradient_reaches_old_policy_or_advantages():
    new, old, advantages = (torch.full((1, 2), x).requires_grad_() for x in (-1.0, -1.1, 0.5))
    policy_loss(new, old, advantages, torch.ones(1, 2)).loss.backward()
    assert new.grad is not None
    assert old.grad is None
    assert advantages.grad is None


@pytest.mark.parametrize("name", ["old_logps", "advantages", "mask"])
def test_loss_refuses_shapes_that_would_broadcast(name):
    inputs = {key: torch.zeros(2, 2) for key in ("logps", "old_logps", "advantages", "mask")}
    with pytest.raises(ValueError, match=rf"{name} \(2,\)"):
        policy_loss(**{**inputs, name: torch.zeros(2)})


@pytest.mark.parametrize("kwargs", [{"clip_eps": 0.0}, {"clip_eps": -0.2}, {"num_sequences": 0.0}])
def test_loss_refuses_non_positive_settings(kwargs):
    with pytest.raises(ValueError, match="positive"):
        policy_loss(*[torch.zeros(1, 1)] * 4, **kwargs)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_inputs_are_not_changed(seed):
    batch = random_batch(seed)
    copies = [x.clone() for x in batch]
    policy_loss(*batch)
    filter_outliers(standardize(batch[2], batch[3]))
    discounted_returns(torch.ones(len(batch[3])), batch[3], kl=batch[2], kl_coef=0.1)
    assert_close(list(batch), copies, equal_nan=True)


def test_docstring():
    assert doctest.testmod(algorithm).failed == 0
