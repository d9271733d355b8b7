"""Several votes in one request (``n``), from every command and object that asks a server, and what a run remembers."""

from __future__ import annotations

import json
import logging

import pytest
from PIL import Image
from scripted_server import JUDGMENT, reply, status
from typer.testing import CliRunner

from r1_reward.bench.probes import probe_benchmark
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.cli import _register, app
from r1_reward.data.scoring.score_file import score_file
from r1_reward.data.scoring.settings import ScoreSettings
from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.errors import UserError
from r1_reward.serve.dialects.trl import AsyncGroupReward, GroupReward

pytestmark = pytest.mark.usefixtures("no_waits")


def several(body):
    choices = [reply()["choices"][0] for _ in range(body.get("n", 1))]
    return {**reply(), "choices": [{**choice, "index": i} for i, choice in enumerate(choices)]}


@pytest.fixture
def server(server):
    server.default = [several]
    return server


@pytest.fixture
def pairs(tmp_path):
    Image.new("RGB", (8, 8), "white").save(tmp_path / "1.png")
    row = {"question": "q?", "images": ["1.png"], "response_1": "a", "preferred": 1}
    lines = [json.dumps({**row, "id": str(i), "response_2": f"b{i}"}) for i in range(3)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "pairs.jsonl"


def invoke(*arguments):
    _register()
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)


def asked(server):
    found = [body.get("n", 1) for body in server.bodies]
    server.forget()
    server.default = [several]
    return found


# Reachable.

COMMANDS = {
    "compare": ["compare", "--question", "q?", "--a", "a", "--b", "b"],
    "rank": ["rank", "--question", "q?", "a", "b"],
    "score": ["score", "{pairs}", "--out", "{out}/verdicts.parquet"],
    "bench run": ["bench", "run", "pairs", "--data", "{pairs}", "--out", "{out}/run", "--temperature", 1],
}


@pytest.mark.parametrize("votes", [2, 5])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_asks_for_all_votes_of_an_order_at_once(server, pairs, tmp_path, command, votes):
    def ask(name, *more):
        words = [str(word).format(pairs=pairs, out=tmp_path / name) for word in COMMANDS[command]]
        invoke(*words, "--model", "judge", "--base-url", server.url, "--votes", votes, *more)
        return asked(server)

    together, alone = ask("together", "--batch-votes"), ask("alone")
    assert set(together) == {votes}
    assert alone == [1] * votes * len(together)


def test_the_server_and_the_page_do_too(server, monkeypatch):
    held = []
    monkeypatch.setattr("r1_reward.serve.server.serve", lambda model, *_, **__: held.append(model))
    invoke("serve", "--model", "judge", "--base-url", server.url, "--batch-votes")
    invoke("serve", "--model", "judge", "--base-url", server.url)
    for model, each in zip(held, (3, 1), strict=True):
        model.compare("q?", [], "a", "b", votes=3)
        assert set(asked(server)) == {each}


@pytest.mark.parametrize(("samples", "each"), [(8, 4), (5, 3), (2, 1)])
def test_pass_rates_do_too(server, pairs, tmp_path, samples, each):
    def split(name, *more):
        out = tmp_path / name
        words = ["--sft", out / "sft", "--rl", out / "rl", "--overwrite", "--samples", samples]
        invoke("data", "split-difficulty", pairs, *words, "--model", f"server:judge@{server.url}", *more)
        return asked(server)

    assert split("together", "--batch-votes") == [each] * 6  # three rows in both orders
    assert split("alone") == [1] * each * 6
    assert split("together", "--batch-votes") == []  # measured
    assert len(split("together")) == (each * 6 if each > 1 else 0), "other samples"


@pytest.mark.parametrize("kind", [GroupReward, AsyncGroupReward])
def test_rewards_of_groups_do_too(server, kind):
    reward = kind.from_server(server.url, "judge", group_size=2, votes=4, batch_votes=True)
    judge = reward.model
    list(judge.compare_many([{"question": "q?", "images": [], "response_1": "a", "response_2": "b"}], votes=4))
    assert asked(server) == [4, 4]


