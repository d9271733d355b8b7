"""OpenRLHF's agent without OpenRLHF: a stand-in for its base class, and our server on loopback.

tests/plugs/test_openrlhf.py runs the package itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import sys
import types

import pytest
from PIL import Image
from served import Served, png

from r1_reward.judge.reward_model import RewardModel
from r1_reward.serve.chats import PromptError, WrongPictures
from r1_reward.serve.judge_client import JudgeFailed
from r1_reward.serve.labels import LabelError

QWEN = "<|vision_start|><|image_pad|><|vision_end|>"
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
NAME = "r1_reward.serve.dialects.openrlhf_agent"


class Executor:
    """The part of OpenRLHF's executor that the agent relies on: it generates one sample from a prompt and pictures."""

    def __init__(self, remote_rm_url=None):
        assert remote_rm_url is None, "it would ask that URL, too"

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        text = await llm_engine(prompt, images)
        tokens = [*map(ord, prompt + text)]
        return {
            "prompt": prompt, "images": images, "observation_tokens": tokens, "reward": None, "scores": None,
            "action_ranges": [(len(prompt), len(tokens))], "extra_logs": {},
        }  # fmt: skip


class Tokenizer:
    def decode(self, tokens, skip_special_tokens):
        assert not skip_special_tokens
        return "".join(map(chr, tokens))


def load_images(images):
    """Return the pictures that can be opened and silently drop the others, as OpenRLHF does."""
    opened = []
    for image in images:
        with contextlib.suppress(OSError):
            opened.append(Image.open(io.BytesIO(image) if isinstance(image, bytes) else image))
    return opened


@pytest.fixture
def agent(monkeypatch):
    """The agent's file, loaded by its path as OpenRLHF loads it."""
    modules = {name: types.ModuleType(name) for name in ("openrlhf", "openrlhf.utils")}
    modules["openrlhf.utils.agent"] = types.ModuleType("openrlhf.utils.agent")
    modules["openrlhf.utils.agent"].SingleTurnAgentExecutor = Executor
    modules["openrlhf.utils.vlm_utils"] = types.ModuleType("openrlhf.utils.vlm_utils")
    modules["openrlhf.utils.vlm_utils"].load_images = load_images
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.find_spec(NAME)
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("agent_module", spec.origin))
    module.__spec__.loader.exec_module(module)
    return module


@pytest.fixture
def server(monkeypatch):
    with Served() as server:
        monkeypatch.setenv("R1_REWARD_SERVER", f"http://127.0.0.1:{server.port}")
        yield server


def engine(answers, seconds=()):
    """Return an engine that writes the answers in turn, each after some seconds."""
    texts, pauses = iter(answers), iter(seconds)

    async def generate(prompt, images):
        text = next(texts)
        await asyncio.sleep(next(pauses, 0))
        if isinstance(text, Exception):
            raise text
        return text

    return generate


async def rollout(executor, prompt, generate, n, *, images=None, label=""):
    """Generate the samples of one prompt as OpenRLHF's actor does: all at once, with the same objects."""
    parameters, tokenizer = types.SimpleNamespace(max_tokens=16), Tokenizer()
    tasks = [
        executor.execute(
            prompt=prompt, label=label, sampling_params=parameters, max_length=64, hf_tokenizer=tokenizer,
            llm_engine=generate, images=images,
        )
        for _ in range(n)
    ]  # fmt: skip
    return await asyncio.gather(*tasks)


def run(agent, prompt, answers, *, options=None, **given):
    """Return the records of one prompt's samples."""
    executor = type("AgentExecutor", (agent.AgentExecutor,), {"options": options or {}})()
    return asyncio.run(rollout(executor, prompt, engine(answers), len(answers), **given))


def told(records, key="reward"):
    return [record[key] for record in records]


def test_the_samples_of_a_prompt_are_judged_against_each_other(agent, server):
    records = run(agent, CHAT.format("Which?"), ["A 1.<|im_end|>\n", "A 5.<|im_end|>", "A 3."])
    expected = RewardModel(type(server.judge)()).rewards("Which?", [], ["A 1.", "A 5.", "A 3."])
    assert told(records) == expected
    assert told(records, "scores") == pytest.approx([(reward + 1) / 2 for reward in expected])
    assert told(records, "extra_logs") == [{"scored": 1.0}] * 3
    assert {question for question, _, _ in server.judge.seen} == {"Which?"} and len(server.judge.seen) == 6
    assert server.metric("requests_total", route="/v1/reward", status="200") == 1


