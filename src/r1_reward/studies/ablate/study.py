"""What a study compares: settings (how hard training is pushed), arms (what is compared in a setting), seeds.

A study is a YAML file::

    start: demo                      # or a checkpoint folder, with data and held_out naming pair files
    common: {max_steps: 40, per_device_train_batch_size: 128}
    settings:
      stress:
        question: Does REINFORCE++ collapse where StableReinforce does not?
        common: {learning_rate: 1.0e-3, steps_per_generation: 4, per_device_train_batch_size: 32}
        seeds: [0, 1, 2, 3, 4, 5, 6, 7]
        arms:
          stable_reinforce: {algorithm: stable_reinforce}
          reinforce++: {algorithm: reinforce++}

Every arm of a setting runs with every seed, from the same weights and over the same pairs in the same order; the seed
decides what is sampled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings, Strict, at_home, unknown
from r1_reward.store.identity import data_identity, weights_identity
from r1_reward.store.settings_file import load_settings

START_FROM_DEMO = "demo"


class Setting(Strict):
    """A question, the arms that answer it, and what all of them share."""

    question: str = Field(description="What the setting is to answer.")
    seeds: list[int] = Field(min_length=1, description="Every arm runs with each of them.")
    arms: dict[str, dict[str, Any]] = Field(
        min_length=1, description="What is compared: name to keys of the trainer that it sets."
    )
    common: dict[str, Any] = Field(default_factory=dict, description="Keys of the trainer that all arms share.")
    baseline: str | None = Field(default=None, description="The arm others are compared with; null is the first.")

    def reference(self) -> str:
        """Return the arm others are compared with."""
        return self.baseline or next(iter(self.arms))


class Study(Settings):
    """A whole study, as its YAML file says it."""

    settings: dict[str, Setting] = Field(min_length=1, description="By name.")
    start: str = Field(default=START_FROM_DEMO, description="demo, or the checkpoint that every run starts from.")
    start_seed: int = Field(default=0, ge=0, description="Seed of the demo's start.")
    demo: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the demo that its start has instead of the usual ones."
    )
    train_pairs: Literal["hard", "rl"] = Field(
        default="hard",
        description="Which of the demo's pairs are trained on: hard ones, or the demo's own RL set, which has others "
        "among them.",
    )
    data: str | None = Field(default=None, description="Pair file to train on, where the start is a checkpoint.")
    held_out: str | None = Field(default=None, description="Pair file to judge, where the start is a checkpoint.")
    held_out_pairs: int = Field(default=300, ge=1, description="Pairs that every run is judged on in the end.")
    held_out_every: int = Field(default=10, ge=1, description="Steps between two points of a run's curve.")
    curve_pairs: int = Field(default=64, ge=1, description="Pairs that such a point is measured on.")
    stop_at_collapse: bool = Field(
        default=False, description="End a run at the first step at which the rule of train/monitor.py fires."
    )
    collapse_points: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="A run whose accuracy is lower than the start's by more than this (0.1: 10 points) counts as "
        "collapsed, too.",
    )
    common: dict[str, Any] = Field(default_factory=dict, description="Keys of the trainer that all runs share.")

    def cells(self) -> Iterator[Cell]:
        """Yield the cells seed by seed, so that an unfinished study has whole seeds rather than whole arms."""
        for name, setting in self.settings.items():
            for seed in setting.seeds:
                for arm, overrides in setting.arms.items():
                    options = {**self.common, **setting.common, **overrides}
                    yield Cell(name, arm, seed, options)


class Cell(NamedTuple):
    """One run of the grid."""

    setting: str
    arm: str
    seed: int
    options: dict[str, Any]
    """Keys of StudyConfig."""

    def folder(self, out: Path) -> Path:
        """Return where the run's result lies."""
        return out / "cells" / self.setting / self.arm.replace("/", "_") / f"seed-{self.seed}"

    def identity(self, referees: Mapping[str, str]) -> dict[str, Any]:
        """Return what decides this run beside what all runs of the study share.

        ``referees`` are the hashes of referees on this machine, by name: what :func:`referee_weights` returned.
        """
        return {"options": self.options, "referee": referees.get(self.options.get("referee", ""))}

    def __str__(self) -> str:
        return f"{self.setting} | {self.arm} | seed {self.seed}"


def identity(study: Study) -> dict[str, Any]:
    """Return what decides every run of a study besides its own options: the start, the pairs, how they are judged.

    Files count by their content, so that a pair file or a checkpoint may be moved but not replaced. What a demo starts
    from follows from its settings. Cells are not in it: arms and seeds may be added to a study that has results.

    Raises:
        UserError: a file cannot be read.
    """
    from r1_reward.studies.demo.config import DemoConfig

    shared: dict[str, Any] = {
        "start_seed": study.start_seed,
        "held_out_pairs": study.held_out_pairs,
        "held_out_every": study.held_out_every,
        "curve_pairs": study.curve_pairs,
    }
    # Folders of studies without these options do not know of them.
    if study.stop_at_collapse:
        shared["stop_at_collapse"] = True
    if study.train_pairs != "hard":
        shared["train_pairs"] = study.train_pairs
    if study.start == START_FROM_DEMO:
        return {**shared, "demo": DemoConfig(**{**study.demo, "seed": study.start_seed}).model_dump()}
    return {
        **shared,
        "start": weights_identity(study.start),
        "data": data_identity(study.data or ""),
        "held_out": data_identity(study.held_out or ""),
    }


def referee_weights(study: Study) -> dict[str, str]:
    """Return a hash of the weights of every referee of a study that is a checkpoint, by its name in the options."""
    names = {str(cell.options.get("referee", "")) for cell in study.cells()}
    return {name: weights_identity(at_home(name.removeprefix("local:"))) for name in names if name.startswith("local:")}


def load_study(path: Path) -> Study:
    """Read a study from YAML.

    Raises:
        UserError: unreadable, unknown or missing keys, options the trainer does not have, a baseline that is not
            an arm.
    """
    study = load_settings(path, Study)
    _check(path, study)
    return study


def _check(path: Path, study: Study) -> None:
    from r1_reward.studies.demo.config import DemoConfig
    from r1_reward.studies.trainer import StudyConfig

    _check_keys(f"{path}: demo", study.demo, DemoConfig.model_fields)
    known = [field.name for field in dataclasses.fields(StudyConfig)]
    for cell in study.cells():
        _check_keys(f"{path}: settings.{cell.setting}.{cell.arm}", cell.options, known)
    for name, setting in study.settings.items():
        if setting.reference() not in setting.arms:
            raise UserError(f"{path}: settings.{name}.baseline: {setting.baseline!r} is not one of its arms.")
    if study.start != START_FROM_DEMO and study.train_pairs != "hard":
        raise UserError(f"{path}: train_pairs chooses among the pairs of the demo; here data names the pairs.")
    if study.start != START_FROM_DEMO and not (study.data and study.held_out):
        raise UserError(f"{path}: start is a checkpoint, so data and held_out must name pair files.")


def _check_keys(place: str, options: Iterable[str], known: Collection[str]) -> None:
    for key in (key for key in options if key not in known):
        raise UserError(f"{place}: {unknown(key, known, 'option')}")
