"""The definition of a benchmark: the record that each file in :mod:`r1_reward.bench.benchmarks` fills in.

    BENCHMARK = Benchmark(
        name="mine",
        title="My benchmark",
        parse=parse_mine,                       # turns the fields of a raw row into a Draft
        hub_id="you/your-benchmark",
        sizes=(Size("first release (2 rows)", 2, {"animals": 1, "people": 1}),),
        categories=("animals", "people"),
    )

Loading, judging, scoring and tables use only this record and never check for a specific benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from r1_reward.bench.fields import Draft, Fields
from r1_reward.bench.rows import BenchmarkRow, Outcome, Vote, compare_lengths
from r1_reward.records.content import Content

if TYPE_CHECKING:
    from r1_reward.store.rows import RowSource

OFFICIAL = "official"
"""The grouping defined by the benchmark's authors; its sizes are those of the first entry in ``sizes``."""
NOT_STATED = "not stated"
"""A property of a published row that its source does not state."""
NONE = "none"
"""Grouping of a published row without categories."""
WITH_TIES = "with ties"
"""Grouping of rows and runs that include ties, on a benchmark whose official rows exclude them."""


class Size(NamedTuple):
    """One official size of a benchmark, in its unit; None if the number was not published."""

    label: str
    rows: int | None
    categories: Mapping[str, int | None] | None = None
    """Rows per category; None for a category that must be present in any number."""
    ids: Mapping[str, int] | None = None
    """Distinct ids per category."""
    repeats_note: str | None = None
    """Note for a prediction file of this size in which ``{repeated}`` ids repeat although none should."""
    apart: bool = False
    """Whether a subset of complete categories also counts as official rows."""

    def of(self, names: Iterable[str]) -> Size:
        """Return the size of only these categories, or this size if categories are not official on their own."""
        found = {name: n for name, n in (self.categories or {}).items() if name in set(names)}
        if not self.apart or not found or found == self.categories:
            return self
        counts = [n for n in found.values() if n is not None]
        rows = sum(counts) if len(counts) == len(found) else None
        return self._replace(label=f"{', '.join(found)} of the {self.label}", rows=rows, categories=found)

    @property
    def counts(self) -> set[int]:
        """The possible row counts of a file of this size: of one category or of all."""
        apart = (self.categories or {}).values() if self.apart else ()
        return {n for n in (self.rows, *apart) if n is not None}


class Column(NamedTuple):
    """A column of a benchmark's published table: a category or a metric of a run."""

    heading: str
    kind: Literal["category", "metric", "official"]
    key: str
    """Name of the category, of the metric (``overall``, ``macro`` or ``acc_plus``) or of an official number."""


def official_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Return columns of numbers of the benchmark's official score under their own names."""
    return tuple(Column(name, "official", name) for name in names)


def category_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Return columns of categories under their own names."""
    return tuple(Column(name, "category", name) for name in names)


OVERALL = Column("overall", "metric", "overall")
MACRO = Column("macro", "metric", "macro")


class Protocol(NamedTuple):
    """The protocol of a benchmark's official evaluator."""

    orders: str
    rule: str
    """How it counts an unreadable verdict: ``wrong``, ``drop``, ``coin``, or a description."""
    votes: int | None = 1
    """None if not stated."""
    frames: int | None = None
    """Number of frames it samples from a video."""

    def __str__(self) -> str:
        frames = "" if self.frames is None else f"; video frames: {self.frames}"
        votes = NOT_STATED if self.votes is None else self.votes
        return f"orders: {self.orders}; votes: {votes}; unreadable verdicts: {self.rule}{frames}"


class Listed(NamedTuple):
    """The reason why a row is on a list of wrong or doubtful rows."""

    reason: str
    rows: int | None = None
    """Row count of the file version that has this issue; None for any version."""


@dataclass(frozen=True)
class IssueRules:
    """How suspect rows of one benchmark are detected."""

    group: Callable[[BenchmarkRow], Iterable[Content]] = lambda row: (row.id, row.question)
    """Rows for which this returns the same contents are compared with each other."""
    right_or_wrong: bool = False
    """Whether labels mean that a response is right, so that a response preferred in one row and rejected in another is
    a contradiction. If labels only mean that one is better, only the same two responses with opposite labels are."""
    repeats: bool = False
    """Whether rows are compared with all others to find repeats."""
    listed: Callable[[BenchmarkRow], Listed | None] = lambda _row: None
    """Returns the entry of a row that is on the list, else None."""


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table."""

    model: str
    values: Mapping[str, str]
    """Percentages by column heading, as printed."""
    source: str
    """Where the row was published."""
    grouping: str = OFFICIAL
    """A key of the benchmark's ``groupings``, :data:`NONE` or :data:`NOT_STATED`."""
    orders: str = NOT_STATED
    """The order in which the judge saw the responses."""
    rule: str = NOT_STATED
    """How unreadable verdicts were counted."""
    votes: int | None = None
    note: str = ""


