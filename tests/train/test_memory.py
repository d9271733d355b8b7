"""The memory plan against hand-worked sizes, real counts, and what a GPU showed (benchmarks/results)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from r1_reward.train.memory import Batch, Setup, shape_of, step_memory, update_flops

ROOT = Path(__file__).parents[2]
PLANNED = Batch(sequences=4, rollout=64, text_tokens=700, visual_tokens=640, new_tokens=1024)


@pytest.fixture(scope="module")
def shapes():
    return {
        name: shape_of(AutoConfig.from_pretrained(ROOT / "recipes/shapes" / f"qwen2.5-vl-{name}"))
        for name in ("3b", "7b")
    }


def test_parameters_of_the_real_checkpoints(shapes):
    assert shapes["3b"].parameters == 3_754_622_976  # as their model cards' safetensors say
    assert shapes["7b"].parameters == 8_292_166_656
    assert shapes["7b"].head_parameters == 152_064 * 3584
    assert (shapes["7b"].layers, shapes["7b"].cache_width, shapes["7b"].patch_values) == (28, 4 * 128, 1176)


def test_weights_gradients_optimizer_by_hand(shapes):
    count = 8_292_166_656
    for setup, weights, gradients, optimizer in (
        (Setup(weight_bytes=2), 2, 2, 4),
        (Setup(weight_bytes=4), 4, 4, 8),
        (Setup(weight_bytes=4, sharding="ddp", processes=8), 4, 8, 8),
        (Setup(weight_bytes=2, sharding="zero2", processes=4), 2, 0.5, 3),
        (Setup(weight_bytes=2, sharding="zero3", processes=4), 0.5, 0.5, 3),
        (Setup(weight_bytes=2, sharding="fsdp2", processes=8), 0.5, 0.5, 1),
        (Setup(weight_bytes=4, optimizer_bytes=1), 4, 4, 2),
    ):
        memory = step_memory(shapes["7b"], PLANNED, setup)
        assert memory.lasting["weights"] == weights * count
        assert memory.update["gradients"] == gradients * count
        assert memory.lasting["optimizer"] == optimizer * count


def test_the_cache_by_hand(shapes):
    batch = Batch(sequences=1, rollout=8, text_tokens=100, visual_tokens=0, new_tokens=100_000)
    cache = 2 * 28 * 512 * 2 * 8 * 100_100  # keys and values, layers, width, bytes, sequences, tokens
    words = 8 * 152_064 * 4 * 3
    assert step_memory(shapes["7b"], batch, Setup(weight_bytes=2)).generation == {
        "KV cache and first pass": cache + words
    }


def test_adapters_are_counted_as_peft_makes_them(tiny):
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(tiny[0])
    shape = shape_of(model.config)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    gradients = step_memory(shape, PLANNED, Setup(weight_bytes=4, lora_rank=8)).update["gradients"]
    assert gradients == 4 * trained


def test_what_each_choice_does(shapes):
    plain = step_memory(shapes["3b"], PLANNED, Setup(weight_bytes=2))
    assert (
        step_memory(shapes["3b"], PLANNED, Setup(weight_bytes=2, checkpointing=False)).update_peak > plain.update_peak
    )
    assert "reference" in step_memory(shapes["3b"], PLANNED, Setup(weight_bytes=2, reference=True)).lasting
    assert "reference" not in step_memory(shapes["3b"], PLANNED, Setup(2, lora_rank=8, reference=True)).lasting
    assert "vLLM" in step_memory(shapes["3b"], PLANNED, Setup(2, engine_bytes=1e9, generates_itself=False)).lasting
    assert "autocast copies" in step_memory(shapes["3b"], PLANNED, Setup(weight_bytes=4)).update
    with pytest.raises(ValueError, match="sharding"):
        step_memory(shapes["3b"], PLANNED, Setup(weight_bytes=2, sharding="zero4"))


def test_flops_are_six_a_weight_and_token(shapes):
    batch = Batch(sequences=1, rollout=0, text_tokens=1, visual_tokens=0, new_tokens=1)
    head, layers = shapes["7b"].head_parameters, 28 * shapes["7b"].layer_parameters
    assert update_flops(shapes["7b"], batch) == pytest.approx(6 * (2 * layers + head), rel=1e-3)
    assert update_flops(shapes["7b"], batch, lora=True) == pytest.approx(4 * (2 * layers + head), rel=1e-3)


MEASURED = [
    run
    for run in json.loads((ROOT / "benchmarks/results/bench-update.json").read_text(encoding="utf-8"))["runs"]
    if "measured GiB" in run and run["kind"] in ("ours", "trl")
]


@pytest.mark.parametrize("run", MEASURED, ids=lambda run: run["name"])
def test_within_fifteen_percent_of_what_a_gpu_showed(shapes, run):
    prompt, new = run["prompt and response tokens"]
    batch = Batch(sequences=4, rollout=16, text_tokens=prompt - 640, visual_tokens=640, new_tokens=new)
    setup = Setup(weight_bytes=4 if run["dtype"] == "float32" else 2, lora_rank=16 if run["lora"] else 0)
    planned = step_memory(shapes[run["shape"]], batch, setup).update_peak / 2**30
    assert planned == pytest.approx(run["measured GiB"], rel=0.15)


def test_adam_keeps_two_numbers_a_weight_of_its_own_precision():
    weights = torch.nn.Parameter(torch.ones(10, dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW([weights])
    weights.grad = torch.ones_like(weights)
    optimizer.step()
    state = [value for value in optimizer.state[weights].values() if value.dim()]
    assert sum(value.numel() * value.element_size() for value in state) == 10 * 2 * 2
