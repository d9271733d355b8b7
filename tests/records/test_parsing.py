"""The parser: a table of judgments, the format regex of method section 1 as its twin, and hostile lengths."""

from __future__ import annotations

import doctest
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_reward.records import parsing
from r1_reward.records.parsing import is_well_formed, parse_judgment, spoken_from, tidy, with_template_thought
from r1_reward.records.prompt import neutralize

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
    ("<think>a</think><answer>\u200b1</answer>", None, "a", True),  # a zero-width space is not white space
    # --- readable answer, wrong form
    ("<answer>1</answer>", 1, "", False),
    ("a <answer>2</answer>", 2, "a", False),
    ("a</think><answer>2</answer>", 2, "a", False),
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
    ("<THINK>a</THINK><answer>1</answer>", 1, "a", False),
    ("<think >a <answer>2</answer></think\n><answer>1</answer>", 1, "a <answer>2</answer>", False),
    ("<think>a <answer>2</answer></ THINK ><answer>1</answer>", 1, "a <answer>2</answer>", False),
    ("<think>a < think>b<thinking>c< /think></think><answer>1</answer>", 1, "a < think>b<thinking>c< /think>", True),
    # --- an answer before the last </think> does not count
    ("<answer>1</answer><think>a</think>", None, "a", False),
    ("<think>a <answer>1</answer></think>", None, "a <answer>1</answer>", False),
    ("<think>a</think><answer>1</answer></think>", None, "a</think><answer>1</answer>", False),
    ("<think>a</think><answer>1</think></answer>", None, "a</think><answer>1", False),
    # --- a thought that was opened and never closed is all draft
    ("<think>a <answer>2</answer>", None, "a", False),
    ("<think>a<answer>2</answer> But wait", None, "a", False),
    ("<think>a<answer>2</answer> or <answer>1</answer>", None, "a", False),
    ("<think><answer>1</answer>", None, "", False),
    ("<THINK>a <answer>1</answer>", None, "a", False),
    ("<think >a <answer>1</answer>", None, "a", False),
    ("<Think\n>a <answer>1</answer>", None, "a", False),
    ("Well. <think>a <answer>1</answer>", None, "a", False),
    ("<think>a<think>b <answer>1</answer>", None, "a<think>b", False),
    ("<think>a</think>b<think>c <answer>1</answer>", None, "a", False),
    ("<think>a</think><answer>1</answer><think>No, ", None, "a", False),
    ("<think>a</think><answer>1</answer><think>No, <answer>2</answer>", None, "a", False),
    ("a</think>b<think>c <answer>1</answer>", None, "a", False),
    ("<answer>1</answer><think>Or", None, "", False),
    ("<think>a <answer>1</answer></thi", None, "a", False),
    ("<think>a <answer>1</answer>< /think>", None, "a", False),  # a candidate's tag, quoted: it closes nothing
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
    # --- without tags there is no vote, whatever digits the text contains
    ("", None, "", False),
    (" \n", None, "", False),
    ("1", None, "1", False),
    ("Response 1 is better. The answer is 1.", None, "Response 1 is better. The answer is 1.", False),
    ("<think>Response 1 is better</think>1", None, "Response 1 is better", False),
    ("\\boxed{1}", None, "\\boxed{1}", False),
    ("[1]", None, "[1]", False),
]

CUT = [
    # text, answer if the limit cut it there, answer if it ended by itself
    ("<think>a</think><answer>1</answer>", 1, 1),
    ("<think>a</think><answer>2</answer> I am su", 2, 2),
    ("a</think><answer>2</answer>", 2, 2),  # the template opened the thought, and it was closed
    ("a <answer>1</answer> b</think><answer>2</answer>", 2, 2),
    ("<answer>1</answer>", None, 1),
    ("a <answer>1</answer>", None, 1),
    ("a <answer>1</answer> But wai", None, 1),
    ("<think>a <answer>1</answer> But wai", None, None),
    ("<think>a</think>b<think>c <answer>1</answer>", None, None),
    ("<think>a</think>", None, None),
    ("<think>a</think><ans", None, None),
    ("<think>a</think><answer>", None, None),
    ("<think>a</think><answer>1", None, None),
    ("<think>a</think><answer>1</answ", None, None),
    ("", None, None),
]

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
MARKED_UP = st.lists(st.sampled_from([*TAGS, "1", "2", " ", "\n", "a"]), max_size=12).map("".join)


OTHER_TAGS = [("<thinking>", "</thinking>"), ("<Thought>", "</thought>"), ("<reasoning>", "</reasoning>")]
OTHER_TAGS += [("<seed:think>", "</seed:think>"), ("◁think▷", "◁/think▷"), ("[THINK]", "[/THINK]")]


