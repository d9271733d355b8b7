"""Made-up rows with the schemas, ids and numbers of the three benchmarks; no row of theirs is in this repository."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.records.errors import UserError

Row = dict[str, Any]

VL_SOURCES = [
    ("hallucination_pair-", 448), ("mathverse_", 167), ("mmmu_pro_test_Art_", 151), ("RLAIF-V-", 233), ("RLHF-V-", 68),
    ("svit-complex_reasoning-", 10), ("wildvision-battle-", 173),
]  # fmt: skip
MULTIMODAL_SOURCES = [
    ("open_generation/correctness_task", "nocaps_", 402), ("open_generation/correctness_task", "visitbench_", 221),
    ("open_generation/preference_task", "nocaps_p", 389), ("open_generation/preference_task", "visitbench_p", 265),
    ("knowledge", "mmmu-s_", 330), ("knowledge", "mmmu-v_", 300), ("reasoning", "mathvista_", 514),
    ("reasoning", "image2struct_", 300), ("reasoning", "EMMA-Coding_", 282), ("safety", "PAIRS_", 508),
    ("vqa", "MMBench_", 600), ("vqa", "SEED-Bench_", 600),
]  # fmt: skip
# Pairs of each id: 42 of 10 ids, 37 of 10, ...
MM_RLHF_IDS = {
    "mcq": [5, 5] + [4] * 8, "long": [4] * 7 + [3] * 3, "short": [4] * 4 + [3] * 6, "safety": [6, 6, 5, 5, 5, 5],
    "video": [3] * 5 + [2] * 5,
}  # fmt: skip


def png(grey: int = 9) -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2), grey).save(file, "PNG")
    return file.getvalue()


def vl_row(number: int, id: str | None = None, **changes: Any) -> Row:
    """As r1_reward released it."""
    row = {
        "id": id or f"wildvision-battle-{number}", "prompt": f"Question {number}?", "chosen": f"Right {number}.",
        "rejected": f"Wrong {number}.", "image": "a.png", "chosen_reason": "", "rejected_reason": "",
    }  # fmt: skip
    return {**row, **changes}


def hub_row(row: Row, turned: bool = False, **changes: Any) -> Row:
    """A released row of VL-RewardBench with the columns of the Hub."""
    responses = [row["chosen"], row["rejected"]]
    turn = -1 if turned else 1
    return {
        "id": row["id"], "query": row["prompt"], "response": responses[::turn], "image": row["image"],
        "human_ranking": [0, 1][::turn], "models": ["m", "n"], "judge": "human", "rationale": "",
        "query_source": "", "ground_truth": "", **changes,
    }  # fmt: skip


def mrb_row(number: int, id: str | None = None, category: str = "vqa", **changes: Any) -> Row:
    row = {
        "ID": id or f"MMBench_{number}", "Text": f"Question {number}?", "Image": "a.png", "Output1": f"One {number}.",
        "Output2": f"Two {number}.", "Better": f"Output{1 + number % 2}", "Category": category,
    }  # fmt: skip
    return {**row, **changes}


def mm_row(number: int, **changes: Any) -> Row:
    row = {
        "id": f"x/{number}.png_1", "image": "mcq/a.png", "prompt": f"Question {number}?", "chosen": f"Right {number}.",
        "rejected": f"Wrong {number}.", "chosen_reason": "Because.", "rejected_reason": "Because not.",
    }  # fmt: skip
    return {name: value for name, value in {**row, **changes}.items() if value is not None}


def vl_official() -> list[Row]:
    ids = [f"{prefix}{number}" for prefix, count in VL_SOURCES for number in range(count)]
    return [vl_row(number, id) for number, id in enumerate(ids)]


def mrb_official() -> list[Row]:
    rows = [(category, f"{prefix}{i}") for category, prefix, count in MULTIMODAL_SOURCES for i in range(count)]
    return [mrb_row(number, id, category) for number, (category, id) in enumerate(rows)]


def mm_official(folder: Path) -> list[Row]:
    rows = []
    for category, counts in MM_RLHF_IDS.items():
        (folder / category / "v").mkdir(parents=True)
        (folder / category / "v" / "frame_1.png").write_bytes(png())
        (folder / category / "a.png").write_bytes(png())
        media = {"video": "video/v", "image": None} if category == "video" else {"image": f"{category}/a.png"}
        for id, count in enumerate(counts):
            rows += [mm_row(len(rows) + i, id=f"{category}/{id}", **media) for i in range(count)]
    return rows


def write(file: Path, rows: list[Row]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_parquet(file: Path, rows: list[Row], image: str, path: Callable[[Row], str | None]) -> Path:
    """As the Hub does: an Image feature, with the bytes in the file."""
    cells = [{**row, image: {"bytes": png(), "path": path(row)}} for row in rows]
    pq.write_table(pa.Table.from_pylist(cells), file)
    return file


def told(name: str, file: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_suite(name, file, **options)
    return str(caught.value)


def problems(name: str, file: Path, **options: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(SuiteFileError) as caught:
        load_suite(name, file, **options)
    return [(problem.place, problem.field, problem.reason) for problem in caught.value.problems]
