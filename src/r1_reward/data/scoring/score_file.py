"""Judge a file of any size into a parquet file; a run can be interrupted and resumed without losing verdicts.

    score_file(Path("pairs.jsonl"), Path("verdicts.parquet"), ScoreSettings(model="runs/rl", votes=3))

The input is JSONL or parquet with one pair (``question``, ``images``, ``response_1``, ``response_2``) or one group
(``question``, ``images``, ``responses``) per row; ``id`` and ``criteria`` are optional, other fields are ignored.
Contents are texts or lists of parts. ``images`` is required but may be empty, and is optional if a part has an image;
its paths are relative to the file. A group's ``ranking`` (1 is best) does not affect the verdict: the output says
whether the top choice is best. The output has one row per input row, in order (columns in
:data:`r1_reward.data.scoring.judging.SCHEMAS`). Rewards of a group are net win rates, as returned by
:meth:`r1_reward.judge.reward_model.RewardModel.rewards`; ``order`` lists the responses that have a reward, from 0, best
first.

The file is read, judged and saved one block at a time. After a kill, the same call resumes with the missing blocks. If
none of the first answers can be parsed, the run stops and keeps what it has of the current block. Since a verdict
depends on its pair alone, the output does not depend on blocks, workers or interruptions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.data.scoring.judging import SCHEMAS, Job, Result, ScoreSettings, judge_rows
from r1_reward.data.scoring.parts import Parts, ScoreSummary
from r1_reward.data.scoring.rows import Block, Source, open_rows, survey
from r1_reward.engines.engine import GIVE_UP
from r1_reward.engines.options import draw_fields, engine_fields, require_one_place
from r1_reward.engines.usage import Usage
from r1_reward.engines.workers import EngineSpec, in_workers
from r1_reward.judge.calibration import Calibration
from r1_reward.judge.settings import OnUnreadable
from r1_reward.judge.unreadable import Watch, limit_of
from r1_reward.records.errors import UserError
from r1_reward.store.identity import weights_fields
from r1_reward.store.model_names import chosen_dialect, dialect_fields
from r1_reward.store.run_folder import add_remarks

BLOCK_ROWS = 512  # enough for full batches, few enough to lose in a kill


class ScoreState(NamedTuple):
    """Progress of a run, in rows."""

    done: int
    total: int
    judged: int
    """By this call."""
    failed: int
    """By this call."""


Progress = Callable[[ScoreState], None]


def score_file(
    file: Path,
    out: Path,
    settings: ScoreSettings,
    *,
    base_url: Sequence[str] = (),
    batch_size: int = 64,
    workers: int = 1,
    concurrency: int | None = None,
    batch_votes: bool = False,
    engine_args: Mapping[str, Any] | None = None,
    block_rows: int = BLOCK_ROWS,
    ray: bool = False,
    on_unreadable: OnUnreadable = "stop",
    progress: Progress | None = None,
) -> ScoreSummary:
    """Judge every row of ``file`` that has not been judged yet; return the summary of ``out``.

    Each of ``workers`` processes generates ``batch_size`` sequences at once; with ``ray`` they are actors of a Ray
    cluster that sees the same files. With servers (``base_url``), ``concurrency`` limits the open requests per server
    (default: adapts to the server). ``batch_votes`` requests all votes on a pair in one order together, which samples
    different votes than single requests. ``engine_args`` are passed to vLLM. ``block_rows`` is the block size. A row
    that cannot be judged gets an error instead of a verdict. ``on_unreadable`` says what to do if none of the first
    answers can be parsed.

    Raises:
        UserError: a file or an option is invalid, ``out`` belongs to another run, or nothing can be judged at all;
            verdicts so far are kept.
        UnreadableJudge: none of the first answers can be parsed; they are kept.
    """
    if out.suffix != ".parquet":
        raise UserError(f"{out}: the output is a parquet file; its name must end in .parquet.")
    if out.exists() and file.exists() and out.samefile(file):
        raise UserError(f"{out}: is the input file; choose another file with --out.")
    require_one_place(settings.engine, base_url, 1 if ray else workers, engine_args)
    source = survey(file, block_rows)
    if source.kind == "pairs" and settings.schedule != "round-robin":
        raise UserError(f"schedule: {file} contains pairs; {settings.schedule} is for groups (rows with responses).")
    calibration = None if base_url else Calibration.load(settings.model)
    job = Job(settings, source.kind, file.parent, calibration)
    drawn = draw_fields(batch_votes, settings.votes, served=bool(base_url))
    engine = engine_fields(settings.engine, engine_args)
    run = {**_describe(source, job, served=bool(base_url)), **engine, **drawn}
    parts = Parts(out, run, block_rows, SCHEMAS[source.kind])
    if summary := parts.finished():
        parts.drop()
        return summary
    urls: Any = tuple(base_url) or None
    usage = Usage()
    spec = EngineSpec(
        settings.model,
        batch_size,
        settings.max_pixels,
        urls,
        concurrency=concurrency,
        batch_votes=batch_votes,
        usage=usage,
        dialect=settings.dialect,
        engine=settings.engine,
        engine_args=engine_args,
    )
    dialect = chosen_dialect(settings.dialect, settings.model, served=bool(base_url))
    watch = Watch(settings.model, on_unreadable, limit=limit_of(settings.max_new_tokens), dialect=dialect)
    with parts.opened():
        missing = parts.missing(source.blocks)
        ask = _on_ray if ray else _judged
        try:
            with closing(ask(source, missing, job, spec, workers, watch)) as judged:
                _keep(judged, parts, source.rows, source.rows - sum(block.left for block in missing), progress)
        finally:
            add_remarks(parts.folder, usage.refused)
        watch.check(sum(block.left for block in parts.missing(source.blocks)))
        summary = parts.join(source.blocks)
    parts.drop()
    return summary


def _describe(source: Source, job: Job, *, served: bool) -> dict[str, Any]:
    """Return everything that determines the output, without server addresses: a server may be replaced."""
    settings = job.settings
    return {
        **settings.model_dump(exclude={"dialect", "engine"}),
        **dialect_fields(settings.dialect, settings.model, served=served),
        # None, as in outputs that are older than schedules.
        "schedule": None if settings.schedule == "round-robin" else settings.schedule,
        "served": served,
        "calibration": job.calibration.model_dump() if job.calibration else None,
        "kind": source.kind,
        "rows": source.rows,
        "sha256": source.sha256,
        "media": source.media,
        "format": 1,
        **weights_fields(settings.model, served=served),
    }


Judged = Generator[tuple[Block, list[Result]], None, None]


def _judged(source: Source, missing: Sequence[Block], job: Job, spec: EngineSpec, workers: int, watch: Watch) -> Judged:
    reader = open_rows(source)
    blocks = (reader.read(block) for block in missing)
    judged = in_workers(judge_rows, blocks, job, spec, workers, go_on=lambda result: watch.add(result.readings))
    # The watch may stop early. ``judged`` must come first in zip: it may raise after its last block.
    for (_, results), block in zip(judged, missing, strict=False):
        yield block, results


def _on_ray(source: Source, missing: Sequence[Block], job: Job, spec: EngineSpec, workers: int, watch: Watch) -> Judged:
    from r1_reward.data.scoring.on_ray import judged_on_ray

    with closing(judged_on_ray(source, missing, job, spec, workers)) as judged:
        for block, results in judged:
            yield block, results
            if not watch.add(reading for result in results for reading in result.readings):
                return


def _keep(judged: Judged, parts: Parts, total: int, done: int, progress: Progress | None) -> None:
    """Write parts as they arrive; when the engine keeps failing, stop and discard the rows since its last answer."""
    state = ScoreState(done, total, 0, 0)
    unanswered = 0
    suspect: list[tuple[Block, list[dict[str, Any]]]] = []  # the rows since the last answer begin in the first of these
    if progress is not None:
        progress(state)
    for block, results in judged:
        lines = [result.line for result in results]
        parts.write(block, lines)
        suspect = [*suspect, (block, lines)] if unanswered else [(block, lines)]
        for number, result in enumerate(results, 1):
            unanswered = unanswered + 1 if result.unanswered else 0
            if unanswered == GIVE_UP:
                before = sum(len(some) for _, some in suspect[:-1]) + number - GIVE_UP
                for place, failed_part in enumerate(suspect):
                    parts.cut(*failed_part, 0 if place else before)
                raise UserError(
                    f"{GIVE_UP} rows in a row got no answer; the last error: {result.line['error']}\n"
                    "All verdicts before these rows are kept; run the same command again to resume."
                )
            if not result.unanswered:
                suspect = [(block, lines)]
        failed = sum(line.get("error") is not None for line in lines)
        rows = len(results)
        state = ScoreState(state.done + rows, total, state.judged + rows, state.failed + failed)
        if progress is not None:
            progress(state)
