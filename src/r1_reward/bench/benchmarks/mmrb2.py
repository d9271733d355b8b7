"""MMRB2 (Multimodal RewardBench 2, arXiv 2512.16899): 4,000 pairs on image generation, editing and reasoning.

Prompts and responses interleave texts and images. Each pair is judged in both orders, and each judgment counts
separately. Missing and unreadable judgments are excluded from the denominator, so the coverage is reported as well.

    r1-reward bench run mmrb2 --data MMRB2 --model MODEL --out RUN      # {t2i,edit,interleaved,reasoning}/ or .json
    r1-reward bench export RUN --out PREDICTIONS                        # the format that its own script scores
    r1-reward bench score mmrb2 PREDICTIONS --data MMRB2                # the same format, from any source
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from r1_reward.bench.benchmark import (
    Benchmark,
    Cluster,
    OfficialForm,
    OfficialScore,
    Protocol,
    PublishedRow,
    Size,
    official_columns,
    published_row,
)
from r1_reward.bench.fields import Draft, Fields, short
from r1_reward.bench.official import MMRB2Score, mmrb2_pooled
from r1_reward.bench.readers import open_tasks
from r1_reward.bench.rows import BenchmarkRow, Outcome, Vote
from r1_reward.records.content import Content, Place, to_parts
from r1_reward.records.errors import UserError, kind_of
from r1_reward.records.schema import Answer
from r1_reward.store.files import read_json
from r1_reward.store.sniff import is_array

TASKS = ("t2i", "edit", "interleaved", "reasoning")
COLUMNS = official_columns((*TASKS, "mean"))
_LETTERS: tuple[tuple[str, Answer], ...] = (("A", 1), ("B", 2), ("a", 1), ("b", 2))
_PLACEHOLDER = re.compile(r"<image_\d+>")

# ---- rows


def parse(row: Fields) -> Draft:
    """Parse the Hub's columns (texts with ``<image_N>``, separate images) or a pair of the built ``{task}.json``."""
    preferred = row.label("chosen", _LETTERS)
    if row.has("prompt_content", "response_a"):
        id = row.text("id")
        contents = [_built(row, "prompt_content", row.data.get("prompt_content"))]
        for side in ("response_a", "response_b"):
            given = row.data.get(side)
            inner = given.get("response_content") if isinstance(given, Mapping) else None
            contents.append(_built(row, f"{side}.response_content", inner))
    else:
        id = row.text("pair_id")
        contents = [_from_columns(row, name) for name in ("prompt", "response_a", "response_b")]
    question, first, second = contents
    return Draft(id, question, first, second, preferred, str(row.data.get("task") or ""))


def _from_columns(row: Fields, name: str) -> Content:
    """Return a content with its images at the placeholders, in order, or after the text if there are none.

    As in the official build, the number in a placeholder is ignored, and images beyond the placeholders are not shown.
    """
    text, images = row.data.get(f"{name}_text"), row.images(f"{name}_images")
    if not isinstance(text, str | None):
        row.problems.append((f"{name}_text", f"must be text, not {kind_of(text)}"))
        return ""
    texts = _PLACEHOLDER.split(text or "")
    wanted = len(texts) - 1
    if wanted > len(images):
        row.problems.append((f"{name}_text", f"has {wanted} image placeholders, but the row has {len(images)} images"))
        return ""
    if 0 < wanted < len(images):
        row.remarks.append("images beyond the placeholders in their text are not shown, as in the official build")
    pieces: list[str | Place] = [texts[0].strip()]
    for image, after in zip_longest(images[: wanted or None], texts[1:], fillvalue=""):
        pieces += [Place("image", image), str(after).strip()]
    return _content(row, f"{name}_text", pieces)


def _built(row: Fields, name: str, value: Any) -> Content:
    """Return a content of ``["text", ...]`` and ``["image", path]``."""
    if not isinstance(value, list) or not all(
        isinstance(one, list) and len(one) == 2 and one[0] in ("text", "image") and isinstance(one[1], str)
        for one in value
    ):
        wanted = 'must be a list of ["text", TEXT] and ["image", PATH]'
        row.problems.append((name, "is missing" if value is None else wanted))
        return ""
    pieces = [text.strip() if kind == "text" else Place("image", {"bytes": None, "path": text}) for kind, text in value]
    return _content(row, name, pieces)


