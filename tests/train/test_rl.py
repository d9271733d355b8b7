"""StableReinforceTrainer: its advantages and loss are algorithm.py's, the image reaches every model, switches work."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image

from r1_reward import algorithm
from r1_reward.train.rl import UNUSED_TRL_OPTIONS, StableReinforceConfig, StableReinforceTrainer


def config(folder, **options):
    defaults = {
        "per_device_train_batch_size": 8, "max_completion_length": 12, "max_steps": 1, "learning_rate": 1e-3,
        "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1,
        "disable_tqdm": True, "gradient_checkpointing": False, "seed": 0,
    }  # fmt: skip
    return StableReinforceConfig(output_dir=str(folder), **{**defaults, **options})


class HalfConsistent:
    """A referee whose verdicts are a fixed pattern, with one unknown in three."""

    def judge(self, reasonings, answers):
        return [(1.0, 0.0, None)[i % 3] for i in range(len(reasonings))]


def trainer_for(tiny, pairs, tmp_path, texts=None, **options):
    model, processor = tiny
    trainer = StableReinforceTrainer(
        model, config(tmp_path, **options), train_dataset=pairs, processing_class=processor
    )
    trainer.model.train()
    if texts is not None:
        # Stand in for sampling: an untrained model never writes a judgment, and rewards must differ to be standardised.
        ids = [processor.tokenizer(text)["input_ids"] + [processor.tokenizer.eos_token_id] for text in texts]

        def generate(prompt_ids, *args, **kwargs):
            return [list(ids[i % len(ids)]) for i in range(len(prompt_ids))], None

        trainer._generate_single_turn = generate
    return trainer


JUDGMENTS = [
    "<think>I see one two. Response 1 is better.</think><answer>1</answer>",
    "<think>I see one two. Response 2 is better.</think><answer>2</answer>",
    "no tags at all 1",
]


def batch(trainer, size=8):
    return [trainer.train_dataset[i] for i in range(size)]


def test_one_sample_per_prompt_is_allowed(tmp_path):
    assert config(tmp_path).num_generations == 1
    with pytest.raises(ValueError, match="no baseline"):
        config(tmp_path, per_device_train_batch_size=1)


@pytest.mark.parametrize("name", sorted(UNUSED_TRL_OPTIONS))
def test_trl_options_without_effect_are_refused(tmp_path, name):
    values = {
        "loss_type": "dapo", "importance_sampling_level": "sequence", "scale_rewards": "group", "entropy_coef": 0.1,
        "use_adaptive_entropy": True, "use_bias_correction_kl": "?", "top_entropy_quantile": 0.5,
        "multi_objective_aggregation": "normalize_then_sum",
    }  # fmt: skip
    with pytest.raises(ValueError, match=name):
        config(tmp_path, **{name: values.get(name, 1.5)})


@pytest.mark.parametrize("bad", [{"pre_clip": [2.0, 3.0]}, {"pre_clip": [0.1]}, {"advantage_filter": 0.0}])
def test_bad_switch_values_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        config(tmp_path, **bad)


def test_advantages_are_the_filtered_z_scores_of_the_batch(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS)
    rows = batch(trainer)
    output = trainer._generate_and_score_completions(rows)
    mask = output["completion_mask"]
    texts = [JUDGMENTS[i % 3] for i in range(8)]
    # Right and well formed with a consistent conclusion: 1 * (1 + 0.5) + 0.5 = 2; wrong but well formed 0.5; no tags 0.
    expected = []
    for row, text in zip(rows, texts, strict=True):
        answered = 1 if "<answer>1" in text else 2 if "<answer>2" in text else None
        expected.append(2.0 if answered == row["preferred"] else 0.5 if answered else 0.0)
    assert trainer._rewards.tolist() == expected
    tokens = [r for r, n in zip(expected, mask.sum(1).tolist(), strict=True) for _ in range(n)]
    mean = sum(tokens) / len(tokens)
    std = math.sqrt(sum((t - mean) ** 2 for t in tokens) / len(tokens))
    for row, reward, advantage in zip(mask, expected, output["advantages"], strict=True):
        torch.testing.assert_close(advantage, row * torch.tensor((reward - mean) / std))


def test_filter_removes_the_lone_failure(tiny, pairs, tmp_path):
    kept = {}
    for threshold in (3.0, None):
        trainer = trainer_for(tiny, pairs, tmp_path, per_device_train_batch_size=16, advantage_filter=threshold)
        trainer.judgment_reward = None  # not used: the rewards are given below
        trainer._calculate_rewards = lambda *a, t=trainer: _given(t, [1.0] * 15 + [0.0])
        trainer._generate_single_turn = lambda prompt_ids, *a, **k: ([[5, 6, 7]] * len(prompt_ids), None)
        kept[threshold] = trainer._generate_and_score_completions(batch(trainer, 16))["advantages"]
        share = trainer._metrics["train"].get("filtered")
        assert share == ([1 / 16] if threshold else None)
    assert kept[3.0][15].tolist() == [0.0, 0.0, 0.0]
    assert kept[None][15, 0].item() == pytest.approx(-math.sqrt(15), rel=1e-4)


def _given(trainer, rewards):
    trainer._rewards = torch.tensor(rewards)
    return trainer._rewards[:, None]


def test_unscorable_samples_have_no_advantage_and_no_weight(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path)
    trainer._calculate_rewards = lambda *a: _given(trainer, [1.0, float("nan"), 0.0, 1.0, 0.0, 1.0, 0.0, float("nan")])
    trainer._generate_single_turn = lambda prompt_ids, *a, **k: ([[5, 6]] * len(prompt_ids), None)
    advantages = trainer._generate_and_score_completions(batch(trainer))["advantages"]
    assert advantages[1].tolist() == advantages[7].tolist() == [0.0, 0.0]
    torch.testing.assert_close(advantages[0], torch.ones(2))
    torch.testing.assert_close(advantages[2], -torch.ones(2))


def test_referee_verdicts_enter_the_reward(tiny, pairs, tmp_path):
    model, processor = tiny
    trainer = StableReinforceTrainer(
        model, config(tmp_path), train_dataset=pairs, processing_class=processor, referee=HalfConsistent()
    )
    logged = {}
    right = [[{"content": JUDGMENTS[0]}]] * 3
    rewards = trainer.judgment_reward(right, [1, 1, 1], lambda name, value: logged.setdefault(name, value))
    assert rewards == [2.0, 1.5, 1.5]
    assert logged["reward/consistency"] == 0.5  # of the two known verdicts
    assert logged["accuracy"] == 1.0


def test_loss_is_the_pure_function_on_the_policys_logps(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS)
    inputs = trainer._generate_and_score_completions(batch(trainer))
    logps, _, _ = trainer._logps_and_entropies(trainer.model, inputs, entropy=True)
    old = logps.detach() + torch.linspace(-9, 9, logps.numel()).view_as(logps)
    inputs["old_per_token_logps"] = old
    trainer.current_gradient_accumulation_steps = 1
    for pre_clip in ([1e-3, 1e3], None):
        trainer.args.pre_clip = pre_clip
        expected = algorithm.policy_loss(
            logps, old, inputs["advantages"], inputs["completion_mask"], pre_clip=tuple(pre_clip) if pre_clip else None
        )
        torch.testing.assert_close(trainer._compute_loss(trainer.model, inputs), expected.loss)
    assert trainer._metrics["train"]["max_log_ratio"][0] == pytest.approx(9.0, abs=0.3)
    assert trainer._metrics["train"]["pre_clipped"][0] > 0 == trainer._metrics["train"]["pre_clipped"][1]


def test_vllm_importance_factor_scales_the_loss(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS)
    inputs = trainer._generate_and_score_completions(batch(trainer))
    trainer.current_gradient_accumulation_steps = 1
    logps = trainer._logps_and_entropies(trainer.model, inputs, entropy=False)[0].detach()
    inputs["old_per_token_logps"] = logps + 0.1
    plain = trainer._compute_loss(trainer.model, inputs)
    inputs["importance_sampling_ratio"] = torch.full_like(logps, 0.25)
    torch.testing.assert_close(trainer._compute_loss(trainer.model, inputs), plain * 0.25)


def test_the_image_reaches_policy_old_policy_and_reference(tiny, pairs, tmp_path):
    trainer = trainer_for(
        tiny, pairs, tmp_path, JUDGMENTS, beta=0.1, per_device_train_batch_size=4, steps_per_generation=2,
        gradient_accumulation_steps=1,
    )  # fmt: skip
    rows = batch(trainer)
    seen = trainer._generate_and_score_completions(rows)
    seen["policy"] = trainer._logps_and_entropies(trainer.model, seen, entropy=False)[0].detach()
    other = Image.effect_noise((56, 56), 90).convert("RGB")
    changed = [{**row, "images": [other.resize(image.size) for image in row["images"]]} for row in rows]
    moved = trainer._generate_and_score_completions(changed)
    moved["policy"] = trainer._logps_and_entropies(trainer.model, moved, entropy=False)[0].detach()
    for name in ("policy", "old_per_token_logps", "ref_per_token_logps"):
        gap = (seen[name] - moved[name]).abs() * seen["completion_mask"]
        assert (gap.max(dim=1).values > 1e-4).all(), f"{name} does not see the image"


def test_kl_penalty_enters_the_return_at_the_sampled_policy(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, beta=0.5)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    output = trainer._generate_and_score_completions(batch(trainer))
    mask = output["completion_mask"]
    kl = output["old_per_token_logps"] - output["ref_per_token_logps"]
    assert (kl * mask).abs().max() > 1e-3
    returns = algorithm.discounted_returns(trainer._rewards, mask, kl=kl, kl_coef=0.5)
    expected = algorithm.filter_outliers(algorithm.standardize(returns, mask))
    torch.testing.assert_close(output["advantages"], expected)


LOGGED = {
    "reward", "reward/result", "reward/format", "reward/consistency", "accuracy", "parse_rate",
    "completions/mean_length", "entropy", "approx_kl", "max_log_ratio", "pre_clipped", "ppo_clipped", "filtered",
    "policy_loss", "grad_norm",
}  # fmt: skip


def test_several_updates_per_rollout_run_log_and_resume(tiny, pairs, tmp_path):
    options = {
        "per_device_train_batch_size": 8, "steps_per_generation": 2, "max_steps": 4, "save_strategy": "steps",
        "save_steps": 2, "max_completion_length": 80, "lr_scheduler_type": "constant",
    }  # fmt: skip
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **options)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train()
    steps = [row for row in trainer.state.log_history if "loss" in row]
    assert len(steps) == 4
    assert set(steps[0]) >= LOGGED
    assert steps[0]["max_log_ratio"] < 1e-4 < steps[1]["max_log_ratio"]  # the second update is off-policy
    assert any((a != b).any() for a, b in zip(before, trainer.model.parameters(), strict=True))
    again = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **{**options, "max_steps": 6})
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 6
    assert len([row for row in again.state.log_history if "loss" in row]) == 6
