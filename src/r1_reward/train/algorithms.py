"""Policy-gradient algorithms by name: each is a row of a table of functions from :mod:`r1_reward.algorithm`.

An algorithm is five choices: the baseline (and scale) of the rewards of one prompt's samples, the normalization of
returns over the global batch, the advantage filter, Pre-CLIP, and the divisor of a sequence's loss. All share PPO's
clipped objective (arXiv 1707.06347).

    name                  advantage                                      filter   Pre-CLIP
    stable_reinforce      z-score over the global batch                  drop 3   [1e-3, 1e3]
    reinforce++           z-score over the global batch                  -        -
    reinforce++-baseline  group mean subtracted, then that z-score       -        -
    rloo                  mean of the rest of the group subtracted       -        -
    grpo                  group mean subtracted, divided by group std    -        -
    dr_grpo               group mean subtracted; constant loss length    -        -
    ppo                   mean of the global batch subtracted            -        -

Example: two prompts with two samples each. The second prompt is always solved, so a group baseline gives it 0.

>>> rewards, mask = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.ones(4, 1)
>>> advantages_of("rloo", rewards, mask, group_size=2)[:, 0].tolist()
[1.0, -1.0, 0.0, 0.0]
>>> advantages_of("ppo", rewards, mask)[:, 0].tolist()
[0.25, -0.75, 0.25, 0.25]

Shapes:
    N            sequences of the global batch, all processes in order
    K            samples of one prompt (num_generations), consecutive among the N, as TRL's sampler orders them
    rewards      (N,)      R of each sequence; NaN if it could not be scored
    groups       (N/K, K)  the same rewards, one row per prompt
    mask         (B, T)    response tokens of this process's B sequences

Group baselines act on R. The KL penalty of ``beta`` is a per-token part of the return and is subtracted afterwards, so
``grpo`` weighs it against standardized rewards and ``rloo`` against raw ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from r1_reward.algorithm import PRE_CLIP, center, discounted_returns, filter_outliers, standardize

_GRPO_EPS = 1e-4  # TRL's, so that grpo gives TRL's numbers


def subtract_group_mean(groups: Tensor) -> Tensor:
    """Return ``R_i - mean(R)`` of each group, (G, K); NaN for unscorable samples and lone scorable ones."""
    return _group_deviations(groups)[0]


def leave_one_out(groups: Tensor) -> Tensor:
    """Return ``R_i - mean(R_j of the other samples)``, (G, K); NaN as for :func:`subtract_group_mean`."""
    deviation, count = _group_deviations(groups)
    # R_i - (n mean - R_i) / (n - 1) = (R_i - mean) n / (n - 1); a single sample is already NaN.
    return deviation * count / (count - 1).clamp_min(1)


def standardize_groups(groups: Tensor) -> Tensor:
    """Return ``(R_i - mean(R)) / std(R)``, (G, K), with the sample std (n - 1) as in TRL and verl; NaN as above."""
    deviation, count = _group_deviations(groups)
    variance = deviation.square().nansum(1, keepdim=True) / (count - 1).clamp_min(1)
    return deviation / (variance.sqrt() + _GRPO_EPS)


@dataclass(frozen=True)
class Algorithm:
    """One row of the table: data and pure functions."""

    name: str
    equation: str
    """The advantage of token t of sample i; G is the return of :func:`~r1_reward.algorithm.discounted_returns`."""
    paper: str
    baseline: Callable[[Tensor], Tensor] | None = None
    """Maps the rewards of the groups, (G, K), to rewards relative to their group; None: needs no groups."""
    normalize: Callable[..., Tensor] | None = None
    """``standardize`` or ``center`` over the global batch; None: the returns are the advantages."""
    advantage_filter: float | None = None
    """Drop advantages beyond this many standard deviations."""
    pre_clip: tuple[float, float] | None = None
    """Bounds of the importance ratio."""
    constant_length: bool = False
    """Divide a sequence's loss by max_completion_length instead of its own length."""


