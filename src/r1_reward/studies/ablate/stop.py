"""End a run where it collapses: what comes after is the dearest part of it, responses of the full length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from r1_reward.train.monitor import CollapseWatch


class StopAtCollapse(TrainerCallback):
    """End training after the first step at which the written rule of :mod:`r1_reward.train.monitor` fires."""

    def __init__(self, *, max_completion_length: int | None) -> None:
        """Take the limit of a response in tokens, as `collapsed` takes it."""
        self._watch = CollapseWatch(max_completion_length=max_completion_length)
        self.stopped_at: int | None = None
        """The step, None while the run is sound."""

    def on_log(
        self,
        args: Any,  # noqa: ARG002
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Ask the rule about the new row."""
        if self.stopped_at is None and self._watch.add({**(logs or {}), "step": state.global_step}):
            self.stopped_at = state.global_step
            control.should_training_stop = True
