"""Read from a model's folder how it was made: base model, recipe, training log, data. Nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from r1_reward.data.annotation_report import rows_by_state
from r1_reward.publish.measured import demo_metrics
from r1_reward.records.errors import UserError
from r1_reward.store.adapters import ADAPTER_CONFIG, adapted_model
from r1_reward.store.files import read_json
from r1_reward.store.hub import is_hub_id
from r1_reward.train.checkpoints import checkpoints

CONFIG, STATE = "config.yaml", "trainer_state.json"
TINY = "tiny"

STAGES = {
    "rl": "reinforcement learning (`r1-reward train rl`)",
    "sft": "cold start (`r1-reward train sft`)",
    "scalar": "a scalar reward model (`r1-reward train scalar`)",
}
RECIPE = (
    "algorithm", "learning_rate", "lr_scheduler_type", "per_device_train_batch_size", "gradient_accumulation_steps",
    "steps_per_generation", "num_generations", "num_train_epochs", "max_steps", "beta", "epsilon", "advantage_filter",
    "pre_clip", "consistency_weight", "consistency_mode", "format_weight", "referee", "temperature",
    "max_completion_length", "critique", "lora_rank", "lora_alpha", "max_pixels", "dtype", "bf16", "seed",
)  # fmt: skip
"""Keys of config.yaml that the card shows; the published config.yaml has all of them."""
WATCHED = (
    "accuracy", "reward", "reward/result", "reward/format", "reward/consistency", "parse_rate",
    "completions/mean_length", "completions/clipped_ratio", "entropy", "approx_kl", "filtered", "pre_clipped",
    "policy_loss", "held_out/accuracy", "held_out/parse_rate", "held_out/truncated", "loss",
    "mean_token_accuracy", "grad_norm",
)  # fmt: skip
"""Metrics of the training log that the card shows, each with its first and last value."""


class Origin(NamedTuple):
    """What a model was trained from."""

    base: str | None
    """Hub id of the model that the first training run started from; None if unknown or not on the Hub."""
    steps: tuple[str, ...]
    """What each run started from, from this run back to the base."""


class Recipe(NamedTuple):
    """How a run was configured."""

    stage: str
    config: dict[str, Any]
    """Every key of its config.yaml, unchanged."""


class Training(NamedTuple):
    """Summary of a training log."""

    file: str
    steps: int
    max_steps: int | None
    rows: list[tuple[str, float, float]]
    """Metric, first value, last value."""


def read_recipe(folder: Path) -> Recipe | None:
    """Return the resolved configuration saved with the run, or None if there is none.

    Raises:
        UserError: config.yaml is damaged.
    """
    path = run_folder(folder) / CONFIG
    if not path.is_file():
        return None
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not the config.yaml of a run.")
    stage = "rl" if "algorithm" in config else "scalar" if "critique" in config else "sft"
    return Recipe(stage, config)


def run_folder(folder: Path) -> Path:
    """Return the folder of the run: the model's own, or its parent for ``checkpoint-N`` and ``last-good``."""
    folder = folder.resolve()
    inside = folder.name.startswith("checkpoint-") or folder.name == "last-good"
    return folder.parent if inside and not (folder / CONFIG).is_file() else folder


def read_training(folder: Path) -> Training | None:
    """Return a summary of the training log: the model's own, its run's, or its newest checkpoint's."""
    run = run_folder(folder)
    newest = [path / STATE for path in checkpoints(run)]
    demo_log = folder.resolve().with_name(f"{folder.resolve().name}-log.json")
    candidates = [folder / STATE, run / STATE, *reversed(newest), demo_log]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return None
    state = read_json(path)
    log = state.get("log_history", []) if isinstance(state, dict) else state
    values: dict[str, list[float]] = {name: [] for name in WATCHED}
    for row in log:
        for name in WATCHED:
            if isinstance(value := row.get(name), (int, float)):
                values[name].append(value)
    rows = [(name, found[0], found[-1]) for name, found in values.items() if found]
    steps = max((row.get("step", 0) for row in log), default=0)
    if isinstance(state, dict):
        steps = max(steps, state.get("global_step", 0))
    most = state.get("max_steps") if isinstance(state, dict) else None
    return Training(path.name if path.parent == folder else f"{path.parent.name}/{path.name}", steps, most, rows)


