"""metrics.json, report.md and the plot of a run; a constant judge is reported as such."""

from __future__ import annotations

import json

import pytest
from fakes import FakeEngine
from loaded import loaded
from PIL import Image
from typer.testing import CliRunner

from r1_reward.bench.report import to_markdown, write_metrics
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.engines.workers import EngineSpec
from r1_reward.records.schema import Completion


class Judge(FakeEngine):
    """Names what a rule of (text, seed) says."""

    def __init__(self, rule):
        self.rule = rule

    def answer(self, requests):
        for request in requests:
            text = request.messages[0]["content"][-1]["text"]
            answers = [self.rule(text, seed) for seed in request.seeds]
            yield [
                Completion(text=f"<think>.</think><answer>{a}</answer>" if a else "I cannot say.", tokens=7)
                for a in answers
            ]


def finds_the_right_one(text, seed):
    right_first = text.index("a right one") < text.index("some wrong one")
    return (1 if right_first else 2) if seed % 4 else (2 if right_first else 1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "mcq").mkdir()
    (tmp_path / "long").mkdir()
    for folder in ("mcq", "long"):
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "1.png")
    rows = [
        {"id": f"id{i // 4}", "image": f"{'long' if i % 3 else 'mcq'}/1.png", "prompt": f"question {i}?"}
        | {"chosen": f"a right one {i}", "rejected": f"some wrong one {i}"}
        for i in range(120)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def judged(rule, name="out", **settings):
        monkeypatch.setattr(EngineSpec, "load", lambda self: Judge(rule))
        loaded = load_suite("mm-rlhf-rewardbench", tmp_path / "rows.jsonl", allow_partial=True)
        missing = run_benchmark(loaded, RunSettings(model="tiny", **settings), tmp_path / name, on_unreadable="warn")
        return write_metrics(tmp_path / name, expected=loaded.n, missing=missing, notes=loaded.notes)

    judged.folder = tmp_path
    return judged


@pytest.mark.parametrize("orders", ["both", "random"])
@pytest.mark.parametrize("position", [1, 2])
def test_a_judge_that_says_the_same_always_scores_a_half_and_is_named(run, orders, position):
    metrics = run(lambda text, seed: position, orders=orders)
    assert abs(metrics["overall"] - 0.5) < 3 * 0.5 / 120**0.5  # three standard errors of 120 fair coins
    assert metrics["constant"] == f"always {position}"
    assert f"This judge always says {position}" in (run.folder / "out" / "report.md").read_text()
    if orders == "both":
        assert metrics["overall"] == 0.5
        assert metrics["flip_rate"] == 1.0
        assert metrics["acc_plus"] < 0.3


def test_under_the_released_protocol_a_constant_judge_scores_100_percent(run):
    metrics = run(lambda text, seed: 1, orders="preferred-first")
    assert metrics["overall"] == metrics["baselines"]["always_1"]["overall"] == 1.0
    assert metrics["constant"] is None  # nobody can tell it from a perfect judge


def test_numbers_of_a_good_judge(run):
    metrics = run(finds_the_right_one, votes=5, temperature=1.0)
    assert metrics["complete"] and metrics["n"] == 120
    assert 0.6 < metrics["voting_curve"]["majority"][0]["mean"] < 0.9
    assert metrics["voting_curve"]["majority"][-1]["mean"] == pytest.approx(metrics["overall"])
    assert metrics["constant"] is None
    assert metrics["parse_rate"] == 1.0
    assert metrics["mean_tokens"] == 7
    assert metrics["baselines"]["shorter"]["overall"] == 1.0
    assert (run.folder / "out" / "voting.png").stat().st_size > 5000
    report = (run.folder / "out" / "report.md").read_text()
    assert f"| **overall** | 120 | {100 * metrics['overall']:.2f} |" in report
    assert "majority@k" in report
    assert json.loads((run.folder / "out" / "metrics.json").read_text()) == metrics


def test_the_folder_of_a_run_loads_with_datasets_and_a_resumed_one_keeps_its_card(run):
    run(lambda text, seed: None if "question 7?" in text else 1, name="a run")
    folder = run.folder / "a run"
    rows = loaded(folder)["train"]
    assert rows["index"] == list(range(120))
    assert rows[7]["passes"][0][0]["answer"] is None
    card = (folder / "README.md").read_bytes()
    lines = (folder / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "predictions.jsonl").write_bytes(b"".join(lines[:50]))
    run(lambda text, seed: 1, name="a run")
    assert loaded(folder)["train"]["index"] == list(range(120))
    assert (folder / "README.md").read_bytes() == card
    (folder / "README.md").write_text("# Mine")
    run(lambda text, seed: 1, name="a run")
    assert (folder / "README.md").read_text() == "# Mine"


def test_unreadable_verdicts_are_wrong_and_counted(run):
    metrics = run(lambda text, seed: None if "question 7?" in text else finds_the_right_one(text, 1))
    assert metrics["overall"] == pytest.approx(119 / 120)
    assert metrics["parse_rate"] == pytest.approx(119 / 120)
    assert metrics["rules"]["drop"] == {"overall": 1.0, "macro": 1.0, "n": 119}


@pytest.mark.parametrize(("readable", "said"), [(0, "No verdict can be read"), (9, "Only 3.33 % of the verdicts")])
def test_a_hardly_readable_judge_is_reported_before_any_number(run, readable, said):
    metrics = run(lambda text, _: 1 if any(f"question {i}?" in text for i in range(readable // 2)) else None)
    assert metrics["parse_rate"] == metrics["unreadable"]["readable"] / 240 < 0.1
    report = (run.folder / "out" / "report.md").read_text()
    assert report.index(said) < report.index("Orders:")
    assert "Example: `I cannot say.`" in report and "refused" in report
    assert "| verdicts cut by the token limit | 0.00 |" in report


def test_the_same_run_writes_the_same_bytes(run):
    run(finds_the_right_one, votes=3, temperature=1.0)
    run(finds_the_right_one, name="again", votes=3, temperature=1.0)
    for name in ("predictions.jsonl", "metrics.json", "report.md", "voting.png", "run.json"):
        assert (run.folder / "out" / name).read_bytes() == (run.folder / "again" / name).read_bytes()


def test_hostile_names_stay_text(run):
    metrics = {**run(finds_the_right_one), "name": "evil | `x` <script>\n# title"}
    first = to_markdown(metrics).splitlines()[0]
    assert first == "# evil x script # title on mm-rlhf-rewardbench"


def test_hostile_categories_stay_in_their_cell(run):
    metrics = run(finds_the_right_one)
    (name, one), *_ = metrics["categories"].items()
    lines = to_markdown({**metrics, "categories": {"ocr|chart\n# x": one}}).splitlines()
    assert any(line.startswith(f"| ocr chart # x | {one['n']} |") for line in lines)


def test_runs_without_a_common_row_cannot_be_compared(run):
    run(finds_the_right_one, name="good")
    run(lambda text, seed: None, name="silent")
    result = command("bench", "compare", run.folder / "silent", run.folder / "good", "--rule", "drop")
    assert "no row is scored in both, so there is nothing to compare" in str(result.exception)


def command(*args):
    from r1_reward.cli import _register, app

    if not app.registered_groups:
        _register()
    return CliRunner().invoke(app, list(map(str, args)))


def test_the_command_runs_compares_and_fails_when_rows_are_missing(run, monkeypatch):
    folder = run.folder
    run(finds_the_right_one, name="good")
    monkeypatch.setattr(EngineSpec, "load", lambda self: Judge(lambda text, seed: 1))
    options = ("--data", folder / "rows.jsonl", "--allow-partial", "--model", "tiny")
    done = command("bench", "run", "mm-rlhf-rewardbench", *options, "--out", folder / "constant", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["constant"] == "always 1"
    compared = command("bench", "compare", folder / "constant", folder / "good", "--json")
    assert json.loads(compared.stdout)["difference"]["low"] > 0
    (folder / "long" / "1.png").write_bytes(b"broken")
    done = command("bench", "run", "mm-rlhf-rewardbench", *options, "--out", folder / "missing")
    assert done.exit_code == 1
    assert "Incomplete: 40 of 120 rows" in done.output
    assert len(json.loads((folder / "missing" / "metrics.json").read_text())["missing"]) == 80
