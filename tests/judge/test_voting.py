"""Verdicts and their rules by hand, and stopping rules against enumeration of every order of the votes."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_reward.judge import voting
from r1_reward.judge.metrics import majority_at_k
from r1_reward.judge.voting import (
    ExactStopping,
    SequentialStopping,
    Verdict,
    confidence_weighted,
    consistent_verdict,
    majority,
    votes_needed,
)
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment


def vote(answer, swapped=False, probability=None, tokens=1):
    return Judgment(
        answer=answer,
        swapped=swapped,
        text="",
        well_formed=answer is not None,
        tokens=tokens,
        probability=probability,
    )


def votes(*answers):
    return [vote(answer) for answer in answers]


ANSWERS = st.sampled_from([1, 2, None])


@pytest.mark.parametrize(
    ("answers", "preferred", "share"),
    [
        ((1, 1, 2), 1, 2 / 3),
        ((2,), 2, 1.0),
        ((1, 2), None, 0.5),
        ((1, 2, None), None, 0.5),
        ((None, 2), 2, 1.0),
        ((None, None), None, None),
        ((), None, None),
    ],
)
def test_verdicts(answers, preferred, share):
    verdict = majority(votes(*answers))
    assert verdict.preferred == preferred
    assert verdict.share == (None if share is None else pytest.approx(share))
    assert verdict.for_1 + verdict.for_2 + verdict.unreadable == len(answers)
    assert verdict.votes == tuple(votes(*answers))


def test_correctness():
    assert majority(votes(1, 1, 2)).correctness(1) == 1.0
    assert majority(votes(1, 1, 2)).correctness(2) == 0.0
    assert majority(votes(1, 2)).correctness(2) == 0.5
    assert majority(votes(None)).correctness(1) == 0.0
    unsure = [vote(2, probability=0.5)]
    assert confidence_weighted(unsure).correctness(1) == confidence_weighted(unsure).correctness(2) == 0.5


@settings(deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=7), st.integers(1, 7))
def test_the_mean_over_all_subsets_is_the_closed_form(answers, k):
    k = min(k, len(answers))
    subsets = list(combinations(answers, k))
    mean = sum(majority(votes(*subset)).correctness(1) for subset in subsets) / len(subsets)
    counts = answers.count(1), answers.count(2), answers.count(None)
    assert majority_at_k(*counts, k) == pytest.approx(mean)


def test_probability_is_the_mean_of_token_probabilities():
    read = [vote(1, probability=0.9), vote(2, probability=0.2), vote(None)]
    assert majority(read).probability == pytest.approx(0.55)


def test_probability_from_counts_is_jeffreys():
    assert majority(votes(1, 1, 2, None)).probability == pytest.approx(2.5 / 4)
    assert majority(votes(2)).probability == pytest.approx(0.25)
    # One vote has no token probability: the others' are of a different kind and are not used.
    assert majority([vote(1, probability=0.9), vote(1)]).probability == pytest.approx(2.5 / 3)
    assert Verdict(1, 3, 0, 0).probability == pytest.approx(3.5 / 4)  # counts alone


def test_probability_without_a_readable_vote_is_none():
    assert majority([]).probability is None
    assert majority([vote(None, probability=0.9)]).probability is None


def test_flips_pair_the_votes_of_the_two_orders():
    stored = [vote(1), vote(2), vote(None), vote(1)]
    swapped = [vote(1, True), vote(1, True), vote(2, True)]
    assert majority(stored + swapped).flips == pytest.approx(1 / 2)  # 1-1, 2-1, unreadable, no partner
    interleaved = [stored[0], swapped[0], swapped[1], stored[1], stored[2], swapped[2], stored[3]]
    assert majority(interleaved).flips == pytest.approx(1 / 2)
    assert majority(stored).flips is None
    assert majority([vote(1), vote(None, True)]).flips is None


def test_tokens_are_summed_over_all_votes():
    assert majority([vote(1, tokens=7), vote(None, tokens=5), vote(2, True, tokens=1)]).tokens == 13
    assert Verdict(None, 0, 0, 0).tokens == 0


@pytest.mark.parametrize(
    ("cast", "preferred"),
    [
        ([(1, 0.99), (2, 0.45), (2, 0.45)], 1),  # 0.98 against 0.1 + 0.1
        ([(1, 0.6), (2, 0.1)], 2),  # 0.2 against 0.8
        ([(1, None), (2, 0.0)], None),  # a vote without a probability weighs as much as a certain one
        ([(1, None), (2, 0.1)], 1),
        ([(1, 0.8), (2, 0.3), (2, 0.4)], None),  # 0.6 against 0.4 + 0.2, up to rounding
        ([(1, 0.5), (2, 0.5)], None),
        ([(None, 0.9), (2, 0.4)], 2),
        ([], None),
        ([(0, None), (0, None), (1, 0.9)], None),  # more votes for a tie than for either response
        ([(0, None), (0, None), (0, None), (1, 0.9), (2, 0.0), (2, 0.0)], None),
        ([(0, None), (1, 0.9)], 1),
        ([(0, None), (1, 0.9), (2, 0.45), (2, 0.45)], 1),
    ],
)
def test_confidence_weights_votes(cast, preferred):
    verdict = confidence_weighted([vote(answer, probability=p) for answer, p in cast])
    assert verdict.preferred == preferred
    answers = [answer for answer, _ in cast]
    assert verdict[1:4] == (answers.count(1), answers.count(2), answers.count(None))
    assert verdict.preferred is None or not verdict.says_tie
    assert len(verdict.votes) == len(cast)


@pytest.mark.parametrize(
    ("stored", "swapped", "preferred"),
    [
        ((1, 1, 2), (1,), 1),
        ((2,), (2, None), 2),
        ((1, 1, 1), (2,), None),  # the orders disagree, whatever the sum
        ((1, 1, 1), (1, 2), None),  # one order is tied
        ((1, 1), (None,), None),
        ((1, 1), (), None),
        ((1, 2), (2, 1), None),
        ((), (), None),
    ],
)
def test_consistent_verdict_needs_both_orders(stored, swapped, preferred):
    cast = [vote(a) for a in stored] + [vote(a, True) for a in swapped]
    verdict = consistent_verdict(cast)
    assert verdict == majority(cast)._replace(preferred=preferred)


def test_votes_needed_by_hand():
    exact = ExactStopping()
    assert votes_needed(votes(1, 1, 1, 2, 2), exact) == 3  # 3 to 0 with 2 to come
    assert votes_needed(votes(1, 2, 1, 2, 1), exact) == 5
    assert votes_needed(votes(1, 1, 2, 2), exact) == 4
    assert votes_needed(votes(2, None, None), exact) == 3  # a lead of 1 may become a tie
    assert votes_needed(votes(2, 2, None, None), exact) == 3  # a lead of 2 is safe from 1
    assert votes_needed([], exact) == 0
    assert votes_needed(votes(1, 1, 0, 0, 0), exact) == 5  # a tie is also a verdict
    assert votes_needed(votes(1, 1, 1, 0, 0, 0, 0), exact) == 7
    assert votes_needed(votes(0, 0, 0, 1, 2), exact) == 3
    assert votes_needed(votes(0, 0, 0, 0, 0), exact) == 3


@settings(deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 5), st.integers(0, 6))
def test_exact_stopping_is_enumeration_of_what_may_come(for_1, for_2, remaining, ties):
    drawn = [1] * for_1 + [2] * for_2 + [0] * ties
    outcomes = {majority(votes(*drawn, *rest)).preferred for rest in product([0, 1, 2, None], repeat=remaining)}
    assert ExactStopping().decided(for_1, for_2, remaining, ties) == (len(outcomes) == 1)


@settings(deadline=None)
@given(st.lists(ANSWERS | st.just(0), max_size=40))
def test_exact_stopping_never_changes_a_verdict(answers):
    drawn = votes_needed(votes(*answers), ExactStopping())
    assert majority(votes(*answers[:drawn])).preferred == majority(votes(*answers)).preferred


@pytest.mark.parametrize("error", [0.05, 0.15, 0.35])
@pytest.mark.parametrize("number", range(2, 8))
def test_votes_for_a_tie_keep_the_sequential_bound(number, error):
    """Over all orders of all possible votes, ties included."""
    rule, wrong = SequentialStopping(number, error), defaultdict(list)
    for answers in product([0, 1, 2, None], repeat=number):
        cast = votes(*answers)
        stopped = majority(cast[: votes_needed(cast, rule)])
        wrong[tuple(map(answers.count, (0, 1, 2)))].append(stopped.preferred != majority(cast).preferred)
    assert max(float(np.mean(each)) for each in wrong.values()) <= error


def stop_of(answers, rule, looks=None):
    """Where a rule stops, by its definition; ``looks`` are the numbers of votes at which it is called."""
    for n in range(1, len(answers) + 1):
        if (looks is None or n in looks) and rule.decided(answers[:n].count(1), answers[:n].count(2), len(answers) - n):
            return n
    return len(answers)


def disagreements(rule, looks=None):
    """(k1, k2) -> share of all orders of these votes in which the rule's verdict differs from that of all votes."""
    wrong = defaultdict(list)
    for answers in product([1, 2, None], repeat=rule.votes):
        end = stop_of(answers, rule, looks)
        lead = [answers[:n].count(1) - answers[:n].count(2) for n in (end, rule.votes)]
        wrong[answers.count(1), answers.count(2)].append(np.sign(lead[0]) != np.sign(lead[1]))
    return {counts: float(np.mean(each)) for counts, each in wrong.items()}


