"""EditReward-Bench: files of official size, invalid rows, groups, a run, a probe and a table."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from official_files import EDIT_GROUPS, edit_reward_bench
from prediction_rows import our_row, vote, write_lines
from scripted_server import reply
from typer.testing import CliRunner

from r1_reward.bench.benchmarks import find_benchmark
from r1_reward.bench.benchmarks.editreward_bench import group_of
from r1_reward.bench.published import impossible
from r1_reward.bench.score import score_file
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.bench.table import build_table, load_run
from r1_reward.cli.bench import app
from r1_reward.records.content import places_of
from r1_reward.records.errors import UserError

PAIRS = {"2pair": 1, "3pair": 3, "4pair": 6}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return edit_reward_bench(tmp_path_factory.mktemp("whole"))


def test_all_groups_and_their_comparisons(whole: Path) -> None:
    loaded = load_suite("editreward-bench", whole)
    rows = list(loaded.rows())
    assert (loaded.n, len(rows), loaded.size.rows, loaded.issues) == (1524, 1524, 484, {})
    ids = Counter((row.category, row.id) for row in rows)
    assert Counter(category for category, _ in ids) == EDIT_GROUPS
    assert all(count == PAIRS[category] for (category, _), count in ids.items())
    assert loaded.ties == sum(row.preferred == 0 for row in rows) == 62
    assert all(row.preferred for row in rows if row.category != "2pair")
    four = [row for row in rows if row.category == "4pair"][:6]
    assert [row.members for row in four] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for row in rows:
        assert row.question.startswith("Change scene") and len(row.images) == 1
        assert len(places_of(row.response_1)) == len(places_of(row.response_2)) == 1
        assert row.longer is None


@pytest.mark.parametrize("part", EDIT_GROUPS)
def test_a_part_alone_and_a_folder_of_mixed_files(whole: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(whole / part, tmp_path / part)
    alone = load_suite("editreward-bench", tmp_path)
    assert alone.size.rows == EDIT_GROUPS[part] and alone.n == EDIT_GROUPS[part] * PAIRS[part]
    assert load_suite("editreward-bench", tmp_path / part).fingerprint == alone.fingerprint
    for number, file in enumerate(sorted((whole / "2pair").glob("*.parquet")) + sorted((whole / part).glob("*"))):
        shutil.copy(file, tmp_path / f"train-{number}.parquet")
    shutil.rmtree(tmp_path / part)
    mixed = load_suite("editreward-bench", tmp_path, allow_partial=True)
    assert {row.category for row in mixed.rows()} == {"2pair", part}


def test_fewer_groups_are_reported(tmp_path: Path) -> None:
    edit_reward_bench(tmp_path, rows=3)
    with pytest.raises(UserError, match=r"has 484 groups \(or a subset .* 9 were found \(2pair: 186 expected, 3 found"):
        load_suite("editreward-bench", tmp_path)


# ---- rows that cannot be judged


def changed(folder: Path, part: str, change, row: int = 1) -> Path:
    """A made-up file with one row changed."""
    edit_reward_bench(folder, rows=3)
    file = next((folder / part).glob("*00000-of*"))
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows[row])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    return folder


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("2pair", {"ranking": None}, "ranking: is missing"),
        ("2pair", {"ranking": "A>C"}, 'ranking: must be like "A>B" (the comparison is AvsB), not "A>C"'),
        ("2pair", {"ranking": "tie"}, 'ranking: must be like "A>B"'),
        ("2pair", {"ranking": "A>C", "comparison_type": None}, 'like "A>C" (the candidates are A, B), not "A>C"'),
        ("3pair", {"ranking": "B>A"}, 'must be like "A>C" (the comparison is AvsC), not "B>A"'),
        ("3pair", {"ranking": "A>D", "comparison_type": "AvsD"}, 'like "A>D" (the comparison is AvsD), not "A>D"'),
        ("3pair", {"ranking": "A>A", "comparison_type": None}, 'must be like "A>A" (the candidates are A, B, C)'),
        ("4pair", {"ranking": "A<C"}, 'must be like "A>C" (the comparison is AvsC), not "A<C"'),
        ("4pair", {"comparison_type": "A,C"}, 'comparison_type: must have the form AvsB, not "A,C"'),
        ("2pair", {"candidate_1": None}, "candidate_1: is missing"),
        ("3pair", {"candidate_2": None}, "candidate_2: is missing"),
        ("4pair", {"candidate_2": {"bytes": b"", "path": "x.png"}}, "candidate_2: is empty (zero bytes)"),
        ("2pair", {"candidate_1": {"bytes": None, "path": "gone.png"}}, "gone.png: no such file"),
        ("3pair", {"source_image": None}, "source_image: is missing"),
        ("4pair", {"source_image": {"bytes": b"", "path": "x.jpg"}}, "source_image: is empty (zero bytes)"),
        ("2pair", {"instruction": " "}, "instruction: is blank"),
        ("3pair", {"dataset": "5pair"}, "dataset: must be one of 2pair, 3pair, 4pair, not '5pair'"),
        ("3pair", {"dataset": None}, "dataset: is missing"),
        ("4pair", {"id": None}, "id: is missing"),
    ],
)
def test_invalid_rows_are_reported_before_any_is_judged(tmp_path: Path, part: str, change, reason: str) -> None:
    changed(tmp_path, part, lambda row: row.update(change))
    with pytest.raises(SuiteFileError, match=rf"{part}.*, row 2, ") as error:
        load_suite("editreward-bench", tmp_path, allow_partial=True)
    assert reason in str(error.value) and len(error.value.problems) == 1


@pytest.mark.parametrize(("ranking", "label"), [("A>B", 1), ("B>A", 2), ("A=B", 0), ("B=A", 0), ("A > B", 1)])
@pytest.mark.parametrize("comparison", ["AvsB", None])
def test_rankings(tmp_path: Path, ranking: str, label: int, comparison: str | None) -> None:
    changed(tmp_path, "2pair", lambda row: row.update(ranking=ranking, comparison_type=comparison))
    row = list(load_suite("editreward-bench", tmp_path, allow_partial=True).rows())[1]
    assert (row.preferred, row.members) == (label, (0, 1))


def test_ids_of_groups() -> None:
    assert [group_of(id) for id in ("68cb_AvsB", "68cb_1_2", "0123456789ab", "abc")] == [
        "68cb", "68cb", "0123456789", "abc",
    ]  # fmt: skip


def test_repeated_rows_with_other_labels_are_known_issues(tmp_path: Path) -> None:
    edit_reward_bench(tmp_path, rows=3)
    file = next((tmp_path / "2pair").glob("*.parquet"))
    table = pq.read_table(file)
    tie, first, second = table.to_pylist()
    assert [row["ranking"] for row in (tie, first, second)] == ["A=B", "A>B", "B>A"]
    swapped = {
        **second, "candidate_1": second["candidate_2"], "candidate_2": second["candidate_1"], "ranking": "B>A",
    }  # fmt: skip
    other = {**first, "candidate_2": tie["candidate_1"], "ranking": "B>A"}  # of other pictures: no contradiction
    rows = [tie, first, second, {**tie, "ranking": "A>B"}, {**first, "ranking": "B>A"}, second, swapped, other]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    issues = load_suite("editreward-bench", tmp_path, allow_partial=True).issues
    same = "contradicts row {}: {} of the same two responses is preferred there"
    assert issues == {
        0: same.format(3, "one"), 3: same.format(0, "neither"), 1: same.format(4, "the other"),
        4: same.format(1, "the other"), 2: same.format(6, "the other"),
        5: f"{same.format(6, 'the other')}; repeats row 2", 6: same.format(2, "the other"),
    }  # fmt: skip


# ---- scores


def predictions(file: Path, whole: Path, answer, passes: int = 1, ties: str = "judge") -> Path:
    rows = [
        our_row(
            row.index, key=row.key, id=row.id, category=row.category, preferred=row.preferred, longer=row.longer,
            members=row.members, passes=[[vote(answer(row, p), swapped=p == 1)] for p in range(passes)],
        )
        for row in load_suite("editreward-bench", whole, ties=ties).rows()
    ]  # fmt: skip
    return write_lines(file, rows)


def test_one_wrong_comparison_loses_a_group(whole: Path, tmp_path: Path) -> None:
    file = predictions(
        tmp_path / "a.jsonl", whole, lambda row, _: row.preferred % 2 + 1 if row.members == (0, 1) else row.preferred
    )
    values = score_file("editreward-bench", file, data=whole)["official"]["values"]
    assert values == {"overall": 0.0, "2pair": 0.0, "3pair": 0.0, "4pair": 0.0}
    file = predictions(tmp_path / "b.jsonl", whole, lambda row, _: None if row.category == "3pair" else row.preferred)
    scored = score_file("editreward-bench", file)
    assert scored["complete"] and scored["official"]["values"] == {
        "overall": (186 + 148) / 484, "2pair": 1.0, "3pair": 0.0, "4pair": 1.0,
    }  # fmt: skip
    assert scored["notes"] == []


def test_each_order_counts_its_own_groups(whole: Path, tmp_path: Path) -> None:
    """In the second order the judge is wrong on one comparison of each group of four."""
    file = predictions(
        tmp_path / "a.jsonl", whole,
        lambda row, p: 3 - row.preferred if p and row.category == "4pair" and row.members == (2, 3) else row.preferred,
        passes=2,
    )  # fmt: skip
    official = score_file("editreward-bench", file)["official"]
    assert official["values"] == {"overall": (484 + 336) / 968, "2pair": 1.0, "3pair": 1.0, "4pair": 0.5}
    assert official["intervals"]["4pair"] == [0.5, 0.5]


def test_missing_groups_are_reported(whole: Path, tmp_path: Path) -> None:
    file = predictions(tmp_path / "a.jsonl", whole, lambda row, _: row.preferred)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[5:]))
    with pytest.raises(UserError, match="has 484 groups .* 479 were found .2pair: 186 expected, 181 found"):
        score_file("editreward-bench", file)


@pytest.mark.parametrize("told_by", ["--data", "run.json"])
def test_a_run_without_its_ties_is_whole_and_its_table_says_so(whole: Path, tmp_path: Path, told_by: str) -> None:
    file = predictions(tmp_path / "predictions.jsonl", whole, lambda row, _: row.preferred, ties="drop")
    loaded = load_suite("editreward-bench", whole, ties="drop")
    given = {"data": whole, "ties": "drop"}
    if told_by == "run.json":
        given = {}
        run = {"suite": "editreward-bench", "orders": "stored", "data": loaded.describe()}
        (tmp_path / "run.json").write_text(json.dumps(run))
    scored = score_file("editreward-bench", file, **given)
    assert scored["complete"] and scored["size"] == "groups of the paper (484 groups)"
    assert (scored["n"], scored["expected"], scored["ties_left_out"]) == (1462, 1462, 62)
    table = build_table([scored])
    assert "62 rows whose label is a tie were left out; the published rows include them." in table.footnotes
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[6:]))
    with pytest.raises(UserError, match="has 484 groups"):
        score_file("editreward-bench", file, **given)


def test_runs_beside_the_published_rows(whole: Path, tmp_path: Path) -> None:
    run = score_file("editreward-bench", predictions(tmp_path / "good.jsonl", whole, lambda row, _: row.preferred))
    table = build_table([run])
    (section,) = table.sections
    assert section.heading == "Official grouping: K=2/K=3/K=4 = 186/150/148 groups"
    assert table.columns == ("K=2", "K=3", "K=4", "overall")
    rows = {row.model: row for row in section.rows}
    assert rows["good"].cells == tuple("100.00 [100.0, 100.0]" for _ in range(4)) and rows["good"].mark == ""
    assert rows["Random"].cells == ("25.81", "11.33", "1.35", "13.84") and rows["Random"].mark == ""
    assert any("n of a run counts its pairs, while published rows are shares of groups" in note for note in table.notes)


def test_published_overalls_that_do_not_follow_are_flagged() -> None:
    benchmark = find_benchmark("editreward-bench")
    reasons = {row.model: impossible(benchmark, row) for row in benchmark.published}
    possible = {model for model, reason in reasons.items() if reason is None}
    assert possible == {"Random"}
    assert "58.61 is not k/186" in reasons["Gemini-2.5-Flash"]
    assert "7.31 is not k/148" in reasons["GPT-4o"]
    for model, makes in [
        ("GPT-5", "37.97"),
        ("EditReward (Qwen2.5-VL-7B)", "36.36 (176/484)"),
        ("MiMo-VL-7B", "31.32"),
    ]:
        assert makes in reasons[model], reasons[model]


# ---- a run


def test_a_run_a_table_a_comparison_and_a_probe(tmp_path: Path, server) -> None:
    edit_reward_bench(tmp_path / "data", rows=2)
    data = ["--data", str(tmp_path / "data"), "--allow-partial", "--base-url", server.url, "--model", "judge"]
    refused = CliRunner().invoke(app, ["run", "editreward-bench", *data, "--out", str(tmp_path / "tied")])
    assert "1 of 20 rows are ties, but the dialect r1-reward has no ties" in str(refused.exception)
    assert not server.bodies
    data += ["--ties", "drop"]
    result = CliRunner().invoke(app, ["run", "editreward-bench", *data, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    shown = server.bodies[0]["messages"][-1]["content"]
    assert [part["type"] for part in shown].count("image_url") == 3
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["rows"], metrics["ties"], metrics["ties_left_out"]) == (19, 0, 1)
    assert metrics["official"]["values"]["2pair"] == 0.5  # a judge that always says 1, in both orders
    assert metrics["baselines"]["longer"] is None
    report = (tmp_path / "run" / "report.md").read_text()
    assert "Rows whose label is a tie are left out: 1." in report and "A group of three or four edits" in report
    (section,) = build_table([load_run(tmp_path / "run")], published=False).sections
    assert section.rows[0].mark.startswith("(")
    table = build_table([load_run(tmp_path / "run")])
    assert any("1 rows whose label is a tie were left out; the published" in note for note in table.footnotes)
    assert "Not on the official 484 groups." in table.footnotes
    compare = ["compare", str(tmp_path / "run"), str(tmp_path / "run"), "--json"]
    assert json.loads(CliRunner().invoke(app, compare).output)["n"] == 19
    server.default = [reply("<think>Both.</think><answer>2</answer>")]
    probe = ["probe", "editreward-bench", *data, "--attacks", "answer_tag", "--out", str(tmp_path / "probe"), "--json"]
    result = CliRunner().invoke(app, probe)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["attacks"]["answer_tag"]["n"] == 38
