"""Train the paper's scalar baselines (method section 5, ablations) on the pair files of every other stage.

*Bradley-Terry*: the preferred answer of a pair should get the higher reward. *Critique-then-score* (MM-RLHF-Reward):
the model also learns to write a critique; the head reads the teacher's in training and the model's own afterwards::

    args = ScalarConfig("runs/scalar", critique=True)
    trainer = scalar_trainer(model, args, train_dataset=pairs, processing_class=processor)
    trainer.train()

A pair has one teacher text for both answers, its ``reasoning``. The critique of each answer is the part of that text
about it (:func:`r1_reward.records.scalar_prompt.critique_of`). If there is no text, or it does not cover both answers,
both critiques are empty and the pair has only the head's loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainingArguments, set_seed

from r1_reward.data.subsets import refuse_ties
from r1_reward.judge.prepare import prepare
from r1_reward.models.scalar import ScalarRewardModel, absolute_name, encode, is_scalar
from r1_reward.records.errors import UserError
from r1_reward.records.scalar_prompt import critique_of
from r1_reward.store.video import FRAMES
from r1_reward.train.progress import ExactResume

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

    from r1_reward.models.scalar import Candidate


@dataclass
class ScalarConfig(TrainingArguments):
    """TrainingArguments for scalar reward models; a batch of n pairs is 2n sequences."""

    critique: bool = field(
        default=False, metadata={"help": "Critique-then-score instead of Bradley-Terry: a critique precedes the score."}
    )
    critique_weight: float = field(
        default=1.0, metadata={"help": "Weight of the critiques' loss relative to the rewards' loss."}
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate, also of the head."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the pairs."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Fixed: batches are built from all columns, so none may be removed."}
    )

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if not (math.isfinite(self.critique_weight) and self.critique_weight >= 0):
            raise ValueError(f"critique_weight must be 0 or more; got {self.critique_weight}.")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must stay false: batches are built from all columns.")


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the scalar mean of -log sigmoid(chosen - rejected) over (B,) rewards in logits."""
    return -torch.nn.functional.logsigmoid(chosen - rejected).mean()


class ScalarTrainer(ExactResume):
    """Trainer of a `ScalarRewardModel`.

    In addition to loss it logs bradley_terry (loss), accuracy (share of pairs whose preferred answer has the higher
    reward), margin (mean difference, in logits) and critique_loss (nats per token), all on the training batches.
    """

    args: ScalarConfig
    model: ScalarRewardModel
    loss_is_scaled_for_ga = False
    kept = ("_seen",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._seen: list[dict[str, float]] = []
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled:
            raise UserError(
                "FSDP: scalar reward models support DDP or DeepSpeed only; use another accelerate configuration."
            )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        """Return the mean loss over the pairs of a batch whose first half are the preferred answers."""
        output = model(**inputs)
        chosen, rejected = output.rewards.chunk(2)
        loss = pairwise = bradley_terry_loss(chosen, rejected)
        parts = {
            "bradley_terry": pairwise,
            "accuracy": (chosen > rejected).float().mean(),
            "margin": (chosen - rejected).mean(),
        }
        if output.critique_loss is not None:
            # Over all rows, 0 without a critique: the loss of a pair does not depend on its batch.
            loss = pairwise + self.args.critique_weight * output.critique_loss.mean()
            parts["critique_loss"] = output.critique_loss.mean()
        gathered = self.accelerator.gather(torch.stack([value.detach() for value in parts.values()])[None])
        if model.training:
            self._seen.append(dict(zip(parts, gathered.mean(dim=0).tolist(), strict=True)))
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last log."""
        if "loss" in logs and self._seen:
            for name in self._seen[0]:
                logs[name] = sum(batch[name] for batch in self._seen) / len(self._seen)
            self._seen.clear()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir or "")
        self.accelerator.unwrap_model(self.model).save(folder, state_dict)
        processor: Any = self.processing_class
        processor.save_pretrained(folder)
        torch.save(self.args, folder / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        (self.model if model is None else model).restore(resume_from_checkpoint)


class PairCollator:
    """Collates rows of a pair file: all preferred answers, then all others, in the same order."""

    def __init__(self, processor: ProcessorMixin, *, critique: bool, video_frames: int = FRAMES) -> None:
        self.processor, self.critique, self.video_frames = processor, critique, video_frames

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the inputs of `ScalarRewardModel.forward`, with two answers per row.

        Raises:
            UserError: A row has no winner, or cannot be rendered.
        """
        refuse_ties(rows)
        pairs = [prepare(row, video_frames=self.video_frames) for row in rows]  # as for a judge
        written = [critiques_of(row["reasoning"]) for row in rows]
        candidates: list[Candidate] = []
        critiques: list[str | None] = []
        for place in (0, 1):
            for row, pair, texts in zip(rows, pairs, written, strict=True):
                number = row["preferred"] if place == 0 else 3 - row["preferred"]
                candidates.append((pair.question, list(pair.images.pictures), pair.responses[number - 1]))
                critiques.append(texts[number - 1] if texts else None)
        return encode(self.processor, candidates, critiques if self.critique else None)


def critiques_of(reasoning: str | None) -> tuple[str, str] | None:
    """Return the critiques of responses 1 and 2 in a pair's reasoning, or None unless it has both.

    If a text covers only one response, the mere presence of a critique would reveal which one is preferred.
    """
    if not reasoning:
        return None
    first, second = critique_of(reasoning, 1), critique_of(reasoning, 2)
    return (first, second) if first and second else None


def scalar_trainer(
    model: Any,
    args: ScalarConfig,
    *,
    train_dataset: Dataset,
    processing_class: Any,
    peft_config: Any = None,
    base_model: str | None = None,
    video_frames: int = FRAMES,
    **kwargs: Any,
) -> ScalarTrainer:
    """Return a trainer that adds a head to ``model``, with LoRA adapters if ``peft_config`` is given.

    ``base_model`` is the name or folder of ``model``, which saved adapters record. Videos are shown as up to
    ``video_frames`` frames.

    Raises:
        UserError: A pair has no winner, critiques are requested but no pair has one, or ``base_model`` is already a
            scalar reward model.
    """
    refuse_ties(train_dataset)
    _check_pairs(train_dataset, critique=args.critique)
    if base_model is not None and is_scalar(base_model):
        raise UserError(
            f"{base_model}: already a scalar reward model, whose head would be lost; use --resume to continue a run."
        )
    set_seed(args.seed)  # the head's weights are drawn here
    if peft_config is not None:
        from peft import get_peft_model

        if args.gradient_checkpointing:
            model.enable_input_require_grads()
        model = get_peft_model(model, peft_config)
    name = absolute_name(base_model) if base_model is not None else None
    return ScalarTrainer(
        ScalarRewardModel(model, critique=args.critique, base_model=name),
        args,
        train_dataset=train_dataset,
        processing_class=processing_class,
        data_collator=PairCollator(processing_class, critique=args.critique, video_frames=video_frames),
        **kwargs,
    )


def _check_pairs(pairs: Dataset, *, critique: bool) -> None:
    if critique and not any(critiques_of(text) for text in pairs["reasoning"]):
        raise UserError(
            "critique: true, but no pair has `reasoning` about each response separately, so there is no critique to "
            "learn from; annotate the pairs with a teacher first, or set critique: false."
        )
