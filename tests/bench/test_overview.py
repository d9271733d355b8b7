"""The overview of several benchmarks: its sections and marks, and that it comes first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_table import HEAD, cells, footnote, latex_tables, markdown_tables, other_run, vl_run
from typer.testing import CliRunner

from r1_reward.bench.benchmarks import benchmark_names, find_benchmark
from r1_reward.bench.overview import build_tables
from r1_reward.bench.table import Table
from r1_reward.cli.bench import app

MM = {"mcq": 0.8, "long": 0.9, "short": 0.7, "safety": 0.6, "video": 0.5}


def mm_run(**changes: Any) -> dict[str, Any]:
    return other_run("mm-rlhf-rewardbench", MM, n=170, expected=170) | {"overall": 0.75} | changes


def own_run(suite: str, values: dict[str, float | None], **changes: Any) -> dict[str, Any]:
    own = {"values": values, "intervals": dict.fromkeys(values)}
    return vl_run(suite=suite, categories={}, groupings={}, official=own, **changes)


def overview(*runs: dict[str, Any], published: bool = False) -> Table:
    first = build_tables(runs, published=published)[0]
    assert first.suite == "overview"
    return first


def test_a_judge_on_two_benchmarks_has_one_row() -> None:
    table = overview(vl_run(), mm_run())
    assert table.columns == ("VL-RewardBench overall", "VL-RewardBench macro", "MM-RLHF-RewardBench acc")
    (section,) = table.sections
    assert section.heading == "Orders: both; unreadable verdicts: wrong; votes: 3"
    (row,) = section.rows
    assert (row.model, row.protocol) == ("ours", ("official", "both", "wrong", "3", "–"))
    assert row.cells == ("71.92 [69.4, 74.4]", "63.33 [60.0, 66.0]", "75.00 [69.4, 74.4]")


@pytest.mark.parametrize("changes", [{"rule": "drop"}, {"orders": "stored"}, {"votes": 1}])
def test_other_protocols_are_in_other_sections(changes: dict[str, Any]) -> None:
    table = overview(vl_run(), mm_run(**changes))
    assert len(table.sections) == 2
    (vl,), (mm,) = (section.rows for section in table.sections)
    assert vl.cells[2] == "–" and mm.cells[:2] == ("–", "–")


def test_judges_and_repeated_runs_have_rows_of_their_own() -> None:
    table = overview(vl_run(), mm_run(), mm_run(overall=0.5), mm_run(name="other"))
    (section,) = table.sections
    assert [row.model for row in section.rows] == ["ours", "ours", "other"]
    assert [row.cells[2][:5] for row in section.rows] == ["75.00", "50.00", "75.00"]
    assert section.rows[1].cells[0] == "–"


def test_scores_of_their_own_and_what_they_need() -> None:
    runs = [
        own_run("mmrb2", {"mean": 0.6, "pooled": 0.61}),
        own_run("mr2bench", {"image": 0.5, "video": None, "all groups": 0.5}),
        own_run("rewardbench-2", {"mean": 0.7, "Math": 0.9}),
        other_run("videorewardbench", {}),
    ]
    table = overview(*runs)
    row = cells(table, "ours")
    assert table.columns == (
        "MMRB2 mean", "MR²Bench image", "MR²Bench video", "RewardBench 2 mean", "VideoRewardBench overall",
    )  # fmt: skip
    assert [row[name][:5] for name in table.columns] == ["60.00", "50.00", "–", "70.00", "71.92"]
    assert any("official scores of MMRB2 and MR²Bench and RewardBench 2" in note for note in table.notes)


def test_caveats_of_a_cell_name_its_benchmark() -> None:
    table = overview(vl_run(parse_rate=0.5), mm_run(n=100, complete=False))
    mark = cells(table, "ours")["mark"]
    assert mark.startswith("partial (")
    text = footnote(table, mark)
    assert "VL-RewardBench: 50.00 % of the votes are readable." in text
    assert "MM-RLHF-RewardBench: Partial: 100 of 170 rows were judged" in text


def test_a_table_published_on_several_benchmarks_is_included() -> None:
    runs = [vl_run(), mm_run(), other_run("videorewardbench", {})]
    table = overview(*runs, published=True)
    (section,) = [one for one in table.sections if "Published together" in one.heading]
    assert "2604.10966" in section.heading and len(section.rows) == 16
    found = {row.model: dict(zip(table.columns, row.cells, strict=True)) for row in section.rows}
    assert found["R1-Reward"] == {
        "VL-RewardBench overall": "–", "VL-RewardBench macro": "71.4", "MM-RLHF-RewardBench acc": "80.6",
        "VideoRewardBench overall": "61.2",
    }  # fmt: skip
    marks = {row.model: row.mark for row in section.rows}
    assert marks["GPT-5"] == ""
    assert marks["MM-RLHF-Reward"].startswith("impossible (")
    assert "MM-RLHF-RewardBench: Impossible on all rows: 85.0 is not k/170" in footnote(table, marks["MM-RLHF-Reward"])
    assert marks["LLaVA-Critic-7B"].startswith("below chance (")
    critic = footnote(table, marks["LLaVA-Critic-7B"])
    assert (
        "VL-RewardBench: Cannot be right" in critic and "VideoRewardBench: Impossible if every verdict counts" in critic
    )
    assert {row.protocol[1:4] for row in section.rows} == {("not stated", "not stated", "–")}


def test_every_benchmark_has_headline_numbers() -> None:
    for name in benchmark_names():
        benchmark = find_benchmark(name)
        assert benchmark.headline_columns, name
        assert {column.heading for column in benchmark.headline_columns} <= {
            column.heading for column in benchmark.table_columns()
        }


@pytest.mark.parametrize("format", ["terminal", "markdown", "latex", "html"])
def test_every_format_prints_it_first(tmp_path, monkeypatch, format: str) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    files = []
    for name, run in (("vl", vl_run()), ("mm", mm_run())):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(run))
        files.append(str(file))
    result = CliRunner().invoke(app, ["table", *files, "--format", format])
    assert result.exit_code == 0, result.output
    text = result.output
    assert 0 <= text.index("headline numbers") < text.index("MM-RLHF-RewardBench: accuracy")
    if format in ("markdown", "latex"):
        first = (markdown_tables if format == "markdown" else latex_tables)(text)[0]
        assert first[0] == [*HEAD, "VL-RewardBench overall", "VL-RewardBench macro", "MM-RLHF-RewardBench acc", "see"]
        assert first[1][-2].startswith("75.00 [")


def test_categories_do_not_enter() -> None:
    """A run without its headline has dashes, whatever its categories say."""
    table = overview(vl_run(overall=None, macro=None, groupings=None), mm_run(overall=None))
    assert {cells(table, "ours")[name] for name in table.columns} == {"–"}
