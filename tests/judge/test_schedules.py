"""Schedules: which pairs they choose, how many, in which rounds; and the rewards of a partial one."""

from __future__ import annotations

import itertools
import math
import random
import re
from typing import get_args

import numpy as np
import pytest
from fakes import FakeEngine, shown
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from r1_reward.engines.engine import EngineError
from r1_reward.judge.comparisons import Comparison, bradley_terry, net_win_rates
from r1_reward.judge.groups import Group, score_groups
from r1_reward.judge.prepare import InvalidPair
from r1_reward.judge.ranking import best_of_n, rank
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.schedules import count_comparisons, schedule_for
from r1_reward.judge.settings import ScheduleName
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion

NAMES = get_args(ScheduleName)
PARTIAL = [name for name in NAMES if name != "round-robin"]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def soft(worth):
    return lambda i, j: sigmoid(worth[i] - worth[j])


def hard(worth):
    return lambda i, j: 0.5 if worth[i] == worth[j] else float(worth[i] > worth[j])


def played(name, n, judge, *, seed=0, comparisons=None):
    """Return the rounds of a schedule and all comparisons."""
    schedule = schedule_for(name, n, comparisons=comparisons, seed=seed)
    rounds, all_of_them = [], []
    while pairs := schedule(all_of_them):
        rounds.append(pairs)
        all_of_them += [Comparison(i, j, judge(i, j)) for i, j in pairs]
    return rounds, all_of_them


def order(rewards):
    return sorted(range(len(rewards)), key=lambda i: -rewards[i])


# Which pairs.


def test_numbers_of_comparisons_by_hand():
    expected = {
        "round-robin": [0, 1, 3, 6, 28, 120],
        "circular": [0, 1, 3, 4, 8, 16],
        "bracket": [0, 1, 2, 3, 7, 15],
        "adaptive": [0, 1, 3, 6, 16, 32],
    }
    for name, counts in expected.items():
        assert [count_comparisons(name, n) for n in (1, 2, 3, 4, 8, 16)] == counts
    assert [count_comparisons("adaptive", 8, budget) for budget in (1, 8, 27, 28, 1000)] == [1, 8, 27, 28, 28]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 20), st.integers(0, 2**62), st.none() | st.integers(1, 250), st.data())
def test_every_schedule_ends_with_its_number_of_comparisons_and_no_pair_twice(name, n, seed, budget, data):
    budget = budget if name == "adaptive" else None
    answers = st.none() | st.floats(0, 1)
    rounds, all_of_them = played(name, n, lambda i, j: data.draw(answers), seed=seed, comparisons=budget)
    assert len(all_of_them) == count_comparisons(name, n, budget)
    assert len({frozenset(one[:2]) for one in all_of_them}) == len(all_of_them)
    assert all(0 <= i < n and 0 <= j < n and i != j for one in rounds for i, j in one)
    if n > 1 and (budget is None or budget >= 2 * n):
        assert {i for one in all_of_them for i in one[:2]} == set(range(n)), "none is left out"


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8, 16, 21])
def test_rounds(n):
    worth = random.Random(n).sample(range(n), n)
    for name in ("round-robin", "circular"):
        assert len(played(name, n, hard(worth))[0]) == 1
    assert len(played("bracket", n, hard(worth))[0]) == math.ceil(math.log2(n))
    for name in ("bracket", "adaptive"):
        rounds, all_of_them = played(name, n, hard(worth))
        if len(all_of_them) < n * (n - 1) // 2:
            assert all(len({i for pair in one for i in pair}) == 2 * len(one) for one in rounds), "disjoint"
    if n > 5:
        assert len(played("adaptive", n, hard(worth))[0][0]) == n // 2


@pytest.mark.parametrize("n", [3, 4, 5, 11])
def test_a_circle_is_a_single_circle(n):
    rounds, _ = played("circular", n, lambda i, j: 0.5, seed=n)
    (pairs,) = rounds
    following = dict(pairs)
    assert sorted(following) == sorted(following.values()) == list(range(n))
    seen, here = [0], following[0]
    while here != 0:
        seen.append(here)
        here = following[here]
    assert len(seen) == n, "not two smaller circles"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.integers(2, 12), st.integers(0, 99), st.data())
