"""StableReinforce on TRL: a GRPOTrainer whose advantages, loss and rewards are the paper's.

TRL owns rollouts (transformers or vLLM), sharding, LoRA, checkpoints and logging. Three seams are overridden: the
rewards are kept as they are gathered, the advantages become the filtered z-scores of the global batch, and the loss is
`algorithm.policy_loss`. tests/train/test_trl_drift.py fails when TRL changes what these seams rely on.

    args = StableReinforceConfig("runs/rl")
    trainer = StableReinforceTrainer(model, args, train_dataset=pairs, processing_class=processor)
    trainer.train()
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from trl import GRPOConfig, GRPOTrainer

from r1_reward import algorithm
from r1_reward.parsing import parse_judgment
from r1_reward.referee import Referee, RuleReferee
from r1_reward.rewards import combine_rewards, format_reward, result_reward
from r1_reward.schema import Answer
from r1_reward.train.rows import rl_rows

if TYPE_CHECKING:
    from datasets import Dataset

UNUSED_TRL_OPTIONS = (
    "loss_type", "importance_sampling_level", "delta", "top_entropy_quantile", "off_policy_mask_threshold",
    "entropy_coef", "use_adaptive_entropy", "use_bias_correction_kl", "epsilon_high", "scale_rewards",
    "multi_objective_aggregation",
)  # fmt: skip
"""Options of GRPOConfig that shape an advantage or a loss that is not used here; changing one is an error."""

MEDIA_KEYS = (
    "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles",
    "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids",
)  # fmt: skip
"""What a batch may hold besides token ids; every forward pass of policy, old policy and reference gets all of it."""


@dataclass
class StableReinforceConfig(GRPOConfig):
    """GRPOConfig with the paper's defaults (method section 4) and the switches of StableReinforce.

    ``beta`` is the coefficient of the KL penalty *in the reward* (k1 estimator), not in the loss. ``epsilon`` is PPO's
    clip. The number of updates per rollout is ``steps_per_generation / gradient_accumulation_steps``.
    """

    advantage_filter: float | None = field(
        default=3.0, metadata={"help": "Standardised advantages beyond this many sigmas become 0; null: no filter."}
    )
    pre_clip: list[float] | None = field(
        default_factory=lambda: [1e-3, 1e3],
        metadata={"help": "Bounds of the ratio, applied to the log-ratio before exp; null: no Pre-CLIP."},
    )
    consistency_weight: float = field(default=0.5, metadata={"help": "Weight of consistency on a right result."})
    format_weight: float = field(default=0.5, metadata={"help": "Weight of the format reward."})
    num_generations: int | None = field(
        default=1, metadata={"help": "Samples per prompt. The baseline is the global batch, so 1 is enough."}
    )
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature of rollouts."})
    max_completion_length: int | None = field(default=1024, metadata={"help": "Most new tokens of a rollout."})
    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=5.0, metadata={"help": "Passes over the RL set (the paper's episodes)."})
    beta: float = field(default=0.0, metadata={"help": "KL coefficient in the reward; 0 loads no reference model."})
    scale_rewards: str = field(default="none", metadata={"help": "Fixed: StableReinforce standardises by itself."})
    loss_type: str = field(default="grpo", metadata={"help": "Fixed: token mean, then sequence mean."})

    def __post_init__(self) -> None:
        """Check the options, letting one sample per prompt pass where GRPOConfig asks for two."""
        samples_per_prompt = self.num_generations
        if samples_per_prompt == 1:
            self.num_generations = self._any_group_size()
        super().__post_init__()
        self.num_generations = samples_per_prompt
        for name in UNUSED_TRL_OPTIONS:
            default = self.__dataclass_fields__[name].default
            if getattr(self, name) != default:
                raise ValueError(f"{name} has no effect in StableReinforce; leave it at {default!r}.")
        if self.pre_clip is not None and not (len(self.pre_clip) == 2 and 0 < self.pre_clip[0] < 1 < self.pre_clip[1]):
            raise ValueError(f"pre_clip must be [low, high] with 0 < low < 1 < high, or null; got {self.pre_clip}.")
        if self.advantage_filter is not None and self.advantage_filter <= 0:
            raise ValueError(f"advantage_filter must be positive or null; got {self.advantage_filter}.")

    def _any_group_size(self) -> int:
        """Return a divisor >= 2 of the rollout batch, the only thing GRPOConfig checks about the group size."""
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        # self.world_size exists only after TrainingArguments has set up the processes, which happens later.
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        batch = self.generation_batch_size or self.per_device_train_batch_size * processes * steps
        for divisor in range(2, batch + 1):
            if batch % divisor == 0:
                return divisor
        raise ValueError("A rollout batch of 1 sample has no baseline; raise per_device_train_batch_size.")


class StableReinforceTrainer(GRPOTrainer):
    """GRPOTrainer with StableReinforce's advantages and loss (method sections 2 and 3).

    ``train_dataset`` holds preference pairs as `load_pairs` returns them. Besides TRL's own metrics it logs reward/*
    (the three parts), accuracy, parse_rate, approx_kl, max_log_ratio, pre_clipped, ppo_clipped, filtered, policy_loss.
    """

    args: StableReinforceConfig

    def __init__(
        self,
        model: Any,
        args: StableReinforceConfig,
        *,
        train_dataset: Dataset,
        processing_class: Any,
        referee: Referee | None = None,
        **kwargs: Any,
    ) -> None:
        self.referee = referee or RuleReferee()
        self._rewards = torch.empty(0)
        super().__init__(
            model=model,
            args=args,
            reward_funcs=[self.judgment_reward],
            train_dataset=rl_rows(train_dataset, processing_class),
            processing_class=processing_class,
            **kwargs,
        )

    def judgment_reward(
        self,
        completions: Sequence[Sequence[dict[str, str]]],
        preferred: Sequence[Answer],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        """Return R of each completion (method section 3); consistency is asked only where it can change R."""
        texts = [completion[0]["content"] for completion in completions]
        judgments = [parse_judgment(text) for text in texts]
        results = [result_reward(text, label) for text, label in zip(texts, preferred, strict=True)]
        formats = [format_reward(text) for text in texts]
        asked = [i for i, result in enumerate(results) if result > 0]
        answers = self.referee.judge([judgments[i].reasoning for i in asked], [judgments[i].answer or 0 for i in asked])
        consistency: list[float | None] = [None] * len(texts)
        for i, verdict in zip(asked, answers, strict=True):
            consistency[i] = verdict
        known = [verdict for verdict in consistency if verdict is not None]
        log_metric("accuracy", _mean(results))
        log_metric("parse_rate", _mean([float(judgment.answer is not None) for judgment in judgments]))
        log_metric("reward/result", _mean(results))
        log_metric("reward/format", _mean(formats))
        log_metric("reward/consistency", _mean(known))
        return [
            combine_rewards(
                result,
                verdict,
                format_,
                consistency_weight=self.args.consistency_weight,
                format_weight=self.args.format_weight,
            )
            for result, verdict, format_ in zip(results, consistency, formats, strict=True)
        ]

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        gathered = super()._calculate_rewards(*args, **kwargs)
        self._rewards = gathered[:, 0]
        return gathered

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        mask = _loss_mask(output)
        kl = None
        if self.beta != 0.0:
            if "old_per_token_logps" not in output:
                with torch.no_grad():
                    output["old_per_token_logps"] = self._logps_and_entropies(self.model, output, entropy=False)[0]
            kl = output["old_per_token_logps"] - output["ref_per_token_logps"]
        start = self.accelerator.process_index * len(inputs)
        rewards = self._rewards[start : start + len(inputs)]
        returns = algorithm.discounted_returns(rewards, mask, kl=kl, kl_coef=self.beta)
        advantages = algorithm.standardize(returns, mask, all_reduce=self._sum_over_processes)
        if self.args.advantage_filter is not None:
            kept = algorithm.filter_outliers(advantages, self.args.advantage_filter)
            self._log_share("filtered", (kept != advantages) & mask.bool(), mask)
            advantages = kept
        output["advantages"] = advantages
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        mask = _loss_mask(inputs)
        logps, entropies, aux_loss = self._logps_and_entropies(model, inputs, entropy=True)
        advantages = inputs["advantages"]
        if "importance_sampling_ratio" in inputs:
            # vLLM's correction is a non-negative factor of the loss, hence of the advantage.
            advantages = advantages * inputs["importance_sampling_ratio"]
        result = algorithm.policy_loss(
            logps,
            inputs.get("old_per_token_logps", logps.detach()),
            advantages,
            mask,
            clip_eps=self.args.epsilon,
            pre_clip=(self.args.pre_clip[0], self.args.pre_clip[1]) if self.args.pre_clip else None,
        )
        metrics = self._metrics[self._mode]
        for name, value in (
            ("policy_loss", result.loss.detach()),
            ("approx_kl", result.approx_kl),
            ("pre_clipped", result.pre_clipped),
            ("ppo_clipped", result.ppo_clipped),
        ):
            metrics[name].append(self.accelerator.gather(value).nanmean().item())
        metrics["max_log_ratio"].append(self.accelerator.gather(result.max_log_ratio).max().item())
        self._log_share("entropy", entropies, mask)
        loss = result.loss
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * aux_loss
            metrics["aux_loss"].append(self.accelerator.gather(aux_loss.detach()).mean().item())
        return loss / (self.current_gradient_accumulation_steps if self._mode == "train" else 1)

    def _logps_and_entropies(self, model: Any, inputs: dict[str, Any], *, entropy: bool) -> tuple[Any, Any, Any]:
        """Return (B, T) log-probabilities and entropies of the completion, with every image input TRL kept."""
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

    @property
    def _mode(self) -> str:
        return "train" if self.model is not None and self.model.training else "eval"

    def _sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(values, reduction="sum")

    def _log_share(self, name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
        """Log the mean of (B, T) ``values`` over the masked tokens of every process."""
        sums = self._sum_over_processes(torch.stack([(values * mask).sum().float(), mask.sum().float()]).detach())
        self._metrics[self._mode][name].append((sums[0] / sums[1].clamp(min=1)).item())


def _loss_mask(batch: dict[str, Any]) -> torch.Tensor:
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
