"""The last good weights of a run, in ``output_dir/last-good``, kept safe from kills.

New weights wait in ``last-good-candidate`` until later logs prove them good, and then replace the older ones. If a kill
interrupts the replacement, the next process finishes it::

    weights = LastGood(trainer)
    weights.propose(step)
    weights.promote()
    restore_weights(trainer, weights.folder)
"""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import Trainer

from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json, write_json
from r1_reward.train.checkpoints import checkpoints, saving
from r1_reward.train.processes import all_or_none


class LastGood:
    """Good weights and their candidate, each with its step; every process calls the methods, the main one writes."""

    def __init__(self, trainer: Trainer) -> None:
        """Take the trainer whose weights are kept, in its output_dir."""
        self._trainer = trainer
        self.output_dir = Path(str(trainer.args.output_dir))
        self.folder = self.output_dir / "last-good"
        self._candidate, self._replaced = (
            self.folder.with_name("last-good-candidate"), self.folder.with_name("last-good-old")
        )  # fmt: skip

    def step(self) -> int | None:
        """Return the step of the good weights, or None if there are none."""
        return _step_in(self.folder)

    def candidate_step(self) -> int | None:
        """Return the step of the candidate, or None if there is none or it is incomplete."""
        return _step_in(self._candidate)

    def propose(self, step: int) -> None:
        """Save the current weights as the candidate; raises UserError if they cannot be written."""
        with saving(f"a copy of the weights of step {step}", self.output_dir):
            if self._trainer.args.should_save:
                shutil.rmtree(self._candidate, ignore_errors=True)
            self._trainer.accelerator.wait_for_everyone()
            self._trainer.save_model(str(self._candidate), _internal_call=True)
            with all_or_none("writing the step of the weights"):
                if self._trainer.args.should_save:
                    write_json(self._candidate / "step.json", step)

    def promote(self) -> None:
        """Make the candidate the good weights; without a candidate do nothing."""
        with all_or_none("keeping good weights"):
            if self._trainer.args.should_save and self.candidate_step() is not None:
                shutil.rmtree(self._replaced, ignore_errors=True)
                if self.folder.exists():
                    self.folder.replace(self._replaced)
                self._candidate.replace(self.folder)
                shutil.rmtree(self._replaced, ignore_errors=True)

    def recover(self) -> None:
        """Finish the replacement that a kill interrupted."""
        with all_or_none("finding the good weights"):
            if self._trainer.args.should_save and self.step() is None and _step_in(self._replaced) is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
                (self._replaced if self.candidate_step() is None else self._candidate).replace(self.folder)

    def discard_candidate(self) -> None:
        """Delete the candidate."""
        self._trainer.accelerator.wait_for_everyone()  # another process may still need to look for it
        if self._trainer.args.should_save:
            shutil.rmtree(self._candidate, ignore_errors=True)

    def set_aside_checkpoints(self, after: int) -> list[str]:
        """Rename checkpoints of later steps so that a resumed run does not load them; return their new names."""
        names = []
        if self._trainer.args.should_save:
            for path in checkpoints(self.output_dir):
                if int(path.name.removeprefix("checkpoint-")) > after:
                    aside = path.with_name(f"collapsed-{path.name}")
                    shutil.rmtree(aside, ignore_errors=True)
                    path.replace(aside)
                    names.append(aside.name)
        return names


def _step_in(folder: Path) -> int | None:
    """Return the step recorded in a folder of weights."""
    try:
        step = read_json(folder / "step.json")
    except UserError:
        return None
    return step if isinstance(step, int) else None
