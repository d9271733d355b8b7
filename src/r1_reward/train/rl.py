"""StableReinforce and its relatives on TRL: a GRPOTrainer whose rewards, advantages and loss are our own.

TRL owns rollouts (transformers or vLLM), sharding, LoRA, checkpoints and logging. Four seams are overridden: the
rewards are kept as they are gathered, generation may use older or rounded weights, the advantages become those of the
chosen algorithm, and the loss is `algorithm.policy_loss`. tests/train/test_trl_drift.py fails when TRL changes what
these seams rely on.

    args = StableReinforceConfig("runs/rl", algorithm="stable_reinforce")
    trainer = StableReinforceTrainer(model, args, train_dataset=pairs, processing_class=processor)
    trainer.train()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from r1_reward import algorithm
from r1_reward.judge.referee import Referee
from r1_reward.models.padding import skip_padding
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer
from r1_reward.store.video import FRAMES
from r1_reward.studies.gradients import compare_gradients
from r1_reward.studies.stale import SamplingWeights
from r1_reward.train.algorithms import algorithm_named, unfiltered_advantages
from r1_reward.train.judging import METRICS, RefereeWatch, score_judgments
from r1_reward.train.pictures_once import open_pictures, processed_once
from r1_reward.train.processes import deal
from r1_reward.train.progress import ExactResume
from r1_reward.train.rl_config import StableReinforceConfig
from r1_reward.train.rows import rl_rows
from r1_reward.train.sharded import WholeCheckpoints, unsharded

if TYPE_CHECKING:
    from datasets import Dataset

MEDIA_KEYS = (
    "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles",
    "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids",
)  # fmt: skip
"""What a batch may hold besides token ids; every forward pass of policy, old policy and reference gets all of it."""


class StableReinforceTrainer(WholeCheckpoints, ExactResume, GRPOTrainer):
    """GRPOTrainer with the advantages and loss of ``args.algorithm`` (method sections 2 and 3).

    ``train_dataset`` holds preference pairs as `load_pairs` returns them; of a video up to ``video_frames`` frames are
    shown. ``referee`` is used instead of the one that ``args.referee`` names. Besides TRL's own metrics it logs
    reward/* (the three parts), accuracy, parse_rate, referee_unknown, referee_flipped, approx_kl, max_log_ratio,
    pre_clipped, pre_clip/*, ppo_clipped, filtered, rollout_age and policy_loss.
    """

    args: StableReinforceConfig
    kept = ("_metrics", "_step")

    def __init__(
        self,
        model: Any,
        args: StableReinforceConfig,
        *,
        train_dataset: Dataset,
        processing_class: Any,
        referee: Referee | None = None,
        video_frames: int = FRAMES,
        **kwargs: Any,
    ) -> None:
        self.referee = referee if referee is not None else _load_referee(args)
        self.video_frames = video_frames
        self.algorithm = algorithm_named(args.algorithm)
        self._referee_watch = RefereeWatch(args.max_referee_unknown, args.referee if referee is None else "your own")
        self._rewards = torch.empty(0)
        _check_processor(processing_class)
        processing_class.tokenizer.padding_side = "left"  # as prompts are padded, so that token types stay with them
        super().__init__(
            model=model,
            args=args,
            reward_funcs=[self.judgment_reward],
            train_dataset=rl_rows(train_dataset, processing_class),
            processing_class=processing_class,
            **kwargs,
        )
        for scored in (self.accelerator.unwrap_model(self.model), self.ref_model):
            if scored is not None:
                skip_padding(scored.get_base_model() if isinstance(scored, PeftModel) else scored)
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

    def judgment_reward(
        self,
        completions: Sequence[Sequence[dict[str, str]]],
        preferred: Sequence[Answer],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        """Return R of each completion (method section 3). Raises UserError when the referee is out."""
        texts = [completion[0]["content"] for completion in completions]
        scores = score_judgments(texts, preferred, self.referee, self.args)
        counts = [scores.counts.get(name, 0) for name in METRICS]
        sums = [scores.metrics[name] * count if count else 0.0 for name, count in zip(METRICS, counts, strict=True)]
        device = self.accelerator.device
        together = torch.tensor([*sums, *counts, scores.asked, scores.unknown], dtype=torch.float32, device=device)
        *totals, asked, unknown = self._sum_over_processes(together).tolist()
        for i, name in enumerate(METRICS):
            count = totals[len(METRICS) + i]
            if name in scores.metrics or count:
                log_metric(name, totals[i] / count if count else math.nan)
        self._referee_watch.add(int(asked), int(unknown))
        return scores.rewards

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        gathered = super()._calculate_rewards(*args, **kwargs)
        self._rewards = gathered[:, 0]
        return gathered

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        with unsharded(model), self._sampling_policy():
            return super()._generate_single_turn(*args, **kwargs)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        steps = self.args.steps_per_generation or 1
        updates, rest = divmod(steps, self.args.gradient_accumulation_steps)
        if updates < 2 or rest or self._mode == "eval":
            return super()._prepare_inputs(generation_batch)
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            rollout = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            first_row = self.accelerator.process_index * len(generation_batch)
            seed = f"{self.args.seed}/{self.state.global_step}"
            parts: Any = split_tensor_dict(deal(rollout, updates, first_row=first_row, seed=seed), steps)
            buffered: Any = [unsplit_pixel_values_by_grid(part) for part in parts]
            self._buffered_inputs = buffered
        return self._buffered_inputs[self._step % steps]  # type: ignore[index]  # filled above, or by an earlier step

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        samples_elsewhere = self.sampling.active and self._mode == "train"
        if samples_elsewhere:
            self._metrics["train"]["rollout_age"].append(self.sampling.start_rollout(self.state.global_step))
        with processed_once(self.processing_class):
            output = super()._generate_and_score_completions(open_pictures(inputs, self.video_frames))
        if samples_elsewhere or (self.beta != 0.0 and "old_per_token_logps" not in output):
            with self._sampling_policy(), torch.no_grad():
                output["old_per_token_logps"] = self._logps_and_entropies(self.model, output, entropy=False)[0]
        output["advantages"] = self._advantages(output, first_row=self.accelerator.process_index * len(inputs))
        return output

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, *args: Any, **media: Any
    ) -> Any:
        counts = media.pop("batch_num_images", None)  # LLaVA-OneVision's: TRL hands it in and takes it not
        if counts is not None and (torch.as_tensor(counts) > 1).any():
            raise UserError("LLaVA-OneVision is trained by RL on one picture a row only; one of these rows has more.")
        for name in ("token_type_ids", "mm_token_type_ids"):
            if media.get(name) is not None:
                # Where template and tokenizer both begin a text (Gemma), TRL's second look is a token longer.
                media[name] = media[name][:, -input_ids.size(1) :]
        return super()._get_per_token_logps_and_entropies(model, input_ids, attention_mask, *args, **media)

    def _advantages(self, batch: dict[str, Any], *, first_row: int) -> torch.Tensor:
        """Return (B, T) advantages of the configured algorithm, after the filter."""
        mask = _loss_mask(batch)
        advantages = unfiltered_advantages(
            self.algorithm,
            self._rewards,
            mask,
            group_size=(self.num_generations if self._mode == "train" else self.num_generations_eval) or 1,
            first_row=first_row,
            kl=batch["old_per_token_logps"] - batch["ref_per_token_logps"] if self.beta != 0.0 else None,
            kl_coef=self.beta,
            gather=self._gather_values,
        )
        threshold = self.args.filter_threshold()
        if threshold is None:
            return advantages
        kept = algorithm.filter_outliers(advantages, threshold, self.args.advantage_filter_mode)
        self._log_share("filtered", (kept != advantages) & mask.bool(), mask)
        return kept

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        mask = _loss_mask(inputs)
        logps, entropies, aux_loss = self._logps_and_entropies(model, inputs, entropy=True)
        advantages = inputs["advantages"]
        if "importance_sampling_ratio" in inputs:
            # vLLM's correction is a non-negative factor of the loss, hence of the advantage.
            advantages = advantages * inputs["importance_sampling_ratio"]
        old_logps = inputs.get("old_per_token_logps", logps.detach())
        settings: dict[str, Any] = {
            "clip_eps": self.args.epsilon,
            "pre_clip": self.args.ratio_bounds(),
            "constant_length": self.args.max_completion_length if self.algorithm.constant_length else None,
        }
        # All sequences count, even those whose tokens are all masked: micro-batches and processes are averaged with
        # equal weights, so only then is the mean over all of them that over the sequences of the global batch.
        result = algorithm.policy_loss(logps, old_logps, advantages, mask, num_sequences=len(mask), **settings)
        bias = algorithm.pre_clip_bias(logps, old_logps, advantages, mask, **settings)
        self._log_means(
            policy_loss=result.loss.detach(),
            **{"pre_clip/cosine": bias.cosine, "pre_clip/norm_ratio": bias.norm_ratio},
        )
        self._log_token_means(
            mask.sum(),
            approx_kl=result.approx_kl,
            pre_clipped=result.pre_clipped,
            ppo_clipped=result.ppo_clipped,
            **{"pre_clip/changed": bias.changed_share},
        )
        if self.args.pre_clip_in_parameters and logps.requires_grad:
            self._log_parameter_bias(model, result.loss, bias, (logps, old_logps, advantages, mask), settings)
        metrics = self._metrics[self._mode]
        metrics["max_log_ratio"].append(self.accelerator.gather(result.max_log_ratio).max().item())
        self._log_share("entropy", entropies, mask)
        loss = result.loss
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * aux_loss
            metrics["aux_loss"].append(self.accelerator.gather(aux_loss.detach()).mean().item())
        return loss / (self.current_gradient_accumulation_steps if self._mode == "train" else 1)

    def _log_parameter_bias(
        self, model: Any, loss: torch.Tensor, bias: algorithm.PreClipBias, batch: Any, settings: dict[str, Any]
    ) -> None:
        """Log cosine and norm ratio of the parameters' gradient with Pre-CLIP to the one without."""
        pair = (bias.cosine, bias.norm_ratio)  # both 1, in either space, if no token is changed
        if bias.changed_share > 0:
            free = algorithm.policy_loss(*batch, num_sequences=len(batch[0]), **{**settings, "pre_clip": None}).loss
            pair = compare_gradients(loss, free, [p for p in model.parameters() if p.requires_grad])
        names = ("pre_clip/parameter_cosine", "pre_clip/parameter_norm_ratio")
        self._log_means(**dict(zip(names, (value.to(loss.device) for value in pair), strict=True)))

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

    # ---- a run that was cut, see r1_reward/train/progress.py

    def progress(self) -> dict[str, Any]:
        """Add what TRL holds between two updates of one rollout."""
        between = self._step % ((self.args.steps_per_generation or 1) * self.num_iterations) != 0
        return {
            **super().progress(),
            "shape": self._rollout_shape(),
            "rollout": self._buffered_inputs if between else None,
            "referee": self._referee_watch.counts(),
            "sampling": self.sampling.copies(),
        }

    def restore_progress(self, progress: dict[str, Any] | None, epochs: int) -> None:
        """Put the rollout back; where it was cut to other batches, sample a new one at the same place of the data."""
        same = progress is not None and progress["shape"] == self._rollout_shape()
        super().restore_progress(progress, epochs)
        if progress is None or not same:
            self._step = self.state.global_step * self.args.gradient_accumulation_steps
        if progress is not None:
            self._buffered_inputs = progress["rollout"] if same else None
            self._referee_watch.restore(progress["referee"])
            self.sampling.restore(progress["sampling"])
        if self.shuffle_dataset:
            for _ in range(epochs):  # TRL's sampler draws one order an epoch, and the first one again in a new process
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

    @property
    def _mode(self) -> str:
        return "train" if self.model is not None and self.model.training else "eval"

    def _sampling_policy(self) -> AbstractContextManager[None]:
        """Return a block in which the model is the policy rollouts are sampled from; evaluation samples as trained."""
        return self.sampling.swapped_in() if self._mode == "train" else nullcontext()

    def _sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(values, reduction="sum")

    def _log_means(self, **values: torch.Tensor) -> None:
        """Log the mean over processes of scalars, in one exchange: each one by itself would make the device wait."""
        gathered = self.accelerator.gather(torch.stack([value.double() for value in values.values()]))
        means = gathered.view(-1, len(values)).nanmean(0).tolist()
        for name, mean in zip(values, means, strict=True):
            self._metrics[self._mode][name].append(mean)

    def _log_token_means(self, tokens: torch.Tensor, **values: torch.Tensor) -> None:
        """Log the mean over the tokens of all processes of scalars that are means over this one's ``tokens``."""
        together = torch.stack([*(value.double() * tokens for value in values.values()), tokens.double()])
        *sums, count = self._sum_over_processes(together).tolist()
        for name, total in zip(values, sums, strict=True):
            self._metrics[self._mode][name].append(total / max(count, 1))

    def _gather_values(self, values: torch.Tensor) -> torch.Tensor:
        """Return the (n,) ``values`` of every process, in their order; n may differ between processes."""
        counts = self.accelerator.gather(torch.tensor([len(values)], device=values.device)).tolist()
        padded = torch.nn.functional.pad(values, (0, max(counts) - len(values)))
        rows = self.accelerator.gather(padded).view(len(counts), -1)
        return torch.cat([row[:count] for row, count in zip(rows, counts, strict=True)])

    def _log_share(self, name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
        """Log the mean of (B, T) ``values`` over the masked tokens of every process."""
        sums = self._sum_over_processes(torch.stack([(values * mask).sum().float(), mask.sum().float()]).detach())
        self._metrics[self._mode][name].append((sums[0] / sums[1].clamp(min=1)).item())


def _loss_mask(batch: dict[str, Any]) -> torch.Tensor:
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


def _check_processor(processor: Any) -> None:
    # Pixtral's asks for tensors by itself, where TRL wants lists; transformers 5.17 keeps that elsewhere.
    older = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    defaults = (
        getattr(type(processor), "text_kwargs", {}),
        older.get("text_kwargs", {}),
        older.get("common_kwargs", {}),
    )
    if any("return_tensors" in options for options in defaults):
        raise UserError(
            f"{type(processor).__name__} pads prompts or refuses them, where TRL's rollouts need them as they are; "
            "this family can be trained by SFT and used as a judge, not by RL."
        )


def _load_referee(args: StableReinforceConfig) -> Referee:
    from r1_reward.judge.referee import load_referee  # lazily: a server's client or a checkpoint may stand behind it

    # Beside the checkpoints, so that a resumed run need not pay for the same verdicts again.
    return load_referee(args.referee, cache=Path(str(args.output_dir)) / "verdicts.jsonl")
