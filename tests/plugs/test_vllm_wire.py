"""Our answers parsed by vLLM's own response models, and our request fields compared with its request models."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("vllm", reason="vllm is not installed: make plugs ARGS=vllm")

from fakes import Table
from pydantic import TypeAdapter
from served import Served, base64_png
from vllm.entrypoints.pooling.classify.protocol import ClassificationRequest, ClassificationResponse
from vllm.entrypoints.pooling.pooling.protocol import PoolingRequest, PoolingResponse
from vllm.entrypoints.pooling.scoring.protocol import RerankRequest, RerankResponse, ScoreRequest, ScoreResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from r1_reward.judge.reward_model import RewardModel
from r1_reward.serve.dialects import pooling, rerank

CHAT = "<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64_png()}}
MESSAGES = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "7"}]
PICTURED = [{"content": [{"type": "text", "text": "4"}, PICTURE]}, {"image": PICTURE["image_url"]["url"], "text": "7"}]

SCALAR = [
    ("/classify", {"input": CHAT.format("4"), "use_activation": False}, ClassificationRequest, ClassificationResponse),
    ("/classify", {"input": [CHAT.format("4"), CHAT.format("7")]}, ClassificationRequest, ClassificationResponse),
    ("/v1/classify", {"messages": MESSAGES}, ClassificationRequest, ClassificationResponse),
    ("/pooling", {"input": [CHAT.format("4")], "task": "classify"}, PoolingRequest, PoolingResponse),
    ("/pooling", {"messages": MESSAGES, "encoding_format": "base64"}, PoolingRequest, PoolingResponse),
    ("/score", {"text_1": "Which?", "text_2": ["4", "7"]}, ScoreRequest, ScoreResponse),
    ("/rerank", {"query": "Which?", "documents": "4"}, RerankRequest, RerankResponse),
]
PAIRWISE = [
    *(
        (path, {"query": "Which?", "documents": ["4", "7"], "top_n": 1}, RerankRequest, RerankResponse)
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    ),
    ("/rerank", {"query": PICTURED[0], "documents": [PICTURED[0], "9"]}, RerankRequest, RerankResponse),
    *(
        (path, {first: "Which?", second: ["4", "7"]}, ScoreRequest, ScoreResponse)
        for path in ("/score", "/v1/score")
        for first, second in (
            ("queries", "documents"),
            ("queries", "items"),
            ("text_1", "text_2"),
            ("data_1", "data_2"),
        )
    ),
]


def exact(model, answer):
    """Parse an answer with one of vLLM's models and check that nothing is lost."""
    return TypeAdapter(model).validate_python(answer, strict=False).model_dump(exclude_unset=True)


@pytest.fixture(scope="module")
def scalar():
    with Served(model=RewardModel(Table({"4": 0.5, "7": 1.5})), model_name="judge") as server:
        yield server


@pytest.fixture(scope="module")
def pairwise():
    with Served(model_name="judge") as server:
        yield server


@pytest.mark.parametrize(("path", "body", "request_model", "response_model"), SCALAR)
def test_a_scalar_judge_answers_as_vllm_does(path, body, request_model, response_model, scalar):
    body = {"model": "judge", **body}
    TypeAdapter(request_model).validate_python(body)  # it is a request of vLLM's
    status, answer = scalar.post(path, body)
    assert status == 200, answer
    read = exact(response_model, answer)
    assert read["model"] == "judge" and read == {**answer, "usage": read["usage"]}


@pytest.mark.parametrize(("path", "body", "request_model", "response_model"), PAIRWISE)
def test_a_judge_that_compares_answers_as_vllm_does(path, body, request_model, response_model, pairwise):
    body = {"model": "judge", **body}
    TypeAdapter(request_model).validate_python(body)
    status, answer = pairwise.post(path, body)
    assert status == 200, answer
    read = exact(response_model, answer)
    values = read.get("results") or read["data"]
    assert all(0 <= one.get("score", one.get("relevance_score")) <= 1 for one in values)


def test_a_picture_is_returned_in_vllms_form(pairwise):
    _, answer = pairwise.post("/rerank", {"query": "Which?", "documents": PICTURED})
    parts = [one["document"]["multi_modal"] for one in exact(RerankResponse, answer)["results"]]
    assert [sorted(part["type"] for part in one) for one in parts] == [["image_url", "text"]] * 2


def test_errors_are_vllms(scalar, pairwise):
    for server, path, body, status in (
        (pairwise, "/classify", {"input": CHAT.format("4")}, 400),
        (pairwise, "/pooling", {"input": CHAT.format("4")}, 400),
        (scalar, "/classify", {"input": "plain"}, 400),
        (scalar, "/classify", {"input": CHAT.format("4"), "model": "other"}, 404),
        (pairwise, "/rerank", {"query": "Which?", "documents": ["4"]}, 400),
        (pairwise, "/score", {"text_1": "fails", "text_2": ["4", "7"]}, 502),
    ):
        got, answer = server.post(path, body)
        error = ErrorResponse.model_validate(answer).error
        assert (got, error.code) == (status, status) and error.message
        assert error.type == {400: "BadRequestError", 404: "NotFoundError", 502: "BadGatewayError"}[status]


def test_every_field_of_vllms_requests_is_known_to_us():
    """Every field of vLLM is either read, refused unless neutral, or has no effect on a score."""
    idle = {"user", "request_id", "priority", "cache_salt", "add_special_tokens", "truncation_side"}
    ours = {
        ClassificationRequest: ({*pooling.ClassifyRequest.model_fields, *pooling._NEUTRAL}, idle),
        PoolingRequest: ({*pooling.PoolingRequest.model_fields, *pooling._NEUTRAL}, idle),
        ScoreRequest: ({*rerank.ScoreRequest.model_fields, *rerank._NEUTRAL}, idle),
        RerankRequest: ({*rerank.RerankRequest.model_fields, *rerank._NEUTRAL}, idle),
    }
    for request, (known, without_effect) in ours.items():
        schema = TypeAdapter(request).json_schema()
        named = [schema, *schema.get("$defs", {}).values()]
        models = [one for one in named if "model" in one.get("properties", {})]
        assert models
        for one in models:
            assert set(one["properties"]) <= known | without_effect, (request, one["title"])


def test_the_number_is_the_sigmoid_as_in_vllm(scalar):
    _, answer = scalar.post("/classify", {"input": CHAT.format("7")})
    assert answer["data"][0]["probs"] == pytest.approx([1 / (1 + math.exp(-1.5))])
