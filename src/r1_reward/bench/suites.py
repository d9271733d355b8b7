"""The benchmarks: where each is found, what its official size is, and its rows as :class:`BenchmarkRow`.

All rows are read once, without opening a picture, before any is judged: fields, media files, categories, and whether
the numbers of rows are the official ones. Known and suspected faults of the benchmarks are listed, never dropped::

    suite = load_suite("mm-rlhf-rewardbench", "mm_reward_bench.jsonl", image_root="images")
    suite.n, suite.size.label         # 170, "170 pairs of 46 ids"
    for row in suite.rows():          # streams: one row in memory at a time
        pictures = row_images(row)

A benchmark is one entry of ``SUITES``; its formats are in :mod:`r1_reward.bench.formats`, its category rules in
:mod:`r1_reward.bench.categories`, its faults in :mod:`r1_reward.bench.known_issues`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.bench.categories import (
    MM_RLHF_CATEGORIES,
    MULTIMODAL_CATEGORIES,
    VL_CATEGORIES,
    mm_rlhf_category,
    multimodal_category,
    vl_category,
    vl_paper_category,
)
from r1_reward.bench.formats import (
    Draft,
    Fields,
    check_media,
    parse_mm_rlhf,
    parse_multimodal,
    parse_pair,
    parse_vl,
    to_row,
)
from r1_reward.bench.known_issues import MULTIMODAL_RULES, PLAIN_RULES, VL_RULES, IssueFinder, IssueRules
from r1_reward.bench.readers import RawRow, Source, open_pairs, open_source, row_images
from r1_reward.bench.rows import BenchmarkRow
from r1_reward.records.checks import kind_of
from r1_reward.records.errors import UserError

__all__ = [
    "SUITES", "LoadedSuite", "RowProblem", "Suite", "SuiteFileError", "SuiteSize", "load_suite",
    "mm_rlhf_category", "multimodal_category", "row_images", "vl_category", "vl_paper_category",
]  # fmt: skip

_LISTED = 20


class SuiteSize(NamedTuple):
    """One official size of a benchmark; None is what nobody has published."""

    label: str
    rows: int
    categories: Mapping[str, int] | None = None
    ids: Mapping[str, int] | None = None
    """Distinct ids per category."""


@dataclass(frozen=True)
class Suite:
    """One benchmark."""

    name: str
    title: str
    parse: Callable[[Fields], Draft]
    issues: IssueRules
    marks: tuple[str, ...] = ()
    """Fields of which every row has at least one, in whatever format; a row with none is of something else."""
    hub_id: str | None = None
    hub_split: str = "test"
    sizes: tuple[SuiteSize, ...] = ()
    """Empty if any number of rows is right."""
    categories: tuple[str, ...] | None = None
    """Names of the official grouping; None if a file may have any."""
    acc_plus: bool = False
    """Whether ACC+ is defined: the share of ids with all their pairs right."""


_MULTIMODAL = {
    "open_generation/correctness_task": 623, "open_generation/preference_task": 654, "knowledge": 630,
    "reasoning/math": 514, "reasoning/coding": 582, "safety/bias": 508, "vqa": 1200,
}  # fmt: skip

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            name="vl-rewardbench",
            title="VL-RewardBench",
            parse=parse_vl,
            issues=VL_RULES,
            marks=("query", "response", "prompt", "chosen"),
            hub_id="MMInstruction/VL-RewardBench",
            sizes=(
                SuiteSize(
                    "release of 2024 (1,250 rows)", 1250, {"general": 183, "hallucination": 749, "reasoning": 318}
                ),
                SuiteSize("Hub since May 2025 (1,247 rows)", 1247),
            ),
            categories=VL_CATEGORIES,
        ),
        Suite(
            name="multimodal-rewardbench",
            title="Multimodal RewardBench",
            parse=parse_multimodal,
            issues=MULTIMODAL_RULES,
            marks=("Text", "Output1", "Output2", "Better"),
            hub_id="syhuggingface/multimodal_rewardbench",
            sizes=(
                SuiteSize("release (4,711 rows)", 4711, _MULTIMODAL),
                SuiteSize("paper, with Hateful Memes (5,211 rows)", 5211, {**_MULTIMODAL, "safety/toxicity": 500}),
            ),
            categories=MULTIMODAL_CATEGORIES,
        ),
        Suite(
            name="mm-rlhf-rewardbench",
            title="MM-RLHF-RewardBench",
            parse=parse_mm_rlhf,
            issues=PLAIN_RULES,
            marks=("prompt", "chosen", "rejected"),
            hub_id="yifanzhang114/MM-RLHF-RewardBench",
            hub_split="train",
            sizes=(
                SuiteSize(
                    "170 pairs of 46 ids",
                    170,
                    {"mcq": 42, "long": 37, "short": 34, "safety": 32, "video": 25},
                    ids={"mcq": 10, "long": 10, "short": 10, "safety": 6, "video": 10},
                ),
            ),
            categories=MM_RLHF_CATEGORIES,
            acc_plus=True,
        ),
        Suite(name="pairs", title="Pair file", parse=parse_pair, issues=PLAIN_RULES, hub_split="train"),
    )
}


class RowProblem(NamedTuple):
    """One thing wrong with a row; ``place`` is ``line 3`` or ``row 3``, from 1, or empty for the whole file.

    ``file`` is empty where the benchmark is a single file, which the message names once.
    """

    file: str
    place: str
    field: str
    reason: str

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.file, self.place, self.field) if part)
        return ": ".join(part for part in (place, self.reason) if part).encode("utf-8", "backslashreplace").decode()


class SuiteFileError(UserError):
    """Rows of a benchmark cannot be judged: everything wrong is in ``problems``, the first 20 in the message."""

    def __init__(self, title: str, source: Source, problems: list[RowProblem], rows: int) -> None:
        self.problems = problems
        count = len(problems)
        lines = [f"{source.name}: {count} problem{'s' * (count > 1)} in {rows} row{'s' * (rows != 1)} of {title}"]
        lines += [f"  {problem}" for problem in problems[:_LISTED]]
        lines += [f"  ... and {count - _LISTED} more"] if count > _LISTED else []
        if any(problem.reason.endswith("no such file") for problem in problems):
            lines.append(f"Image paths are taken to be relative to {source.folder}; --image-root names another folder.")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class LoadedSuite:
    """A benchmark whose rows have all been checked."""

    suite: Suite
    n: int
    size: SuiteSize | None
    """The official size the rows have; None if there is none or it was not demanded."""
    notes: list[str]
    """What a report should say about the rows."""
    issues: dict[int, str]
    """Why rows are known or suspected to be wrong, by position."""
    source: str
    """As given by the user, or the Hub id."""
    revision: str | None
    fingerprint: str
    """SHA-256 over the keys of all rows."""
    _source: Source = field(repr=False)

    def rows(self) -> Iterator[BenchmarkRow]:
        """Read the rows again from the first, one at a time; raises UserError if a file has changed meanwhile."""
        count = 0
        for index, raw in enumerate(self._source.rows()):
            row, problems = _read(self.suite, self._source, raw, index, check_files=False)
            if row is None:
                raise SuiteFileError(self.suite.title, self._source, problems, index + 1)
            count += 1
            yield replace(row, issue=self.issues.get(index))
        if count != self.n:
            raise UserError(f"{self.source}: had {self.n} rows when it was checked and has {count} now.")

    def describe(self) -> dict[str, Any]:
        """Return what a run was made on, for its ``run.json``."""
        return {
            "suite": self.suite.name,
            "source": self.source,
            "revision": self.revision,
            "n": self.n,
            "size": self.size and self.size.label,
            "fingerprint": self.fingerprint,
        }


def load_suite(
    name: str,
    source: str | Path | None = None,
    *,
    image_root: str | Path | None = None,
    split: str | None = None,
    revision: str | None = None,
    allow_partial: bool = False,
    check_media: bool = True,
) -> LoadedSuite:
    """Check all rows of a benchmark and return it; pictures are looked for (``check_media``) but not opened.

    ``source`` is a JSONL file, JSON array, parquet file, folder of parquet or Hub id; None is the benchmark's own
    place on the Hub. ``image_root`` is what paths in the rows are relative to (default: the folder of the file).
    ``split`` and ``revision`` are for the Hub, ``split`` also for folders. With ``allow_partial`` numbers of rows that
    are not the official ones become a note. Raises :class:`SuiteFileError` for rows that cannot be judged, UserError
    for anything else.
    """
    suite = find_suite(name)
    opened = _open(suite, source, image_root, split, revision)
    scan = _scan(suite, opened, check_media)
    size, complaint = match_size(suite, scan)
    if complaint and not allow_partial:
        raise UserError(f"{opened.name}: {complaint} To judge these rows nevertheless: --allow-partial.")
    notes = [f"Not the official rows: {complaint}"] if complaint else []
    notes += [f"Revision {opened.revision} of {opened.name}."] if opened.revision else []
    notes += [] if check_media else ["Nobody checked whether the images are there."]
    return LoadedSuite(
        suite=suite,
        n=scan.rows,
        size=size,
        notes=notes,
        issues=scan.issues,
        source=str(suite.hub_id if source is None else source),
        revision=opened.revision,
        fingerprint=scan.fingerprint,
        _source=opened,
    )


def find_suite(name: str) -> Suite:
    if name in SUITES:
        return SUITES[name]
    near = difflib.get_close_matches(name, SUITES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SUITES)}."
    raise UserError(f"{name!r} is no benchmark; {hint}")


def _open(
    suite: Suite, source: str | Path | None, image_root: str | Path | None, split: str | None, revision: str | None
) -> Source:
    if suite.hub_id is None:
        if source is None:
            raise UserError(f"{suite.name}: name the file of pairs to judge.")
        if image_root is not None or revision is not None:
            option = "an image root" if image_root is not None else "a revision"
            raise UserError(f"{suite.name}: {option} means nothing for pair files; image paths are relative to them.")
        return open_pairs(source, split or suite.hub_split)
    place = suite.hub_id if source is None else source
    return open_source(place, image_root=image_root, split=split or suite.hub_split, revision=revision)


class Scan(NamedTuple):
    """What the first look at all rows found."""

    rows: int
    categories: Counter[str]
    ids: Counter[str]
    """Distinct ids per category, counted where ACC+ is defined."""
    issues: dict[int, str]
    fingerprint: str


def _scan(suite: Suite, source: Source, check_files: bool) -> Scan:
    """Look at all rows once; raises SuiteFileError if there are none or any cannot be judged."""
    problems: list[RowProblem] = []
    finder, digest = IssueFinder(suite.issues), hashlib.sha256()
    categories: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    rows = 0
    for index, raw in enumerate(source.rows()):
        rows += 1
        row, found = _read(suite, source, raw, index, check_files=check_files)
        problems += found
        if row is None:
            continue
        finder.add(row)
        digest.update(f"{row.key}\n".encode())
        categories[row.category] += 1
        if suite.acc_plus:
            seen.add((row.category, row.id))
    if not rows:
        problems.append(RowProblem("", "", "", "holds no rows"))
    if problems:
        raise SuiteFileError(suite.title, source, problems, rows)
    ids = Counter(category for category, _ in seen)
    return Scan(rows, categories, ids, finder.finish(), digest.hexdigest())


def _read(
    suite: Suite, source: Source, raw: RawRow, index: int, *, check_files: bool
) -> tuple[BenchmarkRow | None, list[RowProblem]]:
    """Return a row, or None and everything that is wrong with it."""
    broken = raw.broken
    if broken is None and not isinstance(raw.data, dict):
        broken = f"is {kind_of(raw.data)}, not an object with fields"
    if broken is None and suite.marks and not any(name in raw.data for name in suite.marks):
        broken = f"is no row of {suite.title}: it has none of {', '.join(suite.marks)}, only {', '.join(raw.data)}"
    file = "" if raw.file == source.name else raw.file
    if broken is not None:
        return None, [RowProblem(file, raw.place, "", broken)]
    fields = Fields(raw.data)
    draft = suite.parse(fields)
    check_media(fields, draft, source.folder, check_files=check_files)
    if fields.problems:
        return None, [RowProblem(file, raw.place, *problem) for problem in fields.problems]
    return to_row(draft, index, source.folder), []


def match_size(suite: Suite, scan: Scan) -> tuple[SuiteSize | None, str | None]:
    """Return the official size the rows have, or what differs from the one nearest to them."""
    if not suite.sizes:
        return None, None
    nearest = min(suite.sizes, key=lambda size: abs(size.rows - scan.rows))
    differences = _differences("", nearest.categories, scan.categories)
    differences += _differences(" ids", nearest.ids, scan.ids)
    if scan.rows == nearest.rows and not differences:
        return nearest, None
    sizes = " or ".join(f"{size.rows:,}" for size in suite.sizes)
    complaint = f"{suite.title} has {sizes} rows, {scan.rows:,} were found"
    return None, f"{complaint} ({'; '.join(differences)})." if differences else f"{complaint}."


def _differences(unit: str, expected: Mapping[str, int] | None, found: Counter[str]) -> list[str]:
    """Name the categories whose official number differs from the number found; None is any number."""
    if expected is None:
        return []
    return [
        f"{name}{unit}: {expected.get(name, 0):,} expected, {found[name]:,} found"
        for name in sorted({*expected, *found})
        if expected.get(name, 0) != found[name]
    ]
