"""Turn preference pairs into the rows TRL's trainers read, one at a time, so that pictures are decoded when needed.

A video is that many more images: its frames, behind the row's own pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from r1_reward.records.checks import reasoning_problem
from r1_reward.records.prompt import build_messages, special_tokens_of
from r1_reward.store.video import FRAMES, row_pictures

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin


def rl_rows(pairs: Dataset, processor: ProcessorMixin) -> Dataset:
    """Return rows of prompt, images and video (as stored: `pictures_once.open_pictures` opens them), preferred."""
    special_tokens = special_tokens_of(processor)

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = _rows_of(batch)
        return {
            "prompt": [_prompt(row, len(row["images"]), special_tokens) for row in rows],
            "images": [row["images"] for row in rows],
            "video": [row["video"] for row in rows],
            "preferred": [row["preferred"] for row in rows],
        }

    return pairs.with_transform(transform)


class Imitated(NamedTuple):
    """The pairs whose reasoning can be imitated, and why the others cannot."""

    pairs: Dataset
    without: int
    """Pairs that have no reasoning."""
    refused: dict[str, list[str]]
    """Ids of the pairs whose reasoning is blank, has no verdict or another one than the label, by reason."""


def imitated(pairs: Dataset) -> Imitated:
    """Choose the pairs to imitate: a text against its label would teach the model to contradict itself."""
    kept, without = [], 0
    refused: dict[str, list[str]] = {}
    for place, row in enumerate(pairs.select_columns(["id", "reasoning", "preferred"])):
        if row["reasoning"] is None:
            without += 1
        elif reason := reasoning_problem(row):
            refused.setdefault(reason, []).append(row["id"])
        else:
            kept.append(place)
    return Imitated(pairs if len(kept) == len(pairs) else pairs.select(kept), without, refused)


def sft_rows(pairs: Dataset, processor: ProcessorMixin, *, video_frames: int = FRAMES) -> Dataset:
    """Return rows of prompt, images and completion (the teacher's text) of the pairs that :func:`imitated` chooses."""
    special_tokens = special_tokens_of(processor)
    end = _end_of_turn(processor)
    pairs = imitated(pairs).pairs

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = _rows_of(batch)
        images = [row_pictures(row, video_frames) for row in rows]
        return {
            "prompt": [_prompt(row, len(shown), special_tokens) for row, shown in zip(rows, images, strict=True)],
            "images": images,
            "completion": [[{"role": "assistant", "content": row["reasoning"] + end}] for row in rows],
        }

    return pairs.with_transform(transform)


def _prompt(row: dict[str, Any], images: int, special_tokens: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the judging prompt of one row as chat messages with so many pictures, its text made harmless."""
    return build_messages(
        row["question"],
        row["response_1"],
        row["response_2"],
        images=images,
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
