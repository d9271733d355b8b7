"""MMRB2: both file formats, its official score and prediction format, and an end-to-end run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from official_mmrb2 import CHOSEN_A, always_a, mmrb2, mmrb2_built, mmrb2_pairs
from scripted_server import reply
from typer.testing import CliRunner

from r1_reward.bench.benchmarks.mmrb2 import TASKS, numbers
from r1_reward.bench.report import export_run
from r1_reward.bench.rows import Outcome, Vote
from r1_reward.bench.run import prediction_line
from r1_reward.bench.score import score_file
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.cli.bench import app
from r1_reward.records.content import read_parts
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return mmrb2_built(tmp_path_factory.mktemp("built"))


def kinds(content) -> list[str]:
    return [piece if isinstance(piece, str) else piece.kind for piece in read_parts(content)]


def test_both_formats_have_the_official_size_and_the_same_pairs(built: Path, tmp_path: Path) -> None:
    hub, json_form = load_suite("mmrb2", mmrb2(tmp_path)), load_suite("mmrb2", built)
    assert hub.n == json_form.n == 4000
    assert hub.size == json_form.size and hub.size.categories == dict.fromkeys(TASKS, 1000)
    for one, other in zip(hub.rows(), json_form.rows(), strict=True):
        assert (one.id, one.preferred, one.category) == (other.id, other.preferred, other.category)
        for name in ("question", "response_1", "response_2"):
            assert kinds(getattr(one, name)) == kinds(getattr(other, name))


def test_one_task_is_an_official_size(built: Path) -> None:
    loaded = load_suite("mmrb2", built / "edit.json")
    assert loaded.size.label == "edit of the release of December 2025 (4,000 pairs)"
    assert loaded.size.rows == loaded.n == 1000
    assert sum(row.preferred == 1 for row in loaded.rows()) == CHOSEN_A["edit"]


def test_fewer_rows_are_reported(tmp_path: Path) -> None:
    mmrb2_built(tmp_path, rows=3)
    with pytest.raises(UserError, match=r"MMRB2 has 4,000 rows \(or a subset of .* 12 were found \(edit: 1,0"):
        load_suite("mmrb2", tmp_path)
    assert load_suite("mmrb2", tmp_path, allow_partial=True).n == 12
    (tmp_path / "t2i.json").unlink()
    with pytest.raises(UserError, match=r"9 were found \(edit: 1,000 expected, 3 found; interleaved"):
        load_suite("mmrb2", tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none: contains no file or folder of a task \(t2i, edit"):
        load_suite("mmrb2", tmp_path / "none")
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(UserError, match="the name of the file or of its folder must give the task"):
        load_suite("mmrb2", tmp_path / "rows.json")


def broken(change) -> dict:
    pair = json.loads(json.dumps(mmrb2_pairs("edit", rows=1)[0]))
    change(pair)
    return pair


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda pair: pair.pop("chosen"), "chosen: is missing"),
        (lambda pair: pair.update(chosen="tie"), 'chosen: must be "A" or "B" or "a" or "b", not "tie"'),
        (lambda pair: pair.update(prompt_content=[["text", " "]]), "prompt_content: is empty"),
        (lambda pair: pair["response_a"].pop("response_content"), "response_a.response_content: is missing"),
        (
            lambda pair: pair["response_b"].update(response_content=[["video", "x"]]),
            "response_b.response_content: must be",
        ),
        (lambda pair: pair["response_b"].update(response_content=[["image", "images/gone.png"]]), "no such file"),
        (
            lambda pair: pair["response_b"].update(response_content=[["image", "images/0.png"]] * 65),
            "images, but the limit is 64",
        ),
        (lambda pair: pair.update(id=7), "id: must be text, not a number"),
    ],
)
def test_invalid_rows_are_reported_before_any_is_judged(tmp_path: Path, change, reason: str) -> None:
    mmrb2_built(tmp_path, rows=1)
    (tmp_path / "edit.json").write_text(json.dumps({"pairs": [broken(change)]}))
    with pytest.raises(SuiteFileError, match="edit.json, row 1") as error:
        load_suite("mmrb2", tmp_path, allow_partial=True)
    assert reason in str(error.value)


def test_columns_with_unmatched_placeholders(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    mmrb2(tmp_path, rows=2)
    file = tmp_path / "t2i" / "test-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[0]["response_a_text"] = "<image_1> and <image_2> and <image_3>"
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    with pytest.raises(SuiteFileError, match="response_a_text: has 3 image placeholders, but the row has 1 images"):
        load_suite("mmrb2", tmp_path, allow_partial=True)


# ---- scores


def judgment(answer: int | None, swapped: bool) -> Judgment:
    return Judgment(answer=answer, swapped=swapped, text="", well_formed=True, tokens=1)


def predictions(built: Path, folder: Path, answers) -> Path:
    file = folder / "predictions.jsonl"
    loaded = load_suite("mmrb2", built)
    with open(file, "w", encoding="utf-8") as lines:
        for row in loaded.rows():
            passes = [[judgment(answers(row, swapped), swapped)] for swapped in (False, True)]
            lines.write(json.dumps(prediction_line(row, passes)) + "\n")
    return file


def test_the_official_sample_of_a_judge_that_prefers_a(built: Path, tmp_path: Path) -> None:
    """The repository's README prints 53.2, 55.5, 57.5 and 47.5 for its samples, 53.42 pooled."""
    scored = score_file("mmrb2", predictions(built, tmp_path, lambda *_: 1))
    assert scored["official"]["values"] == pytest.approx(
        {"mean": 0.53425, "pooled": 0.53425, "t2i": 0.532, "edit": 0.555, "interleaved": 0.575, "reasoning": 0.475}
        | {"coverage": 1.0}
    )
    low, high = scored["official"]["intervals"]["pooled"]
    assert 0.51 < low < 0.534 < high < 0.56


