"""What fails on one of several processes ends all of them at once, each with the reason; none waits for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from r1_reward.records.errors import UserError
from r1_reward.train.processes import all_or_none

SCRIPT = Path(__file__).parents[1] / "support" / "failing_alone.py"
CASES = {
    "bug_on_the_second": [
        "RuntimeError: process 1 failed while asking the referee: KeyError: 'column'", "KeyError: 'column'",
    ],
    "refusal_on_the_first": ["UserError: the referee refuses the key"] * 2,
    "bug_in_the_main_processs_work": [
        "ZeroDivisionError: no rows",
        "RuntimeError: process 0 failed while doing work for all processes: ZeroDivisionError: no rows",
    ],
    "nothing": ["fine", "fine"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_process_waits_for_one_that_failed(case, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path), case],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"},
        )
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == CASES[case]


def test_alone_it_is_a_plain_block():
    with all_or_none("nothing"):
        pass
    for error in (UserError("no"), KeyError("no")):
        with pytest.raises(type(error), match="no"), all_or_none("something"):
            raise error
