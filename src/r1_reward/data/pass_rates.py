"""How often a model judges each pair rightly: the share of K samples, an unreadable one counting as wrong.

Half of the samples see the responses in each order, so that a model which always says "1" passes half of the time on
every row. (An odd K costs one sample more, which is not counted.) Counts are added to a file a block of rows at a time;
a killed run resumes there, and a line counts only for the same row, label, weights and settings: those of a model
that was trained further under the same name are measured anew::

    for right in measure("annotated", PassRates(model="runs/sft", samples=8), Path("rl/pass_rates.jsonl")):
        ...     # 0 to 8, or a text that says why the row could not be measured
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.data.annotation import Job, read_jobs
from r1_reward.data.settings import PassRates
from r1_reward.data.teacher import parse_teacher
from r1_reward.engines.engine import Engine, EngineError
from r1_reward.engines.workers import EngineSpec, in_workers
from r1_reward.judge.prepare import prepare_all
from r1_reward.judge.votes import Plan, draw_votes
from r1_reward.records.schema import Answer
from r1_reward.store.append_log import AppendLog
from r1_reward.store.identity import weights_identity
from r1_reward.store.shards import read_rows

_BLOCK = 64  # rows measured together: full batches, and little to lose in a kill

Progress = Callable[[int, int], None]
"""Rows done and all rows."""


def measure(
    path: str | Path,
    rates: PassRates,
    file: Path,
    engine: Engine | None = None,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[int | str]:
    """Return for every row how many of its samples are right, or why it could not be measured.

    ``file`` gives what is known and gets what is new. ``engine`` is asked instead of loading ``rates.model``; it
    is then known by that name alone, as a server's model is.

    Raises:
        UserError: a setting is wrong, the model cannot be loaded, or the file holds something else.
    """
    total = sum(1 for _ in read_rows(path, ["id"]))
    log = AppendLog(file, "a pass rate", lambda line: (line["key"], int(line["right"])))
    known: dict[str, int | str] = dict(entry.value for entry in log.entries())
    teacher = parse_teacher(rates.model)
    weights = weights_identity(teacher.model) if engine is None and teacher.url is None else None
    spec: Any = _Given(engine) if engine is not None else EngineSpec(teacher.model, batch_size, base_url=teacher.url)
    keys: list[str] = []

    def due() -> Iterator[list[tuple[str, Job]]]:
        jobs = read_jobs(path)
        while block := [(_key(rates, job, weights), job) for job in islice(jobs, _BLOCK)]:
            keys.extend(key for key, _ in block)
            if wanted := {key: job for key, job in block if key not in known}:
                yield list(wanted.items())

    try:
        for block, counts in in_workers(_count_right, due(), rates, spec, partial=True):
            known.update((key, count) for (key, _), count in zip(block, counts, strict=True))
            right = [(key, job, known[key]) for key, job in block if not isinstance(known[key], str)]
            log.append([{"key": key, "id": job.row["id"], "right": count} for key, job, count in right])
            log.sync()
            if progress is not None:
                progress(sum(key in known for key in keys), total)
    finally:
        log.close()
    return [known[key] for key in keys]


class _Given(NamedTuple):
    """An engine that is there already, where one would be loaded."""

    engine: Engine
    base_url: None = None

    def load(self) -> Engine:
        return self.engine


def _count_right(engine: Engine, jobs: Iterable[tuple[str, Job]], rates: PassRates) -> Iterator[int | str]:
    """Yield how many samples of each row are right, or why there are none."""
    plan = Plan((rates.samples + 1) // 2, "both", rates.temperature, None, rates.max_new_tokens, rates.seed)
    waiting: deque[Answer] = deque()

    def rows() -> Iterator[dict[str, Any]]:
        for _, job in jobs:
            waiting.append(job.row["preferred"])
            yield job.row

    for votes in draw_votes(engine, prepare_all(rows(), video_frames=rates.frames), plan):
        preferred = waiting.popleft()
        if isinstance(votes, EngineError):
            yield str(votes)
        else:
            yield sum(vote.answer == preferred for vote in votes[: rates.samples])


def _key(rates: PassRates, job: Job, weights: str | None) -> str:
    """Return what names a measurement: the row, its label, the weights and everything that decides the samples."""
    decisive = [rates.model, rates.samples, rates.temperature, rates.max_new_tokens, rates.seed]
    shown = [rates.frames] if job.row["video"] else []
    known = [] if weights is None else [weights]
    content = json.dumps([*decisive, job.key, job.row["preferred"], *shown, *known])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
