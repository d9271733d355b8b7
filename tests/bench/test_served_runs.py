"""A benchmark judged by a server that rejects parameters, or whose account runs out of credit during the run."""

from __future__ import annotations

import json

import pytest
from fastapi.responses import JSONResponse
from PIL import Image
from scripted_server import reply, status

from r1_reward.bench.probes import probe_benchmark
from r1_reward.bench.report import write_metrics
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.records.errors import UserError

pytestmark = pytest.mark.usefixtures("no_waits")
ROWS = 12


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "short").mkdir()
    Image.new("RGB", (8, 8), "white").save(tmp_path / "short" / "1.png")
    row = {"image": "short/1.png", "chosen": "a", "rejected": "b"}
    lines = [json.dumps({**row, "id": f"id{i}", "prompt": f"question {i}?"}) for i in range(ROWS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return load_suite("mm-rlhf-rewardbench", tmp_path / "rows.jsonl", allow_partial=True)


def settings_for(server):
    return RunSettings(model="judge", base_url=server.url, orders="stored")


def only_1(body):
    message = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported."
    error = {"error": {"message": message, "param": "temperature", "code": "unsupported_value"}}
    return JSONResponse(error, 400) if body.get("temperature", 1) != 1 else reply()


def lines_of(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def metrics_of(out):
    return write_metrics(out, expected=ROWS, missing={}, notes=["a note of the suite"])


def test_parameters_the_server_rejects_are_in_the_report_of_this_and_every_later_call(server, rows, tmp_path):
    server.default = [only_1]
    assert run_benchmark(rows, settings_for(server), tmp_path / "out") == {}
    first = metrics_of(tmp_path / "out")
    assert first["notes"][0] == "a note of the suite"
    assert "temperature: left out" in first["notes"][1]
    assert "not greedy" in (tmp_path / "out" / "report.md").read_text()
    server.forget()
    assert run_benchmark(rows, settings_for(server), tmp_path / "out") == {}  # nothing is asked, nothing forgotten
    assert server.bodies == []
    assert metrics_of(tmp_path / "out")["notes"] == first["notes"]


def test_a_server_that_takes_everything_leaves_no_remark(server, rows, tmp_path):
    run_benchmark(rows, settings_for(server), tmp_path / "out")
    assert metrics_of(tmp_path / "out")["notes"] == ["a note of the suite"]


def test_a_probe_says_it_too(server, rows, tmp_path):
    server.default = [only_1]
    settings = settings_for(server).model_copy(update={"orders": "both"})
    probe = probe_benchmark(rows.limited(1), settings, tmp_path / "out")
    assert any("temperature: left out" in note for note in probe["notes"])


@pytest.mark.parametrize(
    "broke",
    [
        status(429, "You exceeded your current quota, please check your plan and billing details."),
        status(402, "Insufficient credits"),
        status(400, "Your credit balance is too low"),
    ],
)
def test_with_an_exhausted_account_verdicts_are_kept_and_not_requested_again(server, rows, tmp_path, broke):
    def pays_seven(body):
        return reply() if len(server.bodies) <= 7 else broke()

    server.default = [pays_seven]
    with pytest.raises(UserError, match="the account's credit is used up"):
        run_benchmark(rows, settings_for(server), tmp_path / "out", concurrency=1)
    assert len(server.bodies) <= 10, "asked on without money"
    kept = lines_of(tmp_path / "out")
    assert [line["index"] for line in kept] == list(range(7))
    server.forget()
    assert run_benchmark(rows, settings_for(server), tmp_path / "out", concurrency=1) == {}
    assert len(server.bodies) == ROWS - 7
    assert lines_of(tmp_path / "out")[:7] == kept


def test_a_text_cut_by_a_filter_is_not_a_vote(server, rows, tmp_path):
    server.default = [reply(finish="content_filter")]  # with a whole verdict in what is left
    run_benchmark(rows, settings_for(server), tmp_path / "out")
    votes = [vote for line in lines_of(tmp_path / "out") for votes in line["passes"] for vote in votes]
    assert {vote["answer"] for vote in votes} == {None}
