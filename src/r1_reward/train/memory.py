"""Estimate the memory of training, by part, from the shapes of a model and its batches; loads no weights.

The formulas count what PyTorch's allocator holds at the two peaks of a step: during generation, and at the start of the
update's backward pass. They were written for TRL's trainers (fused head, one generate() per rollout) and compared with
runs on a GPU: docs/scaling.md. They exclude the CUDA context (about 0.5 GiB) and fragmentation.

    shape = shape_of(AutoConfig.from_pretrained("recipes/shapes/qwen2.5-vl-7b"))
    parts = step_memory(shape, Batch(4, 64, 500, 640, 1024), Setup(weight_bytes=2))
    parts.update_peak / 2**30
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHARDINGS = ("none", "ddp", "zero2", "zero3", "fsdp2")
HEAD_TOKENS, HEAD_WORDS = 4096, 32768
"""Size of the tile in which TRL's fused head computes logits."""
COMPUTE = 2
"""Bytes of a bfloat16 number, the type in which layers compute."""
# Numbers per token that a layer holds at once in its forward and backward pass, as multiples of its MLP width and its
# hidden width. Fitted to the runs of docs/scaling.md.
LAYER_MLP, LAYER_HIDDEN = 5.0, 12.0
PREFILL_MLP, PREFILL_HIDDEN = 3.0, 6.0


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a checkpoint that determine memory; the vision tower may have no layers."""

    parameters: int
    head_parameters: int
    layer_parameters: int
    layers: int
    hidden: int
    mlp: int
    cache_width: int
    vocabulary: int
    tower_parameters: int
    tower_layers: int
    tower_hidden: int
    tower_mlp: int
    patch_values: int
    patches_a_token: int
    linear_widths: int
    """Sum of inputs + outputs over all linear layers but the head; a LoRA of rank r has r times as many weights."""


@dataclass(frozen=True)
class Batch:
    """The batch of one process; lengths are in tokens of one sequence, including padding."""

    sequences: int
    rollout: int
    text_tokens: int
    visual_tokens: int
    new_tokens: int

    @property
    def length(self) -> int:
        """Number of tokens of a whole sequence."""
        return self.text_tokens + self.visual_tokens + self.new_tokens


@dataclass(frozen=True)
class Setup:
    """The precision, optimizer and sharding of a run."""

    weight_bytes: int
    lora_rank: int = 0
    optimizer_states: float = 2.0
    optimizer_bytes: int | None = None
    sharding: str = "none"
    processes: int = 1
    reference: bool = False
    checkpointing: bool = True
    generates_itself: bool = True
    engine_bytes: float = 0.0


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device: permanent parts, parts of generation, parts of the update."""

    lasting: dict[str, float] = field(default_factory=dict)
    generation: dict[str, float] = field(default_factory=dict)
    update: dict[str, float] = field(default_factory=dict)

    @property
    def generation_peak(self) -> float:
        """Bytes while a rollout is generated, from the second rollout on."""
        return sum(self.lasting.values()) + sum(self.generation.values())

    @property
    def update_peak(self) -> float:
        """Bytes at the peak of an update."""
        return sum(self.lasting.values()) + sum(self.update.values())

    @property
    def peak(self) -> float:
        """The larger of the two peaks."""
        return max(self.generation_peak, self.update_peak)


