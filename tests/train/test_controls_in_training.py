"""The controls in a trainer: gradients are those of TRL's own loss, the sampler's correction by hand, whole runs."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_trainer import JUDGMENTS, batch, config, trainer_for
from torch.testing import assert_close
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.train.config import describe_keys
from r1_reward.train.rl import StableReinforceConfig

LONG = "<think>I see one two. Response 1 is better, since response 2 is wrong.</think><answer>1</answer>"


@pytest.fixture
def fresh(checkpoint, pairs, tmp_path):
    """Trainers that start alike, with the same texts in the place of samples."""

    def make(**options):
        tiny = load_model_and_processor(str(checkpoint), dtype="float32")
        return trainer_for(tiny, pairs, tmp_path, JUDGMENTS, **{"max_completion_length": 40, **options})

    return make


def gradients(trainer, loss):
    trainer.model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


# ---------------------------------------------------------------- against TRL's own loss

GROUPS = {"algorithm": "grpo", "num_generations": 2}


@pytest.mark.parametrize(
    "options",
    [
        {"epsilon_high": 0.6},
        {"delta": 1.4},
        {"epsilon": 0.1, "epsilon_high": 0.5, "delta": 1.7},
        {"importance_sampling_level": "sequence", "epsilon": 0.1},
        {"importance_sampling_level": "sequence", "epsilon": 0.2, "epsilon_high": 0.02, "delta": 1.1},
        {"loss_type": "cispo", "epsilon_high": 1.2},
        {"loss_type": "cispo", "epsilon_high": 2.0},
    ],
    ids=str,
)
def test_gradients_are_those_of_trls_own_loss(fresh, options):
    trainer = fresh(**GROUPS, **options)
    inputs = trainer._generate_and_score_completions(batch(trainer))
    trainer.current_gradient_accumulation_steps = 1
    logps = trainer._logps_and_entropies(trainer.model, inputs, entropy=False)[0].detach()
    inputs["old_per_token_logps"] = logps + 0.5 * torch.randn(logps.shape, generator=torch.Generator().manual_seed(1))
    lengths = inputs["completion_mask"].sum(1)
    assert len(set(lengths.tolist())) > 1, "sequences of one length cannot tell one mean from another"
    ours = gradients(trainer, trainer._compute_loss(trainer.model, inputs))
    assert max(g.abs().max() for g in ours) > 1e-4
    assert 0 < trainer._metrics["train"]["cispo_capped" if "loss_type" in options else "ppo_clipped"][0] < 1
    # TRL divides by the tokens of the rollout in CISPO's loss, we weigh its advantages before: these are not weighed
    inputs["advantages"] = fresh(**GROUPS)._generate_and_score_completions(batch(trainer))["advantages"]
    theirs = gradients(trainer, GRPOTrainer._compute_loss(trainer, trainer.model, inputs))
    for left, right in zip(ours, theirs, strict=True):
        assert_close(left, right, atol=2e-6, rtol=1e-4)


def off_policy(trainer, seed=1):
    """A rollout whose policy has moved since by about half a nat a token; its advantages are not weighed for CISPO."""
    inputs = trainer._generate_and_score_completions(batch(trainer))
    logps = trainer._logps_and_entropies(trainer.model, inputs, entropy=False)[0].detach()
    noise = torch.randn(logps.shape, generator=torch.Generator().manual_seed(seed))
    inputs["old_per_token_logps"] = logps + 0.5 * noise
    return inputs, logps


@pytest.mark.parametrize(
    "options",
    [
        {"epsilon_high": 0.28}, {"epsilon": 0.1, "epsilon_high": 0.6}, {"delta": 1.4},
        {"delta": 1.7, "epsilon_high": 0.5}, {"importance_sampling_level": "sequence", "epsilon": 0.05},
        {"importance_sampling_level": "sequence", "epsilon": 0.2, "epsilon_high": 0.02, "delta": 1.1},
        {"algorithm": "dr_grpo", "epsilon_high": 0.28},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("seed", [1, 2])
def test_the_value_of_the_loss_is_that_of_trls_own(fresh, options, seed):
    trainer = fresh(**{**GROUPS, **options})
    inputs, _ = off_policy(trainer, seed)
    trainer.current_gradient_accumulation_steps = 1
    ours = trainer._compute_loss(trainer.model, inputs).item()
    trainer.loss_type = "dr_grpo" if "algorithm" in options else "grpo"
    theirs = GRPOTrainer._compute_loss(trainer, trainer.model, inputs).item()
    assert abs(ours) > 1e-4
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    plain = fresh(**{**GROUPS, **{name: options[name] for name in options if name == "algorithm"}})
    plain.current_gradient_accumulation_steps = 1
    assert plain._compute_loss(plain.model, inputs).item() != pytest.approx(ours, rel=1e-3)


def test_the_value_of_cispos_loss_differs_from_trls_as_the_docs_say(fresh):
    trainer = fresh(**GROUPS, loss_type="cispo", epsilon_high=1.5)
    inputs, logps = off_policy(trainer)
    trainer.current_gradient_accumulation_steps = 1
    mask, ours = inputs["completion_mask"], trainer._compute_loss(trainer.model, inputs).item()
    weighed = inputs["advantages"]
    inputs["advantages"] = advantages = fresh(**GROUPS)._generate_and_score_completions(batch(trainer))["advantages"]
    theirs = GRPOTrainer._compute_loss(trainer, trainer.model, inputs).item()
    weights = (logps - inputs["old_per_token_logps"]).exp().clamp(max=1.5)
    assert ours == pytest.approx(-(weights * advantages * mask).sum().item() / mask.sum().item(), rel=1e-4)
    assert theirs == pytest.approx(-(weights * advantages * logps * mask).sum().item() / mask.sum().item(), rel=1e-4)
    assert not torch.allclose(weighed, advantages)


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "cispo", "epsilon_high": 1.5}, {"epsilon_high": 0.6},
        {"importance_sampling_level": "sequence", "epsilon": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_gradients_of_accumulated_micro_batches_are_trls_too(fresh, monkeypatch, options):
    """A mean over the tokens of the rollout must not become one over those of a micro-batch."""
    monkeypatch.setitem(globals(), "JUDGMENTS", [JUDGMENTS[which] for which in (0, 1, 0, 1, 2, 0, 2, 2)])
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 2}
    trainer = fresh(**GROUPS, **options, **sizes)
    inputs, _ = off_policy(trainer)
    plain = fresh(**GROUPS, **sizes)._generate_and_score_completions(batch(trainer))["advantages"]
    trainer.current_gradient_accumulation_steps = 2
    found = []
    for compute, advantages in (
        (type(trainer)._compute_loss, inputs["advantages"]), (GRPOTrainer._compute_loss, plain),
    ):  # fmt: skip
        given = unsplit(inputs | {"advantages": advantages})
        assert len({int(part["completion_mask"].sum()) for part in given}) == 2
        total = sum(compute(trainer, trainer.model, part) for part in given)
        found.append(gradients(trainer, total))
    assert max(g.abs().max() for g in found[0]) > 1e-4
    for left, right in zip(*found, strict=True):
        assert_close(left, right, atol=2e-6, rtol=1e-4)


def unsplit(inputs):
    """The two micro-batches of a rollout, as the trainer makes them, in the order of the rollout."""
    parts = split_tensor_dict(split_pixel_values_by_grid(inputs), 2)
    return [unsplit_pixel_values_by_grid(part) for part in parts]


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate"])
def test_with_the_samplers_correction_loss_and_gradients_are_trls(fresh, mode, level):
    trainer = fresh(**GROUPS, vllm_importance_sampling_mode=mode, importance_sampling_level=level)
    inputs, _ = rollout_of_vllm(trainer)
    ours = trainer._compute_loss(trainer.model, inputs)
    theirs = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    assert abs(ours.item()) > 1e-4
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-6)
    pairs = list(zip(gradients(trainer, ours), gradients(trainer, theirs), strict=True))
    same = all(torch.allclose(left, right, atol=2e-6, rtol=1e-4) for left, right in pairs)
    # By tokens and with the sequence's ratio, TRL gives all tokens the mean of their weights; here each keeps its own.
    assert same == (level == "token" or mode == "sequence_truncate")


def test_cispo_says_what_it_caps_and_how_far_the_policy_moved(fresh):
    trainer = fresh(**GROUPS, loss_type="cispo", epsilon_high=2.0)
    inputs = trainer._generate_and_score_completions(batch(trainer))
    trainer.current_gradient_accumulation_steps = 1
    logps = trainer._logps_and_entropies(trainer.model, inputs, entropy=False)[0].detach()
    inputs["old_per_token_logps"] = logps.clone()
    inputs["old_per_token_logps"][:, 0] -= 3.0  # the first token of each of the eight: r = e^3
    trainer._compute_loss(trainer.model, inputs)
    logged, tokens = trainer._metrics["train"], inputs["completion_mask"].sum().item()
    assert logged["cispo_capped"] == [pytest.approx(8 / tokens)]
    assert logged["max_log_ratio"] == [pytest.approx(3.0, abs=1e-4)]
    assert logged["approx_kl"] == [pytest.approx(8 * (math.exp(3) - 1 - 3) / tokens, rel=1e-3)]


# ---------------------------------------------------------------- truncated completions


def test_truncated_judgements_are_out_of_loss_and_statistics(fresh):
    def sampled(prompt_ids, *args, **kwargs):
        ids = [tokenizer(text)["input_ids"] for text in (JUDGMENTS[0], LONG, JUDGMENTS[1], JUDGMENTS[2])]
        ends = [tokenizer.eos_token_id]
        whole = [ids[0] + ends, ids[1], ids[2] + ends, ids[3] + ends]  # the second has no end
        return [list(whole[i % 4]) for i in range(len(prompt_ids))], None

    trainers = [fresh(max_completion_length=64, mask_truncated_completions=masked) for masked in (False, True)]
    outputs = []
    for trainer in trainers:
        tokenizer = trainer.processing_class.tokenizer
        trainer._generate_single_turn = sampled
        trainer.current_gradient_accumulation_steps = 1
        outputs.append(trainer._generate_and_score_completions(batch(trainer)))
    plain, masked = outputs
    assert masked["completion_mask"][1::4].sum() == 0 < plain["completion_mask"][1::4].sum()
    assert (masked["advantages"][1::4] == 0).all()
    # z-scores by hand, over the tokens of the other six
    mask, rewards = masked["completion_mask"].bool(), trainers[1]._rewards
    values = rewards[:, None].expand(mask.shape)[mask].double()
    expected = ((rewards.double() - values.mean()) / values.std(correction=0))[:, None].expand(mask.shape)
    assert_close(masked["advantages"][mask].double(), expected[mask], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain["advantages"][mask], masked["advantages"][mask])
    # the ratio is 1, so the loss of a sequence is minus its advantage, and all eight are counted
    loss = trainers[1]._compute_loss(trainers[1].model, masked)
    assert loss.item() == pytest.approx(-masked["advantages"][:, 0].sum().item() / 8, abs=1e-5)


def test_a_rollout_cut_throughout_teaches_nothing_and_breaks_nothing(fresh):
    trainer = fresh(mask_truncated_completions=True, max_steps=2)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    ids = trainer.processing_class.tokenizer(LONG)["input_ids"][:8]
    trainer._generate_single_turn = lambda prompt_ids, *args, **kwargs: ([list(ids) for _ in prompt_ids], None)
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    logged = [row for row in trainer.state.log_history if "policy_loss" in row]
    assert [row["policy_loss"] for row in logged] == [0.0, 0.0]
    assert all(math.isfinite(value) for row in logged for key, value in row.items() if key in ("approx_kl", "entropy"))


# ---------------------------------------------------------------- the sampler's correction, by TRL's own code

D = {0: [math.log(2)] * 3, 1: [math.log(5)], 2: [math.log(0.5)]}
"""log(p_trainer / p_sampler) of the first tokens of each of three texts; 0 for the others."""


def rollout_of_vllm(trainer, pairs=8):
    """A rollout whose sampler differs from the trainer by D; nothing of vLLM but its log-probabilities is needed."""
    trainer.current_gradient_accumulation_steps = 1
    plain = trainer._generate_and_score_completions(batch(trainer, pairs))
    logps = trainer._logps_and_entropies(trainer.model, plain, entropy=False)[0].detach()
    lengths = plain["completion_mask"].sum(1).tolist()
    scripted = trainer._generate_single_turn

    def sampled(prompt_ids, *args, **kwargs):
        ids, _ = scripted(prompt_ids)
        said = []
        for i, length in enumerate(lengths):
            own = logps[i, :length].clone()
            for t, d in enumerate(D[i % 3]):
                own[t] -= d
            said.append(own.tolist())
        return ids, said

    trainer._generate_single_turn = sampled
    trainer.use_vllm = True
    trainer._metrics["train"].clear()
    return trainer._generate_and_score_completions(batch(trainer, pairs)), lengths


def factors_by_hand(mode, length, which, low, high):
    """Return w of each token of a text, from the equations."""
    u = [math.exp(d) for d in D[which]] + [1.0] * (length - len(D[which]))
    if mode.startswith("sequence"):
        u = [math.prod(u)] * length
    if mode.endswith("truncate"):
        return [min(max(x, low or 0.0), high) for x in u]
    return [x if (low or 0.0) <= x <= high else 0.0 for x in u]


@pytest.mark.parametrize("low", [None, 0.7])
@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_the_samplers_correction_by_hand(fresh, mode, low):
    trainer = fresh(vllm_importance_sampling_mode=mode, vllm_importance_sampling_clip_min=low)
    inputs, lengths = rollout_of_vllm(trainer)
    by_hand = [factors_by_hand(mode, length, i % 3, low, 3.0) for i, length in enumerate(lengths)]
    # the ratio to the trainer's old policy is 1, so a token's loss is -w A
    loss = trainer._compute_loss(trainer.model, inputs)
    expected = [
        -sum(w * inputs["advantages"][i, t].item() for t, w in enumerate(row)) / len(row)
        for i, row in enumerate(by_hand)
    ]
    assert loss.item() == pytest.approx(sum(expected) / 8, abs=1e-5)
    # what is logged of it
    tokens, logged = sum(lengths), trainer._metrics["train"]
    masked = sum(w == 0 for row in by_hand for w in row)
    at_bound = sum(w in (low, 3.0) for row in by_hand for w in row)
    assert logged["sampling/masked"] == [pytest.approx(masked / tokens)]
    assert logged["sampling/truncated"] == [pytest.approx(at_bound / tokens)]
    gap = sum(abs(d) for i in range(8) for d in D[i % 3]) / tokens
    assert logged["sampling/sampling_logp_difference/mean"] == [pytest.approx(gap, rel=1e-3)]
    drops = {"token_truncate": 0, "sequence_truncate": 0}
    assert (masked > 0) == (mode not in drops)


def test_trls_default_drops_a_long_judgement_that_differs_evenly(fresh, monkeypatch):
    # each of 25 tokens is off by 0.1 nats, far inside every bound; their product is e^2.5 = 12
    monkeypatch.setitem(globals(), "D", {which: [0.1] * 25 for which in range(3)})
    masked = {}
    for mode in ("sequence_mask", config(".").vllm_importance_sampling_mode):
        trainer = fresh(vllm_importance_sampling_mode=mode)
        ids = trainer.processing_class.tokenizer(LONG)["input_ids"]
        trainer._generate_single_turn = lambda prompt_ids, *args, ids=ids: ([list(ids) for _ in prompt_ids], None)
        _, lengths = rollout_of_vllm(trainer)
        assert min(lengths) > 25
        masked[mode] = trainer._metrics["train"]["sampling/masked"]
    assert masked == {"sequence_mask": [1.0], "token_truncate": [0.0]}


# ---------------------------------------------------------------- whole runs


def trained(fresh, **options):
    trainer = fresh(
        steps_per_generation=4, max_steps=4, learning_rate=0.02, optim="sgd", lr_scheduler_type="constant", **options
    )
    trainer.train()
    return trainer, torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize(
    ("without", "switch"),
    [
        ({}, {"epsilon_high": 1e-4}),
        ({"epsilon_high": 1e-4}, {"delta": 1.0002}),
        ({"pre_clip": None}, {"importance_sampling_level": "sequence"}),
        ({"pre_clip": None}, {"loss_type": "cispo", "epsilon_high": 5.0}),
    ],
    ids=["epsilon_high", "delta", "importance_sampling_level", "loss_type"],
)
def test_a_switch_of_a_run_reaches_its_weights(fresh, without, switch):
    _, plain = trained(fresh, **without)
    _, again = trained(fresh, **without)
    trainer, switched = trained(fresh, **without, **switch)
    assert torch.equal(plain, again)
    assert switched.isfinite().all()
    assert (switched - plain).abs().max() > 1e-6
    assert sum("policy_loss" in row for row in trainer.state.log_history) == 4


# ---------------------------------------------------------------- configuration


def test_the_keys_of_the_controls_are_listed():
    listed = {name: text for name, _, text in describe_keys(StableReinforceConfig)}
    for name in (
        "epsilon_high", "delta", "loss_type", "importance_sampling_level", "mask_truncated_completions",
        "vllm_importance_sampling_mode",
    ):  # fmt: skip
        assert listed[name], name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance_sampling_level": "sequence"}, "does not combine with Pre-CLIP"),
        ({"loss_type": "cispo", "epsilon_high": 5.0}, "does not combine with Pre-CLIP"),
        ({"algorithm": "ppo", "loss_type": "cispo"}, "needs an epsilon_high"),
        ({"delta": 1.1}, "delta must be above 1.2"),
        ({"vllm_importance_sampling_mode": "truncate"}, "vllm_importance_sampling_mode must be one of"),
    ],
    ids=str,
)
def test_refused_combinations_are_refused_when_the_configuration_is_read(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **options)
