"""Every model family through SFT, StableReinforce, LoRA, a resumed run and the scalar head."""

from __future__ import annotations

import math

import pytest
import torch
from families import FAMILIES, pairs_of_many_sizes
from more_families import ALL_FAMILIES
from peft import LoraConfig
from PIL import Image
from tiny_trainer import JUDGMENTS, batch, trainer_for

from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.scalar import ScalarEngine
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.models.scalar import load_scalar
from r1_reward.records.errors import UserError
from r1_reward.store.images import decode_images
from r1_reward.store.pairs import load_pairs
from r1_reward.train.restore import restore_weights
from r1_reward.train.scalar import ScalarConfig, scalar_trainer
from r1_reward.train.sft import ColdStartConfig, sft_trainer

OPTIONS = {
    "max_steps": 2, "learning_rate": 1e-3, "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no",
    "logging_steps": 1, "disable_tqdm": True, "gradient_checkpointing": False, "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return load_pairs(pairs_of_many_sizes(tmp_path_factory.mktemp("pairs")))


NO_ROLLOUTS = {"mistral3"}
every_family = pytest.mark.parametrize("family", ALL_FAMILIES, indirect=True, scope="module")
every_policy = pytest.mark.parametrize(
    "family", [name for name in ALL_FAMILIES if name not in NO_ROLLOUTS], indirect=True, scope="module"
)
core_families = pytest.mark.parametrize("family", FAMILIES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def family(request):
    return ALL_FAMILIES[request.param]


@pytest.fixture
def loaded(saved):
    return load_model_and_processor(str(saved), dtype="float32")


def adapters():
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def steps_of(trainer):
    return [row for row in trainer.state.log_history if "loss" in row]


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(before, model):
    now = model.state_dict()
    return {name for name, value in before.items() if not torch.equal(now[name], value)}


@every_family
def test_sft(family, loaded, pairs, tmp_path):
    model, processor = loaded
    trainer = sft_trainer(
        model,
        ColdStartConfig(str(tmp_path), per_device_train_batch_size=4, **OPTIONS),
        train_dataset=pairs,
        processing_class=processor,
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    stops = tuple(processor.tokenizer.decode([token]) for token in TransformersEngine(model, processor)._end_tokens())
    for ids, labels, mask in zip(inputs["input_ids"], inputs["labels"], inputs["attention_mask"], strict=True):
        text = processor.tokenizer.decode(ids[labels != -100])
        judgment, _, end = text.strip().rpartition("</answer>")
        assert judgment.startswith("<think>I see one.")
        assert end in stops
        assert torch.equal(ids[labels != -100], ids[mask.bool()][-(labels != -100).sum() :])
    before = weights_of(trainer.model)
    trainer.train()
    steps = steps_of(trainer)
    assert len(steps) == 2
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in steps)
    assert changed(before, trainer.model)


ROLLOUT = {
    "per_device_train_batch_size": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 1, "max_steps": 2,
    "beta": 0.1, "save_strategy": "no", "lr_scheduler_type": "constant", "max_completion_length": 24,
}  # fmt: skip


@core_families
@pytest.mark.parametrize("peft", [False, True])
def test_two_updates_per_rollout(family, loaded, pairs, tmp_path, peft):
    trainer = trainer_for(loaded, pairs, tmp_path, JUDGMENTS, peft_config=adapters() if peft else None, **ROLLOUT)
    before = weights_of(trainer.model)
    trainer.train()
    first, second = steps_of(trainer)
    assert all(math.isfinite(row["policy_loss"]) and row["grad_norm"] > 0 for row in (first, second))
    assert first["max_log_ratio"] < 1e-3 < second["max_log_ratio"]  # the second update is off-policy
    moved = changed(before, trainer.model)
    assert moved
    assert all("lora_" in name for name in moved) is peft


@every_policy
def test_the_image_reaches_policy_old_policy_and_reference(family, loaded, pairs, tmp_path):
    trainer = trainer_for(loaded, pairs, tmp_path, JUDGMENTS, **ROLLOUT)
    rows = batch(trainer)
    seen = scored(trainer, rows)
    changed = []
    for number, row in enumerate(rows):
        size = decode_images(row["pair"])[0].size
        Image.effect_noise(size, 200).convert("RGB").save(tmp_path / f"{number}.png")
        noise = [{"path": str(tmp_path / f"{number}.png"), "bytes": None}]
        changed.append({**row, "pair": {**row["pair"], "images": noise}})
    moved = scored(trainer, changed)
    for name in ("policy", "old_per_token_logps", "ref_per_token_logps"):
        gap = (seen[name] - moved[name]).abs() * seen["completion_mask"]
        assert (gap.max(dim=1).values > 1e-3).all(), f"{name} does not see the image"


def scored(trainer, rows):
    output = trainer._generate_and_score_completions(rows)
    output["policy"] = trainer._logps_and_entropies(trainer.model, output, entropy=False)[0].detach()
    return output


@every_policy
def test_log_probabilities_are_those_the_tokens_were_sampled_with(family, loaded, pairs, tmp_path):
    """Also after the rollout was shuffled and split for two updates, where an image could end up in another row."""
    trainer = trainer_for(loaded, pairs, tmp_path, **ROLLOUT)
    generate, outputs = trainer.model.generate, []

    def spy(**options):
        outputs.append(generate(**options, return_dict_in_generate=True, output_logits=True))
        return outputs[-1].sequences

    trainer.model.generate = spy
    torch.manual_seed(0)
    output = scored(trainer, batch(trainer))
    (drawn,) = outputs
    tokens = drawn.sequences[:, -len(drawn.logits) :]
    sampled = torch.log_softmax(torch.stack(drawn.logits, dim=1).float(), dim=-1)
    sampled = sampled.gather(2, tokens[..., None]).squeeze(2)[:, : output["completion_ids"].size(1)]
    mask = output["completion_mask"].bool()
    assert sampled[mask].std() > 0.1
    for name in ("policy", "old_per_token_logps", "ref_per_token_logps"):
        torch.testing.assert_close(output[name][mask], sampled[mask], atol=2e-3, rtol=1e-3)
    trainer._step = 0
    torch.manual_seed(0)
    for step in range(2):
        trainer._step = step
        part = trainer._prepare_inputs(batch(trainer))
        logps = trainer._logps_and_entropies(trainer.model, part, entropy=False)[0]
        mask = part["completion_mask"].bool()
        torch.testing.assert_close(logps[mask], part["old_per_token_logps"][mask], atol=2e-3, rtol=1e-3)


@core_families
def test_rollouts_never_hold_tokens_of_images(family, loaded, pairs, tmp_path):
    trainer = trainer_for(loaded, pairs, tmp_path, **ROLLOUT)
    image = loaded[1].tokenizer.convert_tokens_to_ids(family.image_token)
    bias = torch.zeros(trainer.model.config.get_text_config().vocab_size)
    bias[image] = 1000.0  # by far the likeliest token
    trainer.model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: output + bias)
    output = trainer._generate_and_score_completions(batch(trainer))
    assert (output["prompt_ids"] == image).any(dim=1).all()
    assert not (output["completion_ids"] == image).any()


@core_families
def test_a_checkpoint_restores_the_weights_bit_for_bit(family, saved, loaded, pairs, tmp_path):
    trainer = trainer_for(loaded, pairs, tmp_path, JUDGMENTS, **{**ROLLOUT, "save_strategy": "steps", "save_steps": 2})
    trainer.train()
    trained = weights_of(trainer.model)
    fresh = load_model_and_processor(str(saved), dtype="float32")
    again = trainer_for(fresh, pairs, tmp_path, JUDGMENTS, **ROLLOUT)
    assert changed(trained, again.model)
    restore_weights(again, tmp_path / "checkpoint-2")
    assert not changed(trained, again.model)


@core_families
def test_scalar_head(family, saved, loaded, pairs, tmp_path):
    model, processor = loaded
    # With critiques both ways into the model are used: the one with logits in training, the one without in scoring.
    args = ScalarConfig(str(tmp_path), per_device_train_batch_size=4, critique=True, **OPTIONS)
    trainer = scalar_trainer(model, args, train_dataset=pairs, processing_class=processor, base_model=str(saved))
    trainer.train()
    steps = steps_of(trainer)
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in steps)
    trainer.save_model(str(tmp_path / "scalar"))
    processor.save_pretrained(tmp_path / "scalar")
    candidates = [(row["question"], decode_images(row), row["response_1"]) for row in pairs]
    trained = ScalarEngine(trainer.model.eval(), processor)
    rewards = [score.reward for score in trained.score(candidates, max_new_tokens=4)]
    again = ScalarEngine(*load_scalar(tmp_path / "scalar"))
    assert [score.reward for score in again.score(candidates, max_new_tokens=4)] == rewards
    alone = [again.score([candidate], max_new_tokens=4)[0].reward for candidate in candidates]
    assert alone == pytest.approx(rewards, abs=1e-4)
    black = [(asked, [Image.new("RGB", image.size) for image in images], text) for asked, images, text in candidates]
    moved = [score.reward for score in again.score(black, max_new_tokens=4)]
    assert all(abs(a - b) > 1e-4 for a, b in zip(rewards, moved, strict=True))


def test_a_processor_that_cannot_leave_prompts_unpadded_is_refused(pairs, tmp_path):
    with pytest.raises(UserError, match="PixtralProcessor pads .* SFT"):
        trainer_for(ALL_FAMILIES["mistral3"].build(), pairs, tmp_path)
