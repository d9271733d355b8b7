"""Memory and speed of one StableReinforce step on a GPU, beside TRL's GRPOTrainer with equal model, batch, rollouts.

    python benchmarks/bench_update.py --shape recipes/shapes/qwen2.5-vl-3b --cases ours,trl --out bench-update.json

The model has the shape of a real checkpoint and random weights; pictures are noise that the processor brings to 640
visual tokens; prompts hold two answers of about 200 tokens. A random model never stops, so each response has all of its
new tokens. In the cases ``ours`` and ``trl`` responses are drawn at random instead of generated, so that both trainers
update on the same ones and the time of generation, which is TRL's own in both, is measured apart (``generate``).
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from r1_reward import vision_attention
from r1_reward.data.images import decode_images
from r1_reward.data.pairs import load_pairs
from r1_reward.train.models import build_tiny, limit_pixels
from r1_reward.train.rl import StableReinforceTrainer
from r1_reward.train.rl_config import StableReinforceConfig
from r1_reward.train.rows import rl_rows

PEAK_FLOPS = 989e12
"""Dense bfloat16 of an H100 or H200 SXM, from the vendor's data sheet."""
MAX_PIXELS = 640 * 28 * 28
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero")


def build_model(shape: str, dtype: torch.dtype, device: str, processor: Any) -> Any:
    """Return a model of the shape in the folder with random weights, its image tokens those of ``processor``."""
    config = AutoConfig.from_pretrained(shape)
    tokenizer = processor.tokenizer
    for name, token in (
        ("image_token_id", "<|image_pad|>"), ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"), ("vision_end_token_id", "<|vision_end|>"),
    ):  # fmt: skip
        setattr(config, name, tokenizer.convert_tokens_to_ids(token))
    config.text_config.eos_token_id = tokenizer.eos_token_id
    config.text_config.pad_token_id = tokenizer.pad_token_id
    with init_empty_weights(include_buffers=False):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                parameter.normal_(0.0, 0.02, generator=generator)
        for module in model.modules():  # buffers that are computed, not stored: rotary frequencies
            if hasattr(module, "compute_default_rope_parameters"):
                module.inv_freq = module.compute_default_rope_parameters(module.config)[0].to(device)
            elif hasattr(module, "inv_freq"):
                module.__init__(config.vision_config) if not hasattr(module, "dim") else module.__init__(module.dim)
                module.to(device)
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def make_pairs(folder: Path, rows: int, side: tuple[int, int] = (1280, 800)) -> Any:
    """Write ``rows`` pairs with a noise picture each and load them."""
    random = np.random.default_rng(0)
    lines = []
    for row in range(rows):
        coarse = random.integers(0, 256, (side[1] // 8, side[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(side).save(folder / f"{row}.jpg", quality=90)
        answers = [" ".join(random.choice(WORDS, 200)) for _ in range(2)]
        lines.append(
            {
                "id": str(row), "question": "What is written in the picture?", "images": [f"{row}.jpg"],
                "response_1": answers[0], "response_2": answers[1], "preferred": 1 + row % 2,
            }
        )  # fmt: skip
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return load_pairs(path)


class Stopwatch:
    """Seconds and peak memory of named stretches of work on the device."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.peaks: dict[str, list[float]] = defaultdict(list)
        self._cuda = device.type == "cuda"

    def _synchronize(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def around(self, name: str, function: Any) -> Any:
        """Return ``function`` timed under ``name``."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._synchronize()
            if self._cuda:
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            result = function(*args, **kwargs)
            self._synchronize()
            self.seconds[name].append(time.perf_counter() - started)
            if self._cuda:
                self.peaks[name].append(torch.cuda.max_memory_allocated() / 2**30)
            return result

        return timed


class StepClock(TrainerCallback):
    """Seconds from the end of one optimizer step to the end of the next, loading of rows included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Start the clock."""
        self._ended = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Note the seconds since the last step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._ended)
        self._ended = now


def scripted(trainer: Any, tokens: int, vocabulary: int) -> None:
    """Replace the trainer's generation by random tokens, the same for every trainer."""
    random = np.random.default_rng(1)

    def responses(prompt_ids: Any, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        return [random.integers(1000, vocabulary, tokens).tolist() for _ in prompt_ids], None

    trainer._generate_single_turn = responses


def decoded_rows(pairs: Any, processor: Any) -> Any:
    """Return rows as a `datasets` image column gives them: decoded whenever they are read."""
    rows = rl_rows(pairs, processor)
    stored = rows.format["format_kwargs"]["transform"]

    def transform(batch: Any) -> Any:
        shown = stored(batch)
        return {**shown, "images": [decode_images({"images": images}) for images in shown["images"]]}

    return pairs.with_transform(transform)


def make_trainer(kind: str, model: Any, processor: Any, pairs: Any, options: argparse.Namespace, folder: str) -> Any:
    """Return our trainer or TRL's with equal settings and equal rewards."""
    settings: dict[str, Any] = {
        "output_dir": folder, "per_device_train_batch_size": options.batch, "report_to": "none",
        "gradient_accumulation_steps": options.accumulate, "steps_per_generation": 2 * options.accumulate,
        "num_generations": 2, "max_completion_length": options.tokens, "max_steps": options.steps,
        "save_strategy": "no",
        "learning_rate": 1e-6, "bf16": True, "logging_steps": 1, "temperature": 1.0, "beta": options.beta,
        "gradient_checkpointing": True, "use_cpu": options.device == "cpu", "disable_tqdm": True,
    }  # fmt: skip
    adapters = None
    if options.lora:
        from peft import LoraConfig

        adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    draw = np.random.default_rng(2)

    def reward(completions: Any, **_: Any) -> list[float]:
        return draw.integers(0, 4, len(completions)).astype(float).tolist()

    if kind == "ours":
        trainer: Any = StableReinforceTrainer(
            model, StableReinforceConfig(**settings), train_dataset=pairs, processing_class=processor,
            peft_config=adapters,
        )  # fmt: skip
        trainer.reward_funcs = [reward]
    else:
        trainer = GRPOTrainer(
            model, args=GRPOConfig(**settings, loss_type="grpo"), reward_funcs=[reward],
            train_dataset=decoded_rows(pairs, processor), processing_class=processor, peft_config=adapters,
        )  # fmt: skip
    return trainer


def run_trainer(kind: str, model: Any, processor: Any, pairs: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Run a few steps and return seconds and memory by part."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(kind, model, processor, pairs, options, folder)
        watch, clock = Stopwatch(trainer.accelerator.device), StepClock()
        trainer.add_callback(clock)
        scripted(trainer, options.tokens, model.config.get_text_config().vocab_size)
        for name in ("_generate_and_score_completions", "_compute_loss"):
            setattr(trainer, name, watch.around(name, getattr(trainer, name)))
        trainer.training_step = watch.around("training_step", trainer.training_step)
        trainer.train()
        optimizer = sum(
            value.numel() * value.element_size()
            for state in trainer.optimizer.state.values()
            for value in state.values()
            if torch.is_tensor(value)
        )
    result = {
        "case": kind,
        "steps": [round(second, 3) for second in clock.seconds],
        "seconds": {name: [round(s, 3) for s in values] for name, values in watch.seconds.items()},
        "peak_gib": {name: round(max(values), 3) for name, values in watch.peaks.items()},
        "optimizer_gib": optimizer / 2**30,
    }
    del trainer
    return result


def measure_generation(model: Any, processor: Any, pairs: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Time generation alone, with transformers' growing cache and with a static one that it compiles."""
    rows = next(iter(rl_rows(pairs, processor).iter(batch_size=options.sequences)))
    texts = [processor.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in rows["prompt"]]
    images = [decode_images({"images": row}) for row in rows["images"]]
    inputs = processor(text=texts, images=images, return_tensors="pt", padding=True).to(model.device)
    model.eval()
    result: dict[str, Any] = {"case": "generate", "prompt_tokens": inputs["input_ids"].size(1)}
    for cache in options.caches.split(","):
        for new_tokens in (8, options.tokens):
            watch = Stopwatch(model.device)
            with torch.inference_mode():
                watch.around("generate", model.generate)(
                    **inputs, do_sample=True, max_new_tokens=new_tokens, min_new_tokens=new_tokens,
                    cache_implementation=None if cache == "dynamic" else cache, top_k=0,
                )  # fmt: skip
            result[f"{cache}/{new_tokens}"] = {
                "seconds": watch.seconds["generate"],
                "peak_gib": watch.peaks["generate"],
            }
    return result


def profile_update(model: Any, processor: Any, pairs: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Say where the time of one forward and backward pass goes: on the device, and in issuing its work."""
    from torch.profiler import ProfilerActivity, profile

    result: dict[str, Any] = {"case": "profile"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer("ours", model, processor, pairs, options, folder)
        scripted(trainer, options.tokens, model.config.get_text_config().vocab_size)
        steps, training_step = [], trainer.training_step

        def profiled(*args: Any, **kwargs: Any) -> Any:
            steps.append(None)
            if len(steps) != 4:
                return training_step(*args, **kwargs)
            torch.cuda.synchronize()
            started = time.perf_counter()
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
                loss = training_step(*args, **kwargs)
                torch.cuda.synchronize()
            result["wall"] = time.perf_counter() - started
            events = record.key_averages()
            result["device"] = sum(event.self_device_time_total for event in events) / 1e6
            result["kernels"] = sum(event.count for event in events if event.self_device_time_total > 0)
            print(events.table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=60))
            print(events.table(sort_by="self_cpu_time_total", row_limit=22, max_name_column_width=60))
            return loss

        trainer.training_step = profiled
        trainer.train()
    return result


def measure_parts(model: Any, processor: Any, pairs: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Time the vision tower forwards and backwards, window by window and packed."""
    rows = next(iter(rl_rows(pairs, processor).iter(batch_size=options.batch)))
    images = [decode_images({"images": row}) for row in rows["images"]]
    inputs = processor.image_processor([image for row in images for image in row], return_tensors="pt")
    pixels, grid = inputs["pixel_values"].to(model.device, model.dtype), inputs["image_grid_thw"].to(model.device)
    result: dict[str, Any] = {"case": "parts"}
    outputs = []
    tower = model.model.visual
    tower.train()
    for implementation in ("sdpa", vision_attention.NAME):
        if implementation == vision_attention.NAME:
            assert vision_attention.pack_vision_attention(model)
        for _ in range(3):
            watch = Stopwatch(model.device)
            output = watch.around("forward", tower)(pixels, grid_thw=grid).pooler_output
            watch.around("backward", output.float().square().mean().backward)()
        outputs.append(output.detach().float())
        gradient = tower.blocks[0].attn.qkv.weight.grad.float().clone()
        outputs.append(gradient)
        model.zero_grad(set_to_none=True)
        result[implementation] = {"seconds": watch.seconds, "peak_gib": watch.peaks}
    for name, (one, other) in {"output": (outputs[0], outputs[2]), "gradient": (outputs[1], outputs[3])}.items():
        result[f"{name}_relative_difference"] = ((one - other).norm() / one.norm()).item()
    return result


def main() -> None:
    """Run the cases asked for, each on the same weights, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", required=True)
    parser.add_argument("--cases", default="ours,trl")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--sequences", type=int, default=16, help="generated at once")
    parser.add_argument("--caches", default="dynamic")
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--packed", action="store_true", help="one attention call for all windows of the vision tower")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    _, processor = build_tiny([" ".join(WORDS), "What is written in the picture?"])
    limit_pixels(processor, MAX_PIXELS)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_pairs(Path(folder), max(2 * options.batch * options.accumulate, options.sequences))
        for case in options.cases.split(","):
            model = build_model(options.shape, getattr(torch, options.dtype), options.device, processor)
            if options.packed:
                assert vision_attention.pack_vision_attention(model)
            run = {"generate": measure_generation, "parts": measure_parts, "profile": profile_update}.get(case)
            measured = (
                run(model, processor, pairs, options) if run else run_trainer(case, model, processor, pairs, options)
            )
            results.append({**measured, "options": str(vars(options))})
            print(json.dumps(results[-1]), flush=True)
            del model
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    if options.out:
        options.out.write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
