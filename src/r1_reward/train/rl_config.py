"""Configuration of reinforcement learning: TRL's GRPOConfig with the paper's defaults and our switches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

from trl import GRPOConfig

from r1_reward.records.parsing import FORMATS
from r1_reward.train.algorithms import ALGORITHMS, Algorithm, algorithm_named
from r1_reward.train.controls import CISPO, PPO, SAMPLER_MODES, Controls

_OTHER_LOSS = "it affects a loss or an advantage of TRL that is not used here"
_OTHER_ENTROPY = "there is no entropy term in this loss"
UNUSED_TRL_OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "top_entropy_quantile", "scale_rewards", "off_policy_mask_threshold", "use_bias_correction_kl",
            "sapo_temperature_neg", "sapo_temperature_pos", "vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg",
            "vespo_lambda_neg",
        ),
        _OTHER_LOSS,
    ),
    **dict.fromkeys(
        (
            "entropy_coef", "use_adaptive_entropy", "entropy_coef_min", "entropy_coef_max", "entropy_coef_delta",
            "entropy_target",
        ),
        _OTHER_ENTROPY,
    ),
    "reward_weights": "there is one reward; use consistency_weight and format_weight for its parts",
    "multi_objective_aggregation": "there is one reward",
    "max_tool_calling_iterations": "a judge calls no tools",
    "label_smoothing_factor": "the loss is not a cross-entropy",
    "length_column_name": "TRL's sampler of rollouts ignores lengths",
    "train_sampling_strategy": "TRL's own sampler draws rollouts; use shuffle_dataset",
    "remove_unused_columns": "rows are built from all columns, so none may be removed",
    "do_train": "it does nothing in any trainer",
    "do_predict": "it does nothing in any trainer",
    "resume_from_checkpoint": "use --resume",
    **dict.fromkeys(("ref_model_sync_steps", "ref_model_mixup_alpha"), "the reference model does not change"),
}  # fmt: skip
"""Options inherited from GRPOConfig that have no effect here, each with the reason; changing one is an error."""

UNSUPPORTED_TRL_OPTIONS: Mapping[str, str] = {
    "sync_ref_model": "the synchronized reference is in no checkpoint, and a rollback does not restore it",
}
"""Options inherited from GRPOConfig that a run could not be resumed with; changing one is an error."""

AUTO = "auto"
"""Value of a switch that the algorithm sets."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "advantage_filter_mode": ("drop", "clamp"),
    "consistency_mode": ("multiply", "add"),
    "consistency_values": ("binary", "ternary"),
    "format": FORMATS,
    "format_mode": ("add", "require"),
    "on_unreadable": ("warn", "stop"),
}


