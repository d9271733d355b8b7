"""The vote loop: pairs and a plan in, votes out, for benchmarks, `RewardModel`, file scoring, the page and annotation.

A vote depends on the content shown (question, pictures, the two responses in their order), the plan's seed and the
vote's number, and on nothing else: not on the position in a stream, nor on how a picture was passed. The same pair
gets the same votes every time, and the swapped pair gets them swapped::

    pairs = prepare_all(items)
    for votes in draw_votes(engine, pairs, Plan(votes=5, temperature=1.0)):
        ...                                                     # Judgments in the order they were drawn, or an error

With a stopping rule, votes are drawn in rounds just large enough to decide the pair; they are the first of the votes
that would be drawn without the rule. A watcher is called after every vote.

:func:`work_off` is the loop itself: it keeps an engine busy with the requests of many *tasks*, each of which may send
more requests after it gets the answers. Annotation has its own kind of task.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from r1_reward.engines.engine import Answered, Engine, EngineError, ReadsTextOnly, Session
from r1_reward.judge.prepare import InvalidPair, Prepared, prepare_all, where_pictures
from r1_reward.judge.voting import Stopping
from r1_reward.records.content import key_of
from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects import DEFAULT, find_dialect
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer, Completion, Judgment
from r1_reward.store.video import FRAMES

Orders = Literal["both", "one", "random", "stored", "preferred-first"]
ORDERS: dict[str, str] = {
    "both": "each pair is judged in a random order and again in the opposite order",
    "one": "each pair is judged in one random order",
    "random": "each vote draws its own order (official VL-RewardBench)",
    "stored": "the order of the benchmark's file (official Multimodal RewardBench)",
    "preferred-first": "the preferred response first in every row (released r1_reward scripts): a judge that always "
    "says 1 scores 100 %",
}

_TURNED: dict[Answer, Answer] = {1: 2, 2: 1}
_HELD = 2000  # finished or invalid pairs that may wait for one that is still being judged


class Slot(NamedTuple):
    """One vote to draw."""

    swapped: bool
    seed: int


class Plan(NamedTuple):
    """How votes are drawn."""

    votes: int = 1
    """Votes per pass: ``orders="both"`` has two passes, any other has one."""
    orders: Orders = "both"
    temperature: float = 0.0
    stopping: Stopping | None = None
    max_new_tokens: int = 1024
    seed: int = 0

    @property
    def passes(self) -> int:
        """The number of passes over a pair."""
        return 2 if self.orders == "both" else 1

    def slots(self, pair: Prepared) -> list[Slot]:
        """Return every vote that may be drawn on a pair, in sequence, alternating between passes.

        A random order is drawn from the content, not from the stored order or the label, so that over many pairs
        neither position is favored, and a swapped pair is shown in the same order.
        """
        slots = []
        for vote in range(self.votes):
            for turned in range(self.passes):
                swapped = self._swapped(pair, vote) != bool(turned)
                key = _digest(key_of(pair.question), pair.images.digest, *map(key_of, pair.in_order(swapped)))
                slots.append(Slot(swapped, content_number("vote", self.seed, key, vote)))
        return slots

    def _swapped(self, pair: Prepared, vote: int) -> bool:
        if self.orders == "stored":
            return False
        if self.orders == "preferred-first":
            return pair.preferred == 2
        smaller, larger = sorted(map(key_of, pair.responses))
        own = (vote,) if self.orders == "random" else ()
        shown = (key_of(pair.question), pair.images.digest, smaller, larger)
        smaller_first = content_number("order", self.seed, *shown, *own) % 2 == 0
        return smaller_first != (key_of(pair.responses[0]) == smaller)

    def by_pass(self, votes: Sequence[Judgment]) -> list[list[Judgment]]:
        """Return all votes of a pair, grouped by pass."""
        return [list(votes[turned :: self.passes]) for turned in range(self.passes)]


Watch: TypeAlias = Callable[[list[Judgment]], None]
"""Called with the votes so far after each vote."""


class Task(Protocol):
    """Something that sends one or more rounds of requests to an engine until it is done."""

    def requests(self) -> Sequence[Any]:
        """Return the next requests, none if the task is done; called at the start and after each answered round."""
        ...

    def take(self, answers: Sequence[Answered]) -> None:
        """Take the answers to all requests of the round, in their order."""
        ...


AnyTask = TypeVar("AnyTask", bound=Task)


def work_off(
    engine: Engine,
    tasks: Iterable[AnyTask],
    *,
    in_order: bool = True,
    admit: Callable[[], bool] | None = None,
) -> Generator[AnyTask, None, None]:
    """Yield each task when it is done, in order or as they finish; many are in progress at a time.

    Tasks are taken as far ahead as the engine has room for their requests. Closing the iterator cancels the requests in
    flight.

    ``admit`` is called before the requests of a round are submitted; False means "not now". If it returns False while
    nothing is in flight, the loop ends and the remaining tasks stay undone. With ``admit``, requests in flight are
    awaited even if an error ends the loop, since the caller counts what they cost.

    Raises:
        UserError: nothing can be answered at all.
    """
    with engine.open() as session:
        for done in _Loop(session, iter(tasks), in_order, admit).steps():
            yield from done


class _Round:
    """A task and the answers to its latest requests, as they come in."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.requests: Sequence[Any] = ()
        self.answers: list[Any] = []
        self.open = 0
        self.done = False


