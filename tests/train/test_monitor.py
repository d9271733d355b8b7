"""The written rule of collapse on hand-made logs, and the monitor on tiny runs that are broken on purpose."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from transformers import TrainerCallback

from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.records.errors import UserError
from r1_reward.train.config import RunConfig, load_config
from r1_reward.train.launch import train
from r1_reward.train.monitor import RULES, Collapse, CollapseWatch, StabilityMonitor, Thresholds, collapsed
from r1_reward.train.restore import restore_weights
from r1_reward.train.rl import StableReinforceConfig, StableReinforceTrainer

# ---- the rule

HEALTHY = {
    "loss": 0.02, "policy_loss": 0.02, "reward": 1.3, "grad_norm": 0.5, "parse_rate": 0.95, "entropy": 0.1,
    "completions/mean_length": 31.0, "completions/clipped_ratio": 0.1, "referee_unknown": 0.1,
}  # fmt: skip


def history(**curves):
    """Rows of healthy numbers for steps 1, 2, ..., with the given curves in their place."""
    length = max(len(values) for values in curves.values())
    named = {key.replace("__", "/"): values for key, values in curves.items()}
    return [
        {**HEALTHY, **{key: values[i] for key, values in named.items() if i < len(values)}, "step": i + 1}
        for i in range(length)
    ]


def verdict(rows, **options):
    found = collapsed(rows, max_completion_length=64, **options)
    return found and (found.step, found.rule)


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        # loss: the absolute value, strictly above
        ({"policy_loss": [0.1, 1000.0, -1000.0]}, None),
        ({"policy_loss": [0.1, 1000.1, 0.1]}, (2, "loss_exploded")),
        ({"policy_loss": [0.1, 0.1, -1001.0]}, (3, "loss_exploded")),
        ({"loss": [2e4]}, (1, "loss_exploded")),
        # not finite: also None, which TRL logs for NaN
        ({"policy_loss": [0.1, math.nan]}, (2, "not_finite")),
        ({"policy_loss": [0.1, None]}, (2, "not_finite")),
        ({"policy_loss": [-math.inf]}, (1, "not_finite")),
        ({"loss": [math.nan]}, (1, "not_finite")),
        ({"reward": [1.0, 1.0, None]}, (3, "not_finite")),
        ({"reward": [1.0, 1.0, None], "unscorable": [0.0, 0.0, 1.0]}, None),  # no reward to be broken: no verdicts
        ({"grad_norm": [0.5, math.inf]}, (2, "not_finite")),
        ({"approx_kl": [math.nan], "reward__consistency": [None]}, None),  # a mean of nothing is no collapse
        # parse rate: mean of five logs, strictly under half
        ({"parse_rate": [0.9, 0.5, 0.5, 0.5, 0.5, 0.5]}, None),
        ({"parse_rate": [0.9, 0.5, 0.5, 0.5, 0.5, 0.49]}, (6, "parse_rate_lost")),
        ({"parse_rate": [0.9, 0.0, 0.0, 0.0]}, None),  # four logs are not five
        ({"parse_rate": [0.9, 0.0, 0.0, 0.0, 0.0]}, (5, "parse_rate_lost")),
        ({"parse_rate": [0.9, 0.0, 0.9, 0.0, 0.9, 0.0]}, (6, "parse_rate_lost")),  # 0.54, then 0.36
        ({"parse_rate": [0.0] * 9}, None),  # nothing was lost
        ({"parse_rate": [0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.1, 0.3, 0.4, 0.4]}, None),  # learning it, with noise
        ({"parse_rate": [0.0, 0.6, 0.6, 0.6, 0.6, 0.6, 0.0, 0.0, 0.0]}, (7, "parse_rate_lost")),  # 0.6, then 0.48
        # length: 99 % of 64 tokens is 63.36
        ({"completions__mean_length": [31.0] + [63.35] * 6}, None),
        ({"completions__mean_length": [31.0] + [63.36] * 6}, (6, "length_at_limit")),
        ({"completions__mean_length": [64.0] * 8}, None),  # it never was shorter
        ({"completions__clipped_ratio": [0.0] + [0.989] * 6}, None),
        ({"completions__clipped_ratio": [0.0] + [0.99] * 6}, (6, "length_at_limit")),
        # entropy: every one of five
        ({"entropy": [0.1] + [0.009] * 5}, (6, "entropy_lost")),
        ({"entropy": [0.1] + [0.009] * 4 + [0.01] + [0.009] * 4}, None),
        ({"entropy": [0.001] * 8}, None),
        # the referee: the trainer counts its verdicts, because a share of few says little
        ({"referee_unknown": [1.0] * 9}, None),
    ],
)
def test_each_rule_at_its_line(curves, expected):
    assert verdict(history(**curves)) == expected


def test_the_first_step_and_the_values_are_named():
    rows = history(parse_rate=[0.9] * 3 + [0.1] * 9, policy_loss=[0.1] * 9 + [math.nan])
    found = collapsed(rows)
    # Windows of five end at step 5 with 2.9 / 5 and at step 6 with 2.1 / 5.
    assert (found.step, found.rule) == (6, "parse_rate_lost")
    assert found.values == pytest.approx({"parse_rate": 0.42})
    assert str(found) == "collapsed at step 6: answers can no longer be read (parse_rate 0.42)"
    assert str(Collapse(3, "sampling_failed", {})).endswith("the logits contain NaN or infinity")


def test_rows_of_other_kinds_and_missing_metrics_are_passed_over():
    rows = history(parse_rate=[0.9] + [0.1] * 9)
    for i, row in enumerate(rows):
        if i % 2:  # two updates a rollout: every second log has no rollout
            del row["parse_rate"], row["reward"]
    mixed = [other for row in rows for other in (row, {"step": row["step"], "eval_loss": math.nan, "train_loss": 1e9})]
    assert verdict(mixed) == (9, "parse_rate_lost")
    assert collapsed([]) is None
    assert collapsed(history(completions__mean_length=[31.0] + [64.0] * 9)) is None  # the limit is not known


def test_thresholds_move_every_line():
    lines = Thresholds(
        policy_loss=1.0, parse_rate=0.96, length_share=0.4, truncated_share=0.1, entropy=0.2, window=1,
    )  # fmt: skip
    assert {field.name for field in dataclasses.fields(lines)} == {
        "policy_loss", "parse_rate", "length_share", "truncated_share", "entropy", "window",
    }  # fmt: skip
    good = {"parse_rate": 0.97, "completions/mean_length": 5.0, "completions/clipped_ratio": 0.0, "entropy": 0.3}
    start = {**HEALTHY, **good, "step": 0}
    assert collapsed([start], thresholds=lines) is None
    for key, value, rule in [
        ("policy_loss", 1.1, "loss_exploded"),
        ("parse_rate", 0.95, "parse_rate_lost"),
        ("completions/mean_length", 26.0, "length_at_limit"),
        ("completions/clipped_ratio", 0.1, "length_at_limit"),
        ("entropy", 0.1, "entropy_lost"),
    ]:
        rows = [start, {**start, key: value, "step": 1}]
        assert verdict(rows) is None
        assert verdict(rows, thresholds=lines) == (1, rule)


def test_row_by_row_and_at_once_agree_on_random_logs():
    generator = torch.Generator().manual_seed(0)
    rules = set()
    for _ in range(200):
        rates = torch.rand(30, generator=generator).clamp(max=0.8).tolist()
        entropies = (0.02 * torch.rand(30, generator=generator)).tolist()
        rows = history(parse_rate=rates, entropy=entropies)
        found = collapsed(rows)
        watch = CollapseWatch()
        assert next((c for row in rows if (c := watch.add(row))), None) == found
        # twin: look at every prefix, with the windows written out
        expected = None
        for n in range(5, 31):
            means = [sum(rates[i - 5 : i]) / 5 for i in range(5, n + 1)]
            if means[-1] < 0.5 and (rates[0] >= 0.5 or any(m >= 0.5 for m in means[:-1])):
                expected = (n, "parse_rate_lost")
            elif all(e < 0.01 for e in entropies[n - 5 : n]) and (
                entropies[0] >= 0.01 or any(sum(entropies[i - 5 : i]) / 5 >= 0.01 for i in range(5, n))
            ):
                expected = (n, "entropy_lost")
            if expected:
                break
        assert (found and (found.step, found.rule)) == expected
        rules.add(found and found.rule)
    assert rules >= {"parse_rate_lost", "entropy_lost"}


# ---- the monitor

JUDGMENTS = [
    "<think>I see one two. Response 1 is better.</think><answer>1</answer>",
    "<think>I see one two. Response 2 is better.</think><answer>2</answer>",
    "no tags at all 1",
]


@pytest.fixture
def scripted(monkeypatch):
    """Stand in for sampling, so that rewards differ; calls beyond ``sampling.calls`` are sampled for real."""

    class Sampling:
        calls = 10**9

    sample = StableReinforceTrainer._generate_single_turn

    def generate(self, prompt_ids, *args, **kwargs):
        Sampling.calls -= 1
        if Sampling.calls < 0:
            return sample(self, prompt_ids, *args, **kwargs)
        tokenizer = self.processing_class.tokenizer
        ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in JUDGMENTS]
        return [list(ids[i % len(ids)]) for i in range(len(prompt_ids))], None

    monkeypatch.setattr(StableReinforceTrainer, "_generate_single_turn", generate)
    return Sampling


def trainer_for(tiny, pairs, folder, **options):
    model, processor = tiny
    defaults = {
        "per_device_train_batch_size": 8, "max_completion_length": 48, "max_steps": 6, "learning_rate": 1e-4,
        "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1,
        "disable_tqdm": True, "gradient_checkpointing": False, "seed": 0, "lr_scheduler_type": "constant",
    }  # fmt: skip
    args = StableReinforceConfig(output_dir=str(folder), **{**defaults, **options})
    return StableReinforceTrainer(model, args, train_dataset=pairs, processing_class=processor)


class Spy(TrainerCallback):
    """Break the weights after some steps, and see what each step starts from."""

    def __init__(self, trainer, broken_after=(), value=math.nan, parameter="lm_head.weight"):
        self.trainer, self.broken_after, self.value, self.parameter = trainer, set(broken_after), value, parameter
        self.starts = {}
        trainer.add_callback(self)

    def weights(self):
        return {name: p.detach().clone() for name, p in self.trainer.model.named_parameters()}

    def on_step_begin(self, args, state, control, **kwargs):
        optimizer = self.trainer.optimizer
        rate = optimizer.param_groups[0]["lr"]
        self.starts[state.global_step] = (self.weights(), len(optimizer.state), rate)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.broken_after:
            with torch.no_grad():
                self.trainer.model.get_parameter(self.parameter).fill_(self.value)


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def report(folder):
    return json.loads((folder / "collapse.json").read_text())


def test_a_healthy_run_is_not_stopped_and_takes_the_same_course(tiny, checkpoint, pairs, tmp_path, scripted):
    trainer = trainer_for(tiny, pairs, tmp_path / "watched")
    StabilityMonitor(trainer, keep_good_every=2, thresholds=Thresholds(window=2)).train()
    other = load_model_and_processor(str(checkpoint), dtype="float32")
    plain = trainer_for(other, pairs, tmp_path / "plain")
    plain.train()
    assert trainer.state.global_step == 6
    assert same(dict(trainer.model.named_parameters()), dict(plain.model.named_parameters()))
    assert not (tmp_path / "watched" / "collapse.json").exists()
    assert [path.name for path in (tmp_path / "watched").iterdir()] == ["last-good"]
    # Copies are taken after steps 2 and 4; that of 2 was proved by 3 and 4, that of 4 by 5 and 6.
    assert json.loads((tmp_path / "watched" / "last-good" / "step.json").read_text()) == 4


def test_an_absurd_learning_rate_is_stopped_and_the_run_can_go_on(pair_file, checkpoint, tmp_path, scripted):
    scripted.calls = 3  # then the model itself is sampled, and it no longer writes judgments
    folder = tmp_path / "run"
    path = tmp_path / "rl.yaml"
    path.write_text(
        f"model: {checkpoint}\ndata: {pair_file}\noutput_dir: {folder}\nuse_cpu: true\nbf16: false\nreport_to: none\n"
        "gradient_checkpointing: false\nper_device_train_batch_size: 8\nmax_completion_length: 32\nlogging_steps: 1\n"
        "max_steps: 12\nsave_steps: 1\nlearning_rate: 1.0\nlr_scheduler_type: constant\ndisable_tqdm: true\n"
    )
    with pytest.raises(UserError, match="training collapsed at step") as caught:
        train("rl", path, [])
    assert "last-good" in str(caught.value)
    assert "collapse.json" in str(caught.value)
    (event,) = report(folder)
    assert event["action"] == "stopped"
    assert event["step"] < 12
    assert event["rule"] in RULES
    assert event["last_good"] == {"folder": "last-good", "step": 0}
    assert [row["step"] for row in event["rows"]] == list(range(1, event["step"] + 1))
    assert event["thresholds"]["policy_loss"] == 1e3
    assert event["set_aside"]
    assert not (folder / "model.safetensors").exists()
    kept, _ = load_model_and_processor(str(folder / "last-good"), dtype="float32")
    start, _ = load_model_and_processor(str(checkpoint), dtype="float32")
    assert same(dict(kept.named_parameters()), dict(start.named_parameters()))
    # No checkpoint is older than the collapse, so going on means starting again; now nothing watches.
    assert not list(folder.glob("checkpoint-*"))
    scripted.calls = 10**9
    train("rl", path, ["--on_collapse", "ignore", "--learning_rate", "1e-5", "--max_steps", "2"], resume=True)
    assert (folder / "model.safetensors").is_file()
    assert json.loads((folder / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2


def test_broken_weights_stop_the_run_before_they_are_sampled_from(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, logging_steps=4, save_strategy="steps", save_steps=1, max_steps=8)
    Spy(trainer, broken_after=[6])
    monitor = StabilityMonitor(trainer, keep_good_every=1, thresholds=Thresholds(window=1))
    with pytest.raises(UserError, match=r"step 6: NaN .*weights nan"):
        monitor.train()
    (event,) = report(tmp_path)
    assert (event["step"], event["rule"], event["values"]) == (6, "not_finite", {"weights": "nan"})
    # Logs come after steps 1 (asked for by the monitor), 4 and 6: the copy of step 1 was proved by the log of 4.
    assert [row["step"] for row in event["rows"]] == [1, 4, 6]
    assert event["last_good"]["step"] == 1
    assert event["set_aside"] == [f"collapsed-checkpoint-{n}" for n in (2, 3, 4, 5)]
    assert {path.name for path in tmp_path.glob("*checkpoint-*")} == {"checkpoint-1", *event["set_aside"]}
    kept, _ = load_model_and_processor(str(tmp_path / "last-good"), dtype="float32")
    assert all(p.isfinite().all() for p in kept.parameters())
    assert not (tmp_path / "last-good-candidate").exists()


def test_a_stopped_run_saves_no_checkpoint_at_the_end_of_its_epoch(tiny, pairs, tmp_path, scripted):
    three_steps = pairs.select(range(24))
    trainer = trainer_for(tiny, three_steps, tmp_path, save_strategy="epoch", save_total_limit=1)
    Spy(trainer, broken_after=[5])
    with pytest.raises(UserError, match="step 5: NaN"):
        StabilityMonitor(trainer, keep_good_every=1, thresholds=Thresholds(window=1)).train()
    assert report(tmp_path)[0]["set_aside"] == []  # the log of step 4 proved the weights of step 3
    assert {path.name for path in tmp_path.glob("*checkpoint-*")} == {"checkpoint-3"}


def test_a_stopped_run_resumes_from_the_checkpoint_that_was_good(
    tiny, checkpoint, pairs, tmp_path, scripted, monkeypatch
):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 5}
    watch = {"keep_good_every": 2, "thresholds": Thresholds(window=1)}
    trainer = trainer_for(tiny, pairs, tmp_path, **options)
    first = Spy(trainer, broken_after=[4])
    with pytest.raises(UserError, match="The last good weights, of step 2"):
        StabilityMonitor(trainer, **watch).train()
    assert [path.name for path in tmp_path.glob("*checkpoint-3")] == ["collapsed-checkpoint-3"]
    again = trainer_for(load_model_and_processor(str(checkpoint), dtype="float32"), pairs, tmp_path, **options)
    restore_weights(again, tmp_path / "checkpoint-2")
    spy, said = Spy(again), []
    monkeypatch.setattr("transformers.trainer.logger.warning", lambda text, *_: said.append(text))
    StabilityMonitor(again, **watch).train(str(tmp_path / "checkpoint-2"))
    assert [text for text in said if "keys in the checkpoint" in text] == []  # the weights are there
    assert min(spy.starts) == 2
    assert same(spy.starts[2][0], first.starts[2][0])
    assert same(spy.starts[3][0], first.starts[3][0])  # the same course again
    assert [row["step"] for row in again.state.log_history if "loss" in row] == [1, 2, 3, 4, 5]


def test_rollback_restores_weights_optimizer_and_lowers_the_rate(tiny, pairs, tmp_path, scripted):
    trainer = trainer_for(tiny, pairs, tmp_path, steps_per_generation=2, max_steps=6)
    spy = Spy(trainer, broken_after=[4])
    StabilityMonitor(
        trainer, on_collapse="rollback", keep_good_every=1, rollback_lr_factor=0.25, thresholds=Thresholds(window=1)
    ).train()
    assert trainer.state.global_step == 6
    (event,) = report(tmp_path)
    assert (event["action"], event["step"], event["last_good"]["step"]) == ("rolled back", 4, 1)
    weights, states, rate = spy.starts[4]
    assert same(weights, spy.starts[1][0])  # those after step 1, bit for bit
    assert not same(weights, spy.starts[3][0])
    assert states == 0 < spy.starts[3][1]
    assert (spy.starts[3][2], rate, spy.starts[5][2]) == pytest.approx((1e-4, 2.5e-5, 2.5e-5))
    assert not same(spy.starts[5][0], weights)  # and training goes on
    (row,) = [row for row in trainer.state.log_history if "rollback" in row]
    assert (row["rollback"], row["step"]) == (1, 4)
    assert row["rollback/learning_rate"] == pytest.approx(2.5e-5)
    rates = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    assert rates == pytest.approx([1e-4] * 4 + [2.5e-5] * 2)
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_rollbacks_end_and_throw_the_rollouts_away(tiny, pairs, tmp_path, scripted):
    trainer = trainer_for(tiny, pairs, tmp_path, steps_per_generation=4, max_steps=9)
    Spy(trainer, broken_after=[1, 2, 3, 4, 5])
    with pytest.raises(UserError, match="at step 3"):
        StabilityMonitor(trainer, on_collapse="rollback", max_rollbacks=2).train()
    assert [event["action"] for event in report(tmp_path)] == ["rolled back", "rolled back", "stopped"]
    assert scripted.calls == 10**9 - 3  # one rollout would have served four updates


def test_rollback_restores_adapters(checkpoint, pair_file, tmp_path, pairs, scripted):
    from peft import LoraConfig

    model, processor = load_model_and_processor(str(checkpoint), dtype="float32")
    args = StableReinforceConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, max_completion_length=8, max_steps=3, use_cpu=True,
        learning_rate=1e-2, bf16=False, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
        gradient_checkpointing=False,
    )  # fmt: skip
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = StableReinforceTrainer(model, args, train_dataset=pairs, processing_class=processor, peft_config=lora)
    spy = Spy(trainer)

    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                with torch.no_grad():
                    next(p for p in trainer.model.parameters() if p.requires_grad).fill_(math.inf)

    trainer.add_callback(Poison())
    StabilityMonitor(trainer, on_collapse="rollback").train()
    assert report(tmp_path)[0]["last_good"]["step"] == 0
    assert same(spy.starts[2][0], spy.starts[0][0])
    assert not same(spy.starts[1][0], spy.starts[0][0])


def test_logits_that_cannot_be_sampled_are_a_collapse_too(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, max_completion_length=4)
    # finite weights, infinite logits
    Spy(trainer, broken_after=[2], value=3e38, parameter="model.language_model.norm.weight")
    with pytest.raises(UserError, match="no token could be sampled"):
        StabilityMonitor(trainer).train()
    (event,) = report(tmp_path)
    assert (event["step"], event["rule"], event["last_good"]["step"]) == (2, "sampling_failed", 0)


def test_other_errors_are_not_taken_for_a_collapse(tiny, pairs, tmp_path, monkeypatch):
    trainer = trainer_for(tiny, pairs, tmp_path)

    def fail(*args, **kwargs):
        raise RuntimeError("a cable was pulled")

    monkeypatch.setattr(trainer, "_compute_loss", fail)
    with pytest.raises(RuntimeError, match="cable"):
        StabilityMonitor(trainer).train()
    assert not (tmp_path / "collapse.json").exists()


# ---- configuration

BASE = "model: tiny\ndata: pairs.jsonl\noutput_dir: out\nuse_cpu: true\nbf16: false\nper_device_train_batch_size: 4\n"


def test_every_key_reaches_the_monitor(tiny, pairs, pair_file, tmp_path, monkeypatch):
    seen = {}

    class Recorder:
        def __init__(self, trainer, **options):
            seen.update(options)

        def train(self, checkpoint):
            seen["checkpoint"] = checkpoint

    monkeypatch.setattr("r1_reward.train.monitor.StabilityMonitor", Recorder)
    path = tmp_path / "rl.yaml"
    path.write_text(
        BASE.replace("pairs.jsonl", str(pair_file)).replace("out\n", f"{tmp_path / 'out'}\n")
        + "on_collapse: rollback\nkeep_good_every: 7\nrollback_lr_factor: 0.1\nmax_rollbacks: 2\nreport_to: none\n"
    )
    train("rl", path, [])
    assert seen == {
        "on_collapse": "rollback", "keep_good_every": 7, "rollback_lr_factor": 0.1, "max_rollbacks": 2,
        "checkpoint": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("on_collapse: restart", "on_collapse: must be stop, rollback or ignore, not 'restart'"),
        ("keep_good_every: 0", "keep_good_every: must be 1 or more, not 0"),
        ("max_rollbacks: -1", "max_rollbacks: must be 0 or more, not -1"),
        ("rollback_lr_factor: 1.5", "rollback_lr_factor: must be 1 or less, not 1.5"),
        ("rollback_lr_factor: 0", "rollback_lr_factor: must be more than 0"),
    ],
)
def test_wrong_values_are_named(tmp_path, line, message):
    path = tmp_path / "rl.yaml"
    path.write_text(BASE + line + "\n")
    with pytest.raises(UserError, match=message):
        load_config(path, [], StableReinforceConfig)


def test_the_default_is_to_stop():
    assert RunConfig(model="m", data="d").on_collapse == "stop"


def test_rollback_is_refused_where_it_cannot_work(tiny, pairs, tmp_path, monkeypatch):
    trainer = trainer_for(tiny, pairs, tmp_path)
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    with pytest.raises(UserError, match="use stop"):
        StabilityMonitor(trainer, on_collapse="rollback")
    StabilityMonitor(trainer)


def test_the_private_parts_of_trl_that_rollback_uses_are_there():
    import inspect

    from trl import GRPOTrainer

    source = inspect.getsource(GRPOTrainer._prepare_inputs)
    assert "or self._buffered_inputs is None" in source, "TRL changed: _prepare_inputs, see StabilityMonitor._roll_back"
    assert "_internal_call" in inspect.signature(GRPOTrainer.save_model).parameters
    assert hasattr(GRPOTrainer, "_load_from_checkpoint")


def test_resumed_training_starts_from_the_weights_of_the_checkpoint(pair_file, checkpoint, tmp_path, scripted):
    path = tmp_path / "rl.yaml"
    path.write_text(
        BASE.replace("tiny", str(checkpoint)).replace("pairs.jsonl", str(pair_file)).replace("out\n", f"{tmp_path}/o\n")
        + "report_to: none\nsave_steps: 1\nmax_completion_length: 48\nlearning_rate: 1e-3\nlogging_steps: 1\n"
        "lr_scheduler_type: constant\ngradient_checkpointing: false\ndisable_tqdm: true\n"
    )
    once = train("rl", path, ["--max_steps", "4", "--output_dir", str(tmp_path / "once")])
    train("rl", path, ["--max_steps", "2"])
    twice = train("rl", path, ["--max_steps", "4"], resume=True)
    models = [load_model_and_processor(str(folder), dtype="float32")[0] for folder in (once, twice)]
    assert same(dict(models[0].named_parameters()), dict(models[1].named_parameters()))
