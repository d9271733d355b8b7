"""Pair files: load, validate and save preference pairs.

A pair file is JSONL with image paths relative to the file, parquet with embedded images, a folder of either, or a
dataset on the Hub. The question and responses may also contain images (:mod:`r1_reward.records.content`). All rows are
checked before training, and all problems are reported at once::

    pairs = load_pairs("pairs.jsonl")               # datasets.Dataset; raises PairFileError
    pictures = row_pictures(pairs[0], frames=8)     # RGB: its images, then the frames of its video
    save_pairs(pairs, "pairs.parquet")

Images stay undecoded in the dataset (``Image(decode=False)``), because ``datasets`` would return CMYK or rotated ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, concatenate_datasets
from datasets.table import InMemoryTable

from r1_reward.records.checks import (
    FIELDS,
    MAX_RESPONSE_CHARS,
    REQUIRED,
    PairFileError,
    Problem,
    unknown_field,
)
from r1_reward.records.content import Place, places_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS, PreferencePair
from r1_reward.store.checker import Checker
from r1_reward.store.files import complete_file
from r1_reward.store.images import embedded, image_suffix
from r1_reward.store.part_columns import (
    FEATURES,
    FEATURES_WITH_PARTS,
    PairRowWriter,
    as_column,
    filled,
    have_parts,
    widened,
    with_media,
)
from r1_reward.store.rows import (
    did_you_mean,
    hub_dataset,
    line_rows,
    may_be_hub_id,
    of_split,
    parquet_count,
    parquet_schema,
    require_readable,
    undecoded,
)
from r1_reward.store.sniff import is_array, what_it_is
from r1_reward.store.tables import parquet_dataset
from r1_reward.store.video import FRAMES, row_pictures

__all__ = [
    "FEATURES", "MAX_RESPONSE_CHARS", "PairFileError", "Problem", "load_pairs", "row_pictures", "save_pairs",
    "validate_pairs",
]  # fmt: skip

REPORT, STAGING = "report.json", ".writing"
"""In a pair folder (:mod:`r1_reward.store.shards`): the file written last, and the folder of unfinished shards."""

_CHUNK = 1000
_ROW_GROUP = 32  # rows in memory at once, with their images


def load_pairs(
    path_or_hub_id: str | Path,
    *,
    split: str = "train",
    check_images: bool = True,
    video_frames: int = FRAMES,
    repeats: bool = False,
    check_reasoning: bool = False,
    ties: bool = False,
) -> Dataset:
    """Read and check all rows of a pair file, a folder or a Hub dataset; columns as in ``FEATURES``.

    If any content has parts, the question and responses of all rows are lists of parts (``FEATURES_WITH_PARTS``), each
    image with its source; :mod:`r1_reward.records.content` reads either form. Image paths are returned absolute.

    Args:
        path_or_hub_id: The file, a folder with ``pairs.jsonl`` or parquet files, or the id of a Hub dataset
            (``owner/name``).
        split: The split of a Hub dataset, or the prefix (``train-*.parquet``) of the files in a folder; ignored for a
            single file.
        check_images: Decode each image, and the frames shown of each video, to find damaged ones.
        video_frames: Number of frames shown of a video.
        repeats: Accept rows that repeat or contradict an earlier one: bad for training, fine for judging.
        check_reasoning: Require that all reasoning ends in the verdict of the label, which only imitation needs.
        ties: Accept rows in which neither response is preferred: useless for training, fine for judging.

    Raises:
        PairFileError: If a row is invalid, or the file does not contain rows.
        UserError: If the file does not exist, or the Hub cannot be reached.
    """
    path = Path(path_or_hub_id)
    rules: dict[str, Any] = {"repeats": not repeats, "reasoning": check_reasoning, "ties": ties}
    if path.exists():
        files = find_files(path, split)
        if files[0].suffix == ".jsonl":
            return _load_jsonl(files[0], Checker(str(files[0]), files[0].parent, check_images, video_frames, **rules))
        checker = Checker(str(path), files[0].parent, check_images, video_frames, **rules)
        return _load_table(_read_parquet(files), checker)
    if may_be_hub_id(path_or_hub_id):
        checker = Checker(str(path_or_hub_id), Path(), check_images, video_frames, **rules)
        return _load_table(hub_dataset(str(path_or_hub_id), split), checker)
    raise UserError(f"{path}: no such file or folder.{did_you_mean(path)}")


def validate_pairs(path_or_hub_id: str | Path, *, split: str = "train", video_frames: int = FRAMES) -> list[Problem]:
    """Return all problems that :func:`load_pairs` finds, none if the file is valid; raises UserError for a bad path."""
    try:
        load_pairs(path_or_hub_id, split=split, video_frames=video_frames, check_reasoning=True)
    except PairFileError as error:
        return error.problems
    return []


def find_files(path: Path, split: str) -> list[Path]:
    """Return the JSONL file or the parquet files that a path refers to; raises UserError if they are unfinished."""
    require_readable(path)
    if (path / STAGING).is_dir() and not (path / REPORT).exists():
        raise UserError(f"{path}: is incomplete; the command that writes it was interrupted or is still running.")
    if path.is_file():
        if path.suffix not in (".jsonl", ".parquet"):
            what = f"{found}; " if (found := _not_pairs(path)) else ""
            raise UserError(f"{path}: {what}pair files end in .jsonl (one JSON object a line) or .parquet.")
        return [path]
    jsonl, parquet = path / "pairs.jsonl", sorted(path.glob("*.parquet"))
    if jsonl.is_file() and parquet:
        raise UserError(f"{path}: has both pairs.jsonl and parquet files; give the path of the one to read.")
    if jsonl.is_file():
        return [jsonl]
    chosen = of_split(parquet, split)
    if not chosen:
        raise UserError(f"{path}: {_why_no_pairs(path, split)}.")
    return chosen


def _why_no_pairs(path: Path, split: str) -> str:
    inside = [folder for name in ("train", "test") if any((folder := path / name).glob("*.parquet"))]
    if inside:
        return f"has no pairs itself; use {' or '.join(map(str, inside))}"
    if (path / REPORT).is_file():  # a pair folder finished without rows has no shard
        return "has no rows; see its report.json"
    there = ", ".join(sorted(os.listdir(path))[:10]) or "nothing"
    return f"has neither pairs.jsonl nor parquet files of the {split} split. It contains: {there}"


def _read_parquet(files: list[Path]) -> Dataset:
    full = [file for file in files if parquet_count(file)]
    if not full:
        raise PairFileError([Problem(str(files[0]), 0, "", "has no rows")], rows=0)
    return parquet_dataset(full, _columns_of(full))


def _columns_of(files: list[Path]) -> Features:
    """Return the columns to read files with: ours if the files fit them, with parts if any file has parts."""
    schemas = [parquet_schema(file) for file in files]
    found = [undecoded(Features.from_arrow_schema(schema)) for schema in schemas]
    ours = FEATURES_WITH_PARTS if any(map(have_parts, schemas)) else FEATURES
    fit = all(
        set(REQUIRED) <= set(features) <= set(ours)
        and all(feature in (FEATURES[name], FEATURES_WITH_PARTS[name]) for name, feature in features.items())
        for features in found
    )
    return ours if fit else found[0]


def _not_pairs(path: Path) -> str | None:
    """Return what a file is if it does not have one object per line, else None."""
    if is_array(path):
        return "is one JSON array, not one object per line (`jq -c '.[]'` converts it)"
    return what_it_is(path)


def _load_jsonl(path: Path, checker: Checker) -> Dataset:
    if (what := _not_pairs(path)) is not None:
        raise PairFileError([Problem(checker.file, 0, "", what)], rows=0)
    chunks: list[Dataset] = []
    rows: list[dict[str, Any]] = []

    def end_chunk() -> None:
        features = FEATURES_WITH_PARTS if any(map(have_parts, rows)) else FEATURES
        chunks.append(Dataset.from_list([_in_columns(row, features) for row in rows], features=features))
        rows.clear()

    for raw in line_rows(path):
        if raw.broken:
            checker.unusable(raw.number, raw.broken)
            continue
        if checker.check(raw.number, raw.data):
            rows.append(_canonical(raw.data, path.parent))
        if len(rows) == _CHUNK:
            end_chunk()
    checker.finish()
    if rows:
        end_chunk()
    if any(have_parts(chunk.features) for chunk in chunks):
        chunks = [_with_parts(chunk) for chunk in chunks]
    return chunks[0] if len(chunks) == 1 else concatenate_datasets(chunks)


def _with_parts(chunk: Dataset) -> Dataset:
    schema = FEATURES_WITH_PARTS.arrow_schema
    return Dataset(InMemoryTable(widened(chunk.data.table, schema).cast(schema)))


def _in_columns(row: dict[str, Any], features: Features) -> dict[str, Any]:
    """Return a canonical row in the form of the columns."""
    return {**row, **{name: as_column(row[name]) for name in CONTENTS}} if have_parts(features) else row


def _load_table(dataset: Dataset, checker: Checker) -> Dataset:
    """Check a dataset read by ``datasets`` and convert it to the canonical columns."""
    for name in dataset.column_names:
        if name not in FIELDS:
            checker.add(0, name, unknown_field(name))
    for name in set(REQUIRED) - set(dataset.column_names):
        checker.add(0, name, "is missing")
    features = FEATURES_WITH_PARTS if have_parts(dataset.features) else FEATURES
    same = dataset.features == features
    if not checker.problems:  # else every row would repeat the same problem
        for line, row in enumerate(dataset, 1):
            given = {name: value for name, value in row.items() if value is not None}
            checker.check(line, given)
            same = same and _is_canonical(row)
    checker.finish()
    if same:
        return dataset

    def canonical(row: dict[str, Any], folder: str) -> dict[str, Any]:
        return _in_columns(
            _canonical({name: value for name, value in row.items() if value is not None}, folder), features
        )

    place = {"folder": str(checker.folder)}
    return dataset.map(
        canonical,
        fn_kwargs=place,
        features=features,
        remove_columns=dataset.column_names,
        writer_batch_size=_ROW_GROUP,
    )


def _is_canonical(row: dict[str, Any]) -> bool:
    cells = list(row["images"] or [])
    for place in (place for name in CONTENTS for place in places_of(row[name])):
        if place.kind == "video" or not isinstance(place.source, Mapping):
            return False
        cells.append(place.source)
    texts = (row["source"], row["kind"], row["provenance"])
    embedded = all(cell["bytes"] is not None for cell in cells)
    return embedded and row["video"] is None and None not in (row["images"], *texts)


def _canonical(row: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """Return a checked row with all columns, defaults, canonical contents and absolute paths."""
    full = {name: row.get(name) for name in FEATURES}
    full |= {name: full[name] or "" for name in ("source", "kind", "provenance")}
    full["video"] = os.path.abspath(os.path.join(folder, full["video"])) if full["video"] else None
    full = filled(full)

    def canonical(place: Place) -> Any:
        if place.kind == "video":
            return os.path.abspath(os.path.join(folder, place.source))
        return _canonical_cell(place.source, folder)

    full["images"] = [_canonical_cell(cell, folder) for cell in full["images"] or []]
    return with_media(full, canonical)


def _canonical_cell(cell: Any, folder: str | Path) -> dict[str, Any]:
    cell = cell if isinstance(cell, Mapping) else {"bytes": cell} if isinstance(cell, bytes) else {"path": cell}
    if cell.get("bytes") is not None:
        return {"bytes": cell["bytes"], "path": cell.get("path")}
    return {"bytes": None, "path": os.path.abspath(os.path.join(folder, cell["path"]))}


def save_pairs(
    rows: Iterable[PreferencePair | Mapping[str, Any]], path: str | Path, *, image_root: str | Path | None = None
) -> int:
    """Write pairs, or rows of a dataset, to a ``.jsonl`` or ``.parquet`` file; return their number.

    Relative image paths refer to ``image_root`` (default: the folder of ``path``). JSONL names images relative to the
    file and saves embedded ones in a folder ``NAME_images`` next to it; parquet embeds all images. The file is written
    atomically.

    Raises:
        PairFileError: If there are no rows, or ``load_pairs(path, ties=True)`` would reject one.
        UserError: If an image to embed cannot be read.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    writers = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise UserError(f"{path}: pair files end in .jsonl or .parquet.")
    path.parent.mkdir(parents=True, exist_ok=True)
    checker = Checker(str(path), root, check_images=False)
    with complete_file(path) as part:
        writers[path.suffix](_checked(rows, checker), path, part)
        checker.finish()
    return checker.rows


