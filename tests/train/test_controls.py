"""The controls beside the paper: by hand on sequences of different lengths, by finite differences, what is refused."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
from torch.testing import assert_close

from r1_reward.algorithm import Clip, policy_loss, pre_clip_bias
from r1_reward.train import controls
from r1_reward.train.algorithms import ALGORITHMS
from r1_reward.train.controls import (
    LEVELS,
    Controls,
    cispo_anchor,
    sampler_shares,
    sequence_anchor,
    token_mean_weights,
)

torch.set_num_threads(1)

NAN, INF = math.nan, math.inf
GARBAGE = 7.0
PAPER, PLAIN = ALGORITHMS["stable_reinforce"], ALGORITHMS["grpo"]


def logs(ratios):
    """Log-probabilities whose ratios to 0 are these; None stands for a place outside the mask."""
    mask = torch.tensor([[r is not None for r in row] for row in ratios])
    values = [[GARBAGE if r is None else math.log(r) if r else -INF for r in row] for row in ratios]
    return torch.tensor(values, dtype=torch.float64).requires_grad_(), mask


def spread(values, mask):
    """One value a sequence, at each of its tokens."""
    return torch.tensor(values, dtype=torch.float64)[:, None].expand(mask.shape)


def loss_of(chosen, logps, old, advantages, mask, **options):
    """What the trainer does with a rollout of one process; Pre-CLIP is off."""
    if chosen.cap() is not None:
        advantages = advantages * token_mean_weights(mask, tokens=mask.sum(), sequences=torch.tensor(len(mask)))
    anchors = chosen.anchors(logps, old, mask)
    return policy_loss(logps, anchors, advantages, mask, clip_eps=chosen.clip(), pre_clip=None, **options)


def random_batch(seed, size=0.5):
    """B in 2..5, T in 2..6, float64, with padding, holes and garbage outside the mask."""
    rng = torch.Generator().manual_seed(seed)
    b, t = (int(torch.randint(2, high, (), generator=rng)) for high in (6, 7))
    mask = torch.rand(b, t, generator=rng) < 0.7
    old = -torch.rand(b, t, generator=rng, dtype=torch.float64)
    new = old + size * torch.randn(b, t, generator=rng, dtype=torch.float64)
    advantages = torch.randn(b, 1, generator=rng, dtype=torch.float64).expand(b, t)
    garbage = torch.tensor([NAN, INF, -INF], dtype=torch.float64)[torch.randint(0, 3, (3, b, t), generator=rng)]
    new, old, advantages = (torch.where(mask, x, g) for x, g in zip((new, old, advantages), garbage, strict=True))
    return new, old, advantages, mask


def finite_differences(function, logps, mask, step=1e-6):
    """The derivative of a number with respect to each masked entry of ``logps``."""
    gradient = torch.zeros_like(logps)
    for place in mask.nonzero().tolist():
        ends = []
        for sign in (1, -1):
            moved = logps.detach().clone()
            moved[tuple(place)] += sign * step
            ends.append(function(moved))
        gradient[tuple(place)] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def test_the_example_of_the_page():
    assert doctest.testmod(controls).failed == 0
    assert "sequence_anchor" in (controls.__doc__ or "")


# ---------------------------------------------------------------- off: the paper's arguments, and its loss to the bit


def test_with_every_control_off_the_loss_gets_the_papers_arguments():
    off = Controls()
    old = torch.zeros(2, 3)
    assert off.anchors(torch.ones(2, 3), old, torch.ones(2, 3)) is old
    assert (off.clip(), type(off.clip()), off.cap()) == (0.2, float, None)
    off.check(PAPER, (1e-3, 1e3))


@pytest.mark.parametrize("pre_clip", [(1e-3, 1e3), None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(6))
def test_equal_sides_are_the_papers_clip_to_the_bit(seed, dtype, pre_clip):
    batch = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in random_batch(seed, size=2.0)]
    new, old, advantages, mask = batch
    plain, sides = (new.clone().requires_grad_() for _ in range(2))
    one = policy_loss(plain, old, advantages, mask, pre_clip=pre_clip)
    two = policy_loss(sides, old, advantages, mask, clip_eps=Clip(0.2, 0.2), pre_clip=pre_clip)
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left, right)
    one.loss.backward()
    two.loss.backward()
    assert torch.equal(plain.grad, sides.grad)
    # and that is the formula of the paper, written out
    new, old, advantages = (torch.where(mask, x, torch.zeros_like(x)) for x in (new, old, advantages))
    log_ratio = new - old
    ratio = (log_ratio.clamp(math.log(1e-3), math.log(1e3)) if pre_clip else log_ratio).exp()
    token_loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - 0.2, 1 + 0.2) * advantages)
    lengths = mask.sum(1)
    assert torch.equal(one.loss, (token_loss.sum(1) / lengths.clamp_min(1)).sum() / (lengths > 0).sum().clamp_min(1))


# ---------------------------------------------------------------- asymmetric clip (DAPO's clip-higher)


def test_asymmetric_clip_by_hand():
    logps, mask = logs([[1.25, 0.7, None], [None, None, 1.5]])
    advantages = torch.tensor([[1.0, -1.0, GARBAGE], [GARBAGE, GARBAGE, 2.0]], dtype=torch.float64)
    # 1.25 is inside 1.28; 0.7 is held at 0.8; 1.5 at 1.28
    out = loss_of(Controls(epsilon_high=0.28), logps, torch.zeros_like(logps), advantages, mask)
    expected = torch.tensor([[-1.25, 0.8, 0.0], [0.0, 0.0, -2.56]], dtype=torch.float64)
    assert_close(out.token_loss, expected)
    assert_close(out.loss.item(), ((-1.25 + 0.8) / 2 - 2.56) / 2)
    assert_close(out.ppo_clipped.item(), 2 / 3)
    out.loss.backward()
    assert_close(logps.grad, torch.tensor([[-1.25 / 4, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64))
    # the paper's clip holds the first token, too
    assert_close(
        loss_of(Controls(), logps, torch.zeros_like(logps), advantages, mask).loss.item(), (-0.4 / 2 - 2.4) / 2
    )


def test_each_side_has_its_own_width():
    logps, mask = logs([[0.85, 1.15, 0.85, 1.15]])
    advantages = torch.tensor([[-1.0, 1.0, 1.0, -1.0]], dtype=torch.float64)
    narrow_below = loss_of(Controls(epsilon=0.1, epsilon_high=0.2), logps, torch.zeros_like(logps), advantages, mask)
    narrow_above = loss_of(Controls(epsilon=0.2, epsilon_high=0.1), logps, torch.zeros_like(logps), advantages, mask)
    assert_close(narrow_below.token_loss.tolist(), [[0.9, -1.15, -0.85, 1.15]])
    assert_close(narrow_above.token_loss.tolist(), [[0.85, -1.1, -0.85, 1.15]])


# ---------------------------------------------------------------- dual clip


def test_dual_clip_by_hand():
    logps, mask = logs([[5.0, 2.0, 0.5], [None, 5.0, None]])
    advantages = spread([-1.0, 1.0], mask)
    out = loss_of(Controls(delta=3.0), logps, torch.zeros_like(logps), advantages, mask)
    # max(min(r A, clip(r) A), 3 A) for A = -1; the other sequence is PPO's
    assert_close(out.token_loss, torch.tensor([[3.0, 2.0, 0.8], [0.0, -1.2, 0.0]], dtype=torch.float64))
    assert_close(out.loss.item(), (5.8 / 3 - 1.2) / 2)
    assert_close(out.ppo_clipped.item(), 3 / 4)
    out.loss.backward()
    assert_close(logps.grad, torch.tensor([[0.0, 2.0 / 6, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(6))
def test_dual_clip_is_the_papers_formula(seed, size):
    new, old, advantages, mask = random_batch(seed, size=size)
    out = policy_loss(new, old, advantages, mask, clip_eps=Clip(0.2, 0.28, 2.0), pre_clip=None)
    for i, t in mask.nonzero().tolist():
        r, a = math.exp(new[i, t] - old[i, t]), advantages[i, t].item()
        objective = min(r * a, min(max(r, 0.8), 1.28) * a)
        assert out.token_loss[i, t].item() == pytest.approx(-(objective if a >= 0 else max(objective, 2.0 * a)))


@pytest.mark.parametrize("pre_clip", [(1e-3, 1e3), None])
def test_dual_clip_keeps_infinite_ratios_finite(pre_clip):
    logps = torch.tensor([[INF, 800.0, 0.1]], dtype=torch.float64, requires_grad=True)
    advantages, mask = torch.full((1, 3), -2.0, dtype=torch.float64), torch.ones(1, 3)
    out = policy_loss(logps, torch.zeros_like(logps), advantages, mask, clip_eps=Clip(0.2, 0.2, 3.0), pre_clip=pre_clip)
    out.loss.backward()
    assert_close(out.token_loss, torch.tensor([[6.0, 6.0, 2 * math.exp(0.1)]], dtype=torch.float64))
    assert_close(logps.grad, torch.tensor([[0.0, 0.0, 2 * math.exp(0.1) / 3]], dtype=torch.float64))


def test_the_bias_of_pre_clip_knows_what_the_dual_clip_took():
    # log-ratio 8 with A < 0 has no gradient under the dual clip: Pre-CLIP takes nothing from it
    logps, advantages = torch.tensor([[8.0, 0.0]]), torch.tensor([[-1.0, -1.0]])
    batch = (logps, torch.zeros(1, 2), advantages, torch.ones(1, 2))
    assert pre_clip_bias(*batch).changed_share == 0.5
    assert tuple(map(float, pre_clip_bias(*batch, Clip(0.2, 0.2, 3.0)))) == (1.0, 1.0, 0.0)
    # and with a wide upper side, A > 0 has one to lose at 1.5
    batch = (torch.tensor([[1.5, 1.0]]).log(), torch.zeros(1, 2), -advantages, torch.ones(1, 2))
    assert pre_clip_bias(*batch, 0.2, (0.1, 1.4)).changed_share == 0.0
    assert pre_clip_bias(*batch, Clip(0.2, 0.6), (0.1, 1.4)).changed_share == 0.5


@pytest.mark.parametrize("bad", [Clip(0.0, 0.2), Clip(0.2, -1.0), Clip(0.2, 0.3, 1.3), Clip(0.2, 0.3, NAN), 0.0])
def test_bad_clips_are_refused(bad):
    with pytest.raises(ValueError, match="must be positive|must be above"):
        policy_loss(*[torch.zeros(1, 1)] * 4, clip_eps=bad)


# ---------------------------------------------------------------- GSPO (the sequence's ratio)


def test_sequence_ratio_by_hand():
    # s: sqrt(4 * 1) = 2, sqrt(0.81 * 1) = 0.9, and 1.1 of a lone token
    logps, mask = logs([[4.0, 1.0, None], [0.81, None, 1.0], [None, 1.1, None]])
    old, advantages = torch.zeros_like(logps), spread([1.0, -1.0, 2.0], mask)
    out = loss_of(Controls(importance_sampling_level="sequence"), logps, old, advantages, mask)
    # 2 is held at 1.2; 0.9 and 1.1 are inside
    expected = [[-1.2, -1.2, 0.0], [0.9, 0.0, 0.9], [0.0, -2.2, 0.0]]
    assert_close(out.token_loss, torch.tensor(expected, dtype=torch.float64))
    assert_close(out.loss.item(), (-1.2 + 0.9 - 2.2) / 3)
    assert_close(out.ppo_clipped.item(), 2 / 5)
    out.loss.backward()
    expected = [[0.0, 0.0, 0.0], [0.15, 0.0, 0.15], [0.0, -2.2 / 3, 0.0]]  # s A / length / sequences
    assert_close(logps.grad, torch.tensor(expected, dtype=torch.float64))


def slow_gspo(new, old, advantages, mask, low, high, dual):
    """GSPO's objective, one number a sequence, from its formula."""
    losses = []
    for i in range(len(mask)):
        tokens = [t for t in range(mask.shape[1]) if mask[i, t]]
        if tokens:
            s = math.exp(math.fsum((new[i, t] - old[i, t]).item() for t in tokens) / len(tokens))
            a = advantages[i, tokens[0]].item()
            objective = min(s * a, min(max(s, 1 - low), 1 + high) * a)
            losses.append(-(objective if a >= 0 else max(objective, dual * a)))
    return math.fsum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("dual", [None, 1.5])
