"""Describe the machine: for reports of measurements, and for what can run on it.

describe_machine()                # for the report of a measurement; imports torch
torch_here()                      # what torch finds, queried in a separate process
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

from r1_reward.records.errors import Unknown

_PATIENCE = 180.0  # seconds for torch to be imported from a slow disk
_CGROUP = Path("/sys/fs/cgroup")  # where a container's limits are (version 2)
_DRIVER = Path("/dev/nvidiactl")


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


@dataclass(frozen=True)
class Memory:
    """Bytes of main memory that processes here may use, and how many of them are free."""

    total: int
    free: int


@dataclass(frozen=True)
class Disk:
    """A folder, the bytes that are free where it lies or would lie, and whether it can be written."""

    folder: str
    free: int
    writable: bool


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use: its memory in bytes, and whether it computes in bfloat16 natively."""

    name: str
    total: int
    free: int
    bf16: bool


@dataclass(frozen=True)
class Torch:
    """What torch says of itself: threads it computes with on the CPU, the CUDA or ROCm it was built for, its GPUs."""

    version: str
    threads: int
    built_for: str | None
    gpus: tuple[Gpu, ...]


def usable_cores() -> int:
    """Return how many cores this process may use: those it is bound to, within a container's limit."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    return min(bound, max(1, ceil(int(quota) / int(period)))) if quota.isdigit() and period.isdigit() else bound


def memory() -> Memory:
    """Return the main memory, within a container's limit."""
    import psutil

    whole = psutil.virtual_memory()
    limit, used = _limit("memory.max"), _limit("memory.current")
    if not (limit.isdigit() and used.isdigit()):
        return Memory(whole.total, whole.available)
    return Memory(min(whole.total, int(limit)), min(whole.available, max(int(limit) - int(used), 0)))


def disk_at(folder: Path) -> Disk | Unknown:
    """Return the free space at a folder, which need not exist yet."""
    there = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    try:
        return Disk(str(folder), shutil.disk_usage(there).free, there.is_dir() and os.access(there, os.W_OK | os.X_OK))
    except OSError as error:
        return Unknown(f"{there}: {error.strerror}")


def has_driver() -> bool:
    """Return whether the driver of an NVIDIA GPU is loaded, even if torch cannot use it."""
    return _DRIVER.exists()


def torch_here() -> Torch | Unknown:
    """Return what torch finds here.

    It is queried in a separate process: importing it takes seconds, and where it does not fit the machine or
    torchvision it may end the process.
    """
    code = f"from {__name__} import print_torch; print_torch()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_PATIENCE, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Unknown(f"torch was not imported ({error})")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        ended = f"the process was ended by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else last
        return Unknown(f"torch and torchvision cannot be imported: {ended}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Torch(**{**found, "gpus": tuple(Gpu(**gpu) for gpu in found["gpus"])})


def print_torch() -> None:
    """Print the fields of :class:`Torch` as JSON; for the process that :func:`torch_here` starts."""
    import torch
    import torchvision  # noqa: F401  # fails where it was built for another torch

    gpus = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        bf16 = torch.cuda.get_device_capability(number) >= (8, 0) or torch.version.hip is not None
        gpus.append({"name": torch.cuda.get_device_name(number), "total": total, "free": free, "bf16": bf16})
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else None
    built_for = f"ROCm {torch.version.hip}" if torch.version.hip else built_for
    found = {"version": torch.__version__, "threads": torch.get_num_threads(), "built_for": built_for, "gpus": gpus}
    sys.stdout.write(json.dumps(found) + "\n")


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


def _limit(name: str) -> str:
    try:
        return (_CGROUP / name).read_text().strip()
    except OSError:  # no container, or another kind of system
        return ""
