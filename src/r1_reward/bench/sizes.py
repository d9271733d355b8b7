"""Compare the rows of a benchmark with its official sizes: the number of rows, of each category, and of ids.

size, complaint = match_size(find_benchmark("vl-rewardbench"), scan)      # one of them is None
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from r1_reward.bench.benchmark import Benchmark, Size


class Scan(NamedTuple):
    """Result of the first pass over all rows; rows and categories in the benchmark's unit, including dropped ties."""

    rows: int
    categories: Counter[str]
    ids: Counter[str]
    """Distinct ids per category, if ACC+ is defined."""
    issues: dict[int, str]
    fingerprint: str
    pairs: int = 0
    """Pairs to judge."""
    ties: int = 0
    """Pairs to judge whose label is a tie."""
    dropped: int = 0
    """Pairs left out because their label is a tie."""
    notes: tuple[str, ...] = ()
    """Notes on rows and groups for reports."""


def match_size(suite: Benchmark, scan: Scan) -> tuple[Size | None, str | None]:
    """Return the official size that the rows have, or a complaint with the differences from the nearest one."""
    if not suite.sizes:
        return None, None
    found = [size.of(scan.categories) for size in suite.sizes]
    for size in found:
        if size.rows in (None, scan.rows) and not _differences_from(size, scan):
            return size, None
    nearest = min(found, key=lambda size: abs((size.rows or 0) - scan.rows))
    differences = _differences_from(nearest, scan)
    sizes = " or ".join("any number of" if size.rows is None else f"{size.rows:,}" for size in suite.sizes)
    some = " (or a subset of complete categories)" if any(size.apart for size in suite.sizes) else ""
    complaint = f"{suite.title} has {sizes} {suite.unit}{some}, but {scan.rows:,} were found"
    return None, f"{complaint} ({'; '.join(differences)})." if differences else f"{complaint}."


def _differences_from(size: Size, scan: Scan) -> list[str]:
    return _differences("", size.categories, scan.categories) + _differences(" ids", size.ids, scan.ids)


def _differences(unit: str, expected: Mapping[str, int | None] | None, found: Counter[str]) -> list[str]:
    """Describe the categories whose count differs from the official one; None allows any count except 0."""
    differences = []
    for name in sorted({*expected, *found}) if expected is not None else ():
        wanted = (expected or {}).get(name, 0)
        if not found[name] if wanted is None else wanted != found[name]:
            some = "some" if wanted is None else f"{wanted:,}"
            differences.append(f"{name}{unit}: {some} expected, {found[name]:,} found")
    return differences
