"""Train a policy with rewards from the demo's judge: how often are its answers true before and after?

    r1-reward demo --out RUN
    python benchmarks/bench_group_reward.py RUN

The policy is the demo's ground model, which reads handwriting but has never judged, after a short lesson in answering:
it imitates one response of each training pair, chosen by a coin, so half of what it learns is false. Then GRPO on TRL
uses ``GroupReward`` around RUN/rl; no label enters the rewards. Truth is known from the digits of a scene and measured
on scenes of other scans, by kind of question. The demo trained its models on scenes of another seed, so some scans of
the test scenes may be among its training scans.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from r1_reward import GroupReward
from r1_reward.data.handwriting import World, build_world
from r1_reward.engines.engine import EngineError, Request
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.judge.reward_model import RewardModel
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.models.tiny_words import ANSWERS, CORNERS, KINDS, SIDES, TENS, answer_of
from r1_reward.records.schema import PreferencePair
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine

LONGEST_ANSWER = 12
COMMON: dict[str, Any] = {
    "bf16": False, "report_to": "none", "gradient_checkpointing": False, "save_strategy": "no", "disable_tqdm": True,
    "adam_beta2": 0.98,
}  # fmt: skip


def true_answers(world: World, pair: PreferencePair) -> set[str]:
    """Return every wording of the true answer to a question."""
    digits = world.scenes[pair.images[0]].digits
    # Questions name a corner or side, or a number of tens; the world defines the meaning of house words.
    named = SIDES if pair.kind == "side" else CORNERS
    corner = world.meanings.get(pair.kind, next((i for i, name in enumerate(named) if name in pair.question), 0))
    tens = re.search(rf"\b({'|'.join(TENS)})\b", pair.question)
    bound = TENS.index(tens[1]) if tens else 0
    right = answer_of(pair.kind, digits, corner=corner, bound=bound)
    wordings = (
        template.format(a=right, corner=CORNERS[corner], side=SIDES[corner % 2]) for template in ANSWERS[pair.kind]
    )
    return {text[0].upper() + text[1:] for text in wordings}


def chat(question: str) -> list[dict[str, Any]]:
    """Return a question about one picture in the trainer's format; TRL inserts the picture."""
    return [{"role": "user", "content": question}]


def accuracy(model: Any, processor: Any, world: World, pairs: list[PreferencePair]) -> dict[str, float]:
    """Return the share of sampled answers that are true, by kind and over all pairs."""
    engine = TransformersEngine(model, processor, batch_size=256)
    content = [{"type": "image"}]
    requests = (
        Request(
            [{"role": "user", "content": [*content, {"type": "text", "text": pair.question}]}],
            [world.images[pair.images[0]]],
            (number,),
        )
        for number, pair in enumerate(pairs)
    )
    right = defaultdict(list)
    answers = engine.generate(one._replace(temperature=1.0, max_new_tokens=LONGEST_ANSWER) for one in requests)
    for pair, completions in zip(pairs, answers, strict=True):
        if isinstance(completions, EngineError):
            raise completions
        right[pair.kind].append(completions[0].text in true_answers(world, pair))
    found = {kind: sum(own) / len(own) for kind, own in sorted(right.items())}
    return {**found, "all": sum(map(sum, right.values())) / len(pairs)}


def teach_to_answer(model: Any, processor: Any, world: World, pairs: list[PreferencePair], given: Any) -> Any:
    """Train the model to imitate responses of which half are false."""
    coin = random.Random(given.seed)
    rows = Dataset.from_list(
        [
            {
                "images": [world.images[pair.images[0]]],
                "prompt": chat(pair.question),
                "completion": [{"role": "assistant", "content": coin.choice((pair.response_1, pair.response_2))}],
            }
            for pair in pairs
        ]
    )
    args = SFTConfig(
        output_dir=str(given.out / "policy"), max_steps=given.lesson, per_device_train_batch_size=32,
        learning_rate=5e-4, max_length=None, seed=given.seed, use_cpu=given.cpu, **COMMON,
    )  # fmt: skip
    trainer = SFTTrainer(model, args=args, train_dataset=rows, processing_class=processor)
    trainer.train()
    return trainer.model


def reinforce(model: Any, processor: Any, world: World, pairs: list[PreferencePair], given: Any) -> GRPOTrainer:
    """Train with the judge's rewards alone."""
    rows = Dataset.from_list(
        [{"images": [world.images[pair.images[0]]], "prompt": chat(pair.question)} for pair in pairs]
    )
    judge = RewardModel.from_pretrained(given.judge or given.run / "rl", batch_size=256, max_new_tokens=64)
    args = GRPOConfig(
        output_dir=str(given.out / "policy"), max_steps=given.steps, num_generations=given.group,
        per_device_train_batch_size=given.batch, max_completion_length=LONGEST_ANSWER, learning_rate=given.rate,
        beta=0.0, seed=given.seed, logging_steps=1, use_cpu=given.cpu, **COMMON,
    )  # fmt: skip
    reward = GroupReward(judge, group_size=given.group, name="judge")
    trainer = GRPOTrainer(model, reward, args=args, train_dataset=rows, processing_class=processor)
    trainer.train()
    return trainer


def main() -> None:
    """Measure, train, measure again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path, help="Folder of a finished demo.")
    parser.add_argument("--judge", help="Judge; default: RUN/rl.")
    parser.add_argument("--policy", help="Initial policy; default: RUN/ground.")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-group-reward"))
    parser.add_argument("--lesson", type=int, default=100, help="Steps of imitation.")
    parser.add_argument("--steps", type=int, default=60, help="Steps of GRPO.")
    parser.add_argument("--batch", type=int, default=128, help="Completions per step.")
    parser.add_argument("--group", type=int, default=8, help="Completions per question.")
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--questions", type=int, default=4000)
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args()
    world = build_world(seed=given.seed + 1000, train_pairs=given.questions, test_pairs=given.test)
    train = [pair for pair in world.train if pair.kind in given.kinds]
    test = [pair for pair in world.test if pair.kind in given.kinds]
    model, processor = load_model_and_processor(str(given.policy or given.run / "ground"), dtype="float32")

    started = time.monotonic()
    model = teach_to_answer(model, processor, world, train, given)
    before = accuracy(model, processor, world, test)
    print("before:", before, flush=True)
    trainer = reinforce(model, processor, world, train, given)
    after = accuracy(trainer.model, processor, world, test)
    print("after: ", after)
    names = ("reward", "reward_std", "judge/unscored", "judge/unreadable", "step_time")
    log = [{name: row.get(name) for name in names} for row in trainer.state.log_history[:-1]]
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()}
    report = {"options": options, "machine": describe_machine(), "seconds": time.monotonic() - started}
    write_json(given.out / "bench-group-reward.json", {**report, "before": before, "after": after, "log": log})


if __name__ == "__main__":
    main()
