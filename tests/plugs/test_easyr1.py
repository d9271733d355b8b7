"""EasyR1's own reward manager and DataProto with our batch function; its trainer (FSDP, vLLM on GPUs) is not run.

It is not on PyPI. With a checkout of hiyouga/EasyR1 (here b44b311b of 2026-07-30)::

    EASYR1_SOURCE=~/EasyR1 make plugs ARGS=easyr1
"""

from __future__ import annotations

import inspect
import json
import os
import sys

import pytest

sys.path.insert(0, os.environ.get("EASYR1_SOURCE", ""))
pytest.importorskip(
    "verl.workers.reward.function", reason="EasyR1 is not there: EASYR1_SOURCE=CHECKOUT make plugs ARGS=easyr1"
)

import numpy as np
import torch
from served import ScriptedJudge, Served, png
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from verl.protocol import DataProto
from verl.workers.reward import AutoRewardManager, RewardConfig
from verl.workers.reward.function import RewardInput

from r1_reward.records.schema import Completion
from r1_reward.serve.judge_client import JudgeFailed


class Silenced(ScriptedJudge):
    def judge(self, question, first, second, seed, temperature):
        if "spam" in first + second:
            return Completion(text="I would not say.", tokens=4)
        return super().judge(question, first, second, seed, temperature)


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {sign: number for number, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytes_of_text = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_of_text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_of_text.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bytes_of_text, eos_token="<eos>", pad_token="<pad>")


@pytest.fixture
def manager(tmp_path, tokenizer):
    """A function from a server's port to EasyR1's manager with our function, loaded from a user's file."""
    line = "from r1_reward.serve.dialects.easyr1 import REWARD_NAME, REWARD_TYPE, compute_score\n"
    (tmp_path / "reward.py").write_text(line)

    def build(port):
        options = {"url": f"http://127.0.0.1:{port}", "image_dir": str(tmp_path), "timeout": 60}
        config = RewardConfig(f"{tmp_path}/reward.py:compute_score", reward_function_kwargs=options)
        config.post_init()
        return AutoRewardManager(config, tokenizer)

    return build


def batch(tokenizer, samples):
    """Return EasyR1's batch of (response, content of the ground truth)."""
    ids = [tokenizer.encode(response) for response, _ in samples]
    length = max(map(len, ids))
    padded = {
        "responses": torch.tensor([[*one, *[0] * (length - len(one))] for one in ids]),
        "response_mask": torch.tensor([[1] * len(one) + [0] * (length - len(one)) for one in ids]),
    }
    truths = np.array([json.dumps(said) for _, said in samples], dtype=object)
    return DataProto.from_dict(tensors=padded, non_tensors={"ground_truth": truths})


def test_what_we_rely_on_is_still_there(manager):
    assert set(RewardInput.__annotations__) == {"response", "response_length", "ground_truth"}
    assert list(inspect.signature(AutoRewardManager.compute_reward).parameters) == ["self", "data"]
    loaded = manager(1)
    assert loaded.reward_type == "batch"


def test_groups_with_pictures_spam_and_too_long_answers(manager, tokenizer, tmp_path):
    for width in (5, 6):
        (tmp_path / f"{width}.png").write_bytes(png(width, 4))
    texts = ["says 1", "says 2", "spam spam", "x" * 51_000]
    samples = [
        (f"{width} {text}", {"question": "<image>Which number?", "images": [f"{width}.png"]})
        for text in texts
        for width in (5, 6)  # not consecutive: EasyR1 balances a batch before it asks for rewards
    ]
    with Served(Silenced()) as server:
        rewards, metrics = manager(server.port).compute_reward(batch(tokenizer, samples))
    assert rewards.sum(-1).tolist() == pytest.approx([-0.8, -0.8, 0.8, 0.8, -1, -1, -1, -1])
    assert metrics["overall"] == pytest.approx(rewards.sum(-1).tolist())
    assert metrics["scored"] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert server.judge.seen
    for (_, first, second), sizes in zip(server.judge.seen, server.judge.images, strict=True):
        assert [(int(first[0]), 4)] == [(int(second[0]), 4)] == sizes


def test_one_sample_in_validation(manager, tokenizer):
    with Served(Silenced()) as server:
        lone = batch(tokenizer, [("says 3", {"question": "Which?", "answer": "says 2"})])
        assert manager(server.port).compute_reward(lone)[0].sum().item() == pytest.approx(0.8)
        with pytest.raises(ValueError, match="val_override_config"):
            manager(server.port).compute_reward(batch(tokenizer, [("says 3", {"question": "Which?"})]))


def test_an_unreachable_judge_raises(manager, tokenizer):
    with pytest.raises(JudgeFailed):
        manager(9).compute_reward(batch(tokenizer, [(text, {"question": "Which?"}) for text in "12"]))
