"""The reward of one judgment, against values computed by hand."""

from __future__ import annotations

import doctest

import pytest

from r1_reward import rewards
from r1_reward.rewards import combine_rewards, consistency_value, format_reward, result_reward

GOOD = "<think>Response 2 miscounts.</think><answer>1</answer>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, 1.0),
        ("\n " + GOOD + " \n", 1.0),
        ("<think></think><answer>maybe</answer>", 1.0),  # the form is right, the answer is not: that costs the result
        (GOOD + " Done.", 0.0),
        ("<think>a</think>\n<answer>1</answer>", 0.0),
        ("<answer>1</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_format_reward(text, expected):
    assert format_reward(text) == format_reward(text, "strict") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, 1.0),
        ("<think>a</think>\n<answer>1</answer>", 1.0),
        ("<think>a</think> \r\n\t\n<answer>1</answer>\n", 1.0),
        ("<think>\na\n</think>\n\n<answer>\n1\n</answer>", 1.0),
        ("<think>a</think>\n<answer>maybe</answer>", 1.0),
        ("<think>a</think>\u200b<answer>1</answer>", 0.0),  # not white space
        ("<think>a</think>\nSo <answer>1</answer>", 0.0),
        ("<think>a</think>\n<answer>1</answer> Done.", 0.0),
        ("Well. <think>a</think>\n<answer>1</answer>", 0.0),
        ("<think>a</think>\n<answer>1</answer>\n<answer>1</answer>", 0.0),
        ("<think>a</think>\n</think>\n<answer>1</answer>", 0.0),
        ("< think>a</think>\n<answer>1</answer>", 0.0),
        ("<think>a\n<answer>1</answer>", 0.0),
        ("\n<answer>1</answer>", 0.0),
    ],
)
def test_format_reward_up_to_white_space(text, expected):
    assert format_reward(text, "whitespace") == expected
    assert format_reward(text) == (1.0 if text == GOOD else 0.0)


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="format must be one of strict, whitespace; got 'loose'"):
        format_reward(GOOD, "loose")


@pytest.mark.parametrize(
    ("text", "preferred", "expected"),
    [
        (GOOD, 1, 1.0),
        (GOOD, 2, 0.0),
        ("I say <answer>2</answer>", 2, 1.0),  # the result asks for a readable answer, not for the whole format
        ("1", 1, 0.0),
        ("2", 1, 0.0),
        ("", 1, 0.0),
        ("<answer>1</answer><answer>1</answer>", 1, 0.0),
    ],
)
def test_result_reward(text, preferred, expected):
    assert result_reward(text, preferred) == expected


@pytest.mark.parametrize(
    ("text", "cut", "expected"),
    [
        ("<think>Perhaps <answer>1</answer>? Let me", True, 0.0),
        ("<think>Perhaps <answer>1</answer>? Let me", False, 0.0),
        ("Perhaps <answer>1</answer>? Let me", True, 0.0),
        ("<think>a</think><answer>1</answer><think>Or", True, 0.0),
        (GOOD + " And", True, 1.0),
        ("I say <answer>1</answer>", False, 1.0),
    ],
)
def test_a_draft_earns_no_result(text, cut, expected):
    assert result_reward(text, 1, cut=cut) == expected


@pytest.mark.parametrize(
    ("result", "consistency", "format", "expected"),
    [
        # R = result * (1 + 0.5 * consistency) + 0.5 * format
        (1.0, 1.0, 1.0, 2.0),  # 1 * 1.5 + 0.5
        (1.0, 0.0, 1.0, 1.5),  # 1 * 1.0 + 0.5
        (1.0, None, 1.0, None),  # needed and missing: 1.5 would be the reward of a contradiction
        (1.0, None, 0.0, None),
        (0.0, None, 1.0, 0.5),  # not needed: a wrong answer earns no bonus anyway
        (1.0, -1.0, 1.0, 1.0),  # the released code's scale: 1 * 0.5 + 0.5
        (1.0, 1.0, 0.0, 1.5),
        (1.0, 0.0, 0.0, 1.0),
        (0.0, 1.0, 1.0, 0.5),  # a consistent wrong answer earns nothing but its form
        (0.0, -1.0, 1.0, 0.5),
        (0.0, 0.0, 0.0, 0.0),
        (None, 1.0, 1.0, None),  # unscorable is not 0
        (None, None, 0.0, None),
    ],
)
def test_combine_rewards(result, consistency, format, expected):
    assert combine_rewards(result, consistency, format) == expected


@pytest.mark.parametrize("mode", ["multiply", "add"])
def test_a_verdict_with_weight_zero_is_not_needed(mode):
    assert combine_rewards(1.0, None, 1.0, consistency_weight=0.0, consistency_mode=mode) == 1.5


def test_weights_scale_their_own_term():
    assert combine_rewards(1.0, 1.0, 1.0, consistency_weight=0.25, format_weight=2.0) == 3.25
    assert combine_rewards(1.0, 1.0, 1.0, consistency_weight=0.0, format_weight=0.0) == 1.0


@pytest.mark.parametrize(
    ("result", "consistency", "format", "modes", "expected"),
    [
        # add: result + 0.5 * consistency + 0.5 * format
        (1.0, 1.0, 1.0, ("add", "add"), 2.0),
        (1.0, 0.0, 1.0, ("add", "add"), 1.5),
        (0.0, 1.0, 1.0, ("add", "add"), 1.0),  # a consistent wrong answer earns the bonus: what the paper avoids
        (0.0, -1.0, 1.0, ("add", "add"), 0.0),
        (0.0, -1.0, 0.0, ("add", "add"), -0.5),
        (1.0, None, 0.0, ("add", "add"), None),  # here every verdict counts
        (0.0, None, 1.0, ("add", "add"), None),
        (0.0, None, 1.0, ("multiply", "require"), 0.0),
        (1.0, None, 1.0, ("multiply", "require"), None),
        (1.0, None, 0.0, ("add", "require"), 0.0),  # without the form R is 0, whatever the verdict
        # require: the first part, or nothing
        (1.0, 1.0, 1.0, ("multiply", "require"), 1.5),
        (1.0, 1.0, 0.0, ("multiply", "require"), 0.0),
        (0.0, 1.0, 1.0, ("multiply", "require"), 0.0),
        (0.0, 1.0, 1.0, ("add", "require"), 0.5),
        (0.0, -1.0, 0.0, ("add", "require"), 0.0),
        (None, 1.0, 1.0, ("add", "require"), None),
    ],
)
def test_other_compositions(result, consistency, format, modes, expected):
    reward = combine_rewards(result, consistency, format, consistency_mode=modes[0], format_mode=modes[1])
    assert reward == expected


@pytest.mark.parametrize("modes", [{"consistency_mode": "sum"}, {"format_mode": "multiply"}])
def test_unknown_modes_are_refused_even_for_the_unscorable(modes):
    with pytest.raises(ValueError, match="unknown modes"):
        combine_rewards(None, 1.0, 1.0, **modes)


@pytest.mark.parametrize(("verdict", "binary", "ternary"), [(1.0, 1.0, 1.0), (0.0, 0.0, -1.0), (None, None, None)])
def test_consistency_values(verdict, binary, ternary):
    assert consistency_value(verdict) == binary
    assert consistency_value(verdict, "ternary") == ternary
    with pytest.raises(ValueError, match="'binary' or 'ternary', got 'signed'"):
        consistency_value(verdict, "signed")


def test_docstring():
    assert doctest.testmod(rewards).failed == 0