@pytest.mark.parametrize("sizes", [[(5, 4)], [(5, 4), (6, 3)]])
def test_the_judge_sees_the_pictures_of_the_policy(agent, server, tmp_path, sizes):
    images = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.png"
        path.write_bytes(png(*size))
        images.append(str(path))
    for given in (images, [png(*size) for size in sizes]):
        server.judge.images.clear()
        records = run(agent, CHAT.format(QWEN * len(sizes) + "Which?"), ["1", "5"], images=given)
        assert told(records) == pytest.approx([-0.8, 0.8])
        assert server.judge.images == [sizes] * 2


@pytest.mark.parametrize(
    ("prompt", "count", "question"),
    [
        (CHAT.format(QWEN + "Which?"), 1, "Which?"),
        (CHAT.format(f"Is {QWEN} later than {QWEN}?"), 2, "Is [image] later than [image]?"),
        ("<image>\nWhich?", 1, "Which?"),
        (CHAT.format("<image>Which? <image>"), 2, "[image]Which? [image]"),
        ("<bos><start_of_image>Which?", 1, "Which?"),
        ('[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}]', 1, "Which?"),
    ],
)
def test_vision_tokens_never_reach_the_question(agent, server, prompt, count, question):
    run(agent, prompt, ["1", "5"], images=[png()] * count)
    assert {shown for shown, _, _ in server.judge.seen} == {question}
    assert server.judge.images == [[(3, 2)] * count] * 2


@pytest.mark.parametrize(
    ("prompt", "images", "label"),
    [
        (CHAT.format(QWEN + "Which?"), None, ""),
        (CHAT.format(QWEN + "Which?"), [], ""),
        (CHAT.format(QWEN + "Which?"), [None], ""),
        (CHAT.format(QWEN * 2 + "Which?"), [png()], ""),
        (CHAT.format(QWEN + "Which?"), [png()] * 2, ""),
        ("<image>Which?", None, '{"question": "Which?"}'),
        ("Which?", None, {"question": "<image>Which?"}),
    ],
)
def test_a_prompt_without_its_pictures_ends_the_run(agent, server, prompt, images, label):
    with pytest.raises(WrongPictures, match="the prompt .*Which.* place"):
        run(agent, prompt, ["1", "5"], images=images, label=label)
    assert server.judge.seen == []


def test_a_picture_that_openrlhf_could_not_load_ends_the_run(agent, server):
    with pytest.raises(ValueError, match="1 of 2 pictures"):
        run(agent, "Which?", ["1", "5"], images=[png(), "/nowhere.png"])
    assert server.judge.seen == []


def test_equal_questions_about_different_pictures_stay_apart(agent, server):
    prompt, executor = CHAT.format(QWEN + "Which?"), agent.AgentExecutor()

    async def both():
        pauses = [0.05, 0.0], [0.02, 0.04]
        return await asyncio.gather(
            rollout(executor, prompt, engine(["1", "5"], pauses[0]), 2, images=[png(5, 4)]),
            rollout(executor, prompt, engine(["7", "2"], pauses[1]), 2, images=[png(9, 8)]),
        )

    one, other = asyncio.run(both())
    assert told(one) == pytest.approx([-0.8, 0.8]) and told(other) == pytest.approx([0.8, -0.8])
    seen = {(size[0], frozenset(pair)) for size, (_, *pair) in zip(server.judge.images, server.judge.seen, strict=True)}
    assert seen == {((5, 4), frozenset({"1", "5"})), ((9, 8), frozenset({"7", "2"}))}


def test_many_prompts_at_once_each_have_their_own_group(agent, server):
    executor = agent.AgentExecutor()

    async def all_of_them():
        return await asyncio.gather(
            *(rollout(executor, "Which?", engine([f"{n} 1", f"{n} 2", f"{n} 3"]), 3) for n in range(20))
        )

    for records in asyncio.run(all_of_them()):
        assert told(records) == pytest.approx([-0.8, 0.0, 0.8])
    assert all(first.split()[0] == second.split()[0] for _, first, second in server.judge.seen)


