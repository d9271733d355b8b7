"""Scalar judges in the harness: the larger reward wins in any order, no number is no verdict, flips are impossible."""

from __future__ import annotations

import json
import math

import pytest
import torch

from r1_reward.bench.report import write_metrics
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.engines.scalar import AnswerScorer, ScalarEngine, Score
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.judging import Pair, compare_scores, judge

NAN, INF = math.nan, math.inf


class Table:
    """Scores answers by a table, and remembers what it was asked."""

    special_tokens = ()

    def __init__(self, rewards):
        self.table, self.asked = rewards, []

    def score(self, candidates, *, max_new_tokens=1024):
        self.asked += [response for _, _, response in candidates]
        self.limit = max_new_tokens
        return [Score(self.table[response]) for _, _, response in candidates]


def pairs_of(count, preferred=1):
    return [Pair(i, f"q{i}", [], f"a{i}", f"b{i}", preferred) for i in range(count)]


@pytest.mark.parametrize("orders", ["both", "random", "stored", "preferred-first"])
@pytest.mark.parametrize("preferred", [1, 2])
def test_the_larger_reward_wins_in_every_order_and_vote(orders, preferred):
    rewards = {f"a{i}": float(i % 3) for i in range(30)} | {f"b{i}": 0.5 for i in range(30)}
    scorer = Table(rewards)
    judged = list(judge(scorer, pairs_of(30, preferred), orders=orders, votes=3, temperature=1.0, max_new_tokens=7))
    assert len(judged) == 30
    for i, passes in enumerate(judged):
        assert [len(votes) for votes in passes] == ([3, 3] if orders == "both" else [3])
        votes = [vote for votes in passes for vote in votes]
        assert {vote.answer for vote in votes} == {1 if i % 3 else 2}
        assert {vote.text for vote in votes} == {f"reward {i % 3} against 0.5"}
        assert all(vote.probability == pytest.approx(1 / (1 + math.exp(0.5 - i % 3)), abs=1e-6) for vote in votes)
        if orders == "both":
            assert {vote.swapped for vote in passes[0]} != {vote.swapped for vote in passes[1]}
    assert sorted(scorer.asked) == sorted(rewards)  # every answer once, whatever the orders and votes
    assert scorer.limit == 7


def test_orders_are_planned_as_for_any_other_judge():
    class FirstIsBetter:
        special_tokens = ()

        def generate(self, requests, **options):
            from r1_reward.records.schema import Completion

            for request in requests:
                yield [Completion(text="<answer>1</answer>", tokens=1) for _ in request.seeds]

    for orders in ("both", "random"):
        generated = judge(FirstIsBetter(), pairs_of(20), orders=orders, votes=2, seed=4)
        scored = judge(
            Table({f"{s}{i}": 0.0 for s in "ab" for i in range(20)}), pairs_of(20), orders=orders, votes=2, seed=4
        )
        for one, two in zip(generated, scored, strict=True):
            assert [[v.swapped for v in votes] for votes in one] == [[v.swapped for v in votes] for votes in two]


@pytest.mark.parametrize(("one", "two"), [(1.0, 1.0), (NAN, 0.0), (0.0, NAN), (INF, 0.0), (INF, INF), (-INF, 2.0)])
@pytest.mark.parametrize("swapped", [False, True])
def test_equal_rewards_and_no_numbers_are_no_verdict(one, two, swapped):
    judgment = compare_scores(Score(one), Score(two), swapped=swapped)
    assert judgment.answer is judgment.probability is None
    assert not judgment.well_formed
    assert judgment.swapped == swapped


def test_probability_is_the_sigmoid_and_never_overflows():
    assert compare_scores(Score(2.0), Score(1.0), swapped=False).probability == pytest.approx(0.731059, abs=1e-6)
    assert compare_scores(Score(2.0), Score(1.0), swapped=True).probability == pytest.approx(0.268941, abs=1e-6)
    assert compare_scores(Score(-5000.0), Score(5000.0), swapped=False).probability == 0.0


def test_critiques_are_shown_and_counted_in_the_stored_order():
    first, second = Score(1.0, "bad", 3, False), Score(2.0, "good", 4, True)
    judgment = compare_scores(first, second, swapped=True)
    assert judgment.text == "reward 2 against 1\n[Response 1]: good\n[Response 2]: bad"
    assert (judgment.answer, judgment.tokens, judgment.truncated) == (1, 7, True)


def test_an_attack_is_scored_as_shown():
    def attack(pair, swapped):
        texts = [pair.response_1, pair.response_2 + f"!{2 - swapped}"]
        return (texts[1], texts[0]) if swapped else (texts[0], texts[1])

    scorer = Table({"a0": 1.0, "b0!1": 2.0, "b0!2": 0.0})
    (passes,) = judge(scorer, pairs_of(1), attack=attack)
    assert {vote.swapped: vote.answer for votes in passes for vote in votes} == {False: 1, True: 2}
    assert sorted(scorer.asked) == ["a0", "b0!1", "b0!2"]


def test_only_scorers_are_taken_for_scorers(tiny):
    from r1_reward.engines.in_process import TransformersEngine

    assert not isinstance(TransformersEngine(*tiny), AnswerScorer)
    assert isinstance(Table({}), AnswerScorer)


# ---- with a model


@pytest.fixture(scope="module")
def scalar_folders(checkpoint, tmp_path_factory):
    """Untrained scalar checkpoints by mode."""
    from r1_reward.models.checkpoint import load_model_and_processor
    from r1_reward.models.scalar import ScalarRewardModel

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
        assert len({vote["text"] for vote in votes}) == 1
        assert all((vote["tokens"] > 0) == critique for vote in votes)


def test_the_command_judges_with_a_scalar_checkpoint(scalar_folders, ten_pairs, tmp_path):
    from typer.testing import CliRunner

    from r1_reward.cli.bench import app

    arguments = ["run", "pairs", "--model", str(scalar_folders[False]), "--data", str(ten_pairs)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["flip_rate"] == 0.0


def test_a_model_that_computes_no_number_gives_no_verdict(scalar_folders, ten_pairs, tmp_path, monkeypatch):
    judge_ = EngineSpec(str(scalar_folders[False])).load()
    assert isinstance(judge_, ScalarEngine)
    with torch.no_grad():
        judge_.model.head[0].weight[0, 0] = NAN
    monkeypatch.setattr(EngineSpec, "load", lambda spec: judge_)
    run_benchmark(load_suite("pairs", str(ten_pairs)), RunSettings(model="nan"), tmp_path / "out")
    metrics = write_metrics(tmp_path / "out", expected=10, missing={}, notes=[])
    assert metrics["parse_rate"] == metrics["overall"] == 0.0


def test_max_pixels_reaches_a_scalar_judge(scalar_folders):
    loaded = EngineSpec(str(scalar_folders[False]), batch_size=3, max_pixels=16 * 28 * 28).load()
    assert loaded.batch_size == 3
    assert loaded.processor.image_processor.size.longest_edge == 16 * 28 * 28
