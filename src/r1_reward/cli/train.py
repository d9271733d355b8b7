"""``r1-reward train sft|rl|scalar``."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from r1_reward.cli.options import with_settings

app = typer.Typer(no_args_is_help=True)
OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}
Config = Annotated[Path | None, typer.Option("--config", help="YAML file; see recipes/.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume from the newest intact checkpoint in output_dir.")]
Keys = Annotated[bool, typer.Option("--keys", help="List every key with its default and meaning, then exit.")]


@app.command(context_settings=OVERRIDES)
@with_settings
def sft(context: typer.Context, config: Config = None, resume: Resume = False, keys: Keys = False) -> None:
    """Cold start: imitate the teacher's reasoning. Any key of the file can be overridden with --key value."""
    _train("sft", context.args, config, resume, keys)


@app.command(context_settings=OVERRIDES)
@with_settings
def rl(context: typer.Context, config: Config = None, resume: Resume = False, keys: Keys = False) -> None:
    """StableReinforce: learn from the labels. Any key of the file can be overridden with --key value."""
    _train("rl", context.args, config, resume, keys)


@app.command(context_settings=OVERRIDES)
@with_settings
def scalar(context: typer.Context, config: Config = None, resume: Resume = False, keys: Keys = False) -> None:
    """Baselines: score answers with or without a critique. Any key of the file can be overridden with --key value."""
    _train("scalar", context.args, config, resume, keys)


def _train(stage: str, overrides: list[str], config: Path | None, resume: bool, keys: bool) -> None:
    from r1_reward.train.launch import config_class, train

    if keys:
        from r1_reward.train.config import describe_keys

        for name, default, text in describe_keys(config_class(stage)):
            typer.echo(f"{name} = {default}\n    {text}")
        return
    folder = train(stage, config, overrides, resume=resume)
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"saved {folder}")
    atexit.register(_leave_the_others)


def _leave_the_others() -> None:
    """Close the connections between processes, because their threads may abort a process as it exits.

    Only at the very end: accelerate remembers opening them, so another run in this process would wait forever on
    connections it believes to be open.
    """
    import torch

    # A colocated vLLM's come first: they are built on torch's, which would be gone when vLLM closes them itself.
    if (vllm := sys.modules.get("vllm.distributed.parallel_state")) is not None:
        vllm.destroy_model_parallel()
        vllm.destroy_distributed_environment()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
