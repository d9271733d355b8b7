"""StableReinforceTrainer: its advantages and loss are algorithm.py's, the image reaches every model, switches work."""

from __future__ import annotations

import math

import pytest
import torch
from fakes import make_special
from PIL import Image
from tiny_trainer import JUDGMENTS, batch, config, trainer_for
from trl import GRPOTrainer

from r1_reward import algorithm
from r1_reward.data.subsets import both_orders, without_reasoning
from r1_reward.judge.referee import RuleReferee
from r1_reward.judge.unreadable import UnreadableJudge
from r1_reward.records.errors import UserError
from r1_reward.train.algorithms import ALGORITHMS, unfiltered_advantages
from r1_reward.train.pictures_once import open_pictures
from r1_reward.train.rl import StableReinforceTrainer
from r1_reward.train.rl_config import UNUSED_TRL_OPTIONS


class HalfConsistent:
    """A referee whose verdicts are a fixed pattern, with one unknown in three."""

    def judge(self, reasonings, answers):
        return [(1.0, 0.0, None)[i % 3] for i in range(len(reasonings))]


def test_one_sample_per_prompt_is_allowed(tmp_path):
    assert config(tmp_path).num_generations == 1
    evaluating = config(tmp_path, per_device_train_batch_size=9, eval_strategy="steps")  # 8 pairs an evaluation batch
    assert (evaluating.num_generations, evaluating.num_generations_eval) == (1, None)
    with pytest.raises(ValueError, match="no baseline"):
        config(tmp_path, per_device_train_batch_size=1)


@pytest.mark.parametrize("name", sorted(UNUSED_TRL_OPTIONS))
def test_trl_options_without_effect_are_refused(tmp_path, name):
    values = {
        "scale_rewards": "group", "entropy_coef": 0.1,
        "use_adaptive_entropy": True, "top_entropy_quantile": 0.5,
        "multi_objective_aggregation": "normalize_then_sum", "use_bias_correction_kl": False, "reward_weights": [2.0],
        "max_tool_calling_iterations": 3, "length_column_name": "size", "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": True, "do_train": True, "do_predict": True, "resume_from_checkpoint": "x",
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"{name} has no effect here \\(.* leave it at"):
        config(tmp_path, **{name: values.get(name, 1.5)})


def test_a_reference_that_no_checkpoint_has_is_refused(tmp_path):
    with pytest.raises(ValueError, match="sync_ref_model is not supported .*in no checkpoint.* leave it at False"):
        config(tmp_path, beta=0.1, sync_ref_model=True)


