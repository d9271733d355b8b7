"""Run the cells of a study: one RL run each, from the same weights, over the same pairs in the same order."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from r1_reward.engines.workers import take_place
from r1_reward.models.quiet import quiet_libraries
from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json, write_json
from r1_reward.studies.ablate.study import START_FROM_DEMO, Cell, Study

if TYPE_CHECKING:
    from datasets import Dataset


class Start(NamedTuple):
    """What every cell begins with."""

    checkpoint: str
    train: Dataset
    held_out: list[dict[str, Any]]


START_FILE = "start.json"
"""What the start itself came to, in the study's folder."""

Note = Callable[[str], None]


def run_study(study: Study, out: Path, note: Note, *, workers: int = 1) -> list[dict[str, Any]]:
    """Run every cell that has no result yet and return the results of all; ``note`` is told what happens.

    With several ``workers`` as many cells run at once, each in a process with its share of the cores or a GPU. What a
    cell computes may then differ in the last digits: sums are split by the number of threads.

    Raises:
        UserError: the folder holds the cells of another study, or a worker died.
    """
    start = prepare(study, out, note)
    _judge_start(start, study, out, note)
    cells = list(study.cells())
    waiting = [cell for cell in cells if not _is_done(cell, start, out)]
    began = time.monotonic()
    for ran, result in enumerate(_run_cells(waiting, study, out, workers, start), 1):
        done = len(cells) - len(waiting) + ran
        left = (time.monotonic() - began) / ran * (len(waiting) - ran)
        note(
            f"{done}/{len(cells)} {result['setting']} | {result['arm']} | seed {result['seed']}: "
            f"{result['verdict']}, accuracy {result['accuracy']:.3f}, {left / 60:.0f} min left"
        )
    return finished(study, out)


def _is_done(cell: Cell, start: Start, out: Path) -> bool:
    path = cell.folder(out) / "result.json"
    if not path.exists():
        return False
    if read_json(path).get("fingerprint") != cell.fingerprint(start.checkpoint):
        raise UserError(f"{path}: was run with other options; choose another folder, or remove the cell's.")
    return True


def _run_cells(cells: list[Cell], study: Study, out: Path, workers: int, start: Start) -> Iterator[dict[str, Any]]:
    """Yield the result of each cell when it is written; with several workers in the order they finish."""
    if workers == 1:
        for cell in cells:
            yield _run_and_write(cell, start, study, out)
        return
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for place in range(workers):
        places.put(place)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (places, workers, study, out, start))
    try:
        for future in as_completed([pool.submit(_work, cell) for cell in cells]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker ended before its time (killed, or out of memory); finished runs are kept. Run the same command "
            "again, perhaps with fewer --workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[Study, Path, Start] | None = None


def _start_worker(places: Any, workers: int, study: Study, out: Path, start: Start) -> None:
    global _worker
    take_place(places, workers)
    quiet_libraries()
    _worker = (study, out, start)


def _work(cell: Cell) -> dict[str, Any]:
    assert _worker is not None
    study, out, start = _worker
    return _run_and_write(cell, start, study, out)


def _run_and_write(cell: Cell, start: Start, study: Study, out: Path) -> dict[str, Any]:
    result = run_cell(cell, start, study, cell.folder(out))
    result["fingerprint"] = cell.fingerprint(start.checkpoint)
    write_json(cell.folder(out) / "result.json", result)
    return result


def finished(study: Study, out: Path) -> list[dict[str, Any]]:
    """Return the results of the cells that have one."""
    paths = [cell.folder(out) / "result.json" for cell in study.cells()]
    return [read_json(path) for path in paths if path.exists()]


def prepare(study: Study, out: Path, note: Note) -> Start:
    """Return the start: a checkpoint and pairs that are given, or those of the demo's first phases."""
    from r1_reward.data.subsets import both_orders, without_reasoning
    from r1_reward.store.pairs import load_pairs

    if study.start != START_FROM_DEMO:
        train = load_pairs(study.data or "", check_images=False)
        held_out = load_pairs(study.held_out or "", check_images=False)
        checkpoint = study.start
    else:
        demo = _demo_start(out / "start", study, note)
        train, held_out, checkpoint = demo.hard_pairs(), demo.pairs("test"), str(demo.folder / "sft")
    # One order of the pairs for all cells, by a seed of the study and not of the cell.
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
        HeldOutAccuracy(trainer, curve, every=study.held_out_every, max_new_tokens=args.max_completion_length)
    )
    began = time.monotonic()
    failure = _train(trainer)
    seconds = time.monotonic() - began
    log = trainer.state.log_history
    collapse = collapsed(log, max_completion_length=args.max_completion_length)
    result = {
        **cell._asdict(),
        "algorithm": args.algorithm,
        "seconds": seconds,
        "tokens": max((row.get("num_tokens", 0) for row in log), default=0),
        "failure": failure,
        "collapse": collapse and collapse._asdict(),
        "verdict": f"collapsed at step {collapse.step}" if collapse else failure or "finished",
        "log": log,
    }
    try:
        result |= judge_held_out(model, processor, start, args.max_completion_length)
    except (RuntimeError, ValueError) as error:  # weights that are NaN cannot be decoded
        lost = [0.0] * len(start.held_out)
        result |= {"accuracy": 0.0, "right": lost, "parse_rate": 0.0, "failure": str(error)}
    shutil.rmtree(work, ignore_errors=True)
    return json.loads(json.dumps(result))


