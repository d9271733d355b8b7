"""verl's own request to a discriminative reward model, against our scalar judge."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="verl is not installed: make plugs ARGS=verl")

import aiohttp
import numpy as np
import torch
from fakes import Table
from served import Served
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.utils import hf_tokenizer

from r1_reward.engines.scalar import ScalarEngine
from r1_reward.judge.reward_model import RewardModel
from r1_reward.models.scalar import ScalarRewardModel
from r1_reward.models.tiny import build_tiny
from r1_reward.models.tiny_words import vocabulary

LENGTH = 16


@pytest.fixture(scope="module")
def tiny():
    return build_tiny(vocabulary(), seed=0)


@pytest.fixture(scope="module")
def tokenizer(tiny, tmp_path_factory):
    """The tokenizer of a checkpoint as verl loads it."""
    folder = tmp_path_factory.mktemp("judge")
    tiny[1].save_pretrained(folder)
    return hf_tokenizer(str(folder))


def worker(server, tokenizer, engine):
    """A worker of verl's reward loop, configured as its manager does, without Ray."""
    made = object.__new__(RewardLoopWorker)
    rollout = SimpleNamespace(name=engine)
    model = SimpleNamespace(model_path="/checkpoints/judge", enable=True, rollout=rollout)
    custom = SimpleNamespace(path=None)
    made.config = SimpleNamespace(reward=SimpleNamespace(reward_model=model, custom_reward_function=custom))
    made.reward_router_address = f"127.0.0.1:{server.port}"
    made.input_tokenizer = made.reward_model_tokenizer = tokenizer
    return made


def sample(tokenizer, question, response):
    """Return a rollout in the form of verl's batches: the chat, and its tokens with their mask."""
    tokens = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    padded = tokens + [tokenizer.pad_token_id] * (LENGTH - len(tokens))
    mask = [1, 1, *([1] * len(tokens)), *([0] * (LENGTH - len(tokens)))]
    chat = np.empty(1, dtype=object)
    chat[0] = [{"role": "user", "content": question}]
    tensors = {"responses": torch.tensor([padded]), "attention_mask": torch.tensor([mask])}
    return DataProto.from_dict(tensors=tensors, non_tensors={"raw_prompt": chat})


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_verl_gets_the_reward_of_a_scalar_model(engine, tiny, tokenizer):
    model, processor = tiny
    scalar = ScalarEngine(ScalarRewardModel(model).eval(), processor)
    expected = scalar.rewards([("Which digit?", [], "three"), ("Which digit?", [], "eight")])
    assert expected[0] != expected[1]
    with Served(model=RewardModel(scalar), model_name="judge") as server:
        own = worker(server, tokenizer, engine)
        found = [
            asyncio.run(own.compute_score(sample(tokenizer, "Which digit?", one)))["reward_score"]
            for one in ("three", "eight")
        ]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_prompt_that_shows_a_picture_is_refused(engine, tokenizer):
    table = Table({"three": 1.0})
    with Served(model=RewardModel(table), model_name="judge") as server:
        own = worker(server, tokenizer, engine)
        parts = [{"type": "image"}, {"type": "text", "text": "Which digit?"}]
        with pytest.raises(aiohttp.ClientResponseError) as error:
            asyncio.run(own.compute_score(sample(tokenizer, parts, "three")))
        assert error.value.status == 400 and not table.asked
        assert asyncio.run(own.compute_score(sample(tokenizer, "Which?", "three"))) == {"reward_score": 1.0}


def test_a_judge_that_compares_refuses_at_once(tokenizer):
    with Served(model_name="judge") as server:
        own = worker(server, tokenizer, "vllm")
        with pytest.raises(aiohttp.ClientResponseError) as error:  # verl retries server errors, but not these
            asyncio.run(own.compute_score(sample(tokenizer, "Which?", "three")))
    assert error.value.status == 400
