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
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r1_reward.records.errors import UserError
from r1_reward.studies.identity import pairs_digest, weights_digest

START_FROM_DEMO = "demo"


class Setting(BaseModel):
    """A question, the arms that answer it, and what all of them share."""

    model_config = ConfigDict(extra="forbid")

    question: str
    seeds: list[int] = Field(min_length=1)
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    common: dict[str, Any] = Field(default_factory=dict)
    baseline: str | None = None
    """The arm others are compared with; default the first."""

    def reference(self) -> str:
        """Return the arm others are compared with."""
        return self.baseline or next(iter(self.arms))


class Study(BaseModel):
    """A whole study, as its YAML file says it."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Setting] = Field(min_length=1)
    start: str = START_FROM_DEMO
    start_seed: int = Field(default=0, ge=0)
    demo: dict[str, Any] = Field(default_factory=dict)
    """Settings of the demo (DemoConfig) that its start shall have instead of the usual ones."""
    data: str | None = None
    held_out: str | None = None
    held_out_pairs: int = Field(default=300, ge=1)
    held_out_every: int = Field(default=10, ge=1)
    curve_pairs: int = Field(default=64, ge=1)
    common: dict[str, Any] = Field(default_factory=dict)

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
    if study.start == START_FROM_DEMO:
        return {**shared, "demo": dataclasses.asdict(DemoConfig(**{**study.demo, "seed": study.start_seed}))}
    return {
        **shared,
        "start": weights_digest(study.start),
        "data": pairs_digest(study.data or ""),
        "held_out": pairs_digest(study.held_out or ""),
    }


def referee_weights(study: Study) -> dict[str, str]:
    """Return a hash of the weights of every referee of a study that is a checkpoint, by its name in the options."""
    names = {str(cell.options.get("referee", "")) for cell in study.cells()}
    return {name: weights_digest(name.removeprefix("local:")) for name in names if name.startswith("local:")}


def load_study(path: Path) -> Study:
    """Read a study from YAML.

    Raises:
        UserError: unreadable, unknown or missing keys, options the trainer does not have, a baseline that is no arm.
    """
    try:
        study = Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such study.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a readable YAML file: {error}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
        raise UserError(f"{path}: {'; '.join(problems)}.") from error
    _check(path, study)
    return study


def _check(path: Path, study: Study) -> None:
    from r1_reward.studies.demo.config import DemoConfig
    from r1_reward.studies.trainer import StudyConfig

    _check_keys(f"{path}: demo", study.demo, DemoConfig)
    for cell in study.cells():
        _check_keys(f"{path}: settings.{cell.setting}.{cell.arm}", cell.options, StudyConfig)
    for name, setting in study.settings.items():
        if setting.reference() not in setting.arms:
            raise UserError(f"{path}: settings.{name}.baseline: {setting.baseline!r} is none of its arms.")
    if study.start != START_FROM_DEMO and not (study.data and study.held_out):
        raise UserError(f"{path}: start is a checkpoint, so data and held_out must name pair files.")


def _check_keys(place: str, options: dict[str, Any], config: Any) -> None:
    known = {field.name for field in dataclasses.fields(config)}
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{place}: unknown option {key!r}.{hint}")
