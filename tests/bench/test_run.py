"""Judging pairs: orders are shown as asked, answers come back in the stored order, generation is repeatable."""

from __future__ import annotations

import pytest

from r1_reward.backends import Request, TransformersBackend
from r1_reward.bench.run import judge_pairs
from r1_reward.prompt import build_prompt
from r1_reward.schema import Completion


class FirstIsBetter:
    """A backend that always prefers what it is shown first, and remembers what that was."""

    def __init__(self, processor):
        self.processor = processor
        self.shown = []

    def generate(self, requests, *, n=1, **options):
        self.shown += [request.messages[0]["content"][-1]["text"] for request in requests for _ in range(n)]
        text = "<think>Response 1 is better.</think><answer>1</answer>"
        return [[Completion(text=text, tokens=5)] * n for _ in requests]


@pytest.fixture
def backend(tiny):
    return FirstIsBetter(tiny[1])


def test_both_orders_are_judged_and_translated_back(backend, pairs):
    rows = [pairs[i] for i in range(3)]
    judged = judge_pairs(backend, rows, orders="both")
    assert [[vote.answer for vote in votes] for votes in judged] == [[1, 2]] * 3
    assert [[vote.swapped for vote in votes] for votes in judged] == [[False, True]] * 3
    expected = set()
    for row in rows:
        expected.add(build_prompt(row["question"], row["response_1"], row["response_2"]))
        expected.add(build_prompt(row["question"], row["response_2"], row["response_1"]))
    assert sorted(backend.shown) == sorted(expected)


def test_alternating_votes_favour_no_position(backend, pairs):
    judged = judge_pairs(backend, [pairs[i] for i in range(4)], orders="alternate", votes=5)
    assert [len(votes) for votes in judged] == [5] * 4
    assert [sum(vote.swapped for vote in votes) for votes in judged] == [2, 3, 2, 3]
    assert [sum(vote.answer == 1 for vote in votes) for votes in judged] == [3, 2, 3, 2]


def test_stored_order_only(backend, pairs):
    judged = judge_pairs(backend, [pairs[0]], orders="stored", votes=2)
    assert [vote.answer for vote in judged[0]] == [1, 1]


def requests_of(pairs, count):
    from r1_reward.data.images import decode_images
    from r1_reward.prompt import build_messages

    return [
        Request(build_messages(row["question"], row["response_1"], row["response_2"], images=1), decode_images(row))
        for row in (pairs[i] for i in range(count))
    ]


def test_greedy_does_not_depend_on_the_batch_and_sampling_on_the_seed_only(tiny, pairs):
    requests = requests_of(pairs, 6)
    small = TransformersBackend(*tiny, batch_size=2)
    large = TransformersBackend(*tiny, batch_size=6)
    assert small.generate(requests, max_new_tokens=6) == large.generate(requests, max_new_tokens=6)
    sampled = [large.generate(requests, n=2, temperature=1.0, max_new_tokens=6, seed=s) for s in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert [len(completions) for completions in sampled[0]] == [2] * 6
    assert all(completion.tokens <= 6 for row in sampled[0] for completion in row)


@pytest.mark.parametrize("suppressed", [True, False])
def test_image_tokens_are_sampled_only_without_suppression(tiny, pairs, monkeypatch, suppressed):
    import torch

    model, processor = tiny
    image_token = model.config.image_token_id
    bias = torch.zeros(model.config.text_config.vocab_size)
    bias[image_token] = 1000.0  # by far the likeliest token
    model.lm_head.register_forward_hook(lambda module, inputs, output: output + bias)
    drawn = []
    generate = model.generate

    def spy(**options):
        output = generate(**options)
        drawn.append(output[:, options["input_ids"].size(1) :])
        return output

    monkeypatch.setattr(model, "generate", spy)
    backend = TransformersBackend(model, processor)
    if not suppressed:
        monkeypatch.setattr(backend, "_image_tokens", lambda: None)
    backend.generate(requests_of(pairs, 2), temperature=1.0, max_new_tokens=1)
    assert (drawn[0] == image_token).any().item() is not suppressed
