"""Measure the cost and effect of each voting rule: tokens, verdicts and accuracy at K votes on held-out pairs.

Rules that stop early run for real; they are not computed from the full set of votes but compared with it per pair.

    python benchmarks/bench_voting.py --model runs/demo-seed0/rl --data runs/demo-seed0/data/test.parquet
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.voting import confidence_weighted, consistent_verdict, majority
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine
from r1_reward.store.pairs import load_pairs


def judged(model, rows, **options):
    """Return the seconds and the verdict of every row."""
    began = time.monotonic()
    verdicts = list(model.compare_many(rows, **options))
    return time.monotonic() - began, verdicts


def described(name, verdicts, rows, reference, seconds=None):
    """Return a rule's accuracy with a bootstrap interval, and compare its tokens and verdicts with a reference."""
    right = np.array([v.correctness(row["preferred"]) for v, row in zip(verdicts, rows, strict=True)])
    draws = np.random.default_rng(0).choice(right, size=(2000, right.size)).mean(axis=1)
    tokens = sum(verdict.tokens for verdict in verdicts)
    return {
        "rule": name,
        "accuracy": float(right.mean()),
        "interval": [float(bound) for bound in np.quantile(draws, [0.025, 0.975])],
        "votes_a_pair": sum(len(verdict.votes) for verdict in verdicts) / len(verdicts),
        "tokens_a_pair": tokens / len(verdicts),
        "tokens_saved": 1 - tokens / sum(verdict.tokens for verdict in reference),
        "verdicts_changed": sum(a.preferred != b.preferred for a, b in zip(verdicts, reference, strict=True)),
        "no_verdict": sum(verdict.preferred is None for verdict in verdicts),
        "seconds": seconds,
    }


def measure(model, rows, votes):
    """Return one record per rule; the reference is the majority of all votes in the same orders."""
    seconds, full = judged(model, rows, votes=votes, both_orders=False)
    records = [described(f"majority of {votes}", full, rows, full, seconds)]
    for stop in ("exact", "sequential"):
        seconds, stopped = judged(model, rows, votes=votes, both_orders=False, stop=stop)
        records.append(described(f"{stop} stopping", stopped, rows, full, seconds))
    weighted = [confidence_weighted(verdict.votes) for verdict in full]
    records.append(described(f"confidence-weighted {votes}", weighted, rows, full))
    single = [majority(verdict.votes[:1]) for verdict in full]
    records.append(described("one vote, temperature 1", single, rows, full))
    seconds, greedy = judged(model, rows, votes=1, both_orders=False)
    records.append(described("one greedy vote", greedy, rows, full, seconds))

    seconds, both = judged(model, rows, votes=votes, both_orders=True)
    records.append(described(f"both orders, majority of {2 * votes}", both, rows, both, seconds))
    for stop in ("exact", "sequential"):
        seconds, stopped = judged(model, rows, votes=votes, both_orders=True, stop=stop)
        records.append(described(f"both orders, {stop} stopping", stopped, rows, both, seconds))
    agreeing = [consistent_verdict(verdict.votes) for verdict in both]
    records.append(described("both orders must agree", agreeing, rows, both))
    seconds, greedy = judged(model, rows, votes=1, both_orders=True)
    records.append(described("both orders, greedy", greedy, rows, both, seconds))
    return records


def main():
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--votes", type=int, default=15)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-voting.json"))
    options = parser.parse_args()
    model = RewardModel.from_pretrained(options.model, batch_size=256, max_new_tokens=options.max_new_tokens)
    rows = list(load_pairs(options.data).select(range(options.pairs)))
    records = measure(model, rows, options.votes)
    write_json(
        options.out, {"machine": describe_machine(), "pairs": len(rows), "votes": options.votes, "rules": records}
    )
    table = Table("rule", "accuracy, % [95 %]", "votes", "tokens", "saved", "changed", "none", "seconds")
    for one in records:
        low, high = one["interval"]
        table.add_row(
            one["rule"],
            f"{100 * one['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
            f"{one['votes_a_pair']:.1f}",
            f"{one['tokens_a_pair']:.0f}",
            f"{100 * one['tokens_saved']:.0f} %",
            str(one["verdicts_changed"]),
            str(one["no_verdict"]),
            "-" if one["seconds"] is None else f"{one['seconds']:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
