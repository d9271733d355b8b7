"""Pictures for a text-only model: an error says where they are before anything is generated, with any engine."""

from __future__ import annotations

import json
import logging

import pytest
from part_rows import grey, image, text
from scripted_server import reply, status

from r1_reward.bench.report import write_metrics
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.engines.client import TEXT_ONLY, RejectedError, TextOnlyError
from r1_reward.engines.engine import EngineError, ReadsTextOnly, Request
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.refusals import reads_text_only
from r1_reward.engines.server import ServerEngine
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.prepare import InvalidPair, PairToJudge
from r1_reward.judge.reward_model import RewardModel
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.models.text_only import TextProcessor, load_judge
from r1_reward.records.errors import UserError

PLAIN = PairToJudge("Which is larger?", [], "three", "eight")
SEEN = [
    (PairToJudge("q", [], [image(1)], "b"), "response 1 shows a picture"),
    (PairToJudge("q", [], "a", [image(1), text("and"), image(2)]), "response 2 shows 2 pictures"),
    (PairToJudge("q", [grey(1)], "a", "b"), "the question shows a picture"),
    (PairToJudge([text("Like "), image(3)], [grey(1)], "a", [image(1)]),)
    + ("the question shows 2 pictures and response 2 shows a picture",),
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The folder of a tiny text-only checkpoint, saved like its real counterparts."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from r1_reward.models.tiny import train_tokenizer
    from r1_reward.models.tiny_words import vocabulary

    tokenizer = train_tokenizer(vocabulary())
    tokenizer.chat_template = (  # as of a text model: contents are strings
        "{%- for message in messages -%}<|im_start|>{{ message.role + '\n' + message.content }}<|im_end|>\n"
        "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("reader") / "text-judge"
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def judge(reader):
    return RewardModel(EngineSpec(str(reader), batch_size=4).load(), max_new_tokens=5)


# ---- in this process


def test_a_text_model_judges_texts(judge, reader):
    assert isinstance(judge.engine.processor, TextProcessor)
    verdict = judge.compare(*PLAIN)
    assert len(verdict.votes) == 2 and all(vote.tokens for vote in verdict.votes)
    others = [PairToJudge("Which?", [], f"{word} " * 9, "eight") for word in ("one", "two", "four")]
    together = list(judge.compare_many([PLAIN, *others], votes=3, temperature=1.0))
    assert together == [judge.compare(*pair, votes=3, temperature=1.0) for pair in (PLAIN, *others)]
    assert len({vote.text for verdict in together for vote in verdict.votes}) > 1
    assert RewardModel.from_pretrained(str(reader), dtype="float32", max_new_tokens=5).compare(*PLAIN) == verdict


@pytest.mark.parametrize(("pair", "where"), SEEN)
def test_the_error_says_where_a_pair_has_pictures(judge, pair, where):
    asked = []
    generate = judge.engine.model.generate
    judge.engine.model.generate = lambda *args, **options: asked.append(1) or generate(*args, **options)
    with pytest.raises(InvalidPair, match=rf"text-judge reads text only, and {where}$"):
        judge.compare(*pair)
    assert not asked
    turned = pair._replace(response_1=pair.response_2, response_2=pair.response_1)
    with pytest.raises(InvalidPair, match=r"response [12] shows|the question shows"):
        judge.compare(*turned)


def test_the_others_are_judged(judge):
    pairs = [SEEN[0][0], PLAIN, SEEN[1][0], PLAIN, SEEN[2][0]]
    results = list(judge.compare_many(pairs))
    assert [type(result) is InvalidPair for result in results] == [True, False, True, False, True]
    assert results[1] == results[3] == judge.compare(*PLAIN)


def test_the_error_of_any_request_counts_its_pictures(judge):
    request = judge.engine.compare("q", [grey(1), grey(2)], "a", "b")
    plain = judge.engine.compare("q", [], "a", "b", max_new_tokens=3)
    blind, answered = judge.engine.generate([request, plain])
    assert isinstance(blind, ReadsTextOnly) and str(blind).endswith("reads text only, and the prompt shows 2 pictures")
    assert len(answered) == 1


def test_a_picture_never_reaches_a_text_model(judge):
    with pytest.raises(ValueError, match="text only"):
        judge.engine.processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
    with pytest.raises(ValueError, match="text only"):
        judge.engine.processor(text=["a"], images=[[grey(1)]])


def test_picture_options_are_refused(reader, tmp_path):
    with pytest.raises(UserError, match="max_pixels: this model reads text only"):
        EngineSpec(str(reader), max_pixels=10_000).load()
    with pytest.raises(UserError, match="no vision tower"):
        load_model_and_processor(str(reader))  # which training asks
    (reader / "chat_template.jinja").rename(tmp_path / "template")
    try:
        with pytest.raises(UserError, match="text-judge: this checkpoint has no chat template"):
            load_judge(str(reader))
    finally:
        (tmp_path / "template").rename(reader / "chat_template.jinja")
    with pytest.raises(UserError, match="absent: there is no such folder"):
        load_judge(str(tmp_path / "absent"))


def test_a_vision_model_is_loaded_as_before(checkpoint):
    model, processor = load_judge(str(checkpoint))
    assert not isinstance(processor, TextProcessor)
    assert len(next(TransformersEngine(model, processor).generate([Request(*_seen(), max_new_tokens=2)]))) == 1


def _seen():
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}], [grey(9)]


# ---- behind servers

