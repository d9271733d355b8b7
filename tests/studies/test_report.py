"""The report of a demo run: what it claims, what it escapes, and that missing numbers do not stop it."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from r1_reward.records.schema import Judgment
from r1_reward.store.files import write_json
from r1_reward.studies.demo.figures import moving_mean
from r1_reward.studies.demo.files import write_predictions
from r1_reward.studies.demo.report import choose, verdict_sentence, write_report
from r1_reward.studies.report import (
    bounds_text,
    duration,
    interval_text,
    number,
    percent,
    points,
    signed,
    signed_interval,
    triple,
)

HOSTILE = "<think><script>alert(1)</script> <img src=http://evil.example/x.png></think></think> {{ 7 * 7 }}"


def judge(answer, *, swapped, text=None):
    shown = answer if answer is None or not swapped else 3 - answer
    text = text or f"<think>I see seven. Response {shown} is better.</think><answer>{shown}</answer>"
    return Judgment(answer=answer, swapped=swapped, text=text, well_formed=answer is not None, tokens=20)


def votes_of(row, right, count=2, text=None):
    answer = None if right is None else row["preferred"] if right else 3 - row["preferred"]
    return [judge(answer, swapped=bool(i % 2), text=text) for i in range(count)]


@pytest.fixture(scope="module")
def run_folder(world, tmp_path_factory):
    """A run folder with the true schemas: pair 0 hostile, pair 1 unreadable before RL, then every outcome."""
    from r1_reward.store.pairs import save_pairs
    from r1_reward.studies.demo.config import DemoConfig
    from r1_reward.studies.demo.metrics import demo_metrics

    folder = tmp_path_factory.mktemp("run")
    pictures = tmp_path_factory.mktemp("pictures")
    for pair in world.test:
        (pictures / pair.images[0]).parent.mkdir(exist_ok=True)
        world.images[pair.images[0]].save(pictures / pair.images[0])
    (folder / "data").mkdir()
    save_pairs(world.test, folder / "data" / "test.parquet", image_root=pictures)
    write_json(folder / "data" / "world.json", {"train_scans": 1400, "test_scans": 397, "shared_scans": 0})
    (folder / "attempts.jsonl").write_text('{"id": "a", "attempts": 1}\n{"id": "b", "attempts": null}\n')

    rows = [pair.model_dump() for pair in world.test]
    right = {"base": [None] * 16, "sft": [None, None, True, False] * 4, "control": [True, False] * 8}
    right["rl"] = [None, True, True, True] * 3 + [None, False, False, False]
    for name, marks in right.items():
        judgments = [
            votes_of(row, mark, text=HOSTILE if mark is None else None) for row, mark in zip(rows, marks, strict=True)
        ]
        write_predictions(folder / "predictions" / f"{name}-greedy.jsonl", rows, judgments)
        if name in ("sft", "rl"):
            judgments = [votes_of(row, mark, count=3) for row, mark in zip(rows, marks, strict=True)]
            write_predictions(folder / "predictions" / f"{name}-votes.jsonl", rows, judgments)
    for name in ("ground", "sft", "control"):
        steps = [{"loss": 2.0 / step, "mean_token_accuracy": 0.5, "step": step} for step in range(1, 31)]
        write_json(folder / f"{name}-log.json", [*steps, {"train_loss": 1.0, "step": 30}])
    steps = [
        {"loss": 0.1, "reward": 1.0, "accuracy": 0.5, "reward/consistency": None, "entropy": float("nan"), "step": step}
        for step in range(1, 31)
    ]
    write_json(folder / "rl-log.json", [*steps, {"train_loss": 1.0, "step": 30}])
    seconds = {"world": 1.0, "rl": 30.0, "control": 29.0}
    write_json(folder / "metrics.json", demo_metrics(folder, DemoConfig(), seconds, "r1-reward demo --out <here>"))
    return folder


@pytest.fixture(scope="module")
def html(run_folder):
    return write_report(run_folder).read_text()


@pytest.fixture
def another(run_folder, tmp_path):
    """Return a function that renders a copy of the run with other metrics."""

    def render(change):
        folder = shutil.copytree(run_folder, tmp_path / "run")
        metrics = json.loads((folder / "metrics.json").read_text())
        change(metrics)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return write_report(folder).read_text()

    return render


def elements(html):
    """Return the tags of a page and the values of the attributes that could load something."""
    tags, links = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags.append(tag)
            links.extend(value for name, value in attributes if name in ("src", "srcset", "href", "data", "action"))
            links.extend(name for name, _ in attributes if name.startswith("on"))

    Reader().feed(html)
    return tags, links


def test_is_self_contained_and_small(html):
    tags, links = elements(html)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(tags)
    assert len(links) > 20
    assert all(re.match(r"data:image/(svg\+xml|png);base64,", link) for link in links)
    assert re.search(r"url\(|@import", html) is None
    assert len(html) < 2_000_000


def test_hostile_text_is_escaped_and_not_evaluated(html):
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert '<span class="tag">&lt;/think&gt;</span><span class="tag">&lt;/think&gt;</span>' in html
    assert "r1-reward demo --out &lt;here&gt;" in html


def test_unreadable_is_shown_as_such(html):
    assert "? unreadable</span>" in html
    assert "not well formed" in html


def test_headline_comes_from_the_metrics(html, run_folder):
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert verdict_sentence(metrics["paired_difference"], "RL", "SFT") in html
    assert verdict_sentence(metrics["rl_minus_control"], "RL", "the control") in html
    assert "Only 16 held-out pairs: this is a smoke test" in html


def test_gallery_counts_add_up(html):
    counts = re.findall(r"<li><b>(\d+)</b> [^(]+\((\d+) shown\)", html)
    assert sum(int(count) for count, _ in counts) == 16
    assert sum(int(shown) for _, shown in counts) == html.count('<article class="card">') == 8


def test_cards_hold_crisp_pictures(html):
    assert "image-rendering: pixelated" in html
    widths = {int(width) for width in re.findall(r'<div class="shot"><img [^>]*width="(\d+)"', html)}
    assert widths == {168}


def test_summary_picture(html, run_folder):
    with Image.open(run_folder / "summary.png") as picture:
        assert picture.size == (1600, 600)


def test_missing_and_nan_metrics_are_dashes(another):
    def break_it(metrics):
        nan = float("nan")
        metrics["paired_difference"] = {"mean": nan, "low": nan, "high": nan}
        metrics["rl_minus_control"] = None
        metrics["rl"].update(accuracy=nan, low=None, flip_rate=None, parse_rate=nan)
        del metrics["rl"]["voting"], metrics["base"], metrics["config"]["max_new_tokens"]
        metrics["sft"]["voting"]["majority"][0]["low"] = nan
        metrics["sft"]["by_kind"] = {"sum": {"mean": nan, "low": nan, "high": nan, "n": 3}}

    text = another(break_it)
    assert "The difference between RL and SFT was not measured." in text
    assert "The difference between RL and the control was not measured." in text
    assert "nan" not in re.sub(r"data:image/[^\"]+", "", text).lower()


def test_same_run_same_bytes(html, another):
    assert another(lambda metrics: None) == html


@pytest.mark.parametrize(
    ("low", "mean", "high", "says"),
    [
        (0.04, 0.06, 0.08, "RL is more accurate than SFT: +6.0 points (95 % interval +4.0 to +8.0); the interval excl"),
        (
            -0.08,
            -0.06,
            -0.04,
            "RL is less accurate than SFT: −6.0 points (95 % interval −8.0 to −4.0); the interval ex",
        ),
        (-0.01, 0.02, 0.05, "This run does not show whether RL is more or less accurate than SFT: +2.0 points"),
        (0.0, 0.02, 0.05, "This run does not show"),
        (-0.05, -0.02, 0.0, "This run does not show"),
        (0.0, 0.0, 0.0, "This run does not show"),
        (float("nan"), 0.02, 0.05, "The difference between RL and SFT was not measured."),
    ],
)
def test_verdict_sentence(low, mean, high, says):
    sentence = verdict_sentence({"mean": mean, "low": low, "high": high}, "RL", "SFT")
    assert sentence.startswith(says)
    decided = low > 0 or high < 0
    assert ("excludes 0" in sentence) == decided
    assert ("includes 0" in sentence) == (sentence.startswith("This run does not"))


def test_gallery_rule():
    outcomes = ["kept"] * 6 + ["gained", "gained", "lost", "missed"]
    kinds = ["sum", "sum", "even", "sum", "sum", "sum", "sum", "even", "sum", "sum"]
    # Both gains; of the kept ones the kinds seen least come first, and they fill the places others cannot.
    assert choose(outcomes, kinds) == [6, 7, 0, 1, 2, 3, 9, 8]
    assert choose([], []) == []


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (percent, 0.7564, "75.6 %"),
        (percent, None, "–"),
        (percent, float("inf"), "–"),
        (points, 0.1025, "10.2"),
        (points, float("nan"), "–"),
        (signed, 0.1025, "+10.2"),
        (signed, -0.021, "−2.1"),
        (signed, 0.0, "0.0"),
        (signed, 0.0002, "+0.020"),
        (signed, True, "–"),
        (duration, 4.2, "4.2 s"),
        (duration, 59.0, "59 s"),
        (duration, 1078.0, "17 min 58 s"),
        (duration, 3720.0, "1 h 02 min"),
        (bounds_text, {"mean": 0.1, "low": 0.05, "high": 0.15}, "+5.0 to +15.0"),
        (bounds_text, {"mean": 0.1, "low": float("nan"), "high": 0.15}, "–"),
        (interval_text, {"mean": 0.74, "low": 0.691, "high": 0.789}, "74.0 [69.1, 78.9]"),
        (interval_text, {"mean": 0.74, "low": float("nan"), "high": float("nan")}, "74.0 [–, –]"),
        (interval_text, None, "–"),
        (signed_interval, {"mean": 0.02, "low": -0.01, "high": 0.05}, "+2.0 [−1.0, +5.0]"),
    ],
)
def test_numbers_in_words(function, value, text):
    assert function(value) == text


def test_number_and_triple_refuse_what_is_not_a_number():
    assert number("1") is None
    assert number(2) == 2.0
    assert triple({"accuracy": 0.5, "low": 0.4, "high": 0.6}) == (0.5, 0.4, 0.6)
    assert triple({"mean": 0.5, "low": None, "high": 0.6}) is None
    assert triple(None) is None


def test_moving_mean_keeps_a_constant_and_its_ends():
    assert moving_mean(np.full(30, 2.0)) == pytest.approx(np.full(30, 2.0))
    values = np.arange(24.0)
    # 24 values: a window of 3, at the ends of the 2 that there are.
    assert moving_mean(values)[[0, 1, -1]] == pytest.approx([0.5, 1.0, 22.5])
