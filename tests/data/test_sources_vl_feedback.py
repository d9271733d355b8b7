"""VLFeedback: every pair of a row's answers, by mean rating, from either layout of the completions."""

from collections import Counter
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_reward.data.sources.common import REASONS, Candidate, Drop, Row
from r1_reward.data.sources.vl_feedback import ASPECTS, read

PNG = {"bytes": b"png", "path": "a.png"}


def completion(name: str, ratings: Any) -> dict[str, Any]:
    annotations = {a: {"Rating": r, "Rationale": "because"} for a, r in zip(ASPECTS, ratings, strict=True)}
    return {"annotations": annotations, "model": f"model {name}", "response": f"Answer {name}."}


def make_row(*ratings: Any, **changes: Any) -> dict[str, Any]:
    completions = [completion("ABCD"[index], rating) for index, rating in enumerate(ratings)]
    models = [one["model"] for one in completions]
    row = {"id": "svit-876", "prompt": "Why?", "models": models, "completions": completions, "img_path": "x/svit.jpg"}
    return row | changes


def transposed(row: dict[str, Any]) -> dict[str, Any]:
    """The completions as ``datasets`` loads a sequence of structs."""
    names = ("annotations", "model", "response")
    return row | {"completions": {name: [one[name] for one in row["completions"]] for name in names}}


def outcome(row: dict[str, Any]) -> list[str]:
    """``A>B`` for a pair, the reason for a drop."""
    return [
        f"{item.chosen[7]}>{item.rejected[7]}" if isinstance(item, Candidate) else item.reason
        for item in read(Row(row))
    ]


ROW = make_row("555", "444", "345", "111")  # B and C both have mean 4


@pytest.mark.parametrize("row", [ROW, transposed(ROW)], ids=["list", "lists"])
def test_all_six_pairs_by_mean_rating(row: dict[str, Any]) -> None:
    assert outcome(row) == ["A>B", "A>C", "A>D", "tie", "B>D", "C>D"]
    items = [item for item in read(Row(row)) if isinstance(item, Candidate)]
    assert items[0] == Candidate(
        "svit-876-0-1", "Why?", "Answer A.", "Answer B.", ({"bytes": None, "path": "x/svit.jpg"},)
    )
    assert [item.id for item in items] == [f"svit-876-{pair}" for pair in ("0-1", "0-2", "0-3", "1-3", "2-3")]
    assert len({id(item.images[0]) for item in items}) == 1  # looked at once


def test_the_later_answer_can_win() -> None:
    assert outcome(make_row("111", "555")) == ["B>A"]


def test_an_embedded_image_is_preferred_to_the_path() -> None:
    assert next(read(Row(ROW | {"image": PNG}))).images == (PNG,)  # type: ignore[union-attr]


@pytest.mark.parametrize("bad", ["N/A", "", None, "five", "nan", "inf", True, [4], {"Rating": "4"}])
def test_an_unreadable_rating_drops_the_pairs_of_that_answer_only(bad: Any) -> None:
    row = make_row("555", ("4", bad, "4"), "333")
    assert outcome(row) == ["unreadable label", "A>C", "unreadable label"]
    assert outcome(transposed(row)) == outcome(row)
    detail = next(item.detail for item in read(Row(row)) if isinstance(item, Drop))
    assert detail.startswith("completions[1] Ethical Considerations: ")


def test_ratings_may_be_numbers_or_have_decimals() -> None:
    assert outcome(make_row((5, 4.5, "4"), ("4.0", "4.5", 4))) == ["A>B"]
    # 0.1 + 0.2 + 0.3 depends on the order of adding; equal ratings must be a tie in any.
    assert outcome(make_row(("0.1", "0.2", "0.3"), ("0.3", "0.2", "0.1"))) == ["tie"]


def test_missing_and_blank_answers_drop_their_pairs() -> None:
    row = make_row("555", "444", "333")
    row["completions"][1]["response"] = " "
    assert outcome(row) == ["blank text", "A>C", "blank text"]
    row["completions"][1]["response"] = None
    assert outcome(row) == ["missing field", "A>C", "missing field"]
    row["completions"][1] = None
    assert outcome(row) == ["wrong type", "A>C", "wrong type"]
    del row["completions"][0]["annotations"]["Helpfulness"]
    assert outcome(row) == ["unreadable label", "unreadable label", "wrong type"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (make_row("555"), "unreadable label"),
        (make_row(), "unreadable label"),
        (ROW | {"completions": "none"}, "wrong type"),
        (ROW | {"completions": {"response": ["a", "b"]}}, "wrong type"),
        (ROW | {"completions": {"response": ["a", "b"], "annotations": [{}]}}, "wrong type"),
        ({name: value for name, value in ROW.items() if name != "completions"}, "missing field"),
        ({name: value for name, value in ROW.items() if name != "img_path"}, "missing field"),
        (ROW | {"img_path": ""}, "no image"),
        (ROW | {"prompt": ""}, "blank text"),
    ],
)
def test_rows_without_any_pair(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Drop) as caught:
        list(read(Row(row)))
    assert caught.value.reason == reason


RATING = st.sampled_from(["1", "2", "3", "4", "5", "4.5", "N/A"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(RATING, RATING, RATING), min_size=2, max_size=6))
def test_every_pair_is_accounted_for_as_a_slow_twin_says(ratings: list[tuple[str, str, str]]) -> None:
    expected = []
    for i, j in combinations(range(len(ratings)), 2):
        if "N/A" in ratings[i] + ratings[j]:
            expected.append("unreadable label")
            continue
        means = [sum(map(Fraction, ratings[k])) / 3 for k in (i, j)]
        expected.append("tie" if means[0] == means[1] else f"{i}>{j}" if means[0] > means[1] else f"{j}>{i}")
    row = make_row()
    row["completions"] = [completion(str(index), rating) for index, rating in enumerate(ratings)]
    assert outcome(row) == expected
    assert Counter(outcome(transposed(row))) == Counter(expected)
    assert {item.reason for item in read(Row(row)) if isinstance(item, Drop)} <= set(REASONS)
