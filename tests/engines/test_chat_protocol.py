"""Requests to a server and replies from it, without a server."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripted_server import JUDGMENT, reply

from r1_reward.engines.chat_protocol import (
    Failure,
    answer_probability,
    chat_messages,
    excerpt,
    read_replies,
    retry_after,
)
from r1_reward.engines.engine import Request


def read(answer):
    [completion] = read_replies(json.dumps(answer).encode(), "application/json; charset=utf-8")
    return completion


def at(token, **top):
    """One token in the form servers list it."""
    alternatives = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in top.items()]
    return {"token": token, "logprob": math.log(top.get(token, 0.5)), "bytes": None, "top_logprobs": alternatives}


def test_pictures_take_the_place_of_image_parts():
    picture = Image.new("RGB", (3, 2), (10, 20, 30))
    picture.putpixel((2, 1), (40, 50, 60))
    content = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "image"}, {"type": "text", "text": "b"}]
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": content}]
    system, user = chat_messages(Request(messages, [picture, Image.new("CMYK", (1, 1))]))
    assert system == {"role": "system", "content": "s"}
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "image_url", "text"]
    head, _, data = user["content"][1]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert (sent.format, sent.mode, sent.size, sent.tobytes()) == ("PNG", "RGB", (3, 2), picture.tobytes())
    assert content[1] == {"type": "image"}, "the caller's messages were changed"


def test_a_single_text_is_sent_as_a_plain_string():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    contents = [
        message["content"] for message in chat_messages(Request([{"content": parts[:1]}, {"content": parts}], []))
    ]
    assert contents == ["a", parts]


@pytest.mark.parametrize(("images", "parts"), [(0, 1), (1, 0), (2, 1)])
def test_the_numbers_of_images_and_parts_must_match(images, parts):
    request = Request([{"role": "user", "content": [{"type": "image"}] * parts}], [Image.new("L", (1, 1))] * images)
    with pytest.raises(ValueError, match=f"{images} images for {parts} image parts"):
        chat_messages(request)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (reply("<answer>2</answer>", reasoning_content="Hm."), "<think>Hm.</think><answer>2</answer>"),
        (reply("<answer>2</answer>", reasoning="Hm."), "<think>Hm.</think><answer>2</answer>"),
        (reply("<answer>2</answer>", reasoning_content="Hm.", reasoning="Hm."), "<think>Hm.</think><answer>2</answer>"),
        (reply(JUDGMENT, reasoning_content="Hm."), JUDGMENT),
        (reply(None, reasoning="So <answer>1</answer>", finish="length"), "<think>So <answer>1</answer></think>"),
        (reply("", reasoning=""), ""),
        (reply(None, refusal="I will not judge."), "I will not judge."),
        (reply("", finish="length"), ""),
        (reply("cut", finish="length"), "cut"),
        (reply("cut", finish="max_tokens"), "cut"),
        (reply("cut", finish="model_length"), "cut"),
    ],
)
def test_what_the_model_said(answer, text):
    completion = read(answer)
    assert completion.text == text
    assert completion.truncated == (answer["choices"][0]["finish_reason"] != "stop")


def part(kind, text, key=None):
    return {"type": kind, key or kind: text}


THOUGHT_AND_TEXT = "<think>Hm.</think><answer>2</answer>"
TEXT = part("text", "<answer>2</answer>")
SUMMARY = part("reasoning", [part("summary_text", "Hm.", "text")], "summary")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        # Magistral
        ([part("thinking", [part("text", "Hm")]), TEXT], "<think>Hm</think><answer>2</answer>"),
        ([part("thinking", [part("text", "H"), part("text", "m.")]), TEXT], THOUGHT_AND_TEXT),
        # Anthropic, with redacted parts; Bedrock; Gemini; the Responses form; OpenAI's assistants
        ([part("thinking", "Hm."), TEXT, {"type": "redacted_thinking", "data": "xyz"}], THOUGHT_AND_TEXT),
        ([{"reasoningContent": {"reasoningText": {"text": "Hm."}}}, {"text": "<answer>2</answer>"}], THOUGHT_AND_TEXT),
        ([{"text": "Hm.", "thought": True}, {"text": "<answer>2</answer>"}], THOUGHT_AND_TEXT),
        ([SUMMARY, part("output_text", "<answer>2</answer>", "text")], THOUGHT_AND_TEXT),
        ([{"type": "text", "text": {"value": "<answer>2</answer>", "annotations": []}}], "<answer>2</answer>"),
        # Texts are joined; thoughts are separated; strings, nulls and other values
        ([part("text", "<answer>"), None, part("text", "2"), "</answer>"], "<answer>2</answer>"),
        ([part("thinking", "One."), part("thinking", "Two."), TEXT], "<think>One.\nTwo.</think><answer>2</answer>"),
        ([TEXT, part("thinking", "Hm.")], THOUGHT_AND_TEXT),
        ([{"type": "image_url", "image_url": {"url": "x"}}, TEXT, part("hologram", "?")], "<answer>2</answer>"),
        ([part("thinking", "So <answer>1</answer>")], "<think>So <answer>1</answer></think>"),
        (TEXT, "<answer>2</answer>"),
        ([], ""),
        # Other kinds, nested lists, a message in a message, bare objects
        ([part("analysis", "Hm.", "text"), part("final", "<answer>2</answer>", "text")], THOUGHT_AND_TEXT),
        ([part("thinking", "Hm.", "content"), part("content", "<answer>2</answer>")], THOUGHT_AND_TEXT),
        ([part("answer", "<answer>2</answer>", "text")], "<answer>2</answer>"),
        ([[part("thinking", "Hm.")], [TEXT]], THOUGHT_AND_TEXT),
        ([part("message", [part("output_text", "<answer>2</answer>", "text")], "content")], "<answer>2</answer>"),
        ({"role": "model", "parts": [{"text": "Hm.", "thought": True}, TEXT]}, THOUGHT_AND_TEXT),
        ({"content": "<answer>2</answer>"}, "<answer>2</answer>"),
        ([part("web_search_result", "found", "text"), TEXT], "<answer>2</answer>"),
        ([part("text", "")], ""),
    ],
)
def test_content_in_parts(content, text):
    assert read(reply(content)).text == text


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "reasoning_details"])
@pytest.mark.parametrize(
    "value", ["Hm.", [part("text", "Hm.")], [part("reasoning.text", "Hm.", "text")], {"text": "Hm."}]
)
def test_reasoning_beside_the_content(field, value):
    assert read(reply([TEXT], **{field: value})).text == THOUGHT_AND_TEXT


@pytest.mark.parametrize("thought", ["<think>Hm.</think>", "<think>Hm.", "\n<think>Hm.</think>\n"])
def test_reasoning_that_keeps_its_tags_gets_no_second_ones(thought):
    assert read(reply("<answer>2</answer>", reasoning=thought)).text == THOUGHT_AND_TEXT


@pytest.mark.parametrize(
    ("content", "refusal"), [("", "No."), (None, {"reason": "x", "text": "No."}), (" ", [part("text", "No.")])]
)
def test_a_refusal_beside_a_blank_text_is_what_the_model_said(content, refusal):
    said = read(reply(content, refusal=refusal))
    assert (said.text, said.refused) == ("No.", True)
    assert not read(reply("<answer>2</answer>", refusal="")).refused


def test_a_refusal_in_parts():
    completion = read(reply([part("refusal", "I will "), part("refusal", "not judge.")]))
    assert (completion.text, completion.refused) == ("I will not judge.", True)
    assert not read(reply([TEXT, part("refusal", "No.")])).refused


# The server's finish reason; whether the limit cut the text; whether it was refused.
ENDS = {
    "stop eos eos_token end_turn STOP stop_sequence COMPLETE anything tool_calls": (False, False),
    "length max_tokens MAX_TOKENS model_length max_output_tokens ERROR_LIMIT model_context_window_exceeded"
    " repetition max_new_tokens token_limit_reached": (
        True,
        False,
    ),
    "content_filter SAFETY refusal RECITATION PROHIBITED_CONTENT sensitive ERROR_TOXIC guardrail_intervened": (
        False,
        True,
    ),
}


@pytest.mark.parametrize(("word", "outcome"), [(word, out) for words, out in ENDS.items() for word in words.split()])
def test_why_a_text_ended(word, outcome):
    completion = read(reply(finish=word))
    assert (completion.truncated, completion.refused) == outcome
    assert completion.finish == word.lower()
    assert completion.text == JUDGMENT


@pytest.mark.parametrize("finish", [None, "", "null", "unknown", 7, {"type": None}])
def test_a_complete_text_without_a_finish_reason(finish):
    completion = read(reply(finish=finish))
    assert (completion.text, completion.truncated, completion.refused) == (JUDGMENT, False, False)
    assert completion.finish == ""


def test_an_answer_without_the_field_is_accepted():
    answer = reply()
    del answer["choices"][0]["finish_reason"]
    assert read(answer).text == JUDGMENT


def test_a_reason_as_an_object():
    assert read(reply(finish={"type": "length", "length": 16})).truncated
    assert not read(reply(finish={"type": "stop", "matched": 2})).truncated


@pytest.mark.parametrize("content", [None, "", []])
def test_a_filter_that_leaves_nothing_is_a_refusal_not_a_failure(content):
    completion = read(reply(content, finish="content_filter"))
    assert (completion.text, completion.refused) == ("", True)


BROKEN = {
    "no choice": ({**reply(), "choices": []}, "field choices"),
    "no choices": ({"object": "chat.completion"}, "field choices"),
    "null": (reply(None), "no text"),
    "null and no reasoning": (reply(None, reasoning_content="", tool_calls=[]), "no text"),
    "an error instead": ({"error": {"message": "overloaded"}}, "overloaded"),
    "broken off": (reply("<answer>1</ans", finish="abort"), "stopped early (finish_reason abort)"),
    "an error": (reply("<answer>1</ans", finish="error"), "stopped early (finish_reason error)"),
    "cancelled": (reply("<answer>1</ans", finish="USER_CANCEL"), "stopped early (finish_reason user_cancel)"),
    "no resources": (reply(finish="insufficient_system_resource"), "stopped early (finish_reason insufficient"),
    "nothing said": (reply(None, finish=None), "no text"),
    "unknown parts": (reply([{"type": "audio", "audio": {}}, {"type": "tool_use"}]), "content of audio, tool_use"),
    "a number": (reply(7), "no text or stopped early (finish_reason stop, content of int)"),
    "a list": ([], "not one complete JSON object"),
    "nothing": (b"", "nothing"),
    "half": (json.dumps(reply()).encode()[:90], "not one complete JSON object"),
    "two": (json.dumps(reply()).encode() * 2, "not one complete JSON object"),
    "no text at all": (b"\xff\x00\x1b[2J", "not one complete JSON object"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_reply_without_a_complete_completion_is_a_failure(name):
    body, reason = BROKEN[name]
    with pytest.raises(Failure) as caught:
        read_replies(body if isinstance(body, bytes) else json.dumps(body).encode(), "application/json")
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.again


@given(st.integers(0, 10_000))
def test_part_of_a_reply_is_never_read_as_the_whole(cut):
    body = json.dumps(reply(logprobs={"content": [at("1", **{"1": 0.5})]})).encode()
    with pytest.raises(Failure):
        read_replies(body[: cut % len(body)], "application/json")


def test_a_page_instead_of_json():
    with pytest.raises(Failure, match="text/html instead of JSON: <html> login"):
        read_replies(b"<html>\nlogin", "text/html; charset=utf-8")


def test_excerpts_are_one_short_line():
    assert excerpt("a\x1b[2J\n\tb\u202e") == "a [2J b"
    assert excerpt("ab " * 100) == "ab " * 66 + "ab..."


def test_tokens_and_the_probability_of_the_answer():
    places = [at("<think></think>"), at("<answer>"), at("1", **{"1": 0.6, "2": 0.2, "3": 0.1}), at("</answer>")]
    unlikely = {**at("2", **{"1": 0.9}), "logprob": math.log(0.1)}  # sampled from below the listed alternatives
    cases = [
        (reply(logprobs={"content": places}), 7, 0.75),
        (reply(logprobs={"content": places}, usage=None), 4, 0.75),
        (reply(logprobs={"content": [*places[:2], unlikely]}), 7, 0.9),
        (reply(logprobs={"content": [places[1], {**places[2], "top_logprobs": None}]}), 7, None),
        (reply(logprobs={"tokens": ["1"], "token_logprobs": [-0.1], "content": 3}), 7, None),
        (reply(logprobs={"content": ["1"]}, usage=None), 0, None),
        (reply(usage=None), 0, None),
    ]
    for answer, tokens, probability in cases:
        completion = read(answer)
        assert completion.tokens == tokens
        assert completion.probability == (probability if probability is None else pytest.approx(probability))


@pytest.mark.parametrize(
    ("answer", "shown", "refused"),
    [
        (reply(), 3, False),
        (reply(usage=None), None, False),
        (reply(None, refusal="I will not judge."), 3, True),
        (reply("<think>Th", finish="content_filter"), 3, True),
        (reply("So be it.", refusal="No."), 3, False),
    ],
)
def test_prompt_tokens_and_refusals(answer, shown, refused):
    completion = read(answer)
    assert (completion.prompt_tokens, completion.refused) == (shown, refused)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.none() | st.integers(0, 99))
def test_several_completions_share_the_counted_tokens(places, counted):
    """``places``: how many log-probabilities each choice has."""
    choices = [
        reply(f"text {i}", logprobs={"content": [at("x", x=0.5)] * own} if own else None)["choices"][0]
        for i, own in enumerate(places)
    ]
    usage = {} if counted is None else {"usage": {"completion_tokens": counted}}
    completions = read_replies(json.dumps({"choices": choices, **usage}).encode(), "application/json")
    assert [completion.text for completion in completions] == [f"text {i}" for i in range(len(places))]
    if counted is None:
        assert [completion.tokens for completion in completions] == places
        return
    shares = [completion.tokens for completion, own in zip(completions, places, strict=False) if not own]
    if len(completions) == 1:
        assert completions[0].tokens == counted
    elif len(shares) == len(completions):
        assert sum(shares) == counted
        assert max(shares) - min(shares) <= 1
    else:
        assert [c.tokens for c, own in zip(completions, places, strict=False) if own] == [n for n in places if n]


def test_one_incomplete_completion_fails_the_reply():
    whole, broken = reply()["choices"][0], reply(None)["choices"][0]
    with pytest.raises(Failure, match="no text"):
        read_replies(json.dumps({"choices": [whole, broken]}).encode(), "application/json")


EVEN = {"1": math.log(0.5), "2": math.log(0.5)}


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([("<answer>", {}), ("2", {"2": math.log(0.6), "1": math.log(0.2)})], 0.25),
        ([("<answer>", {}), ("1", {"1": -0.01, "x": -5.0})], 1.0),
        ([("<answer>", {}), ("2", {"2": 0.0, "1": -math.inf})], 0.0),
        ([("<ans", {}), ("wer", {}), (">1", {">1": math.log(0.3), ">2": math.log(0.1), "1": 0.0}), ("</", {})], 0.75),
        ([("<answer>", {}), ("\n", EVEN), (" 1", {" 1": math.log(0.3), "2": math.log(0.1), "12": 0.0})], 0.75),
        ([("<answer>", {}), ("1</", {"1</": math.log(0.1), "1": math.log(0.1), "2</": math.log(0.2)})], 0.5),
        ([("<think>so <answer>1</answer></think>", {}), ("<answer>", {}), ("1", EVEN)], 0.5),
        ([("<answer>", {}), ("1", EVEN), ("</answer><answer>", {}), ("1", EVEN)], None),
        ([("<think>so <answer>", {}), ("1", EVEN), ("</answer>", {})], None),
        ([("<think>", {}), ("</THINK>", {}), ("<answer>", {}), ("1", EVEN), ("</answer>", {})], 0.5),
        ([("<think></think><answer>", {}), ("1", EVEN), ("</answer>", {}), ("<think>", {})], None),
        ([("<answer>", {}), ("3", EVEN)], None),
        ([("<answer>", {}), ("12", EVEN)], None),
        ([("<answer>", {}), ("1", {})], None),
        ([("<answer>", {}), ("1", {"1": math.nan})], None),
        ([("<answer>", {}), (" ", EVEN)], None),
        ([("1", EVEN)], None),
        ([], None),
    ],
)
def test_answer_probability(tokens, expected):
    assert answer_probability(tokens) == (expected if expected is None else pytest.approx(expected))


@given(st.sets(st.integers(1, 40)), st.floats(-20, 0), st.floats(-20, 0), st.sampled_from(["", " ", "\n "]))
def test_answer_probability_does_not_depend_on_where_tokens_end(cuts, one, two, space):
    text = f"<think>2</think> <answer>{space}1{space}</answer>"
    digit = text.index("1")
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    tokens = []
    for start, end in itertools.pairwise(edges):
        here = text[start:end]
        other = text[start:digit] + "2" + text[digit + 1 : end]
        tokens.append((here, {here: one, other: two} if start <= digit < end else {here: -0.5}))
    assert answer_probability(tokens) == pytest.approx(1 / (1 + math.exp(two - one)))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0), ("", 0), ("7", 7), ("0.5", 0.5), ("-3", 0), ("nan", 0), ("soon", 0), ("inf", math.inf)],
)
def test_retry_after(header, seconds):
    assert retry_after(header) == seconds


def test_retry_after_a_date():
    assert retry_after(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert retry_after(formatdate(time.time() - 30, usegmt=True)) == 0
