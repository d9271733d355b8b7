"""Omni-RewardBench: both file formats, ties, criteria, images as answers, invalid rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from official_files import OMNI, OMNI_MEDIA, PICTURES, omni_reward_bench, omni_rows, write_json
from prediction_rows import our_row, vote, write_lines
from scripted_server import reply
from typer.testing import CliRunner

from r1_reward.bench.benchmark import OFFICIAL, WITH_TIES
from r1_reward.bench.benchmarks import find_benchmark
from r1_reward.bench.benchmarks.omni_rewardbench import TASKS, pair_of
from r1_reward.bench.published import impossible
from r1_reward.bench.score import score_file
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.bench.table import build_table
from r1_reward.cli.bench import app
from r1_reward.records.content import places_of
from r1_reward.records.errors import UserError

ROWS = {task: OMNI[name][0] for task, name in TASKS.items()}
TIES = {task: OMNI[name][1] for task, name in TASKS.items()}


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    return omni_reward_bench(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def json_form(tmp_path_factory) -> Path:
    return omni_reward_bench(tmp_path_factory.mktemp("json"), form="json")


def counts(loaded) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in loaded.rows():
        found[row.category] = found.get(row.category, 0) + 1
    return found


def test_without_ties_by_default_and_with_them_if_asked(hub: Path, json_form: Path) -> None:
    for folder in (hub, json_form):
        without, everything = (
            load_suite("omni-rewardbench", folder),
            load_suite("omni-rewardbench", folder, ties="judge"),
        )
        assert counts(without) == {task: ROWS[task] - TIES[task] for task in TASKS}
        assert (without.n, without.ties, without.ties_left_out) == (1824, 0, 302)
        assert "Rows whose label is a tie are left out: 302." in without.notes
        assert counts(everything) == ROWS
        assert (everything.n, everything.ties, everything.ties_left_out) == (2126, 302, 0)
        assert without.size == everything.size and everything.size.rows == 2126


def test_both_formats_have_the_same_rows(hub: Path, json_form: Path) -> None:
    loaded = [load_suite("omni-rewardbench", folder, ties="judge") for folder in (hub, json_form)]
    for one, other in zip(*(suite.rows() for suite in loaded), strict=True):
        assert (one.id, one.question, one.criteria, one.preferred) == (
            other.id, other.question, other.criteria, other.preferred,
        )  # fmt: skip
        shown = "response1" in OMNI_MEDIA[TASKS[one.category]]
        for row in (one, other):
            assert [len(places_of(content)) for content in (row.response_1, row.response_2)] == [shown, shown]
            assert len(row.images) == row.category.startswith("TI")
            assert (row.video is not None) == (row.category == "TV2T")


def test_an_id_is_one_pair_and_one_criterion(hub: Path) -> None:
    rows = list(load_suite("omni-rewardbench", hub, ties="judge").rows())
    assert len({row.id for row in rows}) == len(rows)
    pairs = {(row.category, row.question) for row in rows}
    assert len({pair_of(row.id) for row in rows}) == len(pairs) < len(rows) / 2


@pytest.mark.parametrize("tasks", [["T2T"], ["TI2I", "TV2T"]])
def test_some_tasks_alone_are_official_rows(json_form: Path, tmp_path: Path, tasks: list[str]) -> None:
    (tmp_path / "media_data").symlink_to(json_form / "media_data")
    for task in tasks:
        name = f"{TASKS[task]}_preferences.json"
        (tmp_path / name).write_bytes((json_form / name).read_bytes())
    loaded = load_suite("omni-rewardbench", tmp_path)
    assert loaded.size.rows == sum(ROWS[task] for task in tasks) and set(counts(loaded)) == set(tasks)
    if len(tasks) == 1:  # the file by itself
        assert load_suite("omni-rewardbench", tmp_path / name).n == loaded.n


def test_a_file_in_the_folder_of_its_task(hub: Path) -> None:
    file = next((hub / "text_video_to_text").glob("*.parquet"))
    loaded = load_suite("omni-rewardbench", file)
    assert loaded.n == 380 and next(iter(loaded.rows())).video.startswith(str(hub / "media_data"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text_audio_to_text", "its questions are about audio"),
        ("text_to_video", "its answers are videos"),
        ("text_to_audio", "its answers are audio"),
        ("text_to_3D", "its answers are 3D objects"),
    ],
)
def test_unsupported_tasks_are_named_and_skipped(tmp_path: Path, name: str, reason: str) -> None:
    omni_reward_bench(tmp_path, rows=2, form="json")
    write_json(tmp_path / f"{name}_preferences.json", [{"prompt": "x"}])
    loaded = load_suite("omni-rewardbench", tmp_path, allow_partial=True)
    assert f"{name}: skipped, as {reason}." in loaded.notes
    with pytest.raises(UserError, match=f"{name}.* is not supported: {reason}. Supported tasks: T2T, TI2T"):
        load_suite("omni-rewardbench", tmp_path / f"{name}_preferences.json")
    write_json(tmp_path / "alone" / name / "test.json", [{"prompt": "x"}])
    with pytest.raises(UserError, match=f"{name} is not supported"):
        load_suite("omni-rewardbench", tmp_path / "alone")


# ---- rows that cannot be judged


@pytest.mark.parametrize(
    ("task", "change", "reason"),
    [
        ("T2T", {"criteria_preference": None}, "criteria_preference: is missing"),
        ("T2T", {"criteria_preference": "A"}, 'must be "response1" or "response2" or "tie", not "A"'),
        ("T2T", {"criteria": None}, "criteria: is missing"),
        ("T2T", {"criteria": " "}, "criteria: is blank"),
        ("TI2T", {"response2": None}, "response2: is missing"),
        ("TI2T", {"image": None}, "image: is missing"),
        ("TI2T", {"image": "text_image_to_text/gone.png"}, "gone.png: no such file"),
        ("TV2T", {"video": None}, "video: is missing"),
        ("TV2T", {"video": "text_video_to_text/gone.mp4"}, "gone.mp4"),
        ("T2I", {"response1": None}, "response1: is missing"),
        ("T2I", {"response1": 7}, "response1: must be a path or an embedded image, not a number"),
        ("T2I", {"response2": "text_to_image/empty.png"}, "empty.png: is empty (zero bytes)"),
        ("TI2I", {"image": None}, "image: is missing"),
        ("TI2I", {"response2": "text_image_to_image/gone.png"}, "gone.png: no such file"),
    ],
)
def test_invalid_rows_are_reported_before_any_is_judged(tmp_path: Path, task: str, change, reason: str) -> None:
    omni_reward_bench(tmp_path, rows=2, form="json")
    (tmp_path / "media_data" / "text_to_image" / "empty.png").touch()
    name = TASKS[task]
    first, second = omni_rows(name, rows=2)
    write_json(tmp_path / f"{name}_preferences.json", [first, {**second, **change}])
    with pytest.raises(SuiteFileError, match=f"{name}_preferences.json, row 2") as error:
        load_suite("omni-rewardbench", tmp_path, allow_partial=True)
    assert reason in str(error.value) and len(error.value.problems) == 1


@pytest.mark.parametrize("name", ["image", "response1", "response2"])
def test_an_embedded_picture_of_no_bytes(tmp_path: Path, name: str) -> None:
    omni_reward_bench(tmp_path, rows=2)
    file = tmp_path / "text_image_to_image" / "test-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1][name]["bytes"] = b""
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    with pytest.raises(SuiteFileError, match=rf"row 2, {name}: is empty \(zero bytes\)"):
        load_suite("omni-rewardbench", tmp_path, allow_partial=True)


def test_the_same_pair_and_criteria_with_another_label_is_reported(tmp_path: Path) -> None:
    omni_reward_bench(tmp_path, rows=1, form="json")
    row = omni_rows("text_to_text", rows=1)[0]
    turned = {**row, "response1": row["response2"], "response2": row["response1"], "criteria_preference": "response1"}
    lines = [
        {**row, "criteria_preference": "response1"}, {**row, "criteria_preference": "tie"}, turned,
        {**row, "criteria": "Another.", "criteria_preference": "response2"},
        {**row, "criteria_preference": "response1"},
    ]  # fmt: skip
    write_json(tmp_path / "text_to_text_preferences.json", lines)
    issues = load_suite("omni-rewardbench", tmp_path, allow_partial=True, ties="judge").issues
    same = "contradicts row {}: {} of the same two responses is preferred there"
    assert {row: reason for row, reason in issues.items() if row < 5} == {
        0: same.format(1, "neither"), 1: same.format(0, "one"), 2: same.format(0, "the other"),
        4: f"{same.format(1, 'neither')}; repeats row 0",
    }  # fmt: skip


# ---- a run


def run(folder: Path, server, out: Path, *more: str):
    command = ["run", "omni-rewardbench", "--data", str(folder), "--allow-partial", "--base-url", server.url]
    return CliRunner().invoke(app, [*command, "--model", "judge", "--orders", "stored", "--out", str(out), *more])


def test_a_run_shows_criteria_and_pictures_and_is_tabled(tmp_path: Path, server) -> None:
    omni_reward_bench(tmp_path / "data", rows=4)
    result = run(tmp_path / "data", server, tmp_path / "out")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rows = list(load_suite("omni-rewardbench", tmp_path / "data", allow_partial=True).rows())
    assert metrics["ties"] == 0 and metrics["rows"] == len(rows)
    by_task = {task: [row.preferred == 1 for row in rows if row.category == task] for task in TASKS}
    shares = {task: sum(own) / len(own) for task, own in by_task.items()}
    assert {task: one["accuracy"] for task, one in metrics["categories"].items()} == shares
    assert metrics["macro"] == pytest.approx(sum(shares.values()) / 5)
    pictures = set()
    for body in server.bodies:
        parts = body["messages"][-1]["content"]
        text = parts if isinstance(parts, str) else " ".join(part.get("text", "") for part in parts)
        assert "better in way" in text
        pictures.add(0 if isinstance(parts, str) else sum(part["type"] == "image_url" for part in parts))
    assert pictures == {0, 1, 2, 3, 10}  # T2T, TI2T, T2I, TI2I, and the ten frames of TV2T
    scored = score_file("omni-rewardbench", tmp_path / "out" / "predictions.jsonl", allow_partial=True)
    assert scored["macro"] == metrics["macro"] and scored["intervals"] == metrics["intervals"]
    again = CliRunner().invoke(app, ["compare", str(tmp_path / "out"), str(tmp_path / "out"), "--json"])
    assert json.loads(again.output)["difference"]["mean"] == 0.0


def test_ties_are_refused_before_the_first_judgement(tmp_path: Path, server) -> None:
    omni_reward_bench(tmp_path / "data", rows=3)
    result = run(tmp_path / "data", server, tmp_path / "out", "--ties", "judge")
    assert isinstance(result.exception, UserError) and not server.bodies
    told = r"5 of 15 rows are ties, but the dialect r1-reward has no ties; leave them out with --ties drop"
    assert told in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_pair_file_with_ties_is_refused_the_same(tmp_path: Path, server) -> None:
    (tmp_path / "a.png").write_bytes(PICTURES[0])
    shown = {"images": ["a.png"], "response_1": "a", "response_2": "b"}
    rows = [{"id": str(i), "question": f"Which {i}?", **shown, "preferred": i} for i in range(3)]
    write_lines(tmp_path / "pairs.jsonl", rows)
    command = ["run", "pairs", "--data", str(tmp_path / "pairs.jsonl"), "--base-url", server.url, "--model", "judge"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert "1 of 3 rows are ties, but the dialect r1-reward" in str(result.exception)
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), "--ties", "drop"])
    assert result.exit_code == 0, result.output


def test_probes_attack_pictures_and_refuse_ties(tmp_path: Path, server) -> None:
    omni_reward_bench(tmp_path / "data", rows=3)
    command = ["probe", "omni-rewardbench", "--data", str(tmp_path / "data"), "--allow-partial", "--model", "judge"]
    command += ["--base-url", server.url, "--attacks", "confident", "--json", "--out"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "tied"), "--ties", "judge"])
    assert "5 of 15 rows are ties, which have no rejected response" in str(result.exception)
    server.default = [reply("<think>Both.</think><answer>1</answer>")]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["n"] == 10 and found["attacks"]["confident"]["n"] == 20


# ---- scores


def scored(tmp_path: Path, *, ties: bool, right: float = 0.5, name: str = "judge", votes: int = 1) -> dict:
    """A run on rows of official size in which the judge says tie for each fifth row."""
    rows = []
    for task in TASKS:
        labels = [0] * TIES[task] * ties + [1] * (ROWS[task] - TIES[task])
        for i, label in enumerate(labels):
            answer = 0 if i % 5 == 0 else label if i % 10 < 10 * right else 2
            rows.append(
                our_row(
                    len(rows), id=f"x:{task}{i // 2}-{i}", category=task, preferred=label, longer=None,
                    passes=[[vote(answer)] * votes],
                )
            )  # fmt: skip
    return score_file("omni-rewardbench", write_lines(tmp_path / f"{name}.jsonl", rows), name=name)


def test_ties_decide_the_section_of_a_run(tmp_path: Path) -> None:
    runs = [scored(tmp_path, ties=False, name="without"), scored(tmp_path, ties=True, name="with")]
    assert [(run["rows"], run["ties"], run["complete"]) for run in runs] == [(1824, 0, True), (2126, 302, True)]
    table = build_table(runs)
    official, with_ties = table.sections
    assert official.heading.startswith("Official grouping, without ties: T2T/TI2T/TV2T/T2I/TI2I = 366/430/380/441/207")
    assert with_ties.heading.startswith(
        "With ties, and a judge that may answer with a tie: T2T/TI2T/TV2T/T2I/TI2I = 417/528/443/"
    )
    names = [[row.model for row in section.rows] for section in (official, with_ties)]
    assert names[0][-1] == "without" and names[1][-1] == "with"
    assert names[0][:-1] == [
        row.model for row in find_benchmark("omni-rewardbench").published if row.grouping == OFFICIAL
    ]
    assert not any(row.mark for section in table.sections for row in section.rows if not row.published)
    assert table.columns == ("T2T", "TI2T", "TV2T", "T2I", "TI2I", "mean")
    cells = {row.model: row.cells for row in official.rows}
    assert cells["GPT-4o"] == ("86.89", "75.58", "77.11", "69.61", "73.91", "–")


def test_a_run_on_some_tasks_is_not_another_version(tmp_path: Path) -> None:
    rows = [our_row(i, category="T2T", longer=None) for i in range(366)]
    run = score_file("omni-rewardbench", write_lines(tmp_path / "a.jsonl", rows))
    assert run["complete"] and run["expected"] == 366
    (row,) = [row for section in build_table([run], published=False).sections for row in section.rows]
    assert row.mark == "" and row.cells[1:5] == ("–",) * 4
    with pytest.raises(UserError, match="has 1,824 or 2,126 rows .* 365 were found .T2T: 366 expected, 365 found"):
        score_file("omni-rewardbench", write_lines(tmp_path / "a.jsonl", rows[1:]))


def test_rows_of_a_pair_are_one_cluster(tmp_path: Path) -> None:
    """Ten criteria of one pair, all right or all wrong, are as uncertain as one."""
    spans = []
    for share in (1, 10):
        rows = [
            our_row(i, id=f"x:{i // share}-{i}", category="T2T", passes=[[vote(1 + i // 10 % 2)]]) for i in range(200)
        ]
        low, high = score_file("omni-rewardbench", write_lines(tmp_path / "a.jsonl", rows), allow_partial=True)[
            "intervals"
        ]["overall"]
        spans.append(high - low)
    assert spans[1] > 2 * spans[0]


def test_rows_with_ties_are_joined_by_the_option(json_form: Path, tmp_path: Path) -> None:
    loaded = load_suite("omni-rewardbench", json_form, ties="judge")
    rows = [
        our_row(
            row.index, key=row.key, id=row.id, category=row.category, preferred=row.preferred,
            passes=[[vote(row.preferred)]],
        )
        for row in loaded.rows()
    ]  # fmt: skip
    file = write_lines(tmp_path / "predictions.jsonl", rows)
    command = ["score", "omni-rewardbench", str(file), "--data", str(json_form), "--json"]
    result = CliRunner().invoke(app, [*command, "--ties", "judge"])
    assert result.exit_code == 0 and json.loads(result.output)["overall"] == 1.0
    assert isinstance(CliRunner().invoke(app, command).exception, UserError)
    with pytest.raises(UserError, match=r"--ties judge has no effect without --data"):
        score_file("omni-rewardbench", file, ties="judge")


def test_published_numbers_that_cannot_be_counts() -> None:
    benchmark = find_benchmark("omni-rewardbench")
    reasons = {(row.model, row.grouping): impossible(benchmark, row) for row in benchmark.published}
    assert {key: reason.split(":")[0] for key, reason in reasons.items() if reason} == {
        ("Omni-RewardModel-R1", OFFICIAL): "81.77 is not k/366",
        ("UnifiedReward1.5", OFFICIAL): "67.39 is not k/430",
    }
    assert benchmark.groupings[WITH_TIES] == ROWS
