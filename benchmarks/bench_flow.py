"""Judge 2,000 pairs with a loopback server that takes 0.1 s, and 10 s once: does the slow answer delay the others?

    python benchmarks/bench_flow.py

512 requests are in flight. The pairs come in blocks of 256 with their votes in order, as in a benchmark. If requests
flow, the run takes as long as the slow answer; if every block waited for its slowest request, or the window of requests
stalled, every slow answer would make it longer. The server runs in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from late_server import late_server

from r1_reward.engines.server import ServerEngine
from r1_reward.engines.workers import EngineSpec, in_workers
from r1_reward.judge.prepare import PairToJudge, prepare_all
from r1_reward.judge.votes import Plan, draw_votes
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine

LATENCY, SLOW = 0.1, 10.0  # seconds
SLOW_PAIR = 500
BLOCK = 256
LIMIT = 12.0  # seconds: the slow answer, and the time to send the requests before and after it


def judge(_: dict[str, Any]) -> str:
    """Prefer response 1."""
    return "<think>Seen.</think><answer>1</answer>"


def seconds(body: dict[str, Any]) -> float:
    """Return the latency of an answer in seconds."""
    content = body["messages"][0]["content"]
    number = re.search(r"Question (\d+)\?", content)
    return SLOW if number and int(number[1]) == SLOW_PAIR else LATENCY


def judge_rows(engine: ServerEngine, rows: Iterable[int], plan: Plan) -> Iterator[Any]:
    """Return the votes on each row, as in `bench run` and `score`."""
    pairs = (PairToJudge(f"Question {row}?", [], f"One answer to {row}.", f"Another one to {row}.") for row in rows)
    return draw_votes(engine, prepare_all(pairs), plan)


def measure(url: str, rows: int, concurrency: int) -> float:
    """Judge all rows and return the seconds it took."""
    blocks = ([*range(start, min(start + BLOCK, rows))] for start in range(0, rows, BLOCK))
    spec = EngineSpec("late", base_url=url, concurrency=concurrency)
    started, judged = time.perf_counter(), []
    for block, votes in in_workers(judge_rows, blocks, Plan(orders="one"), spec):
        judged += zip(block, votes, strict=True)
    took = time.perf_counter() - started
    answers = [len(votes) == 1 and votes[0].answer for _, votes in judged if isinstance(votes, list)]
    if [row for row, _ in judged] != [*range(rows)] or not all(answers) or len(answers) != rows:
        raise SystemExit("a row is missing or was not judged, so the measurement is invalid")
    return took


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-flow.json"))
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with late_server(judge, LATENCY) as url:
        measure(url, 8, 8)  # warm up
        quick = measure(url, options.rows, options.in_flight)
    with late_server(judge, seconds) as url:
        took = measure(url, options.rows, options.in_flight)
    result = {
        "machine": {**describe_machine(), "load_before": load},
        "rows": options.rows,
        "in_flight": options.in_flight,
        "block": BLOCK,
        "latency_seconds": LATENCY,
        "slow_answer_seconds": SLOW,
        "slow_pair": SLOW_PAIR,
        "seconds_without_the_slow_answer": quick,
        "seconds": took,
        "limit_seconds": LIMIT,
        "within_limit": took < LIMIT,
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
