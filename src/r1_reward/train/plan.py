"""Estimate a run before it is launched: memory by part, steps, tokens and arithmetic, from its configuration.

    plan = plan_run("recipes/paper-7b-rl.yaml", [], accelerate="recipes/accelerate/zero3-8gpu.yaml")
    plan.memory.peak, plan.updates

It reads the model's configuration, not its weights, and, if there is a pair file, measures some of its rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError
from r1_reward.store.settings_file import read_yaml
from r1_reward.train.config import LoadedConfig, RunConfig, load_config
from r1_reward.train.memory import Batch, ModelShape, Setup, StepMemory, shape_of, step_memory, update_flops

SAMPLED_ROWS = 64
CHARACTERS_A_TOKEN = 3.5
"""Approximate value for English text in Qwen's tokenizer, used if the checkpoint's own tokenizer is not available."""
DEFAULT_TEXT_TOKENS = 700
OPTIMIZERS: dict[str, tuple[float, int | None]] = {
    "adamw_torch": (2, None), "adamw_torch_fused": (2, None), "adamw_apex_fused": (2, 4), "adafactor": (0.01, 4),
    "sgd": (0, None), "adamw_8bit": (2, 1), "adamw_bnb_8bit": (2, 1), "paged_adamw_8bit": (0, 1), "lion_8bit": (1, 1),
}  # fmt: skip
"""Numbers an optimizer keeps per weight, and their bytes (None: the weight's). Paged ones are in CPU memory."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sequence, and the source of these numbers."""

    text: int
    visual: int
    new: int
    pairs: int | None
    source: str


@dataclass(frozen=True)
class Plan:
    """What a run needs on each device."""

    stage: str
    config: LoadedConfig[Any]
    shape: ModelShape
    batch: Batch
    setup: Setup
    memory: StepMemory
    lengths: Lengths
    sequences_an_update: int
    updates: int | None

    @property
    def tokens_an_update(self) -> int:
        """Tokens of the forward and backward passes of one update, over all devices."""
        return self.sequences_an_update * self.batch.length

    @property
    def flops_an_update(self) -> float:
        """Floating-point operations of one update, over all devices, without recomputation and generation."""
        each = update_flops(self.shape, self.batch, lora=self.setup.lora_rank > 0)
        return each * self.sequences_an_update / self.batch.sequences


def plan_run(
    path: str | Path | None,
    overrides: Sequence[str],
    *,
    stage: str | None = None,
    accelerate: str | Path | None = None,
    processes: int | None = None,
    pairs: int | None = None,
    text_tokens: int | None = None,
    visual_tokens: int | None = None,
    gpu_bytes: float = 80e9,
) -> Plan:
    """Plan ``train sft`` or ``train rl`` with a configuration.

    Args:
        path: The YAML file, or None.
        overrides: ``["--key", "value", ...]`` as for `train`.
        stage: sft or rl; None: rl if the configuration has a key that only rl accepts.
        accelerate: Configuration of `accelerate launch`; None for one device.
        processes: As for `accelerate launch --num_processes`; None: taken from the file.
        pairs: Number of training rows; None: counted.
        text_tokens: Tokens of prompt and, for sft, response; None: measured on the pair file.
        visual_tokens: Tokens of all pictures of a row; None: measured on the pair file, else from max_pixels.
        gpu_bytes: Memory of a device, from which vLLM takes its share.

    Raises:
        UserError: A configuration is invalid, or the model's configuration cannot be read.
    """
    import torch
    from transformers import AutoConfig

    from r1_reward.models.checkpoint import TINY
    from r1_reward.models.tiny import build_tiny
    from r1_reward.models.tiny_words import vocabulary
    from r1_reward.train.launch import config_class

    stage = stage or _stage_of(path, overrides)
    if not torch.cuda.is_available():  # planning needs no GPU, but bf16 would be refused without one
        overrides = [*overrides, "--use_cpu", "true"]
    config: LoadedConfig[Any] = load_config(path, overrides, config_class(stage))
    if config.run.model == TINY:
        model_config = build_tiny(vocabulary())[0].config
    else:
        try:
            model_config = AutoConfig.from_pretrained(config.run.model)
        except (OSError, ValueError) as error:
            raise UserError(
                f"model: cannot read the configuration of {config.run.model}; pass a local one with --model "
                f"(recipes/shapes has some): {str(error).splitlines()[0]}"
            ) from error
    shape = shape_of(model_config)
    processes, sharding = _launch(accelerate, processes)
    lengths = _lengths(config, shape, stage, pairs=pairs, text=text_tokens, visual=visual_tokens)
    trainer = config.trainer
    per_device = trainer.per_device_train_batch_size
    rollout = per_device * _steps_per_rollout(config, processes) if stage == "rl" else 0
    batch = Batch(per_device, rollout, lengths.text, lengths.visual, lengths.new)
    setup = _setup(config, stage, _weight_bytes(config.run, model_config), processes, sharding, gpu_bytes)
    an_update = per_device * trainer.gradient_accumulation_steps * processes
    return Plan(
        stage, config, shape, batch, setup, step_memory(shape, batch, setup), lengths, an_update,
        _updates(config, lengths.pairs, processes, stage),
    )  # fmt: skip


def _stage_of(path: str | Path | None, overrides: Sequence[str]) -> str:
    from r1_reward.train.launch import config_class

    given = set(read_yaml(Path(path)) if path is not None else {})
    given |= {name[2:].partition("=")[0].replace("-", "_") for name in overrides if name.startswith("--")}
    only_rl = {f.name for f in dataclasses.fields(config_class("rl"))}
    only_rl -= {f.name for f in dataclasses.fields(config_class("sft"))}
    return "rl" if given & only_rl else "sft"


def _launch(path: str | Path | None, processes: int | None) -> tuple[int, str]:
    """Return the number of processes and the sharding of an accelerate configuration."""
    values = {} if path is None else read_yaml(Path(path))
    kind = str(values.get("distributed_type", "NO")).upper()
    processes = processes or int(values.get("num_processes", 1))
    if kind == "FSDP":
        return processes, "fsdp2"
    if kind == "DEEPSPEED":
        stage = (values.get("deepspeed_config") or {}).get("zero_stage", 2)
        if stage not in (2, 3):
            raise UserError(f"{path}: plan supports ZeRO stages 2 and 3, not {stage}.")
        return processes, f"zero{stage}"
    if kind in ("NO", "MULTI_GPU", "MULTI_CPU"):
        return processes, "ddp" if processes > 1 else "none"
    raise UserError(f"{path}: plan supports distributed_type NO, MULTI_GPU, FSDP and DEEPSPEED, not {kind}.")


def _weight_bytes(run: RunConfig, model_config: Any) -> int:
    """Return the bytes of a weight; ``auto`` is the type that the checkpoint names, else bfloat16."""
    from r1_reward.models.checkpoint import TINY

    if run.dtype != "auto":
        return 4 if run.dtype == "float32" else 2
    if run.model == TINY:
        return 4
    return getattr(getattr(model_config, "dtype", None), "itemsize", 2)


def _setup(
    config: LoadedConfig[Any], stage: str, weight_bytes: int, processes: int, sharding: str, gpu_bytes: float
) -> Setup:
    run, trainer = config.run, config.trainer
    optimizer = str(getattr(trainer.optim, "value", trainer.optim))
    if optimizer not in OPTIMIZERS:
        raise UserError(f"optim: plan does not know the memory of {optimizer}; supported: {', '.join(OPTIMIZERS)}.")
    states, state_bytes = OPTIMIZERS[optimizer]
    vllm = stage == "rl" and trainer.use_vllm
    colocated = vllm and trainer.vllm_mode == "colocate"
    return Setup(
        weight_bytes=weight_bytes,
        lora_rank=run.lora_rank,
        optimizer_states=states,
        optimizer_bytes=state_bytes,
        sharding=sharding,
        processes=processes,
        reference=stage == "rl" and trainer.beta != 0.0,
        checkpointing=bool(trainer.gradient_checkpointing),
        generates_itself=stage == "rl" and not vllm,
        engine_bytes=trainer.vllm_gpu_memory_utilization * gpu_bytes if colocated else 0.0,
    )


def _steps_per_rollout(config: LoadedConfig[Any], processes: int) -> int:
    trainer = config.trainer
    whole = config.given.get("generation_batch_size")
    if whole is not None:  # TRL has divided it by the one process that plans
        return max(1, whole // (trainer.per_device_train_batch_size * processes))
    return trainer.steps_per_generation or 1


def _updates(config: LoadedConfig[Any], pairs: int | None, processes: int, stage: str) -> int | None:
    """Return the number of updates of a run, counted like its trainer: each epoch ends with an update."""
    trainer = config.trainer
    if trainer.max_steps > 0:
        return trainer.max_steps
    if pairs is None:
        return None
    sequences = trainer.per_device_train_batch_size * processes
    if stage == "rl":  # TRL leaves out an incomplete rollout, and repeats the others num_iterations times
        steps = _steps_per_rollout(config, processes)
        prompts = sequences * steps // (trainer.num_generations or 1)
        rollouts = pairs // max(prompts, 1)
        batches = rollouts * steps * trainer.num_iterations
    else:
        batches = math.ceil(pairs / sequences)
    return math.ceil(math.ceil(batches / trainer.gradient_accumulation_steps) * trainer.num_train_epochs)


def _lengths(
    config: LoadedConfig[Any],
    shape: ModelShape,
    stage: str,
    *,
    pairs: int | None,
    text: int | None,
    visual: int | None,
) -> Lengths:
    """Return the given lengths, else those of the pair file (95th percentile: batches are as long as their longest)."""
    run, source = config.run, "given"
    if Path(run.data).exists() and None in (pairs, text, visual):
        rows, found_text, found_visual = _measure_rows(config, stage)
        pairs = rows if pairs is None else pairs
        text = found_text if text is None else text
        visual = found_visual if visual is None else visual
        source = f"measured on {min(rows, SAMPLED_ROWS)} rows of {run.data}"
    if visual is None:
        visual = (run.max_pixels or 1280 * 28 * 28) // (28 * 28) if shape.tower_layers else 0
        source = f"assumed: {run.data} not found"
    if text is None:
        text = DEFAULT_TEXT_TOKENS
        source = f"assumed: {run.data} not found"
    if stage == "rl":
        return Lengths(text, visual, config.trainer.max_completion_length or 1024, pairs, source)
    new = min(text // 3, 1024)  # the response's part of the text of a cold start
    return Lengths(text - new, visual, new, pairs, source)


def _measure_rows(config: LoadedConfig[Any], stage: str) -> tuple[int, int, int]:
    """Return the number of rows, and the 95th percentile of text and visual tokens over a sample of them."""
    import numpy as np

    from r1_reward.judge.prepare import prepare
    from r1_reward.store.pairs import load_pairs
    from r1_reward.store.video import FRAMES
    from r1_reward.train.rows import show

    rows = load_pairs(config.run.data, split=config.run.split)
    if len(rows) == 0:
        raise UserError(f"{config.run.data}: contains no pairs.")
    limit = config.run.max_pixels or 1280 * 28 * 28
    texts, visuals = [], []
    for row in rows.shuffle(seed=0).select(range(min(SAMPLED_ROWS, len(rows)))):
        (turn,), pictures = show(prepare(row, video_frames=config.run.video_frames or FRAMES))
        text = "".join(part.get("text", "") for part in turn["content"])
        text += (row["reasoning"] or "") if stage == "sft" else ""
        texts.append(len(text) / CHARACTERS_A_TOKEN)
        visuals.append(sum(min(picture.width * picture.height, limit) for picture in pictures) / 28**2)
    return len(rows), int(np.percentile(texts, 95)), int(np.percentile(visuals, 95))