@pytest.mark.parametrize("size", [0.2, 2.0])
@pytest.mark.parametrize("seed", range(6))
def test_gspo_and_its_gradient_by_finite_differences(seed, size, dual):
    new, old, advantages, mask = random_batch(seed, size=size)
    chosen = Controls(importance_sampling_level="sequence", epsilon=0.1, epsilon_high=0.3, delta=dual)
    logps = new.clone().requires_grad_()
    loss = loss_of(chosen, logps, old, advantages, mask).loss
    rest = (old, advantages, mask, 0.1, 0.3, dual or INF)
    assert_close(loss.item(), slow_gspo(new, *rest))
    loss.backward()
    assert_close(logps.grad, finite_differences(lambda x: slow_gspo(x, *rest), new, mask), atol=1e-7, rtol=1e-6)


def test_advantages_that_differ_by_token_keep_their_tokens():
    # GSPO-token: with s = 1 the gradient of a token is its own -A / length, not that of the mean advantage
    logps, mask = logs([[1.0, 1.0]])
    advantages = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    loss_of(
        Controls(importance_sampling_level="sequence"), logps, torch.zeros_like(logps), advantages, mask
    ).loss.backward()
    assert_close(logps.grad.tolist(), [[-1.5, 0.5]])


@pytest.mark.parametrize("seed", range(4))
def test_a_sequence_of_one_token_has_its_own_ratio(seed):
    new, old, advantages, _ = random_batch(seed)
    mask = torch.zeros(new.shape, dtype=torch.bool)
    mask[:, 0] = True
    new, old = (torch.where(mask, x.nan_to_num(-1.0, -1.0, -1.0), x) for x in (new, old))
    advantages = advantages.nan_to_num(1.0, 1.0, 1.0)
    losses = [loss_of(Controls(importance_sampling_level=x), new, old, advantages, mask).loss for x in LEVELS]
    assert_close(*losses)


