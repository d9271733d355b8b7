"""MR²Bench (arXiv 2604.10966): questions about an image or a video with four ranked answers.

Its score is how often the judge's first choice is a best answer. For a pairwise judge, each best answer is compared
with each other answer, and a group is right if a best answer wins all its comparisons. The official script is not
published; this is our interpretation of the score for pairs. A judge without a verdict, or with contradictory verdicts,
has no first choice and is wrong.

The names of columns and files are not published, either. Those of the repository's training files are the default
(:data:`COLUMNS_READ`); map other names with ``--columns``. Every report states the names that were used::

    r1-reward bench run mr2bench --data FOLDER --model MODEL --out RUN       # image.json and video.json, or one of them
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import NamedTuple

from r1_reward.bench.benchmark import (
    NOT_STATED,
    Benchmark,
    Cluster,
    OfficialScore,
    Protocol,
    Size,
    official_columns,
)
from r1_reward.bench.fields import Draft, Fields, short
from r1_reward.bench.readers import open_tasks
from r1_reward.bench.rows import won
from r1_reward.bench.six_benchmarks import six_benchmarks

TASKS = ("image", "video")
COLUMNS = official_columns(TASKS)
ANSWERS = 4
COLUMNS_READ = {
    "id": "name of the group; by default a hash of its content",
    "prompt": "the question",
    "responses": "the four answers",
    "rankings": "the rank of each answer: 1 is best, equal ranks are ties",
    "image": "the image, in the task image",
    "video": "a video file or a folder of frames, in the task video",
}

# ---- rows


def parse(row: Fields) -> list[Draft]:
    """Return the comparisons of a group: each best answer with each other answer, in file order."""
    question, answers, ranks = row.text("prompt"), row.list_of_texts("responses"), _ranks(row)
    task = str(row.data.get("task") or "")
    images = row.image("image") if task != "video" else ()
    video = row.text("video") if task == "video" else None
    if row.problems:
        return []
    media = [images[0]["path"] or hashlib.sha256(images[0]["bytes"] or b"").hexdigest()] if images else [video]
    content = json.dumps([question, answers, media])
    id = row.data.get("id")
    name = hashlib.sha256(content.encode()).hexdigest()[:16] if id is None else str(id)
    best = [place for place, rank in enumerate(ranks) if rank == 1]
    return [
        Draft(
            name, question, answers[i], answers[j], 1 if i in best else 2, task,
            images=images, video=video, members=(i, j),
        )
        for i in range(ANSWERS) for j in range(i + 1, ANSWERS) if (i in best) != (j in best)
    ]  # fmt: skip


def _ranks(row: Fields) -> list[int]:
    """Return the four ranks, or record what is wrong with them or with the number of answers."""
    answers, ranks = row.data.get("responses"), row.data.get("rankings")
    if isinstance(answers, list) and answers and len(answers) != ANSWERS:
        row.problems.append(("responses", f"has {len(answers)} answers instead of {ANSWERS}"))
    fault = None
    if not isinstance(ranks, list) or not all(type(rank) is int and rank > 0 for rank in ranks):
        fault = "is missing" if ranks is None else f"must be a list of positive integers, not {short(ranks)}"
    elif isinstance(answers, list) and len(ranks) != len(answers):
        fault = f"has {len(ranks)} ranks for {len(answers)} answers"
    elif 1 not in ranks:
        fault = f"has no best answer (rank 1): {short(ranks)}"
    elif set(ranks) == {1}:
        fault = "ranks all answers best, so no answer can be wrong"
    if fault is None:
        return list(ranks or ())
    row.problems.append(("rankings", fault))
    return []


# ---- score


class Group(NamedTuple):
    """The result of one group."""

    task: str
    right: float
    """Share of the passes in which a best answer won all its comparisons."""


def read(comparisons: Cluster) -> Group:
    """Return how often a best answer beats all other answers; a comparison that was not judged counts as lost."""
    wins: defaultdict[int, list[tuple[bool, ...]]] = defaultdict(list)
    for one in comparisons:
        wins[one.sides[0]].append(tuple(won(votes, one.preferred) is True for votes in one.passes))
    passes = range(len(comparisons[0].passes))
    right = [
        any(len(own) == ANSWERS - len(wins) and all(win[number] for win in own) for own in wins.values())
        for number in passes
    ]
    return Group(comparisons[0].category or "", fmean(right))


def numbers(groups: Sequence[Group]) -> dict[str, float | None]:
    """Return the share of right groups in each task and overall; None for a task that was not judged."""
    tasks = {task: [group.right for group in groups if group.task == task] for task in TASKS}
    known = {task: fmean(right) if right else None for task, right in tasks.items()}
    return {**known, "all groups": fmean(group.right for group in groups) if groups else None}


# ---- the benchmark

BENCHMARK = Benchmark(
    name="mr2bench",
    title="MR²Bench",
    parse=parse,
    own=lambda row: isinstance(row.get("responses"), list) and len(row["responses"]) == ANSWERS,
    marks=("rankings", "responses"),
    hub_id="yinuoy/MR2Bench",
    open=partial(open_tasks, tasks={task: (task,) for task in TASKS}),
    # All published values of the task image are k/240. The number of videos was not published.
    sizes=(
        Size("release of 2026 (240 groups of images, videos unknown)", None, {"image": 240, "video": None}, apart=True),
    ),
    categories=TASKS,
    columns=COLUMNS,
    headline=TASKS,
    protocol=Protocol(orders=NOT_STATED, rule=NOT_STATED, votes=None),
    published=six_benchmarks({"MR²Bench image": "image", "MR²Bench video": "video"}),
    unit="groups",
    mapping=COLUMNS_READ,
    official=OfficialScore(
        numbers,
        read,
        about="Share of the groups of four in which a best answer wins against all answers that are not best; an "
        "unreadable verdict is not a win. Each group is judged once in each order, and the passes are averaged. "
        "Random verdicts win 1/8 of the groups with one best answer. The official script is not published: this is "
        "our interpretation for pairwise judges.",
    ),
    notes=(
        "MR²Bench: in the paper, judges chose one of four answers; here they compare pairs, and the best answer must "
        "win all of its comparisons.",
        "The number of its videos was not published, so missing videos cannot be detected.",
    ),
)
