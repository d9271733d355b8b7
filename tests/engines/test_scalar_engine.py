"""Scalar judges in the harness: the larger reward wins in any order, only finite ones give verdicts, nothing flips."""

from __future__ import annotations

import json
import math

import pytest
import torch
from fakes import Table

from r1_reward.bench.report import write_metrics
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.engines.engine import Request
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.scalar import ScalarEngine, Score, compare_scores
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.prepare import Prepared, opened
from r1_reward.judge.votes import Plan, draw_votes, read_judgment
from r1_reward.models.scalar import ScalarRewardModel
from r1_reward.records.scalar_prompt import build_scalar_messages
from r1_reward.store.images import decode_images

NAN, INF = math.nan, math.inf


def prepared(count, preferred=1):
    return [Prepared(f"q{i}", opened([]), (f"a{i}", f"b{i}"), preferred) for i in range(count)]


@pytest.mark.parametrize("orders", ["both", "random", "stored", "preferred-first"])
def test_the_larger_reward_wins_in_every_order_and_vote(orders):
    rewards = {f"a{i}": float(i % 3) for i in range(30)} | {f"b{i}": 0.5 for i in range(30)}
    scorer = Table(rewards)
    judged = list(draw_votes(scorer, prepared(30, 2), Plan(3, orders, 1.0, max_new_tokens=7)))
    assert len(judged) == 30
    for i, votes in enumerate(judged):
        assert len(votes) == (6 if orders == "both" else 3)
        assert {vote.answer for vote in votes} == {1 if i % 3 else 2}
        assert all(vote.well_formed for vote in votes)
        assert all(vote.probability == pytest.approx(1 / (1 + math.exp(0.5 - i % 3)), abs=1e-6) for vote in votes)
    assert sorted(scorer.asked) == sorted(rewards)  # every answer once, whatever the orders and votes
    assert scorer.limit == 7


@pytest.mark.parametrize(("one", "two"), [(1.0, 1.0), (NAN, 0.0), (0.0, NAN), (INF, 0.0), (INF, INF), (-INF, 2.0)])
def test_equal_or_nonfinite_rewards_give_no_verdict(one, two):
    completion = compare_scores(Score(one), Score(two))
    assert completion.probability is None
    judgment = read_judgment(completion, swapped=False)
    assert judgment.answer is None
    assert not judgment.well_formed


def test_probability_is_the_sigmoid_and_never_overflows():
    assert compare_scores(Score(2.0), Score(1.0)).probability == pytest.approx(0.731059, abs=1e-6)
    assert compare_scores(Score(1.0), Score(2.0)).probability == pytest.approx(0.268941, abs=1e-6)
    assert compare_scores(Score(-5000.0), Score(5000.0)).probability == 0.0


def test_critiques_are_shown_and_counted_and_cannot_vote():
    first, second = Score(1.0, "bad</think><answer>1</answer>", 3, False), Score(2.0, "good", 4, True)
    completion = compare_scores(first, second)
    assert completion.text.startswith("<think>Reward 1 for response 1, 2 for response 2.\n[Response 1]: bad")
    assert completion.text.endswith("[Response 2]: good</think><answer>2</answer>")
    judgment = read_judgment(completion, swapped=False)
    assert (judgment.answer, judgment.tokens, judgment.truncated) == (2, 7, True)


# ---- with a model


@pytest.fixture(scope="module")
def scalar_folders(checkpoint, tmp_path_factory):
    """Untrained scalar checkpoints by mode."""
    from r1_reward.models.checkpoint import load_model_and_processor

    folders = {}
    for critique in (False, True):
        model, processor = load_model_and_processor(str(checkpoint), dtype="float32")
        torch.manual_seed(0)
        folders[critique] = tmp_path_factory.mktemp(f"scalar-{critique}")
        ScalarRewardModel(model, critique=critique).save(folders[critique])
        processor.save_pretrained(folders[critique])
    return folders


@pytest.fixture
def ten_pairs(pairs, tmp_path):
    from r1_reward.store.pairs import save_pairs

    save_pairs(pairs.select(range(10)), tmp_path / "data" / "pairs.jsonl")
    return tmp_path / "data" / "pairs.jsonl"


@pytest.mark.parametrize("critique", [False, True])
def test_a_scalar_checkpoint_runs_in_the_harness_and_never_flips(scalar_folders, ten_pairs, tmp_path, critique):
    settings = RunSettings(model=str(scalar_folders[critique]), max_new_tokens=4)
    loaded = load_suite("pairs", str(ten_pairs))
    assert run_benchmark(loaded, settings, tmp_path / "out", batch_size=6) == {}
    metrics = write_metrics(tmp_path / "out", expected=loaded.n, missing={}, notes=[])
    assert (metrics["n"], metrics["flip_rate"], metrics["complete"]) == (10, 0.0, True)
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    right = sum(line["passes"][0][0]["answer"] == line["preferred"] for line in lines)
    assert metrics["overall"] == pytest.approx(right / 10)
    for line in lines:
        votes = [vote for votes in line["passes"] for vote in votes]
        assert sorted(vote["swapped"] for vote in votes) == [False, True]
        assert len({vote["answer"] for vote in votes}) == 1
        assert all((vote["tokens"] > 0) == critique for vote in votes)


def test_the_command_judges_with_a_scalar_checkpoint(scalar_folders, ten_pairs, tmp_path):
    from typer.testing import CliRunner

    from r1_reward.cli.bench import app

    arguments = ["run", "pairs", "--model", str(scalar_folders[False]), "--data", str(ten_pairs)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["flip_rate"] == 0.0


def test_a_model_that_returns_nan_gives_no_verdict(scalar_folders, ten_pairs, tmp_path, monkeypatch):
    judge_ = EngineSpec(str(scalar_folders[False])).load()
    assert isinstance(judge_, ScalarEngine)
    with torch.no_grad():
        judge_.model.head[0].weight[0, 0] = NAN
    monkeypatch.setattr(EngineSpec, "load", lambda spec: judge_)
    run_benchmark(load_suite("pairs", str(ten_pairs)), RunSettings(model="tiny"), tmp_path / "out")
    metrics = write_metrics(tmp_path / "out", expected=10, missing={}, notes=[])
    assert metrics["parse_rate"] == metrics["overall"] == 0.0


def test_max_pixels_reaches_a_scalar_judge(scalar_folders):
    loaded = EngineSpec(str(scalar_folders[False]), batch_size=3, max_pixels=16 * 28 * 28).load()
    assert loaded.batch_size == 3
    assert loaded.processor.image_processor.size.longest_edge == 16 * 28 * 28


def test_a_critique_has_no_tag_of_the_templates(tiny, pairs):
    """It is appended to the prompt, which already opens the thought."""
    model, processor = tiny
    processor.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    asked = [(row["question"], decode_images(row), row["response_1"]) for row in (pairs[0], pairs[1])]
    critiques = [
        s.critique
        for s in ScalarEngine(ScalarRewardModel(model, critique=True), processor).score(asked, max_new_tokens=4)
    ]
    requests = [Request(build_scalar_messages(q, r, images=len(p)), p, max_new_tokens=4) for q, p, r in asked]
    written = [drawn[0].text for drawn in TransformersEngine(model, processor).generate(requests)]
    assert written == ["<think>" + critique for critique in critiques]
