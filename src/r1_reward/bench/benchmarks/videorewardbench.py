"""VideoRewardBench (arXiv 2509.00484): 1,563 pairs of answers to questions about videos, in five categories.

We found no published description of its columns. The names used here (:data:`COLUMNS_READ`) are our choice; map other
names with ``--columns``. Every report states the names that were used::

    r1-reward bench run videorewardbench --data test.jsonl --columns question=prompt --columns video=path \\
        --model MODEL --out RUN
"""

from __future__ import annotations

from r1_reward.bench.benchmark import (
    MACRO,
    NOT_STATED,
    OVERALL,
    SCALAR,
    Benchmark,
    Protocol,
    PublishedRow,
    Size,
    category_columns,
    published_row,
)
from r1_reward.bench.fields import Draft, Fields
from r1_reward.bench.six_benchmarks import six_benchmarks
from r1_reward.records.errors import UserError

CATEGORIES = ("long-form perception", "short-form perception", "knowledge", "reasoning", "safety")
COLUMNS = (*category_columns(CATEGORIES), OVERALL, MACRO)
COLUMNS_READ = {
    "id": "name of the row; by default the video's path",
    "category": "one of the five, in any spelling that contains long, short, knowledge, reasoning or safety",
    "video": "path of a video file or of a folder of frames",
    "question": "the question about the video",
    "chosen": "the preferred answer",
    "rejected": "the other answer",
}

# ---- rows


def parse(row: Fields) -> Draft:
    """Parse a question, its video, the preferred and the other answer."""
    video, question, chosen, rejected = (row.text(name) for name in ("video", "question", "chosen", "rejected"))
    id = row.data.get("id")
    name = str(id) if type(id) is int else row.text("id") if id is not None else video
    category = row.category("category", video_category, row.text("category"))
    return Draft(name, question, chosen, rejected, 1, category, video=video)


def video_category(text: str) -> str:
    """Return the category that a text contains; raises UserError unless there is exactly one."""
    words = [name.split("-")[0] for name in CATEGORIES]
    named = [name for word, name in zip(words, CATEGORIES, strict=True) if word in text.lower()]
    if len(named) != 1:
        raise UserError(
            f"{text!r} contains {len(named) or 'no'} categories of VideoRewardBench ({', '.join(CATEGORIES)})."
        )
    return named[0]


# ---- published rows

_TABLE = "VideoRewardBench, Table 4 (arXiv 2509.00484)"
_OTHER_PAPER = "arXiv 2604.10966 reports 61.2 for this judge, without stating what differs in the protocol"
_CRITIC = "the benchmark's own paper reports 57.1 for this judge"
_R1 = "the benchmark's own paper reports 39.0 for this judge, below chance in all categories"
_FRAMES = "with 64 frames, according to the paper's frame ablation, where one frame gives 52.0"


def _result(model: str, values: str, **more: str) -> PublishedRow:
    return published_row(COLUMNS[:-1], model, values, _TABLE, **more)


PUBLISHED = (
    _result("Gemini-2.5-Pro", "70.7 55.9 65.5 67.3 62.7 63.6"),
    _result("Claude-3.7-Sonnet", "65.0 48.4 63.4 58.3 82.9 63.2"),
    _result("LLaVA-Critic-72B", "72.4 43.8 55.9 56.5 88.0 63.0", note=_FRAMES),
    _result("Skywork-VL-Reward", "65.7 49.2 52.9 54.0 80.1 60.5", **SCALAR),
    _result("LLaVA-Video-72B", "68.6 41.2 61.8 58.6 70.4 58.9"),
    _result("InternVL3-78B", "70.0 49.2 57.1 50.0 65.8 58.0"),
    _result("LLaVA-Critic-7B", "68.2 46.5 50.0 42.1 77.5 57.1"),
    _result("GPT-4o", "63.3 50.8 58.8 57.9 57.3 57.0"),
    _result("UnifiedReward", "67.1 48.2 50.4 45.3 71.2 56.6"),
    _result("Gemini-2.5-Flash", "61.8 53.0 56.7 49.6 55.0 55.0"),
    _result("Qwen2.5-VL-7B", "56.2 37.5 53.8 46.8 80.1 54.6"),
    _result("GPT-4o-mini", "74.6 47.2 58.8 52.9 44.7 54.4"),
    _result("UnifiedReward-Think", "59.7 53.3 50.0 52.9 55.6 54.4"),
    _result("IXC-2.5-Reward", "73.5 51.3 56.3 52.2 38.7 53.4", **SCALAR),
    _result("Qwen2.5-VL-72B", "68.9 48.4 56.7 52.5 44.7 53.3"),
    _result("MM-RLHF-Reward", "59.4 37.0 44.1 52.2 65.2 51.2", **SCALAR),
    _result("R1-Reward", "36.0 40.0 37.8 30.6 47.9 39.0", note=_OTHER_PAPER),
    _result("Flex-Judge", "35.0 35.1 37.0 37.1 30.2 34.6"),
    *six_benchmarks({"VideoRewardBench": "overall"}, {"R1-Reward": _R1, "LLaVA-Critic-7B": _CRITIC}),
)

BENCHMARK = Benchmark(
    name="videorewardbench",
    title="VideoRewardBench",
    parse=parse,
    own=lambda row: isinstance(row.get("video"), str) and isinstance(row.get("category"), str),
    marks=("question", "chosen", "rejected", "video"),
    hub_id="Dragonriser/VideoRewardBench",
    sizes=(
        Size(
            "release of 2025 (1,563 rows)",
            1563,
            dict(zip(CATEGORIES, (283, 413, 238, 278, 351), strict=True)),
        ),
    ),
    categories=CATEGORIES,
    columns=COLUMNS,
    protocol=Protocol(orders=NOT_STATED, rule=NOT_STATED, votes=None),
    published=PUBLISHED,
    mapping=COLUMNS_READ,
    notes=(
        "The published overall of VideoRewardBench is over all rows (micro), as its categories imply. We found no "
        "published description of orders, frames or unreadable verdicts.",
        "arXiv 2604.10966 does not state whether its one number is the overall or the macro.",
    ),
)
