"""A draft in a thought that was never closed is a vote on no path, and what is said behind a thought is one on all."""

from __future__ import annotations

import pytest
from fakes import FakeEngine
from prediction_rows import our_row, vote, write_lines
from scripted_server import reply
from served import Served
from teacher_rows import pair, write_pairs

from r1_reward.bench.predictions import read_outcomes
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.score import score_file
from r1_reward.bench.suites import load_suite
from r1_reward.data.pass_rates import PassRates, measure
from r1_reward.engines.server import ServerEngine
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.schema import Completion
from r1_reward.serve.dialects.trl import GroupReward

DRAFTS = {
    "cut": ("<think>Perhaps <answer>1</answer>. Let me count", True),
    "cut behind the draft": ("<think>Perhaps <answer>1</answer>", True),
    "ended": ("<think>Perhaps <answer>1</answer>. Let me count", False),
    "in capitals": ("<THINK>Perhaps <answer>1</answer>", False),
    "in odd spacing": ("<think >Perhaps <answer>1</answer>", False),
    "in another family's tag": ("◁think▷Perhaps <answer>1</answer>", False),
    "in a longer word": ("<thinking>Perhaps <answer>1</answer>", True),
    "opened twice": ("<think>Well. <think>Perhaps <answer>1</answer>", False),
    "opened again": ("<think>One.</think>Hm. <think>Perhaps <answer>1</answer>", False),
    "opened again behind the answer": ("<think>One.</think><answer>1</answer><think>Or is it", True),
    "opened by the template": ("Perhaps <answer>1</answer>. Let me count", True),
    "cut in the answer": ("<think>Perhaps <answer>1</answer>.</think><answer>", True),
}
ANSWERS = {
    "cut behind the answer": ("<think>One.</think><answer>1</answer> I am su", True),
    "opened by the template": ("One.</think><answer>1</answer>", False),
    "cut, opened by the template": ("Or <answer>2</answer>.</think><answer>1</answer> I a", True),
    "no thought": ("<answer>1</answer>", False),
    "another draft": ("<think>Or <answer>2</answer>? No.</think><answer>1</answer>", False),
}
CASES = [(*DRAFTS[name], None) for name in DRAFTS] + [(*ANSWERS[name], 1) for name in ANSWERS]
every_case = pytest.mark.parametrize(
    ("text", "truncated", "answer"),
    CASES,
    ids=[f"draft: {name}" for name in DRAFTS] + [f"answer: {name}" for name in ANSWERS],
)


class Says(FakeEngine):
    """A model that always says the same, and is sure of it."""

    def __init__(self, text, truncated):
        self.said = Completion(text=text, tokens=3, truncated=truncated, probability=0.9)

    def answer(self, requests):
        for request in requests:
            yield [self.said for _ in request.seeds]


@every_case
def test_reward_model(text, truncated, answer):
    model = RewardModel(Says(text, truncated))
    verdict = model.compare("?", [], "a three", "an eight", both_orders=False)
    (one,) = verdict.votes
    assert (one.answer is None) == (one.probability is None) == (verdict.preferred is None) == (answer is None)
    assert one.answer is None or (one.answer == 1) != one.swapped
    (compared,) = model.rank("?", [], ["a three", "an eight"]).comparisons
    assert compared.probability == (None if answer is None else 0.5)  # always the first, in both orders
    assert model.rewards("?", [], ["a three", "an eight"]) == ([None] * 2 if answer is None else [0.0] * 2)


@every_case
def test_a_server_that_says_why_it_ended(text, truncated, answer, server):
    server.default = [reply(text, finish="length" if truncated else "stop")]
    engine = ServerEngine("m", server.url)
    verdict = RewardModel(engine).compare("?", [], "a three", "an eight")
    engine.close()
    assert [one.answer is None for one in verdict.votes] == [answer is None] * 2
    assert [one.truncated for one in verdict.votes] == [truncated] * 2


def test_a_server_that_hands_the_thought_back_apart_says_the_same(server):
    server.default = [reply(None, finish="length", reasoning="Perhaps <answer>1</answer>. Let me")]
    engine = ServerEngine("m", server.url)
    assert RewardModel(engine).compare("?", [], "a three", "an eight").preferred is None
    engine.close()


