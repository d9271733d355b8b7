"""The published OpenRLHF against our server: its HTTP client, its executor under our agent, its argument parser.

Stubs replace what needs a GPU: ``vllm`` (scripted answers replace its engine) and ``flash_attn`` (imported by
the trainer's modules, not used here). Ray's actor class is unwrapped, not started.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("openrlhf", reason="openrlhf is not installed: make plugs ARGS=openrlhf")

from fakes import shown
from PIL import Image
from served import ScriptedJudge, Served, base64_png, png

from r1_reward.models.tiny import build_tiny
from r1_reward.models.tiny_words import vocabulary
from r1_reward.records.schema import Completion

ROOT = Path(__file__).parents[2]
COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


class PictureJudge(ScriptedJudge):
    """Prefers the response that names the color of the picture; without a picture it cannot know."""

    def answer(self, requests):
        for request in requests:
            question, first, second = shown(request)
            self.seen.append((question, first, second))
            self.images.append([image.size for image in request.images])
            colour = next(name for name, rgb in COLOURS.items() if rgb == request.images[0].getpixel((0, 0)))
            better = 1 if colour in first else 2
            yield [
                Completion(text=f"<answer>{better}</answer>", tokens=3, probability=0.9 if better == 1 else 0.1)
            ] * len(request.seeds)


class Anything(types.ModuleType):
    """A module from which every name can be imported."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, **given: self.__dict__.update(given)})


@pytest.fixture(scope="module")
def stubs():
    with pytest.MonkeyPatch.context() as patched:
        for name in ("vllm", "vllm.inputs", "vllm.utils"):
            patched.setitem(sys.modules, name, Anything(name))
        yield


@pytest.fixture(scope="module")
def processor():
    """The tiny model's processor: Qwen2.5-VL's, with its image processor and chat template."""
    return build_tiny([*vocabulary(), "What colour is it? It is red green blue white."], seed=0)[1]


@pytest.fixture(scope="module")
def actor_class(stubs):
    """OpenRLHF's rollout actor, without Ray and without an engine."""
    from openrlhf.trainer.ray.vllm_engine import RolloutRayActor

    return RolloutRayActor.__ray_metadata__.modified_class


@pytest.fixture
def server(monkeypatch):
    with Served(PictureJudge()) as server:
        monkeypatch.setenv("R1_REWARD_SERVER", f"http://127.0.0.1:{server.port}")
        yield server


def agent_path():
    """The path printed in the docs."""
    line = next(line for line in (ROOT / "docs" / "trainers.md").read_text().splitlines() if line.startswith("AGENT="))
    done = subprocess.run(["bash", "-c", f"{line}; echo $AGENT"], capture_output=True, text=True, check=True, env={
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"),
    })  # fmt: skip
    return done.stdout.strip()


def actor(actor_class, executor, processor, answers):
    """Return an actor whose engine writes the answers in turn."""
    own = actor_class.__new__(actor_class)
    own.executor, own.pictures, left = executor, [], iter(answers)

    async def generate(prompt_token_ids, sampling_params, multi_modal_data=None):
        own.pictures.append(multi_modal_data and [image.size for image in multi_modal_data["image"]])
        text = next(left)
        await asyncio.sleep(0.01)
        tokens = processor.tokenizer(text=text, add_special_tokens=False)["input_ids"]
        output = types.SimpleNamespace(token_ids=tokens, text=text, finish_reason="stop", logprobs=None)
        return types.SimpleNamespace(outputs=[output])

    own.generate = generate
    return own


def samples(own, prompt, processor, n, *, images=None, label=""):
    """Return the coroutine of OpenRLHF's own method for the samples of one prompt."""
    return own.generate_responses(
        prompt=prompt,
        label=label,
        sampling_params=types.SimpleNamespace(max_tokens=16, logprobs=None),
        max_length=512,
        hf_tokenizer=processor,
        num_samples=n,
        images=images,
    )


def row(processor, **data):
    """Return the prompt and label that OpenRLHF's data set makes of a row."""
    from openrlhf.datasets.prompts_dataset import preprocess_data

    return preprocess_data(data, None, "input", "label", processor.apply_chat_template)


