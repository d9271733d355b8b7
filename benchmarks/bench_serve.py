"""Load-test ``r1-reward serve``: throughput and latency by clients, the gain from batching, and overload.

    python benchmarks/bench_serve.py MODEL

The server runs in its own process; every request is one comparison of the handwriting world, in both orders, greedy.
The same request must get the same answer in any batch. In the overload more requests arrive at once than the server
accepts: some get 429, and every accepted one must be answered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import resource
import statistics
import time
from collections import Counter
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import matplotlib

from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine

matplotlib.use("Agg")
from matplotlib import pyplot

CLIENTS = (1, 2, 4, 8, 16, 32)
GAIN_CLIENTS = 16
TARGET = 4.0  # times the throughput of one comparison at a time


def run_server(model: str, max_new_tokens: int, settings: dict[str, Any], pipe: Connection) -> None:
    """Serve until SIGTERM."""
    from r1_reward.cli.bench import quiet_libraries
    from r1_reward.judge.reward_model import RewardModel
    from r1_reward.serve.server import serve
    from r1_reward.serve.settings import ServerSettings

    quiet_libraries()
    judge = RewardModel.from_pretrained(model, max_new_tokens=max_new_tokens)
    serve(judge, ServerSettings(port=0, timeout=3600, **settings), ready=pipe.send)


@contextmanager
def served(options: argparse.Namespace, **settings: Any):
    """Yield the address of a server in another process, warmed up."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_server, args=(options.model, options.max_new_tokens, settings, theirs))
    process.start()
    try:
        url = ours.recv()
        asyncio.run(load(url, bodies(8), clients=8))
        yield url
    finally:
        process.terminate()
        process.join()
    if process.exitcode:
        raise SystemExit(f"the server ended with {process.exitcode}")


def bodies(count: int) -> list[bytes]:
    """Return the bodies of different requests."""
    from r1_reward.data.handwriting import Teacher, build_world

    world = build_world(seed=11, train_pairs=64, test_pairs=64, captions=8, teacher=Teacher(0.8, 0.0))
    pictures = {}
    for name, image in world.images.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        pictures[name] = base64.b64encode(buffer.getvalue()).decode()
    made = []
    for pair in world.test:
        images = [{"base64": pictures[name]} for name in pair.images]
        fields = {"question": pair.question, "response_1": pair.response_1, "response_2": pair.response_2}
        made.append(json.dumps({**fields, "images": images}).encode())
    return [made[i % len(made)] for i in range(count)]


async def load(url: str, requests: list[bytes], *, clients: int) -> tuple[float, list[tuple[int, float, Any]]]:
    """Send requests from several clients, one at a time each; return seconds and (status, latency, answer)."""
    results: list[Any] = [None] * len(requests)
    left = iter(range(len(requests)))

    async def client(session: httpx.AsyncClient) -> None:
        for number in left:
            started = time.perf_counter()
            response = await session.post(
                f"{url}/v1/compare", content=requests[number], headers={"Content-Type": "application/json"}
            )
            results[number] = (response.status_code, time.perf_counter() - started, response.json())

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as session:
        started = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        return time.perf_counter() - started, results


def measure(url: str, requests: list[bytes], clients: int) -> dict[str, Any]:
    """Return the throughput and latencies of one load, and its answers."""
    seconds, results = asyncio.run(load(url, requests, clients=clients))
    statuses = Counter(status for status, _, _ in results)
    if set(statuses) != {200}:
        raise SystemExit(f"{clients} clients: {dict(statuses)}")
    latencies = sorted(latency for _, latency, _ in results)
    return {
        "clients": clients,
        "requests": len(requests),
        "seconds": seconds,
        "per_second": len(requests) / seconds,
        "p50_ms": 1000 * statistics.median(latencies),
        "p99_ms": 1000 * latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))],
        "answers": [answer for _, _, answer in results],
    }


def overload(options: argparse.Namespace) -> dict[str, Any]:
    """Send far more requests at once than the server accepts; report refusals, and check that the rest are answered."""
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    at_once = min(options.flood, 20 * options.queue, open_files - 100)
    with served(options, max_queue=options.queue) as url:
        before = taken(url)
        seconds, results = asyncio.run(load(url, bodies(at_once), clients=at_once))
        answered = taken(url) - before
    statuses = Counter(status for status, _, _ in results)
    report = {
        "at_once": at_once,
        "max_queue": options.queue,
        "seconds": seconds,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "answered_according_to_the_server": answered,
    }
    if set(statuses) != {200, 429} or answered != statuses[200]:
        raise SystemExit(f"the overload lost requests: {report}")
    return report


def taken(url: str) -> int:
    """Return the server's own count of answered comparisons."""
    for line in httpx.get(f"{url}/metrics", trust_env=False).text.splitlines():
        if line.startswith("r1_reward_requests_total") and 'route="/v1/compare",status="200"' in line:
            return int(float(line.split()[-1]))
    return 0


def flood(options: argparse.Namespace) -> dict[str, Any]:
    """Send very many requests, as many at once as the machine has connections; all must be answered."""
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    clients = min(options.flood, open_files - 100)
    with served(options, max_queue=clients) as url:
        report = measure(url, bodies(options.flood), clients)
    del report["answers"]
    return report


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot throughput and latency by number of clients."""
    rows, single = result["by_clients"], result["one_at_a_time"]
    clients = [row["clients"] for row in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    by_clients = {"xlabel": "clients", "xscale": "log", "xticks": clients, "xticklabels": clients, "ylim": 0}
    alone = f"one at a time, {single['clients']} clients"
    left.plot(clients, [row["per_second"] for row in rows], "o-", color="#2563eb", label="batched")
    left.axhline(single["per_second"], color="#9ca3af", linestyle="--", label=alone)
    left.set(ylabel="comparisons per second", **by_clients)
    left.legend()
    for name, colour in (("p50_ms", "#2563eb"), ("p99_ms", "#dc2626")):
        right.plot(clients, [row[name] for row in rows], "o-", color=colour, label=name.removesuffix("_ms"))
    right.set(ylabel="latency (ms)", **by_clients)
    right.legend()
    for axes in (left, right):
        axes.minorticks_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, plot and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=400, help="for each number of clients")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--queue", type=int, default=64, help="requests the server accepts in the overload")
    parser.add_argument("--flood", type=int, default=10_000, help="small requests in the last run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-serve.json"))
    options = parser.parse_args()
    requests = bodies(options.requests)
    with served(options, max_queue=1024) as url:
        rows = [measure(url, requests, clients) for clients in CLIENTS]
    with served(options, max_queue=1024, max_batch=1, batch_wait_ms=0) as url:
        single = measure(url, requests, GAIN_CLIENTS)
    answers = [row.pop("answers") for row in (*rows, single)]
    gain = next(row for row in rows if row["clients"] == GAIN_CLIENTS)["per_second"] / single["per_second"]
    result = {
        "machine": describe_machine(),
        "model": Path(options.model).name,
        "max_new_tokens": options.max_new_tokens,
        "by_clients": rows,
        "one_at_a_time": single,
        "gain_of_batching": gain,
        "target": TARGET,
        "same_answers": all(one == answers[0] for one in answers),
        "overload": overload(options),
        "flood": flood(options),
    }
    write_json(options.out, result)
    plot(result, options.out.with_suffix(".png"))
    print(json.dumps(result, indent=1))
    if not result["same_answers"]:
        raise SystemExit("answers depend on their batch")


if __name__ == "__main__":
    main()
