"""Scores against slow reference programs, written here, that follow each official script step by step."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import groupby
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_reward.bench import metrics
from r1_reward.bench.rows import Outcome, Vote
from r1_reward.bench.summary import Tally

R, W, N = True, False, None
"""A vote for the preferred response, for the other one, an unreadable one."""


def tally_of(outcomes):
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    return tally


def official_vl(items):
    """VL-RewardBench: ``items`` are (group, votes), votes agree, reject or doesntMatch."""
    agree, total = defaultdict(int), defaultdict(int)
    for group, votes in items:
        for word in ("agree", "reject"):
            if votes.count(word) > len(votes) / 2:
                total[group] += 1
                agree[group] += word == "agree"
    accuracies = {group: agree[group] / total[group] for group in total}
    return sum(agree.values()) / sum(total.values()), accuracies, sum(accuracies.values()) / len(accuracies)


@pytest.mark.parametrize("votes", [1, 2, 3, 7, 10])
def test_drop_is_the_official_vl_rewardbench_script(votes):
    rng = random.Random(votes)
    words = {R: "agree", W: "reject", N: "doesntMatch"}
    groups = ["general"] * 183 + ["hallucination"] * 749 + ["reasoning"] * 318
    cast = [rng.choices([R, W, N], [6, 4, 0.3], k=votes) for _ in groups]
    overall, accuracies, macro = official_vl(
        [(g, [words[v] for v in row]) for g, row in zip(groups, cast, strict=True)]
    )
    outcomes = [
        Outcome(i, f"id-{i}", (tuple(Vote(v) for v in row),), g)
        for i, (g, row) in enumerate(zip(groups, cast, strict=True))
    ]
    result = tally_of(outcomes).summary(rule="drop", resamples=20)
    assert result["overall"] == overall
    assert {name: entry["accuracy"] for name, entry in result["categories"].items()} == accuracies
    assert result["macro"] == pytest.approx(macro, abs=1e-15)
    assert f"{result['macro']:.6%}" == f"{macro:.6%}"
    assert result["n"] == sum(entry["n"] for entry in result["categories"].values()) < 1250


def official_multimodal(rows):
    """Multimodal RewardBench: ``rows`` are (category, label, output)."""
    random.seed(123)
    hits = defaultdict(list)
    for category, label, output in rows:
        if "[[A]]" in output:
            verdict = "A"
        elif "[[B]]" in output:
            verdict = "B"
        else:
            verdict = "A" if random.random() < 0.5 else "B"
        hits["all"].append(int(verdict == label))
        hits[category].append(int(verdict == label))
    return {name: sum(values) / len(values) for name, values in hits.items()}


def test_coin_is_the_official_multimodal_rewardbench_script():
    rng = random.Random(5)
    outputs = ["I prefer [[A]]", "[[B]]", "both are fine", "[[A]] no, [[B]]"]
    rows = [
        (rng.choice(["vqa", "knowledge", "safety/bias"]), rng.choice("AB"), rng.choices(outputs, [4, 4, 3, 1])[0])
        for _ in range(4711)
    ]
    state = random.getstate()
    official = official_multimodal(rows)
    random.setstate(state)
    tally = Tally()
    for i, (category, label, output) in enumerate(rows):
        verdict = "A" if "[[A]]" in output else "B" if "[[B]]" in output else None
        correct = None if verdict is None else verdict == label
        tally.add(Outcome(i, f"{i}", ((Vote(correct, label == "A"),),), category))
    result = tally.summary(rule="coin", resamples=20)
    assert result["overall"] == official.pop("all")
    assert {name: entry["accuracy"] for name, entry in result["categories"].items()} == official
    assert result["rules"]["coin"] == {"overall": result["overall"], "macro": result["macro"], "n": 4711}


def test_coin_draws_in_the_order_of_votes_and_passes():
    rng = random.Random(8)
    outcomes = []
    for i in range(60):
        passes = tuple(
            tuple(Vote(rng.choice([R, W, N]), rng.choice([True, False, None])) for _ in range(4)) for _ in range(2)
        )
        outcomes.append(Outcome(i, str(i), passes))
    coin = random.Random(123)
    expected = []
    for outcome in outcomes:
        scores = []
        for votes in outcome.passes:
            balance = 0
            for vote in votes:
                correct = vote.correct
                if correct is None:
                    letter = "A" if coin.random() < 0.5 else "B"
                    correct = letter == ("B" if vote.preferred_first is False else "A")
                balance += 1 if correct else -1
            scores.append(1 if balance > 0 else 0 if balance < 0 else 0.5)
        expected.append(mean(scores))
    assert tally_of(outcomes).summary(rule="coin", resamples=20)["overall"] == mean(expected)


def released_mm_rlhf(items):
    """MM-RLHF-RewardBench: ``items`` are (id, path, rewards of chosen and rejected)."""
    keywords = ["mcq", "long", "short", "safety", "video"]
    by_id = defaultdict(list)
    for name, path, rewards in items:
        category = next(word for word in keywords if word in path)
        by_id[name].append((category, rewards[0] > rewards[1]))
    accuracy, plus = defaultdict(list), defaultdict(list)
    for rows in by_id.values():
        for category, correct in rows:
            accuracy[category].append(correct)
            accuracy["all"].append(correct)
        plus[rows[0][0]].append(all(correct for _, correct in rows))
        plus["all"].append(all(correct for _, correct in rows))
    return {key: (sum(accuracy[key]) / len(accuracy[key]), sum(plus[key]) / len(plus[key])) for key in accuracy}


def test_accuracy_and_acc_plus_of_the_released_mm_rlhf_script():
    rng = random.Random(2)
    items = []
    for part, ids in [("mcq", 10), ("long", 10), ("short", 10), ("safety", 6), ("video", 10)]:
        for number in range(ids):
            pairs = rng.randint(2, 6)
            items += [
                (f"{part}-{number}", f"{part}/x.png", rng.choices([[1, 0], [0, 1], [0, 0]], [9, 2, 1])[0])
                for _ in range(pairs)
            ]
    rng.shuffle(items)
    official = released_mm_rlhf(items)
    tally = Tally()
    for i, (name, path, (chosen, rejected)) in enumerate(items):
        tally.add(Outcome(i, name, ((Vote(chosen > rejected, True),),), path.split("/")[0]))
    result = tally.summary(acc_plus=True, resamples=20)
    assert (result["overall"], result["acc_plus"]) == official.pop("all")
    assert {name: (e["accuracy"], e["acc_plus"]) for name, e in result["categories"].items()} == official
    assert {name: e["ids"] for name, e in result["categories"].items()} == {
        "mcq": 10,
        "long": 10,
        "short": 10,
        "safety": 6,
        "video": 10,
    }


NO_TIE = st.just(False)
VOTES = st.lists(
    st.builds(Vote, st.sampled_from([R, R, W, N]), st.sampled_from([True, False]), third=NO_TIE), min_size=1, max_size=4
)


@st.composite
def runs(draw, votes=VOTES):
    """Outcomes of up to eight rows with repeated ids, uneven votes and rows without a category."""
    passes = draw(st.integers(1, 2))
    return [
        Outcome(
            i,
            draw(st.sampled_from("abc")),
            tuple(tuple(draw(votes)) for _ in range(passes)),
            draw(st.sampled_from(["x", "y", None])),
            longer=draw(st.sampled_from([-1, 0, 1])),
        )
        for i in range(draw(st.integers(1, 8)))
    ]


def slow_pass(votes, rule):
    right = sum(v.correct is True for v in votes)
    wrong = sum(v.correct is False for v in votes)
    if rule == "drop" and max(right, wrong) <= len(votes) / 2:
        return None
    if right + wrong == 0:
        return 0.0
    return 1.0 if right > wrong else 0.0 if right < wrong else 0.5


def slow_mean(values):
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def slow_acc_plus(outcomes, rule):
    by_pass = []
    for p in range(len(outcomes[0].passes)):
        ids = []
        for _, rows in groupby(sorted(outcomes, key=lambda o: o.id), key=lambda o: o.id):
            known = [v for v in (slow_pass(row.passes[p], rule) for row in rows) if v is not None]
            ids.append(float(np.prod(known)) if known else None)
        by_pass.append(slow_mean(ids))
    return slow_mean(by_pass)


@settings(deadline=None, max_examples=60)
@given(runs(), st.sampled_from(["wrong", "drop"]))
def test_every_score_equals_a_plain_loop(outcomes, rule):
    result = tally_of(outcomes).summary(rule=rule, acc_plus=True, resamples=20)
    rows = [slow_mean([slow_pass(votes, rule) for votes in o.passes]) for o in outcomes]
    names = sorted({o.category for o in outcomes if o.category})
    parts = {name: [r for r, o in zip(rows, outcomes, strict=True) if o.category == name] for name in names}
    assert result["overall"] == pytest.approx(slow_mean(rows))
    assert {name: e["accuracy"] for name, e in result["categories"].items()} == pytest.approx(
        {name: slow_mean(part) for name, part in parts.items()}
    )
    assert result["macro"] == pytest.approx(slow_mean([slow_mean(part) for part in parts.values()]))
    assert result["n"] == sum(row is not None for row in rows)
    assert result["acc_plus"] == pytest.approx(slow_acc_plus(outcomes, rule))
    for name in names:
        inside = [o for o in outcomes if o.category == name]
        assert result["categories"][name]["acc_plus"] == pytest.approx(slow_acc_plus(inside, rule))


@settings(deadline=None, max_examples=40)
@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_but_the_coin(outcomes, rng):
    shuffled = outcomes[:]
    rng.shuffle(shuffled)
    results = [tally_of(rows).summary(acc_plus=True, resamples=50) for rows in (outcomes, shuffled)]
    curves = []
    for result in results:
        del result["rules"]["coin"]
        curve = result.pop("voting_curve") or {}
        curves.append([value for points in curve.values() for point in points for value in point.values()])
    assert results[0] == results[1]
    assert curves[0] == pytest.approx(curves[1])  # thirds do not add up alike in every order


READABLE = st.lists(st.builds(Vote, st.booleans(), st.booleans(), third=NO_TIE), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(runs(READABLE))
def test_swapping_right_and_wrong_mirrors_every_accuracy(outcomes):
    turned = [
        o._replace(passes=tuple(tuple(v._replace(correct=not v.correct) for v in votes) for votes in o.passes))
        for o in outcomes
    ]
    one, other = (tally_of(rows).summary(resamples=200) for rows in (outcomes, turned))
    assert other["overall"] == pytest.approx(1 - one["overall"])
    if one["macro"] is not None:
        assert other["macro"] == pytest.approx(1 - one["macro"])
    assert other["flip_rate"] == one["flip_rate"]
    assert other["first_share"] == pytest.approx(1 - one["first_share"])
    assert one["rules"]["wrong"] == one["rules"]["coin"]


def test_rows_of_one_id_are_resampled_within_the_first_of_their_categories():
    rows = [("a", "y"), ("a", "x"), ("b", None), ("c", "y")]
    outcomes = [Outcome(i, name, ((Vote(R),),), category) for i, (name, category) in enumerate(rows)]
    assert tally_of(outcomes).counts().strata().tolist() == [0, 0, -1, 1]


def test_nothing_scored_is_nan_not_zero():
    assert np.isnan(metrics.mean(np.array([np.nan, np.nan])))
    assert np.isnan(metrics.macro([]))
    assert np.isnan(metrics.row_means(np.full((1, 2), np.nan))).all()
    assert metrics.row_means(np.array([[np.nan, 1.0], [0.0, 1.0]])).tolist() == [1.0, 0.5]
