"""The vote loop: orders are shown as asked, answers come back in the stored order, content and seed decide the rest."""

from __future__ import annotations

import threading

import pytest
from fakes import FakeEngine, Table, shown
from PIL import Image

from r1_reward.engines.engine import BatchSession, EngineError, TakingTurns
from r1_reward.judge.prepare import InvalidPair, Prepared, opened, prepare_all
from r1_reward.judge.votes import Plan, draw_votes, judge_pairs, watch_votes, work_off
from r1_reward.judge.voting import ExactStopping
from r1_reward.records.prompt import build_prompt
from r1_reward.records.schema import Completion

NO_PICTURES = opened([])


class FirstIsBetter(FakeEngine):
    """Always prefers the response shown first, and records it with the seeds."""

    def __init__(self, fail=()):
        self.shown, self.seeds, self.fail, self.batches = [], [], fail, []

    def answer(self, requests):
        self.batches.append(len(requests))
        for request in requests:
            question = shown(request)[0]
            self.shown += [request.messages[0]["content"][-1]["text"] for _ in request.seeds]
            self.seeds += request.seeds
            text = "<think>Response 1 is better.</think><answer>1</answer>"
            if question in self.fail:
                yield EngineError("the server is gone")
            else:
                yield [Completion(text=text, tokens=5, probability=0.9) for _ in request.seeds]


def pairs_of(count, preferred=1):
    return [Prepared(f"q{i}", NO_PICTURES, (f"a{i}", f"b{i}"), preferred) for i in range(count)]


def test_both_orders_are_judged_and_translated_back(pairs):
    engine = FirstIsBetter()
    rows = [pairs[i] for i in range(3)]
    for votes in judge_pairs(engine, rows):
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
    judged = list(draw_votes(FirstIsBetter(), pairs_of(20, preferred), Plan(2, orders)))
    assert {vote.answer for votes in judged for vote in votes} == answers
    assert {len(votes) for votes in judged} == {2}


def test_random_orders_are_drawn_for_each_vote_and_do_not_depend_on_label_or_stored_order():
    def named(pairs, right):
        judged = list(draw_votes(FirstIsBetter(), pairs, Plan(5, "random")))
        return [vote.answer == right for votes in judged for vote in votes]

    there = pairs_of(40)
    first = named(there, 1)
    turned_round = [pair._replace(responses=pair.responses[::-1]) for pair in there]
    assert first == named(pairs_of(40, preferred=2), 1) == named(turned_round, 2)
    assert 70 < sum(first) < 130  # of 200 fair coins
    assert any(len(set(first[i : i + 5])) == 2 for i in range(0, 200, 5))


def test_the_two_passes_use_opposite_orders_and_the_first_is_not_always_the_stored_one():
    plan = Plan(3)
    firsts = []
    for votes in draw_votes(FirstIsBetter(), pairs_of(40), plan):
        first, second = plan.by_pass(votes)
        assert [len(first), len(second)] == [3, 3]
        assert {vote.swapped for vote in first} != {vote.swapped for vote in second}
        assert len({vote.swapped for vote in first}) == 1
        firsts.append(first[0].swapped)
    assert 8 < sum(firsts) < 32


def test_seeds_differ_between_votes_and_do_not_depend_on_other_pairs():
    def seeds(pairs, seed=0):
        engine = FirstIsBetter()
        list(draw_votes(engine, pairs, Plan(3, temperature=1.0, seed=seed)))
        return engine.seeds

    every = seeds(pairs_of(4))
    assert len(set(every)) == 4 * 2 * 3
    assert every == seeds(pairs_of(4)) != seeds(pairs_of(4), seed=1)
    assert seeds(pairs_of(4)[2:3]) == every[12:18]


def test_an_attack_changes_what_is_shown_and_no_order_or_seed():
    def attack(pair, swapped):
        first, second = pair.in_order(swapped)
        return first, f"{second}!"

    clean, attacked = FirstIsBetter(), FirstIsBetter()
    judged = [
        list(draw_votes(engine, [pair._replace(attack=edit) for pair in pairs_of(9)], Plan(2, "random")))
        for engine, edit in ((clean, None), (attacked, attack))
    ]
    assert clean.seeds == attacked.seeds
    orders = [[[vote.swapped for vote in votes] for votes in one] for one in judged]
    assert orders[0] == orders[1]
    assert all(text.count("!") == 1 for text in attacked.shown)
    scorer = Table({"a0": 1.0, "b0": 2.0, "a0!": 0.0, "b0!": 0.0})
    (votes,) = draw_votes(scorer, [pairs_of(1)[0]._replace(attack=attack)], Plan())
    assert {vote.swapped: vote.answer for vote in votes} == {False: 1, True: 2}


