"""A run folder contains one run: which command may resume it, and how another is rejected."""

from __future__ import annotations

import json
import os

import pytest
from filelock import FileLock

from r1_reward.records.errors import UserError
from r1_reward.store.run_folder import locked, run_folder

RUN = {"model": "m", "seed": 0, "temperatures": (0.0, 0.7), "weights": "sha256:1", "notes": ["for readers"]}


def open_and_close(folder, run, **options):
    with run_folder(folder, run, **options):
        pass


def test_the_same_run_is_resumed_and_another_is_rejected_with_the_differences(tmp_path):
    out = tmp_path / "deep" / "out"
    open_and_close(out, RUN)
    written = (out / "run.json").read_bytes()
    open_and_close(out, {**RUN, "notes": []})
    assert (out / "run.json").read_bytes() == written
    assert json.loads(written) == {**RUN, "temperatures": [0.0, 0.7]}
    with pytest.raises(UserError) as caught:
        open_and_close(out, {**RUN, "seed": 1, "weights": "sha256:2"})
    assert str(caught.value) == (
        f"{out}: contains a different run (seed 0 there, 1 now; weights 'sha256:1' there, 'sha256:2' now). "
        "Choose another folder with --out."
    )


def test_fields_that_an_older_release_did_not_record_are_rejected_unless_null(tmp_path):
    old = {name: value for name, value in RUN.items() if name != "weights"}
    open_and_close(tmp_path, old)
    open_and_close(tmp_path, {**old, "weights": None})
    with pytest.raises(UserError, match=r"different run \(weights not recorded there, 'sha256:1' now\)"):
        open_and_close(tmp_path, RUN)


def test_the_caller_says_what_decides(tmp_path):
    def deciding(run):
        return {**run, "data": run["data"]["digest"]}

    open_and_close(tmp_path, {"data": {"path": "a", "digest": "1"}}, deciding=deciding)
    open_and_close(tmp_path, {"data": {"path": "b", "digest": "1"}}, deciding=deciding)
    with pytest.raises(UserError, match="data '1' there, '2' now"):
        open_and_close(tmp_path, {"data": {"path": "a", "digest": "2"}}, deciding=deciding)


def test_a_folder_of_something_else_is_left_unchanged(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"is not empty and contains no run\. Take another\."):
        open_and_close(tmp_path, RUN, advice="Take another.")
    assert os.listdir(tmp_path) == ["thesis.tex"]
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(UserError, match="is not a valid run.json of a run"):
        open_and_close(tmp_path, RUN)
    with pytest.raises(UserError, match="cannot create the run folder"):
        open_and_close(tmp_path / "thesis.tex" / "out", RUN)


def test_leftovers_of_a_killed_start_are_ignored(tmp_path):
    for name in (".lock", "run.json.part", ".pairs.lock"):
        (tmp_path / name).touch()
    open_and_close(tmp_path, RUN)
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 0


def test_a_run_that_fails_before_it_has_written_anything_leaves_the_folder_free(tmp_path):
    with pytest.raises(UserError, match="no key"), run_folder(tmp_path, RUN):
        (tmp_path / "clean").mkdir()
        (tmp_path / "clean" / "predictions.jsonl").touch()
        raise UserError("no key")
    assert os.listdir(tmp_path) == [".lock"]
    with pytest.raises(UserError, match="no key"), run_folder(tmp_path, {**RUN, "seed": 1}):
        (tmp_path / "predictions.jsonl").write_text("{}\n")
        raise UserError("no key")
    with pytest.raises(UserError, match="seed 1 there, 0 now"):
        open_and_close(tmp_path, RUN)
    with pytest.raises(KeyboardInterrupt), run_folder(tmp_path, {**RUN, "seed": 1}):
        (tmp_path / "predictions.jsonl").unlink()
        raise KeyboardInterrupt
    assert (tmp_path / "run.json").exists()  # of the call before


def test_one_process_at_a_time_and_the_lock_file_stays(tmp_path):
    with run_folder(tmp_path, RUN), pytest.raises(UserError, match="is in use; another process is writing there"):
        open_and_close(tmp_path, RUN)
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="is in use"):
        open_and_close(tmp_path, RUN)
    waiting = os.open(tmp_path / ".lock", os.O_RDWR)  # like a process that waits for the lock
    try:
        open_and_close(tmp_path, RUN)
        assert os.fstat(waiting).st_ino == (tmp_path / ".lock").stat().st_ino
    finally:
        os.close(waiting)
    with pytest.raises(ZeroDivisionError), locked(tmp_path / ".lock", tmp_path):
        raise ZeroDivisionError
    open_and_close(tmp_path, RUN)
