"""Tiny random checkpoints of the vision-language families: real architecture, processor, image slots and chat shape.

Each entry of `FAMILIES` builds a model of a few ten thousand weights and its processor as the family's checkpoints have
them: the same classes, the same special tokens, the same way an image becomes tokens. Only sizes are small, and
tokenizers are trained on the spot.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers as hf
from PIL import Image
from tokenizers.processors import TemplateProcessing

from r1_reward.models.tiny import SPECIAL_TOKENS, train_tokenizer
from r1_reward.models.tiny_words import vocabulary
from r1_reward.records.schema import PreferencePair
from r1_reward.store.pairs import save_pairs

QWEN_CHAT = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% for part in message.content -%}
{%- if part.type == "image" -%}IMAGE
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""
"""The shape of Qwen's, InternVL's and LLaVA-OneVision's chats: IMAGE stands for the slot of a picture."""

LLAVA_CHAT = """\
{%- for message in messages -%}
{{ message.role | upper }}: {% for part in message.content if part.type == "image" -%}<image>
{% endfor -%}
{%- for part in message.content if part.type == "text" -%}{{ part.text }} {% endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}
"""
"""LLaVA 1.5's chat: no token begins it, none ends the assistant's turn; the tokenizer adds <s>."""


class Family(NamedTuple):
    """A tiny checkpoint and what is special about it."""

    build: Callable[[], tuple[Any, Any]]
    image_token: str
    """What the image's features replace."""
    hostile: tuple[str, ...]
    """Strings with a meaning of their own in this family."""

    def save(self, folder: Path) -> None:
        for part in self.build():
            part.save_pretrained(folder)


def new_tokenizer(special: tuple[str, ...] = SPECIAL_TOKENS, **roles: str) -> Any:
    texts = [*vocabulary(), "USER: ASSISTANT: User: Assistant:"]
    tokenizer = train_tokenizer(texts, 900, special_tokens=special, **({"roles": roles} if roles else {}))
    tokenizer.padding_side = "right"  # as the tokenizers of Qwen2.5-VL, InternVL and LLaVA have it
    return tokenizer


def text_sizes(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "initializer_range": 0.3, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id, **more,
    }  # fmt: skip


def ids_of(tokenizer: Any, **names: str) -> dict[str, int]:
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def random_model(kind: type, config: Any, tokenizer: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model: Any = kind(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def qwen_processor(kind: type, tokenizer: Any, video: Any, *, patch: int) -> Any:
    cell = 2 * patch
    pixels = {"shortest_edge": cell * cell, "longest_edge": 64 * cell * cell}
    return kind(
        image_processor=hf.Qwen2VLImageProcessor(size=pixels, patch_size=patch),
        video_processor=video(size=pixels, patch_size=patch),
        tokenizer=tokenizer,
        chat_template=QWEN_CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )


QWEN_IDS = {
    "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
}  # fmt: skip
MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}


def qwen2_vl() -> tuple[Any, Any]:
    tokenizer = new_tokenizer()
    config = hf.Qwen2VLConfig(
        text_config=text_sizes(tokenizer, rope_parameters=MROPE),
        vision_config={
            "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "initializer_range": 0.2,
        },
        **ids_of(tokenizer, **QWEN_IDS),
    )  # fmt: skip
    processor = qwen_processor(hf.Qwen2VLProcessor, tokenizer, hf.Qwen2VLVideoProcessor, patch=14)
    return random_model(hf.Qwen2VLForConditionalGeneration, config, tokenizer), processor


def qwen2_5_vl() -> tuple[Any, Any]:
    tokenizer = new_tokenizer()
    config = hf.Qwen2_5_VLConfig(
        text_config=text_sizes(tokenizer, rope_parameters=MROPE),
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [1], "initializer_range": 0.2,
        },
        **ids_of(tokenizer, **QWEN_IDS),
    )  # fmt: skip
    processor = qwen_processor(hf.Qwen2_5_VLProcessor, tokenizer, hf.Qwen2VLVideoProcessor, patch=14)
    return random_model(hf.Qwen2_5_VLForConditionalGeneration, config, tokenizer), processor


