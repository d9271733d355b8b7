"""A benchmark judged in every dialect, by a server that answers in it; a folder accepts only one dialect."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from scripted_server import reply
from typer.testing import CliRunner

from r1_reward.bench.report import write_metrics
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.cli.bench import app
from r1_reward.judge.unreadable import FIRST, UnreadableJudge
from r1_reward.records.dialects import dialect_names, find_dialect
from r1_reward.records.errors import UserError

pytestmark = pytest.mark.usefixtures("no_waits")
ROWS = 6


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path, ROWS)


def write_rows(folder, count):
    (folder / "short").mkdir()
    Image.new("RGB", (8, 8), "white").save(folder / "short" / "1.png")
    row = {"image": "short/1.png", "chosen": "GOOD [[B]] <answer>2</answer>", "rejected": "BAD Answer 1 is better"}
    lines = [json.dumps({**row, "id": f"id{i}", "prompt": f"question {i}?"}) for i in range(count)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return load_suite("mm-rlhf-rewardbench", folder / "rows.jsonl", allow_partial=True)


def text_of(body):
    contents = (message["content"] for message in body["messages"])
    return "\n".join(one if isinstance(one, str) else one[-1]["text"] for one in contents)


def judge(name, *, thought=True):
    """A judge of a dialect that distinguishes good from bad in either position."""
    spoken = find_dialect(name)

    def answer(body):
        text = text_of(body)
        if spoken.pointwise:
            return reply(
                f"The response {'is right' if 'GOOD' in text else 'errs'}.\nScore: {90 - 60 * ('BAD' in text)}"
            )
        verdict = spoken.verdicts[text.index("GOOD") > text.index("BAD")]
        return reply(("<think>I look.</think>\n" if thought else "") + spoken.form.format(verdict))

    return answer


def settings_for(server, **options):
    return RunSettings(**{"model": "judge", "base_url": server.url, **options})


def metrics_of(out):
    return write_metrics(out, expected=ROWS, missing={}, notes=[])


@pytest.mark.parametrize("name", dialect_names())
def test_a_good_judge_is_right_in_both_orders_in_every_dialect(server, rows, tmp_path, name):
    server.default = [judge(name)]
    assert run_benchmark(rows, settings_for(server, dialect=name), tmp_path / "out") == {}
    metrics = metrics_of(tmp_path / "out")
    assert (metrics["overall"], metrics["parse_rate"]) == (1.0, 1.0)
    held = json.loads((tmp_path / "out" / "run.json").read_text())
    assert held.get("dialect", "r1-reward") == name
    assert f"Dialect: `{name}`" in (tmp_path / "out" / "report.md").read_text() or name == "r1-reward"
    # Two requests a row: one in each order, or one for each response alone.
    assert len(server.bodies) == 2 * ROWS


def test_the_dialect_is_known_by_the_models_name(server, rows, tmp_path):
    server.default = [judge("unified-reward-think")]
    data = ["--data", str(tmp_path / "rows.jsonl"), "--allow-partial", "--base-url", server.url]
    asked = ["run", "mm-rlhf-rewardbench", "--model", "CodeGoat24/UnifiedReward-Think-qwen-7b"]
    done = CliRunner().invoke(app, [*asked, *data, "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "run.json").read_text())["dialect"] == "unified-reward-think"
    assert "Answer 1 (9/10)" in text_of(server.bodies[0])


def test_a_folder_belongs_to_one_dialect(server, rows, tmp_path):
    server.default = [judge("rm-r1")]
    run_benchmark(rows, settings_for(server, dialect="rm-r1"), tmp_path / "out")
    with pytest.raises(UserError, match=r"dialect 'rm-r1' there"):
        run_benchmark(rows, settings_for(server), tmp_path / "out")
    with pytest.raises(UserError, match=r"dialect 'rm-r1' there, 'json' now"):
        run_benchmark(rows, settings_for(server, dialect="json"), tmp_path / "out")
    asked = len(server.bodies)
    run_benchmark(rows, settings_for(server, dialect="rm-r1"), tmp_path / "out")
    assert len(server.bodies) == asked


@pytest.mark.parametrize("dialect", ["auto", "r1-reward"])
def test_folders_from_before_dialects_are_resumed(server, rows, tmp_path, dialect):
    server.default = [judge("r1-reward")]
    run_benchmark(rows, settings_for(server), tmp_path / "out")
    assert "dialect" not in json.loads((tmp_path / "out" / "run.json").read_text())
    assert run_benchmark(rows, settings_for(server, dialect=dialect), tmp_path / "out") == {}
    assert len(server.bodies) == 2 * ROWS


@pytest.mark.parametrize(
    ("name", "text"),
    [("llm-as-judge", "Alike.\n[[C]]"), ("pointwise", "Score: 50")],
)
def test_a_tie_is_a_wrong_verdict(server, rows, tmp_path, name, text):
    server.default = [reply(text)]
    run_benchmark(rows, settings_for(server, dialect=name), tmp_path / "out")
    votes = [vote for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
             for votes in json.loads(line)["passes"] for vote in votes]  # fmt: skip
    assert {vote["answer"] for vote in votes} == {0}
    assert metrics_of(tmp_path / "out")["overall"] == 0.0


def test_a_judge_of_another_dialect_is_reported_and_not_guessed(server, tmp_path):
    rows = write_rows(tmp_path, 3 * FIRST)  # more than are open at once when the first are read
    server.default = [judge("rm-r1", thought=False)]
    with pytest.raises(
        UnreadableJudge, match=r"only <answer>1</answer> or <answer>2</answer> is read.*--dialect .*rm-r1"
    ):
        run_benchmark(rows, settings_for(server), tmp_path / "out")


def test_an_unknown_dialect_is_refused_before_anything(server, rows, tmp_path):
    with pytest.raises(UserError, match=r"dialect: .*did you mean unified-reward"):
        settings_for(server, dialect="unified_reward")


@pytest.mark.parametrize(("name", "refused"), [("llm-as-judge", False), ("r1-reward", True), ("json", True)])
def test_ties_are_refused_if_the_dialect_has_none(server, tmp_path, name, refused):
    Image.new("RGB", (8, 8), "white").save(tmp_path / "1.png")
    row = {"images": ["1.png"], "response_1": "GOOD", "response_2": "BAD"}
    lines = [json.dumps({**row, "id": str(n), "question": f"{n}?", "preferred": n % 3}) for n in range(6)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    rows = load_suite("pairs", tmp_path / "pairs.jsonl")
    server.default = [judge(name)]
    settings = settings_for(server, dialect=name)
    if refused:
        with pytest.raises(UserError, match=rf"2 of 6 rows are ties, but the dialect {name} has no ties"):
            run_benchmark(rows, settings, tmp_path / "out")
    else:
        assert run_benchmark(rows, settings, tmp_path / "out") == {}
    assert bool(server.bodies) != refused
