"""Measure the cost and the loss of comparing only some pairs of a group: every schedule against round robin.

    r1-reward demo --seed 2 --out runs/demo-seed2
    python benchmarks/bench_schedules.py runs/demo-seed2

There are two kinds of judges. The demo's models judge groups of different answers to questions about held-out
handwriting: at most half of them are true, in several wordings, and the others name another number. Every pair of a
group is judged once and the schedules reuse these verdicts, because a verdict depends on the pair alone. A simulated
judge of known quality draws worths from N(0, 1) and answers P = sigmoid(6 (gap + noise)), with independent noise for
every pair that makes it name the better of two in 97, 88 or 75 % of all pairs.

Agreement compares the win rates with round robin's: Kendall's tau (over groups that round robin orders at all), the
same best response, the mean absolute difference, and that of another estimate, the mean over the opponents met alone.
Quality is how often a true answer ranks above a false one, and the best is true (demo); or Kendall's tau with the true
worths, and how often the best is found (simulation). Intervals are 95 % bootstrap intervals over groups. Finally, the
schedules run for real to measure their time.
"""

from __future__ import annotations

import argparse
import random
import time
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import expit
from scipy.stats import kendalltau

from r1_reward.data.handwriting import build_world
from r1_reward.judge.groups import Group, score_groups
from r1_reward.judge.metrics import mean_interval
from r1_reward.judge.prepare import open_images
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.settings import ScheduleName
from r1_reward.models.tiny_words import ANSWERS, CORNERS, DIGITS, SIDES, answer_of, capitalize
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine

KINDS = ("position", "side", "sum", "largest", "even")  # yes and no have too few wordings for a large group
SHARPNESS = 6.0
NOISE = {97: 0.134, 88: 0.56, 75: 1.414}  # standard deviation at which q % of signs are right: tan(pi (q - 1/2))
NO_PICTURES = open_images([])


class Said(NamedTuple):
    """The part of a verdict that groups use."""

    probability: float | None
    votes: tuple = ()


class Case(NamedTuple):
    """A group, the judge's verdict on each of its pairs, and the truth."""

    group: Group
    said: dict
    worth: tuple
    """For each response: 1 for a true answer, 0 for a false one; or a simulated worth."""


def schedules(n):
    """Yield the name and options of each schedule, round robin first."""
    yield "round-robin", {}
    yield "circular", {"schedule": "circular"}
    yield "bracket", {"schedule": "bracket"}
    for times in (1, 2, 3):
        yield f"adaptive, {times} N", {"schedule": "adaptive", "comparisons": times * n}


