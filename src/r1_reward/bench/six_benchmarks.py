"""The table of arXiv 2604.10966: sixteen judges on six benchmarks, with one number each.

published = six_benchmarks("VideoRewardBench", "overall", notes={"R1-Reward": "..."})

The paper says that each benchmark uses its official protocol. It does not state orders, votes, frames, how unreadable
verdicts count, or which number of a benchmark it reports. Its rows are not uniform, either: several cells are taken
from other papers with different protocols.
"""

from __future__ import annotations

from collections.abc import Mapping

from r1_reward.bench.benchmark import NOT_STATED, PublishedRow

SOURCE = "arXiv 2604.10966, README of yinuoyang01/multi-response-rm (April 2026)"
BENCHMARKS = (
    "VL-RewardBench", "Multimodal RewardBench", "MM-RLHF-RewardBench", "MR²Bench image", "VideoRewardBench",
    "MR²Bench video",
)  # fmt: skip
TABLE = {
    "GPT-5": "75.0 64.6 71.8 87.1 68.2 50.1",
    "Claude-Sonnet-4.5": "68.6 78.2 70.0 72.9 67.5 49.1",
    "Gemini-2.5-Pro": "70.5 82.4 70.6 71.2 63.2 49.7",
    "InternVL3-8B": "56.6 66.9 69.4 55.4 57.9 40.4",
    "Qwen2.5-VL-7B": "66.7 62.6 77.6 52.5 55.3 44.4",
    "Qwen3-VL-4B": "61.4 65.9 80.0 60.8 64.9 47.9",
    "Qwen3-VL-32B": "67.1 79.0 78.8 60.8 65.8 49.9",
    "Molmo2-4B": "59.6 61.8 73.5 61.7 58.2 43.2",
    "InternVL3-78B": "61.9 75.7 81.8 65.0 58.5 47.7",
    "R1-Reward": "71.4 82.2 80.6 58.8 61.2 44.9",
    "MM-RLHF-Reward": "51.0 67.1 85.0 45.0 52.2 36.6",
    "LLaVA-Critic-7B": "44.0 62.2 77.6 56.3 14.7 40.2",
    "Skywork-VL-Reward": "69.0 74.2 72.4 52.9 62.9 46.7",
    "IXC-2.5-Reward": "70.0 66.6 71.2 55.0 57.1 48.7",
    "MR2-Molmo2-4B": "82.2 73.2 92.4 62.5 66.3 50.7",
    "MR2-Qwen3-VL-4B": "63.3 71.2 84.7 58.8 64.9 47.5",
}


def six_benchmarks(headings: Mapping[str, str], notes: Mapping[str, str] | None = None) -> tuple[PublishedRow, ...]:
    """Return the table's rows for some of its benchmarks.

    ``headings`` maps entries of :data:`BENCHMARKS` to column headings of the benchmark's own table; ``notes`` are by
    model.
    """
    rows = []
    for model, line in TABLE.items():
        printed = dict(zip(BENCHMARKS, line.split(), strict=True))
        values = {heading: printed[name] for name, heading in headings.items()}
        rows.append(PublishedRow(model, values, SOURCE, grouping=NOT_STATED, note=(notes or {}).get(model, "")))
    return tuple(rows)
