"""Judge preference pairs with an engine: which orders are shown, with which seeds, how a vote is read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from PIL import Image

from r1_reward.engines.in_process import Engine, EngineError, Request
from r1_reward.engines.scalar import AnswerScorer, Score
from r1_reward.records.parsing import parse_judgment
from r1_reward.records.prompt import build_messages
from r1_reward.records.schema import Answer, Completion, Judgment
from r1_reward.store.video import FRAMES, row_pictures

if TYPE_CHECKING:
    from r1_reward.models.scalar import Candidate

Orders = Literal["both", "random", "stored", "preferred-first"]
ORDERS: dict[str, str] = {
    "both": "each pair is judged in a random order and again with the order turned round",
    "random": "each vote draws its own order (official VL-RewardBench)",
    "stored": "the order of the benchmark's file (official Multimodal RewardBench)",
    "preferred-first": "the preferred response first in every row (released r1_reward scripts): a judge that always "
    "says 1 scores 100 %",
}

_PAIRS_AT_ONCE = 128  # scored together: full batches, and what is held in memory stays bounded


class Pair(NamedTuple):
    """What a judge is shown of one pair, and what decides orders and seeds."""

    index: int  # type: ignore[assignment]
    question: str
    images: list[Image.Image]
    response_1: str
    response_2: str
    preferred: Answer


Attack = Callable[[Pair, bool], tuple[str, str]]
"""A pair, and whether response 2 is shown first, to the two responses in the order shown, one of them edited."""


def judge(
    engine: Engine | AnswerScorer,
    pairs: Iterable[Pair],
    *,
    orders: Orders = "both",
    votes: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 1024,
    seed: int = 0,
    attack: Attack | None = None,
) -> Iterator[list[list[Judgment]] | EngineError]:
    """Yield, for each pair in order, its passes of ``votes`` judgments each, or the error that left it unjudged.

    There are two passes with ``both`` and one otherwise. Orders and random numbers depend on the seed, the index, the
    pass and the vote, on nothing else, so they are the same under an ``attack``. Answers refer to the pair's stored
    order. An engine that scores answers alone gives each answer one reward, whatever the order, vote and temperature.
    """
    if isinstance(engine, AnswerScorer):
        yield from _judge_by_rewards(engine, pairs, orders, votes, max_new_tokens, seed, attack)
        return
    waiting: list[list[tuple[bool, list[tuple[int, int]]]]] = []

    def requests() -> Iterator[Request]:
        for pair in pairs:
            groups = _groups(pair, orders, votes, seed)
            waiting.append(groups)
            for swapped, slots in groups:
                seeds = tuple(_number("vote", seed, pair.index, *slot) for slot in slots)
                responses = in_order(pair, swapped) if attack is None else attack(pair, swapped)
                yield _request(pair, responses, engine.special_tokens)._replace(seeds=seeds)

    answered = engine.generate(requests(), temperature=temperature, max_new_tokens=max_new_tokens)
    passes = 2 if orders == "both" else 1
    for first in answered:
        groups = waiting.pop(0)
        drawn = [first, *(next(answered) for _ in groups[1:])]
        failed = next((one for one in drawn if isinstance(one, EngineError)), None)
        if failed is not None:
            yield failed
            continue
        judgments: list[list[Judgment | None]] = [[None] * votes for _ in range(passes)]
        for (swapped, slots), completions in zip(groups, drawn, strict=True):
            for (number, vote), completion in zip(slots, completions, strict=True):  # type: ignore[arg-type]
                judgments[number][vote] = read_judgment(completion, swapped=swapped)
        yield judgments  # type: ignore[misc]


def _judge_by_rewards(
    scorer: AnswerScorer,
    pairs: Iterable[Pair],
    orders: Orders,
    votes: int,
    max_new_tokens: int,
    seed: int,
    attack: Attack | None,
) -> Iterator[list[list[Judgment]]]:
    """Yield the passes of each pair, every different answer scored once: an attack may depend on the order shown."""
    pairs = iter(pairs)
    while block := list(islice(pairs, _PAIRS_AT_ONCE)):
        planned = []
        candidates: dict[tuple[int, str], Candidate] = {}
        for place, pair in enumerate(block):
            shown = []
            for swapped, slots in _groups(pair, orders, votes, seed):
                responses = in_order(pair, swapped) if attack is None else attack(pair, swapped)
                shown.append((swapped, slots, responses))
                for response in responses:
                    candidates[place, response] = (pair.question, pair.images, response)
            planned.append(shown)
        scored = scorer.score(list(candidates.values()), max_new_tokens=max_new_tokens)
        scores = dict(zip(candidates, scored, strict=True))
        for place, shown in enumerate(planned):
            judgments: dict[tuple[int, int], Judgment] = {}
            for swapped, slots, (first, second) in shown:
                judgment = compare_scores(scores[place, first], scores[place, second], swapped=swapped)
                judgments.update(dict.fromkeys(slots, judgment))
            ordered = [judgments[slot] for slot in sorted(judgments)]
            yield [ordered[start : start + votes] for start in range(0, len(ordered), votes)]


def compare_scores(first: Score, second: Score, *, swapped: bool) -> Judgment:
    """Return one vote for the larger reward, in the stored order; no answer where they are equal or no numbers."""
    one, two = (second, first) if swapped else (first, second)
    gap = one.reward - two.reward
    answer: Answer | None = None if not math.isfinite(gap) or gap == 0 else 1 if gap > 0 else 2
    critiques = [f"\n[Response {n}]: {score.critique}" for n, score in ((1, one), (2, two)) if score.critique]
    return Judgment(
        answer=answer,
        swapped=swapped,
        text=f"reward {one.reward:.6g} against {two.reward:.6g}{''.join(critiques)}",
        well_formed=answer is not None,
        tokens=one.tokens + two.tokens,
        truncated=one.truncated or two.truncated,
        # The sigmoid, written so that no gap overflows.
        probability=None if answer is None else round(0.5 + 0.5 * math.tanh(gap / 2), 6),
    )


def _groups(pair: Pair, orders: Orders, votes: int, seed: int) -> list[tuple[bool, list[tuple[int, int]]]]:
    """Return the (pass, vote) slots of each order shown; one request answers all slots of an order."""
    groups: dict[bool, list[tuple[int, int]]] = {}
    for number in range(2 if orders == "both" else 1):
        for vote in range(votes):
            # Drawn for the preferred response, not for the stored order, which differs between copies of a benchmark.
            if orders == "both":
                preferred_first = (_number("order", seed, pair.index) + number) % 2 == 0
            elif orders == "random":
                preferred_first = _number("order", seed, pair.index, vote) % 2 == 0
            else:
                preferred_first = orders == "preferred-first" or pair.preferred == 1
            groups.setdefault(preferred_first != (pair.preferred == 1), []).append((number, vote))
    return list(groups.items())


def _number(*parts: Any) -> int:
    """Return 62 random-looking bits that depend on the parts alone."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def in_order(pair: Pair, swapped: bool) -> tuple[str, str]:
    """Return the responses in the order they are shown."""
    return (pair.response_2, pair.response_1) if swapped else (pair.response_1, pair.response_2)


