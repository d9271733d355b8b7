"""The rule referee: a table of conclusions, texts it must ignore, and the contract of judge()."""

from __future__ import annotations

import doctest
import time

import pytest

from r1_reward.judge import rule_referee
from r1_reward.judge.referee import Referee
from r1_reward.judge.rule_referee import WINDOW, RuleReferee, conclusion

CONCLUSIONS = [
    # a verdict about its subject
    ("Response 1 is better.", 1),
    ("so response 2 wins", 2),
    ("Response 2 is the better choice.", 2),
    ("Response 1 is clearly superior to Response 2.", 1),
    ("Response 1 outperforms Response 2.", 1),
    ("Response 2 beats Response 1 on every count.", 2),
    ("Overall, Response 2 is preferable.", 2),
    ("Response 1, therefore, is the clear winner.", 1),
    ("**Response 2** is the best one.", 2),
    ("Response #2 is stronger!", 2),
    ("[Response 1] is better", 1),
    ("Response One is better.", 1),
    ("The first response is better.", 1),
    ("The second answer is better than the first answer.", 2),
    ("All of this makes Response 2 the better answer.", 2),
    ("Response 1 should be preferred.", 1),
    ("Response 2's description is better.", 2),
    ("Response 1 is better because it names the colour, which Response 2 does not.", 1),
    # a choice of its object
    ("I choose Response 1", 1),
    ("I would go with Response 2.", 2),
    ("I prefer Response 1 over Response 2.", 1),
    ("prefer Response 2 to Response 1", 2),
    ("We therefore select Response 1 rather than Response 2.", 1),
    ("The evidence is in favor of Response 2.", 2),
    # named at the end
    ("the better response is 2", 2),
    ("The better response is clearly Response 1.", 1),
    ("The winner is Response 2.", 2),
    ("Verdict: 1", 1),
    ("Better response: 2", 2),
    ("Final answer: 2", 2),
    ("My choice is 1.", 1),
    # comparisons, if there is no verdict
    ("Response 2 is more accurate.", 2),
    ("Response 1 is correct.", 1),
    ("Response 1 is incorrect.", 2),
    ("Response 1 is less accurate than Response 2.", 2),
    ("The correct response is Response 2.", 2),
    # negations and similar forms
    ("Response 1 is not better.", 2),
    ("Response 1 isn't better than Response 2.", 2),
    ("Response 1 is no better than Response 2.", 2),
    ("Response 1 is worse than Response 2.", 2),
    ("Response 2 is not worse.", 2),
    ("Response 2 is not as good as Response 1.", 1),
    ("Response 1 does not win.", 2),
    ("I would not choose Response 2.", 1),
    ("I don't think Response 1 is better.", 2),
    ("I cannot recommend Response 1.", 2),
    ("The worse response is 1.", 2),
    ("The better response is not 1.", 2),
    # the last one counts
    ("Response 1 is better. On reflection, Response 2 is better.", 2),
    ("Response 1 is better.\nResponse 2 is better", 2),
    ("Response 2 is better. It counts all five cups.", 2),
    ("Response 1 is more detailed, but it is wrong, so Response 2 is better.", 2),
    ("Response 2 is more detailed but Response 1 is better since Response 2 is incorrect.", 1),
    # concessions, conditions and questions are not conclusions
    ("Although Response 1 is better written, Response 2 is better.", 2),
    ("Response 2 is better, although Response 1 is better written.", 2),
    ("While Response 1 is correct, I choose Response 2.", 2),
    ("Response 1 is better. Or is Response 2 better?", 1),
    ("Response 1 is correct; if Response 2 is better, I cannot see why.", 1),
    # no conclusion
    ("", None),
    ("Both responses are good.", None),
    ("Response 1 counts three cups. Response 2 counts four.", None),
    ("Neither Response 1 nor Response 2 is better.", None),
    ("The answer is 2.", None),
    ("1", None),
    ("Is Response 1 better?", None),
    ("I need to decide whether Response 1 is better.", None),
    ("Response 12 is better.", None),
]


@pytest.mark.parametrize(("reasoning", "expected"), CONCLUSIONS)
def test_conclusion(reasoning, expected):
    assert conclusion(reasoning) == expected


def test_every_conclusion_mirrors_when_the_numbers_are_swapped():
    swap = str.maketrans({"1": "2", "2": "1"})
    words = {"first": "second", "second": "first", "One": "Two"}
    for reasoning, expected in CONCLUSIONS:
        mirrored = " ".join(words.get(word, word) for word in reasoning.translate(swap).split(" "))
        assert conclusion(mirrored) == {1: 2, 2: 1, None: None}[expected], mirrored


def test_judge_supports_the_named_answer_only():
    rule: Referee = RuleReferee()
    reasonings = ["Response 1 is better.", "Response 1 is better.", "Both are fine.", "Both are fine."]
    assert rule.judge(reasonings, [1, 2, 1, 2]) == [1.0, 0.0, 0.0, 0.0]
    assert rule.judge([], []) == []


def test_judge_refuses_lists_of_different_length():
    with pytest.raises(ValueError, match="zip"):
        RuleReferee().judge(["Response 1 is better."], [])


def test_only_the_end_is_read():
    filler = "The cup is blue. " * (WINDOW // 17 + 1)
    assert conclusion("Response 1 is better. " + filler) is None
    assert conclusion(filler + "Response 1 is better.") == 1


def test_a_sentence_cut_off_at_the_window_is_not_read():
    tail = " It names the colour" + "." * (WINDOW - 20 - len("Response 1 is better."))
    assert conclusion("I do not say Response 1 is better." + tail) is None
    assert conclusion("Response 1 is better." + tail) == 1  # the same sentence, whole, is read


@pytest.mark.parametrize("part", ["response 1 ", "response 1 is not ", "not think that ", "in fact by far ", "( "])
def test_a_hostile_length_is_not_slow(part):
    start = time.perf_counter()
    conclusion(part * 100_000)
    assert time.perf_counter() - start < 20  # every start against every end: hours


def test_docstring():
    assert doctest.testmod(rule_referee).failed == 0
