"""MR²Bench: groups of four ranked answers become comparisons, and a best answer must win all of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from official_files import MR2, mr2_bench
from prediction_rows import our_row, vote, write_lines
from scripted_server import reply
from typer.testing import CliRunner

from r1_reward.bench.benchmarks.mr2bench import ANSWERS, BENCHMARK
from r1_reward.bench.score import score_file
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.cli.bench import app
from r1_reward.records.errors import UserError


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    return mr2_bench(tmp_path_factory.mktemp("mr2"))


def test_the_official_size(full: Path) -> None:
    loaded = load_suite("mr2bench", full)
    assert (loaded.units, loaded.size and loaded.size.categories) == (sum(MR2.values()), {"image": 240, "video": None})
    rows = list(loaded.rows())
    assert loaded.n == len(rows) == len({(row.category, row.id, row.members) for row in rows})
    assert "988 groups are judged as 3,294 pairwise comparisons." in loaded.notes
    assert "responses = responses, rankings = rankings" in loaded.notes[-1]
    assert all((row.video is None) == (row.category == "image") for row in rows)


@pytest.mark.parametrize("task", ["image", "video"])
def test_one_task(full: Path, task: str) -> None:
    loaded = load_suite("mr2bench", full / f"{task}.json")
    assert loaded.size and loaded.size.label.startswith(f"{task} of the release of 2026") and loaded.units == MR2[task]


def test_missing_images_are_reported_but_missing_videos_cannot_be(tmp_path: Path) -> None:
    mr2_bench(tmp_path, rows=6)
    with pytest.raises(UserError, match=r"image: 240 expected, 6 found"):
        load_suite("mr2bench", tmp_path)
    assert load_suite("mr2bench", tmp_path / "video.json").units == 6


def test_the_best_is_compared_with_each_other_answer(full: Path) -> None:
    """In the order of the file; with several best, each of them."""
    groups = json.loads((full / "image.json").read_text())
    rows = list(load_suite("mr2bench", full / "image.json").rows())
    for group in groups[:20]:
        ranks = group["rankings"]
        own = [row for row in rows if row.question == group["prompt"]]
        assert len({row.id for row in own}) == 1
        wanted = [(i, j) for i, j in combinations(range(ANSWERS), 2) if (ranks[i] == 1) != (ranks[j] == 1)]
        assert [row.members for row in own] == wanted
        for row, (i, j) in zip(own, wanted, strict=True):
            assert (row.response_1, row.response_2) == (group["responses"][i], group["responses"][j])
            assert row.preferred == (1 if ranks[i] == 1 else 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rankings": None}, "rankings: is missing"),
        ({"rankings": [1, 2, 3]}, "rankings: has 3 ranks for 4 answers"),
        ({"rankings": [2, 2, 3, 4]}, "rankings: has no best answer (rank 1): [2, 2, 3, 4]"),
        ({"rankings": [1, 1, 1, 1]}, "rankings: ranks all answers best"),
        ({"rankings": [1, 2, 3, "4"]}, "rankings: must be a list of positive integers"),
        ({"rankings": [True, 2, 3, 4]}, "rankings: must be a list of positive integers"),
        ({"rankings": [0, 1, 2, 3]}, "rankings: must be a list of positive integers"),
        ({"responses": ["a", "b", "c"], "rankings": [1, 2, 3]}, "responses: has 3 answers instead of 4"),
        ({"responses": ["a", "b", "", "d"]}, "responses[2]: is blank"),
        ({"responses": None}, "responses: is missing"),
        ({"prompt": ""}, "prompt: is blank"),
        ({"image": "images/gone.png"}, "no such file"),
        ({"image": None}, "has neither an image nor a video"),
    ],
)
def test_invalid_rows_are_reported_before_any_is_judged(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    mr2_bench(tmp_path, rows=2)
    groups = json.loads((tmp_path / "image.json").read_text())
    groups[1] |= change
    (tmp_path / "image.json").write_text(json.dumps(groups))
    with pytest.raises(SuiteFileError, match=r"image.json, row 2") as error:
        load_suite("mr2bench", tmp_path, allow_partial=True)
    assert reason in str(error.value)


def test_a_missing_video_and_one_without_a_path(tmp_path: Path) -> None:
    mr2_bench(tmp_path, rows=2)
    groups = json.loads((tmp_path / "video.json").read_text())
    groups[0].pop("video")
    groups[1]["video"] = "videos/gone"
    (tmp_path / "video.json").write_text(json.dumps(groups))
    with pytest.raises(SuiteFileError) as error:
        load_suite("mr2bench", tmp_path, allow_partial=True)
    assert "row 1, video: is missing" in str(error.value) and "row 2, video: " in str(error.value)


def test_other_names_of_columns(tmp_path: Path) -> None:
    mr2_bench(tmp_path, rows=3)
    groups = json.loads((tmp_path / "image.json").read_text())
    for group in groups:
        group["ranks"], group["q"] = group.pop("rankings"), group.pop("prompt")
    (tmp_path / "image.json").write_text(json.dumps(groups))
    options: dict[str, Any] = {"allow_partial": True}
    loaded = load_suite("mr2bench", tmp_path / "image.json", columns={"rankings": "ranks", "prompt": "q"}, **options)
    assert loaded.units == 3 and "prompt = q, responses = responses, rankings = ranks" in loaded.notes[-1]
    with pytest.raises(UserError, match="no row has a field 'rank'"):
        load_suite("mr2bench", tmp_path / "image.json", columns={"rankings": "rank"}, **options)
    with pytest.raises(UserError, match="MR²Bench has no column 'ranking'"):
        load_suite("mr2bench", tmp_path / "image.json", columns={"ranking": "ranks"}, **options)


# ---- score


def group_rows(ranks: list[int], answers: Callable[[int, int], list[int | None]], start: int, **more: Any) -> list:
    """Lines of predictions of a group; ``answers`` gives the verdict on two members in each pass: 1, 2 or None."""
    pairs = [(i, j) for i, j in combinations(range(4), 2) if (ranks[i] == 1) != (ranks[j] == 1)]
    return [
        our_row(
            start + number, id=f"group {start}", category="image", paper_category=None, members=[i, j],
            preferred=1 if ranks[i] == 1 else 2, passes=[[vote(one)] for one in answers(i, j)], **more,
        )
        for number, (i, j) in enumerate(pairs)
    ]  # fmt: skip


def prefers(*order: int) -> Callable[[int, int], list[int | None]]:
    """A judge with this ranking of the members, the same in both orders."""
    return lambda i, j: [1 if order.index(i) < order.index(j) else 2] * 2


@pytest.mark.parametrize(
    ("ranks", "answers", "right"),
    [
        ([1, 2, 3, 4], prefers(0, 3, 2, 1), 1.0),  # what is below the best does not matter
        ([2, 1, 3, 4], prefers(0, 1, 2, 3), 0.0),
        ([1, 1, 2, 3], prefers(1, 2, 0, 3), 1.0),  # one of two best is enough
        ([1, 1, 2, 3], prefers(2, 0, 1, 3), 0.0),
        ([1, 1, 1, 2], prefers(0, 3, 1, 2), 1.0),
        ([1, 1, 1, 2], prefers(3, 0, 1, 2), 0.0),
        ([1, 2, 3, 4], lambda i, j: [1, 2], 0.5),  # right when the best is shown first
        ([1, 2, 3, 4], lambda i, j: [1, None if j == 3 else 1], 0.5),  # an unreadable comparison is not won
        ([1, 2, 3, 4], lambda i, j: [1, 0 if j == 2 else 1], 0.5),  # nor is one that the judge calls a tie
        ([1, 1, 2, 3], lambda i, j: [1 if (i, j) in ((0, 2), (1, 3)) else 2] * 2, 0.0),  # each best wins one of two
    ],
)
def test_a_group(tmp_path: Path, ranks: list[int], answers, right: float) -> None:
    file = write_lines(tmp_path / "predictions.jsonl", group_rows(ranks, answers, 0))
    scored = score_file("mr2bench", file, allow_partial=True)["official"]
    assert scored["values"] == {"image": right, "video": None, "all groups": right}


def test_a_comparison_that_was_not_judged_counts_as_lost(tmp_path: Path) -> None:
    lines = group_rows([1, 2, 3, 4], prefers(0, 1, 2, 3), 0)
    file = write_lines(tmp_path / "predictions.jsonl", lines[:-1])
    assert score_file("mr2bench", file, allow_partial=True)["official"]["values"]["image"] == 0.0
    lines = group_rows([1, 1, 2, 3], prefers(0, 1, 2, 3), 0)
    kept = [line for line in lines if 1 not in line["members"]]
    file = write_lines(tmp_path / "predictions.jsonl", kept)
    assert score_file("mr2bench", file, allow_partial=True)["official"]["values"]["image"] == 0.0


def test_released_rewards_need_the_rows(tmp_path: Path) -> None:
    """A released file has no members: without the benchmark's rows its groups are unknown."""
    loaded = load_suite("mr2bench", mr2_bench(tmp_path, rows=2), allow_partial=True)
    rewards = [{"id": row.id, "rewards": [1, 0]} for row in loaded.rows()]
    file = write_lines(tmp_path / "rewards.jsonl", rewards)
    with pytest.raises(UserError, match=r"does not say which two answers .*--data"):
        score_file("mr2bench", file, allow_partial=True)
    scored = score_file("mr2bench", file, data=tmp_path, allow_partial=True)
    assert scored["official"]["values"] == {"image": 1.0, "video": 1.0, "all groups": 1.0}