@pytest.mark.parametrize("error", [0.01, 0.05, 0.15, 0.35, 0.7])
@pytest.mark.parametrize("number", range(1, 8))
def test_sequential_bound_holds_for_every_composition(number, error):
    rule = SequentialStopping(number, error)
    shares = disagreements(rule)
    assert len(shares) == (number + 1) * (number + 2) // 2
    assert max(shares.values()) <= error
    # The computed error is that of the worst tie, and no composition is worse than the ties.
    computed = voting._stops_in_a_tie(voting._boundary(number, error))
    assert computed == pytest.approx(max(shares.values()), abs=1e-12)


@pytest.mark.parametrize("looks", [{2, 4, 6}, {3, 4}, {3, 5}, {3, 6}])
def test_sequential_bound_holds_when_votes_come_in_batches(looks):
    rule = SequentialStopping(7, 0.35)
    assert 0 < max(disagreements(rule, looks).values()) <= 0.35


@cache
def slow_tail(number, drawn, lead):
    """The largest probability of such a lead of 1 among the first votes, over ties, by enumeration of all orders."""
    orders = defaultdict(list)
    for answers in product([1, 2, None], repeat=number):
        if answers.count(1) == answers.count(2):
            first = answers[:drawn]
            orders[answers.count(1)].append(first.count(1) - first.count(2) >= lead)
    return max(float(np.mean(each)) for each in orders.values())


