"""More tiny checkpoints, built as those of `families`, of families whose images become tokens in yet other ways."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from families import (
    FAMILIES,
    MROPE,
    QWEN3_VISION,
    QWEN_CHAT,
    QWEN_IDS,
    QWEN_TOKENS,
    Family,
    ids_of,
    llama_tokenizer,
    new_tokenizer,
    qwen_processor,
    random_model,
    text_sizes,
)
from tokenizers.processors import TemplateProcessing

GRID = [[56, 56], [56, 112], [112, 56], [112, 112]]
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 64, "image_size": 56, "patch_size": 14, "initializer_factor": 5.0,
}  # fmt: skip
SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "image_size": 56, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip

MISTRAL_CHAT = """\
{%- for message in messages -%}
{%- if message.role == "user" -%}[INST] {% for part in message.content -%}
{%- if part.type == "image" -%}<image>
{% else -%}{{ part.text }} {% endif -%}
{%- endfor -%}[/INST]
{%- else -%} {{ message.content[0].text }}</s>
{%- endif -%}
{%- endfor -%}
"""

SMOL_CHAT = """\
<|im_start|>{% for message in messages -%}
{{ message.role | capitalize }}:{% if message.content[0].type != "image" %} {% endif -%}
{%- for part in message.content -%}
{%- if part.type == "image" -%}<image>{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}<end_of_utterance>
{% endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}
"""

GEMMA_CHAT = """\
{{ bos_token }}{%- for message in messages -%}
<start_of_turn>{{ "model" if message.role == "assistant" else message.role }}
{% for part in message.content -%}
{%- if part.type == "image" -%}<start_of_image>{%- else -%}{{ part.text | trim }}{%- endif -%}
{%- endfor -%}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt -%}<start_of_turn>model
{% endif -%}
"""


def qwen3_vl_moe() -> tuple[Any, Any]:
    tokenizer = new_tokenizer()
    config = hf.Qwen3VLMoeConfig(
        text_config=text_sizes(
            tokenizer, head_dim=8, rope_parameters=MROPE | {"mrope_interleaved": True}, num_experts=4,
            num_experts_per_tok=2, moe_intermediate_size=32,
        ),
        vision_config=QWEN3_VISION,
        **ids_of(tokenizer, **QWEN_IDS),
    )  # fmt: skip
    processor = qwen_processor(hf.Qwen3VLProcessor, tokenizer, hf.Qwen3VLVideoProcessor, patch=16)
    return random_model(hf.Qwen3VLMoeForConditionalGeneration, config, tokenizer), processor


def llava_onevision() -> tuple[Any, Any]:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
    tokenizer = new_tokenizer(special, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    config = hf.LlavaOnevisionConfig(
        text_config=text_sizes(tokenizer, model_type="qwen2"),
        vision_config=SIGLIP,
        image_grid_pinpoints=GRID,
        **ids_of(tokenizer, image_token_index="<image>", video_token_index="<video>"),
    )
    size = {"height": 56, "width": 56}
    processor = hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=GRID),
        video_processor=hf.LlavaOnevisionVideoProcessor(size=size),
        tokenizer=tokenizer,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=QWEN_CHAT.replace("IMAGE", "<image>\n"),
    )
    return random_model(hf.LlavaOnevisionForConditionalGeneration, config, tokenizer), processor


def llava_next() -> tuple[Any, Any]:
    tokenizer = llama_tokenizer()
    config = hf.LlavaNextConfig(
        text_config=text_sizes(tokenizer, model_type="mistral"),
        vision_config=CLIP,
        image_grid_pinpoints=GRID,
        image_seq_length=16,
        **ids_of(tokenizer, image_token_index="<image>"),
    )
    processor = hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessor(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=GRID
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=MISTRAL_CHAT,
    )
    return random_model(hf.LlavaNextForConditionalGeneration, config, tokenizer), processor


SMOL_TOKENS = (
    "<|im_start|>", "<|im_end|>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
    *(f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 4)),
)  # fmt: skip


def idefics3(kind: str = "Idefics3") -> tuple[Any, Any]:
    tokenizer = new_tokenizer(
        SMOL_TOKENS, bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>"
    )
    config = getattr(hf, f"{kind}Config")(
        text_config=text_sizes(tokenizer, model_type="llama"),
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "image_size": 56, "patch_size": 14, "initializer_range": 0.2,
        },
        scale_factor=2,
        **ids_of(tokenizer, image_token_id="<image>"),
    )  # fmt: skip
    images = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
    video = {} if kind == "Idefics3" else {"video_processor": hf.SmolVLMVideoProcessor(**images)}
    processor = getattr(hf, f"{kind}Processor")(
        image_processor=getattr(hf, f"{kind}ImageProcessor")(**images),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=SMOL_CHAT,
        **video,
    )
    return random_model(getattr(hf, f"{kind}ForConditionalGeneration"), config, tokenizer), processor


def smolvlm() -> tuple[Any, Any]:
    return idefics3("SmolVLM")


def gemma3() -> tuple[Any, Any]:
    special = (
        "<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
        "<image_soft_token>",
    )  # fmt: skip
    tokenizer = new_tokenizer(
        special, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", boi_token="<start_of_image>",
        eoi_token="<end_of_image>", image_token="<image_soft_token>",
    )  # fmt: skip
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    config = hf.Gemma3Config(
        text_config=text_sizes(tokenizer, head_dim=8, sliding_window=64, query_pre_attn_scalar=8),
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        **ids_of(
            tokenizer, boi_token_index="<start_of_image>", eoi_token_index="<end_of_image>",
            image_token_index="<image_soft_token>",
        ),
    )  # fmt: skip
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=GEMMA_CHAT,
    )
    model = random_model(hf.Gemma3ForConditionalGeneration, config, tokenizer)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # zeros otherwise
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    return model, processor


def qwen3_5() -> tuple[Any, Any]:
    tokenizer = new_tokenizer()
    vision = {key: value for key, value in QWEN3_VISION.items() if key != "deepstack_visual_indexes"}
    config = hf.Qwen3_5Config(
        text_config=text_sizes(
            tokenizer, head_dim=16, rope_parameters=MROPE | {"mrope_interleaved": True, "partial_rotary_factor": 0.5},
            linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
            layer_types=["linear_attention", "full_attention"],
        ),
        vision_config=vision,
        **ids_of(tokenizer, **QWEN_IDS),
    )  # fmt: skip
    processor = qwen_processor(hf.Qwen3VLProcessor, tokenizer, hf.Qwen3VLVideoProcessor, patch=16)
    return random_model(hf.Qwen3_5ForConditionalGeneration, config, tokenizer, seed=1), processor


def mistral3() -> tuple[Any, Any]:
    special = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<pad>")
    tokenizer = new_tokenizer(special, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    config = hf.Mistral3Config(
        text_config=text_sizes(tokenizer, model_type="mistral", head_dim=8),
        vision_config={
            "model_type": "pixtral", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64, "image_size": 140, "patch_size": 14, "head_dim": 16, "initializer_range": 0.2,
        },
        **ids_of(tokenizer, image_token_index="[IMG]"),
    )  # fmt: skip
    processor = hf.PixtralProcessor(
        image_processor=hf.PixtralImageProcessor(size={"longest_edge": 140}, patch_size={"height": 14, "width": 14}),
        tokenizer=tokenizer,
        patch_size=14,
        spatial_merge_size=2,
        chat_template="<s>" + MISTRAL_CHAT.replace("<image>\n", "[IMG]"),
    )
    return random_model(hf.Mistral3ForConditionalGeneration, config, tokenizer), processor


LLAVA_HOSTILE = ("<image>", "</s>", "<s>", "[INST]")
MORE_FAMILIES = {
    "qwen3_vl_moe": Family(qwen3_vl_moe, "<|image_pad|>", QWEN_TOKENS),
    "llava_onevision": Family(llava_onevision, "<image>", ("<image>", "<video>", "<|im_end|>")),
    "llava_next": Family(llava_next, "<image>", LLAVA_HOSTILE),
    "idefics3": Family(idefics3, "<image>", SMOL_TOKENS),
    "smolvlm": Family(smolvlm, "<image>", SMOL_TOKENS),
    "gemma3": Family(
        gemma3, "<image_soft_token>", ("<start_of_image>", "<image_soft_token>", "<end_of_turn>", "<bos>")
    ),
    "qwen3_5": Family(qwen3_5, "<|image_pad|>", QWEN_TOKENS),
    "mistral3": Family(mistral3, "[IMG]", ("[IMG]", "[IMG_BREAK]", "[INST]", "[/INST]", "</s>")),
}

ALL_FAMILIES = FAMILIES | MORE_FAMILIES
