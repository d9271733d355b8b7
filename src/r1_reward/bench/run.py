"""Judge a whole benchmark into a folder; a run can be interrupted and resumed without changing its results.

A run folder contains ``run.json`` (the settings), ``predictions.jsonl`` (a line per row with all votes),
``metrics.json``, ``report.md`` and, with several votes, ``voting.png``::

    rows = load_suite("mm-rlhf-rewardbench", "mm_reward_bench.jsonl", image_root="images")
    run_benchmark(rows, RunSettings(model="runs/rl", votes=5, temperature=1.0), Path("out"))

Lines are appended one block of rows at a time. After a kill, the same call resumes: a half-written line is removed,
existing rows are kept, and an incomplete block is judged again as a whole but only its missing rows are added; a server
is asked only about the missing rows. Since orders and random seeds depend only on the row, the resulting files are the
same as without the interruption. ``remarks.json`` lists the parameters that a server rejected; every report repeats it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.bench.rows import BenchmarkRow
from r1_reward.bench.settings import RunSettings
from r1_reward.bench.suites import LoadedSuite, row_images
from r1_reward.engines.engine import GIVE_UP, Engine, EngineError
from r1_reward.engines.options import draw_fields, engine_fields, require_one_place
from r1_reward.engines.usage import Usage
from r1_reward.engines.workers import EngineSpec, GoOn, in_workers
from r1_reward.judge.prepare import Attack, InvalidPair, PairToJudge, Prepared, opened, prepare
from r1_reward.judge.settings import OnUnreadable
from r1_reward.judge.unreadable import OURS, Reading, Watch, limit_of, reading_of
from r1_reward.judge.votes import draw_votes
from r1_reward.judge.voting import majority
from r1_reward.records.dialect import Dialect
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment
from r1_reward.store.identity import media_digest, media_files, weights_fields
from r1_reward.store.model_names import chosen_dialect, dialect_fields
from r1_reward.store.prediction_file import Judged, PredictionFile
from r1_reward.store.run_folder import RUN_FILE, Run, add_remarks, run_folder

__all__ = ["METRICS", "PREDICTIONS", "RUN_FILE", "RunSettings", "RunState", "run_benchmark"]

PREDICTIONS, METRICS = "predictions.jsonl", "metrics.json"
_BLOCK_SEQUENCES = 256  # sequences per block: enough for full batches, few enough to lose in a kill


class RunState(NamedTuple):
    """Progress of a run."""

    done: int
    total: int
    right: float
    """Sum of the correctness of the rows judged by this call."""
    judged: int
    """Number of rows judged by this call."""


Progress = Callable[[RunState], None]


def run_benchmark(
    loaded: LoadedSuite,
    settings: RunSettings,
    out: Path,
    *,
    batch_size: int = 64,
    workers: int = 1,
    concurrency: int | None = None,
    batch_votes: bool = False,
    engine_args: Mapping[str, Any] | None = None,
    on_unreadable: OnUnreadable = "stop",
    progress: Progress | None = None,
) -> dict[int, str]:
    """Judge every row that is not yet in ``out``; return the rows that could not be judged, index to reason.

    Each of ``workers`` processes generates ``batch_size`` sequences at once; with a server, ``concurrency`` limits the
    open requests (default: adapts to the server); ``on_unreadable`` says what to do if none of the first answers can be
    parsed. None of these affects a verdict. ``batch_votes`` does: it requests all votes on a row in one order together,
    which samples different votes than single requests. ``engine_args`` are passed to vLLM; ``run.json`` records those
    that may affect a verdict.

    Raises:
        UserError: the folder holds another run or is in use, the data changed, some labels are ties but the judge
            cannot express them, or nothing can be judged at all.
        UnreadableJudge: none of the first answers can be parsed.
    """
    require_one_place(settings.engine, settings.base_url, workers, engine_args)
    check_ties(loaded, settings)
    usage = Usage()
    spec = spec_of(settings, batch_size, concurrency, usage, batch_votes, engine_args)
    drawn = draw_fields(batch_votes, settings.votes, served=settings.base_url is not None)
    with opened_folder(out, loaded, settings, **drawn, **engine_fields(settings.engine, engine_args)):
        watch = watch_of(settings, on_unreadable)
        try:
            return _fill(loaded, settings, PredictionFile(out / PREDICTIONS), spec, workers, watch, progress)
        finally:
            add_remarks(out, usage.refused)


def check_ties(loaded: LoadedSuite, settings: RunSettings) -> None:
    """Raise UserError if some labels are ties but the judge's dialect has none."""
    dialect, says_tie = dialect_of(settings)
    if loaded.ties and not says_tie:
        raise UserError(
            f"{loaded.source}: {loaded.ties:,} of {loaded.n:,} rows are ties, but the dialect {dialect} has no ties; "
            "leave them out with --ties drop, or choose a dialect with ties."
        )


