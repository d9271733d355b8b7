"""RewardBench 2 (arXiv 2506.01937): 1,865 text-only prompts, to check a multimodal judge on text.

Each prompt has one right answer and three wrong ones; in the subset Ties, any number of both. A pairwise judge compares
every right answer with every wrong one:

- *not Ties*: the prompt is right if the right answer wins all three comparisons. If it loses none but some verdict is
  unreadable, the prompt scores 1/4, a guess, like an unreadable answer in the official script.
- *Ties*: the official score is computed from ratings and depends only on their differences. Here the rating of an
  answer is the share of its verdicts that it won, over all comparisons and orders. This is our interpretation for
  pairwise judges, including scalar models: their rewards decide the comparisons, but are not used as ratings.

    r1-reward bench run rewardbench-2 --data data --model MODEL --out RUN

The right answer gets one of the four positions, drawn from the prompt's id, and comparisons are stored in that order.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from r1_reward.bench.benchmark import (
    NOT_STATED,
    SCALAR,
    Benchmark,
    Cluster,
    OfficialScore,
    Protocol,
    PublishedRow,
    Size,
    official_columns,
    published_row,
)
from r1_reward.bench.fields import Draft, Fields
from r1_reward.bench.official import REWARD_BENCH_2, TiesRow, four_way_score, reward_bench_2_score, ties_score
from r1_reward.bench.rows import BenchmarkRow, Outcome, count_votes, won
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer

SUBSETS = REWARD_BENCH_2
TIES = "Ties"
COLUMNS = official_columns((*SUBSETS, "mean"))
WRONG = 3
"""Number of wrong answers of a prompt outside Ties."""

# ---- rows


def parse(row: Fields) -> list[Draft]:
    """Return the comparisons of a prompt: each right answer with each wrong one."""
    id, prompt = row.text("id"), row.text("prompt")
    subset = row.category("subset", _subset, row.text("subset"))
    right, wrong = row.list_of_texts("chosen"), row.list_of_texts("rejected")
    _check_counts(row, id, subset, right, wrong)
    if row.problems:
        return []
    answers = [*right, *wrong]
    places = random.Random(id).sample(range(len(answers)), len(answers))
    drafts = []
    for i in range(len(right)):
        for j in range(len(right), len(answers)):
            first, second = sorted((i, j), key=places.__getitem__)
            preferred: Answer = 1 if first == i else 2
            drafts.append(
                Draft(id, prompt, answers[first], answers[second], preferred, subset, members=(first, second))
            )
    return drafts


def _subset(name: str) -> str:
    if name not in SUBSETS:
        raise UserError(f"{name!r} is not a subset of RewardBench 2 ({', '.join(SUBSETS)}).")
    return name


def _check_counts(row: Fields, id: str, subset: str, right: Sequence[str], wrong: Sequence[str]) -> None:
    """Record numbers of answers that are wrong for the subset, or that contradict the row's own counts."""
    for name, count, answers in (("num_correct", "chosen", right), ("num_incorrect", "rejected", wrong)):
        said = row.data.get(name)
        if said is not None and answers and said != len(answers):
            row.problems.append((name, f"is {said}, but {count} has {len(answers)} answers"))
    if not right or not wrong or not subset:
        return
    if subset == TIES:
        kind, _, number = id.partition(":")
        if kind not in ("ref", "tied") or not number.isdecimal():
            row.problems.append(("id", f"must be ref:N or tied:N in {TIES}, not {id!r}"))
        elif (kind == "tied") != (len(right) > 1):
            wanted = "several right answers" if kind == "tied" else "one right answer"
            row.problems.append(("chosen", f"has {len(right)}; {id} must have {wanted}"))
    elif len(right) != 1 or len(wrong) != WRONG:
        counts = f"{len(right)} right and {len(wrong)} wrong answers"
        row.problems.append(("rejected", f"there are {counts}; outside of {TIES} there must be 1 and {WRONG}"))


# ---- score


def cluster(one: Outcome | BenchmarkRow) -> str:
    """Return the prompt of a comparison; two Ties prompts with the same number share a cluster."""
    return f"{one.category} {one.id.partition(':')[2] if one.category == TIES else one.id}"


class Prompt(NamedTuple):
    """The result of a prompt, or of two Ties prompts that belong together."""

    subset: str
    score: float | None
    """None in Ties, which is scored over all its prompts together."""
    ties: tuple[TiesRow, ...] = ()


