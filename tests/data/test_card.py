"""The data card: correct numbers, escaped names, existing plots, and a header that the Hub can read."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from mixture_rows import make_row, write_folder
from PIL import Image

from r1_reward.data.annotation_report import rows_by_state
from r1_reward.data.card import Statistics, longer_wins, render_card, write_card
from r1_reward.data.mix_config import MixConfig
from r1_reward.data.mixing import mix

HOSTILE = "x|y\n# [click](javascript:alert(1)) <img src=x onerror=alert(1)> `{{ 7 * 7 }}`"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    rows = [make_row(number, kind=HOSTILE, response_1="Short.", response_2="A longer one.") for number in range(12)]
    more = [make_row(50 + number, "more") for number in range(6)]
    sources = {
        "one.v2": {"path": write_folder(folder / "one", rows), "parts": {HOSTILE: 10}},
        "more": {"path": write_folder(folder / "more", [*more, {**more[0], "id": "again"}])},
    }
    mix(MixConfig.model_validate({"sources": sources, "test_share": 0.25}), folder / "out")
    return folder / "out"


def row(question: int, preferred: int, other: int, label: int = 1) -> dict[str, Any]:
    texts = ("p" * preferred, "o" * other)
    first, second = texts if label == 1 else texts[::-1]
    return {"question": "q" * question, "response_1": first, "response_2": second, "preferred": label}


def test_statistics_count_what_was_added() -> None:
    statistics = Statistics()
    statistics.add(row(3, 10, 5), "b", "train", [(640, 480)])
    statistics.add(row(5, 4, 9, label=2), "b", "test", [(100, 50), (300, 200)])
    statistics.add(row(7, 6, 6), "a", "train", [])
    summary = statistics.summary()
    assert list(summary["sources"]) == ["a", "b"]
    assert summary["sources"]["b"] == {"rows": 2, "question": 4, "preferred": 7, "other": 7, "longer_wins": 0.5}
    assert summary["sources"]["a"]["longer_wins"] == 0.5
    assert summary["all"] == {"rows": 3, "question": 5, "preferred": 6, "other": 6, "longer_wins": 0.5}
    assert summary["pictures"] == {"count": 3, "rows": 2, "width": 300.0, "height": 200.0, "largest": [640, 480]}
    assert statistics.test.tolist() == [False, True, False]
    assert statistics.lengths.tolist() == [[3, 10, 5], [5, 4, 9], [7, 6, 6]]


def test_longer_wins_counts_equal_lengths_as_half() -> None:
    assert longer_wins(np.array([3, 1, 2, 9]), np.array([1, 3, 2, 4])) == pytest.approx(2.5 / 4)


def test_the_card_says_what_the_report_says(mixed: Path) -> None:
    card, report = (mixed / "README.md").read_text(), json.loads((mixed / "report.json").read_text())
    assert "# 16 preference pairs" in card
    assert "12 rows are for training and 4 for testing" in card
    assert re.search(r"\| one\.v2 \| 12 \| 0 \| 2 \| 10 \| x\\\|y", card)
    assert re.search(r"\| more \| 7 \| 1 \| 0 \| 6 \|  \|", card)
    assert re.search(r"\| one\.v2 \| 10 \| \d+ \| 6 \| 13 \| 0\.0 % \|", card)
    assert "| exact duplicate | 1 |" in card
    assert "overlap with benchmarks was not checked" in card
    assert f"| train | {report['labels']['train']['1']} | {report['labels']['train']['2']} |" in card
    assert "16 images in 16 rows; median 96 x 72 pixels" in card


def test_names_from_the_data_are_escaped(mixed: Path) -> None:
    card = (mixed / "README.md").read_text()
    (line,) = (line for line in card.splitlines() if line.startswith("| one.v2 | 12"))
    assert len(re.findall(r"(?<!\\)\|", line)) == 7
    assert not re.search(r"(?<!\\)[<\[`]", line.replace(r"\|", ""))
    assert "49" not in line


def test_every_plot_the_card_shows_is_there_and_not_empty(mixed: Path) -> None:
    named = re.findall(r"!\[[^]]+\]\((plots/\w+\.png)\)", (mixed / "README.md").read_text())
    assert sorted(named) == sorted(f"plots/{file.name}" for file in (mixed / "plots").iterdir())
    assert len(named) == 4
    for name in named:
        with Image.open(mixed / name) as image:
            assert len(set(image.convert("L").resize((40, 40)).tobytes())) > 5


def test_the_folder_loads_as_a_dataset_by_its_header(mixed: Path, tmp_path: Path) -> None:
    head = yaml.safe_load((mixed / "README.md").read_text().split("---")[1])
    assert [file["split"] for file in head["configs"][0]["data_files"]] == ["train", "test"]
    loaded = load_dataset(str(mixed), cache_dir=str(tmp_path))
    assert {name: len(side) for name, side in loaded.items()} == {"train": 12, "test": 4}
    assert loaded["test"][0]["images"][0].size == (96, 72)


def test_a_card_without_pictures_tests_or_removals(tmp_path: Path) -> None:
    statistics = Statistics()
    statistics.add(row(3, 10, 5), "a", "train", [])
    report = {
        "rows": 1, "train": 1, "test": 0, "labels": {"train": {"1": 1, "2": 0}, "test": {"1": 0, "2": 0}},
        "sources": {"a": {"read": 1, "removed": {}, "not_drawn": 0, "taken": 1, "parts": {}}}, "removed": {},
        "benchmarks": [
            {"suite": "vl-rewardbench", "rows": 1250, "pictures": 1249, "notes": ["Revision a|b.", "Partial."]}
        ],
        "split": {"groups": 1, "largest_group": 1}, "warnings": ["a: *few*"],
        "config": MixConfig.model_validate({"sources": {"a": {"path": "p"}}}).model_dump(),
        "statistics": statistics.summary(),
    }  # fmt: skip
    write_card(tmp_path, report, statistics)
    card = (tmp_path / "README.md").read_text()
    assert card == render_card(report)
    assert not (tmp_path / "plots" / "pictures.png").exists()
    assert "## Images\n\nNone." in card
    assert "## Removed rows\n\nNothing." in card
    assert "| vl-rewardbench | 1,250 | 1,249 | Revision a\\|b. Partial. |" in card
    assert "- a: \\*few\\*" in card
    assert "split: test" not in card
    assert "## The split" not in card
    assert "| test |" not in card


def test_a_source_that_was_annotated_says_which_rows_have_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(
        json.dumps({"kind": "annotation", "attempts": {"1": 1200, "2": 30, "failed": 7, "no verdict": 2}})
    )
    judged = rows_by_state(tmp_path)
    assert judged == {
        "of": "the number of attempts until a teacher agreed",
        "counts": {"1": 1200, "2": 30, "failed": 7, "no verdict": 2},
    }
    statistics = Statistics()
    statistics.add(row(3, 10, 5), "a", "train", [])
    report = {
        "rows": 1, "train": 1, "test": 0, "labels": {"train": {"1": 1, "2": 0}, "test": {"1": 0, "2": 0}},
        "sources": {
            name: {"read": 1, "removed": {}, "not_drawn": 0, "taken": 1, "parts": {}, "judged": told}
            for name, told in (("a", judged), ("b", None))
        },
        "removed": {}, "benchmarks": [], "split": {"groups": 1, "largest_group": 1}, "warnings": [],
        "config": MixConfig.model_validate({"sources": {"a": {"path": "p"}}}).model_dump(),
        "statistics": statistics.summary(),
    }  # fmt: skip
    card = render_card(report)
    assert "by the number of attempts until a teacher agreed: 1 1,200, 2 30, failed 7, no verdict 2." in card
    assert card.count("*no verdict*") == 1


@pytest.mark.parametrize("report", [{}, [], {"kind": "import"}, {"kind": "rl"}, None])
def test_a_folder_without_such_a_report_says_nothing(tmp_path: Path, report: Any) -> None:
    if report is not None:
        (tmp_path / "report.json").write_text(json.dumps(report))
    assert rows_by_state(tmp_path) is None