def test_a_failed_request_leaves_its_pair_unjudged_and_no_other(pairs):
    judged = list(draw_votes(FirstIsBetter(fail={"q1"}), pairs_of(3), Plan()))
    assert [isinstance(votes, EngineError) for votes in judged] == [False, True, False]
    with pytest.raises(EngineError, match="gone"):
        judge_pairs(FirstIsBetter(fail={pairs[0]["question"]}), [pairs[0]])


def test_errors_among_the_items_are_passed_through():
    error = EngineError("a picture is missing")
    judged = list(draw_votes(FirstIsBetter(), prepare_all([error, {"question": " "}, *pairs_of(1)]), Plan()))
    assert judged[0] is error
    assert isinstance(judged[1], InvalidPair)
    assert len(judged[2]) == 2


def test_watched_votes_are_those_of_the_plan_one_by_one():
    pair, plan = pairs_of(1)[0], Plan(4, temperature=1.0)
    (votes,) = draw_votes(FirstIsBetter(), [pair], plan)
    engine = FirstIsBetter()
    seen = list(watch_votes(engine, pair, plan))
    assert seen == [votes[:n] for n in range(1, 9)]
    assert engine.batches == [1] * 8
    stopped = list(watch_votes(FirstIsBetter(), pair, plan._replace(orders="stored", stopping=ExactStopping())))
    assert len(stopped) == 3
    with pytest.raises(EngineError, match="gone"):
        list(watch_votes(FirstIsBetter(fail={"q0"}), pair, plan))


class Slow:
    """A session that answers one request at a time, the last one first, as a server may."""

    def __init__(self):
        self.waiting = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def room(self):
        return 3 - len(self.waiting)

    def submit(self, ticket, request):
        self.waiting.append((ticket, request))

    def collect(self):
        ticket, request = self.waiting.pop()
        return [(ticket, [Completion(text=request, tokens=1)])]


class Countdown:
    """A task that asks this many times."""

    def __init__(self, number, times):
        self.number, self.left, self.heard = number, times, []

    def requests(self):
        return [f"{self.number}-{self.left}"] if self.left else []

    def take(self, answers):
        self.heard += [answer[0].text for answer in answers]
        self.left -= 1


@pytest.mark.parametrize("in_order", [True, False])
def test_tasks_ask_again_and_none_waits_for_a_slow_one(in_order):
    class Engine:
        def open(self):
            return Slow()

    done = [task.number for task in work_off(Engine(), (Countdown(n, 1 + n % 3) for n in range(9)), in_order=in_order)]
    assert sorted(done) == list(range(9))
    assert (done == list(range(9))) == in_order  # the first one asked is answered last
    (task,) = work_off(Engine(), [Countdown(7, 3)])
    assert task.heard == ["7-3", "7-2", "7-1"]


def test_a_shared_engine_works_for_one_thread_at_a_time():
    busy, most = [], []

    class Busy(FakeEngine):
        def answer(self, requests):
            busy.append(1)
            most.append(len(busy))
            threading.Event().wait(0.01)
            busy.pop()
            return [[Completion(text="<answer>1</answer>", tokens=1)] for _ in requests]

    shared = TakingTurns(Busy())
    threads = [threading.Thread(target=lambda: list(draw_votes(shared, pairs_of(5), Plan()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) >= 4
    assert max(most) == 1


def test_leaving_a_session_drops_unanswered_requests():
    asked = []
    with BatchSession(2, lambda requests: [asked.append(request) or [] for request in requests]) as session:
        session.submit("a", 1)
        assert session.room() == 1
        assert session.collect() == [("a", [])]
        session.submit("b", 2)
    assert session.collect() == []
    assert asked == [1]


def test_pictures_are_compared_by_their_pixels():
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    assert opened([red]).digest == opened([red.copy()]).digest != opened([blue]).digest
