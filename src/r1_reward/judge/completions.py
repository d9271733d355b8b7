"""The texts a judge writes about pairs in the given order, for protocols that need the judgment itself.

    asks = [Ask(PairToJudge("Which digit?", images, "A three.", "An eight."), seeds=(0, 1))]
    for texts in draw_completions(model.engine, asks, temperature=1.0):
        ...                                                       # two completions, or the error

For a verdict over both orders, with every vote, see :mod:`r1_reward.judge.votes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from r1_reward.engines.engine import Answered, Engine, EngineError, ReadsTextOnly
from r1_reward.judge.prepare import InvalidPair, PairToJudge, Prepared, prepare_all, where_pictures
from r1_reward.judge.votes import work_off
from r1_reward.store.video import FRAMES


class Ask(NamedTuple):
    """A pair to show in its own order, and a seed for each text."""

    pair: PairToJudge
    seeds: tuple[int, ...]


class _Task:
    """One request to the engine."""

    def __init__(self, pair: Prepared | EngineError, requests: Sequence[Any]) -> None:
        self._pair, self._requests = pair, requests
        self.answer: Answered = pair if isinstance(pair, EngineError) else []

    def requests(self) -> Sequence[Any]:
        """Return the request once."""
        asked, self._requests = self._requests, []
        return asked

    def take(self, answers: Sequence[Answered]) -> None:
        """Keep the answer; if the judge reads text only, say which part of the pair has pictures."""
        (self.answer,) = answers
        if isinstance(self.answer, ReadsTextOnly) and isinstance(self._pair, Prepared):
            self.answer = InvalidPair(f"{self.answer.who}, and {where_pictures(self._pair)}")


def draw_completions(
    engine: Engine,
    asks: Iterable[Ask],
    *,
    temperature: float = 0.0,
    max_new_tokens: int = 1024,
    video_frames: int = FRAMES,
) -> Iterator[Answered]:
    """Yield the completions of each pair, one for each seed, in order, or the error instead.

    Raises:
        UserError: nothing can be judged at all.
    """

    def tasks() -> Iterator[_Task]:
        for ask in asks:
            (pair,) = prepare_all([ask.pair], video_frames=video_frames)
            if isinstance(pair, EngineError):
                yield _Task(pair, [])
                continue
            shown = (pair.question, pair.images.pictures, *pair.shown(False))
            request = engine.compare(*shown, seeds=ask.seeds, temperature=temperature, max_new_tokens=max_new_tokens)
            yield _Task(pair, [request])

    for task in work_off(engine, tasks()):
        yield task.answer
