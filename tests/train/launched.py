"""Runs `r1-reward train` several times in the processes that torchrun or accelerate started: importing torch is dear.

    torchrun --nproc_per_node 2 launched.py jobs.json

Each job is ``{"arguments": ["rl", "--config", ...], "notes": FOLDER}``. Rollouts are replayed: what is "sampled" for a
prompt depends on the prompt and the step alone, so that runs on any number of processes have the same ones. Each
process writes what it was given as advantages, row by row, to ``FOLDER/advantages-RANK.jsonl``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

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

    kept = {
        name: vars(StableReinforceTrainer)[name]
        for name in ("_generate_single_turn", "_generate_and_score_completions", "judgment_reward")
    }
    score, reward = kept["_generate_and_score_completions"], kept["judgment_reward"]
    notes = Path(job["notes"])
    notes.mkdir(parents=True, exist_ok=True)

    def noting(self, inputs):
        output = score(self, inputs)
        rows = []
        for prompt, kept_prompt, advantages, kept_advantages in zip(
            output["prompt_ids"], output["prompt_mask"], output["advantages"], output["completion_mask"], strict=True
        ):
            key = hashlib.sha256(str(prompt[kept_prompt.bool()].tolist()).encode()).hexdigest()
            rows.append([key, [value.hex() for value in advantages[kept_advantages.bool()].tolist()]])
        with (notes / f"advantages-{self.accelerator.process_index}.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.state.global_step, "rows": rows}) + "\n")
        return output

    def unscorable_half(self, completions, **columns):
        rewards = reward(self, completions=completions, **columns)
        first = self.accelerator.process_index * len(completions)
        rows = len(completions) * self.accelerator.num_processes
        return [None if first + i >= rows // 2 else value for i, value in enumerate(rewards)]

    if job.get("replay", True):
        StableReinforceTrainer._generate_single_turn = replay
    StableReinforceTrainer._generate_and_score_completions = noting
    if job.get("unscorable_half"):
        StableReinforceTrainer.judgment_reward = unscorable_half
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(StableReinforceTrainer, name, value)


def run(job):
    from r1_reward.cli import main

    with patched(job):
        sys.argv = ["r1-reward", "train", *job["arguments"]]
        try:
            main()
        except SystemExit as end:
            return end.code
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        shard_on_cpu()
    for job in json.loads(Path(sys.argv[1]).read_text()):
        code = run(job)
        if code:
            sys.exit(code)
