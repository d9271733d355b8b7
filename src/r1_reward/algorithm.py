"""StableReinforce (arXiv 2505.02835) as pure tensor functions: rewards in, one loss out.

StableReinforce is REINFORCE++ with three changes. This file has two of them, Pre-CLIP and the advantage filter; the
third, the consistency reward, is in :mod:`r1_reward.rewards`. Other algorithms combine the same functions differently;
:mod:`r1_reward.train.algorithms` lists them. One update, from top to bottom::

    returns = discounted_returns(rewards, mask)                  # every token carries its sequence's reward
    advantages = filter_outliers(standardize(returns, mask))     # z-score over the global batch, then the 3-sigma rule
    out = policy_loss(logps, old_logps, advantages, mask)        # Pre-CLIP, then PPO's clipped objective
    out.loss.backward()

Example: four sequences of two tokens, three rewarded; the policy has not moved, so every ratio is 1.

>>> import torch
>>> rewards, mask = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.ones(4, 2)
>>> advantages = filter_outliers(standardize(discounted_returns(rewards, mask), mask))
>>> advantages[:, 0].tolist()
[0.5773502588272095, 0.5773502588272095, 0.5773502588272095, -1.7320507764816284]
>>> logps = torch.full((4, 2), -0.7, requires_grad=True)
>>> round(policy_loss(logps, logps.detach(), advantages, mask).loss.item(), 6)
0.0

Shapes and units:
    B            sequences (one sampled judgment each)
    T            response tokens, padded
    rewards      (B,)    the scalar R of a sequence; NaN where it could not be scored
    mask         (B, T)  true (or non-zero) at tokens the policy sampled: padding on either side and holes are allowed
    logps        (B, T)  natural-log probabilities of the sampled tokens under the policy being trained
    old_logps    (B, T)  the same under the policy that sampled them
    advantages   (B, T)  in standard deviations of the global batch

"Global batch" means the samples of every process; functions that need it take ``gather``.

Values outside the mask, NaN and infinities included, never affect a result or a gradient.
Inputs below float32 are upcast to float32; float64 stays float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

PRE_CLIP = (1e-3, 1e3)
"""Bounds of the importance ratio in the paper."""

_ROUNDING = 1e-13  # a spread this small relative to the mean is rounding error between equal values
_KL_LOG_RATIO = 20.0  # log-ratios are clamped here in the KL estimate, so that one outlier cannot make it infinite


class Clip(NamedTuple):
    """PPO's clip range ``[1 - low, 1 + high]`` with separate sides and an optional dual clip.

    The paper uses ``low == high`` and no ``dual``; :mod:`r1_reward.train.controls` cites the sources of the others.
    """

    low: float
    high: float
    dual: float = math.inf
    """Upper bound of the ratio where the advantage is negative; PPO itself has none there."""


class PolicyLoss(NamedTuple):
    """The loss of a batch, and metrics that show whether training is stable.

    The metrics are detached scalars over the masked tokens, 0 if there are none.
    """

    loss: Tensor
    """Scalar to minimize: mean over the tokens of a sequence, then mean over sequences."""
    token_loss: Tensor
    """(B, T), differentiable; 0 outside the mask."""
    pre_clipped: Tensor
    """Share of tokens, in [0, 1], whose ratio was outside the Pre-CLIP bounds."""
    ppo_clipped: Tensor
    """Share of tokens, in [0, 1], for which PPO's clip was the active branch."""
    max_log_ratio: Tensor
    """Largest |logp_new - logp_old|, before Pre-CLIP, in nats."""
    approx_kl: Tensor
    """Mean of (r - 1) - log r, an estimate in nats of KL(old || new); log-ratios are clamped to +-20."""


