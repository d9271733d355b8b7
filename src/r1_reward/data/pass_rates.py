"""How often a model judges each pair rightly: the share of K samples, an unreadable one counting as wrong.

Half of the samples see the responses in each order, so that a model which always says "1" passes half of the time on
every row. (An odd K costs one sample more, which is not counted.) Counts are added to a file a block of rows at a time;
a killed run goes on from there, and a line counts only for the same row, label, model and settings::

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
from r1_reward.data.attempts_file import AppendLog
from r1_reward.data.settings import PassRates
from r1_reward.data.teacher import parse_teacher
from r1_reward.engines.engine import Engine, EngineError
from r1_reward.judge.prepare import prepare_all
from r1_reward.judge.votes import Plan, draw_votes
from r1_reward.records.errors import UserError
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

    ``file`` gives what is known and gets what is new. ``engine`` is asked instead of loading ``rates.model``.

    Raises:
        UserError: a setting is wrong, the model cannot be loaded, or the file holds something else.
    """
    total = sum(1 for _ in read_rows(path, ["id"]))
    log = AppendLog(file)
    known = _known(log)
    result: list[int | str] = []
    jobs = read_jobs(path)
    try:
        while block := list(islice(jobs, _BLOCK)):
            due = {_key(rates, job): job for job in block if _key(rates, job) not in known}
            counts: dict[str, int | str] = {}
            if due:
                engine = engine or parse_teacher(rates.model).load(batch_size=batch_size)
                counts = dict(zip(due, _count_right(list(due.values()), rates, engine), strict=True))
            new = {key: count for key, count in counts.items() if not isinstance(count, str)}
            if new:
                log.append([{"key": key, "id": due[key].row["id"], "right": count} for key, count in new.items()])
                log.sync()
            known.update(new)
            keys = [_key(rates, job) for job in block]
            result += [known[key] if key in known else counts[key] for key in keys]
            if progress is not None:
                progress(len(result), total)
    finally:
        log.close()
    return result


def _known(log: AppendLog) -> dict[str, int]:
    try:
        return {line["key"]: int(line["right"]) for _, _, line in log.repair()}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{log.path}: holds a line that is no pass rate; remove it to go on.") from error


def _count_right(jobs: Sequence[Job], rates: PassRates, engine: Engine) -> Iterator[int | str]:
    """Yield how many samples of each row are right, or why there are none."""
    plan = Plan((rates.samples + 1) // 2, "both", rates.temperature, None, rates.max_new_tokens, rates.seed)
    drawn = draw_votes(engine, prepare_all((job.row for job in jobs), video_frames=rates.frames), plan)
    for job, votes in zip(jobs, drawn, strict=True):
        if isinstance(votes, EngineError):
            yield str(votes)
        else:
            yield sum(vote.answer == job.row["preferred"] for vote in votes[: rates.samples])


def _key(rates: PassRates, job: Job) -> str:
    """Return what names a measurement: the row, its label and everything that decides the samples."""
    decisive = [rates.model, rates.samples, rates.temperature, rates.max_new_tokens, rates.seed]
    shown = [rates.frames] if job.row["video"] else []
    content = json.dumps([*decisive, job.key, job.row["preferred"], *shown])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
