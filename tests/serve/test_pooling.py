"""A scalar judge behind vLLM's and SGLang's APIs for reward models; a judge that compares refuses with advice."""

from __future__ import annotations

import base64
import math
import struct

import openai
import pytest
from fakes import Table
from served import Served, base64_png

from r1_reward.judge.reward_model import RewardModel

PATHS = ("/classify", "/v1/classify", "/pooling", "/v1/embeddings")
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64_png()}}
REWARDS = {"4": 0.5, "7": -1.5, "(empty response)": -4.0, "nan": math.nan, "9 <image>": 2.0}


class Pictured(Table):
    """A table that also remembers questions and pictures."""

    def score(self, candidates, **options):
        self.shown = [
            (getattr(question, "text", question), [picture.size for picture in pictures])
            for question, pictures, _ in candidates
        ]
        plain = [(question, pictures, getattr(one, "text", one)) for question, pictures, one in candidates]
        return super().score(plain, **options)


@pytest.fixture(scope="module")
def table():
    return Pictured(REWARDS | {"see [image]": 3.0})


@pytest.fixture(scope="module")
def server(table):
    with Served(model=RewardModel(table), model_name="judge", max_chars=2000, max_images=2) as served:
        yield served


@pytest.fixture(scope="module")
def comparing():
    with Served(model_name="judge") as served:
        yield served


def chatml(question, response, end="<|im_end|>\n"):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{response}{end}"


def llama(question, response):
    heads = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))
    return "".join(f"{head}{text}<|eot_id|>" for head, text in zip(heads, (question, response), strict=True))


def messages(*texts):
    roles = ("user", "assistant") * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def numbers(server, path, **body):
    status, answer = server.post(path, {"model": "judge", **body})
    assert status == 200, answer
    assert (answer["object"], answer["model"]) == ("list", "judge")
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    key = {"/pooling": "data", "/v1/embeddings": "embedding"}.get(path, "probs")
    found = [one[key] for one in answer["data"]]
    assert all(len(one) == 1 for one in found)
    return [one[0] for one in found]


def refused(server, path, status=400, **body):
    got, answer = server.post(path, body)
    assert got == status, answer
    if path != "/v1/embeddings":
        assert answer["message"] == answer["error"]["message"] and answer["error"]["code"] == status
    return answer["error"]["param"], answer["error"]["message"]


def raw(path):
    return {} if path == "/v1/embeddings" else {"use_activation": False}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("end", ["<|im_end|>\n", "<|im_end|>", "", "<|im_end|>\n<|endoftext|>"])
def test_a_chat_as_verl_sends_it_has_its_reward(path, end, server):
    assert numbers(server, path, input=chatml("Which?", "4", end), **raw(path)) == [0.5]
    assert numbers(server, path, input=[chatml("Which?", "7", end), chatml("Why?", "4")], **raw(path)) == [-1.5, 0.5]
    assert numbers(server, path, input=llama("Which?", "7"), model="/models/judge", **raw(path)) == [-1.5]


@pytest.mark.parametrize("path", PATHS[:3])
@pytest.mark.parametrize("wanted", [None, True])
def test_the_activation_is_a_sigmoid_unless_disabled(path, wanted, server):
    expected = [1 / (1 + math.exp(-REWARDS[one])) for one in ("4", "7")]
    body = {"input": [chatml("Which?", "4"), chatml("Which?", "7")], "use_activation": wanted}
    assert numbers(server, path, **body) == pytest.approx(expected)


def test_vllms_fields(server):
    _, answer = server.post("/classify", {"input": chatml("Which?", "4"), "use_activation": False})
    assert answer["id"].startswith("classify-") and answer["created"] > 1_700_000_000
    assert answer["data"] == [{"index": 0, "label": "LABEL_0", "probs": [0.5], "num_classes": 1}]
    _, answer = server.post("/pooling", {"input": chatml("Which?", "4"), "task": "classify", "use_activation": False})
    assert answer["data"] == [{"index": 0, "object": "pooling", "data": [0.5]}]
    _, answer = server.post(
        "/pooling", {"input": chatml("?", "7"), "encoding_format": "base64", "use_activation": False}
    )
    assert struct.unpack("<f", base64.b64decode(answer["data"][0]["data"])) == (-1.5,)


def test_the_openai_clients_embedding_is_the_reward(server):
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)
    for form in ({}, {"encoding_format": "float"}):  # the client requests base64 by default
        answer = client.embeddings.create(model="judge", input=[chatml("Which?", "7"), chatml("Which?", "4")], **form)
        assert [one.embedding[0] for one in answer.data] == [-1.5, 0.5]


