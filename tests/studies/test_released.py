"""Faults of the released code: what they do to positions, pictures and the filter, and that sampling is left alone."""

from __future__ import annotations

import pytest
import torch
from tiny_trainer import JUDGMENTS, batch, config, trainer_for

from r1_reward.records.errors import UserError
from r1_reward.studies.released import filter_by_raw_bounds, one_dimensional_positions, positions_1d
from r1_reward.studies.trainer import StudyConfig, StudyTrainer

STUDY = {"trainer_class": StudyTrainer, "config_class": StudyConfig}
FAULTY = ("blind", "1d", "both")


# ---------------------------------------------------------------- pure functions


def test_the_released_filter_by_hand():
    # Returns 2, 2, 2, -6: mean 0, std sqrt(12), z = 0.58, 0.58, 0.58, -1.73. Bounds 0 +- 1.5 take the last.
    z = torch.tensor([0.58, 0.58, 0.58, -1.73])
    assert filter_by_raw_bounds(z, 0.0, 1.5).tolist() == pytest.approx([0.58, 0.58, 0.58, 0.0])
    # Returns 2 (7 of 10) and 0.5: mean 1.55, so bounds -1.45 and 4.55; z = 0.65 and -1.53. Every wrong one goes.
    z = torch.tensor([0.65] * 7 + [-1.53] * 3)
    assert filter_by_raw_bounds(z, 1.55).tolist() == pytest.approx([0.65] * 7 + [0.0] * 3)
    # Returns 2 (1 of 20) and 0.5: mean 0.575, bounds -2.425 and 3.575; z = 4.36 and -0.23. The only right one goes.
    assert filter_by_raw_bounds(torch.tensor([4.36, -0.23]), 0.575).tolist() == pytest.approx([0.0, -0.23])
    # A value on the bound stays.
    assert filter_by_raw_bounds(torch.tensor([-2.0, 4.0]), 1.0).tolist() == [-2.0, 4.0]


def test_positions_count_attended_tokens():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0]])
    assert positions_1d(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 1, 2, 2]]


# ---------------------------------------------------------------- log-probabilities


def rollout(trainer, step=0):
    trainer.state.global_step = step
    return trainer._generate_and_score_completions(batch(trainer))


def logps(trainer, output, **changed):
    with torch.no_grad():
        return trainer._logps_and_entropies(trainer.model, {**output, **changed}, entropy=False)[0]


def by_hand(trainer, output, *, pixel_values=None, model=None, **inputs):
    """Log-probabilities of the completion from the logits of an ordinary forward pass."""
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    with torch.no_grad():
        logits = (model or trainer.model)(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=output["pixel_values"] if pixel_values is None else pixel_values,
            image_grid_thw=output["image_grid_thw"],
            mm_token_type_ids=output["mm_token_type_ids"],
            **inputs,
        ).logits
    chosen = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
    return chosen[:, -output["completion_ids"].size(1) :]


def gap(a, b, output):
    return ((a - b).abs() * output["completion_mask"]).max().item()


@pytest.fixture(scope="module")
def seeing(checkpoint, tmp_path_factory):
    """A folder with a tiny model whose random weights are large enough for pictures and positions to matter."""
    from r1_reward.models.checkpoint import load_model_and_processor

    model, processor = load_model_and_processor(str(checkpoint), dtype="float32")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("seeing")
    for part in (model, processor):
        part.save_pretrained(folder)
    return folder


def trainer_of(seeing, pairs, tmp_path, texts=JUDGMENTS, **options):
    from r1_reward.models.checkpoint import load_model_and_processor

    return trainer_for(
        load_model_and_processor(str(seeing), dtype="float32"), pairs, tmp_path, texts, **STUDY, **options
    )


def all_positions(output):
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    return positions_1d(mask).expand(3, -1, -1)


def test_log_probabilities_are_those_of_a_pass_with_the_fault_by_hand(seeing, pairs, tmp_path):
    trainer = trainer_of(seeing, pairs, tmp_path)
    output = rollout(trainer)
    zeros, flat = torch.zeros_like(output["pixel_values"]), all_positions(output)
    expected = {
        "sighted": by_hand(trainer, output),
        "blind": by_hand(trainer, output, pixel_values=zeros),
        "1d": by_hand(trainer, output, position_ids=flat),
        "both": by_hand(trainer, output, pixel_values=zeros, position_ids=flat),
    }
    for name, by_itself in expected.items():
        own = trainer_of(seeing, pairs, tmp_path, logps=name)
        computed = logps(own, output)
        assert gap(computed, by_itself, output) < 1e-4
        for other in expected.keys() - {name}:
            assert gap(computed, expected[other], output) > 1e-2, (name, other)


def test_blind_ones_do_not_change_with_the_picture_and_sighted_ones_do(seeing, pairs, tmp_path):
    for name, depends in {"sighted": True, "blind": False, "1d": True, "both": False}.items():
        trainer = trainer_of(seeing, pairs, tmp_path, logps=name)
        output = rollout(trainer)
        other = output["pixel_values"].flip(0) + 0.5
        changed = gap(logps(trainer, output), logps(trainer, output, pixel_values=other), output)
        assert (changed > 1e-3) if depends else (changed == 0.0)


def test_the_fault_is_in_the_gradient_too(seeing, pairs, tmp_path):
    trainer = trainer_of(seeing, pairs, tmp_path, logps="blind")
    output = rollout(trainer)
    trainer.current_gradient_accumulation_steps = 1
    gradients = []
    for pixels in (output["pixel_values"], torch.zeros_like(output["pixel_values"])):
        trainer.model.zero_grad()
        trainer._compute_loss(trainer.model, {**output, "pixel_values": pixels}).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]))
    assert torch.equal(gradients[0], gradients[1]) and gradients[0].abs().max() > 0