def test_a_response_that_cannot_be_judged_earns_the_worst(agent, server):
    records = run(agent, "Is it unreadable?", ["1", "5"])
    assert told(records) == [-1.0, -1.0] and told(records, "scores") == [0.0, 0.0]
    assert told(records, "extra_logs") == [{"scored": 0.0}] * 2
    records = run(agent, "Which?", ["1", "5", "9" * 60_000])
    assert told(records) == pytest.approx([-0.8, 0.8, -1.0])
    assert [record["extra_logs"]["scored"] for record in records] == [1.0, 1.0, 0.0]
    records = run(agent, "Which?", ["<|im_end|>", " ", "3"])
    assert told(records) == pytest.approx([-0.8, -0.8, 0.8]), "empty responses are judged"


def test_the_worst_is_no_better_than_any_other_of_the_group(agent, server):
    responses = ["1", "5", "9" * 60_000]
    records = run(agent, "Which?", responses, options={"kind": "bradley_terry", "votes": 8})
    assert told(records)[2] == min(-1.0, *told(records)) <= min(told(records))
    assert all(0 <= score <= 1 for score in told(records, "scores"))


@pytest.mark.parametrize("question", ["it fails", "the judge is down", "it explodes"])
def test_a_judge_that_fails_ends_the_run(agent, server, question):
    with pytest.raises(JudgeFailed, match="502|500|no answer within 3 seconds"):
        run(agent, question, ["1", "5"], options={"timeout": 3.0})


def test_an_unreachable_server_ends_the_run(agent, monkeypatch):
    monkeypatch.setenv("R1_REWARD_SERVER", "http://127.0.0.1:9")
    with pytest.raises(JudgeFailed, match="127.0.0.1:9"):
        run(agent, "Which?", ["1", "5"], options={"timeout": 1.5})
    monkeypatch.delenv("R1_REWARD_SERVER")
    with pytest.raises(JudgeFailed, match="R1_REWARD_SERVER"):
        agent.AgentExecutor()


def test_a_lone_sample_ends_the_run(agent, server):
    with pytest.raises(ValueError, match=r"1 sample.*--rollout.n_samples_per_prompt.*--eval.n_samples_per_prompt"):
        run(agent, "Which?", ["1"])
    assert server.judge.seen == []


def test_a_sample_that_cannot_be_generated_fails_only_its_group(agent, server):
    executor = agent.AgentExecutor()

    async def both():
        return await asyncio.wait_for(
            asyncio.gather(
                rollout(executor, "Which?", engine(["1", ValueError("too long a prompt")], [0, 0.01]), 2),
                rollout(executor, "Which?", engine(["1", "5"], [0.03, 0.02]), 2),
                return_exceptions=True,
            ),
            20,
        )

    failed, records = asyncio.run(both())
    assert isinstance(failed, ValueError) and "too long a prompt" in str(failed)
    assert told(records) == pytest.approx([-0.8, 0.8]) and len(server.judge.seen) == 2


def test_a_label_may_give_the_question_and_the_pictures(agent, server, tmp_path):
    (tmp_path / "a.png").write_bytes(png(7, 6))
    label = {"question": "Which digit?", "images": [{"path": str(tmp_path / "a.png")}], "answer": "eight"}
    run(agent, CHAT.format(QWEN + "Think step by step. Which digit?"), ["1", "5"], label=label)
    assert {question for question, _, _ in server.judge.seen} == {"Which digit?"}
    assert server.judge.images == [[(7, 6)]] * 2
    with pytest.raises(LabelError, match="images"):
        run(agent, "Which?", ["1", "5"], label={"images": 3})
    with pytest.raises(PromptError, match="no text in a user message"):
        run(agent, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n", ["1", "5"])


def test_options_are_those_of_the_server(agent, server):
    run(agent, "Which?", ["1", "5"], options={"votes": 3, "both_orders": False})
    assert len(server.judge.seen) == 1 and server.judge.temperatures == [1.0]
