"""Splitting rows into SFT and RL sets, by a teacher's attempts or by a model's own pass rate."""

from __future__ import annotations

import json
import re

import pytest
from fakes import FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import greys, write_frames

from r1_reward.data.difficulty import split_difficulty
from r1_reward.data.pass_rates import PassRates, Rate, measure
from r1_reward.engines.client import RejectedError
from r1_reward.engines.engine import EngineError
from r1_reward.engines.length import PromptTooLong
from r1_reward.judge.unreadable import UnreadableJudge
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion
from r1_reward.store.shards import PairWriter, read_rows


def says(answer):
    return f"<think>Because.</think><answer>{answer}</answer>"


def pair(number, *, attempts=1, taught=True, preferred=None, **changes):
    preferred = preferred or 1 + number % 2
    row = {
        "id": f"p{number}",
        "question": f"question {number}?",
        "response_1": f"first {number}",
        "response_2": f"second {number}",
        "preferred": preferred,
        "source": "ab"[number % 2],
        "attempts": attempts,
        "reasoning": says(preferred) if taught else None,
    }
    return {**row, **changes}


def write_pairs(folder, rows, report=None):
    with PairWriter(folder) as writer:
        for row in rows:
            writer.add(row)
        writer.close(report or {})
    return folder


def ids(folder):
    return [row["id"] for row in read_rows(folder)] if any(folder.glob("*.parquet")) else []


def split(folder, rows, rates=None, report=None, **options):
    """Split rows; return the ids of both sides, and the reports."""
    source = write_pairs(folder / "in", rows, report)
    reports = split_difficulty(source, folder / "sft", folder / "rl", rates, **options)
    return ids(folder / "sft"), ids(folder / "rl"), *reports


def test_the_papers_rule(tmp_path):
    rows = [pair(0), pair(1, attempts=2), pair(2, attempts=3), pair(3, attempts=None, taught=False), pair(4)]
    sft, rl, first, second = split(tmp_path, rows)
    assert (sft, rl) == (["p0", "p1", "p2", "p4"], ["p1", "p2", "p3"])
    kept = {row["id"]: row for row in read_rows(tmp_path / "sft")}
    assert [kept[name]["reasoning"] for name in sft] == [says(row["preferred"]) for row in rows if row["id"] in sft]
    hard = list(read_rows(tmp_path / "rl"))
    assert [(row["reasoning"], row["attempts"]) for row in hard] == [(None, 2), (None, 3), (None, None)]
    assert [row["preferred"] for row in hard] == [2, 1, 2]
    assert first["levels"] == {"1": 2, "2": 1, "3": 1, "failed": 1}
    assert (first["written"], second["written"], first["in_both"], first["neither"]) == (4, 3, 2, {})
    assert (first["by_source"], second["by_source"]) == ({"a": 3, "b": 1}, {"a": 1, "b": 2})
    assert second["label_1_share"] == pytest.approx(1 / 3)
    assert json.loads((tmp_path / "sft" / "report.json").read_text()) == first
    assert json.loads((tmp_path / "rl" / "report.json").read_text()) == second


@pytest.mark.parametrize(
    "reasoning",
    [
        says(1),
        "<think>a</think> <answer>2</answer>",
        "It is 2.",
        "<think>a</think><answer>1</answer><answer>2</answer>",
    ],
)
def test_reasoning_with_another_verdict_or_format_is_never_used_for_sft(tmp_path, reasoning):
    rows = [pair(0), pair(1, reasoning=reasoning), pair(3, attempts=2, reasoning=reasoning)]
    sft, rl, report, _ = split(tmp_path, rows)
    assert (sft, rl) == (["p0"], ["p3"])
    assert report["neither"] == {"agreed at once, but without reasoning usable for training": 1}
    (line,) = [json.loads(line) for line in (tmp_path / "rl" / "dropped.jsonl").read_text().splitlines()]
    assert (line["id"], line["row"], line["source"]) == ("p1", 2, "b")
    assert line["file"] == str(tmp_path / "in")


