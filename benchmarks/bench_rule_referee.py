"""How often does the rule referee read a real judgment as its author meant it? Counts agreement, none and contrary.

    python benchmarks/bench_rule_referee.py judgments.jsonl

A row of the file has ``text`` (a judgment without its verdict mark, such as ``[[A]]`` or a line of scores), ``verdict``
(1 or 2, from the mark), and ``source``, ``commit``, ``judge`` and ``part``, by which rows are counted. The texts belong
to others and are not kept here; the results name the repositories they were collected from.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1_reward.judge.rule_referee import conclusion
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine
from r1_reward.studies.statistics import rate

GROUP = ("part", "source", "commit", "judge")
READINGS = ("agree", "none", "contrary")


def reading(text: str, verdict: int) -> str:
    """Return the referee's reading of a text: agree, none or contrary."""
    concluded = conclusion(text)
    if concluded is None:
        return "none"
    return "agree" if concluded == verdict else "contrary"


def described(counts: Mapping[str, int]) -> dict[str, Any]:
    """Return counts as shares with exact 95 % intervals (Clopper-Pearson)."""
    total = sum(counts.values())
    shares = {name: rate(counts.get(name, 0), total) for name in READINGS}
    return {
        "texts": total,
        **{name: {"count": counts.get(name, 0), "share": shares[name].mean,
                  "interval": [shares[name].low, shares[name].high]} for name in READINGS},
    }  # fmt: skip


def main() -> None:
    """Read and count every text, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-rule-referee.json"))
    options = parser.parse_args()
    rows = [json.loads(line) for path in options.texts for line in path.read_text(encoding="utf-8").splitlines()]
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    start = time.perf_counter()
    for row in rows:
        counts[tuple(str(row[name]) for name in GROUP)][reading(row["text"], row["verdict"])] += 1
    seconds = time.perf_counter() - start
    parts: dict[str, Counter[str]] = defaultdict(Counter)
    for group, found in counts.items():
        parts[group[0]].update(found)
    result = {
        "machine": describe_machine(),
        "milliseconds_a_text": 1000 * seconds / len(rows),
        "parts": {part: described(found) for part, found in sorted(parts.items())},
        "groups": [
            {**dict(zip(GROUP, group, strict=True)), **described(found)} for group, found in sorted(counts.items())
        ],
    }
    write_json(options.out, result)
    for name, part in result["parts"].items():
        print(name, part["texts"], {one: f"{part[one]['share']:.2%}" for one in READINGS})
    print(f"{options.out}: {result['milliseconds_a_text']:.2f} ms per text")


if __name__ == "__main__":
    main()