@pytest.mark.parametrize(
    "bad",
    [
        {"pre_clip": [2.0, 3.0]}, {"pre_clip": [0.1]}, {"pre_clip": "atuo"}, {"pre_clip": ["low", "high"]},
        {"advantage_filter": 0.0}, {"advantage_filter": "atuo"}, {"advantage_filter": math.nan},
        {"advantage_filter_mode": "zero"}, {"consistency_mode": "sum"}, {"consistency_values": "[0, 1]"},
        {"format": "loose"}, {"format_mode": None}, {"on_unreadable": "go"}, {"max_referee_unknown": -0.1},
        {"algorithm": "gppo"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_switch_values_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        config(tmp_path, **bad)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_algorithm_decides_what_is_left_to_it(tmp_path, name):
    args = config(tmp_path, algorithm=name, num_generations=2)
    paper = name == "stable_reinforce"
    assert args.advantage_filter == args.filter_threshold() == (3.0 if paper else None)
    assert args.pre_clip == ([1e-3, 1e3] if paper else None)
    assert args.ratio_bounds() == ((1e-3, 1e3) if paper else None)
    given = config(tmp_path, algorithm=name, num_generations=2, advantage_filter=2, pre_clip=["1e-2", 100])
    assert (given.filter_threshold(), given.ratio_bounds()) == (2.0, (0.01, 100.0))
    off = config(tmp_path, algorithm=name, num_generations=2, advantage_filter=None, pre_clip=None)
    assert (off.filter_threshold(), off.ratio_bounds()) == (None, None)


@pytest.mark.parametrize("name", [name for name, entry in ALGORITHMS.items() if entry.baseline is not None])
def test_group_baselines_ask_for_groups(tmp_path, name):
    with pytest.raises(
        ValueError, match=f"{name} compares .* set num_generations to 2 or more \\(it is 1\\)".replace("+", "\\+")
    ):
        config(tmp_path, algorithm=name)
    assert config(tmp_path, algorithm=name, num_generations=4).num_generations == 4


def test_dr_grpo_asks_for_its_length(tmp_path):
    with pytest.raises(ValueError, match="dr_grpo divides the loss by max_completion_length"):
        config(tmp_path, algorithm="dr_grpo", num_generations=2, max_completion_length=None)


def test_pictures_are_not_sent_to_all_processes_for_a_log(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS)
    trainer._generate_and_score_completions(batch(trainer))
    assert len(trainer._logs["completion"]) == 8
    assert not trainer._logs["images"]


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


def test_clamped_the_lone_failure_counts_three(tiny, pairs, tmp_path):
    trainer = trainer_for(
        tiny, pairs, tmp_path, per_device_train_batch_size=16, advantage_filter_mode="clamp", advantage_filter=3.0
    )
    trainer._calculate_rewards = lambda *a: _given(trainer, [1.0] * 15 + [0.0])
    trainer._generate_single_turn = lambda prompt_ids, *a, **k: ([[5, 6, 7]] * len(prompt_ids), None)
    advantages = trainer._generate_and_score_completions(batch(trainer, 16))["advantages"]
    assert advantages[15].tolist() == [-3.0] * 3
    assert trainer._metrics["train"]["filtered"] == [1 / 16]


def _given(trainer, rewards):
    trainer._rewards = torch.tensor(rewards)
    return trainer._rewards[:, None]


GROUP_REWARDS = [1.0, 0.0, 0.5, 0.5, 2.0, float("nan"), 1.5, 0.0]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_trainer_uses_the_named_algorithm(tiny, pairs, tmp_path, name):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, algorithm=name, num_generations=4, beta=0.1)
    trainer._calculate_rewards = lambda *a: _given(trainer, GROUP_REWARDS)
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(1.1)  # away from the reference, so that there is a KL
    output = trainer._generate_and_score_completions(batch(trainer))
    kl = output["old_per_token_logps"] - output["ref_per_token_logps"]
    expected = unfiltered_advantages(
        ALGORITHMS[name], torch.tensor(GROUP_REWARDS), output["completion_mask"], group_size=4, kl=kl, kl_coef=0.1
    )
    assert kl.abs().max() > 1e-3
    assert expected.abs().max() > 0.4
    torch.testing.assert_close(output["advantages"], expected)  # none is beyond 3 sigma


def test_grpo_and_dr_grpo_have_trls_own_advantages(tiny, pairs, tmp_path):
    for name, scale in (("grpo", "group"), ("dr_grpo", "none")):
        trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, algorithm=name, num_generations=4)
        trainer._calculate_rewards = lambda *a, t=trainer: _given(t, GROUP_REWARDS)
        trainer.scale_rewards = scale
        rows = open_pictures(batch(trainer), tiny[1])
        theirs = GRPOTrainer._generate_and_score_completions(trainer, rows)["advantages"]
        ours = trainer._generate_and_score_completions(batch(trainer))
        torch.testing.assert_close(ours["advantages"], theirs[:, None] * ours["completion_mask"])


def test_groups_are_consecutive_samples_of_one_prompt(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, algorithm="rloo", num_generations=4, steps_per_generation=2)
    rollout = list(trainer._get_train_sampler())[:16]
    prompts = [rollout[i : i + 4] for i in range(0, 16, 4)]
    assert all(len(set(group)) == 1 for group in prompts)
    assert len({group[0] for group in prompts}) == 4
    rows = next(iter(trainer.get_train_dataloader()))
    texts = [str(row["pair"]) for row in rows]
    assert len(rows) == 16
    assert all(len(set(texts[i : i + 4])) == 1 for i in range(0, 16, 4))


def test_the_labels_of_each_update_are_balanced_where_both_orders_are_there(tiny, pairs, tmp_path):
    both = both_orders(without_reasoning(pairs), seed=0)
    trainer = trainer_for(
        tiny, both, tmp_path, JUDGMENTS, per_device_train_batch_size=8, steps_per_generation=4,
        gradient_accumulation_steps=2, shuffle_dataset=False, max_completion_length=40,
    )  # fmt: skip
    score = trainer._generate_and_score_completions

    def labelled(inputs):
        return {**score(inputs), "label": torch.tensor([row["preferred"] for row in inputs])}

    trainer._generate_and_score_completions = labelled
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    labels = torch.cat([part["label"] for part in trainer._buffered_inputs])
    assert len(labels) == 32
    assert [labels[:16].tolist().count(1), labels[16:].tolist().count(1)] == [8, 8]


@pytest.mark.parametrize(("size", "steps", "accumulation"), [(3, 2, 1), (4, 3, 2)])
def test_what_may_part_the_two_orders_is_said_once(tiny, pairs, tmp_path, caplog, size, steps, accumulation):
    trainer = trainer_for(
        tiny, pairs, tmp_path, JUDGMENTS, per_device_train_batch_size=size, steps_per_generation=steps,
        gradient_accumulation_steps=accumulation, max_completion_length=40,
    )  # fmt: skip
    rows = next(iter(trainer.get_train_dataloader()))
    for _ in range(2):
        trainer._prepare_inputs(rows)
        trainer._buffered_inputs = None
    assert caplog.text.count("may be in different updates") == 1


def test_each_process_takes_its_rows_of_the_gathered_groups(tiny, pairs, tmp_path):
    # two processes of 4 rows each, in groups of 8: what this one, the second, computes needs the other's rewards
    trainer = trainer_for(tiny, pairs, tmp_path, algorithm="dr_grpo", num_generations=8)
    trainer._rewards = torch.tensor(GROUP_REWARDS[:4] + [4.0, 2.0, 0.0, 0.0])  # mean 1
    part = {"completion_mask": torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]])}
    expected = torch.tensor([[3.0, 3.0], [1.0, 0.0], [-1.0, -1.0], [-1.0, -1.0]])
    torch.testing.assert_close(trainer._advantages(part, first_row=4), expected)