def test_unreadable_judgments_are_excluded_from_the_denominator(built: Path, tmp_path: Path) -> None:
    file = predictions(built, tmp_path, lambda row, swapped: None if swapped else row.preferred)
    values = score_file("mmrb2", file)["official"]["values"]
    assert values["pooled"] == values["mean"] == 1.0 and values["coverage"] == 0.5
    silent = score_file("mmrb2", predictions(built, tmp_path, lambda *_: None))["official"]
    assert silent["values"]["pooled"] is None and silent["values"]["coverage"] == 0.0
    assert silent["intervals"]["pooled"] is None


def test_tasks_alone_have_no_mean(built: Path, tmp_path: Path) -> None:
    for task in ("edit", "t2i"):
        (tmp_path / f"{task}.json").write_bytes((built / f"{task}.json").read_bytes())
    (tmp_path / "images").symlink_to(built / "images")
    (tmp_path / "input_images").symlink_to(built / "input_images")
    loaded = load_suite("mmrb2", tmp_path)
    assert loaded.size.rows == 2000 and loaded.size.categories == {"t2i": 1000, "edit": 1000}
    scored = score_file("mmrb2", predictions(tmp_path, tmp_path, lambda *_: 1))
    assert scored["complete"] and scored["expected"] == 2000
    values = scored["official"]["values"]
    assert values["mean"] is None and values["pooled"] == pytest.approx(0.5435) and values["reasoning"] is None


# ---- predictions in the official format


def said(*judgements) -> list[dict]:
    return [{"judgement": judgement, "evaluator": "e", "metadata": {}} for judgement in judgements]


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return mmrb2_built(tmp_path_factory.mktemp("few"), rows=2)


def official(folder: Path, few: Path, predictions, task="edit") -> dict:
    (folder / "said.json").write_text(json.dumps(predictions))
    return score_file("mmrb2", folder / "said.json", data=few, allow_partial=True)


@pytest.mark.parametrize(
    ("prediction", "right", "judged"),
    [
        ({"forward": said("A"), "reverse": said("B")}, 2, 2),
        ({"forward": said("A"), "reverse": said("A")}, 1, 2),
        ({"forward": said("B", "A", "A")}, 0, 1),  # only the first entry
        ({"forward": said(None, "A"), "reverse": said("", "B")}, 0, 0),
        ({"forward": said("a"), "reverse": said("tie")}, 0, 2),
        ({"forward": [], "reverse": said("B")}, 1, 1),
        ({"forward": None, "reverse": said("B")}, 1, 1),
        ({"forward": [{}]}, 0, 0),
        ({}, 0, 0),
    ],
)
def test_the_first_entry_of_each_direction_counts(tmp_path: Path, few: Path, prediction, right, judged) -> None:
    """Only one of two pairs is in the file; the other was never judged."""
    pairs = mmrb2_pairs("edit", rows=2)
    id = next(pair["id"] for pair in pairs if pair["chosen"] == "A")
    scored = official(tmp_path, few, {id: prediction})
    assert (scored["format"], scored["orders"], scored["rows"]) == ("mmrb2", "both", 2)
    values = scored["official"]["values"]
    assert values["edit"] == (right / judged if judged else None)
    assert values["coverage"] == judged / 4
    assert scored["parse_rate"] == judged / 4


def test_an_exported_run_scores_like_the_run(built: Path, tmp_path: Path) -> None:
    from r1_reward.bench.benchmarks.mmrb2 import write_form

    answers = lambda row, swapped: [None, 1, 2][(row.index + swapped) % 3]  # noqa: E731
    file = predictions(built, tmp_path, answers)
    for name, value in write_form(map(json.loads, file.read_text().splitlines())).items():
        (tmp_path / "official").mkdir(exist_ok=True)
        (tmp_path / "official" / name).write_text(json.dumps(value))
    ours, theirs = score_file("mmrb2", file), score_file("mmrb2", tmp_path / "official", data=built)
    assert ours["official"] == theirs["official"] and ours["by_position"] == theirs["by_position"]
    assert theirs["complete"] and theirs["rows"] == 4000
    one = score_file("mmrb2", tmp_path / "official" / "edit.json", data=built)
    assert one["complete"] and one["rows"] == 1000
    assert one["official"]["values"]["edit"] == ours["official"]["values"]["edit"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "has no rows"),
        ({}, "must be one JSON object"),
        ("A", "must be one JSON object"),
        ({"p": ["A"]}, 'pair \'p\' must have lists "forward" and "reverse"'),
        ({"p": {"forward": "A"}}, "pair 'p' must have lists"),
        ({"p": {"forward": ["A"]}}, "pair 'p' must have lists"),
        ({"p": {"reverse": {"judgement": "A"}}}, "pair 'p' must have lists"),
        ({"p": {"forward": said("A")}}, "1 of 1 pairs are not in --data, such as 'p'"),
    ],
)
def test_other_formats_are_reported(tmp_path: Path, few: Path, value, told: str) -> None:
    with pytest.raises(UserError, match="said.json") as error:
        official(tmp_path, few, value)
    assert told in str(error.value)


