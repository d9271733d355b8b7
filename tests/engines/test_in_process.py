"""Generation in process: independent of batching, one completion per seed, one prompt encoding, probabilities."""

from __future__ import annotations

import random

import pytest
import torch
from fakes import make_special

from r1_reward.engines.engine import Request
from r1_reward.engines.in_process import TransformersEngine, _batches
from r1_reward.engines.tokens import text_decoder
from r1_reward.judge.votes import read_judgment
from r1_reward.records.parsing import answer_position
from r1_reward.records.prompt import build_messages
from r1_reward.store.images import decode_images


def requests_of(pairs, count, votes=1):
    return [
        Request(
            build_messages(row["question"], row["response_1"], row["response_2"], images=1),
            decode_images(row),
            tuple(range(100 * i, 100 * i + votes)),
        )
        for i, row in enumerate(pairs[i] for i in range(count))
    ]


def generated(engine, requests, **options):
    return list(engine.generate(request._replace(**options) for request in requests))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_batch_does_not_matter(tiny, pairs, temperature):
    requests = requests_of(pairs, 7, votes=3)
    options = {"temperature": temperature, "max_new_tokens": 8}
    alone = [generated(TransformersEngine(*tiny), [request], **options)[0] for request in requests]
    for batch_size in (1, 2, 5, 64):
        together = generated(TransformersEngine(*tiny, batch_size=batch_size), requests, **options)
        assert [[c.text for c in row] for row in together] == [[c.text for c in row] for row in alone]


def test_each_seed_draws_its_own_completion_reproducibly(tiny, pairs):
    engine = TransformersEngine(*tiny)
    (first,) = generated(engine, requests_of(pairs, 1, votes=6), temperature=1.0, max_new_tokens=8)
    (again,) = generated(engine, requests_of(pairs, 1, votes=6), temperature=1.0, max_new_tokens=8)
    assert first == again
    assert len({completion.text for completion in first}) == 6
    (greedy,) = generated(engine, requests_of(pairs, 1, votes=6), max_new_tokens=8)
    assert len({completion.text for completion in greedy}) == 1


def test_sampling_follows_the_model(tiny, pairs):
    """First tokens drawn with many seeds occur as often as the model's own probabilities say."""
    model, processor = tiny
    request = requests_of(pairs, 1)[0]._replace(seeds=tuple(range(4000)))
    engine = TransformersEngine(model, processor, batch_size=4000)
    bias = torch.zeros(model.config.text_config.vocab_size)
    bias[:] = -50.0
    words = [processor.tokenizer.convert_tokens_to_ids(t) for t in ("1", "2", "<think>")]
    bias[words] = torch.tensor([0.0, 1.0, 2.0])
    model.lm_head.register_forward_hook(lambda module, inputs, output: bias.expand_as(output).clone())
    (drawn,) = generated(engine, [request], temperature=2.0, max_new_tokens=1)
    expected = torch.softmax(torch.tensor([0.0, 1.0, 2.0]) / 2.0, 0)
    for text, share in zip(("1", "2", "<think>"), expected.tolist(), strict=True):
        found = sum(completion.text == text for completion in drawn) / 4000
        assert found == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


def test_the_picture_is_encoded_once_however_many_votes(tiny, pairs, monkeypatch):
    model, processor = tiny
    seen = []
    forward = model.model.visual.forward

    def spy(pixels, *args, **options):
        seen.append(len(pixels))
        return forward(pixels, *args, **options)

    monkeypatch.setattr(model.model.visual, "forward", spy)
    engine = TransformersEngine(model, processor, batch_size=64)
    generated(engine, requests_of(pairs, 2), max_new_tokens=3)
    generated(engine, requests_of(pairs, 2, votes=15), temperature=1.0, max_new_tokens=3)
    once, for_all_votes = seen
    assert once == for_all_votes


def test_a_cache_that_cannot_be_repeated_is_worked_around(tiny, pairs, monkeypatch):
    requests = requests_of(pairs, 3, votes=4)
    engine = TransformersEngine(*tiny)
    shared = generated(engine, requests, temperature=1.0, max_new_tokens=6)
    monkeypatch.setattr(engine, "_shared_prefix", lambda inputs, counts: None)
    assert [[c.text for c in r] for r in generated(engine, requests, temperature=1.0, max_new_tokens=6)] == [
        [c.text for c in r] for r in shared
    ]


def test_the_cache_goes_back_under_the_name_it_came_with(tiny, pairs, monkeypatch):
    """Since transformers 5.24 it is ``cache``, and the older name draws a warning."""
    requests, taken = requests_of(pairs, 3, votes=4), []
    engine = TransformersEngine(*tiny)
    expected = generated(engine, requests, temperature=1.0, max_new_tokens=6)
    generate = engine._call_generate

    def renamed(inputs, max_new_tokens, **options):
        taken.append("cache" in inputs and "past_key_values" not in inputs)
        given = {"past_key_values" if name == "cache" else name: value for name, value in inputs.items()}
        output = generate(given, max_new_tokens, **options)
        if not options.get("return_dict_in_generate"):
            return output
        return {"cache": output["cache" if "cache" in output else "past_key_values"]}

    monkeypatch.setattr(engine, "_call_generate", renamed)
    assert generated(engine, requests, temperature=1.0, max_new_tokens=6) == expected
    assert taken == [False, True]


