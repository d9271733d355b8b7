"""Base of our GRPOTrainer, independent of the algorithm: pictures in every forward pass, exact resuming, reductions.

:mod:`r1_reward.train.rl` adds rewards, advantages and the loss. TRL owns rollouts (transformers or vLLM), sharding,
LoRA, checkpoints and logging; tests/train/test_trl_drift.py fails if TRL changes what these overrides rely on.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from peft import PeftModel
from trl import GRPOTrainer

from r1_reward.models.padding import skip_padding
from r1_reward.records.errors import UserError
from r1_reward.store.adapters import is_adapters
from r1_reward.train.processes import all_or_none
from r1_reward.train.progress import ExactResume
from r1_reward.train.rl_config import StableReinforceConfig
from r1_reward.train.sharded import WholeCheckpoints, unsharded

MEDIA_KEYS = (
    "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles",
    "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids",
)  # fmt: skip
"""Image inputs that a batch may hold; every forward pass of policy, old policy and reference gets all of them."""


class RolloutTrainer(WholeCheckpoints, ExactResume, GRPOTrainer):
    """GRPOTrainer for rows with one or more pictures, on any number of processes, with exact resuming."""

    args: StableReinforceConfig
    kept = ("_metrics", "_step")

    def __init__(self, *args: Any, processing_class: Any, **kwargs: Any) -> None:
        """Take GRPOTrainer's arguments; raises UserError for a processor that TRL's rollouts cannot use."""
        _check_processor(processing_class)
        processing_class.tokenizer.padding_side = "left"  # like the prompts, so that token types stay aligned
        super().__init__(*args, processing_class=processing_class, **kwargs)
        for scored in (self.accelerator.unwrap_model(self.model), self.ref_model):
            if scored is not None:
                skip_padding(scored.get_base_model() if isinstance(scored, PeftModel) else scored)

    # ---- sampling and log-probabilities

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        *sampled, images, tool_images = super()._generate(*args, **kwargs)
        # Rows without a picture come back as None (for vLLM), which no processor accepts in a list of lists.
        return (*sampled, None if images is None else [of_row or [] for of_row in images], tool_images)

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        # ZeRO-3 gathers weights while it samples, and vLLM's processes communicate.
        together = self.is_deepspeed_enabled or self.use_vllm
        with unsharded(model), nullcontext() if together else all_or_none("sampling"):
            return super()._generate_single_turn(*args, **kwargs)

    def _logps_and_entropies(self, model: Any, inputs: dict[str, Any], *, entropy: bool) -> tuple[Any, Any, Any]:
        """Return (B, T) log-probabilities and entropies of the completion, using every image input TRL kept.

        The third value is the auxiliary loss of a mixture of experts. Without ``entropy`` the last two are None.
        """
        completion_ids = inputs["completion_ids"]
        media = {key: inputs[key] for key in MEDIA_KEYS if key in inputs}
        return self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], completion_ids], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            completion_ids.size(1),
            batch_size=self.args.per_device_train_batch_size,
            compute_entropy=entropy,
            compute_aux_loss=self.aux_loss_enabled and entropy,
            **media,
        )

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, *args: Any, **media: Any
    ) -> Any:
        counts = media.pop("batch_num_images", None)  # LLaVA-OneVision's: TRL passes it in, but does not accept it
        if counts is not None and (torch.as_tensor(counts) > 1).any():
            raise UserError("RL training of LLaVA-OneVision supports one picture per row; remove rows with more.")
        for name in ("token_type_ids", "mm_token_type_ids"):
            if media.get(name) is not None:
                # If template and tokenizer both add a BOS token (Gemma), TRL's second tokenization is one longer.
                media[name] = media[name][:, -input_ids.size(1) :]
        return super()._get_per_token_logps_and_entropies(model, input_ids, attention_mask, *args, **media)

    @property
    def _mode(self) -> str:
        """The key of TRL's metrics: ``train`` or ``eval``."""
        return "train" if self.model is not None and self.model.training else "eval"

    # ---- resuming, see r1_reward/train/progress.py

    def progress(self) -> dict[str, Any]:
        """Add TRL's state between two updates of one rollout."""
        between = self._step % ((self.args.steps_per_generation or 1) * self.num_iterations) != 0
        return {
            **super().progress(),
            "shape": self._rollout_shape(),
            "rollout": self._buffered_inputs if between else None,
        }

    def restore_progress(self, progress: dict[str, Any] | None, epochs: int) -> None:
        """Restore the rollout; if the batch sizes differ, sample a new one at the same position in the data."""
        same = progress is not None and progress["shape"] == self._rollout_shape()
        super().restore_progress(progress, epochs)
        if progress is None or not same:
            self._step = self.state.global_step * self.args.gradient_accumulation_steps
        if progress is not None:
            self._buffered_inputs = progress["rollout"] if same else None
        if self.shuffle_dataset:
            for _ in range(epochs):  # TRL's sampler draws one order per epoch, and starts over in a new process
                torch.randperm(self._train_sampler.num_samples, generator=self._train_sampler.generator)

    def _rollout_shape(self) -> list[int | None]:
        args = self.args
        return [
            args.world_size, args.per_device_train_batch_size, args.gradient_accumulation_steps,
            args.steps_per_generation, self.num_iterations, self.num_generations,
        ]  # fmt: skip

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        self._train_sampler: Any = super()._get_train_sampler(*args, **kwargs)
        return self._train_sampler

    # ---- reductions and logs over all processes: every process calls these

    def _sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        return self.accelerator.reduce(values, reduction="sum")

    def _gather_values(self, values: torch.Tensor) -> torch.Tensor:
        """Return the (n,) ``values`` of every process, in order of rank; n may differ between processes."""
        counts = self.accelerator.gather(torch.tensor([len(values)], device=values.device)).tolist()
        padded = torch.nn.functional.pad(values, (0, max(counts) - len(values)))
        rows = self.accelerator.gather(padded).view(len(counts), -1)
        return torch.cat([row[:count] for row, count in zip(rows, counts, strict=True)])

    def _log_means(self, **values: torch.Tensor) -> None:
        """Log the mean over processes of scalars, in a single collective, because each one makes the device wait."""
        gathered = self.accelerator.gather(torch.stack([value.double() for value in values.values()]))
        means = gathered.view(-1, len(values)).nanmean(0).tolist()
        for name, mean in zip(values, means, strict=True):
            self._metrics[self._mode][name].append(mean)

    def _log_token_means(self, tokens: torch.Tensor, **values: torch.Tensor) -> None:
        """Log the mean over all processes' tokens of scalars that are means over this process's ``tokens``."""
        together = torch.stack([*(value.double() * tokens for value in values.values()), tokens.double()])
        *sums, count = self._sum_over_processes(together).tolist()
        for name, total in zip(values, sums, strict=True):
            self._metrics[self._mode][name].append(total / max(count, 1))

    def _log_share(self, name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
        """Log the mean of (B, T) ``values`` over the masked tokens of every process."""
        sums = self._sum_over_processes(torch.stack([(values * mask).sum().float(), mask.sum().float()]).detach())
        self._metrics[self._mode][name].append((sums[0] / sums[1].clamp(min=1)).item())


def require_reference(checkpoint: str, args: StableReinforceConfig) -> None:
    """Raise UserError if the KL penalty of a run that trains all weights would not be relative to the run's start.

    TRL loads the reference by the name in the model's configuration, and a model that adapters were merged into has its
    old name there. A run that trains new adapters needs no check: its reference is the merged model without them.
    """
    if args.beta != 0.0 and is_adapters(checkpoint):
        raise UserError(
            f"{checkpoint}: from LoRA adapters, beta would penalize the distance to their base model instead of the "
            "distance to them. With `train rl`, set lora_rank: the reference is then the model with these adapters "
            "merged. Or save the merged model first (load_model_and_processor, then save_pretrained of both)."
        )


def _check_processor(processor: Any) -> None:
    # Pixtral's processor returns tensors by default, but TRL needs lists; transformers 5.17 stores that elsewhere.
    older = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    defaults = (
        getattr(type(processor), "text_kwargs", {}),
        older.get("text_kwargs", {}),
        older.get("common_kwargs", {}),
    )
    if any("return_tensors" in options for options in defaults):
        raise UserError(
            f"{type(processor).__name__} pads prompts or rejects them, but TRL's rollouts need them unpadded; this "
            "family can be trained by SFT and used as a judge, not by RL."
        )
