"""RewardBench 2 (arXiv 2506.01937): 1,865 prompts without pictures: what a judge of pictures still knows of text.

Each prompt has one right answer and three wrong ones, those of the subset Ties any number of both. A judge of pairs is
asked about every right answer against every wrong one:

- *not Ties*: the prompt is right if the right answer wins all three; if it loses none but not every comparison could be
  read, that is worth a guess, 1/4, as an answer that the official script cannot read.
- *Ties*: the official score goes by ratings, and looks at nothing but their differences. Here an answer's rating is the
  share of its verdicts that it won, in all comparisons and orders together. That is our reading for judges of pairs,
  scalar models included: their rewards decide comparisons, and are not rated themselves.

    r1-reward bench run rewardbench-2 --data data --model MODEL --out RUN

The right answer has one of the four places, drawn from the prompt's id, and comparisons are stored in that order.
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
from r1_reward.bench.rows import Outcome, won
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer

SUBSETS = REWARD_BENCH_2
TIES = "Ties"
COLUMNS = official_columns((*SUBSETS, "mean"))
WRONG = 3
"""Wrong answers of a prompt that is not of Ties."""

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
    """Note numbers of answers that the subset does not have, or that the row itself contradicts."""
    for name, count, answers in (("num_correct", "chosen", right), ("num_incorrect", "rejected", wrong)):
        said = row.data.get(name)
        if said is not None and answers and said != len(answers):
            row.problems.append((name, f"is {said}, and {count} has {len(answers)} answers"))
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
        row.problems.append(("rejected", f"there are {counts}; outside of {TIES} it is 1 and {WRONG}"))


# ---- score


def cluster(outcome: Outcome) -> str:
    """Return the prompt of a comparison; the two prompts of Ties that belong together are one."""
    return f"{TIES} {outcome.id.partition(':')[2]}" if outcome.category == TIES else outcome.id


class Prompt(NamedTuple):
    """What came of a prompt, or of two of Ties that belong together."""

    subset: str
    score: float | None
    """None in Ties, whose score is of all prompts together."""
    ties: tuple[TiesRow, ...] = ()


def read(comparisons: Cluster) -> Prompt:
    """Return what a prompt scores, the mean over its passes; a comparison that was not judged is not readable."""
    subset = comparisons[0].category or ""
    if subset == TIES:
        return Prompt(subset, None, tuple(_ratings(comparisons)))
    scores = []
    for number in range(len(comparisons[0].passes)):
        verdicts = [won(one.passes[number]) for one in comparisons]
        right = None if verdicts.count(True) < WRONG else True
        scores.append(four_way_score(False if False in verdicts else right))
    return Prompt(subset, fmean(scores))


def _ratings(comparisons: Cluster) -> Iterator[TiesRow]:
    """Yield the prompts of Ties, each answer rated by the share of its verdicts that it won."""
    prompts: defaultdict[str, list[Outcome]] = defaultdict(list)
    for one in comparisons:
        prompts[one.id].append(one)
    for id, own in prompts.items():
        right: set[int] = set()
        wins: defaultdict[int, list[bool]] = defaultdict(list)
        for one in own:
            better, worse = one.sides
            right.add(better)
            for verdict in map(won, one.passes):
                wins[better] += [] if verdict is None else [verdict]
                wins[worse] += [] if verdict is None else [not verdict]
        if id.startswith("tied") and len(right) < 2:  # of the others no comparison was judged
            continue
        ratings = [fmean(wins[place]) if wins[place] else None for place in sorted(wins)]
        yield TiesRow(id, len(right), ratings)


def numbers(prompts: Sequence[Prompt]) -> dict[str, float | None]:
    """Return the leaderboard's score (the mean of the six subsets, None unless all are there) and each subset's."""
    subsets: dict[str, float | None] = {}
    for subset in SUBSETS[:-1]:
        scores = [one.score for one in prompts if one.subset == subset and one.score is not None]
        subsets[subset] = fmean(scores) if scores else None
    # A bootstrap draws prompts repeatedly; their numbers only say which two belong together.
    rows = [
        row._replace(id=f"{row.id.partition(':')[0]}:{number}")
        for number, one in enumerate(prompts) for row in one.ties
    ]  # fmt: skip
    ties = ties_score(rows)
    subsets[TIES] = None if ties is None else ties.score
    return {"mean": reward_bench_2_score(subsets), **subsets}


# ---- published rows

_ISSUE = "a user's run, reward-bench issue 253"
_REWARDS = "by its rewards: the subsets but Ties are what its comparisons give, Ties and mean are not"
_SKYWORK = {**SCALAR, "note": _REWARDS}


def _mean(model: str, value: str, source: str, **more: str) -> PublishedRow:
    return published_row(COLUMNS[-1:], model, value, source, **more)


PUBLISHED = (
    _mean("Skywork-Reward-V2-Qwen3-1.7B", "68.3", _ISSUE, **_SKYWORK),
    published_row(COLUMNS, "Skywork-Reward-V2-Qwen3-0.6B", "58.2 40 71.6 84.4 79.4 34 61.3", _ISSUE, **_SKYWORK),
    # Four answers at once or ratings, and which of these, is not said.
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
        orders="one prompt of four answers, the right one at a random place", rule="a quarter; in Ties a rating of -1"
    ),
    published=PUBLISHED,
    unit="prompts",
    needs_media=False,
    official=OfficialScore(
        numbers,
        read,
        cluster=cluster,
        about="The mean of six subsets. Outside of Ties a prompt is right if the right answer wins its three "
        "comparisons, and scores 1/4 if it loses none but one cannot be read. In Ties each answer is rated by the "
        "share of its verdicts that it won; the official score takes ratings that the judge gives, or rewards, so "
        "this is our reading for judges of pairs.",
    ),
    notes=(
        "Focus of RewardBench 2 goes by length: its shortest answer is the right one in 52.7 % of the prompts "
        "(reward-bench issue 268).",
        "The official run shows four answers at once, or rates them; a run here compares two at a time, so its numbers "
        "can be set beside each other but are not the leaderboard's.",
    ),
)