def test_requests_are_taken_a_window_at_a_time(tiny, pairs):
    taken = []

    def stream():
        for request in requests_of(pairs, 20):
            taken.append(1)
            yield request._replace(max_new_tokens=1)

    results = TransformersEngine(*tiny, batch_size=2).generate(stream())
    next(results)
    assert len(taken) == 8


@pytest.mark.parametrize("text", [
    "<think>so</think><answer>1</answer>",
    "<think>a draft <answer>2</answer> first</think><answer>1</answer>",
])  # fmt: skip
def test_probability_is_the_models_own_at_the_answer(tiny, pairs, text):
    """Force the model to write an answer and compare with a plain forward pass over prompt and text."""
    model, processor = tiny
    tokenizer = processor.tokenizer
    script = tokenizer(text, add_special_tokens=False)["input_ids"]
    request = requests_of(pairs, 1)[0]
    engine = TransformersEngine(model, processor)
    one, two = (tokenizer.convert_tokens_to_ids(digit) for digit in "12")
    answer_at = len(script) - 1 - script[::-1].index(one)

    def forced(inputs, max_new_tokens, **options):
        rows = inputs["input_ids"]
        for step, token in enumerate([*script, tokenizer.eos_token_id]):
            text = {
                "input_ids": rows,
                "attention_mask": torch.ones_like(rows),
                "mm_token_type_ids": (rows == model.config.image_token_id).int(),
            }
            logits = model(**{**inputs, **text}).logits[:, -1]
            options["logits_processor"][0](rows, logits)
            if step == answer_at:
                wanted.append(torch.softmax(logits[0, [one, two]], 0)[0].item())
            rows = torch.cat([rows, torch.tensor([[token]])], dim=1)
        return rows

    wanted: list[float] = []
    engine._call_generate = forced
    ((completion,),) = generated(engine, [request], max_new_tokens=30)
    assert completion.text == text
    assert completion.probability == pytest.approx(wanted[0], abs=1e-4)


def writing(tiny, text, *, ends=False):
    """Return an engine whose model writes this text, ends or not, and is undecided between 1 and 2."""
    model, processor = tiny
    script = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    script += [processor.tokenizer.eos_token_id] * ends

    def forced(inputs, max_new_tokens, **options):
        rows = inputs["input_ids"]
        for token in script:
            logits = torch.zeros(len(rows), model.config.text_config.vocab_size)
            options["logits_processor"][0](rows, logits)
            rows = torch.cat([rows, torch.full((len(rows), 1), token)], dim=1)
        return rows

    engine = TransformersEngine(model, processor)
    engine._call_generate = forced
    engine._shared_prefix = lambda inputs, counts: None
    return engine


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("text", [
    "<think>a draft <answer>2</answer> first</think>I would say one.", "<think>so</think><answer>1", "<answer>2",
    "<think>a draft <answer>2</answer> first", "<think>so</think>one<think>a draft <answer>2</answer>",
])  # fmt: skip
def test_a_draft_inside_a_thought_has_no_probability(tiny, pairs, text, ends):
    """The same goes for a tag that is never closed: without an answer there is no probability of it."""
    ((completion,),) = generated(writing(tiny, text, ends=ends), requests_of(pairs, 1), max_new_tokens=30)
    assert (completion.text, completion.truncated) == (text, not ends)
    assert completion.probability is read_judgment(completion, swapped=False).answer is None


OPENING = "{% if add_generation_prompt %}<think>\n{% endif %}"


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize(("text", "answer"), [
    ("a draft <answer>2</answer>", None), ("a draft <answer>2</answer> first", None), ("<answer>2</answer>", None),
    ("a draft <answer>1</answer> first</think><answer>2</answer>", 2), ("so</think><answer>2</answer> then", 2),
])  # fmt: skip
def test_a_thought_that_the_template_opens_is_a_thought(tiny, pairs, text, answer, ends):
    tiny[1].chat_template += OPENING
    two_votes = requests_of(pairs, 1, votes=2)
    for completion in generated(writing(tiny, text, ends=ends), two_votes, max_new_tokens=30)[0]:
        assert completion.text == "<think>" + text
        judgment = read_judgment(completion, swapped=False)
        assert judgment.answer == answer
        assert completion.probability == judgment.probability == (None if answer is None else 0.5)


