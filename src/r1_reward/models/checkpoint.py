"""Load a vision-language checkpoint and its processor, or build the tiny Qwen2.5-VL that the demo and the tests train.

The tiny model has the real architecture and random weights: about a million parameters, a tokenizer trained on the spot
whose tokens are words, and the fixed parts of the judging prompt as one token each, so that a prompt is some forty
tokens long and a laptop can train it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1_reward.data.handwriting import vocabulary
from r1_reward.models.vision_attention import pack_vision_attention
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import pairwise_template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

TINY = "tiny"
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


def load_model_and_processor(
    path: str, *, dtype: str = "auto", attn_implementation: str | None = None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load any checkpoint that ``AutoModelForImageTextToText`` knows, with its processor, from a folder or the Hub.

    The name ``tiny`` builds the untrained tiny model instead. LoRA adapters are merged into the model they belong to.
    On a GPU without an ``attn_implementation``, Qwen-VL's vision tower attends to all its windows in one call. In a run
    of several processes the trainer places the weights.

    The processor pads on the left, and its chat template writes the token that begins a text if the tokenizer would
    otherwise add one (LLaVA 1.5), so that every stage reads the same prompt.

    Raises:
        UserError: the checkpoint does not exist, cannot be read, or has no vision tower or no chat template.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from r1_reward.models.adapters import is_adapters, load_adapted

    model: Any
    if path == TINY:
        return _named(build_tiny(vocabulary()), TINY)
    if is_adapters(path):
        model, processor = load_adapted(path, dtype=dtype, attn_implementation=attn_implementation)
        _prepare(processor, path)
        return _named((model, processor), path)
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        raise UserError(f"{path}: no checkpoint here (config.json is missing).")
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot load this checkpoint, locally or from the Hub: {_first_line(error)}"
        ) from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise UserError(
            f"{path}: a {config.model_type} checkpoint has no vision tower; "
            "a multimodal reward model needs an image-text-to-text checkpoint such as Qwen/Qwen2.5-VL-7B-Instruct."
        )
    try:
        model = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype, attn_implementation=attn_implementation)
        processor = AutoProcessor.from_pretrained(path)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(f"{path}: cannot load this checkpoint: {_first_line(error)}") from error
    _prepare(processor, path)
    if torch.cuda.is_available():
        if attn_implementation is None:
            pack_vision_attention(model)
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            model.to("cuda")
    return _named((model, processor), path)


def _named(loaded: tuple[Any, Any], path: str) -> tuple[Any, Any]:
    """Let adapters that are trained on the model find it again from anywhere."""
    loaded[0].name_or_path = os.path.abspath(path) if os.path.isdir(path) else path
    return loaded


def _prepare(processor: Any, path: str) -> None:
    """Make the prompt independent of who tokenises it: TRL's trainers and this package ask in different ways."""
    tokenizer, template = processor.tokenizer, processor.chat_template
    if template is None:
        raise UserError(
            f"{path}: this checkpoint has no chat template; a judge starts from an instruction-tuned checkpoint."
        )
    tokenizer.padding_side = "left"  # TRL leaves it as it is, and pads prompts on the left but their token types not
    bos = tokenizer.bos_token
    if bos is None or not isinstance(template, str) or tokenizer("a")["input_ids"][0] != tokenizer.bos_token_id:
        return
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    if not processor.apply_chat_template(messages, tokenize=False).startswith(bos):
        processor.chat_template = "{{ bos_token }}" + template


def video_frames_of(processor: Any) -> int | None:
    """Return how many frames of a video a checkpoint was trained to be shown; None if it was trained on no video."""
    return getattr(getattr(processor, "image_processor", None), "video_frames", None)


def video_frames_of_checkpoint(path: str) -> int | None:
    """Return the same of a folder or Hub id; None, too, for ``tiny`` and where it cannot be read."""
    from transformers import AutoImageProcessor

    if path == TINY:
        return None
    try:
        return getattr(AutoImageProcessor.from_pretrained(path), "video_frames", None)
    except (OSError, ValueError, ImportError, KeyError):
        return None  # whoever loads the checkpoint says what is wrong with it


def keep_video_frames(processor: Any, frames: int) -> None:
    """Have the processor saved with the number of frames, beside its pixel budget, so that judging shows as many."""
    processor.image_processor.video_frames = frames


def limit_pixels(processor: Any, max_pixels: int) -> None:
    """Make the processor scale larger images down to ``max_pixels``, or cut them into so many tiles fewer (InternVL).

    Raises:
        UserError: this model family does not size images by a pixel budget, or the budget is below one tile.
    """
    from transformers.image_utils import SizeDict

    images = processor.image_processor
    size, name = images.size, type(images).__name__
    if hasattr(images, "max_patches") and getattr(size, "height", None):
        tile = size.height * size.width
        if max_pixels < tile:
            raise UserError(f"max_pixels: {max_pixels} is too few: a tile of {size.width}x{size.height} has {tile}.")
        images.max_patches = min(images.max_patches, max_pixels // tile)
        images.min_patches = min(images.min_patches, images.max_patches)
        return
    # Elsewhere the edges are lengths, not numbers of pixels.
    if not hasattr(images, "temporal_patch_size") or getattr(size, "longest_edge", None) is None:
        raise UserError(f"max_pixels: {name} does not size images by a number of pixels; leave it null.")
    images.size = SizeDict(shortest_edge=min(size.shortest_edge, max_pixels), longest_edge=max_pixels)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def template_chunks() -> list[str]:
    """Return the fixed pieces of the judging prompt; the headings of the responses are pieces of their own."""
    return sorted({chunk for chunk in re.split(CHUNK_BORDERS, pairwise_template()) if chunk and chunk.strip()})


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 1024,
    *,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    roles: Mapping[str, str] = ROLES,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE whose tokens are the words of ``texts``; any other text still round-trips as bytes.

    ``roles`` says which of the ``special_tokens`` is the ``eos_token``, the ``pad_token`` and whatever else the
    processor asks for by name; the default is Qwen-VL's.
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
    """Build a Qwen2.5-VL of about a million random weights with a tokenizer trained on ``texts``.

    One visual token covers 28x28 pixels. The initial weights are wider than the architecture's default, with which a
    model this small stays at chance for many hundred steps.
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
