"""What the processes of one run agree on: work that one of them does for all, and which rows make an update."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list, gather_object

from r1_reward.records.errors import UserError

Result = TypeVar("Result")


def once(work: Callable[[], Result]) -> Result:
    """Call ``work`` on the main process and return what it returned on every process, once it is done.

    What depends on the state of a folder must be asked once: by the time a second process looks, the first one may have
    written there. Without other processes this is a plain call. The result must be picklable.

    Raises:
        UserError: on every process, if ``work`` raised one. Whatever else it raises is raised on the main process, and
            as RuntimeError on the others.
    """
    if not torch.distributed.is_initialized():
        return work()
    answer: list[Any] = [None]
    with all_or_none("doing the work of all"):
        if torch.distributed.get_rank() == 0:
            answer[0] = work()
    return broadcast_object_list(answer)[0]


@contextmanager
def all_or_none(doing: str) -> Iterator[None]:
    """Have every process run this block; where it fails on one of them it fails on all.

    Otherwise the process that failed would end, and the others would wait for it in their next exchange until that
    times out. The block itself must hold no exchange that a process could miss by failing. It costs one small exchange,
    which is also a barrier.

    Args:
        doing: What the block does, for the message on the other processes.

    Raises:
        UserError: on the others too, with the same message, if the first process that failed raised one.
        RuntimeError: on the others, if it raised anything else.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001  # whatever it is, the others must hear of it; it is raised below
        failure = error
    if torch.distributed.is_initialized():
        told = None if failure is None else (isinstance(failure, UserError), type(failure).__name__, str(failure))
        heard = gather_object([told])
        if failure is None:
            for rank, other in enumerate(heard):
                if other is not None:
                    by_user, kind, message = other
                    if by_user:
                        raise UserError(message)
                    raise RuntimeError(f"process {rank} failed while {doing}: {kind}: {message}")
    if failure is not None:
        raise failure


def deal(
    rollout: dict[str, Any], updates: int, *, together: int = 1, first_row: int = 0, seed: str = ""
) -> dict[str, Any]:
    """Return a process' share of a rollout sorted so that its first rows make the first update, the next the second.

    Each ``together`` rows that follow each other in the whole rollout are dealt as one, and of each ``updates`` such
    parts every update gets one, in an order drawn anew. So with 2 the two orders of a pair, which
    :func:`r1_reward.data.subsets.both_orders` puts beside each other, are learned from in the same update, which then
    favours no position. The rows of an update are the same whether one process has all of them or several have a share
    each.

    Args:
        rollout: Tensors and lists with a row for each of the n sequences; scalars and None stay as they are.
        updates: How many updates are made with a rollout.
        together: How many neighbours stay together; ``together * updates`` divides n and ``first_row``.
        first_row: Where the share begins in the whole rollout.
        seed: What the draws depend on, the same on every process.

    Raises:
        ValueError: The share is not made of whole blocks.
    """
    rows = len(next(values for values in rollout.values() if values is not None))
    size = together * updates
    if rows % size or first_row % size:
        raise ValueError(f"{rows} rows from row {first_row} on are not whole blocks of {updates} updates x {together}")
    turns = [
        turn
        for block in range(first_row // size, (first_row + rows) // size)
        for turn in random.Random(f"{seed}/{block}").sample(range(updates), updates)
        for _ in range(together)
    ]
    order = sorted(range(rows), key=turns.__getitem__)

    def sort(values: Any) -> Any:
        if values is None or (isinstance(values, torch.Tensor) and values.ndim == 0):
            return values
        return values[order] if isinstance(values, torch.Tensor) else [values[i] for i in order]

    return {name: sort(values) for name, values in rollout.items()}
