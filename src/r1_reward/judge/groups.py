"""Score the responses to one question by comparing them with each other; every group's rewards are computed here.

    groups = [Group("Which digit?", images, ["A three.", "An eight.", "A three."])]
    for scored in score_groups(groups, model.compare_many):
        scored.rewards                              # one for each response, None if nothing could be read

All pairs are compared or, to save comparisons, those of a schedule (:mod:`r1_reward.judge.schedules`), which is drawn
from the content, not from the order of the responses.

Responses that look the same are judged once and share their reward. If all of them look the same, they are tied without
being judged: 0, for both kinds of reward. A single response has nothing to be compared with: None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

from r1_reward.engines.engine import EngineError
from r1_reward.engines.length import PromptTooLong
from r1_reward.judge.candidates import Asked, Candidates
from r1_reward.judge.comparisons import Comparison, bradley_terry, net_win_rates
from r1_reward.judge.prepare import Images, InvalidPair, PairToJudge
from r1_reward.judge.schedules import Pair, Schedule, renamed, schedule_for
from r1_reward.judge.settings import GroupSettings, ScheduleName
from r1_reward.judge.voting import Verdict
from r1_reward.records.content import Content
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment
from r1_reward.store.video import FRAMES

RewardKind = Literal["win_rate", "bradley_terry"]
CompareMany: TypeAlias = Callable[[Iterable[PairToJudge]], Iterator[Verdict | EngineError]]
"""Maps pairs to the verdict on each, in order, or its error."""


class Group(NamedTuple):
    """Responses to one question about the same pictures."""

    question: Content
    images: Images
    responses: Sequence[Content]
    criteria: str | None = None
    """The criteria to judge by, if any."""


class ScoredGroup(NamedTuple):
    """The rewards of a group, and the comparisons behind them."""

    rewards: list[float | None]
    """One for each response; None if no comparison with it could be read."""
    comparisons: tuple[Comparison, ...]
    """Between responses, by index; equal ones have the index of the first of them."""
    errors: list[EngineError]
    """The errors of comparisons that the engine did not answer; these have no probability."""
    votes: tuple[Judgment, ...] = ()
    """All votes of all comparisons."""

    @property
    def failures(self) -> list[EngineError]:
        """The errors other than :class:`PromptTooLong`, which a single long response can cause."""
        return [error for error in self.errors if not isinstance(error, PromptTooLong)]

    @property
    def unreadable(self) -> int:
        """How many comparisons have no verdict, including those with an error."""
        return sum(one.probability is None for one in self.comparisons)


def require_kind(kind: str) -> None:
    """Raise UserError if the kind of reward is unknown."""
    if kind not in get_args(RewardKind):
        raise UserError(f"kind: must be {' or '.join(get_args(RewardKind))}, not {kind!r}.")


def score_groups(
    groups: Iterable[Group | EngineError],
    compare: CompareMany,
    *,
    kind: RewardKind = "win_rate",
    schedule: ScheduleName = "round-robin",
    comparisons: int | None = None,
    seed: int = 0,
    video_frames: int = FRAMES,
) -> Iterator[ScoredGroup | EngineError]:
    """Yield the rewards of each group, in order; the comparisons of all groups share one stream, so batches are full.

    ``win_rate`` gives the mean of 2 P(win) - 1 over the other texts, in [-1, 1]; ``bradley_terry`` gives scores in
    logits with mean 0 over the different texts, unbounded. N different texts take N (N - 1) / 2 comparisons; another
    ``schedule`` takes fewer, ``adaptive`` at most ``comparisons`` (default 2 N). P is then the judge's for two texts
    that were compared, and otherwise the probability given by the Bradley-Terry scores of the group. ``seed`` and the
    content decide what a schedule draws.

    A group that cannot be shown yields an :class:`~r1_reward.judge.prepare.InvalidPair` in its place, and an error
    among the ``groups`` is passed through.

    Raises:
        UserError: the kind or the schedule is unknown, or ``comparisons`` is set for a schedule with a fixed number.
    """
    require_kind(kind)
    how = GroupSettings(schedule=schedule, comparisons=comparisons)
    return _scored(iter(groups), compare, kind, lambda group: _Playing(group, how, seed, video_frames))


def _scored(
    groups: Iterator[Group | EngineError],
    compare: CompareMany,
    kind: RewardKind,
    begin: Callable[[Group | EngineError], _Playing],
) -> Iterator[ScoredGroup | EngineError]:
    """Play groups side by side; the rounds of groups in progress go before the start of another."""
    waiting: deque[_Playing] = deque()
    due: deque[tuple[_Playing, Pair]] = deque()
    asked: deque[tuple[_Playing, Pair]] = deque()

    def pairs() -> Iterator[PairToJudge]:
        while True:
            while not due:
                group = next(groups, None)
                if group is None:
                    return
                waiting.append(begin(group))
                due.extend(waiting[-1].next_round())
            asked.append(due.popleft())
            playing, pair = asked[-1]
            yield playing.shown(pair)

    while True:  # once, and again for rounds that are left after the last group has started
        for verdict in compare(pairs()):
            playing, pair = asked.popleft()
            due.extend(playing.add(pair, verdict))
            while waiting and waiting[0].done:
                yield waiting.popleft().result(kind)
        if not due:
            break
    while waiting:  # groups without comparisons
        yield waiting.popleft().result(kind)


class _Playing:
    """A group in progress."""

    def __init__(self, group: Group | EngineError, how: GroupSettings, seed: int, video_frames: int) -> None:
        self.done = False
        self._error: EngineError | None = None
        self._played: list[Comparison] = []
        self._errors: list[EngineError] = []
        self._votes: list[Judgment] = []
        self._open = 0
        if isinstance(group, EngineError):
            self._error = group
            return
        try:
            asked = Asked.of(*group, video_frames=video_frames)
        except UserError as error:
            self._error = InvalidPair(str(error))
            self._error.__cause__ = error
            return
        self._question, self._images, self._candidates = asked
        self._schedule = _schedule(how, len(asked.candidates.different), *asked.drawn(seed))

    def next_round(self) -> list[tuple[_Playing, Pair]]:
        """Return the pairs of the next round, after the last one is judged; none if the group is done."""
        pairs = [] if self._error is not None else self._schedule(self._played)
        self._open, self.done = len(pairs), not pairs
        return [(self, pair) for pair in pairs]

    def shown(self, pair: Pair) -> PairToJudge:
        i, j = pair
        different = self._candidates.different
        return PairToJudge(self._question, self._images, different[i], different[j])

    def add(self, pair: Pair, verdict: Verdict | EngineError) -> list[tuple[_Playing, Pair]]:
        """Record the verdict on a pair; return the next round if this one is complete."""
        probability = None
        if isinstance(verdict, EngineError):
            self._errors.append(verdict)
        else:
            probability = verdict.probability
            self._votes += verdict.votes
        self._played.append(Comparison(*pair, probability))
        self._open -= 1
        return [] if self._open else self.next_round()

    def result(self, kind: RewardKind) -> ScoredGroup | EngineError:
        if self._error is not None:
            return self._error
        own = _rewards(self._candidates, self._played, kind)
        comparisons = self._candidates.among_all(self._played)
        rewards = [own[place] for place in self._candidates.places]
        return ScoredGroup(rewards, comparisons, self._errors, tuple(self._votes))


def _schedule(how: GroupSettings, n: int, seed: int, names: Sequence[int]) -> Schedule:
    """Return the schedule of n responses; ``seed`` and ``names`` are those of :meth:`.Asked.drawn`."""
    schedule = schedule_for(how.schedule, n, comparisons=how.comparisons, seed=seed)
    return schedule if how.schedule == "round-robin" else renamed(schedule, names)  # in round robin nothing is drawn


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