def _content(row: Fields, name: str, pieces: Iterable[str | Place]) -> Content:
    shown = [piece for piece in pieces if piece != ""]
    if not shown:
        row.problems.append((name, "is empty: it has no text and no image"))
    return to_parts(shown)


# ---- score


def numbers(clusters: Sequence[Cluster]) -> dict[str, float | None]:
    """Return the mean over the four tasks, the pooled accuracy, the accuracy of each task, and the coverage.

    Only the first vote in each order counts; an unreadable one is excluded from the denominator.
    """
    right, judged, pairs = Counter[str](), Counter[str](), Counter[str]()
    for outcome in chain.from_iterable(clusters):
        task = outcome.category or ""
        pairs[task] += 1
        for votes in outcome.passes:
            if votes[0].correct is not None:
                judged[task] += 1
                right[task] += votes[0].correct
    scores = {task: MMRB2Score(right[task], judged[task], pairs[task]) for task in TASKS}
    known = [score.accuracy for score in scores.values() if score.accuracy is not None]
    mean = fmean(known) if len(known) == len(TASKS) else None
    pooled = mmrb2_pooled(scores.values())
    by_task = {task: score.accuracy for task, score in scores.items()}
    return {"mean": mean, "pooled": pooled.accuracy, **by_task, "coverage": pooled.coverage}


# ---- predictions in the official format


