"""MR²Bench (arXiv 2604.10966): questions about a picture or a video with four ranked answers.

Its score is how often the judge's first choice is a best answer. A judge of pairs is asked about each best answer
against each that is not, and a group is right if a best answer wins all its comparisons: then the judge prefers it to
everything it could have lost to. The official script is not published; that is how we read the score for pairs, and a
judge that can name no winner, or contradicts itself, has no first choice and is wrong.

Nor are the names of columns and files published. Those of the repository's training files are the default
(:data:`COLUMNS_READ`); ``--columns`` says what the file calls them, and every report repeats which were read::

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
    "id": "name of the group; groups without one are named by what they hold",
    "prompt": "the question",
    "responses": "the four answers",
    "rankings": "the rank of each answer, 1 the best, equal ranks for ties",
    "image": "the picture, of the task image",
    "video": "a file or a folder of frames, of the task video",
}

# ---- rows


def parse(row: Fields) -> list[Draft]:
    """Return the comparisons of a group: each best answer with each that is not, in the order of the file."""
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
    """Return the four ranks, or note what is wrong with them or with the number of answers."""
    answers, ranks = row.data.get("responses"), row.data.get("rankings")
    if isinstance(answers, list) and answers and len(answers) != ANSWERS:
        row.problems.append(("responses", f"has {len(answers)} answers; {ANSWERS} are ranked"))
    fault = None
    if not isinstance(ranks, list) or not all(type(rank) is int and rank > 0 for rank in ranks):
        fault = "is missing" if ranks is None else f"must be a list of ranks from 1 on, not {short(ranks)}"
    elif isinstance(answers, list) and len(ranks) != len(answers):
        fault = f"has {len(ranks)} ranks for {len(answers)} answers"
    elif 1 not in ranks:
        fault = f"names no best answer (rank 1): {short(ranks)}"
    elif set(ranks) == {1}:
        fault = "calls all answers the best, so nothing can be wrong"
    if fault is None:
        return list(ranks or ())
    row.problems.append(("rankings", fault))
    return []


# ---- score


class Group(NamedTuple):
    """What came of one group."""

    task: str
    right: float
    """Share of the passes in which a best answer won all its comparisons."""


def read(comparisons: Cluster) -> Group:
    """Return whether a best answer beats every other answer; a comparison that was not judged is not won."""
    wins: defaultdict[int, list[tuple[bool, ...]]] = defaultdict(list)
    for one in comparisons:
        wins[one.sides[0]].append(tuple(won(votes) is True for votes in one.passes))
    passes = range(len(comparisons[0].passes))
    right = [
        any(len(own) == ANSWERS - len(wins) and all(win[number] for win in own) for own in wins.values())
        for number in passes
    ]
    return Group(comparisons[0].category or "", fmean(right))


def numbers(groups: Sequence[Group]) -> dict[str, float | None]:
    """Return the share of right groups of each task, and of both together; None for a task that was not judged."""
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
    # All printed values of the task image are k/240. How many videos there are was not published.
    sizes=(
        Size(
            "release of 2026 (240 groups of images, videos uncounted)", None, {"image": 240, "video": None}, apart=True
        ),
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
        cluster=lambda one: f"{one.category} {one.id}",
        about="Share of the groups of four in which a best answer wins its comparisons with all that are not; a "
        "verdict that cannot be read wins nothing. A group is judged once in each order, and the passes are "
        "averaged. A coin wins 1/8 of the groups with one best answer. The official script is not published: this "
        "is our reading of it for judges of pairs.",
    ),
    notes=(
        "MR²Bench: the judges of its paper chose one answer of four; ours are asked about pairs, and the best answer "
        "has to win all of its own.",
        "The number of its videos was not published, so a folder without some of them cannot be told from a whole one.",
    ),
)
