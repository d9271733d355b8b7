"""Faults, kills and torn files: annotation loses, repeats and invents nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import time
from collections import Counter

import pytest
import typer
from fakes import FakeEngine
from filelock import FileLock
from killed_runs import context
from scripted_server import ScriptedServer, hang, raw, reply, status
from teacher_rows import lines_of, pair, prompt, right, rows_of, run, says, write_pairs, wrong
from typer.testing import CliRunner

from r1_reward.cli import data_annotate
from r1_reward.data import annotation as annotation_module
from r1_reward.data.annotate import AnnotateSettings, Money, annotate
from r1_reward.data.attempts_file import AttemptRecord, AttemptsFile
from r1_reward.data.difficulty import split_difficulty
from r1_reward.data.teacher import TeacherSpec
from r1_reward.engines.engine import ReadsTextOnly
from r1_reward.engines.length import PromptTooLong
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion
from r1_reward.store.shards import read_rows

pytestmark = pytest.mark.usefixtures("no_waits")

# ---- faults


FAULTS = {
    "hangs": (hang, "no reply"),
    "half a JSON": (raw('{"choices": [{"mess'), "no reply"),
    "refuses": (reply(None, refusal="No."), "refused"),
    "is filtered": (reply("<think>Th", finish="content_filter"), "refused"),
    "loops": (reply("again and again " * 9, finish="length"), "truncated"),
    "cut at a verdict": (reply(says(1), finish="length"), "truncated"),
    "has no tags": (reply("Response 1 is better: 1"), "no answer tag"),
    "both": (reply("<think>a</think><answer>1</answer><answer>2</answer>"), "several answers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_counted_listed_and_never_a_verdict(server, tmp_path, fault):
    step, name = FAULTS[fault]
    rows = [pair(n, preferred=1) for n in range(3)]
    server.default = [reply(says(1))]
    server.scripts[prompt(rows[1])] = [step]
    folder, out = write_pairs(tmp_path / "in", rows), tmp_path / "out"
    report = run(server, folder, out, settings={"attempts": 2}, timeout=0.5 if step is hang else 30.0)
    written = rows_of(out)
    assert [(row["attempts"], row["reasoning"]) for row in (written["p0"], written["p2"])] == [(1, says(1))] * 2
    if name != "no reply":
        assert (written["p1"]["attempts"], written["p1"]["reasoning"]) == (None, None)
        assert (report["attempts"]["failed"], report["attempts"]["no verdict"], report["complete"]) == (0, 1, True)
        assert (report["outcomes"]["1"][name], report["outcomes"]["2"][name]) == (1, 1)
        return
    assert "p1" not in written
    assert (report["dropped"], report["left"], report["complete"]) == ({"no reply": 1}, 1, False)
    (line,) = lines_of(out, "dropped.jsonl")
    assert (line["id"], line["row"]) == ("p1", 2)
    assert "returned no completion in 1 try" in line["detail"]
    # The next call asks about this row alone, and the folder is complete.
    server.forget()
    report = run(server, folder, out, settings={"attempts": 2})
    assert [body["messages"][0]["content"][-1]["text"] for body in server.bodies] == [prompt(rows[1])]
    assert (report["attempts"], report["complete"]) == ({"1": 3, "2": 0, "failed": 0, "no verdict": 0}, True)


def test_a_failed_request_is_retried(server, tmp_path):
    row = pair(0, preferred=1)
    server.scripts[prompt(row)] = [status(500), raw("{"), reply(says(1))]
    chosen = AnnotateSettings(teacher=f"server:t@{server.url}")
    report = annotate(write_pairs(tmp_path / "in", [row]), tmp_path / "out", chosen, retries=2)
    assert (len(server.bodies), report["usage"]["attempts"], report["attempts"]["1"]) == (3, 1, 1)


def test_a_text_the_server_rejects_is_listed_and_not_asked_again(server, tmp_path):
    rows = [pair(n, preferred=1) for n in range(3)]
    server.default = [reply(says(1))]
    server.scripts[prompt(rows[1])] = [status(400, "content_policy_violation")]
    folder, out = write_pairs(tmp_path / "in", rows), tmp_path / "out"
    run(server, write_pairs(tmp_path / "first", rows[:1]), out)  # a teacher that answers, so it is the text
    report = run(server, folder, out, money=Money(price_in=1.0, price_out=1.0, limit=1.0))
    assert (report["dropped"], report["complete"]) == ({"rejected": 1}, True)
    assert list(rows_of(out)) == ["p0", "p2"]
    (line,) = lines_of(out, "dropped.jsonl")
    assert "content_policy_violation" in line["detail"]
    (out / "report.json").unlink()  # else nothing would be looked at
    server.forget()
    assert run(server, folder, out)["dropped"] == {"rejected": 1}
    assert server.bodies == []


def test_a_server_that_rejects_everything_marks_no_row(server, tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_module, "GIVE_UP", 5)
    folder, out = write_pairs(tmp_path / "in", [pair(n) for n in range(20)]), tmp_path / "out"
    server.default = [status(400, "no such parameter")]
    with pytest.raises(UserError, match="5 rows in a row got no reply"):
        run(server, folder, out)
    assert not (out / "attempts.jsonl").exists()
    assert not (out / "report.json").exists()
    server.forget()
    assert run(server, folder, out)["complete"]


@pytest.mark.parametrize("said", ["content_policy_violation", "this is a text-only model"])
def test_a_resumed_run_on_a_server_that_rejects_everything_marks_no_row(server, tmp_path, monkeypatch, said):
    monkeypatch.setattr(annotation_module, "GIVE_UP", 5)
    rows, out = [pair(n, preferred=1) for n in range(12)], tmp_path / "out"
    server.default = [reply(says(1))]
    run(server, write_pairs(tmp_path / "first", rows[:2]), out)
    kept, folder = lines_of(out), write_pairs(tmp_path / "in", rows)
    server.default = [status(400, said)]
    with pytest.raises(UserError, match="5 rows in a row got no reply"):
        run(server, folder, out)
    report = run(server, write_pairs(tmp_path / "few", rows[:4]), out)  # too few to give up
    assert (report["dropped"], report["left"], report["complete"]) == ({"no reply": 2}, 2, False)
    assert lines_of(out) == kept
    server.default = [reply(says(1))]
    report = run(server, folder, out)
    assert (report["written"], report["complete"]) == (12, True)


def test_a_server_that_begins_to_reject_everything_marks_no_row(server, tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_module, "GIVE_UP", 5)
    rows, out = [pair(n, preferred=1) for n in range(12)], tmp_path / "out"
    server.default = [status(400, "content_policy_violation")]
    server.scripts = {prompt(row): [reply(says(1))] for row in (rows[0], rows[2])}
    with pytest.raises(UserError, match="5 rows in a row got no reply"):
        run(server, write_pairs(tmp_path / "in", rows), out, concurrency=1)
    found = {line["id"]: line["problem"] for line in lines_of(out)}
    assert found == {"p0": "", "p1": "rejected", "p2": ""}, "the server still answered after it rejected p1"


def test_rows_that_are_too_long_for_the_server_do_not_end_the_run(server, tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_module, "GIVE_UP", 5)
    rows, out = [pair(n, preferred=1) for n in range(12)], tmp_path / "out"
    server.default = [
        status(400, "This model's maximum context length is 4096 tokens. However, you requested 10213 tokens.")
    ]
    server.scripts = {prompt(row): [reply(says(1))] for row in (rows[0], rows[11])}
    report = run(server, write_pairs(tmp_path / "in", rows), out, concurrency=1)
    assert (report["written"], report["dropped"], report["complete"]) == (2, {"rejected": 10}, True)


def test_a_row_with_pictures_is_asked_again_even_if_a_text_only_server_answers_others(server, tmp_path):
    rows, out = [pair(0, preferred=1, images=[]), pair(1, preferred=1)], tmp_path / "out"
    blind = status(400, "this is a text-only model")
    server.default = [lambda body: reply(says(1)) if isinstance(body["messages"][0]["content"], str) else blind()]
    folder = write_pairs(tmp_path / "in", rows)
    report = run(server, folder, out)
    assert (report["written"], report["dropped"], report["complete"]) == (1, {"no reply": 1}, False)
    server.default = [reply(says(1))]
    assert run(server, folder, out)["complete"]


@pytest.mark.parametrize("error", [PromptTooLong("the prompt is too long"), ReadsTextOnly("runs/teacher", 1)])
def test_rows_that_a_teacher_in_this_process_cannot_read_are_left_out(tmp_path, monkeypatch, error):
    monkeypatch.setattr(annotation_module, "GIVE_UP", 3)

    class Short(FakeEngine):
        def answer(self, requests):
            for request in requests:
                long = re.search(r"question [0-4]\?", request.messages[0]["content"][-1]["text"])
                yield error if long else [Completion(text=says(1), tokens=1, prompt_tokens=1)]

    monkeypatch.setattr(TeacherSpec, "load", lambda self, **_: Short())
    monkeypatch.setattr("r1_reward.data.annotate.weights_fields", lambda *_, **__: {})
    folder = write_pairs(tmp_path / "in", [pair(n, preferred=1) for n in range(8)])
    report = annotate(folder, tmp_path / "out", AnnotateSettings(teacher="runs/teacher"))
    assert (report["written"], report["dropped"], report["complete"]) == (3, {"not shown": 5}, True)
    assert {line["detail"] for line in lines_of(tmp_path / "out", "dropped.jsonl")} == {str(error)}


def test_a_fatal_error_ends_the_run_and_keeps_all_replies(server, tmp_path):
    rows = [pair(n, preferred=1) for n in range(12)]
    folder, out = write_pairs(tmp_path / "in", rows), tmp_path / "out"
    refused = prompt(rows[6])

    async def last():
        while not server.calls[refused]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # it is paid for, even though the run has to stop
        return reply(says(1))

    server.default = [reply(says(1))]
    server.scripts = {refused: [status(401, "bad key")], prompt(rows[5]): [last]}
    with pytest.raises(UserError, match="rejects the API key"):
        run(server, folder, out, concurrency=2)
    kept = {line["id"] for line in lines_of(out)}
    assert kept >= {f"p{n}" for n in range(6)}
    assert len(kept) == sum(server.calls.values()) - 1
    assert not (out / "report.json").exists()
    server.forget()
    server.default = [reply(says(1))]
    assert run(server, folder, out)["complete"]
    assert len(server.bodies) == 12 - len(kept)


def test_a_server_that_dies_ends_the_run_and_another_one_takes_over(tmp_path):
    rows = [pair(n, preferred=1) for n in range(30)]
    folder, out = write_pairs(tmp_path / "in", rows), tmp_path / "out"
    first, second = ScriptedServer(), ScriptedServer()
    first.default = second.default = [reply(says(1))]
    try:
        with pytest.raises(UserError, match="cannot be reached"):
            run(first, folder, out, concurrency=1, progress=lambda s: first.stop() if s.done == 12 else None)
        kept = len(lines_of(out))
        assert 12 <= kept <= 13  # one may have been answered while the twelfth was written
        report = run(second, folder, out)  # at another address, but the same model
        assert (report["complete"], report["attempts"]["1"], len(second.bodies)) == (True, 30, 30 - kept)
    finally:
        second.stop()


# ---- kills


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_sigkill_loses_nothing_and_doubles_nothing(server, tmp_path):
    rows = [pair(n) for n in range(40)]
    tries = {row["id"]: random.Random(row["id"]).randrange(4) for row in rows}
    needed = {(row["id"], attempt) for row in rows for attempt in range(1, min(tries[row["id"]], 2) + 2)}
    by_text = {prompt(row): row for row in rows}
    attempt_of = {0.0: 1, 0.7: 2, 1.0: 3}

    async def answer(body):
        row = by_text[body["messages"][0]["content"][-1]["text"]]
        await asyncio.sleep(0.03)
        # Depends on the attempt, not the call: a request interrupted by a kill gets the same answer the next time.
        return right(row) if attempt_of[body["temperature"]] > tries[row["id"]] else wrong(row)

    server.default = [answer]
    folder, out = write_pairs(tmp_path / "in", rows), tmp_path / "out"
    kills = 0
    for goal in (1, 20, 45):
        settings = AnnotateSettings(teacher=f"server:t@{server.url}")
        child = context.Process(target=annotate, args=(folder, out, settings), kwargs={"concurrency": 4})
        child.start()
        while len(server.bodies) < goal and child.is_alive():
            time.sleep(0.005)
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL, f"ended by itself before request {goal}"
        kills += 1
    settled = len(lines_of(out))
    report = run(server, folder, out, model="t")

    assert {(line["id"], line["attempt"]) for line in lines_of(out)} == needed
    assert len(lines_of(out)) == len(needed) > settled > 0
    asked = Counter(
        (by_text[body["messages"][0]["content"][-1]["text"]]["id"], attempt_of[body["temperature"]])
        for body in server.bodies
    )
    assert set(asked) == needed
    # Only requests in flight, or answered but not yet written.
    assert len(server.bodies) - len(needed) <= kills * 2 * 4
    run(server, folder, tmp_path / "whole", model="t")
    assert rows_of(out) == rows_of(tmp_path / "whole")
    assert report["attempts"] == json.loads((tmp_path / "whole" / "report.json").read_text())["attempts"]


def test_a_torn_last_line_is_asked_again_and_a_broken_one_is_reported(server, tmp_path):
    rows = [pair(n, preferred=1) for n in range(3)]
    server.default = [reply(says(1))]
    folder, out = write_pairs(tmp_path / "in", rows), tmp_path / "out"
    run(server, folder, out)
    file = out / "attempts.jsonl"
    whole = file.read_bytes()
    (out / "report.json").unlink()
    server.forget()
    server.default = [reply(says(1))]
    file.write_bytes(whole[:-9])
    assert run(server, folder, out)["attempts"]["1"] == 3
    assert (len(server.bodies), len(lines_of(out))) == (1, 3)
    (out / "report.json").unlink()
    for damage, said in (
        (b"\n".join([b'{"a": 1}', whole]), "line 1: is not a teacher's attempt"),
        (b"{\n", "line 1: is not a teacher's attempt"),
    ):
        file.write_bytes(damage)
        with pytest.raises(UserError, match=said):
            run(server, folder, out)
    file.write_bytes(whole + whole.splitlines(keepends=True)[0])
    with pytest.raises(UserError, match="line 4: attempt 1 on row .* appears twice"):
        run(server, folder, out)


def test_a_complete_folder_asks_nothing_and_only_changed_rows_are_asked_again(server, tmp_path):
    rows = [pair(n, preferred=1) for n in range(4)]
    server.default = [reply(says(1))]
    folder, out = write_pairs(tmp_path / "in", rows), tmp_path / "out"
    first = run(server, folder, out)
    stamp = (out / "pairs-00000.parquet").stat().st_mtime_ns
    assert run(server, folder, out) == first
    assert (out / "pairs-00000.parquet").stat().st_mtime_ns == stamp
    assert len(server.bodies) == 4
    more = write_pairs(tmp_path / "more", [pair(1, preferred=1, response_1="changed"), *rows[2:], pair(9, preferred=1)])
    run(server, more, out)
    assert len(server.bodies) == 6
    assert list(rows_of(out)) == ["p1", "p2", "p3", "p9"]


def test_a_changed_label_reuses_the_existing_replies(server, tmp_path):
    out = tmp_path / "out"
    server.default = [reply(says(1))]
    run(server, write_pairs(tmp_path / "a", [pair(0, preferred=1)]), out)
    run(server, write_pairs(tmp_path / "b", [pair(0, preferred=2)]), out)
    assert len(server.bodies) == 3  # the first reply is not asked for again
    assert rows_of(out)["p0"]["attempts"] is None


def test_the_folders_of_other_runs_are_refused(server, tmp_path):
    folder = write_pairs(tmp_path / "in", [pair(0)])
    run(server, folder, tmp_path / "out")
    with pytest.raises(UserError, match=r"contains a different run \(seed 0 there, 1 now\)"):
        run(server, folder, tmp_path / "out", settings={"seed": 1})
    with pytest.raises(UserError, match="teacher 'server:teacher' there, 'server:other' now"):
        run(server, folder, tmp_path / "out", model="other")
    with pytest.raises(UserError, match="contains the pairs to annotate"):
        run(server, folder, folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not empty"):
        run(server, folder, tmp_path / "full")
    with pytest.raises(UserError, match="no such file"):
        run(server, tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_two_processes_do_not_share_a_folder(server, tmp_path):
    folder, out = write_pairs(tmp_path / "in", [pair(0)]), tmp_path / "out"
    run(server, folder, out)
    with FileLock(out / ".lock"), pytest.raises(UserError, match="another process"):
        run(server, folder, out)


def test_texts_stay_on_disk(tmp_path):
    file = AttemptsFile(tmp_path / "attempts.jsonl")
    record = {
        "key": "k", "id": "7", "attempt": 2, "swapped": True, "temperature": 0.7, "answer": 1, "problem": "",
        "text": "é\n\ud800", "tokens": 3, "prompt_tokens": None,
    }  # fmt: skip
    file.add(AttemptRecord(**record))
    file.add(AttemptRecord(**{**record, "attempt": 1, "text": "first"}))
    file.close()
    again = AttemptsFile(tmp_path / "attempts.jsonl")
    assert [attempt.number for attempt in again.of("k")] == [1, 2]
    assert [again.text(attempt) for attempt in again.of("k")] == ["first", "é\n\ud800"]
    assert again.usage == (2, 0, 6, 2)
    assert (tmp_path / "attempts.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    "broke",
    [
        status(429, "You exceeded your current quota, please check your plan and billing details. insufficient_quota"),
        status(402, "This request requires more credits, or fewer max_tokens."),
        status(400, "Your credit balance is too low to access the API."),
        status(429, "Rate limit reached on requests per day (RPD): Limit 200"),
    ],
)
def test_an_exhausted_account_ends_the_run_at_once_and_nothing_is_paid_for_twice(server, tmp_path, broke):
    folder, out = write_pairs(tmp_path / "in", [pair(n, preferred=1) for n in range(30)]), tmp_path / "out"
    server.default = [lambda: reply(says(1)) if len(server.bodies) <= 7 else broke()]
    with pytest.raises(UserError, match="is used up"):
        run(server, folder, out, concurrency=1)
    assert 7 < len(server.bodies) <= 10
    assert len(lines_of(out, "attempts.jsonl")) == 7
    server.forget()
    server.default = [reply(says(1))]
    assert run(server, folder, out)["complete"]
    assert len(server.bodies) == 23


def test_parameters_the_server_rejects_are_a_warning_in_the_report(server, tmp_path):
    folder, out = write_pairs(tmp_path / "in", [pair(n, preferred=1) for n in range(3)]), tmp_path / "out"
    only_1 = status(400, "invalid temperature: only 1 is allowed for this model")
    server.default = [lambda body: only_1() if body.get("temperature", 1) != 1 else reply(says(1))]
    report = run(server, folder, out)
    assert report["complete"]
    assert any("temperature: left out" in warning and "not greedy" in warning for warning in report["warnings"])


# ---- a teacher whose replies cannot be parsed

MUTE = {
    "another form": (reply("<answer>Answer 1 is better</answer>"), "not 1 or 2 alone", 0.0),
    "cut": (reply("<think>Let me see", finish="length"), "cut by the token limit", 1.0),
    "reasoning apart": (reply("", reasoning="The first is right."), "separate field", 0.0),
    "refuses": (reply(None, refusal="No."), "refused", 0.0),
    "sentences": (reply("Overall Judgment: Answer 2 is better."), "plain words", 0.0),
}


@pytest.mark.parametrize("kind", MUTE)
def test_an_unreadable_teacher_is_paid_for_about_fifty_replies_and_not_for_all(server, tmp_path, kind):
    step, cause, cut = MUTE[kind]
    folder, out = write_pairs(tmp_path / "in", [pair(n) for n in range(100)]), tmp_path / "out"
    server.default = [step]
    report = run(server, folder, out)
    paid = len(server.bodies)
    assert 50 <= paid <= 50 + 4 * 3, "not 300"
    assert len(lines_of(out)) == report["usage"]["attempts"] == paid, "what was paid for is kept"
    assert (report["stopped"], report["complete"]) == ("unreadable", False)
    (warning,) = [one for one in report["warnings"] if "not one of the first 50 answers can be read" in one]
    assert cause in warning
    assert (report["parse_rate"], report["truncated"]) == (0.0, cut)
    states = report["attempts"]
    assert states["no verdict"] > 0 and states["failed"] == states["1"] == states["2"] == states["3"] == 0

    server.forget()
    server.default = [reply(says(1))]
    asked = {(line["id"], line["attempt"]) for line in lines_of(out)}
    report = run(server, folder, out)
    assert (report["complete"], report["stopped"]) == (True, "")
    again = [(line["id"], line["attempt"]) for line in lines_of(out)[paid:]]
    assert not asked & set(again) and len(again) == len(set(again)) == len(server.bodies)


def test_with_warn_it_asks_for_all_and_reports_the_result(server, tmp_path, caplog):
    folder, out = write_pairs(tmp_path / "in", [pair(n) for n in range(30)]), tmp_path / "out"
    server.default = [reply("[[A]]")]
    report = run(server, folder, out, on_unreadable="warn")
    assert len(server.bodies) == 90
    assert report["complete"] and report["attempts"]["no verdict"] == 30
    assert caplog.text.count("not one of the first 50 answers") == 1
    assert "0 of 90 replies have a verdict (no answer tag 90)" in report["warnings"][0]


def test_a_teacher_in_this_process_is_stopped_too(tmp_path, monkeypatch):
    asked = []

    class Cut(FakeEngine):
        batch_size = 4

        def answer(self, requests):
            for request in requests:
                asked.append(request)
                yield [Completion(text="<think>I", tokens=1, truncated=True, prompt_tokens=1)]

    monkeypatch.setattr(TeacherSpec, "load", lambda self, **_: Cut())
    monkeypatch.setattr("r1_reward.data.annotate.weights_fields", lambda *_, **__: {})
    folder = write_pairs(tmp_path / "in", [pair(n) for n in range(80)])
    report = annotate(folder, tmp_path / "out", AnnotateSettings(teacher="runs/teacher"))
    assert report["stopped"] == "unreadable" and 50 <= len(asked) <= 66


def test_a_row_with_a_verdict_was_contradicted_and_one_without_any_was_not(server, tmp_path):
    rows = [pair(n, preferred=1) for n in range(4)]
    mute = reply("I would say the first.")
    server.scripts[prompt(rows[0])] = [mute, mute, reply(says(2))]
    server.scripts[prompt(rows[1])] = [mute]
    server.scripts[prompt(rows[2])] = [reply(says(2))]
    server.scripts[prompt(rows[3])] = [mute, reply(says(1))]
    report = run(server, write_pairs(tmp_path / "in", rows), tmp_path / "out")
    assert report["attempts"] == {"1": 0, "2": 1, "3": 0, "failed": 2, "no verdict": 1}
    assert report["by_source"] == {"s": report["attempts"]}
    reports = split_difficulty(tmp_path / "out", tmp_path / "sft", tmp_path / "rl")
    assert [row["id"] for row in read_rows(tmp_path / "rl")] == ["p0", "p2", "p3"]
    assert reports[1]["levels"] == {"2": 1, "failed": 2, "no verdict": 1}
    assert (reports[1]["no_verdict"], reports[1]["neither"]) == (1, {"no attempt had a verdict": 1})
    (line,) = lines_of(tmp_path / "rl", "dropped.jsonl")
    assert (line["id"], line["reason"], line["detail"]) == ("p1", "no attempt had a verdict", "no verdict")


def test_a_folder_from_before_the_state_existed_is_split_by_its_attempts(server, tmp_path):
    """The rows are what they were, and so is attempts.jsonl: a report of then knows of no such state."""
    rows = [pair(n, preferred=1, video=None) for n in range(3)]
    server.default = [reply("<think>cut", finish="length")]
    server.scripts[prompt(rows[0])] = [reply(says(1))]
    out = tmp_path / "out"
    report = run(server, write_pairs(tmp_path / "in", rows), out, settings={"attempts": 2, "reorder": True})
    report["attempts"] = {"1": 1, "2": 0, "failed": 2}
    for name in ("parse_rate", "truncated"):
        del report[name]
    (out / "report.json").write_text(json.dumps(report))
    with open(out / "attempts.jsonl", "a") as file:
        file.write('{"key": "half a li')
    before = (out / "attempts.jsonl").read_bytes()
    _, rl = split_difficulty(out, tmp_path / "sft", tmp_path / "rl")
    assert (rl["written"], rl["no_verdict"]) == (0, 2)
    assert (out / "attempts.jsonl").read_bytes() == before, "it is read, and not mended"


def test_the_command_says_why_it_stopped(server, tmp_path):
    app = typer.Typer()
    app.command()(data_annotate.annotate)
    app.command("split-difficulty")(data_annotate.split_difficulty)
    folder, out = write_pairs(tmp_path / "in", [pair(n) for n in range(40)]), tmp_path / "out"
    server.default = [reply("<answer>Answer 1 is better</answer>")]
    words = ["annotate", folder, "--teacher", f"server:t@{server.url}", "--out", out, "--concurrency", 2]

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "500"})

    result = invoke(*words)
    assert result.exit_code == 1
    assert "warning: server:t@" in result.output and "not one of the first 50 answers can be read" in result.output
    assert "One of them: <answer>Answer 1 is better</answer>" in result.output
    assert "0.0% of the replies have a verdict, 0.0% were cut by the token limit" in result.output
    assert "stopped (--on-unreadable warn continues);" in result.output
    result = invoke(*words, "--on-unreadable", "warn")
    assert result.exit_code == 0
    result = invoke("split-difficulty", out, "--sft", tmp_path / "sft", "--rl", tmp_path / "rl")
    assert "40 rows: 0 for imitation, 0 for reinforcement, 0 of them in both, 40 in neither" in result.output
    assert "in neither, no attempt had a verdict: 40" in result.output