def shape_of(config: Any) -> ModelShape:
    """Return the sizes of the model described by a transformers configuration, counting its weights.

    Raises:
        AttributeError: The configuration has unknown names for its sizes.
    """
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForImageTextToText

    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    with init_empty_weights():
        model = AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    head = model.get_output_embeddings()
    tower_names = ("visual", "vision_tower", "vision_model")
    tower = next((m for name, m in model.named_modules() if name.split(".")[-1] in tower_names), None)
    layers = next(
        m for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and "language_model.layers" in n
    )
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    patch = _first(vision, "patch_size", default=14)
    patch = patch[0] if isinstance(patch, (list, tuple)) else patch
    merge = _first(vision, "spatial_merge_size", default=1)
    return ModelShape(
        parameters=_count(model),
        head_parameters=_count(head),
        layer_parameters=max(_count(layer) for layer in layers),
        layers=len(layers),
        hidden=text.hidden_size,
        mlp=text.intermediate_size,
        cache_width=text.num_key_value_heads
        * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads),
        vocabulary=text.vocab_size,
        tower_parameters=0 if tower is None else _count(tower),
        tower_layers=_first(vision, "depth", "num_hidden_layers", default=0),
        tower_hidden=_first(vision, "embed_dim", "hidden_size", default=0),
        tower_mlp=_tower_mlp(vision),
        patch_values=3 * _first(vision, "temporal_patch_size", default=1) * patch**2,
        patches_a_token=merge**2,
        linear_widths=sum(m.in_features + m.out_features for m in linears),
    )


def step_memory(shape: ModelShape, batch: Batch, setup: Setup) -> StepMemory:
    """Return the bytes that one device holds in a training step.

    Raises:
        ValueError: The sharding is unknown.
    """
    if setup.sharding not in SHARDINGS:
        raise ValueError(f"sharding must be one of {', '.join(SHARDINGS)}, got {setup.sharding!r}")
    sharded = setup.sharding in ("zero3", "fsdp2")
    stream = COMPUTE if sharded or setup.sharding == "zero2" else setup.weight_bytes
    weights, gradients, optimizer = _states(shape, setup)
    lasting = {"weights": weights, "optimizer": optimizer}
    if setup.reference and not setup.lora_rank:
        lasting["reference"] = (
            shape.parameters * (COMPUTE if sharded else setup.weight_bytes) / (setup.processes if sharded else 1)
        )
    if setup.engine_bytes:
        lasting["vLLM"] = setup.engine_bytes
    patches = batch.visual_tokens * shape.patches_a_token
    if batch.rollout:
        lasting["pictures"] = batch.rollout * patches * shape.patch_values * 4
    gathered = 2 * shape.layer_parameters * COMPUTE + 2 * shape.head_parameters * COMPUTE if sharded else 0.0
    update = {"gradients": gradients, "activations": _activations(shape, batch, setup, stream)}
    update["logits"] = _head(shape, batch, setup, stream)
    if gathered:
        update["gathered"] = gathered
    if stream == 4:  # autocast keeps a bfloat16 copy of every weight until the forward pass ends
        update["autocast copies"] = shape.parameters * COMPUTE
    generation: dict[str, float] = {}
    if batch.rollout and setup.generates_itself:
        generation = _generation(shape, batch)
        if sharded:  # a rollout gathers the whole weights on every device
            generation["gathered"] = shape.parameters * COMPUTE
    return StepMemory(lasting, generation, update)


def update_flops(shape: ModelShape, batch: Batch, *, lora: bool = False) -> float:
    """Return the floating-point operations of one forward and backward pass, without recomputation.

    A weight takes 2 per token forward and 4 backward (2 if it is frozen); the head only for new tokens. Attention adds
    its two products, half of them masked.
    """
    tokens, patches = batch.sequences * batch.length, batch.sequences * batch.visual_tokens * shape.patches_a_token
    weights = shape.layers * shape.layer_parameters * tokens + shape.tower_parameters * patches
    weights += shape.head_parameters * batch.sequences * batch.new_tokens
    attention = 2 * shape.layers * shape.hidden * batch.length * tokens / 2
    return (4 if lora else 6) * weights + 6 * attention


