r"""Compare engines for a judge: whether greedy verdicts differ, how fast they are, and which parameters they ignore.

    python benchmarks/bench_engines.py runs/demo-seed0/rl runs/demo-seed0/data                # transformers, first
    python benchmarks/bench_engines.py runs/demo-seed0/rl runs/demo-seed0/data --engine vllm  # needs vLLM
    python benchmarks/bench_engines.py runs/demo-seed0/rl runs/demo-seed0/data --name "vLLM server 0.32.0" \
        --base-url http://127.0.0.1:8000/v1 --served-as judge                                 # a running server
    python benchmarks/bench_engines.py --table                                                # as Markdown

Each call writes one row of the results and keeps the others. The first 200 pairs of a demo's test set are judged
greedily in both orders and compared with the texts of transformers in this process (the first row), then the first 50
of them with four votes per order: each vote with its own seed, and from servers also all four in one request (``n``).
Ignored and refused parameters of servers are tested without our client. Times are the best of two rounds after a
warm-up; use ``--rounds 1 --sampled 10`` for a slow server.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.engines.chat_protocol import chat_messages, excerpt
from r1_reward.engines.engine import EngineError, Request
from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.schema import Judgment
from r1_reward.store.files import read_json, write_json
from r1_reward.store.identity import weights_identity
from r1_reward.store.images import decode_images
from r1_reward.store.machine import describe_machine
from r1_reward.store.pairs import load_pairs

FIRST = "transformers, in process"
PAIRS, SAMPLED, VOTES, WARM_UP, ROUNDS = 200, 50, 4, 16, 2
NEW_TOKENS = 64
SEEDS = (1, 2, 3, 4)
COLUMNS = {
    "name": "engine",
    "verdicts_differ": "greedy verdicts that differ",
    "greedy": "greedy, verdicts/s",
    "votes_one_by_one": "4 votes, one by one, /s",
    "votes_together": "4 votes, with `n`, /s",
    **{name: f"`{name}`" for name in ("n", "seed", "temperature", "logprobs", "top_logprobs")},
}


class Judged(NamedTuple):
    """The votes of an engine, and the time they took."""

    votes: list[Judgment]
    seconds: float


def judge(model: RewardModel, rows: Sequence[Mapping[str, Any]], votes: int, rounds: int) -> Judged:
    """Judge the rows several times; return the votes and the time of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        verdicts = list(model.compare_many(rows, votes=votes))
        best = min(best, time.perf_counter() - began)
        for verdict in verdicts:
            if isinstance(verdict, EngineError):
                raise SystemExit(f"a row failed, so the measurement is invalid: {verdict}")
    return Judged([vote for verdict in verdicts for vote in verdict.votes], best)