def test_a_text_that_a_filter_broke_off_is_no_vote(server):
    engine = ServerEngine("m", server.url)
    for text in ("Perhaps <answer>1</answer>", "One.</think><answer>1</answer>"):
        server.default = [reply(text, finish="content_filter")]
        assert RewardModel(engine).compare("?", [], "a three", "an eight").unreadable == 2
    engine.close()


@every_case
def test_benchmark(text, truncated, answer, pair_file, tmp_path, monkeypatch):
    monkeypatch.setattr(EngineSpec, "load", lambda _: Says(text, truncated))
    run_benchmark(load_suite("pairs", pair_file), RunSettings(model="tiny"), tmp_path / "run")
    scored = score_file("pairs", tmp_path / "run" / "predictions.jsonl")
    assert scored["parse_rate"] == (0.0 if answer is None else 1.0)
    assert scored["overall"] == (0.0 if answer is None else 0.5)  # always the first, in both orders


@every_case
def test_pass_rates(text, truncated, answer, tmp_path):
    pairs = write_pairs(tmp_path / "in", [pair(n) for n in range(3)])
    rates = measure(pairs, PassRates(model="m", samples=4), tmp_path / "rates.jsonl", Says(text, truncated))
    assert [rate.right for rate in rates] == [0 if answer is None else 2] * 3


@every_case
def test_group_reward(text, truncated, answer):
    reward = GroupReward(RewardModel(Says(text, truncated)))
    rewards = reward(prompts=["Q?"] * 2, completions=["a three", "an eight"])
    assert rewards == ([None] * 2 if answer is None else [0.0] * 2)


@every_case
def test_server(text, truncated, answer):
    with Served(Says(text, truncated)) as served:
        status, body = served.post("/v1/compare", {"question": "?", "response_1": "a 3", "response_2": "an 8"})
    assert status == 200
    assert body["unreadable"] == (2 if answer is None else 0)
    assert {one["answer"] for one in body["votes"]} == ({None} if answer is None else {1, 2})


# ---- files


@every_case
def test_files_of_ours_in_which_a_draft_is_the_answer(text, truncated, answer, tmp_path):
    if text.endswith("<answer>"):
        return  # no parser ever took this for an answer
    row = our_row(passes=[[vote(1, text=text, truncated=truncated)]])
    (outcome,) = read_outcomes("vl-rewardbench", write_lines(tmp_path / "p.jsonl", [row]))
    assert outcome.passes[0][0].correct is (None if answer is None else True)


UNCLOSED = [text for text, _ in DRAFTS.values() if "<think" in text.lower() and not text.endswith("<answer>")]


@pytest.mark.parametrize("critic", UNCLOSED)
def test_files_of_the_released_scripts(critic, tmp_path):
    rows = [{"id": f"mmmu_{n}", "rewards": [1, 0], "critic": critic} for n in range(2)]
    rows += [{"id": "mmmu_2", "rewards": [1, 0], "critic": f"{critic}</think><answer>1</answer>"}]
    rows += [{"id": "mmmu_3", "rewards": [1, 0], "critic": "1"}, {"id": "mmmu_4", "rewards": [1, 0]}]
    file = write_lines(tmp_path / "p.jsonl", rows)
    found = [outcome.passes[0][0].correct for outcome in read_outcomes("vl-rewardbench", file)]
    assert found == [None, None, True, True, True]
    scored = score_file("vl-rewardbench", file, allow_partial=True)
    assert (scored["overall"], scored["parse_rate"]) == (3 / 5, None)


@pytest.mark.parametrize("opening", UNCLOSED)
def test_files_of_multimodal_rewardbenchs_script(opening, tmp_path):
    outputs = [f"{opening} [[A]]", f"{opening} [[A]]</think>[[A]]", f"{opening}</think>[[B]]", "I take [[A]]", "no"]
    rows = [{"ID": f"mathvista_{n}", "Label": "A", "Meta": {}, "output": said} for n, said in enumerate(outputs)]
    file = write_lines(tmp_path / "p.jsonl", rows)
    found = [outcome.passes[0][0].correct for outcome in read_outcomes("multimodal-rewardbench", file)]
    assert found == [None, True, False, True, None]