@pytest.mark.parametrize("colour", ["red", "blue"])
def test_the_agent_is_loaded_and_its_judge_sees_the_pictures(actor_class, processor, server, stubs, tmp_path, colour):
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
    from openrlhf.trainer.ray.vllm_engine import _load_agent_executor

    path = tmp_path / "scene.png"
    path.write_bytes(png(56, 56, colour))
    prompt, label = row(processor, input="<image>What colour is it?", label="")
    texts = ["It is red.", "It is blue.", "It is blue."]
    own = actor(actor_class, _load_agent_executor(agent_path()), processor, texts)
    found = asyncio.run(samples(own, prompt, processor, 3, images=[str(path)], label=label))
    right = {"red": [0.8, -0.4, -0.4], "blue": [-0.8, 0.4, 0.4]}[colour]
    assert [one["reward"] > 0 for one in found] == [reward > 0 for reward in right]
    assert own.pictures == [[(56, 56)]] * 3, "those of the policy"
    assert set(map(str, server.judge.images)) == {"[(56, 56)]"}, "are those of the judge"
    assert {question for question, _, _ in server.judge.seen} == {"What colour is it?"}
    experience = SamplesGenerator._process_response_into_experience(None, found[0], max_len=512)
    assert experience.rewards.shape == experience.scores.shape == (1,)
    assert experience.rewards.item() == pytest.approx(found[0]["reward"]) and 0 <= experience.scores.item() <= 1
    assert experience.info["scored"].tolist() == [1.0]


def test_many_prompts_with_one_question_keep_their_own_pictures(actor_class, processor, server, stubs):
    from openrlhf.trainer.ray.vllm_engine import _load_agent_executor

    executor = _load_agent_executor(agent_path())
    prompt, _ = row(processor, input="<image>What colour is it?", label="")
    colours = [*COLOURS] * 3
    texts = [[f"It is {name}." for name in COLOURS] for _ in colours]

    async def all_of_them():
        return await asyncio.gather(*(
            samples(actor(actor_class, executor, processor, own), prompt, processor, 4, images=[png(56, 56, colour)])
            for colour, own in zip(colours, texts, strict=True)
        ))  # fmt: skip

    right = 0
    for colour, found in zip(colours, asyncio.run(all_of_them()), strict=True):
        rewards = [one["reward"] for one in found]
        right += list(COLOURS)[rewards.index(max(rewards))] == colour
    assert right == len(colours), "the best sample is the true one"


def test_missing_pictures_end_the_run(actor_class, processor, server, stubs, tmp_path):
    from openrlhf.trainer.ray.vllm_engine import _load_agent_executor

    executor = _load_agent_executor(agent_path())
    prompt, _ = row(processor, input="<image>What colour is it?", label="")
    (tmp_path / "a.png").write_bytes(png(56, 56))
    for images in (None, [], [str(tmp_path / "gone.png")], [str(tmp_path / "a.png")] * 2):
        with pytest.raises(ValueError):
            own = actor(actor_class, executor, processor, ["It is red.", "It is blue."])
            asyncio.run(samples(own, prompt, processor, 2, images=images))
    assert server.judge.seen == []


# The reward URL.


def stock(url, actor_class, processor, prompt, label, texts, images=None):
    """Return what OpenRLHF's own executor gets from a URL for the samples of one prompt."""
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    own = actor(actor_class, SingleTurnAgentExecutor(url), processor, texts)
    return asyncio.run(samples(own, prompt, processor, len(texts), images=images, label=label))


def test_lone_samples_are_grouped_by_their_label_which_carries_the_pictures(actor_class, processor):
    prompt, label = row(
        processor,
        input="<image>What colour is it?",
        label=json.dumps({"group": "row 1", "group_size": 2, "images": [{"base64": base64_png(56, 56, "blue")}]}),
    )
    with Served(PictureJudge(), unscored_reward=-1.0) as server:
        url = f"http://127.0.0.1:{server.port}/get_reward"
        for _ in range(2):  # a second epoch
            texts = ["It is red.", "It is blue."]
            found = stock(url, actor_class, processor, prompt, label, texts, [png(56, 56, "blue")])
            assert [one["reward"] for one in found] == [[pytest.approx(-0.8)], [pytest.approx(0.8)]]
            assert [one["extra_logs"] for one in found] == [{"scored": [1.0], "responses_to_prompt": [2.0]}] * 2
        assert server.judge.images == [[(56, 56)]] * 4


def test_a_prompt_with_a_picture_that_its_client_does_not_send_is_refused(actor_class, processor, monkeypatch):
    from openrlhf.utils import agent

    told = []
    monkeypatch.setattr(agent.logger, "info", told.append)
    monkeypatch.setattr(agent.asyncio, "sleep", lambda _, sleep=asyncio.sleep: sleep(0))
    label = json.dumps({"group": "row 1", "group_size": 2})
    prompt, label = row(processor, input="<image>What colour is it?", label=label)
    with Served(PictureJudge(), unscored_reward=-1.0) as server:
        url = f"http://127.0.0.1:{server.port}/get_reward"
        found = stock(url, actor_class, processor, prompt, label, ["It is red.", "It is blue."], [png(56, 56)])
        assert [one["reward"] for one in found] == [None, None] and server.judge.seen == []
    assert any("422" in line for line in told)


