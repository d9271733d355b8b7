"""Whatever resumes knows weights and pictures by their bytes: replaced under the old name and time, they are others."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from fakes import FakeEngine
from PIL import Image

from r1_reward.bench.probes import probe_benchmark
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.data.annotate import AnnotateSettings, annotate
from r1_reward.data.pass_rates import PassRates, measure
from r1_reward.data.scoring.judging import ScoreSettings
from r1_reward.data.scoring.score_file import score_file
from r1_reward.data.teacher import TeacherSpec
from r1_reward.engines.workers import EngineSpec
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion

ROWS = 6


class FirstBetter(FakeEngine):
    """Says that response 1 is better, and counts what it is asked."""

    special_tokens = ()
    asked = 0

    def answer(self, requests):
        for request in requests:
            self.asked += 1
            yield [Completion(text="<think>So.</think><answer>1</answer>", tokens=3) for _ in request.seeds]


@pytest.fixture
def engine(monkeypatch):
    """The judge, whatever weights are named: this is about names."""
    engine = FirstBetter()
    monkeypatch.setattr(EngineSpec, "load", lambda self: engine)
    monkeypatch.setattr(TeacherSpec, "load", lambda self, **_: engine)
    return engine


@pytest.fixture
def model(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "model")


@pytest.fixture
def pairs(tmp_path):
    """A pair file that names a picture for each row."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for i in range(ROWS):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
        row = {"id": str(i), "question": f"q{i}?", "images": [f"{i}.png"], "response_1": f"a{i}", "response_2": "b"}
        lines.append(json.dumps({**row, "preferred": 1}) + "\n")
    (folder / "pairs.jsonl").write_text("".join(lines))
    return folder / "pairs.jsonl"


def bench_run(pairs, model, out):
    run_benchmark(load_suite("pairs", pairs), RunSettings(model=str(model)), out / "run")


def probe(pairs, model, out):
    probe_benchmark(load_suite("pairs", pairs), RunSettings(model=str(model)), out / "probe", attacks=["padding"])


def score(pairs, model, out):
    score_file(pairs, out / "out.parquet", ScoreSettings(model=str(model)))


def annotation(pairs, model, out):
    annotate(pairs, out / "annotated", AnnotateSettings(teacher=str(model)))


def pass_rates(pairs, model, out):
    out.mkdir(exist_ok=True)
    measured = measure(pairs, PassRates(model=str(model), samples=2), out / "rates.jsonl")
    assert [rate.right for rate in measured] == [1] * ROWS


def replace(path, content=None):
    """Change the end of a file, or all of it, and put its times back."""
    stat = path.stat()
    path.write_bytes(content or path.read_bytes()[:-4] + b"\1\2\3\4")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def refused(job, *arguments):
    with pytest.raises(UserError) as caught:
        job(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("job", [bench_run, probe, score, annotation])
def test_replaced_weights_are_another_run(job, pairs, model, engine, tmp_path):
    job(pairs, model, tmp_path / "out")
    asked = engine.asked
    assert asked > 0
    job(pairs, model, tmp_path / "out")
    assert engine.asked == asked  # the same run: nothing is asked again
    replace(model / "model.safetensors")
    said = refused(job, pairs, model, tmp_path / "out")
    assert re.search(r"holds another run \(weights 'sha256:\w{64}' there, 'sha256:\w{64}' now\)", said)
    assert engine.asked == asked


def test_pass_rates_of_replaced_weights_are_measured_anew(pairs, model, engine, tmp_path):
    pass_rates(pairs, model, tmp_path / "out")
    pass_rates(pairs, model, tmp_path / "out")
    assert engine.asked == 2 * ROWS
    replace(model / "model.safetensors")
    pass_rates(pairs, model, tmp_path / "out")
    assert engine.asked == 4 * ROWS


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (bench_run, r"row 3 \(id 3\) was judged with different images \(.*3.png: digest \w{16} then, \w{16} now\)"),
        (probe, r"row 3 \(id 3\) was judged with different images"),
        (score, r"holds another run \(media '\w{16}' there, '\w{16}' now\)"),
    ],
)
def test_a_changed_picture_is_another_run(job, words, pairs, model, engine, tmp_path):
    job(pairs, model, tmp_path / "out")
    Image.new("RGB", (8, 8), (99, 0, 0)).save(tmp_path / "other.png")
    replace(pairs.parent / "3.png", (tmp_path / "other.png").read_bytes())
    assert re.search(words, refused(job, pairs, model, tmp_path / "out"))


@pytest.mark.parametrize(("job", "each"), [(annotation, 1), (pass_rates, 2)])
def test_a_row_with_a_changed_picture_is_asked_about_again(job, each, pairs, model, engine, tmp_path):
    job(pairs, model, tmp_path / "out")
    Image.new("RGB", (8, 8), (99, 0, 0)).save(tmp_path / "other.png")
    replace(pairs.parent / "3.png", (tmp_path / "other.png").read_bytes())
    asked = engine.asked
    job(pairs, model, tmp_path / "out")
    assert engine.asked == asked + each


def test_a_picture_that_is_mended_lets_its_row_be_judged(pairs, model, engine, tmp_path):
    whole = (pairs.parent / "3.png").read_bytes()
    replace(pairs.parent / "3.png", whole[:20])
    bench_run(pairs, model, tmp_path / "out")
    file = tmp_path / "out" / "run" / "predictions.jsonl"
    assert len(file.read_text().splitlines()) == ROWS - 1
    replace(pairs.parent / "3.png", whole)
    bench_run(pairs, model, tmp_path / "out")
    assert [json.loads(line)["index"] for line in file.read_text().splitlines()] == list(range(ROWS))
