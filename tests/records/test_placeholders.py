"""Image placeholders: found in every family's spelling, compared with the images, named for the judge."""

from __future__ import annotations

import doctest
import time

import pytest

from r1_reward.records import placeholders
from r1_reward.records.placeholders import find_placeholders, mismatch, name_pictures

QWEN = "<|vision_start|><|image_pad|><|vision_end|>"

PLACES = [
    ("no place here", 0),
    ("<|im_start|>user\nWhich?<|im_end|>", 0),
    ("List<Image> of type < image>, and </image>", 0),
    # Qwen-VL, as a template writes it and as a processor expands it
    (QWEN + "Which?", 1),
    (QWEN + QWEN + "Which?", 2),
    ("<|vision_start|>" + "<|image_pad|>" * 99 + "<|vision_end|>Which?", 1),
    ("<|image_pad|>" * 9, 1),
    ("<|vision_start|>" + "<|video_pad|>" * 9 + "<|vision_end|>", 1),
    ("<|vision_bos|><|IMAGE|><|vision_eos|>", 1),
    ("Picture 1: <img>a/b.jpg</img>\nPicture 2: <img>c.jpg</img>", 2),
    # LLaVA and most datasets
    ("<image><image>", 2),
    ("Is <image> after <image>?", 2),
    ("<image>" * 576 + "Which?", 1),
    ("<video>\nWhich?", 1),
    ("<IMAGE>", 1),
    ("<im_start><im_patch><im_patch><im_end>", 1),
    # InternVL
    ("<img><IMG_CONTEXT><IMG_CONTEXT></img>\nWhich?", 1),
    ("<IMG_CONTEXT>\nWhich?", 1),
    ("<ImageHere>Which?", 1),
    # Gemma
    ("<start_of_image>Which?<start_of_image>", 2),
    ("\n\n<start_of_image>" + "<image_soft_token>" * 256 + "<end_of_image>\n\nWhich?", 1),
    ("<image_soft_token>", 1),
    # Mistral
    ("[IMG][IMG]Which?", 2),
    ("[IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END][IMG]", 2),
    # Llama, GLM, Phi, MiniCPM, Kimi, Idefics, Aya, DeepSeek, Aria
    ("<|image|>one<|image|>", 2),
    ("<|image_start|><|image|><|patch|><|tile_x_separator|><|patch|><|image_end|>", 1),
    ("<|begin_of_image|><|image|><|image|><|end_of_image|>", 1),
    ("<|begin_of_video|><|video|><|end_of_video|>", 1),
    ("<|image_1|>\n<|image_2|>\nWhich?", 2),
    ("<|user|>" + "<|endoftext10|>" * 9 + "Which?<|end|>", 1),
    ("<|user|>Which?<|endoftext|>", 0),
    ("[<IMG_PLH>]Which?", 1),
    ("(<image>./</image>)", 1),
    ("<|media_start|>image<|media_content|><|media_pad|><|media_end|>", 1),
    ("<fake_token_around_image><row_1_col_1><image><image><fake_token_around_image><global-img><image>", 1),
    ("<|START_OF_IMG|><|IMG_PATCH|><|IMG_PATCH|><|END_OF_IMG|>", 1),
    ("<image_placeholder>Which?", 1),
    ("<|img|>Which?", 1),
    ("<｜image｜>", 1),
]


def test_examples() -> None:
    assert doctest.testmod(placeholders).failed == 0


@pytest.mark.parametrize(("text", "count"), PLACES)
def test_an_image_is_one_placeholder_however_many_tokens_it_has(text: str, count: int) -> None:
    assert len(find_placeholders(text)) == count
    if "<image>" * 64 not in text:
        assert all(text[place.start : place.end].strip() for place in find_placeholders(text))


@pytest.mark.parametrize(("text", "count"), PLACES)
def test_no_token_reaches_a_judge(text: str, count: int) -> None:
    for named in (name_pictures(text), name_pictures(f"Is {text} there?")):
        assert find_placeholders(named) == []
        assert name_pictures(named) == named


