"""Models that are not trained are unsharded and on the GPU of the process that loads them."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations import deepspeed

from r1_reward.data.teacher import TeacherSpec
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.referee_models import LocalReferee
from r1_reward.judge.reward_model import RewardModel
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.models.placing import local_device, placed
from r1_reward.models.scalar import ScalarRewardModel


@pytest.fixture
def moved(monkeypatch):
    """The devices that models are moved to, in the third of four processes on a machine with four fake GPUs."""
    places: list[str] = []
    move = torch.nn.Module.to

    def to(self, *args, **kwargs):
        if args and isinstance(args[0], torch.device) and args[0].type == "cuda":
            places.append(str(args[0]))
            return self
        return move(self, *args, **kwargs)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    return places


@pytest.fixture(scope="module")
def scalar_checkpoint(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scalar")
    backbone, processor = load_model_and_processor(str(checkpoint), dtype="float32")
    ScalarRewardModel(backbone, critique=False).save(folder)
    processor.save_pretrained(folder)
    return folder


LOADERS = {
    "local referee": LocalReferee,
    "engine": lambda path: EngineSpec(path).load(),
    "reward model": RewardModel.from_pretrained,
    "reward model with a dtype": lambda path: RewardModel.from_pretrained(path, dtype="float32"),
    "teacher": lambda path: TeacherSpec(path).load(),
}


@pytest.mark.parametrize("name", LOADERS)
def test_every_judge_is_on_the_gpu_of_its_process(name, checkpoint, moved):
    LOADERS[name](str(checkpoint))
    assert moved == ["cuda:2"]


def test_a_scalar_judge_is_there_too(scalar_checkpoint, moved):
    EngineSpec(str(scalar_checkpoint)).load()
    assert moved == ["cuda:2"]


def test_the_policy_is_left_to_its_trainer(checkpoint, moved):
    load_model_and_processor(str(checkpoint))
    assert moved == []


def test_the_device_of_a_process(monkeypatch, moved):
    assert str(local_device()) == "cuda:2"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # CUDA_VISIBLE_DEVICES set for each process
    assert str(local_device()) == "cuda:0"
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert str(local_device()) == "cuda:3"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(local_device()) == "cpu"


class ZeroThree:
    config = {"zero_optimization": {"stage": 3}}

    def is_zero3(self):
        return True


def test_a_judge_is_not_sharded_when_the_policy_is():
    trainers = ZeroThree()
    deepspeed.set_hf_deepspeed_config(trainers)
    try:
        seen = []

        def load():
            seen.append(deepspeed.is_deepspeed_zero3_enabled())
            return torch.nn.Linear(1, 1), "processor"

        assert placed(load)[1] == "processor"
        assert seen == [False]
        assert deepspeed.deepspeed_config() is ZeroThree.config  # the policy's, again

        with pytest.raises(OSError, match="no such checkpoint"):
            placed(lambda: (_ for _ in ()).throw(OSError("no such checkpoint")))
        assert deepspeed.deepspeed_config() is ZeroThree.config
    finally:
        deepspeed.unset_hf_deepspeed_config()
