"""The table of algorithms: advantages by hand, against slow loops, over processes, and against TRL's own."""

from __future__ import annotations

import doctest
import math
import tempfile
from statistics import fmean, stdev

import pytest
import torch
from torch.testing import assert_close

from r1_reward.algorithm import policy_loss, standardize
from r1_reward.train import algorithms
from r1_reward.train.algorithms import ALGORITHMS, advantages_of, algorithm_named, unfiltered_advantages

torch.set_num_threads(1)

NAN = math.nan
GROUPED = ["reinforce++-baseline", "rloo", "grpo", "dr_grpo"]


# ---------------------------------------------------------------- the slow-loop twin: plain floats, from the equations


def slow_relative(name, group):
    """Rewards of one prompt relative to each other; None where there is no baseline."""
    known = [r for r in group if r == r]
    relative = []
    for r in group:
        if r != r or len(known) < 2:
            relative.append(None)
        elif name == "rloo":
            others = list(known)
            others.remove(r)
            relative.append(r - fmean(others))
        elif name == "grpo":
            relative.append((r - fmean(known)) / (stdev(known) + 1e-4))
        else:
            relative.append(r - fmean(known))
    return relative


def slow_advantages(name, rewards, mask, kl, kl_coef, group_size):
    relative = list(rewards)
    if name in GROUPED:
        groups = [rewards[i : i + group_size] for i in range(0, len(rewards), group_size)]
        relative = [r for group in groups for r in slow_relative(name, group)]
    relative = [None if r is None or r != r else r for r in relative]
    returns = {}
    for i, row in enumerate(mask):
        for t, m in enumerate(row):
            if m and relative[i] is not None:
                returns[i, t] = relative[i] - kl_coef * sum(kl[i][s] for s in range(t, len(row)) if row[s])
    if name in ("stable_reinforce", "reinforce++", "reinforce++-baseline", "ppo") and returns:
        mean = fmean(returns.values())
        std = math.sqrt(fmean((g - mean) ** 2 for g in returns.values()))
        scale = 1.0 if name == "ppo" else std
        returns = {key: (g - mean) / scale if std > 1e-12 else 0.0 for key, g in returns.items()}
    return [[returns.get((i, t), 0.0) for t in range(len(row))] for i, row in enumerate(mask)]


def random_batch(seed, groups=3, size=4, tokens=5):
    rng = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 5, (groups * size,), generator=rng).double() / 2
    rewards[torch.rand(len(rewards), generator=rng) < 0.2] = NAN
    rewards[: size - 1] = NAN  # the first group has one scorable sample
    mask = torch.rand(len(rewards), tokens, generator=rng) < 0.7
    kl = torch.randn(len(rewards), tokens, generator=rng, dtype=torch.float64)
    return rewards, mask, kl


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_advantages_equal_the_slow_twin(name, seed, kl_coef):
    rewards, mask, kl = random_batch(seed)
    expected = slow_advantages(name, rewards.tolist(), mask.tolist(), kl.tolist(), kl_coef, 4)
    actual = unfiltered_advantages(ALGORITHMS[name], rewards, mask, group_size=4, kl=kl, kl_coef=kl_coef)
    assert_close(actual, torch.tensor(expected, dtype=torch.float64))


# ---------------------------------------------------------------- by hand