def _states(shape: ModelShape, setup: Setup) -> tuple[float, float, float]:
    """Return the bytes of weights, gradients and optimizer states on one device."""
    if setup.lora_rank:
        adapters = setup.lora_rank * shape.linear_widths
        split = setup.processes if setup.sharding in ("zero3", "fsdp2") else 1
        each = setup.optimizer_states * (setup.optimizer_bytes or 4)
        frozen = shape.parameters * (COMPUTE if split > 1 else setup.weight_bytes)
        return (frozen + 4 * adapters) / split, 4 * adapters / split, each * adapters / split
    count, processes = shape.parameters, setup.processes
    if setup.sharding in ("zero2", "zero3"):  # bfloat16 weights and gradients; float32 weights in the optimizer
        each = 4 + setup.optimizer_states * (setup.optimizer_bytes or 4)
        weights = 2 * count / (processes if setup.sharding == "zero3" else 1)
        return weights, 2 * count / processes, each * count / processes
    if setup.sharding == "fsdp2":  # float32 shards; layers are gathered in bfloat16
        each = setup.optimizer_states * (setup.optimizer_bytes or 4)
        return 4 * count / processes, 4 * count / processes, each * count / processes
    each = setup.optimizer_states * (setup.optimizer_bytes or setup.weight_bytes)
    buckets = 2 if setup.sharding == "ddp" else 1
    return setup.weight_bytes * count, buckets * setup.weight_bytes * count, each * count


def _activations(shape: ModelShape, batch: Batch, setup: Setup, stream: int) -> float:
    """Return the bytes kept for the backward pass: layer inputs, and the inside of one layer (or of all)."""
    tokens = batch.sequences * batch.length
    patches = batch.sequences * batch.visual_tokens * shape.patches_a_token
    inside = COMPUTE * (LAYER_MLP * shape.mlp + LAYER_HIDDEN * shape.hidden) * tokens
    tower = COMPUTE * (LAYER_MLP * shape.tower_mlp + LAYER_HIDDEN * shape.tower_hidden) * patches
    if not setup.checkpointing:
        return inside * shape.layers + tower * shape.tower_layers
    kept = stream * (shape.layers * shape.hidden * tokens + shape.tower_layers * shape.tower_hidden * patches)
    return kept + max(inside, tower)


def _head(shape: ModelShape, batch: Batch, setup: Setup, stream: int) -> float:
    """Return the bytes of the fused head in its backward pass: a tile of logits and its own gradients in float32."""
    scored = batch.sequences * batch.new_tokens
    tile = min(scored, HEAD_TOKENS) * min(HEAD_WORDS, shape.vocabulary) * COMPUTE
    hidden = scored * shape.hidden * (4 + stream)
    if setup.lora_rank:
        return tile + hidden
    return tile + hidden + shape.head_parameters * (4 + (COMPUTE if stream == COMPUTE else 0))


def _generation(shape: ModelShape, batch: Batch) -> dict[str, float]:
    """Return the bytes of the KV cache, the prefill of all prompts at once, and the logits of the last tokens."""
    prompts = batch.rollout * (batch.text_tokens + batch.visual_tokens)
    patches = batch.rollout * batch.visual_tokens * shape.patches_a_token
    layer = (PREFILL_MLP * shape.mlp + PREFILL_HIDDEN * shape.hidden) * prompts
    tower = (PREFILL_MLP * shape.tower_mlp + PREFILL_HIDDEN * shape.tower_hidden) * patches
    cache = 2 * shape.layers * shape.cache_width * COMPUTE * batch.rollout * batch.length
    # During prefill the cache holds only the prompts; at the end of generation it holds everything.
    first = COMPUTE * max(layer, tower) + cache * (batch.length - batch.new_tokens) / batch.length
    words = batch.rollout * shape.vocabulary * 4 * 3
    return {"KV cache and first pass": max(first, cache + words)}


def _count(module: Any) -> int:
    return sum({id(p): p.numel() for p in module.parameters()}.values())


def _first(config: Any, *names: str, default: Any) -> Any:
    return next((getattr(config, name) for name in names if getattr(config, name, None) is not None), default)


def _tower_mlp(vision: Any) -> int:
    if vision is None:
        return 0
    if getattr(vision, "intermediate_size", None):
        return vision.intermediate_size
    return int(_first(vision, "mlp_ratio", default=4) * _first(vision, "embed_dim", "hidden_size", default=0))
