"""Run configurations: a flat YAML file plus ``--key value`` overrides, checked key by key before anything is loaded.

A file holds the keys of `RunConfig` (model, pairs) and those of the trainer's config side by side::

    model: Qwen/Qwen2.5-VL-7B-Instruct
    data: pairs.jsonl
    output_dir: runs/rl
    learning_rate: 1e-6
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from pydantic import Field, model_validator

from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings, at_home
from r1_reward.store.settings_file import read_yaml

Trainer = TypeVar("Trainer")
_NO = "no"  # a choice of save_strategy and its like, which YAML reads as false


class RunConfig(Settings):
    """The model and the data of a run; all other keys belong to the trainer."""

    model: str = Field(description="Checkpoint folder or Hub id of an image-text-to-text model.")
    data: str = Field(description="Pair file, folder or Hub dataset id with the training pairs.")
    split: str = Field(default="train", description="Split of a Hub dataset.")
    check_images: bool = Field(
        default=True,
        description="Decode every picture and video once before training (on one process; sets that passed are not "
        "decoded again); false: a damaged one stops the run when it is read.",
    )
    dtype: str = Field(default="auto", description="Type of the weights: auto, bfloat16, float16 or float32.")
    attn_implementation: str | None = Field(
        default=None,
        description="Attention implementation: flash_attention_2, sdpa, …; null: PyTorch's, with all windows of a "
        "Qwen-VL vision tower in one call on a GPU.",
    )
    max_pixels: int | None = Field(
        default=None,
        description="Scale larger images down to this many pixels; null keeps the processor's limit.",
    )
    video_frames: int | None = Field(
        default=None,
        ge=1,
        description="Frames shown of each video, evenly spaced; null uses the checkpoint's number, else 8.",
    )
    lora_rank: int = Field(default=0, ge=0, description="Rank of LoRA on all linear layers; 0 trains all weights.")
    lora_alpha: int = Field(default=32, description="Scale of the LoRA update.")
    held_out: str | None = Field(
        default=None,
        description="Pair file, folder or Hub dataset id with pairs to judge during training, in both orders.",
    )
    held_out_split: str = Field(default="test", description="Split of held_out.")
    held_out_every: int = Field(default=0, ge=0, description="Judge held_out every this many steps.")
    held_out_pairs: int = Field(default=256, ge=1, description="Maximum number of held_out pairs, drawn once.")
    on_collapse: Literal["stop", "rollback", "ignore"] = Field(
        default="stop",
        description="train rl, on a collapse (NaN, exploding loss, lost format, length or entropy, no referee): stop "
        "and keep the last good weights, rollback to them with a lower learning rate, or ignore it.",
    )
    keep_good_every: int = Field(
        default=50, ge=1, description="train rl: minimum number of steps between two copies of good weights."
    )
    rollback_lr_factor: float = Field(
        default=0.5, gt=0, le=1, description="train rl: factor of the learning rate at a rollback."
    )
    max_rollbacks: int = Field(default=3, ge=0, description="train rl: stop at the collapse after this many.")

    @model_validator(mode="after")
    def _held_out_is_judged(self) -> RunConfig:
        if (self.held_out is None) != (self.held_out_every == 0):
            raise ValueError("held_out (the pairs) and held_out_every (the steps between) must be set together.")
        return self


@dataclass
class LoadedConfig(Generic[Trainer]):
    """A checked configuration: the run's part, the trainer's part, and all keys as given."""

    run: RunConfig
    trainer: Trainer
    given: dict[str, Any]


_ALIASES = (
    ("gradient_checkpointing", "activation_checkpointing"),
    ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
)
"""Two names of one setting of transformers, the old one first; config.yaml has both."""


def load_config(
    path: str | Path | None, overrides: Sequence[str], trainer_class: type[Trainer]
) -> LoadedConfig[Trainer]:
    """Read ``path`` (YAML, may be None), apply ``["--key", "value", ...]``, and build both parts.

    Raises:
        UserError: Unreadable file, unknown key (the nearest valid one is suggested), wrong type, missing key, or
            invalid value.
    """
    values: dict[str, Any] = read_yaml(Path(path)) if path is not None else {}
    overriding = _parse_overrides(overrides)
    for pair in _ALIASES:
        for name, alias in (pair, pair[::-1]):
            if name in overriding and alias not in overriding:
                values.pop(alias, None)  # or the file's would win under its other name
    values.update(overriding)
    run_keys = RunConfig.model_fields
    known = {**{key: field.annotation for key, field in run_keys.items()}, **_field_types(trainer_class)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " `r1-reward train sft --keys` lists them."
            raise UserError(f"{path or 'command line'}: unknown key {key!r}.{hint}")
    values = {key: at_home(_coerce(key, value, known[key])) for key, value in values.items()}
    for name in ("model", "data", "output_dir"):
        if not values.get(name):
            raise UserError(
                f"{path or 'command line'}: {name!r} is missing; set it in the file or with --{name} VALUE."
            )
    try:
        run = RunConfig(**{key: value for key, value in values.items() if key in run_keys})
        trainer = trainer_class(**{key: value for key, value in values.items() if key not in run_keys})
    except (UserError, ValueError, TypeError) as error:
        raise UserError(f"{path or 'command line'}: {error}") from error
    return LoadedConfig(run, trainer, values)


def save_config(config: LoadedConfig[Any], folder: str | Path) -> Path:
    """Write every resolved key, given or default, to ``folder/config.yaml``, which loads again, and return its path."""
    resolved = {**config.run.model_dump(), **config.trainer.to_dict()}
    if resolved.get("steps_per_generation") is not None:  # GRPOConfig takes one of both: the one that was given
        given = config.given.get("generation_batch_size") is not None
        resolved.pop("steps_per_generation" if given else "generation_batch_size", None)
    path = Path(folder) / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(_plain(resolved), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def describe_keys(trainer_class: type) -> list[tuple[str, str, str]]:
    """Return (key, default, help) of every key that has an effect: the run's, then our own, then the inherited ones.

    Keys whose change a trainer refuses (``refused`` of its config) are left out.
    """
    from r1_reward.train.progress import BEST_MODEL_OPTIONS  # lazy, because it imports transformers

    own = {
        name
        for cls in trainer_class.__mro__
        if cls.__module__.partition(".")[0] == __name__.partition(".")[0]
        for name in cls.__dict__.get("__annotations__", ())
    }
    refused = {*BEST_MODEL_OPTIONS, *getattr(trainer_class, "refused", ())}
    fields = [f for f in dataclasses.fields(trainer_class) if f.init and f.name not in refused]
    rows = [
        (name, "" if f.is_required() else repr(f.default), f.description or "")
        for name, f in RunConfig.model_fields.items()
    ]
    for f in sorted(fields, key=lambda f: f.name not in own):
        default = "" if f.default is dataclasses.MISSING else repr(f.default)
        rows.append((f.name, default, str(f.metadata.get("help", "")).strip()))
    return rows


def _parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    pending = list(arguments)
    while pending:
        name = pending.pop(0)
        if not name.startswith("--"):
            raise UserError(f"{name!r}: overrides have the form --key value.")
        key, equals, text = name[2:].partition("=")
        if not equals:
            if not pending:
                raise UserError(f"{name}: missing value.")
            text = pending.pop(0)
        try:
            values[key.replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"{name}: cannot parse the value {text!r}.") from error
    return values


def _field_types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def _coerce(key: str, value: Any, hint: Any) -> Any:
    """Return the value in the field's type; YAML reads 1e-6 as text, and 1 as an int where a float is expected."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    plain = [option for option in options if option in (bool, int, float, str)]
    if value is None:
        if type(None) in options or hint is Any:
            return None
        raise UserError(f"{key}: null is not allowed here.")
    if value is False and any(isinstance(option, enum.EnumType) and _NO in list(option) for option in options):
        return _NO
    if float in plain and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            if str not in plain:
                raise UserError(f"{key}: {value!r} is not a number.") from None
    if len(plain) == len([option for option in options if option is not type(None)]) and plain:
        if any(type(value) is option for option in plain):
            return value
        wanted = " or ".join(
            {bool: "true/false", int: "a whole number", float: "a number", str: "text"}[p] for p in plain
        )
        raise UserError(f"{key}: {value!r} is not {wanted}.")
    return value


def _plain(value: Any) -> Any:
    """Return the value reduced to YAML's types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
