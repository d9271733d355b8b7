"""Benchmark rows among training rows: found by text or by image, without false positives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mixture_rows import cell, encoded, make_row, picture, reworded, sentence, write_folder

from r1_reward.bench.suites import load_suite
from r1_reward.data.contamination import BenchmarkIndex
from r1_reward.data.duplicates import ImageTable, normalise, sign
from r1_reward.data.mix_config import Benchmark, Contamination
from r1_reward.records.errors import UserError

ROWS = 6


def vl_rows(**changes: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"RLAIF-V-{number}", "prompt": sentence(f"bench q {number}", 10),
         "chosen": sentence(f"bench good {number}", 60), "rejected": sentence(f"bench bad {number}", 60),
         "image": f"img/{number}.png", **changes}
        for number in range(ROWS)
    ]  # fmt: skip


def write_vl(folder: Path, rows: list[dict[str, Any]] | None = None, *, pictures: bool = True) -> Benchmark:
    (folder / "img").mkdir(parents=True)
    for number in range(ROWS if pictures else 0):
        (folder / "img" / f"{number}.png").write_bytes(encoded(picture(1000 + number, (200, 150))))
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows or vl_rows()))
    return Benchmark(suite="vl-rewardbench", path=str(file), allow_partial=True)


def ask(index: BenchmarkIndex, *texts: str) -> Any:
    """What index.match_texts says about question, response 1, response 2."""
    return index.match_texts(np.array([sign(text) for text in texts]), [len(normalise(text)) for text in texts])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkIndex:
    return BenchmarkIndex([write_vl(tmp_path_factory.mktemp("vl") / "vl")], Contamination(), load_suite)


def test_a_benchmarks_text_is_found_at_any_position_and_with_small_changes(index: BenchmarkIndex) -> None:
    row, other = vl_rows()[3], sentence("mine", 60)
    for texts in (
        (row["prompt"], row["chosen"], row["rejected"]),
        (row["prompt"], other, row["rejected"]),
        (row["prompt"].upper(), row["chosen"].replace(" ", "\n"), other),
        (reworded(row["prompt"]), other, reworded(row["chosen"], 2)),
    ):
        match = ask(index, *texts)
        assert match is not None
        assert match.place == "vl-rewardbench, row 3 (id RLAIF-V-3)"
        assert 0.8 <= match.similarity <= 1.0
    assert str(ask(index, row["prompt"], row["chosen"], other)).endswith("similarity 1.00")


def test_other_texts_are_not_found(index: BenchmarkIndex) -> None:
    row, other = vl_rows()[3], [sentence("x", 60), sentence("y", 60)]
    assert ask(index, row["prompt"], *other) is None, "a shared question is not a copy"
    assert ask(index, sentence("q", 10), *other) is None
    assert ask(index, row["prompt"], reworded(row["chosen"], 30), other[0]) is None


def test_a_long_shared_question_with_another_answer_is_not_a_copy(tmp_path: Path) -> None:
    template = sentence("template", 150)
    rows = vl_rows(prompt=template, chosen="The answer is A.", rejected="B")
    index = BenchmarkIndex([write_vl(tmp_path / "vl", rows)], Contamination(), load_suite)
    assert ask(index, template, "The answer is A.", "no") is not None
    assert ask(index, template, "It must be forty-two, I think.", "no") is None


def test_short_texts_are_ignored(tmp_path: Path) -> None:
    rows = vl_rows(prompt="Is there a dog?", chosen="Yes, there is.", rejected="No.")
    benchmark = write_vl(tmp_path / "vl", rows)
    texts = ("Is there a dog?", "Yes, there is.", "No.")
    assert ask(BenchmarkIndex([benchmark], Contamination(), load_suite), *texts) is None
    assert ask(BenchmarkIndex([benchmark], Contamination(min_characters=20), load_suite), *texts) is not None


def test_reencoded_and_resized_pictures_are_found_and_others_are_not(index: BenchmarkIndex) -> None:
    table = ImageTable()
    copies = [picture(1002, (200, 150)), picture(1002, (200, 150)).resize((120, 90)), picture(1004, (200, 150))]
    table.add([encoded(image, "JPEG", quality=70 - 10 * place) for place, image in enumerate(copies)])
    table.add([encoded(picture(seed)) for seed in range(30)])
    table.add([b"no picture"])
    matches = index.match_images(table)
    assert {number: match.place for number, match in matches.items()} == {
        0: "vl-rewardbench, row 2 (id RLAIF-V-2)",
        1: "vl-rewardbench, row 2 (id RLAIF-V-2)",
        2: "vl-rewardbench, row 4 (id RLAIF-V-4)",
    }
    assert all(1 - 40 / 256 <= match.similarity <= 1 for match in matches.values())


def test_the_nearest_picture_is_named(tmp_path: Path) -> None:
    benchmark = write_vl(tmp_path / "vl")
    near = encoded(picture(1005, (200, 150)), "JPEG", quality=12)
    (tmp_path / "vl" / "img" / "1.png").write_bytes(near)
    table = ImageTable()
    table.add([near, encoded(picture(1005, (200, 150)))])
    assert len(set(table.clusters(bits=40))) == 1, "both are near both"
    matches = BenchmarkIndex([benchmark], Contamination(), load_suite).match_images(table)
    assert [match.place for match in matches.values()] == [
        "vl-rewardbench, row 1 (id RLAIF-V-1)",
        "vl-rewardbench, row 5 (id RLAIF-V-5)",
    ]
    assert [match.similarity for match in matches.values()] == [1.0, 1.0]


def test_the_compared_benchmarks_are_described(index: BenchmarkIndex, tmp_path: Path) -> None:
    (one,) = index.described
    assert (one["suite"], one["rows"], one["pictures"]) == ("vl-rewardbench", ROWS, ROWS)
    assert "Not the official rows" in one["notes"][0]
    bare = write_vl(tmp_path / "vl", pictures=False).model_copy(update={"images": False})
    texts_only = BenchmarkIndex([bare], Contamination(), load_suite)
    assert texts_only.described[0]["pictures"] == 0
    assert "not images" in texts_only.described[0]["notes"][0]
    assert ask(texts_only, *list(vl_rows()[0].values())[1:4]) is not None
    table = ImageTable()
    table.add([encoded(picture(1000, (200, 150)))])
    assert texts_only.match_images(table) == {}


def test_an_incomplete_benchmark_is_refused_unless_partial_is_allowed(tmp_path: Path) -> None:
    benchmark = write_vl(tmp_path / "vl")
    with pytest.raises(UserError, match="1,250 or 1,247 rows, but 6 were found"):
        BenchmarkIndex([benchmark.model_copy(update={"allow_partial": False})], Contamination(), load_suite)
    (tmp_path / "vl" / "img" / "2.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"row 2 \(id RLAIF-V-2\).*Set `images: false` to compare only the texts"):
        BenchmarkIndex([benchmark], Contamination(), load_suite)
    (tmp_path / "vl" / "img" / "2.png").unlink()
    with pytest.raises(UserError, match="no such file"):
        BenchmarkIndex([benchmark], Contamination(), load_suite)


def test_a_pair_file_can_be_a_benchmark_and_several_can_be_given(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "held-out", [make_row(number, images=[cell(70 + number)]) for number in range(3)])
    index = BenchmarkIndex(
        [write_vl(tmp_path / "vl"), Benchmark(suite="pairs", path=folder)], Contamination(), load_suite
    )
    row = make_row(1)
    assert ask(index, row["question"], row["response_1"], "x").place == "pairs, row 1 (id one:1)"
    assert ask(index, *list(vl_rows()[5].values())[1:4]).place == "vl-rewardbench, row 5 (id RLAIF-V-5)"
    table = ImageTable()
    table.add([encoded(picture(72), "JPEG")])
    assert index.match_images(table)[0].place == "pairs, row 2 (id one:2)"


def test_a_video_counts_by_its_middle_frame(tmp_path: Path) -> None:
    (tmp_path / "video" / "v").mkdir(parents=True)
    for number in range(5):
        (tmp_path / "video" / "v" / f"frame_{number}.png").write_bytes(encoded(picture(500 + number)))
    row = {"id": "v", "video": "video/v", "prompt": "q", "chosen": "a", "rejected": "b"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    benchmark = Benchmark(suite="mm-rlhf-rewardbench", path=str(tmp_path / "rows.jsonl"), allow_partial=True)
    table = ImageTable()
    table.add([encoded(picture(500 + number)) for number in range(5)])
    assert list(BenchmarkIndex([benchmark], Contamination(), load_suite).match_images(table)) == [2]