class _Loop:
    """The state of :func:`work_off`."""

    def __init__(
        self, session: Session, tasks: Iterator[Any], in_order: bool, admit: Callable[[], bool] | None = None
    ) -> None:
        self._session, self._tasks, self._in_order, self._admit = session, tasks, in_order, admit
        self._window: deque[_Round] = deque()
        self._due: deque[_Round] = deque()  # with requests to submit
        self._ready: deque[tuple[Any, Answered]] = deque()  # answers not yet given to their tasks
        self._more = True
        self._under_way = 0

    def steps(self) -> Iterator[list[Any]]:
        """Yield lists of finished tasks until there are no more."""
        try:
            while self._more or self._window:
                self._fill()
                if self._under_way:
                    self._take(self._session.collect())
                elif self._due:  # nothing more is admitted
                    yield self._finished()
                    return
                yield self._finished()
        except UserError:
            if self._admit is not None:
                self._drain()
            raise

    def _fill(self) -> None:
        while True:
            while self._due and (self._admit is None or self._admit()):
                self._submit(self._due.popleft())
            if self._due or not self._more or self._session.room() <= 0 or len(self._window) >= _HELD:
                return
            task = next(self._tasks, None)
            if task is None:
                self._more = False
                return
            self._window.append(_Round(task))
            self._look(self._window[-1])

    def _look(self, round_: _Round) -> None:
        """Get a task's next requests."""
        round_.requests = round_.task.requests()
        round_.done = not round_.requests
        if not round_.done:
            self._due.append(round_)

    def _submit(self, round_: _Round) -> None:
        requests, round_.requests = round_.requests, ()
        round_.answers, round_.open = [None] * len(requests), len(requests)
        self._under_way += len(requests)
        for place, request in enumerate(requests):
            self._session.submit((round_, place), request)

    def _take(self, answers: list[tuple[Any, Answered]]) -> None:
        self._ready.extend(answers)
        while self._ready:
            (round_, place), answer = self._ready.popleft()
            self._under_way -= 1
            round_.answers[place] = answer
            round_.open -= 1
            if not round_.open:
                round_.task.take(round_.answers)
                self._look(round_)

    def _drain(self) -> None:
        """Give tasks the answers still to come, whatever else fails."""
        while True:
            with suppress(UserError):
                answers = self._session.collect()
                self._take(answers)
                if not answers:
                    return

    def _finished(self) -> list[Any]:
        if not self._in_order:
            done = [round_.task for round_ in self._window if round_.done]
            self._window = deque(round_ for round_ in self._window if not round_.done)
            return done
        done = []
        while self._window and self._window[0].done:
            done.append(self._window.popleft().task)
        return done


def draw_votes(
    engine: Engine,
    pairs: Iterable[Prepared | EngineError],
    plan: Plan,
) -> Iterator[list[Judgment] | EngineError]:
    """Yield the votes on each pair, in order and in the sequence of ``plan.slots``, or its error."""
    for task in work_off(engine, (_Draw(engine, pair, plan) for pair in pairs)):
        yield task.result


def watch_votes(engine: Engine, pair: Prepared, plan: Plan) -> Iterator[list[Judgment]]:
    """Yield the votes so far on one pair after each vote; they are drawn one after another.

    Raises:
        EngineError: the engine could not answer.
    """
    seen: list[list[Judgment]] = []
    task = _Draw(engine, pair, plan, seen.append)
    with engine.open() as session:
        for _ in _Loop(session, iter([task]), in_order=True).steps():
            yield from seen
            seen.clear()
    if isinstance(task.result, EngineError):
        raise task.result


