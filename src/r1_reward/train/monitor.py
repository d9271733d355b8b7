"""Detect collapse from the training log with fixed rules, and a callback that acts on it.

`collapsed` applies the rules: a pure function of a log history, the same for a run in progress and a finished one.
`StabilityMonitor` applies them after every log, keeps weights that later logs proved good, and stops the run or rolls
it back::

    collapse = collapsed(trainer.state.log_history, max_completion_length=1024)
    print(collapse or "stable")

    StabilityMonitor(trainer, on_collapse="rollback").train()

Rows are those of `StableReinforceTrainer`. TRL drops NaN from its averages and logs None if no value is left.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

import torch
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback

from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json, write_json
from r1_reward.train.judging import RefereeOutage
from r1_reward.train.last_good import LastGood
from r1_reward.train.restore import restore_weights

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
Series = Mapping[str, Sequence[float]]
"""The values logged so far for each metric, oldest first; rows without the metric are skipped."""

ROWS_IN_REPORT = 20

SAMPLING_FAILED = "probability tensor contains"
"""Text of ``torch.multinomial``'s RuntimeError, on every device, for a NaN, infinite or negative probability.

Running out of memory and losing a connection are RuntimeErrors, too; only the text tells them apart.
"""


@dataclass(frozen=True)
class Thresholds:
    """The threshold of each rule; a value at the threshold is healthy, except for lengths."""

    policy_loss: float = 1e3
    """Maximum absolute loss of one log."""
    parse_rate: float = 0.5
    """Minimum share of readable answers, mean of the window."""
    length_share: float = 0.99
    """Mean completion length that counts as at the limit, as a share of it; mean of the window."""
    truncated_share: float = 0.99
    """Share of truncated completions that counts as at the limit, mean of the window."""
    entropy: float = 0.01
    """Minimum mean token entropy in nats; collapsed when every log of the window is below."""
    window: int = 5
    """Number of logs with the metric that the slow rules look back."""


class Collapse(NamedTuple):
    """The first log that triggered a rule: its step, the rule, and the values that triggered it."""

    step: int
    rule: str
    values: dict[str, float]

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        return f"collapsed at step {self.step}: {RULES[self.rule].meaning}" + (f" ({numbers})" if numbers else "")


# ---- rules: each takes the series, the thresholds and the length limit, and returns the values that triggered it


def _not_finite(series: Series, _: Thresholds, __: int | None) -> dict[str, float] | None:
    latest = {key: series[key][-1] for key in ("loss", "policy_loss", "reward", "grad_norm") if key in series}
    if series.get("unscorable", (0.0,))[-1] == 1.0:
        latest.pop("reward", None)  # no sample has a reward: the referee failed, not the policy
    return {key: value for key, value in latest.items() if not math.isfinite(value)} or None


def _loss_exploded(series: Series, thresholds: Thresholds, _: int | None) -> dict[str, float] | None:
    latest = {key: series[key][-1] for key in ("loss", "policy_loss") if key in series}
    return {key: value for key, value in latest.items() if abs(value) > thresholds.policy_loss} or None


def _parse_rate_lost(series: Series, thresholds: Thresholds, _: int | None) -> dict[str, float] | None:
    mean = _window_mean(series, "parse_rate", thresholds.window)
    line = thresholds.parse_rate
    if mean is None or mean >= line or max(_earlier(series["parse_rate"], thresholds.window)) < line:
        return None
    return {"parse_rate": mean}


def _length_at_limit(series: Series, thresholds: Thresholds, limit: int | None) -> dict[str, float] | None:
    lines = {"completions/clipped_ratio": thresholds.truncated_share}
    if limit is not None:
        lines["completions/mean_length"] = thresholds.length_share * limit
    found = {}
    for key, line in lines.items():
        mean = _window_mean(series, key, thresholds.window)
        if mean is not None and mean >= line and min(_earlier(series[key], thresholds.window)) < line:
            found[key] = mean
    return found or None


def _entropy_lost(series: Series, thresholds: Thresholds, _: int | None) -> dict[str, float] | None:
    values = series.get("entropy", ())
    recent = values[-thresholds.window :]
    line = thresholds.entropy
    if len(recent) < thresholds.window or max(recent) >= line:
        return None
    return {"entropy": recent[-1]} if max(_earlier(values, thresholds.window)) >= line else None


def _window_mean(series: Series, key: str, window: int) -> float | None:
    """Return the mean of the last ``window`` logs of a metric, or None if there are fewer."""
    recent = series.get(key, ())[-window:]
    return sum(recent) / window if len(recent) == window else None


def _earlier(values: Sequence[float], window: int) -> Iterator[float]:
    """Yield the first log, and the means of all windows before the last one."""
    yield values[0]
    yield from (sum(values[i : i + window]) / window for i in range(len(values) - window))


class Rule(NamedTuple):
    """A rule: its meaning in words, and the function that checks it."""

    meaning: str
    holds: Callable[[Series, Thresholds, int | None], dict[str, float] | None]


RULES: dict[str, Rule] = {
    "not_finite": Rule("NaN or infinity in loss, reward, gradient norm or weights", _not_finite),
    "loss_exploded": Rule("the loss exploded", _loss_exploded),
    "parse_rate_lost": Rule("answers can no longer be read", _parse_rate_lost),
    "length_at_limit": Rule("completions grew to the length limit", _length_at_limit),
    "entropy_lost": Rule("the policy has no entropy left", _entropy_lost),
    "referee_out": Rule("the referee answers too rarely", lambda *_: None),
    "sampling_failed": Rule("no token could be sampled: the logits contain NaN or infinity", lambda *_: None),
}
"""The rules, checked in this order.

