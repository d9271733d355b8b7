"""What a mixture is made of: a YAML file, checked key by key before a row is read; recipes/data-200k.yaml is one.

sources:
  rlaif-v: {path: data/rlaif-v, count: 40959}
  mm-rlhf: {path: data/mm-rlhf, parts: {long: 41163, short: 46281}}
seed: 0
benchmarks:
  - {suite: vl-rewardbench, path: benchmarks/vl/data.jsonl, image_root: benchmarks/vl}
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from r1_reward.records.errors import UserError

Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Rows of one origin: all clean ones, ``count`` of them, or so many of each part."""

    path: str
    """Pair file or pair folder, as `r1-reward data import` writes it."""
    count: Count | None = None
    """How many rows; null takes all that are left after cleaning."""
    parts: dict[str, Count] = Field(default_factory=dict)
    """How many rows of each ``kind``; rows of other kinds are not taken."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Source:
        if self.parts and self.count is not None:
            raise ValueError("give count or parts, not both")
        return self


class Near(_Strict):
    """When two training rows are near duplicates: texts *and* pictures near."""

    text: float = Field(default=0.85, ge=0.5, le=1.0)
    """Least similarity of all texts, and of each response (share of character windows in common)."""
    image_bits: int = Field(default=40, ge=0, le=64)
    """Most bits, of 256, in which perceptual hashes may differ."""


class Contamination(_Strict):
    """When a training row is too near a benchmark: by text *or* by picture."""

    text: float = Field(default=0.8, ge=0.5, le=1.0)
    """Least similarity of a question with one response, and of that response alone."""
    image_bits: int = Field(default=40, ge=0, le=64)
    """Most bits, of 256, in which perceptual hashes may differ."""
    min_characters: int = Field(default=60, ge=0)
    """Question and response shorter than this together say nothing by themselves ("Is there a dog?" "Yes.")."""


class Benchmark(_Strict):
    """A benchmark whose rows must not be trained on."""

    suite: str
    """vl-rewardbench, multimodal-rewardbench, mm-rlhf-rewardbench, or pairs for a pair file."""
    path: str | None = None
    """File or folder; null is the benchmark's own place on the Hub."""
    image_root: str | None = None
    """Folder that image paths are relative to; null is the folder of the file."""
    allow_partial: bool = False
    """Accept other numbers of rows than the official ones."""
    images: bool = True
    """Compare pictures too; false where only the texts are at hand."""


class MixConfig(_Strict):
    """A whole mixture."""

    sources: dict[Name, Source] = Field(min_length=1)
    """By name. Of duplicates across sources the copy of the source named first is kept."""
    seed: int = Field(default=0, ge=0)
    test_share: float = Field(default=0.0, ge=0.0, le=0.5)
    """Share of rows for the test side; no picture is on both sides."""
    short: Literal["refuse", "take-all"] = "refuse"
    """What to do where a source has fewer rows than asked for."""
    near: Near = Near()
    contamination: Contamination = Contamination()
    benchmarks: list[Benchmark] = Field(default_factory=list)
    out: str | None = None
    """Folder to write; --out goes before it."""


_PLACES: dict[str, type[BaseModel]] = {
    "sources": Source, "near": Near, "contamination": Contamination, "benchmarks": Benchmark,
}  # fmt: skip


def load_mix(path: str | Path) -> MixConfig:
    """Read a mixture from YAML.

    Raises:
        UserError: unreadable file, unknown key (with the nearest right one), missing key or bad value.
    """
    path = Path(path)
    try:
        return MixConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such config file.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a readable YAML file: {error}") from error
    except ValidationError as error:
        problems = [_explain(one) for one in error.errors(include_url=False)]
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems)) from error


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"] if part != "[key]") or "file"
    if error["type"] == "extra_forbidden":
        model = MixConfig if len(error["loc"]) == 1 else _PLACES[str(error["loc"][0])]
        near = difflib.get_close_matches(str(error["loc"][-1]), model.model_fields, n=1)
        return f"unknown key {place!r}. " + (
            f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(model.model_fields)}."
        )
    if error["type"] == "missing":
        return f"{place!r} is missing."
    return f"{place}: {error['msg'].removeprefix('Value error, ')}, not {error['input']!r}."