def test_a_greedy_vote_is_asked_for_alone(server):
    RewardModel.from_server(server.url, "judge", batch_votes=True).compare("q?", [], "a", "b")
    assert asked(server) == [1, 1]


@pytest.mark.parametrize(
    "words", [["compare", "--question", "q", "--a", "a", "--b", "b"], ["rank", "--question", "q", "a", "b"]]
)
def test_without_a_server_it_is_refused(words):
    _register()
    result = CliRunner().invoke(app, [*words, "--model", "nothing", "--batch-votes"])
    assert isinstance(result.exception, UserError)
    assert "base_url" in str(result.exception)


# Servers that give one.


@pytest.mark.parametrize("given", [1, 2])
def test_a_server_that_ignores_n_is_asked_one_by_one_and_that_is_said_once(server, caplog, given):
    server.default = [lambda body: several({**body, "n": min(given, body.get("n", 1))})]
    model = RewardModel.from_server(server.url, "judge", batch_votes=True, concurrency=1)
    with caplog.at_level(logging.WARNING):
        for text in "abc":
            verdict = model.compare("q?", [], text, "z", votes=3)
            assert [vote.text for vote in verdict.votes] == [JUDGMENT] * 6
    assert len(caplog.messages) == 1
    assert "ignores n" in caplog.messages[0] and "one by one" in caplog.messages[0]
    assert model.engine.refused == caplog.messages


def test_what_a_server_ignores_stands_in_the_report(server, pairs, tmp_path):
    server.default = [reply()]
    rows = load_suite("pairs", pairs)
    settings = RunSettings(model="judge", base_url=server.url, votes=3, temperature=1.0)
    run_benchmark(rows, settings, tmp_path / "out", batch_votes=True)
    (remark,) = json.loads((tmp_path / "out" / "remarks.json").read_text())
    assert "ignores n" in remark


# What a run is.


def bench(server, pairs, out, votes=3, **options):
    settings = RunSettings(model="judge", base_url=server.url, votes=votes, temperature=1.0 if votes > 1 else 0.0)
    run_benchmark(load_suite("pairs", pairs), settings, out, **options)


def scored(server, pairs, out, votes=3, **options):
    score_file(pairs, out / "out.parquet", ScoreSettings(model="judge", votes=votes), base_url=[server.url], **options)


@pytest.mark.parametrize("run", [bench, scored])
def test_a_run_resumes_only_with_votes_drawn_the_same_way(server, pairs, tmp_path, run):
    for held in (True, False):
        out = tmp_path / str(held)
        run(server, pairs, out, batch_votes=held)
        server.forget()
        run(server, pairs, out, batch_votes=held)
        assert server.bodies == []
        with pytest.raises(UserError, match="batch_votes"):
            run(server, pairs, out, batch_votes=not held)
        server.default = [several]


@pytest.mark.parametrize("run", [bench, scored])
def test_one_vote_is_drawn_the_same_way_either_way(server, pairs, tmp_path, run):
    run(server, pairs, tmp_path / "out", votes=1, batch_votes=True)
    server.forget()
    run(server, pairs, tmp_path / "out", votes=1)
    assert server.bodies == []


def test_a_run_of_before_is_what_it_was(server, pairs, tmp_path):
    bench(server, pairs, tmp_path / "out")
    assert "batch_votes" not in json.loads((tmp_path / "out" / "run.json").read_text())


def test_a_probe_has_one_vote(server, pairs, tmp_path):
    settings = RunSettings(model="judge", base_url=server.url)
    probe_benchmark(load_suite("pairs", pairs), settings, tmp_path / "out", attacks=["padding"], batch_votes=True)
    assert set(asked(server)) == {1}


def test_a_refused_n_does_not_end_the_run(server, pairs, tmp_path):
    server.default = [lambda body: status(400, "n must be 1")() if "n" in body else reply()]
    bench(server, pairs, tmp_path / "out", batch_votes=True)
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 3
