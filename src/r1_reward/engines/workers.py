"""Judge blocks of rows in this process or in several, each with its own model, and return results in order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from typing import Any, NamedTuple

from r1_reward.engines.options import TRANSFORMERS, VLLM, EngineName
from r1_reward.engines.pointwise import comparing
from r1_reward.engines.usage import Usage
from r1_reward.records.dialects import AUTO
from r1_reward.records.errors import UserError
from r1_reward.store.model_names import chosen_dialect

Judge = Callable[[Any, Iterable[Any], Any], Iterable[Any]]
"""Maps an engine, rows and settings to the results of the rows, in order."""


class EngineSpec(NamedTuple):
    """How a process creates its engine."""

    model: str
    batch_size: int = 64
    max_pixels: int | None = None
    base_url: str | Sequence[str] | None = None
    concurrency: int | None = None
    batch_votes: bool = False
    usage: Usage | None = None
    """Where a server's engine counts requests and records what the server refuses."""
    dialect: str = AUTO
    """The judge's prompt and answer format: a name, or ``auto`` to choose by the model's name."""
    engine: EngineName = TRANSFORMERS
    engine_args: Mapping[str, Any] | None = None
    """vLLM's own arguments."""

    @property
    def in_one_stream(self) -> bool:
        """Whether rows are answered one by one as they become ready, instead of in batches of a block."""
        return self.base_url is not None or self.engine == VLLM

    def load(self) -> Any:
        """Load the checkpoint, generative or scalar, or create the engine of the server."""
        if self.base_url is not None:
            from r1_reward.engines.server import ServerEngine

            dialect = chosen_dialect(self.dialect, self.model, served=True)
            options: dict[str, Any] = {"concurrency": self.concurrency, "batch_votes": self.batch_votes}
            options |= {"usage": self.usage, "dialect": dialect}
            return comparing(ServerEngine(self.model, self.base_url, **options))
        if self.engine == VLLM:
            from r1_reward.engines.vllm import VllmEngine

            options = {"batch_size": self.batch_size, "max_pixels": self.max_pixels, "engine_args": self.engine_args}
            return comparing(VllmEngine(self.model, dialect=chosen_dialect(self.dialect, self.model), **options))
        from r1_reward.engines.in_process import TransformersEngine
        from r1_reward.engines.scalar import ScalarEngine
        from r1_reward.models.checkpoint import limit_pixels
        from r1_reward.models.placing import placed
        from r1_reward.models.scalar import is_scalar, load_scalar
        from r1_reward.models.text_only import load_judge

        model: Any
        scalar = is_scalar(self.model)
        model, processor = placed(lambda: load_scalar(self.model) if scalar else load_judge(self.model))
        if self.max_pixels is not None:
            limit_pixels(processor, self.max_pixels)
        if scalar:
            require_no_dialect(self.model, self.dialect)
            return ScalarEngine(model, processor, batch_size=self.batch_size)
        dialect = chosen_dialect(self.dialect, self.model)
        return comparing(TransformersEngine(model, processor, batch_size=self.batch_size, dialect=dialect))


def require_no_dialect(model: str, dialect: str) -> None:
    """Raise UserError if a dialect is given for a scalar model, which writes no verdict."""
    if dialect != AUTO:
        raise UserError(f"dialect: {model} is a scalar reward model, which writes no verdict; leave {dialect} out.")


GoOn = Callable[[Any], bool]
"""Called with every result, in order; returns whether to judge more rows."""


def in_workers(
    judge: Judge,
    blocks: Iterable[list[Any]],
    settings: Any,
    spec: EngineSpec,
    workers: int = 1,
    *,
    go_on: GoOn | None = None,
) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield each block with its results, in order; each of several workers gets a GPU, or a share of the CPU.

    A server, or vLLM, gets all blocks in one stream, so that no block waits for the slowest request of the one before.
    If that stream ends with a UserError (no credit is left), it is raised after the finished results are yielded. Once
    ``go_on`` returns False, the rows in progress are finished. In both cases the last block may be shorter and has only
    the rows with a result. An engine is only loaded if there is a block. Raises UserError if a worker dies.
    """
    gate = _Gate(go_on)
    if spec.in_one_stream:
        yield from _in_one_stream(judge, blocks, settings, spec, gate)
        return
    if workers == 1:
        engine = None
        for block in blocks:
            engine = engine or spec.load()
            results = [gate.seen(result) for result in judge(engine, gate.let_through(block), settings)]
            yield block[: len(results)], results
            if not gate.open:
                return
        return
    context = multiprocessing.get_context("spawn")  # a forked CUDA context is unusable
    places = context.SimpleQueue()
    for place in range(workers):
        places.put(place)
    pool = ProcessPoolExecutor(workers, context, _start, (places, workers, spec))
    waiting: deque[tuple[list[Any], Future[list[Any]]]] = deque()
    try:
        for block in blocks:
            waiting.append((block, pool.submit(_work, judge, block, settings)))
            if len(waiting) > 2 * workers:
                first, future = waiting.popleft()
                yield first, [gate.seen(result) for result in future.result()]
            if not gate.open:
                break
        while waiting:
            first, future = waiting.popleft()
            if gate.open or not future.cancel():
                yield first, [gate.seen(result) for result in future.result()]
    except BrokenProcessPool as error:
        raise UserError(
            "a worker died (killed, or out of memory); finished rows are kept. "
            "Run the same command again, perhaps with fewer --workers or a smaller --batch-size."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Gate:
    """Lets rows through until ``go_on`` returns False for a result."""

    def __init__(self, go_on: GoOn | None) -> None:
        self.open = True
        self._go_on = go_on

    def seen(self, result: Any) -> Any:
        if self._go_on is not None and not self._go_on(result):
            self.open = False
        return result

    def let_through(self, rows: Iterable[Any]) -> Iterator[Any]:
        for row in rows:
            if not self.open:
                return
            yield row


def _in_one_stream(
    judge: Judge, blocks: Iterable[list[Any]], settings: Any, spec: EngineSpec, gate: _Gate
) -> Iterator[tuple[list[Any], list[Any]]]:
    stream = iter(blocks)
    first = next(stream, None)
    if first is None:
        return
    waiting: deque[list[Any]] = deque()

    def rows() -> Iterator[Any]:
        for block in chain([first], stream):
            waiting.append(block)
            yield from block

    results: list[Any] = []
    try:
        for result in judge(spec.load(), gate.let_through(rows()), settings):
            results.append(gate.seen(result))
            if len(results) == len(waiting[0]):
                yield waiting.popleft(), results
                results = []
    except UserError:
        if results:
            yield waiting[0][: len(results)], results
        raise
    if results:  # stopped early
        yield waiting[0][: len(results)], results


_engine: Any = None


def _start(places: Any, workers: int, spec: EngineSpec) -> None:
    global _engine
    take_place(places, workers)
    _engine = spec.load()


def take_place(places: Any, workers: int) -> None:
    """Give this process its own GPU, or its share of the cores."""
    import torch

    place = places.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def _work(judge: Judge, block: list[Any], settings: Any) -> list[Any]:
    return list(judge(_engine, block, settings))
