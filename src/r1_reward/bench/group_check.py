"""Check that each comparison of a group occurs exactly once, as the scores of grouped benchmarks assume.

check = GroupCheck(find_benchmark("editreward-bench"))
for row in rows:
    check.add(row)
check.notes()      # ("Groups without exactly one row for each of their comparisons: 1 (ab12), ...",)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from r1_reward.bench.benchmark import Benchmark
from r1_reward.bench.rows import BenchmarkRow
from r1_reward.store.rows import RawRow

_NAMED = 5
_Group = tuple[str, str]
"""Category and id."""


class GroupCheck:
    """Collects the rows of a benchmark and reports which of their groups are incomplete or have repeats."""

    def __init__(self, suite: Benchmark) -> None:
        self._suite = suite
        self._first: dict[_Group, tuple[str, str]] = {}
        self._found: dict[_Group, Counter[tuple[int, ...]]] = {}

    def twice(self, row: BenchmarkRow, raw: RawRow) -> str | None:
        """Return an error message if a raw row that is a whole group has the id of an earlier group."""
        if not self._suite.grouped:
            return None
        here = raw.file, raw.place
        file, place = self._first.setdefault((row.category, row.id), here)
        if (file, place) == here:
            return None
        there = place if file == raw.file else f"{file}, {place}"
        return f"the group {row.id!r} is also in {there}: keep one of them, or give each its own id"

    def add(self, row: BenchmarkRow) -> None:
        """Record a comparison."""
        if self._suite.comparisons is not None:
            self._found.setdefault((row.category, row.id), Counter())[row.members] += 1

    def notes(self) -> tuple[str, ...]:
        """Return a note on the groups with missing or repeated comparisons, if there are any."""
        broken = [id for _, id in self._broken()]
        if not broken:
            return ()
        named = ", ".join(broken[:_NAMED]) + (", ..." if len(broken) > _NAMED else "")
        return (
            f"Groups without exactly one row for each of their comparisons: {len(broken):,} ({named}). "
            "They count as wrong, whatever the verdicts.",
        )

    def _broken(self) -> Iterator[_Group]:
        comparisons = self._suite.comparisons
        for group, found in self._found.items():
            wanted = 1 if comparisons is None else comparisons(group[0])
            # A group of one comparison that repeats is two rows, each scored on its own.
            if wanted > 1 and (len(found) != wanted or found.total() != wanted):
                yield group