@pytest.mark.parametrize(("opening", "closing"), OTHER_TAGS)
def test_thoughts_in_the_tags_of_other_families(opening, closing):
    for before in ("", "<think>Well.</think>"):
        assert parse_judgment(f"{before}{opening}Or <answer>1</answer>").answer is None
    whole = f"{opening}Or <answer>1</answer>?{closing}<answer>2</answer>"
    assert parse_judgment(whole) == (2, "Or <answer>1</answer>?", False)
    assert parse_judgment(whole, cut=True).answer == 2
    assert parse_judgment(whole.removeprefix(opening), cut=True).answer == 2  # opened by the template
    inner = "" if "THINK" in opening or "◁" in opening else f"<think>a {opening}b{closing} <answer>1</answer>"
    assert parse_judgment(inner).answer is None, "closed by another thought's end"
    quoted = neutralize(f"{opening}a{closing}")
    assert parse_judgment(f"<think>{quoted}</think><answer>1</answer>", cut=True).answer == 1
    assert parse_judgment(f"<think>{quoted} <answer>1</answer>").answer is None
    assert spoken_from(quoted) == 0


@pytest.mark.parametrize(("text", "answer", "reasoning", "well_formed"), CASES)
def test_table(text, answer, reasoning, well_formed):
    assert parse_judgment(text) == (answer, reasoning, well_formed)


@pytest.mark.parametrize(("text", "cut", "whole"), CUT)
def test_a_cut_text_has_an_answer_only_after_a_closed_thought(text, cut, whole):
    assert parse_judgment(text, cut=True).answer == cut
    assert parse_judgment(text).answer == whole
    assert parse_judgment(text, cut=True)[1:] == parse_judgment(text)[1:]  # nothing else depends on it


@given(
    MARKED_UP, st.sampled_from(["<think>", "<THINK>", "<think >"]), MARKED_UP.filter(lambda text: "think" not in text)
)
def test_nothing_after_an_unclosed_tag_is_an_answer(before, opening, after):
    text = before + opening + after
    assert parse_judgment(text).answer is parse_judgment(text, cut=True).answer is None
    assert spoken_from(text) is None


PROMPTS = {
    "instruct": "<|im_start|>user\nWrite <think> and </think>.<|im_end|>\n<|im_start|>assistant\n",
    "mentions it last": "Begin with <think>\nASSISTANT:",
    "thinking is off": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "opened": "<think>a</think><answer>1/2</answer><|im_end|>\n<|im_start|>assistant\n<think>\n",
    "opened without a line break": "<|Assistant|><think>",
}


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize(
    "text", ["a</think><answer>1</answer>", "</think>a", "a <answer>1</answer>", "", "\n <answer>1</answer>"]
)
def test_the_templates_think_tag_is_restored(name, text):
    whole = with_template_thought(PROMPTS[name], text)
    if not name.startswith("opened"):
        assert whole == text
        return
    assert whole == "<think>" + text
    assert parse_judgment(whole).answer == (1 if text.startswith("a</think>") else None)


@pytest.mark.parametrize("own", ["<think>a", "\n<think>a</think><answer>1</answer>", "<THINK>a"])
def test_a_thought_is_not_opened_twice(own):
    assert with_template_thought(PROMPTS["opened"], own) == own


LOOSE = re.compile(r"^<think>.*?</think>\s*<answer>.*?</answer>$", re.DOTALL)


@given(MARKED_UP)
def test_the_looser_format_allows_only_white_space_between_the_tags(text):
    stripped = text.strip()
    expected = LOOSE.match(stripped) is not None and all(stripped.count(tag) == 1 for tag in TAGS)
    assert is_well_formed(text, "whitespace") == expected
    assert is_well_formed(text, "whitespace") >= is_well_formed(text, "strict") == parse_judgment(text).well_formed
    assert is_well_formed(tidy(text)) == expected


@given(MARKED_UP)
def test_tidying_changes_no_verdict_and_no_thought(text):
    before, after = parse_judgment(text), parse_judgment(tidy(text))
    assert (after.answer, after.reasoning) == (before.answer, before.reasoning)
    assert tidy(tidy(text)) == tidy(text)


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
def test_hostile_length_takes_linear_time(part):
    text = (part * 100_000)[:1_000_000]
    start = time.perf_counter()
    judgment = parse_judgment(text)
    assert time.perf_counter() - start < 20  # every start against every end: hours
    assert judgment.answer is None
    assert not judgment.well_formed


def test_docstring():
    assert doctest.testmod(parsing).failed == 0
