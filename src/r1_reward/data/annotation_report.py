"""Count the results of a teacher's attempts for ``report.json``."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1_reward.data.attempts_file import Attempt
from r1_reward.judge.unreadable import FEW
from r1_reward.store.files import read_json
from r1_reward.store.shards import REPORT

SAID_BY = {
    "annotation": ("attempts", "the number of attempts until a teacher agreed"),
    "sft": ("levels", "their difficulty"),
    "rl": ("levels", "their difficulty"),
}
"""For each kind of report.json: the field with rows counted by how a judge did on them, and what that field counts."""

LEFT = ("no reply", "not asked")
"""Reasons after which the next call asks about a row again."""

FAILED = "failed"
"""A row that the teacher contradicted: some attempt had a verdict, and none agreed with the label."""

NO_VERDICT = "no verdict"
"""A row without a verdict in any attempt, so its difficulty is unknown."""

TRUNCATED = "truncated"
"""The problem of a reply that was cut by the token limit."""

_UNEVEN = 0.05  # largest deviation from one half of the labels of rows with reasoning without a warning
_ENOUGH = 100  # rows needed before a share means anything


class Summary:
    """Counts over the rows of an annotated folder, in one pass."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._dropped: Counter[str] = Counter()
        self._attempts: Counter[str] = Counter()
        self._sources: dict[str, Counter[str]] = defaultdict(Counter)
        self._outcomes: dict[int, Counter[str]] = defaultdict(Counter)
        self._labels: Counter[int] = Counter()
        self._shown: Counter[int] = Counter()
        self._texts: set[bytes] = set()
        self._repeated = self._replaced = 0
        self._replies = self._readable = self._truncated = 0

    def drop(self, reason: str) -> None:
        """Count a row that is left out."""
        self._dropped[reason] += 1

    def add(self, before: Mapping[str, Any], row: Mapping[str, Any], attempts: Sequence[Attempt]) -> None:
        """Count a row, given before and after annotation, with its attempts."""
        name = state(row["attempts"], any(attempt.answer is not None for attempt in attempts))
        self._attempts[name] += 1
        self._sources[row["source"]][name] += 1
        self._replaced += before["reasoning"] is not None
        for attempt in attempts:
            self._replies += 1
            self._readable += attempt.answer is not None
            self._truncated += attempt.problem == TRUNCATED
            self._outcomes[attempt.number][outcome(attempt, before["preferred"])] += 1
            if attempt.answer is not None:
                self._shown[3 - attempt.answer if attempt.swapped else attempt.answer] += 1
        if row["reasoning"] is not None:
            self._labels[row["preferred"]] += 1
            text = hashlib.sha256(row["reasoning"].encode()).digest()[:12]
            self._repeated += text in self._texts
            self._texts.add(text)

    def report(self) -> dict[str, Any]:
        """Return all counts as JSON; shares are in [0, 1], None if there is nothing to count."""
        left = sum(self._dropped[reason] for reason in LEFT)
        taught, written = self._labels.total(), self._attempts.total()
        return {
            "kind": "annotation",
            "complete": not left,
            "rows": written + self._dropped.total(),
            "written": written,
            "left": left,
            "attempts": self._by_attempts(self._attempts),
            "with_reasoning": taught,
            "agreed_without_reasoning": written - self._attempts[FAILED] - self._attempts[NO_VERDICT] - taught,
            "parse_rate": self._readable / self._replies if self._replies else None,
            "truncated": self._truncated / self._replies if self._replies else None,
            "dropped": dict(self._dropped),
            "outcomes": {str(number): dict(counts.most_common()) for number, counts in sorted(self._outcomes.items())},
            "by_source": {source: self._by_attempts(counts) for source, counts in sorted(self._sources.items())},
            "label_1_share": _share(self._labels),
            "shown_first_share": _share(self._shown),
            "replaced_reasoning": self._replaced,
            "repeated_reasoning": self._repeated,
            "warnings": self._warnings(),
        }

    def _by_attempts(self, counts: Counter[str]) -> dict[str, int]:
        return {name: counts[name] for name in (*map(str, range(1, self._limit + 1)), FAILED, NO_VERDICT)}

    def _warnings(self) -> list[str]:
        warnings = []
        if self._replies and self._readable < FEW * self._replies:
            reasons: Counter[str] = sum(self._outcomes.values(), Counter())
            commonest = ", ".join(f"{name} {count:,}" for name, count in reasons.most_common(3))
            warnings.append(
                f"only {self._readable:,} of {self._replies:,} replies have a verdict ({commonest}): this teacher's "
                "replies cannot be parsed, so these counts say nothing about the rows."
            )
        labels, shown = _share(self._labels), _share(self._shown)
        if labels is not None and self._labels.total() >= _ENOUGH and abs(labels - 0.5) > _UNEVEN:
            warnings.append(
                f"{labels:.0%} of the rows with reasoning prefer response 1, and {shown:.0%} of the teacher's verdicts "
                "are for the response shown first: a model trained on them learns this position bias."
            )
        if self._repeated:
            warnings.append(
                f"{self._repeated} rows have exactly the same reasoning as an earlier row; check for a cache or a "
                "canned reply in front of the teacher."
            )
        if self._replaced:
            warnings.append(f"{self._replaced} rows already had reasoning; the teacher's replaced it.")
        return warnings


def state(attempts: int | None, had_verdict: bool) -> str:
    """Return the state of a row: the number of the attempt that agreed, ``failed`` or ``no verdict``."""
    return str(attempts) if attempts is not None else FAILED if had_verdict else NO_VERDICT


def rows_by_state(folder: Path) -> dict[str, Any] | None:
    """Return the row counts in the report.json of a folder of annotated or split pairs, for a data card.

    ``counts`` maps a number of attempts or of correct samples, ``failed`` and ``no verdict`` to rows; ``of`` says what
    is counted. None if the folder has no such report.
    """
    path = folder / REPORT
    report = read_json(path) if path.is_file() else None
    if not isinstance(report, Mapping) or (said := SAID_BY.get(str(report.get("kind")))) is None:
        return None
    field, of = said
    counts = report.get(field)
    return {"of": of, "counts": dict(counts)} if isinstance(counts, Mapping) else None


def outcome(attempt: Attempt, preferred: int) -> str:
    """Return the outcome of an attempt: ``agreed``, ``agreed, but malformed``, ``disagreed``, ``refused``, ..."""
    if attempt.answer is None:
        return attempt.problem
    if attempt.answer != preferred:
        return "disagreed"
    return f"agreed, but {attempt.problem}" if attempt.problem else "agreed"


def _share(counts: Counter[int]) -> float | None:
    return counts[1] / counts.total() if counts.total() else None
