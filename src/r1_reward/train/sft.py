"""Cold start: fine-tuning on the teacher's reasoning with TRL's SFTTrainer, with the loss on the response only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trl import SFTConfig, SFTTrainer

from r1_reward.records.errors import UserError
from r1_reward.store.video import FRAMES
from r1_reward.train.progress import ExactResume
from r1_reward.train.rows import Imitated, imitated, sft_rows
from r1_reward.train.sharded import WholeCheckpoints

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


@dataclass
class ColdStartConfig(SFTConfig):
    """SFTConfig with the paper's cold-start values (method section 4)."""

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the pairs that have reasoning."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Rows are built from all columns as they are read, so none may be removed."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Truncate sequences here; null keeps them whole, with all image tokens."}
    )


class ColdStartTrainer(WholeCheckpoints, ExactResume, SFTTrainer):
    """SFTTrainer whose loss is the mean over the tokens of the global batch, however it is split.

    The global batch is what all processes and accumulation steps contribute to one update. This fixes two problems:
    transformers counts its tokens only if the model's ``forward`` accepts the count, which Qwen-VL's does not, although
    it is SFTTrainer that divides by it; and accelerate repeats rows at the end of an epoch until all processes have the
    same number.
    """

    kept = ("_metrics", "_total_train_tokens")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Return the micro-batches of an update and their number of target tokens in all processes."""
        return super().get_batch_samples(map(self._without_repeated_rows, epoch_iterator), num_batches, device)

    def _without_repeated_rows(self, batch: Any) -> Any:
        size, accelerator = self._train_batch_size, self.accelerator
        rows: Any = self.train_dataset
        left = len(rows) % (size * accelerator.num_processes)
        if left and accelerator.gradient_state.end_of_dataloader and not self.args.dataloader_drop_last:
            # The remaining rows are on the first processes.
            batch["labels"][max(left - accelerator.process_index * size, 0) :] = -100
        return batch


def sft_trainer(
    model: Any,
    args: ColdStartConfig,
    *,
    train_dataset: Dataset,
    processing_class: Any,
    video_frames: int = FRAMES,
    **kwargs: Any,
) -> ColdStartTrainer:
    """Return a trainer over the pairs with the teacher's reasoning; videos are shown as ``video_frames`` frames.

    Pairs whose reasoning is missing, blank, lacks a verdict or contradicts the label are left out, and a warning counts
    them.

    Raises:
        UserError: No pair is left.
    """
    chosen = imitated(train_dataset)
    left_out = "; ".join(_left_out(chosen))
    if len(chosen.pairs) == 0:
        why = f" ({left_out})" if chosen.refused else ""
        raise UserError(
            f"No pair has usable `reasoning`{why}, so there is nothing to imitate; annotate the pairs with a "
            "teacher first."
        )
    if left_out and args.process_index == 0:
        logger.warning("Training on %d of %d pairs; left out: %s.", len(chosen.pairs), len(train_dataset), left_out)
    rows = sft_rows(chosen.pairs, processing_class, video_frames=video_frames)
    return ColdStartTrainer(model, args=args, train_dataset=rows, processing_class=processing_class, **kwargs)


def _left_out(chosen: Imitated) -> Iterator[str]:
    if chosen.without:
        yield f"{chosen.without:,} without reasoning"
    for reason, ids in chosen.refused.items():
        yield f"{len(ids):,} whose reasoning {reason} (e.g. id {ids[0]})"