def read(comparisons: Cluster) -> Prompt:
    """Return the score of a prompt, averaged over its passes; a comparison that was not judged counts as unreadable."""
    subset = comparisons[0].category or ""
    if subset == TIES:
        return Prompt(subset, None, tuple(_ratings(comparisons)))
    scores = []
    for number in range(len(comparisons[0].passes)):
        verdicts = [won(one.passes[number], one.preferred) for one in comparisons]
        right = None if verdicts.count(True) < WRONG else True
        scores.append(four_way_score(False if False in verdicts else right))
    return Prompt(subset, fmean(scores))


def _ratings(comparisons: Cluster) -> Iterator[TiesRow]:
    """Yield the prompts of Ties, with each answer rated by the share of its verdicts that it won."""
    prompts: defaultdict[str, list[Outcome]] = defaultdict(list)
    for one in comparisons:
        prompts[one.id].append(one)
    for id, own in prompts.items():
        right: set[int] = set()
        wins: defaultdict[int, list[bool]] = defaultdict(list)
        for one in own:
            better, worse = one.sides
            right.add(better)
            for votes in one.passes:
                verdict = won(votes, one.preferred)
                _, wrong, ties = count_votes(votes)
                wins[better] += [] if verdict is None else [verdict]
                wins[worse] += [] if verdict is None else [not verdict and wrong >= ties]  # a tie is a win for neither
        if id.startswith("tied") and len(right) < 2:  # no comparison of the other right answers was judged
            continue
        ratings = [fmean(wins[place]) if wins[place] else None for place in sorted(wins)]
        yield TiesRow(id, len(right), ratings)


def numbers(prompts: Sequence[Prompt]) -> dict[str, float | None]:
    """Return the leaderboard score (the mean of the six subsets, None if one is missing) and that of each subset."""
    subsets: dict[str, float | None] = {}
    for subset in SUBSETS[:-1]:
        scores = [one.score for one in prompts if one.subset == subset and one.score is not None]
        subsets[subset] = fmean(scores) if scores else None
    # The bootstrap may draw a prompt several times, so pairs of prompts are renumbered.
    rows = [
        row._replace(id=f"{row.id.partition(':')[0]}:{number}")
        for number, one in enumerate(prompts) for row in one.ties
    ]  # fmt: skip
    ties = ties_score(rows)
    subsets[TIES] = None if ties is None else ties.score
    return {"mean": reward_bench_2_score(subsets), **subsets}


# ---- published rows

_ISSUE = "a user's run, reward-bench issue 253"
_REWARDS = "computed from rewards: comparable to pairwise comparisons, except for Ties and mean"
_SKYWORK = {**SCALAR, "note": _REWARDS}


def _mean(model: str, value: str, source: str, **more: str) -> PublishedRow:
    return published_row(COLUMNS[-1:], model, value, source, **more)


PUBLISHED = (
    _mean("Skywork-Reward-V2-Qwen3-1.7B", "68.3", _ISSUE, **_SKYWORK),
    published_row(COLUMNS, "Skywork-Reward-V2-Qwen3-0.6B", "58.2 40 71.6 84.4 79.4 34 61.3", _ISSUE, **_SKYWORK),
    # It is not stated whether these use four answers at once or ratings.
    _mean("ARM-Thinker-7B", "59.6", "README of InternLM/ARM-Thinker", grouping=NOT_STATED),
    _mean("Qwen2.5-VL-7B", "46.1", "README of InternLM/ARM-Thinker", grouping=NOT_STATED),
)

BENCHMARK = Benchmark(
    name="rewardbench-2",
    title="RewardBench 2",
    parse=parse,
    own=lambda row: row.get("subset") in SUBSETS,
    marks=("chosen", "rejected", "subset"),
    hub_id="allenai/reward-bench-2",
    sizes=(
        Size("release of 2025 (1,865 prompts)", 1865, dict(zip(SUBSETS, (475, 160, 183, 450, 495, 102), strict=True))),
    ),
    categories=SUBSETS,
    columns=COLUMNS,
    protocol=Protocol(
        orders="one prompt with four answers, the right one at a random position",
        rule="a quarter; in Ties a rating of -1",
    ),
    published=PUBLISHED,
    unit="prompts",
    needs_media=False,
    official=OfficialScore(
        numbers,
        read,
        cluster=cluster,
        about="The mean of six subsets. Outside of Ties a prompt is right if the right answer wins its three "
        "comparisons, and scores 1/4 if it loses none but some are unreadable. In Ties each answer is rated by the "
        "share of its verdicts that it won. The official score uses the judge's ratings or rewards; this is our "
        "interpretation for pairwise judges.",
    ),
    notes=(
        "The subset Focus of RewardBench 2 has a length bias: the shortest answer is right in 52.7 % of its prompts "
        "(reward-bench issue 268).",
        "The official protocol shows four answers at once or rates them, while runs here compare two at a time: their "
        "numbers are comparable with each other, but not with the leaderboard.",
    ),
)
