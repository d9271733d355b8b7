"""Configuration files: unknown keys, types, overrides, what is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from r1_reward.records.errors import UserError
from r1_reward.train.config import describe_keys, load_config, save_config
from r1_reward.train.rl import StableReinforceConfig
from r1_reward.train.sft import ColdStartConfig

BASE = "model: tiny\ndata: pairs.jsonl\noutput_dir: {out}\nuse_cpu: true\nbf16: false\nper_device_train_batch_size: 4\n"


def write(tmp_path: Path, text: str = "") -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(BASE.format(out=tmp_path / "out") + text)
    return path


def test_file_and_overrides_reach_both_parts(tmp_path):
    path = write(tmp_path, "learning_rate: 1e-6\npre_clip: null\n")
    config = load_config(path, ["--beta", "1e-3", "--max-steps=7", "--lora_rank", "8"], StableReinforceConfig)
    assert (config.run.model, config.run.data, config.run.lora_rank) == ("tiny", "pairs.jsonl", 8)
    assert (config.trainer.learning_rate, config.trainer.beta, config.trainer.max_steps) == (1e-6, 1e-3, 7)
    assert config.trainer.pre_clip is None
    assert config.trainer.num_generations == 1


def test_the_choice_no_is_not_the_value_false(tmp_path):
    """YAML reads an unquoted no as false."""
    config = load_config(write(tmp_path, "eval_strategy: no\n"), ["--save_strategy", "no"], ColdStartConfig)
    assert (config.trainer.save_strategy, config.trainer.eval_strategy) == ("no", "no")
    with pytest.raises(UserError, match="True is not a valid SaveStrategy"):
        load_config(write(tmp_path), ["--save_strategy", "yes"], ColdStartConfig)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lerning_rate: 1.0", "Did you mean 'learning_rate'"),
        ("advantage_fliter: 2.0", "Did you mean 'advantage_filter'"),
        ("zzz: 1", "--keys"),
        ("learning_rate: fast", "learning_rate: 'fast' is not a number"),
        ("max_steps: many", "max_steps: 'many' is not a whole number"),
        ("gradient_checkpointing: 3", "gradient_checkpointing: 3 is not true/false"),
        ("model: null", "null is not allowed"),
        ("pre_clip: [2.0, 3.0]", "pre_clip must be"),
        ("loss_type: dapo", "loss_type must be one of grpo, cispo"),
        ("top_entropy_quantile: 0.5", "top_entropy_quantile has no effect"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, line), [], StableReinforceConfig)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--max_steps"], "missing value"),
        (["max_steps", "3"], "--key value"),
        (["--nope", "3"], "unknown key 'nope'"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path), overrides, ColdStartConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [("- a\n- b\n", "must map keys"), ("a: [1\n", "not a valid YAML"), ("", "'model' is missing")],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_config(path, [], ColdStartConfig)
    with pytest.raises(UserError, match="no such config"):
        load_config(tmp_path / "absent.yaml", [], ColdStartConfig)


def test_the_resolved_config_is_saved_and_loads_again(tmp_path):
    text = "pre_clip: [0.01, 100.0]\nsteps_per_generation: 4\ngradient_accumulation_steps: 2\n"
    config = load_config(write(tmp_path, text), ["--seed", "5"], StableReinforceConfig)
    path = save_config(config, tmp_path / "run")
    saved = yaml.safe_load(path.read_text())
    assert saved["model"] == "tiny"
    assert saved["seed"] == 5
    assert saved["pre_clip"] == [0.01, 100.0]
    assert saved["advantage_filter"] == 3.0  # a default, saved all the same
    again = load_config(path, [], StableReinforceConfig)
    assert again.run == config.run
    names = ("seed", "pre_clip", "advantage_filter", "num_generations", "steps_per_generation", "generation_batch_size")
    assert [getattr(again.trainer, name) for name in names] == [getattr(config.trainer, name) for name in names]
    other = load_config(path, ["--steps_per_generation", "6"], StableReinforceConfig)
    assert (config.trainer.generation_batch_size, other.trainer.generation_batch_size) == (16, 24)


RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
OTHERS = ("ablate-", "data-")  # tests/ablate and tests/data load these


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_an_override_wins_under_either_of_a_settings_names(tmp_path, name):
    """config.yaml has both names of transformers, and there the new one would win over the old."""
    config = load_config(write(tmp_path, "gradient_checkpointing: true\n"), [], ColdStartConfig)
    assert config.trainer.gradient_checkpointing
    saved = save_config(config, tmp_path / "saved")
    again = load_config(saved, [f"--{name}", "false"], ColdStartConfig)
    assert not again.trainer.gradient_checkpointing


@pytest.mark.parametrize("recipe", [p for p in RECIPES if not p.name.startswith(OTHERS)], ids=lambda p: p.name)
def test_every_recipe_loads(recipe, tmp_path):
    trainer = ColdStartConfig if "sft" in recipe.name else StableReinforceConfig
    overrides = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    config = load_config(recipe, overrides, trainer)
    assert config.run.model
    if recipe.name == "vllm-7b-rl.yaml":  # TRL's own mode drops whole judgements as long as these may be
        assert config.given["vllm_importance_sampling_mode"] == "token_truncate"
    if recipe.name.startswith("paper-7b-rl"):
        paper = "server:Qwen/Qwen2.5-VL-7B-Instruct@http://localhost:8000/v1"
        assert config.trainer.referee == ("rule" if "rule" in recipe.name else paper)
        assert (config.trainer.beta, config.trainer.epsilon, config.trainer.num_train_epochs) == (0.0, 0.2, 5.0)
        # on 4 GPUs: 256 sequences a rollout, two updates
        assert 4 * config.trainer.per_device_train_batch_size * config.trainer.steps_per_generation == 256
        assert config.trainer.steps_per_generation == 2 * config.trainer.gradient_accumulation_steps


def test_the_keys_that_are_listed_are_those_that_do_something():
    names = [name for name, _, _ in describe_keys(StableReinforceConfig)]
    assert len(names) == len(set(names))
    assert names[:2] == ["model", "data"]
    refused = {"scale_rewards", "sapo_temperature_pos", "reward_weights", "sync_ref_model", "load_best_model_at_end"}
    assert not refused & set(names)
    assert not {"stale_updates", "rollout_dtype", "referee_noise", "pre_clip_in_parameters"} & set(names)
    # ours before those that are TRL's and transformers' alone
    assert names.index("max_referee_unknown") < min(map(names.index, ("epsilon", "use_vllm", "weight_decay")))
    assert max(map(names.index, ("algorithm", "pre_clip", "referee", "learning_rate"))) < names.index("epsilon")
