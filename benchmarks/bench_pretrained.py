"""What a judge with a pretrained language model costs and learns on this machine, stage by stage.

Every stage adds its numbers to the result file, so that each may be a job of its own; what a stage needs from another
is in the folder.

    python benchmarks/bench_pretrained.py runs/pretrained words captions generation sft judge:sft rl judge:rl
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "examples" / "pretrained"))
import grounding
import smollm2
import torch

from r1_reward.data.handwriting import build_world
from r1_reward.judge.reward_model import RewardModel
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.store.files import read_json, write_json
from r1_reward.store.machine import describe_machine
from r1_reward.store.pairs import load_pairs
from r1_reward.train.launch import train

NEW_TOKENS = 96
TRAINING = {
    "dtype": "float32", "lora_rank": 16, "use_cpu": "true", "gradient_checkpointing": "false", "report_to": "none",
    "logging_steps": 1, "save_steps": 10, "save_total_limit": 1, "disable_tqdm": "true", "warmup_steps": 5,
}  # fmt: skip


def words(given):
    """Assemble the model and teach tower and projector words."""
    began = time.perf_counter()
    model, processor = smollm2.build(given.seed)
    built = time.perf_counter() - began
    world = build_world(seed=given.seed, house_share=0.0, **grounding.SIZES)
    grounding.write_pairs(world, given.folder / "data")
    smollm2.save(given.folder / "base", model, processor)
    held_out = grounding.scenes(world, processor, "test")
    before = grounding.words_read(model, processor, *held_out)
    began = time.perf_counter()
    losses = grounding.learn_words(
        model, processor, *grounding.scenes(world, processor, "train"), steps=given.words, seed=given.seed
    )
    learnt = time.perf_counter() - began
    smollm2.save(given.folder / "ground", model, processor)
    return {
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "of the vision tower and projector": sum(
            weights.numel() for part in (model.model.vision_tower, model.model.multi_modal_projector)
            for weights in part.parameters()
        ),
        "seconds to build": built,
        "steps": given.words,
        "rows a step": 64,
        "seconds a step": learnt / given.words,
        "loss of the last ten": sum(losses[-10:]) / 10,
        "held-out tokens": held_out[1].numel(),
        "read as the right word before": before,
        "read as the right word after": grounding.words_read(model, processor, *held_out),
    }  # fmt: skip


def captions(given):
    """Train base's tower and projector through the frozen language model: what the words are the short cut for."""
    model, processor = load_model_and_processor(str(given.folder / "base"), dtype="float32")
    world = build_world(seed=given.seed, house_share=0.0, **grounding.SIZES)
    trainer = grounding.learn_captions(model, processor, world, steps=given.captions, seed=given.seed)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "steps": given.captions,
        "rows a step": 16,
        "seconds a step": trainer.state.log_history[-1]["train_runtime"] / given.captions,
        "losses": losses,
        "read as the right word after": grounding.words_read(
            model, processor, *grounding.scenes(world, processor, "test")
        ),
    }  # fmt: skip


def generation(given):
    """Generate judgements of fixed length, alone and eight at once."""
    rows = list(load_pairs(given.folder / "data" / "test.jsonl").select(range(8)))
    result = {}
    for dtype in ("float32", "bfloat16"):
        model = RewardModel.from_pretrained(given.folder / "ground", dtype=dtype, max_new_tokens=64)
        for count in (1, 8):
            began = time.perf_counter()
            verdicts = list(model.compare_many(rows[:count], votes=1, both_orders=False))
            seconds = time.perf_counter() - began
            votes = [vote for verdict in verdicts for vote in verdict.votes]
            result[f"{dtype}, {count} at once"] = {
                "new tokens": sum(vote.tokens for vote in votes),
                "seconds": seconds,
                "new tokens a second": sum(vote.tokens for vote in votes) / seconds,
            }
    return result


def sft(given):
    """Imitate the teacher, LoRA on every linear layer."""
    return trained(given, "sft", "ground", given.sft, per_device_train_batch_size=4, learning_rate=given.sft_rate)


def rl(given):
    """StableReinforce from the SFT model."""
    options = {"per_device_train_batch_size": 4, "steps_per_generation": 1, "max_completion_length": NEW_TOKENS}
    return trained(given, "rl", "sft", given.rl, learning_rate=given.rl_rate, **options)


def trained(given, stage, start, steps, **options):
    """Run a stage of training, or go on with it; return its times and its log."""
    out = given.folder / stage
    options = {**TRAINING, "bf16": given.bf16, "max_steps": steps, "seed": given.seed, **options}
    where = {"model": given.folder / start, "data": given.folder / "data" / "train.jsonl", "output_dir": out}
    resumed = out.is_dir()
    train(stage, None, [f"--{key}={value}" for key, value in {**where, **options}.items()], resume=resumed)
    log = read_json(out / "trainer_state.json")["log_history"]
    kept = ("loss", "accuracy", "parse_rate", "entropy", "grad_norm")
    return {
        **options,
        "seconds a step": None if resumed else log[-1]["train_runtime"] / steps,  # the runtime is this process's
        "log": [{name: row[name] for name in kept if name in row} for row in log if "loss" in row],
    }


def judge(given, name):
    """Judge held-out pairs, greedy, in both orders."""
    rows = list(load_pairs(given.folder / "data" / "test.jsonl").select(range(given.pairs)))
    model = RewardModel.from_pretrained(given.folder / name, dtype=given.dtype, max_new_tokens=NEW_TOKENS)
    began = time.perf_counter()
    verdicts = list(model.compare_many(rows, votes=1, both_orders=True))
    votes = [(vote, row) for verdict, row in zip(verdicts, rows, strict=True) for vote in verdict.votes]
    right = {}
    for vote, row in votes:
        right.setdefault(row["kind"], []).append(vote.answer == row["preferred"])
    return {
        "pairs": len(rows),
        "votes": len(votes),
        "right": sum(map(sum, right.values())) / len(votes),
        "unreadable": sum(vote.answer is None for vote, _ in votes) / len(votes),
        "right by kind": {kind: [sum(hits), len(hits)] for kind, hits in sorted(right.items())},
        "seconds": time.perf_counter() - began,
        "first judgement": votes[0][0].text,
    }


def main():
    """Run the stages and write what each gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("stages", nargs="+", help="words, captions, generation, sft, rl, judge:FOLDER")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pretrained.json"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", type=int, default=600, help="steps")
    parser.add_argument("--captions", type=int, default=20, help="steps")
    parser.add_argument("--sft", type=int, default=60, help="steps")
    parser.add_argument("--sft-rate", type=float, default=5e-4)
    parser.add_argument("--rl", type=int, default=5, help="steps")
    parser.add_argument("--rl-rate", type=float, default=5e-5)
    parser.add_argument("--pairs", type=int, default=50, help="held-out pairs to judge")
    parser.add_argument("--bf16", default="false", help="true: arithmetic of training in bfloat16")
    parser.add_argument("--dtype", default="float32", help="of the weights of a judge")
    given = parser.parse_args()
    for stage in given.stages:
        name, _, model = stage.partition(":")
        measured = judge(given, model) if name == "judge" else globals()[name](given)
        result = read_json(given.out) if given.out.is_file() else {}
        result |= {
            "machine": describe_machine(),
            "seed": given.seed,
            stage: {"threads": torch.get_num_threads()} | measured,
        }
        write_json(given.out, result)
        print(stage, measured)


if __name__ == "__main__":
    main()