PAPER = "R1-Reward paper (arXiv 2505.02835)"
PREFERRED_FIRST = "preferred first"
R1_REWARD = {"orders": PREFERRED_FIRST, "rule": "wrong"}
"""The protocol of the released R1-Reward scripts."""
SCALAR = {"orders": "scalar model: no order", "rule": "scalar model: no text"}
"""The protocol of a model that scores each response separately."""


def published_row(columns: Iterable[Column], model: str, values: str, source: str, **more: Any) -> PublishedRow:
    """Return a row with the values of all columns in order, given as ``"49.10 67.60 70.50 65.80 62.40"``."""
    headings = [column.heading for column in columns]
    return PublishedRow(model, dict(zip(headings, values.split(), strict=True)), source, **more)


class About(NamedTuple):
    """Information about a judged row besides its votes."""

    category: str | None = None
    paper_category: str | None = None
    issue: str | None = None
    longer: int | None = None
    """1 if the preferred response has more characters than the other, -1 if fewer, 0 if equal; None if unknown."""


def about_row(row: Fields, id: str) -> About:  # noqa: ARG001
    """Return which response is longer, from the fields ``chosen`` and ``rejected``."""
    chosen, rejected = row.data.get("chosen"), row.data.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return About()
    return About(longer=compare_lengths(chosen, rejected))


class Judged(NamedTuple):
    """A parsed row of another project's prediction file."""

    id: str | None
    """None if the file has no ids: then its rows are identified by position alone."""
    votes: tuple[Vote, ...]
    details: Fields
    """The fields that describe the row."""
    place: str = ""
    """Prefix of these fields in the row, such as ``Meta.``; empty for the row itself."""
    by_text: tuple[Vote, ...] | None = None
    """The votes parsed from the judge's text, if ``votes`` are the file's own scores; None without such a text."""
    index: int | None = None  # type: ignore[assignment]
    """The row's position in the benchmark, if the file gives it; None for its position in the file."""
    item: str | None = None
    """The item that the row is a vote on, in a file with one vote per line (``draw``)."""
    about: About | None = None
    """Information about the row, if the format has its own way to give it; None to ask the benchmark."""
    remarks: tuple[str, ...] = ()
    """Keys that are counted over the file for the format's ``remarks``."""


@dataclass(frozen=True)
class PredictionFormat:
    """A format of prediction files written by another project."""

    name: str
    fields: str
    """The fields that identify it, in words."""
    marked: Callable[[Mapping[str, Any]], bool]
    """Returns whether a row has these fields."""
    read: Callable[[Fields, Benchmark], Judged]
    """Parses a row; invalid values are recorded in its ``problems``."""
    orders: str
    """The order in which the responses were shown."""
    writer: str = ""
    """The project that writes it, if not the benchmark's own scripts."""
    tells_unreadable: bool = True
    """Whether the votes distinguish unreadable verdicts from wrong ones; if not, the judge's texts may."""
    notes: tuple[str, ...] = ()
    """Notes for every file of the format."""
    blind_note: str = ""
    """Note for a file in which unreadable and wrong verdicts cannot be distinguished."""
    remarks: Callable[[Mapping[str, int]], Sequence[str]] = lambda _counts: ()
    """Returns notes for a file, given the counts of its rows' :attr:`Judged.remarks`."""
    draw: Callable[[int, int], Sequence[int]] | None = None
    """For files with one vote per line: given the number of lines and K, returns the order in which the official script
    reads the lines to take the first K votes of each item."""
    missing_rows_hint: str = ""
    """A reason why rows may be missing."""


Cluster: TypeAlias = "Sequence[Outcome]"
"""The outcomes of rows that belong together: the pairs of a group, or a single row."""


@dataclass(frozen=True)
class OfficialForm:
    """A benchmark's own prediction format, if its scripts do not store predictions as rows."""

    name: str
    write: Callable[[Iterable[Mapping[str, Any]]], Mapping[str, Any]]
    """Turns lines of predictions.jsonl into JSON values by file name."""
    marked: Callable[[Path], bool]
    """Returns whether a file or folder has this format."""
    read: Callable[[Path, Iterable[BenchmarkRow] | None], Iterable[Outcome]]
    """Reads predictions, with labels from the benchmark's own rows; raises UserError."""
    orders: str
    """The order in which the responses were shown."""
    notes: tuple[str, ...] = ()
    """Notes for every file of the format."""


@dataclass(frozen=True)
class OfficialScore:
    """A benchmark's official score, if it is not the share of correct rows."""

    numbers: Callable[[Sequence[Any]], Mapping[str, float | None]]
    """Maps clusters, as returned by ``read``, to named numbers, headline first; fractions, None if undefined. Clusters
    may repeat (the bootstrap resamples them), so it must not rely on unique ids."""
    read: Callable[[Cluster], Any] = lambda cluster: cluster
    """Extracts from a cluster what ``numbers`` needs; called once per cluster."""
    cluster: Callable[[Outcome | BenchmarkRow], str] = lambda one: f"{one.category} {one.id}"
    """Returns the key that rows of a cluster share."""
    about: str = ""
    """Explanation of the numbers for reports."""
    shares: bool = False
    """Whether numbers named after categories are shares of these categories' units, and ``overall`` of all units."""


