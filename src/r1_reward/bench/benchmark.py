"""What a benchmark is: the record that each file of :mod:`r1_reward.bench.benchmarks` fills, and its parts.

    BENCHMARK = Benchmark(
        name="mine",
        title="My benchmark",
        parse=parse_mine,                       # a raw row, asked field by field, to a Draft
        hub_id="you/your-benchmark",
        sizes=(Size("first release (2 rows)", 2, {"animals": 1, "people": 1}),),
        categories=("animals", "people"),
    )

Loading, judging, scoring and tables ask the record and know no benchmark by name.
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
"""The grouping that the benchmark's authors define; its sizes are those of the first of ``sizes``."""
NOT_STATED = "not stated"
"""What nothing establishes about a published row."""
NONE = "none"
"""Grouping of a published row without categories."""
WITH_TIES = "with ties"
"""Grouping of the rows of a benchmark whose official rows are those without a tie, and of its runs with some."""


class Size(NamedTuple):
    """One official size of a benchmark, in its unit; None is what nobody has published."""

    label: str
    rows: int | None
    categories: Mapping[str, int | None] | None = None
    """None for a category that has to be there in some number."""
    ids: Mapping[str, int] | None = None
    """Distinct ids per category."""
    repeats_note: str | None = None
    """What to say of a prediction file of this size in which ``{repeated}`` ids repeat, where none should."""
    apart: bool = False
    """Whether some of the categories, each whole, are official rows, too."""

    def of(self, names: Iterable[str]) -> Size:
        """Return the size that only these categories have, itself where they are not official apart."""
        found = {name: n for name, n in (self.categories or {}).items() if name in set(names)}
        if not self.apart or not found or found == self.categories:
            return self
        counts = [n for n in found.values() if n is not None]
        rows = sum(counts) if len(counts) == len(found) else None
        return self._replace(label=f"{', '.join(found)} of the {self.label}", rows=rows, categories=found)

    @property
    def counts(self) -> set[int]:
        """The numbers of rows of files of this size, of one category or of all."""
        apart = (self.categories or {}).values() if self.apart else ()
        return {n for n in (self.rows, *apart) if n is not None}


class Column(NamedTuple):
    """A column of a benchmark's published table: a category, or one of a run's metrics."""

    heading: str
    kind: Literal["category", "metric", "official"]
    key: str
    """The category's name; or ``overall``, ``macro`` or ``acc_plus``; or a number of the benchmark's own score."""


def official_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Return columns of numbers of the benchmark's own score under their own names."""
    return tuple(Column(name, "official", name) for name in names)


def category_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Return columns of categories under their own names."""
    return tuple(Column(name, "category", name) for name in names)


OVERALL = Column("overall", "metric", "overall")
MACRO = Column("macro", "metric", "macro")


class Protocol(NamedTuple):
    """How a benchmark's own evaluator judges."""

    orders: str
    rule: str
    """What it makes of an unreadable verdict: ``wrong``, ``drop``, ``coin``, or why there is none."""
    votes: int | None = 1
    """None where that is not stated."""
    frames: int | None = None
    """Frames of a video that it shows."""

    def __str__(self) -> str:
        frames = "" if self.frames is None else f"; frames of a video: {self.frames}"
        votes = NOT_STATED if self.votes is None else self.votes
        return f"orders: {self.orders}; votes: {votes}; unreadable verdicts: {self.rule}{frames}"


class Listed(NamedTuple):
    """What is known of one row that is on a list of wrong or doubtful rows."""

    reason: str
    rows: int | None = None
    """How many rows a file has in which this is so; None for any number."""


@dataclass(frozen=True)
class IssueRules:
    """How suspect rows of one benchmark are recognised."""

    group: Callable[[BenchmarkRow], Iterable[Content]] = lambda row: (row.id, row.question)
    """Rows with the same texts here are compared with each other."""
    right_or_wrong: bool = False
    """Whether a label says that a response is right, so that one preferred here and rejected there is a contradiction;
    where it only says that it is better than the other, nothing but the same two responses turned round is one."""
    repeats: bool = False
    """Whether rows are compared with all others to find repeats."""
    listed: Callable[[BenchmarkRow], Listed | None] = lambda _row: None
    """What is said of a row that is on the list."""


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table."""

    model: str
    values: Mapping[str, str]
    """Percentages by the heading of their column, as printed."""
    source: str
    """Where the row was printed."""
    grouping: str = OFFICIAL
    """A key of the benchmark's ``groupings``, :data:`NONE` or :data:`NOT_STATED`."""
    orders: str = NOT_STATED
    """In which order the judge saw the responses."""
    rule: str = NOT_STATED
    """What an unreadable verdict counted as."""
    votes: int | None = None
    note: str = ""


PAPER = "R1-Reward paper (arXiv 2505.02835)"
PREFERRED_FIRST = "preferred first"
R1_REWARD = {"orders": PREFERRED_FIRST, "rule": "wrong"}
"""How the released R1-Reward scripts judge."""
SCALAR = {"orders": "scalar model: no order", "rule": "scalar model: no text"}
"""What there is to say of a model that scores each response alone."""


