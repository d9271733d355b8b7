"""Runs `r1-reward train` several times in the processes that torchrun or accelerate started: importing torch is dear.

    torchrun --nproc_per_node 2 launched.py jobs.json

A job is ``{"arguments": ["rl", "--output_dir", ...], "notes": FOLDER}``, and optionally

- ``"replay": true``: what is "sampled" for a prompt depends on the prompt and the step alone, so that runs on any
  number of processes have the same rollouts;
- ``"unscorable_half": true``: the second half of each rollout has no reward;
- ``"from": CHECKPOINT``: it is copied into the output folder first, to be resumed from.

Each process writes the tokens and the advantages of its rows to ``FOLDER/rollouts-RANK.jsonl``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch.distributed

TEXTS = [
    "<think>I see one two. Response 1 is better.</think><answer>1</answer>",
    "<think>I see one two three four five six. Response 2 is better.</think><answer>2</answer>",
    "<think>one two. Response 2 is better.</think><answer>1</answer>",
    "<think>Response 2 is better.</think><answer>2</answer>",
    "no tags at all 1",
]


def shard_on_cpu():
    """Let accelerate use FSDP on CPU, where it falls back to DDP without a word. torch itself can."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    prepare = AcceleratorState.__init__

    def prepare_sharded(self, *args, fsdp_plugin=None, **kwargs):
        prepare(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        fsdp_plugin = fsdp_plugin or vars(self).get("fsdp_plugin")
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    AcceleratorState.__init__ = prepare_sharded


def replay(trainer, prompt_ids, *args, **kwargs):
    """Stand in for sampling: an untrained model never writes a judgment, and no two process counts sample alike."""
    tokenizer = trainer.processing_class.tokenizer
    step = trainer.state.global_step
    completions = []
    for ids in prompt_ids:
        number = int(hashlib.sha256(f"{step} {list(ids)}".encode()).hexdigest(), 16)
        completions.append([*tokenizer(TEXTS[number % len(TEXTS)])["input_ids"], tokenizer.eos_token_id])
    return completions, None


@contextmanager
def patched(job):
    from r1_reward.train.rl import StableReinforceTrainer

    score = StableReinforceTrainer._generate_and_score_completions
    reward = StableReinforceTrainer.judgment_reward
    notes = Path(job["notes"])
    notes.mkdir(parents=True, exist_ok=True)

    def noting(self, inputs):
        output = score(self, inputs)
        rows = []
        for i, kept_prompt in enumerate(output["prompt_mask"].bool()):
            kept_tokens = output["completion_mask"][i].bool()
            prompt = str(output["prompt_ids"][i][kept_prompt].tolist())
            advantages = [value.hex() for value in output["advantages"][i][kept_tokens].tolist()]
            rows.append([prompt, output["completion_ids"][i][kept_tokens].tolist(), advantages])
        with (notes / f"rollouts-{self.accelerator.process_index}.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.state.global_step, "rows": rows}) + "\n")
        return output

    def unscorable_half(self, completions, **columns):
        rewards = reward(self, completions=completions, **columns)
        first = self.accelerator.process_index * len(completions)
        rows = len(completions) * self.accelerator.num_processes
        return [None if first + i >= rows // 2 else value for i, value in enumerate(rewards)]

    patches = {"_generate_and_score_completions": noting}
    if job.get("replay"):
        patches["_generate_single_turn"] = replay
    if job.get("unscorable_half"):
        patches["judgment_reward"] = unscorable_half
    with mock.patch.multiple(StableReinforceTrainer, **patches):
        yield


def run(job):
    from r1_reward.cli import main

    if "from" in job and os.environ.get("RANK", "0") == "0":  # the others wait in train() for what the first one sees
        output = Path(job["arguments"][job["arguments"].index("--output_dir") + 1])
        shutil.copytree(job["from"], output / Path(job["from"]).name)
    with patched(job):
        sys.argv = ["r1-reward", "train", *job["arguments"]]
        try:
            main()
        except SystemExit as end:
            return end.code
    return 0


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        shard_on_cpu()
    for job in json.loads(Path(sys.argv[1]).read_text()):
        code = run(job)
        if code:
            sys.exit(code)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()  # its threads, left running, may abort a process that ends
    # Even so torch has aborted a sharded process as it exited ("terminate called without an active exception"), after
    # everything was written.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
