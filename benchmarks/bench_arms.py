"""Table 6 of the paper on a small scale: ways of training a reward model, from the same start and pairs.

    python benchmarks/bench_arms.py --runs runs/arms --seed 0        # then --seed 1, --seed 2; the same command resumes

Each seed is a run of the demo, ``RUNS/demo-seedN``, made as far as its SFT, control and RL models if it is missing. The
other arms are trained from that run's models into ``RUNS/demo-seedN/arms/ARM``. Bradley-Terry and critique-then-score
are what ``r1-reward train scalar`` makes of the model that can read but not judge yet (``ground``), from the labels of
all training pairs; steps and learning rate were chosen on seed 101 (docs/demo.md). The arms of
reinforcement learning start from the SFT model and differ from the demo's RL in one part each; all make as many updates
on as many samples. Rejection sampling draws as many samples as RL, on the same pairs and all from the SFT model, keeps
the texts that earn RL's full reward, and continues SFT on them and the teacher's for as long as the control. All arms
judge the same held-out pairs, greedily and in both orders.

Not equal: the updates and seconds of different methods. Both are reported.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from pages import fill
from rich.console import Console
from rich.table import Table

from r1_reward.data.subsets import both_orders, without_reasoning
from r1_reward.judge.metrics import Interval
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.rule_referee import RuleReferee
from r1_reward.judge.votes import Plan, judge_pairs
from r1_reward.models.tiny_words import GROUPS
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import parse_judgment
from r1_reward.records.schema import Judgment
from r1_reward.store.files import read_json, write_json
from r1_reward.store.machine import describe_machine
from r1_reward.store.pairs import load_pairs, save_pairs
from r1_reward.store.run_folder import LOCK, locked, require_same
from r1_reward.studies.demo import QUICK
from r1_reward.studies.demo.config import DemoConfig
from r1_reward.studies.demo.files import read_predictions, write_predictions
from r1_reward.studies.demo.metrics import describe, difference
from r1_reward.studies.demo.pipeline import Demo
from r1_reward.studies.demo.progress import DemoProgress
from r1_reward.studies.statistics import share_over_seeds

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "scalar-tiny.yaml"
PAGE = ROOT / "docs" / "demo.md"

SCALAR = {"scalar": False, "critique": True}
SCALAR_STEPS, SCALAR_LEARNING_RATE = 400, 1e-3
REJECTION = "rejection"
PHASES = ("sft", "control", "rl")
PARTS: dict[str, dict[str, Any]] = {
    "rl-without-pre-clip": {"pre_clip": None},
    "rl-without-filter": {"advantage_filter": None},
    "rl-without-consistency": {"consistency_weight": 0.0},
    "rl-without-format": {"format_weight": 0.0},
    "reinforce++": {"algorithm": "reinforce++"},
}
ARMS = {
    "scalar": ("Bradley-Terry head", "56.41"),
    "critique": ("critique, then score", "60.80"),
    "sft": ("SFT", "64.80"),
    "control": ("SFT continued", "–"),
    REJECTION: ("rejection sampling, then SFT", "–"),
    "rl-without-pre-clip": ("RL without Pre-CLIP", "67.36"),
    "rl-without-filter": ("RL without the filter", "68.96"),
    "rl-without-consistency": ("RL without the consistency reward", "–"),
    "rl-without-format": ("RL without the format reward", "–"),
    "reinforce++": ("REINFORCE++ (neither Pre-CLIP nor filter)", "collapses"),
    "rl": ("StableReinforce", "71.92"),
}
"""In the order of the table: what the table calls each arm, and its accuracy on VL-RewardBench in the paper, in %."""


def settings_of(demo: Demo, arm: str) -> dict[str, Any]:
    """Return the settings of an arm on top of the demo's: changed options of RL, or overrides of the recipe."""
    if arm not in SCALAR:
        return PARTS.get(arm, {})
    steps = min(SCALAR_STEPS, demo.config.sft_max_steps)  # fewer in a smoke test
    return {
        "critique": SCALAR[arm],
        "max_steps": steps,
        "per_device_train_batch_size": demo.config.sft_batch,
        "learning_rate": SCALAR_LEARNING_RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": min(30, steps // 5),
        "adam_beta2": 0.98,
    }