def published_row(columns: Iterable[Column], model: str, values: str, source: str, **more: Any) -> PublishedRow:
    """Return a row with the values of all columns in order, as in ``"49.10 67.60 70.50 65.80 62.40"``."""
    headings = [column.heading for column in columns]
    return PublishedRow(model, dict(zip(headings, values.split(), strict=True)), source, **more)


class About(NamedTuple):
    """What is known of a judged row besides the votes on it."""

    category: str | None = None
    paper_category: str | None = None
    issue: str | None = None
    longer: int | None = None
    """1 if the preferred response has more characters than the other, -1 if fewer, 0 if as many; None if unknown."""


def about_row(row: Fields, id: str) -> About:  # noqa: ARG001
    """Return what fields ``chosen`` and ``rejected`` tell: which response is longer."""
    chosen, rejected = row.data.get("chosen"), row.data.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return About()
    return About(longer=compare_lengths(chosen, rejected))


class Judged(NamedTuple):
    """What a row of a foreign prediction file says."""

    id: str | None
    """None where the file names no ids: then its rows are known by their position alone."""
    votes: tuple[Vote, ...]
    details: Fields
    """The fields that describe the row."""
    place: str = ""
    """Where they stand in it, such as ``Meta.``; empty for the row itself."""
    by_text: tuple[Vote, ...] | None = None
    """The votes as the judge's text says, where ``votes`` are the file's own scores; None if it holds no such text."""
    index: int | None = None  # type: ignore[assignment]
    """The row's position in the benchmark, where the file tells it; None for its position in the file."""
    item: str | None = None
    """What the row is a vote on, in a file of votes (``draw``)."""
    about: About | None = None
    """What is known of the row, where the format tells it in a way of its own; None to ask the benchmark."""
    remarks: tuple[str, ...] = ()
    """What is counted over the file for the format's ``remarks``."""


@dataclass(frozen=True)
class PredictionFormat:
    """A format of prediction files that another project writes."""

    name: str
    fields: str
    """The fields that mark it, in words."""
    marked: Callable[[Mapping[str, Any]], bool]
    """Whether a row has these fields."""
    read: Callable[[Fields, Benchmark], Judged]
    """Reads a row; wrong values are noted in it."""
    orders: str
    """In which order the responses were shown."""
    writer: str = ""
    """Who writes it, if not the benchmark's own scripts."""
    tells_unreadable: bool = True
    """Whether the votes themselves tell unreadable verdicts from wrong ones; else the judge's texts may."""
    notes: tuple[str, ...] = ()
    """What to know of every file of the format."""
    blind_note: str = ""
    """What to know of a file whose unreadable verdicts cannot be told from wrong ones."""
    remarks: Callable[[Mapping[str, int]], Sequence[str]] = lambda _counts: ()
    """What to know of this file, by how often its rows said what (:attr:`Judged.remarks`)."""
    draw: Callable[[int, int], Sequence[int]] | None = None
    """In a file of a line a vote: the order in which the official script looks at (lines) for the first (K) votes of
    each item."""
    missing_rows_hint: str = ""
    """Why rows may be missing."""


Cluster: TypeAlias = "Sequence[Outcome]"
"""The outcomes of rows that belong together: the pairs of a group, or one row alone."""


@dataclass(frozen=True)
class OfficialForm:
    """The form in which a benchmark's own scripts keep predictions, where that is another than rows."""

    name: str
    write: Callable[[Iterable[Mapping[str, Any]]], Mapping[str, Any]]
    """Lines of predictions.jsonl to JSON values by file name."""
    marked: Callable[[Path], bool]
    """Whether a file or folder has this form."""
    read: Callable[[Path, Iterable[BenchmarkRow] | None], Iterable[Outcome]]
    """Reads it beside the benchmark's own rows, which have the labels; raises UserError."""
    orders: str
    """In which order the responses were shown."""
    notes: tuple[str, ...] = ()
    """What to know of every file of the form."""


@dataclass(frozen=True)
class OfficialScore:
    """A benchmark's own score, where that is not a share of right rows."""

    numbers: Callable[[Sequence[Any]], Mapping[str, float | None]]
    """Clusters, as ``read`` returns them, to numbers by name, the first of them the headline; fractions, None where one
    is not defined. Clusters may repeat (a bootstrap draws them), so nothing goes by their ids."""
    read: Callable[[Cluster], Any] = lambda cluster: cluster
    """What the numbers need of a cluster; it is asked once for each."""
    cluster: Callable[[Outcome], str] = lambda outcome: outcome.id
    """Which rows belong together."""
    about: str = ""
    """What the numbers are, in a sentence for reports."""
    shares: bool = False
    """Whether the numbers that are named after categories are shares of the units of these, and ``overall`` of all."""


