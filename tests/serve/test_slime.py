"""slime without slime: its samples and requests, and our server on loopback."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from PIL import Image
from served import Served, base64_png, together

from r1_reward.judge.reward_model import RewardModel
from r1_reward.serve.chats import PromptError, WrongPictures
from r1_reward.serve.dialects import slime
from r1_reward.serve.judge_client import JudgeFailed
from r1_reward.serve.labels import LabelError

QWEN = "<|vision_start|><|image_pad|><|vision_end|>"
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
ARGS = SimpleNamespace(n_samples_per_prompt=2)


@dataclass
class Sample:
    """The fields of slime's sample that the function reads."""

    prompt: str | list
    response: str
    label: object = None
    multimodal_inputs: dict | None = None
    group_index: int | None = 0
    index: int | None = None
    metadata: dict = field(default_factory=dict)


def picture(*size):
    return Image.new("RGB", size, "red")


def group(prompt, responses, **fields):
    return [Sample(prompt, text, index=number, **fields) for number, text in enumerate(responses)]


@pytest.fixture
def server(monkeypatch):
    with Served() as server:
        monkeypatch.setenv("R1_REWARD_SERVER", f"http://127.0.0.1:{server.port}")
        yield server


def ask(samples, function=None, args=ARGS):
    return asyncio.run((function or slime.judged_by())(args, samples))


def test_the_samples_of_a_prompt_are_judged_against_each_other(server):
    rewards = ask(group(CHAT.format("Which?"), ["A 1.<|im_end|>", "A 5.", "A 3."]))
    assert rewards == RewardModel(type(server.judge)()).rewards("Which?", [], ["A 1.", "A 5.", "A 3."])
    assert {question for question, _, _ in server.judge.seen} == {"Which?"}


def test_the_name_in_the_docs_is_the_function(server):
    module, _, name = "r1_reward.serve.dialects.slime.rewards".rpartition(".")
    function = getattr(importlib.import_module(module), name)
    assert ask(group("Which?", ["1", "5"]), slime.judged_by()) == pytest.approx([-0.8, 0.8])
    assert asyncio.iscoroutinefunction(function)


@pytest.mark.parametrize(
    ("prompt", "sizes", "question"),
    [
        (CHAT.format(QWEN + "Which?"), [(5, 4)], "Which?"),
        (CHAT.format(f"Is {QWEN} after {QWEN}?"), [(5, 4), (6, 3)], "Is [image] after [image]?"),
        ([{"role": "user", "content": [{"type": "image", "image": "gone.png"}, {"type": "text", "text": "Which?"}]}],
         [(5, 4)], "Which?"),
        ([{"role": "system", "content": "Short."}, {"role": "user", "content": "Which?"}], [(5, 4)],
         "system: Short.\n\nWhich?"),
        ("<image>Which?", [(5, 4)], "Which?"),
    ],
)  # fmt: skip
def test_the_judge_sees_the_pictures_of_the_policy_once(server, prompt, sizes, question):
    inputs = {"images": [picture(*size) for size in sizes], "videos": None}
    assert ask(group(prompt, ["1", "5"], multimodal_inputs=inputs)) == pytest.approx([-0.8, 0.8])
    assert {shown for shown, _, _ in server.judge.seen} == {question}
    assert server.judge.images == [sizes] * 2


@pytest.mark.parametrize("inputs", [None, {}, {"images": None}, {"images": []}, {"images": [picture(1, 1)] * 3}])
@pytest.mark.parametrize(
    "prompt",
    [
        CHAT.format(QWEN + "Which?"),
        "<image>Which?",
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}],
    ],
)
def test_a_prompt_without_its_pictures_ends_the_run(server, prompt, inputs):
    for label in (None, {"question": "Which?"}):
        with pytest.raises(WrongPictures, match="the prompt .*Which.* place"):
            ask(group(prompt, ["1", "5"], multimodal_inputs=inputs, label=label))
    assert server.judge.seen == []


@pytest.mark.parametrize("name", ["images", "image"])
@pytest.mark.parametrize("form", [lambda path: path, lambda path: f"file://{path}", lambda _: base64_png(5, 4),
                                  lambda _: {"base64": base64_png(5, 4)}])  # fmt: skip
