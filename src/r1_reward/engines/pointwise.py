"""An engine that compares two responses with a judge that scores one at a time: the higher score wins.

    engine = PointwiseEngine(ServerEngine("llava-critic-7b", url, dialect=find_dialect("pointwise")))

A comparison is two requests to the underlying engine. Their answers become one completion, in the form that the dialect
reads: both judgments as its thought, then both scores. Equal scores are a tie. Greedy judgments are cached: a response
is not scored again in the other order or against other responses.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from r1_reward.engines.engine import Answered, EngineError, Generative, Request, Session
from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects.pointwise import scores_in_words
from r1_reward.records.prompt import neutralize
from r1_reward.records.schema import Completion

_KNOWN = 4096  # greedy judgments kept


class TwoRequests(NamedTuple):
    """The requests for a pair: each response separately, in the order shown."""

    first: Request
    second: Request


class PointwiseEngine(Generative):
    """An engine that compares two responses by scoring each of them."""

    def __init__(self, engine: Generative) -> None:
        """Take an engine with a pointwise dialect."""
        self.engine, self.dialect, self.special_tokens = engine, engine.dialect, engine.special_tokens
        self.processor = getattr(engine, "processor", None)
        self._known: OrderedDict[str, list[Completion]] = OrderedDict()

    @property
    def refused(self) -> Sequence[str]:
        """What the underlying engine's server refuses."""
        return self.engine.refused

    def compare(self, question: Any, images: Any, first: Any, second: Any, **options: Any) -> Any:
        """Return the requests for the scores of two responses; options as for any engine."""
        return TwoRequests(*(self.engine.ask_alone(question, images, one, **options) for one in (first, second)))

    @contextmanager
    def open(self) -> Iterator[Session]:
        """Start a session of the underlying engine."""
        with self.engine.open() as session:
            yield _PairSession(session, self.dialect, self._known)


def comparing(engine: Generative) -> Generative:
    """Return an engine that compares two responses, wrapping one whose dialect is pointwise."""
    return PointwiseEngine(engine) if engine.dialect.pointwise else engine


class _Pair:
    """A comparison in progress."""

    def __init__(self, ticket: Any) -> None:
        self.ticket = ticket
        self.answers: dict[int, Answered] = {}


class _PairSession:
    """A session that turns comparisons into requests about single responses."""

    def __init__(self, session: Session, dialect: Dialect, known: OrderedDict[str, list[Completion]]) -> None:
        self._session, self._dialect, self._known = session, dialect, known
        self.exclusive = getattr(session, "exclusive", False)
        self._waiting: dict[str, list[tuple[_Pair, int]]] = {}
        """The pairs and places that wait for a greedy request in flight, by its key."""
        self._ready: list[tuple[Any, Answered]] = []

    def room(self) -> int:
        """Return how many more comparisons are welcome."""
        return (self._session.room() + 1) // 2

    def submit(self, ticket: Any, request: TwoRequests) -> None:
        """Ask about both responses, except where the answer is cached or already requested."""
        pair = _Pair(ticket)
        for place, one in enumerate(request):
            key = _key(one)
            if key is not None and key in self._known:
                self._take(pair, place, self._known[key])
            elif key is not None and key in self._waiting:
                self._waiting[key].append((pair, place))
            else:
                if key is not None:
                    self._waiting[key] = []
                self._session.submit((pair, place, key), one)

    def collect(self) -> list[tuple[Any, Answered]]:
        """Wait until a comparison has both of its answers, and return all that do."""
        while not self._ready:
            answers = self._session.collect()
            if not answers:
                break
            for (pair, place, key), answer in answers:
                others = [] if key is None else self._waiting.pop(key)
                if key is not None and not isinstance(answer, EngineError):
                    self._known[key] = answer
                for one, at in [(pair, place), *others]:
                    self._take(one, at, answer)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        ready, self._ready = self._ready, []
        return ready

    def _take(self, pair: _Pair, place: int, answer: Answered) -> None:
        pair.answers[place] = answer
        if len(pair.answers) == 2:
            self._ready.append((pair.ticket, _joined(pair.answers[0], pair.answers[1], self._dialect)))


def _joined(first: Answered, second: Answered, dialect: Dialect) -> Answered:
    """Return one completion for each vote on two responses, or the error of either."""
    if isinstance(first, EngineError):
        return first
    if isinstance(second, EngineError):
        return second
    return [join(one, other, dialect) for one, other in zip(first, second, strict=True)]


def join(first: Completion, second: Completion, dialect: Dialect) -> Completion:
    """Join the judgments of two responses into one, with both scores in place of the verdict."""
    thoughts = "\n".join(f"[Response {n}]: {neutralize(one.text)}" for n, one in ((1, first), (2, second)))
    scores = [dialect.parse_score(one.text, cut=one.cut) for one in (first, second)]
    counted = (first.prompt_tokens, second.prompt_tokens)
    return Completion(
        text=f"<think>{thoughts}</think>\n{scores_in_words(*scores)}",
        tokens=first.tokens + second.tokens,
        truncated=first.truncated or second.truncated,
        prompt_tokens=None if None in counted else sum(filter(None, counted)),
        refused=first.refused or second.refused,
        finish=first.finish or second.finish,
    )


def _key(request: Request) -> str | None:
    """Return the cache key of a greedy request (messages, pixels and limit), or None for a sampled one."""
    if request.temperature > 0:
        return None
    asked = [request.messages, len(request.seeds), request.max_new_tokens]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for picture in request.images:
        digest.update(f"{picture.width}x{picture.height}:{picture.mode}".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()
