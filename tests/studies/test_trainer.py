"""The trainer of the studies: with its switches off the product's own, with them on what they say."""

from __future__ import annotations

import pytest
import torch
from tiny_trainer import JUDGMENTS, batch, config, trainer_for

from r1_reward.studies.trainer import StudyConfig, StudyTrainer

STUDY = {"trainer_class": StudyTrainer, "config_class": StudyConfig}


@pytest.mark.parametrize(
    "bad",
    [{"referee_noise": 1.5}, {"stale_updates": -1}, {"rollout_dtype": "int8"}, {"reward_weights": [1.0]}],
    ids=str,
)
def test_bad_values_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        config(tmp_path, config_class=StudyConfig, **bad)


def trained(trainer):
    trainer.train()
    return {name: weights.detach().clone() for name, weights in trainer.model.named_parameters()}


def test_without_switches_it_is_the_products_trainer(checkpoint, pairs, tmp_path):
    from r1_reward.models.checkpoint import load_model_and_processor

    options = {"max_steps": 2, "steps_per_generation": 2, "max_completion_length": 40}
    ends = []
    for kind in ({}, STUDY):
        tiny = load_model_and_processor(str(checkpoint), dtype="float32")
        ends.append(trained(trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **options, **kind)))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_stale_run_resumes_with_its_older_weights(checkpoint, pairs, tmp_path):
    from r1_reward.models.checkpoint import load_model_and_processor

    options = {"save_strategy": "steps", "save_steps": 3, "stale_updates": 2, "max_completion_length": 40}

    def trainer(folder, steps):
        tiny = load_model_and_processor(str(checkpoint), dtype="float32")
        return trainer_for(
            tiny, pairs, folder, JUDGMENTS, **STUDY, **options, max_steps=steps, lr_scheduler_type="constant"
        )

    whole = trained(trainer(tmp_path / "whole", 5))
    trainer(tmp_path / "cut", 3).train()
    again = trainer(tmp_path / "cut", 5)
    from r1_reward.train.restore import train_from

    train_from(again, str(tmp_path / "cut" / "checkpoint-3"))
    assert all(torch.equal(whole[name], weights) for name, weights in again.model.named_parameters())
    assert [row["rollout_age"] for row in again.state.log_history if "rollout_age" in row] == [0, 1, 2, 2, 2]


def test_noise_reverses_verdicts_and_is_logged(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, referee_noise=1.0, **STUDY)
    rewards = trainer.judgment_reward([[{"content": JUDGMENTS[0]}]] * 3, [1, 1, 2], lambda *_: None)
    assert rewards == [1.5, 1.5, 0.5]
    assert trainer._metrics["train"]["referee_flipped"] == [1.0]


def test_bias_on_the_parameters_gradient(tiny, pairs, tmp_path):
    trainer = trainer_for(
        tiny,
        pairs,
        tmp_path,
        JUDGMENTS,
        trainer_class=StudyTrainer,
        config_class=StudyConfig,
        pre_clip_in_parameters=True,
    )
    inputs = trainer._generate_and_score_completions(batch(trainer))
    trainer.current_gradient_accumulation_steps = 1
    logps = trainer._logps_and_entropies(trainer.model, inputs, entropy=False)[0].detach()
    gradients = {}
    # every fifth token has become e^7.5 times as likely; it has a gradient to lose where its advantage is negative
    inputs["old_per_token_logps"] = logps - 7.5 * (torch.arange(logps.numel()) % 5 == 0).view_as(logps)
    for pre_clip in ([1e-3, 1e3], None):
        trainer.args.pre_clip = pre_clip
        trainer.model.zero_grad()
        trainer._compute_loss(trainer.model, inputs).backward()
        gradients[bool(pre_clip)] = torch.cat([p.grad.flatten().double() for p in trainer.model.parameters()])
    held, free = gradients[True], gradients[False]
    logged = trainer._metrics["train"]
    cosine = torch.nn.functional.cosine_similarity(held, free, dim=0).item()
    assert 0 < logged["pre_clip/cosine"][0] < 1
    assert logged["pre_clip/parameter_cosine"] == [pytest.approx(cosine, rel=1e-4), 1.0]
    assert logged["pre_clip/parameter_norm_ratio"] == [pytest.approx((held.norm() / free.norm()).item(), rel=1e-4), 1.0]
    assert abs(cosine - logged["pre_clip/cosine"][0]) > 1e-3  # the two spaces differ
