"""What is taken out of a configuration before it is published, and what stays."""

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
def test_paths_addresses_and_keys_go_and_the_rest_stays(value, expected):
    assert scrub(value) == expected
    assert scrub({"a": [value]}) == {"a": [expected]}


def test_values_of_secret_keys_go_whatever_they_look_like():
    given = {"hub_token": "x", "api_key": "y", "eos_token": "<|im_end|>", "max_new_tokens": 8, "hub": {"password": "z"}}
    expected = {**given, "hub_token": None, "api_key": None, "hub": {"password": None}}
    assert scrub(given) == expected