QWEN3_VISION = {
    "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
    "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1], "initializer_range": 0.2,
}  # fmt: skip


def qwen3_vl() -> tuple[Any, Any]:
    tokenizer = new_tokenizer()
    config = hf.Qwen3VLConfig(
        text_config=text_sizes(tokenizer, head_dim=8, rope_parameters=MROPE | {"mrope_interleaved": True}),
        vision_config=QWEN3_VISION,
        **ids_of(tokenizer, **QWEN_IDS),
    )
    processor = qwen_processor(hf.Qwen3VLProcessor, tokenizer, hf.Qwen3VLVideoProcessor, patch=16)
    return random_model(hf.Qwen3VLForConditionalGeneration, config, tokenizer), processor


def internvl() -> tuple[Any, Any]:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    tokenizer = new_tokenizer(
        special, eos_token="<|im_end|>", pad_token="<|endoftext|>", start_image_token="<img>",
        end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    config = hf.InternVLConfig(
        text_config=text_sizes(tokenizer, model_type="qwen2"),
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "image_size": [56, 56], "initializer_range": 0.2,
        },
        image_seq_length=4,
        tie_word_embeddings=False,
        **ids_of(tokenizer, image_token_id="<IMG_CONTEXT>"),
    )  # fmt: skip
    size = {"height": 56, "width": 56}
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=4),
        video_processor=hf.InternVLVideoProcessor(size=size),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=QWEN_CHAT.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    return random_model(hf.InternVLForConditionalGeneration, config, tokenizer), processor


LLAMA_TOKENS = ("<unk>", "<s>", "</s>", "<image>", "<pad>")


def llama_tokenizer() -> Any:
    tokenizer = new_tokenizer(LLAMA_TOKENS, bos_token="<s>", eos_token="</s>", pad_token="<pad>", image_token="<image>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


def llava() -> tuple[Any, Any]:
    tokenizer = llama_tokenizer()
    config = hf.LlavaConfig(
        text_config=text_sizes(tokenizer, model_type="llama"),
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
            "intermediate_size": 64, "image_size": 56, "patch_size": 14, "initializer_factor": 5.0,
        },
        image_seq_length=16,
        **ids_of(tokenizer, image_token_index="<image>"),
    )  # fmt: skip
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_CHAT,
    )
    return random_model(hf.LlavaForConditionalGeneration, config, tokenizer), processor


QWEN_TOKENS = ("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_end|>")
FAMILIES = {
    "qwen2_vl": Family(qwen2_vl, "<|image_pad|>", QWEN_TOKENS),
    "qwen2_5_vl": Family(qwen2_5_vl, "<|image_pad|>", QWEN_TOKENS),
    "qwen3_vl": Family(qwen3_vl, "<|image_pad|>", QWEN_TOKENS),
    "internvl": Family(internvl, "<IMG_CONTEXT>", ("<IMG_CONTEXT>", "<img></img>", "<video>", "<|im_end|>")),
    "llava": Family(llava, "<image>", ("<image>", "<image>\n", "</s>", "<s>", "<pad>")),
}


SIZES = ((56, 56), (112, 56), (56, 140), (84, 84))


def pairs_of_many_sizes(folder: Path, count: int = 8) -> Path:
    """Write a pair file of noise pictures of several sizes under questions of several lengths, and return it."""
    pairs = []
    for i in range(count):
        Image.effect_noise(SIZES[i % 4], 90).convert("RGB").save(folder / f"{i}.png")
        preferred = 1 + i % 2
        pairs.append(
            PreferencePair(
                id=str(i),
                question="Which digit is written top-left?" + " Is it even?" * (i % 3),
                images=[f"{i}.png"],
                response_1="It is one." + " I see two." * (i % 2),
                response_2="It is three.",
                preferred=preferred,
                reasoning=f"<think>I see one. Response {preferred} is better.</think><answer>{preferred}</answer>",
            )
        )
    save_pairs(pairs, folder / "pairs.jsonl")
    return folder / "pairs.jsonl"