Ties: TypeAlias = Literal["judge", "drop"]
"""How rows whose label is a tie are handled."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark."""

    name: str
    title: str
    parse: Callable[[Fields], Draft | Sequence[Draft]]
    """Parses a row in any published format into one or several pairs; invalid values are recorded in the row."""
    marks: tuple[str, ...] = ()
    """Every row has at least one of these fields, in any format; a row with none is not from this benchmark."""
    own: Callable[[Mapping[str, Any]], bool] = lambda _: True
    """Returns whether a readable row is recognizably from this benchmark, for benchmarks with common field names."""
    hub_id: str | None = None
    hub_split: str = "test"
    open: Callable[[str | Path, str | Path | None, str, str | None], RowSource] | None = None
    """Opens (source, image root, split, revision); None for files and datasets with one row per pair."""
    sizes: tuple[Size, ...] = ()
    """Official sizes; published rows use the first. Empty if any number of rows is valid."""
    categories: tuple[str, ...] | None = None
    """Names of the official grouping; None if a file may have any."""
    other_groupings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Other groupings that numbers were published under: by name, the rows under the heading of each category."""
    columns: tuple[Column, ...] = ()
    """The columns of the published table, in order; empty for all categories, then overall."""
    headline: tuple[str, ...] = ()
    """Headings of the columns shown in overviews of several benchmarks; empty for the last number of its official
    score, or else overall, or else the last column."""
    protocol: Protocol | None = None
    issues: IssueRules = IssueRules()
    published: tuple[PublishedRow, ...] = ()
    max_missing: int = 0
    """Maximum number of missing rows per category to consider when explaining a published row."""
    notes: tuple[str, ...] = ()
    """Notes for readers of the table."""
    unit: str = "rows"
    """What sizes count: ``rows`` to be judged, or what the rows of one id form (``groups``, ``prompts``)."""
    comparisons: Callable[[str], int] | None = None
    """Number of comparisons in a group of a category, if a file has a row for each; None if a row is a whole group."""
    official: OfficialScore | None = None
    """Its official score; None if that is the share of correct rows."""
    needs_media: bool = True
    """Whether every row must have an image or video."""
    max_images: int = 32
    """Default limit on the images of a row; frames of a video do not count."""
    ties: Ties = "judge"
    """How its evaluator handles rows whose label is a tie."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Our names for its columns with explanations, if the actual names were not published."""
    form: OfficialForm | None = None
    """Its own prediction format, if that does not consist of rows."""
    cluster: Callable[[str], str] = str
    """Maps an id to its cluster: rows of a cluster are not independent, and intervals resample clusters."""
    id_field: str = "id"
    """The name of the id in the released R1-Reward scripts; ``id`` is always accepted."""
    about: Callable[[Fields, str], About] = about_row
    """Extracts information from a row of another project's predictions and its id; invalid values are recorded."""
    prediction_formats: tuple[PredictionFormat, ...] = ()
    """Formats of the benchmark's own scripts and of evaluation harnesses."""

    @property
    def acc_plus(self) -> bool:
        """Whether the score includes ACC+, the share of ids with all their pairs correct."""
        return any(column.key == "acc_plus" for column in self.columns)

    def table_columns(self, found: Iterable[str] = ()) -> tuple[Column, ...]:
        """Return the columns of a table; ``found`` are the categories, for a benchmark without fixed ones."""
        names = sorted(found) if self.categories is None else self.categories
        return self.columns or (*category_columns(names), OVERALL)

    @property
    def headline_columns(self) -> tuple[Column, ...]:
        """Return the columns that represent the benchmark in overviews."""
        columns = self.table_columns()
        if self.headline:
            return tuple(one for name in self.headline for one in columns if one.heading == name)
        kind = "official" if self.official else "metric"
        wanted = [one for one in columns if one.kind == kind and (self.official or one.key == "overall")]
        return tuple((wanted or columns)[-1:])

    @property
    def groupings(self) -> dict[str, dict[str, int]]:
        """Rows under the heading of each category, by grouping; empty without official sizes."""
        sizes = (self.sizes[0].categories if self.sizes else None) or {}
        kinds = ("category", "official") if self.official is not None and self.official.shares else ("category",)
        columns = [one for one in self.table_columns() if one.kind in kinds and one.key in sizes]
        known = {one.heading: n for one in columns if (n := sizes[one.key]) is not None}
        if not columns or len(known) < len(columns):
            return {}
        return {OFFICIAL: known, **{name: dict(rows) for name, rows in self.other_groupings.items()}}

    @property
    def ids(self) -> int | None:
        """The official number of ids, the denominator of ACC+; None if there is none."""
        ids = self.sizes[0].ids if self.sizes else None
        return None if ids is None else sum(ids.values())

    @property
    def grouped(self) -> bool:
        """Whether sizes count groups of rows instead of rows."""
        return self.unit != "rows"

    def heading(self, metric: str) -> str:
        """Return the heading of a metric's column, or the metric's name if it has no column."""
        return next((one.heading for one in self.columns if one.kind != "category" and one.key == metric), metric)