class PreClipBias(NamedTuple):
    """How Pre-CLIP changes the gradient of the loss with respect to the log-probabilities (not the parameters).

    Pre-CLIP zeroes the gradient of some tokens and leaves the others unchanged, so in this space the clipped gradient
    is a projection of the free one, and ``cosine`` equals ``norm_ratio``. In parameter space the tokens' gradients
    overlap and the two differ.
    """

    cosine: Tensor
    """Cosine, in [0, 1], of the gradient with Pre-CLIP to the one without; 1 if none is removed, 0 if all is."""
    norm_ratio: Tensor
    """Norm of the gradient with Pre-CLIP over the norm without, in [0, 1]."""
    changed_share: Tensor
    """Share of tokens, in [0, 1], that lose a gradient; PolicyLoss.pre_clipped also counts those that had none."""


def discounted_returns(
    rewards: Tensor, mask: Tensor, *, kl: Tensor | None = None, kl_coef: float = 0.0, gamma: float = 1.0
) -> Tensor:
    """Return the discounted return of each token (REINFORCE++, method section 2.1).

    ``r_t = [t is the last masked token] R - kl_coef * kl_t`` and ``G_t = r_t + gamma * G_next``, where *next* is the
    next masked token: padding and holes do not count as steps.

    Args:
        rewards: (B,) reward of each sequence. NaN (unscorable) makes every masked token of the row NaN;
            :func:`standardize` then ignores the row.
        mask: (B, T) tokens the policy sampled.
        kl: (B, T) per-token penalty in nats; ``logp_old - logp_ref`` in the paper.
        kl_coef: Weight of the penalty (the paper's beta).
        gamma: Discount per token, in [0, 1].

    Returns:
        (B, T) returns, 0 outside the mask.

    Raises:
        ValueError: If the shapes do not match, or ``gamma`` is outside [0, 1].
    """
    if mask.dim() != 2 or rewards.shape != mask.shape[:1]:
        raise ValueError(f"expected rewards (B,) and mask (B, T), got {tuple(rewards.shape)} and {tuple(mask.shape)}")
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    rewards, mask = _at_least_float32(rewards), mask.bool()
    tokens_left = mask.flip(1).cumsum(1).flip(1) - 1  # masked tokens still to come after t
    returns = rewards[:, None] * torch.pow(gamma, tokens_left.to(rewards.dtype))
    if kl is not None and kl_coef != 0.0:
        _require_same_shape(mask=mask, kl=kl)
        returns = returns - kl_coef * _discounted_sum(_at_least_float32(kl), mask, gamma)
    return torch.where(mask, returns, torch.zeros_like(returns))


def standardize(
    values: Tensor, mask: Tensor, *, gather: Callable[[Tensor], Tensor] | None = None, eps: float = 1e-8
) -> Tensor:
    """Return z-scores over all masked tokens of the global batch, without a group baseline (method section 2.2).

    Two passes: the mean, then the variance about it. The standard deviation is the population's: among 255 rewards of 1
    a single 0 scores -15.9687. Both sums are exact before they are rounded to float64, so the scores are bitwise the
    same however the rows are split among processes.

    Args:
        values: Returns, any shape. Non-finite values (NaN marks the unscorable) are excluded from mean and standard
            deviation, and their score is 0.
        mask: Same shape as ``values``.
        gather: Takes a float64 tensor (n,), whose length may differ between processes, and returns the concatenation
            over all processes. It is called exactly once, even for an empty mask, so that no process waits forever.
        eps: Lower bound of the divisor; a smaller spread shrinks the scores rather than inflating noise.

    Returns:
        Scores of the shape and dtype of ``values``; 0 outside the mask, and 0 everywhere if all values are equal.

    Raises:
        ValueError: If the shapes differ.
    """
    deviation, mean, everywhere = _deviations(values, mask, gather or _identity)
    std = math.sqrt(_exact_sum((everywhere - mean).square()) / max(len(everywhere), 1))

    # The mean of equal values may be off by an ulp; dividing that error by itself would turn it into an advantage.
    if std <= _ROUNDING * abs(mean):
        deviation = torch.zeros_like(deviation)
    return (deviation / max(std, eps)).to(_at_least_float32(values).dtype)


