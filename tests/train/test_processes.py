"""Two processes against one: the same advantages bit for bit, the same losses and weights, for DDP and FSDP2."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import launched
import pytest
import torch
from safetensors.torch import load_file
from scripted_server import ScriptedServer, reply

from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.records.errors import UserError
from r1_reward.train.processes import deal, once
from r1_reward.train.sharded import _check_plugin

ACCELERATE = Path(__file__).parents[2] / "recipes" / "accelerate"
CONFIG = """\
use_cpu: true
bf16: false
gradient_checkpointing: false
report_to: none
disable_tqdm: true
logging_steps: 1
learning_rate: 1e-3
lr_scheduler_type: constant
max_steps: 5
save_steps: 2
"""
GLOBAL_BATCH = 8


class Runs:
    """Every run by launch and name, made once for all tests of this file."""

    def __init__(self, folder, model, data, referee):
        self.folder, self.data = folder, data
        (folder / "run.yaml").write_text(f"model: {model}\ndata: {data}\n{CONFIG}")
        self.options = {
            # two updates a rollout, verdicts that arrive in any order
            "rl": ["rl", "--steps_per_generation", "2", "--referee", referee],
            # two micro-batches an update
            "rl-lora": [
                "rl", "--lora_rank", "4", "--gradient_accumulation_steps", "2", "--gradient_checkpointing", "true",
            ],
            # a mean over the tokens of all processes
            "rl-cispo": [
                "rl", "--steps_per_generation", "2", "--loss_type", "cispo", "--epsilon_high", "1.01", "--pre_clip",
                "null", "--mask_truncated_completions", "true",
            ],
            # the fifth update has the rest of an epoch
            "sft": ["sft"],
            "sft-lora": ["sft", "--lora_rank", "4", "--gradient_accumulation_steps", "2"],
            # sampled by the model itself, the likeliest token each time; and held-out pairs, as many as do not divide
            "greedy": [
                "rl", "--top_k", "1", "--max_steps", "1", "--held_out", str(data), "--held_out_every", "1",
                "--held_out_pairs", "5",
            ],
        }  # fmt: skip

    def output(self, launch, name):
        return self.folder / launch / name

    def job(self, launch, processes, name, *, source=None):
        """``source`` is the launch from whose checkpoint this one goes on, as the run ``NAME-from-SOURCE``."""
        stage, *options = self.options[name]
        split = processes * (2 if "--gradient_accumulation_steps" in options else 1)
        output = self.output(launch, name if source is None else f"{name}-from-{source}")
        size = ["--max_completion_length", "64" if name != "greedy" else "12"] if stage == "rl" else []
        job = {
            "arguments": [
                stage, "--config", str(self.folder / "run.yaml"), "--output_dir", str(output), *size, *options,
                "--per_device_train_batch_size", str(GLOBAL_BATCH // split),
            ],
            "notes": f"{output}-notes", "replay": name != "greedy", "unscorable_half": name == "rl-lora",
        }  # fmt: skip
        if source is not None:
            job["arguments"].append("--resume")
            job["from"] = str(self.output(source, name) / "checkpoint-2")
        return job

    def launch(self, launch, config, jobs):
        path = self.folder / f"{launch}.json"
        path.write_text(json.dumps(jobs))
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / config)]
        done = subprocess.run(
            [*command, "--main_process_port", "0", launched.__file__, str(path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    def here(self, jobs):
        for job in jobs:
            assert launched.run(job) in (0, None)


async def _later(body):
    """Answer after a random while, so that verdicts come out of order; what is answered depends on the question."""
    await asyncio.sleep(random.random() / 20)
    digest = hashlib.sha256(body["messages"][-1]["content"].encode()).digest()
    return reply(f"<answer>{'yes' if digest[0] % 2 else 'no'}</answer>")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, checkpoint, pair_file):
    server = ScriptedServer()
    server.default = [_later]
    runs = Runs(tmp_path_factory.mktemp("runs"), checkpoint, pair_file, f"server:any@{server.url}")
    names = ["rl", "rl-lora", "sft", "sft-lora"]
    try:
        runs.here([runs.job("one", 1, name) for name in [*names, "rl-cispo", "greedy"]])
        jobs = [runs.job("ddp", 2, name) for name in [*names, "rl-cispo"]]
        jobs += [runs.job("ddp", 2, "rl", source="one"), runs.job("ddp", 2, "sft", source="ddp")]
        runs.said = {"ddp": runs.launch("ddp", "cpu-2.yaml", jobs)}
        jobs = [runs.job("fsdp", 2, name) for name in [*names, "greedy"]]
        jobs += [runs.job("fsdp", 2, "rl-lora", source="fsdp"), runs.job("fsdp", 2, "sft", source="one")]
        runs.said["fsdp"] = runs.launch("fsdp", "fsdp2-cpu-2.yaml", jobs)
        runs.here([runs.job("one", 1, "rl", source="fsdp"), runs.job("one", 1, "sft-lora", source="ddp")])
    finally:
        server.stop()
    yield runs


def rollouts(folder):
    """Return {(step, prompt): (tokens, advantages)} from the notes of all processes."""
    found = {}
    for path in sorted(Path(f"{folder}-notes").glob("rollouts-*.jsonl")):
        for line in path.read_text().splitlines():
            noted = json.loads(line)
            for prompt, tokens, advantages in noted["rows"]:
                found[noted["step"], prompt] = (tokens, advantages)
    return found


def logged(folder):
    state = json.loads((folder / "checkpoint-5" / "trainer_state.json").read_text())
    return [row for row in state["log_history"] if "loss" in row]


def weights(folder):
    if (folder / "adapter_model.safetensors").is_file():
        return load_file(folder / "adapter_model.safetensors")
    return load_model_and_processor(str(folder), dtype="float32")[0].state_dict()


SAME = [
    "loss",
    "grad_norm",
    "policy_loss",
    "entropy",
    "reward",
    "accuracy",
    "reward/consistency",
    "filtered",
    "approx_kl",
]
WHOLE = [(launch, name) for launch in ("ddp", "fsdp") for name in ("rl", "rl-lora", "sft", "sft-lora")]
WHOLE.append(("ddp", "rl-cispo"))
RESUMED = [
    ("ddp", "rl", "one"), ("ddp", "sft", "ddp"), ("fsdp", "rl-lora", "fsdp"), ("fsdp", "sft", "one"),
    ("one", "rl", "fsdp"), ("one", "sft-lora", "ddp"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("launch", "name"), [pair for pair in WHOLE if pair[1].startswith("rl")])
def test_advantages_are_the_same_bit_for_bit(runs, launch, name):
    one, two = (rollouts(runs.output(where, name)) for where in ("one", launch))
    assert len(one) >= 40
    assert one == two
    assert len({value for _, advantages in one.values() for value in advantages}) > 5


@pytest.mark.slow
@pytest.mark.parametrize(("launch", "name"), WHOLE)
def test_losses_and_weights_are_the_same(runs, launch, name):
    assert_same_end(runs, runs.output(launch, name), name)


@pytest.mark.slow
@pytest.mark.parametrize(("launch", "name", "source"), RESUMED)
def test_a_run_goes_on_with_another_number_of_processes(runs, launch, name, source):
    assert_same_end(runs, runs.output(launch, f"{name}-from-{source}"), name)


def assert_same_end(runs, folder, name):
    whole = runs.output("one", name)
    expected, actual = logged(whole), logged(folder)
    assert [row["step"] for row in actual] == [1, 2, 3, 4, 5]
    for row, other in zip(expected, actual, strict=True):
        for key in SAME:
            if isinstance(row.get(key), float):
                # TRL logs the mean of the micro-batches' mean entropies, which depends on how many there are.
                rel = 2e-3 if key == "entropy" and name.endswith("lora") else 1e-4
                assert other[key] == pytest.approx(row[key], rel=rel, abs=1e-5), (row["step"], key)
    expected, actual, start = weights(whole), weights(folder), weights(whole / "checkpoint-2")
    assert expected.keys() == actual.keys()
    apart = max((expected[key] - actual[key]).abs().max().item() for key in expected)
    moved = max((expected[key] - start[key]).abs().max().item() for key in expected)
    # Adam takes steps of the learning rate, 1e-3, however small a gradient is: what is rounded there shows at once.
    assert apart < 2e-4
    assert moved > 1e-3


@pytest.mark.slow
def test_sharded_models_sample_and_judge_as_whole_ones(runs):
    one, two = (rollouts(runs.output(where, "greedy")) for where in ("one", "fsdp"))
    assert len(one) == GLOBAL_BATCH
    assert {key: tokens for key, (tokens, _) in one.items()} == {key: tokens for key, (tokens, _) in two.items()}
    judged = []
    for where in ("one", "fsdp"):
        state = json.loads((runs.output(where, "greedy") / "checkpoint-1" / "trainer_state.json").read_text())
        judged.append([row["held_out/mean_tokens"] for row in state["log_history"] if "held_out/mean_tokens" in row])
    assert judged[0] == judged[1]
    assert len(judged[0]) >= 1


@pytest.mark.slow
def test_each_run_is_saved_once_and_in_one_piece(runs):
    for launch in ("ddp", "fsdp"):
        folders = [line.removeprefix("saved ") for line in runs.said[launch].splitlines() if line.startswith("saved ")]
        assert len(folders) == len(set(folders)) == 7
    plain, sharded = (sorted(load_file(runs.output(launch, "sft") / "model.safetensors")) for launch in ("one", "fsdp"))
    assert plain == sharded
    names = {path.name for path in (runs.output("fsdp", "rl") / "checkpoint-2").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt"} <= names
    assert not any("fsdp" in name for name in names)


# ---- the parts


def test_an_update_has_the_same_rows_however_the_rollout_is_dealt_out():
    rows = {"ids": torch.arange(24), "pictures": [f"p{i}" for i in range(24)], "scalar": torch.tensor(3), "none": None}
    whole = deal(rows, 3, seed="7")
    for update in range(3):  # one of each three rows
        assert [row // 3 for row in whole["ids"][update * 8 : update * 8 + 8].tolist()] == list(range(8))
    assert whole["pictures"] == [f"p{i}" for i in whole["ids"].tolist()]
    assert (whole["scalar"], whole["none"]) == (3, None)
    assert whole["ids"].tolist() != deal(rows, 3, seed="8")["ids"].tolist()
    shares = [deal({"ids": torch.arange(first, first + 12)}, 3, first_row=first, seed="7")["ids"] for first in (0, 12)]
    for update in range(3):
        together = torch.cat([share[update * 4 : update * 4 + 4] for share in shares])
        assert sorted(together.tolist()) == sorted(whole["ids"][update * 8 : update * 8 + 8].tolist())


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_two_orders_of_a_pair_make_one_update(processes):
    share = 256 // processes
    labels = torch.tensor([1, 2, 2, 1] * 64)  # as both_orders lays them: neighbours are one pair
    dealt = []
    for first in range(0, 256, share):
        rows = {"pair": torch.arange(256)[first : first + share] // 2, "label": labels[first : first + share]}
        dealt.append(deal(rows, 2, together=2, first_row=first, seed="7"))
    whole = deal({"pair": torch.arange(256) // 2}, 2, together=2, seed="7")["pair"]
    for update in range(2):
        here = slice(update * share // 2, (update + 1) * share // 2)
        pairs = torch.cat([rows["pair"][here] for rows in dealt])
        assert [count for _, count in sorted(Counter(pairs.tolist()).items())] == [2] * 64
        assert sorted(pairs.tolist()) == sorted(whole[update * 128 : (update + 1) * 128].tolist())
        assert Counter(torch.cat([rows["label"][here] for rows in dealt]).tolist()) == {1: 64, 2: 64}


def test_a_share_that_is_not_made_of_whole_blocks_is_refused():
    with pytest.raises(ValueError, match="6 rows from row 0 are not whole blocks of 2 updates x 2"):
        deal({"ids": torch.arange(6)}, 2, together=2)
    with pytest.raises(ValueError, match="4 rows from row 2"):
        deal({"ids": torch.arange(4)}, 2, together=2, first_row=2)


def test_once_is_a_plain_call_without_other_processes():
    assert once(lambda: "answer") == "answer"

    def refuse():
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        once(refuse)


@pytest.mark.parametrize(
    ("version", "kind", "message"), [(1, "FULL_STATE_DICT", "version 2"), (2, "SHARDED_STATE_DICT", "FULL_STATE_DICT")]
)
def test_what_would_leave_no_checkpoint_is_refused(version, kind, message):
    class Plugin:
        fsdp_version, state_dict_type = version, kind

    with pytest.raises(UserError, match=message):
        _check_plugin(Plugin)
