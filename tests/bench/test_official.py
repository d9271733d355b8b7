"""Official scores computed by hand, without judgments, and with invalid input."""

from __future__ import annotations

from math import tanh
from typing import Any

import pytest

from r1_reward.bench import official
from r1_reward.bench.official import Share, TiesRow
from r1_reward.records.errors import UserError


def test_mmrb2_pools_counts_not_accuracies() -> None:
    often = official.MMRB2Score(right=90, judged=100, pairs=50)
    seldom = official.MMRB2Score(right=1, judged=10, pairs=50)
    pooled = official.mmrb2_pooled([often, seldom])
    assert pooled == (91, 110, 100)
    assert (pooled.accuracy, pooled.coverage) == (91 / 110, 110 / 200)
    assert official.mmrb2_pooled([]).accuracy is official.mmrb2_pooled([]).coverage is None


def test_a_group_of_edits_is_right_if_all_its_comparisons_are() -> None:
    groups: list[tuple[int, list[bool]]] = [
        (3, [True, True, True]),
        (3, [True, False, True]),
        (3, [True, True]),  # one was never answered
        (3, [True] * 4),  # one appears twice
        (4, [True] * 6),
        (4, [True] * 5),
        (4, []),  # none was ever answered
        (2, [True]),
        (2, [False]),
        (2, [False]),
    ]
    assert official.edit_reward_score(groups) == {
        "2": Share(1, 3), "3": Share(1, 4), "4": Share(1, 2), "overall": Share(3, 9),
    }  # fmt: skip
    assert official.edit_reward_score([])["overall"].value is None
    with pytest.raises(UserError, match="a group has 5 candidates; EditReward-Bench has only 2, 3 and 4"):
        official.edit_reward_score([(5, [True])])


@pytest.mark.parametrize(
    ("ratings", "score"),
    [
        ([9, 3, 4, 5], 1),
        ([9, 9, 4, 5], 1 / 2),
        ([9, 9, 9, 9], 1 / 4),
        ([8, 9, 4, 5], 0),
        ([None, 9, 4, 5], 0),
        ([1, None, None, None], 1),
        ([None] * 4, 0.25),
    ],
)
def test_the_right_answer_shares_the_highest_rating(ratings: Any, score: float) -> None:
    assert official.rated_score(ratings) == score


def test_four_answers() -> None:
    assert [official.four_way_score(right) for right in (True, False, None)] == [1, 0, 0.25]


def test_ties_by_hand() -> None:
    rows = [
        TiesRow("ref:0", 1, [9, 2]),  # gap 7
        TiesRow("tied:0", 2, [9, 7, 3]),  # gap 4, spread 2: preferred, hard
        TiesRow("ref:1", 1, [5, 4, 1]),  # gap 1
        TiesRow("tied:1", 3, [9, 8, 7, 1]),  # gap 6, spread 2: preferred, not hard
        TiesRow("ref:2", 1, [2, 8]),  # wrong, and without a partner
        TiesRow("tied:3", 2, [4, 4, 4]),
        TiesRow("ref:3", 1, [4, 4]),  # gap 0 of spread 0: margin 0
        TiesRow("tied:4", 2, [None, 3, 2]),  # -1: gap -3, spread 4
        TiesRow("ref:4", 1, [7, None]),
    ]
    found = official.ties_score(rows)
    margin = (tanh(4 / 2 - 1) + tanh(1 / 2 - 1) + 0 + tanh(-3 / 4 - 1)) / 4
    assert found is not None
    assert found[1:5] == (3 / 5, 2 / 4, 2 / 4, 1 / 4)
    assert found.margin == pytest.approx(margin)
    assert found.score == pytest.approx(0.3 * 2 / 4 + 0.3 * 3 / 5 + 0.2 * 2 / 4 + 0.2 * 1 / 4 + 0.01 * margin)


@pytest.mark.parametrize(("scores", "margin"), [([5, 5, 1], 1), ([5, 5, 9], -1), ([5, 5, 5], 0)])
def test_right_answers_of_one_score_have_no_spread(scores: list[float], margin: float) -> None:
    found = official.ties_score([TiesRow("ref:0", 1, [9, 0]), TiesRow("tied:0", 2, scores)])
    assert found is not None
    assert found.margin == margin


def test_ties_need_a_pair_of_prompts() -> None:
    assert official.ties_score([]) is None
    assert official.ties_score([TiesRow("ref:0", 1, [9, 2]), TiesRow("tied:1", 2, [9, 8, 2])]) is None


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (TiesRow("ref-0", 1, [1, 2]), "its id must be ref:N or tied:N"),
        (TiesRow("other:0", 1, [1, 2]), "its id must be ref:N or tied:N"),
        (TiesRow("ref:0", 1, [1]), "has 1 scores, 1 of them for right answers"),
        (TiesRow("ref:0", 0, [1, 2]), "0 of them for right answers"),
        (TiesRow("tied:0", 1, [1, 2]), "a tied prompt needs several"),
        (TiesRow("tied:0", 2, [1, 2, float("nan")]), "not finite"),
        (TiesRow("ref:7", 1, [1, 2]), "'ref:7' of Ties appears twice"),
    ],
)
def test_ties_refuse_what_they_cannot_score(row: TiesRow, told: str) -> None:
    with pytest.raises(UserError, match=told):
        official.ties_score([TiesRow("ref:7", 1, [9, 2]), row])


def test_the_mean_of_six_needs_six() -> None:
    six = dict.fromkeys(official.REWARD_BENCH_2, 0.5)
    assert official.reward_bench_2_score({**six, "Ties": 1.01}) == pytest.approx((5 * 0.5 + 1.01) / 6)
    assert official.reward_bench_2_score({**six, "Math": None}) is None
    assert official.reward_bench_2_score({"Math": 0.5}) is None
