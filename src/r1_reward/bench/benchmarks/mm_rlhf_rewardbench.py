"""MM-RLHF-RewardBench (arXiv 2502.10391): 170 pairs of 46 questions on images and videos.

mm_rlhf_category("long/31567.png")                   # "long"
"""

from __future__ import annotations

import re

from r1_reward.bench.benchmark import (
    PAPER,
    R1_REWARD,
    SCALAR,
    About,
    Benchmark,
    Column,
    Protocol,
    PublishedRow,
    Size,
    about_row,
    category_columns,
    published_row,
)
from r1_reward.bench.fields import Draft, Fields
from r1_reward.bench.six_benchmarks import six_benchmarks
from r1_reward.records.errors import UserError

CATEGORIES = ("mcq", "long", "short", "safety", "video")
COLUMNS = (
    *category_columns(CATEGORIES), Column("acc", "metric", "overall"), Column("acc+", "metric", "acc_plus"),
)  # fmt: skip

# ---- rows

_NO_PATH = (
    "is embedded without its path (mcq/..., long/...), which determines the category; "
    "use mm_reward_bench.jsonl and its image files instead"
)


def parse(row: Fields) -> Draft:
    """Parse chosen, rejected, and either an image or a video."""
    id, question, chosen, rejected = (row.text(name) for name in ("id", "prompt", "chosen", "rejected"))
    images = row.image("image")
    video = row.text("video") if row.data.get("video") not in (None, "") else None
    path, name = (images[0]["path"] or "", "image") if images else (video or "", "video")
    if images and not path:
        row.problems.append(("image", _NO_PATH))
    if images and video is not None:
        row.problems.append(("", "has both an image and a video, but must have exactly one"))
    return Draft(
        id, question, chosen, rejected, 1, row.category(name, mm_rlhf_category, path), images=images, video=video
    )


def mm_rlhf_category(path: str) -> str:
    """Return the category: the first of mcq, long, short, safety, video that occurs in the path.

    ``path`` is the released relative path of the image or of the folder of frames. Raises UserError if it contains
    none, or if it is absolute: a folder such as ``/home/long/`` would determine the category.
    """
    if re.match(r"[\\/]|[A-Za-z]:", path):
        raise UserError(f"{path!r} is absolute; it must be relative, as released, because it determines the category.")
    for name in CATEGORIES:
        if name in path:
            return name
    raise UserError(f"{path!r} contains no category of MM-RLHF-RewardBench ({', '.join(CATEGORIES)}).")


# ---- predictions


def about(row: Fields, id: str) -> About:
    """Return the information in a row of another project's predictions; the image path gives the category."""
    known = about_row(row, id)
    for name in ("image", "video"):
        path = row.data.get(name)
        if isinstance(path, str) and path:
            return known._replace(category=row.category(name, _category_of_path, path))
    return known


def _category_of_path(path: str) -> str:
    try:
        return mm_rlhf_category(path)
    except UserError as error:
        # The released script opens a video's folder by this path, so users do make it absolute.
        raise UserError(f"{str(error).rstrip('.')}; or pass the benchmark's rows with --data") from error


# ---- published rows


def _result(model: str, values: str, **more: str | int | None) -> PublishedRow:
    return published_row(COLUMNS, model, values, f"{PAPER}, results on mm-rlhf-rewardbench", **more)


PUBLISHED = (
    _result("MM-RLHF-Reward", "83 97 74 69 88 82 63", **SCALAR),
    _result("Claude-3.7-Sonnet", "66.67 91.89 91.18 87.50 76.00 82.35 65.22"),
    _result("R1-Reward", "80.95 89.19 82.35 75.00 72.00 80.59 54.35", **R1_REWARD, votes=1),
    _result("R1-Reward, voting@15", "83.33 97.30 91.18 78.12 80.00 86.47 67.39", **R1_REWARD, votes=15),
    *six_benchmarks(
        {"MM-RLHF-RewardBench": "acc"},
        {"R1-Reward": "80.59 in the R1-Reward paper, from a run with the preferred response first"},
    ),
)

BENCHMARK = Benchmark(
    name="mm-rlhf-rewardbench",
    title="MM-RLHF-RewardBench",
    parse=parse,
    marks=("prompt", "chosen", "rejected"),
    hub_id="yifanzhang114/MM-RLHF-RewardBench",
    hub_split="train",
    sizes=(
        Size(
            "170 pairs of 46 ids",
            170,
            {"mcq": 42, "long": 37, "short": 34, "safety": 32, "video": 25},
            ids={"mcq": 10, "long": 10, "short": 10, "safety": 6, "video": 10},
        ),
    ),
    categories=CATEGORIES,
    columns=COLUMNS,
    protocol=Protocol(orders="none, each answer is scored separately", rule="none, there is no text", frames=32),
    published=PUBLISHED,
    notes=("acc+ is the share of questions with all pairs right.",),
    about=about,
)
