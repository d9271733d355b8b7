"""The reward of one judgement, against values computed by hand."""

from __future__ import annotations

import doctest

import pytest

from r1_reward import rewards
from r1_reward.rewards import combine_rewards, format_reward, result_reward

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
    assert format_reward(text) == expected


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
    ("result", "consistency", "format", "expected"),
    [
        # R = result * (1 + 0.5 * consistency) + 0.5 * format
        (1.0, 1.0, 1.0, 2.0),  # 1 * 1.5 + 0.5
        (1.0, 0.0, 1.0, 1.5),  # 1 * 1.0 + 0.5
        (1.0, None, 1.0, 1.5),  # the referee does not know: no bonus
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


def test_weights_scale_their_own_term():
    assert combine_rewards(1.0, 1.0, 1.0, consistency_weight=0.25, format_weight=2.0) == 3.25
    assert combine_rewards(1.0, 1.0, 1.0, consistency_weight=0.0, format_weight=0.0) == 1.0


def test_docstring():
    assert doctest.testmod(rewards).failed == 0
