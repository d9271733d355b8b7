"""Made-up prediction files in the three formats, and what the scripts of their authors make of them, written anew."""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from official_rows import Row, mrb_official, vl_official

VL_RULES = {
    "official": {"hallucination": ("RLAIF", "RLHF", "hallucination"), "reasoning": ("mathverse", "mmmu")},
    "paper": {"reasoning": ("mmmu", "mathverse"), "hallucination": ("hallucination", "rlhf", "rlaif")},
}
MM_KEYWORDS = ("mcq", "long", "short", "safety", "video")


def verdicts(rows: list[Row], right: float, seed: int = 5) -> list[Row]:
    """Benchmark rows with what the released scripts add: rewards, the judge's text, and the prompt."""
    draw = random.Random(seed)
    return [
        {
            **row,
            "qs": "Which?",
            "rewards": [1, 0] if draw.random() < right else [0, 1],
            "critic": "é" * draw.randrange(9),
        }
        for row in rows
    ]


def bare(rows: list[Row], name: str = "id") -> list[Row]:
    return [{name: row[name], "rewards": row["rewards"]} for row in rows]


def vl_r1(right: float = 0.7, seed: int = 5) -> list[Row]:
    return verdicts(vl_official(), right, seed)


def mm_r1(right: float = 0.8, seed: int = 5) -> list[Row]:
    """170 pairs of 46 ids, as released."""
    sizes = {"mcq": [5, 5] + [4] * 8, "long": [4] * 7 + [3] * 3, "short": [4] * 4 + [3] * 6,
             "safety": [6, 6, 5, 5, 5, 5], "video": [3] * 5 + [2] * 5}  # fmt: skip
    rows = [
        {
            "id": f"{number}/{category}",
            **({"video": f"video/{number}"} if category == "video" else {"image": f"{category}/{number}.png"}),
            "prompt": "Which?",
            "chosen": "c" * (1 + number % 3),
            "rejected": "r" * 2,
        }
        for category, counts in sizes.items()
        for number, count in enumerate(counts)
        for _ in range(count)
    ]
    return verdicts(rows, right, seed)


def mrb_outputs(seed: int = 5, samples: int = 1) -> list[Row]:
    """Rows of Multimodal RewardBench's own script, a fifth of them without a verdict."""
    draw = random.Random(seed)
    texts = ["So: [[A]]", "So: [[B]]", "both [[B]] and [[A]]", "None", "A [A] is better"]
    weights = [4, 3, 1, 1, 1]
    rows = []
    for row in mrb_official():
        outputs = draw.choices(texts, weights, k=samples)
        said = {"output": outputs[0]} if samples == 1 else {"outputs": outputs}
        label = "B" if row["Better"] == "Output2" else "A"
        rows.append({"ID": row["ID"], "Text": "judge", "Image": "a.png", "Label": label, "Meta": row, **said})
    return rows


def mrb_r1(right: float = 0.75, seed: int = 5) -> list[Row]:
    return verdicts(mrb_official(), right, seed)


def vote(answer: int | None, swapped: bool = False, **changes: Any) -> Row:
    return {
        "answer": answer, "swapped": swapped, "probability": None, "tokens": 7, "truncated": False,
        "well_formed": True, "text": "four", **changes,
    }  # fmt: skip


def our_row(index: int = 0, **changes: Any) -> Row:
    return {
        "key": f"{index}-{index:016x}", "index": index, "id": f"id-{index}", "category": "general",
        "paper_category": "general", "preferred": 1, "issue": None, "longer": 1, "passes": [[vote(1)]], **changes,
    }  # fmt: skip


def write_lines(file: Path, rows: list[Any], end: str = "\n", **options: Any) -> Path:
    file.write_bytes("".join(json.dumps(row, **options) + end for row in rows).encode())
    return file


# ---- the scripts


def script_vl(rows: list[Row], grouping: str) -> tuple[dict[str, float], float, float]:
    """Accuracy by category, micro, macro: r1_reward's get_acc.py without its fault, or the official grouping."""
    right: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        name = "general"
        for candidate, marks in VL_RULES[grouping].items():
            found = any(row["id"].startswith(m) for m in marks) if grouping == "official" else any(
                m in row["id"] for m in marks
            )  # fmt: skip
            if found:
                name = candidate
                break
        right[name].append(row["rewards"][0] > row["rewards"][1])
    shares = {name: sum(values) / len(values) for name, values in right.items()}
    return shares, sum(map(sum, right.values())) / len(rows), sum(shares.values()) / len(shares)


def script_mm_rlhf(rows: list[Row]) -> tuple[dict[str, tuple[float, float, int]], float, float]:
    """Accuracy, ACC+ and pairs by category; accuracy; ACC+: MM-RLHF's get_acc.py."""
    by_id: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_id[row["id"]].append(row)

    def category(row: Row) -> str:
        path = row.get("image") or row.get("video")
        return next(word for word in MM_KEYWORDS if word in path)

    def right(row: Row) -> bool:
        return row["rewards"][0] > row["rewards"][1]

    found = {}
    for name in {category(row) for row in rows}:
        mine = [row for row in rows if category(row) == name]
        ids = {row["id"] for row in mine}
        whole = sum(all(right(row) for row in by_id[id]) for id in ids)
        found[name] = (sum(map(right, mine)) / len(mine), whole / len(ids), len(mine))
    whole = sum(all(map(right, group)) for group in by_id.values())
    return found, sum(map(right, rows)) / len(rows), whole / len(by_id)


def script_mrb_category(category: str, id: str) -> str:
    if category == "safety":
        return "safety/bias" if id.lower().startswith("pairs") else "safety/toxicity"
    if category == "reasoning":
        return "reasoning/math" if id.lower().startswith("math") else "reasoning/coding"
    return category


def script_mrb(rows: list[Row]) -> dict[str, float]:
    """Accuracy by category and ``all``: 2_get_accuracy.py, with its coin."""
    right: dict[str, list[int]] = defaultdict(list)
    random.seed(123)
    for row in rows:
        if "[[A]]" in row["output"]:
            verdict = "A"
        elif "[[B]]" in row["output"]:
            verdict = "B"
        else:
            verdict = "A" if random.random() < 0.5 else "B"
        for name in ("all", script_mrb_category(row["Meta"]["Category"], row["ID"])):
            right[name].append(int(verdict == row["Label"]))
    return {name: sum(values) / len(values) for name, values in right.items()}
