"""Every file in recipes/accelerate is one that accelerate itself understands, key by key."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin, patch_environment
from accelerate.utils.launch import prepare_multi_gpu_env

FOLDER = Path(__file__).parents[2] / "recipes" / "accelerate"
PROCESSES = {
    "one-gpu": 1, "ddp-8gpu": 8, "fsdp2-8gpu": 8, "zero3-8gpu": 8, "two-nodes": 16, "cpu-2": 2, "fsdp2-cpu-2": 2,
}  # fmt: skip


def parsed(path):
    """Return the arguments as `accelerate launch` has them after it has read the file."""
    parser = launch_command_parser()
    args = parser.parse_args(["--config_file", str(path), "train.py"])
    return _validate_launch_command(args)[0], {action.dest for action in parser._actions}


def test_the_files_are_those_the_documents_speak_of():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(PROCESSES)


@pytest.mark.parametrize("name", PROCESSES)
def test_accelerate_accepts_the_file(name):
    path = FOLDER / f"{name}.yaml"
    load_config_from_file(str(path))  # unknown keys of the first level are errors
    args, known = parsed(path)
    assert args.num_processes == PROCESSES[name]
    nested = [value for value in yaml.safe_load(path.read_text()).values() if isinstance(value, dict)]
    for key in (key for values in nested for key in values):
        assert key in known, f"{name}: accelerate has no {key}"  # it would set it and never look at it
    kinds = {"fsdp2": args.use_fsdp, "zero3": args.use_deepspeed, "ddp": args.multi_gpu, "two": args.use_fsdp}
    assert kinds.get(name.split("-")[0], True)


@pytest.mark.parametrize("name", ["fsdp2-8gpu", "fsdp2-cpu-2", "two-nodes"])
def test_the_sharding_is_one_our_checkpoints_work_with(name):
    from r1_reward.train.sharded import _check_plugin

    args, _ = parsed(FOLDER / f"{name}.yaml")
    args = argparse.Namespace(**vars(args))
    with patch_environment(**prepare_multi_gpu_env(args)):
        plugin = FullyShardedDataParallelPlugin()
    _check_plugin(plugin)
    assert plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"


@pytest.mark.parametrize("name", PROCESSES)
def test_the_launch_line_on_top_names_this_file(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    line = next(line for line in text.splitlines() if "accelerate launch" in line)
    assert re.search(rf"--config_file recipes/accelerate/{name}\.yaml ", line)
    assert "-m r1_reward train" in line or "tests/support/launched.py" in line
    assert "cpu" in name or "If it does not fit, " in text
