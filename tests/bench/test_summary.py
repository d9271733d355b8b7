"""Tallies against hand-computed cases: reports, errors and comparisons of two runs."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from r1_reward.bench.rows import Outcome, Vote, won
from r1_reward.bench.summary import Tally, compare_tallies
from r1_reward.judge.voting import majority
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment

R, W, N = True, False, None
"""A vote for the preferred response, for the other one, an unreadable one."""


def row(index, *passes, id=None, first=None, **fields):
    """An Outcome whose votes say only which response they name, and (the same for a pass) where it was shown."""
    positions = first if isinstance(first, tuple) else (first,) * len(passes)
    votes = tuple(tuple(Vote(v, shown) for v in p) for p, shown in zip(passes, positions, strict=True))
    return Outcome(index, f"id-{index}" if id is None else id, votes, **fields)


def tally_of(*outcomes):
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    return tally


def summary_of(*outcomes, **options):
    return tally_of(*outcomes).summary(**{"resamples": 200, **options})


def test_one_row_under_each_rule():
    rows = [
        row(0, [R, R, W], category="x"),  # right everywhere
        row(1, [R, W], category="x"),  # a tie: one half, dropped
        row(2, [W, N], category="y"),  # wrong; dropped, as one of two is no majority; the coin can make it a tie
        row(3, [N, N], category="y"),  # wrong; dropped
        row(4, [W, W], category="y"),  # wrong everywhere
    ]
    # random.Random(123) starts 0.052 (heads, right here), 0.087 (right), 0.407 (right)
    rules = summary_of(*rows)["rules"]
    assert rules["wrong"] == {"overall": 1.5 / 5, "macro": (0.75 + 0) / 2, "n": 5}
    assert rules["drop"] == {"overall": 1 / 2, "macro": (1 + 0) / 2, "n": 2}
    assert rules["coin"] == {"overall": pytest.approx(3 / 5), "macro": pytest.approx((0.75 + 0.5) / 2), "n": 5}
    for rule in rules:
        result = summary_of(*rows, rule=rule)
        assert {key: result[key] for key in ("overall", "macro", "n")} == rules[rule]
        assert (result["rule"], result["rows"], result["votes"], result["passes"]) == (rule, 5, 2, 1)


def test_a_row_is_the_mean_of_its_passes_and_rows_weigh_the_same():
    rows = [row(0, [R], [R]), row(1, [R], [W]), row(2, [W], [N]), row(3, [N], [R])]
    assert summary_of(*rows)["overall"] == (1 + 0.5 + 0 + 0.5) / 4
    dropped = summary_of(*rows, rule="drop")
    # Rows 2 and 3 keep the pass that can be read.
    assert (dropped["overall"], dropped["n"]) == ((1 + 0.5 + 0 + 1) / 4, 4)


@pytest.mark.parametrize(
    ("votes", "value"),
    [
        ([R, R, N], 1.0),
        ([N, W, W], 0.0),
        ([R, W, N], None),  # neither has two of three
        ([R, N, N], None),
        ([R, N], None),  # one of two is no majority
        ([R, R, W, W], None),
        ([R, R, R, W, N], 1.0),
        ([R, R, W, N, N], None),
        ([R] * 6 + [W] * 3 + [N], 1.0),
        ([R] * 5 + [N] * 5, None),
        ([W] * 6 + [N] * 4, 0.0),
        ([N], None),
        ([N] * 3, None),
    ],
)
def test_drop_asks_for_more_than_half_of_all_votes(votes, value):
    """An unreadable vote is a vote for neither response; it does not invalidate the row's other votes."""
    alone = summary_of(row(0, votes, category="x"), row(1, [R], category="y"), rule="drop", resamples=20)
    assert alone["categories"]["x"]["accuracy"] == value
    assert alone["n"] == (1 if value is None else 2)
    both = summary_of(row(0, votes, [W]), rule="drop", resamples=20)  # each pass by itself
    assert both["overall"] == (0 if value is None else value / 2)


def test_categories_macro_and_rows_without_a_category():
    rows = [row(0, [R], category="b"), row(1, [W], category="b"), row(2, [R], category="a"), row(3, [W])]
    result = summary_of(*rows, categories=["c", "b"])
    assert (result["overall"], result["macro"]) == (0.5, 0.75)
    assert list(result["categories"]) == ["b", "a"]
    assert result["categories"]["a"] == {"accuracy": 1.0, "n": 1, "low": 1.0, "high": 1.0}
    assert result["categories"]["b"] == {"accuracy": 0.5, "n": 2, "low": 0.0, "high": 1.0}
    assert result["groupings"] == {}
    bare = summary_of(row(0, [R]))
    assert (bare["categories"], bare["macro"], bare["intervals"]["macro"]) == ({}, None, None)