def find_origin(folder: Path, *, base: str | None = None) -> Origin:
    """Trace a model back to what it was trained from; ``base`` is the answer if the caller knows it.

    Raises:
        UserError: the chain is circular.
    """
    steps: list[str] = []
    seen: set[Path] = set()
    place = folder.resolve()
    while True:
        if place in seen:
            raise UserError(f"{place}: config.yaml says the model was trained from itself, directly or through others.")
        seen.add(place)
        name = _trained_from(place)
        if name is None:
            break
        local = _local(name, place)
        if local is None:
            steps.append(name if is_hub_id(name) or name == TINY else Path(name).name)
            base = base or (name if is_hub_id(name) else None)
            break
        steps.append(local.name)
        place = local.resolve()
    return Origin(base, tuple(steps))


def _local(name: str, run: Path) -> Path | None:
    """Return the path a run's configuration refers to, relative to here or to a parent of the run, or None."""
    places = (Path.cwd(), *run.resolve().parents)
    return next((place / name for place in places if name != TINY and (place / name).exists()), None)


def _trained_from(folder: Path) -> str | None:
    if (folder / ADAPTER_CONFIG).is_file():
        return adapted_model(folder)
    recipe = read_recipe(folder)
    if recipe is not None:
        return str(recipe.config.get("model"))
    # Each of the demo's models is trained from the one before; the first has random weights.
    return TINY if demo_metrics(folder) is not None else None


def read_data(folder: Path, recipe: Recipe | None, card: Path | None) -> dict[str, Any]:
    """Return what is known about the training pairs: ``name``, ``hub`` (ids on the Hub), ``mixture`` (its report.json),
    ``judged`` (row counts by how a teacher or a model did on them).

    ``card`` is the folder of a mixture, for runs whose own data are elsewhere.

    Raises:
        UserError: ``card`` is not the folder of a mixture.
    """
    source = str(recipe.config.get("data")) if recipe is not None else None
    local = None if source is None else _local(source, folder)
    mixture = None
    if card is not None:
        mixture = _mixture(card)
        if mixture is None:
            raise UserError(f"{card}: no report.json of `r1-reward data mix` in this folder.")
    elif local is not None:
        mixture = next((found for place in (local, local.parent) if (found := _mixture(place))), None)
    on_hub = source is not None and card is None and local is None and is_hub_id(source)
    hub = [str(source)] if on_hub and Path(str(source)).suffix not in (".jsonl", ".json", ".parquet") else []
    if mixture is not None:
        hub += [name for one in mixture["sources"].values() if (name := _imported_from(one["path"], folder))]
    demo = demo_metrics(folder)
    return {
        "name": Path(source).name if source is not None and not hub else source,
        "hub": sorted(set(hub)),
        "mixture": mixture,
        "judged": None if local is None else rows_by_state(local if local.is_dir() else local.parent),
        "demo": None if demo is None else {**demo["world"], "command": demo["command"], "attempts": demo["attempts"]},
    }


def _mixture(folder: Path) -> dict[str, Any] | None:
    path = folder / "report.json"
    if not path.is_file():
        return None
    report = read_json(path)
    needed = {"sources", "statistics", "labels", "removed"}
    return report if isinstance(report, Mapping) and needed <= report.keys() else None  # type: ignore[return-value]


def _imported_from(source: str, run: Path) -> str | None:
    """Return the Hub id that a source of a mixture was imported from, if its folder records one."""
    folder = _local(source, run)
    path = None if folder is None else folder / "report.json"
    report = read_json(path) if path is not None and path.is_file() else None
    name = report.get("from") if isinstance(report, dict) else None
    return name if isinstance(name, str) and is_hub_id(name) else None
