"""The images of a benchmark's row."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from r1_reward.bench.readers import open_pairs, row_images
from r1_reward.bench.rows import BenchmarkRow
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.judge.prepare import prepare
from r1_reward.records.content import text_of
from r1_reward.records.errors import UserError
from r1_reward.store.images import ImageError
from r1_reward.store.pairs import PairFileError, load_pairs, save_pairs


def make_frames(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for grey, name in enumerate(names):
        Image.new("L", (4, 4), grey).save(folder / name)
    return folder


def make_row(**media: Any) -> BenchmarkRow:
    return BenchmarkRow(
        index=5, id="some/id", question="?", response_1="a", response_2="b", preferred=1, category="video",
        content_hash="0" * 16, **media,
    )  # fmt: skip


def test_videos_without_frames(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"row 5 \(id some/id\): .*holds no images"):
        row_images(make_row(video=str(tmp_path / "empty")))


def test_pictures_of_a_row(tmp_path: Path) -> None:
    folder = make_frames(tmp_path / "v", [f"{i}.png" for i in range(12)])
    shown = row_images(make_row(video=str(folder)), frames=3)
    assert [(image.mode, image.getpixel((0, 0))) for image in shown] == [("RGB", (g, g, g)) for g in (0, 5, 11)]
    cells = ({"bytes": (folder / "7.png").read_bytes(), "path": "x"}, {"bytes": None, "path": str(folder / "2.png")})
    assert [image.getpixel((0, 0)) for image in row_images(make_row(images=cells))] == [(7, 7, 7), (2, 2, 2)]


def test_pictures_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture")
    cell = {"bytes": None, "path": str(tmp_path / "0.png")}
    for row in (make_row(video=str(tmp_path)), make_row(images=(cell,))):
        with pytest.raises(ImageError, match=r"row 5 \(id some/id\): .*0.png: is not an image") as caught:
            row_images(row)
        assert caught.value.reason.startswith("is not an image")


def write_pairs(folder: Path, *changes: dict[str, Any]) -> Path:
    make_frames(folder / "pictures", ["a.png", "b.png"])
    row = {
        "id": "7",
        "question": "Which digit?",
        "images": ["pictures/a.png"],
        "response_1": "A three.",
        "preferred": 1,
    }
    rows = [{**row, "response_2": "An eight.", **one} for one in changes]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder / "pairs.jsonl"


@pytest.mark.parametrize(
    "second",
    [
        {"id": "8"},
        {"preferred": 2},
        {"response_1": "An eight.", "response_2": "A three."},
        {"response_1": "A three.\u200b"},
    ],
)
def test_repeated_rows_are_judged_but_refused_for_training_with_advice(tmp_path: Path, second: dict[str, Any]) -> None:
    file = write_pairs(tmp_path, {}, {"question": "Else?"}, second)
    assert load_suite("pairs", file).n == 3
    assert len(list(open_pairs(file, "train").rows())) == 3
    with pytest.raises(PairFileError, match=r"line 3: (repeats|contradicts) line 1.*r1-reward data mix"):
        load_pairs(file)


def test_the_same_texts_about_another_picture_are_not_a_repeat(tmp_path: Path) -> None:
    file = write_pairs(tmp_path, {}, {"images": ["pictures/b.png"], "preferred": 2})
    assert len(load_pairs(file)) == 2


@pytest.mark.parametrize("rows", [[1, 2, 3], ["a"] * 500, [None] * 4])
def test_a_file_without_a_single_row_is_one_problem(tmp_path: Path, rows: list[Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(SuiteFileError) as caught:
        load_suite("vl-rewardbench", tmp_path / "a.json")
    (problem,) = caught.value.problems
    assert problem.reason.startswith(f"none of its {len(rows)} rows can be read; row 1 is ")


@pytest.mark.parametrize("text", ["\u200b", "\u00ad\u2060", "\ufeff "])
def test_an_answer_without_visible_characters_is_blank_in_every_benchmark(tmp_path: Path, text: str) -> None:
    row = {"id": "1", "prompt": "Which?", "chosen": "A three.", "rejected": text, "image": "a.png"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(SuiteFileError, match="line 1, rejected: is blank"):
        load_suite("vl-rewardbench", tmp_path / "a.jsonl", check_media=False)


def test_pairs_with_parts_ties_and_criteria_are_read_whole(tmp_path: Path) -> None:
    """From JSONL, from a moved copy of it, and from parquet: the same contents, and keys that no folder decides."""
    drawn = [{"type": "text", "text": "See "}, {"type": "image", "image": "pictures/b.png"}]
    asked = [{"type": "text", "text": "Like "}, {"type": "image"}, {"type": "text", "text": "?"}]
    changes = [
        {"preferred": 0},
        {"response_1": drawn, "criteria": "beauty"},
        {"question": asked, "response_1": "It is."},
    ]
    rows, keys = {}, {}
    for name in ("here", "moved"):
        (tmp_path / name).mkdir()
        file = write_pairs(tmp_path / name, *changes)
        suite = load_suite("pairs", file)
        assert (suite.n, suite.ties) == (3, 1)
        rows[name] = list(suite.rows())
        keys[name] = [row.key for row in rows[name]]
    assert keys["here"] == keys["moved"] and len(set(keys["here"])) == 3
    tie, picture, interleaved = rows["here"]
    assert (tie.preferred, tie.question, tie.criteria) == (0, "Which digit?", None)
    assert (text_of(picture.response_1), picture.criteria) == ("See [image]", "beauty")
    assert text_of(interleaved.question) == "Like [image]?" and interleaved.images == ()
    save_pairs(load_pairs(file, ties=True), tmp_path / "out" / "pairs.parquet")
    stored = list(load_suite("pairs", tmp_path / "out" / "pairs.parquet").rows())
    for one, other in zip(stored, rows["here"], strict=True):
        found, wanted = prepare(one.shown), prepare(other.shown)
        assert (found.question, found.images.digest, found.responses) == (
            wanted.question, wanted.images.digest, wanted.responses,
        )  # fmt: skip
