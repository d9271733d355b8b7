"""Turn preference pairs into the rows TRL's trainers read, one at a time, so that pictures are decoded when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from r1_reward.data.images import decode_images
from r1_reward.prompt import build_messages, special_tokens_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin


def rl_rows(pairs: Dataset, processor: ProcessorMixin) -> Dataset:
    """Return rows of prompt, images (as stored: `pictures_once.open_pictures` decodes them), preferred."""
    special_tokens = special_tokens_of(processor)

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = _rows_of(batch)
        return {
            "prompt": [prompt_of(row, special_tokens) for row in rows],
            "images": [row["images"] for row in rows],
            "preferred": [row["preferred"] for row in rows],
        }

    return pairs.with_transform(transform)


def sft_rows(pairs: Dataset, processor: ProcessorMixin) -> Dataset:
    """Return rows of prompt, images and completion (the teacher's text); pairs without reasoning are left out."""
    special_tokens = special_tokens_of(processor)
    end = _end_of_turn(processor)

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = _rows_of(batch)
        return {
            "prompt": [prompt_of(row, special_tokens) for row in rows],
            "images": [decode_images(row) for row in rows],
            "completion": [[{"role": "assistant", "content": row["reasoning"] + end}] for row in rows],
        }

    return pairs.filter(lambda reasoning: reasoning is not None, input_columns="reasoning").with_transform(transform)


def prompt_of(row: dict[str, Any], special_tokens: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the judging prompt of one row as chat messages, its text made harmless."""
    return build_messages(
        row["question"],
        row["response_1"],
        row["response_2"],
        images=len(row["images"]),
        special_tokens=special_tokens,
    )


def _end_of_turn(processor: Any) -> str:
    """Return what to write behind the assistant's text so that the model learns to stop there.

    That is nothing where the chat template ends a turn with a token, and the tokenizer's end otherwise (LLaVA 1.5).
    """
    turns = [{"role": role, "content": [{"type": "text", "text": role}]} for role in ("user", "assistant")]
    rendered = processor.apply_chat_template(turns, tokenize=False)
    rest = rendered.rpartition("assistant")[2].lstrip()
    return "" if rest.startswith(special_tokens_of(processor)) else processor.tokenizer.eos_token


def _rows_of(batch: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
