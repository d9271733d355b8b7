"""Log held-out accuracy next to the training reward, because a policy can earn reward without judging well.

Every few steps the current policy judges pairs it never trains on, greedily and in both orders. This does not affect
training: the mode and all random states are restored::

    trainer.add_callback(HeldOutAccuracy(trainer, load_pairs("held-out.jsonl"), every=20, max_new_tokens=1024))
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback
from trl.models import unwrap_model_for_generation

from r1_reward.data.subsets import refuse_ties
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.judge.metrics import accuracy
from r1_reward.judge.votes import Plan, judge_pairs
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment
from r1_reward.store.video import FRAMES
from r1_reward.train.processes import all_or_none
from r1_reward.train.sharded import unsharded


def measure(judged: Sequence[Sequence[Judgment]], preferred: Sequence[int]) -> dict[str, float]:
    """Return the metrics of judged pairs.

    ``accuracy`` with its 95 % interval from ``low`` to ``high`` (bootstrapped over pairs; an unreadable judgment is
    wrong), ``parse_rate``, ``truncated`` (share cut by the token limit), and ``mean_tokens`` per judgment.
    """
    interval = accuracy(judged, preferred)
    votes = [judgment for row in judged for judgment in row]
    return {
        "accuracy": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "parse_rate": sum(vote.answer is not None for vote in votes) / len(votes),
        "truncated": sum(vote.truncated for vote in votes) / len(votes),
        "mean_tokens": sum(vote.tokens for vote in votes) / len(votes),
    }


class HeldOutAccuracy(TrainerCallback):
    """Judge held-out pairs before the first step and every ``every`` steps, and log ``held_out/*``.

    Each process judges its share of the pairs. Works with any TRL trainer of a vision-language model.
    """

    def __init__(
        self,
        trainer: Trainer,
        rows: Sequence[dict[str, Any]],
        *,
        every: int,
        max_new_tokens: int,
        batch_size: int = 64,
        video_frames: int = FRAMES,
    ) -> None:
        """Take the trainer, rows of a pair file, the steps between measurements and the token limit of a judgment.

        Videos are shown as ``video_frames`` frames, which should be the same number as in training.

        Raises:
            UserError: There are no pairs, or one of them has no winner.
        """
        if not len(rows):
            raise UserError("held_out: there are no pairs to judge.")
        refuse_ties(rows)  # the prompt asks for a winner, so no answer would be right
        self._trainer, self._rows, self._every = trainer, rows, every
        self._max_new_tokens, self._batch_size, self._video_frames = max_new_tokens, batch_size, video_frames

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Measure before the first step of a fresh run."""
        if state.global_step == 0:
            self._judge_and_log(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Measure every few steps."""
        if state.global_step % self._every == 0:
            self._judge_and_log(control)

    def _judge_and_log(self, control: Any) -> None:
        started = time.monotonic()
        numbers = measure(*self._judge())
        row = {f"held_out/{name}": value for name, value in numbers.items()}
        row["held_out/seconds"] = time.monotonic() - started
        due = control.should_log
        # Not trainer.log: TRL would move the training metrics collected so far into this row.
        Trainer.log(self._trainer, row)
        control.should_log = due  # logging switched it off, but the training row may still be due

    def _judge(self) -> tuple[list[list[Judgment]], list[int]]:
        """Return the judgments and the label of every pair, from all processes."""
        accelerator = self._trainer.accelerator
        own = [self._rows[i] for i in range(accelerator.process_index, len(self._rows), accelerator.num_processes)]
        # With ZeRO-3 the processes generate in lockstep, so all of them need the same number of pairs.
        share = -(-len(self._rows) // accelerator.num_processes)
        filled = own + [self._rows[0]] * (share - len(own))
        wrapped = self._trainer.model_wrapped
        with _random_states_kept(), unsharded(wrapped), unwrap_model_for_generation(wrapped, accelerator) as model:
            processor: Any = self._trainer.processing_class
            engine = TransformersEngine(model, processor, batch_size=self._batch_size)
            plan = Plan(max_new_tokens=self._max_new_tokens)
            with nullcontext() if self._trainer.is_deepspeed_enabled else all_or_none("judging held-out pairs"):
                judged = judge_pairs(engine, filled, plan, video_frames=self._video_frames)[: len(own)]
        together = gather_object([(votes, row["preferred"]) for votes, row in zip(judged, own, strict=True)])
        return [votes for votes, _ in together], [label for _, label in together]


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch on exit."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