def test_a_category_that_a_rule_empties_leaves_the_macro():
    result = summary_of(row(0, [R], category="a"), row(1, [N], category="b"), rule="drop", acc_plus=True)
    assert result["macro"] == 1.0
    empty = {"accuracy": None, "n": 0, "low": None, "high": None, "acc_plus": None, "ids": 0}
    assert result["categories"]["b"] == empty


def test_the_published_vl_rewardbench_row():
    # Schemas 2.6: 309 of 484, 384 of 448 and 206 of 318 under the paper's grouping; 301 of its general rows are
    # hallucination rows in the official one (here: those answered right, as far as they go).
    counts = {"general": (309, 484), "hallucination": (384, 448), "reasoning": (206, 318)}
    outcomes = []
    for name, (right, n) in counts.items():
        for i in range(n):
            official = "hallucination" if name == "general" and i < 301 else name
            vote = [i < right]
            outcomes.append(row(len(outcomes), vote, first=True, category=official, paper_category=name))
    result = summary_of(*outcomes)
    assert result["overall"] == 899 / 1250 == 0.7192
    paper = result["groupings"]["paper"]
    assert paper["macro"] == pytest.approx(0.71446, abs=5e-6)
    assert {name: (round(e["accuracy"], 4), e["n"]) for name, e in paper["categories"].items()} == {
        "general": (0.6384, 484),
        "hallucination": (0.8571, 448),
        "reasoning": (0.6478, 318),
    }
    assert {name: e["n"] for name, e in result["categories"].items()} == {
        "general": 183,
        "hallucination": 749,
        "reasoning": 318,
    }
    assert result["categories"]["hallucination"]["accuracy"] == (301 + 384) / 749
    assert result["groupings"]["official"] == {"categories": result["categories"], "macro": result["macro"]}
    low, high = result["intervals"]["paper_macro"]
    assert low < paper["macro"] < high
    assert high - low == pytest.approx(2 * 1.96 * 0.0129, abs=0.005)
    assert result["baselines"]["always_1"] == {"overall": 1.0, "macro": 1.0, "acc_plus": None}