ROWS = st.lists(st.tuples(st.sampled_from([None, 1, 2, 3]), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(shapes=ROWS, curriculum=st.booleans())
def test_every_row_goes_where_the_rule_says(tmp_path_factory, shapes, curriculum):
    rows = [pair(n, attempts=attempts, taught=taught) for n, (attempts, taught) in enumerate(shapes)]
    report = {"kind": "annotation"}
    sft, rl, first, _ = split(tmp_path_factory.mktemp("split"), rows, report=report, curriculum=curriculum)
    hard = [row for row in rows if row["attempts"] in (2, 3) or (row["attempts"] is None and row["reasoning"] is None)]
    if curriculum:  # a slow twin: pick the easiest remaining row, the first of equals
        rest, hard = hard, []
        while rest:
            easiest = min(range(len(rest)), key=lambda i: (rest[i]["attempts"] or 9, i))
            hard.append(rest.pop(easiest))
    assert rl == [row["id"] for row in hard]
    assert sft == [row["id"] for row in rows if row["reasoning"] is not None]
    assert first["in_both"] == len(set(sft) & set(rl))
    assert sum(first["neither"].values()) == len(rows) - len(set(sft) | set(rl))
    assert sum(first["levels"].values()) == first["rows"] == len(rows)


def test_unannotated_rows_are_refused_but_a_teacher_that_always_failed_is_not(tmp_path):
    rows = [pair(n, attempts=None, taught=False) for n in range(3)]
    with pytest.raises(UserError, match="no row has a number of attempts"):
        split(tmp_path / "a", rows)
    assert not (tmp_path / "a" / "sft").exists()
    assert split(tmp_path / "b", rows, report={"kind": "annotation"})[:2] == ([], ["p0", "p1", "p2"])


def test_folders_with_pairs_are_not_overwritten_unless_asked(tmp_path):
    split(tmp_path, [pair(0), pair(1, attempts=2)])
    source = tmp_path / "in"
    with pytest.raises(UserError, match="already has pairs"):
        split_difficulty(source, tmp_path / "sft", tmp_path / "rl")
    with pytest.raises(UserError, match="three different folders"):
        split_difficulty(source, tmp_path / "sft", source, overwrite=True)
    split_difficulty(source, tmp_path / "sft", tmp_path / "rl", overwrite=True)
    assert [row["id"] for row in read_rows(tmp_path / "rl")] == ["p1"]


# ---- pass rates


class Model(FakeEngine):
    """Right in as many of four samples as the row's number says, in any order; always says 1 if configured so."""

    def __init__(self, *, fail=(), always_first=False, stop_after=None):
        self.fail, self.always_first, self.stop_after, self.asked = fail, always_first, stop_after, []
        self.seeds, self.samples = [], {}

    def answer(self, requests):
        for request in requests:
            text = request.messages[0]["content"][-1]["text"]
            number = int(re.search(r"question (\d+)\?", text)[1])
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(number)
            self.seeds += request.seeds
            if number in self.fail:
                yield EngineError("lost")
                continue
            swapped = text.index(f"second {number}") < text.index(f"first {number}")
            right = (1 + number % 2) if not swapped else 2 - number % 2
            yield [self._sample(number, right) for _ in request.seeds]

    def _sample(self, number, right):
        drawn = self.samples[number] = self.samples.get(number, 0) + 1
        if self.always_first:
            return Completion(text=says(1), tokens=3)
        wrong = says(3 - right) if number % 2 else "no verdict"
        return Completion(text=says(right) if drawn <= number % 5 else wrong, tokens=3)


RATES = PassRates(model="tiny", samples=4)


def test_rows_a_model_sometimes_fails_on_are_for_rl(tmp_path):
    rows = [pair(n, taught=n in (0, 4)) for n in range(10)]
    sft, rl, first, second = split(tmp_path, rows, RATES, engine=Model())
    assert sft == ["p0", "p4"]
    assert rl == ["p1", "p2", "p3", "p5", "p6", "p7", "p8"]  # p4 and p9: right 4 times of 4; p0: no verdict
    assert all(row["reasoning"] is None for row in read_rows(tmp_path / "rl"))
    assert first["levels"] == {"4/4": 2, "3/4": 2, "2/4": 2, "1/4": 2, "0/4": 1, "no verdict": 1}
    assert list(first["levels"]) == ["4/4", "3/4", "2/4", "1/4", "0/4", "no verdict"]
    assert first["samples"] == second["samples"] == {"votes": 40, "readable": 30, "truncated": 0}
    assert first["no_verdict"] == 1
    assert first["neither"] == {"pass rate is out of range, and no reasoning agrees": 1}
    assert second["rule"]["pass rate"]["samples"] == 4


def test_both_ends_of_the_range_and_the_curriculum(tmp_path):
    rows = [pair(n, taught=False) for n in range(10)]
    rates = RATES.model_copy(update={"lowest": 0.25, "highest": 0.75})
    sft, rl, _, report = split(tmp_path, rows, rates, engine=Model(), curriculum=True)
    assert sft == []
    assert rl == ["p3", "p8", "p2", "p7", "p1", "p6"]
    assert (report["curriculum"], report["neither"]) == (
        True,
        {"pass rate is out of range, and no reasoning agrees": 3, "no sample had a verdict": 1},
    )


def test_a_model_that_always_says_1_passes_half_of_the_time(tmp_path):
    rows = [pair(n, taught=False) for n in range(40)]
    source = write_pairs(tmp_path / "in", rows)
    model = Model(always_first=True)
    right = measure(source, PassRates(model="m", samples=8), tmp_path / "rates.jsonl", model)
    assert right == [Rate(4, 0, 0)] * 40
    assert len(set(model.seeds)) == 40 * 8  # every sample is another one
    odd = measure(source, PassRates(model="m", samples=3), tmp_path / "rates.jsonl", Model(always_first=True))
    assert set(odd) == {Rate(1, 0, 0), Rate(2, 0, 0)}


def test_an_interrupted_measurement_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr("r1_reward.data.pass_rates._BLOCK", 3)
    rows = [pair(n, taught=False) for n in range(10)]
    (tmp_path / "rl").mkdir()
    whole = split(tmp_path / "whole", rows, RATES, engine=Model())
    interrupted = Model(stop_after=11)  # each row is two requests, one an order
    with pytest.raises(KeyboardInterrupt):
        split(tmp_path, rows, RATES, engine=interrupted)
    file = tmp_path / "rl" / "pass_rates.jsonl"
    known = {json.loads(line)["id"] for line in file.read_text().splitlines()}
    assert known == {"p0", "p1", "p2"}
    assert not (tmp_path / "rl" / "report.json").exists()
    file.write_bytes(file.read_bytes() + b'{"key": "torn')
    rest = Model()
    reports = split_difficulty(tmp_path / "in", tmp_path / "sft", tmp_path / "rl", RATES, engine=rest)
    assert {f"p{number}" for number in rest.asked} == {row["id"] for row in rows} - known
    assert [row["id"] for row in read_rows(tmp_path / "rl")] == whole[1]
    assert reports[0]["levels"] == whole[2]["levels"]
    assert len(file.read_text().splitlines()) == 10


def test_measurements_are_reused_only_for_the_same_row_label_and_settings(tmp_path):
    source = write_pairs(tmp_path / "in", [pair(n, taught=False) for n in range(5)])
    file = tmp_path / "rates.jsonl"

    def asked(rates, source=source):
        model = Model()
        measure(source, rates, file, model)
        return sorted(set(model.asked))

    assert asked(RATES) == [0, 1, 2, 3, 4]
    assert asked(RATES.model_copy(update={"lowest": 0.5})) == []
    changes = {"model": "other", "samples": 2, "temperature": 0.5, "max_new_tokens": 9, "seed": 1}
    for name, value in changes.items():
        assert asked(RATES.model_copy(update={name: value})) == [0, 1, 2, 3, 4], name
    more = write_pairs(tmp_path / "more", [pair(7), pair(1), pair(2, preferred=2), pair(3, response_1="first 3!")])
    assert asked(RATES, more) == [2, 3, 7]


class Films(FakeEngine):
    """Always says 1; notes how many pictures each request shows."""

    def __init__(self):
        self.pictures = []

    def answer(self, requests):
        for request in requests:
            self.pictures.append(len(request.images))
            yield [Completion(text=says(1), tokens=3) for _ in request.seeds]


@pytest.mark.parametrize("within", [False, True])
def test_another_number_of_frames_is_measured_anew_wherever_the_video_is(tmp_path, within):
    write_frames(tmp_path / "clip", greys(4))
    clip = str(tmp_path / "clip")
    part = {"response_1": [{"type": "text", "text": "first 1"}, {"type": "video", "video": clip}]}
    rows = [pair(1, taught=False, **(part if within else {"video": clip})), pair(2, taught=False)]
    source, asked = write_pairs(tmp_path / "in", rows), []
    for frames in (2, 2, 3):
        model = Films()
        measure(source, RATES.model_copy(update={"frames": frames}), tmp_path / "rates.jsonl", model)
        asked.append(model.pictures)
    assert asked == [[2, 2, 0, 0], [], [3, 3]]


def test_rows_that_cannot_be_measured_are_listed(tmp_path):
    rows = [pair(n, taught=n == 1) for n in range(5)]
    rows[2]["images"] = [{"bytes": b"no picture", "path": "2.png"}]
    sft, rl, report, _ = split(tmp_path, rows, RATES, engine=Model(fail={1, 3}))
    assert (sft, rl) == (["p1"], [])
    assert report["levels"] == {"4/4": 1, "no verdict": 1, "not measured": 3}
    lines = [json.loads(line) for line in (tmp_path / "rl" / "dropped.jsonl").read_text().splitlines()]
    assert [(line["id"], line["detail"]) for line in lines] == [
        ("p0", "no verdict"), ("p2", "not measured"), ("p3", "not measured"), ("p4", "4/4"),
    ]  # fmt: skip
    assert (lines[0]["reason"], lines[2]["reason"]) == ("no sample had a verdict", "lost")
    # Nothing is noted about them: the next call measures them again.
    again = Model()
    measure(tmp_path / "in", RATES, tmp_path / "rl" / "pass_rates.jsonl", again)
    assert sorted(set(again.asked)) == [1, 3]


def test_a_model_that_stops_answering_ends_the_measurement_and_keeps_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr("r1_reward.data.pass_rates._BLOCK", 4)
    monkeypatch.setattr("r1_reward.data.pass_rates.GIVE_UP", 5)
    rows = [pair(n, taught=False) for n in range(12)]
    rows[4]["images"] = [{"bytes": b"no picture", "path": "4.png"}]  # is not an answer, nor the model's failure
    with pytest.raises(UserError, match="5 rows in a row got no answer; the last error: lost\n.*run the same command"):
        split(tmp_path, rows, RATES, engine=Model(fail={1, *range(3, 12)}))
    known = {json.loads(line)["id"] for line in (tmp_path / "rl" / "pass_rates.jsonl").read_text().splitlines()}
    assert known == {"p0", "p2"}
    assert not (tmp_path / "rl" / "report.json").exists()
    again = Model()
    _, report = split_difficulty(tmp_path / "in", tmp_path / "sft", tmp_path / "rl", RATES, engine=again)
    assert sorted(set(again.asked)) == [1, 3, *range(5, 12)]
    (warning,) = report["warnings"]
    assert warning.startswith("1 row was not measured and is missing from the RL set; the first error: ")


@pytest.mark.parametrize("error", [PromptTooLong("too long"), RejectedError("content_policy_violation", "HTTP 400")])
def test_rows_that_are_refused_for_what_they_are_do_not_end_a_measurement(tmp_path, monkeypatch, error):
    monkeypatch.setattr("r1_reward.data.pass_rates.GIVE_UP", 3)

    class Short(FakeEngine):
        def answer(self, requests):
            return [error for _ in requests]

    source = write_pairs(tmp_path / "in", [pair(n, taught=False) for n in range(5)])
    assert measure(source, RATES, tmp_path / "rates.jsonl", Short()) == [str(error)] * 5


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"samples": 0}, "samples: must be 1 or more"),
        ({"temperature": 0.0}, "greedy samples"),
        ({"lowest": 0.9, "highest": 0.5}, "is above the highest"),
        ({"highest": 1.5}, "highest: must be 1 or less"),
        ({"lowest": float("nan")}, "lowest: must be"),
    ],
)
def test_invalid_settings(rates, said):
    with pytest.raises(UserError, match=said):
        PassRates(model="m", **rates)