def judge_held_out(model: Any, processor: Any, start: Start, max_new_tokens: int | None) -> dict[str, Any]:
    """Judge the held-out pairs greedily in both orders; return accuracy, also by pair, readability and consistency."""
    from r1_reward.engines.in_process import TransformersEngine
    from r1_reward.judge.metrics import correctness, mean_tokens, parse_rate
    from r1_reward.judge.votes import Plan, judge_pairs

    engine = TransformersEngine(model, processor, batch_size=512)
    judged = judge_pairs(engine, start.held_out, Plan(max_new_tokens=max_new_tokens or 1024))
    right = correctness(judged, [row["preferred"] for row in start.held_out]).mean(axis=1)
    return {
        "accuracy": float(right.mean()),
        "right": right.tolist(),
        "parse_rate": parse_rate(judged),
        "mean_tokens": mean_tokens(judged),
        "consistent": _consistent_share(judged),
    }


def _judge_start(start: Start, study: Study, out: Path, note: Note) -> None:
    """Write what the start comes to without any training, unless that is known already."""
    from r1_reward.models.checkpoint import load_model_and_processor
    from r1_reward.models.placing import placed

    path = out / START_FILE
    if not path.exists():
        model, processor = placed(lambda: load_model_and_processor(start.checkpoint, dtype="float32"))
        limit = max(int(cell.options.get("max_completion_length", 1024)) for cell in study.cells())
        write_json(path, judge_held_out(model, processor, start, limit))
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
    """Train to the end; return what stopped it, if anything did."""
    try:
        trainer.train()
    except (RuntimeError, ValueError) as error:  # sampling from NaN probabilities ends here
        return str(error).splitlines()[0]
    return None


def _silence(trainer: Any) -> None:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _consistent_share(judged: list[list[Any]]) -> float | None:
    """Return the share of readable judgments whose reasoning supports their answer, by the rule referee."""
    from r1_reward.judge.referee import RuleReferee
    from r1_reward.records.parsing import parse_judgment

    parsed = [parse_judgment(judgment.text) for votes in judged for judgment in votes]
    read = [one for one in parsed if one.answer is not None]
    if not read:
        return None
    verdicts = RuleReferee().judge([one.reasoning for one in read], [one.answer or 0 for one in read])
    return sum(verdict or 0.0 for verdict in verdicts) / len(read)