def train_arm(demo: Demo, arm: str, settings: dict[str, Any]) -> None:
    """Train an arm that is not a phase of the demo, from its newest checkpoint if there is one."""
    if arm in SCALAR:
        from r1_reward.train.launch import train

        data = demo.folder / "arms" / "train.parquet"
        if not data.is_file():
            save_pairs(demo.training_pairs(), data)  # without the pairs that decide when SFT ends
        options = {
            "model": demo.folder / "ground",
            "data": data,
            "output_dir": demo.folder / "arms" / arm,
            "seed": demo.config.seed,
            "disable_tqdm": "true",
            **settings,
        }
        train("scalar", RECIPE, [f"--{name}={value}" for name, value in options.items()], resume=True)
    elif arm == REJECTION:
        demo.continue_sft(f"arms/{arm}", more=own_texts(demo))
    else:
        demo.reinforce(f"arms/{arm}", **settings)


def own_texts(demo: Demo) -> Dataset:
    """Return the SFT model's own texts that earn RL's full reward, as pairs with reasoning.

    One sample is drawn for each of RL's, on the same rows.

    Raises:
        UserError: no sample does.
    """
    file = demo.folder / "arms" / f"{REJECTION}.parquet"
    if not file.is_file():
        config = demo.config
        shown = both_orders(without_reasoning(demo.rl_pairs()), seed=config.seed)
        rows = list(shown.select(range(min(len(shown), config.rl_steps * config.rl_batch))))
        engine = RewardModel.from_pretrained(demo.folder / "sft", batch_size=512).engine
        judged = judge_pairs(engine, rows, Plan(1, "stored", 1.0, None, config.max_new_tokens, config.seed))
        kept = with_full_reward(rows, [votes[0] for votes in judged])
        if not kept:
            raise UserError(f"none of {len(rows):,} samples of the SFT model earns the full reward.")
        save_pairs(kept, file)
    return load_pairs(file, check_images=False)


def with_full_reward(rows: Iterable[Mapping[str, Any]], votes: list[Judgment]) -> list[dict[str, Any]]:
    """Return the rows whose vote is right, well formed and supported by its own reasoning.

    The vote's text becomes the row's ``reasoning``.
    """
    verdicts = RuleReferee().judge(
        [parse_judgment(vote.text).reasoning for vote in votes], [vote.answer or 0 for vote in votes]
    )
    return [
        {**row, "reasoning": vote.text}
        for row, vote, supported in zip(rows, votes, verdicts, strict=True)
        if vote.answer == row["preferred"] and vote.well_formed and supported
    ]


def updates_of(demo: Demo, arm: str) -> int:
    """Return how many updates an arm was trained for."""
    if arm in SCALAR:
        return int(read_json(demo.folder / "arms" / arm / "trainer_state.json")["global_step"])
    log = read_json(demo.folder / (f"{arm}-log.json" if arm in PHASES else f"arms/{arm}-log.json"))
    return max(row["step"] for row in log)


def run_arm(demo: Demo, arm: str) -> dict[str, Any]:
    """Train and judge an arm unless that is done, and return what is in its metrics.json."""
    settings, folder = settings_of(demo, arm), demo.folder / "arms" / arm
    if (folder / "metrics.json").is_file():
        kept = read_json(folder / "metrics.json")
        require_same(folder, kept["settings"], settings, "Remove the arm's folder.")
        return kept
    model = demo.folder / arm if arm in PHASES else folder
    left = [*demo.folder.glob(f"arms/{arm}*/*"), *demo.folder.glob(f"arms/{arm}.parquet")]
    resumed = demo.resumed if arm in PHASES else bool(left)
    if arm in PHASES:
        seconds = demo.seconds[arm]
    else:
        started = time.monotonic()
        train_arm(demo, arm, settings)
        seconds = time.monotonic() - started
    pairs, limit = list(demo.pairs("test")), demo.config.max_new_tokens
    engine = RewardModel.from_pretrained(model, batch_size=600, max_new_tokens=limit).engine
    judged = judge_pairs(engine, pairs, Plan(max_new_tokens=limit, seed=demo.config.seed))
    folder.mkdir(exist_ok=True)
    write_predictions(folder / "predictions.jsonl", pairs, judged)
    result = {
        **describe(pairs, judged),
        "settings": settings,
        "updates": updates_of(demo, arm),
        "seconds": seconds,  # for an interrupted arm outside the demo's phases: only since it was resumed
        "resumed": resumed,
    }
    write_json(folder / "metrics.json", result)
    return result


