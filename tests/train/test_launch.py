"""`r1-reward train` from a config file to a saved checkpoint: both stages, LoRA, resume, taken folders, bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from r1_reward.records.errors import UserError
from r1_reward.train.launch import train

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def run(stage, pair_file, folder, *extra, resume=False):
    options = ["--data", str(pair_file), "--output_dir", str(folder), "--max_steps", "2", "--disable_tqdm", "true"]
    if stage == "sft":
        path = folder.parent / "sft.yaml"
        path.write_text("model: tiny\nuse_cpu: true\nbf16: false\ngradient_checkpointing: false\nreport_to: none\n")
        options += ["--per_device_train_batch_size", "4"]
    else:
        path = RECIPE
        options += ["--max_completion_length", "8"]
    return train(stage, path, [*options, *extra], resume=resume)


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_both_stages_save_a_loadable_model_and_their_config(stage, pair_file, tmp_path, monkeypatch):
    from r1_reward.models.checkpoint import load_model_and_processor

    asked = []

    def hub(repository, *_, **__):
        asked.append(repository)
        raise OSError("no network")

    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", hub)
    folder = run(stage, pair_file, tmp_path / "run")
    assert asked == [], "tiny is no repository on the Hub"
    model, processor = load_model_and_processor(str(folder))
    assert model.num_parameters() > 500_000
    assert processor.tokenizer.convert_tokens_to_ids("<|image_pad|>") is not None
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["max_steps"] == 2
    assert saved["data"] == str(pair_file)


def test_lora_trains_adapters_only(pair_file, tmp_path):
    folder = run("rl", pair_file, tmp_path / "run", "--lora_rank", "4")
    assert (folder / "adapter_model.safetensors").is_file()
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_all_weights_are_trained_from_adapters(stage, pair_file, tmp_path):
    adapters = run("sft", pair_file, tmp_path / "adapters", "--lora_rank", "4")
    folder = run(stage, pair_file, tmp_path / "run", "--model", str(adapters))
    assert (folder / "model.safetensors").is_file()


def test_a_penalty_relative_to_the_base_model_of_adapters_is_refused(pair_file, tmp_path):
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text("{}")
    options = ("--model", str(adapters), "--beta", "0.1")
    with pytest.raises(UserError, match="distance to their base model .* set lora_rank"):
        run("rl", pair_file, tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()
    for allowed in (("--lora_rank", "4"), ("--beta", "0")):
        with pytest.raises(UserError, match="base_model_name_or_path is missing"):  # it goes on to load them
            run("rl", pair_file, tmp_path / allowed[0], *options, *allowed)


def test_rl_refuses_fewer_pairs_than_a_rollout_takes(pair_file, tmp_path):
    with pytest.raises(UserError, match=r"pairs, but one rollout takes 4,096 \(.*lower steps_per_generation"):
        run("rl", pair_file, tmp_path / "run", "--steps_per_generation", "1024")


def test_resume_continues_and_a_taken_folder_is_refused(pair_file, tmp_path, caplog):
    folder = run("rl", pair_file, tmp_path / "run", "--save_steps", "1")
    with pytest.raises(UserError, match="already holds a run"):
        run("rl", pair_file, folder, "--save_steps", "1")
    run("rl", pair_file, folder, "--save_steps", "1", "--max_steps", "4", resume=True)
    assert "missing keys" not in caplog.text, "all weights are restored"
    state = json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    assert [row["step"] for row in state["log_history"] if "loss" in row] == [1, 2, 3, 4]


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_interrupted(stage, pair_file, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    # An untrained model earns nothing and would not move; any reward that differs between texts will do.
    monkeypatch.setattr("r1_reward.train.judging.format_reward", lambda text, _: float(len(text) % 2))
    options = ("--save_steps", "2", "--learning_rate", "1e-3", "--lr_scheduler_type", "constant", "--warmup_steps", "0")
    whole = run(stage, pair_file, tmp_path / "whole", *options, "--max_steps", "4")
    part = run(stage, pair_file, tmp_path / "part", *options)
    first = load_file(part / "model.safetensors")
    run(stage, pair_file, part, *options, "--max_steps", "4", resume=True)
    expected, resumed = (load_file(folder / "model.safetensors") for folder in (whole, part))
    assert all(expected[name].equal(resumed[name]) for name in expected)
    assert not all(expected[name].equal(first[name]) for name in expected)


def test_sft_loss_is_on_the_response_only(tiny, pairs, tmp_path):
    from r1_reward.train.sft import ColdStartConfig, sft_trainer

    model, processor = tiny
    args = ColdStartConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False,
    )  # fmt: skip
    trainer = sft_trainer(model, args, train_dataset=pairs, processing_class=processor)
    rows = [trainer.train_dataset[i] for i in range(2)]
    expected = [row["completion"][0]["content"] for row in rows]
    batch = trainer.data_collator(rows)
    for labels, text in zip(batch["labels"], expected, strict=True):
        kept = processor.tokenizer.decode(labels[labels != -100])
        assert kept == f"{text}<|im_end|>\n"


def test_pairs_without_reasoning_cannot_be_imitated(pairs, tiny, tmp_path):
    from r1_reward.train.sft import ColdStartConfig, sft_trainer

    args = ColdStartConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    untaught = pairs.filter(lambda text: text is None, input_columns="reasoning")
    with pytest.raises(UserError, match="nothing to imitate"):
        sft_trainer(tiny[0], args, train_dataset=untaught, processing_class=tiny[1])


def test_max_pixels_limits_the_visual_tokens(tiny):
    from PIL import Image

    from r1_reward.models.checkpoint import limit_pixels

    model, processor = tiny
    picture = Image.new("RGB", (448, 448))
    before = processor.image_processor([picture], return_tensors="pt")["image_grid_thw"].prod().item() // 4
    limit_pixels(processor, 16 * 28 * 28)
    after = processor.image_processor([picture], return_tensors="pt")["image_grid_thw"].prod().item() // 4
    assert (before, after) == (64, 16)


def test_mistakes_are_named_before_anything_is_loaded(pair_file, tmp_path):
    with pytest.raises(UserError, match="not a directory"):
        (tmp_path / "file").write_text("")
        run("rl", pair_file, tmp_path / "file")
    with pytest.raises(UserError, match="no such"):
        run("rl", tmp_path / "absent.jsonl", tmp_path / "run")


def test_rollouts_by_vllm_name_the_extra_that_is_missing(pair_file, tmp_path, monkeypatch):
    monkeypatch.setattr("r1_reward.train.launch.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"use_vllm needs vLLM: pip install 'r1-reward\[vllm\]'"):
        run("rl", pair_file, tmp_path / "run", "--use_vllm", "true")


def test_the_command_exits_2_with_a_message_and_no_traceback(tmp_path, monkeypatch, capsys):
    from r1_reward.cli import main

    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["train", "rl", "--config", str(RECIPE), "--lerning_rate", "1"], "Did you mean 'learning_rate'"),
        (["train", "rl", "--config", "recipes/tiny.yaml"], "no such config file. `r1-reward recipes` copies"),
        (["data", "validate", "absent.jsonl"], "absent.jsonl"),
    ):
        monkeypatch.setattr(sys, "argv", ["r1-reward", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = "".join(capsys.readouterr())
        assert end.value.code == 2
        assert message in said
        assert "Traceback" not in said