def test_the_tiny_checkpoint_has_pass_rates(checkpoint, pair_file, tmp_path):
    rows = list(read_rows(pair_file))[:3]
    source = write_pairs(tmp_path / "in", rows)
    rates = PassRates(model=str(checkpoint), samples=2, max_new_tokens=4, highest=1.0)
    _, second = split_difficulty(source, tmp_path / "sft", tmp_path / "rl", rates, batch_size=4)
    assert second["written"] == 0  # random weights: no verdict, which is not a pass rate of 0
    assert second["levels"] == {"no verdict": 3}
    assert second["samples"] == {"votes": 6, "readable": 0, "truncated": 6}


class Mute(FakeEngine):
    """Writes no verdict."""

    batch_size = 4

    def __init__(self):
        self.asked = 0

    def answer(self, requests):
        for request in requests:
            self.asked += len(request.seeds)
            yield [Completion(text="<answer>Answer 1 is better</answer>", tokens=3) for _ in request.seeds]


def test_an_unreadable_model_is_stopped_early_and_makes_no_row_hard(tmp_path):
    rows = [pair(n, taught=False) for n in range(60)]
    mute = Mute()
    with pytest.raises(UnreadableJudge, match="tiny: not one of the first 5. answers can be read.*not 1 or 2 alone"):
        split(tmp_path, rows, RATES, engine=mute)
    assert 50 <= mute.asked < 240
    assert not (tmp_path / "rl" / "report.json").exists()
    known = (tmp_path / "rl" / "pass_rates.jsonl").read_text().splitlines()
    assert 4 * len(known) == mute.asked
    again = Mute()
    reports = split_difficulty(
        tmp_path / "in", tmp_path / "sft", tmp_path / "rl", RATES, engine=again, on_unreadable="warn"
    )
    assert mute.asked + again.asked == 240
    assert (reports[1]["written"], reports[1]["levels"], reports[1]["no_verdict"]) == (0, {"no verdict": 60}, 60)
    assert reports[1]["neither"] == {"no sample had a verdict": 60}


def test_rates_of_version_0_1_0_do_not_say_what_was_unreadable(tmp_path):
    source = write_pairs(tmp_path / "in", [pair(n, taught=False) for n in range(5)])
    file = tmp_path / "rl" / "pass_rates.jsonl"
    file.parent.mkdir()
    measure(source, RATES, file, Model())
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({name: line[name] for name in ("key", "id", "right")}) + "\n" for line in lines))
    reports = split_difficulty(source, tmp_path / "sft", tmp_path / "rl", RATES, engine=Model(fail=range(5)))
    assert reports[1]["levels"] == {f"{n}/4": 1 for n in (4, 3, 2, 1, 0)}  # as before
    assert reports[1]["samples"] == {"votes": 0, "readable": 0, "truncated": 0}