def write_form(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of ``{task}.json``: for each pair id the judgments in both directions, as letters."""
    files: dict[str, Any] = {}
    for line in lines:
        pair = {"forward": list[Any](), "reverse": list[Any]()}
        for vote in chain.from_iterable(line["passes"]):
            seen = {None: None, 0: "tie"}.get(vote["answer"], "AB"[(vote["answer"] == 2) != vote["swapped"]])
            entry = {"judgement": seen, "evaluator": "r1-reward", "metadata": {"tokens": vote.get("tokens")}}
            pair["reverse" if vote["swapped"] else "forward"].append(entry)
        files.setdefault(f"{line['category']}.json", {})[line["id"]] = pair
    return files


def has_form(path: Path) -> bool:
    """Return whether a path is a JSON file with one object, or a folder of JSON files that is not a run of ours."""
    if path.is_dir():
        return any(path.glob("*.json")) and not (path / "run.json").exists()
    return path.suffix == ".json" and path.is_file() and not is_array(path)


def read_form(path: Path, rows: Iterable[BenchmarkRow] | None) -> list[Outcome]:
    """Return the outcomes of all pairs in the tasks that the predictions cover; missing pairs count as not judged.

    Only the first entry in each direction counts. A judgment that is None or empty counts as missing; any text other
    than "A" and "B" is wrong. The letters of a reverse judgment refer to the order in which it saw the responses.

    Raises:
        UserError: there are no rows to compare with, or a file does not have this format or has an unknown pair.
    """
    if rows is None:
        raise UserError(f"{path}: MMRB2's prediction format has no labels; pass the benchmark's rows with --data.")
    said = _said(path)
    outcomes = [_outcome(row, said.get(row.id, {})) for row in rows]
    tasks = {one.category for one in outcomes if one.id in said}
    if strange := sorted(said.keys() - {one.id for one in outcomes}):
        raise UserError(f"{path}: {len(strange)} of {len(said)} pairs are not in --data, such as {strange[0]!r}.")
    return [one for one in outcomes if one.category in tasks]


def _said(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return the predictions in a file, or in all files of a folder, by pair id."""
    said: dict[str, Mapping[str, Any]] = {}
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        pairs = read_json(file)
        if not isinstance(pairs, dict) or not pairs:
            raise UserError(f'{file}: must be one JSON object, {{PAIR: {{"forward": [...], "reverse": [...]}}}}.')
        for id, pair in pairs.items():
            if id in said:
                raise UserError(f"{file}: pair {id!r} is also in another file; keep one of them.")
            said[id] = _checked(file, id, pair)
    return said


def _checked(file: Path, id: str, pair: Any) -> Mapping[str, Any]:
    entries = [pair.get(name) or [] for name in ("forward", "reverse")] if isinstance(pair, Mapping) else [None]
    if not all(isinstance(one, list) and all(isinstance(entry, Mapping) for entry in one) for one in entries):
        wanted = 'lists "forward" and "reverse" of objects with a "judgement"'
        raise UserError(f"{file}: pair {id!r} must have {wanted}, not {short(pair)}.")
    return cast("Mapping[str, Any]", pair)


def _outcome(row: BenchmarkRow, pair: Mapping[str, Any]) -> Outcome:
    passes = []
    for name, wanted in (("forward", row.preferred), ("reverse", 3 - row.preferred)):
        entries = pair.get(name)
        judgement = entries[0].get("judgement") if entries else None
        correct = judgement == "AB"[wanted - 1] if judgement else None
        neither = bool(judgement) and judgement not in ("A", "B")
        passes.append((Vote(correct, preferred_first=wanted == 1, third=neither),))
    return Outcome(
        row.index, row.id, tuple(passes), row.category, issue=row.issue, longer=row.longer, preferred=row.preferred
    )


# ---- published rows

_README = "MMRB2, README of facebookresearch/MMRB2 (December 2025)"
_PROMPTED = {"orders": "both", "rule": "left out", "votes": 1}


def _result(model: str, values: str, note: str = "") -> PublishedRow:
    return published_row(COLUMNS, model, values, _README, **_PROMPTED, note=note)


PUBLISHED = (
    _result("Gemini-3-Pro", "74.4 74.9 76.4 79.5 76.3"),
    _result("GPT-5", "70.5 73.8 74.4 70.2 72.2"),
    _result("Gemini-2.5-Pro", "70.5 71.3 75.1 66.6 70.9"),
    _result("Qwen3-VL-32B", "64.1 67.3 70.5 56.6 64.6"),
    _result("Gemini-2.5-Flash", "63.1 66.5 69.4 57.5 64.1"),
    _result("GPT-4.1", "65.8 68.2 67.0 53.0 63.5"),
    _result("Qwen3-VL-235B-A22B", "62.0 64.8 69.0 55.9 62.9"),
    _result("GPT-4o", "60.3 65.0 61.5 51.9 59.7"),
    _result("Qwen3-VL-8B", "59.4 61.7 61.5 54.6 59.3"),
    _result("Qwen2.5-VL-72B", "59.1 64.6 62.3 50.0 59.0"),
    _result("Qwen3-VL-30B-A3B", "60.0 59.5 57.3 57.3 58.5"),
    _result("Gemma-3-27B", "58.3 60.2 61.1 49.4 57.3"),
    _result("Gemma-3-12B", "56.0 58.0 58.0 49.3 55.3"),
    _result("Qwen2.5-VL-7B", "50.4 57.1 48.4 47.5 50.9"),
    _result("Gemma-3-4B", "51.7 51.0 51.3 48.8 50.7"),
)

BENCHMARK = Benchmark(
    name="mmrb2",
    title="MMRB2",
    parse=parse,
    marks=("pair_id", "prompt_content"),
    hub_id="rl-research/multimodal-rewardbench-2",
    open=partial(open_tasks, tasks={task: (task,) for task in TASKS}, inside="pairs"),
    sizes=(Size("release of December 2025 (4,000 pairs)", 4000, dict.fromkeys(TASKS, 1000), apart=True),),
    categories=TASKS,
    columns=COLUMNS,
    protocol=Protocol(orders="both", rule="excluded from the denominator"),
    published=PUBLISHED,
    max_images=64,  # one pair has 39 in its responses alone
    needs_media=False,  # 491 responses of the reasoning task are text, and its prompts may have no image
    official=OfficialScore(
        numbers,
        about="The first judgment in each order counts. Missing and unreadable judgments are excluded from the "
        "denominator, so they do not lower the accuracy: check the coverage. The published average is the mean of the "
        "tasks; the official script pools their counts.",
    ),
    form=OfficialForm(
        "mmrb2",
        write_form,
        has_form,
        read_form,
        orders="both",
        notes=("The first judgment in each direction counts; a pair without any counts as not judged.",),
    ),  # fmt: skip
    notes=("The MMRB2 data are for evaluation only (CC BY-NC 4.0).",),
)
