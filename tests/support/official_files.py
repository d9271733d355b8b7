"""Made-up files with the form, columns and numbers of six benchmarks; no row of theirs is in this repository.

Each function fills a folder and returns it. The same ``seed`` gives the same files. ``rows`` keeps only the first rows
(or groups) of every task, and these first ones show every kind of label, source and number of pictures that they have
room for. Pictures and films are tiny and shared by many rows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from official_rows import Row, png
from video_files import greys, write_film, write_frames

T = TypeVar("T")

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
GREYS = 16
"""Different pictures; ``pictures/3.png`` is a grey that no other picture has."""
PICTURES = [png(9 + number) for number in range(GREYS)]

VIDEO_REWARD_BENCH = {
    "long-form perception": 283, "short-form perception": 413, "knowledge": 238, "reasoning": 278, "safety": 351,
}  # fmt: skip
VIDEOS, QUESTIONS = 1482, 1559
MR2 = {"image": 240, "video": 748}
"""Rows. The images follow from printed scores; the number of videos was never printed, 748 is the least it can be."""
RANKINGS = [(1, 2, 3, 4), (1, 1, 2, 3), (1, 1, 3, 4), (1, 2, 2, 3), (1, 1, 1, 2), (1, 2, 3, 3)]
# Rows and ties of a task, the mean number of criteria of one pair, and the most.
OMNI = {
    "text_to_text": (417, 51, 2.7, 6), "text_image_to_text": (528, 98, 2.8, 6), "text_video_to_text": (443, 63, 2.6, 6),
    "text_to_image": (509, 68, 7.6, 10), "text_image_to_image": (229, 22, 2.0, 4),
}  # fmt: skip
OMNI_MEDIA = {
    "text_to_text": (), "text_image_to_text": ("image",), "text_video_to_text": (),
    "text_to_image": ("response1", "response2"), "text_image_to_image": ("image", "response1", "response2"),
}  # fmt: skip
EDIT_GROUPS = {"2pair": 186, "3pair": 150, "4pair": 148}
EDIT_PARTS = {"2pair": 1, "3pair": 2, "4pair": 4}
REWARD_BENCH_2 = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495, "Ties": 102}
METADATA = pa.struct([
    ("category", pa.string()), ("correct", pa.string()), ("index", pa.float64()),
    ("instruction_id_list", pa.list_(pa.string())), ("label", pa.string()), ("method", pa.string()),
    ("models", pa.list_(pa.string())), ("prompt_norm", pa.string()), ("subcategory", pa.string()),
    ("valid", pa.float64()),
])  # fmt: skip


def mixed(counts: Mapping[T, int], rng: random.Random) -> list[T]:
    """Return each kind as often as its count says: one of each first, then the rest in random order."""
    rest = [kind for kind, count in counts.items() for _ in range(count - 1)]
    rng.shuffle(rest)
    return [*(kind for kind, count in counts.items() if count), *rest]


def picture(number: int, name: str = "0.png") -> Row:
    """Return a cell of the Hub's Image feature."""
    return {"bytes": PICTURES[number % GREYS], "path": name}