@pytest.mark.parametrize("number", [4, 5, 6])
def test_tails_equal_enumeration(number):
    tails = voting._lead_tails(number)
    for drawn, lead in product(range(1, number + 1), range(1, number + 2)):
        assert tails[drawn, lead] == pytest.approx(slow_tail(number, drawn, lead), abs=1e-12)


def test_the_level_is_the_largest_that_keeps_the_bound():
    number, error = 7, 0.35
    tails = voting._lead_tails(number)
    levels = sorted({slow_tail(number, n, d) for n in range(1, number + 1) for d in range(1, number + 1)} - {0.0})
    boundaries = [voting._leads(tails, level + 1e-9) for level in levels]
    kept = [b for b in boundaries if voting._stops_in_a_tie(b) <= error]
    assert 0 < len(kept) < len(levels)
    assert voting._boundary(number, error) == kept[-1]


@pytest.mark.parametrize("counts", [(7, 7, 1), (8, 7, 0), (7, 8, 0), (5, 5, 5), (6, 3, 6), (1, 1, 13), (11, 4, 0)])
def test_sequential_bound_by_monte_carlo(counts):
    rule, runs = SequentialStopping(15, 0.1), 3000
    rng = np.random.default_rng(sum(n * 16**i for i, n in enumerate(counts)))
    answers = np.repeat([1, 2, 0], counts)
    wrong = 0
    for _ in range(runs):
        shuffled = rng.permutation(answers).tolist()
        end = stop_of(shuffled, rule)
        lead = shuffled[:end].count(1) - shuffled[:end].count(2)
        wrong += np.sign(lead) != np.sign(counts[0] - counts[1])
    assert wrong / runs <= 0.1 + 4 * np.sqrt(0.1 * 0.9 / runs)
    if counts == (7, 7, 1):
        expected = voting._stops_in_a_tie(voting._boundary(15, 0.1))
        assert expected > 0.05  # the bound is used, not wasted
        assert abs(wrong / runs - expected) < 4 * np.sqrt(expected / runs)


def test_larger_errors_stop_no_later_and_fewer_votes_are_drawn():
    rules = [ExactStopping(), *(SequentialStopping(15, error) for error in (0.01, 0.05, 0.1, 0.3, 0.6))]
    rng = np.random.default_rng(5)
    drawn = np.array(
        [
            [votes_needed(cast, rule) for rule in rules]
            for share in rng.random(300)
            for cast in [votes(*(None if rng.random() < 0.1 else 2 - int(rng.random() < share) for _ in range(15)))]
        ]
    )
    assert (np.diff(drawn, axis=1) <= 0).all()
    mean = drawn.mean(axis=0)
    assert mean[2] < mean[0] - 1 and mean[5] < mean[2] - 1


def test_without_error_the_sequential_rule_is_the_exact_one():
    for number in (1, 2, 5, 6):
        for answers in product([1, 2, None], repeat=number):
            rules = SequentialStopping(number, 0.0), ExactStopping()
            assert stop_of(answers, rules[0]) == stop_of(answers, rules[1])
    for n, ones in product(range(65), range(65)):
        counts = ones, max(n - ones, 0), 64 - max(n, ones)
        assert SequentialStopping(64, 0.0).decided(*counts) == ExactStopping().decided(*counts)


def test_a_tie_never_stops_early():
    rule = SequentialStopping(10, 0.9)
    assert not any(rule.decided(k, k, 10 - 2 * k) for k in range(5))
    assert rule.decided(5, 5, 0)


def test_many_votes_keep_the_bound():
    boundary = voting._boundary(64, 0.05)
    assert 0.045 < voting._stops_in_a_tie(boundary) <= 0.05
    assert votes_needed(votes(*[2] * 64), SequentialStopping(64)) < 12


def test_impossible_numbers_are_refused():
    for bad in (0, -1, voting.MOST_VOTES + 1):
        with pytest.raises(UserError, match="votes"):
            SequentialStopping(bad)
    for bad in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="error"):
            SequentialStopping(5, bad)
    rule = SequentialStopping(5)
    for counts in ((3, 3, 0), (1, 0, 5), (0, 0, 6)):
        with pytest.raises(ValueError, match="readable"):
            rule.decided(*counts)
