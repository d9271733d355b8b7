"""The two records of the benchmark harness: a pair to judge, and the judge's votes on it.

Loaders (:mod:`r1_reward.bench.suites`) convert every published format of a benchmark to :class:`BenchmarkRow`; the
runner judges rows; :mod:`r1_reward.bench.predictions` reads votes, ours or other projects', into :class:`Outcome`, the
only input of the metrics.
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
    """One pair of a benchmark, in its stored order."""

    index: int
    """0-based position in the benchmark's file; unlike ids, positions are unique."""
    id: str
    question: Content
    response_1: Content
    response_2: Content
    preferred: Label
    """1, 2, or 0 for a tie."""
    category: str
    """Category in the official grouping."""
    content_hash: str
    """16 hex digits that depend only on the question, the responses, the label and the media shown."""
    images: tuple[Mapping[str, Any], ...] = ()
    """Cells ``{"bytes": ..., "path": ...}`` for :func:`r1_reward.store.images.decode_images`."""
    video: str | None = None
    """A video file or a folder of frames."""
    paper_category: str | None = None
    """Category in the R1-Reward paper's grouping, if that is different (VL-RewardBench)."""
    issue: str | None = None
    """Why the row is known or suspected to be wrong; such rows are scored and also reported separately."""
    criteria: str | None = None
    """Criteria for judging the responses, if given."""
    members: tuple[int, ...] = ()
    """0-based numbers of the two responses within their group, if a group has several pairs; rows of a group share
    their id."""

    @property
    def preference(self) -> tuple[Content, Content]:
        """The preferred response and the other one; the stored order for a tie."""
        pair = (self.response_1, self.response_2)
        return (pair[1], pair[0]) if self.preferred == 2 else pair

    @property
    def longer(self) -> int | None:
        """1 if the preferred response has more characters than the other, -1 if fewer, 0 if equal.

        None for a tie, and if neither response has any text.
        """
        if not self.preferred or not any(
            isinstance(piece, str) for one in self.preference for piece in read_parts(one)
        ):
            return None
        return compare_lengths(*map(text_of, self.preference))

    @property
    def shown(self) -> dict[str, Any]:
        """The content shown to the judge, as a row of a pair file."""
        names = ("question", "images", "video", "response_1", "response_2", "criteria")
        return {name: getattr(self, name) for name in names}

    @property
    def key(self) -> str:
        """Position and content hash, the key for resuming and joining."""
        return f"{self.index}-{self.content_hash}"


class Vote(NamedTuple):
    """One vote as the metrics see it; None means unknown, except for ``correct``."""

    correct: bool | None
    """Whether the preferred response was chosen; None for an unreadable vote."""
    preferred_first: bool | None = None
    """Whether the preferred response was shown first."""
    tokens: int | None = None
    """Number of generated tokens."""
    characters: int | None = None
    """Length of the generated text."""
    truncated: bool | None = None
    """Whether the text was cut by the token limit."""
    third: bool = False
    """Whether a wrong vote is for the third verdict rather than the other response: for a tie, or, if the label is a
    tie, for response 2 (the other wrong votes are then for response 1)."""


class Outcome(NamedTuple):
    """All votes on one row."""

    index: int  # type: ignore[assignment]
    id: str
    passes: tuple[tuple[Vote, ...], ...]
    """The votes of each pass over the benchmark: one pass, or two with opposite orders."""
    category: str | None = None
    paper_category: str | None = None
    issue: str | None = None
    longer: int | None = None
    """1 if the preferred response has more characters than the other, -1 if fewer, 0 if equal; None if unknown."""
    preferred: Label | None = None
    """The label; None if unknown."""
    members: tuple[int, ...] = ()
    """See :class:`BenchmarkRow`."""

    @property
    def sides(self) -> tuple[int, int]:
        """The numbers of the better answer and of the other one within their group; raises UserError if unknown."""
        if len(self.members) != 2 or not self.preferred:
            raise UserError(
                f"row {self.index} (id {self.id!r}): the file does not say which two answers of the group it "
                "compares, but the score needs this; pass the benchmark's rows with --data"
            )
        first, second = self.members
        return (first, second) if self.preferred == 1 else (second, first)


def count_votes(votes: Sequence[Vote]) -> tuple[int, int, int]:
    """Return the number of votes for the label, for the other response, and for the third verdict (see `Vote`)."""
    third = sum(vote.third for vote in votes)
    return sum(vote.correct is True for vote in votes), sum(vote.correct is False for vote in votes) - third, third


def won(votes: Sequence[Vote], preferred: Label | None) -> bool | None:
    """Return whether the majority of a pass has the label as its verdict; None if no vote is readable.

    None also if the votes split evenly between two responses. The rule is that of
    :func:`r1_reward.judge.voting.majority`.
    """
    right, wrong, third = count_votes(votes)
    if right + wrong + third == 0:
        return None
    if preferred == 0 or third > max(right, wrong):
        return right > max(wrong, third)
    return None if right == wrong else right > wrong


def compare_lengths(preferred: str, other: str) -> int:
    """Return 1 if the preferred response has more characters than the other, -1 if fewer, 0 if equal."""
    return (len(preferred) > len(other)) - (len(preferred) < len(other))
