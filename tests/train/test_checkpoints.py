"""Which checkpoints count as whole, what is said of the others, and what a failed save leaves behind."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess

import killed_runs as runs
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from r1_reward.records.errors import UserError
from r1_reward.train import checkpoints
from r1_reward.train.checkpoints import SEAL, STAGING, checkpoint_to_resume, damage, keep_newest, publish, saving
from r1_reward.train.launch import check_output_folder


def write(folder, step):
    folder.mkdir(parents=True)
    save_file({"weight": torch.arange(64.0)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": torch.arange(4000.0)}, folder / name)
    (folder / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))


def checkpoint(folder, step, sealed=True):
    final = folder / f"checkpoint-{step}"
    if not sealed:
        write(final, step)
        return final
    write(folder / STAGING / final.name, step)
    publish(folder / STAGING / final.name, final)
    shutil.rmtree(folder / STAGING)
    return final


def cut(name):
    def apply(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return apply


def flip(name):
    """Change the byte in the middle of the file, which is one of a tensor."""

    def apply(folder):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (folder / name).write_bytes(bytes(content))

    return apply


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def remove(name):
    return lambda folder: (folder / name).unlink()


DAMAGES = [
    (cut("model.safetensors"), "model.safetensors has"),
    (text("model.safetensors", ""), "model.safetensors"),
    (cut("optimizer.pt"), "optimizer.pt"),
    (flip("optimizer.pt"), "optimizer.pt is damaged (checksum)"),
    (text("optimizer.pt", ""), "optimizer.pt"),
    (cut("rng_state.pth"), "rng_state.pth"),
    (text("trainer_state.json", '{"global_step": 8'), "trainer_state.json"),
    (text("trainer_state.json", '{"global_step": 4}'), "trainer_state.json"),
    (text("config.json", "{]"), "config.json is not valid JSON"),
    (remove("trainer_state.json"), "trainer_state.json is missing"),
    (remove("optimizer.pt"), "optimizer.pt is missing"),
    (remove("model.safetensors"), "missing"),
]


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "by transformers alone"])
@pytest.mark.parametrize(("break_it", "expected"), DAMAGES)
def test_every_damage_is_seen_and_named(break_it, expected, sealed, tmp_path):
    folder = checkpoint(tmp_path, 8, sealed)
    assert damage(folder) is None
    break_it(folder)
    assert expected in damage(folder)


def test_a_changed_byte_in_the_weights_is_seen_where_their_checksum_is_known(tmp_path):
    sealed, plain = checkpoint(tmp_path, 8), checkpoint(tmp_path, 4, sealed=False)
    for folder in (sealed, plain):
        flip("model.safetensors")(folder)
    assert damage(sealed) == "model.safetensors is damaged (checksum)"
    assert damage(plain) is None  # safetensors has no checksum; only the list of a sealed checkpoint does
    text(SEAL, "{")(sealed)
    assert damage(sealed) == f"{SEAL} is damaged"


def test_shards_are_counted(tmp_path):
    folder = checkpoint(tmp_path, 8, sealed=False)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert damage(folder) == "model-00002-of-00002.safetensors is missing"


def test_the_newest_whole_checkpoint_is_taken_and_the_others_are_named(tmp_path, caplog):
    for step in (2, 9, 10):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-99.tmp").mkdir()
    write(tmp_path / STAGING / "checkpoint-11", 11)
    assert checkpoint_to_resume(tmp_path).name == "checkpoint-10"  # by number, and not what lies in staging
    assert not caplog.records
    cut("optimizer.pt")(tmp_path / "checkpoint-10")
    with caplog.at_level(logging.WARNING):
        assert checkpoint_to_resume(tmp_path).name == "checkpoint-9"
    (record,) = caplog.records
    assert "checkpoint-10 cannot be used (optimizer.pt has" in record.getMessage()
    assert "resuming from checkpoint-9" in record.getMessage()


def test_without_a_whole_one_nothing_is_started(tmp_path):
    assert checkpoint_to_resume(tmp_path) is None
    for step in (2, 4):
        remove("trainer_state.json")(checkpoint(tmp_path, step))
    (tmp_path / "last-good").mkdir()
    with pytest.raises(UserError) as caught:
        checkpoint_to_resume(tmp_path)
    message = str(caught.value)
    assert "checkpoint-2 cannot be used (trainer_state.json is missing)" in message
    assert "checkpoint-4" in message
    assert f"--model {tmp_path / 'last-good'}" in message
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-4", "last-good"}


def test_a_checkpoint_of_the_model_alone_is_not_resumed(tmp_path, caplog):
    checkpoint(tmp_path, 4)
    alone = tmp_path / STAGING / "checkpoint-8"
    write(alone, 8)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (alone / name).unlink()
    publish(alone, tmp_path / alone.name)
    with caplog.at_level(logging.WARNING):
        assert checkpoint_to_resume(tmp_path).name == "checkpoint-4"
    said = f"saved with save_only_model; start from it with --model {tmp_path / 'checkpoint-8'}"
    assert f"checkpoint-8 cannot be used ({said})" in caplog.text
    shutil.rmtree(tmp_path / "checkpoint-4")
    with pytest.raises(UserError, match="no checkpoint can be resumed: checkpoint-8 .*save_only_model"):
        checkpoint_to_resume(tmp_path)
    with pytest.raises(UserError, match="no checkpoint to resume yet"), saving("checkpoint-10", tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_only_whole_checkpoints_are_counted_and_deleted(tmp_path):
    for step in (2, 4, 6, 8):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 1, sealed=False)
    cut("model.safetensors")(tmp_path / "checkpoint-8")
    keep_newest(tmp_path, 1)
    # 8 is damaged: counted, it would have left nothing to resume from.
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-1", "checkpoint-6", "checkpoint-8"}
    assert checkpoint_to_resume(tmp_path).name == "checkpoint-6"
    for limit in (None, 0, 5):
        keep_newest(tmp_path, limit)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    old = checkpoint(tmp_path, 8)
    text("old.txt", "")(old)
    cut("optimizer.pt")(old)
    checkpoint(tmp_path, 8)
    assert damage(old) is None
    assert not (old / "old.txt").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 1024 vs 918"),
    ],
)
def test_a_failed_save_says_what_is_left(error, tmp_path):
    reason = "a file could not be written completely" if isinstance(error, RuntimeError) else str(error)
    with pytest.raises(UserError, match="start again") as caught, saving("checkpoint-2", tmp_path):
        raise error
    assert f"cannot save checkpoint-2 in {tmp_path}: {reason}" in str(caught.value)
    assert "MB free" in str(caught.value)
    checkpoint(tmp_path, 2)
    cut("optimizer.pt")(checkpoint(tmp_path, 4))
    with pytest.raises(UserError, match="--resume continues from checkpoint-2"), saving("checkpoint-6", tmp_path):
        raise error
    with pytest.raises(KeyError), saving("checkpoint-6", tmp_path):  # a bug is not a full disk
        raise KeyError("x")


def test_nothing_is_deleted_before_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    checkpoint(tmp_path, 2)
    synced = []
    monkeypatch.setattr(
        checkpoints.os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    checkpoint(tmp_path, 4)
    names = [os.path.basename(path) for path in synced]
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json", SEAL} <= set(names)
    assert names[-1] == tmp_path.name  # the name itself, last
    assert (tmp_path / "checkpoint-2").is_dir()


# ---- the folder of a run


def mounted(folder, options):
    """Whether a file system in memory could be mounted at ``folder``."""
    folder.mkdir()
    return (
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode
        == 0
    )


@pytest.fixture
def small(tmp_path):
    """An empty folder and a function that mounts a file system there with given options, unmounted in the end."""
    folder = tmp_path / "small"
    yield folder, lambda options: mounted(folder, options)
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder_is_refused_before_anything_is_loaded(small):
    folder, mount = small
    if not mount("ro"):
        pytest.skip("needs root to mount a file system")
    for resume in (False, True):
        with pytest.raises(UserError, match="cannot write to it: Read-only file system"):
            check_output_folder(folder, resume=resume)
        with pytest.raises(UserError, match="cannot write to"):
            check_output_folder(folder / "run", resume=resume)


def test_a_folder_without_permission_is_refused(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        check_output_folder(tmp_path / "run", resume=False)


def test_resume_without_a_checkpoint_starts_over_and_says_so(tmp_path, caplog):
    (tmp_path / "config.yaml").write_text("")
    write(tmp_path / STAGING / "checkpoint-2", 2)
    with caplog.at_level(logging.WARNING):
        assert check_output_folder(tmp_path, resume=True) is None
    assert "starts from the beginning" in caplog.text
    assert not (tmp_path / STAGING).exists()  # what a killed save left only fills the disk
    with pytest.raises(UserError, match="already holds a run"):
        check_output_folder(tmp_path, resume=False)


OPTIONS = {
    "model": "tiny", "use_cpu": "true", "bf16": "false", "gradient_checkpointing": "false", "report_to": "none",
    "disable_tqdm": "true", "per_device_train_batch_size": 2, "learning_rate": 1e-3, "max_steps": 6, "save_steps": 2,
    "save_total_limit": 2, "logging_steps": 1,
}  # fmt: skip


def test_a_full_disk_and_a_damaged_checkpoint_lose_nothing(pair_file, small, tmp_path):
    folder, mount = small
    options, output = {**OPTIONS, "data": pair_file, "output_dir": folder}, tmp_path / "output.txt"
    is_disk = mount("size=16m")  # a checkpoint has some 10 MB
    # Where nothing can be mounted, the size of a file is limited, from the second torch.save of the second checkpoint.
    limit = None if is_disk else ("no more than 1 MB a file", 7)
    assert runs.run("sft", options, resume=True, output=output, die_at=limit) == 2
    said = output.read_text()
    assert "Traceback" not in said
    assert "no checkpoint found, so --resume starts from the beginning" in said
    assert f"error: cannot save checkpoint-4 in {folder}: " in said
    assert "MB free). Older checkpoints are intact: fix the folder, then --resume continues from checkpoint-2." in said
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "checkpoint-2", "README.md"}
    assert damage(folder / "checkpoint-2") is None

    if is_disk:
        subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)
    assert runs.run("sft", options, resume=True, output=output) == 0
    finished = runs.weights(folder), runs.history(folder)

    flip("optimizer.pt")(folder / "checkpoint-6")
    (folder / "model.safetensors").unlink()
    assert runs.run("sft", options, resume=True, output=output) == 0
    said = output.read_text()
    assert "checkpoint-6 cannot be used (optimizer.pt is damaged (checksum)); resuming from checkpoint-4" in said
    again = runs.weights(folder)
    assert all(torch.equal(finished[0][name], again[name]) for name in again)
    assert runs.history(folder) == finished[1]
    assert damage(folder / "checkpoint-6") is None


def test_a_folder_that_is_removed_is_made_again(pair_file, tmp_path):
    folder, output = tmp_path / "run", tmp_path / "output.txt"
    options = {
        **OPTIONS,
        "data": pair_file,
        "output_dir": folder,
        "per_device_train_batch_size": 4,
        "steps_per_generation": 1,
        "max_completion_length": 4,
        "keep_good_every": 1,
    }
    assert runs.run("rl", options, output=output, die_at=("folder removed", 3)) == 0, output.read_text()
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    assert damage(folder / "checkpoint-6") is None
    assert (folder / "model.safetensors").is_file()
