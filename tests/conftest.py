"""Fixtures that tests share: the tiny Qwen2.5-VL, a handful of handwriting pairs, and a scripted chat server."""

from __future__ import annotations

import os
import signal
from pathlib import Path

SUPPORT = Path(__file__).parent / "support"

# Processes that tests start import helpers, too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["NO_PROXY"] = "127.0.0.1"  # the servers of the tests are on loopback, and take any key
os.environ.pop("OPENAI_API_KEY", None)
os.environ.pop("OPENAI_BASE_URL", None)

import pytest


@pytest.fixture(autouse=True, scope="session")
def interrupts_arrive():
    """Take SIGINT as in a foreground job: shells have background ones, and so their children, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _two_threads():
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


@pytest.fixture(scope="session")
def world():
    from r1_reward.data.handwriting import Teacher, build_world

    return build_world(seed=3, train_pairs=64, test_pairs=16, captions=8, teacher=Teacher(0.9, 0.5, 0.0))


@pytest.fixture(scope="session")
def pair_file(world, tmp_path_factory):
    from r1_reward.store.pairs import save_pairs

    folder = tmp_path_factory.mktemp("pairs")
    for name, image in world.images.items():
        (folder / name).parent.mkdir(exist_ok=True)
        image.save(folder / name)
    save_pairs(world.train, folder / "pairs.jsonl")
    return folder / "pairs.jsonl"


@pytest.fixture(scope="session")
def pairs(pair_file):
    from r1_reward.store.pairs import load_pairs

    return load_pairs(pair_file)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder with the untrained tiny model and its processor."""
    from r1_reward.models.tiny import build_tiny
    from r1_reward.models.tiny_words import vocabulary

    folder = tmp_path_factory.mktemp("tiny")
    model, processor = build_tiny(vocabulary(), seed=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(checkpoint):
    """A fresh copy of the tiny model, and its processor."""
    from r1_reward.models.checkpoint import load_model_and_processor

    return load_model_and_processor(str(checkpoint), dtype="float32")


@pytest.fixture(scope="module")
def _running_server():
    from scripted_server import ScriptedServer

    server = ScriptedServer()
    yield server
    server.stop()


@pytest.fixture
def server(_running_server):
    """A chat server on loopback that does what a test scripts, and has forgotten the tests before."""
    _running_server.forget()
    return _running_server


@pytest.fixture
def no_waits(monkeypatch):
    """Let no test wait for what clients wait for between two tries."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.005)
    monkeypatch.setattr("r1_reward.engines.server_pool.FIRST_REST", 0.01)
