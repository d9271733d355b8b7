"""Run the cells of a study: one RL run each, from the same weights and over the same pairs in the same order.

    results = run_study(study, Path("runs/ablate"), print)     # resumes cell by cell
    failed(study, Path("runs/ablate"))       # ablate.results: {"stress | ppo | seed 3": "OutOfMemoryError: ..."}

A cell has a result if it was trained to the end, or until no token could be sampled any more, the kind of collapse that
studies look for. Any other end (out of memory, a lost connection, a bug) is not a result: it leaves ``error.txt`` in
the cell's folder, the other cells still run, and the next call runs this cell again.
"""

from __future__ import annotations

import gc
import json
import math
import multiprocessing
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from r1_reward.engines.workers import take_place
from r1_reward.models.quiet import quiet_libraries
from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json, write_json, write_text
from r1_reward.store.machine import keep_freed_memory
from r1_reward.studies.ablate.results import ERROR_FILE, RESULT_FILE, START_FILE, finished, result_of, study_folder
from r1_reward.studies.ablate.study import START_FROM_DEMO, Cell, Study, referee_weights

if TYPE_CHECKING:
    from datasets import Dataset


class Start(NamedTuple):
    """The common start of all cells."""

    checkpoint: str
    train: Dataset
    held_out: list[dict[str, Any]]


Note = Callable[[str], None]

_NEW_TOKENS = 1024  # of a judgment, if a study sets no max_completion_length


def run_study(study: Study, out: Path, note: Note, *, workers: int = 1) -> list[dict[str, Any]]:
    """Run every cell that has no result yet and return all results; ``note`` receives progress messages.

    Several ``workers`` run that many cells at once, each in a process with its share of the cores or a GPU. Results may
    then differ in the last digits, because sums depend on the number of threads.

    Raises:
        UserError: The folder holds another study, the trainer refuses an option, or a worker died.
    """
    with study_folder(study, out):
        _run_study(study, out, workers, note)
    return finished(study, out)


def _run_study(study: Study, out: Path, workers: int, note: Note) -> None:
    from r1_reward.train.rl_base import require_reference

    keep_freed_memory()
    cells, referees = list(study.cells()), referee_weights(study)
    for cell in cells:  # report an invalid option before the first cell runs
        require_reference(study.start, _arguments(cell, cell.folder(out) / "work"))
    waiting = [cell for cell in cells if result_of(cell, out, referees) is None]
    start = prepare(study, out, note)
    _judge_start(start, study, out, note)
    began = time.monotonic()
    for ran, (cell, said) in enumerate(_run_cells(waiting, study, out, workers, start, referees), 1):
        done = len(cells) - len(waiting) + ran
        left = (time.monotonic() - began) / ran * (len(waiting) - ran)
        note(f"{done}/{len(cells)} {cell}: {said}, {left / 60:.0f} min left")


def _run_cells(
    cells: list[Cell], study: Study, out: Path, workers: int, start: Start, referees: Mapping[str, str]
) -> Iterator[tuple[Cell, str]]:
    """Yield each cell and its outcome once it is written; with several workers, in order of completion."""
    if workers == 1:
        for cell in cells:
            yield cell, _run_and_write(cell, start, study, out, referees)
        return
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for place in range(workers):
        places.put(place)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (places, workers, study, out, start, referees))
    try:
        futures = {pool.submit(_work, cell): cell for cell in cells}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker died (killed, or out of memory); finished runs are kept. Run the same command again, perhaps "
            "with fewer --workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[Start, Study, Path, Mapping[str, str]] | None = None


def _start_worker(
    places: Any, workers: int, study: Study, out: Path, start: Start, referees: Mapping[str, str]
) -> None:
    global _worker
    take_place(places, workers)
    quiet_libraries()
    keep_freed_memory()
    _worker = (start, study, out, referees)


def _work(cell: Cell) -> str:
    assert _worker is not None
    return _run_and_write(cell, *_worker)


