"""What is removed from a configuration before it is published, and what stays."""

from __future__ import annotations

import pytest

from r1_reward.publish.scrub import scrub


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/data/me/pairs.jsonl", "pairs.jsonl"),
        ("/data/me/my pairs.jsonl", "my pairs.jsonl"),
        ("~/pairs/", "pairs"),
        (r"C:\Users\me\pairs.jsonl", "pairs.jsonl"),
        ("local:/models/Qwen2.5-VL-7B", "local:Qwen2.5-VL-7B"),
        ("server:Qwen/Qwen2.5-VL@http://10.1.2.3:8000/v1", "server:Qwen/Qwen2.5-VL@<address>"),
        ("see /a/b/c.txt, and s3://bucket/key", "see c.txt, and <address>"),
        ("hf_" + "a" * 30, "<secret>"),
        ("runs/rl", "runs/rl"),
        ("../pairs/rows.jsonl", "../pairs/rows.jsonl"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("<think></think><answer>1/2</answer>", "<think></think><answer>1/2</answer>"),
        ("1 / 2", "1 / 2"),
        (1e-6, 1e-6),
        (None, None),
    ],
)
def test_paths_addresses_and_keys_are_removed_and_the_rest_stays(value, expected):
    assert scrub(value) == expected
    assert scrub({"a": [value]}) == {"a": [expected]}


def test_values_of_secret_keys_are_removed_whatever_they_look_like():
    secret = ["token", "hub_token", "hf_token", "HF_TOKEN", "image_hub_token", "api_key", "apikey", "wandb_api_key"]
    secret += ["password", "client_secret", "secret_key", "aws_secret_access_key", "auth_token"]
    given = {**dict.fromkeys(secret, "x"), "max_new_tokens": 8, "hub": {"password": "z"}}
    assert scrub(given) == {**dict.fromkeys(secret), "max_new_tokens": 8, "hub": {"password": None}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eos_token", "<|im_end|>"), ("pad_token", "[PAD]"), ("bos_token", "BOS"), ("image_token", "IMG"),
        ("image_token", "<|image_pad|>"), ("video_token", "<|video_pad|>"), ("boi_token", "<start_of_image>"),
        ("eoi_token", "EOI"), ("vision_start_token", "<|vision_start|>"), ("image_break_token", "[IMG_BREAK]"),
        ("end_of_turn_token", "<end_of_turn>"), ("think_end_token", "</think>"), ("chat_template", "{{ messages }}"),
    ],
)  # fmt: skip
def test_tokenizer_settings_stay(key, value):
    assert scrub({key: value}) == {key: value}


def test_an_access_token_is_removed_under_any_name():
    for secret in ("hf_" + "a" * 30, "sk-" + "b" * 24, "ghp_" + "c" * 36, "AKIA" + "D" * 16):
        assert scrub({"eos_token": secret, "notes": f"use {secret}."}) == {
            "eos_token": "<secret>",
            "notes": "use <secret>.",
        }
