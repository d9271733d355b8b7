"""Measure time and memory of the data recipe: import, deduplication, decontamination and mixing of generated rows.

    python benchmarks/bench_data.py --rows 200000

The rows have the schema of RLAIF-V: sentences of random words and small pictures of soft blobs, two rows per picture.
A share of them repeats others, exactly or nearly, or copies a row of a generated benchmark; the number of these found
is printed with the times.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from r1_reward.bench.suites import load_suite
from r1_reward.data.importing import import_pairs
from r1_reward.data.mix_config import MixConfig
from r1_reward.data.mixing import mix
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine
from r1_reward.store.shards import PairWriter

SIDE = 64
"""Side of a picture in pixels; its JPEG has about a kilobyte."""

PLANTED = 50
"""In a group of this many rows, the rows at these positions are special:"""
EXACT, NEAR, BENCHMARK_TEXT, BENCHMARK_PICTURE = 1, 2, 3, 4

_GROUP = 1000


class Generator:
    """Generates rows by number; the same number gives the same row."""

    def __init__(self, benchmark: int) -> None:
        self.benchmark = benchmark
        rng = np.random.default_rng(0)
        letters = np.array(list("abcdefghijklmnoprstuvwy"))
        self.words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 10, 5000)]

    def texts(self, seed: int) -> tuple[str, str, str]:
        """Return a question of 12 words and two responses of 60."""
        words = [self.words[number] for number in np.random.default_rng((1, seed)).integers(0, len(self.words), 132)]
        return " ".join(words[:12]), " ".join(words[12:72]), " ".join(words[72:])

    def picture(self, seed: int, quality: int = 90) -> bytes:
        """Return the bytes of a JPEG file."""
        blobs = np.random.default_rng((2, seed)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(blobs).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()

    def row(self, number: int) -> dict[str, Any]:
        """Return a row in RLAIF-V's schema; even seeds are our texts and pictures, odd ones the benchmark's."""
        kind, group = number % PLANTED, number // PLANTED
        text, picture = 2 * number, 4 * (number // 2)
        if group and kind in (EXACT, NEAR):
            copied = number - kind - PLANTED + 10  # an ordinary row of the previous group
            text, picture = 2 * copied, 4 * (copied // 2)
        elif kind == BENCHMARK_TEXT:
            text = 2 * (group % self.benchmark) + 1
        elif kind == BENCHMARK_PICTURE:
            picture = 2 * (group % self.benchmark) + 1
        question, chosen, rejected = self.texts(text)
        if kind == NEAR:
            chosen = chosen.replace(chosen.split()[30], "changed", 1)
        return {
            "ds_name": "generated",
            "image": {"bytes": self.picture(picture, 70 if kind in (NEAR, BENCHMARK_PICTURE) else 90), "path": "a.jpg"},
            "question": question,
            "chosen": chosen,
            "rejected": rejected,
            "origin_dataset": "generated",
            "origin_split": "{}",
            "idx": str(number),
            "image_path": "a.jpg",
        }

    def benchmark_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the benchmark as rows of pairs."""
        for number in range(self.benchmark):
            question, chosen, rejected = self.texts(2 * number + 1)
            cell = {"bytes": self.picture(2 * number + 1), "path": None}
            row = {"id": f"bench:{number}", "question": question, "images": [cell], "preferred": 1}
            yield {**row, "response_1": chosen, "response_2": rejected}


def write_source(path: Path, generator: Generator, rows: int) -> None:
    """Write a parquet file with RLAIF-V's columns."""
    schema = pa.Table.from_pylist([generator.row(0)]).schema
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, rows, _GROUP):
            group = [generator.row(number) for number in range(start, min(rows, start + _GROUP))]
            file.write_table(pa.Table.from_pylist(group, schema=schema))


def peak() -> float:
    """Return the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(folder: Path, rows: int, benchmark_rows: int) -> dict[str, Any]:
    """Generate, import and mix; return times in seconds, memory in MiB, and the numbers found."""
    generator = Generator(benchmark_rows)
    write_source(folder / "rows.parquet", generator, rows)
    with PairWriter(folder / "benchmark") as writer:
        for row in generator.benchmark_rows():
            writer.add(row)
    after_generating = peak()
    start = time.perf_counter()
    imported = import_pairs("rlaif-v", str(folder / "rows.parquet"), folder / "imported")
    seconds = {"import": time.perf_counter() - start}
    after_import = peak()
    config = MixConfig.model_validate(
        {
            "sources": {"rlaif-v": {"path": str(folder / "imported")}},
            "test_share": 0.01,
            "benchmarks": [{"suite": "pairs", "path": str(folder / "benchmark")}],
        }
    )
    mixture = mix(config, folder / "mixed", open_benchmark=load_suite, say=print)
    return {
        "rows": rows,
        "benchmark_rows": benchmark_rows,
        "seconds": seconds | {f"mix/{name}": value for name, value in mixture.seconds.items()},
        "mix_seconds": sum(mixture.seconds.values()),
        "peak_mib": {"after_generating": after_generating, "after_import": after_import, "after_mix": peak()},
        "imported": imported["kept"],
        "planted": {
            "exact duplicate": sum(number % PLANTED == EXACT for number in range(PLANTED, rows)),
            "near duplicate": sum(number % PLANTED == NEAR for number in range(PLANTED, rows)),
            "benchmark text": sum(number % PLANTED == BENCHMARK_TEXT for number in range(rows)),
            "benchmark picture": sum(number % PLANTED == BENCHMARK_PICTURE for number in range(rows)),
        },
        "removed": mixture.report["removed"],
        "left": mixture.report["rows"],
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--benchmark-rows", type=int, default=6_000)
    parser.add_argument("--folder", type=Path, default=None, help="Folder for gigabytes of data.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-data.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        result = run(Path(name), options.rows, options.benchmark_rows)
    result = {"machine": describe_machine(), **result}
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
