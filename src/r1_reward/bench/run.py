"""Judge preference pairs with a backend: which orders are shown, how many votes, how a vote is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from r1_reward.backends import Request, TransformersBackend
from r1_reward.data.images import decode_images
from r1_reward.parsing import parse_judgment
from r1_reward.prompt import build_messages
from r1_reward.schema import Completion, Judgment
from r1_reward.train.rows import special_tokens_of

Orders = Literal["both", "alternate", "stored"]


def judge_pairs(
    backend: TransformersBackend,
    rows: Sequence[dict[str, Any]],
    *,
    orders: Orders = "both",
    votes: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 1024,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[list[Judgment]]:
    """Return the judgments of every pair, with answers in the pair's stored order.

    ``both``: ``votes`` judgments in each order. ``alternate``: ``votes`` judgments, the orders taking turns, with the
    first order alternating between pairs so that an odd number of votes favours none. ``stored``: only as stored.
    """
    requests: list[Request] = []
    plan: list[tuple[int, bool]] = []
    counts: list[int] = []
    for index, row in enumerate(rows):
        first = orders == "alternate" and index % 2 == 1
        shown = [(first, votes)]
        if orders == "both":
            shown = [(False, votes), (True, votes)]
        elif orders == "alternate" and votes > 1:
            shown = [(first, (votes + 1) // 2), (not first, votes // 2)]
        for swapped, count in shown:
            plan.append((index, swapped))
            counts.append(count)
            requests.append(_request(row, swapped, special_tokens_of(backend.processor)))
    judgments: list[list[Judgment]] = [[] for _ in rows]
    # Requests that want the same number of votes are generated together.
    for count in sorted(set(counts)):
        chosen = [i for i, wanted in enumerate(counts) if wanted == count]
        completions = backend.generate(
            [requests[i] for i in chosen],
            n=count,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed + count,
            progress=progress,
        )
        for i, drawn in zip(chosen, completions, strict=True):
            index, swapped = plan[i]
            judgments[index].extend(read_judgment(completion, swapped=swapped) for completion in drawn)
    return judgments


def read_judgment(completion: Completion, *, swapped: bool) -> Judgment:
    """Return one vote, with its answer translated back to the stored order."""
    parsed = parse_judgment(completion.text)
    answer = parsed.answer
    if swapped and answer is not None:
        answer = 1 if answer == 2 else 2
    return Judgment(
        answer=answer,
        swapped=swapped,
        text=completion.text,
        well_formed=parsed.well_formed,
        tokens=completion.tokens,
    )


def _request(row: dict[str, Any], swapped: bool, special_tokens: tuple[str, ...]) -> Request:
    responses = (row["response_2"], row["response_1"]) if swapped else (row["response_1"], row["response_2"])
    images = decode_images(row)
    return Request(
        build_messages(row["question"], *responses, images=len(images), special_tokens=special_tokens), images
    )
