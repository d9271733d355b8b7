"""Export pairs to the formats of other projects: R1-Reward-RL and TRL's preference format.

:func:`export_r1_reward_rl` writes the rows of the released training code: complete prompts and their labels.
``DIR/train.jsonl`` has a line per pair and ``DIR/images`` holds each image once. The lines name images by absolute
path, because that code requires it; if the folder has moved, an import with ``--images DIR`` still finds them. Such a
row is one text after its images, and has a winner.

:func:`export_trl_preference` writes ``DIR/train-*.parquet`` with ``prompt``, ``chosen``, ``rejected`` and embedded
``images``. DPOTrainer and (without images) RewardTrainer train on it as loaded by `datasets`::

    export_trl_preference("data/mixed/train", "trl")
    DPOTrainer(model, train_dataset=datasets.load_dataset("trl", split="train"), ...)

Pairs that a format cannot represent are dropped, counted and listed in ``dropped.jsonl``. Images are written as they
come; the files of rows appear only once all rows are written, and ``report.json`` last.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from r1_reward.data.sources.common import Drop
from r1_reward.data.sources.r1_reward_rl import to_row
from r1_reward.data.sources.trl import AS_WRITTEN, has_control_tokens
from r1_reward.data.sources.trl import to_row as to_trl_row
from r1_reward.records.content import places_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS
from r1_reward.store.dataset_card import Columns, write_card
from r1_reward.store.files import write_bytes, write_json
from r1_reward.store.images import ImageError, image_suffix
from r1_reward.store.pairs import STAGING
from r1_reward.store.rows import RowWriter
from r1_reward.store.shards import SHARD_BYTES, read_rows
from r1_reward.store.video import FRAMES, open_video

ROWS, IMAGES, REPORT, DROPPED = "train.jsonl", "images", "report.json", "dropped.jsonl"
SHARDS = "train-*.parquet"
_RL_TEXTS = (
    "question", "message", "image", "response_1", "response_2", "id", "source", "kind", "provenance", "reasoning",
    "criteria",
)  # fmt: skip
_RL_COLUMNS: Columns = [
    *({"name": name, "dtype": "string"} for name in _RL_TEXTS),
    {"name": "answer", "list": "string"},
    {"name": "attempts", "dtype": "int64"},
]
_GROUP_ROWS, _GROUP_BYTES = 256, 16 << 20  # limits on the rows held in memory, images included


class _Rows(Protocol):
    """A writer of one format, row by row."""

    def add(self, pair: Mapping[str, Any]) -> None:
        """Write a pair; raises Drop if the format cannot represent it."""

    def close(self) -> None:
        """Close the files."""

    def told(self) -> dict[str, Any]:
        """Return additional fields of the report."""


def export_r1_reward_rl(
    pairs: str | Path, out: str | Path, *, video_frames: int = FRAMES, overwrite: bool = False
) -> dict[str, Any]:
    """Write the pairs of a pair file or folder to ``out`` and return the report (read, kept, dropped by reason).

    A video becomes up to ``video_frames`` images. Dropped and listed in ``dropped.jsonl`` are ties, pairs without an
    image, pairs with an unreadable video, and pairs with images inside the question or the responses.

    Raises:
        UserError: ``out`` already holds an export and ``overwrite`` is False, or the pairs cannot be read.
    """
    out = Path(out)
    report = _export("r1-reward-rl", pairs, out, lambda work: _RlRows(work, out, video_frames), overwrite)
    text = "Complete prompts and their labels, as read by the released training code of R1-Reward. Images are named by "
    text += "their paths at export time."
    write_card(out, {"default": {"train": ROWS}}, "R1-Reward-RL rows", text, features={"default": _RL_COLUMNS})
    return report


def export_trl_preference(
    pairs: str | Path, out: str | Path, *, text_only: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Write the pairs of a pair file or folder to ``out`` as TRL preference rows, and return the report.

    If any kept pair has images, the rows have a column ``images`` and contents are lists of parts, for vision-language
    models; otherwise contents are texts, for any model. ``text_only`` drops pairs with images. Ties, videos and images
    inside responses are dropped as well, because TRL does not support them. ``broken`` in the report counts rows with
    tokens that would have ended a turn or added an image, and were neutralized.

    Raises:
        UserError: ``out`` already holds an export and ``overwrite`` is False, or the pairs cannot be read.
    """
    out = Path(out)
    pictures = not text_only and _any_pictures(pairs)
    report = _export("trl-preference", pairs, out, lambda work: _TrlRows(work, pictures=pictures), overwrite)
    kinds = "prompt, chosen and rejected as messages" + (", images decoded by `datasets`" if pictures else "")
    text = f"{kinds.capitalize()}, for TRL's DPOTrainer{'' if pictures else ' and RewardTrainer'}."
    write_card(out, {"default": {"train": SHARDS}}, "Preference rows in TRL format", text)
    return report


