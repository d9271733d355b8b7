"""Dialects with a system message, for checkpoints whose chat template has none."""

from __future__ import annotations

import pytest

from r1_reward.models.chats import render
from r1_reward.models.text_only import TextProcessor
from r1_reward.models.tiny import train_tokenizer
from r1_reward.models.tiny_words import vocabulary
from r1_reward.records.dialects import find_dialect

TURN = "<|im_start|>{{ message.role + '\n' + %s }}<|im_end|>\n{%% endfor %%}"
REFUSES = (  # as Gemma 2's
    "{%- if messages[0].role == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}"
    "{%- for message in messages -%}" + TURN % "message.content"
)
DROPS = "{%- for message in messages if message.role != 'system' -%}" + TURN % "message.content"
ALTERNATES = (  # as Mistral's
    "{%- for message in messages -%}{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{%- endif -%}" + TURN % "message.content"
)
KEEPS = "{%- for message in messages -%}" + TURN % "message.content"


def text_processor(template: str) -> TextProcessor:
    tokenizer = train_tokenizer(vocabulary())
    tokenizer.chat_template = template
    return TextProcessor(tokenizer)


@pytest.mark.parametrize("template", [REFUSES, DROPS, ALTERNATES], ids=["refuses", "drops", "alternates"])
@pytest.mark.parametrize("name", ["rm-r1", "llm-as-judge"])
def test_the_system_message_is_prepended_to_the_question(name, template):
    system, user = find_dialect(name).messages("Which is larger?", "three", "eight")
    (told,), text = system["content"], user["content"][-1]["text"]
    shown = render(text_processor(template), [system, user])
    assert shown == f"<|im_start|>user\n{told['text']}\n\n{text}<|im_end|>\n"


@pytest.mark.parametrize("name", ["rm-r1", "llm-as-judge"])
def test_a_template_that_supports_it_keeps_its_own_turn(name):
    messages = find_dialect(name).messages("Which is larger?", "three", "eight")
    shown = render(text_processor(KEEPS), messages)
    assert shown.startswith(f"<|im_start|>system\n{messages[0]['content'][0]['text']}<|im_end|>\n<|im_start|>user\n")


def test_images_keep_their_positions_after_it(tiny):
    _, processor = tiny
    kept = processor.chat_template
    messages = find_dialect("llm-as-judge").messages("Which is larger?", "three", "eight", images=1)
    whole = render(processor, messages)
    try:
        processor.chat_template = (
            "{%- if messages[0].role == 'system' -%}{{ raise_exception('no system') }}{%- endif -%}" + kept
        )
        shown = render(processor, messages)
    finally:
        processor.chat_template = kept
    told = messages[0]["content"][0]["text"]
    assert shown.count("<|image_pad|>") == whole.count("<|image_pad|>") == 1
    assert shown.index(told) < shown.index("<|image_pad|>") < shown.index("Which is larger?")


def test_other_chats_are_untouched():
    messages = find_dialect("rm-r1-reasoning").messages("Which is larger?", "three", "eight")
    assert [message["role"] for message in messages] == ["user"]
    assert render(text_processor(REFUSES), messages) == render(text_processor(KEEPS), messages)
