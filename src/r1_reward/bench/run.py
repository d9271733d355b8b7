"""Judge a whole benchmark into a folder, so that nothing is lost, repeated or changed whatever happens on the way.

A run folder holds ``run.json`` (what was asked for), ``predictions.jsonl`` (a line a row with every vote),
``metrics.json``, ``report.md`` and, with several votes, ``voting.png``::

    rows = load_suite("mm-rlhf-rewardbench", "mm_reward_bench.jsonl", image_root="images")
    run_benchmark(rows, RunSettings(model="runs/rl", votes=5, temperature=1.0), Path("out"))

Lines are added a block of rows at a time. After a kill the same call goes on: a half-written line is cut off, rows
that are there are kept, a block with gaps is judged again as a whole and only what was missing is added; a server is
asked about the gaps alone. As orders and random numbers depend on the row alone, the files end up the same as if
nothing had happened. ``remarks.json`` says which parameters a server refused; every report repeats it.
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
from r1_reward.engines.engine import Engine, EngineError
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
GIVE_UP = 100  # rows that fail one after the other before a run ends: a server that is gone, a wrong image folder
_BLOCK_SEQUENCES = 256  # sequences of a block: enough for full batches, little enough to lose in a kill


class RunState(NamedTuple):
    """How far a run has come."""

    done: int
    total: int
    right: float
    """Sum of the correctness of the rows judged by this call."""
    judged: int
    """Rows judged by this call."""


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
    """Judge every row that ``out`` does not hold yet; return the rows that could not be judged, index to reason.

    ``batch_size`` sequences are generated at once by each of ``workers`` processes; with a server, ``concurrency``
    requests are open at once (by default as many as it answers in time); ``on_unreadable`` says what to do when none of
    the first answers can be read. None of them changes a verdict. ``batch_votes`` does: it asks a server for all votes
    on a row in one order together, which are other votes than those it gives one by one. ``engine_args`` are vLLM's
    own; a folder keeps those that may change a verdict.

    Raises:
        UserError: the folder holds another run or is in use, the data changed, rows are ties and the judge cannot say
            so, or nothing can be judged at all.
        UnreadableJudge: none of the first answers can be read.
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
    """Raise UserError if the label of some rows is a tie and the judge's form of verdict has none."""
    dialect, says_tie = dialect_of(settings)
    if loaded.ties and not says_tie:
        raise UserError(
            f"{loaded.source}: {loaded.ties:,} of {loaded.n:,} rows are ties, and a judge of the dialect {dialect} "
            "cannot say so; --ties drop leaves them out, or choose a dialect that knows ties."
        )


def dialect_of(settings: RunSettings) -> tuple[str, bool]:
    """Return the name of the judge's form of verdict, and whether it has a tie."""
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
    """Return how each process makes the engine that the settings name."""
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
    """Return what says early that this judge cannot be read."""
    dialect = chosen_dialect(settings.dialect, settings.model, served=settings.base_url is not None)
    return Watch(settings.model, on_unreadable, limit=limit_of(settings.max_new_tokens), dialect=dialect)


def shown_to(watch: Watch) -> GoOn:
    """Return what shows the votes of each judged row to a watch."""

    def go_on(result: dict[str, Any] | str) -> bool:
        return watch.add([] if isinstance(result, str) else readings_of(result, watch.dialect))

    return go_on


def readings_of(line: Mapping[str, Any], dialect: Dialect = OURS) -> list[Reading]:
    """Return what came of reading the votes of a line of predictions."""
    return [reading_of(Judgment(**vote), dialect) for votes in line["passes"] for vote in votes]


def opened_folder(out: Path, loaded: LoadedSuite, settings: RunSettings, **more: Any) -> AbstractContextManager[None]:
    """Create the run folder or see that it holds this very run, and keep other processes out of it meanwhile.

    ``more`` is what else decides its verdicts. The pictures are looked at row by row, see :func:`has_gaps`: a row
    that could not be judged for its picture can be once that is mended.

    Raises:
        UserError: there is no such model, or the folder holds another run, is in use, or cannot be written.
    """
    served = settings.base_url is not None
    asked = {
        **settings.model_dump(exclude={"dialect", "engine"}),
        **dialect_fields(settings.dialect, settings.model, served=served),
    }
    run = {"suite": loaded.suite.name, **asked, **more, "data": loaded.describe(), "format": 1}
    run |= weights_fields(settings.model, served=served)
    return run_folder(out, run, deciding=_deciding)


def _deciding(run: Run) -> Run:
    """Return what of a run.json decides: the same data under another path is the same data."""
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
    if spec.in_one_stream:  # no row depends on the others, and each is paid for
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
                    f"{failed_in_a_row} rows in a row could not be judged; the last one: {missing[max(missing)]}\n"
                    "What was judged is kept; the same command resumes there."
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
    """Yield the rows that are judged together; a block is the same rows whatever is done."""
    per_row = settings.votes * (2 if settings.orders == "both" else 1)
    rows = iter(rows)
    while block := list(islice(rows, max(1, _BLOCK_SEQUENCES // per_row))):
        yield block


def has_gaps(block: list[BenchmarkRow], done: Mapping[int, Judged]) -> bool:
    """Say whether any row of a block is still to be judged.

    Raises:
        UserError: a row that was judged is another one now, or shows other pictures under the same names.
    """
    for row in block:
        judged = done.get(row.index)
        if judged is None:
            continue
        if judged.key != row.key:
            raise UserError(f"row {row.index} (id {row.id}) is not the row that was judged: the data changed.")
        if judged.media is not None and judged.media != (now := media_digest(_media(row))):
            raise UserError(
                f"row {row.index} (id {row.id}) was judged on other pictures ({', '.join(_media(row))}: {judged.media} "
                f"there, {now} now). Choose another folder with --out."
            )
    return any(row.index not in done for row in block)


def with_media(row: BenchmarkRow, line: dict[str, Any]) -> dict[str, Any]:
    """Add to a line of predictions the digest of the files that the row shows, if it names any."""
    media = media_digest(_media(row))
    return line if media is None else {**line, "media": media}


def _media(row: BenchmarkRow) -> list[str]:
    return list(media_files(row.shown, ""))


def judge_rows(
    engine: Engine, rows: Iterable[BenchmarkRow], settings: RunSettings, attack: Attack | None = None
) -> Iterator[dict[str, Any] | str]:
    """Yield a line of predictions for each row, in order, or why it could not be judged."""
    return judge_attacked(engine, ((row, attack) for row in rows), settings)


def judge_attacked(
    engine: Engine, rows: Iterable[tuple[BenchmarkRow, Attack | None]], settings: RunSettings
) -> Iterator[dict[str, Any] | str]:
    """Yield the same for rows that each have an attack of their own, or none."""
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
    except UserError as error:  # a picture that cannot be shown leaves its row out, not the others
        return InvalidPair(str(error))
    return pair._replace(preferred=row.preferred, attack=attack)


def prediction_line(row: BenchmarkRow, passes: list[list[Any]]) -> dict[str, Any]:
    """Return what predictions.jsonl says of one row: what it is, what is right, every vote."""
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