def test_several_urls_are_all_answered():
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    with Served() as one, Served() as other:
        urls = [f"http://127.0.0.1:{server.port}/get_reward" for server in (one, other)]
        executor = SingleTurnAgentExecutor(urls)
        queries, prompts = ["p 1", "p 5", "q 9", "q 2"], ["p ", "p ", "q ", "q "]
        answers = asyncio.run(executor._fetch_rewards_via_http(queries, prompts, [""] * 4))
        assert [answer["rewards"] for answer in answers] == [pytest.approx([-0.8, 0.8]), pytest.approx([0.8, -0.8])]
        # Fewer samples than servers: some get no request, or, in earlier versions, an empty one.
        answers = asyncio.run(executor._fetch_rewards_via_http(["p 1"], ["p "], [""]))
        assert answers[0]["rewards"] == [None]
        assert asyncio.run(executor._fetch_rewards_via_http([], [], [])) in ([], [answers])


# What the plug-in relies on.


def test_the_documented_flags_are_those_of_its_parser(stubs, monkeypatch):
    import openrlhf.utils
    import peft  # noqa: F401  before the stub, which it would ask for its version
    import ray

    for name in ("flash_attn", "flash_attn.bert_padding", "flash_attn.utils", "flash_attn.utils.distributed"):
        monkeypatch.setitem(sys.modules, name, Anything(name))

    class Parsed(Exception):
        pass

    def strategy(args):
        raise Parsed(args)

    monkeypatch.setattr(openrlhf.utils, "get_strategy", strategy)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    text = (ROOT / "docs" / "trainers.md").read_text()
    commands = re.findall(r"openrlhf\.cli\.train_ppo_ray ((?:.*\\\n)*.*)", text)
    assert len(commands) >= 2
    for command in commands:
        given = [word for word in shlex.split(command.replace("\\\n", " ")) if word != "..."]
        needed = ["--actor.model_name_or_path", "m", "--vllm.num_engines", "1", "--algo.advantage.estimator", "rloo"]
        monkeypatch.setattr(sys, "argv", ["train_ppo_ray", *needed, *given])
        with pytest.raises(Parsed) as parsed:
            runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__")
        args = parsed.value.args[0]
        assert args.reward.remote_url and args.rollout.n_samples_per_prompt > 1


def test_the_interfaces_the_agent_relies_on(stubs):
    from openrlhf.trainer.ppo_utils.experience import Experience
    from openrlhf.trainer.ray import vllm_engine
    from openrlhf.utils.agent import AgentExecutorBase, SingleTurnAgentExecutor
    from openrlhf.utils.vlm_utils import load_images

    assert issubclass(SingleTurnAgentExecutor, AgentExecutorBase)
    execute = inspect.signature(SingleTurnAgentExecutor.execute)
    assert list(execute.parameters) == [
        "self", "prompt", "label", "sampling_params", "max_length", "hf_tokenizer", "llm_engine", "images",
    ]  # fmt: skip
    assert list(inspect.signature(SingleTurnAgentExecutor).parameters) == ["remote_rm_url"]
    assert [image.size for image in load_images([png(5, 4), Image.open(io.BytesIO(png(3, 2)))])] == [(5, 4), (3, 2)]
    assert len(load_images(["/nowhere.png"])) == 0, "without a word, so the agent counts"
    actor_class = vllm_engine.RolloutRayActor.__ray_metadata__.modified_class
    generate = inspect.signature(actor_class.generate_responses)
    assert {"prompt", "label", "sampling_params", "num_samples", "images"} <= set(generate.parameters)
    assert {"rewards", "scores", "info"} <= {field.name for field in dataclasses.fields(Experience)}


def test_the_samples_of_a_prompt_start_together_with_the_same_objects(actor_class):
    """This is how the agent recognizes the samples of a prompt."""
    begun = []

    class Executor:
        async def execute(self, **given):
            begun.append(tuple(id(given[name]) for name in ("prompt", "label", "sampling_params", "images")))
            await asyncio.sleep(0)
            assert len(begun) == 4, "all have begun before the first goes on"

    own = actor_class.__new__(actor_class)
    own.executor = Executor()
    asyncio.run(own.generate_responses("p", {}, types.SimpleNamespace(), 8, None, num_samples=4, images=[]))
    assert len(set(begun)) == 1