def write_pictures(folder: Path) -> None:
    """Write the pictures as ``0.png``, ``1.png``, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(PICTURES):
        (folder / f"{number}.png").write_bytes(content)


def write_table(file: Path, rows: Sequence[Row], columns: Mapping[str, pa.DataType]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(list(columns.items()))), file)


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def strings(*names: str) -> dict[str, pa.DataType]:
    return dict.fromkeys(names, pa.string())


def video_reward_bench(folder: Path, *, seed: int = 0, rows: int | None = None) -> Path:
    """Write ``test.jsonl`` and ``videos/``: 1,482 films and 1,559 questions in 1,563 rows of five categories.

    The columns of the original were never read by us; these names are plain ones to map from.
    """
    rng = random.Random(f"{seed} video")
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    film = write_film(folder / "videos" / "0.mp4", greys(4)).read_bytes()
    lines: list[Row] = []
    number = 0
    for category, count in VIDEO_REWARD_BENCH.items():
        for place in range(count):
            video = number if number < VIDEOS else number - VIDEOS
            question = number if number < QUESTIONS else number - QUESTIONS
            number += 1
            if rows is not None and place >= rows:
                continue
            (folder / "videos" / f"{video}.mp4").write_bytes(film)
            length = rng.randint(5, 40)
            lines.append({
                "id": f"{category.split()[0]}_{place}", "category": category, "video": f"videos/{video}.mp4",
                "question": f"What happens in film {question}?",
                "chosen": " ".join([f"Right {number}."] + ["word"] * length),
                "rejected": " ".join([f"Wrong {number}."] + ["word"] * rng.randint(5, 40)),
            })  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "test.jsonl").write_text(text, encoding="utf-8")
    return folder


def mr2_bench(folder: Path, *, seed: int = 0, rows: int | None = None) -> Path:
    """Write ``image.json`` and ``video.json`` with four ranked responses a row, 1 the best and ties equal.

    Every other video is a folder of frames with a ``sampling_interval``, the others are files.
    """
    write_pictures(folder / "images")
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    write_film(folder / "videos" / "film.mp4", greys(4))
    write_frames(folder / "videos" / "frames", greys(4))
    for task, count in MR2.items():
        rng = random.Random(f"{seed} {task}")
        share = -(-count // len(RANKINGS))
        rankings = mixed(dict.fromkeys(RANKINGS, share), rng)[:count]
        lines = []
        for number, ranking in enumerate(rankings[:rows]):
            order = list(ranking)
            rng.shuffle(order)
            line: Row = {
                "prompt": f"What does {task} {number} show?", "rankings": order,
                "responses": [f"Answer {place} of {number}, of rank {rank}." for place, rank in enumerate(order)],
            }  # fmt: skip
            if task == "image":
                line["image"] = f"images/{number % GREYS}.png"
            elif number % 2:
                line |= {"video": "videos/frames", "sampling_interval": 1.0}
            else:
                line["video"] = "videos/film.mp4"
            lines.append(line)
        write_json(folder / f"{task}.json", lines)
    return folder


def group_sizes(rows: int, mean: float, largest: int, rng: random.Random) -> list[int]:
    """Return sizes of groups that add up to ``rows``, the first ``largest``, if ``rows`` allow it."""
    sizes = [1] * max(1, round(rows / mean))
    sizes[0] += min(largest - 1, rows - len(sizes))
    for _ in range(rows - sum(sizes)):
        sizes[rng.choice([place for place, size in enumerate(sizes) if size < largest])] += 1
    return sizes


def omni_rows(task: str, *, seed: int = 0, rows: int | None = None) -> list[Row]:
    """Return rows as the JSON files have them, media as paths relative to ``media_data``.

    Rows of one pair follow each other, share their ``id``, and differ in ``criteria`` and ``criteria_preference``.
    """
    rng = random.Random(f"{seed} {task}")
    count, ties, mean, largest = OMNI[task]
    first = (count - ties + 1) // 2
    labels = mixed({"response1": first, "response2": count - ties - first, "tie": ties}, rng)
    media = OMNI_MEDIA[task]
    made: list[Row] = []
    for pair, size in enumerate(group_sizes(count, mean, largest, rng)):
        shown = [f"{task}/{(3 * pair + place) % GREYS}.png" for place in range(3)]
        line = {"prompt": f"Prompt {pair} of {task}.", "image": shown[0], "video": f"{task}/{pair % 2}.mp4"}
        for place in (1, 2):
            line[f"response{place}"] = (
                shown[place] if "response1" in media else f"Response {place} of pair {pair} of {task}."
            )
        if "image" not in media:
            line.pop("image")
        if "video" not in task:
            line.pop("video")
        for number in range(size):
            criteria = f"Prefer the one that is better in way {number}."
            made.append({
                **line, "model1": "model-a", "model2": "model-b", "criteria": criteria,
                "criteria_preference": labels[len(made)], "id": f"{task}_{pair}",
            })  # fmt: skip
    return made[:rows]


def omni_reward_bench(folder: Path, *, seed: int = 0, rows: int | None = None, form: str = "parquet") -> Path:
    """Write five tasks and ``media_data/``.

    ``form`` "parquet" gives ``{task}/test-00000-of-00001.parquet`` as on the Hub, its pictures embedded; "json" gives
    ``{task}_preferences.json`` with paths, as the official script reads it.
    """
    for task in OMNI:
        media = OMNI_MEDIA[task]
        lines = omni_rows(task, seed=seed, rows=rows)
        if media:
            write_pictures(folder / "media_data" / task)
        if "video" in task:
            (folder / "media_data" / task).mkdir(parents=True, exist_ok=True)
            for number in range(2):
                write_film(folder / "media_data" / task / f"{number}.mp4", greys(12))
        if form == "json":
            write_json(folder / f"{task}_preferences.json", lines)
            continue
        for line in lines:
            for name in media:
                path = line[name]
                line |= {f"{name}_path": path, name: picture(int(Path(path).stem), Path(path).name)}
        source = ["image"] if "image" in media else ["video"] if "video" in task else []
        names = ["prompt", *source, "response1", "response2", "model1", "model2", "criteria", "criteria_preference"]
        columns = strings(*names, "id", *(f"{name}_path" for name in media)) | dict.fromkeys(media, IMAGE)
        write_table(folder / task / "test-00000-of-00001.parquet", lines, columns)
    return folder


def edit_reward_bench(folder: Path, *, seed: int = 0, rows: int | None = None) -> Path:
    """Write ``{2,3,4}pair/train-....parquet``: one row per comparison of a group, ``rows`` counts groups.

    Only comparisons of ``2pair`` tie, so that a guesser has 1/3, 1/8 and 1/64 of the groups.
    """
    for task, groups in EDIT_GROUPS.items():
        rng = random.Random(f"{seed} {task}")
        lines: list[Row] = []
        for number in range(groups if rows is None else min(rows, groups)):
            lines += edit_group(task, number, rng)
        scores = ("score", "overall_score", "instruction_following", "visual_quality")
        columns = (
            strings("id", "instruction", "dataset", "ranking")
            | dict.fromkeys(("source_image", "candidate_1", "candidate_2"), IMAGE)
            | strings("model_1", "model_2", "comparison_type")
            | {f"{score}_{side}": pa.float64() for score in scores for side in (1, 2)}
            | {"num_candidates": pa.int64()}
        )
        parts = EDIT_PARTS[task]
        for part in range(parts):
            piece = lines[len(lines) * part // parts : len(lines) * (part + 1) // parts]
            write_table(folder / task / f"train-{part:05}-of-{parts:05}.parquet", piece, columns)
    return folder


def edit_group(task: str, number: int, rng: random.Random) -> list[Row]:
    """Return the comparisons of one group: 1, 3 or 6; group 0 of ``2pair`` ties, 1 prefers A and 2 prefers B."""
    size = int(task[0])
    id = f"{rng.getrandbits(96):024x}"
    scores = rng.sample(range(3, 25), size)
    if size == 2:
        scores = sorted(scores, reverse=number % 3 == 1)
        scores[1] = scores[0] if number % 3 == 0 else scores[1]
    lines: list[Row] = []
    for left in range(size):
        for right in range(left + 1, size):
            first, second = "ABCD"[left], "ABCD"[right]
            better = (scores[left] > scores[right]) - (scores[left] < scores[right])
            line: Row = {
                "id": id if size == 2 else f"{id}_{len(lines)}", "instruction": f"Change scene {number} of {task}.",
                "dataset": task, "comparison_type": f"{first}vs{second}", "num_candidates": size,
                "ranking": (f"{first}={second}", f"{first}>{second}", f"{second}>{first}")[better],
                "source_image": picture(number, f"{id}_source.jpg"),
            }  # fmt: skip
            for side, place in ((1, left), (2, right)):
                score = round(scores[place] / 3, 2)
                line |= {
                    f"candidate_{side}": picture(number + 1 + place, f"{id}_{place}.png"),
                    f"model_{side}": f"editor_{place}_seed42", f"score_{side}": score, f"overall_score_{side}": score,
                    f"instruction_following_{side}": score / 2, f"visual_quality_{side}": score / 2,
                }  # fmt: skip
            lines.append(line)
    return lines


def reward_bench_2(folder: Path, *, seed: int = 0, rows: int | None = None) -> Path:
    """Write ``data/test-00000-of-00001.parquet``: four answers a row, and in Ties pairs of ``ref:n`` and ``tied:n``.

    An odd ``rows`` keeps one more of Ties, so that no pair is parted.
    """
    rng = random.Random(f"{seed} text")
    lines: list[Row] = []
    for subset, count in REWARD_BENCH_2.items():
        kept = rows if rows is None or subset != "Ties" else rows + rows % 2
        for number in range(count if kept is None else min(kept, count)):
            kind = ("ref", "tied")[number % 2]
            right, wrong = (
                (1, 3) if subset != "Ties" else (1 if kind == "ref" else rng.randint(2, 8), rng.randint(2, 14))
            )
            lines.append({
                "id": f"{kind}:{number // 2}" if subset == "Ties" else str(len(lines)),
                "prompt": f"{subset}: question {number}?", "subset": subset,
                "chosen": [f"Right {place} of {subset} {number}." for place in range(right)],
                "rejected": [f"Wrong {place} of {subset} {number}." for place in range(wrong)],
                "num_correct": right, "num_incorrect": wrong, "total_completions": right + wrong,
                "models": [f"model-{place}" for place in range(right + wrong)],
                "additional_metadata": {"category": subset, "index": float(number), "models": [], "valid": 1.0},
            })  # fmt: skip
    texts, numbers = pa.list_(pa.string()), ("num_correct", "num_incorrect", "total_completions")
    columns = (
        strings("id", "prompt") | dict.fromkeys(("chosen", "rejected"), texts) | dict.fromkeys(numbers, pa.int64())
        | {"models": texts, "subset": pa.string(), "additional_metadata": METADATA}
    )  # fmt: skip
    write_table(folder / "data" / "test-00000-of-00001.parquet", lines, columns)
    return folder