# ---------------------------------------------------------------- CISPO


def test_cispo_by_hand():
    logps, mask = logs([[8.0, 0.5, None], [None, 2.0, None], [8.0, None, None]])
    advantages = spread([1.0, -1.0, -1.0], mask)
    chosen = Controls(loss_type="cispo", epsilon_high=5.0)
    out = loss_of(chosen, logps, torch.zeros_like(logps), advantages, mask, num_sequences=3)
    out.loss.backward()
    # -min(r, 5) A over the four tokens, whatever the lengths: no token is without a gradient
    expected = [[-5 / 4, -0.5 / 4, 0.0], [0.0, 2 / 4, 0.0], [5 / 4, 0.0, 0.0]]
    assert_close(logps.grad, torch.tensor(expected, dtype=torch.float64))
    assert_close(out.loss.item(), (-5 - 0.5 + 2 + 5) / 4)
    assert out.ppo_clipped == 0


@pytest.mark.parametrize("cap", [1.0, 1.3, 5.0])
@pytest.mark.parametrize("seed", range(6))
def test_cispos_gradient_is_that_of_the_papers_formula(seed, cap):
    new, old, advantages, mask = random_batch(seed, size=1.5)
    ours, theirs = (new.clone().requires_grad_() for _ in range(2))
    chosen = Controls(loss_type="cispo", epsilon_high=cap)
    loss_of(chosen, ours, old, advantages, mask, num_sequences=len(mask)).loss.backward()
    inside = [torch.where(mask, x, torch.zeros_like(x)) for x in (theirs, old, advantages)]
    weights = (inside[0] - inside[1]).exp().clamp(max=cap).detach()
    (-(weights * inside[2] * inside[0]).sum() / mask.sum().clamp_min(1)).backward()
    assert_close(ours.grad, torch.where(mask, theirs.grad, torch.zeros_like(new)))


