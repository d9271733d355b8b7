"""All problems in the rows of a benchmark are reported at once, in plain words, before any row is judged."""

import json
from pathlib import Path
from typing import Any

import pytest
from official_rows import hub_row, mm_row, mrb_row, png, problems, told, vl_row, write, write_parquet

from r1_reward.bench.benchmarks import benchmark_names
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.records.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png())
    return tmp_path


def test_all_problems_are_reported_at_once(folder: Path) -> None:
    rows = [
        vl_row(1, prompt=None, rejected=" "),
        vl_row(2, image="b.png"),
        vl_row(3),
        vl_row(4, image=None),
        vl_row(5, image=7, chosen=5),
        ["no", "object"],
        vl_row(7, chosen="half of a \ud83d pair"),
        vl_row(8, id=8),
        vl_row(9, image={"bytes": None, "path": ["a.png"]}),
    ]
    file = write(folder / "data.jsonl", rows)
    with open(file, "a") as end:
        end.write('{"id": "10", "prom')
    assert problems("vl-rewardbench", file, allow_partial=True) == [
        ("line 1", "prompt", "is missing"),
        ("line 1", "rejected", "is blank"),
        ("line 2", "image", f"{folder / 'b.png'}: no such file"),
        ("line 4", "", "has neither an image nor a video"),
        ("line 5", "chosen", "must be text, not a number"),
        ("line 5", "image", "must be a path or an embedded image, not a number"),
        ("line 6", "", "is a list, not a JSON object"),
        ("line 7", "chosen", "contains a lone surrogate, which no text file can hold"),
        ("line 8", "id", "must be text, not a number"),
        ("line 9", "image", "must be a path or an embedded image, not an object"),
        ("line 10", "", "is not JSON: Unterminated string starting at column 14"),
    ]
    message = told("vl-rewardbench", file)
    assert message.startswith(f"{file}: 11 problems in 10 rows of VL-RewardBench\n")
    assert "\n  line 1, prompt: is missing\n" in message


def test_only_the_first_twenty_are_printed(folder: Path) -> None:
    file = write(folder / "data.jsonl", [vl_row(i, chosen="") for i in range(23)])
    message = told("vl-rewardbench", file)
    assert message.count("is blank") == 20 and "... and 3 more" in message
    assert len(problems("vl-rewardbench", file)) == 23


@pytest.mark.parametrize("ranking", [[1, 1], [1, 2], [0], [True, False], [0.0, 1.0], "[0, 1]", None, 0])
def test_wrong_rankings(folder: Path, ranking: Any) -> None:
    ((place, field, reason),) = problems(
        "vl-rewardbench", write(folder / "a.jsonl", [hub_row(vl_row(1), human_ranking=ranking)])
    )
    assert (place, field) == ("line 1", "human_ranking")
    assert reason == "is missing" if ranking is None else reason.startswith("must be [0, 1] or [1, 0], not ")


@pytest.mark.parametrize("better", ["output1", "A", 1, "Output3", None])
def test_wrong_preferred(folder: Path, better: Any) -> None:
    (problem,) = problems("multimodal-rewardbench", write(folder / "a.jsonl", [mrb_row(1, Better=better)]))
    assert problem[1] == "Better"
    assert problem[2] == ("is missing" if better is None else problem[2])
    assert better is None or problem[2].startswith('must be "Output1" or "Output2", not ')


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (["one"], ("response", "must be a list of two texts")),
        ("one and two", ("response", "must be a list of two texts")),
        (None, ("response", "is missing")),
        (["one", None], ("response[1]", "is missing")),
        (["\n", "two"], ("response[0]", "is blank")),
    ],
)
def test_wrong_responses(folder: Path, response: Any, problem: tuple[str, str]) -> None:
    file = write(folder / "a.jsonl", [hub_row(vl_row(1), response=response)])
    assert problems("vl-rewardbench", file) == [("line 1", *problem)]


def test_text_left_out_of_the_release(folder: Path) -> None:
    without = mrb_row(1)
    del without["Text"]
    (folder / "all_data_release.json").write_text(json.dumps([without, mrb_row(2, Text=""), mrb_row(3)]))
    found = problems("multimodal-rewardbench", folder / "all_data_release.json")
    assert [(place, field) for place, field, _ in found] == [("row 1", "Text"), ("row 2", "Text")]
    assert all("0_download_data.py" in reason and "all_data.json " in reason for _, _, reason in found)