def dialect_of(settings: RunSettings) -> tuple[str, bool]:
    """Return the name of the judge's dialect, and whether it has ties."""
    dialect = chosen_dialect(settings.dialect, settings.model, served=settings.base_url is not None)
    return dialect.name, dialect.ties


def spec_of(
    settings: RunSettings,
    batch_size: int,
    concurrency: int | None,
    usage: Usage,
    batch_votes: bool = False,
    engine_args: Mapping[str, Any] | None = None,
) -> EngineSpec:
    """Return the spec from which each process loads its engine."""
    return EngineSpec(
        settings.model,
        batch_size,
        settings.max_pixels,
        settings.base_url,
        concurrency=concurrency,
        batch_votes=batch_votes,
        usage=usage,
        dialect=settings.dialect,
        engine=settings.engine,
        engine_args=engine_args,
    )


def watch_of(settings: RunSettings, on_unreadable: OnUnreadable) -> Watch:
    """Return the watch that detects an unreadable judge early."""
    dialect = chosen_dialect(settings.dialect, settings.model, served=settings.base_url is not None)
    return Watch(settings.model, on_unreadable, limit=limit_of(settings.max_new_tokens), dialect=dialect)


def shown_to(watch: Watch) -> GoOn:
    """Return a callback that passes the votes of each judged row to a watch."""

    def go_on(result: dict[str, Any] | str) -> bool:
        return watch.add([] if isinstance(result, str) else readings_of(result, watch.dialect))

    return go_on


def readings_of(line: Mapping[str, Any], dialect: Dialect = OURS) -> list[Reading]:
    """Return the parsing results of the votes in a line of predictions."""
    return [reading_of(Judgment(**vote), dialect) for votes in line["passes"] for vote in votes]


def opened_folder(out: Path, loaded: LoadedSuite, settings: RunSettings, **more: Any) -> AbstractContextManager[None]:
    """Create the run folder, or check that it holds this same run, and lock it.

    ``more`` are further settings that affect verdicts. Images are compared row by row, see :func:`has_gaps`, so a row
    with a broken image can be judged once the image is fixed.

    Raises:
        UserError: the model does not exist, or the folder holds another run, is in use, or cannot be written.
    """
    served = settings.base_url is not None
    asked = {
        **settings.model_dump(exclude={"dialect", "engine"}),
        **dialect_fields(settings.dialect, settings.model, served=served),
    }
    limited = {} if loaded.limit is None else {"limit": loaded.limit}
    run = {"suite": loaded.suite.name, **asked, **more, **limited, "data": loaded.describe(), "format": 1}
    run |= weights_fields(settings.model, served=served)
    return run_folder(out, run, deciding=_deciding)


def _deciding(run: Run) -> Run:
    """Return the part of a run.json that must match to resume: the same data may be at another path."""
    data = run.get("data")
    return {**run, "data": data.get("fingerprint") if isinstance(data, dict) else None}


def _fill(
    loaded: LoadedSuite,
    settings: RunSettings,
    predictions: PredictionFile,
    spec: EngineSpec,
    workers: int,
    watch: Watch,
    progress: Progress | None,
) -> dict[int, str]:
    done = predictions.repair()
    state = RunState(len(done), loaded.n, 0.0, 0)
    missing: dict[int, str] = {}
    failed_in_a_row = 0
    blocks = (block for block in blocks_of(loaded.rows(), settings) if has_gaps(block, done))
    if spec.in_one_stream:  # rows are independent, and each one is paid for
        blocks = ([row for row in block if row.index not in done] for block in blocks)
    try:
        for block, results in in_workers(judge_rows, blocks, settings, spec, workers, go_on=shown_to(watch)):
            lines = []
            for row, result in zip(block, results, strict=True):
                if row.index in done:
                    continue
                if isinstance(result, str):
                    missing[row.index] = result
                    failed_in_a_row += 1
                else:
                    failed_in_a_row = 0
                    lines.append(with_media(row, result))
                    state = _advance(state, row, result)
            predictions.append(lines)
            if failed_in_a_row >= GIVE_UP:
                raise UserError(
                    f"{failed_in_a_row} rows in a row could not be judged; the last error: {missing[max(missing)]}\n"
                    "All verdicts so far are kept; run the same command again to resume."
                )
            if progress is not None:
                progress(state)
    finally:
        predictions.close()
    predictions.sort()
    watch.check(loaded.n - state.done - len(missing))
    return missing


