"""LoRA adapters are a checkpoint like any other: load, judge, train further, from a folder or the Hub's cache."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hub_cache import put_in_cache
from safetensors.torch import load_file

from r1_reward.judge.calibration import Calibration
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.records.errors import UserError


def adapt(path, folder, seed):
    """Save adapters with random weights for the model at ``path``; return the adapted model itself."""
    from peft import LoraConfig, get_peft_model

    model, processor = load_model_and_processor(str(path), dtype="float32")
    torch.manual_seed(seed)
    options = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(**options))
    adapted.save_pretrained(folder)
    processor.save_pretrained(folder)
    return adapted


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.tensor([[7, 8, 9, 10]])).logits


@pytest.fixture(scope="module")
def adapters(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    return folder, logits(adapt(checkpoint, folder, 0))


def test_adapters_load_as_the_model_they_were_saved_from(adapters, checkpoint):
    folder, expected = adapters
    assert not (folder / "config.json").exists()
    model, processor = load_model_and_processor(str(folder), dtype="float32")
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert logits(model) == pytest.approx(expected, abs=1e-4)
    plain, _ = load_model_and_processor(str(checkpoint), dtype="float32")
    assert (logits(plain) - expected).abs().max() > 0.1
    assert processor.tokenizer.eos_token == "<|im_end|>"


def test_adapters_of_adapters_load_as_a_chain(adapters, tmp_path):
    expected = logits(adapt(adapters[0], tmp_path / "second", 1))
    assert json.loads((tmp_path / "second" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        adapters[0]
    )
    model, _ = load_model_and_processor(str(tmp_path / "second"), dtype="float32")
    assert logits(model) == pytest.approx(expected, abs=1e-4)


def test_the_base_is_found_from_another_folder(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    expected = logits(adapt(checkpoint.name, tmp_path / "lora", 2))
    monkeypatch.chdir(tmp_path)
    model, _ = load_model_and_processor("lora", dtype="float32")
    assert logits(model) == pytest.approx(expected, abs=1e-4)


def test_adapters_of_the_tiny_model_find_it(tmp_path):
    expected = logits(adapt("tiny", tmp_path / "lora", 3))
    model, _ = load_model_and_processor(str(tmp_path / "lora"))
    assert logits(model) == pytest.approx(expected, abs=1e-4)


def test_adapters_from_the_hub_load_their_base_and_calibration(adapters, checkpoint, tmp_path, monkeypatch):
    from r1_reward import RewardModel

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(adapters[0], tmp_path / "lora")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "me/base"}))
    fitted = Calibration(temperature=1.0, n=20, ece_before=0.2, ece_after=0.1, brier_before=0.3, brier_after=0.2)
    fitted.save(folder)
    put_in_cache(tmp_path / "cache", "me/base", checkpoint)
    put_in_cache(tmp_path / "cache", "me/judge", folder)
    judge = RewardModel.from_pretrained("me/judge", max_new_tokens=4)
    assert logits(judge.engine.model) == pytest.approx(adapters[1], abs=1e-4)
    assert judge.calibration == fitted
    assert RewardModel.from_pretrained("me/base").calibration is None


def test_adapters_that_cannot_be_loaded_say_why(adapters, tmp_path):
    folder = shutil.copytree(adapters[0], tmp_path / "lora")
    config = json.loads((folder / "adapter_config.json").read_text())

    def refused(match):
        with pytest.raises(UserError, match=match):
            load_model_and_processor(str(folder))

    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "no")}))
    refused("cannot load .*no, the base model of these adapters")
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    refused("the base model of these adapters is unknown")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = (folder / "adapter_model.safetensors").read_bytes()
    assert load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").write_bytes(weights[:-100])
    refused("cannot apply these adapters to")
