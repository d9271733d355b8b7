"""Reorder and split a dataset of pairs without leaking information to the model.

:func:`balance` and :func:`both_orders` make the position of the better response uninformative; :func:`split` keeps each
image on one side. All depend only on the rows and a seed. Call :func:`refuse_ties` before training on winners.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from r1_reward.records.content import places_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS
from r1_reward.store.identity import media_digest
from r1_reward.store.images import ImageError
from r1_reward.store.part_columns import have_parts
from r1_reward.store.video import find_video

_LISTED = 5
_ROWS_AT_ONCE = 64  # rows in memory while a dataset is rewritten, images included


def refuse_ties(pairs: Dataset | Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError if any pair has no winner (a tie or no label): such pairs can be judged, but not trained on."""
    # By column: iterating over a dataset's rows would load their images.
    labels = pairs["preferred"] if isinstance(pairs, Dataset) else [row["preferred"] for row in pairs]
    without = [number for number, label in enumerate(labels) if label not in (1, 2)]
    if without:
        names = ", ".join(str(pairs[number].get("id", number)) for number in without[:_LISTED])
        more = ", ..." if len(without) > _LISTED else ""
        pairs_have = "1 pair has" if len(without) == 1 else f"{len(without):,} pairs have"
        raise UserError(
            f"{pairs_have} no winner (id {names}{more}): `preferred` is 0 (a tie) or missing, but training needs a "
            "better response. Remove such rows with `r1-reward data mix` or "
            "pairs.filter(lambda row: row['preferred'] in (1, 2))."
        )


def balance(dataset: Dataset, *, seed: int, keep_order: bool = False) -> Dataset:
    """Shuffle the rows and make response 1 the preferred one in half of them (one more or less if odd).

    ``keep_order`` keeps the order of the rows, for a curriculum.

    Responses are swapped in a random selection of rows, so position does not reveal a row's origin either. Rows with
    ``reasoning``, which refers to "Response 1", are never swapped; if these alone exceed one half, the result is as
    balanced as possible and a warning gives the counts.

    Raises:
        UserError: a row has no winner.
    """
    refuse_ties(dataset)
    rng = random.Random(seed)
    old = list(dataset["preferred"])
    new = _balanced_labels(old, [bool(text) for text in dataset["reasoning"]], rng)
    counts = (new.count(1), new.count(2))
    if abs(counts[0] - counts[1]) > 1:
        warnings.warn(
            f"labels cannot be balanced: {counts[0]} rows prefer response 1 and {counts[1]} prefer response 2, because "
            "rows with reasoning are never swapped",
            stacklevel=2,
        )
    balanced = _with_labels(dataset, old, new)
    if keep_order:
        return balanced
    order = list(range(len(new)))
    rng.shuffle(order)
    return balanced.select(order)


def both_orders(dataset: Dataset, *, seed: int) -> Dataset:
    """Shuffle the rows and repeat each one with its responses swapped, directly after the original.

    Every batch of even size is then balanced, so reinforcement learning is not pushed toward a position by chance.

    Raises:
        UserError: a row has no winner.
        ValueError: a row has ``reasoning``, which refers to "Response 1".
    """
    refuse_ties(dataset)
    if any(dataset["reasoning"]):
        raise ValueError("rows with reasoning cannot be swapped; remove the reasoning first")
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    twice = dataset.select([index for index in order for _ in range(2)])
    old = list(twice["preferred"])
    new = [3 - label if place % 2 else label for place, label in enumerate(old)]
    return _with_labels(twice, old, new)


def without_reasoning(dataset: Dataset) -> Dataset:
    """Return the rows without the teacher's reasoning, so that the responses of any row can be swapped."""
    feature = dataset.features["reasoning"]
    return dataset.remove_columns("reasoning").add_column("reasoning", [None] * len(dataset), feature=feature)


def _balanced_labels(labels: list[int], fixed: list[bool], rng: random.Random) -> list[int]:
    """Return labels that are as balanced as the fixed ones allow, the free ones assigned at random."""
    free = [index for index, keep in enumerate(fixed) if not keep]
    ones_fixed = sum(label == 1 for label, keep in zip(labels, fixed, strict=True) if keep)
    wanted = (len(labels) + rng.randrange(2)) // 2 - ones_fixed
    ones = set(rng.sample(free, min(max(wanted, 0), len(free))))
    return [label if keep else 2 - (i in ones) for i, (label, keep) in enumerate(zip(labels, fixed, strict=True))]


