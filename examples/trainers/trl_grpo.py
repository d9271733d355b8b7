"""GRPO on TRL with a generative reward model as the judge.

python examples/trainers/trl_grpo.py --policy Qwen/Qwen2.5-VL-3B-Instruct --judge yifanzhang114/R1-Reward \
    --data questions.jsonl --out runs/grpo

Each row of the data has a question and the paths of its pictures, relative to the file:
{"question": "Which digit is top left?", "images": ["scenes/7.png"]}

Without a GPU, call ``train(...)`` with ``use_cpu=True, bf16=False``; it takes every option of GRPOConfig.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, Sequence, load_dataset
from trl import GRPOConfig, GRPOTrainer

from r1_reward import AsyncGroupReward, GroupReward, RewardModel

GROUP_SIZE = 8
JUDGMENT_TOKENS = 1024


def questions(path: Path) -> Dataset:
    """Return the rows in TRL's format: a chat and its pictures."""
    rows = load_dataset("json", data_files=str(path), split="train")
    rows = rows.map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["question"]}],
            "images": [str(path.parent / name) for name in row["images"]],
        }
    )
    return rows.cast_column("images", Sequence(Image()))


def train(policy: str, judge: str, data: Path, out: Path, *, base_url: str | None = None, **options: Any) -> None:
    """Train a policy; with ``base_url`` the judge runs behind an OpenAI-compatible server, such as vLLM's."""
    reward: GroupReward | AsyncGroupReward
    if base_url:
        reward = AsyncGroupReward.from_server(base_url, judge, group_size=GROUP_SIZE)
    else:
        model = RewardModel.from_pretrained(judge, max_new_tokens=JUDGMENT_TOKENS)
        reward = GroupReward(model, group_size=GROUP_SIZE)
    args = GRPOConfig(
        output_dir=str(out), num_generations=GROUP_SIZE, **{"per_device_train_batch_size": GROUP_SIZE, **options}
    )
    trainer = GRPOTrainer(policy, reward, args=args, train_dataset=questions(data))
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("policy", "judge", "data", "out"):
        parser.add_argument(f"--{name}", required=True, type=Path if name in ("data", "out") else str)
    parser.add_argument("--base-url")
    train(**vars(parser.parse_args()))
