"""What a checkpoint says beyond weights, where it cannot be used as it is."""

from __future__ import annotations

import logging

import pytest
import torch
from tiny_trainer import JUDGMENTS, trainer_for

from r1_reward.records.errors import UserError

OPTIONS = {
    "per_device_train_batch_size": 2, "steps_per_generation": 4, "gradient_accumulation_steps": 2, "max_steps": 3,
    "save_strategy": "steps", "save_steps": 1, "logging_steps": 3,
}  # fmt: skip


@pytest.fixture
def between(tiny, pairs, tmp_path):
    """A run whose first checkpoint lies between the two updates of its first rollout."""
    trainer = trainer_for(tiny, pairs, tmp_path / "run", JUDGMENTS, **OPTIONS)
    trainer.train()
    return tmp_path / "run" / "checkpoint-1"


def test_a_rollout_is_put_back_only_into_the_same_batches(between, tiny, pairs, tmp_path, caplog):
    saved = torch.load(between / "progress_0.pt", weights_only=True)
    assert saved["trainer"]["_step"] == 2
    assert len(saved["rollout"]) == 4
    assert torch.load(between.with_name("checkpoint-2") / "progress_0.pt", weights_only=True)["rollout"] is None

    same = trainer_for(tiny, pairs, tmp_path / "same", **OPTIONS)
    same.state.global_step = 1
    same.get_train_dataloader()
    same.restore_progress(saved, 0)
    assert (same._step, len(same._buffered_inputs)) == (2, 4)
    assert same._metrics["train"]["reward"] == saved["trainer"]["_metrics"]["train"]["reward"] != []
    same._metrics["train"]["a new one"].append(1.0)  # still a defaultdict

    other = trainer_for(tiny, pairs, tmp_path / "other", **{**OPTIONS, "gradient_accumulation_steps": 1})
    other.state.global_step = 3
    other.get_train_dataloader()
    other.restore_progress(saved, 0)
    assert (other._step, other._buffered_inputs) == (3, None)
    with caplog.at_level(logging.WARNING):
        (between / "progress_0.pt").unlink()
        assert other._read_progress(between) is None
    assert "has no saved progress" in caplog.text


def test_a_run_that_saved_only_its_model_is_not_resumed(tiny, pairs, tmp_path):
    options = {"save_only_model": True, "save_strategy": "steps", "save_steps": 1}
    trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **options).train()
    with pytest.raises(UserError, match="checkpoint-1 cannot be used .saved with save_only_model"):
        trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **options).train(resume_from_checkpoint=True)


def test_another_epoch_has_another_order(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path / "whole", **OPTIONS)
    sampler = trainer._get_train_sampler()
    orders = [list(sampler) for _ in range(3)]
    assert orders[0] != orders[1] != orders[2]
    later = trainer_for(tiny, pairs, tmp_path / "later", **OPTIONS)
    again = later._get_train_sampler()
    later.restore_progress(None, 2)
    assert list(again) == orders[2]


@pytest.mark.parametrize(
    "asked",
    [
        {"load_best_model_at_end": True, "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2},
        {"metric_for_best_model": "reward"},
        {"save_strategy": "best", "metric_for_best_model": "reward"},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_a_best_checkpoint_is_refused_since_none_is_kept(asked, tiny, pairs, tmp_path):
    options = {"save_strategy": "steps", **asked}
    with pytest.raises(UserError, match=f"{next(iter(asked))}.*only the newest"):
        trainer_for(tiny, pairs, tmp_path, eval_dataset=pairs, **options)
