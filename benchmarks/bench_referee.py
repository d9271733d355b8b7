"""Compare concurrent and sequential verdicts on 256 samples from a loopback referee that takes 100 ms.

    python benchmarks/bench_referee.py

The sequential loop requests the list of models and then the verdict, two requests per sample, as the paper's released
code does. Both must get every verdict, and the same ones. The server runs in its own process.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import openai
from late_server import late_server

from r1_reward.judge.referee_models import ServerReferee
from r1_reward.judge.referee_prompt import read_verdict, referee_prompt
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine

LATENCY = 0.1  # seconds
LIMIT = 2.0  # seconds for 256 samples
MODEL = "referee"


def confirm(body: dict[str, Any]) -> str:
    """Answer yes if the reasoning names the chosen response."""
    prompt = body["messages"][0]["content"]
    choice = re.search(r"The choice: (Response [12])", prompt)
    return f"<answer>{'yes' if choice and f'> {choice[1]}' in prompt else 'no'}</answer>"


def one_after_the_other(url: str, reasonings: list[str], answers: list[int]) -> list[float | None]:
    """Request the model and then the verdict, sample by sample."""
    verdicts = []
    with openai.OpenAI(api_key="none", base_url=url) as client:
        for reasoning, answer in zip(reasonings, answers, strict=True):
            model = client.models.list().data[0].id
            prompt = referee_prompt(reasoning, answer)
            reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])
            verdicts.append(read_verdict(reply.choices[0].message.content or ""))
    return verdicts


def main() -> None:
    """Measure both and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--serial-samples", type=int, default=256, help="fewer are extrapolated")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-referee.json"))
    options = parser.parse_args()
    count, serial_count = options.samples, min(options.serial_samples, options.samples)
    reasonings = [f"Response {1 + i % 2} is better, says sample {i}." for i in range(count)]
    answers = [1] * count
    expected = [float(i % 2 == 0) for i in range(count)]
    concurrent, right = [], []
    with late_server(confirm, LATENCY) as url:
        for _ in range(options.repeats):
            referee = ServerReferee(MODEL, url, concurrency=options.concurrency)  # a new one has an empty cache
            start = time.perf_counter()
            right.append(referee.judge(reasonings, answers) == expected)
            concurrent.append(time.perf_counter() - start)
        start = time.perf_counter()
        verdicts = one_after_the_other(url, reasonings[:serial_count], answers[:serial_count])
        serial = time.perf_counter() - start
    if not all(right) or verdicts != expected[:serial_count]:
        raise SystemExit("a verdict is missing or wrong, so the measurement is invalid")
    result = {
        "machine": describe_machine(),
        "samples": count,
        "latency_seconds": LATENCY,
        "concurrency": options.concurrency,
        "concurrent_seconds": concurrent,
        "slowest_concurrent_seconds": max(concurrent),
        "limit_seconds": LIMIT,
        "within_limit": max(concurrent) < LIMIT,
        "least_possible_seconds": LATENCY * -(-count // options.concurrency),
        "serial": {
            "requests_per_sample": 2,
            "samples_measured": serial_count,
            "seconds_measured": serial,
            "seconds": serial * count / serial_count,
            "scaled": serial_count < count,
        },
        "speedup": serial * count / serial_count / max(concurrent),
        "verdicts_equal": True,
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
