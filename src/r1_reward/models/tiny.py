"""The tiny Qwen2.5-VL that the demo and the tests train.

It has the real architecture with about a million random weights. Its tokenizer, trained on the fly, has words as tokens
and each fixed part of the judging prompt as a single token, so a prompt has about forty tokens and a laptop can train
the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from r1_reward.records.prompt import pairwise_template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

CHUNK_BORDERS = r"\{(?:question|answer1|answer2)\}|(\[Response [12]\]:)\n"
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
ROLES = {
    "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}  # fmt: skip
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else -%}
{%- for part in message.content -%}
{%- if part.type == "image" -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == "video" -%}<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


def template_chunks() -> list[str]:
    """Return the fixed pieces of the judging prompt; the headings of the responses are separate pieces."""
    return sorted({chunk for chunk in re.split(CHUNK_BORDERS, pairwise_template()) if chunk and chunk.strip()})


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 1024,
    *,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    roles: Mapping[str, str] = ROLES,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE whose tokens are the words of ``texts``; any other text still round-trips as bytes.

    ``roles`` maps the ``eos_token``, the ``pad_token`` and other names that the processor needs to ``special_tokens``;
    the default is Qwen-VL's.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r" ?[A-Za-z][A-Za-z-]*| ?[0-9]| ?[^\sA-Za-z0-9]+|\s+"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special_tokens),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    chunks = [*TAGS, *template_chunks()]
    tokenizer.add_tokens([AddedToken(chunk, normalized=False, special=False) for chunk in chunks])
    own = {role: token for role, token in roles.items() if role in ("bos_token", "eos_token", "pad_token")}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **own,
        additional_special_tokens=[token for token in special_tokens if token not in own.values()],
        extra_special_tokens={role: token for role, token in roles.items() if role not in own},
        model_max_length=4096,
        padding_side="left",
    )


def build_tiny(texts: Iterable[str], *, seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Build a Qwen2.5-VL with about a million random weights and a tokenizer trained on ``texts``.

    One visual token covers 28x28 pixels. The initial weights have a larger variance than the architecture's default,
    with which a model this small stays at chance for hundreds of steps.
    """
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = train_tokenizer(texts)
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        video_processor=Qwen2VLVideoProcessor(size=pixels),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
    ids: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 256,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "tie_word_embeddings": True, "initializer_range": 0.07,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
        "bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"],
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 96, "intermediate_size": 192, "num_heads": 4, "patch_size": 14,
        "spatial_merge_size": 2, "out_hidden_size": 128, "fullatt_block_indexes": [0], "initializer_range": 0.05,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    return model, processor
