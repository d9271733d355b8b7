"""Held-out accuracy during training: the numbers, what is logged where, and that training takes the same course."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from r1_reward.engines.in_process import TransformersEngine
from r1_reward.judge.votes import Plan, judge_pairs
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment
from r1_reward.store.pairs import load_pairs
from r1_reward.train import held_out, launch
from r1_reward.train.config import load_config
from r1_reward.train.held_out import HeldOutAccuracy, measure
from r1_reward.train.launch import train
from r1_reward.train.rl import StableReinforceConfig, StableReinforceTrainer


def vote(answer, tokens=10, swapped=False):
    cut = tokens > 20
    return Judgment(
        answer=answer, swapped=swapped, text="", well_formed=answer is not None, tokens=tokens, truncated=cut
    )


def test_measure_by_hand():
    judged = [[vote(1), vote(1, 30)], [vote(2), vote(1)], [vote(None), vote(2, 20)], [vote(2), vote(None)]]
    numbers = measure(judged, [1, 1, 2, 1])
    # Pairs are right in 1, 1/2, 1/2 and 0 of their judgments; 2 of 8 cannot be read; 30 + 20 + 6 * 10 tokens.
    assert (numbers["accuracy"], numbers["parse_rate"], numbers["mean_tokens"]) == (0.5, 0.75, 110 / 8)
    assert numbers["truncated"] == 1 / 8
    # The 4^4 resamples of (0, 1/2, 1/2, 1), enumerated: 2.5 % and 97.5 % of their means.
    values = [0.0, 0.5, 0.5, 1.0]
    means = sorted(sum(c) / 4 for c in np.stack(np.meshgrid(*[values] * 4), -1).reshape(-1, 4))
    assert numbers["low"] == pytest.approx(np.percentile(means, 2.5), abs=0.126)
    assert numbers["high"] == pytest.approx(np.percentile(means, 97.5), abs=0.126)
    assert numbers["low"] < 0.5 < numbers["high"]


@pytest.fixture(autouse=True)
def _reward_of_the_text(monkeypatch):
    """An untrained model earns nothing; reward its texts by their letters, so that random numbers decide weights."""

    def reward(self, completions, log_metric, **_):
        log_metric("parse_rate", 1.0)
        return [float(sum(map(ord, completion[0]["content"])) % 7) for completion in completions]

    monkeypatch.setattr(StableReinforceTrainer, "judgment_reward", reward)


def trainer_for(checkpoint, pairs, folder, **options):
    model, processor = load_model_and_processor(str(checkpoint), dtype="float32")
    defaults = {
        "per_device_train_batch_size": 8, "max_completion_length": 6, "max_steps": 4, "learning_rate": 1e-3,
        "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1,
        "disable_tqdm": True, "gradient_checkpointing": False, "seed": 0,
    }  # fmt: skip
    args = StableReinforceConfig(output_dir=str(folder), **{**defaults, **options})
    return StableReinforceTrainer(model, args, train_dataset=pairs, processing_class=processor)


class DrawNumbers(TrainerCallback):
    """What a careless callback does."""

    def on_step_end(self, args, state, control, **kwargs):
        torch.rand(1)


def trained(checkpoint, pairs, folder, *, watch=None, **options):
    trainer = trainer_for(checkpoint, pairs, folder, **options)
    if watch is not None:
        trainer.add_callback(watch(trainer))
    trainer.train()
    return [p.detach().clone() for p in trainer.model.parameters()], trainer


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True, "steps_per_generation": 2}])
def test_training_takes_the_same_course_bit_for_bit(checkpoint, pairs, tmp_path, options):
    rows = list(pairs.select(range(5)))

    def watch(trainer):
        return HeldOutAccuracy(trainer, rows, every=1, max_new_tokens=5, batch_size=4)

    plain, _ = trained(checkpoint, pairs, tmp_path / "plain", **options)
    watched, trainer = trained(checkpoint, pairs, tmp_path / "watched", watch=watch, **options)
    careless, _ = trained(checkpoint, pairs, tmp_path / "careless", watch=lambda _: DrawNumbers(), **options)
    assert len([row for row in trainer.state.log_history if "held_out/accuracy" in row]) == 5
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(plain, careless, strict=True))  # the test can fail


def test_random_states_and_mode_are_put_back_whatever_judging_does(checkpoint, pairs, tmp_path, monkeypatch):
    trainer = trainer_for(checkpoint, pairs, tmp_path)
    trainer.model_wrapped.train()

    def judge(engine, rows, plan, **options):
        random.random(), np.random.rand(), torch.rand(1)
        return judge_pairs(engine, rows, plan, **options)

    monkeypatch.setattr(held_out, "judge_pairs", judge)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    HeldOutAccuracy(trainer, list(pairs.select(range(2))), every=1, max_new_tokens=2)._judge()
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert all(module.training for module in trainer.model.modules())


class Recorder(TrainerCallback):
    """Stands for TensorBoard, W&B and the like, which are told by on_log."""

    def __init__(self):
        self.rows = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append((state.global_step, dict(logs)))


@pytest.mark.parametrize("logging_steps", [1, 2])
def test_it_is_logged_beside_the_training_rows_which_stay_whole(checkpoint, pairs, tmp_path, logging_steps):
    rows = pairs.select(range(6))  # a dataset will do as well as a list
    recorder = Recorder()
    names = {}
    for every in (2, 100):
        trainer = trainer_for(checkpoint, pairs, tmp_path / str(every), logging_steps=logging_steps)
        trainer.add_callback(recorder)
        trainer.add_callback(HeldOutAccuracy(trainer, rows, every=every, max_new_tokens=5))
        trainer.train()
        names[every] = [(row["step"], set(row)) for row in trainer.state.log_history if "loss" in row]
        measured = [row for row in trainer.state.log_history if "held_out/accuracy" in row]
        assert [row["step"] for row in measured] == ([0, 2, 4] if every == 2 else [0])
        for row in measured:
            assert {key for key in row if key.startswith("held_out/")} == {
                f"held_out/{name}"
                for name in ("accuracy", "low", "high", "parse_rate", "truncated", "mean_tokens", "seconds")
            }
            assert set(row) - {"step", "epoch"} == {key for key in row if key.startswith("held_out/")}
            assert (row["held_out/accuracy"], row["held_out/parse_rate"]) == (0.0, 0.0)  # it never learned to write
            assert 1 <= row["held_out/mean_tokens"] <= 5
    assert names[2] == names[100]
    assert [step for step, _ in names[2]] == list(range(logging_steps, 5, logging_steps))
    assert all("reward" in keys and "entropy" in keys for _, keys in names[2])
    assert [step for step, logs in recorder.rows if "held_out/accuracy" in logs] == [0, 2, 4, 0]


def test_it_judges_the_policy_as_it_is_now(checkpoint, pairs, tmp_path, monkeypatch):
    rows = list(pairs.select(range(3)))
    texts = []

    def judge(*args, **options):
        judged = judge_pairs(*args, **options)
        texts.append([[judgment.text for judgment in row] for row in judged])
        return judged

    monkeypatch.setattr(held_out, "judge_pairs", judge)
    _, trainer = trained(
        checkpoint, pairs, tmp_path, watch=lambda t: HeldOutAccuracy(t, rows, every=2, max_new_tokens=5),
        learning_rate=0.05,
    )  # fmt: skip
    after = judge_pairs(TransformersEngine(trainer.model, trainer.processing_class), rows, Plan(max_new_tokens=5))
    assert texts[-1] == [[judgment.text for judgment in row] for row in after]
    assert texts[0] != texts[-1]
    assert all(len({judgment.swapped for judgment in row}) == 2 for row in after)  # both orders


def test_resumed_runs_do_not_measure_their_start_again(checkpoint, pairs, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    rows = list(pairs.select(range(2)))
    trained(checkpoint, pairs, tmp_path, max_steps=2, **options)
    trainer = trainer_for(checkpoint, pairs, tmp_path, **options)
    trainer.add_callback(HeldOutAccuracy(trainer, rows, every=2, max_new_tokens=2))
    trainer.train(resume_from_checkpoint=True)
    assert [row["step"] for row in trainer.state.log_history if "held_out/accuracy" in row] == [4]


def test_no_pairs_are_refused(checkpoint, pairs, tmp_path):
    trainer = trainer_for(checkpoint, pairs, tmp_path)
    with pytest.raises(UserError, match="no pairs"):
        HeldOutAccuracy(trainer, [], every=1, max_new_tokens=2)


# ---- configuration

BASE = "model: tiny\ndata: {data}\noutput_dir: {out}\nuse_cpu: true\nbf16: false\nreport_to: none\ndisable_tqdm: true\n"


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_every_key_reaches_the_callback(stage, pair_file, tmp_path, monkeypatch):
    seen = []

    class Recorded(HeldOutAccuracy):
        def __init__(self, trainer, rows, **options):
            super().__init__(trainer, rows, **options)
            seen.append(([row["id"] for row in rows], options))

        def _judge_and_log(self, control):
            seen.append(self._trainer.state.global_step)

    splits = []
    monkeypatch.setattr(held_out, "HeldOutAccuracy", Recorded)
    monkeypatch.setattr(launch, "checked_pairs", lambda name, **options: splits.append(options) or load_pairs(name))
    path = tmp_path / "run.yaml"
    path.write_text(BASE.format(data=pair_file, out=tmp_path / "out") + "gradient_checkpointing: false\n")
    options = ["--per_device_train_batch_size", "4", "--max_steps", "4"]
    if stage == "rl":
        options += ["--max_completion_length", "6", "--steps_per_generation", "2"]
    options += ["--held_out", str(pair_file), "--held_out_every", "2", "--held_out_pairs", "7"]
    train(stage, path, [*options, "--held_out_split", "dev", "--video_frames", "5", "--check_images", "false"])
    assert splits == [
        {"split": split, "video_frames": 5, "check_images": False} for split in ("train", "dev")
    ]  # fmt: skip
    (ids, given), *steps = seen
    assert len(ids) == len(set(ids)) == 7
    limits = {"rl": {"max_new_tokens": 6, "batch_size": 8}, "sft": {"max_new_tokens": 1024, "batch_size": 4}}
    assert given == {"every": 2, "video_frames": 5, **limits[stage]}
    assert steps == [0, 2, 4]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("held_out: pairs.jsonl\n", "must be set together"),
        ("held_out_every: 5\n", "must be set together"),
        ("held_out: pairs.jsonl\nheld_out_every: -1\n", "held_out_every: must be 0 or more, not -1"),
        ("held_out: pairs.jsonl\nheld_out_every: 1\nheld_out_pairs: 0\n", "held_out_pairs: must be 1 or more"),
    ],
)
def test_wrong_values_are_named(tmp_path, lines, message):
    path = tmp_path / "rl.yaml"
    path.write_text(BASE.format(data="pairs.jsonl", out=tmp_path) + "per_device_train_batch_size: 4\n" + lines)
    with pytest.raises(UserError, match=message):
        load_config(path, [], StableReinforceConfig)


def test_a_missing_held_out_file_is_named_before_the_model_is_loaded(pair_file, tmp_path):
    path = tmp_path / "rl.yaml"
    path.write_text(BASE.format(data=pair_file, out=tmp_path / "out").replace("model: tiny", "model: /nowhere"))
    with pytest.raises(UserError, match=r"absent\.jsonl: no such"):
        train("rl", path, ["--held_out", str(tmp_path / "absent.jsonl"), "--held_out_every", "5"])