No log shows the last two: the trainer counts the referee's verdicts (`RefereeWatch`), and sampling fails in the middle
of a step.
"""

_WATCHED = (
    "loss", "policy_loss", "reward", "grad_norm", "parse_rate", "entropy", "unscorable",
    "completions/mean_length", "completions/clipped_ratio",
)  # fmt: skip


class CollapseWatch:
    """Applies the rules row by row."""

    def __init__(self, *, max_completion_length: int | None = None, thresholds: Thresholds | None = None) -> None:
        """Take the options of `collapsed`."""
        self._limit, self._thresholds = max_completion_length, thresholds or Thresholds()
        self._series: dict[str, list[float]] = defaultdict(list)

    def add(self, row: Row) -> Collapse | None:
        """Add the next row of the log, and return the collapse if a rule is triggered."""
        news = [key for key in _WATCHED if key in row]
        for key in news:
            self._series[key].append(math.nan if row[key] is None else float(row[key]))
        for name, rule in RULES.items() if news else ():
            values = rule.holds(self._series, self._thresholds, self._limit)
            if values:
                return Collapse(int(row.get("step", 0)), name, values)
        return None


def collapsed(
    log_history: Iterable[Row], *, max_completion_length: int | None = None, thresholds: Thresholds | None = None
) -> Collapse | None:
    """Return the first log of a run that triggers a rule of `RULES`, or None for a stable run.

    Parse rate, length and entropy must have been healthy before, in the first log or in the mean of a window: a policy
    that never wrote a readable answer has not learned, but it has not collapsed either.

    Args:
        log_history: Rows of `TrainerState.log_history`, where None means NaN; other rows (an evaluation, a summary)
            are ignored.
        max_completion_length: The limit in tokens; None skips the mean length, but not the truncated share.
        thresholds: The thresholds of the rules.
    """
    watch = CollapseWatch(max_completion_length=max_completion_length, thresholds=thresholds)
    return next(filter(None, map(watch.add, log_history)), None)


# ---- actions


class StabilityMonitor(TrainerCallback):
    """Watch a run, keep its last good weights in ``output_dir/last-good``, and stop or roll back when it collapses.

    Weights are good once ``thresholds.window`` rollouts sampled after them were logged without a collapse; the weights
    a run starts from count as good. Each collapse and the action taken are appended to ``output_dir/collapse.json``.
    Checkpoints newer than the last good weights are renamed to ``collapsed-checkpoint-N``, so that a resumed run does
    not load them.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        on_collapse: Literal["stop", "rollback"] = "stop",
        keep_good_every: int = 50,
        rollback_lr_factor: float = 0.5,
        max_rollbacks: int = 3,
        thresholds: Thresholds | None = None,
    ) -> None:
        """Take the trainer to watch; ``keep_good_every`` counts optimizer steps, see `RunConfig` for the others.

        Raises:
            UserError: Rollback was requested, but the weights are sharded.
        """
        if on_collapse == "rollback" and (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
            raise UserError("on_collapse: rollback does not support weights sharded by DeepSpeed or FSDP; use stop.")
        self.trainer, self.on_collapse, self.thresholds = trainer, on_collapse, thresholds or Thresholds()
        self.keep_good_every, self.rollback_lr_factor = keep_good_every, rollback_lr_factor
        self.max_rollbacks = max_rollbacks
        self.stopped: Collapse | None = None
        self.weights = LastGood(trainer)
        self._report = self.weights.output_dir / "collapse.json"
        self._watch = self._new_watch()
        self._good_step = 0
        self._candidate_step: int | None = None
        self._proofs = 0
        self._bad_weights = False

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        """Train under watch.

        Raises:
            UserError: The run collapsed and was stopped; the message names what was kept.
        """
        self.trainer.add_callback(self)
        try:
            self.trainer.train(resume_from_checkpoint=resume_from_checkpoint)
        except RefereeOutage as error:
            self.stopped = Collapse(self.trainer.state.global_step, "referee_out", {})
            self._write_report(self.stopped, "stopped", self.weights.set_aside_checkpoints(self._good_step))
            raise RefereeOutage(
                f"{error} The last good weights are in {self.weights.folder}, the report is {self._report}."
            ) from error
        except RuntimeError as error:
            if SAMPLING_FAILED not in str(error):
                raise
            self.stopped = Collapse(self.trainer.state.global_step, "sampling_failed", {})
            self._write_report(self.stopped, "stopped", self.weights.set_aside_checkpoints(self._good_step))
            self._tell(self.stopped, error)
        finally:
            self.trainer.remove_callback(self)
        if self.stopped is not None:
            self._tell(self.stopped)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Keep the initial weights of the run; a resumed run keeps those it had proved."""
        self._watch = self._new_watch()
        for row in state.log_history[_after_last_rollback(state.log_history) :]:
            self._watch.add(row)
        self.weights.recover()
        good, candidate = self.weights.step(), self.weights.candidate_step()
        if state.global_step == 0 or good is None:
            self._propose(state.global_step)
            self._promote()
            return
        resumed = (getattr(self.trainer, "resumed", None) or {}).get("callbacks", {}).get(type(self).__name__, {})
        self._good_step, waiting = resumed.get("good_step", good), resumed.get("candidate_step")
        # The killed process may have run past its checkpoint, and proved these or newer weights.
        if waiting is not None and (waiting == candidate or waiting <= good):
            self._candidate_step, self._proofs = waiting, resumed["proofs"]
        if self._candidate_step is None or self._candidate_step != candidate:
            self.weights.discard_candidate()

    def progress(self) -> dict[str, Any]:
        """Return the state that a resumed run needs, see `ExactResume`."""
        return {"good_step": self._good_step, "candidate_step": self._candidate_step, "proofs": self._proofs}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Request a log of the first step, and of any step that broke the weights before they are sampled from."""
        self._bad_weights = not self._weights_are_finite()
        # If averaged over many steps, the first log could already be that of a collapsed policy.
        control.should_log = control.should_log or state.global_step == 1 or self._bad_weights

    def on_log(self, args: Any, state: Any, control: Any, logs: Row | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Apply the rules to the new row, and act on a collapse."""
        if logs is None or "loss" not in logs or self.stopped is not None:
            return
        collapse = self._watch.add({**logs, "step": state.global_step})
        if collapse is None and self._bad_weights:
            collapse = Collapse(state.global_step, "not_finite", {"weights": math.nan})
        if collapse is not None:
            self._act(collapse, control)
            return
        self._proofs += "reward" in logs
        if self._candidate_step is not None and self._proofs >= self.thresholds.window:
            self._promote()
        if self._candidate_step is None and state.global_step >= self._good_step + self.keep_good_every:
            self._propose(state.global_step)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Save no checkpoint of a collapsed policy: Trainer ends the epoch of a stopped run like any other."""
        if self.stopped is not None:
            control.should_save = False

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Delete weights that were not proved in time."""
        self._discard_candidate()

    def _new_watch(self) -> CollapseWatch:
        limit = getattr(self.trainer.args, "max_completion_length", None)
        return CollapseWatch(max_completion_length=limit, thresholds=self.thresholds)

    def _act(self, collapse: Collapse, control: Any) -> None:
        rollbacks = sum("rollback" in row for row in self.trainer.state.log_history)
        set_aside = self.weights.set_aside_checkpoints(self._good_step)
        self.trainer.accelerator.wait_for_everyone()
        self._discard_candidate()
        control.should_save = False
        good = self.weights.step()
        if self.on_collapse == "rollback" and rollbacks < self.max_rollbacks and good is not None:
            rate = self._roll_back()
            self._watch = self._new_watch()
            self._write_report(collapse, "rolled back", set_aside)
            logger.warning("%s; rolled back to the weights of step %d, learning rate now %g", collapse, good, rate)
            # Not trainer.log: TRL would add the metrics it is logging right now to this row again.
            Trainer.log(self.trainer, {"rollback": rollbacks + 1, "rollback/learning_rate": rate})
            return
        self.stopped = collapse
        control.should_training_stop = True
        self._write_report(collapse, "stopped", set_aside)
        logger.error("%s; stopping", collapse)

    def _roll_back(self) -> float:
        """Restore the last good weights, reset the optimizer, and return its first group's reduced learning rate."""
        trainer: Any = self.trainer
        restore_weights(trainer, self.weights.folder)
        trainer.optimizer.state.clear()
        for group in trainer.optimizer.param_groups:
            group["lr"] *= self.rollback_lr_factor
            if "initial_lr" in group:
                group["initial_lr"] *= self.rollback_lr_factor
        scheduler = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)
        if hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [rate * self.rollback_lr_factor for rate in scheduler.base_lrs]
            scheduler._last_lr = [group["lr"] for group in trainer.optimizer.param_groups]  # the logged rate
        trainer._buffered_inputs = None  # rollouts of the collapsed policy
        return trainer.optimizer.param_groups[0]["lr"]

    # ---- weights and files: every process calls these

    def _weights_are_finite(self) -> bool:
        model: Any = self.trainer.model
        trained = [p.detach() for p in model.parameters() if p.requires_grad]
        own = [p.to_local() if isinstance(p, DTensor) else p for p in trained]  # with FSDP2 each process has a shard
        broken = [(~torch.isfinite(p)).any() for p in own]
        count = torch.stack(broken).sum() if broken else torch.zeros(())
        return self.trainer.accelerator.reduce(count, reduction="sum").item() == 0

    def _propose(self, step: int) -> None:
        self.weights.propose(step)
        self._candidate_step, self._proofs = step, 0

    def _promote(self) -> None:
        self.weights.promote()
        self._good_step, self._candidate_step = self._candidate_step or 0, None

    def _discard_candidate(self) -> None:
        self._candidate_step = None
        self.weights.discard_candidate()

    def _write_report(self, collapse: Collapse, action: str, set_aside: list[str]) -> None:
        if not self.trainer.args.should_save:
            return
        event = {
            "step": collapse.step,
            "rule": collapse.rule,
            "meaning": RULES[collapse.rule].meaning,
            "values": collapse.values,
            "action": action,
            "last_good": {"folder": self.weights.folder.name, "step": self.weights.step()},
            "set_aside": set_aside,
            "thresholds": dataclasses.asdict(self.thresholds),
            "rows": self.trainer.state.log_history[-ROWS_IN_REPORT:],
        }
        earlier = read_json(self._report) if self._report.is_file() else []
        write_json(self._report, [*earlier, _json_safe(event)])

    def _tell(self, collapse: Collapse, cause: BaseException | None = None) -> NoReturn:
        good, step = self.weights.folder, self.weights.step()
        raise UserError(
            f"training {collapse}. The last good weights, of step {step}, are in {good}; the report is "
            f"{self._report}. Start from them with a lower learning rate (--model {good} "
            "--learning_rate ... --output_dir ANOTHER), or let the run recover with --on_collapse rollback."
            if step is not None
            else f"training {collapse}. {good}, with the last good weights, was removed during the run; the report is "
            f"{self._report}. Start again with a lower learning rate."
        ) from cause


def _after_last_rollback(log_history: Sequence[Row]) -> int:
    return next((i + 1 for i in reversed(range(len(log_history))) if "rollback" in log_history[i]), 0)


def _json_safe(value: Any) -> Any:
    """Return the value with NaN and infinity as text, since JSON cannot represent them."""
    if isinstance(value, Mapping):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
