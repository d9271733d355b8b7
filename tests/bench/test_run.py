"""Running a benchmark: kills, resumes, batch sizes and workers change nothing; failed rows are left out."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
from fakes import FakeEngine
from PIL import Image
from scripted_server import reply
from typer.testing import CliRunner

from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.cli.bench import app as bench_app
from r1_reward.engines.engine import EngineError
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.unreadable import UnreadableJudge
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion

ROWS = 40


class Scripted(FakeEngine):
    """Answers depend only on the seed, in texts of many scripts and lengths; fails on the configured rows."""

    def __init__(self, fail=(), delay=0.0):
        self.fail, self.delay, self.asked = fail, delay, []

    def answer(self, requests):
        for request in requests:
            text = request.messages[0]["content"][-1]["text"]
            self.asked.append(text)
            time.sleep(self.delay)
            if any(f"question {row}?" in text for row in self.fail):
                yield EngineError("the server answered 500 five times")
                continue
            yield [
                Completion(
                    text=f"<think>{'é' * (seed % 50)}</think><answer>{1 + seed % 2}</answer>",
                    tokens=seed % 50,
                    probability=0.25,
                )
                for seed in request.seeds
            ]


@pytest.fixture
def data(tmp_path):
    (tmp_path / "short").mkdir()
    Image.new("RGB", (8, 8), "white").save(tmp_path / "short" / "1.png")
    with open(tmp_path / "rows.jsonl", "w") as file:
        for i in range(ROWS):
            row = {"id": f"id{i // 4}", "image": "short/1.png", "prompt": f"question {i}?", "chosen": f"a {i}"}
            file.write(json.dumps({**row, "rejected": f"b {i}"}) + "\n")
    return tmp_path / "rows.jsonl"


@pytest.fixture
def rows(data):
    return load_suite("mm-rlhf-rewardbench", data, allow_partial=True)


@pytest.fixture
def scripted(monkeypatch):
    def use(engine):
        monkeypatch.setattr(EngineSpec, "load", lambda self: engine)
        monkeypatch.setattr("r1_reward.bench.run._BLOCK_SEQUENCES", 24)
        return engine

    return use


SETTINGS = RunSettings(model="tiny", votes=3, temperature=1.0)


def lines_of(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_every_row_is_judged_once_in_order_with_every_vote(rows, scripted, tmp_path):
    engine = scripted(Scripted())
    assert run_benchmark(rows, SETTINGS, tmp_path / "out") == {}
    lines = lines_of(tmp_path / "out")
    assert [line["index"] for line in lines] == list(range(ROWS))
    assert len(engine.asked) == 2 * ROWS  # one request an order, three votes each
    for line in lines:
        first, second = line["passes"]
        assert len(first) == len(second) == 3
        assert {vote["swapped"] for vote in first} != {vote["swapped"] for vote in second}
        for vote in (*first, *second):
            assert set(vote) == {"answer", "swapped", "probability", "tokens", "truncated", "well_formed", "text"}
            assert vote["probability"] == (0.75 if vote["swapped"] else 0.25)
    assert run_benchmark(rows, SETTINGS, tmp_path / "out") == {}
    assert len(engine.asked) == 2 * ROWS  # nothing is judged again


def run_in_child(rows, out):
    run_benchmark(rows, SETTINGS, out)


def test_ten_kills_change_nothing(rows, scripted, tmp_path):
    scripted(Scripted(delay=0.002))
    started = time.monotonic()
    run_benchmark(rows, SETTINGS, tmp_path / "whole")
    whole_time = time.monotonic() - started
    expected = (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    out, rng, kills, cut = tmp_path / "killed", random.Random(0), 0, 0
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        child = context.Process(target=run_in_child, args=(rows, out))
        child.start()
        time.sleep(rng.uniform(0.1, 0.5) * whole_time)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        path = out / "predictions.jsonl"
        if path.exists() and path.stat().st_size:  # what a kill in the middle of a write leaves
            os.truncate(path, path.stat().st_size - rng.randrange(1, 300))
            cut += 1
    assert kills > 0 and cut > 0
    assert run_benchmark(rows, SETTINGS, out) == {}
    assert (out / "predictions.jsonl").read_bytes() == expected


def test_a_gap_in_the_middle_is_filled_in_order(rows, scripted, tmp_path):
    scripted(Scripted())
    run_benchmark(rows, SETTINGS, tmp_path / "out")
    path = tmp_path / "out" / "predictions.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7] + lines[9:]))
    run_benchmark(rows, SETTINGS, tmp_path / "out")
    assert path.read_bytes() == whole


def test_failed_rows_are_left_out_and_judged_by_the_next_call(rows, scripted, tmp_path):
    scripted(Scripted())
    run_benchmark(rows, SETTINGS, tmp_path / "whole")
    scripted(Scripted(fail={3, 17}))
    missing = run_benchmark(rows, SETTINGS, tmp_path / "out")
    assert missing == dict.fromkeys((3, 17), "the server answered 500 five times")
    assert [line["index"] for line in lines_of(tmp_path / "out")] == [i for i in range(ROWS) if i not in (3, 17)]
    scripted(Scripted())
    assert run_benchmark(rows, SETTINGS, tmp_path / "out") == {}
    whole = (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == whole


def test_a_broken_picture_only_affects_its_own_row(rows, data, scripted, tmp_path):
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    (data.parent / "short" / "bad.png").write_bytes(b"not a picture")
    lines[5]["image"] = "short/bad.png"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    scripted(Scripted())
    loaded = load_suite("mm-rlhf-rewardbench", data, allow_partial=True)
    missing = run_benchmark(loaded, SETTINGS, tmp_path / "out")
    assert list(missing) == [5]
    assert "bad.png" in missing[5]
    assert len(lines_of(tmp_path / "out")) == ROWS - 1


def test_a_run_stops_after_many_consecutive_failures(rows, scripted, tmp_path, monkeypatch):
    monkeypatch.setattr("r1_reward.bench.run.GIVE_UP", 10)
    scripted(Scripted(fail=set(range(6, ROWS))))
    with pytest.raises(UserError, match="rows in a row could not be judged; the last error: the server answered 500"):
        run_benchmark(rows, SETTINGS, tmp_path / "out")
    assert [line["index"] for line in lines_of(tmp_path / "out")] == list(range(6))


def test_another_run_is_not_overwritten(rows, scripted, tmp_path):
    scripted(Scripted())
    run_benchmark(rows, SETTINGS, tmp_path / "out")
    with pytest.raises(UserError, match=r"different run \(seed 0 there, 1 now; votes 3 there, 5 now\)"):
        run_benchmark(rows, SETTINGS.model_copy(update={"votes": 5, "seed": 1}), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="contains no run"):
        run_benchmark(rows, SETTINGS, tmp_path / "mine")


def test_changed_data_is_noticed(rows, data, scripted, tmp_path):
    scripted(Scripted())
    run_benchmark(rows, SETTINGS, tmp_path / "out")
    data.write_text(data.read_text().replace("a 9", "a nine"))
    loaded = load_suite("mm-rlhf-rewardbench", data, allow_partial=True)
    with pytest.raises(UserError, match="different run"):
        run_benchmark(loaded, SETTINGS, tmp_path / "out")


def test_two_processes_cannot_write_one_folder(rows, scripted, tmp_path):
    from filelock import FileLock

    scripted(Scripted())
    run_benchmark(rows, SETTINGS, tmp_path / "out")
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(UserError, match="another process"):
        run_benchmark(rows, SETTINGS, tmp_path / "out")


@pytest.mark.parametrize(("line", "reason"), [("{}", "not a prediction"), ("{broken", "not a prediction")])
def test_a_broken_line_in_the_middle_is_named(rows, scripted, tmp_path, line, reason):
    scripted(Scripted())
    run_benchmark(rows, SETTINGS, tmp_path / "out")
    path = tmp_path / "out" / "predictions.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], line, *lines[4:]]) + "\n")
    with pytest.raises(UserError, match=f"line 5: is {reason}"):
        run_benchmark(rows, SETTINGS, tmp_path / "out")


def test_many_greedy_votes_are_refused(rows, tmp_path):
    with pytest.raises(UserError, match="greedy votes"):
        run_benchmark(rows, RunSettings(model="x", votes=3), tmp_path / "out")


def test_workers_and_batch_sizes_do_not_matter_with_a_real_model(data, checkpoint, tmp_path):
    lines = data.read_text().splitlines()[:10]
    data.write_text("\n".join(lines) + "\n")
    loaded = load_suite("mm-rlhf-rewardbench", data, allow_partial=True)
    settings = RunSettings(model=str(checkpoint), votes=2, temperature=1.0, max_new_tokens=6)
    for name, options in {"one": {}, "small": {"batch_size": 3}, "two": {"workers": 2, "batch_size": 8}}.items():
        assert run_benchmark(loaded, settings, tmp_path / name, **options) == {}
    one, small, two = (lines_of(tmp_path / name) for name in ("one", "small", "two"))
    assert len(one) == 10
    assert one == small == two


# ---- a judge that cannot be read


UNREADABLE = {
    "another form": ({"content": "<think>Seen.</think><answer>Answer 1 is better</answer>"}, "not 1 or 2 alone"),
    "brackets": ({"content": "I prefer the second. [[B]]"}, r"\[\[A\]\]"),
    "cut": ({"content": "<think>Let me see, perhaps <answer>1</answer>", "finish": "length"}, "cut by the token limit"),
    "reasoning apart": ({"content": "", "reasoning_content": "It is response 1."}, "separate field"),
    "empty": ({"content": ""}, "empty"),
    "refusal": ({"content": "I'm sorry, but I can't compare these."}, "refused"),
}
SERVED = RunSettings(model="served", max_new_tokens=64)


def many_rows(folder, count):
    with open(folder / "many.jsonl", "w") as file:
        for i in range(count):
            row = {"id": f"id{i}", "image": "short/1.png", "prompt": f"question {i}?", "chosen": f"a {i}"}
            file.write(json.dumps({**row, "rejected": f"b {i}"}) + "\n")
    return load_suite("mm-rlhf-rewardbench", folder / "many.jsonl", allow_partial=True)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_served_judge_is_stopped_early_and_its_votes_are_kept(data, server, tmp_path, kind):
    message, cause = UNREADABLE[kind]
    server.default = [reply(**message)]
    rows, settings = many_rows(tmp_path, 200), SERVED.model_copy(update={"base_url": server.url})
    out = tmp_path / "out"
    with pytest.raises(UnreadableJudge, match=f"not one of the first 50 answers can be read.*{cause}") as stopped:
        run_benchmark(rows, settings, out, concurrency=4)
    assert message["content"][:20] in str(stopped.value)
    asked = len(server.bodies)
    assert 50 <= asked <= 50 + 4 * 4, "not 400"
    kept = lines_of(out)
    assert 2 * len(kept) == asked, "what was paid for is there"
    server.default = [reply()]
    assert run_benchmark(rows, settings, out, concurrency=4) == {}
    assert len(server.bodies) == 400, "nothing was asked twice"
    assert lines_of(out)[: len(kept)] == kept
    assert len(lines_of(out)) == 200


def test_with_warn_it_continues_to_the_end(data, server, tmp_path, caplog):
    server.default = [reply("[[A]]")]
    rows, settings = many_rows(tmp_path, 60), SERVED.model_copy(update={"base_url": server.url})
    assert run_benchmark(rows, settings, tmp_path / "out", on_unreadable="warn") == {}
    assert len(lines_of(tmp_path / "out")) == 60
    assert caplog.text.count("not one of the first 50 answers can be read") == 1


def test_a_partly_readable_judge_is_not_stopped(data, server, tmp_path):
    server.scripts = {}
    server.default = [lambda body: reply() if body["seed"] % 20 == 0 else reply("?")]
    rows, settings = many_rows(tmp_path, 150), SERVED.model_copy(update={"base_url": server.url})
    run_benchmark(rows, settings, tmp_path / "out")
    readable = [vote["answer"] for line in lines_of(tmp_path / "out") for votes in line["passes"] for vote in votes]
    assert any(readable[:50]) and len(readable) == 300


class Mute(FakeEngine):
    """Writes no verdict; remembers how often it was asked."""

    batch_size = 5

    def __init__(self):
        self.asked = 0

    def answer(self, requests):
        for request in requests:
            self.asked += len(request.seeds)
            yield [Completion(text="<think>So", tokens=9, truncated=True) for _ in request.seeds]


def test_a_judge_in_this_process_is_stopped_too(data, scripted, tmp_path):
    engine = scripted(Mute())
    with pytest.raises(UnreadableJudge, match="50 of 50: cut by the token limit"):
        run_benchmark(many_rows(tmp_path, 200), RunSettings(model="tiny"), tmp_path / "out")
    assert 50 <= engine.asked <= 80
    assert 2 * len(lines_of(tmp_path / "out")) == engine.asked


def test_processes_are_stopped_by_what_they_return(data, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("r1_reward.bench.run._BLOCK_SEQUENCES", 16)
    settings = RunSettings(model=str(checkpoint), max_new_tokens=2)
    with pytest.raises(UnreadableJudge, match="cut by the token limit"):
        run_benchmark(many_rows(tmp_path, 120), settings, tmp_path / "out", workers=2)
    assert 25 <= len(lines_of(tmp_path / "out")) < 120


def bench_run(*arguments):
    return CliRunner().invoke(bench_app, ["run", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.mark.parametrize("kind", ["another form", "cut"])
def test_the_command_never_reports_an_accuracy_of_0_without_a_warning(data, server, tmp_path, kind):
    message, cause = UNREADABLE[kind]
    server.default = [reply(**message)]
    common = ["mm-rlhf-rewardbench", "--model", "m", "--base-url", server.url, "--data", data, "--allow-partial"]
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:10]))  # too few for an early word
    result = bench_run(*common, "--out", tmp_path / "few")
    assert result.exit_code == 1
    assert "No verdict can be read" in result.output
    report = (tmp_path / "few" / "report.md").read_text()
    assert report.index("No verdict can be read") < report.index("overall")
    share = "100.00" if kind == "cut" else "0.00"
    assert f"{share} % were cut by the token limit" in report
    assert f"| verdicts cut by the token limit | {share} |" in report
    assert cause in report
    metrics = json.loads((tmp_path / "few" / "metrics.json").read_text())
    assert (metrics["parse_rate"], metrics["truncated"]) == (0.0, 1.0 if kind == "cut" else 0.0)
    assert metrics["unreadable"]["example"].startswith(message["content"][:20])


def test_the_command_has_the_option(data, server, tmp_path):
    server.default = [reply("[[A]]")]
    common = ["mm-rlhf-rewardbench", "--model", "m", "--base-url", server.url, "--data", data, "--allow-partial"]
    stopped = bench_run(*common, "--out", tmp_path / "out", "--concurrency", 2)
    assert isinstance(stopped.exception, UnreadableJudge)
    went_on = bench_run(*common, "--out", tmp_path / "out", "--on-unreadable", "warn")
    assert went_on.exit_code == 1 and "No verdict can be read" in went_on.output
    assert len(lines_of(tmp_path / "out")) == ROWS


def test_a_limited_run_is_complete_but_not_the_benchmark(data, scripted, tmp_path):
    scripted(Scripted())
    arguments = ["run", "mm-rlhf-rewardbench", "--data", str(data), "--allow-partial", "--model", "tiny"]
    arguments += ["--out", str(tmp_path / "out")]
    done = CliRunner().invoke(bench_app, [*arguments, "--limit", "2"])
    assert done.exit_code == 0, done.output
    note = "Only 2 of 10 ids (8 of 40 pairs), evenly spaced: not the benchmark's score."
    assert note in " ".join(done.output.split())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["n"], metrics["expected"], metrics["complete"], metrics["size"]) == (8, 8, True, None)
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [*range(4), *range(20, 24)]
    whole = CliRunner().invoke(bench_app, arguments)
    assert "limit 2 there, none now" in str(whole.exception)
