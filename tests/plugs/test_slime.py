"""slime's own reward hub, samples and data set against our server; its rollouts (SGLang, Megatron) are not run.

It is not on PyPI. With a checkout of THUDM/slime (here 624b824a of 2026-08-21)::

    SLIME_SOURCE=~/slime make plugs ARGS=slime
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from types import SimpleNamespace

import pytest

if "SLIME_SOURCE" in os.environ:
    sys.path.insert(0, os.environ["SLIME_SOURCE"])
pytest.importorskip("slime.rollout.rm_hub", reason="slime is not there: SLIME_SOURCE=CHECKOUT make plugs ARGS=slime")

import slime.rollout.rm_hub as rm_hub
from served import Served, base64_png, png
from slime.utils.data import Dataset
from slime.utils.types import Sample

from r1_reward.models.tiny import build_tiny
from r1_reward.models.tiny_words import vocabulary

ARGS = {"rm_type": None, "rm_url": None, "custom_rm_path": None, "group_rm": True, "n_samples_per_prompt": 3}


def args(**given):
    return SimpleNamespace(**{**ARGS, **given})


@pytest.fixture
def server(monkeypatch):
    with Served() as server:
        monkeypatch.setenv("R1_REWARD_SERVER", f"http://127.0.0.1:{server.port}")
        yield server


def ask(work):
    async def run():
        try:
            return await work()
        finally:
            if rm_hub._shared_session is not None:
                await rm_hub._shared_session.close()

    return asyncio.run(run())


def group(sample, texts, number=0):
    """Return the samples that slime's data source makes of one row."""
    return [
        Sample(
            prompt=sample.prompt, label=sample.label, multimodal_inputs=sample.multimodal_inputs, response=text,
            group_index=number, index=10 * number + place,
        )
        for place, text in enumerate(texts)
    ]  # fmt: skip


@pytest.fixture
def rows(tmp_path):
    """Return a function that makes slime's samples of rows."""
    processor = build_tiny([*vocabulary(), "Which is larger?"], seed=0)[1]

    def make(rows, processing=None, **given):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        names = {"prompt_key": "text", "label_key": "label"}
        return Dataset(str(tmp_path / "rows.jsonl"), processor, processing, None, **names, **given)

    def text(*rows):
        return make(rows)

    def pictured(*rows, **given):
        return make(rows, processor, multimodal_keys={"image": "images"}, **given)

    return SimpleNamespace(text=text, pictured=pictured)


@pytest.mark.parametrize("template", [True, False])
def test_groups_with_pictures_are_judged_by_the_documented_function(server, rows, tmp_path, template):
    (tmp_path / "a.png").write_bytes(png(56, 56))
    row = {"text": "<image>Which is larger?", "label": "x", "images": [str(tmp_path / "a.png")]}
    (sample,) = rows.pictured(row, apply_chat_template=template).samples
    assert isinstance(sample.prompt, str if template else list)
    given = args(custom_rm_path="r1_reward.serve.dialects.slime.rewards")
    rewards = ask(lambda: rm_hub.batched_async_rm(given, group(sample, ["A 1.", "A 5.", "A 3."])))
    assert rewards == pytest.approx([-0.8, 0.8, 0.0])
    assert {question for question, _, _ in server.judge.seen} == {"Which is larger?"}
    assert server.judge.images == [[(56, 56)]] * 6
    assert all(
        isinstance(Sample(reward=one).get_reward_value(SimpleNamespace(reward_key=None)), float) for one in rewards
    )


def test_samples_that_arrive_alone_are_grouped_at_the_server(server, rows):
    one, other = rows.text({"text": "Which?", "label": ""}, {"text": "Which?", "label": ""}).samples
    given = args(custom_rm_path="r1_reward.serve.dialects.slime.rewards", group_rm=False)
    samples = [*group(one, ["1", "5", "3"]), *group(other, ["7", "9", "8"], 1)]

    async def all_of_them():
        return await asyncio.gather(*(rm_hub.async_rm(given, sample) for sample in samples))

    assert ask(all_of_them) == pytest.approx([-0.8, 0.8, 0.0, -0.8, 0.8, 0.0])


def test_the_url_answers_with_the_reward(server, rows):
    label = {"group": "row 1", "group_size": 3, "images": [{"base64": base64_png(5, 4)}]}
    (sample,) = rows.text({"text": "<image>Which?", "label": label}).samples
    given = args(rm_type="remote_rm", rm_url=f"http://127.0.0.1:{server.port}/remote_rm")
    rewards = ask(lambda: rm_hub.batched_async_rm(given, group(sample, ["1", "5", "3"])))
    assert rewards == pytest.approx([-0.8, 0.8, 0.0]) and server.judge.images == [[(5, 4)]] * 6


def test_what_the_url_cannot_answer_ends_the_run(server, rows, monkeypatch):
    monkeypatch.setattr(rm_hub.asyncio, "sleep", lambda _, sleep=asyncio.sleep: sleep(0))
    given = args(rm_type="remote_rm", rm_url=f"http://127.0.0.1:{server.port}/remote_rm")
    for label in ("x", {"group": "row 1", "group_size": 3}):
        (sample,) = rows.text({"text": "<image>Which?", "label": label}).samples
        with pytest.raises(rm_hub.aiohttp.ClientResponseError, match="422"):
            ask(lambda sample=sample: rm_hub.batched_async_rm(given, group(sample, ["1"])))
    assert server.judge.seen == []


def test_the_interfaces_the_function_relies_on():
    fields = set(Sample.__dataclass_fields__)
    assert {"prompt", "response", "label", "multimodal_inputs", "group_index", "index", "reward"} <= fields
    assert list(inspect.signature(rm_hub.async_rm).parameters) == ["args", "sample", "kwargs"]
    assert list(inspect.signature(rm_hub.batched_async_rm).parameters) == ["args", "samples", "kwargs"]
    assert list(inspect.signature(rm_hub.remote_rm).parameters)[:2] == ["args", "sample"]
