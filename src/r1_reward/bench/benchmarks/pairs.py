"""Use your own pair file, or a pair dataset on the Hub, as a benchmark; ``kind`` is the category."""

from __future__ import annotations

from pathlib import Path

from r1_reward.bench.benchmark import Benchmark
from r1_reward.bench.fields import Draft, Fields
from r1_reward.bench.readers import open_pairs
from r1_reward.records.errors import UserError
from r1_reward.store.rows import RowSource


def parse(row: Fields) -> Draft:
    """Parse a row that :func:`r1_reward.store.pairs.load_pairs` has already validated."""
    data = row.data
    return Draft(
        data["id"], data["question"], data["response_1"], data["response_2"], data["preferred"],
        data["kind"] or data["source"] or "all", images=tuple(data["images"]), video=data["video"],
        image_field="images", criteria=data["criteria"],
    )  # fmt: skip


def open_file(source: str | Path, image_root: str | Path | None, split: str, revision: str | None) -> RowSource:
    """Return the rows of a pair file; raises UserError for options that do not apply to pair files."""
    if image_root is not None or revision is not None:
        option = "an image root" if image_root is not None else "a revision"
        raise UserError(f"pairs: {option} does not apply to pair files; image paths are relative to the file.")
    return open_pairs(source, split)


BENCHMARK = Benchmark(name="pairs", title="Preference pairs", parse=parse, hub_split="train", open=open_file)
