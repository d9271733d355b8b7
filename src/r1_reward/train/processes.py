"""Coordination of a run's processes: work that one of them does for all, shared failures, and the rows of an update."""

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
    """Call ``work`` on the main process and return its result, which must be picklable, on every process.

    Use it for anything that depends on the state of a folder: by the time a second process looks, the first one may
    have written there. With a single process this is a plain call.

    Raises:
        UserError: On every process, if ``work`` raised one. Any other exception is raised on the main process, and as
            RuntimeError on the others.
    """
    if not torch.distributed.is_initialized():
        return work()
    answer: list[Any] = [None]
    with all_or_none("doing work for all processes"):
        if torch.distributed.get_rank() == 0:
            answer[0] = work()
    return broadcast_object_list(answer)[0]


@contextmanager
def all_or_none(doing: str) -> Iterator[None]:
    """Run the block on every process; if it fails on one of them it fails on all.

    Otherwise the failed process would exit, and the others would wait for it in their next collective operation until
    that times out. The block itself must not contain a collective that a process could miss by failing. The cost is
    one small collective, which is also a barrier.

    Args:
        doing: What the block does, for the message on the other processes.

    Raises:
        UserError: On the other processes, with the same message, if the first process that failed raised one.
        RuntimeError: On the other processes, if it raised anything else.
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
    """Return a process's share of a rollout, sorted so that its first rows form the first update, the next the second.

    Each ``together`` consecutive rows of the whole rollout are dealt as one part, and every update gets one of each
    ``updates`` consecutive parts, in a random order drawn for each. With 2, the two orders of a pair, which
    :func:`r1_reward.data.subsets.both_orders` puts next to each other, are in the same update, which then favors no
    position. The rows of an update do not depend on the number of processes.

    Args:
        rollout: Tensors and lists with a row for each of the n sequences; scalars and None are unchanged.
        updates: Number of updates per rollout.
        together: Number of neighbors that stay together; ``together * updates`` divides n and ``first_row``.
        first_row: Index of the share's first row in the whole rollout.
        seed: Seed of the draws, the same on every process.

    Raises:
        ValueError: The share does not consist of whole blocks.
    """
    rows = len(next(values for values in rollout.values() if values is not None))
    size = together * updates
    if rows % size or first_row % size:
        raise ValueError(f"{rows} rows from row {first_row} are not whole blocks of {updates} updates x {together}")
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
