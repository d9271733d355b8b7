"""Find benchmark rows that are known or suspected to be wrong: they are scored as usual and also reported separately.

Some are listed in a benchmark's :class:`~r1_reward.bench.benchmark.IssueRules` (confirmed or questioned by its
maintainers); others are detected: rows with the same id and question that contradict each other, and repeated rows.
Only 8 bytes per row and kind of comparison are kept in memory.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from r1_reward.bench.benchmark import IssueRules, Listed
from r1_reward.bench.fields import with_names
from r1_reward.bench.rows import BenchmarkRow
from r1_reward.records.content import Content, read_parts, same_content

_SAME, _SAME_PICTURES = "both responses are the same text", "both responses are the same"


class IssueFinder:
    """Collects all rows in order; :meth:`finish` returns the suspect ones."""

    def __init__(self, rules: IssueRules) -> None:
        self.rules = rules
        self._listed: dict[int, list[Listed]] = defaultdict(list)
        # One number per row, equal for equal contents.
        self._groups, self._preferred, self._rejected, self._pairs, self._wholes = (array("q") for _ in range(5))
        self._ties = array("b")

    def add(self, row: BenchmarkRow) -> None:
        """Store what the comparisons need of a row."""
        preferred, rejected = map(with_names, row.preference)
        if listed := self.rules.listed(row):
            self._listed[row.index].append(listed)
        if same_content(preferred, rejected):
            self._listed[row.index].append(Listed(_SAME if isinstance(preferred, str) else _SAME_PICTURES))
        told = [_told(content) for content in (with_names(row.question), preferred, rejected)]
        group = (_told(with_names(content)) for content in self.rules.group(row))
        self._groups.append(_number(*group, row.criteria or ""))
        # A tie prefers nothing, so it gets unique numbers that contradict nothing.
        self._preferred.append(_number(told[1]) if row.preferred else row.index)
        self._rejected.append(_number(told[2]) if row.preferred else -row.index - 1)
        self._pairs.append(_number(*sorted(told[1:])))
        self._ties.append(row.preferred == 0)
        self._wholes.append(_number(*told, row.criteria or "", str(row.preferred == 0)))

    def finish(self) -> dict[int, str]:
        """Return the reasons of all suspect rows, by position."""
        found = {
            index: [listed.reason for listed in reasons if listed.rows in (None, len(self._groups))]
            for index, reasons in self._listed.items()
        }
        for index, reason in self._comparisons():
            found.setdefault(index, []).append(reason)
        return {index: "; ".join(reasons) for index, reasons in sorted(found.items()) if reasons}

    def _comparisons(self) -> Iterator[tuple[int, str]]:
        for rows in _repeated(self._groups):
            yield from self._opposed(rows) if self.rules.right_or_wrong else self._relabelled(rows)
        for first, *others in _repeated(self._wholes) if self.rules.repeats else ():
            for row in others:
                yield row, f"repeats row {first}"

    def _opposed(self, rows: list[int]) -> Iterator[tuple[int, str]]:
        """Yield rows that prefer a response rejected in another row, or reject one preferred there."""
        preferring = {self._preferred[row]: row for row in reversed(rows)}
        rejecting = {self._rejected[row]: row for row in reversed(rows)}
        for row in rows:
            other = rejecting.get(self._preferred[row], row)
            if other != row:
                yield row, f"contradicts row {other}: the response preferred here is rejected there"
                continue
            other = preferring.get(self._rejected[row], row)
            if other != row:
                yield row, f"contradicts row {other}: the response rejected here is preferred there"

    def _relabelled(self, rows: list[int]) -> Iterator[tuple[int, str]]:
        """Yield rows that have the same two responses as another row but a different label."""
        first: dict[int, dict[int | None, int]] = defaultdict(dict)
        labels = {row: None if self._ties[row] else self._preferred[row] for row in rows}
        for row in rows:
            first[self._pairs[row]].setdefault(labels[row], row)
        for row in rows:
            others = [other for label, other in first[self._pairs[row]].items() if label != labels[row]]
            if others:
                other = min(others)
                what = "neither" if self._ties[other] else "one" if self._ties[row] else "the other"
                yield row, f"contradicts row {other}: {what} of the same two responses is preferred there"


def _told(content: Content) -> str:
    """Return a content as text, with media represented by their names."""
    return content if isinstance(content, str) else repr(read_parts(content))


def _number(*texts: str) -> int:
    """Return 64 bits that are equal for equal texts."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        data = text.encode()
        digest.update(b"%d:" % len(data) + data)
    return int.from_bytes(digest.digest(), "big", signed=True)


def _repeated(numbers: array[int]) -> Iterator[list[int]]:
    """Yield the positions of each number that occurs more than once, in ascending order."""
    values = np.frombuffer(numbers, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values[order])) + 1])
    ends = np.append(starts[1:], len(order))
    for index in np.flatnonzero(ends - starts > 1):
        yield order[starts[index] : ends[index]].tolist()