def center(values: Tensor, mask: Tensor, *, gather: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return ``values`` minus their mean over every masked token of the global batch: :func:`standardize` unscaled.

    Arguments, shapes and the choice of values are those of :func:`standardize`.

    Returns:
        Deviations of the shape and unit of ``values``; 0 outside the mask, and 0 everywhere if all values are equal.
    """
    deviation, mean, _ = _deviations(values, mask, gather or _identity)
    deviation = torch.where(deviation.abs() > _ROUNDING * abs(mean), deviation, torch.zeros_like(deviation))
    return deviation.to(_at_least_float32(values).dtype)


def filter_outliers(z: Tensor, threshold: float = 3.0, mode: str = "drop") -> Tensor:
    """Return ``z`` with the values beyond ``threshold`` standard deviations dropped or clamped (section 2.2).

    ``drop`` sets them to 0: the paper's advantage filter. ``clamp`` sets them to ``threshold`` with their own sign, so
    that a rare failure still counts. Any shape; a value of exactly ``threshold`` stays. Apply it to standardized
    values, never to raw returns.

    Raises:
        ValueError: If ``mode`` is neither ``drop`` nor ``clamp``.
    """
    if mode == "drop":
        return torch.where(z.abs() > threshold, torch.zeros_like(z), z)
    if mode == "clamp":
        return z.clamp(-threshold, threshold)
    raise ValueError(f"the filter's mode must be 'drop' or 'clamp', got {mode!r}")


def importance_ratio(logps: Tensor, old_logps: Tensor, *, pre_clip: tuple[float, float] | None = PRE_CLIP) -> Tensor:
    """Return ``exp(clamp(logps - old_logps, log low, log high))``, the ratio after Pre-CLIP (method section 2.3).

    The clamp comes *before* exp, so nothing overflows. As in the paper it is a plain clamp: a token outside the bounds
    has no gradient.

    Args:
        logps: Log-probabilities under the policy being trained, any shape.
        old_logps: The same under the sampling policy.
        pre_clip: ``(low, high)`` bounds of the ratio. None disables Pre-CLIP; then a log-ratio above about 88 (float32)
            or 709 (float64) gives ``inf``.

    Returns:
        Ratios in ``[low, high]``.

    Raises:
        ValueError: Unless ``0 < low < high``.
    """
    log_ratio = _at_least_float32(logps) - _at_least_float32(old_logps)
    return _pre_clipped(log_ratio, pre_clip).exp()


def policy_loss(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_eps: float | Clip = 0.2,
    pre_clip: tuple[float, float] | None = PRE_CLIP,
    num_sequences: float | None = None,
    constant_length: float | None = None,
) -> PolicyLoss:
    """Return the StableReinforce loss: PPO's ``-min(r A, clip(r, 1 - eps, 1 + eps) A)`` on Pre-CLIPped ratios.

    Method section 2.3. For logps [-.1]*4, old_logps [-10, -.2, -.2, -5], advantages [-1, -1, .5, -.5] the token losses
    are [1000, 1.1, -0.55, 67.1]; without Pre-CLIP the first is 19930.4.

    With Pre-CLIP, loss and gradients are finite for every log-ratio, infinite ones included; a token outside its bounds
    has no gradient. With ``pre_clip=None``, a ratio that overflows (see :func:`importance_ratio`) still gives a finite
    loss and a zero gradient where the advantage is 0 or more, because PPO's clip bounds it. Where the advantage is
    negative, PPO has no upper bound, and loss and gradient are infinite: the collapse that Pre-CLIP prevents.

    Args:
        logps: (B, T), differentiable.
        old_logps: (B, T), taken as constants.
        advantages: (B, T), taken as constants.
        mask: (B, T) tokens the policy sampled.
        clip_eps: PPO's clip range, or a :class:`Clip` whose sides differ.
        pre_clip: Bounds of the ratio; None disables Pre-CLIP.
        num_sequences: Divisor of the sum over sequences; by default the number of sequences here with a non-empty mask.
            Pass the count of the full batch when this is one of its micro-batches.
        constant_length: Divide the sum over the tokens of a sequence by this number (Dr. GRPO) instead of by the
            sequence's own length.

    Raises:
        ValueError: If the shapes differ, if ``num_sequences``, ``clip_eps`` or ``constant_length`` is not positive, if
            ``dual`` is not above ``1 + high``, or if the bounds of Pre-CLIP do not satisfy ``0 < low < high``.
    """
    _require_same_shape(logps=logps, old_logps=old_logps, advantages=advantages, mask=mask)
    for name, value in {"num_sequences": num_sequences, "constant_length": constant_length}.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")
    clip, mask = _clip(clip_eps), mask.bool()
    # Mask the inputs, not the results: behind an inf or NaN, the zero gradient of a masked result would become NaN.
    logps, old_logps, advantages = (
        torch.where(mask, tensor, torch.zeros_like(tensor))
        for tensor in map(_at_least_float32, (logps, old_logps.detach(), advantages.detach()))
    )
    log_ratio = logps - old_logps
    ratio = _held_ratio(_pre_clipped(log_ratio, pre_clip), advantages, clip)
    token_loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - clip.low, 1 + clip.high) * advantages)

    lengths = mask.sum(1)
    sequence_loss = token_loss.sum(1) / (lengths.clamp_min(1) if constant_length is None else constant_length)
    sequences = (lengths > 0).sum().clamp_min(1) if num_sequences is None else num_sequences
    return PolicyLoss(
        sequence_loss.sum() / sequences,
        token_loss,
        *_metrics(log_ratio.detach(), advantages, mask, clip, pre_clip),
    )


def pre_clip_bias(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_eps: float | Clip = 0.2,
    pre_clip: tuple[float, float] | None = PRE_CLIP,
    *,
    constant_length: float | None = None,
) -> PreClipBias:
    """Compare the gradient of :func:`policy_loss` with Pre-CLIP to the one without, in log-probability space.

    A token's free gradient is ``-r A / length`` where PPO's clip is not the active branch, else 0. The computation is
    in log space, so that ratios may overflow; next to an infinite ratio all others are negligible.

    Args:
        logps: (B, T); all inputs are treated as constants.
        old_logps: (B, T).
        advantages: (B, T).
        mask: (B, T) tokens the policy sampled.
        clip_eps: As for :func:`policy_loss`.
        pre_clip: Bounds of the ratio; None changes nothing.
        constant_length: As for :func:`policy_loss`.

    Returns:
        Scalars in float64: (1, 1, 0) if nothing is changed, or if there is no gradient to change.
    """
    _require_same_shape(logps=logps, old_logps=old_logps, advantages=advantages, mask=mask)
    clip, mask = _clip(clip_eps), mask.bool()
    logps, old_logps, advantages = (
        torch.where(mask, tensor, torch.zeros_like(tensor)).detach().double()
        for tensor in (logps, old_logps, advantages)
    )
    log_ratio = logps - old_logps
    lengths = mask.sum(1, keepdim=True).clamp_min(1).double()
    log_size = log_ratio + advantages.abs().log() - (lengths.log() if constant_length is None else 0.0)
    has_gradient = mask & ~_ppo_clipped(log_ratio.exp(), advantages, clip) & (log_size > -math.inf)
    changed = has_gradient & (log_ratio != _pre_clipped(log_ratio, pre_clip))

    log_size = torch.where(has_gradient, log_size, torch.full_like(log_size, -math.inf))
    largest = log_size.max() if log_size.numel() else log_size.new_zeros(())
    relative = torch.where(largest.isinf(), (log_size == math.inf).double(), (log_size - largest).exp())
    free, clipped = relative.norm(), torch.where(changed, torch.zeros_like(relative), relative).norm()
    kept = torch.where(free > 0, clipped / free, torch.ones_like(free))
    return PreClipBias(cosine=kept, norm_ratio=kept, changed_share=changed.sum() / mask.sum().clamp_min(1).double())


def _clip(clip_eps: float | Clip) -> Clip:
    clip = clip_eps if isinstance(clip_eps, Clip) else Clip(clip_eps, clip_eps)
    if not (clip.low > 0 and clip.high > 0):
        raise ValueError(f"clip_eps must be positive, got {clip_eps}")
    if clip.dual != math.inf and not clip.dual > 1 + clip.high:
        raise ValueError(f"the dual clip must be above 1 + high = {1 + clip.high}, got {clip.dual}")
    return clip


def _held_ratio(log_ratio: Tensor, advantages: Tensor, clip: Clip) -> Tensor:
    """Return exp(log_ratio), bounded to avoid overflow where PPO's min ignores the excess (advantage >= 0).

    Where the advantage is negative, the bound is the dual clip.
    """
    # Any bound above 1 + eps gives the same loss; an overflow would give the gradient 0 * inf = NaN.
    bounded = log_ratio.clamp(max=math.log1p(clip.high) + 1.0)
    if clip.dual < math.inf:
        log_ratio = log_ratio.clamp(max=math.log(clip.dual))
    return torch.where(advantages >= 0, bounded, log_ratio).exp()


def _metrics(
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: Clip,
    pre_clip: tuple[float, float] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the metrics of PolicyLoss in order; inputs are detached and 0 outside the mask (so the ratio is 1)."""
    tokens = mask.sum().clamp_min(1).to(log_ratio.dtype)
    held = _pre_clipped(log_ratio, pre_clip)
    bounded = log_ratio.clamp(-_KL_LOG_RATIO, _KL_LOG_RATIO)
    max_log_ratio = log_ratio.abs().max() if log_ratio.numel() else log_ratio.new_zeros(())
    return (
        (log_ratio != held).sum() / tokens,
        _ppo_clipped(held.exp(), advantages, clip).sum() / tokens,
        max_log_ratio,
        (bounded.expm1() - bounded).sum() / tokens,
    )


def _ppo_clipped(ratio: Tensor, advantages: Tensor, clip: Clip) -> Tensor:
    """Return where PPO's clip is the active branch, so that no gradient passes."""
    lowered = (advantages < 0) & ((ratio < 1 - clip.low) | (ratio > clip.dual))
    return ((advantages > 0) & (ratio > 1 + clip.high)) | lowered


def _pre_clipped(log_ratio: Tensor, pre_clip: tuple[float, float] | None) -> Tensor:
    if pre_clip is None:
        return log_ratio
    low, high = pre_clip
    if not 0 < low < high:
        raise ValueError(f"pre_clip must be (low, high) with 0 < low < high, got {pre_clip}")
    return log_ratio.clamp(math.log(low), math.log(high))


def _deviations(values: Tensor, mask: Tensor, gather: Callable[[Tensor], Tensor]) -> tuple[Tensor, float, Tensor]:
    """Return, in float64, the deviations from the global mean (0 where unused), the mean, and all values used."""
    _require_same_shape(values=values, mask=mask)
    values = _at_least_float32(values)
    used = mask.bool() & values.isfinite()
    wide = torch.where(used, values, torch.zeros_like(values)).double()
    everywhere = gather(wide[used])
    mean = _exact_sum(everywhere) / max(len(everywhere), 1)
    return torch.where(used, wide - mean, torch.zeros_like(wide)), mean, everywhere


def _exact_sum(values: Tensor) -> float:
    # Tensor.sum() rounds after each addition, in an order that depends on shape, threads and device.
    return math.fsum(values.tolist())


def _discounted_sum(values: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Return sums from the right over masked tokens, ``S_t = v_t + gamma * S_next``: (B, T), arbitrary off the mask."""
    values = torch.where(mask, values, torch.zeros_like(values))
    if gamma == 1.0:
        return values.flip(1).cumsum(1).flip(1)
    sums, carry = torch.zeros_like(values), values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        carry = torch.where(mask[:, t], values[:, t] + gamma * carry, carry)
        sums[:, t] = carry
    return sums


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _require_same_shape(**tensors: Tensor) -> None:
    # Broadcasting would hide a (B,) advantage where B happens to equal T.
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes differ: {shapes}")
