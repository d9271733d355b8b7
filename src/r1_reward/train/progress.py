"""Save the training state that transformers and TRL leave out of a checkpoint, so that runs resume exactly.

Their checkpoints hold weights, optimizer, schedule, random states and the log. Between two logs a trainer also holds
the sums and metrics of the next row; between two updates of one rollout TRL holds the rollout and its position in it;
and TRL's sampler draws the order of every epoch from a generator that a new process restarts. `ExactResume` saves these
in every checkpoint and restores them, so a killed and resumed run takes the same course as an uninterrupted one::

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
"""Options of transformers that track a best checkpoint: refused, see `ExactResume`."""


class ExactResume(Trainer):
    """Mixin for trainers with atomic checkpoints that hold the complete state.

    Tracking a best checkpoint is an error: transformers would record the folder in which it was assembled, which no
    longer exists, and ``save_total_limit`` keeps the newest.

    Callbacks can take part: what their method ``progress()`` returns (plain values and tensors) is available after a
    resume in ``resumed["callbacks"]`` under the name of their class.
    """

    kept: tuple[str, ...] = ()
    """Attributes of the trainer to save: numbers, tensors, lists, or dictionaries of them."""
    _ALWAYS_KEPT = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged")
    resumed: dict[str, Any] | None = None
    """The state in the checkpoint that training resumes from; None in a fresh run, or if the checkpoint has none."""
    _redirected: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take Trainer's arguments; raises UserError if they ask for a best checkpoint."""
        super().__init__(*args, **kwargs)
        asked = [name for name in BEST_MODEL_OPTIONS if getattr(self.args, name)]
        asked += ["save_strategy: best"] * (self.args.save_strategy == "best")
        if asked:
            raise UserError(
                f"{', '.join(asked)}: only the newest checkpoints are kept (save_total_limit), not the best. Remove "
                "it, log held-out accuracy (held_out, held_out_every), and choose a checkpoint with `r1-reward bench "
                "run`."
            )

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train; ``resume_from_checkpoint`` True resumes from the newest intact checkpoint in ``output_dir``."""
        if resume_from_checkpoint is True:
            found = checkpoint_to_resume(Path(str(self.args.output_dir)))
            resume_from_checkpoint = True if found is None else str(found)
        goes_on = isinstance(resume_from_checkpoint, str)
        self.resumed = self._read_progress(Path(str(resume_from_checkpoint))) if goes_on else None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss of the whole run, not of its last part, after a resume."""
        if "train_loss" in logs and self.resumed is not None:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)

    # ---- saved state

    def progress(self) -> dict[str, Any]:
        """Return the state of this process, as plain values and tensors."""
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
        """Restore the state ``progress``, after ``epochs`` whole epochs; None if the checkpoint has none."""
        for name, value in (progress or {"trainer": {}})["trainer"].items():
            if isinstance(value, dict):
                for key, part in value.items():  # keeps a defaultdict
                    current = getattr(self, name)
                    current[key].update(part) if isinstance(part, dict) else current.update({key: part})
            else:
                setattr(self, name, value)

    def _read_progress(self, checkpoint: Path) -> dict[str, Any] | None:
        path = checkpoint / f"progress_{self.args.process_index}.pt"
        if not path.is_file():
            path = checkpoint / "progress_0.pt"  # the checkpoint is of fewer processes
        if not path.is_file():
            logger.warning(
                "%s has no saved progress: the interrupted rollout is sampled again, and the next log row counts from "
                "here.",
                checkpoint,
            )
            return None
        device = self.args.device
        # With several processes on a CPU it is "cpu:0", which torch.load does not accept.
        where = "cpu" if device.type == "cpu" else device
        progress = torch.load(path, map_location=where, weights_only=True)
        if progress["processes"] != self.args.world_size:
            logger.warning(
                "%s was saved by %d processes, this run has %d: it will not match an uninterrupted run bit for bit.",
                checkpoint, progress["processes"], self.args.world_size,
            )  # fmt: skip
        return progress

    def each_by_itself(self, doing: str) -> AbstractContextManager[None]:
        """Return `all_or_none`, or a null context for sharded weights, whose collectives are inside the work."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        return nullcontext() if sharded else all_or_none(doing)

    # ---- overrides of Trainer

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
                # Trainer's deletion of old checkpoints then sees only this one, and a push must wait for its final name
                self._redirected, self.args.push_to_hub = str(folder / STAGING), False
                with self.each_by_itself("writing it"):
                    super()._save_checkpoint(model, trial)
                with all_or_none("writing it"):
                    if not self.args.save_only_model:
                        path = folder / STAGING / name / f"progress_{self.args.process_index}.pt"
                        torch.save(self.progress(), path)
                with all_or_none("renaming it"):
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
