"""An unreadable judge: the report, after how many answers it comes, its cause and example."""

from __future__ import annotations

import logging

import pytest

from r1_reward.engines.workers import in_workers
from r1_reward.judge import unreadable
from r1_reward.judge.unreadable import (
    FIRST,
    Reading,
    Readings,
    UnreadableJudge,
    Watch,
    limit_of,
    read,
    reading_of,
    reading_of_completion,
    why_unreadable,
)
from r1_reward.records.dialects import find_dialect
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import parse_judgment
from r1_reward.records.schema import Completion, Judgment

TEXTS = {
    "<think>The second is vague.</think><answer>Answer 1 is better</answer>": unreadable.IN_WORDS,
    "<think>a</think><answer>**2**</answer>": unreadable.IN_WORDS,
    "<think>a</think><answer>3</answer>": unreadable.IN_WORDS,
    "The first is better. [[A]]": unreadable.BRACKETS,
    "<answer>[[B]]</answer>": unreadable.BRACKETS,
    "[[A>>B]]": unreadable.BRACKETS,
    "So the answer is \\boxed{1}": unreadable.BOXED,
    '{"analysis": "...", "better_response": 1}': unreadable.JSON,
    "```json\n{'winner': 'model_a'}\n```": unreadable.JSON,
    "Overall Judgment: Answer 1 is better.": unreadable.SENTENCE,
    "<think>a</think>\n\n**Winner: Response 2**": unreadable.SENTENCE,
    "Response 1.": unreadable.SENTENCE,
    "2": unreadable.SENTENCE,
    "<verdict>1</verdict>": unreadable.OTHER_TAG,
    "<Answer>1</Answer>": unreadable.OTHER_TAG,
    "<think>a</think><answer>1": unreadable.UNCLOSED,
    "<answer>1</answer> or rather <answer>2</answer>": unreadable.SEVERAL,
    "<think>So it is <answer>1</answer>.</think>": unreadable.IN_THOUGHT,
    "<think>Both are fine.</think>\n": unreadable.ONLY_THOUGHT,
    "<think>Let me count. <answer>1</answer>": unreadable.UNENDED,
    "I'm sorry, but I can't help with that.": unreadable.REFUSED,
    "<think>Hm.</think>I cannot compare people.": unreadable.REFUSED,
    " \n": unreadable.EMPTY,
    "A cat sits on a sofa.": unreadable.NOTHING,
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_cause_is_what_the_text_has_instead_of_a_verdict(text):
    assert parse_judgment(text).answer is None
    assert why_unreadable(text) == TEXTS[text]


def test_the_engines_report_takes_precedence_over_the_text():
    assert why_unreadable("[[A]]", truncated=True) == unreadable.CUT
    assert why_unreadable("[[A]]", refused=True) == unreadable.REFUSED
    assert (
        reading_of_completion(Completion(text="", tokens=0, refused=True), readable=False).reason == unreadable.REFUSED
    )


def test_a_verdict_has_no_cause_and_a_draft_in_an_old_file_is_not_a_verdict():
    def vote(text, truncated=False):
        return Judgment(answer=1, swapped=False, text=text, well_formed=True, tokens=1, truncated=truncated)

    assert reading_of(vote("<think>a</think><answer>1</answer>", truncated=True)) == Reading("", True, "")
    assert reading_of(vote("<think>Perhaps <answer>1</answer>?", truncated=True)).reason == unreadable.CUT


def readings(*texts, cut=0):
    """Readings of texts, the first ones cut by the limit."""
    return [
        read(text, readable=parse_judgment(text).answer is not None, truncated=i < cut) for i, text in enumerate(texts)
    ]


def test_an_example_is_short_and_cannot_write_to_the_terminal():
    text = "\x1b[31mSee:\n" + "so " * 500 + "[[A]]"
    (one,) = readings(text)
    assert one.example.startswith(" [31mSee: so".strip()) and one.example.endswith("so [[A]]")
    assert len(one.example) < 260 and one.example.isprintable()


def test_the_most_common_cause_is_named_with_its_share_an_example_and_advice():
    counted = Readings()
    for one in readings(*["so long"] * 7, *["[[A]]"] * 2, "<answer>1</answer>", cut=7):
        counted.add(one)
    assert (counted.answers, counted.readable, counted.truncated) == (10, 1, 7)
    said = counted.cause(limit_of(1024))
    assert said.startswith("7 of 9: cut by the token limit; 2 of 9: another form of verdict: [[A]].")
    assert "raise --max-new-tokens (now 1,024)" in said
    assert counted.example == "so long"
    assert counted.report()["reasons"] == {unreadable.CUT: 7, unreadable.BRACKETS: 2}


@pytest.mark.parametrize(
    ("text", "cut", "said"),
    [
        ("<think>So it goes", True, "raise --max-new-tokens (now 64)"),
        ("<answer>Answer 1 is better</answer>", False, "only <answer>1</answer> or <answer>2</answer> is read"),
        ("[[B]]", False, "another form of verdict: [[A]]"),
        ("<think>Long.</think>", False, "reasoning in a separate field"),
        ("", False, "One of them: (empty)"),
        ("I cannot judge this.", False, "declines to judge"),
    ],
)
def test_after_fifty_answers_without_a_verdict_it_is_reported_once(text, cut, said, caplog):
    watch = Watch("m", "warn", limit=limit_of(64))
    one = readings(text, cut=int(cut))
    with caplog.at_level(logging.WARNING):
        assert all(watch.add(one) for _ in range(FIRST - 1))
        assert not caplog.records
        assert all(watch.add(one) for _ in range(FIRST))
    (record,) = caplog.records
    assert "m: not one of the first 50 answers can be read" in record.getMessage()
    assert said in record.getMessage()
    assert text in record.getMessage()
    watch.check(left=7)  # a warning stops nothing


def test_one_verdict_among_the_first_fifty_is_enough(caplog):
    watch = Watch("m", "stop")
    watch.add(readings(*["?"] * 49, "<answer>2</answer>", *["?"] * 100))
    assert not watch.stopped and not caplog.records
    late = Watch("m", "stop")
    late.add(readings(*["?"] * 50, "<answer>2</answer>"))
    assert not late.stopped  # 51 came together, and one of them is a verdict


def test_stop_raises_if_rows_are_left_and_warns_if_not(caplog):
    watch = Watch("m", "stop")
    assert watch.add(readings(*["?"] * 49))
    assert not watch.add(readings("?"))
    with pytest.raises(UnreadableJudge, match="7 rows left.*the same command resumes.*--on-unreadable warn"):
        watch.check(left=7)
    with caplog.at_level(logging.WARNING):
        watch.check(left=0)
    assert "not one of the first 50" in caplog.text
    assert issubclass(UnreadableJudge, UserError)


def test_answers_that_other_processes_saw_count(caplog):
    quiet = Watch("m", "warn", speaks=False)
    assert quiet.add(readings("?"), elsewhere=(60, 0))
    assert quiet.words and not caplog.records
    assert not Watch("m", "stop").add([], elsewhere=(50, 0))
    assert Watch("m", "stop").add(readings(*["?"] * 80), elsewhere=(10, 1))


# ---- workers stopped by the watch, or by a fatal error of a server


class Spec:
    """Its loaded engine is a number; ``base_url`` decides how it is used."""

    def __init__(self, base_url):
        self.base_url = base_url
        self.in_one_stream = base_url is not None

    def load(self):
        return 0


@pytest.mark.parametrize("base_url", [None, "http://x/v1"])
def test_no_more_rows_are_taken_and_those_in_progress_are_finished(base_url):
    taken = []

    def judge(_, rows, __):
        ahead = []
        for row in rows:  # an engine takes three ahead of what it answers
            taken.append(row)
            ahead.append(row)
            if len(ahead) == 3:
                yield ahead.pop(0)
        yield from ahead

    blocks = [list(range(start, start + 4)) for start in range(0, 40, 4)]
    seen = []

    def go_on(result):
        seen.append(result)
        return result < 5

    found = list(in_workers(judge, blocks, None, Spec(base_url), go_on=go_on))
    assert [result for _, results in found for result in results] == seen == taken
    assert 6 <= len(taken) <= 8
    assert all(block == results for block, results in found)


@pytest.mark.parametrize("answered", [0, 1, 3, 4, 6, 9])
def test_a_stream_that_fails_yields_its_answers_and_then_the_error(answered):
    def judge(_, rows, __):
        for row in rows:
            if row == answered:
                raise UserError("the money is used up")
            yield row

    found, seen = [], []
    blocks = [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]]
    with pytest.raises(UserError, match="used up"):
        for block, results in in_workers(
            judge, blocks, None, Spec("http://x/v1"), go_on=lambda row: not seen.append(row)
        ):
            assert block == results != []
            found += results
    assert found == seen == list(range(answered))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Fine. [[A]]", {"llm-as-judge", "rm-r1", "rm-r1-reasoning"}),
        ("<think>a</think><answer>Answer 1 is better</answer>", {"unified-reward", "unified-reward-think"}),
        ("\\boxed{2}", {"boxed"}),
        ('{"better_response": "A"}', {"json"}),
        ("Overall Judgment: Answer 1 is better.", {"vl-rewardbench", "unified-reward"}),
        ("<think>\\boxed{2}", set()),
        ("A cat.", set()),
        ("", set()),
    ],
)
def test_dialects_that_would_read_a_text_are_named(text, names):
    others = set(read(text, readable=False).others)
    assert names <= others
    assert bool(names) == bool(others)


def test_a_hint_is_given_if_most_texts_agree_with_it():
    readings = Readings()
    for text in ("\\boxed{1}", "\\boxed{2}", "[[A]]"):
        readings.add(read(text, readable=False))
    assert "--dialect boxed, which reads it" in readings.cause()
    assert "--dialect" not in Readings().cause()
    readings.add(read("?", readable=False))
    assert "--dialect" not in readings.cause()


def test_the_expected_form_is_named_and_contradictions_are_several_answers():
    spoken = find_dialect("rm-r1")
    readings = Readings(spoken)
    readings.add(read("[[A]] and [[B]]", readable=False, dialect=spoken))
    assert readings.reasons == {unreadable.SEVERAL: 1}
    readings.add(read("<answer>1</answer>", readable=False, dialect=spoken))
    assert "only <answer>[[A]]</answer> or <answer>[[B]]</answer> is read" in readings.cause()
