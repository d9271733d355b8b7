"""``r1-reward plan``: estimate memory by part, steps and tokens of a training run before it is launched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from r1_reward.cli.options import with_settings

if TYPE_CHECKING:
    from r1_reward.train.plan import Plan

GIB = 2**30
OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}


@with_settings
def plan(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", help="The run's YAML file; see recipes/.")] = None,
    stage: Annotated[Literal["sft", "rl"] | None, typer.Option(help="Default: inferred from the keys.")] = None,
    accelerate: Annotated[Path | None, typer.Option(help="File for accelerate launch; default: one GPU.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Like --num_processes of accelerate launch.")] = None,
    gpu_memory: Annotated[float, typer.Option(min=1, help="Memory of a GPU in GB (80 is an 80 GB card).")] = 80,
    pairs: Annotated[int | None, typer.Option(min=1, help="Training rows; default: counted in the pair file.")] = None,
    text_tokens: Annotated[int | None, typer.Option(min=1, help="Text tokens per sequence; default: measured.")] = None,
    visual_tokens: Annotated[int | None, typer.Option(min=0, help="Visual tokens per row; default: measured.")] = None,
    mfu: Annotated[float, typer.Option(min=0.01, max=1, help="Share of peak arithmetic an update reaches.")] = 0.25,
    peak_tflops: Annotated[float, typer.Option(min=1, help="Dense bfloat16 peak of a GPU.")] = 989,
) -> None:
    """Estimate what a training run needs on each GPU. Any key can be overridden with --key value."""
    from r1_reward.train.plan import plan_run

    planned = plan_run(
        config,
        context.args,
        stage=stage,
        accelerate=accelerate,
        processes=gpus,
        pairs=pairs,
        text_tokens=text_tokens,
        visual_tokens=visual_tokens,
        gpu_bytes=gpu_memory * 1e9,
    )
    _print(planned, gpu_memory, mfu * peak_tflops * 1e12)


def _print(planned: Plan, gpu_memory: float, flops_a_second: float) -> None:
    from rich.console import Console
    from rich.table import Table

    console, memory, setup = Console(), planned.memory, planned.setup
    table = Table("part", "generation, GiB", "update, GiB", title=f"{planned.stage} of {planned.config.run.model}")
    generates = planned.stage == "rl"
    for name, size in memory.lasting.items():
        table.add_row(name, f"{size / GIB:.2f}" if generates else "", f"{size / GIB:.2f}")
    for name, size in memory.generation.items():
        table.add_row(name, f"{size / GIB:.2f}", "")
    for name, size in memory.update.items():
        table.add_row(name, "", f"{size / GIB:.2f}")
    table.add_section()
    height = f"{memory.generation_peak / GIB:.2f}" if generates else ""
    table.add_row("peak", height, f"{memory.update_peak / GIB:.2f}")
    console.print(table)
    usable = gpu_memory * 1e9 - 1.5 * GIB
    fits = "fits" if memory.peak <= usable else "does NOT fit"
    console.print(
        f"{fits}: {memory.peak / GIB:.1f} of {usable / GIB:.1f} GiB on a GPU with {gpu_memory:g} GB "
        "(1.5 GiB left for the CUDA context and fragmentation)"
    )
    if setup.weight_bytes == 2 and not setup.lora_rank and setup.sharding in ("none", "ddp"):
        console.print(
            "half-precision weights without float32 copies round away small steps, and train refuses learning rates "
            "that are too small for them; plan with --dtype float32, --lora_rank 16, DeepSpeed or FSDP"
        )
    lengths, batch = planned.lengths, planned.batch
    console.print(
        f"{setup.processes} process{'es' if setup.processes > 1 else ''}, sharding {setup.sharding}; a sequence: "
        f"{lengths.text} text + {lengths.visual} visual + {lengths.new} new tokens ({lengths.source})"
    )
    console.print(
        f"an update: {planned.sequences_an_update} sequences, {planned.tokens_an_update:,} tokens, "
        f"{planned.flops_an_update:.2e} FLOPs"
    )
    seconds = planned.flops_an_update / flops_a_second / setup.processes
    if generates:
        console.print(f"a rollout: {batch.rollout * setup.processes} sequences, {batch.rollout} per process at once")
    if planned.updates is None:
        console.print("updates: unknown; give --pairs or the pair file")
    else:
        tokens = planned.updates * planned.tokens_an_update
        console.print(
            f"updates: {planned.updates:,} ({tokens:,} tokens); about {planned.updates * seconds / 3600:.1f} h of "
            f"updating at {flops_a_second / 1e12:.0f} TFLOP/s per GPU"
            + (", without generation and scoring" if generates else "")
        )