@dataclass
class StableReinforceConfig(GRPOConfig):
    """GRPOConfig with the paper's defaults (method section 4) and the switches of StableReinforce.

    ``beta`` is the coefficient of the KL penalty *in the reward* (k1 estimator), not in the loss. ``epsilon`` is PPO's
    clip. The number of updates per rollout is ``steps_per_generation / gradient_accumulation_steps``. After
    construction ``advantage_filter`` and ``pre_clip`` hold values, never "auto".
    """

    refused: ClassVar[Mapping[str, str]] = {**UNSUPPORTED_TRL_OPTIONS, **UNUSED_TRL_OPTIONS}

    algorithm: str = field(default="stable_reinforce", metadata={"help": f"One of {', '.join(ALGORITHMS)}."})
    advantage_filter: float | str | None = field(
        default=AUTO,
        metadata={
            "help": "Filter advantages beyond this many sigmas; null: no filter; auto: the algorithm's value "
            "(stable_reinforce 3, the others none). Algorithms that do not standardize have advantages in units of R."
        },
    )
    advantage_filter_mode: str = field(
        default="drop", metadata={"help": "What the filter does: drop (set to 0, the paper) or clamp (to the limit)."}
    )
    pre_clip: list[float] | str | None = field(
        default=AUTO,
        metadata={
            "help": "Bounds of the ratio, applied to the log-ratio before exp; null: no Pre-CLIP; auto: the "
            "algorithm's value (stable_reinforce [0.001, 1000], the others none)."
        },
    )
    consistency_weight: float = field(default=0.5, metadata={"help": "Weight of the consistency reward."})
    consistency_mode: str = field(
        default="multiply",
        metadata={"help": "multiply (the paper): result * (1 + weight * consistency); add: result + weight * it."},
    )
    consistency_values: str = field(
        default="binary",
        metadata={"help": "binary (the paper): 0 or 1; ternary (on the released code's scale): -1 or 1."},
    )
    format_weight: float = field(default=0.5, metadata={"help": "Weight of the format reward."})
    format: str = field(
        default="strict",
        metadata={
            "help": "Which texts earn the format reward: strict (exactly the paper's) or whitespace (allows whitespace "
            "between </think> and <answer>, where most models put a line break)."
        },
    )
    format_mode: str = field(
        default="add", metadata={"help": "add (the paper): a bonus; require: no bonus, and R is 0 if malformed."}
    )
    referee: str = field(default="rule", metadata={"help": "Referee of consistency, see load_referee."})
    max_referee_unknown: float = field(
        default=0.1,
        metadata={
            "help": "Stop when more than this share of verdicts is missing over 3 rollouts. Only right answers need "
            "one, so the rest looks worse than it is: with 70 % right, 10 % missing looks like 67.7 %, 50 % like 54 %."
        },
    )
    on_unreadable: str = field(
        default="warn",
        metadata={
            "help": "If none of the first 50 judgments can be read: warn or stop, naming the likely cause. The default "
            "is warn, because a policy may still learn to write verdicts."
        },
    )
    log_multimodal: bool = field(
        default=False,
        metadata={"help": "With log_completions, log the pictures too; every process then sends them to all others."},
    )
    num_generations: int | None = field(
        default=1, metadata={"help": "Samples per prompt; algorithms with a group baseline need 2 or more."}
    )
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature of rollouts."})
    max_completion_length: int | None = field(default=1024, metadata={"help": "Token limit of a judgment."})
    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=5.0, metadata={"help": "Passes over the RL set (the paper's episodes)."})
    beta: float = field(default=0.0, metadata={"help": "KL coefficient in the reward; 0 loads no reference model."})
    scale_rewards: str = field(default="none", metadata={"help": "Fixed: the algorithm standardizes."})
    epsilon_high: float | None = field(
        default=None,
        metadata={
            "help": "PPO's clip above 1; null: epsilon. DAPO (clip-higher) uses 0.28. With loss_type cispo: the "
            "maximum weight itself, 5 in ScaleRL."
        },
    )
    delta: float | None = field(
        default=None,
        metadata={
            "help": "Dual clip: maximum ratio for negative advantages, above 1 + epsilon_high; null: none. Its paper "
            "uses 3."
        },
    )
    loss_type: str = field(
        default=PPO,
        metadata={
            "help": f"{PPO} (the paper): PPO's clip, mean over tokens, then over sequences; {CISPO}: clipped weights "
            "that keep the gradient of every token, mean over the tokens of the rollout."
        },
    )
    importance_sampling_level: str = field(
        default="token",
        metadata={
            "help": "token (the paper): each token's own ratio; sequence (GSPO): its sequence's length-normalized "
            "ratio, with a small epsilon, 3e-4 in its paper."
        },
    )
    mask_truncated_completions: bool = field(
        default=False,
        metadata={
            "help": "Exclude judgments cut by the token limit from the loss and from the statistics of the global "
            "batch (DAPO's overlong filtering)."
        },
    )
    vllm_importance_sampling_mode: str = field(
        default="token_truncate",
        metadata={
            "help": f"{', '.join(SAMPLER_MODES)}: how vllm_importance_sampling_correction corrects the gap between "
            "sampler and trainer. TRL's default, sequence_mask, drops whole long judgments."
        },
    )

    def __post_init__(self) -> None:
        """Check the options, but allow one sample per prompt where GRPOConfig requires two."""
        self._check_refused()
        self._check_switches()
        self._resolve(algorithm_named(self.algorithm))
        groups = self.num_generations, self.num_generations_eval
        if self.num_generations == 1:
            self.num_generations, self.num_generations_eval = self._any_group_size(), self.num_generations_eval or 1
        super().__post_init__()
        self.num_generations, self.num_generations_eval = groups

    def controls(self) -> Controls:
        """Return the options of :mod:`r1_reward.train.controls`."""
        return Controls(**{control.name: getattr(self, control.name) for control in fields(Controls)})

    def ratio_bounds(self) -> tuple[float, float] | None:
        """Return ``pre_clip`` as a pair, or None if it is off."""
        return None if self.pre_clip is None else (float(self.pre_clip[0]), float(self.pre_clip[1]))

    def filter_threshold(self) -> float | None:
        """Return ``advantage_filter`` as a number, or None if it is off."""
        return None if self.advantage_filter is None else float(self.advantage_filter)

    def _check_refused(self) -> None:
        for name, reason in self.refused.items():
            default = self.__dataclass_fields__[name].default
            if getattr(self, name) != default:
                why = "has no effect here" if name in UNUSED_TRL_OPTIONS else "is not supported"
                raise ValueError(f"{name} {why} ({reason}); leave it at {default!r}.")

    def _check_switches(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}.")
        if not 0.0 <= self.max_referee_unknown <= 1.0:
            raise ValueError(f"max_referee_unknown must be a share between 0 and 1; got {self.max_referee_unknown}.")

    def _resolve(self, algorithm: Algorithm) -> None:
        """Fill in the algorithm's values for auto, and check the others."""
        if self.advantage_filter == AUTO:
            self.advantage_filter = algorithm.advantage_filter
        if self.pre_clip == AUTO:
            self.pre_clip = None if algorithm.pre_clip is None else list(algorithm.pre_clip)
        if self.advantage_filter is not None:
            self.advantage_filter = _number("advantage_filter", self.advantage_filter)
            if not self.advantage_filter > 0:
                raise ValueError(f"advantage_filter must be positive or null; got {self.advantage_filter}.")
        if self.pre_clip is not None:
            bounds = [] if isinstance(self.pre_clip, str) else [_number("pre_clip", bound) for bound in self.pre_clip]
            if not (len(bounds) == 2 and 0 < bounds[0] < 1 < bounds[1]):
                raise ValueError(f"pre_clip must be [low, high] with 0 < low < 1 < high, or null; got {self.pre_clip}.")
            self.pre_clip = bounds
        if algorithm.baseline is not None and (self.num_generations or 0) < 2:
            raise ValueError(
                f"{algorithm.name} compares the samples of one prompt: set num_generations to 2 or more "
                f"(it is {self.num_generations})."
            )
        if algorithm.constant_length and not self.max_completion_length:
            raise ValueError(f"{algorithm.name} divides the loss by max_completion_length, which must be set.")
        self.controls().check(algorithm, self.ratio_bounds())

    def _any_group_size(self) -> int:
        """Return a divisor >= 2 of the rollout batch; GRPOConfig checks nothing else about the group size."""
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        # self.world_size exists only after TrainingArguments has set up the processes, later.
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        batch = self.generation_batch_size or self.per_device_train_batch_size * processes * steps
        for divisor in range(2, batch + 1):
            if batch % divisor == 0:
                return divisor
        raise ValueError("A rollout batch of 1 sample has no baseline; increase per_device_train_batch_size.")


def _number(name: str, value: object) -> float:
    try:
        return float(str(value))  # YAML reads 1e-3 in a list as text
    except ValueError:
        raise ValueError(f"{name}: {value!r} is not a number.") from None