def test_a_schedule_keeps_nothing_between_rounds(name, n, seed, data):
    answers = st.none() | st.sampled_from([0.0, 0.1, 0.5, 0.8, 1.0])
    rounds, all_of_them = played(name, n, lambda i, j: data.draw(answers), seed=seed)
    begin = 0
    schedule = schedule_for(name, n, seed=seed)
    for pairs in [*rounds, []]:
        so_far = all_of_them[:begin]
        assert schedule(so_far) == schedule(so_far) == schedule_for(name, n, seed=seed)(so_far) == pairs
        begin += len(pairs)
    assert schedule([]) == rounds[0], "asked again from the start"


@pytest.mark.parametrize("name", PARTIAL)
def test_another_seed_draws_other_pairs(name):
    drawn = {tuple(played(name, 9, hard(range(9)), seed=seed)[1]) for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("n", [1, 2, 3, 6, 13])
def test_ranking_and_the_knockout_play_these_schedules(n):
    judge = hard(random.Random(n).sample(range(n), n))

    def batch(pairs):
        return [judge(i, j) for i, j in pairs]

    assert best_of_n(n, batch, seed=4)[1] == tuple(played("bracket", n, judge, seed=4)[1])
    asked = played("adaptive", n, judge, seed=4, comparisons=2 * n)[1]
    assert rank(n, batch, budget=2 * n, seed=4).comparisons == tuple(asked)
    names = list(range(n))[::-1]
    assert best_of_n(n, batch, seed=4, names=names)[0] == best_of_n(n, batch, seed=4)[0], "the best, by its own index"
    renamed = [Comparison(names[i], names[j], None) for i, j, _ in played("bracket", n, lambda i, j: None, seed=4)[1]]
    assert best_of_n(n, lambda pairs: [None] * len(pairs), seed=4, names=names)[1] == tuple(renamed)


# Their rewards.


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 12])
def test_a_budget_for_all_pairs_gives_round_robins_rewards(n):
    rng = np.random.default_rng(n)
    table = {(i, j): float(rng.random()) for i, j in itertools.combinations(range(n), 2)}

    def judge(i, j):
        return table[i, j] if i < j else 1 - table[j, i]

    full = net_win_rates(n, played("round-robin", n, judge)[1])
    for budget in (n * (n - 1) // 2, 10_000):
        assert net_win_rates(n, played("adaptive", n, judge, comparisons=budget)[1]) == pytest.approx(full)
    if n <= 5:  # 2 N are all pairs
        assert net_win_rates(n, played("adaptive", n, judge)[1]) == pytest.approx(full)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_small_groups_have_round_robins_order_with_a_perfect_judge(name, n):
    for seed in range(10):
        worth = np.random.default_rng(seed).permutation(np.linspace(-1, 1, n))
        full = net_win_rates(n, played("round-robin", n, soft(worth))[1])
        assert order(net_win_rates(n, played(name, n, soft(worth), seed=seed)[1])) == order(full) == order(worth)


@pytest.mark.parametrize(("n", "least"), [(6, 1.0), (8, 1.0), (12, 0.96), (16, 0.96)])
def test_adaptive_has_round_robins_order_with_a_perfect_judge(n, least):
    agreement = []
    for seed in range(12):
        worth = np.random.default_rng(seed).permutation(np.linspace(-2, 2, n))
        agreement.append(stats.kendalltau(net_win_rates(n, played("adaptive", n, soft(worth), seed=seed)[1]), worth)[0])
    assert min(agreement) >= least - 1e-9


@pytest.mark.parametrize("name", ["circular", "bracket"])
@pytest.mark.parametrize("n", [8, 16])
def test_few_comparisons_come_close_with_a_perfect_judge(name, n):
    agreement, differences = [], []
    for seed in range(20):
        worth = np.random.default_rng(seed).permutation(np.linspace(-1, 1, n))
        own = net_win_rates(n, played(name, n, soft(worth), seed=seed)[1])
        full = net_win_rates(n, played("round-robin", n, soft(worth))[1])
        agreement.append(stats.kendalltau(own, full)[0])
        differences.append(np.mean(np.abs(np.subtract(own, full))))
    # Measured: 0.85 to 0.96, and 0.04 to 0.07. Only the opponents met give 0.6 to 0.7, and 0.14 to 0.2.
    assert np.mean(agreement) > 0.82 and np.mean(differences) < 0.1


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 20), st.integers(0, 50))
def test_the_best_of_a_knockout_has_the_highest_reward(n, seed):
    worth = np.random.default_rng(seed).permutation(n)
    rewards = net_win_rates(n, played("bracket", n, hard(worth), seed=seed)[1])
    assert order(rewards)[0] == np.argmax(worth)


