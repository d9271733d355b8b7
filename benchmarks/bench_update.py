"""Compare memory and speed of a StableReinforce step with TRL's GRPOTrainer, with equal model, batch and rollouts.

    python benchmarks/bench_update.py --out benchmarks/results/bench-update.json         # all of RUNS, in one process
    python benchmarks/bench_update.py --out benchmarks/results/bench-update-cpu.json --shape3b benchmarks/shapes/small \
        --runs trl,ours-unpacked,trl-again,trl-mixed,ours-mixed-unpacked,trl-mixed-again \
        --visual 160 --tokens 256 --steps 8 --batch 2

Models have the shapes of Qwen2.5-VL (recipes/shapes) and random weights; pictures are noise that the processor resizes
to 640 visual tokens; prompts have two answers of about 200 tokens. A random model never stops, so the trainers get
random responses instead of generated ones, the same for both: of 1,024 tokens each, or (``mixed``) of lengths typical
of judgments. Generation, which both leave to transformers, is measured separately. Every trainer run on a GPU is
compared with the memory estimate of `r1-reward plan`. On a CPU (Linux) everything is float32 and memory is the peak of
the process.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from stopwatch import GIB, StepClock, Stopwatch, synchronize
from transformers import AutoConfig, AutoModelForImageTextToText
from trl import GRPOConfig, GRPOTrainer

from r1_reward.models import vision_attention
from r1_reward.models.checkpoint import limit_pixels
from r1_reward.models.tiny import build_tiny
from r1_reward.store.machine import describe_machine
from r1_reward.store.pairs import load_pairs
from r1_reward.train import memory
from r1_reward.train.pictures_once import open_pictures
from r1_reward.train.rl import StableReinforceTrainer
from r1_reward.train.rl_config import StableReinforceConfig
from r1_reward.train.rows import rl_rows

PEAK_FLOPS = 989e12
"""Dense bfloat16 peak of an H100 or H200 SXM, from the vendor's data sheet."""
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero")
WARM_UP = 2


@dataclass(frozen=True)
class Run:
    """One measurement."""

    kind: str
    shape: str = "3b"
    dtype: str = "bfloat16"
    packed: bool = True
    lora: bool = False
    mixed: bool = False
    cache: str = "dynamic"


RUNS = {
    "parts": Run("parts"),
    "profile": Run("profile"),
    "trl": Run("trl", packed=False),
    "ours-unpacked": Run("ours", packed=False),
    "ours": Run("ours"),
    "trl-again": Run("trl", packed=False),
    "trl-mixed": Run("trl", packed=False, mixed=True),
    "ours-mixed-unpacked": Run("ours", packed=False, mixed=True),
    "ours-mixed": Run("ours", mixed=True),
    "trl-mixed-again": Run("trl", packed=False, mixed=True),
    "trl-lora": Run("trl", packed=False, lora=True),
    "ours-lora": Run("ours", lora=True),
    "ours-float32": Run("ours", dtype="float32"),
    "ours-7b": Run("ours", shape="7b"),
    "ours-7b-lora": Run("ours", shape="7b", lora=True),
    "generate": Run("generate"),
    "generate-7b": Run("generate", shape="7b"),
    "generate-static": Run("generate", cache="static"),
}


