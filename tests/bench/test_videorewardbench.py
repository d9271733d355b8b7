"""VideoRewardBench: rows with any column names, five categories, its score, and published rows below chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from official_files import VIDEO_REWARD_BENCH, video_reward_bench
from prediction_rows import our_row, vote, write_lines
from scripted_server import reply
from typer.testing import CliRunner

from r1_reward.bench.benchmarks.videorewardbench import BENCHMARK, CATEGORIES
from r1_reward.bench.published import below_chance, impossible
from r1_reward.bench.score import score_file
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.cli.bench import app
from r1_reward.records.errors import UserError


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]


def test_the_official_size(tmp_path: Path) -> None:
    loaded = load_suite("videorewardbench", video_reward_bench(tmp_path) / "test.jsonl")
    assert (loaded.n, loaded.size and loaded.size.categories) == (1563, VIDEO_REWARD_BENCH)
    (note,) = loaded.notes
    assert "The column names of VideoRewardBench are not published; these were used: id = id, category" in note
    first = next(loaded.rows())
    assert first.video is not None and first.video.endswith("videos/0.mp4") and first.images == ()
    assert (first.category, first.preferred) == ("long-form perception", 1)


def test_other_names_are_mapped_and_reported(tmp_path: Path) -> None:
    names = {"question": "prompt", "video": "video_path", "chosen": "good", "rejected": "bad", "category": "type"}
    spelt = {name: name.upper().replace("-", "_") for name in CATEGORIES}
    rows = rows_of(video_reward_bench(tmp_path, rows=2))
    lines = [
        {theirs: spelt.get(row[name], row[name]) for name, theirs in names.items()} | {"question": "not this one"}
        for row in rows
    ]
    file = write_lines(tmp_path / "mine.jsonl", lines)
    loaded = load_suite("videorewardbench", file, columns=names, allow_partial=True)
    found = list(loaded.rows())
    assert [(row.question, row.category) for row in found] == [(row["question"], row["category"]) for row in rows]
    assert [row.id for row in found] == [row["video"] for row in rows], "rows without an id are named by their video"
    assert "category = type, video = video_path, question = prompt" in loaded.notes[-1]
    rewards = write_lines(tmp_path / "rewards.jsonl", [{"id": row.id, "rewards": [1, 0]} for row in found])
    options = [f"--columns={name}={theirs}" for name, theirs in names.items()]
    command = ["score", "videorewardbench", str(rewards), "--allow-partial", "--json"]
    result = CliRunner().invoke(app, [*command, "--data", str(file), *options])
    assert result.exit_code == 0, result.output
    scored = json.loads(result.output)
    assert set(scored["categories"]) == set(CATEGORIES) and loaded.notes[-1] in scored["notes"]
    refused = CliRunner().invoke(app, [*command, *options])
    assert "has no effect without --data" in str(refused.exception)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": "prompt"}, r"no row has a field 'prompt' \(question=prompt\); the fields are category, chosen,"),
        ({"ask": "question"}, r"--columns ask=.*VideoRewardBench has no column 'ask'; it has id, category, video"),
    ],
)
def test_a_mapping_without_a_known_column(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    video_reward_bench(tmp_path, rows=1)
    with pytest.raises(UserError, match=message):
        load_suite("videorewardbench", tmp_path / "test.jsonl", columns=columns, allow_partial=True)


def test_fields_of_other_names_are_pointed_to_the_option(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [{"ask": "Which?", "good": "a", "bad": "b"}])
    with pytest.raises(SuiteFileError, match=r"only ask, good, bad \(map other names with --columns question=NAME"):
        load_suite("videorewardbench", file, allow_partial=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": None}, "chosen: is missing"),
        ({"rejected": " "}, "rejected: is blank"),
        ({"video": None}, "video: is missing"),
        ({"video": "videos/gone.mp4"}, "video: "),
        ({"category": "cooking"}, "category: 'cooking' contains no categories of VideoRewardBench"),
        ({"category": "long and short"}, "contains 2 categories"),
        ({"category": None}, "category: is missing"),
        ({"id": 1.5}, "id: must be text"),
    ],
)
def test_invalid_rows_are_reported_before_any_is_judged(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    rows = rows_of(video_reward_bench(tmp_path, rows=1))
    rows[2] |= change
    file = write_lines(tmp_path / "bad.jsonl", rows)
    with pytest.raises(SuiteFileError, match=r"line 3") as error:
        load_suite("videorewardbench", file, allow_partial=True)
    assert reason in str(error.value)
    assert len(error.value.problems) == 1


def test_overall_is_over_rows_and_macro_is_reported_too(tmp_path: Path) -> None:
    """R1-Reward's printed row as counts: 102/283, 165/413, 90/238, 85/278, 168/351 are 610/1563."""
    right = dict(zip(CATEGORIES, (102, 165, 90, 85, 168), strict=True))
    lines = []
    for category, n in VIDEO_REWARD_BENCH.items():
        for number in range(n):
            answer = 1 if number < right[category] else 2 if number % 2 else None
            line = our_row(len(lines), category=category, paper_category=None, passes=[[vote(answer)]])
            lines.append(line)
    scored = score_file("videorewardbench", write_lines(tmp_path / "predictions.jsonl", lines))
    printed = next(row for row in BENCHMARK.published if row.model == "R1-Reward").values
    assert {name: f"{100 * one['accuracy']:.1f}" for name, one in scored["categories"].items()} == {
        name: printed[name] for name in CATEGORIES
    }
    assert f"{100 * scored['overall']:.1f}" == printed["overall"] == "39.0"
    assert f"{100 * scored['macro']:.1f}" == "38.4"
    assert scored["official"] is None


def test_published_rows() -> None:
    """Every row of the benchmark's own table is whole counts; two, and one of another paper, are below chance."""
    low = {(row.model, row.values["overall"]) for row in BENCHMARK.published if below_chance(BENCHMARK, row)}
    assert low == {("R1-Reward", "39.0"), ("Flex-Judge", "34.6"), ("LLaVA-Critic-7B", "14.7")}
    assert not [row for row in BENCHMARK.published if impossible(BENCHMARK, row)]
    assert len([row for row in BENCHMARK.published if "Table 4" in row.source]) == 18
    reason = below_chance(BENCHMARK, next(row for row in BENCHMARK.published if row.model == "R1-Reward"))
    assert reason is not None and "39.0 is 9 standard deviations below a coin's 50, and so is every category" in reason
    notes = {row.note for row in BENCHMARK.published if row.model == "R1-Reward"}
    assert any("61.2" in note for note in notes) and any("39.0" in note for note in notes)


def test_a_run_from_end_to_end(tmp_path: Path, server) -> None:
    video_reward_bench(tmp_path, rows=1)
    server.default = [reply("<think>First.</think><answer>1</answer>")]
    command = ["run", "videorewardbench", "--data", str(tmp_path / "test.jsonl"), "--allow-partial", "--frames", "2"]
    command += ["--base-url", server.url, "--model", "judge", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["overall"], metrics["macro"], metrics["rows"]) == (0.5, 0.5, 5)
    assert "column names of VideoRewardBench are not published" in (tmp_path / "run" / "report.md").read_text()
    shown = server.bodies[0]["messages"][-1]["content"]
    assert [part["type"] for part in shown].count("image_url") == 2
