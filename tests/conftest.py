"""Fixtures that tests share: the tiny Qwen2.5-VL, a handful of handwriting pairs, and a scripted chat server."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from filelock import FileLock

SUPPORT = Path(__file__).parent / "support"

# Processes that tests start import helpers, too. A worker has it from the process that started it.
_known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if str(SUPPORT) not in _known:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SUPPORT), *_known]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["NO_PROXY"] = "127.0.0.1"  # the servers of the tests are on loopback, and take any key
os.environ.pop("OPENAI_API_KEY", None)
os.environ.pop("OPENAI_BASE_URL", None)
# One thread a process, children included: models this small gain nothing from a second one, and two workers with two
# threads each on two cores spend most of their time waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """As many workers as this process may use cores, whatever the machine has; each takes 2 GB of memory."""
    return min(len(os.sched_getaffinity(0)), 8)


def pytest_make_parametrize_id(val, argname):
    """Name bytes by their length: what they hold may hold the time (gzip's header), and then workers disagree."""
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Long files first, so that no worker begins one when the others are done; the order within a file stays."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def pytest_terminal_summary(terminalreporter):
    """Say what was skipped, by reason: a skipped test proves nothing."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in skipped
    )
    if reasons:
        terminalreporter.section(f"skipped: {len(skipped)}")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:4d}  {reason}")


@pytest.fixture(autouse=True, scope="session")
def interrupts_arrive():
    """Take SIGINT as in a foreground job: shells have background ones, and so their children, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def world():
    from r1_reward.data.handwriting import Teacher, build_world

    return build_world(seed=3, train_pairs=64, test_pairs=16, captions=8, teacher=Teacher(0.8, 0.0))


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
def built_once(tmp_path_factory):
    """A function of a name and a builder: the folder of that name, filled once a session by the first worker to ask."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"
    shared.mkdir(exist_ok=True)

    def folder(name, build):
        done, unfinished = shared / name, shared / f"{name}.part"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                unfinished.mkdir(exist_ok=True)
                build(unfinished)
                unfinished.rename(done)
        return done

    return folder


@pytest.fixture(scope="session")
def checkpoint(built_once):
    """A folder with the untrained tiny model and its processor."""

    def build(folder):
        from r1_reward.models.tiny import build_tiny
        from r1_reward.models.tiny_words import vocabulary

        for part in build_tiny(vocabulary(), seed=0):
            part.save_pretrained(folder)

    return built_once("tiny", build)


@pytest.fixture(scope="module")
def saved(family, built_once):
    """A folder with the untrained tiny checkpoint of the test's ``family``."""
    return built_once(family.build.__name__, family.save)


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
