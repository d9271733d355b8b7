"""Text-only judges, for text benchmarks and for referees.

    model, processor = load_judge("Qwen/Qwen2.5-7B-Instruct")        # or any image-text checkpoint

With such a processor, an engine answers requests with images by :class:`~r1_reward.engines.engine.ReadsTextOnly`.
Training requires a vision model, loaded by :func:`~r1_reward.models.checkpoint.load_model_and_processor`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from r1_reward.models.checkpoint import TINY, load_model_and_processor, prepare_processor
from r1_reward.records.errors import UserError


class TextProcessor:
    """A tokenizer with the interface of a processor."""

    image_processor = None

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.tokenizer, self.chat_template = tokenizer, tokenizer.chat_template

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        """Render a chat of text parts with the tokenizer's template, which supports only plain strings.

        Raises:
            ValueError: If a part is not text.
        """
        plain = [{**message, "content": _text_of(message["content"])} for message in messages]
        if isinstance(self.chat_template, str):  # a tokenizer with several templates chooses itself
            options = {"chat_template": self.chat_template, **options}
        return self.tokenizer.apply_chat_template(plain, **options)

    def __call__(self, text: list[str], images: None = None, **options: Any) -> Any:
        """Return the encoded texts.

        Raises:
            ValueError: If there are images.
        """
        if images is not None:
            raise ValueError("a model that reads text only was given images")
        return self.tokenizer(text, **options)


def load_judge(path: str, *, dtype: str = "auto") -> tuple[Any, Any]:
    """Load a judge's checkpoint, image-text or text-only, and its processor.

    Raises:
        UserError: If the checkpoint does not exist, cannot be read, or has no chat template.
    """
    return _load_text(path, dtype) if _is_text_only(path) else load_model_and_processor(path, dtype=dtype)


def load_chats(path: str) -> Any:
    """Load a judge's processor without the weights, for engines that load those themselves.

    Raises:
        UserError: If the checkpoint does not exist, cannot be read, or has no chat template.
    """
    from transformers import AutoProcessor, AutoTokenizer

    try:
        if _is_text_only(path):
            processor: Any = TextProcessor(AutoTokenizer.from_pretrained(path))
        else:
            processor = AutoProcessor.from_pretrained(path)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot load this checkpoint: {first}") from error
    prepare_processor(processor, path)
    return processor


def _is_text_only(path: str) -> bool:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config: Any = None
    if path != TINY:
        with suppress(OSError, ValueError):  # the loader of image-text checkpoints reports the problem
            config = type(AutoConfig.from_pretrained(path))
    sees = config in AutoModelForImageTextToText._model_mapping
    return config in AutoModelForCausalLM._model_mapping and not sees


def _load_text(path: str, dtype: str) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        processor = TextProcessor(AutoTokenizer.from_pretrained(path))
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot load this checkpoint: {first}") from error
    prepare_processor(processor, path)
    return model, processor


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if any(part.get("type") != "text" for part in content):
        raise ValueError("a model that reads text only was shown an image")
    return "".join(part["text"] for part in content)