def _request(pair: Pair, responses: tuple[str, str], special_tokens: tuple[str, ...]) -> Request:
    messages = build_messages(pair.question, *responses, images=len(pair.images), special_tokens=special_tokens)
    return Request(messages, pair.images)


def read_judgment(completion: Completion, *, swapped: bool) -> Judgment:
    """Return one vote, with its answer and probability translated back to the stored order."""
    parsed = parse_judgment(completion.text)
    answer, probability = parsed.answer, completion.probability
    if swapped:
        answer = None if answer is None else 1 if answer == 2 else 2
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
    engine: Engine | AnswerScorer,
    rows: Sequence[dict[str, Any]],
    *,
    orders: Orders = "both",
    votes: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 1024,
    seed: int = 0,
    video_frames: int = FRAMES,
    progress: Callable[[int], None] | None = None,
) -> list[list[Judgment]]:
    """Return all judgments of every row of a pair file, one pass after the other; ``video_frames`` show a video.

    Raises:
        EngineError: a row could not be judged.
    """
    pairs = (
        Pair(
            i,
            row["question"],
            row_pictures(row, video_frames),
            row["response_1"],
            row["response_2"],
            row["preferred"],
        )
        for i, row in enumerate(rows)
    )
    judgments = []
    for passes in judge(
        engine,
        pairs,
        orders=orders,
        votes=votes,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
    ):
        if isinstance(passes, EngineError):
            raise passes
        judgments.append([judgment for votes_of_pass in passes for judgment in votes_of_pass])
        if progress is not None:
            progress(1)
    return judgments
