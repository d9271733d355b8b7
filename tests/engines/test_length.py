"""Prompts longer than the model's context: reported before anything is generated, and only if they are."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from PIL import Image
from scripted_server import status
from served import Served

from r1_reward.data.scoring.score_file import score_file
from r1_reward.data.scoring.settings import ScoreSettings
from r1_reward.engines.client import RejectedError
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.length import PromptTooLong, new_tokens, position_limit
from r1_reward.engines.scalar import ScalarEngine
from r1_reward.judge.prepare import PairToJudge
from r1_reward.judge.reward_model import RewardModel
from r1_reward.models.scalar import ScalarRewardModel

PICTURE = Image.new("RGB", (280, 280), "red")
SHORT = PairToJudge("Which digit is top-left?", [PICTURE], "three", "eight")
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}


def words(count, word="three "):
    return word * count


LONG = [
    PairToJudge("Which digit?", [PICTURE], words(5000), words(5000, "eight ")),
    PairToJudge("Which digit?", [], words(4200), "eight"),
    PairToJudge(words(4100), [PICTURE], "three", "eight"),
    PairToJudge("Which digit?", [PICTURE] * 64, "three", "eight"),  # 64 tokens each
]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 32_768, "rope_parameters": YARN}, 131_072),
        ({"max_position_embeddings": 131_072, "rope_parameters": YARN}, 131_072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}}, 4096),
        (
            {"max_position_embeddings": 131_072, "rope_parameters": {"full_attention": {"rope_type": "default"}}},
            131_072,
        ),
        ({"max_position_embeddings": None}, None),
        ({}, None),
    ],
)
def test_the_limit_is_that_of_the_text_model(text, limit):
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(**text), max_position_embeddings=7)
    assert position_limit(config) == limit


def test_room_is_what_is_left():
    assert [new_tokens(prompt, 100, 10) for prompt in (0, 90, 95, 100, 200)] == [10, 10, 5, 0, -100]
    assert new_tokens(10_000, None, 10) == 10


def models(tiny, **options):
    model, processor = tiny
    yield RewardModel(TransformersEngine(model, processor, batch_size=8), max_new_tokens=6, **options)
    for critique in (False, True):
        yield RewardModel(ScalarEngine(ScalarRewardModel(model, critique=critique), processor), max_new_tokens=6)


@pytest.mark.parametrize("pair", LONG)
def test_a_prompt_without_room_is_an_error_with_the_numbers(tiny, pair):
    for model in models(tiny):
        with pytest.raises(PromptTooLong, match=r"it has [4-9],\d{3} tokens|it has 1\d,\d{3} tokens") as error:
            model.compare(*pair)
        assert error.value.limit == 4096 < error.value.tokens and "4,096 positions" in str(error.value)
    generative = next(models(tiny))
    with pytest.raises(PromptTooLong) as error:
        generative.compare(*pair)
    assert error.value.pictures == 64 * len(pair.images) and "up to 6 new tokens" in str(error.value)


def test_the_others_are_judged_as_if_alone(tiny):
    for model in models(tiny):
        alone = model.compare(*SHORT)
        before, *failed, after = model.compare_many([SHORT, *LONG[:2], SHORT])
        assert before == after == alone
        assert [type(one) for one in failed] == [PromptTooLong] * 2


def test_several_votes_of_a_short_pair_beside_a_long_one(tiny):
    model = next(models(tiny))
    asked = {"votes": 5, "temperature": 1.0}
    long, short = model.compare_many([LONG[1], SHORT], **asked)
    assert isinstance(long, PromptTooLong) and short == model.compare(*SHORT, **asked)


def test_a_prompt_that_leaves_little_room_is_judged_with_a_warning(tiny, caplog):
    model, processor = tiny
    engine = TransformersEngine(model, processor, batch_size=8)
    judge = RewardModel(engine, max_new_tokens=40)
    request = engine.compare("Which digit?", [], words(1000), "eight")
    short = len(processor.tokenizer(engine._chat(request))["input_ids"])
    nearly = PairToJudge("Which digit?", [], words(1000 + 4096 - short - 9), "eight")
    with caplog.at_level(logging.WARNING):
        first, verdict = judge.compare_many([SHORT, nearly])
    assert {vote.tokens for vote in verdict.votes} <= set(range(1, 10))
    assert all(vote.truncated for vote in verdict.votes if vote.tokens == 9)
    assert caplog.text.count("leaves room for 9 of 40 new tokens") == 1
    assert first == judge.compare(*SHORT) and verdict == judge.compare(*nearly)
    too_long = PairToJudge("Which digit?", [], words(1000 + 4096 - short), "eight")
    with pytest.raises(PromptTooLong, match="4,096 tokens"):
        judge.compare(*too_long)


REFUSALS = [
    "This model's maximum context length is 4096 tokens. However, you requested 10213 tokens (9189 in the messages).",
    "The decoder prompt (length 10213) is longer than the maximum model length of 4096.",
    "The input (10213 tokens) is longer than the model's context length (4096 tokens).",
    "the request exceeds the available context size, try increasing it",
    '{"error": {"code": "context_length_exceeded", "message": "Your input exceeds the context window of this model."}}',
    "prompt is too long: 210000 tokens > 200000 maximum",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 and 1024",
    "Please reduce the length of the messages or completion.",
]


@pytest.mark.parametrize("words", REFUSALS)
def test_a_servers_error_about_the_length_is_recognized(server, words):
    server.default = [status(400, words)]
    judge = RewardModel.from_server(server.url, "judge")
    with pytest.raises(PromptTooLong, match="the prompt is too long for its model") as error:
        judge.compare("Which?", [], "one", "two")
    assert isinstance(error.value, RejectedError) and error.value.kind == "too long"
    assert len(server.bodies) == 2, "asked once in each order"


@pytest.mark.parametrize("words", ["a filter does not let this pass", "unknown field", "the picture is too large"])
def test_other_refusals_are_not_about_the_length(server, words):
    server.default = [status(400, words)]
    with pytest.raises(RejectedError) as error:
        RewardModel.from_server(server.url, "judge").compare("Which?", [], "one", "two")
    assert not isinstance(error.value, PromptTooLong)


def test_over_http_it_is_the_request_that_is_too_large(tiny):
    with Served(model=next(models(tiny))) as served:
        long = {"question": "Which digit?", "response_1": words(5000), "response_2": words(5000, "eight ")}
        responses = {"question": "Which digit?", "responses": [words(5000), "eight"]}
        prompt = "Which digit?"
        query = {"query": [prompt + words(5000), prompt + "eight"], "prompts": [prompt] * 2}
        asked = {"/v1/compare": long, "/v1/rank": responses, "/v1/reward": responses}
        for path, body in asked.items():
            told, answer = served.post(path, body)
            assert told == 413 and "4,096 positions" in answer["error"]["message"], (path, answer)
        told, answer = served.post("/get_reward", query)  # one response does not end a trainer's run
        assert (told, answer["rewards"]) == (200, [None, None])


def test_a_row_without_room_is_one_failed_row(tiny, checkpoint, tmp_path):
    rows = [
        {"id": str(n), "question": "Which?", "images": [], "response_1": "one", "response_2": "two"} for n in range(5)
    ]
    rows[2] = {**rows[2], "response_1": words(4500)}
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = score_file(file, tmp_path / "out.parquet", ScoreSettings(model=str(checkpoint), max_new_tokens=4))
    assert (summary.rows, summary.failed) == (5, 1)
    assert "4,096 positions" in summary.first[0][2]
