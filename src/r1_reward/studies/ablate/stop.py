"""End a run at its collapse, because the rest, with responses of full length, is its most expensive part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from r1_reward.train.monitor import CollapseWatch, Thresholds


class StopAtCollapse(TrainerCallback):
    """End training after the first step that triggers a rule of :mod:`r1_reward.train.monitor`."""

    def __init__(self, *, max_completion_length: int | None, thresholds: Thresholds | None = None) -> None:
        """Take the limit of a response in tokens and the rules' thresholds, as for `collapsed`."""
        self._watch = CollapseWatch(max_completion_length=max_completion_length, thresholds=thresholds)
        self.stopped_at: int | None = None
        """The step of the collapse, or None."""

    def on_log(
        self,
        args: Any,  # noqa: ARG002
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Apply the rules to the new row."""
        if self.stopped_at is None and self._watch.add({**(logs or {}), "step": state.global_step}):
            self.stopped_at = state.global_step
            control.should_training_stop = True
