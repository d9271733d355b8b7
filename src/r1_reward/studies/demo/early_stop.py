"""Stop the cold start when accuracy on development pairs no longer improves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from r1_reward.engines.in_process import TransformersEngine
from r1_reward.judge.metrics import correctness
from r1_reward.judge.votes import Plan, judge_pairs


class StopAtPlateau(TrainerCallback):
    """Judge development pairs greedily in both orders every few steps; stop once accuracy no longer improves."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        rows: Sequence[dict[str, Any]],
        *,
        patience: int,
        every: int,
        max_new_tokens: int,
        report: Callable[[float], None],
    ) -> None:
        """Take the model in training, the pairs to judge, and a function that receives each accuracy in [0, 1].

        The trainer stops after ``patience`` consecutive evaluations without a new best accuracy.
        """
        self._engine = TransformersEngine(model, processor, batch_size=256)
        self._rows, self._patience, self._every = rows, patience, every
        self._max_new_tokens, self._report = max_new_tokens, report

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Judge, log, and ask the trainer to stop at the plateau."""
        if state.global_step % self._every:
            return
        started = time.monotonic()
        judged = judge_pairs(self._engine, self._rows, Plan(max_new_tokens=self._max_new_tokens))
        accuracy = float(correctness(judged, [row["preferred"] for row in self._rows]).mean())
        seconds = time.monotonic() - started
        state.log_history.append({"step": state.global_step, "dev_accuracy": accuracy, "dev_seconds": seconds})
        self._report(accuracy)
        looks = [row["dev_accuracy"] for row in state.log_history if "dev_accuracy" in row]
        if len(looks) - 1 - looks.index(max(looks)) >= self._patience:
            control.should_training_stop = True