Ties: TypeAlias = Literal["judge", "drop"]
"""What is done with rows whose label is a tie."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark."""

    name: str
    title: str
    parse: Callable[[Fields], Draft | Sequence[Draft]]
    """Reads a row in any format it is published in, as one pair or as several; wrong values are noted in the row."""
    marks: tuple[str, ...] = ()
    """Fields of which every row has at least one, in whatever format; a row with none is of something else."""
    own: Callable[[Mapping[str, Any]], bool] = lambda _: True
    """Whether a row that can be read bears a mark of this benchmark, where its fields are those of many another."""
    hub_id: str | None = None
    hub_split: str = "test"
    open: Callable[[str | Path, str | Path | None, str, str | None], RowSource] | None = None
    """Opens (source, image root, split, revision); None for files and datasets of one row a pair."""
    sizes: tuple[Size, ...] = ()
    """Empty if any number of rows is right; the first is the one that published rows are on."""
    categories: tuple[str, ...] | None = None
    """Names of the official grouping; None if a file may have any."""
    other_groupings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Rows under the heading of each category, by the name of another grouping that numbers were published under."""
    columns: tuple[Column, ...] = ()
    """The official score as published: categories and metrics in that order; empty for categories, then overall."""
    headline: tuple[str, ...] = ()
    """Headings of the columns that stand for it beside other benchmarks; empty for the last number of its own score, or
    the overall, or the last column."""
    protocol: Protocol | None = None
    issues: IssueRules = IssueRules()
    published: tuple[PublishedRow, ...] = ()
    max_missing: int = 0
    """How many rows of each category may be missing before a published row that has lost some is given up."""
    notes: tuple[str, ...] = ()
    """What a reader of the table must know."""
    unit: str = "rows"
    """What sizes count: ``rows`` to be judged, or what the rows of one id are (``groups``, ``prompts``)."""
    comparisons: Callable[[str], int] | None = None
    """How many comparisons a group of a category has, where a file has a row for each; None where a row is a group."""
    official: OfficialScore | None = None
    """Its own score; None where that is the share of right rows."""
    needs_media: bool = True
    """Whether a row without a picture or video is wrong."""
    max_images: int = 32
    """How many pictures a row may show unless somebody says otherwise; frames of a video do not count."""
    ties: Ties = "judge"
    """What its evaluator does with rows whose label is a tie."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Names that the reader knows its columns by, each with what it is, where nobody has published them."""
    form: OfficialForm | None = None
    """Its own form of predictions, where that is another than rows."""
    cluster: Callable[[str], str] = str
    """What of the id rows share that are not independent evidence; intervals draw these."""
    id_field: str = "id"
    """What the released R1-Reward scripts call the id; ``id`` is understood everywhere."""
    about: Callable[[Fields, str], About] = about_row
    """What a row of a foreign prediction file, and its id, tell of it; wrong values are noted in the row."""
    prediction_formats: tuple[PredictionFormat, ...] = ()
    """Formats of the benchmark's own scripts."""

    @property
    def acc_plus(self) -> bool:
        """Whether ACC+ is part of the score: the share of ids with all their pairs right."""
        return any(column.key == "acc_plus" for column in self.columns)

    def table_columns(self, found: Iterable[str] = ()) -> tuple[Column, ...]:
        """Return the columns of a table; ``found`` are the categories of a benchmark that fixes none."""
        names = sorted(found) if self.categories is None else self.categories
        return self.columns or (*category_columns(names), OVERALL)

    @property
    def headline_columns(self) -> tuple[Column, ...]:
        """Return the columns that stand for the benchmark beside others."""
        columns = self.table_columns()
        if self.headline:
            return tuple(one for name in self.headline for one in columns if one.heading == name)
        kind = "official" if self.official else "metric"
        wanted = [one for one in columns if one.kind == kind and (self.official or one.key == "overall")]
        return tuple((wanted or columns)[-1:])

    @property
    def groupings(self) -> dict[str, dict[str, int]]:
        """Rows under the heading of each category, by grouping; empty where no sizes are official."""
        sizes = (self.sizes[0].categories if self.sizes else None) or {}
        kinds = ("category", "official") if self.official is not None and self.official.shares else ("category",)
        columns = [one for one in self.table_columns() if one.kind in kinds and one.key in sizes]
        known = {one.heading: n for one in columns if (n := sizes[one.key]) is not None}
        if not columns or len(known) < len(columns):
            return {}
        return {OFFICIAL: known, **{name: dict(rows) for name, rows in self.other_groupings.items()}}

    @property
    def ids(self) -> int | None:
        """What ACC+ is a share of, where that is official."""
        ids = self.sizes[0].ids if self.sizes else None
        return None if ids is None else sum(ids.values())

    @property
    def grouped(self) -> bool:
        """Whether sizes count what several rows share."""
        return self.unit != "rows"

    def heading(self, metric: str) -> str:
        """Return the heading of a metric's column, the metric's own name if there is none."""
        return next((one.heading for one in self.columns if one.kind != "category" and one.key == metric), metric)