def test_the_official_form_needs_labels_and_each_pair_once(tmp_path: Path, few: Path) -> None:
    folder = tmp_path / "said"
    folder.mkdir()
    text = json.dumps(always_a(mmrb2_pairs("edit", rows=2)))
    (folder / "task2_edit.json").write_text(text)
    with pytest.raises(UserError, match="has no labels; pass the benchmark's rows"):
        score_file("mmrb2", folder)
    assert score_file("mmrb2", folder, data=few, allow_partial=True)["official"]["values"]["coverage"] == 1.0
    (folder / "task2_edit_again.json").write_text(text)
    with pytest.raises(UserError, match="again.json: pair .* is also in another file"):
        score_file("mmrb2", folder, data=few, allow_partial=True)
    (folder / "task2_edit_again.json").write_text(text[:-9])
    with pytest.raises(UserError, match="again.json: is not JSON"):
        score_file("mmrb2", folder, data=few, allow_partial=True)


# ---- a run


def test_a_run_is_scored_and_exported_in_the_official_form(built: Path, tmp_path: Path, server) -> None:
    data = mmrb2_built(tmp_path / "data", rows=4)
    server.default = [reply("<think>Both.</think><answer>1</answer>")]
    run = ["run", "mmrb2", "--data", str(data), "--allow-partial", "--base-url", server.url]
    result = CliRunner().invoke(app, [*run, "--model", "judge", "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["official"]["values"]["pooled"] == 0.5 and metrics["official"]["values"]["coverage"] == 1.0
    assert "Official score" in (tmp_path / "run" / "report.md").read_text()
    shown = server.bodies[0]["messages"][-1]["content"]
    assert [part["type"] for part in shown].count("image_url") >= 2 and shown[-1]["type"] == "text"
    result = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--out", str(tmp_path / "official")])
    assert result.exit_code == 0, result.output
    for task in TASKS:
        exported = json.loads((tmp_path / "official" / f"{task}.json").read_text())
        assert list(exported) == list(always_a(mmrb2_pairs(task, rows=4)))
        for pair in exported.values():  # a judge that always says 1
            assert [one["judgement"] for one in (*pair["forward"], *pair["reverse"])] == ["A", "A"]


def test_rows_that_share_an_id_are_scored_each() -> None:
    rows = [Outcome(i, "7", ((Vote(right, True),),), "t2i") for i, right in enumerate([True, False, True, True])]
    assert numbers([rows[:2], rows[2:]])["pooled"] == 0.75


def test_a_run_without_a_verdict_has_nothing_to_export(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"suite": "mmrb2"}))
    for _ in range(2):
        with pytest.raises(UserError, match="no row is judged yet; finish the run"):
            export_run(tmp_path, tmp_path / "x")
        (tmp_path / "predictions.jsonl").touch()


def test_a_benchmark_without_an_official_format_is_reported(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"suite": "vl-rewardbench"}')
    result = CliRunner().invoke(app, ["export", str(tmp_path), "--out", str(tmp_path / "x")])
    assert isinstance(result.exception, UserError)
    assert "VL-RewardBench has no official prediction format" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "pictures", "rows"),
    [
        ("See <image_1>.", 3, 2),
        ("<image_1> and <image_2>", 5, 2),
        ("See <image_1>.", 1, 0),
        ("No place.", 3, 0),
        ("", 2, 0),
    ],
)
@pytest.mark.parametrize("name", ["prompt", "response_a", "response_b"])
def test_pictures_beyond_the_placeholders_are_reported(tmp_path, name, text, pictures, rows):
    mmrb2(tmp_path, rows=2)
    (file,) = (tmp_path / "t2i").glob("*.parquet")
    table = pq.read_table(file)
    cells = [row["response_a_images"][0] for row in table.to_pylist()]
    changed = [
        row | {f"{name}_text": text, f"{name}_images": [cell] * pictures}
        for row, cell in zip(table.to_pylist(), cells, strict=True)
    ]
    pq.write_table(type(table).from_pylist(changed, table.schema), file)
    notes = load_suite("mmrb2", tmp_path / "t2i", allow_partial=True).notes
    told = [note for note in notes if "beyond the placeholders" in note]
    note = f"{rows} rows: images beyond the placeholders in their text are not shown, as in the official build."
    assert told == ([note] if rows else [])
