"""The made-up files of six benchmarks have the counts, columns and media that their sources state."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import official_files as made
import pyarrow.parquet as pq
import pytest
from official_files import edit_reward_bench, mr2_bench, omni_reward_bench, reward_bench_2, video_reward_bench
from official_mmrb2 import CHOSEN_A, SOURCES, always_a, mmrb2, mmrb2_built, mmrb2_pairs
from official_rows import Row
from PIL import Image


def omni_json(folder: Path, *, seed: int = 0, rows: int | None = None) -> Path:
    return omni_reward_bench(folder, seed=seed, rows=rows, form="json")


Writer = Callable[..., Path]
WRITERS: list[Writer] = [
    mmrb2, mmrb2_built, video_reward_bench, mr2_bench, omni_reward_bench, omni_json, edit_reward_bench, reward_bench_2,
]  # fmt: skip


def parquet(folder: Path) -> list[Row]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def lines(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.suffix != ".mp4"}


@pytest.mark.parametrize("write", WRITERS)
def test_a_seed_gives_the_same_files_and_another_one_others(write: Writer, tmp_path: Path) -> None:
    first, again, other = (write(tmp_path / name, seed=seed, rows=6) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert contents(first) == contents(again) != contents(other)


def test_mmrb2_on_the_hub(tmp_path: Path) -> None:
    folder = mmrb2(tmp_path)
    assert {task.name for task in folder.iterdir()} == {"t2i", "edit", "interleaved", "reasoning"}
    for task, sources in SOURCES.items():
        rows = parquet(folder / task)
        assert list(rows[0]) == [
            "pair_id", "prompt_text", "prompt_images", "response_a_text", "response_a_images", "response_b_text",
            "response_b_images", "chosen", "prompt_source", "response_a_model", "response_b_model",
            "human_annotations", "prompt_metadata",
        ]  # fmt: skip
        assert len({row["pair_id"] for row in rows}) == 1000
        assert Counter(row["chosen"].upper() for row in rows)["A"] == CHOSEN_A[task]
        assert {row["chosen"] for row in rows} == {"A", "B", "a", "b"}
        assert Counter(row["prompt_source"] for row in rows) == sources
        for row in rows:
            for name in ("prompt", "response_a", "response_b"):
                named = row[f"{name}_text"].count("<image_")
                assert named in (0, len(row[f"{name}_images"]))
                assert all(image["bytes"].startswith(b"\x89PNG") for image in row[f"{name}_images"])


def test_both_forms_of_mmrb2_hold_the_same_parts(tmp_path: Path) -> None:
    mmrb2(tmp_path, rows=40)
    for task in SOURCES:
        for row, pair in zip(parquet(tmp_path / task), mmrb2_pairs(task, rows=40), strict=True):
            parts = {"prompt": pair["prompt_content"]}
            parts |= {side: pair[side]["response_content"] for side in ("response_a", "response_b")}
            for name, content in parts.items():
                cut = re.split(r"(<image_\d+>)", row[f"{name}_text"])
                kinds = ["image" if text.startswith("<image_") else text.strip() for text in cut if text.strip()]
                kinds += ["image"] * (len(row[f"{name}_images"]) - kinds.count("image"))
                assert kinds == ["image" if kind == "image" else text for kind, text in content]
                paths = [Path(path).name for kind, path in content if kind == "image"]
                assert [image["path"] for image in row[f"{name}_images"]] == paths


def test_annotations_of_mmrb2_agree_with_its_labels() -> None:
    for task in ("t2i", "edit", "interleaved"):
        for pair in mmrb2_pairs(task):
            assert (sum(pair["human_annotations"]) / 3 > 3.5) == (pair["chosen"] == "A")
    rated = Counter(
        tuple(len(ratings) for ratings in pair["human_annotations"].values()) for pair in mmrb2_pairs("reasoning")
    )
    assert rated == {(0, 3): 373, (3, 0): 333, (3, 3): 294}


def test_mmrb2_as_built(tmp_path: Path) -> None:
    folder = mmrb2_built(tmp_path)
    shown = {}
    for task in SOURCES:
        pairs = json.loads((folder / f"{task}.json").read_text(encoding="utf-8"))["pairs"]
        assert pairs == mmrb2_pairs(task)
        for side in ("response_a", "response_b"):
            parts = [pair[side]["response_content"] for pair in pairs]
            shown[task, side] = Counter(sum(kind == "image" for kind, _ in content) for content in parts)
            paths = {value for content in parts for kind, value in content if kind == "image"}
            assert all(Image.open(folder / path).size == (2, 2) for path in paths)
    assert shown["edit", "response_a"] == {1: 999, 3: 1}
    assert shown["reasoning", "response_a"][0] == 491
    assert shown["reasoning", "response_b"][0] == 506
    assert max(shown["interleaved", "response_b"]) == 31
    pairs = mmrb2_pairs("edit", rows=2)
    assert always_a(pairs)[pairs[0]["id"]] == {
        "forward": [{"judgement": "A", "evaluator": "always A", "metadata": {}}],
        "reverse": [{"judgement": "B", "evaluator": "always A", "metadata": {}}],
    }


def test_video_reward_bench(tmp_path: Path) -> None:
    rows = lines(video_reward_bench(tmp_path) / "test.jsonl")
    assert len(rows) == 1563
    assert Counter(row["category"] for row in rows) == {
        "long-form perception": 283, "short-form perception": 413, "knowledge": 238, "reasoning": 278, "safety": 351,
    }  # fmt: skip
    videos = {row["video"] for row in rows}
    assert (len(videos), len({row["question"] for row in rows})) == (1482, 1559)
    assert all((tmp_path / video).stat().st_size > 0 for video in videos)
    assert len({row["id"] for row in rows}) == 1563


def test_mr2_bench(tmp_path: Path) -> None:
    mr2_bench(tmp_path)
    for task, count in (("image", 240), ("video", 748)):
        rows = json.loads((tmp_path / f"{task}.json").read_text(encoding="utf-8"))
        assert len(rows) == count
        for row in rows:
            assert len(row["responses"]) == len(row["rankings"]) == 4
            assert min(row["rankings"]) == 1
            assert (tmp_path / row[task]).exists()
        tops = Counter(row["rankings"].count(1) for row in rows)
        assert set(tops) == {1, 2, 3}
        assert {row["rankings"].index(1) for row in rows} == {0, 1, 2, 3}


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_omni_reward_bench(form: str, tmp_path: Path) -> None:
    omni_reward_bench(tmp_path, form=form)
    sizes = {
        "text_to_text": (417, 51), "text_image_to_text": (528, 98), "text_video_to_text": (443, 63),
        "text_to_image": (509, 68), "text_image_to_image": (229, 22),
    }  # fmt: skip
    for task, (count, ties) in sizes.items():
        file = tmp_path / f"{task}_preferences.json"
        rows = parquet(tmp_path / task) if form == "parquet" else json.loads(file.read_text(encoding="utf-8"))
        labels = Counter(row["criteria_preference"] for row in rows)
        assert (len(rows), labels["tie"], set(labels)) == (count, ties, {"response1", "response2", "tie"})
        criteria = Counter(row["id"] for row in rows)
        assert max(criteria.values()) == made.OMNI[task][3]
        assert count / len(criteria) == pytest.approx(made.OMNI[task][2], abs=0.05)
        for row in rows:
            for name in set(row) & {"image", "video", "response1", "response2"}:
                embedded = form == "parquet" and name in made.OMNI_MEDIA[task]
                path = row[f"{name}_path"] if embedded else row[name]
                if "/" in path:
                    content = (tmp_path / "media_data" / path).read_bytes()
                    assert not embedded or content == row[name]["bytes"]


def test_columns_of_omni_reward_bench(tmp_path: Path) -> None:
    omni_reward_bench(tmp_path, rows=3)
    common = ["response1", "response2", "model1", "model2", "criteria", "criteria_preference", "id"]
    columns = {task: list(parquet(tmp_path / task)[0]) for task in made.OMNI}
    assert columns == {
        "text_to_text": ["prompt", *common],
        "text_image_to_text": ["prompt", "image", *common, "image_path"],
        "text_video_to_text": ["prompt", "video", *common],
        "text_to_image": ["prompt", *common, "response1_path", "response2_path"],
        "text_image_to_image": ["prompt", "image", *common, "image_path", "response1_path", "response2_path"],
    }


def test_edit_reward_bench(tmp_path: Path) -> None:
    edit_reward_bench(tmp_path)
    for task, groups, files in (("2pair", 186, 1), ("3pair", 150, 2), ("4pair", 148, 4)):
        assert len(list((tmp_path / task).glob(f"train-*-of-{files:05}.parquet"))) == files
        rows = parquet(tmp_path / task)
        size = int(task[0])
        members = Counter(row["id"].split("_")[0] for row in rows)
        assert (len(members), set(members.values())) == (groups, {size * (size - 1) // 2})
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            assert (row["dataset"], row["num_candidates"]) == (task, size)
            first, second = row["comparison_type"].split("vs")
            better = (row["score_1"] > row["score_2"]) - (row["score_1"] < row["score_2"])
            assert row["ranking"] == {1: f"{first}>{second}", 0: f"{first}={second}", -1: f"{second}>{first}"}[better]
            shown = [row[name]["bytes"] for name in ("source_image", "candidate_1", "candidate_2")]
            assert len(set(shown)) == 3
        assert any("=" in row["ranking"] for row in rows) == (task == "2pair")


def test_reward_bench_2(tmp_path: Path) -> None:
    rows = parquet(reward_bench_2(tmp_path) / "data")
    assert Counter(row["subset"] for row in rows) == {
        "Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495, "Ties": 102,
    }  # fmt: skip
    assert list(rows[0]) == [
        "id", "prompt", "chosen", "rejected", "num_correct", "num_incorrect", "total_completions", "models", "subset",
        "additional_metadata",
    ]  # fmt: skip
    assert len({row["id"] for row in rows}) == len(rows) == 1865
    for row in rows:
        assert (row["num_correct"], row["num_incorrect"]) == (len(row["chosen"]), len(row["rejected"]))
        assert row["total_completions"] == len(row["models"]) == row["num_correct"] + row["num_incorrect"]
        if row["subset"] != "Ties":
            assert (row["num_correct"], row["num_incorrect"]) == (1, 3)
        else:
            assert (row["num_correct"] == 1) == row["id"].startswith("ref:")


def test_small_files_show_every_kind(tmp_path: Path) -> None:
    assert {pair["prompt_source"] for pair in mmrb2_pairs("edit", rows=6)} == set(SOURCES["edit"])
    rows = parquet(reward_bench_2(tmp_path / "text", rows=3) / "data")
    assert Counter(row["subset"] for row in rows) == {**dict.fromkeys(made.REWARD_BENCH_2, 3), "Ties": 4}
    edit_reward_bench(tmp_path / "edit", rows=3)
    assert {row["ranking"] for row in parquet(tmp_path / "edit" / "2pair")} == {"A=B", "A>B", "B>A"}
    assert len(parquet(tmp_path / "edit" / "4pair")) == 18
    omni_reward_bench(tmp_path / "omni", rows=3)
    for task in made.OMNI:
        assert len({row["criteria_preference"] for row in parquet(tmp_path / "omni" / task)}) == 3
    mr2_bench(tmp_path / "ranked", rows=3)
    ranked = json.loads((tmp_path / "ranked" / "image.json").read_text(encoding="utf-8"))
    assert [row["rankings"].count(1) for row in ranked] == [1, 2, 2]
    videos = video_reward_bench(tmp_path / "video", rows=2)
    assert len(lines(videos / "test.jsonl")) == len(list((videos / "videos").glob("*.mp4"))) == 10