def _export(
    form: str, pairs: str | Path, out: Path, opened: Callable[[Path], _Rows], overwrite: bool
) -> dict[str, Any]:
    """Write every pair that the format can represent, list the others, and return the report."""
    _require_free(out, overwrite)
    if out.exists() and Path(pairs).exists() and out.samefile(pairs):
        raise UserError(f"{out}: contains the pairs to export; choose another folder with --out.")
    work = out / STAGING
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    read, dropped = 0, Counter[str]()
    try:
        with closing(opened(work)) as rows, open(work / DROPPED, "w", encoding="utf-8") as lost:
            for pair in read_rows(pairs):
                read += 1
                try:
                    rows.add(pair)
                except Drop as drop:
                    dropped[drop.reason] += 1
                    place = {"source": pair["source"], "file": str(pairs), "row": read, "id": pair["id"]}
                    line = {**place, "reason": drop.reason, "detail": drop.detail}
                    lost.write(json.dumps(line, ensure_ascii=False) + "\n")
        if read == sum(dropped.values()):
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in dropped.most_common())
            raise UserError(f"{pairs}: none of its {read} pairs can be exported ({reasons}).")
        (out / REPORT).unlink(missing_ok=True)
        for old in _written(out):
            old.unlink()
        for file in sorted(work.iterdir()):
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report = {"format": form, "from": str(pairs), "read": read, "kept": read - sum(dropped.values())}
    report |= {"dropped": dict(dropped.most_common()), **rows.told()}
    write_json(out / REPORT, report)
    return report


def _require_free(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, not a folder to write rows to.")
    if not overwrite and any(_written(out)):
        raise UserError(f"{out}: already holds an export. Choose another folder, or add --overwrite.")


def _written(out: Path) -> Iterator[Path]:
    """Yield the files of an existing export in a folder."""
    yield from (file for name in (ROWS, DROPPED, REPORT) if (file := out / name).exists())
    yield from out.glob(SHARDS)


# ---- R1-Reward-RL


class _RlRows:
    def __init__(self, work: Path, out: Path, video_frames: int) -> None:
        self._file = open(work / ROWS, "w", encoding="utf-8")  # noqa: SIM115  # close() closes it
        self._images, self._frames = out / IMAGES, video_frames

    def add(self, pair: Mapping[str, Any]) -> None:
        if pair["preferred"] == 0:
            raise Drop("tie", "neither response is preferred")
        for name in CONTENTS:
            if places := places_of(pair[name]):
                raise Drop("pictures within", f"{name} contains {len(places)}")
        try:
            images = _image_bytes(pair, self._frames)
        except ImageError as error:
            raise Drop("video" if pair["video"] else "no image", str(error)) from error
        paths = [_image_file(data, self._images) for data in images]
        self._file.write(json.dumps(to_row(pair, paths), ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()

    def told(self) -> dict[str, Any]:
        return {}


def _image_bytes(pair: Mapping[str, Any], video_frames: int) -> list[bytes]:
    """Return the bytes of a pair's images, then of its video frames as PNG; raises ImageError if there are none."""
    files = [cell["bytes"] for cell in pair["images"]]
    for frame in open_video(pair["video"], video_frames) if pair["video"] else ():
        data = io.BytesIO()
        frame.save(data, "PNG")
        files.append(data.getvalue())
    if not files:
        raise ImageError(f"pair {pair['id']}", "has no image")
    return files


def _image_file(data: bytes, folder: Path) -> str:
    """Write an image to ``folder`` unless it is already there, and return its absolute path."""
    file = folder / (hashlib.sha256(data).hexdigest()[:32] + image_suffix(data))
    if not file.exists():
        write_bytes(file, data)
    return os.path.abspath(file)


# ---- TRL


class _TrlRows:
    """Shards of TRL rows, each about as large as a shard of a pair folder."""

    def __init__(self, work: Path, *, pictures: bool) -> None:
        self._work, self._pictures, self._schema = work, pictures, _trl_schema(pictures)
        self._file: RowWriter | None = None
        self._shards, self._bytes = 0, 0
        self._broken, self._criteria = 0, 0

    def add(self, pair: Mapping[str, Any]) -> None:
        row = to_trl_row(pair, pictures=self._pictures)
        size = len(str(row["prompt"])) + len(str(row["chosen"])) + len(str(row["rejected"]))
        size += sum(len(cell["bytes"]) for cell in row.get("images", ()))
        if self._file is not None and self._bytes + size > SHARD_BYTES:
            self.close()
        if self._file is None:
            file = self._work / SHARDS.replace("*", f"{self._shards:05d}")
            self._file = RowWriter(file, self._schema, group_rows=_GROUP_ROWS, group_bytes=_GROUP_BYTES)
            self._shards, self._bytes = self._shards + 1, 0
        self._file.add(row, size)
        self._bytes += size
        self._broken += has_control_tokens(pair)
        self._criteria += row["criteria"] is not None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def told(self) -> dict[str, Any]:
        return {"images": self._pictures, "broken": self._broken, "warnings": list(self._warnings())}

    def _warnings(self) -> Iterator[str]:
        if self._criteria:
            told = "1 row has" if self._criteria == 1 else f"{self._criteria:,} rows have"
            yield (
                f"{told} criteria, in a column that TRL's trainers do not read, although the preference depends on "
                "them. Put the criteria into the prompts, or leave such rows out."
            )


def _trl_schema(pictures: bool) -> Any:
    from datasets import Features, Image, List, Value

    text = Value("string")
    content = List({"type": text, "text": text}) if pictures else text
    columns = dict.fromkeys(("prompt", "chosen", "rejected"), List({"role": text, "content": content}))
    columns |= {"images": List(Image())} if pictures else {}
    names = ("id", "source", "kind", "provenance", "criteria", "reasoning")
    columns |= dict.fromkeys(names, text) | dict.fromkeys(("attempts", "preferred"), Value("int64"))
    return Features({**columns, AS_WRITTEN: text}).arrow_schema


def _any_pictures(pairs: str | Path) -> bool:
    """Return whether any pair that can be kept has images; reads up to the first one."""
    for pair in read_rows(pairs):
        try:
            to_trl_row(pair, pictures=False)
        except Drop as drop:
            if drop.reason == "pictures":
                return True
    return False
