"""Real runs of `train` in processes of their own that die where they are told to.

A fork server imports torch and TRL once; every run is a fork of it.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import sys

from safetensors.torch import load_file

CLOCKS = ("step_time", "held_out/seconds", "train_runtime", "train_samples_per_second", "train_steps_per_second")
"""What no two runs share."""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["r1_reward.train.rl", "r1_reward.train.sft", "r1_reward.train.launch", "peft"])


def run(stage, options, *, resume=False, die_at=None, output):
    """Run in a child and return its exit code; ``die_at`` is (name of a moment, which time it comes)."""
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    child = context.Process(target=_child, args=(stage, arguments, resume, die_at, str(output)))
    child.start()
    child.join(300)
    assert child.exitcode is not None, "the run hangs"
    return child.exitcode


def _child(stage, arguments, resume, die_at, output):
    with open(output, "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from r1_reward.cli import main

    torch.set_num_threads(1)
    # An untrained model earns nothing and would not move; any reward that differs between texts will do.
    import r1_reward.train.judging as judging

    judging.format_reward = lambda text, _: float(len(text) % 2)
    if die_at is not None:
        _die(*die_at, folder=arguments[arguments.index("--output_dir") + 1])
    sys.argv = ["r1-reward", "train", stage, *arguments, *(["--resume"] if resume else [])]
    main()


def _die(moment, count, folder):
    """Make the process kill itself, or lose what it needs, when a moment has come for the ``count``-th time."""
    import torch
    from transformers import Trainer

    calls = itertools.count(1)

    def before(function, happens):
        def called(*args, **kwargs):
            if next(calls) == count:
                happens(*args)
            return function(*args, **kwargs)

        return called

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def die_half_written(_, path, *rest):
        with open(path, "wb") as file:
            file.write(b"PK\x03\x04 and no more")
        die()

    if moment == "update":  # the forward and backward pass of one micro batch
        Trainer.training_step = before(Trainer.training_step, die)
    elif moment == "torch.save":
        torch.save = before(torch.save, die_half_written)
    elif moment == "rename":
        pathlib.Path.replace = before(pathlib.Path.replace, die)
    elif moment == "final":  # the trained model is being saved, after the last checkpoint
        Trainer.save_state = before(Trainer.save_state, die)
    elif moment == "no more than 1 MB a file":
        limit = (1_000_000, resource.RLIM_INFINITY)
        torch.save = before(torch.save, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    elif moment == "folder removed":
        Trainer.training_step = before(Trainer.training_step, lambda *_: shutil.rmtree(folder))
    else:
        raise ValueError(moment)


def weights(folder):
    return load_file(next(folder.glob("*model.safetensors")))


def history(folder):
    """The log, without what the clock says."""
    rows = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
