"""``transformers serve`` with a checkpoint, on loopback: a server of the chat protocol that is not ours."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest


@contextlib.contextmanager
def transformers_server(checkpoint, log_file):
    """Give the base URL; skip the test if the program is missing or does not start."""
    program = Path(sys.executable).with_name("transformers")
    if not program.exists():
        pytest.skip(f"{program} does not exist")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(program), "serve", str(checkpoint), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with open(log_file, "w") as log:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            deadline = time.monotonic() + 120
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.skip(f"transformers serve did not start: {Path(log_file).read_text()[-500:]}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
