"""lmms-eval's own judge client against our server: its two scores, its pictures, and refusals of other tasks."""

from __future__ import annotations

import inspect

import pytest

pytest.importorskip("lmms_eval", reason="lmms_eval is not installed: make plugs ARGS=lmms_eval")

import openai
import requests
from lmms_eval.llm_judge import ProviderFactory, Request, ServerConfig
from lmms_eval.llm_judge.base import ServerInterface
from lmms_eval.llm_judge.prompt import COMPARATIVE_JUDGE_PROMPT
from lmms_eval.llm_judge.utils import JudgePromptBuilder, ResponseParser
from lmms_eval.verifiers.openai import OpenAIVerifier
from PIL import Image
from served import Served

from r1_reward.records.two_scores import two_scores

PROVIDERS = ("local", "openai", "async_openai")


@pytest.fixture(scope="module")
def server():
    with Served(model_name="judge", max_images=2) as served:
        yield served


@pytest.fixture(params=PROVIDERS)
def client(request, server, monkeypatch):
    """lmms-eval's client, configured by environment variables as its users do."""
    url = f"http://127.0.0.1:{server.port}/v1"
    monkeypatch.setenv("LLM_JUDGE_URL", f"{url}/chat/completions")
    monkeypatch.setenv("OPENAI_API_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("API_TYPE", request.param)
    made = ProviderFactory.create_provider(config=ServerConfig("judge", num_retries=1, retry_delay=0))
    assert made.is_available()
    return made


@pytest.fixture
def with_openai(client):
    if not hasattr(client, "_add_images_to_messages"):
        pytest.skip("the local provider sends no pictures")
    return client


@pytest.mark.parametrize(("first", "second", "scores"), [("4", "7", (1.9, 9.1)), ("7", "4", (9.1, 1.9))])
def test_two_scores(client, first, second, scores, server):
    result = client.evaluate_comparative("Which is larger?", first, second)
    assert result["scores"] == pytest.approx(scores) and result["success"] and result["model"] == "judge"
    assert server.judge.seen[-1] == ("Which is larger?", first, second)
    assert f"{first} against {second}" in result["raw_response"] and "not grades" in result["raw_response"]


def test_its_other_scale_and_its_context(client, server):
    result = client.evaluate_comparative("Which?", "4", "7", context="Numbers.", score_range=(0, 100))
    assert result["scores"] == pytest.approx((10, 90))
    assert server.judge.seen[-1][0] == "Which?\n\n[Context]\nNumbers."


def test_an_unreadable_judgment_is_its_failure(client):
    assert client.evaluate_comparative("unreadable", "4", "7")["scores"] == (-1.0, -1.0)


def test_pictures_reach_the_judge(with_openai, server):
    pictures = [Image.new("RGB", (30, 20), "red"), Image.new("RGB", (40, 20), "blue")]
    result = with_openai.evaluate_comparative("Which is larger?", "4", "7", images=pictures)
    assert result["scores"] == pytest.approx((1.9, 9.1))
    assert server.judge.images[-1] == [(30, 20), (40, 20)]


def test_its_verifier_counts_the_better_one_as_correct(client):
    verifier = OpenAIVerifier(model="judge", judge_type="comparative", max_retries=1)
    assert verifier.verify("Which is larger?", "7", "4").is_correct is True
    assert verifier.verify("Which is larger?", "4", "7").is_correct is False


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.evaluate_binary("2 + 2?", "4", "4"),
        lambda client: client.evaluate_with_rubric("2 + 2?", "4", {"right": "is it right?"}),
        lambda client: client.evaluate_comparative("2 + 2?", "4", "5", custom_prompt="{response1} or {response2}?"),
        lambda client: client.evaluate_comparative("<image> 2 + 2?", "4", "5"),
    ],
)
def test_other_tasks_are_refused_and_not_judged(client, ask, server):
    before = len(server.judge.seen)
    with pytest.raises((requests.HTTPError, openai.BadRequestError)) as error:
        ask(client)
    answer = getattr(error.value, "response", None)
    told = answer.json()["error"]["message"]
    assert answer.status_code == 400 and ("says which of two responses is better" in told or "picture" in told)
    assert len(server.judge.seen) == before


def test_what_we_rely_on_is_still_there():
    asked = JudgePromptBuilder.build_comparative_prompt("{question}", "{answer1}", "{answer2}")
    assert two_scores(asked).wording() == asked
    for place in ("question", "response1", "response2", "context_section", "min_score", "max_score"):
        assert "{" + place + "}" in COMPARATIVE_JUDGE_PROMPT
    assert ResponseParser.parse_comparative_response("7.75 3.25\nBecause 1 > 0.") == (7.75, 3.25)
    assert ResponseParser.parse_comparative_response("No verdict.\n1 2") == (-1.0, -1.0)
    parameters = inspect.signature(ServerInterface.evaluate_comparative).parameters
    assert [*parameters][:5] == ["self", "question", "response1", "response2", "context"]
    assert {"score_range", "custom_prompt", "images"} <= set(parameters)
    assert {"messages", "images", "config"} <= set(inspect.signature(Request).parameters)
    assert set(PROVIDERS) <= set(ProviderFactory._provider_classes)
