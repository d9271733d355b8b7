"""Where a run stands, in full: what transformers and TRL leave out of a checkpoint.

Their checkpoints hold weights, optimiser, schedule, random states and the log. Between two logs a trainer also holds
sums and metrics that the next row is made of; between two updates of one rollout TRL holds the rollout, and how far it
has come; and TRL's sampler draws the order of every epoch from a generator that starts anew. `ExactResume` writes these
into every checkpoint and puts them back, so that a killed and resumed run takes the course of one that never was::

    class Trainer(ExactResume, SFTTrainer):
        kept = ("_metrics", "_total_train_tokens")
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from r1_reward.records.errors import UserError
from r1_reward.train.checkpoints import STAGING, checkpoint_to_resume, clear_staging, keep_newest, publish, saving
from r1_reward.train.processes import all_or_none

logger = logging.getLogger(__name__)

BEST_MODEL_OPTIONS = ("load_best_model_at_end", "metric_for_best_model", "greater_is_better")
"""Options of transformers by which it remembers a best checkpoint: refused, see `ExactResume`."""


class ExactResume(Trainer):
    """A trainer whose checkpoints are whole or not there, and hold all it knows.

    The best checkpoint is not remembered: transformers would note where it was put together, which is gone by then, and
    with ``save_total_limit`` the newest are kept. Whoever asks for it is told so.

    Callbacks may take part: what their method ``progress()`` returns (plain values and tensors) is found again, after a
    resume, in ``resumed["callbacks"]`` under the name of their class.
    """

    kept: tuple[str, ...] = ()
    """Attributes of the trainer to keep: numbers, tensors, lists, or dictionaries of them."""
    _ALWAYS_KEPT = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged")
    resumed: dict[str, Any] | None = None
    """What the checkpoint that training goes on from says, None in a fresh run or where it does not say."""
    _redirected: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take Trainer's arguments; raises UserError where they ask for a best checkpoint."""
        super().__init__(*args, **kwargs)
        asked = [name for name in BEST_MODEL_OPTIONS if getattr(self.args, name)]
        asked += ["save_strategy: best"] * (self.args.save_strategy == "best")
        if asked:
            raise UserError(
                f"{', '.join(asked)}: no best checkpoint is kept here, only the newest (save_total_limit). Leave it "
                "out, log held-out accuracy (held_out, held_out_every), and choose a checkpoint by `r1-reward bench "
                "run`."
            )

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train; ``resume_from_checkpoint`` True takes the newest whole checkpoint in ``output_dir``."""
        if resume_from_checkpoint is True:
            found = checkpoint_to_resume(Path(str(self.args.output_dir)))
            resume_from_checkpoint = True if found is None else str(found)
        goes_on = isinstance(resume_from_checkpoint, str)
        self.resumed = self._read_progress(Path(str(resume_from_checkpoint))) if goes_on else None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss of the whole run where it was resumed, not of its last part."""
        if "train_loss" in logs and self.resumed is not None:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)

    # ---- what is kept

    def progress(self) -> dict[str, Any]:
        """Return where this process stands, as plain values and tensors."""
        return {
            "processes": self.args.world_size,
            "trainer": {name: _plain(getattr(self, name)) for name in (*self._ALWAYS_KEPT, *self.kept)},
            "callbacks": {
                type(callback).__name__: callback.progress()
                for callback in self.callback_handler.callbacks
                if hasattr(callback, "progress")
            },
        }

    def restore_progress(self, progress: dict[str, Any] | None, epochs: int) -> None:  # noqa: ARG002
        """Go back to where ``progress`` says, after ``epochs`` whole epochs; None if the checkpoint does not say."""
        for name, value in (progress or {"trainer": {}})["trainer"].items():
            if isinstance(value, dict):
                for key, part in value.items():  # a defaultdict stays one
                    current = getattr(self, name)
                    current[key].update(part) if isinstance(part, dict) else current.update({key: part})
            else:
                setattr(self, name, value)

    def _read_progress(self, checkpoint: Path) -> dict[str, Any] | None:
        path = checkpoint / f"progress_{self.args.process_index}.pt"
        if not path.is_file():
            path = checkpoint / "progress_0.pt"  # of fewer processes
        if not path.is_file():
            logger.warning("%s does not say how far its rollout and its next log were; both start anew.", checkpoint)
            return None
        device = self.args.device
        # With several processes on a CPU it is "cpu:0", which torch.load does not know.
        where = "cpu" if device.type == "cpu" else device
        progress = torch.load(path, map_location=where, weights_only=True)
        if progress["processes"] != self.args.world_size:
            logger.warning(
                "%s is of %d processes, this run has %d: the course is not bit for bit that of one uninterrupted run.",
                checkpoint, progress["processes"], self.args.world_size,
            )  # fmt: skip
        return progress

    def each_by_itself(self, doing: str) -> AbstractContextManager[None]:
        """Return `all_or_none` for work that processes do alone; with shards they exchange within it: then nothing."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        return nullcontext() if sharded else all_or_none(doing)

    # ---- seams of Trainer

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if kwargs["resume_from_checkpoint"] is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            self.restore_progress(self.resumed, kwargs["epochs_trained"])
            if self.state.global_step >= self.state.max_steps:  # Trainer would do one more step
                self.control.should_training_stop = True
                return
        super()._run_epoch(*args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        return self._redirected or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder, name = Path(self._get_output_dir(trial)), f"checkpoint-{self.state.global_step}"
        writes, pushes = self.args.should_save, self.args.push_to_hub
        with saving(name, folder):
            try:
                with all_or_none("clearing the folder"):
                    if writes:
                        clear_staging(folder)
                # Trainer's own deletion of old checkpoints then sees this one only, and a push has to wait for its name
                self._redirected, self.args.push_to_hub = str(folder / STAGING), False
                with self.each_by_itself("writing it"):
                    super()._save_checkpoint(model, trial)
                with all_or_none("writing it"):
                    if not self.args.save_only_model:
                        path = folder / STAGING / name / f"progress_{self.args.process_index}.pt"
                        torch.save(self.progress(), path)
                with all_or_none("giving it its name"):
                    if writes:
                        publish(folder / STAGING / name, folder / name)
                        keep_newest(folder, self.args.save_total_limit)
            finally:
                self._redirected, self.args.push_to_hub = None, pushes
                if writes:
                    clear_staging(folder)
            self.accelerator.wait_for_everyone()
        if pushes:
            self._push_from_checkpoint(str(folder / name))


def _plain(value: Any) -> Any:
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, dict) else value