@pytest.mark.parametrize("path", PATHS)
def test_pictures_in_messages_are_shown(path, server, table):
    asked = [{"role": "user", "content": [PICTURE, {"type": "text", "text": "Which?"}]}]
    assert numbers(server, path, messages=[*asked, *messages("", "7")[1:]], **raw(path)) == [-1.5]
    assert table.shown == [("Which?", [(3, 2)])]
    drawn = {"role": "assistant", "content": [{"type": "text", "text": "see "}, PICTURE]}
    assert numbers(server, path, messages=[*messages("Draw."), drawn], **raw(path)) == [3.0]
    told = [{"role": "system", "content": "Be brief."}, *messages("Which?", "4", "Sure?", "7")]
    assert numbers(server, path, messages=told, **raw(path)) == [-1.5]
    assert table.shown[-1][0].endswith("user: Which?\n\nassistant: 4\n\nSure?")


@pytest.mark.parametrize("path", PATHS)
def test_an_empty_response_has_a_reward_and_tokens_in_a_response_stay_text(path, server):
    for response in ("", " \n", "<|endoftext|>"):
        assert numbers(server, path, input=chatml("Why, then?", response), **raw(path)) == [-4.0]
    assert numbers(server, path, messages=messages("Why so?", ""), **raw(path)) == [-4.0]
    assert numbers(server, path, input=chatml("Which?", "9 <image>"), **raw(path)) == [2.0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, None, "either input or messages"),
        ({"input": chatml("?", "4"), "messages": messages("?", "4")}, None, "either input or messages"),
        ({"input": "Which? 4"}, "input", "ChatML"),
        ({"input": ["<s>[INST] Which? [/INST] 4</s>"]}, "input[0]", "ChatML"),
        ({"input": "<|im_start|>user\nWhich?<|im_end|>\n"}, "input", "assistant's response"),
        ({"input": [chatml("?", "4"), chatml(" ", "4")]}, "input[1]", "no question"),
        ({"input": "<|im_start|>assistant\n4<|im_end|>"}, "input", "no question"),
        ({"input": []}, "input", "empty"),
        ({"input": [1, 2, 3]}, "input[0]", "string"),
        ({"input": [[1, 2], [3]]}, "input[0]", "string"),
        ({"input": {"text": "x"}}, "input", "text or a list of texts"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": messages("Which?")}, "messages", "assistant"),
        ({"messages": messages("Which?", "4", "Sure?")}, "messages", "assistant"),
        ({"messages": [{"role": "system", "content": "x"}, *messages("", "4")[1:]]}, "messages", "no question"),
        ({"messages": messages("?", [{"type": "input_audio"}])}, "messages[1]", ""),
        ({"input": chatml("?", "4"), "model": "other"}, "model", "other"),
        ({"input": chatml("?", "4" * 2001)}, "input (response)", "--max-chars"),
        ({"input": chatml("?" * 2001, "4")}, "input (question)", "--max-chars"),
        ({"input": chatml("?", "4"), "normalize": True}, "normalize", "leave it out"),
        ({"input": chatml("?", "4"), "chat_template": "x"}, "chat_template", "leave it out"),
        ({"input": chatml("?", "4"), "truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "leave it out"),
        ({"text": ["4"]}, "text", "leave it out"),
    ],
)  # fmt: skip
def test_invalid_requests_are_refused_with_the_reason(path, body, param, words, server):
    got, message = refused(server, path, 404 if body.get("model") else 400, **body)
    assert got == param and words in message


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        {"input": chatml("<|vision_start|><|image_pad|><|vision_end|>Which?", "4")},
        {"input": [chatml("Which?", "4"), chatml("<image>\nWhich?", "4")]},
        {"messages": messages("Is <image> old?", "4")},
        {"messages": messages([{"type": "image_url"}, {"type": "text", "text": "?"}], "4")},
        {"messages": messages([{"type": "image"}, {"type": "text", "text": "?"}], "4")},
        {"messages": messages("Draw.", [{"type": "image_url", "image_url": {"url": ""}}])},
    ],
)  # fmt: skip
def test_nothing_is_scored_blind(path, body, server, table):
    before = len(table.asked)
    assert "image" in refused(server, path, **body)[1]
    assert len(table.asked) == before


def test_other_tasks_and_missing_numbers(server):
    for task in ("embed", "token_classify", "score"):
        assert refused(server, "/pooling", input=chatml("?", "4"), task=task)[0] == "task"
    assert refused(server, "/classify", 502, input=[chatml("?", "4"), chatml("?", "nan")])[0] == "input[1]"


@pytest.mark.parametrize("path", PATHS)
def test_a_judge_that_compares_says_what_to_use_instead(path, comparing):
    for body in (
        {"input": chatml("?", "4")},
        {"input": [chatml("?", "4"), chatml("?", "7")]},
        {"messages": messages("?", "4")},
    ):
        param, message = refused(comparing, path, **body)
        assert param == "model" and "/v1/reward" in message and "scalar" in message
    assert not comparing.judge.calls