def test_opponents_not_met_count_by_their_scores():
    met = [Comparison(0, 1, 0.9), Comparison(1, 2, 0.8)]
    scores, _ = bradley_terry(3, met)
    between = 2 * sigmoid(scores[0] - scores[2]) - 1
    assert between > 0.6
    assert net_win_rates(3, met) == pytest.approx([(0.8 + between) / 2, (-0.8 + 0.6) / 2, (-0.6 - between) / 2])


@pytest.mark.parametrize(
    ("met", "expected"),
    [
        ([(0, 1, 0.9), (0, 2, 0.8), (1, 2, None)], [0.7, -0.8, -0.6]),  # compared, and left out
        ([(0, 1, 0.9), (0, 2, None), (1, 2, None)], [0.8, -0.8, None]),
        ([(0, 1, 0.9), (1, 2, None)], [0.8, -0.8, None]),  # nothing is known about 2: it is not an opponent
        ([(0, 1, None)], [None, None, None]),
        ([], [None, None, None]),
    ],
)
def test_unreadable_comparisons_do_not_count_as_opponents(met, expected):
    rates = net_win_rates(3, [Comparison(*one) for one in met])
    assert rates == [one if one is None else pytest.approx(one) for one in expected]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 9), st.integers(0, 9), st.data())
def test_rewards_are_bounded_add_up_to_zero_and_are_missing_where_nothing_was_read(name, n, seed, data):
    _, all_of_them = played(name, n, lambda i, j: data.draw(st.none() | st.floats(0, 1)), seed=seed)
    rates = net_win_rates(n, all_of_them)
    readable = {i for one in all_of_them if one.probability is not None for i in one[:2]}
    assert {i for i, rate in enumerate(rates) if rate is not None} == readable
    assert all(rate is None or -1 - 1e-12 <= rate <= 1 + 1e-12 for rate in rates)
    if all(one.probability is not None for one in all_of_them) and n > 1:
        assert sum(rates) == pytest.approx(0, abs=1e-9)


# Groups.


class Judge(FakeEngine):
    """Prefers the text with the larger number, P = sigmoid(gap); records each batch."""

    def __init__(self, batch_size=64, unreadable=(), broken=()):
        self.batch_size, self.unreadable, self.broken, self.batches = batch_size, unreadable, broken, []

    @property
    def asked(self):
        return [one for batch in self.batches for one in batch]

    @property
    def compared(self):
        return {(question, frozenset(texts)) for question, *texts in self.asked}

    def answer(self, requests):
        self.batches.append([shown(request) for request in requests])
        for request in requests:
            _, first, second = shown(request)
            if first in self.broken or second in self.broken:
                yield EngineError("the judge stumbles")
                continue
            gap = value(first) - value(second)
            answer = "?" if first in self.unreadable or second in self.unreadable else "1" if gap >= 0 else "2"
            text = f"<think>Seen.</think><answer>{answer}</answer>"
            yield [Completion(text=text, tokens=5, probability=sigmoid(gap)) for _ in request.seeds]


def value(text):
    return float(re.search(r"-?\d+(\.\d+)?", text)[0])


def texts(n, seed=0):
    return [f"worth {number / 4}" for number in random.Random(seed).sample(range(n), n)]


def scored(groups, judge, **options):
    model = RewardModel(judge)
    return list(score_groups(groups, model.compare_many, **options))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, 3, 4, 8, 11])
def test_a_group_takes_its_number_of_comparisons(name, n):
    judge = Judge()
    (one,) = scored([Group("Q?", [], texts(n))], judge, schedule=name)
    assert len(one.comparisons) == len(judge.compared) == count_comparisons(name, n)
    assert all(reward is not None for reward in one.rewards) and sum(one.rewards) == pytest.approx(0, abs=1e-9)
    assert len(one.votes) == 2 * len(one.comparisons)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["win_rate", "bradley_terry"])
def test_rewards_follow_the_texts_not_their_places(name, kind):
    responses = texts(9)
    judge = Judge()
    (one,) = scored([Group("Q?", [], responses)], judge, schedule=name, kind=kind)
    for seed in range(4):
        moved = random.Random(seed).sample(range(9), 9)
        again = Judge()
        (other,) = scored([Group("Q?", [], [responses[i] for i in moved])], again, schedule=name, kind=kind)
        assert again.compared == judge.compared
        assert other.rewards == pytest.approx([one.rewards[i] for i in moved], abs=1e-9)