@pytest.mark.parametrize(("text", "ends", "answer"), [
    ("<answer>2</answer>", True, 2), ("so <answer>2</answer>", True, 2), ("so <answer>2</answer>", False, None),
    ("<think>so</think><answer>2</answer>", False, 2),
])  # fmt: skip
def test_without_such_a_template_the_text_is_unchanged(tiny, pairs, text, ends, answer):
    ((completion,),) = generated(writing(tiny, text, ends=ends), requests_of(pairs, 1), max_new_tokens=30)
    assert completion.text == text
    assert read_judgment(completion, swapped=False).answer == answer
    assert completion.probability == (None if answer is None else 0.5)


TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@pytest.mark.parametrize("special", [TAGS[:2], TAGS[2:], TAGS])
@pytest.mark.parametrize(("text", "answer"), [
    ("<think>a draft <answer>2</answer> first</think><answer>1</answer>", 1),
    ("<think>a draft <answer>2</answer> first", None),
])  # fmt: skip
def test_tags_that_the_tokenizer_calls_special_are_read(tiny, pairs, text, answer, special):
    make_special(tiny[1].tokenizer, special)
    ((completion,),) = generated(writing(tiny, text, ends=True), requests_of(pairs, 1), max_new_tokens=30)
    assert completion.text == text
    assert read_judgment(completion, swapped=False).answer == answer
    assert completion.probability == (None if answer is None else 0.5)


def test_other_special_tokens_are_left_out_of_the_text(tiny):
    tokenizer = tiny[1].tokenizer
    make_special(tokenizer, TAGS)
    written = "<think>so<|vision_start|></think><|im_end|><answer>1</answer><|endoftext|>"
    tokens = tokenizer(written, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "so1"
    assert text_decoder(tokenizer)(tokens) == "<think>so</think><answer>1</answer>"


def test_without_special_tags_the_text_is_the_tokenizers_own(tiny):
    tokenizer = tiny[1].tokenizer
    decode, rng = text_decoder(tokenizer), random.Random(0)
    for _ in range(50):
        tokens = [rng.randrange(len(tokenizer)) for _ in range(30)]
        assert decode(tokens) == tokenizer.decode(tokens, skip_special_tokens=True)


def test_a_draft_is_not_taken_for_an_answer_that_has_no_token_of_its_own():
    """The answer's digit is part of the token "1</answer>", so the last bare digit is in the thought."""
    words = ["<think>", "<answer>", "2", "</answer>", "</think>", "<answer>", "1</answer>"]

    def decode(tokens):
        return "".join(words[token] for token in tokens)

    assert answer_position(range(7), {2}, decode) is None
    assert answer_position(range(4), {2}, decode) == 2


@pytest.mark.parametrize(("margin", "probability"), [
    (-2000.0, 0.0), (2000.0, 1.0), (0.0, 0.5), (2.0, 0.8808), (8.0, 0.999665), (12.0, 0.999994), (-12.0, 6e-06),
])  # fmt: skip
def test_probabilities_are_rounded_but_not_to_certainty_and_no_margin_overflows(tiny, margin, probability):
    model, processor = tiny
    row = processor.tokenizer("<think>so</think><answer>1</answer>", add_special_tokens=False)["input_ids"]
    (completion,) = TransformersEngine(model, processor)._read([row], torch.full((len(row), 1), margin), ["?"])
    assert completion.probability == probability


def test_without_an_answer_there_is_no_probability(tiny, pairs):
    ((completion,),) = generated(TransformersEngine(*tiny), requests_of(pairs, 1), max_new_tokens=2)
    assert completion.probability is None
    assert completion.truncated


def test_batches_hold_every_seed_once_and_never_too_many():
    counts = [1, 15, 3, 40, 2]
    batches = list(_batches([4, 2, 0, 1, 3], counts, 16))
    assert all(sum(part.stop - part.start for _, part in batch) <= 16 for batch in batches)
    seen = sorted((i, seed) for batch in batches for i, part in batch for seed in range(part.start, part.stop))
    assert seen == [(i, seed) for i, count in enumerate(counts) for seed in range(count)]


@pytest.mark.parametrize("suppressed", [True, False])
def test_image_tokens_are_sampled_only_without_suppression(tiny, pairs, monkeypatch, suppressed):
    model, processor = tiny
    image_token = model.config.image_token_id
    bias = torch.zeros(model.config.text_config.vocab_size)
    bias[image_token] = 1000.0  # by far the most likely token
    model.lm_head.register_forward_hook(lambda module, inputs, output: output + bias)
    drawn = []
    generate = model.generate

    def spy(**options):
        output = generate(**options)
        drawn.append(output[:, options["input_ids"].size(1) :])
        return output

    monkeypatch.setattr(model, "generate", spy)
    engine = TransformersEngine(model, processor)
    if not suppressed:
        monkeypatch.setattr(engine, "_image_tokens", lambda: None)
    generated(engine, requests_of(pairs, 2), temperature=1.0, max_new_tokens=1)
    assert (drawn[0] == image_token).any().item() is not suppressed
