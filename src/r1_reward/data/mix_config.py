"""What a mixture is made of: a YAML file, checked key by key before a row is read; recipes/data-200k.yaml is one.

sources:
  rlaif-v: {path: data/rlaif-v, count: 40959}
  mm-rlhf: {path: data/mm-rlhf, parts: {long: 41163, short: 46281}}
seed: 0
benchmarks:
  - {suite: vl-rewardbench, path: benchmarks/vl/data.jsonl, image_root: benchmarks/vl}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1_reward.records.settings import Settings, Strict
from r1_reward.store.settings_file import load_settings

Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]
Count = Annotated[int, Field(ge=1)]


class Source(Strict):
    """Rows of one origin: all clean ones, ``count`` of them, or so many of each part."""

    path: str = Field(description="Pair file or pair folder, as `r1-reward data import` writes it.")
    count: Count | None = Field(default=None, description="How many rows; null takes all that are left after cleaning.")
    parts: dict[str, Count] = Field(
        default_factory=dict, description="How many rows of each ``kind``; rows of other kinds are not taken."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Source:
        if self.parts and self.count is not None:
            raise ValueError("give count or parts, not both")
        return self


class Near(Strict):
    """When two training rows are near duplicates: texts *and* pictures near."""

    text: float = Field(
        default=0.85,
        ge=0.5,
        le=1.0,
        description="Least similarity of all texts, and of each response (share of character windows in common).",
    )
    image_bits: int = Field(
        default=40, ge=0, le=64, description="Most bits, of 256, in which perceptual hashes may differ."
    )


class Contamination(Strict):
    """When a training row is too near a benchmark: by text *or* by picture."""

    text: float = Field(
        default=0.8,
        ge=0.5,
        le=1.0,
        description="Least similarity of a question with one response, and of that response alone.",
    )
    image_bits: int = Field(
        default=40, ge=0, le=64, description="Most bits, of 256, in which perceptual hashes may differ."
    )
    min_characters: int = Field(
        default=60,
        ge=0,
        description='Question and response shorter than this together say nothing ("Is there a dog?" "Yes.").',
    )


class Benchmark(Strict):
    """A benchmark whose rows must not be trained on."""

    suite: str = Field(
        description="vl-rewardbench, multimodal-rewardbench, mm-rlhf-rewardbench, or pairs for a pair file."
    )
    path: str | None = Field(default=None, description="File or folder; null is the benchmark's own place on the Hub.")
    image_root: str | None = Field(
        default=None, description="Folder that image paths are relative to; null is the folder of the file."
    )
    allow_partial: bool = Field(default=False, description="Accept other numbers of rows than the official ones.")
    images: bool = Field(default=True, description="Compare pictures too; false where only the texts are at hand.")


class MixConfig(Settings):
    """A whole mixture."""

    sources: dict[Name, Source] = Field(
        min_length=1, description="By name. Of duplicates across sources the copy of the source named first is kept."
    )
    seed: int = Field(
        default=0, ge=0, description="Decides which rows are drawn, their order, and the sides of the split."
    )
    test_share: float = Field(
        default=0.0, ge=0.0, le=0.5, description="Share of rows for the test side; no picture is on both sides."
    )
    short: Literal["refuse", "take-all"] = Field(
        default="refuse", description="What to do where a source has fewer rows than asked for."
    )
    near: Near = Field(default=Near(), description="When two training rows are near duplicates.")
    contamination: Contamination = Field(
        default=Contamination(), description="When a training row is too near a benchmark."
    )
    benchmarks: list[Benchmark] = Field(
        default_factory=list, description="Benchmarks whose rows must not be trained on."
    )
    out: str | None = Field(default=None, description="Folder to write; --out goes before it.")


def load_mix(path: str | Path) -> MixConfig:
    """Read a mixture from YAML.

    Raises:
        UserError: unreadable file, unknown key (with the nearest right one), missing key or bad value.
    """
    return load_settings(Path(path), MixConfig)
