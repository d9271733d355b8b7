"""Measure how often a model judges each pair correctly: the share of K samples, with unreadable ones counted as wrong.

A row without any readable sample has no pass rate, because that says nothing about its difficulty.

Half of the samples see the responses in each order, so a model that always says "1" passes half of the time on every
row. (An odd K costs one extra sample, which is not counted.) Counts are appended to a file, one block of rows at a
time, and a killed run resumes from there. A line is reused only for the same row, label, weights and settings; after
further training under the same name, everything is measured again::

    for rate in measure("annotated", PassRates(model="runs/sft", samples=8), Path("rl/pass_rates.jsonl")):
        ...     # a Rate, or a text that says why the row could not be measured
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.data.annotation import TIE, Job, read_jobs
from r1_reward.data.settings import PassRates
from r1_reward.data.teacher import TeacherSpec, parse_teacher
from r1_reward.engines.client import RejectedError
from r1_reward.engines.engine import GIVE_UP, Engine, EngineError
from r1_reward.engines.length import PromptTooLong
from r1_reward.engines.options import draw_fields
from r1_reward.engines.workers import EngineSpec, in_workers
from r1_reward.judge.prepare import InvalidPair, prepare_all
from r1_reward.judge.settings import OnUnreadable
from r1_reward.judge.unreadable import Reading, Watch, limit_of, reading_of
from r1_reward.judge.votes import Plan, draw_votes
from r1_reward.records.content import places_of
from r1_reward.records.dialects import DEFAULT
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS, Answer
from r1_reward.store.append_log import AppendLog
from r1_reward.store.identity import weights_identity
from r1_reward.store.shards import read_rows

_BLOCK = 64  # rows measured together: enough for full batches, few enough to lose in a kill

Progress = Callable[[int, int], None]
"""Called with the numbers of finished rows and of all rows."""


class Rate(NamedTuple):
    """Counts over the samples of one row."""

    right: int
    unreadable: int | None = None
    """Samples without a verdict; None, like ``truncated``, in files of version 0.1.0."""
    truncated: int | None = None
    """Samples cut by the token limit."""


def measure(
    path: str | Path,
    rates: PassRates,
    file: Path,
    engine: Engine | None = None,
    *,
    batch_size: int = 64,
    on_unreadable: OnUnreadable = "stop",
    progress: Progress | None = None,
) -> list[Rate | str]:
    """Return the counts of every row, or the reason why it could not be measured.

    Known rows are read from ``file`` and new ones appended to it. ``engine`` is used instead of loading
    ``rates.model``; it is then identified by that name alone, like the model of a server. ``on_unreadable`` says what
    to do if none of the first samples can be parsed.

    Raises:
        UserError: a setting is wrong, the model cannot be loaded, the file contains something else, or ``GIVE_UP``
            consecutive rows get no answer. What was measured is kept.
        UnreadableJudge: none of the first samples can be parsed.
    """
    total = sum(1 for _ in read_rows(path, ["id"]))
    log = AppendLog(file, "a pass rate", _rate)
    known: dict[str, Rate | str] = dict(entry.value for entry in log.entries())
    watch = Watch(rates.model, on_unreadable, limit=limit_of(rates.max_new_tokens))
    teacher = parse_teacher(rates.model)
    weights = weights_identity(teacher.model) if engine is None and teacher.url is None else None
    served = engine is not None or teacher.url is not None
    drawn = list(draw_fields(rates.batch_votes, _votes(rates), served=served))
    spec: Any = _Given(engine) if engine is not None else _spec(teacher, batch_size, rates.batch_votes)
    keys: list[str] = []
    unanswered = 0

    def due() -> Iterator[list[tuple[str, Job]]]:
        jobs = read_jobs(path)
        while block := [(_key(rates, job, weights, drawn), job) for job in islice(jobs, _BLOCK)]:
            keys.extend(key for key, _ in block)
            known.update((key, "neither response is preferred") for key, job in block if job.reason == TIE)
            if wanted := {key: job for key, job in block if key not in known}:
                yield list(wanted.items())

    try:
        for block, counted in in_workers(_count, due(), rates, spec, go_on=lambda result: watch.add(result.readings)):
            known.update((key, one.rate) for (key, _), one in zip(block, counted, strict=True))
            new = [(key, job, rate) for key, job in block if isinstance(rate := known[key], Rate)]
            log.append([{"key": key, "id": job.row["id"], **rate._asdict()} for key, job, rate in new])
            log.sync()
            unanswered = _in_a_row(unanswered, counted)
            if progress is not None:
                progress(sum(key in known for key in keys), total)
    finally:
        log.close()
    watch.check(total - sum(key in known for key in keys))
    return [known[key] for key in keys]


def _rate(line: Any) -> tuple[str, Rate]:
    """Read a line of the file; lines of version 0.1.0 only count right answers."""
    counts = [line.get(name) for name in ("unreadable", "truncated")]
    return line["key"], Rate(int(line["right"]), *(None if count is None else int(count) for count in counts))


def _spec(teacher: TeacherSpec, batch_size: int, batch_votes: bool) -> EngineSpec:
    """Return the spec of the student's engine, with the prompt format that it will be trained with."""
    return EngineSpec(teacher.model, batch_size, base_url=teacher.url, batch_votes=batch_votes, dialect=DEFAULT)


