"""Place models that are not trained: unsharded, on the device of the process that loads them.

The trainer places, and may shard, its policy. Every other model of a run (a local referee, a judge that gives rewards,
a scalar model) is loaded through :func:`placed`::

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
    """Return the GPU of this process, by ``LOCAL_RANK`` if a launcher set it, or the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = os.environ.get("LOCAL_RANK")
    if rank is None:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cuda", int(rank) % torch.cuda.device_count())  # a launcher may expose one GPU per process


def placed(load: Callable[[], tuple[Any, Loaded]]) -> tuple[Any, Loaded]:
    """Return the model and processor from ``load``, with the model unsharded and on this process's device."""
    with _undivided():
        model, processor = load()
    return model.to(local_device()), processor


@contextmanager
def _undivided() -> Iterator[None]:
    """Load models unsharded even if this process's trainer shards its policy while loading (ZeRO-3)."""
    from transformers.integrations import deepspeed

    # `from_pretrained` checks this global; the trainer's arguments own the configuration itself.
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