@pytest.mark.parametrize("name", FAULTY)
def test_sampling_and_evaluation_have_no_fault(seeing, pairs, tmp_path, monkeypatch, name):
    texts, given = [], []
    for value in ("sighted", name):
        trainer = trainer_of(seeing, pairs, tmp_path, texts=None, logps=value, max_completion_length=10)
        generate = trainer.model.generate
        monkeypatch.setattr(
            trainer.model,
            "generate",
            lambda *a, g=generate, **inputs: given.append(inputs["pixel_values"]) or g(*a, **inputs),
        )
        torch.manual_seed(3)
        texts.append(rollout(trainer)["completion_ids"])
    assert torch.equal(*texts) and torch.equal(*given) and given[0].any()
    output = rollout(trainer)
    trainer.model.eval()
    assert gap(logps(trainer, output), by_hand(trainer, output), output) < 1e-4


@pytest.mark.parametrize("options", [{}, {"steps_per_generation": 2, "per_device_train_batch_size": 4}], ids=str)
def test_the_ratio_begins_at_one_and_the_mismatch_is_logged(seeing, pairs, tmp_path, options):
    trainer = trainer_of(seeing, pairs, tmp_path, logps="both", **options)
    output = rollout(trainer)
    if options:
        assert gap(output["old_per_token_logps"], logps(trainer, output), output) < 1e-5
    else:
        assert "old_per_token_logps" not in output  # one update: the ratio is 1 by definition
    with trainer._as_sampled():
        sighted = logps(trainer, output)
    mask = output["completion_mask"]
    difference = ((logps(trainer, output) - sighted) * mask).abs()
    logged = trainer._metrics["train"]
    assert logged["mismatch/mean_abs"] == [pytest.approx((difference.sum() / mask.sum()).item(), rel=1e-3)]
    assert logged["mismatch/max"] == [pytest.approx(difference.max().item(), rel=1e-3)]
    assert difference.max() > 1e-2


def test_rounded_rollouts_log_their_mismatch_and_may_keep_the_trainers_ratio(seeing, pairs, tmp_path):
    options = {"rollout_dtype": "bfloat16", "steps_per_generation": 2, "per_device_train_batch_size": 4}
    for whose, corrected in (("sampler", True), ("trainer", False)):
        trainer = trainer_of(seeing, pairs, tmp_path, old_logps=whose, **options)
        output = rollout(trainer)
        exact = logps(trainer, output)
        with trainer.sampling.swapped_in():
            rounded = logps(trainer, output)
        old = output["old_per_token_logps"]
        assert gap(old, rounded if corrected else exact, output) < 1e-5 < gap(exact, rounded, output)
        assert trainer._metrics["train"]["mismatch/max"] == [pytest.approx(gap(exact, rounded, output), rel=1e-2)]


def test_blind_and_rounded_is_blind_with_the_rounded_weights(seeing, pairs, tmp_path):
    trainer = trainer_of(seeing, pairs, tmp_path, logps="blind", rollout_dtype="bfloat16")
    output = rollout(trainer)
    with trainer.sampling.swapped_in():
        assert gap(output["old_per_token_logps"], logps(trainer, output), output) < 1e-5


def test_the_reference_sees_and_has_the_policys_positions(seeing, pairs, tmp_path):
    trainer = trainer_of(seeing, pairs, tmp_path, logps="both", beta=0.1)
    output = rollout(trainer)
    zeros, flat = torch.zeros_like(output["pixel_values"]), all_positions(output)
    of_reference = by_hand(trainer, output, model=trainer.ref_model, position_ids=flat)
    assert gap(output["ref_per_token_logps"], of_reference, output) < 1e-4
    of_policy = by_hand(trainer, output, pixel_values=zeros, position_ids=flat)
    assert gap(output["old_per_token_logps"], of_policy, output) < 1e-4
    assert gap(of_reference, of_policy, output) > 1e-2


# ---------------------------------------------------------------- the filter in the trainer


def test_raw_bounds_reach_the_advantages(seeing, pairs, tmp_path):
    trainer = trainer_of(seeing, pairs, tmp_path, filter_bounds="raw", advantage_filter=1.5)
    output = rollout(trainer)
    rewards, mask = trainer._rewards, output["completion_mask"].bool()
    returns = rewards[:, None].expand_as(mask)[mask].double()
    z = (returns - returns.mean()) / returns.std(correction=0)
    low, high = returns.mean() - 1.5, returns.mean() + 1.5
    expected = torch.where((z < low) | (z > high), torch.zeros_like(z), z)
    torch.testing.assert_close(output["advantages"][mask].double(), expected, atol=1e-5, rtol=1e-4)
    dropped = (expected != z).double().mean().item()
    assert trainer._metrics["train"]["filtered"] == [pytest.approx(dropped)] and dropped > 0


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "bad",
    [
        {"logps": "deaf"},
        {"old_logps": "nobody"},
        {"filter_bounds": "none"},
        {"filter_bounds": "raw", "algorithm": "reinforce++"},
        {"filter_bounds": "raw", "advantage_filter": None},
        {"filter_bounds": "raw", "advantage_filter_mode": "clamp"},
    ],
    ids=str,
)
def test_bad_values_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        config(tmp_path, config_class=StudyConfig, **bad)


def test_a_model_without_mrope_is_told():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), 8)
    heads = dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 1)
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
    with pytest.raises(UserError, match="no M-RoPE"), one_dimensional_positions(model):
        pass