def test_wrong_media(folder: Path) -> None:
    (folder / "mcq").mkdir()
    (folder / "mcq" / "a.png").write_bytes(png())
    (folder / "video" / "empty").mkdir(parents=True)
    (folder / "video" / "clip.mp4").touch()
    (folder / "mcq" / "empty.png").write_bytes(b"")
    rows = [
        mm_row(1, image=None),
        mm_row(2, video="video/empty"),
        mm_row(3, image=None, video="video/gone"),
        mm_row(4, image=None, video="video/empty"),
        mm_row(5, image=None, video="video/clip.mp4"),
        mm_row(6, image="a.png"),
        mm_row(7, image="mcq/empty.png"),
        mm_row(8, image=None, video=3),
        mm_row(9, image="/data/long/a.png"),
        mm_row(10, image="mcq"),
        mm_row(11),
    ]
    reasons = [
        (1, "", "has neither an image nor a video"),
        (2, "", "has both an image and a video"),
        (2, "video", "has no images"),
        (3, "video", "no such file"),
        (4, "video", "has no images"),
        (5, "video", "is empty (zero bytes)"),
        (6, "image", "contains no category"),
        (7, "image", "is empty (zero bytes)"),
        (8, "video", "must be text, not a number"),
        (9, "image", "is absolute"),
        (9, "image", "no such file"),
        (10, "image", "no such file"),
    ]
    found = problems("mm-rlhf-rewardbench", write(folder / "mm.jsonl", rows), allow_partial=True)
    assert [(place, field) for place, field, _ in found] == [(f"line {line}", field) for line, field, _ in reasons]
    for (_, _, told_reason), (_, _, words) in zip(found, reasons, strict=True):
        assert words in told_reason


def test_unknown_category_in_a_file(folder: Path) -> None:
    (problem,) = problems("multimodal-rewardbench", write(folder / "a.jsonl", [mrb_row(1, category="style")]))
    assert problem[1] == "Category" and "'style' is not a category of Multimodal RewardBench" in problem[2]


def test_nothing_to_judge(folder: Path) -> None:
    (folder / "empty.jsonl").write_text("\n\n")
    (folder / "empty.json").write_text("[]")
    for name in ("empty.jsonl", "empty.json"):
        assert "has no rows" in told("vl-rewardbench", folder / name, allow_partial=True)
    assert "did you mean vl-rewardbench?" in told("vl-rewardbnech", folder)
    assert f"choose from {', '.join(benchmark_names())}." in told("x", folder)


def test_file_that_changes_after_the_check(folder: Path) -> None:
    file = write(folder / "a.jsonl", [vl_row(1), vl_row(2)])
    suite = load_suite("vl-rewardbench", file, allow_partial=True)
    write(file, [vl_row(1)])
    with pytest.raises(UserError, match="had 2 rows when it was checked, but now has 1"):
        list(suite.rows())
    write(file, [vl_row(1), vl_row(2, chosen="")])
    with pytest.raises(SuiteFileError, match="line 2, chosen: is blank"):
        list(suite.rows())


def test_rows_of_another_benchmark(folder: Path) -> None:
    (problem,) = problems("multimodal-rewardbench", write(folder / "a.jsonl", [vl_row(1)]))
    assert problem[2].startswith("is not a row of Multimodal RewardBench: it has none of Text, Output1")
    assert problem[2].endswith("only id, prompt, chosen, rejected, image, chosen_reason, rejected_reason")
    assert "is not a row of VL-RewardBench" in told("vl-rewardbench", write(folder / "a.jsonl", [mrb_row(1)]))


def test_problems_in_a_folder_name_the_file(folder: Path) -> None:
    rows = [hub_row(vl_row(i)) for i in range(3)]
    for name, bad in (("test-1.parquet", 0), ("test-2.parquet", 2)):
        changed = [{**row, "query": " "} if i == bad else row for i, row in enumerate(rows)]
        write_parquet(folder / name, changed, "image", lambda _: None)
    message = told("vl-rewardbench", folder)
    assert message.startswith(f"{folder}: 2 problems in 6 rows of VL-RewardBench\n")
    assert f"{folder}/test-1.parquet, row 1, query: is blank" in message
    assert f"{folder}/test-2.parquet, row 3, query: is blank" in message
