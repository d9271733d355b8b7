"""The card of a folder: `datasets` loads the files it names, and somebody else's README.md is never replaced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from loaded import loaded
from PIL import Image
from source_rows import png

from r1_reward.bench.rows import BenchmarkRow
from r1_reward.bench.run import prediction_line
from r1_reward.records.schema import Judgment
from r1_reward.store.dataset_card import CARD, MARK, write_card
from r1_reward.store.prediction_file import COLUMNS, VOTE, write_predictions_card
from r1_reward.store.shards import PairWriter, read_rows

DEFAULT = {"default": {"train": "rows.jsonl"}}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a b").mkdir()
    return tmp_path / "a b"


def lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_other_files_beside_the_rows_do_not_clash(folder):
    lines(folder / "rows.jsonl", [{"id": "1", "n": 1}])
    lines(folder / "dropped.jsonl", [{"reason": "tie", "row": {"x": 1}}])
    (folder / "report.json").write_text('{"rows": 1}')
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images" / "1.png")
    assert write_card(folder, DEFAULT, "Rows", "Each row is a row.")
    assert loaded(folder)["train"][:] == {"id": ["1"], "n": [1]}


def test_splits_and_configurations(folder):
    lines(folder / "rows" / "train-0.jsonl", [{"id": "1"}])
    lines(folder / "rows" / "train-1.jsonl", [{"id": "2"}])
    lines(folder / "rows" / "test.jsonl", [{"id": "3"}])
    lines(folder / "other.jsonl", [{"words": ["x"]}])
    splits = {"train": "rows/train-*.jsonl", "test": "rows/test.jsonl"}
    write_card(folder, {"default": splits, "other": {"train": "other.jsonl"}}, "Rows", "Text.")
    found = loaded(folder)
    assert {split: rows["id"] for split, rows in found.items()} == {"train": ["1", "2"], "test": ["3"]}
    assert loaded(folder, "other")["train"]["words"] == [["x"]]


@pytest.mark.parametrize("name", ["a b", "it's", 'say "x"', "ünï", "100%"])
def test_names_of_folders(tmp_path, name):
    lines(tmp_path / name / "rows.jsonl", [{"id": "1"}])
    write_card(tmp_path / name, DEFAULT, name, "Text.")
    assert loaded(tmp_path / name)["train"]["id"] == ["1"]


@pytest.mark.parametrize("held", ["# Mine\n", "---\nlicense: mit\n---\n# Mine", "", "\xff"])
def test_a_readme_of_somebody_else_stays(folder, held):
    (folder / CARD).write_bytes(held.encode("latin-1"))
    assert not write_card(folder, DEFAULT, "Rows", "Text.")
    assert (folder / CARD).read_bytes() == held.encode("latin-1")


def test_our_own_card_is_replaced_until_somebody_makes_it_theirs(folder):
    write_card(folder, DEFAULT, "Rows", "Text.")
    write_card(folder, {"default": {"train": "new.jsonl"}}, "Rows [1]", "Text.")
    told = (folder / CARD).read_text()
    assert told.count(MARK) == told.count("configs:") == 1
    assert "new.jsonl" in told
    assert "# Rows \\[1\\]" in told
    (folder / CARD).write_text(told.replace(MARK, "Mine."))
    assert not write_card(folder, DEFAULT, "Rows", "Text.")
    assert "new.jsonl" in (folder / CARD).read_text()


def test_the_same_card_is_not_written_again(folder):
    write_card(folder, DEFAULT, "Rows", "Text.")
    before = (folder / CARD).stat().st_mtime_ns
    write_card(folder, DEFAULT, "Rows", "Text.")
    assert (folder / CARD).stat().st_mtime_ns == before


# ---- pair folders


@pytest.mark.parametrize("parts", [False, True])
def test_a_pair_folder_of_several_shards_loads_with_its_pictures(folder, parts):
    with PairWriter(folder / "pairs", rows_per_shard=2) as writer:
        for number in range(5):
            row = {"id": str(number), "question": "q", "response_1": "a", "response_2": "b", "preferred": 1}
            if parts and number == 3:
                row["response_1"] = [{"type": "image", "image": {"bytes": png(9), "path": None}}]
            writer.add(row | {"images": [{"bytes": png(number), "path": None}]})
        lines(writer.staging / "dropped.jsonl", [{"reason": "tie"}])
        writer.close({"kept": 5})
    rows = loaded(folder / "pairs")["train"]
    assert rows["id"] == ["0", "1", "2", "3", "4"]
    (folder / "4.png").write_bytes(png(4))
    assert rows[4]["images"][0].tobytes() == Image.open(folder / "4.png").tobytes()
    if parts:
        assert rows[3]["response_1"][0]["image"].mode == "RGB"
    assert len(list(read_rows(folder / "pairs"))) == 5


def test_overwriting_a_pair_folder_keeps_a_readme_of_somebody_else(folder):
    row = {"id": "1", "question": "q", "images": [], "response_1": "a", "response_2": "b", "preferred": 1}
    for answer in ("a", "other"):
        with PairWriter(folder / "pairs", overwrite=True) as writer:
            writer.add({**row, "response_1": answer})
        assert loaded(folder / "pairs")["train"]["response_1"] == [answer]
        assert [file.name for file in (folder / "pairs").glob("*.md")] == [CARD]
    card = (folder / "pairs" / CARD).read_text()
    (folder / "pairs" / CARD).write_text(card.replace(MARK, "My notes."))
    with PairWriter(folder / "pairs", overwrite=True) as writer:
        writer.add(row)
    assert "My notes." in (folder / "pairs" / CARD).read_text()


def test_the_folder_of_the_example_loads_and_not_as_one_of_images(folder):
    example = Path(__file__).parents[2] / "examples" / "photographs.py"
    subprocess.run([sys.executable, str(example), str(folder / "photographs")], check=True)
    rows = loaded(folder / "photographs")["train"]
    assert rows[0]["images"] == ["photographs/astronaut.jpg"]
    assert set(rows["preferred"]) == {1, 2}


# ---- predictions

VOTED = {"swapped": False, "text": "t", "well_formed": True, "tokens": 1}


def predictions(n, late):
    """Lines whose last few have fields that the first ones lack; they fill more than one block of a reader."""
    for index in range(n):
        vote = {**VOTED, "text": "t" * 2000, "answer": None, "truncated": False, "probability": None}
        line = {"key": f"{index}-x", "index": index, "id": "1", "category": "c", "preferred": 1}
        line |= {"paper_category": None, "issue": None, "longer": None, "passes": [[vote], [vote]]}
        if index >= n - 3:
            line |= late
        yield line


@pytest.mark.parametrize(
    "late",
    [
        {"issue": "mislabelled", "paper_category": "reasoning"}, {"longer": -1}, {"media": "sha256:1"},
        {"members": [0, 2]}, {"passes": [[{**VOTED, "answer": 2, "truncated": True, "probability": 0.25}]]},
    ],
    ids=lambda late: next(iter(late)),
)  # fmt: skip
def test_predictions_load_whatever_comes_late(folder, late):
    lines(folder / "predictions.jsonl", predictions(6000, late))
    assert (folder / "predictions.jsonl").stat().st_size > 20 << 20
    write_predictions_card(folder, {"train": "predictions.jsonl"})
    rows = loaded(folder)["train"]
    assert len(rows) == 6000
    for name, value in late.items():
        assert rows[5999][name] == value
    assert rows[0]["passes"][0][0]["answer"] is None


def test_the_columns_are_those_that_are_written():
    vote = Judgment(answer=1, **VOTED)
    row = BenchmarkRow(0, "1", "q", "a", "b", 1, "c", "x", members=(0, 1))
    line = prediction_line(row, [[vote]])
    assert set(line) | {"media"} == {column["name"] for column in COLUMNS}  # with_media() adds that one
    assert set(line["passes"][0][0]) == set(VOTE)


def test_the_head_of_a_card_is_what_the_hub_reads(folder):
    write_predictions_card(folder, {"train": "predictions.jsonl"})
    head = yaml.safe_load((folder / CARD).read_text().split("---\n")[1])
    assert head["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "predictions.jsonl"}]}
    ]
    (info,) = head["dataset_info"]
    assert [column["name"] for column in info["features"]] == [column["name"] for column in COLUMNS]
