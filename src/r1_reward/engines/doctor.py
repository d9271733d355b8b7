"""Report what is installed, what the machine has, and what would be slow or fail: ``r1-reward doctor``.

    report = examine(["http://localhost:8000/v1"])
    report.broken                     # whether something that is required does not work
    [finding.text for finding in report.findings]

:func:`examine` collects the facts, :func:`findings_of` draws conclusions. What cannot be determined is an
:class:`~r1_reward.records.errors.Unknown`, never a guess.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import r1_reward
from r1_reward.engines.reachable import Reached, reach_all
from r1_reward.records.errors import Unknown, UserError
from r1_reward.store import installed
from r1_reward.store.installed import Unmet
from r1_reward.store.machine import Disk, Gpu, Memory, Torch, disk_at, has_driver, memory, torch_here, usable_cores

GIB = 2**30
WEIGHTS_7B = 2 * 8_292_166_656
"""Bytes of Qwen2.5-VL-7B in bfloat16, the model of the paper: two for each of its parameters."""
SHOWN = ("torch", "transformers", "trl")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = ("1", "true", "yes", "on")

Severity = Literal["broken", "warning"]


@dataclass(frozen=True)
class Finding:
    """Something that does not work (broken), or that would be slow or fail later (warning); and what to do."""

    severity: Severity
    text: str
    advice: str


@dataclass(frozen=True)
class Extra:
    """An optional part of the package: what is missing of it, and the command that installs it."""

    missing: tuple[Unmet, ...]
    install: str


@dataclass(frozen=True)
class Report:
    """Everything that was asked; sizes are in bytes."""

    version: str
    commit: str | Unknown | None
    python: str
    platform: str
    libraries: Mapping[str, str | Unknown]
    unmet: tuple[Unmet, ...] | Unknown
    extras: Mapping[str, Extra]
    cores: int
    memory: Memory
    torch: Torch | Unknown
    has_driver: bool
    cache: Disk | Unknown
    environment: Mapping[str, str]
    servers: tuple[Reached, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def broken(self) -> bool:
        """Whether anything that is required does not work."""
        return any(finding.severity == "broken" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON holds it; what is unknown is ``{"why": reason}``."""
        return {**asdict(self), "broken": self.broken}


