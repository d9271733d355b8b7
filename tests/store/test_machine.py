"""What the machine has: a container's limits, the disk, and torch queried in a separate process."""

from __future__ import annotations

import os
import sys

import psutil
import pytest

from r1_reward.records.errors import Unknown
from r1_reward.store import machine
from r1_reward.store.machine import disk_at, memory, torch_here, usable_cores


@pytest.fixture
def limits(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)

    def write(**texts):
        for name, text in texts.items():
            (tmp_path / name.replace("_", ".")).write_text(f"{text}\n")

    return write


def test_cores_are_those_this_process_may_use(limits, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores() == 8  # no container
    for text, cores in (("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1),
                        ("1600000 100000", 8), ("", 8)):  # fmt: skip
        limits(cpu_max=text)
        assert usable_cores() == cores, text


def test_memory_is_what_a_container_leaves(limits):
    whole = psutil.virtual_memory().total
    assert memory().total == whole
    limits(memory_max="max", memory_current=5)
    assert memory().total == whole
    limits(memory_max=1000, memory_current=400)
    assert memory() == machine.Memory(1000, 600)
    limits(memory_max=1000, memory_current=1400)
    assert memory().free == 0


def test_the_room_of_a_folder_that_is_not_there_yet(tmp_path):
    found = disk_at(tmp_path / "a" / "b")
    assert found.folder == str(tmp_path / "a" / "b") and found.writable
    assert found.free == pytest.approx(disk_at(tmp_path).free, rel=0.05)
    (tmp_path / "file").touch()
    assert not disk_at(tmp_path / "file" / "b").writable


def test_a_disk_that_cannot_be_asked_is_unknown(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(machine.shutil, "disk_usage", refuse)
    assert disk_at(tmp_path) == Unknown(f"{tmp_path}: Input/output error")


def test_torch_is_asked_elsewhere():
    import torch

    found = torch_here()
    assert (found.version, found.threads) == (torch.__version__, torch.get_num_threads())
    assert len(found.gpus) == torch.cuda.device_count()


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("torch", "raise ImportError('libcudart.so.12: cannot open shared object file')", "libcudart.so.12"),
        ("torch", "import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ended by SIGILL"),
        ("torchvision", "raise RuntimeError('operator torchvision::nms does not exist')", "torchvision::nms"),
    ],
)
def test_torch_that_cannot_be_imported_is_unknown(tmp_path, monkeypatch, module, text, said):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "torch.py").write_text("")
    (tmp_path / f"{module}.py").write_text(text)
    found = torch_here()
    assert isinstance(found, Unknown) and said in found.why


def test_torch_that_takes_forever_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(machine, "_PATIENCE", 1.0)
    found = torch_here()
    assert isinstance(found, Unknown) and "timed out" in found.why


@pytest.mark.gpu
def test_a_gpu_says_its_memory():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpu = torch_here().gpus[0]
    assert 0 < gpu.free <= gpu.total == torch.cuda.get_device_properties(0).total_memory
    assert gpu.bf16 == torch.cuda.is_bf16_supported(including_emulation=False)
