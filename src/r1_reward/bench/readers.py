"""Open pair files and benchmarks with several tasks as raw rows, and load the images of a row.

All other files are opened by :mod:`r1_reward.store.rows`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1_reward.bench.rows import BenchmarkRow
from r1_reward.records.content import Place
from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json
from r1_reward.store.images import ImageError
from r1_reward.store.rows import KINDS, RawRow, RowSource, may_be_hub_id, open_source
from r1_reward.store.sniff import is_array
from r1_reward.store.video import row_pictures

if TYPE_CHECKING:
    from PIL import Image


def open_pairs(source: str | Path, split: str) -> RowSource:
    """Return the rows of a pair file, validated by :func:`r1_reward.store.pairs.load_pairs`, with relative paths.

    Rows may repeat, as they do in real sources, and each one is judged. Raises PairFileError for an invalid row,
    UserError if the file does not exist.
    """
    from r1_reward.store.pairs import load_pairs
    from r1_reward.store.part_columns import with_media

    dataset = load_pairs(source, split=split, check_images=False, repeats=True, ties=True)
    path = Path(source)
    folder = Path(os.path.abspath(path if path.is_dir() else path.parent if path.exists() else "."))

    def relative(path: str | None) -> str | None:
        return path and os.path.relpath(path, folder)

    def cell_of(cell: Mapping[str, Any]) -> dict[str, Any]:
        return dict(cell) if cell["bytes"] is not None else {"bytes": None, "path": relative(cell["path"])}

    def within(place: Place) -> Any:
        return relative(place.source) if place.kind == "video" else cell_of(place.source)

    def rows() -> Iterator[RawRow]:
        for number, row in enumerate(dataset, 1):
            images = [cell_of(cell) for cell in row["images"] or []]
            named = {**with_media(row, within), "images": images, "video": relative(row["video"])}
            yield RawRow(str(source), number, named)

    return RowSource(str(source), folder, rows)


def open_tasks(
    source: str | Path,
    image_root: str | Path | None,
    split: str,
    revision: str | None,
    *,
    tasks: Mapping[str, Sequence[str]],
    inside: str | None = None,
) -> RowSource:
    """Return the rows of all tasks found, with the task of each row in the field ``task``.

    ``tasks`` maps each task to the prefixes of its files, folders and Hub configurations. ``source`` is a folder with a
    folder or file per task, the folder of one task, a file whose name or folder gives its task, or a Hub id. If a JSON
    file contains one object, its list ``inside`` is read.

    Raises:
        UserError: no task was found; see also :func:`r1_reward.store.rows.open_source`.
    """
    path = Path(source)
    options: dict[str, Any] = {"split": split, "image_root": image_root}
    if not path.exists() and may_be_hub_id(source):
        found = {
            task: open_source(source, **options, revision=revision, config=names[0]) for task, names in tasks.items()
        }
        return _joined(str(source), Path(image_root or ""), found)
    if not path.exists() or path.is_file():
        task = _task_of(path, tasks)
        if path.exists() and task is None:
            names = ", ".join(name for own in tasks.values() for name in own)
            raise UserError(f"{path}: the name of the file or of its folder must give the task, one of {names}.")
        return _joined(str(path), Path(image_root or path.parent), {task or "": _open_task(path, options, inside)})
    if revision is not None:
        raise UserError(f"{path}: is a local path; --revision {revision} only applies to the Hub.")
    found = {
        task: _open_task(place, options, inside)
        for task, names in tasks.items()
        if (place := _place_of(path, names)) is not None
    }
    if not found:  # the folder of one task
        found = {
            task: _open_task(path, options, inside) for task, names in tasks.items() if path.resolve().name in names
        }
    if not found:
        there = ", ".join(sorted(os.listdir(path))[:10]) or "nothing"
        names = ", ".join(own[0] for own in tasks.values())
        raise UserError(f"{path}: contains no file or folder of a task ({names}). It contains: {there}.")
    return _joined(str(path), Path(image_root or path), found)


def _task_of(path: Path, tasks: Mapping[str, Sequence[str]]) -> str | None:
    for name in (path.name, path.parent.name):
        for task, own in tasks.items():
            if any(name.startswith(one) for one in own):
                return task
    return None


def _place_of(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the folder or file of a task; the name of a file only needs to begin with the task's."""
    for name in names:
        if (folder / name).is_dir():
            return folder / name
        files = sorted(file for kind in KINDS for file in folder.glob(f"{name}*{kind}"))
        if files:
            return files[0]
    return None


def _open_task(path: Path, options: Mapping[str, Any], inside: str | None) -> RowSource:
    if inside is not None and path.suffix == ".json" and path.is_file() and not is_array(path):
        return RowSource(str(path), path.parent, lambda: _rows_inside(path, inside))
    return open_source(path, **options, kinds=KINDS)


def _rows_inside(path: Path, field: str) -> Iterator[RawRow]:
    value = read_json(path)
    rows = value.get(field) if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise UserError(f"{path}: must be a JSON object with a list {field!r}.")
    return (RawRow(str(path), number, row) for number, row in enumerate(rows, 1))


def _joined(name: str, folder: Path, found: Mapping[str, RowSource]) -> RowSource:
    def rows() -> Iterator[RawRow]:
        for task, source in found.items():
            for raw in source.rows():
                yield raw._replace(data={**raw.data, "task": task}) if isinstance(raw.data, dict) else raw

    revisions = {source.revision for source in found.values() if source.revision}
    return RowSource(name, folder, rows, revisions.pop() if len(revisions) == 1 else None)


def row_images(row: BenchmarkRow, frames: int = 32) -> list[Image.Image]:
    """Return the RGB images of a row: its images, then up to ``frames`` frames of its video.

    Raises ImageError with the position and id of the row in the message.
    """
    try:
        return row_pictures({"images": row.images, "video": row.video}, frames)
    except ImageError as error:
        raise ImageError(f"row {row.index} (id {row.id}): {error.name}", error.reason) from error
