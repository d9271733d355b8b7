"""The YAML config of a mixture, validated before any row is read; see recipes/data-200k.yaml for an example.

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
    """One source of rows: all clean ones, ``count`` of them, or a number per part."""

    path: str = Field(description="Pair file or pair folder, as `r1-reward data import` writes it.")
    count: Count | None = Field(default=None, description="Number of rows; null takes all rows left after cleaning.")
    parts: dict[str, Count] = Field(
        default_factory=dict, description="Number of rows of each ``kind``; rows of other kinds are not used."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Source:
        if self.parts and self.count is not None:
            raise ValueError("give count or parts, not both")
        return self


class Near(Strict):
    """When two training rows are near duplicates: texts *and* images are near."""

    text: float = Field(
        default=0.85,
        ge=0.5,
        le=1.0,
        description="Minimum similarity of all texts, and of each response (share of common character windows).",
    )
    image_bits: int = Field(
        default=40, ge=0, le=64, description="Maximum number of bits, of 256, in which perceptual hashes may differ."
    )


class Contamination(Strict):
    """When a training row is too similar to a benchmark: by text *or* by image."""

    text: float = Field(
        default=0.8,
        ge=0.5,
        le=1.0,
        description="Minimum similarity of the question with one response, and of that response alone.",
    )
    image_bits: int = Field(
        default=40, ge=0, le=64, description="Maximum number of bits, of 256, in which perceptual hashes may differ."
    )
    min_characters: int = Field(
        default=60,
        ge=0,
        description='Ignore a question and response with fewer characters in total ("Is there a dog?" "Yes.").',
    )


class Benchmark(Strict):
    """A benchmark whose rows must not be in the training data."""

    suite: str = Field(description="Benchmark name, such as vl-rewardbench, or pairs for a pair file.")
    path: str | None = Field(default=None, description="File or folder; null reads the benchmark from the Hub.")
    image_root: str | None = Field(
        default=None, description="Folder that image paths are relative to; null is the folder of the file."
    )
    allow_partial: bool = Field(default=False, description="Accept numbers of rows that differ from the official ones.")
    images: bool = Field(default=True, description="Compare images too; false if only the texts are available.")


class MixConfig(Settings):
    """Config of a mixture."""

    sources: dict[Name, Source] = Field(
        min_length=1, description="Sources by name. Of duplicates, the copy in the source listed first is kept."
    )
    seed: int = Field(default=0, ge=0, description="Determines which rows are sampled, their order and the split.")
    test_share: float = Field(
        default=0.0, ge=0.0, le=0.5, description="Share of rows for the test side; no image is on both sides."
    )
    short: Literal["refuse", "take-all"] = Field(
        default="refuse", description="What to do if a source has fewer rows than requested."
    )
    near: Near = Field(default=Near(), description="When two training rows are near duplicates.")
    contamination: Contamination = Field(
        default=Contamination(), description="When a training row is too similar to a benchmark."
    )
    benchmarks: list[Benchmark] = Field(
        default_factory=list, description="Benchmarks whose rows must not be in the training data."
    )
    out: str | None = Field(default=None, description="Output folder; --out overrides it.")


def load_mix(path: str | Path) -> MixConfig:
    """Read a mixture from YAML.

    Raises:
        UserError: the file is unreadable, or has an unknown key (the closest valid one is suggested), a missing key or
            an invalid value.
    """
    return load_settings(Path(path), MixConfig)