def test_evaluation_has_groups_of_its_own_size(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, algorithm="rloo", num_generations=4, num_generations_eval=1)
    trainer.model.eval()
    output = trainer._generate_and_score_completions(batch(trainer))
    assert output["advantages"].count_nonzero() == 0


def test_dr_grpo_divides_by_the_length_limit(tiny, pairs, tmp_path):
    trainer = trainer_for(
        tiny, pairs, tmp_path, JUDGMENTS, algorithm="dr_grpo", num_generations=4, max_completion_length=50
    )
    trainer._calculate_rewards = lambda *a: _given(trainer, [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    inputs = trainer._generate_and_score_completions(batch(trainer))
    trainer.current_gradient_accumulation_steps = 1
    # on-policy every token's loss is -A: sum over all tokens / (8 sequences * 50)
    expected = -inputs["advantages"].sum() / 400
    assert expected.abs() > 1e-3
    torch.testing.assert_close(trainer._compute_loss(trainer.model, inputs).detach(), expected)


def test_unscorable_samples_have_no_advantage_and_no_weight(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path)
    trainer._calculate_rewards = lambda *a: _given(trainer, [1.0, float("nan"), 0.0, 1.0, 0.0, 1.0, 0.0, float("nan")])
    trainer._generate_single_turn = lambda prompt_ids, *a, **k: ([[5, 6]] * len(prompt_ids), None)
    advantages = trainer._generate_and_score_completions(batch(trainer))["advantages"]
    assert advantages[1].tolist() == advantages[7].tolist() == [0.0, 0.0]
    torch.testing.assert_close(advantages[0], torch.ones(2))
    torch.testing.assert_close(advantages[2], -torch.ones(2))


class TimingOut:
    """A referee that supports every second judgment and never answers about the others."""

    def judge(self, reasonings, answers):
        return [(1.0, None)[i % 2] for i in range(len(answers))]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_timeout_gives_no_advantage_to_one_of_equal_judgments(tiny, pairs, tmp_path, name):
    trainer = trainer_for(
        tiny, pairs, tmp_path, [JUDGMENTS[0]], algorithm=name, num_generations=4, max_completion_length=40
    )
    trainer.referee = TimingOut()
    rows = [{**row, "preferred": 1} for row in batch(trainer, 4)]
    output = trainer._generate_and_score_completions(rows)
    assert [str(reward) for reward in trainer._rewards.tolist()] == ["2.0", "nan", "2.0", "nan"]
    assert output["advantages"].count_nonzero() == 0


def test_referee_verdicts_enter_the_reward(tiny, pairs, tmp_path):
    model, processor = tiny
    trainer = StableReinforceTrainer(
        model, config(tmp_path), train_dataset=pairs, processing_class=processor, referee=HalfConsistent()
    )
    logged = {}
    right = [[{"content": JUDGMENTS[0]}]] * 3
    rewards = trainer.judgment_reward(right, [1, 1, 1], lambda name, value: logged.setdefault(name, value))
    assert rewards == [2.0, 1.5, None]
    assert logged["reward/consistency"] == 0.5  # of the two known verdicts
    assert logged["unscorable"] == pytest.approx(1 / 3)
    assert logged["accuracy"] == 1.0


@pytest.mark.parametrize("on_unreadable", ["warn", "stop"])
def test_a_policy_that_writes_no_verdict_is_named_with_an_example(tiny, pairs, tmp_path, caplog, on_unreadable):
    texts = ["<answer>Answer 1 is better</answer>"] * 3
    trainer = trainer_for(tiny, pairs, tmp_path, texts, on_unreadable=on_unreadable)
    rows = batch(trainer)
    for _ in range(6):
        trainer._generate_and_score_completions(rows)
    assert "not one" not in caplog.text
    if on_unreadable == "stop":
        with pytest.raises(
            UnreadableJudge, match="(?s)not one of the first 56 answers can be read.*on_unreadable: warn"
        ):
            trainer._generate_and_score_completions(rows)
        return
    trainer._generate_and_score_completions(rows)
    assert "the policy: not one of the first 56 answers can be read" in caplog.text
    assert "Answer 1 is better" in caplog.text


def test_the_referee_is_the_one_given_or_the_one_named(tiny, pairs, tmp_path):
    assert isinstance(trainer_for(tiny, pairs, tmp_path).referee, RuleReferee)
    with pytest.raises(UserError, match="is not a referee"):
        trainer_for(tiny, pairs, tmp_path, referee="nobody")


class Silent:
    """A referee that is out, and is falsy as an empty container would be."""

    def __len__(self):
        return 0

    def judge(self, reasonings, answers):
        return [None] * len(answers)


def test_a_silent_referee_stops_the_run(tiny, pairs, tmp_path):
    model, processor = tiny
    args = config(tmp_path, max_referee_unknown=0.9, max_steps=5, max_completion_length=40)
    trainer = StableReinforceTrainer(model, args, train_dataset=pairs, processing_class=processor, referee=Silent())
    logged = {}
    right = [[{"content": JUDGMENTS[0]}]] * 8
    rewards = trainer.judgment_reward(right, [1] * 8, lambda name, value: logged.setdefault(name, value))
    assert rewards == [None] * 8
    assert logged["referee_unknown"] == logged["unscorable"] == 1.0
    with pytest.raises(UserError, match="16 of 16 judgments in the last 2 rollouts"):
        trainer.judgment_reward(right, [1] * 8, lambda *_: None)


@pytest.mark.parametrize(("opens", "text", "ends", "reward"), [
    (False, "<think>Response 1 is better. <answer>1</answer>", False, 0.0),
    (False, "<think>Response 1 is better. <answer>1</answer>", True, 0.0),
    (False, "Response 1 is better. <answer>1</answer>", False, 0.0),
    (False, "Response 1 is better. <answer>1</answer>", True, 1.5),
    (False, JUDGMENTS[0], False, 2.0),
    (True, "Response 1 is better. <answer>1</answer>", False, 0.0),
    (True, "Response 1 is better. <answer>1</answer>", True, 0.0),
    (True, "Response 1 is better.</think><answer>1</answer>", True, 2.0),
    (True, JUDGMENTS[0], True, 2.0),
])  # fmt: skip
def test_a_draft_earns_nothing_and_a_template_may_open_the_thought(tiny, pairs, tmp_path, opens, text, ends, reward):
    if opens:
        tiny[1].chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    trainer = trainer_for(tiny, pairs, tmp_path, max_completion_length=40)
    tokenizer = tiny[1].tokenizer
    ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * ends
    trainer._generate_single_turn = lambda prompt_ids, *a, **k: ([list(ids) for _ in prompt_ids], None)
    rows = batch(trainer)
    trainer._generate_and_score_completions(rows)
    wrong = 0.5 if reward == 2.0 else 0.0  # the form
    assert trainer._rewards.tolist() == [reward if row["preferred"] == 1 else wrong for row in rows]


def test_the_thought_is_there_where_trl_takes_it_out_of_the_message(tiny, pairs, tmp_path, monkeypatch):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS[:1], max_completion_length=40)
    tiny[1].tokenizer.response_schema = {"any": "schema"}
    parsed = {"role": "assistant", "content": "<answer>1</answer>", "reasoning_content": "Response 1 is better."}
    monkeypatch.setattr("trl.trainer.grpo_trainer.parse_response", lambda *a, **k: parsed)
    rows = batch(trainer)
    trainer._generate_and_score_completions(rows)
    assert trainer._rewards.tolist() == [2.0 if row["preferred"] == 1 else 0.5 for row in rows]


def test_tags_that_the_tokenizer_calls_special_are_read(tiny, pairs, tmp_path):
    make_special(tiny[1].tokenizer, ("<think>", "</think>", "<answer>", "</answer>"))
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS[:1], max_completion_length=40)
    rows = batch(trainer)
    trainer._generate_and_score_completions(rows)
    assert trainer._rewards.tolist() == [2.0 if row["preferred"] == 1 else 0.5 for row in rows]


