"""StableReinforce under experimental conditions: stale rollouts, blind losses, a referee that errs.

    args = StudyConfig("runs/cell", stale_updates=8, referee_noise=0.2)
    StudyTrainer(model, args, train_dataset=pairs, processing_class=processor).train()

Without its own options a `StudyTrainer` computes exactly what the trainer of ``r1-reward train rl`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from r1_reward.algorithm import PolicyLoss, discounted_returns, policy_loss, pre_clip_bias
from r1_reward.records.errors import UserError
from r1_reward.studies.gradients import compare_gradients
from r1_reward.studies.noise import ErringReferee
from r1_reward.studies.released import (
    FILTER_BOUNDS,
    LOGPS,
    RAW,
    SIGHTED,
    STANDARDIZED,
    Faults,
    filter_by_raw_bounds,
    one_dimensional_positions,
)
from r1_reward.studies.stale import SamplingWeights
from r1_reward.train.algorithms import algorithm_named
from r1_reward.train.rl import StableReinforceConfig, StableReinforceTrainer

_DTYPES = (None, "bfloat16", "float16")
_CHOICES: dict[str, tuple[str, ...]] = {
    "logps": tuple(LOGPS),
    "filter_bounds": FILTER_BOUNDS,
    "old_logps": ("sampler", "trainer"),
}


@dataclass
class StudyConfig(StableReinforceConfig):
    """StableReinforceConfig with the switches of the experiments."""

    stale_updates: int = field(
        default=0,
        metadata={"help": "Sample with weights this many updates old, rounded up to whole rollouts."},
    )
    rollout_dtype: str | None = field(
        default=None, metadata={"help": "Sample with weights rounded to bfloat16 or float16; null: as trained."}
    )
    referee_noise: float = field(
        default=0.0, metadata={"help": "Share of the referee's known verdicts that are reversed."}
    )
    logps: str = field(
        default=SIGHTED,
        metadata={
            "help": f"{', '.join(LOGPS)}: compute the policy's old and new log-probabilities as sampled, on blanked "
            "pictures, with one-dimensional positions, or with both. Sampling does not change."
        },
    )
    old_logps: str = field(
        default="sampler",
        metadata={
            "help": "Weights of the ratio's denominator if rollouts use other ones: sampler (corrects for them) or "
            "trainer (the released code, whose ratio starts at 1 whatever the sampler)."
        },
    )
    filter_bounds: str = field(
        default=STANDARDIZED,
        metadata={
            "help": "The filter's bounds: standardized (the paper) or raw (the released code): mean of the raw returns "
            "plus and minus advantage_filter, applied to z-scores."
        },
    )
    pre_clip_in_parameters: bool = field(
        default=False,
        metadata={
            "help": "Log how Pre-CLIP changes the gradient of the parameters, with two more backward passes whenever "
            "it changes a token."
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
            raise ValueError(f"referee_noise must be a share between 0 and 1; got {self.referee_noise}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}.")
        if self.filter_bounds == RAW and (
            self.advantage_filter is None
            or self.advantage_filter_mode != "drop"
            or algorithm_named(self.algorithm).name != "stable_reinforce"
        ):
            raise ValueError(
                "filter_bounds: raw is the released filter of stable_reinforce; it needs that algorithm, an "
                "advantage_filter and advantage_filter_mode drop."
            )
        if (self.stale_updates or self.rollout_dtype) and (self.use_vllm or self.use_transformers_continuous_batching):
            raise ValueError("stale_updates and rollout_dtype need transformers' generation; set use_vllm to false.")


class StudyTrainer(StableReinforceTrainer):
    """StableReinforceTrainer with the options of `StudyConfig`.

    It also logs, if the option is set, rollout_age (updates), referee_flipped (share of the known verdicts),
    pre_clip/parameter_* and, if the log-probabilities are not those of the sampler, mismatch/mean_abs and mismatch/max
    (nats over response tokens: the policy's log-probability in the loss against the sampler's).

    For any `logps`, a reference sees the pictures and has the policy's positions, as in the released code.
    """

    args: StudyConfig

    def __init__(self, model: Any, args: StudyConfig, **kwargs: Any) -> None:
        super().__init__(model, args, **kwargs)
        dtype = None if args.rollout_dtype is None else getattr(torch, args.rollout_dtype)
        self.sampling = SamplingWeights(
            self.accelerator.unwrap_model(self.model), stale_updates=args.stale_updates, dtype=dtype
        )
        self._faults = LOGPS[args.logps]
        if self._faults.blind and args.beta != 0.0 and isinstance(self.accelerator.unwrap_model(self.model), PeftModel):
            raise UserError(
                "logps: blind with beta needs a separate reference model, which LoRA does not have; set beta to 0."
            )
        if (self.sampling.active or args.pre_clip_in_parameters) and (
            self.is_fsdp_enabled or self.is_deepspeed_enabled
        ):
            raise UserError(
                "stale_updates, rollout_dtype and pre_clip_in_parameters need whole weights and do not work with FSDP "
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
        if self._mode == "eval" or not (self.sampling.active or self.args.logps != SIGHTED):
            return super()._old_logps(rollout)
        trained = rollout.get("old_per_token_logps")  # TRL's, if a rollout has several updates
        if trained is None:
            trained = self._constant_logps(rollout)
        with self.sampling.swapped_in(), self._as_sampled():
            sampled = self._constant_logps(rollout)
        self._log_mismatch(trained - sampled, rollout["completion_mask"])
        if not self.sampling.active or self.args.old_logps == "trainer":
            return super()._old_logps(rollout)
        if self.args.logps == SIGHTED:
            return sampled
        with self.sampling.swapped_in():
            return self._constant_logps(rollout)

    def _constant_logps(self, rollout: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            return self._logps_and_entropies(self.model, rollout, entropy=False)[0]

    def _log_mismatch(self, gap: Tensor, mask: Tensor) -> None:
        gap = torch.where(mask.bool(), gap.abs(), torch.zeros_like(gap))
        self._log_share("mismatch/mean_abs", gap, mask)
        self._metrics[self._mode]["mismatch/max"].append(self.accelerator.gather(gap.max()).max().item())

    # ---- log-probabilities as in the released code

    @contextmanager
    def _as_sampled(self) -> Iterator[None]:
        """Disable the faults in log-probabilities inside the block."""
        faults, self._faults = self._faults, LOGPS[SIGHTED]
        try:
            yield
        finally:
            self._faults = faults

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **media: Any) -> Any:
        # All log-probabilities of policy and reference, TRL's and ours, pass through here; sampling does not.
        faults = self._faults if self._mode == "train" else Faults(blind=False, flat=False)
        if faults.blind and model is not self.ref_model and media.get("pixel_values") is not None:
            media["pixel_values"] = torch.zeros_like(media["pixel_values"])
        with one_dimensional_positions(self.accelerator.unwrap_model(model)) if faults.flat else nullcontext():
            return super()._get_per_token_logps_and_entropies(model, *args, **media)

    # ---- the filter as in the released code

    def _advantages(self, rollout: dict[str, Any], *, first_row: int) -> Tensor:
        if self.args.filter_bounds != RAW:
            return super()._advantages(rollout, first_row=first_row)
        mask = rollout["completion_mask"]
        kl = rollout["old_per_token_logps"] - rollout["ref_per_token_logps"] if self.beta != 0.0 else None
        rewards = self._rewards[first_row : first_row + len(mask)]
        returns = discounted_returns(rewards, mask, kl=kl, kl_coef=self.beta)
        used = mask.bool() & returns.isfinite()
        sums = torch.stack([returns[used].double().sum(), used.sum().double()])
        total, count = self._sum_over_processes(sums).tolist()
        z = self._unfiltered_advantages(rollout, first_row=first_row)
        kept = filter_by_raw_bounds(z, total / max(count, 1), self.args.filter_threshold() or 0.0)
        self._log_share("filtered", (kept != z) & mask.bool(), mask)
        return kept

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

    # ---- resuming

    def progress(self) -> dict[str, Any]:
        """Add the older weights."""
        return {**super().progress(), "sampling": self.sampling.copies()}

    def restore_progress(self, progress: dict[str, Any] | None, epochs: int) -> None:
        """Restore them, too."""
        super().restore_progress(progress, epochs)
        if progress is not None:
            self.sampling.restore(progress["sampling"])