def _checked(rows: Iterable[PreferencePair | Mapping[str, Any]], checker: Checker) -> Iterator[dict[str, Any]]:
    """Yield the valid rows in canonical form, with absolute paths."""
    for number, row in enumerate(rows, 1):
        full = row.model_dump() if isinstance(row, PreferencePair) else row
        given = {name: value for name, value in full.items() if value is not None}
        if checker.check(number, given):
            yield _canonical(given, checker.folder)


def _write_jsonl(rows: Iterable[dict[str, Any]], path: Path, part: Path) -> None:
    def named(place: Place) -> str:
        return _relative(place.source if place.kind == "video" else _image_file(place.source, path), path)

    with open(part, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            row = {name: value for name, value in row.items() if value not in (None, "") or name in REQUIRED}
            row["images"] = [_relative(_image_file(cell, path), path) for cell in row["images"]]
            if "video" in row:
                row["video"] = _relative(row["video"], path)
            row = with_media(row, named)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _relative(target: str | Path, path: Path) -> str:
    """Return a path relative to the folder of a pair file, with forward slashes on every system."""
    return Path(os.path.relpath(target, path.parent)).as_posix()


def _image_file(cell: dict[str, Any], path: Path) -> Path:
    """Return the path of an image; an embedded one is first written next to the pair file."""
    data = cell["bytes"]
    if data is None:
        return Path(cell["path"])
    folder = path.with_name(f"{path.stem}_images")
    folder.mkdir(exist_ok=True)
    file = folder / (hashlib.sha256(data).hexdigest()[:16] + image_suffix(data))
    if not file.exists():
        with complete_file(file) as part:
            part.write_bytes(data)
    return file


def _write_parquet(rows: Iterable[dict[str, Any]], path: Path, part: Path) -> None:
    def own(place: Place) -> Any:
        return _relative(place.source, path) if place.kind == "video" else embedded(place.source)

    with PairRowWriter(part, group_rows=_ROW_GROUP) as writer:
        for row in rows:
            video = _relative(row["video"], path) if row["video"] else None
            images = [embedded(cell) for cell in row["images"]]
            writer.add({**with_media(row, own), "images": images, "video": video})
