"""Load a vision-language checkpoint and its processor; the name ``tiny`` builds the model of the demo and the tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1_reward.models.tiny import build_tiny
from r1_reward.models.tiny_words import vocabulary
from r1_reward.models.vision_attention import pack_vision_attention
from r1_reward.records.errors import UserError
from r1_reward.store.adapters import adapted_model, is_adapters
from r1_reward.store.hub import checkpoint_folder, refuse_no_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

TINY = "tiny"


def load_model_and_processor(
    path: str, *, dtype: str = "auto", attn_implementation: str | None = None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a checkpoint supported by ``AutoModelForImageTextToText``, with its processor, from a folder or the Hub.

    The name ``tiny`` builds the untrained tiny model instead. LoRA adapters are merged into their base model. On a GPU
    and without ``attn_implementation``, Qwen-VL's vision tower attends to all its windows in one call.

    The model is on the CPU, or sharded under a trainer with ZeRO-3: the trainer places its policy, and
    :func:`r1_reward.models.placing.placed` places any other model.

    The processor pads on the left. Its chat template writes the BOS token if the tokenizer would otherwise add one
    (LLaVA 1.5), so that every stage sees the same prompt.

    Raises:
        UserError: If the checkpoint does not exist, cannot be read, or has no vision tower or no chat template.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    model: Any
    if path == TINY:
        return _named(build_tiny(vocabulary()), TINY)
    if is_adapters(path):
        model, processor = _load_adapted(path, dtype=dtype, attn_implementation=attn_implementation)
        prepare_processor(processor, path)
        return _named((model, processor), path)
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        raise UserError(f"{path}: not a checkpoint (config.json is missing).")
    refuse_no_checkpoint(path)
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
    prepare_processor(processor, path)
    if torch.cuda.is_available() and attn_implementation is None:
        pack_vision_attention(model)
    return _named((model, processor), path)


def _load_adapted(
    path: str, *, dtype: str = "auto", attn_implementation: str | None = None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Return the base model of adapters with the adapters merged into it, and the adapters' processor.

    Raises:
        UserError: If the base model cannot be loaded, or the adapters are damaged or do not fit it.
    """
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoProcessor

    name, folder = adapted_model(path), str(checkpoint_folder(path))
    try:
        base, _ = load_model_and_processor(name, dtype=dtype, attn_implementation=attn_implementation)
    except UserError as error:
        raise UserError(f"{path}: cannot load {name}, the base model of these adapters: {error}") from error
    try:
        model: Any = PeftModel.from_pretrained(base, folder).merge_and_unload()
        model.requires_grad_(True)  # peft froze the base model; training continues on all weights
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot apply these adapters to {name}: {first}") from error
    return model, processor


def _named(loaded: tuple[Any, Any], path: str) -> tuple[Any, Any]:
    """Set an absolute name, so that adapters trained on the model find it from any working directory."""
    loaded[0].name_or_path = os.path.abspath(path) if os.path.isdir(path) else path
    return loaded


def prepare_processor(processor: Any, path: str) -> None:
    """Make prompts independent of the code that tokenizes them; TRL's trainers and this package do it differently.

    Raises:
        UserError: If the checkpoint has no chat template.
    """
    tokenizer, template = processor.tokenizer, processor.chat_template
    if template is None:
        raise UserError(
            f"{path}: this checkpoint has no chat template; a judge starts from an instruction-tuned checkpoint."
        )
    tokenizer.padding_side = "left"  # TRL pads prompts on the left, but not their token types
    bos = tokenizer.bos_token
    if bos is None or not isinstance(template, str) or tokenizer("a")["input_ids"][0] != tokenizer.bos_token_id:
        return
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    if not processor.apply_chat_template(messages, tokenize=False).startswith(bos):
        processor.chat_template = "{{ bos_token }}" + template


def video_frames_of(processor: Any) -> int | None:
    """Return the number of video frames a checkpoint was trained with; None if it was not trained on video."""
    return getattr(getattr(processor, "image_processor", None), "video_frames", None)


def video_frames_of_checkpoint(path: str) -> int | None:
    """Return the same for a folder or Hub id; also None for ``tiny`` and for an unreadable checkpoint."""
    from transformers import AutoImageProcessor

    if path == TINY:
        return None
    try:
        return getattr(AutoImageProcessor.from_pretrained(path), "video_frames", None)
    except (OSError, ValueError, ImportError, KeyError):
        return None  # loading the checkpoint reports the problem


def keep_video_frames(processor: Any, frames: int) -> None:
    """Store the number of video frames in the processor, next to its pixel budget, so that judging uses the same."""
    processor.image_processor.video_frames = frames


def pixel_budget(processor: Any) -> int | None:
    """Return the number of pixels to which a processor downscales larger images; None if its family has no budget."""
    images: Any = getattr(processor, "image_processor", None)
    # In other processors the edges are lengths, not numbers of pixels.
    return getattr(images.size, "longest_edge", None) if hasattr(images, "temporal_patch_size") else None


def limit_pixels(processor: Any, max_pixels: int) -> None:
    """Make the processor downscale larger images to ``max_pixels``, or split them into fewer tiles (InternVL).

    Raises:
        UserError: If this model family has no pixel budget for images, or the budget is below one tile.
    """
    from transformers.image_utils import SizeDict

    images = processor.image_processor
    if images is None:
        raise UserError("max_pixels: this model reads text only; leave it null.")
    size, name = images.size, type(images).__name__
    if hasattr(images, "max_patches") and getattr(size, "height", None):
        tile = size.height * size.width
        if max_pixels < tile:
            raise UserError(f"max_pixels: {max_pixels} is too few; a tile of {size.width}x{size.height} has {tile}.")
        images.max_patches = min(images.max_patches, max_pixels // tile)
        images.min_patches = min(images.min_patches, images.max_patches)
        return
    if pixel_budget(processor) is None:
        raise UserError(f"max_pixels: {name} has no pixel budget; leave it null.")
    images.size = SizeDict(shortest_edge=min(size.shortest_edge, max_pixels), longest_edge=max_pixels)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
