"""StableReinforce and its relatives: the whole step on this page, from pairs to a gradient.

The methods of `StableReinforceTrainer` are in the order in which they are called. For one rollout of B judgments they
do the following (tests/train/test_rl_page.py takes these steps by hand and ends with the trainer's weights)::

    rollout = sample(rows)                                                          # 1. B texts, by TRL
    scores = score_judgments(texts, preferred, referee, args)                       # 2. R of each text, or None
    returns = discounted_returns(rewards, mask)                                     # 3. (B, T)
    rollout["advantages"] = filter_outliers(standardize(returns, mask))
    for update in split(deal(rollout, updates, together=2), updates):
        logps = forward(model, update)                                              # 4. (B / updates, T)
        policy_loss(logps, update.old_logps, update.advantages, mask).loss.backward()
        optimizer.step()

Two things differ from TRL. The baseline is the whole global batch, not a group of samples of one prompt, so one sample
per prompt is enough; and the loss is :func:`r1_reward.algorithm.policy_loss`. Everything else the step needs, such as
pictures in every forward pass and resuming, is in :mod:`r1_reward.train.rl_base`. The other algorithms are rows of a
table in :mod:`r1_reward.train.algorithms`, and :mod:`r1_reward.train.controls` has the controls (asymmetric and dual
clip, CISPO, GSPO, …), which change the inputs of the loss and are off by default.

    args = StableReinforceConfig("runs/rl", algorithm="stable_reinforce")
    trainer = StableReinforceTrainer(model, args, train_dataset=pairs, processing_class=processor)
    trainer.train()
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from r1_reward.algorithm import PolicyLoss, filter_outliers, policy_loss, pre_clip_bias
from r1_reward.engines.tokens import text_decoder
from r1_reward.judge.referee import Referee
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import with_template_thought
from r1_reward.records.prompt import build_messages
from r1_reward.records.schema import Answer
from r1_reward.store.video import FRAMES
from r1_reward.train.algorithms import algorithm_named, unfiltered_advantages
from r1_reward.train.controls import sampler_shares, token_mean_weights
from r1_reward.train.judging import METRICS, PolicyWatch, RefereeWatch, score_judgments
from r1_reward.train.pictures_once import open_pictures, processed_once
from r1_reward.train.processes import all_or_none, deal
from r1_reward.train.rl_base import RolloutTrainer
from r1_reward.train.rl_config import StableReinforceConfig
from r1_reward.train.rows import rl_rows

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)

__all__ = ["StableReinforceConfig", "StableReinforceTrainer"]


class StableReinforceTrainer(RolloutTrainer):
    """GRPOTrainer with the rewards, advantages and loss of ``args.algorithm`` (method sections 2 and 3).

    ``train_dataset`` holds preference pairs as returned by `load_pairs`; videos are shown as up to ``video_frames``
    frames. ``referee`` overrides ``args.referee``. In addition to TRL's metrics it logs reward/* (the three parts),
    accuracy, parse_rate, unscorable, referee_unknown, approx_kl, max_log_ratio, pre_clipped, pre_clip/*, ppo_clipped,
    filtered and policy_loss, with CISPO cispo_capped, and with vLLM's correction sampling/masked and sampling/truncated
    (shares of the tokens). The share of truncated judgments is TRL's completions/clipped_ratio. If none of the first
    judgments can be read, ``args.on_unreadable`` decides what happens.
    """

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
        self.controls = args.controls()
        self._referee_watch = RefereeWatch(args.max_referee_unknown, args.referee if referee is None else "your own")
        self._rewards = torch.empty(0)
        self._warned_of_parted_orders = False
        template_options: Any = args.chat_template_kwargs or {}
        self._rendered_prompt = processing_class.apply_chat_template(
            build_messages("question", "response 1", "response 2"),
            tokenize=False,
            add_generation_prompt=True,
            **template_options,
        )
        super().__init__(
            model=model,
            args=args,
            reward_funcs=[self.judgment_reward],
            train_dataset=rl_rows(train_dataset),
            processing_class=processing_class,
            **kwargs,
        )
        self._policy_watch = PolicyWatch(
            args.on_unreadable,  # type: ignore[arg-type]  # checked by the config
            args.max_completion_length,
            speaks=self.accelerator.is_main_process,
        )

    # ---- 1. rollout: each process samples one judgment for each of its rows

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Return the next micro-batch; when the last rollout is used up, sample one and split it into its updates."""
        steps = self.args.steps_per_generation or 1
        updates, rest = divmod(steps, self.args.gradient_accumulation_steps)
        if updates < 2 or rest or self._mode == "eval":
            if rest and self._mode == "train":
                self._warn_of_parted_orders("steps_per_generation is not a multiple of gradient_accumulation_steps")
            return super()._prepare_inputs(generation_batch)
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            rollout = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            rows = len(generation_batch)
            # Keep the two orders of a pair together; groups are shared by all updates anyway.
            together = 2 if self.num_generations == 1 else 1
            if rows % (together * updates):
                self._warn_of_parted_orders(
                    f"each process samples {rows} rows for {updates} updates, an odd number for each"
                )
                together = 1
            dealt = deal(
                rollout,
                updates,
                together=together,
                first_row=self.accelerator.process_index * rows,
                seed=f"{self.args.seed}/{self.state.global_step}",
            )
            parts: Any = split_tensor_dict(dealt, steps)
            buffered: Any = [unsplit_pixel_values_by_grid(part) for part in parts]
            self._buffered_inputs = buffered
        return self._buffered_inputs[self._step % steps]  # type: ignore[index]  # filled above, or by an earlier step

    def _warn_of_parted_orders(self, reason: str) -> None:
        if not self._warned_of_parted_orders:
            self._warned_of_parted_orders = True
            _LOG.warning(
                "%s, so the two orders of a pair may be in different updates, whose labels are then unbalanced. "
                "Make per_device_train_batch_size even and steps_per_generation a multiple of "
                "gradient_accumulation_steps.",
                reason,
            )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a rollout: (B, T) tokens with their mask, old log-probabilities, rewards and advantages."""
        with all_or_none("reading pictures"):
            rows = open_pictures(inputs, self.processing_class, self.video_frames)
        with processed_once(self.processing_class):
            rollout = super()._generate_and_score_completions(rows)  # samples, then calls _calculate_rewards below
        old_logps = self._old_logps(rollout)
        if old_logps is not None:
            rollout["old_per_token_logps"] = old_logps
        if self.beta != 0.0:
            with all_or_none("comparing with the reference"):
                _require_finite(rollout["ref_per_token_logps"], _loss_mask(rollout))
        rollout["advantages"] = self._advantages(rollout, first_row=self.accelerator.process_index * len(inputs))
        if self.controls.cap() is not None:
            # CISPO's loss is a mean over tokens, and a factor of the loss is a factor of the advantage.
            mask = _loss_mask(rollout)
            tokens, sequences = self._sum_over_processes(torch.stack([mask.sum(), mask.new_tensor(len(mask))]))
            weights = token_mean_weights(mask, tokens=tokens, sequences=sequences)
            rollout["advantages"] = rollout["advantages"] * weights
        self._log_sampler(rollout)
        return rollout

    def _old_logps(self, rollout: dict[str, Any]) -> Tensor | None:
        """Return (B, T) log-probabilities under the sampling policy; None if the ratio is 1 by definition."""
        if "old_per_token_logps" in rollout or self.beta == 0.0:
            return rollout.get("old_per_token_logps")
        with torch.no_grad():
            return self._logps_and_entropies(self.model, rollout, entropy=False)[0]

    # ---- 2. rewards: result, format, and a referee's verdict (method section 3)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:  # noqa: ARG002
        """Return (N, 1) rewards of all processes' samples, in order; NaN for those that cannot be scored."""
        # Decode the tokens: in TRL's messages, a tokenizer's response template may have removed the thought.
        processor: Any = self.processing_class
        decode = text_decoder(processor.tokenizer)
        texts = [decode(ids) for ids in completion_ids_list]
        rewards = self.judgment_reward(
            completions=[[{"content": with_template_thought(self._rendered_prompt, text)}] for text in texts],
            preferred=[row["preferred"] for row in inputs],
            cut=[ids[-1] not in self.eos_token_ids for ids in completion_ids_list],
            log_metric=self._log_metric,
        )
        own = [math.nan if reward is None else reward for reward in rewards]
        self._rewards = self.accelerator.gather(torch.tensor(own, device=self.accelerator.device))
        return self._rewards[:, None]

    def judgment_reward(
        self,
        completions: Sequence[Sequence[dict[str, str]]],
        preferred: Sequence[Answer],
        log_metric: Callable[[str, float], None],
        cut: Sequence[bool] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Return R of each completion, None if it cannot be scored; raises UserError if the referee fails.

        ``cut`` says for each completion whether the token limit ended it.
        """
        texts = [completion[0]["content"] for completion in completions]
        with all_or_none("asking the referee"):
            scores = score_judgments(texts, preferred, self.referee, self.args, cut=cut)
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
        place = METRICS.index("parse_rate")
        self._policy_watch.add(scores.readings, int(totals[len(METRICS) + place]), round(totals[place]))
        return scores.rewards

    # ---- 3. advantages: over the samples of all processes, before anything is learned from them

    def _advantages(self, rollout: dict[str, Any], *, first_row: int) -> Tensor:
        """Return (B, T) filtered advantages of the configured algorithm; 0 for samples that cannot be scored."""
        mask = _loss_mask(rollout)
        advantages = self._unfiltered_advantages(rollout, first_row=first_row)
        threshold = self.args.filter_threshold()
        if threshold is None:
            return advantages
        kept = filter_outliers(advantages, threshold, self.args.advantage_filter_mode)
        self._log_share("filtered", (kept != advantages) & mask.bool(), mask)
        return kept

    def _unfiltered_advantages(self, rollout: dict[str, Any], *, first_row: int) -> Tensor:
        return unfiltered_advantages(
            self.algorithm,
            self._rewards,
            _loss_mask(rollout),
            group_size=(self.num_generations if self._mode == "train" else self.num_generations_eval) or 1,
            first_row=first_row,
            kl=rollout["old_per_token_logps"] - rollout["ref_per_token_logps"] if self.beta != 0.0 else None,
            kl_coef=self.beta,
            gather=self._gather_values,
        )

    def _log_sampler(self, rollout: dict[str, Any]) -> None:
        """Log the shares that vLLM's correction masks and truncates; TRL logs the gap as sampling_logp_difference."""
        if "importance_sampling_ratio" in rollout:
            mask, args = _loss_mask(rollout), self.args
            masked, truncated = sampler_shares(
                rollout["importance_sampling_ratio"],
                low=args.vllm_importance_sampling_clip_min,
                high=args.vllm_importance_sampling_clip_max,
            )
            self._log_share("sampling/masked", masked, mask)
            self._log_share("sampling/truncated", truncated, mask)

    # ---- 4. loss: for each micro-batch of an update

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return the scalar whose gradient is accumulated: the mean over this micro-batch's sequences."""
        mask = _loss_mask(inputs)
        logps, entropies, aux_loss = self._logps_and_entropies(model, inputs, entropy=True)
        advantages = inputs["advantages"]
        if "importance_sampling_ratio" in inputs:
            # vLLM's correction is a non-negative factor of the loss, and therefore of the advantage.
            advantages = advantages * inputs["importance_sampling_ratio"]
        loss = self._policy_loss(logps, inputs.get("old_per_token_logps", logps.detach()), advantages, mask).loss
        self._log_share("entropy", entropies, mask)
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * aux_loss
            self._metrics[self._mode]["aux_loss"].append(self.accelerator.gather(aux_loss.detach()).mean().item())
        return loss / (self.current_gradient_accumulation_steps if self._mode == "train" else 1)

    def _policy_loss(self, logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> PolicyLoss:
        """Return the loss of (B, T) inputs, and log the metrics of stability."""
        settings = self._loss_settings()
        anchors = self.controls.anchors(logps, old_logps, mask)
        # All sequences count, even fully masked ones: micro-batches and processes are averaged with equal weights, so
        # only then is their mean the mean over the sequences of the global batch.
        result = policy_loss(logps, anchors, advantages, mask, num_sequences=len(mask), **settings)
        bias = pre_clip_bias(logps, anchors, advantages, mask, **settings)
        # Policy drift is measured on the tokens' own ratios, which the loss may transform.
        moved = result if anchors is old_logps else policy_loss(logps.detach(), old_logps, advantages, mask, **settings)
        self._log_means(
            policy_loss=result.loss.detach(),
            **{"pre_clip/cosine": bias.cosine, "pre_clip/norm_ratio": bias.norm_ratio},
        )
        self._log_token_means(
            mask.sum(),
            approx_kl=moved.approx_kl,
            pre_clipped=result.pre_clipped,
            ppo_clipped=result.ppo_clipped,
            **{"pre_clip/changed": bias.changed_share},
        )
        if (cap := self.controls.cap()) is not None:
            self._log_share("cispo_capped", logps.detach() - old_logps > math.log(cap), mask)
        largest = self.accelerator.gather(moved.max_log_ratio).max().item()
        self._metrics[self._mode]["max_log_ratio"].append(largest)
        return result

    def _loss_settings(self) -> dict[str, Any]:
        return {
            "clip_eps": self.controls.clip(),
            "pre_clip": self.args.ratio_bounds(),
            "constant_length": self.args.max_completion_length if self.algorithm.constant_length else None,
        }

    # ---- resuming

    def progress(self) -> dict[str, Any]:
        """Add the referee's recent counts."""
        return {**super().progress(), "referee": self._referee_watch.counts()}

    def restore_progress(self, progress: dict[str, Any] | None, epochs: int) -> None:
        """Restore them, too."""
        super().restore_progress(progress, epochs)
        if progress is not None:
            self._referee_watch.restore(progress["referee"])


def _loss_mask(batch: dict[str, Any]) -> Tensor:
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


def _require_finite(ref_logps: Tensor, mask: Tensor) -> None:
    """Raise UserError if (B, T) log-probabilities of the reference are not finite: samples would pass as unscorable."""
    if not ref_logps[mask.bool()].isfinite().all():
        raise UserError(
            "beta: the reference model gives log-probabilities that are not finite, so there is no KL penalty. Check "
            "the weights that training started from, and use bfloat16 or float32 if they are float16."
        )


def _load_referee(args: StableReinforceConfig) -> Referee:
    from r1_reward.judge.referee import load_referee  # lazy: it may import a server's client or load a checkpoint

    # Next to the checkpoints, so that a resumed run does not pay for the same verdicts again.
    return load_referee(args.referee, cache=Path(str(args.output_dir)) / "verdicts.jsonl")
