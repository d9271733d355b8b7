"""The machine a study or a benchmark was measured on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any


def describe_machine() -> dict[str, Any]:
    """Return what a reader needs to interpret times: processor, cores, accelerator, versions."""
    import torch

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("r1-reward", "torch", "transformers", "trl")},
    }


def machine_text(machine: Mapping[str, Any]) -> str:
    """Return the result of :func:`describe_machine` in words, without parts that a file does not have."""
    cores = machine.get("cores")
    parts = [
        str(machine.get("processor") or "unknown processor"),
        f"{cores} core{'s' if cores != 1 else ''}" if cores else "",
        str(machine.get("accelerator") or "no accelerator"),
    ]
    return ", ".join(part for part in parts if part)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory; do nothing with other C libraries.

    A training step on the CPU allocates the same tensors each time. By default glibc returns those above 128 KiB to
    the system, which then clears every page again; for the tiny model this takes a sixth of a step.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at its maximum
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
