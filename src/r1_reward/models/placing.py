"""Where a model lies that is not trained: whole, on the device of the process that loads it.

The policy is placed, and perhaps divided, by its trainer. Every other model of a run (a local referee, a judge that
rewards, a scalar model) is loaded through :func:`placed`, by whoever needs it::

    model, processor = placed(lambda: load_model_and_processor("Qwen/Qwen2.5-VL-7B-Instruct"))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Loaded = TypeVar("Loaded")


def local_device() -> torch.device:
    """Return the GPU of this process, by its ``LOCAL_RANK`` where a launcher set one; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = os.environ.get("LOCAL_RANK")
    if rank is None:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cuda", int(rank) % torch.cuda.device_count())  # a launcher may show each process one GPU only


def placed(load: Callable[[], tuple[Any, Loaded]]) -> tuple[Any, Loaded]:
    """Return the model and processor that ``load`` returns, the model undivided and on this process' device."""
    with _undivided():
        model, processor = load()
    return model.to(local_device()), processor


@contextmanager
def _undivided() -> Iterator[None]:
    """Let models be loaded whole although the trainer of this process divides its policy while it is read (ZeRO-3)."""
    from transformers.integrations import deepspeed

    # `from_pretrained` looks at this one global; the configuration itself belongs to the trainer's arguments.
    reference: Any = deepspeed._hf_deepspeed_config_weak_ref
    config = None if reference is None else reference()
    if config is None:
        yield
        return
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed.set_hf_deepspeed_config(config)
