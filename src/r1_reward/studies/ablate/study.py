"""The definition of a study: settings (how hard training is pushed), arms (compared within a setting), seeds.

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
determines what is sampled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, field_validator

from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings, Strict, at_home, unknown
from r1_reward.store.identity import data_identity, weights_identity
from r1_reward.store.settings_file import load_settings

if TYPE_CHECKING:
    from r1_reward.train.monitor import Thresholds

START_FROM_DEMO = "demo"

_OF_A_RUN = {"seed": "list them in `seeds`", "output_dir": "--out is the folder of the study"}
"""Trainer keys that every run has its own value of, each with the way to set it."""


class Setting(Strict):
    """A question, the arms that answer it, and their common options."""

    question: str = Field(description="The question that the setting answers.")
    seeds: list[int] = Field(min_length=1, description="Every arm runs with each seed.")
    arms: dict[str, dict[str, Any]] = Field(
        min_length=1, description="What is compared: the name of each arm, with its trainer keys."
    )
    common: dict[str, Any] = Field(default_factory=dict, description="Trainer keys that all arms share.")
    baseline: str | None = Field(default=None, description="Arm to compare others with; null: the first.")

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        for seed in seeds:
            if seeds.count(seed) > 1:
                raise ValueError(f"{seed} is listed twice; runs of the same seed are equal and would count as two.")
        return seeds

    def reference(self) -> str:
        """Return the arm that others are compared with."""
        return self.baseline or next(iter(self.arms))


class Study(Settings):
    """A study, as in its YAML file."""

    settings: dict[str, Setting] = Field(min_length=1, description="The settings by name.")
    start: str = Field(default=START_FROM_DEMO, description="demo, or the checkpoint of every run's start.")
    start_seed: int = Field(default=0, ge=0, description="Seed of the demo's start.")
    demo: dict[str, Any] = Field(default_factory=dict, description="Settings of the demo to override for the start.")
    train_pairs: Literal["hard", "rl"] = Field(
        default="hard",
        description="Which of the demo's pairs to train on: the hard ones, or the demo's RL set, which also has "
        "others.",
    )
    data: str | None = Field(default=None, description="Pair file to train on, if the start is a checkpoint.")
    held_out: str | None = Field(default=None, description="Pair file to judge, if the start is a checkpoint.")
    held_out_pairs: int = Field(default=300, ge=1, description="Held-out pairs to judge at the end of a run.")
    held_out_every: int = Field(default=10, ge=1, description="Steps between the points of a run's curve.")
    curve_pairs: int = Field(default=64, ge=1, description="Pairs to judge for each point.")
    stop_at_collapse: bool = Field(
        default=False, description="End a run at the first step that triggers a rule of train/monitor.py."
    )
    collapse_points: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Also count a run as collapsed if its accuracy is lower than the start's by more than this (0.1: "
        "10 points).",
    )
    least_entropy: float | None = Field(
        default=None,
        ge=0,
        description="Mean token entropy in nats below which a run has collapsed; null: as in train/monitor.py. "
        "Lower it for a start that is nearly certain of every token.",
    )
    common: dict[str, Any] = Field(default_factory=dict, description="Trainer keys that all runs share.")

    def thresholds(self) -> Thresholds:
        """Return the thresholds of the collapse rules."""
        from r1_reward.train.monitor import Thresholds

        return Thresholds() if self.least_entropy is None else Thresholds(entropy=self.least_entropy)

    def cells(self) -> Iterator[Cell]:
        """Yield the cells seed by seed, so that an unfinished study has complete seeds rather than complete arms."""
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
        """Return the folder of the run's result."""
        return out / "cells" / self.setting / self.arm.replace("/", "_") / f"seed-{self.seed}"

    def identity(self, referees: Mapping[str, str]) -> dict[str, Any]:
        """Return the identity of this run, without what all runs of the study share.

        ``referees`` are the hashes of local referees by name, from :func:`referee_weights`.
        """
        return {"options": self.options, "referee": referees.get(self.options.get("referee", ""))}

    def __str__(self) -> str:
        return f"{self.setting} | {self.arm} | seed {self.seed}"


def identity(study: Study) -> dict[str, Any]:
    """Return the identity shared by all runs of a study: the start, the pairs, and how they are judged.

    Files are identified by their content, so a pair file or a checkpoint may be moved but not replaced. A demo start is
    identified by its settings. Cells are not included: arms and seeds may be added to a study that has results.

    Raises:
        UserError: A file cannot be read.
    """
    from r1_reward.studies.demo.config import DemoConfig

    shared: dict[str, Any] = {
        "start_seed": study.start_seed,
        "held_out_pairs": study.held_out_pairs,
        "held_out_every": study.held_out_every,
        "curve_pairs": study.curve_pairs,
    }
    # Folders of earlier studies do not contain these options.
    if study.stop_at_collapse:
        shared["stop_at_collapse"] = True
    if study.train_pairs != "hard":
        shared["train_pairs"] = study.train_pairs
    if study.least_entropy is not None:
        shared["least_entropy"] = study.least_entropy
    if study.start == START_FROM_DEMO:
        return {**shared, "demo": DemoConfig(**{**study.demo, "seed": study.start_seed}).model_dump()}
    return {
        **shared,
        "start": weights_identity(study.start),
        "data": data_identity(study.data or ""),
        "held_out": data_identity(study.held_out or ""),
    }


def referee_weights(study: Study) -> dict[str, str]:
    """Return a hash of the weights of each referee that is a checkpoint, by its name in the options."""
    names = {str(cell.options.get("referee", "")) for cell in study.cells()}
    return {name: weights_identity(at_home(name.removeprefix("local:"))) for name in names if name.startswith("local:")}


def load_study(path: Path) -> Study:
    """Read a study from YAML.

    Raises:
        UserError: The file is unreadable, keys are unknown or missing, the trainer lacks an option, an option is set
            for each run, a seed is listed twice, or a baseline is not an arm.
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
        place = f"{path}: settings.{cell.setting}.{cell.arm}"
        _check_keys(place, cell.options, known)
        for key in cell.options.keys() & _OF_A_RUN.keys():
            raise UserError(f"{place}: {key} cannot be an option, because every run has its own; {_OF_A_RUN[key]}.")
    for name, setting in study.settings.items():
        if setting.reference() not in setting.arms:
            raise UserError(f"{path}: settings.{name}.baseline: {setting.baseline!r} is not one of its arms.")
    if study.start != START_FROM_DEMO and study.train_pairs != "hard":
        raise UserError(f"{path}: train_pairs applies only to the demo's pairs; remove it, because data is set.")
    if study.start != START_FROM_DEMO and not (study.data and study.held_out):
        raise UserError(f"{path}: start is a checkpoint, so data and held_out must name pair files.")


def _check_keys(place: str, options: Iterable[str], known: Collection[str]) -> None:
    for key in (key for key in options if key not in known):
        raise UserError(f"{place}: {unknown(key, known, 'option')}")