@pytest.mark.parametrize("name", PARTIAL)
def test_responses_that_look_the_same_have_the_same_opponents(name):
    responses = [*texts(7), "worth 9", "worth\u200b 9"]
    judge, other = Judge(), Judge()
    (one,) = scored([Group("Q?", [], responses)], judge, schedule=name)
    (turned,) = scored([Group("Q?", [], responses[::-1])], other, schedule=name)
    assert one.rewards[7] == one.rewards[8]
    assert turned.rewards == pytest.approx(one.rewards[::-1], abs=1e-9)


@pytest.mark.parametrize("name", PARTIAL)
def test_opponents_are_drawn_from_question_responses_and_seed(name):
    def pairs(question="Q?", seed=0):
        judge = Judge()
        scored([Group(question, [], texts(9))], judge, schedule=name, seed=seed)
        return {texts for _, texts in judge.compared}

    assert pairs() == pairs()
    assert len({frozenset(pairs(**other)) for other in ({}, {"question": "R?"}, {"seed": 1}, {"seed": 2})}) == 4


@pytest.mark.parametrize(("method", "options"), [("rank", {"budget": 12}), ("best_of_n", {})])
def test_ranking_and_the_knockout_are_drawn_from_the_content_not_the_order(method, options):
    def compared(seed=0, order=0):
        judge = Judge()
        responses = random.Random(order).sample(texts(9), 9)
        getattr(RewardModel(judge, seed=seed), method)("Q?", [], responses, **options)
        return judge.compared

    assert compared(order=0) == compared(order=1) == compared(order=2)
    assert compared(seed=0) != compared(seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_lone_equal_and_broken_groups_keep_their_places(name):
    groups = [
        Group("Q?", [], ["worth 1"]),
        Group("Q?", [], ["worth 1", "worth 1"]),
        Group("Q?", [], ["worth 2", "worth 1", "worth 2", "worth 3"]),
        Group("Q?", [], ["worth 1", " "]),
        EngineError("no row"),
        Group("Q?", [], ["worth 1", "worth 2"]),
        Group("Q?", [], ["worth 5"]),
    ]
    judge = Judge()
    alone, equal, some, blank, missing, two, last = scored(groups, judge, schedule=name)
    assert (alone.rewards, equal.rewards, last.rewards) == ([None], [0.0, 0.0], [None])
    assert alone.comparisons == equal.comparisons == ()
    assert some.rewards[0] == some.rewards[2] and order(some.rewards)[0] == 3 and some.rewards[1] < 0
    assert {i for one in some.comparisons for i in one[:2]} == {0, 1, 3}, "equal texts go by the first of them"
    assert isinstance(blank, InvalidPair) and isinstance(missing, EngineError)
    assert two.rewards[0] < 0 < two.rewards[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["win_rate", "bradley_terry"])
def test_an_unreadable_response_has_no_reward_under_any_schedule(name, kind):
    responses = texts(8)
    judge = Judge(unreadable=responses[2:3])
    (one,) = scored([Group("Q?", [], responses)], judge, schedule=name, kind=kind)
    assert one.rewards[2] is None
    assert all(reward is not None for i, reward in enumerate(one.rewards) if i != 2) or name in ("circular", "bracket")
    (mute,) = scored([Group("Q?", [], responses)], Judge(unreadable=responses), schedule=name, kind=kind)
    assert mute.rewards == [None] * 8 and mute.unreadable == count_comparisons(name, 8)


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_counted_and_the_schedule_is_played_to_its_end(name):
    responses = texts(8)
    (one,) = scored([Group("Q?", [], responses)], Judge(broken=responses[:1]), schedule=name)
    assert one.errors and one.rewards[0] is None
    assert len(one.comparisons) == count_comparisons(name, 8)
    assert one.unreadable == len(one.errors)
    with pytest.raises(EngineError, match="stumbles"):
        RewardModel(Judge(broken=responses[:1])).rewards("Q?", [], responses, schedule=name)


@pytest.mark.parametrize("name", NAMES)
def test_groups_get_the_same_rewards_alone_and_together(name):
    groups = [Group(f"Q{i}?", [], texts(2 + i % 7, seed=i)) for i in range(40)]
    together = scored(groups, Judge(batch_size=4), schedule=name)
    assert [one.rewards for one in together] == [scored([group], Judge(), schedule=name)[0].rewards for group in groups]


@pytest.mark.parametrize("name", PARTIAL)
def test_rounds_of_many_groups_fill_the_batches(name):
    judge = Judge(batch_size=8)  # a session takes 32 at once
    scored([Group(f"Q{i}?", [], texts(8, seed=i)) for i in range(60)], judge, schedule=name)
    full = sum(len(batch) for batch in judge.batches if len(batch) >= 31)
    assert full >= 0.9 * len(judge.asked), [len(batch) for batch in judge.batches]
    alone = Judge(batch_size=8)
    for i in range(60):
        scored([Group(f"Q{i}?", [], texts(8, seed=i))], alone, schedule=name)
    assert len(judge.batches) <= len(alone.batches) / 2


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_taken_as_they_are_needed(name):
    taken = []

    def groups():
        for i in range(500):
            taken.append(i)
            yield Group(f"Q{i}?", [], texts(6, seed=i))

    stream = score_groups(groups(), RewardModel(Judge(batch_size=4)).compare_many, schedule=name)
    for _ in range(3):
        next(stream)
    assert len(taken) < 60
    stream.close()


def test_round_robin_is_the_default_and_compares_as_before():
    asked = []
    for options in ({}, {"schedule": "round-robin"}, {"schedule": "round-robin", "seed": 7}):
        judge = Judge()
        (one,) = scored([Group("Q?", [], texts(5))], judge, **options)
        assert [one[:2] for one in one.comparisons] == list(itertools.combinations(range(5), 2))
        asked.append(judge.asked)
    assert asked[0] == asked[1] == asked[2]
    model = RewardModel(Judge())
    assert model.rewards("Q?", [], texts(5)) == model.rewards("Q?", [], texts(5), schedule="round-robin")


@pytest.mark.parametrize("budget", [1, 2, 5, 9, 15, 99])
def test_adaptive_keeps_to_its_budget(budget):
    judge = Judge()
    rewards = RewardModel(judge).rewards("Q?", [], texts(6), schedule="adaptive", comparisons=budget)
    assert len(judge.compared) == min(budget, 15)
    met = {text for _, both in judge.compared for text in both}
    assert [reward is not None for reward in rewards] == [text in met for text in texts(6)]


def test_the_seed_of_the_model_decides():
    judges = [Judge() for _ in range(3)]
    for judge, seed in zip(judges, (0, 0, 1), strict=True):
        RewardModel(judge, seed=seed).rewards("Q?", [], texts(9), schedule="circular")
    assert judges[0].compared == judges[1].compared != judges[2].compared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "swiss"}, "schedule: must be round-robin, circular, bracket or adaptive, not 'swiss'"),
        ({"schedule": "adaptive", "comparisons": 0}, "comparisons: must be 1 or more, not 0"),
        ({"comparisons": 5}, "comparisons: the schedule round-robin has a fixed number"),
        ({"schedule": "circular", "comparisons": 5}, "comparisons: the schedule circular has a fixed number"),
        ({"schedule": "bracket", "comparisons": 5}, "comparisons: the schedule bracket has a fixed number"),
    ],
)
def test_an_invalid_schedule_is_refused_before_anything_is_judged(options, message):
    judge = Judge()
    with pytest.raises(UserError, match=message):
        RewardModel(judge).rewards("Q?", [], ["alone"], **options)
    with pytest.raises(UserError, match=message):
        score_groups([], RewardModel(judge).compare_many, **options)
    assert judge.batches == []


