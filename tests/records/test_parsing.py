"""The one parser: a table of judgements, the format regex of method section 1 as its twin, and hostile lengths."""

from __future__ import annotations

import doctest
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_reward.records import parsing
from r1_reward.records.parsing import parse_judgment

CASES = [
    # text, answer, reasoning, well_formed
    # --- as asked
    ("<think>a</think><answer>1</answer>", 1, "a", True),
    ("<think>a</think><answer>2</answer>", 2, "a", True),
    ("  \n<think>a</think><answer>2</answer>\t\n", 2, "a", True),
    ("<think>\n a\nb \n</think><answer>1</answer>", 1, "a\nb", True),
    ("<think></think><answer>1</answer>", 1, "", True),
    ("<think>a</think><answer> 1\n</answer>", 1, "a", True),
    ("<think>比較</think><answer>1</answer>", 1, "比較", True),
    ("<think>a < b > c</think><answer>1</answer>", 1, "a < b > c", True),
    # --- right form, unreadable answer
    ("<think>a</think><answer></answer>", None, "a", True),
    ("<think>a</think><answer>3</answer>", None, "a", True),
    ("<think>a</think><answer>12</answer>", None, "a", True),
    ("<think>a</think><answer>1/2</answer>", None, "a", True),
    ("<think>a</think><answer>1.</answer>", None, "a", True),
    ("<think>a</think><answer>1.0</answer>", None, "a", True),
    ("<think>a</think><answer>+1</answer>", None, "a", True),
    ("<think>a</think><answer>01</answer>", None, "a", True),
    ("<think>a</think><answer>one</answer>", None, "a", True),
    ("<think>a</think><answer>Response 1</answer>", None, "a", True),
    ("<think>a</think><answer>\uff11</answer>", None, "a", True),  # fullwidth one
    ("<think>a</think><answer>\u00b2</answer>", None, "a", True),  # superscript two
    ("<think>a</think><answer>\u0661</answer>", None, "a", True),  # Arabic-Indic one
    ("<think>a</think><answer>\u200b1</answer>", None, "a", True),  # zero-width space is no white space
    # --- readable answer, wrong form
    ("<answer>1</answer>", 1, "", False),
    ("a <answer>2</answer>", 2, "a", False),
    ("a</think><answer>2</answer>", 2, "a", False),
    ("<think>a<answer>2</answer>", 2, "a", False),
    ("<think>a</think> <answer>1</answer>", 1, "a", False),
    ("<think>a</think>\n<answer>1</answer>", 1, "a", False),
    ("<think>a</think>So <answer>1</answer>", 1, "a", False),
    ("<think>a</think><answer>1</answer>.", 1, "a", False),
    ("Well. <think>a</think><answer>1</answer>", 1, "a", False),
    ("<think>a</think><think>b</think><answer>1</answer>", 1, "a</think><think>b", False),
    ("<think><think>a</think><answer>1</answer>", 1, "<think>a", False),
    ("<think>a</think>b</think><answer>1</answer>", 1, "a</think>b", False),
    ("<think>a <answer>2</answer></think><answer>1</answer>", 1, "a <answer>2</answer>", False),
    ("<answer>2</answer><think>a</think><answer>1</answer>", 1, "a", False),
    # --- an answer only before the last </think> is none
    ("<answer>1</answer><think>a</think>", None, "a", False),
    ("<think>a <answer>1</answer></think>", None, "a <answer>1</answer>", False),
    ("<think>a</think><answer>1</answer></think>", None, "a</think><answer>1</answer>", False),
    ("<think>a</think><answer>1</think></answer>", None, "a</think><answer>1", False),
    # --- more than one
    ("<think>a</think><answer>1</answer><answer>2</answer>", None, "a", False),
    ("<think>a</think><answer>1</answer><answer>1</answer>", None, "a", False),
    ("<answer>1</answer> or <answer>2</answer>", None, "", False),
    ("<think>a</think><answer><answer>1</answer></answer>", None, "a", False),
    ("<think>a</think><answer><answer>1</answer>", None, "a", False),
    ("<think>a</think><answer>1</answer></answer>", None, "a", False),
    ("<think>a</think><answer>1</answer><answer>", None, "a", False),
    # --- broken tags
    ("<think>a</think><answer>1", None, "a", False),
    ("<think>a</think><answer>1<answer>", None, "a", False),
    ("<think>a</think>1</answer>", None, "a", False),
    ("<think>a</think></answer>1<answer>", None, "a", False),
    ("<think>a</think></answer><answer>", None, "a", False),
    ("<think>a</think><Answer>1</Answer>", None, "a", False),
    ("<think>a</think><answer >1</answer>", None, "a", False),
    ("<think>a</think>&lt;answer&gt;1&lt;/answer&gt;", None, "a", False),
    ("<think>a", None, "a", False),
    # --- no tag is no vote, whatever digits the text holds
    ("", None, "", False),
    (" \n", None, "", False),
    ("1", None, "1", False),
    ("Response 1 is better. The answer is 1.", None, "Response 1 is better. The answer is 1.", False),
    ("<think>Response 1 is better</think>1", None, "Response 1 is better", False),
    ("\\boxed{1}", None, "\\boxed{1}", False),
    ("[1]", None, "[1]", False),
]

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
MARKED_UP = st.lists(st.sampled_from([*TAGS, "1", "2", " ", "\n", "a"]), max_size=12).map("".join)


@pytest.mark.parametrize(("text", "answer", "reasoning", "well_formed"), CASES)
def test_table(text, answer, reasoning, well_formed):
    assert parse_judgment(text) == (answer, reasoning, well_formed)


@given(MARKED_UP)
def test_well_formed_is_the_regex_of_the_method(text):
    stripped = text.strip()
    expected = re.match(r"^<think>.*?</think><answer>.*?</answer>$", stripped, re.DOTALL) is not None
    expected = expected and all(stripped.count(tag) == 1 for tag in TAGS)
    assert parse_judgment(text).well_formed == expected


@given(MARKED_UP, st.sampled_from([1, 2]))
def test_only_what_follows_the_last_think_tag_decides(prefix, answer):
    assert parse_judgment(f"{prefix}</think><answer>{answer}</answer>").answer == answer


@given(st.lists(st.sampled_from(["<think>", "</think>", "</answer>", "answer", "1", "2", " "])).map("".join))
def test_text_without_an_opening_tag_is_no_vote(text):
    assert parse_judgment(text).answer is None


@pytest.mark.parametrize("part", [*TAGS, "<answer>1</answer>", "<think></think>", "<think><answer>", "<", " "])
def test_hostile_length_costs_nothing(part):
    text = (part * 100_000)[:1_000_000]
    start = time.perf_counter()
    judgment = parse_judgment(text)
    assert time.perf_counter() - start < 20  # every start against every end: hours
    assert judgment.answer is None
    assert not judgment.well_formed


def test_docstring():
    assert doctest.testmod(parsing).failed == 0
