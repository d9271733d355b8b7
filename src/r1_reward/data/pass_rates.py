"""How often a model judges each pair rightly: the share of K samples, an unreadable one counting as wrong.

Half of the samples see the responses in each order, so that a model which always says "1" passes half of the time on
every row. (An odd K costs one sample more, which is not counted.) Counts are added to a file a block of rows at a time;
a killed run goes on from there, and a line counts only for the same row, label, weights and settings: those of a model
that was trained further under the same name are measured anew::

    for right in measure("annotated", PassRates(model="runs/sft", samples=8), Path("rl/pass_rates.jsonl")):
        ...     # 0 to 8, or a text that says why the row could not be measured
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from r1_reward.data.annotation import Job, read_jobs
from r1_reward.data.settings import PassRates
from r1_reward.data.teacher import parse_teacher
from r1_reward.engines.engine import Engine, EngineError
from r1_reward.judge.prepare import prepare_all
from r1_reward.judge.votes import Plan, draw_votes
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
    known = dict(entry.value for entry in log.entries())
    spec = parse_teacher(rates.model)
    weights = weights_identity(spec.model) if engine is None and spec.url is None else None
    result: list[int | str] = []
    jobs = read_jobs(path)
    try:
        while block := list(islice(jobs, _BLOCK)):
            keys = [_key(rates, job, weights) for job in block]
            due = {key: job for key, job in zip(keys, block, strict=True) if key not in known}
            counts: dict[str, int | str] = {}
            if due:
                engine = engine or spec.load(batch_size=batch_size)
                counts = dict(zip(due, _count_right(list(due.values()), rates, engine), strict=True))
            new = {key: count for key, count in counts.items() if not isinstance(count, str)}
            if new:
                log.append([{"key": key, "id": due[key].row["id"], "right": count} for key, count in new.items()])
                log.sync()
            known.update(new)
            result += [known[key] if key in known else counts[key] for key in keys]
            if progress is not None:
                progress(len(result), total)
    finally:
        log.close()
    return result


def _count_right(jobs: Sequence[Job], rates: PassRates, engine: Engine) -> Iterator[int | str]:
    """Yield how many samples of each row are right, or why there are none."""
    plan = Plan((rates.samples + 1) // 2, "both", rates.temperature, None, rates.max_new_tokens, rates.seed)
    drawn = draw_votes(engine, prepare_all((job.row for job in jobs), video_frames=rates.frames), plan)
    for job, votes in zip(jobs, drawn, strict=True):
        if isinstance(votes, EngineError):
            yield str(votes)
        else:
            yield sum(vote.answer == job.row["preferred"] for vote in votes[: rates.samples])


def _key(rates: PassRates, job: Job, weights: str | None) -> str:
    """Return what names a measurement: the row, its label, the weights and everything that decides the samples."""
    decisive = [rates.model, rates.samples, rates.temperature, rates.max_new_tokens, rates.seed]
    shown = [rates.frames] if job.row["video"] else []
    known = [] if weights is None else [weights]
    content = json.dumps([*decisive, job.key, job.row["preferred"], *shown, *known])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
