"""StableReinforce under conditions that only an experiment wants: old or rounded rollouts, a referee that errs.

    args = StudyConfig("runs/cell", stale_updates=8, referee_noise=0.2)
    StudyTrainer(model, args, train_dataset=pairs, processing_class=processor).train()

Without its own options a `StudyTrainer` is the trainer of ``r1-reward train rl``, number for number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from r1_reward.algorithm import PolicyLoss, policy_loss, pre_clip_bias
from r1_reward.records.errors import UserError
from r1_reward.studies.gradients import compare_gradients
from r1_reward.studies.noise import ErringReferee
from r1_reward.studies.stale import SamplingWeights
from r1_reward.train.rl import StableReinforceConfig, StableReinforceTrainer

_DTYPES = (None, "bfloat16", "float16")


@dataclass
class StudyConfig(StableReinforceConfig):
    """StableReinforceConfig with the switches of the experiments."""

    stale_updates: int = field(
        default=0,
        metadata={"help": "Sample with the weights of this many updates ago, rounded up to whole rollouts."},
    )
    rollout_dtype: str | None = field(
        default=None, metadata={"help": "Sample with weights rounded to bfloat16 or float16; null: as trained."}
    )
    referee_noise: float = field(
        default=0.0, metadata={"help": "Share of the referee's known verdicts that are reversed."}
    )
    pre_clip_in_parameters: bool = field(
        default=False,
        metadata={
            "help": "Log how Pre-CLIP changes the gradient of the parameters: two more backward passes wherever it "
            "changes a token."
        },
    )

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.stale_updates < 0:
            raise ValueError(f"stale_updates must be 0 or more; got {self.stale_updates}.")
        if self.rollout_dtype not in _DTYPES:
            raise ValueError(f"rollout_dtype must be null, bfloat16 or float16; got {self.rollout_dtype!r}.")
        if not 0.0 <= self.referee_noise <= 1.0:
            raise ValueError(f"referee_noise is a share between 0 and 1; got {self.referee_noise}.")
        if (self.stale_updates or self.rollout_dtype) and (self.use_vllm or self.use_transformers_continuous_batching):
            raise ValueError("stale_updates and rollout_dtype need plain transformers generation; leave vLLM off.")


class StudyTrainer(StableReinforceTrainer):
    """StableReinforceTrainer with the options of `StudyConfig`.

    It also logs rollout_age (updates), referee_flipped (share of the known verdicts) and pre_clip/parameter_*, each
    where its option is set.
    """

    args: StudyConfig

    def __init__(self, model: Any, args: StudyConfig, **kwargs: Any) -> None:
        super().__init__(model, args, **kwargs)
        dtype = None if args.rollout_dtype is None else getattr(torch, args.rollout_dtype)
        self.sampling = SamplingWeights(
            self.accelerator.unwrap_model(self.model), stale_updates=args.stale_updates, dtype=dtype
        )
        if (self.sampling.active or args.pre_clip_in_parameters) and (
            self.is_fsdp_enabled or self.is_deepspeed_enabled
        ):
            raise UserError(
                "stale_updates, rollout_dtype and pre_clip_in_parameters need whole weights; they do not run with FSDP "
                "or DeepSpeed."
            )
        if args.referee_noise > 0:
            self.referee: ErringReferee = ErringReferee(self.referee, noise=args.referee_noise, seed=args.seed)

    # ---- rollouts from other weights; evaluation samples as trained

    @property
    def _samples_elsewhere(self) -> bool:
        return self.sampling.active and self._mode == "train"

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self._samples_elsewhere:
            self._metrics["train"]["rollout_age"].append(self.sampling.start_rollout(self.state.global_step))
        return super()._generate_and_score_completions(inputs)

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if not self._samples_elsewhere:
            return super()._generate_single_turn(*args, **kwargs)
        with self.sampling.swapped_in():
            return super()._generate_single_turn(*args, **kwargs)

    def _old_logps(self, rollout: dict[str, Any]) -> Tensor | None:
        if not self._samples_elsewhere:
            return super()._old_logps(rollout)
        with self.sampling.swapped_in(), torch.no_grad():
            return self._logps_and_entropies(self.model, rollout, entropy=False)[0]

    # ---- verdicts

    def judgment_reward(self, *args: Any, **kwargs: Any) -> list[float | None]:
        """Return the rewards of `StableReinforceTrainer.judgment_reward` and log how many verdicts were reversed."""
        rewards = super().judgment_reward(*args, **kwargs)
        if self.args.referee_noise > 0:
            counts = torch.tensor(self.referee.take_counts(), dtype=torch.float32, device=self.accelerator.device)
            flipped, known = self._sum_over_processes(counts).tolist()
            if known:
                self._metrics[self._mode]["referee_flipped"].append(flipped / known)
        return rewards

    # ---- gradients

    def _policy_loss(self, logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> PolicyLoss:
        result = super()._policy_loss(logps, old_logps, advantages, mask)
        if self.args.pre_clip_in_parameters and logps.requires_grad:
            batch, settings = (logps, old_logps, advantages, mask), self._loss_settings()
            bias = pre_clip_bias(*batch, **settings)
            pair = (bias.cosine, bias.norm_ratio)  # both 1, in either space, if no token is changed
            if bias.changed_share > 0:
                free = policy_loss(*batch, num_sequences=len(mask), **{**settings, "pre_clip": None}).loss
                model: Any = self.model
                pair = compare_gradients(result.loss, free, [p for p in model.parameters() if p.requires_grad])
            cosine, ratio = (value.to(logps.device) for value in pair)
            self._log_means(**{"pre_clip/parameter_cosine": cosine, "pre_clip/parameter_norm_ratio": ratio})
        return result

    # ---- a run that was cut

    def progress(self) -> dict[str, Any]:
        """Add the older weights."""
        return {**super().progress(), "sampling": self.sampling.copies()}

    def restore_progress(self, progress: dict[str, Any] | None, epochs: int) -> None:
        """Put them back, too."""
        super().restore_progress(progress, epochs)
        if progress is not None:
            self.sampling.restore(progress["sampling"])