@pytest.mark.parametrize(
    ("text", "before", "named"),
    [
        ("<image>\nWhich digit?", 0, "Which digit?"),
        ("Which digit? <image><image>", 0, "Which digit?"),
        (QWEN + "Which " + QWEN + "?", 0, "image 1 Which image 2?"),
        ("Is <image> taken after <image>?", 2, "Is image 3 taken after image 4?"),
        ("Compare <image><image>and say.", 0, "Compare image 1 image 2 and say."),
        ("In <image 2>, not in <image 1>?", 0, "In image 2, not in image 1?"),
        ("See <video> and <image>.", 0, "See video 1 and image 1."),
        ("Picture 1: <img>a.jpg</img>\nWhich?", 0, "Picture 1: image 1\nWhich?"),
        ("Which?</image>", 0, "Which?"),
        ("Compare <image> with <image>", 0, "Compare image 1 with image 2"),
        ("<image> is older than <image>", 0, "image 1 is older than image 2"),
        ("<image>\n<image>\nWhich is older?", 0, "Which is older?"),
        ("<image> is first.<image>is second. Which?", 0, "image 1 is first. image 2 is second. Which?"),
        ("Which is older? A:<image> B:<image>", 0, "Which is older? A: image 1 B: image 2"),
        ("(a)<image>(b)<image>", 0, "(a) image 1 (b) image 2"),
        ("(<image>) or (<image>)?", 0, "(image 1) or (image 2)?"),
        ("\u200b<image>\ufeff\nWhich?", 0, "\u200b\ufeff\nWhich?"),
        ("Is <image0> older than <image1>?", 0, "Is image 1 older than image 2?"),
        ("<image_0> What is it?", 0, "image 1 What is it?"),
        (" as it is ", 0, " as it is "),
    ],
)
def test_placeholders_inside_a_text_are_named_and_others_are_removed(text: str, before: int, named: str) -> None:
    assert name_pictures(text, before) == named


@pytest.mark.parametrize(
    ("text", "pictures", "reason"),
    [
        ("Which?", 0, None),
        ("Which?", 3, None),
        ("<image>Which?", 1, None),
        ("<image>Which?", 0, "has a placeholder for 1 image (<image>), but none was given"),
        ("<image>Is <image> later?", 1, "has placeholders for 2 images (<image>), but 1 was given"),
        ("<image>Which?", 2, "has a placeholder for 1 image (<image>), but 2 were given"),
        ("[IMG]<image>", 0, "has placeholders for 2 images ([IMG], <image>), but none was given"),
        ("<video>What happens?", 0, "has a placeholder for 1 image (<video>), but none was given"),
        ("<video>What happens?", 8, None),
        ("<video><video>What happens?", 1, "has placeholders for 2 images (<video>), but 1 was given"),
        ("<image 1> or <image 2>, as in <image 1>?", 2, None),
        ("Look at <image 2> only.", 3, None),
        ("<image_0> What is it?", 1, None),
        ("<image0> or <image1>?", 2, None),
        ("<image0> or <image1>?", 1, "has placeholders for 2 images (<image0>, <image1>), but 1 was given"),
        ("<image_0> What is it?", 0, "has a placeholder for 1 image (<image_0>), but none was given"),
        ("Look at <image 2> only.", 1, "has placeholders for 2 images (<image 2>), but 1 was given"),
    ],
)
def test_images_must_match_the_placeholders(text: str, pictures: int, reason: str | None) -> None:
    assert mismatch(find_placeholders(text), pictures) == reason


@pytest.mark.parametrize(
    "text",
    ["<image>" * 7000, "[IMG]" * 10_000, ("<image>" * 63 + " ") * 100, "<img>" * 10_000, "</img>" * 8000, "<" * 50_000],
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    start = time.perf_counter()
    name_pictures(text)
    assert time.perf_counter() - start < 20