_TABLE = (
    Algorithm(
        "stable_reinforce",
        "A_it = z_it if |z_it| <= 3 else 0, z_it = (G_it - mean(G)) / std(G) over all tokens of the global batch",
        "R1-Reward, arXiv 2505.02835",
        normalize=standardize,
        advantage_filter=3.0,
        pre_clip=PRE_CLIP,
    ),
    Algorithm(
        "reinforce++",
        "A_it = (G_it - mean(G)) / std(G) over all tokens of the global batch",
        "REINFORCE++, arXiv 2501.03262",
        normalize=standardize,
    ),
    Algorithm(
        "reinforce++-baseline",
        "A_it = (G'_it - mean(G')) / std(G') over all tokens of the global batch, R'_i = R_i - mean(R of the group)",
        "REINFORCE++, arXiv 2501.03262",
        baseline=subtract_group_mean,
        normalize=standardize,
    ),
    Algorithm(
        "rloo",
        "A_it = R_i - sum(R_j, j != i in the group) / (K - 1)",
        "RLOO, arXiv 2402.14740",
        baseline=leave_one_out,
    ),
    Algorithm(
        "grpo",
        "A_it = (R_i - mean(R of the group)) / std(R of the group)",
        "GRPO (DeepSeekMath), arXiv 2402.03300",
        baseline=standardize_groups,
    ),
    Algorithm(
        "dr_grpo",
        "A_it = R_i - mean(R of the group); loss of a sequence = sum over its tokens / max_completion_length",
        "Dr. GRPO, arXiv 2503.20783",
        baseline=subtract_group_mean,
        constant_length=True,
    ),
    Algorithm(
        # PPO's advantages come from a critic. Without one, the clipped objective remains, with the batch mean as the
        # simplest baseline.
        "ppo",
        "A_it = G_it - mean(G) over all tokens of the global batch",
        "PPO, arXiv 1707.06347 (its clipping only, no critic)",
        normalize=center,
    ),
)

ALGORITHMS = {entry.name: entry for entry in _TABLE}
"""The table by name."""


def algorithm_named(name: str) -> Algorithm:
    """Return the algorithm of this name. Raises ValueError, suggesting the nearest name, if there is none."""
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    near = difflib.get_close_matches(name, ALGORITHMS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown algorithm {name!r}; choose from {', '.join(ALGORITHMS)}.{hint}")


def unfiltered_advantages(
    algorithm: Algorithm,
    rewards: Tensor,
    mask: Tensor,
    *,
    group_size: int = 1,
    first_row: int = 0,
    kl: Tensor | None = None,
    kl_coef: float = 0.0,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the advantages of this process's tokens before the filter.

    Args:
        algorithm: A row of the table.
        rewards: (N,) of the global batch, because a group may span two processes.
        mask: (B, T) tokens of this process's rows.
        group_size: K.
        first_row: Index of this process's first row among the N.
        kl: (B, T) per-token penalty in nats; ``logp_old - logp_ref`` in the paper.
        kl_coef: Weight of the penalty (beta).
        gather: As for :func:`r1_reward.algorithm.standardize`, for the statistics of the global batch.

    Returns:
        (B, T); 0 outside the mask, for unscorable sequences and, with a group baseline, for those whose group has no
        other scorable sample (in groups of one, all of them).

    Raises:
        ValueError: The shapes do not match, or a group baseline gets an incomplete group.
    """
    if not 0 <= first_row <= len(rewards) - len(mask):
        raise ValueError(f"rows {first_row} to {first_row + len(mask)} are not among {len(rewards)} rewards")
    if algorithm.baseline is not None:
        if len(rewards) % group_size:
            raise ValueError(f"{algorithm.name} needs whole groups: {len(rewards)} is not a multiple of {group_size}")
        rewards = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
        rewards = algorithm.baseline(rewards.reshape(-1, group_size)).reshape(-1)
    returns = discounted_returns(rewards[first_row : first_row + len(mask)], mask, kl=kl, kl_coef=kl_coef)
    if algorithm.normalize is not None:
        return algorithm.normalize(returns, mask, gather=gather)
    return torch.where(returns.isfinite(), returns, torch.zeros_like(returns))


def advantages_of(name: str, rewards: Tensor, mask: Tensor, *, group_size: int = 1) -> Tensor:
    """Return the filtered advantages, (B, T), of the algorithm of this name for a batch on one process."""
    algorithm = algorithm_named(name)
    advantages = unfiltered_advantages(algorithm, rewards, mask, group_size=group_size)
    if algorithm.advantage_filter is None:
        return advantages
    return filter_outliers(advantages, algorithm.advantage_filter)


def _group_deviations(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return (G, K) deviations from the mean of a group's scorable samples, and their number, (G, 1).

    NaN marks samples without a baseline: an unscorable one, or the only scorable one of its group.
    """
    scorable = groups.isfinite()
    count = scorable.sum(1, keepdim=True)
    wide = torch.where(scorable, groups, torch.zeros_like(groups)).double()
    mean = wide.sum(1, keepdim=True) / count.clamp_min(1)
    deviation = torch.where(scorable & (count > 1), wide - mean, torch.full_like(wide, torch.nan))
    return deviation.to(groups.dtype), count
