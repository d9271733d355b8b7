"""The two records of the benchmark harness: a pair to be judged, and what the judge's votes on it came to.

Loaders (:mod:`r1_reward.bench.suites`) make a :class:`BenchmarkRow` out of every format a benchmark is published in;
the runner judges rows; :mod:`r1_reward.bench.predictions` reads votes, ours or others', into an :class:`Outcome`, which
is all that the metrics see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from r1_reward.records.content import Content, read_parts, text_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Label


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One pair of a benchmark, in the order its file stores it."""

    index: int
    """0-based position in the benchmark's file; ids repeat, positions do not."""
    id: str
    question: Content
    response_1: Content
    response_2: Content
    preferred: Label
    """1, 2, or 0 for a tie."""
    category: str
    """Category of the official grouping."""
    content_hash: str
    """16 hex digits that depend on the question, the responses, the label and the media shown, on nothing else."""
    images: tuple[Mapping[str, Any], ...] = ()
    """Cells ``{"bytes": ..., "path": ...}`` as :func:`r1_reward.store.images.decode_images` reads them."""
    video: str | None = None
    """A file, or a folder of frames."""
    paper_category: str | None = None
    """Category under the R1-Reward paper's grouping, where that is another one (VL-RewardBench)."""
    issue: str | None = None
    """Why the row is known or suspected to be wrong; such rows are scored, and reported apart."""
    criteria: str | None = None
    """By what the responses are to be judged, where that is given."""
    members: tuple[int, ...] = ()
    """Which two of its group's responses these are, from 0, where a group has several pairs; rows of a group share
    their id."""

    @property
    def preference(self) -> tuple[Content, Content]:
        """The preferred response and the other one; of a tie as they are stored."""
        pair = (self.response_1, self.response_2)
        return (pair[1], pair[0]) if self.preferred == 2 else pair

    @property
    def longer(self) -> int | None:
        """1 if the preferred response has more characters than the other, -1 if fewer, 0 if as many.

        None for a tie, and where neither response has any text.
        """
        if not self.preferred or not any(
            isinstance(piece, str) for one in self.preference for piece in read_parts(one)
        ):
            return None
        return compare_lengths(*map(text_of, self.preference))

    @property
    def shown(self) -> dict[str, Any]:
        """What is shown, as a row of a pair file."""
        names = ("question", "images", "video", "response_1", "response_2", "criteria")
        return {name: getattr(self, name) for name in names}

    @property
    def key(self) -> str:
        """What resume and joins go by: position and content."""
        return f"{self.index}-{self.content_hash}"


class Vote(NamedTuple):
    """One vote as the metrics see it; None is what a file does not tell."""

    correct: bool | None
    """Whether the preferred response was named; None for an unreadable vote."""
    preferred_first: bool | None = None
    """Whether the preferred response was shown first."""
    tokens: int | None = None
    """Generated tokens."""
    characters: int | None = None
    """Length of the generated text."""
    truncated: bool | None = None
    """Whether the token limit cut the text."""


class Outcome(NamedTuple):
    """All votes on one row."""

    index: int  # type: ignore[assignment]
    id: str
    passes: tuple[tuple[Vote, ...], ...]
    """The votes of each pass over the benchmark: one pass, or two with every order turned round in the second."""
    category: str | None = None
    paper_category: str | None = None
    issue: str | None = None
    longer: int | None = None
    """1 if the preferred response has more characters than the other, -1 if fewer, 0 if as many; None if unknown."""
    preferred: Label | None = None
    """The label; None where the file does not tell."""
    members: tuple[int, ...] = ()
    """As in :class:`BenchmarkRow`."""

    @property
    def sides(self) -> tuple[int, int]:
        """The number of the better answer of its group, and that of the other; raises UserError if nobody tells."""
        if len(self.members) != 2 or not self.preferred:
            raise UserError(
                f"row {self.index} (id {self.id!r}): the file does not tell which two answers of their group it "
                "compares, which the score needs; --data (the benchmark's rows) does"
            )
        first, second = self.members
        return (first, second) if self.preferred == 1 else (second, first)


def won(votes: Sequence[Vote]) -> bool | None:
    """Return whether more votes of a pass are for the preferred response than against it; None if as many are."""
    lead = sum(1 if vote.correct else -1 for vote in votes if vote.correct is not None)
    return lead > 0 if lead else None


def compare_lengths(preferred: str, other: str) -> int:
    """Return 1 if the preferred response has more characters than the other, -1 if fewer, 0 if as many."""
    return (len(preferred) > len(other)) - (len(preferred) < len(other))
