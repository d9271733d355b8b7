"""The last good weights outlive a kill at any moment, and a resumed guard goes on where it was."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from r1_reward.train.last_good import LastGood
from r1_reward.train.monitor import StabilityMonitor, Thresholds


def trainer_in(folder, resumed=None):
    def save_model(path, _internal_call):
        from pathlib import Path

        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / "weights").write_text("")

    return SimpleNamespace(
        args=SimpleNamespace(output_dir=str(folder), should_save=True, max_completion_length=8),
        accelerator=SimpleNamespace(wait_for_everyone=lambda: None),
        save_model=save_model,
        resumed=resumed,
    )


def put(folder, name, step):
    (folder / name).mkdir()
    (folder / name / "step.json").write_text(json.dumps(step))


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        # promote() moves the good ones away, then the new ones in, then deletes the old: killed after each
        ({"last-good": 2, "last-good-candidate": 5}, (2, 5)),
        ({"last-good-old": 2, "last-good-candidate": 5}, (5, None)),
        ({"last-good": 5, "last-good-old": 2}, (5, None)),
        ({"last-good-old": 2}, (2, None)),  # and the candidate had been discarded
        ({}, (None, None)),
    ],
)
def test_a_promotion_that_was_cut_is_finished(left, expected, tmp_path):
    for name, step in left.items():
        put(tmp_path, name, step)
    weights = LastGood(trainer_in(tmp_path))
    weights.recover()
    assert (weights.step(), weights.candidate_step()) == expected


def test_weights_count_once_they_are_written_in_full(tmp_path):
    weights = LastGood(trainer_in(tmp_path))
    (tmp_path / "last-good-candidate").mkdir()  # a save that was cut
    assert weights.candidate_step() is None
    weights.promote()
    assert weights.step() is None
    weights.propose(3)
    assert (weights.step(), weights.candidate_step()) == (None, 3)
    weights.promote()
    assert (weights.step(), weights.candidate_step()) == (3, None)
    weights.promote()  # nothing waits: they stay
    assert weights.step() == 3


@pytest.mark.parametrize(
    ("disk", "checkpoint", "expected"),
    [
        # the checkpoint's guard: good ones of step 2, those of 5 wait with 3 proofs
        ({"last-good": 2, "last-good-candidate": 5}, (2, 5, 3), (2, 5, 3)),
        ({"last-good": 5}, (2, 5, 3), (2, 5, 3)),  # the killed process proved 5
        ({"last-good": 5, "last-good-candidate": 9}, (2, 5, 3), (2, 5, 3)),  # and let 9 wait
        ({"last-good": 2}, (2, 5, 3), (2, None, 0)),  # 5 is lost: the next step's weights will wait
        ({"last-good": 2, "last-good-candidate": 9}, (2, None, 0), (2, None, 0)),
        ({"last-good": 2}, None, (2, None, 0)),  # a checkpoint from before guards were saved
    ],
)
def test_a_resumed_guard_goes_on_where_the_checkpoint_was(disk, checkpoint, expected, tmp_path):
    for name, step in disk.items():
        put(tmp_path, name, step)
    resumed = None
    if checkpoint is not None:
        state = dict(zip(("good_step", "candidate_step", "proofs"), checkpoint, strict=True))
        resumed = {"callbacks": {"StabilityMonitor": state}}
    trainer = trainer_in(tmp_path, resumed)
    trainer.is_deepspeed_enabled = trainer.is_fsdp_enabled = False
    monitor = StabilityMonitor(trainer, thresholds=Thresholds(window=5))
    monitor.on_train_begin(None, SimpleNamespace(global_step=7, log_history=[]), None)
    assert tuple(monitor.progress().values()) == expected
    assert (monitor.weights.candidate_step() is not None) == (
        disk.get("last-good-candidate") == expected[1] is not None
    )
    if expected[1] is not None:
        monitor._promote()
        assert monitor.progress()["good_step"] == expected[1]
        assert monitor.weights.step() >= expected[1]  # never older than what was proved
