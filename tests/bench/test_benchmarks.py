"""A benchmark is one record: a made-up one is loaded, judged, scored and shown in a table without other changes."""

from __future__ import annotations

import json

import pytest
from fakes import FakeEngine, shown
from PIL import Image

from r1_reward.bench.benchmark import (
    OVERALL,
    About,
    Benchmark,
    Column,
    Judged,
    PredictionFormat,
    Protocol,
    Size,
    category_columns,
    published_row,
)
from r1_reward.bench.benchmarks import REGISTERED, benchmark_names, find_benchmark, register
from r1_reward.bench.fields import Draft, Fields
from r1_reward.bench.overview import build_tables
from r1_reward.bench.report import write_metrics
from r1_reward.bench.rows import Vote
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.score import score_file
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.bench.table import load_run
from r1_reward.engines.workers import EngineSpec
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion

CATEGORIES = ("cups", "birds")
COLUMNS = (*category_columns(CATEGORIES), Column("all", "metric", "overall"))


def parse(row: Fields) -> Draft:
    good, bad = row.texts("answers")
    return Draft(row.text("name"), row.text("ask"), good, bad, 1, row.text("topic"), images=row.image("image"))


def read_letters(row: Fields, _benchmark: Benchmark) -> Judged:
    return Judged(row.text("name"), (Vote(row.label("letter", [("x", 1), ("y", 2)]) == 1),), row)


COUNTING = Benchmark(
    name="counting",
    title="Counting Bench",
    parse=parse,
    marks=("ask",),
    sizes=(Size("all 4 rows", 4, {"cups": 2, "birds": 2}),),
    categories=CATEGORIES,
    columns=COLUMNS,
    protocol=Protocol(orders="as drawn", rule="drop", frames=5),
    published=(
        published_row(COLUMNS, "Abacus", "50.00 100.00 75.00", "a paper"),
        published_row(COLUMNS, "Soothsayer", "51.00 100.00 75.00", "a paper"),
    ),
    notes=("Two cups are a pair.",),
    id_field="name",
    about=lambda row, _id: About(category=row.data["topic"]),
    prediction_formats=(
        PredictionFormat("letters", "letter", lambda data: "letter" in data, read_letters, orders="as drawn"),
    ),
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr("r1_reward.bench.benchmarks.REGISTERED", REGISTERED.copy())
    register(COUNTING)


@pytest.fixture
def rows(tmp_path):
    """The path of the rows, and the rows."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines = [
        {"name": f"id{i}", "ask": f"How many {topic}?", "answers": [f"right {i}", f"wrong {i}"], "topic": topic}
        | {"image": "a.png"}
        for i, topic in enumerate(("cups", "cups", "birds", "birds"))
    ]
    return write(tmp_path / "rows.jsonl", lines), lines


def write(file, lines):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


class Judge(FakeEngine):
    """Knows the right answer, except for row 3."""

    def answer(self, requests):
        for request in requests:
            _, first, _ = shown(request)
            right = 1 if first.startswith("right") else 2
            answer = 3 - right if first.endswith("3") else right
            yield [Completion(text=f"<think>.</think><answer>{answer}</answer>", tokens=7) for _ in request.seeds]


def test_load_run_score_and_table(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(EngineSpec, "load", lambda self: Judge())
    loaded = load_suite("counting", rows[0])
    assert loaded.size == COUNTING.sizes[0] and loaded.notes == []
    missing = run_benchmark(loaded, RunSettings(model="tiny"), tmp_path / "out")
    metrics = write_metrics(tmp_path / "out", expected=loaded.n, missing=missing, notes=loaded.notes)
    assert (metrics["overall"], metrics["acc_plus"], metrics["complete"]) == (0.75, None, True)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "orders: as drawn; votes: 1; unreadable verdicts: drop; video frames: 5" in report

    scored = score_file("counting", tmp_path / "out" / "predictions.jsonl", name="again")
    assert {name: one["accuracy"] for name, one in scored["categories"].items()} == {"cups": 1.0, "birds": 0.5}
    assert (scored["format"], scored["overall"], scored["expected"]) == ("ours", 0.75, 4)

    (table,) = build_tables([load_run(tmp_path / "out"), scored])
    assert (table.title, table.columns) == ("Counting Bench: accuracy (%)", ("cups", "birds", "all"))
    (section,) = table.sections
    assert section.heading == "Official grouping: cups/birds = 2/2 rows"
    found = {row.model: row for row in section.rows}
    assert found["Abacus"].cells == ("50.00", "100.00", "75.00") and found["Abacus"].mark == ""
    assert found["Soothsayer"].mark.startswith("impossible")
    assert found["tiny"].cells[:2] == found["again"].cells[:2] == ("100.00", "50.00")
    assert found["tiny"].cells[2].startswith("75.00 [")
    assert "Two cups are a pair." in table.notes


def test_its_own_prediction_files(rows, tmp_path):
    lines = [{"name": row["name"], "topic": row["topic"], "letter": "xxyy"[i]} for i, row in enumerate(rows[1])]
    scored = score_file("counting", write(tmp_path / "p.jsonl", lines))
    assert (scored["format"], scored["orders"], scored["overall"]) == ("letters", "as drawn", 0.5)
    assert {name: one["accuracy"] for name, one in scored["categories"].items()} == {"cups": 1.0, "birds": 0.0}
    lines[1]["letter"] = "z"
    with pytest.raises(UserError, match=r'p\.jsonl, line 2, letter: must be "x" or "y", not "z"'):
        score_file("counting", write(tmp_path / "p.jsonl", lines))
    with pytest.raises(UserError, match=r"is a row of Counting Bench's scripts \(counting\), not pairs"):
        score_file("pairs", tmp_path / "p.jsonl")
    with pytest.raises(UserError, match=r"rewards \(r1_reward\), .*or letter \(Counting Bench\)"):
        score_file("counting", write(tmp_path / "p.jsonl", [{"name": "id0"}]))


def test_what_is_wrong_with_its_rows_names_file_line_and_field(rows):
    file, lines = rows
    lines[2]["answers"] = ["only one"]
    with pytest.raises(SuiteFileError, match=r"rows\.jsonl: 1 problem in 4 rows of Counting Bench") as caught:
        load_suite("counting", write(file, lines))
    assert [tuple(problem) for problem in caught.value.problems] == [
        ("", "line 3", "answers", "must be a list of two texts")
    ]
    with pytest.raises(
        UserError, match=r"has 4 rows, but 1 were found \(birds: 2 expected, 0 found; cups: 2 expected, 1"
    ):
        load_suite("counting", write(file, lines[:1]))
    with pytest.raises(UserError, match="counting: not on the Hub; pass a file"):
        load_suite("counting")


def test_every_file_of_the_folder_is_a_benchmark_of_its_name():
    assert [find_benchmark(name).name for name in benchmark_names()] == benchmark_names()
    assert benchmark_names()[-1] == "counting"
    with pytest.raises(UserError, match="a benchmark named 'pairs' already exists"):
        register(Benchmark(name="pairs", title="Mine", parse=parse))


def test_columns_need_not_be_given():
    plain = Benchmark(name="plain", title="Plain", parse=parse, sizes=COUNTING.sizes, categories=CATEGORIES)
    assert plain.table_columns() == (*category_columns(CATEGORIES), OVERALL)
    assert plain.groupings == {"official": {"cups": 2, "birds": 2}}
    assert not plain.acc_plus
