"""What is sent to a server and read from its replies, without one."""

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
    Dialect,
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
    """One token as servers list it."""
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


def test_a_text_alone_travels_as_a_plain_string():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    contents = [
        message["content"] for message in chat_messages(Request([{"content": parts[:1]}, {"content": parts}], []))
    ]
    assert contents == ["a", parts]


@pytest.mark.parametrize(("images", "parts"), [(0, 1), (1, 0), (2, 1)])
def test_as_many_images_as_parts(images, parts):
    request = Request([{"role": "user", "content": [{"type": "image"}] * parts}], [Image.new("L", (1, 1))] * images)
    with pytest.raises(ValueError, match=f"{images} images for {parts} image parts"):
        chat_messages(request)


@pytest.mark.parametrize(("seed", "sent"), [(0, 0), (2**40 + 5, 5), (-1, 2**31 - 1), (2**31 - 1, 2**31 - 1)])
def test_seeds_fit_into_every_server(seed, sent):
    assert Dialect().options(seed, 0.0, 9) == {
        "seed": sent, "temperature": 0.0, "max_tokens": 9, "logprobs": True, "top_logprobs": 5
    }  # fmt: skip


def test_a_dialect_gives_up_only_what_was_refused():
    whole = Dialect()
    assert whole.without("the prompt is too long") == whole
    poor = whole.without("logprobs?").without("Use 'max_completion_tokens'").without("no top_p and logprobs")
    assert poor == Dialect(logprobs=False, top_p=False, limit="max_completion_tokens")
    assert poor.without("logprobs, max_completion_tokens, top_p") == poor
    assert poor.options(1, 0.5, 9) == {"seed": 1, "temperature": 0.5, "max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("refusal", "is_about_n"),
    [
        ("n must be 1 when using greedy sampling, got 4.", True),
        ('{"error": {"message": "bad value", "param": "n"}}', True),
        ("{'detail': \"'n' is not supported\"}", True),
        ("Only one completion choice is allowed", True),
        ("too long\\n\\nsee the log", False),
        ("no such option", False),
    ],
)
def test_several_completions_are_given_up_only_if_that_was_refused(refusal, is_about_n):
    whole = Dialect()
    assert whole.without(refusal, 4) == (whole._replace(several=False) if is_about_n else whole)
    assert whole.without(refusal) == whole, "one completion was asked for"
    assert whole.options(1, 0.5, 9, 4) == {**whole.options(1, 0.5, 9), "n": 4}


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


BROKEN = {
    "no choice": ({**reply(), "choices": []}, "field choices"),
    "no choices": ({"object": "chat.completion"}, "field choices"),
    "null": (reply(None), "no text"),
    "null and no reasoning": (reply(None, reasoning_content="", tool_calls=[]), "no text"),
    "an error instead": ({"error": {"message": "overloaded"}}, "overloaded"),
    "broken off": (reply("<answer>1</ans", finish="abort"), "broke off (finish_reason abort)"),
    "no end": (reply(finish=None), "broke off (finish_reason None)"),
    "a number": (reply(7), "field choices.0.message.content"),
    "a list": ([], "not one complete JSON object"),
    "nothing": (b"", "nothing"),
    "half": (json.dumps(reply()).encode()[:90], "not one complete JSON object"),
    "two": (json.dumps(reply()).encode() * 2, "not one complete JSON object"),
    "no text at all": (b"\xff\x00\x1b[2J", "not one complete JSON object"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_completion_is_a_failure(name):
    body, reason = BROKEN[name]
    with pytest.raises(Failure) as caught:
        read_replies(body if isinstance(body, bytes) else json.dumps(body).encode(), "application/json")
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.again


@given(st.integers(0, 10_000))
def test_no_part_of_a_reply_is_taken_for_the_whole(cut):
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
def test_the_tokens_that_were_shown_and_refusals(answer, shown, refused):
    completion = read(answer)
    assert (completion.prompt_tokens, completion.refused) == (shown, refused)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.none() | st.integers(0, 99))
def test_several_completions_share_the_tokens_that_were_counted(places, counted):
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


def test_one_completion_that_is_not_whole_spoils_the_others():
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