def _run_and_write(cell: Cell, start: Start, study: Study, out: Path, referees: Mapping[str, str]) -> str:
    """Run a cell, write its result or its error, and return a short summary."""
    folder = cell.folder(out)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    try:
        result = run_cell(cell, start, study, folder)
    except Exception as error:  # noqa: BLE001 - whatever it was, the other cells can be run
        said = _describe(error)
        write_text(folder / ERROR_FILE, f"{said}\n\n{traceback.format_exc()}")
        shutil.rmtree(folder / "work", ignore_errors=True)
    else:
        write_json(folder / RESULT_FILE, {**result, "identity": cell.identity(referees)})
        return f"{result['verdict']}, accuracy {result['accuracy']:.3f}"
    gc.collect()  # a trainer has reference cycles, and the next cell may need its memory
    return f"no result, {said}"


def _describe(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def prepare(study: Study, out: Path, note: Note) -> Start:
    """Return the start: the given checkpoint and pairs, or those of the demo's first phases."""
    from r1_reward.data.subsets import both_orders, without_reasoning
    from r1_reward.store.pairs import load_pairs

    if study.start != START_FROM_DEMO:
        train = load_pairs(study.data or "", check_images=False)
        held_out = load_pairs(study.held_out or "", check_images=False)
        checkpoint = study.start
    else:
        demo = _demo_start(out / "start", study, note)
        train = demo.rl_pairs() if study.train_pairs == "rl" else demo.hard_pairs()
        held_out, checkpoint = demo.pairs("test"), str(demo.folder / "sft")
    # One order of the pairs for all cells, from the study's seed and not the cell's.
    train = both_orders(without_reasoning(train), seed=study.start_seed)
    return Start(checkpoint, train, list(held_out.select(range(min(study.held_out_pairs, len(held_out))))))


def _demo_start(folder: Path, study: Study, note: Note) -> Any:
    from r1_reward.studies.demo.config import DemoConfig
    from r1_reward.studies.demo.pipeline import Demo
    from r1_reward.studies.demo.progress import DemoProgress

    with DemoProgress() as progress:
        demo = Demo(folder, DemoConfig(**{**study.demo, "seed": study.start_seed}), progress, resume=folder.exists())
        demo.run_until("attempts")
    note(f"start: the SFT model of the demo's seed {study.start_seed}")
    return demo


def run_cell(cell: Cell, start: Start, study: Study, folder: Path) -> dict[str, Any]:
    """Train one cell and return its curves, its held-out judgments and its verdict."""
    from r1_reward.models.checkpoint import load_model_and_processor
    from r1_reward.studies.ablate.stop import StopAtCollapse
    from r1_reward.studies.trainer import StudyTrainer
    from r1_reward.train.held_out import HeldOutAccuracy
    from r1_reward.train.monitor import collapsed

    model, processor = load_model_and_processor(start.checkpoint, dtype="float32")
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    args = _arguments(cell, work)
    trainer = StudyTrainer(model, args, train_dataset=start.train, processing_class=processor)
    _silence(trainer)
    curve = start.held_out[: study.curve_pairs]
    trainer.add_callback(
        HeldOutAccuracy(
            trainer, curve, every=study.held_out_every, max_new_tokens=args.max_completion_length or _NEW_TOKENS
        )
    )
    limits = {"max_completion_length": args.max_completion_length, "thresholds": study.thresholds()}
    stop = StopAtCollapse(**limits)
    if study.stop_at_collapse:
        trainer.add_callback(stop)
    began = time.monotonic()
    failure = _train(trainer)
    seconds = time.monotonic() - began
    log = trainer.state.log_history
    collapse = collapsed(log, **limits) or _unlogged(trainer, failure)
    result = {
        **cell._asdict(),
        "algorithm": args.algorithm,
        "seconds": seconds,
        # Of the rollouts: prompts, with their pictures, and responses.
        "tokens": max((row.get("num_tokens", 0) for row in log), default=0),
        "failure": failure,
        "collapse": collapse and collapse._asdict(),
        "stopped_at": stop.stopped_at,
        "verdict": f"collapsed at step {collapse.step}" if collapse else "finished",
        "log": log,
        # NaN weights are evaluated like any others: their judgments cannot be read, which counts as wrong.
        **judge_held_out(model, processor, start, args.max_completion_length),
    }
    shutil.rmtree(work, ignore_errors=True)
    return json.loads(json.dumps(result))


def judge_held_out(model: Any, processor: Any, start: Start, max_new_tokens: int | None) -> dict[str, Any]:
    """Judge the held-out pairs greedily in both orders; return accuracy (also per pair), readability, consistency."""
    from r1_reward.engines.in_process import TransformersEngine
    from r1_reward.judge.metrics import correctness, mean_tokens, parse_rate
    from r1_reward.judge.votes import Plan, judge_pairs

    engine = TransformersEngine(model, processor, batch_size=512)
    judged = judge_pairs(engine, start.held_out, Plan(max_new_tokens=max_new_tokens or _NEW_TOKENS))
    right = correctness(judged, [row["preferred"] for row in start.held_out]).mean(axis=1)
    return {
        "accuracy": float(right.mean()),
        "right": right.tolist(),
        "parse_rate": parse_rate(judged),
        "mean_tokens": mean_tokens(judged),
        "consistent": _consistent_share(judged),
    }


def _judge_start(start: Start, study: Study, out: Path, note: Note) -> None:
    """Write the start's metrics before any training, unless they are already known."""
    from r1_reward.models.checkpoint import load_model_and_processor
    from r1_reward.models.placing import placed

    path = out / START_FILE
    limit = max(int(cell.options.get("max_completion_length") or _NEW_TOKENS) for cell in study.cells())
    # Cells added to the study may allow longer judgments than the earlier ones.
    if not path.exists() or read_json(path).get("max_new_tokens", limit) != limit:
        model, processor = placed(lambda: load_model_and_processor(start.checkpoint, dtype="float32"))
        write_json(path, {**judge_held_out(model, processor, start, limit), "max_new_tokens": limit})
    note(f"before training: accuracy {read_json(path)['accuracy']:.3f}")


def _arguments(cell: Cell, folder: Path) -> Any:
    import torch

    from r1_reward.studies.trainer import StudyConfig

    fixed = {
        "output_dir": str(folder),
        "seed": cell.seed,
        "shuffle_dataset": False,
        "bf16": False,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    try:
        return StudyConfig(**{**fixed, **cell.options})
    except (ValueError, TypeError) as error:
        raise UserError(f"{cell.setting}.{cell.arm}: {error}") from error


def _train(trainer: Any) -> str | None:
    """Train to the end; return the collapse that ended training early, if any: no token can be sampled from NaN."""
    from r1_reward.train.monitor import SAMPLING_FAILED

    try:
        trainer.train()
    except RuntimeError as error:
        if SAMPLING_FAILED not in str(error):
            raise
        return str(error).splitlines()[0]
    return None


def _unlogged(trainer: Any, failure: str | None) -> Any:
    """Return the collapse that no log shows: failed sampling, or a last update that broke the weights."""
    from r1_reward.train.monitor import Collapse

    if failure is not None:
        return Collapse(trainer.state.global_step, "sampling_failed", {})
    if not all(bool(parameter.isfinite().all()) for parameter in trainer.model.parameters()):
        return Collapse(trainer.state.global_step, "not_finite", {"weights": math.nan})
    return None


def _silence(trainer: Any) -> None:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _consistent_share(judged: list[list[Any]]) -> float | None:
    """Return the share of judgments, among those with a referee verdict, whose reasoning supports the answer.

    The rule referee decides. None without a readable judgment or a verdict: a missing verdict is not a "no".
    """
    from r1_reward.judge.referee import RuleReferee
    from r1_reward.records.parsing import parse_judgment

    parsed = [parse_judgment(vote.text, cut=vote.truncated) for votes in judged for vote in votes]
    read = [one for one in parsed if one.answer is not None]
    verdicts = RuleReferee().judge([one.reasoning for one in read], [one.answer or 0 for one in read])
    known = [verdict for verdict in verdicts if verdict is not None]
    return sum(known) / len(known) if known else None
