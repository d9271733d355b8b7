"""Sampling with older or rounded weights: which, when, and that the trainer's own come back."""

from __future__ import annotations

import pytest
import torch
from tiny_trainer import JUDGMENTS, batch, config, trainer_for
from torch import nn

from r1_reward.studies.stale import SamplingWeights
from r1_reward.studies.trainer import StudyConfig, StudyTrainer

STUDY = {"trainer_class": StudyTrainer, "config_class": StudyConfig}


def values(model):
    return [parameter.item() for parameter in model.parameters()]


def one_weight(value=0.0):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def ages(stale_updates, updates_per_rollout, rollouts):
    """Ages reported, and ages seen in the weights, of a model whose weight is its number of updates."""
    model = one_weight()
    sampling = SamplingWeights(model, stale_updates=stale_updates)
    reported, seen = [], []
    for step in range(0, rollouts * updates_per_rollout, updates_per_rollout):
        nn.init.constant_(model.weight, step)
        reported.append(sampling.start_rollout(step))
        with sampling.swapped_in():
            seen.append(step - model.weight.item())
        assert model.weight.item() == step
    return reported, seen


@pytest.mark.parametrize(
    ("stale_updates", "updates_per_rollout", "expected"),
    [
        (0, 2, [0, 0, 0, 0, 0]),
        (1, 1, [0, 1, 1, 1, 1]),
        (3, 1, [0, 1, 2, 3, 3]),
        (4, 2, [0, 2, 4, 4, 4]),
        (3, 2, [0, 2, 4, 4, 4]),  # rounded up to whole rollouts
        (1, 4, [0, 4, 4, 4, 4]),
    ],
)
def test_rollouts_are_that_many_updates_old(stale_updates, updates_per_rollout, expected):
    assert ages(stale_updates, updates_per_rollout, 5) == (expected, expected)


def test_copies_do_not_pile_up():
    model = one_weight()
    sampling = SamplingWeights(model, stale_updates=4)
    for step in (0, 0, 0, 2, 2, 4, 6, 8, 8):
        sampling.start_rollout(step)
        assert len(sampling._copies) <= 3


def test_after_a_rollback_the_weights_are_fresh():
    model = one_weight()
    sampling = SamplingWeights(model, stale_updates=2)
    for step in (0, 1, 2, 3):
        sampling.start_rollout(step)
    nn.init.constant_(model.weight, 7.0)
    assert sampling.start_rollout(1) == 0
    with sampling.swapped_in():
        assert model.weight.item() == 7.0


def test_rounding_by_hand_and_back():
    # bfloat16 keeps 8 significant bits: 1 + 2^-9 rounds to 1; float16 keeps 11
    for dtype, expected in ((torch.bfloat16, 1.0), (torch.float16, 1.0 + 2**-9)):
        model = one_weight(1.0 + 2**-9)
        weight = model.weight
        sampling = SamplingWeights(model, dtype=dtype)
        assert sampling.start_rollout(0) == 0
        with sampling.swapped_in():
            assert (model.weight.item(), model.weight.dtype) == (expected, torch.float32)
        assert model.weight.item() == 1.0 + 2**-9
        assert model.weight is weight


def test_frozen_weights_are_rounded_but_not_copied():
    model = nn.Sequential(one_weight(1.0 + 2**-9), one_weight(5.0))
    model[0].weight.requires_grad_(False)
    sampling = SamplingWeights(model, stale_updates=1, dtype=torch.bfloat16)
    sampling.start_rollout(0)
    with torch.no_grad():
        model[1].weight.fill_(6.0)
    sampling.start_rollout(1)
    with sampling.swapped_in():
        assert values(model) == [1.0, 5.0]
    assert values(model) == [1.0 + 2**-9, 6.0]
    assert len(sampling._copies[0][1]) == 1


def test_an_error_inside_still_gives_the_weights_back():
    model = one_weight(3.0)
    sampling = SamplingWeights(model, dtype=torch.bfloat16)
    kept = model.weight.data_ptr()
    with pytest.raises(RuntimeError, match="inside"), sampling.swapped_in():
        raise RuntimeError("inside")
    assert model.weight.data_ptr() == kept


# ---------------------------------------------------------------- in the trainer


def rollout(trainer, step):
    trainer.state.global_step = step
    return trainer._generate_and_score_completions(batch(trainer))


def move(trainer, size=0.02):
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def current_logps(trainer, output):
    with torch.no_grad():
        return trainer._logps_and_entropies(trainer.model, output, entropy=False)[0]


def gap(a, b, output):
    return ((a - b).abs() * output["completion_mask"]).max().item()


def test_old_logps_are_the_stale_policys(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **STUDY, stale_updates=2)
    first = rollout(trainer, 0)
    before = current_logps(trainer, first)
    assert gap(first["old_per_token_logps"], before, first) < 1e-5
    move(trainer)
    second = rollout(trainer, 2)  # the same rows and, with the scripted texts, the same tokens
    torch.testing.assert_close(second["completion_ids"], first["completion_ids"])
    assert gap(second["old_per_token_logps"], before, second) < 1e-5
    assert gap(second["old_per_token_logps"], current_logps(trainer, second), second) > 1e-2
    assert trainer._metrics["train"]["rollout_age"] == [0, 2]


def test_generation_uses_the_stale_policy(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, **STUDY, stale_updates=1, temperature=1e-4, max_completion_length=6)
    first = rollout(trainer, 0)
    move(trainer, 0.1)
    stale = rollout(trainer, 1)
    torch.testing.assert_close(stale["completion_ids"], first["completion_ids"])
    trainer.sampling.forget()
    fresh = rollout(trainer, 1)
    assert fresh["completion_ids"].tolist() != first["completion_ids"].tolist()


def test_rounded_rollouts_have_the_rounded_policys_logps(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **STUDY, rollout_dtype="bfloat16")
    output = rollout(trainer, 0)
    exact = current_logps(trainer, output)
    assert gap(output["old_per_token_logps"], exact, output) > 1e-4
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.copy_(parameter.bfloat16())
    assert gap(output["old_per_token_logps"], current_logps(trainer, output), output) < 1e-5


def test_without_the_switches_nothing_is_swapped_or_computed(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **STUDY)
    output = rollout(trainer, 0)
    assert "old_per_token_logps" not in output  # on-policy: the ratio is 1 by definition
    assert "rollout_age" not in trainer._metrics["train"]
    assert not trainer.sampling._copies


def test_evaluation_samples_as_trained(tiny, pairs, tmp_path, monkeypatch):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **STUDY, stale_updates=1, rollout_dtype="bfloat16")
    trainer.model.eval()
    monkeypatch.setattr(trainer.sampling, "swapped_in", lambda: pytest.fail("other weights in evaluation"))
    assert "old_per_token_logps" not in rollout(trainer, 0)
    assert "rollout_age" not in trainer._metrics["eval"]


def test_a_stale_run_trains(tiny, pairs, tmp_path):
    trainer = trainer_for(
        tiny, pairs, tmp_path, JUDGMENTS, **STUDY, stale_updates=1, max_steps=3, max_completion_length=40
    )
    trainer.train()
    steps = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["rollout_age"] for row in steps] == [0, 1, 1]
    assert steps[0]["max_log_ratio"] < 1e-4 < steps[1]["max_log_ratio"]


@pytest.mark.parametrize("option", [{"stale_updates": 1}, {"rollout_dtype": "bfloat16"}])
def test_other_engines_are_refused(tmp_path, option):
    with pytest.raises(ValueError, match="need transformers' generation"):
        config(tmp_path, config_class=StudyConfig, use_transformers_continuous_batching=True, **option)