def test_counts_are_of_groups(tmp_path: Path) -> None:
    """141 of 240 groups are R1-Reward's printed 58.8 %."""
    lines: list = []
    for number in range(240):
        lines += group_rows([1, 2, 3, 4], prefers(0, 1, 2, 3) if number < 141 else prefers(1, 0, 2, 3), len(lines))
    scored = score_file("mr2bench", write_lines(tmp_path / "predictions.jsonl", lines))
    assert f"{100 * scored['official']['values']['image']:.2f}" == "58.75"
    assert scored["complete"] and (scored["rows"], scored["categories"]["image"]["n"]) == (720, 720)
    low, high = scored["official"]["intervals"]["image"]
    assert 0.5 < low < 0.5875 < high < 0.67
    with pytest.raises(UserError, match="image: 240 expected, 239 found"):
        score_file("mr2bench", write_lines(tmp_path / "predictions.jsonl", lines[:-3]))


# ---- a run


def knows(body: dict[str, Any]) -> dict[str, Any]:
    """A judge that chooses the answer with the better rank, or the first one if equal."""
    text = body["messages"][-1]["content"][-1]["text"]
    first, second = map(int, re.findall(r"of rank (\d)", text))
    return reply(f"<think>.</think><answer>{1 if first <= second else 2}</answer>")


def test_a_run_from_end_to_end(tmp_path: Path, server) -> None:
    mr2_bench(tmp_path, rows=4)
    server.default = [knows]
    command = ["run", "mr2bench", "--data", str(tmp_path), "--allow-partial", "--frames", "2"]
    command += ["--base-url", server.url, "--model", "judge", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    n = load_suite("mr2bench", tmp_path, allow_partial=True).n
    assert f"MR²Bench: 8 groups, {n} comparisons; orders: 2, votes: 1: {2 * n} judgments" in result.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["official"]["values"] == {"image": 1.0, "video": 1.0, "all groups": 1.0}
    report = (tmp_path / "run" / "report.md").read_text()
    assert "The official script is not published" in report and "column names of MR²Bench are not published" in report
    again = score_file("mr2bench", tmp_path / "run" / "predictions.jsonl", allow_partial=True)
    assert again["official"]["values"] == metrics["official"]["values"]


def test_published_rows_are_counts_of_240() -> None:
    """This is how the number of images is known."""
    printed = [float(row.values["image"]) for row in BENCHMARK.published]
    assert len(printed) == 16
    assert all(any(abs(100 * k / 240 - value) < 0.0501 for k in range(241)) for value in printed)
