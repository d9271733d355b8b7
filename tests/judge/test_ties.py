"""Judges that may vote for a tie: their verdicts, and which votes need not be drawn."""

from __future__ import annotations

import pytest
from fakes import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.votes import votes_to_decide
from r1_reward.judge.voting import ExactStopping, SequentialStopping, majority, votes_needed
from r1_reward.records.dialects import find_dialect
from r1_reward.records.schema import Completion, Judgment
from r1_reward.serve.metrics import Metrics


class Undecided(FakeEngine):
    """Votes by the seed: a tie in half of the cases."""

    dialect = find_dialect("llm-as-judge")

    def answer(self, requests):
        for request in requests:
            yield [Completion(text=f"So: [[{'ABCC'[seed // 7 % 4]}]]", tokens=3) for seed in request.seeds]


@pytest.mark.parametrize("both_orders", [True, False])
@pytest.mark.parametrize("votes", [3, 5, 8])
@pytest.mark.parametrize("stop", ["exact", "sequential"])
def test_skipped_votes_could_not_have_made_it_a_tie(stop, votes, both_orders):
    model, changed = RewardModel(Undecided()), 0
    for number in range(60):
        options = {"votes": votes, "both_orders": both_orders, "temperature": 1.0}
        whole = model.compare(f"{number}?", [], "a", "b", **options)
        part = model.compare(f"{number}?", [], "a", "b", stop=stop, **options)
        total = votes * (1 + both_orders)
        rule = ExactStopping() if stop == "exact" else SequentialStopping(total)
        assert part.votes == whole.votes[: votes_needed(whole.votes, rule)]
        changed += (part.preferred, part.says_tie) != (whole.preferred, whole.says_tie)
        if stop == "exact":
            assert part.preferred == whole.preferred and part.says_tie >= whole.says_tie
    assert changed <= (0 if stop == "exact" else 6)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 6), st.integers(0, 8))
def test_rounds_are_the_fewest_votes_that_can_decide(for_1, for_2, ties, remaining):
    rule, expected = ExactStopping(), 0
    while not any(
        rule.decided(for_1 + one, for_2 + two, remaining - expected, ties + tied)
        for one in range(expected + 1)
        for two in range(expected + 1 - one)
        for tied in range(expected + 1 - one - two)
    ):
        expected += 1
    assert votes_to_decide(for_1, for_2, remaining, rule, ties) == expected


@pytest.mark.parametrize(("answers", "readable", "unreadable"), [([0], 1, 0), ([0, 1, None], 2, 1), ([0, 0, 2], 3, 0)])
def test_the_server_counts_a_vote_for_a_tie_as_readable(answers, readable, unreadable):
    metrics = Metrics()
    metrics.judged(majority([Judgment(answer=a, swapped=False, text="", well_formed=True, tokens=1) for a in answers]))
    counted = metrics.text().decode()
    assert f'r1_reward_votes_total{{outcome="readable"}} {readable}.0' in counted
    assert f'r1_reward_votes_total{{outcome="unreadable"}} {unreadable}.0' in counted
