"""TRL is subclassed at private seams. If a test fails, re-read the method it names, then r1_reward/train/rl.py."""

from __future__ import annotations

import dataclasses
import inspect
import types

import pytest
from accelerate import Accelerator
from transformers import TrainerState
from trl import GRPOConfig, GRPOTrainer

from r1_reward import AsyncGroupReward, GroupReward


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (
            "_generate_single_turn",
            ["self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
        ),
        ("_generate", ["self", "prompts"]),
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_compute_loss", ["self", "model", "inputs"]),
    ],
)
def test_seams_have_the_expected_parameters(method, parameters):
    assert list(inspect.signature(getattr(GRPOTrainer, method)).parameters) == parameters, f"TRL changed: {method}"


def test_forward_takes_every_media_key_we_pass():
    from r1_reward.train.rl_base import MEDIA_KEYS

    known = set(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    expected = {
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy",
        "compute_aux_loss",
    } | set(MEDIA_KEYS)  # fmt: skip
    assert known == expected, "TRL changed: _get_per_token_logps_and_entropies"


@pytest.mark.parametrize(
    ("method", "snippets"),
    [
        (
            "_calculate_rewards",
            ["rewards_per_func = gather(rewards_per_func)", "torch.nan"],
        ),
        (
            "_generate_and_score_completions",
            [
                "self._calculate_rewards(inputs, prompts, completions, completion_ids_list)",
                "self.accelerator.process_index * len(prompts)",
                "rewards.view(-1, num_generations)",
                'output["old_per_token_logps"]',
                'output["ref_per_token_logps"]',
                'output["importance_sampling_ratio"]',
                '"advantages": advantages',
            ],
        ),
        ("_compute_loss", ['inputs.get("old_per_token_logps")', 'inputs["importance_sampling_ratio"]', "aux_loss"]),
        ("_prepare_inputs", ["shuffle_sequence_dict", "split_tensor_dict"]),
        # groups: num_generations consecutive rows of one prompt, gathered over processes in order
        ("_get_train_sampler", ["mini_repeat_count=self.num_generations"]),
        ("_get_eval_sampler", ["mini_repeat_count=self.num_generations_eval"]),
        # older or rounded weights are swapped in around this call, and nowhere else is anything sampled
        ("_generate", ["self._generate_single_turn("]),
        ("_generate_single_turn", ["unwrapped_model.generate("]),
    ],
)
def test_seams_still_do_what_the_overrides_rely_on(method, snippets):
    source = inspect.getsource(getattr(GRPOTrainer, method))
    for snippet in snippets:
        assert snippet in source, f"TRL changed: {method} no longer contains {snippet!r}"


def test_grpo_config_still_refuses_one_generation(tmp_path):
    # Should TRL allow it one day, StableReinforceConfig's detour in __post_init__ can go.
    with pytest.raises(ValueError, match="at least 2 generations"):
        GRPOConfig(output_dir=str(tmp_path), num_generations=1, use_cpu=True, bf16=False)


def test_reward_functions_are_called_by_the_names_that_ours_take():
    class Recorder:
        __name__ = "recorder"

        def __call__(self, **given):
            self.given = given
            return [0.5, None]

    recorder, trainer = Recorder(), GRPOTrainer.__new__(GRPOTrainer)
    trainer.accelerator, trainer.state, trainer.environments = Accelerator(cpu=True), TrainerState(), None
    trainer.reward_funcs, trainer.reward_func_names = [recorder], [recorder.__name__]
    trainer.reward_processing_classes = [None]
    trainer.args = types.SimpleNamespace(report_to=[])
    rows = [{"prompt": "Q?", "question": "Q?", "images": []}] * 2
    rewards = trainer._calculate_rewards(rows, ["Q?"] * 2, ["a", "aa"], [[1], [1, 1]])
    assert rewards[0].tolist() == [0.5] and rewards[1].isnan().all(), "TRL changed: None is no longer NaN"
    columns = {"question": ["Q?"] * 2, "images": [[], []]}
    own = {name: recorder.given.pop(name) for name in ("trainer_state", "log_extra", "log_metric")}
    assert callable(own["log_metric"])
    assert recorder.given == {
        "prompts": ["Q?"] * 2, "completions": ["a", "aa"], "completion_ids": [[1], [1, 1]], **columns,
    }  # fmt: skip
    for kind in (GroupReward, AsyncGroupReward):
        bound = inspect.signature(kind.__call__).bind(None, **recorder.given, **own).arguments
        assert set(bound) == {"self", "prompts", "completions", "columns"}


def test_refused_options_still_exist():
    from r1_reward.train.rl_config import StableReinforceConfig

    missing = sorted(set(StableReinforceConfig.refused) - set(GRPOConfig.__dataclass_fields__))
    assert not missing, f"TRL changed: options {missing} are gone"


def test_options_of_the_controls_still_exist():
    from r1_reward.train.controls import Controls

    # A name of ours that TRL no longer reads would be without effect.
    read = {field.name for field in dataclasses.fields(Controls)} | {
        "mask_truncated_completions", "vllm_importance_sampling_correction", "vllm_importance_sampling_clip_min",
        "vllm_importance_sampling_clip_max",
    }  # fmt: skip
    missing = sorted(read - set(GRPOConfig.__dataclass_fields__))
    assert not missing, f"TRL changed: options {missing} are gone"


def test_trainer_still_lets_a_run_be_resumed_exactly():
    from transformers import Trainer
    from trl.trainer.utils import RepeatSampler

    from r1_reward.train import progress

    loop = inspect.getsource(Trainer._inner_training_loop)
    call = loop[loop.index("self._run_epoch(") :]
    for name in ("epoch=epoch", "resume_from_checkpoint=resume_from_checkpoint", "epochs_trained=epochs_trained"):
        assert name in call, f"transformers changed: _run_epoch is not called with {name}, see {progress.__name__}"
    for name in progress.ExactResume._ALWAYS_KEPT:
        assert f"self.{name} = " in loop, f"transformers changed: {name} is not set before _run_epoch"
    source = inspect.getsource(Trainer._save_checkpoint)
    for snippet in ("run_dir = self._get_output_dir(trial=trial)", "self.args.push_to_hub", "rotate_checkpoints("):
        assert snippet in source, f"transformers changed: _save_checkpoint no longer contains {snippet!r}"
    loading = inspect.getsource(Trainer._load_from_checkpoint)
    assert "self._issue_warnings_after_load(" in loading, "transformers changed: restore_weights silences nothing"
    assert "torch.randperm(self.num_samples, generator=self.generator)" in inspect.getsource(RepeatSampler.__iter__)
    for snippet in ("self._step % generate_every == 0 or self._buffered_inputs is None", "self._step += 1"):
        assert snippet in inspect.getsource(GRPOTrainer), f"TRL changed: {snippet!r} is gone"
