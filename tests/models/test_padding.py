"""The forward pass skips padding that no row needs, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_trainer import JUDGMENTS, batch, trainer_for

from r1_reward.models.padding import skip_padding, used_columns


def test_used_columns():
    mask = torch.tensor([[0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0]])
    assert used_columns(mask) == (1, 5)
    assert used_columns(torch.ones(2, 3)) == (0, 3)
    assert used_columns(torch.zeros(2, 3)) == (0, 3)


@pytest.fixture
def rollout(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, steps_per_generation=2)
    output = trainer._generate_and_score_completions(batch(trainer, 4))
    # Wider on both sides than any row needs, like a micro-batch of short rows.
    for name, value in (("prompt_ids", 0), ("prompt_mask", 0), ("mm_token_type_ids", 0)):
        output[name] = torch.nn.functional.pad(output[name], (5, 0), value=value)
    for name in ("completion_ids", "completion_mask", "mm_token_type_ids", "advantages"):
        output[name] = torch.nn.functional.pad(output[name], (0, 7), value=0)
    del output["old_per_token_logps"]
    return trainer, output


def test_log_probabilities_entropies_and_gradients_are_the_same(rollout):
    trainer, output = rollout
    model = trainer.model
    trimmed, entropies, _ = trainer._logps_and_entropies(model, output, entropy=True)
    mask = output["completion_mask"]
    (trimmed * mask).sum().backward()
    gradient = model.lm_head.weight.grad.clone()

    model.zero_grad()
    model.forward = model.forward.__func__.__wrapped__.__get__(model)  # TRL's own
    whole, whole_entropies, _ = trainer._logps_and_entropies(model, output, entropy=True)
    (whole * mask).sum().backward()
    assert trimmed.shape == whole.shape == mask.shape
    torch.testing.assert_close(trimmed * mask, whole * mask)
    torch.testing.assert_close(entropies * mask, whole_entropies * mask)
    torch.testing.assert_close(gradient, model.lm_head.weight.grad)


def test_the_model_sees_no_column_of_padding(rollout, monkeypatch):
    trainer, output = rollout
    widths = []
    trainer.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["attention_mask"].any(0).all().item()), with_kwargs=True
    )
    trainer._logps_and_entropies(trainer.model, output, entropy=False)
    assert widths == [True]


def test_other_calls_are_unchanged(tiny):
    model, processor = copy.deepcopy(tiny[0]), tiny[1]
    ids = processor.tokenizer("one two", return_tensors="pt")["input_ids"]
    ids = torch.nn.functional.pad(ids, (2, 0), value=0)
    mask = (ids != 0).long()
    expected = model(input_ids=ids, attention_mask=mask).logits
    skip_padding(model)
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, expected, rtol=0, atol=0)
    assert model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=2).size(1) == ids.size(1) + 2