def build_model(shape: str, dtype: torch.dtype, device: str, processor: Any) -> Any:
    """Return a model of the shape in the folder, with random weights and the image tokens of ``processor``."""
    config = AutoConfig.from_pretrained(shape)
    tokenizer = processor.tokenizer
    for name, token in (
        ("image_token_id", "<|image_pad|>"), ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"), ("vision_end_token_id", "<|vision_end|>"),
    ):  # fmt: skip
        setattr(config, name, tokenizer.convert_tokens_to_ids(token))
    config.text_config.eos_token_id = tokenizer.eos_token_id
    config.text_config.pad_token_id = tokenizer.pad_token_id
    with init_empty_weights(include_buffers=False):  # rotary frequencies are computed, and would be lost
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    generator = torch.Generator(device).manual_seed(0)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            weights = torch.empty(parameter.shape, dtype=dtype, device=device)
            if weights.dim() == 1:
                weights.fill_(0.0 if name == "bias" else 1.0)
            else:
                weights.normal_(0.0, 0.02, generator=generator)
            setattr(module, name, torch.nn.Parameter(weights))
    model.tie_weights()
    model.to(device)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def make_pairs(folder: Path, rows: int, *, mixed: bool, side: tuple[int, int] = (1280, 800)) -> Any:
    """Write ``rows`` pairs with a noise picture each and load them."""
    random = np.random.default_rng(0)
    lines = []
    for row in range(rows):
        coarse = random.integers(0, 256, (side[1] // 8, side[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(side).save(folder / f"{row}.jpg", quality=90)
        lengths = random.integers(50, 350, 2) if mixed else (200, 200)
        answers = [" ".join(random.choice(WORDS, length)) for length in lengths]
        lines.append(
            {
                "id": str(row), "question": "What is written in the picture?", "images": [f"{row}.jpg"],
                "response_1": answers[0], "response_2": answers[1], "preferred": 1 + row % 2,
            }
        )  # fmt: skip
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return load_pairs(path)


def decoded_rows(pairs: Any, processor: Any) -> Any:
    """Return rows as from a `datasets` image column: decoded on every access."""
    stored = rl_rows(pairs).format["format_kwargs"]["transform"]

    def transform(batch: Any) -> Any:
        rows = stored(batch)
        opened = open_pictures(
            [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)], processor
        )
        return {name: [row[name] for row in opened] for name in ("prompt", "images", "preferred")}

    return pairs.with_transform(transform)


def make_trainer(run: Run, model: Any, processor: Any, pairs: Any, options: argparse.Namespace, folder: str) -> Any:
    """Return our trainer or TRL's with the same settings, rewards and responses."""
    settings: dict[str, Any] = {
        "output_dir": folder, "per_device_train_batch_size": options.batch, "report_to": "none",
        "gradient_accumulation_steps": options.accumulate, "steps_per_generation": 2 * options.accumulate,
        "num_generations": 2, "max_completion_length": options.tokens, "max_steps": options.steps,
        "save_strategy": "no", "learning_rate": 1e-6, "logging_steps": 1, "temperature": 1.0, "beta": 0.0,
        "gradient_checkpointing": True, "disable_tqdm": True,
        "use_cpu": options.device == "cpu", "bf16": options.device != "cpu",
    }  # fmt: skip
    adapters = None
    if run.lora:
        from peft import LoraConfig

        adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    draw = np.random.default_rng(2)

    def reward(completions: Any, **_: Any) -> list[float]:
        return draw.integers(0, 4, len(completions)).astype(float).tolist()

    if run.kind != "trl":
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
    random, vocabulary = np.random.default_rng(1), model.config.get_text_config().vocab_size

    def responses(prompt_ids: Any, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        lengths = np.exp(random.normal(np.log(350), 0.5, len(prompt_ids))) if run.mixed else [options.tokens] * 999
        lengths = np.clip(lengths, 1, options.tokens).astype(int)
        return [random.integers(100, vocabulary, n).tolist() for n, _ in zip(lengths, prompt_ids, strict=False)], None

    trainer._generate_single_turn = responses
    return trainer


def measure_trainer(run: Run, model: Any, processor: Any, pairs: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Run some steps; return seconds, memory and model FLOPs utilization."""
    probe = model.model.language_model.layers[0].mlp.gate_proj.weight
    before = probe.detach().clone()
    config = model.config
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(run, model, processor, pairs, options, folder)
        watch, clock = Stopwatch(), StepClock()
        trainer.add_callback(clock)
        lengths: list[tuple[int, int]] = []
        score = trainer._generate_and_score_completions

        def noted(rows: Any) -> Any:
            output = score(rows)
            lengths.append((output["prompt_ids"].size(1), output["completion_ids"].size(1)))
            return output

        trainer._generate_and_score_completions = watch.around("rollout, scored", noted)
        trainer.training_step = watch.around("micro-step", trainer.training_step)
        trainer.train()
        optimizer = sum(
            value.numel() * value.element_size()
            for state in trainer.optimizer.state.values()
            for value in state.values()
            if torch.is_tensor(value)
        )
    del trainer
    per_cycle = [sum(clock.seconds[i : i + 2]) for i in range(WARM_UP, len(clock.seconds) - 1, 2)]
    scoring = watch.seconds["rollout, scored"]
    updates = [second for i, second in enumerate(watch.seconds["micro-step"]) if i % (2 * options.accumulate)]
    updates = updates[2 * options.accumulate * WARM_UP // 2 - 1 :]
    prompt, new = lengths[-1]
    batch = memory.Batch(
        options.batch, 2 * options.accumulate * options.batch, prompt - options.visual, options.visual, new
    )
    shape = memory.shape_of(config)
    setup = memory.Setup(weight_bytes=4 if run.dtype == "float32" else 2, lora_rank=16 if run.lora else 0)
    planned = memory.step_memory(shape, batch, setup).update_peak / GIB
    flops = memory.update_flops(shape, batch, lora=run.lora)
    median = float(np.median(updates))
    result = {
        "seconds a rollout and its two updates": [round(s, 3) for s in per_cycle],
        "seconds of scoring a rollout": [round(s, 3) for s in scoring],
        "seconds of a micro-step, median": round(median, 3),
        "tokens/s of the update": round(options.batch * batch.length / median),
        "prompt and response tokens": (prompt, new),
        "optimizer GiB": round(optimizer / GIB, 2),
        "share of weights that did not move": (probe.detach() == before).double().mean().item(),
    }
    if options.device != "cpu":
        result["MFU of the update"] = round(flops / median / PEAK_FLOPS, 3)
    return result | peak_beside(planned, max(watch.peaks["micro-step"]), options)


def peak_beside(planned: float, peak: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return a peak in GiB, on a GPU with the plan's estimate, which does not cover the rest of a process."""
    if options.device == "cpu":
        return {"peak of the process, GiB": round(peak, 2)}
    return {
        "planned GiB": round(planned, 2), "measured GiB": round(peak, 2), "planned / measured": round(planned / peak, 3)
    }  # fmt: skip


def measure_generation(run: Run, model: Any, processor: Any, pairs: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Time generation alone, with transformers' growing cache or with a static one, which it compiles for."""
    rows = next(iter(decoded_rows(pairs, processor).iter(batch_size=options.sequences)))
    texts = [processor.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in rows["prompt"]]
    images = rows["images"]
    inputs = processor(text=texts, images=images, return_tensors="pt", padding=True).to(model.device)
    model.eval()

    def generate(new: int, cache: str | None = None) -> None:
        with torch.inference_mode():
            model.generate(
                **inputs, do_sample=True, top_k=0, max_new_tokens=new, min_new_tokens=new, cache_implementation=cache
            )

    watch = Stopwatch()
    watch.around("warm-up", generate)(2)
    watch.around("prefill", generate)(1)
    if run.cache == "static":
        watch.around("compiling", generate)(options.generated, "static")
    watch.around("all", generate)(options.generated, None if run.cache == "dynamic" else run.cache)
    step = (watch.seconds["all"][0] - watch.seconds["prefill"][0]) / (options.generated - 1)
    prompt = inputs["input_ids"].size(1)
    shape = memory.shape_of(model.config)
    batch = memory.Batch(1, options.sequences, prompt - options.visual, options.visual, options.generated)
    parts = memory.step_memory(shape, batch, memory.Setup(weight_bytes=2, optimizer_states=0))
    return {
        "sequences": options.sequences, "prompt tokens": prompt, "new tokens": options.generated,
        "seconds": dict(watch.seconds), "ms a token of all sequences": round(1000 * step, 2),
        "tokens/s": round(options.sequences / step),
        **peak_beside(parts.generation_peak / GIB, watch.peaks["all"][0], options),
    }  # fmt: skip


def measure_parts(run: Run, model: Any, processor: Any, pairs: Any, options: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Time the vision tower's forward and backward pass, window by window and packed."""
    rows = next(iter(decoded_rows(pairs, processor).iter(batch_size=options.batch)))
    inputs = processor.image_processor([image for row in rows["images"] for image in row], return_tensors="pt")
    pixels, grid = inputs["pixel_values"].to(model.device, model.dtype), inputs["image_grid_thw"].to(model.device)
    result: dict[str, Any] = {}
    seen: dict[str, list[Any]] = defaultdict(list)
    tower = model.model.visual.train()
    for implementation in ("window by window", "packed"):
        if implementation == "packed":
            assert vision_attention.pack_vision_attention(model)
        watch = Stopwatch()
        for _ in range(4):
            model.zero_grad(set_to_none=True)
            output = watch.around("forward", tower)(pixels, grid_thw=grid).pooler_output
            watch.around("backward", output.float().square().mean().backward)()
        result[implementation] = {name: round(float(np.median(s[1:])), 4) for name, s in watch.seconds.items()}
        seen["output"].append(output.detach().float())
        seen["gradient"].append(tower.blocks[0].attn.qkv.weight.grad.float())
    for name, (one, other) in seen.items():
        result[f"relative difference of the {name}"] = ((one - other).norm() / one.norm()).item()
    return result


def profile_update(run: Run, model: Any, processor: Any, pairs: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Profile one forward and backward pass: the device's seconds, and those of the ten largest kernels."""
    from torch.profiler import ProfilerActivity, profile

    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(run, model, processor, pairs, options, folder)
        passes, training_step = [], trainer.training_step

        def profiled(*args: Any, **kwargs: Any) -> Any:
            passes.append(None)
            if len(passes) != 4:  # after warm-up, and not a pass that scores a rollout
                return training_step(*args, **kwargs)
            synchronize()
            started = time.perf_counter()
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
                loss = training_step(*args, **kwargs)
                synchronize()
            operations = [event for event in record.key_averages() if event.key.startswith("aten::")]
            operations.sort(key=lambda event: -event.self_device_time_total)
            result["seconds, under the profiler"] = round(time.perf_counter() - started, 3)
            result["device seconds"] = round(sum(event.self_device_time_total for event in operations) / 1e6, 3)
            result["largest"] = {e.key: round(e.self_device_time_total / 1e6, 4) for e in operations[:10]}
            return loss

        trainer.training_step = profiled
        trainer.train()
    return result


MEASURES = {
    "ours": measure_trainer,
    "trl": measure_trainer,
    "generate": measure_generation,
    "parts": measure_parts,
    "profile": profile_update,
}


def measure(name: str, run: Run, processor: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Run one configuration on fresh weights."""
    rows = max(2 * options.batch * options.accumulate, options.sequences if run.kind == "generate" else 0)
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_pairs(Path(folder), rows, mixed=run.mixed)
        shape = options.shape3b if run.shape == "3b" else options.shape7b
        run = replace(run, dtype="float32") if options.device == "cpu" else run
        model = build_model(shape, getattr(torch, run.dtype), options.device, processor)
        if run.packed and run.kind != "parts":
            assert vision_attention.pack_vision_attention(model)
        return {"name": name, **asdict(run), **MEASURES[run.kind](run, model, processor, pairs, options)}


def main() -> None:
    """Run the requested configurations and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--shape3b", default="recipes/shapes/qwen2.5-vl-3b")
    parser.add_argument("--shape7b", default="recipes/shapes/qwen2.5-vl-7b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=1024, help="maximum number of new tokens in trainer runs")
    parser.add_argument("--sequences", type=int, default=64, help="sequences generated at once")
    parser.add_argument("--generated", type=int, default=256, help="new tokens in generation runs")
    parser.add_argument("--visual", type=int, default=640, help="visual tokens per picture")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    _, processor = build_tiny([*WORDS, "What is written in the picture?"])
    limit_pixels(processor, options.visual * 28 * 28)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    report: dict[str, Any] = {"machine": describe_machine(), "device": device, "options": vars(options) | {"out": None}}
    report["runs"] = []
    for name in options.runs.split(","):
        started = time.perf_counter()
        try:
            result = measure(name, RUNS[name], processor, options)
        except Exception as error:  # noqa: BLE001  (the other runs are worth having)
            result = {"name": name, "failed": f"{type(error).__name__}: {str(error)[:300]}"}
        report["runs"].append({**result, "seconds of the run": round(time.perf_counter() - started, 1)})
        print(json.dumps(report["runs"][-1]), flush=True)
        if options.out:
            options.out.write_text(json.dumps(report, indent=2), encoding="utf-8")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