def digest(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def against(reference: Mapping[str, Any], votes: Sequence[Judgment]) -> dict[str, Any]:
    """Return how greedy judgments differ from those of the first row."""
    theirs = [vote.probability for vote in votes]
    both = [(a, b) for a, b in zip(reference["probabilities"], theirs, strict=True) if None not in (a, b)]
    return {
        "judgements": len(votes),
        "texts_differ": sum(a != digest(b.text) for a, b in zip(reference["texts"], votes, strict=True)),
        "verdicts_differ": sum(a != b.answer for a, b in zip(reference["answers"], votes, strict=True)),
        "probabilities_missing": sum(one is None for one in theirs),
        "largest_difference_of_probability": max((abs(a - b) for a, b in both), default=None),
    }


def request_of(model: RewardModel, row: Mapping[str, Any], seeds: tuple[int, ...], temperature: float) -> Request:
    """Return the judge's request about one row."""
    options: dict[str, Any] = {"seeds": seeds, "temperature": temperature, "max_new_tokens": NEW_TOKENS}
    return model.engine.compare(row["question"], decode_images(row), row["response_1"], row["response_2"], **options)


def held(texts: Sequence[Sequence[str]]) -> str:
    """Describe the effect of seeds from the texts of several seeds, each drawn twice."""
    if any(first != second for first, second in texts):
        return "ignored: the same seed gives other texts"
    return "taken" if len({first for first, _ in texts}) > 1 else "ignored: all seeds give one text"


def ask_engine(model: RewardModel, row: Mapping[str, Any]) -> dict[str, str]:
    """Return how an engine in this process handles its parameters."""
    engine: Any = model.engine

    def texts(seeds: tuple[int, ...], temperature: float) -> list[Any]:
        (completions,) = engine.generate([request_of(model, row, seeds, temperature)])
        return completions

    twice = texts(SEEDS, 1.0), texts(SEEDS, 1.0)
    cold = {one.text for one in texts((1,), 0.0) + texts((2,), 0.0)}
    warm = {one.text for one in texts(tuple(range(8)), 1.5)}
    known = twice[0][0].probability is not None or twice[0][1].probability is not None
    return {
        "n": "a seed a vote",
        "seed": held([(a.text, b.text) for a, b in zip(*twice, strict=True)]),
        "temperature": heat(cold, warm),
        "logprobs": "taken" if known else "none",
        "top_logprobs": "all that are needed" if known else "none",
    }


def heat(cold: set[str], warm: set[str]) -> str:
    """Describe the effect of temperatures from the texts at 0 and at 1.5."""
    if len(cold) > 1:
        return "ignored: samples at 0"
    return "taken" if len(warm) > 1 else "ignored: one text at 1.5"


def ask_server(url: str, name: str, messages: list[dict[str, Any]]) -> dict[str, str]:
    """Return how a server handles each parameter, or its refusal."""

    def post(**options: Any) -> dict[str, Any] | str:
        body = json.dumps({"model": name, "messages": messages, "max_tokens": NEW_TOKENS, **options})
        header = {"Content-Type": "application/json"}
        try:
            asked = urllib.request.Request(f"{url}/chat/completions", body.encode(), header)
            with urllib.request.urlopen(asked, timeout=300) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return f"refused: {error.code} {excerpt(error.read().decode(errors='replace'))[:100]}"

    def text(**options: Any) -> str:
        answer = post(**options)
        return answer if isinstance(answer, str) else str(answer["choices"][0]["message"]["content"])

    several = post(n=3, temperature=1.0, seed=1)
    given = len(several["choices"]) if isinstance(several, dict) else 0
    found = {"n": several if isinstance(several, str) else "taken" if given == 3 else f"ignored: {given} of 3"}
    warm = {"temperature": 1.0, "top_p": 1.0}
    found["seed"] = held([(text(seed=seed, **warm), text(seed=seed, **warm)) for seed in SEEDS])
    cold = {text(temperature=0.0, seed=seed) for seed in (1, 2)}
    found["temperature"] = heat(cold, {text(temperature=1.5, top_p=1.0, seed=seed) for seed in range(8)})
    for wanted in (5, 2):
        answer = post(temperature=0.0, logprobs=True, top_logprobs=wanted)
        if isinstance(answer, str):
            found["logprobs"] = found["top_logprobs"] = answer
            continue
        places = (answer["choices"][0].get("logprobs") or {}).get("content") or []
        count = len(places[0].get("top_logprobs") or []) if places else 0
        found["logprobs"] = "taken" if places else "ignored"
        found["top_logprobs"] = f"{count} of {wanted}" if count else "ignored"
        break
    return found


def measure(options: argparse.Namespace, rows: Sequence[Mapping[str, Any]], results: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one engine; the first engine's texts are stored in the results."""
    common: dict[str, Any] = {"max_new_tokens": NEW_TOKENS}
    if options.base_url:
        model = RewardModel.from_server(options.base_url, options.served_as, **common)
    elif options.engine == "transformers":
        model = RewardModel.from_pretrained(options.model, dtype="float32", **common)
    else:
        model = RewardModel.from_pretrained(options.model, dtype="float32", engine=options.engine, **common)
    judge(model, rows[:WARM_UP], 1, 1)
    rounds, sampled = options.rounds, rows[: options.sampled]
    greedy = judge(model, rows, 1, rounds)
    row: dict[str, Any] = {"greedy": len(greedy.votes) / greedy.seconds}
    if options.name == FIRST:
        results["reference"] = {
            "answers": [vote.answer for vote in greedy.votes],
            "texts": [digest(vote.text) for vote in greedy.votes],
            "probabilities": [vote.probability for vote in greedy.votes],
        }
    row |= against(results["reference"], greedy.votes)
    alone = judge(model, sampled, VOTES, rounds)
    row["votes_one_by_one"] = len(alone.votes) / alone.seconds
    if options.base_url:
        together = RewardModel.from_server(options.base_url, options.served_as, batch_votes=True, **common)
        drawn = judge(together, sampled, VOTES, rounds)
        row["votes_together"] = len(drawn.votes) / drawn.seconds
        messages = chat_messages(request_of(model, rows[0], (1,), 0.0))
        row |= ask_server(options.base_url, options.served_as, messages)
        row["refused"] = list(dict.fromkeys((*model.engine.refused, *together.engine.refused)))  # type: ignore[attr-defined]
    else:
        row |= ask_engine(model, rows[0])
    return row


def to_markdown(results: Mapping[str, Any]) -> str:
    """Return the rows as a table."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    for name, row in results["rows"].items():
        shown = {**row, "name": name, "verdicts_differ": f"{row['verdicts_differ']} of {row['judgements']}"}
        cells = [shown.get(column, "") for column in COLUMNS]
        lines.append([f"{cell:.0f}" if isinstance(cell, float) else str(cell) for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure one engine and write its row, or print the existing rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="the judge's checkpoint")
    parser.add_argument("data", nargs="?", help="a folder of pairs with a test set")
    parser.add_argument("--engine", default="transformers", help="engine of the checkpoint in this process")
    parser.add_argument("--name", help="name of the row; default for engines in this process")
    parser.add_argument("--base-url", help="ask this server instead")
    parser.add_argument("--served-as", help="the model's name there")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--sampled", type=int, default=SAMPLED, help="pairs to vote on; fewer for a slow server")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="repetitions; one for a slow server")
    parser.add_argument("--table", action="store_true", help="print the results as Markdown")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-engines.json"))
    options = parser.parse_args()
    results: dict[str, Any] = dict(read_json(options.out)) if options.out.exists() else {"rows": {}}
    if options.table:
        print(to_markdown(results))
        return
    if options.model is None or options.data is None or (options.base_url and not (options.served_as and options.name)):
        parser.error("pass the judge and its pairs; for a server also --name and --served-as")
    options.name = options.name or f"{options.engine}, in process"
    judged = {"weights": weights_identity(options.model), "pairs": options.pairs, "new_tokens": NEW_TOKENS}
    if options.name == FIRST:
        results |= judged
    elif {name: results.get(name) for name in judged} != judged:
        parser.error(f"{options.out} has rows of another judge, or none; start with {FIRST}")
    load = os.getloadavg()[0]
    rows = list(load_pairs(options.data, split="test"))[: options.pairs]
    row = measure(options, rows, results)
    machine = describe_machine()
    results["machine"], row["versions"] = machine, machine["versions"]
    results["rows"][options.name] = {**row, "rounds": options.rounds, "sampled": options.sampled, "load_before": load}
    write_json(options.out, results)
    print(json.dumps(results["rows"][options.name], indent=1))


if __name__ == "__main__":
    main()