def test_compositions_are_read_from_the_config(tiny, pairs, tmp_path):
    texts = [[{"content": text}] for text in (JUDGMENTS[0], JUDGMENTS[1], JUDGMENTS[2])]  # right, wrong, no tags

    def rewards(**options):
        return trainer_for(tiny, pairs, tmp_path, **options).judgment_reward(texts, [1, 1, 1], lambda *_: None)

    assert rewards() == [2.0, 0.5, 0.0]
    assert rewards(consistency_mode="add") == [2.0, 1.0, 0.0]
    assert rewards(format_mode="require", consistency_weight=0.25) == [1.25, 0.0, 0.0]
    assert rewards(consistency_values="ternary") == [2.0, 0.5, 0.0]
    texts = [[{"content": text.replace("<answer>", "\n<answer>")}] for text in JUDGMENTS]
    assert rewards() == [1.5, 0.0, 0.0]
    assert rewards(format="whitespace") == [2.0, 0.5, 0.0]


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
    logged = trainer._metrics["train"]
    assert logged["pre_clipped"][0] > 0 == logged["pre_clipped"][1]
    bias = algorithm.pre_clip_bias(logps, old, inputs["advantages"], inputs["completion_mask"])
    assert 0 < bias.changed_share < logged["pre_clipped"][0]  # some tokens had no gradient to lose
    for name, value in (("cosine", bias.cosine), ("norm_ratio", bias.norm_ratio), ("changed", bias.changed_share)):
        assert logged[f"pre_clip/{name}"] == [pytest.approx(value.item()), float(name != "changed")]


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
    Image.effect_noise((56, 56), 90).convert("RGB").save(tmp_path / "noise.png")
    noise = [{"path": str(tmp_path / "noise.png"), "bytes": None}]
    changed = [{**row, "pair": {**row["pair"], "images": noise}} for row in rows]
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