def test_weights_of_a_token_mean_by_hand():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    weights = token_mean_weights(mask, tokens=torch.tensor(4), sequences=torch.tensor(3))
    assert_close(weights, torch.tensor([[9 / 4], [3 / 4], [0.0]]))
    # another process holds 8 tokens in two sequences
    assert_close(token_mean_weights(mask, tokens=torch.tensor(12), sequences=torch.tensor(5))[0].item(), 15 / 12)
    empty = torch.zeros(2, 3, dtype=torch.long)
    assert (token_mean_weights(empty, tokens=torch.tensor(0), sequences=torch.tensor(2)) == 0).all()


# ---------------------------------------------------------------- what all of them share


@pytest.mark.parametrize(
    "chosen",
    [
        Controls(epsilon_high=0.28), Controls(delta=3.0), Controls(importance_sampling_level="sequence"),
        Controls(loss_type="cispo", epsilon_high=5.0),
    ],
    ids=["asymmetric", "dual", "gspo", "cispo"],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(4))
def test_what_lies_outside_the_mask_changes_nothing(chosen, seed):
    new, old, advantages, mask = random_batch(seed)
    results = []
    for fill in (0.0, NAN, INF, -INF):
        logps = torch.where(mask, new, torch.full_like(new, fill)).requires_grad_()
        out = loss_of(
            chosen, logps, torch.where(mask, old, torch.full_like(old, fill)), advantages, mask, num_sequences=5
        )
        out.loss.backward()
        results.append((out.loss.item(), logps.grad.tolist()))
    assert math.isfinite(results[0][0])
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("anchor", [sequence_anchor, lambda x, y, mask: cispo_anchor(x, y, cap=5.0)])
def test_half_precision_is_raised(anchor):
    half = torch.full((1, 2), -1.0, dtype=torch.bfloat16)
    assert anchor(half, half, torch.ones(1, 2)).dtype == torch.float32