ROOT2, ROOT3 = math.sqrt(2), math.sqrt(3)
# Two prompts of two samples, one token each, rewards 2 0 | 1 1. Mean 1, population std sqrt((1 + 1)/4) = 1/sqrt 2.
BY_HAND = {
    "stable_reinforce": [ROOT2, -ROOT2, 0.0, 0.0],
    "reinforce++": [ROOT2, -ROOT2, 0.0, 0.0],
    # group means 1 and 1: deviations 1 -1 0 0, of the same mean and std as above
    "reinforce++-baseline": [ROOT2, -ROOT2, 0.0, 0.0],
    "rloo": [2.0, -2.0, 0.0, 0.0],  # 2 - 0, 0 - 2, 1 - 1
    "grpo": [1 / (ROOT2 + 1e-4), -1 / (ROOT2 + 1e-4), 0.0, 0.0],  # sample std of 2, 0: sqrt((1 + 1)/1)
    "dr_grpo": [1.0, -1.0, 0.0, 0.0],
    "ppo": [1.0, -1.0, 0.0, 0.0],
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_advantages_by_hand(name):
    advantages = advantages_of(name, torch.tensor([2.0, 0.0, 1.0, 1.0]), torch.ones(4, 1), group_size=2)
    assert_close(advantages[:, 0], torch.tensor(BY_HAND[name]))


# Rewards 1 0 0 | 1 1 1 | ? 1 0, one token each; the prompts differ in how hard they are.
HARD_AND_EASY = {
    # used: five 1, three 0; mean 5/8, std sqrt(15)/8: z(1) = 3/sqrt 15, z(0) = -5/sqrt 15
    "stable_reinforce": [3, -5, -5, 3, 3, 3, 0, 3, -5],
    # deviations 2/3 -1/3 -1/3 | 0 0 0 | 1/2 -1/2: mean 0, variance (6/9 + 1/2)/8 = 7/48
    "reinforce++-baseline": [2 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0, 1 / 2, -1 / 2],
    "rloo": [1, -1 / 2, -1 / 2, 0, 0, 0, 0, 1, -1],
    # sample stds 1/sqrt 3, 0, 1/sqrt 2
    "grpo": [2 / ROOT3, -1 / ROOT3, -1 / ROOT3, 0, 0, 0, 0, 1 / ROOT2, -1 / ROOT2],
    "dr_grpo": [2 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0, 1 / 2, -1 / 2],
    "ppo": [3 / 8, -5 / 8, -5 / 8, 3 / 8, 3 / 8, 3 / 8, 0, 3 / 8, -5 / 8],
}


@pytest.mark.parametrize("name", HARD_AND_EASY)
def test_only_group_baselines_tell_hard_prompts_from_easy_ones(name):
    rewards = torch.tensor([1.0, 0, 0, 1, 1, 1, NAN, 1, 0], dtype=torch.float64)
    scale = {"stable_reinforce": 1 / math.sqrt(15), "reinforce++-baseline": math.sqrt(48 / 7)}.get(name, 1.0)
    advantages = advantages_of(name, rewards, torch.ones(9, 1), group_size=3)
    tolerance = {"rtol": 3e-4, "atol": 0.0} if name == "grpo" else {}  # the 1e-4 beside its std
    assert_close(advantages[:, 0], scale * torch.tensor(HARD_AND_EASY[name], dtype=torch.float64), **tolerance)


def test_filter_of_the_table_drops_the_lone_failure_of_the_paper():
    rewards = torch.ones(256)
    rewards[77] = 0.0
    mask = torch.ones(256, 1)
    assert advantages_of("stable_reinforce", rewards, mask)[77] == 0.0
    assert advantages_of("reinforce++", rewards, mask)[77].item() == pytest.approx(-math.sqrt(255), rel=1e-6)
    assert advantages_of("rloo", rewards, mask, group_size=4)[77] == -1.0


@pytest.mark.parametrize("name", GROUPED)
def test_what_has_no_baseline_gets_nothing(name):
    rewards = torch.tensor([NAN, 1.0, NAN, NAN, 2.0, 0.0])
    advantages = unfiltered_advantages(
        ALGORITHMS[name], rewards, torch.ones(6, 2), group_size=2, kl=torch.ones(6, 2), kl_coef=0.1
    )
    assert_close(advantages[:4], torch.zeros(4, 2))
    assert (advantages[4] > advantages[5]).all()
    assert advantages_of(name, rewards, torch.ones(6, 2), group_size=1).count_nonzero() == 0


@pytest.mark.parametrize("value", [0.1, 1 / 3, -0.7])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_equal_rewards_teach_nothing(name, value):
    rewards = torch.full((21,), value)
    assert_close(advantages_of(name, rewards, torch.ones(21, 3), group_size=7), torch.zeros(21, 3))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_unscorable_samples_among_equal_ones_make_no_difference(name):
    rewards = torch.tensor([2.0, NAN, 2.0, NAN, 1.0, 0.0, NAN, NAN])
    mask = torch.ones(8, 2)
    alone = advantages_of(name, rewards[:4], mask[:4], group_size=4)
    assert_close(alone, torch.zeros(4, 2))
    every = advantages_of(name, rewards, mask, group_size=4)
    assert_close(every[[1, 3, 6, 7]], torch.zeros(4, 2))
    assert (every[0] == every[2]).all()
    assert (every[4] > every[5]).all()


# ---------------------------------------------------------------- the loss of Dr. GRPO


def test_constant_length_by_hand():
    # token losses -1 -1 | 3, a sequence's sum over 4 instead of its 2 or 1 tokens: (-2/4 + 3/4) / 2 = 1/8
    logps = torch.zeros(2, 2)
    advantages, mask = torch.tensor([[1.0, 1.0], [-3.0, 9.0]]), torch.tensor([[1, 1], [1, 0]])
    assert_close(policy_loss(logps, logps, advantages, mask, constant_length=4).loss, torch.tensor(0.125))
    assert_close(policy_loss(logps, logps, advantages, mask).loss, torch.tensor(1.0))  # (-1 + 3) / 2
    with pytest.raises(ValueError, match="constant_length must be positive"):
        policy_loss(logps, logps, advantages, mask, constant_length=0)


def test_constant_length_weighs_every_token_alike():
    rng = torch.Generator().manual_seed(0)
    logps = torch.randn(3, 6, generator=rng, dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[1] * 6, [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    policy_loss(logps, logps.detach(), torch.ones(3, 6, dtype=torch.float64), mask, constant_length=10).loss.backward()
    assert_close(logps.grad, -mask.double() / 30)


# ---------------------------------------------------------------- several processes


def _worker(rank, store, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}/store", rank=rank, world_size=2)

    def gather(tensor):
        parts = [None, None]
        torch.distributed.all_gather_object(parts, tensor)
        return torch.cat(parts)

    rewards, mask, kl = random_batch(5)
    rows = slice(6 * rank, 6 * rank + 6)  # 12 samples in groups of 4: the second group lies on both processes
    parts = {
        name: unfiltered_advantages(
            entry, rewards, mask[rows], group_size=4, first_row=6 * rank, kl=kl[rows], kl_coef=0.3,
            gather=gather,
        )
        for name, entry in ALGORITHMS.items()
    }  # fmt: skip
    torch.save(parts, f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_real_processes_equal_one():
    rewards, mask, kl = random_batch(5)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_worker, (folder, folder), nprocs=2)
        parts = [torch.load(f"{folder}/{rank}.pt") for rank in (0, 1)]
    for name, entry in ALGORITHMS.items():
        whole = unfiltered_advantages(entry, rewards, mask, group_size=4, kl=kl, kl_coef=0.3)
        assert whole[4:8].abs().sum() > 0
        assert torch.cat([part[name] for part in parts]).equal(whole)


# ---------------------------------------------------------------- the table itself


def test_every_entry_says_what_it_is():
    assert list(ALGORITHMS) == ["stable_reinforce", "reinforce++", *GROUPED, "ppo"]
    for name, entry in ALGORITHMS.items():
        assert entry.name == name
        assert entry.equation.startswith("A_it = ")
        assert "arXiv " in entry.paper
        assert (entry.baseline is not None) == (name in GROUPED)
        assert entry.constant_length == (name == "dr_grpo")
        assert (entry.advantage_filter, entry.pre_clip) == (
            (3.0, (1e-3, 1e3)) if name == "stable_reinforce" else (None, None)
        )
    assert ALGORITHMS["stable_reinforce"].normalize is standardize


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'reinforce\\+\\+'"):
        algorithm_named("reinforce+")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 4}, "6 is not a multiple of 4"),
        ({"first_row": 1}, "rows 1 to 7"),
        ({"first_row": -1}, "rows -1 to 5"),
    ],
)
def test_groups_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        unfiltered_advantages(ALGORITHMS["rloo"], torch.ones(6), torch.ones(6, 2), **{"group_size": 2, **options})


def test_docstring():
    assert doctest.testmod(algorithms).failed == 0