class DarkestFirst(FakeEngine):
    """Prefers the darker of two pictures; records which they were."""

    def __init__(self):
        self.compared = set()

    def answer(self, requests):
        for request in requests:
            first, second = (picture.getpixel((0, 0))[0] for picture in request.images)
            self.compared.add(frozenset((first, second)))
            text = f"<think>Seen.</think><answer>{1 if first < second else 2}</answer>"
            yield [Completion(text=text, tokens=5, probability=sigmoid((second - first) / 50)) for _ in request.seeds]


@pytest.mark.parametrize("name", NAMES)
def test_responses_that_are_pictures_are_drawn_by_their_pixels(name):
    greys = [0, 200, 40, 120, 160, 80, 240, 20]
    responses = [[{"type": "image", "image": Image.new("RGB", (28, 28), (grey,) * 3)}] for grey in greys]
    engine = DarkestFirst()
    rewards = RewardModel(engine).rewards("Which is darker?", [], responses, schedule=name)
    assert len(engine.compared) == count_comparisons(name, 8)
    assert order(rewards)[0] == 0 or name == "circular"
    turned = DarkestFirst()
    back = RewardModel(turned).rewards("Which is darker?", [], responses[::-1], schedule=name)
    assert turned.compared == engine.compared and back == pytest.approx(rewards[::-1], abs=1e-9)
