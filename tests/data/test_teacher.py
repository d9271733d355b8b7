"""Reading a teacher's reply, and parsing the names of teachers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from teacher_rows import says

from r1_reward.data.teacher import TeacherSpec, parse_teacher, read_reply
from r1_reward.engines.client import OPENAI
from r1_reward.records.dialects import find_dialect
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import parse_judgment, tidy
from r1_reward.records.schema import Completion
from r1_reward.rewards import format_reward


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (says(1), (1, "")),
        (f"\n{says(2)}\n", (2, "")),
        ("<think>a</think>\n\n<answer> 2\n</answer> ", (2, "")),
        ("<think>a</think> so <answer>2</answer>", (2, "malformed")),
        ("<think>a<answer>1</answer></think><answer>2</answer>", (2, "malformed")),
        ("<think>a</think><think>b</think><answer>2</answer>", (2, "malformed")),
        ("<answer>1</answer>", (1, "malformed")),
        ("<think> </think><answer>1</answer>", (1, "no reasoning")),
        ("<think>a <|image_pad|> b</think><answer>1</answer>", (1, "control token")),
        ("<think>a\0b</think><answer>1</answer>", (1, "control token")),
        ("<think>a \ud800 b</think><answer>1</answer>", (1, "control token")),
        ("", (None, "empty")),
        (" \n", (None, "empty")),
        ("I cannot help with that. 1.", (None, "no answer tag")),
        ("<think>a</think>Response 2", (None, "no answer tag")),
        ("<think>a</think><answer>1</answer><answer>2</answer>", (None, "several answers")),
        ("<think>a</think><answer>1/2</answer>", (None, "no verdict")),
        ("<think>a</think><answer>1", (None, "no verdict")),
        ("<think>a</think><answer>3</answer>", (None, "no verdict")),
        ("<think>a</think>\r\n <answer>2</answer>", (2, "")),
        ("<think>Perhaps <answer>1</answer>", (None, "unfinished thought")),
        ("<think>a</think>b<think>c <answer>1</answer>", (None, "unfinished thought")),
        ("<THINK>a <answer>1</answer>", (None, "unfinished thought")),
    ],
)
def test_verdict_and_problem_of_a_reply(text, expected):
    assert read_reply(Completion(text=text, tokens=1)) == expected
    assert not format_reward(text, "whitespace") or expected[1] != "malformed"
    assert format_reward(tidy(text)) or expected[1]  # what may be trained on is kept in the strict form
    assert read_reply(Completion(text=text, tokens=1, truncated=True)) == (None, "truncated")
    assert read_reply(Completion(text=text, tokens=1, refused=True)) == (None, "refused")


def test_the_teachers_own_control_tokens_are_rejected_too():
    told = Completion(text=says(1, "then <ctrl99> it ends"), tokens=1)
    assert read_reply(told) == (1, "")
    assert read_reply(told, special_tokens=("<ctrl99>",)) == (1, "control token")
    told = Completion(text=says(1, "I see two.\n[Response 1]: two match"), tokens=1)
    assert read_reply(told, special_tokens=("<ctrl99>", "[Response 1]:")) == (1, "")  # a word of the demo's tokenizer


@given(st.text(alphabet=st.sampled_from("a1 2\n<>/")) | st.text())
def test_tidying_changes_no_verdict_and_no_thought(thought):
    for text in (f"<think>{thought}</think>\n <answer> 1 </answer>\n", thought, f"<answer>{thought}</answer>"):
        before, after = parse_judgment(text), parse_judgment(tidy(text))
        assert (after.answer, after.reasoning) == (before.answer, before.reasoning)
        assert tidy(tidy(text)) == tidy(text)


def test_teachers_are_named_in_three_ways():
    assert parse_teacher("openai:gpt-4o") == TeacherSpec("gpt-4o", OPENAI)
    assert parse_teacher("server:a@b/c@http://host:8000/v1") == TeacherSpec("a@b/c", "http://host:8000/v1")
    assert parse_teacher("runs/sft") == TeacherSpec("runs/sft")
    names = [parse_teacher(text).name for text in ("openai:gpt-4o", "server:m@http://user:pw@host/v1", "runs/sft")]
    assert names == ["openai:gpt-4o", "server:m", "runs/sft"]
    for text in (
        "openai:",
        "server:",
        "server:m",
        "server:@http://host",
        "server:m@ftp://host",
        "server:m@http://",
        "server:m@http://host:port/v1",
        "",
    ):
        with pytest.raises(UserError, match="--teacher"):
            parse_teacher(text)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("rm-r1", "<eval>Chatbot A counts.</eval>\n<answer>[[A]]</answer>", (1, "")),
        ("rm-r1", "<answer>[[A]]</answer>", (1, "no reasoning")),
        ("rm-r1", "[[A]] [[B]]", (None, "several answers")),
        ("rm-r1", "<answer>1</answer>", (None, "no verdict")),
        ("unified-reward", "<think>Answer 1 is better", (None, "unfinished thought")),
        ("llm-as-judge", "Alike: [[C]]", (None, "tie")),
        ("llm-as-judge", "A<|im_end|> is right.\n[[A]]", (1, "control token")),
        ("boxed", "So.</think>Well.</think>\\boxed{2}", (2, "malformed")),
        ("boxed", " ", (None, "empty")),
    ],
)
def test_replies_in_another_dialect(name, text, told):
    assert read_reply(Completion(text=text, tokens=1), dialect=find_dialect(name)) == told
