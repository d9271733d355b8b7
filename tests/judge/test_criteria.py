"""Criteria: every method of the reward model passes them to the judge."""

from __future__ import annotations

import pytest
from fakes import FakeEngine, shown
from PIL import Image

from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion


class Reading(FakeEngine):
    """Prefers the longer response, and remembers the questions it was asked."""

    def __init__(self):
        self.asked = []

    def answer(self, requests):
        for request in requests:
            question, first, second = shown(request)
            self.asked.append(question)
            better = 1 if len(first) > len(second) else 2
            yield [Completion(text=f"<think>.</think><answer>{better}</answer>", tokens=3) for _ in request.seeds]


@pytest.mark.parametrize("question", ["Which?", ["Which of ", Image.new("RGB", (28, 28), "red"), "?"]])
def test_every_method_passes_the_criteria_to_the_judge(question):
    judge = Reading()
    model = RewardModel(judge)
    told = "likeness alone"
    model.compare(question, [], "a", "bb", told)
    model.rank(question, [], ["a", "bb"], criteria=told)
    model.rewards(question, [], ["a", "bb"], criteria=told)
    model.best_of_n(question, [], ["a", "bb"], criteria=told)
    model.score(question, [], "a", against=["bb"], criteria=told)
    assert len(judge.asked) == 10 and len(set(judge.asked)) == 1
    assert judge.asked[0].endswith("Judge the responses by this criterion alone: likeness alone")
    for ask in (model.rank, model.rewards, model.best_of_n):
        with pytest.raises(UserError, match="criteria: is blank"):
            ask(question, [], ["a", "bb"], criteria=" ")
    model.rank(question, [], ["a", "bb"])
    assert "criterion" not in judge.asked[-1]
