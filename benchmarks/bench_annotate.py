"""Annotate 2,000 rows with a loopback teacher that takes 200 ms, and compare with the ideal time.

    python benchmarks/bench_annotate.py

The teacher agrees with the label of nine rows in ten at the first try and of the tenth at the second. The ideal time is
the number of requests times the latency, divided by the concurrency. The server runs in its own process; loading the
library is not timed, and writing the pairs is timed separately.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from late_server import late_server
from PIL import Image

from r1_reward.data.annotate import AnnotateSettings, annotate
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine
from r1_reward.store.shards import PairWriter

LATENCY = 0.2  # seconds
TARGET = 0.9
SIDE = 336  # pixels; the input size of many vision towers


def judge(body: dict[str, Any]) -> str:
    """Prefer response 1; in every tenth row only at a temperature above 0."""
    number = re.search(r"Question (\d+)\?", body["messages"][0]["content"][-1]["text"])
    hard = number is not None and int(number[1]) % 10 == 0
    answer = 2 if hard and body["temperature"] == 0 else 1
    thought = f"The picture answers question {number[1] if number else 0}. " * 20
    return f"<think>{thought}</think><answer>{answer}</answer>"


def write_rows(folder: Path, count: int) -> None:
    """Write pairs with one picture each, all of them different."""
    with PairWriter(folder) as writer:
        for number in range(count):
            buffer = io.BytesIO()
            Image.new("RGB", (SIDE, SIDE), (number % 256, number // 256, 90)).save(buffer, "JPEG")
            writer.add(
                {
                    "id": str(number),
                    "question": f"Question {number}?",
                    "images": [{"bytes": buffer.getvalue(), "path": f"{number}.jpg"}],
                    "response_1": f"One answer to {number}.",
                    "response_2": f"Another answer to {number}.",
                    "preferred": 1,
                }
            )
        writer.close({})


def measure(url: str, rows: int, concurrency: int) -> dict[str, Any]:
    """Annotate once; return the seconds of requests and of writing, and the report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "pairs", rows)
        settings = AnnotateSettings(teacher=f"server:teacher@{url}")
        started, asked = time.perf_counter(), [0.0]

        def watch(_: Any) -> None:
            asked[0] = time.perf_counter() - started

        report = annotate(folder / "pairs", folder / "out", settings, concurrency=concurrency, progress=watch)
        total = time.perf_counter() - started
    hard = (rows + 9) // 10
    if report["attempts"] != {"1": rows - hard, "2": hard, "3": 0, "failed": 0, "no verdict": 0}:
        raise SystemExit(f"a row is missing or wrong, so the measurement is invalid: {report['attempts']}")
    requests = report["usage"]["attempts"]
    least = requests * LATENCY / concurrency
    return {
        "requests": requests,
        "asking_seconds": asked[0],
        "writing_seconds": total - asked[0],
        "least_possible_seconds": least,
        "sustained": least / asked[0],
        "requests_per_second": requests / asked[0],
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-annotate.json"))
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with late_server(judge, LATENCY) as url:
        measure(url, options.concurrency, options.concurrency)  # warm up
        measured = measure(url, options.rows, options.concurrency)
    result = {
        "machine": {**describe_machine(), "load_before": load},
        "rows": options.rows,
        "latency_seconds": LATENCY,
        "concurrency": options.concurrency,
        **measured,
        "target": TARGET,
        "within_target": measured["sustained"] >= TARGET,
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