def test_a_reference_that_is_not_finite_stops_the_run(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, beta=0.1)
    with torch.no_grad():
        trainer.ref_model.get_input_embeddings().weight.fill_(math.nan)
    with pytest.raises(UserError, match="reference model gives log-probabilities that are not finite"):
        trainer._generate_and_score_completions(batch(trainer))


def test_the_reference_of_new_adapters_is_the_model_that_older_ones_were_merged_into(tiny, pairs, tmp_path):
    from peft import LoraConfig, get_peft_model

    from r1_reward.models.checkpoint import load_model_and_processor

    model, processor = tiny
    lora = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    moved = get_peft_model(model, LoraConfig(**lora, init_lora_weights=False))
    for part in (moved, processor):
        part.save_pretrained(tmp_path / "adapters")
    merged = load_model_and_processor(str(tmp_path / "adapters"), dtype="float32")
    trainer = trainer_for(merged, pairs, tmp_path / "run", JUDGMENTS, beta=0.1, peft_config=LoraConfig(**lora))
    output = trainer._generate_and_score_completions(batch(trainer))
    mask = output["completion_mask"]
    torch.testing.assert_close(output["old_per_token_logps"] * mask, output["ref_per_token_logps"] * mask)


LOGGED = {
    "reward", "reward/result", "reward/format", "reward/consistency", "accuracy", "parse_rate",
    "completions/mean_length", "entropy", "approx_kl", "max_log_ratio", "pre_clipped", "ppo_clipped", "filtered",
    "policy_loss", "grad_norm", "referee_unknown", "pre_clip/cosine", "pre_clip/norm_ratio", "pre_clip/changed",
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