def run_seed(runs: Path, seed: int, arms: list[str], *, quick: bool = False) -> dict[str, Any]:
    """Run the arms of one seed that are not done and return the metrics of each, with its difference from SFT."""
    folder = runs / f"demo-seed{seed}"
    with DemoProgress(Console()) as progress:
        demo = Demo(folder, DemoConfig(seed=seed, **(QUICK if quick else {})), progress, resume=folder.exists())
        demo.run_until("control")
        (folder / "arms").mkdir(exist_ok=True)
        with locked(folder / "arms" / LOCK, folder / "arms"):
            found = {}
            for arm in arms:
                found[arm] = run_arm(demo, arm)
                progress.note(arm, f"accuracy {found[arm]['accuracy']:.3f} in {found[arm]['seconds']:.0f} s")
    before_rl = folder / "arms" / "sft" / "predictions.jsonl"
    if before_rl.is_file():
        rows, before = read_predictions(before_rl)
        for arm in found:
            _, after = read_predictions(folder / "arms" / arm / "predictions.jsonl")
            found[arm]["minus_sft"] = difference(rows, after, before)
    return found


def over_seeds(results: list[dict[str, Any]]) -> Interval:
    """Return the mean accuracy with its interval: over pairs for one seed, over seeds (t) for several."""
    if len(results) == 1:
        return Interval(*(results[0][name] for name in ("accuracy", "low", "high")))
    return share_over_seeds([result["accuracy"] for result in results])


def rows_of(seeds: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Return the table's cells: a row an arm that has been measured, numbers in the order of the seeds."""
    rows = []
    for arm, (title, published) in ARMS.items():
        results = [measured[arm] for measured in seeds.values() if arm in measured]
        if not results:
            continue
        mean, low, high = over_seeds(results)
        groups = [", ".join(_share(measured.get(arm), group) for measured in seeds.values()) for group in GROUPS]
        updates = sorted({one["updates"] for one in results})
        rows.append(
            [
                title,
                published,
                f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
                *groups,
                f"{updates[0]}" if len(updates) == 1 else f"{updates[0]} to {updates[-1]}",
                f"{np.mean([one['seconds'] for one in results]):.0f}",
            ]
        )
    return rows


def _share(result: Mapping[str, Any] | None, group: str) -> str:
    known = result is not None and group in result["by_kind"]
    return f"{100 * result['by_kind'][group]['mean']:.1f}" if result and known else "–"


def headings(seeds: dict[str, Any]) -> list[str]:
    """Return the table's headings."""
    by = f"seed {next(iter(seeds))}" if len(seeds) == 1 else f"seeds {', '.join(seeds)}"
    groups = [f"{group}: {by}" for group in GROUPS]
    return ["arm", "paper, VL-RewardBench", "all, % [95 %]", *groups, "updates", "seconds"]


def fill_page(page: Path, seeds: dict[str, dict[str, Any]]) -> None:
    """Replace the marked table of a page of the documentation."""
    fill(page, "arms results", headings(seeds), rows_of(seeds))


def main(arguments: list[str] | None = None) -> None:
    """Run the arms of one seed, add them to the results, print the table, and fill the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="Folder of the demo's runs, one a seed.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--quick", action="store_true", help="A smoke test, at whose sizes nothing is learned.")
    parser.add_argument("--fill", type=Path, nargs="?", const=PAGE, help="Page whose table is filled (docs/demo.md).")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "arms.json")
    given = parser.parse_args(arguments)
    settings = DemoConfig(**(QUICK if given.quick else {})).model_dump(exclude={"seed"})
    kept = read_json(given.out) if given.out.is_file() else {"config": settings, "seeds": {}}
    require_same(given.out, kept["config"], settings, "Choose another --out.")
    found = run_seed(given.runs, given.seed, given.arms, quick=given.quick)
    seeds = kept["seeds"]
    seeds[str(given.seed)] = {**seeds.get(str(given.seed), {}), **found}
    seeds = {seed: seeds[seed] for seed in sorted(seeds, key=int)}
    write_json(given.out, {"machine": describe_machine(), "config": settings, "seeds": seeds})
    table = Table(*headings(seeds))
    for cells in rows_of(seeds):
        table.add_row(*cells)
    Console(width=190).print(table)
    if given.fill is not None:
        fill_page(given.fill, seeds)


if __name__ == "__main__":
    main()