def test_the_label_has_the_pictures_where_the_policy_has_none(server, tmp_path, name, form):
    picture(5, 4).save(tmp_path / "7.png")
    given = form(str(tmp_path / "7.png"))
    label = {"question": "Which digit?", name: given if name == "image" else [given]}
    assert ask(group("Which?", ["1", "5"], label=label)) == pytest.approx([-0.8, 0.8])
    assert server.judge.images == [[(5, 4)]] * 2


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "F"])
def test_pictures_in_other_color_modes_do_not_end_the_run(server, mode):
    inputs = {"images": [Image.new(mode, (5, 4))]}
    assert ask(group("<image>Which?", ["1", "5"], multimodal_inputs=inputs)) == pytest.approx([-0.8, 0.8])


@pytest.mark.parametrize("response", ["5 \ud800", "\x00 5", "5 \ufffd", "<|im_end|>", "<image> 5", "5 " * 20_000])
def test_no_response_ends_the_run(server, response):
    assert ask(group("Which?", ["1", response])) == pytest.approx([-0.8, 0.8] if "5" in response else [0.8, -0.8])


def test_videos_are_refused(server):
    with pytest.raises(PromptError, match="videos"):
        ask(group("<video>Which?", ["1", "5"], multimodal_inputs={"images": None, "videos": [object()]}))


def test_a_response_that_cannot_be_judged_earns_the_worst(server):
    assert ask(group("Is it unreadable?", ["1", "5"])) == [-1.0, -1.0]
    assert ask(group("Which?", ["1", "9" * 60_000, "5"])) == pytest.approx([-0.8, -1.0, 0.8])
    assert ask(group("Which?", ["", "3"])) == pytest.approx([-0.8, 0.8])


@pytest.mark.parametrize("question", ["it fails", "it explodes"])
def test_a_judge_that_fails_ends_the_run(server, question):
    with pytest.raises(JudgeFailed):
        ask(group(question, ["1", "5"]))


def test_samples_that_are_not_a_group_are_refused(server):
    one, other = group("Which?", ["1", "5"])
    for samples in (
        [one],
        [[one], [other]],
        [one, Sample("Another?", "3", index=5)],
        [one, Sample("Which?", "3", index=5, group_index=1)],
        [one, Sample("Which?", "3", index=0)],
    ):
        with pytest.raises(PromptError):
            ask(samples)
    with pytest.raises(LabelError, match="group_size"):
        ask(group("Which?", ["1", "5"], label='{"group_size": 1, "group": "a"}'))
    assert server.judge.seen == []


def test_a_sample_that_arrives_alone_waits_for_its_siblings(server):
    function = slime.judged_by()

    async def both():
        samples = [*group("Which?", ["1", "5"]), *group("Which?", ["9", "2"], group_index=1)]
        samples[2].index, samples[3].index = 2, 3
        return await asyncio.gather(*(function(ARGS, sample) for sample in samples))

    assert asyncio.run(both()) == pytest.approx([-0.8, 0.8, 0.8, -0.8])
    assert {frozenset(pair) for _, *pair in server.judge.seen} == {frozenset("15"), frozenset("92")}
    with pytest.raises(PromptError, match="a single sample"):
        ask(Sample("Which?", "1", group_index=None))
    with pytest.raises(PromptError, match="a single sample"):
        ask(Sample("Which?", "1"), args=SimpleNamespace(n_samples_per_prompt=1))


def test_a_lone_sample_of_rewards_without_a_lower_bound_needs_worst(server):
    silencing = group("Is it unreadable?", ["1", "5"])
    with pytest.raises(ValueError, match="no lower bound; set worst"):
        ask(silencing[0], slime.judged_by(kind="bradley_terry"))
    assert server.judge.seen == []
    function = slime.judged_by(kind="bradley_terry", worst=-5.0)

    async def both():
        return await asyncio.gather(*(function(ARGS, sample) for sample in silencing))

    assert asyncio.run(both()) == [-5.0, -5.0]
    assert ask(silencing, function) == [-5.0, -5.0]
    assert ask(silencing, slime.judged_by(kind="bradley_terry")) == [-1.0, -1.0]  # the whole group is known


def test_options_are_those_of_the_server(server):
    ask(group("Which?", ["1", "5"]), slime.judged_by(votes=3, both_orders=False))
    assert len(server.judge.seen) == 1 and server.judge.temperatures == [1.0]


