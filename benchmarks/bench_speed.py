"""Compare the harness with a faithful one-row-at-a-time loop, and 15 votes with 15 passes, in verdicts per second.

Both sides of each ratio run in this process, on the same model, rows and machine, and must give the same verdicts.

    python benchmarks/bench_speed.py --model runs/demo-seed0/rl --data runs/demo-seed0/data/test.parquet
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from r1_reward.bench.suites import load_suite, row_images
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.judge.prepare import Prepared, opened
from r1_reward.judge.votes import Plan, draw_votes, read_judgment
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.models.placing import placed
from r1_reward.records.prompt import build_messages, special_tokens_of
from r1_reward.records.schema import Completion
from r1_reward.store.files import write_json
from r1_reward.store.machine import describe_machine


def pictures(row, scale):
    """Load a row's pictures, enlarged ``scale`` times each way."""
    return [image.resize((image.width * scale, image.height * scale)) for image in row_images(row)]


def one_at_a_time(model, processor, rows, max_new_tokens, scale=1):
    """Judge rows like most evaluation scripts: load the picture, process it, generate with a batch of one."""
    verdicts, special_tokens = [], special_tokens_of(processor)
    for row in rows:
        images = pictures(row, scale)
        messages = build_messages(
            row.question, row.response_1, row.response_2, images=len(images), special_tokens=special_tokens
        )
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], images=[images], return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        text = processor.tokenizer.decode(output[0, inputs["input_ids"].size(1) :], skip_special_tokens=True)
        verdicts.append(read_judgment(Completion(text=text, tokens=0), swapped=False).answer)
    return verdicts


def harness(engine, rows, votes=1, seed=0, scale=1, **options):
    """Judge rows with the harness, opening pictures row by row as in a run."""
    pairs = (
        Prepared(row.question, opened(pictures(row, scale)), (row.response_1, row.response_2), row.preferred)
        for row in rows
    )
    return list(draw_votes(engine, pairs, Plan(votes, "stored", seed=seed, **options)))


def timed(function, *args, **options):
    """Return the seconds and the result."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = function(*args, **options)
    return time.perf_counter() - start, result


def best(repeats, function, *args, **options):
    """Return the shortest time of several runs (other work on the machine only adds time), and the last result."""
    runs = [timed(function, *args, **options) for _ in range(repeats)]
    return min(seconds for seconds, _ in runs), runs[-1][1]


def measure(model, processor, engine, rows, options, scale):
    """Return both ratios for pictures of one size."""
    limit = {"max_new_tokens": options.max_new_tokens, "scale": scale}
    sampling = {**limit, "temperature": 1.0}
    slow, expected = timed(one_at_a_time, model, processor, rows, options.max_new_tokens, scale)
    fast, judged = best(options.repeats, harness, engine, rows, **limit)
    together, voted = best(options.repeats, harness, engine, rows, votes=options.votes, **sampling)
    one_pass, _ = best(options.repeats, harness, engine, rows, **sampling)
    return {
        "pixels": list(pictures(rows[0], scale)[0].size),
        "one_at_a_time": {"seconds": slow, "verdicts_per_second": len(rows) / slow},
        "harness": {"seconds": fast, "verdicts_per_second": len(rows) / fast, "speedup": slow / fast},
        "same_verdicts": sum(a == votes[0].answer for a, votes in zip(expected, judged, strict=True)),
        "votes": {
            "votes": options.votes,
            "completions": sum(len(votes) for votes in voted),
            "together_seconds": together,
            "one_pass_seconds": one_pass,
            "cost_of_separate_batched_passes": together / (options.votes * one_pass),
            "cost_of_separate_passes_one_row_at_a_time": together / (options.votes * slow),
        },
    }


def main():
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--votes", type=int, default=15)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench-speed.json"))
    options = parser.parse_args()
    model, processor = placed(lambda: load_model_and_processor(options.model))
    model.eval()
    rows = [row for row, _ in zip(load_suite("pairs", options.data).rows(), range(options.rows), strict=False)]
    engine = TransformersEngine(model, processor, batch_size=options.batch_size)
    limit = {"max_new_tokens": options.max_new_tokens}
    harness(engine, rows[:8], **limit)  # warm up
    one_at_a_time(model, processor, rows[:4], options.max_new_tokens)
    result = {
        "machine": describe_machine(),
        "model": Path(options.model).name,
        "rows": len(rows),
        "max_new_tokens": options.max_new_tokens,
        "batch_size": options.batch_size,
        "repeats": options.repeats,
        "by_picture": [measure(model, processor, engine, rows, options, scale) for scale in (1, 4)],
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
