"""Turn preference pairs into the rows of TRL's trainers, one at a time, so that pictures are decoded when needed.

Rows are rendered as for a judge: :func:`r1_reward.judge.prepare.prepare` opens a pair, with its pictures in place, its
criteria and the frames of its videos, and :func:`show` builds the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from r1_reward.data.subsets import refuse_ties
from r1_reward.judge.prepare import Prepared, prepare
from r1_reward.models.chats import placed
from r1_reward.records.checks import reasoning_problem
from r1_reward.records.content import pictures_of, places_of
from r1_reward.records.prompt import build_messages, special_tokens_of
from r1_reward.records.schema import CONTENTS
from r1_reward.store.video import FRAMES

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin


def show(pair: Prepared, special_tokens: Iterable[str] = ()) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the judging prompt of a pair as chat messages, and its pictures in the order of their image parts."""
    contents, front = (pair.question, *pair.responses), pair.images.pictures
    messages = build_messages(*contents, images=len(front), special_tokens=special_tokens)
    return messages, [*front, *pictures_of(*contents)]


def shows_video(pairs: Dataset) -> bool:
    """Return whether any pair has a video, next to its texts or inside them."""
    within = (place.kind == "video" for name in CONTENTS for content in pairs[name] for place in places_of(content))
    return any(pairs["video"]) or any(within)


def rl_rows(pairs: Dataset) -> Dataset:
    """Return rows of preferred and the stored pair, which `pictures_once.open_pictures` renders.

    Raises:
        UserError: A pair has no winner.
    """
    refuse_ties(pairs)

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"pair": _rows_of(batch), "preferred": batch["preferred"]}

    return pairs.with_transform(transform)


class Imitated(NamedTuple):
    """The pairs whose reasoning can be imitated, and the reasons why the others cannot."""

    pairs: Dataset
    without: int
    """Number of pairs without reasoning."""
    refused: dict[str, list[str]]
    """Ids of the pairs whose reasoning is blank, lacks a verdict or contradicts the label, by reason."""


def imitated(pairs: Dataset) -> Imitated:
    """Select the pairs to imitate: a text that disagrees with its label would teach the model to contradict itself.

    Raises:
        UserError: A pair has no winner.
    """
    refuse_ties(pairs)
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
    """Return rows of prompt, images and completion (the teacher's text) of the pairs selected by :func:`imitated`."""
    special_tokens = special_tokens_of(processor)
    end = _end_of_turn(processor)
    pairs = imitated(pairs).pairs

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = _rows_of(batch)
        shown = [show(prepare(row, video_frames=video_frames), special_tokens) for row in rows]
        return {
            "prompt": [placed(processor, messages) for messages, _ in shown],
            "images": [pictures for _, pictures in shown],
            "completion": [[{"role": "assistant", "content": row["reasoning"] + end}] for row in rows],
        }

    return pairs.with_transform(transform)


def _end_of_turn(processor: Any) -> str:
    """Return the suffix of the assistant's text from which the model learns to stop.

    It is empty if the chat template ends a turn with a token, and otherwise the tokenizer's EOS token (LLaVA 1.5).
    """
    turns = [{"role": role, "content": [{"type": "text", "text": role}]} for role in ("user", "assistant")]
    rendered = processor.apply_chat_template(turns, tokenize=False)
    rest = rendered.rpartition("assistant")[2].lstrip()
    return "" if rest.startswith(special_tokens_of(processor)) else processor.tokenizer.eos_token


def _rows_of(batch: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
