"""Switches for controls of RL that are not in the paper: what each changes in the update, its equation, its source.

All have the names of TRL's options, and none adds a second loss: a control changes the arguments of
:func:`r1_reward.algorithm.policy_loss`. With all of them off the arguments are the paper's.
r is the ratio of a token, d its logarithm, A its advantage, and ^ means stop-gradient::

    key                                value     objective of a token                           source
    epsilon_high                       e_high    min(r A, clip(r, 1 - epsilon, 1 + e_high) A)   DAPO, 2503.14476
    delta                              c         max(min(r A, clip(r) A), c A) where A < 0      dual clip, 1912.09729
    loss_type                          cispo     min(r, e_high)^ A log p, mean over tokens      CISPO, 2506.13585
    importance_sampling_level          sequence  clip(s) A, s = exp(mean of d over tokens)      GSPO, 2507.18071
    mask_truncated_completions         true      0 where the token limit cut the text           DAPO, 2503.14476
    vllm_importance_sampling_mode      (below)   w A instead of A                               TIS, MIS

    epsilon_high, delta   PPO's clip with two bounds, a `Clip`. TRL and INTELLECT-2 (2505.07291) write the same dual
                          clip as a bound on r.
    cispo                 `cispo_anchor` and `token_mean_weights`, no PPO clip. Its epsilon_high is the maximum weight
                          itself (5 in ScaleRL, 2510.13786); there is no minimum.
    sequence              `sequence_anchor`. Its epsilon is small, 3e-4 in the paper.
    truncated             an empty mask: the text contributes neither to the loss nor to the statistics of the global
                          batch; its R still counts in the baseline of its group, as in TRL.
    w                     the sampler's correction: u = p_trainer / p_sampler when the text was sampled. TRL computes
                          it in one of four ways:
                              token_truncate     w_t = clip(u_t, c_min, c_max)
                              token_mask         w_t = u_t if c_min <= u_t <= c_max else 0
                              sequence_truncate  one w for a whole text, whose u is the product of its u_t
                              sequence_mask      likewise (TRL's default)
                          vllm_importance_sampling_clip_min (none) and _clip_max (3) are the bounds. Token-level TIS is
                          from fengyao.notion.site/off-policy-rl, token-level MIS is IcePop, 2510.18855; the sequence
                          versions are compared in 2510.26788.

The product over a long text exceeds any bound: with 300 tokens that each differ by 0.01 nats in one direction it is
exp(3) = 20, so `sequence_mask` with a limit of 3 drops the judgment. The default here is token_truncate.

Example: a sequence whose first token is twice as likely as when it was sampled, and whose second is half as likely.

>>> import torch
>>> old, mask = torch.tensor([[-1.0, -1.0]]), torch.ones(1, 2)
>>> logps = old + torch.tensor([[2.0, 0.5]]).log()
>>> (logps - sequence_anchor(logps, old, mask)).exp().tolist()
[[1.0, 1.0]]
>>> (logps - cispo_anchor(logps, old, cap=1.5)).exp().tolist()
[[1.5, 0.5]]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from r1_reward.algorithm import Clip
from r1_reward.train.algorithms import Algorithm

PPO, CISPO = "grpo", "cispo"
"""Values of ``loss_type``; grpo is TRL's name for PPO's clip, averaged over tokens and then over sequences."""
LOSS_TYPES = (PPO, CISPO)
LEVELS = ("token", "sequence")
SAMPLER_MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


@dataclass(frozen=True)
class Controls:
    """The controls of a run, with the names and meanings of TRL's options; the defaults are the paper's."""

    loss_type: str = PPO
    importance_sampling_level: str = "token"
    epsilon: float = 0.2
    epsilon_high: float | None = None
    delta: float | None = None
    vllm_importance_sampling_mode: str = "token_truncate"
    vllm_importance_sampling_clip_min: float | None = None
    vllm_importance_sampling_clip_max: float | None = 3.0

    def clip(self) -> float | Clip:
        """Return ``clip_eps`` of :func:`~r1_reward.algorithm.policy_loss`, a plain number if no control is on."""
        if self.loss_type == CISPO:
            return math.inf
        if self.epsilon_high is None and self.delta is None:
            return self.epsilon
        return Clip(self.epsilon, self._high(), math.inf if self.delta is None else self.delta)

    def cap(self) -> float | None:
        """Return CISPO's maximum weight; None for other losses."""
        return self.epsilon_high if self.loss_type == CISPO else None

    def anchors(self, logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
        """Return what replaces ``old_logps``, (B, T), in the loss; with the paper's settings, ``old_logps`` itself."""
        cap = self.cap()
        if cap is not None:
            return cispo_anchor(logps, old_logps, cap=cap)
        return old_logps if self.importance_sampling_level == "token" else sequence_anchor(logps, old_logps, mask)

    def check(self, algorithm: Algorithm, pre_clip: tuple[float, float] | None) -> None:
        """Raise ValueError, with reason and remedy, for values out of range and invalid combinations."""
        self._check_values()
        if self.loss_type == CISPO:
            self._check_cispo(algorithm, pre_clip)
        elif self.importance_sampling_level == "sequence":
            self._check_sequence(algorithm, pre_clip)
        if self.delta is not None:
            self._check_delta(self.delta, pre_clip)

    def _high(self) -> float:
        return self.epsilon if self.epsilon_high is None else self.epsilon_high

    def _check_values(self) -> None:
        for name, choices, why in (
            ("loss_type", LOSS_TYPES, "; TRL's other losses are not supported"),
            ("importance_sampling_level", LEVELS, ""),
            ("vllm_importance_sampling_mode", SAMPLER_MODES, ""),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}{why}.")
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive; got {self.epsilon}.")
        if not self._high() > 0:
            raise ValueError(f"epsilon_high must be positive, or null to use epsilon; got {self._high()}.")
        low, high = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        if not (0 <= (low or 0) <= 1 <= (math.inf if high is None else high)):
            raise ValueError(
                "vllm_importance_sampling_clip_min and _clip_max must be at least 0 and enclose 1, the weight of a "
                f"token on which sampler and trainer agree; got {low} and {high}."
            )

    def _check_cispo(self, algorithm: Algorithm, pre_clip: tuple[float, float] | None) -> None:
        if self.epsilon_high is None or not 1 <= self.epsilon_high < math.inf:
            # TRL falls back to epsilon, which caps every weight at 0.2: a fifth of the gradient and no correction.
            raise ValueError(
                "loss_type cispo needs an epsilon_high of at least 1, the maximum weight itself and not a distance "
                f"from 1 (ScaleRL uses 5); got {self.epsilon_high}."
            )
        if self.epsilon != Controls.epsilon:
            raise ValueError(
                f"epsilon has no effect with loss_type cispo, which has no lower bound; leave it at {Controls.epsilon}."
            )
        if pre_clip is not None:
            raise ValueError(
                "loss_type cispo does not combine with Pre-CLIP: CISPO keeps the gradient of every token, Pre-CLIP "
                "drops it outside its bounds, and epsilon_high is already an upper bound. Set pre_clip to null."
            )
        if self.importance_sampling_level == "sequence":
            raise ValueError(
                "loss_type cispo does not combine with importance_sampling_level sequence: CISPO weighs each token by "
                "its own ratio, GSPO all tokens by the sequence's. Choose one."
            )
        if self.delta is not None:
            raise ValueError(
                "loss_type cispo does not combine with delta: epsilon_high bounds its weights. Set delta to null."
            )
        if algorithm.constant_length:
            raise ValueError(
                f"loss_type cispo does not combine with algorithm {algorithm.name}: one divides by the tokens of the "
                "rollout, the other by max_completion_length."
            )

    def _check_sequence(self, algorithm: Algorithm, pre_clip: tuple[float, float] | None) -> None:
        if pre_clip is not None:
            # The overflow of exp(d) that Pre-CLIP prevents cannot happen: only exp(mean d) is computed, and one |d| of
            # 100 among 300 tokens moves that mean by 0.3.
            raise ValueError(
                "importance_sampling_level sequence does not combine with Pre-CLIP, which clamps the log-ratio of each "
                "token: the mean of clamped log-ratios is not the sequence's. Set pre_clip to null; delta bounds the "
                "sequence's ratio."
            )
        if algorithm.constant_length:
            raise ValueError(
                f"importance_sampling_level sequence does not combine with algorithm {algorithm.name}: GSPO has one "
                "term per sequence, which a constant divisor would weigh by the sequence's length."
            )

    def _check_delta(self, delta: float, pre_clip: tuple[float, float] | None) -> None:
        end = 1 + self._high()
        if not end < delta < math.inf:
            raise ValueError(
                f"delta must be above {end:g}, where PPO's clip ends, or null (the dual-clip paper uses 3); "
                f"got {delta}."
            )
        if pre_clip is not None and delta >= pre_clip[1]:
            raise ValueError(
                f"delta {delta:g} has no effect: Pre-CLIP ends at {pre_clip[1]:g}. Lower it, or set pre_clip to null."
            )


def sequence_anchor(logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
    """Return (B, T) old log-probabilities that make every token's ratio the sequence's: GSPO, arXiv 2507.18071.

    ``s_i = exp(mean_t(logp_it - old_it))`` over the masked tokens, and ``r_it = s_i^ p_it / p_it^``, the paper's
    GSPO-token: every ratio equals s_i, and each token's gradient uses its own advantage. If the advantages of a
    sequence are equal, loss and gradient are GSPO's; if they differ (``beta``), GSPO proper would spread their mean
    over the tokens.

    Args:
        logps: (B, T) under the policy being trained.
        old_logps: (B, T) under the sampling policy.
        mask: (B, T) tokens the policy sampled; all others are ignored.

    Returns:
        (B, T) constants, ``logps - log s``.
    """
    inside = mask.bool()
    wide = logps.detach().double()
    log_ratio = torch.where(inside, wide - old_logps.double(), torch.zeros_like(wide))
    log_s = log_ratio.sum(1, keepdim=True) / inside.sum(1, keepdim=True).clamp_min(1)
    return (wide - log_s).to(torch.promote_types(logps.dtype, torch.float32))


def cispo_anchor(logps: Tensor, old_logps: Tensor, *, cap: float) -> Tensor:
    """Return (B, T) old log-probabilities that make the ratio ``min(r, cap)^ p / p^``: CISPO, arXiv 2506.13585.

    Without PPO's clip its gradient is CISPO's, ``min(r, cap)^ A grad log p``: no token loses its gradient, however
    large its ratio. The *value* of the loss is ``-min(r, cap) A``, where the paper's formula has the factor log p.

    Args:
        logps: (B, T) under the policy being trained.
        old_logps: (B, T) under the sampling policy.
        cap: Maximum weight.

    Returns:
        (B, T) constants.
    """
    wide = logps.detach().double()
    weight = (wide - old_logps.double()).clamp(max=math.log(cap))
    return (wide - weight).to(torch.promote_types(logps.dtype, torch.float32))


def token_mean_weights(mask: Tensor, *, tokens: Tensor, sequences: Tensor) -> Tensor:
    """Return (B, 1) factors that turn a mean over sequences of means over tokens into a mean over all tokens.

    ``|o_i| / mean |o|``: CISPO divides by the tokens of the rollout, so a long text weighs more than a short one.

    Args:
        mask: (B, T) tokens in the loss.
        tokens: Their number in the whole rollout, over all processes.
        sequences: Number of sequences in the whole rollout, including those with an empty mask.
    """
    return mask.sum(1, keepdim=True) * sequences / tokens.clamp_min(1)


def sampler_shares(factors: Tensor, *, low: float | None, high: float | None) -> tuple[Tensor, Tensor]:
    """Return where the sampler's correction masks tokens (factor 0) and where it truncates them (factor at a bound).

    Args:
        factors: (B, T), or (B, 1) for a whole sequence, as TRL computes them.
        low: Lower bound, if any.
        high: Upper bound, if any.
    """
    masked = factors == 0
    truncated = torch.zeros_like(masked)
    for bound in (low, high):
        if bound is not None:
            truncated |= factors == torch.tensor(bound, dtype=factors.dtype, device=factors.device)
    return masked, truncated & ~masked
