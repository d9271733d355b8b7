"""Time the identification of a checkpoint's weights: reading and hashing all bytes, from disk, memory and cache.

    python benchmarks/bench_identity.py --gib 4 --files 4

Writes a checkpoint of random bytes and hashes it (1) after dropping it from the system's page cache, (2) from the page
cache, (3) again, when the digests of its files are cached. The times for 16 GB are extrapolated.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from r1_reward.store import digests, identity
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine

GIB = 2**30


def write_checkpoint(folder: Path, gib: float, files: int) -> None:
    """Write a configuration and weights of random bytes."""
    (folder / "config.json").write_text("{}")
    block = os.urandom(64 << 20)
    for number in range(files):
        with open(folder / f"model-{number:05d}.safetensors", "wb") as file:
            for _ in range(round(gib * GIB / files / len(block))):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())


def forget(folder: Path) -> None:
    """Drop the files from the system's page cache, if it lets a user do so."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(folder: Path) -> float:
    """Return the time to compute the identity of a checkpoint."""
    began = time.perf_counter()
    identity.weights_identity(folder)
    return time.perf_counter() - began


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-identity.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        write_checkpoint(folder, options.gib, options.files)
        time.sleep(3)  # digests of files written just now are not cached
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        forget(folder)
        from_disk = seconds(folder)
        (folder / "cache" / "r1-reward" / "digests.jsonl").unlink()
        digests._Memory._of.clear()
        from_memory = seconds(folder)
        known = seconds(folder)
    result = {
        "gib": size / GIB,
        "files": options.files,
        "seconds": {"from disk": from_disk, "from the page cache": from_memory, "known": known},
        "gb_per_second": {"from disk": size / 1e9 / from_disk, "from the page cache": size / 1e9 / from_memory},
        "seconds_for_16_gb": {"from disk": 16e9 / size * from_disk, "from the page cache": 16e9 / size * from_memory},
        "machine": describe_machine(),
    }
    write_json(options.out, result)
    print(result)


if __name__ == "__main__":
    main()