def examine(base_urls: Sequence[str] = ()) -> Report:
    """Ask this installation, this machine and the servers at ``base_urls``; takes as long as importing torch.

    Raises:
        UserError: a URL is not one.
    """
    from huggingface_hub import constants

    servers = reach_all(base_urls)
    unmet, extras = _requirements()
    libraries = {name: installed.version_of(name) for name in SHOWN}
    missing = [name for name in ("torch", "torchvision") if isinstance(installed.version_of(name), Unknown)]
    report = Report(
        version=r1_reward.__version__,
        commit=installed.commit(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        libraries=libraries,
        unmet=unmet,
        extras=extras,
        cores=usable_cores(),
        memory=memory(),
        torch=Unknown(f"{missing[0]} is not installed") if missing else torch_here(),
        has_driver=has_driver(),
        cache=disk_at(Path(constants.HF_HUB_CACHE)),
        environment={name: os.environ[name] for name in ("OMP_NUM_THREADS", *_OFFLINE) if name in os.environ},
        servers=servers,
    )
    return replace(report, findings=tuple(findings_of(report)))


def findings_of(report: Report) -> Iterator[Finding]:
    """Yield what does not work, then what would be slow or fail here."""
    unmet = report.unmet
    if isinstance(unmet, Unknown):
        yield Finding("warning", f"whether requirements are met is not known: {unmet.why}", "install the package")
    else:
        for one in unmet:
            yield Finding("broken", str(one), f"pip install '{one.requirement}'")
    if isinstance(report.torch, Unknown):
        yield Finding("broken", report.torch.why, "install torch and torchvision of the same release, for this machine")
    else:
        yield from _on_processors(report, report.torch)
    yield from _on_downloads(report)
    for server in report.servers:
        if server.problem is not None:
            severity: Severity = "broken" if server.certain else "warning"
            yield Finding(severity, f"server {server.url} {server.problem}", server.advice)


def _requirements() -> tuple[tuple[Unmet, ...] | Unknown, dict[str, Extra]]:
    try:
        extras = {name: Extra(installed.unmet(name), installed.install_command(name)) for name in installed.extras()}
        return installed.unmet(), extras
    except UserError as error:
        return Unknown(str(error)), {}


def _on_processors(report: Report, torch: Torch) -> Iterator[Finding]:
    if not torch.gpus:
        if report.has_driver:
            built = f"is built for {torch.built_for}" if torch.built_for else "is built for the CPU alone"
            yield Finding(
                "warning",
                f"the driver of an NVIDIA GPU is loaded, but torch {torch.version}, which {built}, sees no GPU",
                "see whether CUDA_VISIBLE_DEVICES hides it, and install the build of torch for the driver's CUDA",
            )
        yield Finding(
            "warning",
            "no GPU that torch can use: models run on the CPU, which is enough for the demo and the tests, slow for "
            "judging with a 7B model, and too slow for training one",
            "judge by a server with a GPU (--base-url); `r1-reward plan` says what a training run needs",
        )
        yield from _on_cores(report, torch)
        if report.memory.total < WEIGHTS_7B:
            yield _too_small(f"the memory ({report.memory.total / GIB:.1f} GiB)")
    for gpu in dict.fromkeys(torch.gpus):
        yield from _on_gpu(gpu)


def _on_gpu(gpu: Gpu) -> Iterator[Finding]:
    if not gpu.bf16:
        yield Finding(
            "warning",
            f"{gpu.name} does not compute in bfloat16, which the recipes set",
            "train with --bf16 false --fp16 true, and give the engine or the recipe a dtype other than bfloat16",
        )
    if gpu.total < WEIGHTS_7B:
        yield _too_small(f"{gpu.name} ({gpu.total / GIB:.1f} GiB)")
    elif gpu.free < WEIGHTS_7B:
        used = f"{gpu.free / GIB:.1f} of {gpu.total / GIB:.1f} GiB are free"
        yield Finding("warning", f"{gpu.name}: {used}; others use it", "wait for them, or choose another GPU")


def _too_small(what: str) -> Finding:
    text = f"{what} cannot hold the {WEIGHTS_7B / GIB:.1f} GiB of a 7B model in bfloat16"
    return Finding("warning", text, "take a smaller model, or one behind a server (--base-url)")


def _on_cores(report: Report, torch: Torch) -> Iterator[Finding]:
    if torch.threads > report.cores:
        text = f"torch computes with {torch.threads} threads on {report.cores} cores that it may use, which is slow"
    elif torch.threads < report.cores:
        text = f"torch computes with {torch.threads} of {report.cores} cores"
    else:
        return
    yield Finding("warning", text, f"set OMP_NUM_THREADS={report.cores}, unless other programs need the cores")


def _on_downloads(report: Report) -> Iterator[Finding]:
    for name in _OFFLINE:
        if report.environment.get(name, "").lower() in _TRUE:
            yield Finding(
                "warning",
                f"{name} is set: models and data sets of the Hub are there only if they are in the cache",
                f"unset {name} to download some",
            )
    cache = report.cache
    if isinstance(cache, Unknown):
        yield Finding("warning", f"free space of the Hub's cache unknown: {cache.why}", "set HF_HOME to a folder")
    elif not cache.writable:
        yield Finding("warning", f"{cache.folder}: cannot be written, so nothing is downloaded", "set HF_HOME")
    elif cache.free < WEIGHTS_7B:
        text = f"{cache.folder}: {cache.free / GIB:.1f} GiB are free; a 7B checkpoint takes {WEIGHTS_7B / GIB:.1f}"
        yield Finding("warning", text, "set HF_HOME to a folder with more room")
