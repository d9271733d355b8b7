"""Score the responses to one question by comparing every two of them: the one place where a group gets its rewards.

    groups = [Group("Which digit?", images, ["A three.", "An eight.", "A three."])]
    for scored in score_groups(groups, model.compare_many):
        scored.rewards                              # one for each response, None where nothing could be read

Responses that look the same are judged once and share their reward. Beside such alone a response is tied, whatever a
judge would say: 0, for both kinds of reward. A response that is alone has nothing to be compared with: None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

from r1_reward.engines.engine import EngineError
from r1_reward.judge.candidates import Candidates, net_win_rates
from r1_reward.judge.prepare import Images, InvalidPair, PairToJudge, check_group
from r1_reward.judge.ranking import Comparison, bradley_terry
from r1_reward.judge.voting import Verdict
from r1_reward.records.content import Content
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment
from r1_reward.store.video import FRAMES

RewardKind = Literal["win_rate", "bradley_terry"]
CompareMany: TypeAlias = Callable[[Iterable[PairToJudge]], Iterator[Verdict | EngineError]]
"""Pairs to the verdict on each, in order, or what kept it from being judged."""


class Group(NamedTuple):
    """Responses to one question about the same pictures."""

    question: Content
    images: Images
    responses: Sequence[Content]


class ScoredGroup(NamedTuple):
    """What the comparisons of a group come to."""

    rewards: list[float | None]
    """For each response; None where no comparison with it could be read."""
    comparisons: tuple[Comparison, ...]
    """Of the responses, by their indices; equal texts go by the first of them."""
    errors: list[EngineError]
    """Comparisons that the engine did not answer; they have no probability."""
    votes: tuple[Judgment, ...] = ()
    """All votes of all comparisons."""

    @property
    def unreadable(self) -> int:
        """How many comparisons have no verdict, those with an error included."""
        return sum(one.probability is None for one in self.comparisons)


def require_kind(kind: str) -> None:
    """Raise UserError if there is no such kind of reward."""
    if kind not in get_args(RewardKind):
        raise UserError(f"kind: must be {' or '.join(get_args(RewardKind))}, not {kind!r}.")


def score_groups(
    groups: Iterable[Group | EngineError],
    compare: CompareMany,
    *,
    kind: RewardKind = "win_rate",
    video_frames: int = FRAMES,
) -> Iterator[ScoredGroup | EngineError]:
    """Yield the rewards of each group, in order; the comparisons of all groups are one stream, so batches are full.

    ``win_rate`` gives the mean of 2 P(win) - 1 over the other texts, in [-1, 1]; ``bradley_terry`` gives scores in
    logits with mean 0 over the different texts, unbounded. N different texts take N (N - 1) / 2 comparisons.

    A group that cannot be shown yields an :class:`~r1_reward.judge.prepare.InvalidPair` in its place, and an error
    among the ``groups`` is handed on.

    Raises:
        UserError: the kind is unknown.
    """
    require_kind(kind)
    waiting: deque[_Playing] = deque()

    def pairs() -> Iterator[PairToJudge]:
        for group in groups:
            waiting.append(_Playing(group, video_frames))
            yield from waiting[-1].pairs()

    for verdict in compare(pairs()):
        while waiting[0].done:  # groups that ask nothing
            yield waiting.popleft().result(kind)
        waiting[0].add(verdict)
        if waiting[0].done:
            yield waiting.popleft().result(kind)
    while waiting:
        yield waiting.popleft().result(kind)


class _Playing:
    """A group on its way."""

    def __init__(self, group: Group | EngineError, video_frames: int) -> None:
        self._error: EngineError | None = None
        self._played: list[Comparison] = []
        self._errors: list[EngineError] = []
        self._votes: list[Judgment] = []
        self._wanted: list[tuple[int, int]] = []
        if isinstance(group, EngineError):
            self._error = group
            return
        try:
            self._candidates = Candidates.of(group.responses, video_frames=video_frames)
            self._question, self._images = check_group(group.question, group.images, video_frames=video_frames)
        except UserError as error:
            self._error = InvalidPair(str(error))
            self._error.__cause__ = error
            return
        n = len(self._candidates.different)
        self._wanted = [(i, j) for i in range(n) for j in range(i + 1, n)]

    @property
    def done(self) -> bool:
        return len(self._played) == len(self._wanted)

    def pairs(self) -> Iterator[PairToJudge]:
        for i, j in self._wanted:
            different = self._candidates.different
            yield PairToJudge(self._question, self._images, different[i], different[j])

    def add(self, verdict: Verdict | EngineError) -> None:
        probability = None
        if isinstance(verdict, EngineError):
            self._errors.append(verdict)
        else:
            probability = verdict.probability
            self._votes += verdict.votes
        self._played.append(Comparison(*self._wanted[len(self._played)], probability))

    def result(self, kind: RewardKind) -> ScoredGroup | EngineError:
        if self._error is not None:
            return self._error
        own = _rewards(self._candidates, self._played, kind)
        comparisons = self._candidates.among_all(self._played)
        rewards = [own[place] for place in self._candidates.places]
        return ScoredGroup(rewards, comparisons, self._errors, tuple(self._votes))


def _rewards(candidates: Candidates, played: list[Comparison], kind: RewardKind) -> list[float | None]:
    """Return one reward for each different text."""
    n = len(candidates.different)
    if n == 1:
        return [0.0 if len(candidates.places) > 1 else None]
    rates = net_win_rates(n, played)
    if kind == "win_rate":
        return rates
    scores, _ = bradley_terry(n, played)
    return [None if rate is None else score for rate, score in zip(rates, scores, strict=True)]
