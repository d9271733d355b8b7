"""Judging pairs: orders are shown as asked, answers come back in the stored order, seeds decide everything."""

from __future__ import annotations

import pytest

from r1_reward.engines.in_process import EngineError
from r1_reward.judge.judging import Pair, judge, judge_pairs
from r1_reward.records.prompt import build_prompt
from r1_reward.records.schema import Completion


class FirstIsBetter:
    """An engine that always prefers what it is shown first, and remembers what that was and with which seeds."""

    special_tokens = ()

    def __init__(self, fail=()):
        self.shown, self.seeds, self.fail = [], [], fail

    def generate(self, requests, **options):
        for number, request in enumerate(requests):
            text = request.messages[0]["content"][-1]["text"]
            self.shown += [text for _ in request.seeds]
            self.seeds += request.seeds
            text = "<think>Response 1 is better.</think><answer>1</answer>"
            if number in self.fail:
                yield EngineError("the server is gone")
            else:
                yield [Completion(text=text, tokens=5, probability=0.9) for _ in request.seeds]


def pairs_of(count, preferred=1):
    return [Pair(i, f"q{i}", [], f"a{i}", f"b{i}", preferred) for i in range(count)]


def test_both_orders_are_judged_and_translated_back(pairs):
    engine = FirstIsBetter()
    rows = [pairs[i] for i in range(3)]
    judged = judge_pairs(engine, rows, orders="both")
    for votes in judged:
        assert sorted(vote.answer for vote in votes) == [1, 2]
        for vote in votes:
            assert vote.answer == (2 if vote.swapped else 1)
            assert vote.probability == pytest.approx(0.1 if vote.swapped else 0.9)
    expected = set()
    for row in rows:
        expected.add(build_prompt(row["question"], row["response_1"], row["response_2"]))
        expected.add(build_prompt(row["question"], row["response_2"], row["response_1"]))
    assert sorted(engine.shown) == sorted(expected)


@pytest.mark.parametrize(("orders", "preferred", "answers"), [
    ("stored", 1, {1}), ("stored", 2, {1}), ("preferred-first", 1, {1}), ("preferred-first", 2, {2}),
])  # fmt: skip
def test_fixed_orders(orders, preferred, answers):
    judged = list(judge(FirstIsBetter(), pairs_of(20, preferred), orders=orders, votes=2))
    assert {vote.answer for passes in judged for votes in passes for vote in votes} == answers
    assert all([len(votes) for votes in passes] == [2] for passes in judged)


def test_random_orders_are_drawn_for_each_vote_and_do_not_depend_on_the_stored_order():
    shown_first = {}
    for preferred in (1, 2):
        judged = list(judge(FirstIsBetter(), pairs_of(40, preferred), orders="random", votes=5))
        assert all(len(votes) == 5 for passes in judged for votes in passes)
        # The judge names what it is shown first: the preferred response wherever that came first.
        shown_first[preferred] = [vote.answer == preferred for passes in judged for vote in passes[0]]
    assert shown_first[1] == shown_first[2]
    assert 70 < sum(shown_first[1]) < 130  # of 200 fair coins
    rows = [shown_first[1][i : i + 5] for i in range(0, 200, 5)]
    assert any(len(set(row)) == 2 for row in rows)


def test_the_two_passes_turn_every_order_round_and_the_first_is_not_the_stored_one_throughout():
    judged = list(judge(FirstIsBetter(), pairs_of(40), orders="both", votes=3))
    firsts = []
    for first, second in judged:
        assert {vote.swapped for vote in first} != {vote.swapped for vote in second}
        assert len({vote.swapped for vote in first}) == 1
        firsts.append(first[0].swapped)
    assert 8 < sum(firsts) < 32


def test_seeds_differ_between_votes_and_are_the_same_again_whatever_else_is_judged():
    one, again, alone, other = (FirstIsBetter() for _ in range(4))
    list(judge(one, pairs_of(4), votes=3))
    list(judge(again, pairs_of(4), votes=3))
    list(judge(alone, pairs_of(4)[2:3], votes=3))
    list(judge(other, pairs_of(4), votes=3, seed=1))
    assert len(set(one.seeds)) == 4 * 2 * 3
    assert one.seeds == again.seeds != other.seeds
    assert alone.seeds == one.seeds[12:18]


def test_a_failed_request_leaves_its_row_unjudged_and_no_other():
    judged = list(judge(FirstIsBetter(fail={3}), pairs_of(3), orders="both"))
    assert [isinstance(row, EngineError) for row in judged] == [False, True, False]


def test_judge_pairs_raises_when_a_row_fails(pairs):
    with pytest.raises(EngineError, match="gone"):
        judge_pairs(FirstIsBetter(fail={0}), [pairs[0]], orders="stored")