# --rm-type remote_rm.


def remote(server, prompt, response, label, path="/remote_rm"):
    return lambda: server.post(path, {"prompt": prompt, "response": response, "label": label})


@pytest.mark.parametrize("prompt", [CHAT.format("Which?"), [{"role": "user", "content": "Which?"}], "Which?"])
def test_the_reward_is_the_body(prompt):
    label = {"group": "row 7", "group_size": 3}
    with Served() as server:
        for _ in range(2):  # a second epoch is another group
            answers = together(*(remote(server, prompt, text, label) for text in ("A 1.<|im_end|>", "5", "3")))
            assert [status for status, _ in answers] == [200] * 3, answers
            assert [reward for _, reward in answers] == pytest.approx([-0.8, 0.8, 0.0])
        assert {question for question, _, _ in server.judge.seen} == {"Which?"}


def test_pictures_come_with_the_label():
    label = {"group": "a", "group_size": 2, "images": [{"base64": base64_png(5, 4)}]}
    with Served() as server:
        answers = together(*(remote(server, CHAT.format(QWEN + "Which?"), text, label) for text in "15"))
        assert [status for status, _ in answers] == [200] * 2, answers
        assert server.judge.images == [[(5, 4)]] * 2


def test_a_remote_sample_that_cannot_be_judged_earns_the_worst():
    label = '{"group": "a", "group_size": 2}'
    with Served() as server:
        answers = together(*(remote(server, "Is it unreadable?", text, label) for text in "15"))
        assert answers == [(200, -1.0), (200, -1.0)]
    with Served(unscored_reward=-3.0) as server:
        answers = together(*(remote(server, "Is it unreadable?", text, label) for text in "15"))
        assert answers == [(200, -3.0), (200, -3.0)]


def test_remote_rewards_without_a_lower_bound_need_the_operators_choice():
    label, path = {"group": "a", "group_size": 2}, "/remote_rm?kind=bradley_terry"
    with Served() as server:
        status, answer = remote(server, "Is it unreadable?", "1", label, path)()
        assert (status, answer["error"]["field"]) == (422, "kind")
        assert "set --unscored-reward" in answer["error"]["message"] and server.judge.seen == []
    with Served(unscored_reward=-3.0) as server:
        answers = together(*(remote(server, "Is it unreadable?", text, label, path) for text in "15"))
        assert answers == [(200, -3.0), (200, -3.0)]


@pytest.mark.parametrize(
    ("prompt", "label", "field"),
    [
        ("Which?", None, "label"),
        ("Which?", "eight", "label"),
        ("Which?", {"group": "a"}, "label"),
        ("Which?", {"group": "a", "group_size": 0}, "label.group_size"),
        (CHAT.format(QWEN + "Which?"), {"group": "a", "group_size": 2}, "prompt"),
        ([{"role": "user", "content": [{"type": "image"}]}], {"group": "a", "group_size": 2}, "prompt"),
        ([{"role": "user"}], {"group": "a", "group_size": 2}, "prompt"),
        ([], {"group": "a", "group_size": 2}, "prompt"),
    ],
)
def test_samples_that_cannot_be_judged_are_refused(prompt, label, field):
    with Served() as server:
        status, answer = remote(server, prompt, "1", label)()
        assert status == 422 and answer["error"]["field"] == field and server.judge.seen == []
    if field == "label":
        assert "--group-rm" in answer["error"]["message"]


# In a trainer's process.

ALONE = """
import sys, types

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{name} is not there")

HEAVY = "pydantic fastapi starlette uvicorn torch transformers trl datasets numpy PIL openai".split()
sys.meta_path.insert(0, Missing())
for name in ("openrlhf", "openrlhf.utils", "openrlhf.utils.agent", "openrlhf.utils.vlm_utils"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["openrlhf.utils.agent"].SingleTurnAgentExecutor = object
sys.modules["openrlhf.utils.vlm_utils"].load_images = list
import {module}
print({module}.__name__)
"""


@pytest.mark.parametrize("name", ["slime", "openrlhf_agent"])
def test_a_trainers_process_needs_only_httpx(name):
    module = f"r1_reward.serve.dialects.{name}"
    code = ALONE.replace("{module}", module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == module, done.stderr