def _with_labels(dataset: Dataset, old: list[int], new: list[int]) -> Dataset:
    """Swap the responses where the label changes, without touching or copying the image column.

    Responses with images are swapped row by row, because a whole column may not fit into memory.
    """
    if have_parts(dataset.features):
        return dataset.map(
            _with_label,
            with_indices=True,
            fn_kwargs={"labels": new},
            features=dataset.features,
            writer_batch_size=_ROWS_AT_ONCE,
        )
    first, second = list(dataset["response_1"]), list(dataset["response_2"])
    for index in (index for index, label in enumerate(new) if label != old[index]):
        first[index], second[index] = second[index], first[index]
    columns, features = dataset.column_names, dataset.features
    for name, values in {"response_1": first, "response_2": second, "preferred": new}.items():
        dataset = dataset.remove_columns(name).add_column(name, values, feature=features[name])
    return dataset.select_columns(columns)


def _with_label(row: Mapping[str, Any], index: int, labels: Sequence[int]) -> dict[str, Any]:
    if labels[index] == row["preferred"]:
        return dict(row)
    return {**row, "response_1": row["response_2"], "response_2": row["response_1"], "preferred": labels[index]}


def split(
    dataset: Dataset, *, seed: int, test_fraction: float | None = None, test_size: int | None = None
) -> tuple[Dataset, Dataset]:
    """Split into train and test so that no image or video, compared by its bytes, is on both sides.

    Give either ``test_fraction`` (0..1) or ``test_size`` (rows); the test set is at most that large, and smaller only
    if rows that share images would not fit. Raises :class:`UserError` if a side would be empty.
    """
    if (test_fraction is None) == (test_size is None):
        raise ValueError("give either test_fraction or test_size")
    room = round(len(dataset) * test_fraction) if test_fraction is not None else int(test_size or 0)
    if not 0 < room < len(dataset):
        raise UserError(f"cannot take {room} test rows from {len(dataset)} rows: both sides need at least one row.")
    groups = _media_groups(dataset)
    random.Random(seed).shuffle(groups)
    test: list[int] = []
    for group in groups:
        if len(test) + len(group) <= room:
            test += group
    if not test:
        raise UserError(f"cannot split off {room} test rows: the smallest group of rows that share images is larger.")
    chosen = set(test)
    return dataset.select([i for i in range(len(dataset)) if i not in chosen]), dataset.select(sorted(test))


def _media_groups(dataset: Dataset) -> list[list[int]]:
    """Return sets of row numbers that share an image or video, directly or through other rows."""
    parent = list(range(len(dataset)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    owner: dict[str, int] = {}
    files: dict[str, str] = {}
    contents = CONTENTS if have_parts(dataset.features) else ()
    for index, row in enumerate(dataset.select_columns(["images", "video", *contents])):
        places = [place for name in contents for place in places_of(row[name])]
        videos = [row["video"], *(place.source for place in places if place.kind == "video")]
        cells = [*row["images"], *(place.source for place in places if place.kind == "image")]
        keys = [_media_key(cell, files) for cell in cells]
        for key in [*keys, *(_video_key(video, files) for video in videos if video)]:
            parent[root(index)] = root(owner.setdefault(key, index))
    groups: dict[int, list[int]] = {}
    for index in range(len(parent)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())


def _video_key(path: str, files: dict[str, str]) -> str:
    """Hash the bytes of a video or of its frames; a missing one is identified by its path."""
    if path not in files:
        try:
            find_video(path)
            files[path] = str(media_digest([path]))
        except ImageError:
            files[path] = path
    return files[path]


def _media_key(cell: Mapping[str, Any], files: dict[str, str]) -> str:
    """Hash the bytes of an image; ``files`` caches the hashes by path."""
    if cell["bytes"] is not None:
        return hashlib.sha256(cell["bytes"]).hexdigest()
    path = cell["path"]
    if path not in files:
        try:
            files[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError:
            files[path] = path
    return files[path]