def demo_groups(world, n, count, rng):
    """Return groups of different answers to held-out questions, and which answers are true."""
    cases = []
    for pair in rng.sample([pair for pair in world.test if pair.kind in KINDS], count):
        digits = world.scenes[pair.images[0]].digits
        places = SIDES if pair.kind == "side" else CORNERS
        corner = next((i for i, name in enumerate(places) if name in pair.question), 0)
        true = answer_of(pair.kind, digits, corner=corner)
        named = {"corner": CORNERS[corner], "side": SIDES[corner % 2]}
        wordings = [
            {capitalize(form.format(a=answer, **named)): answer == true for form in ANSWERS[pair.kind]}
            for answer in (true, *sorted(set(DIGITS) - {true}))
        ]
        right = rng.sample(sorted(wordings[0]), min(n // 2, len(wordings[0])))
        wrong = rng.sample([text for one in wordings[1:] for text in one], n - len(right))
        texts = rng.sample(right + wrong, n)
        worth = tuple(float(text in right) for text in texts)
        cases.append((Group(pair.question, open_images([world.images[pair.images[0]]]), texts), worth))
    return cases


def judged(model, cases):
    """Return the groups with the model's probability for every pair."""
    answers = iter(score_groups((group for group, _ in cases), model.compare_many, video_frames=model.video_frames))
    return [
        Case(group, {(a, b): p for a, b, p in scored.comparisons}, worth)
        for (group, worth), scored in zip(cases, answers, strict=True)
    ]


def simulated(n, count, quality, rng):
    """Return groups with worths and a judge that is right on ``quality`` % of all pairs."""
    cases = []
    for number in range(count):
        worth = rng.normal(0, 1, n)
        said = {
            (i, j): float(expit(SHARPNESS * (worth[i] - worth[j] + rng.normal(0, NOISE[quality]))))
            for i, j in combinations(range(n), 2)
        }
        texts = [f"response {i} of group {number}" for i in range(n)]
        cases.append(Case(Group("?", NO_PICTURES, texts), said, tuple(worth)))
    return cases


def rewards(case, options):
    """Return the win rates of a group under a schedule, and the number of comparisons."""
    place = {text: i for i, text in enumerate(case.group.responses)}

    def compare(pairs):
        for pair in pairs:
            i, j = place[pair.response_1], place[pair.response_2]
            p = case.said[min(i, j), max(i, j)]
            yield Said(p if p is None or i < j else 1 - p)

    (scored,) = score_groups([case.group], compare, **options)
    return np.array([np.nan if one is None else one for one in scored.rewards]), scored.comparisons


def over_the_met(comparisons, n):
    """Return the win rates over the opponents met alone; a schedule's rewards are not computed this way."""
    margins = [[] for _ in range(n)]
    for i, j, p in comparisons:
        if p is not None:
            margins[i].append(2 * p - 1)
            margins[j].append(1 - 2 * p)
    return np.array([np.mean(own) if own else np.nan for own in margins])


def tau(own, other):
    """Return Kendall's tau-b over common responses, 0 if only the second is an order, None if it is not one."""
    known = ~(np.isnan(own) | np.isnan(other))
    if np.ptp(other[known]) < 1e-9:
        return None
    return 0.0 if np.ptp(own[known]) < 1e-9 else float(kendalltau(own[known], other[known])[0])


def true_above_false(own, worth):
    """Return the share of true-false pairs in the right order; equal rewards count one half."""
    gaps = (own[worth == 1][:, None] - own[worth == 0]).ravel()
    gaps = gaps[~np.isnan(gaps)]
    return float(np.mean((gaps > 1e-9) + 0.5 * (np.abs(gaps) <= 1e-9)))


def best(values):
    """Return the indices of the highest reward."""
    return set(np.flatnonzero(values >= np.nanmax(values) - 1e-9).tolist())


def agreement(case, own, met, whole, demo):
    """Return the metrics of a group's rewards against those of round robin and against the truth, by name."""
    first, worth = best(own), np.array(case.worth)
    row = {
        "tau": tau(own, whole),
        "same best": len(first & best(whole)) / len(first),
        "difference": np.nanmean(np.abs(own - whole)),
        "over the met": np.nanmean(np.abs(over_the_met(met, len(own)) - whole)),
    }
    if demo:
        return {**row, "true above false": true_above_false(own, worth), "best is true": worth[sorted(first)].mean()}
    return {**row, "tau with truth": tau(own, worth), "best is found": len(first & best(worth)) / len(first)}


def measured(cases, n, demo):
    """Return a record per schedule: means over groups with their intervals."""
    records, full = [], None
    for name, options in schedules(n):
        found = [rewards(case, options) for case in cases]
        full = full or [own for own, _ in found]
        rows = [agreement(case, *one, whole, demo) for case, one, whole in zip(cases, found, full, strict=True)]
        columns = {key: np.array([row[key] for row in rows if row[key] is not None]) for key in rows[0]}
        means = {key: list(mean_interval(column)) for key, column in columns.items()}
        records.append({"schedule": name, "comparisons": float(np.mean([len(met) for _, met in found])), **means})
    return records


def timed(model, cases):
    """Run every schedule with its defaults for real; return seconds and comparisons."""
    records = []
    for name in get_args(ScheduleName):
        began = time.monotonic()
        groups = (group for group, _ in cases)
        scored = list(score_groups(groups, model.compare_many, schedule=name, video_frames=model.video_frames))
        seconds = time.monotonic() - began
        records.append({"schedule": name, "seconds": seconds, "comparisons": sum(len(s.comparisons) for s in scored)})
    return records


def shown(title, records):
    """Return a table of records."""
    names = [name for name in records[0] if name not in ("schedule", "comparisons")]
    table = Table("schedule", "comparisons", *names, title=title)
    for one in records:
        said = [f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in (one[name] for name in names)]
        table.add_row(one["schedule"], f"{one['comparisons']:.0f}", *said)
    return table


def main():
    """Measure, print tables, write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="Folder of a finished demo.")
    parser.add_argument("--seed", type=int, default=2, help="The demo's.")
    parser.add_argument("--models", nargs="+", default=["rl", "control"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--groups", type=int, default=120)
    parser.add_argument("--simulated", type=int, default=500)
    parser.add_argument("--timed", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-schedules.json"))
    given = parser.parse_args()
    console, report = Console(width=190), {"demo": {}, "simulated": {}}
    for quality in NOISE:
        rng = np.random.default_rng(0)
        for n in given.sizes:
            records = measured(simulated(n, given.simulated, quality, rng), n, demo=False)
            report["simulated"][f"{quality} %, N = {n}"] = records
            console.print(shown(f"simulated, right in {quality} % of pairs, N = {n}", records))
    world = build_world(seed=given.seed, train_pairs=14000, test_pairs=600, captions=12000)
    for name in given.models:
        model = RewardModel.from_pretrained(given.run / name, batch_size=given.batch_size, max_new_tokens=64)
        model.calibration = None
        for n in given.sizes:
            drawn = demo_groups(world, n, given.groups, random.Random(n))
            cases = judged(model, drawn)
            records = measured(cases, n, demo=True)
            unreadable = np.mean([p is None for case in cases for p in case.said.values()])
            report["demo"][f"{name}, N = {n}"] = {"unreadable": float(unreadable), "schedules": records}
            console.print(shown(f"demo's {name}, N = {n}, {unreadable:.1%} unreadable", records))
    n = max(given.sizes)
    report["timed"] = timed(model, demo_groups(world, n, given.timed, random.Random(n)))
    console.print(f"N = {n}, {given.timed} groups", report["timed"])
    options = {name: value for name, value in vars(given).items() if name not in ("run", "out")}
    write_json(given.out, {"machine": describe_machine(), "options": options, **report})


if __name__ == "__main__":
    main()