# ---------------------------------------------------------------- what the sampler's correction does


def test_shares_of_the_samplers_correction_by_hand():
    factors = torch.tensor([[3.0, 1.0, 0.0], [0.5, 2.9999998, 3.0000002]])
    masked, truncated = sampler_shares(factors, low=0.5, high=3.0)
    assert masked.tolist() == [[False, False, True], [False, False, False]]
    assert truncated.tolist() == [[True, False, False], [True, False, False]]
    assert sampler_shares(factors, low=None, high=None)[1].sum() == 0
    masked, truncated = sampler_shares(torch.tensor([[0.0], [3.0], [1.0]]), low=0.0, high=3.0)
    assert (masked.tolist(), truncated.tolist()) == ([[True], [False], [False]], [[False], [True], [False]])


# ---------------------------------------------------------------- what is refused

PRE_CLIP = (1e-3, 1e3)
CISPO = {"loss_type": "cispo", "epsilon_high": 5.0}
SEQUENCE = {"importance_sampling_level": "sequence"}


@pytest.mark.parametrize(
    ("algorithm", "pre_clip", "options", "message"),
    [
        (
            PAPER,
            PRE_CLIP,
            SEQUENCE,
            "sequence does not combine with Pre-CLIP.*is not the sequence's.*pre_clip to null",
        ),
        ("rloo", (0.1, 10.0), SEQUENCE, "sequence does not combine with Pre-CLIP"),
        ("dr_grpo", None, SEQUENCE, "does not combine with algorithm dr_grpo"),
        (PAPER, PRE_CLIP, CISPO, "cispo does not combine with Pre-CLIP.*pre_clip to null"),
        (PLAIN, None, {**CISPO, **SEQUENCE}, "cispo does not combine with importance_sampling_level sequence"),
        (PLAIN, None, {**CISPO, "delta": 9.0}, "cispo does not combine with delta"),
        ("dr_grpo", None, CISPO, "cispo does not combine with algorithm dr_grpo"),
        (PLAIN, None, {"loss_type": "cispo"}, "cispo needs an epsilon_high.*got None"),
        (PLAIN, None, {**CISPO, "epsilon_high": 0.28}, "cispo needs an epsilon_high.*got 0.28"),
        (PLAIN, None, {**CISPO, "epsilon_high": NAN}, "cispo needs an epsilon_high|epsilon_high must be positive"),
        (PLAIN, None, {**CISPO, "epsilon_high": INF}, "cispo needs an epsilon_high"),
        (PLAIN, None, {**CISPO, "epsilon": 0.3}, "epsilon has no effect with loss_type cispo.*leave it at 0.2"),
        (PLAIN, None, {"delta": 1.2}, "delta must be above 1.2"),
        (PLAIN, None, {"delta": 1.25, "epsilon_high": 0.28}, "delta must be above 1.28"),
        (PLAIN, None, {"delta": NAN}, "delta must be above"),
        (PLAIN, None, {"delta": INF}, "delta must be above"),
        (PAPER, PRE_CLIP, {"delta": 1e3}, "delta 1000 has no effect: Pre-CLIP ends at 1000"),
        (PLAIN, None, {"epsilon": 0.0}, "epsilon must be positive"),
        (PAPER, PRE_CLIP, {"epsilon": -0.2, "epsilon_high": 0.28}, "epsilon must be positive"),
        (PLAIN, None, {"epsilon": NAN}, "epsilon must be positive"),
        (PLAIN, None, {"epsilon_high": 0.0}, "epsilon_high must be positive"),
        (PLAIN, None, {"epsilon_high": NAN}, "epsilon_high must be positive"),
        (PLAIN, None, {"loss_type": "dapo"}, "loss_type must be one of grpo, cispo; got 'dapo'"),
        (PLAIN, None, {"loss_type": "vespo"}, "loss_type must be one of grpo, cispo; got 'vespo'"),
        (PLAIN, None, {"importance_sampling_level": "sentence"}, "importance_sampling_level must be one of"),
        (PLAIN, None, {"vllm_importance_sampling_mode": "truncate"}, "vllm_importance_sampling_mode must be one of"),
        *(
            (PLAIN, None, {f"vllm_importance_sampling_clip_{side}": value}, "must be at least 0 and enclose 1")
            for side, value in (("max", 0.5), ("max", 0.0), ("max", NAN), ("min", 1.5), ("min", -0.1), ("min", NAN))
        ),
    ],
)
def test_what_does_not_combine_is_refused_with_the_reason(algorithm, pre_clip, options, message):
    algorithm = ALGORITHMS[algorithm] if isinstance(algorithm, str) else algorithm
    with pytest.raises(ValueError, match=message):
        Controls(**options).check(algorithm, pre_clip)


@pytest.mark.parametrize(
    ("algorithm", "pre_clip", "options"),
    [
        (PAPER, PRE_CLIP, {"epsilon_high": 0.28, "delta": 3.0}),
        (PAPER, None, {**SEQUENCE, "epsilon": 3e-4, "epsilon_high": 4e-4, "delta": 3.0}),
        (PAPER, None, CISPO),
        (ALGORITHMS["dr_grpo"], None, {"epsilon_high": 0.28, "delta": 3.0}),
        (PLAIN, None, {**SEQUENCE, "vllm_importance_sampling_mode": "token_mask"}),
        (PLAIN, None, {"vllm_importance_sampling_clip_min": 0.5, "vllm_importance_sampling_clip_max": None}),
        (PLAIN, None, {"vllm_importance_sampling_clip_min": 1.0, "vllm_importance_sampling_clip_max": 1.5}),
    ],
)
def test_what_combines_is_taken(algorithm, pre_clip, options):
    Controls(**options).check(algorithm, pre_clip)