class _Draw:
    """One pair in progress: its votes, or the error that ended it, and the votes still to draw."""

    def __init__(self, engine: Engine, pair: Prepared | EngineError, plan: Plan, watch: Watch | None = None) -> None:
        self.result: list[Judgment] | EngineError = []
        self._engine, self._plan, self._watch = engine, plan, watch
        self._pair: Prepared | None = None
        self._slots: list[Slot] = []
        self._asked: list[list[Slot]] = []
        if isinstance(pair, EngineError):
            self.result = pair
        else:
            self._pair, self._slots = pair, plan.slots(pair)

    def requests(self) -> list[Any]:
        """Return the requests of the next round: one for each order shown."""
        count, pair = self._wanted(), self._pair
        if isinstance(self.result, EngineError) or pair is None or not count:
            self._pair = None  # its pictures are no longer needed
            return []
        start = len(self.result)
        slots = self._slots[start : start + count]
        orders = dict.fromkeys(slot.swapped for slot in slots)
        self._asked = [[slot for slot in slots if slot.swapped is swapped] for swapped in orders]
        return [
            self._engine.compare(
                pair.question,
                pair.images.pictures,
                *pair.shown(swapped),
                seeds=tuple(slot.seed for slot in group),
                temperature=self._plan.temperature,
                max_new_tokens=self._plan.max_new_tokens,
            )
            for swapped, group in zip(orders, self._asked, strict=True)
        ]

    def _wanted(self) -> int:
        """Return how many votes the next round draws, 0 if the pair is decided."""
        if isinstance(self.result, EngineError):
            return 0
        wanted = remaining = len(self._slots) - len(self.result)
        if self._plan.stopping is not None:
            for_1, for_2, ties = (sum(vote.answer == answer for vote in self.result) for answer in (1, 2, 0))
            wanted = votes_to_decide(for_1, for_2, remaining, self._plan.stopping, ties)
        return min(wanted, 1) if self._watch is not None else wanted

    def take(self, answers: Sequence[Answered]) -> None:
        """Add the votes of the round in sequence."""
        drawn: dict[Slot, Judgment] = {}
        dialect = self._engine.dialect
        for group, completions in zip(self._asked, answers, strict=True):
            if isinstance(completions, EngineError):
                self.result = self._in_words(completions)
                return
            for slot, completion in zip(group, completions, strict=True):
                drawn[slot] = read_judgment(completion, swapped=slot.swapped, dialect=dialect)
        assert isinstance(self.result, list)
        start = len(self.result)
        self.result += [drawn[slot] for slot in self._slots[start : start + len(drawn)]]
        if self._watch is not None:
            self._watch(list(self.result))

    def _in_words(self, error: EngineError) -> EngineError:
        """Return the error; if the judge reads text only, say which part of the pair has pictures."""
        if not isinstance(error, ReadsTextOnly) or self._pair is None:
            return error
        return InvalidPair(f"{error.who}, and {where_pictures(self._pair)}")


def votes_to_decide(for_1: int, for_2: int, remaining: int, stopping: Stopping, ties: int = 0) -> int:
    """Return the fewest of the remaining votes after which the rule may stop, 0 if it stops now."""
    for more in range(remaining):
        alike = ((for_1 + more, for_2, ties), (for_1, for_2 + more, ties), (for_1, for_2, ties + more))
        if any(stopping.decided(one, two, remaining - more, tied) for one, two, tied in alike):
            return more
    return remaining


def read_judgment(completion: Completion, *, swapped: bool, dialect: Dialect | None = None) -> Judgment:
    """Return one vote, with its answer and probability in the stored order.

    ``dialect`` is the judge's; None is the default one.
    """
    parsed = (dialect or find_dialect(DEFAULT)).parse(completion.text, cut=completion.cut)
    answer, probability = None if completion.refused else parsed.answer, completion.probability
    if swapped:
        answer = _TURNED[answer] if answer else answer
        probability = None if probability is None else round(1 - probability, 6)
    return Judgment(
        answer=answer,
        swapped=swapped,
        text=completion.text,
        well_formed=parsed.well_formed,
        tokens=completion.tokens,
        truncated=completion.truncated,
        probability=None if answer is None else probability,
    )


def judge_pairs(
    engine: Engine,
    rows: Sequence[Mapping[str, Any]],
    plan: Plan = Plan(),  # noqa: B008  a tuple
    *,
    video_frames: int = FRAMES,
    progress: Callable[[int], None] | None = None,
) -> list[list[Judgment]]:
    """Return all votes on every row of a pair file, in the sequence of ``plan.slots``.

    ``video_frames`` is the number of frames for a video; ``progress`` is called with 1 after each row.

    Raises:
        EngineError: a row could not be judged.
    """
    judged = []
    for votes in draw_votes(engine, prepare_all(rows, video_frames=video_frames), plan):
        if isinstance(votes, EngineError):
            raise votes
        judged.append(votes)
        if progress is not None:
            progress(1)
    return judged


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def content_number(*parts: str | int) -> int:
    """Return 62 pseudorandom bits that depend only on the parts; everything drawn from content uses it."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big") >> 2