def test_acc_plus_requires_every_row_of_an_id_in_each_pass():
    rows = [
        row(0, [R], [R], id="p", category="x"),
        row(1, [R], [W], id="p", category="x"),
        row(2, [R], [R], id="q", category="x"),
        row(3, [W], [W], id="r", category="y"),
        row(4, [R], [R], id="r", category="y"),
    ]
    result = summary_of(*rows, acc_plus=True)
    # first pass: p and q of three ids; second pass: q
    assert result["acc_plus"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert [result["categories"][c]["acc_plus"] for c in "xy"] == [0.75, 0.0]
    assert [result["categories"][c]["ids"] for c in "xy"] == [2, 1]
    low, high = result["intervals"]["acc_plus"]
    assert low == pytest.approx(1 / 3) and high == pytest.approx(2 / 3)
    assert "acc_plus" not in summary_of(*rows)["categories"]["x"]
    assert summary_of(*rows)["acc_plus"] is None


def test_length_and_coin_baselines_of_pairs_that_share_an_id():
    rows = [
        row(0, [R], id="p", category="mcq", longer=1),
        row(1, [R], id="p", category="mcq", longer=1),
        row(2, [R], id="q", category="long", longer=-1),
        row(3, [R], id="q", category="long", longer=1),
        row(4, [R], id="q", category="long", longer=0),
    ]
    baselines = summary_of(*rows, acc_plus=True)["baselines"]
    assert baselines["longer"] == {"overall": 0.6, "macro": pytest.approx((1 + 1 / 3) / 2), "acc_plus": 0.5}
    assert baselines["shorter"] == {"overall": 0.2, "macro": pytest.approx(1 / 6), "acc_plus": 0.0}
    assert baselines["random"] == {"overall": 0.5, "macro": 0.5, "acc_plus": (1 / 4 + 1 / 8) / 2}
    assert baselines["always_1"] is None
    unknown = summary_of(*rows, row(5, [R]))["baselines"]
    assert (unknown["longer"], unknown["shorter"]) == (None, None)


def test_longer_wins_on_mm_rlhf_rewardbench():
    # Schemas 4: longer wins 31 of 42, 30 of 37, 17 of 34, 21 of 32 and 23 of 25 pairs, 122 of 170.
    wins = {"mcq": (31, 42), "long": (30, 37), "short": (17, 34), "safety": (21, 32), "video": (23, 25)}
    outcomes = []
    for name, (right, n) in wins.items():
        for i in range(n):
            outcomes.append(row(len(outcomes), [N], category=name, longer=1 if i < right else -1))
    baselines = summary_of(*outcomes)["baselines"]
    assert baselines["longer"]["overall"] == 122 / 170
    assert baselines["longer"]["macro"] == pytest.approx(np.mean([right / n for right, n in wins.values()]))
    assert baselines["shorter"]["overall"] == 48 / 170


def test_always_1_is_scored_on_the_orders_that_were_shown():
    votes = tuple(Vote(None, shown) for shown in (True, True, False))
    rows = [
        Outcome(0, "a", (votes,)),  # shown first twice of three times: right
        Outcome(1, "b", (votes[1:],)),  # once each: a tie
        Outcome(2, "c", (votes[2:],)),
    ]
    assert summary_of(*rows)["baselines"]["always_1"]["overall"] == 0.5
    both = [row(i, [R], [W], first=(True, False)) for i in range(5)]
    assert summary_of(*both)["baselines"]["always_1"]["overall"] == 0.5


def test_a_judge_that_always_says_1_is_named():
    rng = np.random.default_rng(0)
    shown = rng.random(400) < 0.5
    random_order = summary_of(*[row(i, [bool(s)], first=bool(s)) for i, s in enumerate(shown)])
    low, high = random_order["intervals"]["overall"]
    assert low < 0.5 < high
    assert (random_order["constant"], random_order["first_share"]) == ("always 1", 1.0)
    both = summary_of(*[row(i, [bool(s)], [not s], first=(bool(s), not s)) for i, s in enumerate(shown)])
    assert (both["overall"], both["constant"], both["flip_rate"]) == (0.5, "always 1", 1.0)
    assert both["by_position"] == {"first": 1.0, "second": 0.0}
    always_2 = summary_of(*[row(i, [not s], first=bool(s)) for i, s in enumerate(shown)])
    assert (always_2["constant"], always_2["first_share"]) == ("always 2", 0.0)


def constant_rows(ones, twos):
    """Votes for the first place, then for the second; the preferred response changes places every row."""
    rows = []
    for i in range(ones + twos):
        preferred_first = i % 2 == 0
        rows.append(row(i, [R if preferred_first == (i < ones) else W], first=preferred_first))
    return rows


@pytest.mark.parametrize(("ones", "twos", "name"), [(99, 1, "always 1"), (98, 2, None), (1, 99, "always 2")])
def test_constant_needs_99_of_100(ones, twos, name):
    assert summary_of(*constant_rows(ones, twos))["constant"] == name


def test_constant_needs_20_readable_votes():
    rows = constant_rows(20, 0)
    assert summary_of(*rows[:19], row(19, [N], first=True))["constant"] is None
    assert summary_of(*rows)["constant"] == "always 1"


def test_a_perfect_judge_is_not_called_constant_where_the_preferred_response_is_always_first():
    assert summary_of(*(row(i, [R], first=True) for i in range(100)))["constant"] is None


def test_votes_by_position_and_what_is_unknown():
    rows = [
        Outcome(0, "a", ((Vote(R, True, 10, 40), Vote(N, True, 20), Vote(R, False, None, 60)),)),
        Outcome(1, "b", ((Vote(W, False), Vote(R, None)),)),
    ]
    result = summary_of(*rows)
    assert result["by_position"] == {"first": 0.5, "second": 0.5}
    assert result["parse_rate"] == 0.8
    assert (result["mean_tokens"], result["mean_characters"]) == (15.0, 50.0)
    assert result["first_share"] == pytest.approx(2 / 3)  # R shown first, W shown second; R shown second is not
    assert (result["votes"], result["flip_rate"]) == (2, None)
    nothing = summary_of(row(0, [R]))
    assert nothing["by_position"] == {}
    assert [nothing[key] for key in ("first_share", "constant", "mean_tokens", "mean_characters")] == [None] * 4
    assert summary_of(row(0, [R], first=True))["by_position"] == {"first": 1.0, "second": None}


def test_flips_count_rows_with_a_verdict_in_both_passes():
    rows = [
        row(0, [R, R, W], [W, W, R]),  # flips
        row(1, [R], [R]),
        row(2, [W], [W]),
        row(3, [R, W], [R]),  # a tie is not a verdict
        row(4, [N], [W]),
    ]
    assert summary_of(*rows)["flip_rate"] == pytest.approx(1 / 3)
    assert summary_of(row(0, [R], [N]))["flip_rate"] is None


def test_known_issues_are_scored_and_reported_separately():
    rows = [row(i, [i < 60], issue="label contradicts row 7" if i >= 90 else None) for i in range(100)]
    known = summary_of(*rows)["known_issues"]
    assert (known["n"], known["without_them"]) == (10, {"overall": 60 / 90, "n": 90})
    assert known["rows"][0] == {"index": 90, "id": "id-90", "issue": "label contradicts row 7"}
    many = summary_of(*[row(i, [R], issue="x") for i in reversed(range(130))])["known_issues"]
    assert many["n"] == 130
    assert [entry["index"] for entry in many["rows"]] == list(range(100))
    assert many["without_them"] == {"overall": None, "n": 0}
    assert summary_of(row(0, [R]))["known_issues"] == {"n": 0, "without_them": None, "rows": []}


def test_voting_curve_ends_at_the_overall_score():
    rng = np.random.default_rng(3)
    votes = [(rng.choice([R, W, N], 5).tolist(), rng.choice([R, W], 5).tolist()) for _ in range(40)]
    rows = [row(i, *passes, id=f"{i // 3}") for i, passes in enumerate(votes)]
    result = summary_of(*rows)
    curve = result["voting_curve"]
    assert [len(curve[kind]) for kind in ("majority", "any")] == [5, 5]
    assert curve["majority"][-1]["mean"] == result["overall"]
    right = [[vote is R for vote in one_pass] for passes in votes for one_pass in passes]
    assert curve["majority"][0]["mean"] == curve["any"][0]["mean"] == pytest.approx(np.mean(right))
    assert curve["any"][-1]["mean"] == np.mean(np.any(right, axis=1))
    assert all(point["low"] <= point["mean"] <= point["high"] for point in curve["majority"] + curve["any"])
    assert summary_of(row(0, [R]), row(1, [R, R]))["voting_curve"] is None
    assert len(summary_of(row(0, [R, R, W]), row(1, [R, R]))["voting_curve"]["any"]) == 2


def test_curve_interval_at_all_votes_is_that_of_the_overall_score():
    rng = np.random.default_rng(4)
    rows = [row(i, (rng.random(3) < 0.7).tolist(), category="xy"[i % 2], id=f"{i // 4}") for i in range(400)]
    result = summary_of(*rows, resamples=4000)
    last = result["voting_curve"]["majority"][-1]
    assert [last["low"], last["high"]] == pytest.approx(result["intervals"]["overall"], abs=0.006)


def test_intervals_widen_when_rows_share_an_id():
    right = [i % 10 < 7 for i in range(300)]
    apart = summary_of(*[row(i, [v]) for i, v in enumerate(right)], resamples=2000)["intervals"]["overall"]
    shared = summary_of(
        *[row(3 * i + j, [v], id=f"{i}") for i, v in enumerate(right[:100]) for j in range(3)], resamples=2000
    )["intervals"]["overall"]
    half = 1.96 * np.sqrt(0.7 * 0.3 / 300)
    assert apart == pytest.approx([0.7 - half, 0.7 + half], abs=0.008)
    assert shared == pytest.approx([0.7 - half * 3**0.5, 0.7 + half * 3**0.5], abs=0.012)


def test_intervals_resample_within_categories():
    # All of x is right, all of y wrong: only a draw that mixes the categories could move the overall score.
    rows = [row(i, [i < 50] * 2, category="x" if i < 50 else "y") for i in range(100)]
    result = summary_of(*rows)
    assert result["voting_curve"]["any"] == [{"mean": 0.5, "low": 0.5, "high": 0.5}] * 2
    assert result["intervals"] == {"overall": [0.5, 0.5], "macro": [0.5, 0.5], "acc_plus": None}


def test_the_same_seed_gives_the_same_summary_and_json_takes_it():
    rows = [row(i, [i % 3 > 0, N], category="x", paper_category="y", issue="z", first=True) for i in range(331)]
    one = summary_of(*rows, seed=1, acc_plus=True)
    assert summary_of(*rows, seed=1, acc_plus=True) == one
    assert summary_of(*rows, seed=2, acc_plus=True)["intervals"] != one["intervals"]
    assert json.loads(json.dumps(one, allow_nan=False)) == one


def test_an_empty_tally_has_no_numbers():
    result = Tally().summary(resamples=10, acc_plus=True)
    assert (result["n"], result["overall"], result["macro"], result["acc_plus"]) == (0, None, None, None)
    assert (result["parse_rate"], result["votes"], result["voting_curve"]) == (None, None, None)
    json.dumps(result, allow_nan=False)


def test_bad_rows_and_rules_are_named():
    tally = tally_of(row(0, [R]))
    with pytest.raises(UserError, match=r"row 4 \(id 'id-4'\) has 2 passes.*have 1"):
        tally.add(row(4, [R], [R]))
    with pytest.raises(UserError, match=r"row 5 \(id 'id-5'\) has no votes in pass 1"):
        tally.add(row(5, []))
    with pytest.raises(UserError, match="row 6 .* has 0 passes"):
        tally.add(row(6))
    assert len(tally) == 1 and tally.summary(resamples=10)["overall"] == 1.0
    with pytest.raises(UserError, match="unknown rule 'random'.*wrong, drop, coin"):
        tally.summary(rule="random")
    tally.add(row(0, [W]))
    with pytest.raises(UserError, match="row 0 has more than one set of votes"):
        tally.summary()


def test_a_row_takes_little_memory():
    tracemalloc.start()
    tally = Tally()
    for i in range(5000):
        tally.add(row(i, [R] * 15, [W] * 15, id=f"a-rather-long-identifier-{i}", first=True, category="x"))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / 5000 < 250


def test_compare_pairs_rows_by_position():
    before = tally_of(row(0, [R]), row(1, [W]), row(2, [W]), row(3, [R]), row(4, [R]), row(9, [R]))
    after = tally_of(row(4, [W]), row(3, [R]), row(2, [R]), row(1, [R]), row(0, [R]), row(7, [R]), row(8, [W]))
    result = compare_tallies(before, after)
    assert (result["n"], result["a_only"], result["b_only"], result["rule"]) == (5, 1, 2, "wrong")
    assert result["difference"]["mean"] == pytest.approx((4 - 3) / 5)
    assert result["difference"]["low"] < 0 < result["difference"]["high"]
    assert result["mcnemar"] == {"better": 2, "worse": 1, "p": 1.0}


def test_compare_under_drop_leaves_out_what_either_run_drops():
    a = tally_of(row(0, [N]), row(1, [R]), row(2, [W]))
    b = tally_of(row(0, [R]), row(1, [N]), row(2, [R]))
    result = compare_tallies(a, b, rule="drop")
    assert (result["n"], result["a_only"], result["b_only"]) == (1, 1, 1)
    assert result["difference"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert compare_tallies(a, b)["n"] == 3


def test_compare_gains_from_pairing_and_from_clusters():
    before = [i % 10 < 5 for i in range(600)]
    after = [v or i % 10 == 9 for i, v in enumerate(before)]
    result = compare_tallies(*[tally_of(*[row(i, [v]) for i, v in enumerate(run)]) for run in (before, after)])
    half = 1.96 * np.sqrt(0.1 * 0.9 / 600)
    assert result["difference"] == pytest.approx({"mean": 0.1, "low": 0.1 - half, "high": 0.1 + half}, abs=0.005)
    assert result["mcnemar"]["p"] == pytest.approx(2 * 0.5**60)
    shared = compare_tallies(
        *[tally_of(*[row(i, [v], id=f"{i % 60}") for i, v in enumerate(run)]) for run in (before, after)]
    )["difference"]
    spread = stats.binom(60, 0.1).ppf([0.025, 0.975]) / 60
    assert [shared["low"], shared["high"]] == pytest.approx(spread, abs=0.02)


def test_compare_refuses_other_rows_and_survives_none():
    with pytest.raises(UserError, match="row 1 has different ids"):
        compare_tallies(tally_of(row(0, [R]), row(1, [R])), tally_of(row(0, [R]), row(1, [R], id="other")))
    apart = compare_tallies(tally_of(row(0, [R])), tally_of(row(1, [R])))
    assert (apart["n"], apart["a_only"], apart["b_only"]) == (0, 1, 1)
    assert apart["difference"] == {"mean": None, "low": None, "high": None}
    assert apart["mcnemar"] == {"better": 0, "worse": 0, "p": 1.0}
    with pytest.raises(UserError, match="unknown rule"):
        compare_tallies(Tally(), Tally(), rule="none")


def told(index, *votes):
    """An Outcome of one pass whose votes also say whether they were truncated."""
    return Outcome(index, f"id-{index}", (tuple(Vote(correct, truncated=cut) for correct, cut in votes),))


def test_the_share_of_truncated_votes_is_over_known_ones():
    result = summary_of(told(0, (R, False), (N, True)), told(1, (N, True), (N, None)))
    assert (result["truncated"], result["parse_rate"]) == (2 / 3, 1 / 4)
    assert summary_of(row(0, [R]))["truncated"] is None  # unknown in other projects' files


def test_a_comparison_reports_how_much_of_each_run_was_readable():
    result = compare_tallies(tally_of(told(0, (N, True)), told(1, (R, False))), tally_of(row(0, [R]), row(1, [R])))
    assert result["a"] == {"parse_rate": 0.5, "truncated": 0.5}
    assert result["b"] == {"parse_rate": 1.0, "truncated": None}


# ---- judges that may call a tie


def tied_row(index, label, *passes, first=None, **fields):
    """An Outcome of verdicts 1, 2, 0 (a tie) or None, in stored order; ``first`` says whether the preferred one was."""
    votes = tuple(
        tuple(Vote(None if a is None else a == label, first, third=a == (0 if label else 2)) for a in answers)
        for answers in passes
    )
    return Outcome(index, f"id-{index}", votes, preferred=label, **fields)


@given(st.lists(st.sampled_from([0, 1, 2, None]), min_size=1, max_size=7), st.sampled_from([0, 1, 2]))
@settings(deadline=None, max_examples=60)
def test_a_row_is_right_as_the_verdict_of_its_votes_is(answers, label):
    outcome = tied_row(0, label, answers)
    judgments = [Judgment(answer=a, swapped=False, text="", well_formed=True, tokens=1) for a in answers]
    verdict = majority(judgments)
    found = summary_of(outcome, resamples=1)
    assert found["overall"] == verdict.correctness(label)
    if len(answers) > 1:
        assert found["voting_curve"]["majority"][-1]["mean"] == pytest.approx(verdict.correctness(label))
    assert found["parse_rate"] == sum(answer is not None for answer in answers) / len(answers)
    most = max(answers.count(answer) for answer in (0, 1, 2))
    dropped = 2 * most <= len(answers)
    assert summary_of(outcome, rule="drop", resamples=1)["overall"] == (None if dropped else verdict.correctness(label))


def test_a_tie_is_no_vote_for_a_position_and_no_flip():
    rows = [tied_row(i, 1 + i % 2, [0], first=i % 3 == 0) for i in range(40)]
    found = summary_of(*rows)
    assert (found["first_share"], found["constant"], found["parse_rate"], found["overall"]) == (None, None, 1.0, 0.0)
    rows = [tied_row(0, 1, [1], [0]), tied_row(1, 1, [1], [2]), tied_row(2, 0, [1], [2]), tied_row(3, 0, [0], [2])]
    assert summary_of(*rows)["flip_rate"] == 1.0  # of the rows 1 and 2, where both orders choose a response


def test_a_coin_never_says_that_two_responses_are_equal():
    found = summary_of(tied_row(0, 0, [None]), tied_row(1, 0, [0, 0, None]), tied_row(2, 0, [0, None]))
    # The coin of row 2 votes for a response, so that votes are split, and a tie has not the most.
    assert found["rules"]["coin"]["overall"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("label", "answers", "expected"),
    [
        (1, [1, 1, 2], True),
        (1, [1, 2], None),
        (1, [1, 2, 0], None),
        (1, [1, 0, 0], False),
        (2, [2, 0], True),
        (0, [0, 0, 1, 1, 2], False),
        (0, [0, 0, 0, 1, 1, 2, 2], True),
        (1, [None, None], None),
    ],
)
def test_whether_a_pass_is_won(label, answers, expected):
    (votes,) = tied_row(0, label, answers).passes
    assert won(votes, label) is expected
