"""Scoring files: every row once and in order, despite kills, blocks, workers and bad rows."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import random
import re
import shutil
import signal
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from killed_runs import context
from PIL import Image
from scripted_server import ScriptedServer, reply, status
from typer.testing import CliRunner

from r1_reward.cli.score import score
from r1_reward.data.scoring import score_file as module
from r1_reward.data.scoring.judging import ScoreSettings
from r1_reward.data.scoring.parts import remarks_of
from r1_reward.data.scoring.score_file import score_file
from r1_reward.engines.engine import EngineError
from r1_reward.judge.prepare import PairToJudge
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.schedules import count_comparisons
from r1_reward.judge.unreadable import UnreadableJudge
from r1_reward.records.errors import UserError

ROWS = 23
SETTINGS = ScoreSettings(model="judge", votes=2)


def prompt_of(body):
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]  # a text alone where no picture is shown


def opinion(body):
    """Answer by prompt and seed; one in six is unreadable, and prompts that contain poison get no answer."""
    prompt = prompt_of(body)
    if "poison" in prompt:
        return status(400, "no")()
    number = int(hashlib.sha256(f"{prompt}{body['seed']}".encode()).hexdigest(), 16)
    return reply("<answer>" + ("?" if number % 6 == 0 else str(1 + number % 2)) + "</answer>", usage=number % 9)


@pytest.fixture
def server(server):
    server.default = [opinion]
    return server


def pair(i, **fields):
    return {
        "id": f"id{i % 5}",
        "question": f"q{i}?",
        "images": ["p.png"],
        "response_1": f"a{i}",
        "response_2": "b",
        **fields,
    }


def write_rows(path, rows):
    Image.new("RGB", (4, 4), "white").save(path.parent / "p.png")
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs_file(tmp_path):
    return write_rows(tmp_path / "pairs.jsonl", [pair(i, preferred=1, source="x") for i in range(ROWS)])


def run(file, out, server, settings=SETTINGS, **options):
    return score_file(file, out, settings, base_url=[server.url], **{"block_rows": 4, **options})


def lines_of(path):
    return pq.read_table(path).to_pylist()


# Pairs.


def test_each_row_gets_the_verdict_the_model_gives_it(pairs_file, server, tmp_path):
    summary = run(pairs_file, tmp_path / "out.parquet", server)
    assert summary[:4] == (tmp_path / "out.parquet", ROWS, 0, [])
    model = RewardModel.from_server(server.url, "judge")
    picture = Image.open(tmp_path / "p.png")
    lines = lines_of(tmp_path / "out.parquet")
    for i, line in enumerate(lines):
        verdict = model.compare(f"q{i}?", [picture], f"a{i}", "b", votes=2)
        assert line.pop("id") == f"id{i % 5}"
        assert line.pop("error") is None
        assert line == {name: getattr(verdict, name) for name in line}
    assert len(lines) == ROWS
    assert {line["preferred"] for line in lines} == {1, 2, None}
    assert {line["unreadable"] for line in lines} > {0, 1}
    names = ["preferred", "probability", "for_1", "for_2", "ties", "unreadable", "flips", "tokens", "truncated"]
    assert list(lines[0]) == names
    assert (summary.votes, summary.truncated) == (4 * ROWS, 0)
    assert summary.unreadable == sum(line["unreadable"] for line in lines) > 0
    assert not (tmp_path / "out.parquet.parts").exists()


def test_the_output_is_the_same_bytes_whatever_the_blocks_and_workers(pairs_file, server, tmp_path):
    options = {"one": {"block_rows": 1000}, "many": {"block_rows": 1}, "two": {"workers": 2}, "few": {"concurrency": 1}}
    for name, own in options.items():
        run(pairs_file, tmp_path / f"{name}.parquet", server, **own)
    outputs = {(tmp_path / f"{name}.parquet").read_bytes() for name in options}
    assert len(outputs) == 1


def test_row_groups_do_not_depend_on_the_blocks(pairs_file, server, tmp_path, monkeypatch):
    monkeypatch.setattr("r1_reward.data.scoring.parts._ROW_GROUP", 10)
    for block_rows in (1, 4, 11, 100):
        run(pairs_file, tmp_path / f"{block_rows}.parquet", server, block_rows=block_rows)
    outputs = [tmp_path / f"{block_rows}.parquet" for block_rows in (1, 4, 11, 100)]
    assert len({path.read_bytes() for path in outputs}) == 1
    groups = pq.read_metadata(outputs[0])
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [10, 10, 3]


def test_options_reach_the_judge(pairs_file, server, tmp_path):
    settings = SETTINGS.model_copy(update={"votes": 3, "both_orders": False, "seed": 5, "max_new_tokens": 77})
    run(pairs_file, tmp_path / "out.parquet", server, settings)
    assert len(server.bodies) == 3 * ROWS
    assert {body["max_tokens"] for body in server.bodies} == {77}
    assert {body["temperature"] for body in server.bodies} == {1.0}
    lines = lines_of(tmp_path / "out.parquet")
    assert all(line["for_1"] + line["for_2"] + line["unreadable"] == 3 and line["flips"] is None for line in lines)
    server.forget()
    server.default = [reply()]
    stopping = SETTINGS.model_copy(update={"votes": 8, "stop": "exact", "both_orders": False})
    run(pairs_file, tmp_path / "stopped.parquet", server, stopping)
    assert len(server.bodies) == 5 * ROWS
    with pytest.raises(UserError, match="greedy votes"):
        run(pairs_file, tmp_path / "o.parquet", server, SETTINGS.model_copy(update={"temperature": 0.0}))


def test_a_parquet_file_with_embedded_pictures(pairs_file, server, tmp_path):
    run(pairs_file, tmp_path / "out.parquet", server)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "white").save(buffer, "PNG")
    embedded = [{"bytes": buffer.getvalue(), "path": "elsewhere.png"}]
    rows = [pair(i, images=embedded if i % 2 else [{"bytes": None, "path": "p.png"}], extra=1) for i in range(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet", row_group_size=5)
    assert run(tmp_path / "pairs.parquet", tmp_path / "out2.parquet", server).failed == 0
    assert lines_of(tmp_path / "out2.parquet") == lines_of(tmp_path / "out.parquet")


def test_pictures_are_shown_and_may_be_none(server, tmp_path):
    file = write_rows(
        tmp_path / "pairs.jsonl", [pair(0), pair(1, images=[]), pair(2, images=[str(tmp_path / "p.png")] * 2)]
    )
    assert run(file, tmp_path / "out.parquet", server).failed == 0
    contents = [(prompt_of(body), body["messages"][-1]["content"]) for body in server.bodies]
    shown = {(prompt, 1 if isinstance(content, str) else len(content)) for prompt, content in contents}
    assert sorted(parts for _, parts in shown) == [1, 1, 2, 2, 3, 3]


# Rows that cannot be judged.

BAD = {
    "{broken": "is not JSON",
    "[1]": "is a list, not a JSON object",
    json.dumps(pair(0, question=None)): "question: is missing",
    json.dumps({"question": "q", "images": [], "response_1": "a"}): "response_2: is missing",
    json.dumps({name: value for name, value in pair(0).items() if name != "images"}): "images: is missing; [] for none",
    json.dumps(pair(0, response_1="  \n")): "response_1: is blank",
    json.dumps(pair(0, response_2="")): "response_2: is blank",
    json.dumps(pair(0, response_2=7)): "response_2: must be text",
    json.dumps(pair(0, question=[7])): "question: has a part that is a number",
    json.dumps(pair(0, images="p.png")): "images: must be a list",
    json.dumps(pair(0, images=[7])): "images[0]: must be a path",
    json.dumps(pair(0, images=["p.png", "gone.png"])): "gone.png: no such file",
    json.dumps(pair(0, images=["bad.png"])): "bad.png: is not an image",
    json.dumps(pair(0, video="film.mp4")): "film.mp4: no such file",
    json.dumps(pair(0, video=7)): "video: must be a path",
    json.dumps(pair(0, id=[1])): "id: must be a string",
    json.dumps(pair(0, images=["\ud800.png"])): "\\ud800.png",
}


def test_bad_rows_get_errors_and_leave_the_others_alone(server, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = [row for i, bad in enumerate(BAD) for row in (pair(i), bad)]
    summary = run(write_rows(tmp_path / "pairs.jsonl", ["", *rows]), tmp_path / "out.parquet", server)
    assert (summary.rows, summary.failed) == (2 * len(BAD), len(BAD))
    lines = lines_of(tmp_path / "out.parquet")
    assert all(line["error"] is None and line["for_1"] is not None for line in lines[::2])
    for number, (line, reason) in enumerate(zip(lines[1::2], BAD.values(), strict=True)):
        assert reason in line["error"]
        assert line["error"].startswith(f"line {2 * number + 3}: ")
        assert [value for name, value in line.items() if name not in ("id", "error")] == [None] * 9
    assert [(number, error) for number, _, error in summary.first] == [
        (2 * i + 2, line["error"]) for i, line in enumerate(lines[1::2])
    ]
    assert [line["id"] for line in lines[:2]] == ["id0", None]


def test_a_row_the_server_does_not_answer_gets_its_error(server, tmp_path):
    rows = [pair(i, response_1=f"poison {i}" if i % 3 == 0 else f"a{i}") for i in range(9)]
    summary = run(write_rows(tmp_path / "pairs.jsonl", rows), tmp_path / "out.parquet", server)
    lines = lines_of(tmp_path / "out.parquet")
    assert [line["error"] is not None for line in lines] == [i % 3 == 0 for i in range(9)]
    assert all(f"server {server.url} returned no completion" in line["error"] for line in lines[::3])
    assert all(line["preferred"] is None and line["unreadable"] is None for line in lines[::3])
    assert [line["id"] for line in lines] == [f"id{i % 5}" for i in range(9)]
    assert summary.failed == 3


@pytest.mark.parametrize(
    ("block_rows", "whole", "cut"), [(2, 5, []), (4, 2, ["part-00000002.0-2.parquet"]), (1, 10, [])]
)
def test_a_run_stops_when_nothing_is_answered_and_discards_only_the_failures(
    pairs_file, server, tmp_path, monkeypatch, block_rows, whole, cut
):
    run(pairs_file, tmp_path / "whole.parquet", server)
    monkeypatch.setattr(module, "GIVE_UP", 6)
    down = re.compile(r"q1\d\?")  # rows 10 to 19
    server.default = [lambda body: status(400, "broken")() if down.search(prompt_of(body)) else opinion(body)]
    with pytest.raises(UserError, match=r"6 rows in a row got no answer; the last error: .*broken") as caught:
        run(pairs_file, tmp_path / "out.parquet", server, block_rows=block_rows)
    assert "run the same command again to resume" in str(caught.value)
    there = sorted(path.name for path in (tmp_path / "out.parquet.parts").glob("*.parquet"))
    assert there == [*(f"part-{number:08d}.parquet" for number in range(whole)), *cut]
    server.forget()
    server.default = [opinion]
    assert run(pairs_file, tmp_path / "out.parquet", server, block_rows=block_rows).failed == 0
    assert not any(re.search(r"q\d\?", prompt_of(body)) for body in server.bodies), "rows 0 to 9 were answered before"
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


# Groups.


def test_groups_get_the_rewards_the_model_gives_them(server, tmp_path):
    groups = [
        {"id": i, "question": f"q{i}?", "images": ["p.png"], "responses": [f"r{k}" for k in range(1 + i % 5)]}
        for i in range(11)
    ]
    groups += [{**groups[3], "responses": ["x", "y", "x", "z"]}]
    assert run(write_rows(tmp_path / "groups.jsonl", groups), tmp_path / "out.parquet", server).failed == 0
    model, picture = RewardModel.from_server(server.url, "judge"), tmp_path / "p.png"
    lines = lines_of(tmp_path / "out.parquet")
    assert [line["id"] for line in lines] == [*map(str, range(11)), "3"]
    for group, line in zip(groups, lines, strict=True):
        rewards = model.rewards(group["question"], [picture], group["responses"], votes=2)
        assert line["rewards"] == rewards
        assert line["error"] is None
        assert line["order"] == sorted((k for k, r in enumerate(rewards) if r is not None), key=lambda k: -rewards[k])
    assert lines[0]["rewards"] == [None] and lines[0]["order"] == []
    assert lines[-1]["rewards"][0] == lines[-1]["rewards"][2]
    assert any(len(line["order"]) > 2 for line in lines)


@pytest.mark.parametrize(
    "options",
    [{"schedule": "circular"}, {"schedule": "bracket"}, {"schedule": "adaptive", "comparisons": 4}],
)
def test_groups_are_judged_by_a_schedule(server, tmp_path, options):
    groups = [
        {"id": i, "question": f"q{i}?", "images": ["p.png"], "responses": [f"r{k}" for k in range(1 + i % 6)]}
        for i in range(12)
    ]
    file = write_rows(tmp_path / "groups.jsonl", groups)
    run(file, tmp_path / "out.parquet", server, ScoreSettings(model="judge", votes=2, **options), block_rows=5)
    model, picture = RewardModel.from_server(server.url, "judge"), tmp_path / "p.png"
    for group, line in zip(groups, lines_of(tmp_path / "out.parquet"), strict=True):
        assert line["rewards"] == model.rewards(group["question"], [picture], group["responses"], votes=2, **options)
        pairs = count_comparisons(options["schedule"], len(group["responses"]), options.get("comparisons"))
        assert line["votes"] == 2 * 2 * pairs
    with pytest.raises(UserError, match="contains a different run .*schedule"):
        run(file, tmp_path / "out.parquet", server)


def test_a_schedule_for_pairs_is_refused(pairs_file, server, tmp_path):
    with pytest.raises(UserError, match="schedule: .* contains pairs; circular is for groups"):
        run(pairs_file, tmp_path / "out.parquet", server, ScoreSettings(model="judge", schedule="circular"))
    assert not (tmp_path / "out.parquet.parts").exists()


def test_an_output_without_a_schedule_is_one_of_round_robin(server, tmp_path):
    """Like outputs that are older than schedules."""
    file = write_rows(tmp_path / "groups.jsonl", [{"question": "q?", "images": [], "responses": ["a", "b"]}])
    run(file, tmp_path / "out.parquet", server)
    table = pq.read_table(tmp_path / "out.parquet")
    (key,) = (key for key, value in table.schema.metadata.items() if b"both_orders" in value)
    held = json.loads(table.schema.metadata[key])
    assert held.pop("schedule") is None and held.pop("comparisons") is None
    old = table.replace_schema_metadata({**table.schema.metadata, key: json.dumps(held).encode()})
    pq.write_table(old, tmp_path / "out.parquet")
    assert run(file, tmp_path / "out.parquet", server).rows == 1


def test_invalid_groups(server, tmp_path):
    good = {"question": "q?", "images": ["p.png"], "responses": ["a", "b", "c"]}
    bad = {
        json.dumps({**good, "responses": "abc"}): "must be a list",
        json.dumps({**good, "responses": []}): "responses: is empty",
        json.dumps({**good, "responses": ["a", " "]}): "responses[1]: is blank",
        json.dumps({**good, "responses": ["a", 1]}): "responses[1]: must be text",
        json.dumps({**good, "question": ""}): "question: is blank",
        json.dumps({**good, "images": ["gone.png"]}): "no such file",
        json.dumps(pair(0)): "responses: is missing",
        "{": "is not JSON",
        json.dumps({**good, "responses": ["a", "poison", "c"]}): "returned no completion",
    }
    rows = [good, *(row for one in bad for row in (one, good))]
    summary = run(write_rows(tmp_path / "groups.jsonl", rows), tmp_path / "out.parquet", server)
    lines = lines_of(tmp_path / "out.parquet")
    assert summary.failed == len(bad)
    assert len({json.dumps(line) for line in lines[::2]}) == 1 and lines[0]["error"] is None
    for line, reason in zip(lines[1::2], bad.values(), strict=True):
        assert reason in line["error"]
        assert line["rewards"] is None and line["order"] is None


def test_responses_without_a_readable_comparison_have_no_reward_and_no_place(server, tmp_path):
    server.default = [lambda body: reply("no idea") if "mumble" in prompt_of(body) else opinion(body)]
    group = {"question": "q?", "images": [], "responses": ["a", "mumble", "b"]}
    run(
        write_rows(tmp_path / "groups.jsonl", [group]),
        tmp_path / "out.parquet",
        server,
        SETTINGS.model_copy(update={"votes": 9}),
    )
    [line] = lines_of(tmp_path / "out.parquet")
    assert line["rewards"][1] is None
    assert line["rewards"][0] == -line["rewards"][2]
    assert sorted(line["order"]) == [0, 2]


# Resuming.


def test_kills_lose_and_repeat_nothing(pairs_file, server, tmp_path):
    run(pairs_file, tmp_path / "whole.parquet", server)
    out, parts, rng = tmp_path / "out.parquet", tmp_path / "out.parquet.parts", random.Random(0)
    server.forget()

    async def slowly(body):
        await asyncio.sleep(0.02)
        return opinion(body)

    server.default = [slowly]
    call = {"args": (pairs_file, out, SETTINGS)}
    call["kwargs"] = {"base_url": [server.url], "block_rows": 2, "concurrency": 2}
    sizes = []
    for kill in range(3):
        child = context.Process(target=score_file, **call)
        child.start()
        wanted = (sizes[-1] if sizes else 0) + 2
        while child.is_alive() and len(list(parts.glob("part-*.parquet"))) < wanted:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL, f"finished before kill {kill}"
        sizes.append(len(list(parts.glob("part-*.parquet"))))
        assert not out.exists()
        for part in parts.glob("*.parquet"):
            assert pq.read_metadata(part).num_rows == 2
    assert sizes == sorted(set(sizes))
    score_file(*call["args"], **call["kwargs"])
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    asked = Counter((prompt_of(body), body["seed"]) for body in server.bodies)
    assert len(asked) == 4 * ROWS
    repeated = sum(count - 1 for count in asked.values())
    assert repeated <= 3 * 2 * 4  # the votes on the one block under way at each kill


def test_existing_blocks_are_not_judged_again(pairs_file, server, tmp_path):
    run(pairs_file, tmp_path / "whole.parquet", server)
    server.scripts = {}
    stopped = ScriptedServer()
    try:
        stopped.default = [refusing_after_two_blocks(tmp_path / "out.parquet.parts")]
        with pytest.raises(UserError, match="rejects the API key"):
            run(pairs_file, tmp_path / "out.parquet", stopped)
    finally:
        stopped.stop()
    assert len(list((tmp_path / "out.parquet.parts").glob("part-????????.parquet"))) == 2
    server.bodies.clear()
    run(pairs_file, tmp_path / "out.parquet", server)  # another address of the same model
    asked = {int(prompt_of(body).split("?")[0].rsplit("q")[-1]) for body in server.bodies}
    assert asked - {8} == set(range(9, ROWS))  # row 8 was answered, unless its answer was the last to arrive
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_finished_run_is_not_run_again(pairs_file, server, tmp_path):
    first = run(pairs_file, tmp_path / "out.parquet", server)
    server.bodies.clear()
    (tmp_path / "out.parquet.parts").mkdir()  # a kill between the last two steps
    assert run(pairs_file, tmp_path / "out.parquet", server, block_rows=7) == first
    assert not server.bodies
    assert not (tmp_path / "out.parquet.parts").exists()


def refusing_after_two_blocks(parts):
    """Return an answer that refuses row 9, though not before the rows 0 to 7 are written: requests overtake blocks."""

    async def answer(body):  # a coroutine: the server must go on answering the rows before
        if "q9?" not in prompt_of(body):
            return opinion(body)
        async with asyncio.timeout(200):  # then the answer is a 500, and the test fails
            while len(list(parts.glob("part-????????.parquet"))) < 2:
                await asyncio.sleep(0.01)
        return status(401)()

    return answer


def interrupted(pairs_file, server, tmp_path):
    """Leave a run that has judged two blocks of four rows."""
    server.default = [refusing_after_two_blocks(tmp_path / "out.parquet.parts")]
    with pytest.raises(UserError, match="rejects"):
        run(pairs_file, tmp_path / "out.parquet", server)
    server.default = [opinion]
    return tmp_path / "out.parquet.parts"


@pytest.mark.parametrize("finish", [False, True])
def test_another_run_is_not_continued(pairs_file, server, tmp_path, finish):
    if finish:
        run(pairs_file, tmp_path / "out.parquet", server)
    else:
        interrupted(pairs_file, server, tmp_path)
    other = SETTINGS.model_copy(update={"seed": 1})
    with pytest.raises(UserError, match=r"different run \(seed 0 there, 1 now\)"):
        run(pairs_file, tmp_path / "out.parquet", server, other)
    write_rows(pairs_file, [pair(i) for i in range(ROWS - 1)])
    with pytest.raises(UserError, match=r"different run \(rows 23 there, 22 now; sha256 "):
        run(pairs_file, tmp_path / "out.parquet", server)


def test_parts_have_the_size_they_were_begun_with(pairs_file, server, tmp_path):
    interrupted(pairs_file, server, tmp_path)
    with pytest.raises(UserError, match=r"different run \(block_rows 4 there, 5 now\)"):
        run(pairs_file, tmp_path / "out.parquet", server, block_rows=5)


def test_a_calibrated_checkpoint_is_another_model(pairs_file, server, checkpoint, tmp_path):
    from r1_reward.judge.calibration import Calibration

    model = shutil.copytree(checkpoint, tmp_path / "model")
    settings = SETTINGS.model_copy(update={"model": str(model)})
    run(pairs_file, tmp_path / "out.parquet", server, settings)
    numbers = dict.fromkeys(("ece_before", "ece_after", "brier_before", "brier_after"), 0.1)
    Calibration(temperature=2.0, n=9, **numbers).save(model)
    with pytest.raises(UserError, match="served True there, False now; calibration None there"):
        score_file(pairs_file, tmp_path / "out.parquet", settings)


def test_existing_files_that_are_not_outputs_are_refused(pairs_file, server, tmp_path):
    with pytest.raises(UserError, match=r"must end in \.parquet"):
        run(pairs_file, tmp_path / "out.csv", server)
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "mine.parquet")
    with pytest.raises(UserError, match="is not the output of a scoring run"):
        run(pairs_file, tmp_path / "mine.parquet", server)
    with pytest.raises(UserError, match="is the input"):
        run(tmp_path / "mine.parquet", tmp_path / "mine.parquet", server)
    (tmp_path / "out.parquet.parts").mkdir()
    (tmp_path / "out.parquet.parts" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not empty and contains no run"):
        run(pairs_file, tmp_path / "out.parquet", server)
    assert not server.bodies


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"PAR1"), lambda path: pq.write_table(pq.read_table(path)[:3], path)]
)
def test_a_damaged_part_is_named(pairs_file, server, tmp_path, damage):
    parts = interrupted(pairs_file, server, tmp_path)
    damage(parts / "part-00000001.parquet")
    with pytest.raises(UserError, match=r"part-00000001\.parquet: .*delete"):
        run(pairs_file, tmp_path / "out.parquet", server)
    (parts / "part-00000001.parquet").unlink()
    assert run(pairs_file, tmp_path / "out.parquet", server).rows == ROWS


def test_two_processes_do_not_write_one_output(pairs_file, server, tmp_path):
    from filelock import FileLock

    parts = interrupted(pairs_file, server, tmp_path)
    with FileLock(parts / ".lock"), pytest.raises(UserError, match="another process"):
        run(pairs_file, tmp_path / "out.parquet", server)


# Size.


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_no_rows(server, tmp_path, suffix):
    file = tmp_path / f"empty.{suffix}"
    if suffix == "jsonl":
        file.write_text("\n \n")
    else:
        pq.write_table(pa.Table.from_pylist([pair(0)])[:0], file)
    assert run(file, tmp_path / "out.parquet", server)[:4] == (tmp_path / "out.parquet", 0, 0, [])
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 0
    assert table.schema.names[:3] == ["id", "preferred", "probability"]


def test_a_file_is_read_as_it_is_judged(pairs_file, server, tmp_path, monkeypatch):
    """However long the file, it is not read further ahead than the requests to the server."""
    seen = []
    open_rows = module.open_rows

    def spy(source):
        reader = open_rows(source)

        class Watched:
            def read(self, block):
                seen.append((block.number, len(list((tmp_path / "out.parquet.parts").glob("*.parquet")))))
                return reader.read(block)

        return Watched()

    monkeypatch.setattr(module, "open_rows", spy)
    run(pairs_file, tmp_path / "out.parquet", server, concurrency=1)
    assert [number for number, _ in seen] == list(range(6))
    assert all(kept >= number - 1 for number, kept in seen)


def test_parts_of_a_finished_file_stay_while_another_process_writes_there(pairs_file, server, tmp_path):
    from filelock import FileLock

    out = tmp_path / "out.parquet"
    run(pairs_file, out, server)
    parts = tmp_path / "out.parquet.parts"
    parts.mkdir()
    (parts / "part-00000000.parquet").touch()
    with FileLock(parts / ".lock"):
        run(pairs_file, out, server)
        assert {file.name for file in parts.iterdir()} == {".lock", "part-00000000.parquet"}
    run(pairs_file, out, server)
    assert [file.name for file in tmp_path.iterdir() if "parts" in file.name] == []


def test_progress_counts_rows(pairs_file, server, tmp_path):
    interrupted(pairs_file, server, tmp_path)
    states = []
    run(pairs_file, tmp_path / "out.parquet", server, progress=states.append)
    first = states[0].done  # two blocks, and what else was answered before the interruption
    assert 8 <= first < 12
    assert [tuple(state) for state in states] == [(done, 23, done - first, 0) for done in (first, 12, 16, 20, 23)]


# With a model in this process.


def test_workers_and_batches_do_not_matter_with_a_real_model(checkpoint, tmp_path):
    file = write_rows(tmp_path / "pairs.jsonl", [pair(i, response_2="c" * i or "b") for i in range(7)])
    settings = ScoreSettings(model=str(checkpoint), votes=2, max_new_tokens=5)
    options = {"one": {}, "small": {"batch_size": 3, "block_rows": 2}, "two": {"workers": 2, "block_rows": 3}}
    for name, own in options.items():
        assert score_file(file, tmp_path / f"{name}.parquet", settings, **own).failed == 0
    assert len({(tmp_path / f"{name}.parquet").read_bytes() for name in options}) == 1
    model = RewardModel.from_pretrained(checkpoint, max_new_tokens=5)
    items = [PairToJudge(f"q{i}?", [tmp_path / "p.png"], f"a{i}", "c" * i or "b") for i in range(7)]
    verdicts = list(model.compare_many(items, votes=2))
    assert not any(isinstance(verdict, EngineError) for verdict in verdicts)
    found = [
        (line["for_1"], line["for_2"], line["unreadable"], line["tokens"])
        for line in lines_of(tmp_path / "one.parquet")
    ]
    assert found == [(v.for_1, v.for_2, v.unreadable, v.tokens) for v in verdicts]


# The command.


def invoke(*arguments):
    app = typer.Typer()
    app.command()(score)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_the_command(pairs_file, server, tmp_path):
    other = ScriptedServer()
    try:
        other.default = [opinion]
        urls = ["--base-url", server.url, "--base-url", other.url]
        out = tmp_path / "out.parquet"
        arguments = [pairs_file, "--model", "judge", "--out", out, "--votes", "2", *urls, "--block-rows", "4"]
        result = invoke(*arguments)
        assert result.exit_code == 0
        first, second = result.stdout.splitlines()
        assert first == f"23 rows in {out}, 0 of them with an error"
        assert re.fullmatch(r"92 votes: \d\d\.\d% are readable, 0\.0% were cut by the token limit", second)
        assert server.bodies and other.bodies
    finally:
        other.stop()
    run(pairs_file, tmp_path / "same.parquet", server)
    assert out.read_bytes() == (tmp_path / "same.parquet").read_bytes()
    again = invoke(*arguments, "--json")
    told = json.loads(again.stdout)
    assert (told["out"], told["rows"], told["failed"], told["first"]) == (str(out), 23, 0, [])
    assert (told["votes"], told["truncated"]) == (92, 0)


def test_the_command_lists_what_failed(server, tmp_path):
    rows = [pair(0), *(pair(i, response_1="", id=f"\x1b[{i}") for i in range(1, 26))]
    file = write_rows(tmp_path / "pairs.jsonl", rows)
    arguments = [file, "--model", "judge", "--base-url", server.url, "--out", tmp_path / "out.parquet", "--one-order"]
    for _ in range(2):  # the second call finds everything judged
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert "26 rows in" in result.stdout and "25 of them with an error" in result.stdout
        assert "  row 2 (id [1): line 2: response_1: is blank." in result.stdout
        assert "row 21 " in result.stdout and "row 22 " not in result.stdout
        assert "... and 5 more" in result.stdout
        assert "\x1b" not in result.stdout
    assert len(server.bodies) == 1


def test_the_command_takes_a_schedule(server, tmp_path):
    row = {"question": "q?", "images": ["p.png"], "responses": list("abcdefgh")}
    file, out = write_rows(tmp_path / "groups.jsonl", [row]), tmp_path / "out.parquet"
    arguments = [file, "--model", "judge", "--out", out, "--base-url", server.url]
    refused = invoke(*arguments, "--schedule", "circular", "--comparisons", "9")
    assert str(refused.exception).startswith("--comparisons: the schedule circular has a fixed number of them")
    assert invoke(*arguments, "--schedule", "swiss").exit_code == 2 and not server.bodies
    result = invoke(*arguments, "--schedule", "adaptive", "--comparisons", "9")
    assert result.exit_code == 0, result.output
    assert len(server.bodies) == 2 * 9
    assert lines_of(out)[0]["votes"] == 2 * 9


QUOTA = status(429, "You exceeded your current quota, please check your plan and billing details.")


@pytest.mark.parametrize("paid", [5, 19])
def test_with_an_exhausted_account_verdicts_are_kept_and_not_requested_again(pairs_file, server, tmp_path, paid):
    run(pairs_file, tmp_path / "whole.parquet", server, concurrency=1)
    all_of_it = len(server.bodies)
    server.forget()
    server.default = [lambda body: opinion(body) if len(server.bodies) <= paid else QUOTA()]
    with pytest.raises(UserError, match="the account's credit is used up"):
        run(pairs_file, tmp_path / "out.parquet", server, concurrency=1)
    server.forget()
    server.default = [opinion]
    assert run(pairs_file, tmp_path / "out.parquet", server, concurrency=1).failed == 0
    of_a_row = all_of_it // ROWS
    assert len(server.bodies) <= all_of_it - paid // of_a_row * of_a_row + 1  # one may have been under way
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_parameters_the_server_rejects_are_reported_and_stored_in_the_output(pairs_file, server, tmp_path):
    def no_seed(body):
        return status(422, "Extra inputs are not permitted: 'seed'")() if "seed" in body else reply()

    server.default = [no_seed]
    out = tmp_path / "out.parquet"
    arguments = [pairs_file, "--model", "judge", "--out", out, "--base-url", server.url]
    for _ in range(2):  # the second call finds a finished output
        result = invoke(*arguments)
        assert result.exit_code == 0
        [remark] = remarks_of(out)
        assert remark.endswith(" refuses seed: left out; sampled votes are not reproducible")
        assert f"note: {remark}" in result.stdout
    assert json.loads(invoke(*arguments, "--json").stdout)["remarks"] == [remark]


# A judge that cannot be read.


@pytest.mark.parametrize("kind", ["pairs", "groups"])
@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ({"content": "<answer>Answer 2 is better</answer>"}, "not 1 or 2 alone"),
        ({"content": "<think>Let me", "finish": "length"}, "cut by the token limit"),
        ({"content": "", "reasoning": "Response 1 it is."}, "separate field"),
    ],
)
def test_an_unreadable_judge_is_stopped_early_and_resuming_repeats_no_request(server, tmp_path, kind, message, cause):
    server.default = [reply(**message)]
    if kind == "pairs":
        rows, asked_for = [pair(i) for i in range(90)], 180
    else:
        rows = [{"question": f"q{i}?", "images": [], "responses": ["a", "b", f"c{i}"]} for i in range(40)]
        asked_for = 240
    file, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.parquet"
    settings = ScoreSettings(model="judge")
    with pytest.raises(UnreadableJudge, match=f"not one of the first 5\\d answers can be read.*{cause}"):
        run(file, out, server, settings, block_rows=512, concurrency=4)
    early = len(server.bodies)
    assert 50 <= early < 90
    server.default = [opinion]
    summary = run(file, out, server, settings, block_rows=512, concurrency=4)
    assert len(server.bodies) == asked_for
    assert (summary.rows, summary.failed, summary.votes) == (len(rows), 0, asked_for)
    assert summary.truncated == (early if "finish" in message else 0)
    lines = lines_of(out)
    early_rows = early // (asked_for // len(rows))
    assert all(line["unreadable"] == asked_for // len(rows) for line in lines[:early_rows])
    assert len({line["unreadable"] for line in lines[early_rows:]}) > 1


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_output_after_many_stops_equals_that_of_one_run(pairs_file, server, tmp_path, suffix):
    rows = [pair(i, images=[]) for i in range(120)]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    if suffix == ".parquet":
        schema = [(name, pa.string()) for name in ("id", "question", "response_1", "response_2")]
        table = pa.Table.from_pylist(rows, schema=pa.schema([*schema, ("images", pa.list_(pa.string()))]))
        file = tmp_path / "rows.parquet"
        pq.write_table(table, file)
    server.default = [reply("?")]
    settings = ScoreSettings(model="judge")
    run(file, tmp_path / "whole.parquet", server, settings, block_rows=50, on_unreadable="warn")
    stops = 0
    out = tmp_path / "out.parquet"
    while not out.exists():
        try:
            run(file, out, server, settings, block_rows=50, concurrency=2)
        except UnreadableJudge:
            stops += 1
    assert stops >= 2
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize("paid", [[3, 50, 1, 20]])
def test_a_stop_in_the_middle_of_a_block_repeats_no_request(server, tmp_path, paid):
    rows = [pair(i, images=[]) for i in range(40)]
    file, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.parquet"
    server.default = [reply("?")]
    run(file, tmp_path / "whole.parquet", server, block_rows=500, on_unreadable="warn")
    server.forget()
    ends, asked, left = [], 0, iter(paid)
    while not out.exists():
        until = len(server.bodies) + next(left, 1000)
        server.default = [lambda _, until=until: reply("?") if len(server.bodies) <= until else QUOTA()]
        try:
            run(file, out, server, block_rows=500, concurrency=1)
        except UserError as error:
            ends.append(type(error))
            # The request under way; or votes of a row under way, and what was refused.
            asked += 1 if isinstance(error, UnreadableJudge) else 4
    assert {UserError, UnreadableJudge} >= set(ends) and UnreadableJudge in ends
    assert len(server.bodies) <= 4 * len(rows) + asked
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_short_file_without_a_readable_vote_is_reported(server, tmp_path):
    server.default = [reply("<think>Hm", finish="length")]
    file, out = write_rows(tmp_path / "rows.jsonl", [pair(i) for i in range(9)]), tmp_path / "out.parquet"
    result = invoke(file, "--model", "judge", "--base-url", server.url, "--out", out)
    assert result.exit_code == 1
    assert "18 votes: 0.0% are readable, 100.0% were cut by the token limit" in result.output
    assert "none of the votes can be read" in result.output


def test_the_option_continues_anyway(server, tmp_path):
    server.default = [reply("[[A]]")]
    file, out = write_rows(tmp_path / "rows.jsonl", [pair(i) for i in range(90)]), tmp_path / "out.parquet"
    arguments = [file, "--model", "judge", "--base-url", server.url, "--out", out, "--concurrency", 2]
    assert isinstance(invoke(*arguments).exception, UnreadableJudge)
    assert not out.exists()
    assert invoke(*arguments, "--on-unreadable", "warn").exit_code == 1
    assert len(lines_of(out)) == 90


def test_outputs_and_parts_of_version_0_1_0_can_be_read(pairs_file, server, tmp_path):
    out = tmp_path / "out.parquet"
    whole = run(pairs_file, out, server)
    table = pq.read_table(out).drop_columns(["ties", "truncated"])
    pq.write_table(table, out)
    summary = run(pairs_file, out, server)
    assert summary == (out, ROWS, 0, [], *[None] * 5)
    out.unlink()
    interrupted(pairs_file, server, tmp_path)
    part = next((tmp_path / "out.parquet.parts").glob("part-*.parquet"))
    pq.write_table(pq.read_table(part).drop_columns(["ties", "truncated"]), part)
    assert run(pairs_file, out, server)[:6] == (out, ROWS, 0, [], whole.votes, whole.unreadable)


def test_votes_for_a_tie_are_counted(server, tmp_path):
    server.default = [reply("Alike. [[C]]")]
    file = write_rows(tmp_path / "rows.jsonl", [pair(1)])
    settings = SETTINGS.model_copy(update={"dialect": "llm-as-judge", "votes": 1})
    summary = run(file, tmp_path / "out.parquet", server, settings)
    (line,) = lines_of(tmp_path / "out.parquet")
    assert (line["preferred"], line["for_1"], line["for_2"], line["ties"], line["unreadable"]) == (None, 0, 0, 2, 0)
    assert (summary.votes, summary.readable) == (2, 2)


def test_a_run_that_began_before_ties_were_counted_is_resumed(pairs_file, server, tmp_path):
    interrupted(pairs_file, server, tmp_path)
    part = min((tmp_path / "out.parquet.parts").glob("part-*.parquet"))
    old = pq.read_table(part).drop_columns(["ties"])
    pq.write_table(old, part)
    run(pairs_file, tmp_path / "out.parquet", server)
    ties = pq.read_table(tmp_path / "out.parquet").column("ties").to_pylist()
    assert ties == [None] * old.num_rows + [0] * (ROWS - old.num_rows)


def test_an_output_belongs_to_the_dialect_it_was_scored_in(server, tmp_path):
    server.default = [
        lambda body: reply("[[A]]" if prompt_of(body).index("a1") < prompt_of(body).index("\nb\n") else "[[B]]")
    ]
    file = write_rows(tmp_path / "rows.jsonl", [pair(1), pair(11)])
    out, spoken = tmp_path / "out.parquet", SETTINGS.model_copy(update={"dialect": "llm-as-judge", "votes": 1})
    run(file, out, server, spoken)
    assert pq.read_table(out).column("preferred").to_pylist() == [1, 1]
    for other in ("auto", "json"):
        with pytest.raises(UserError, match="dialect 'llm-as-judge' there"):
            run(file, out, server, spoken.model_copy(update={"dialect": other}))


def test_outputs_from_before_dialects_are_resumed(server, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [pair(1)])
    run(file, tmp_path / "out.parquet", server, SETTINGS)
    asked = len(server.bodies)
    for name in ("auto", "r1-reward"):
        run(file, tmp_path / "out.parquet", server, SETTINGS.model_copy(update={"dialect": name}))
    assert len(server.bodies) == asked