SAYS_SO = [
    (400, {"object": "error", "message": "my-model is not a multimodal model", "type": "BadRequestError"}),
    (400, {"error": {"message": "At most 0 image(s) may be provided in one prompt. (parameter=image)"}}),
    (400, {"error": {"message": "Invalid content type. image_url is only supported by certain models."}}),
    (400, {"error": {"message": "this model does not support image input (ref: 1)", "type": "invalid_request_error"}}),
    (404, {"error": {"message": "No endpoints found that support image input", "code": 404}}),
    (422, {"detail": "Failed to deserialize: messages[0]: unknown variant `image_url`, expected `text`"}),
    (400, {"error": {"message": "messages[0].content must be a string", "type": "invalid_request_error"}}),
    (500, {"error": {"code": 500, "message": "image input is not supported - hint: you may need the mmproj"}}),
    (500, {"error": {"code": 500, "message": 'Failed to parse messages: Unsupported content part type: "image_url"'}}),
    (400, {"error": {"message": "Image input modality is not enabled for models/gemma-3-1b-it"}}),
    (422, {"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "Input should be 'text'"}]}),
    (400, {"error": {"message": "messages.content.type is not valid, it may be ['text']"}}),
    (500, {"error": "this model is missing data required for image input"}),
    (400, {"message": "Vision is not supported by this model."}),
    (400, {"error": {"message": "DeepSeek-R1 only supports text input"}}),
]
SOMETHING_ELSE = [
    "At most 1 image(s) may be provided in one prompt.",
    "At most 10 image(s) may be provided in one prompt.",
    "Unsupported image format: webp",
    "This model does not support image format image/webp",
    "image format not supported",
    "Remote image URLs are not supported",
    "does not support image URLs; send data",
    "cannot identify image file",
    "The image is too large: 9000 pixels",
    "This model's maximum context length is 4096 tokens",
    "temperature is not supported",
    "The model does not support logprobs",
    "Too many images in the request",
]


def refusing(code, body):
    def answer(asked):
        content = asked["messages"][-1]["content"]
        shows = not isinstance(content, str) and any(part["type"] == "image_url" for part in content)
        return status_of(code, body) if shows else reply()

    return answer


def status_of(code, body):
    from fastapi.responses import JSONResponse

    return JSONResponse(body, code)


@pytest.mark.parametrize(("code", "body"), SAYS_SO)
def test_servers_report_it_in_many_ways(code, body):
    assert reads_text_only(json.dumps(body))


@pytest.mark.parametrize("message", SOMETHING_ELSE)
def test_errors_about_some_pictures_are_different(message):
    assert not reads_text_only(json.dumps({"error": {"message": message}}))
    assert not reads_text_only(message)


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize(("code", "body"), SAYS_SO)
def test_a_text_only_server_is_asked_about_pictures_once(server, caplog, code, body):
    server.default = [refusing(code, body)]
    engine = ServerEngine("reader", server.url, concurrency=1, retries=3)
    model = RewardModel(engine)
    with caplog.at_level(logging.WARNING):
        results = list(model.compare_many([SEEN[0][0], PLAIN, *(pair for pair, _ in SEEN), PLAIN]))
    invalid = [result for result in results if isinstance(result, InvalidPair)]
    assert len(invalid) == 5 and not isinstance(results[1], EngineError) and not isinstance(results[-1], EngineError)
    for result, (_, where) in zip(invalid[1:], SEEN, strict=True):
        assert str(result).startswith("reader reads text only (")
        assert str(result).endswith(f"and {where}") and f"it answers {code}" in str(result)
    pictured = [one for one in server.bodies if not isinstance(one["messages"][-1]["content"], str)]
    assert len(pictured) <= 2  # the two orders of the first pair
    said = [record.message for record in caplog.records if "refuses pictures" in record.message]
    assert len(said) == 1 == len(engine.refused)
    engine.close()


@pytest.mark.usefixtures("no_waits")
def test_a_server_that_answered_about_pictures_is_asked_again(server):
    server.default = [reply(), status(400, "my-model is not a multimodal model"), reply()]
    engine = ServerEngine("odd", server.url, concurrency=1)
    requests = [engine.compare("q", [grey(1)], "a", "b")] * 3
    first, second, third = engine.generate(requests)
    assert isinstance(second, TextOnlyError) and second.kind == TEXT_ONLY
    assert isinstance(second, RejectedError) and first == third
    assert not engine.refused
    engine.close()


@pytest.mark.usefixtures("no_waits")
def test_a_picture_limit_concerns_one_request(server):
    def at_most_two(asked):
        content = asked["messages"][-1]["content"]
        many = sum(part["type"] == "image_url" for part in content) > 2
        return status_of(400, {"message": "At most 2 image(s) may be provided in one prompt."}) if many else reply()

    server.default = [at_most_two]
    engine = ServerEngine("judge", server.url)
    results = list(RewardModel(engine).compare_many([SEEN[3][0], SEEN[0][0], SEEN[3][0]]))
    assert [isinstance(result, EngineError) for result in results] == [True, False, True]
    assert "At most 2 image(s)" in str(results[0]) and not isinstance(results[0], InvalidPair)
    engine.close()


def test_a_benchmark_with_pictures_is_not_judged_and_its_report_says_so_once(reader, pair_file, tmp_path):
    loaded = load_suite("pairs", pair_file)
    missing = run_benchmark(loaded, RunSettings(model=str(reader), max_new_tokens=4), tmp_path / "run")
    assert len(missing) == loaded.n > 20
    write_metrics(tmp_path / "run", expected=loaded.n, missing=missing, notes=[])
    report = (tmp_path / "run" / "report.md").read_text()
    assert (
        f"- {loaded.n} rows (0, 1, 2, 3, 4, ...): {reader} reads text only, and the question shows a picture" in report
    )
    assert report.count("reads text only") == 1 and "No row was judged" in report