def _advance(state: RunState, row: BenchmarkRow, line: dict[str, Any]) -> RunState:
    verdicts = [majority([Judgment(**vote) for vote in votes]) for votes in line["passes"]]
    right = sum(verdict.correctness(row.preferred) for verdict in verdicts) / len(verdicts)
    return state._replace(done=state.done + 1, judged=state.judged + 1, right=state.right + right)


def blocks_of(rows: Iterable[BenchmarkRow], settings: RunSettings) -> Iterator[list[BenchmarkRow]]:
    """Yield blocks of rows that are judged together; they do not depend on which rows are already done."""
    per_row = settings.votes * (2 if settings.orders == "both" else 1)
    rows = iter(rows)
    while block := list(islice(rows, max(1, _BLOCK_SEQUENCES // per_row))):
        yield block


def has_gaps(block: list[BenchmarkRow], done: Mapping[int, Judged]) -> bool:
    """Return whether any row of a block is still to be judged.

    Raises:
        UserError: a judged row has changed, or shows different images under the same names.
    """
    for row in block:
        judged = done.get(row.index)
        if judged is None:
            continue
        if judged.key != row.key:
            raise UserError(
                f"row {row.index} (id {row.id}) is not the row that was judged: the data changed. Choose another "
                "folder with --out."
            )
        if judged.media is not None and judged.media != (now := media_digest(_media(row))):
            raise UserError(
                f"row {row.index} (id {row.id}) was judged with different images ({', '.join(_media(row))}: digest "
                f"{judged.media} then, {now} now). Choose another folder with --out."
            )
    return any(row.index not in done for row in block)


def with_media(row: BenchmarkRow, line: dict[str, Any]) -> dict[str, Any]:
    """Add the digest of the row's media files, if any, to a line of predictions."""
    media = media_digest(_media(row))
    return line if media is None else {**line, "media": media}


def _media(row: BenchmarkRow) -> list[str]:
    return list(media_files(row.shown, ""))


def judge_rows(
    engine: Engine, rows: Iterable[BenchmarkRow], settings: RunSettings, attack: Attack | None = None
) -> Iterator[dict[str, Any] | str]:
    """Yield a line of predictions for each row, in order, or the reason why it could not be judged."""
    return judge_attacked(engine, ((row, attack) for row in rows), settings)


def judge_attacked(
    engine: Engine, rows: Iterable[tuple[BenchmarkRow, Attack | None]], settings: RunSettings
) -> Iterator[dict[str, Any] | str]:
    """Yield the same as :func:`judge_rows` for rows that each have their own attack, or none."""
    plan = settings.plan()
    waiting: deque[BenchmarkRow] = deque()

    def pairs() -> Iterator[Prepared | EngineError]:
        for row, attack in rows:
            waiting.append(row)
            yield _prepared(row, attack, settings.frames)

    for votes in draw_votes(engine, pairs(), plan):
        row = waiting.popleft()
        yield str(votes) if isinstance(votes, EngineError) else prediction_line(row, plan.by_pass(votes))


def _prepared(row: BenchmarkRow, attack: Attack | None, frames: int) -> Prepared | EngineError:
    try:
        images = opened(row_images(row, frames))
        item = PairToJudge(row.question, images, row.response_1, row.response_2, row.criteria)
        pair = prepare(item, video_frames=frames, exact=False)
    except UserError as error:  # an unusable image only affects its own row
        return InvalidPair(str(error))
    return pair._replace(preferred=row.preferred, attack=attack)


def prediction_line(row: BenchmarkRow, passes: list[list[Any]]) -> dict[str, Any]:
    """Return the line of predictions.jsonl for one row: its identity, label and all votes."""
    return {
        "key": row.key,
        "index": row.index,
        "id": row.id,
        "category": row.category,
        "paper_category": row.paper_category,
        "preferred": row.preferred,
        "issue": row.issue,
        "longer": row.longer,
        **({"members": list(row.members)} if row.members else {}),
        "passes": [[judgment.model_dump() for judgment in votes] for votes in passes],
    }
