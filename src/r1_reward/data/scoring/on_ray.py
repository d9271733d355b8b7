"""Judge the blocks of a file on a Ray cluster: ``ray.data`` distributes block numbers to actors, each with a model.

Every node must see the input and the checkpoint at the same paths. Only block numbers and verdicts are transferred.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Sequence
from typing import Any

from r1_reward.data.scoring.judging import Job, Result, judge_rows
from r1_reward.data.scoring.rows import Block, Source, open_rows
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.unreadable import Reading
from r1_reward.records.errors import UserError


class BlockJudge:
    """An actor that reads and judges a block, and returns its results or an error."""

    def __init__(self, source: Source, job: Job, spec: EngineSpec) -> None:
        self._source, self._job, self._spec = source, job, spec
        self._reader: Any = None
        self._engine: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Judge the one block of the batch."""
        (number,), (skip,) = batch["block"], batch["skip"]
        try:
            # Not in __init__: there, a user error would only show up as a dead actor.
            self._reader = self._reader or open_rows(self._source)
            self._engine = self._engine or self._spec.load()
            block = self._source.blocks[number]._replace(skip=int(skip))
            results = list(judge_rows(self._engine, self._reader.read(block), self._job))
        except UserError as error:
            return {"block": [number], "results": ["[]"], "error": [str(error)]}
        # As JSON text, because Ray cannot type a column that mixes null and numbers.
        return {"block": [number], "results": [json.dumps(results)], "error": [""]}


def judged_on_ray(
    source: Source, missing: Sequence[Block], job: Job, spec: EngineSpec, workers: int
) -> Generator[tuple[Block, list[Result]], None, None]:
    """Yield each block with its results, in order of completion.

    Connects to the cluster at ``RAY_ADDRESS``, or starts one on this machine. Each actor uses one CPU, and one GPU if
    the cluster has GPUs and no server is used.

    Raises:
        UserError: Ray is not installed or has fewer slots than ``workers``, or nothing can be judged.
    """
    if not missing:
        return
    ray = _connected()
    place = "GPU" if ray.cluster_resources().get("GPU") and spec.base_url is None else "CPU"
    if (places := int(ray.cluster_resources().get(place, 0))) < workers:
        raise UserError(f"--workers {workers}: the Ray cluster has only {places} {place}s; use at most that many.")
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [{"block": block.number, "skip": block.skip} for block in missing]
    blocks = ray.data.from_items(items, override_num_blocks=len(missing))
    by_number = {block.number: block for block in missing}
    judged = blocks.map_batches(
        BlockJudge,
        batch_size=1,
        fn_constructor_args=(source, job, spec),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=1 if place == "GPU" else 0,
    )
    for row in judged.iter_rows():
        if row["error"]:
            raise UserError(row["error"])
        results = [
            Result(line, unanswered, tuple(Reading(*reading) for reading in readings))
            for line, unanswered, readings in json.loads(row["results"])
        ]
        yield by_number[row["block"]], results


def _connected() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--ray requires Ray: pip install 'r1-reward[ray]'") from error
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    return ray
