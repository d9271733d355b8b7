"""The page on top of train/rl.py is true: its steps, taken by hand with pure functions, end with the same weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_trainer import JUDGMENTS, trainer_for
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from r1_reward.algorithm import discounted_returns, filter_outliers, policy_loss, standardize
from r1_reward.judge.referee import RuleReferee
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.train import rl
from r1_reward.train.judging import score_judgments
from r1_reward.train.processes import deal

RATE, UPDATES, ROLLOUTS = 0.05, 2, 2
OPTIONS = {
    "optim": "sgd", "learning_rate": RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 0.0,
    "per_device_train_batch_size": 8, "steps_per_generation": UPDATES, "max_steps": UPDATES * ROLLOUTS,
    "max_completion_length": 40,
}  # fmt: skip


@pytest.fixture
def fresh(checkpoint, pairs, tmp_path):
    """Trainers that start alike, with the same texts in the place of samples."""
    return lambda: trainer_for(
        load_model_and_processor(str(checkpoint), dtype="float32"), pairs, tmp_path, JUDGMENTS, **OPTIONS
    )


def step_by_hand(trainer, rows, step):
    """Take the page's four steps; of the trainer only sampling and the forward pass are used."""
    rollout = trainer._generate_and_score_completions(rows)
    del rollout["advantages"]
    mask = rollout["completion_mask"]
    texts = trainer.processing_class.batch_decode(rollout["completion_ids"], skip_special_tokens=True)

    scores = score_judgments(texts, [row["preferred"] for row in rows], RuleReferee(), trainer.args)
    rewards = torch.tensor(scores.rewards)

    returns = discounted_returns(rewards, mask)
    rollout["advantages"] = filter_outliers(standardize(returns, mask))

    optimizer = torch.optim.SGD(trainer.model.parameters(), lr=RATE)
    dealt = deal(split_pixel_values_by_grid(rollout), UPDATES, together=2, seed=f"{trainer.args.seed}/{step}")
    for part in split_tensor_dict(dealt, UPDATES):
        update = unsplit_pixel_values_by_grid(part)
        logps = trainer._logps_and_entropies(trainer.model, update, entropy=False)[0]
        old, advantages, kept = (
            update[name] for name in ("old_per_token_logps", "advantages", "completion_mask")
        )  # fmt: skip
        policy_loss(logps, old, advantages, kept).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_the_steps_of_the_page_are_the_trainers(fresh):
    trained, by_hand = fresh(), fresh()
    start = [weights.detach().clone() for weights in trained.model.parameters()]
    trained.train()
    batches = itertools.islice(by_hand.get_train_dataloader(), 0, UPDATES * ROLLOUTS, UPDATES)  # TRL repeats each
    for number, rows in enumerate(batches):
        step_by_hand(by_hand, rows, number * UPDATES)
    moved = max((a - b).abs().max() for a, b in zip(start, trained.model.parameters(), strict=True))
    assert moved > 1e-3
    for ours, theirs in zip(by_hand.model.parameters(), trained.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_steps_are_taken_in_the_order_of_the_page(fresh, monkeypatch):
    order = []

    def noted(name, function):
        def called(*args, **kwargs):
            order.append(name)
            return function(*args, **kwargs)

        return called

    trainer = fresh()
    trainer._generate_single_turn = noted("sample", trainer._generate_single_turn)
    for name in ("score_judgments", "unfiltered_advantages", "filter_outliers", "deal", "policy_loss"):
        monkeypatch.setattr(rl, name, noted(name, getattr(rl, name)))
    trainer.train()
    one = ["sample", "score_judgments", "unfiltered_advantages", "filter_outliers", "deal", *["policy_loss"] * UPDATES]
    assert order == one * ROLLOUTS
