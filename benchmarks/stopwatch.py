"""Measure seconds and peak memory of sections of work, on a GPU or (Linux) in this process."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

GIB = 2**30


class Stopwatch:
    """Seconds and peak memory of named sections of work on the device."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.peaks: dict[str, list[float]] = defaultdict(list)

    def around(self, name: str, function: Any) -> Any:
        """Wrap ``function`` to be timed under ``name``."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronize()
            reset_peak()
            started = time.perf_counter()
            result = function(*args, **kwargs)
            synchronize()
            self.seconds[name].append(time.perf_counter() - started)
            self.peaks[name].append(peak_gib())
            return result

        return timed


class StepClock(TrainerCallback):
    """Seconds from the end of one optimizer step to the end of the next, including data loading."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Start the clock."""
        self._ended = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Record the seconds since the last step."""
        synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._ended)
        self._ended = now


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_peak() -> None:
    """Reset the peak memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_gib() -> float:
    """Return the peak memory since the reset: of PyTorch on a GPU, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / GIB
