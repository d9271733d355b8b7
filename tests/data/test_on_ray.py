"""Scoring on a Ray cluster of two workers on this machine: the same file as without."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image
from scripted_server import reply, status

from r1_reward.data.scoring.judging import ScoreSettings
from r1_reward.data.scoring.score_file import score_file
from r1_reward.judge.unreadable import UnreadableJudge
from r1_reward.records.errors import UserError

ROWS = 13
SETTINGS = ScoreSettings(model="judge", votes=2)


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
        yield
        ray.shutdown()


@pytest.fixture
def server(server):
    server.default = [opinion]
    return server


def opinion(body):
    return reply(f"<answer>{1 + body['seed'] % 2}</answer>", usage=body["seed"] % 9)


@pytest.fixture
def file(tmp_path):
    Image.new("RGB", (4, 4), "white").save(tmp_path / "p.png")
    rows = [
        {"id": str(i), "question": f"q{i}?", "images": ["p.png"], "response_1": f"a{i}", "response_2": "b"}
        for i in range(ROWS)
    ]
    rows[5]["images"] = ["gone.png"]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "pairs.jsonl"


def test_the_output_is_the_same_as_without_ray(cluster, server, file, tmp_path):
    options = {"base_url": [server.url], "block_rows": 2}
    plain = score_file(file, tmp_path / "plain.parquet", SETTINGS, **options)
    asked = len(server.bodies)
    states = []
    out = tmp_path / "ray.parquet"
    spread = score_file(file, out, SETTINGS, **options, workers=2, ray=True, progress=states.append)
    assert out.read_bytes() == (tmp_path / "plain.parquet").read_bytes()
    assert len(server.bodies) == 2 * asked == 2 * 4 * (ROWS - 1)
    assert spread == plain._replace(out=out)
    assert (spread.rows, spread.failed) == (ROWS, 1)
    assert states[-1] == (ROWS, ROWS, ROWS, 1)


def test_an_error_ends_the_run_with_its_message_and_verdicts_are_kept(cluster, server, file, tmp_path):
    options = {"base_url": [server.url], "block_rows": 2, "workers": 1, "ray": True}
    out = tmp_path / "out.parquet"
    server.default = [
        lambda body: status(401)() if "q7?" in body["messages"][0]["content"][-1]["text"] else opinion(body)
    ]
    with pytest.raises(UserError, match="rejects the API key"):
        score_file(file, out, SETTINGS, **options)
    parts = len(list((tmp_path / "out.parquet.parts").glob("part-*.parquet")))
    assert parts < 7
    server.default = [opinion]
    server.bodies.clear()
    assert score_file(file, out, SETTINGS, **options).rows == ROWS
    assert len(server.bodies) <= 4 * (ROWS - 2 * parts)
    score_file(file, tmp_path / "plain.parquet", SETTINGS, base_url=[server.url])
    assert out.read_bytes() == (tmp_path / "plain.parquet").read_bytes()


def test_an_unreadable_judge_is_stopped_on_ray_too(cluster, server, file, tmp_path):
    row = json.loads(file.read_text().splitlines()[0])
    file.write_text("".join(json.dumps({**row, "question": f"q{i}?"}) + "\n" for i in range(60)))
    options = {"base_url": [server.url], "block_rows": 4, "workers": 1, "ray": True}
    out = tmp_path / "out.parquet"
    server.default = [reply("<answer>Answer 1 is better</answer>")]
    with pytest.raises(UnreadableJudge, match="not 1 or 2 alone"):
        score_file(file, out, SETTINGS, **options)
    parts = len(list((tmp_path / "out.parquet.parts").glob("part-*.parquet")))
    assert 4 <= parts < 15
    summary = score_file(file, out, SETTINGS, **options, on_unreadable="warn")
    assert (summary.rows, summary.votes, summary.readable) == (60, 240, 0)


def test_more_workers_than_places(cluster, file, tmp_path):
    with pytest.raises(UserError, match="--workers 3: the Ray cluster has only 2 CPUs"):
        score_file(file, tmp_path / "out.parquet", SETTINGS, base_url=["http://localhost/v1"], workers=3, ray=True)


def test_without_ray_the_package_is_named(file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'r1-reward\[ray\]'"):
        score_file(file, tmp_path / "out.parquet", SETTINGS, base_url=["http://localhost/v1"], ray=True)