class _Given(NamedTuple):
    """An existing engine, in place of a spec that loads one."""

    engine: Engine
    in_one_stream: bool = False

    def load(self) -> Engine:
        return self.engine


class _Counted(NamedTuple):
    rate: Rate | str
    readings: list[Reading]
    unanswered: bool = False
    """Whether the row can be shown but the engine failed; a server's rejection is about the row."""


def _in_a_row(before: int, counted: Iterable[_Counted]) -> int:
    """Return how many rows in a row have no answer by now; raises UserError at ``GIVE_UP``."""
    for one in counted:
        before = 0 if isinstance(one.rate, Rate) else before + one.unanswered
        if before == GIVE_UP:
            raise UserError(
                f"{GIVE_UP} rows in a row got no answer; the last error: {one.rate}\n"
                "What was measured is kept; run the same command again to resume."
            )
    return before


def _count(engine: Engine, jobs: Iterable[tuple[str, Job]], rates: PassRates) -> Iterator[_Counted]:
    """Yield the counts of each row, or the reason why there are none."""
    plan = Plan(_votes(rates), "both", rates.temperature, None, rates.max_new_tokens, rates.seed)
    waiting: deque[Answer] = deque()

    def rows() -> Iterator[dict[str, Any]]:
        for _, job in jobs:
            waiting.append(job.row["preferred"])
            yield job.row

    for votes in draw_votes(engine, prepare_all(rows(), video_frames=rates.frames), plan):
        preferred = waiting.popleft()
        if isinstance(votes, EngineError):
            yield _Counted(str(votes), [], not isinstance(votes, InvalidPair | PromptTooLong | RejectedError))
            continue
        samples = votes[: rates.samples]
        right = sum(vote.answer == preferred for vote in samples)
        unreadable = sum(vote.answer is None for vote in samples)
        truncated = sum(vote.truncated for vote in samples)
        yield _Counted(Rate(right, unreadable, truncated), list(map(reading_of, votes)))


def _votes(rates: PassRates) -> int:
    """Return the number of samples per order of the responses."""
    return (rates.samples + 1) // 2


def _key(rates: PassRates, job: Job, weights: str | None, drawn: Sequence[str]) -> str:
    """Return the key of a measurement: a hash of the row, its label, the weights and all that affects the samples."""
    decisive = [rates.model, rates.samples, rates.temperature, rates.max_new_tokens, rates.seed]
    places = (place for name in CONTENTS for place in places_of(job.row[name]))
    filmed = job.row["video"] or any(place.kind == "video" for place in places)
    shown = [rates.frames] if filmed else []
    known = [] if weights is None else [weights]
    content = json.dumps([*decisive, job.key, job.row["preferred"], *shown, *known, *drawn])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
