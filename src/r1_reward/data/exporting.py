"""Write pairs as rows of R1-Reward-RL, which the released training code reads: finished prompts and their labels.

``DIR/train.jsonl`` has a line a pair and ``DIR/images`` the images, each once. The lines name images by absolute path,
as that code needs them; an import with ``--images DIR`` finds them wherever the folder has gone since. Such a row is
one text behind its images and has a winner: ties, and pairs with pictures within question or responses, are dropped,
counted and listed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1_reward.data.sources.common import Drop
from r1_reward.data.sources.r1_reward_rl import to_row
from r1_reward.records.content import places_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS
from r1_reward.store.files import write_bytes, write_json
from r1_reward.store.images import ImageError, image_suffix
from r1_reward.store.shards import read_rows
from r1_reward.store.video import FRAMES, open_video

ROWS, IMAGES, REPORT, DROPPED = "train.jsonl", "images", "report.json", "dropped.jsonl"
_FILES = (ROWS, DROPPED, REPORT)


def export_r1_reward_rl(
    pairs: str | Path, out: str | Path, *, video_frames: int = FRAMES, overwrite: bool = False
) -> dict[str, Any]:
    """Write the pairs of a pair file or folder to ``out`` and return the report (read, kept, dropped by reason).

    A video becomes up to ``video_frames`` images. Pairs without an image, with a video that cannot be read, or that the
    form cannot hold, are dropped and listed in ``dropped.jsonl``. ``train.jsonl`` appears when it is complete.

    Raises:
        UserError: ``out`` holds an export already and ``overwrite`` is False, or the pairs cannot be read.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, not a folder to write rows to.")
    if not overwrite and any((out / name).exists() for name in _FILES):
        raise UserError(f"{out}: holds an export already. Choose another folder, or allow to overwrite it.")
    out.mkdir(parents=True, exist_ok=True)
    read, dropped = 0, Counter[str]()
    parts = {name: out / f".{name}.part" for name in (ROWS, DROPPED)}
    try:
        with open(parts[ROWS], "w", encoding="utf-8") as rows, open(parts[DROPPED], "w", encoding="utf-8") as lost:
            for pair in read_rows(pairs):
                read += 1
                try:
                    _require_fit(pair)
                    images = _image_bytes(pair, video_frames)
                except (Drop, ImageError) as error:
                    reason = error.reason if isinstance(error, Drop) else "video" if pair["video"] else "no image"
                    detail = error.detail if isinstance(error, Drop) else str(error)
                    dropped[reason] += 1
                    place = {"source": pair["source"], "file": str(pairs), "row": read, "id": pair["id"]}
                    line = {**place, "reason": reason, "detail": detail}
                    lost.write(json.dumps(line, ensure_ascii=False) + "\n")
                    continue
                paths = [_image_file(data, out / IMAGES) for data in images]
                rows.write(json.dumps(to_row(pair, paths), ensure_ascii=False) + "\n")
        if read == sum(dropped.values()):
            raise UserError(f"{pairs}: none of its {read} pairs can be exported ({dict(dropped)}).")
        _replace_old(out, parts)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    report = {"format": "r1-reward-rl", "from": str(pairs), "read": read, "kept": read - sum(dropped.values())}
    report["dropped"] = dict(dropped.most_common())
    write_json(out / REPORT, report)
    return report


def _require_fit(pair: Mapping[str, Any]) -> None:
    """Raise Drop for what a row of one text behind its images cannot say."""
    if pair["preferred"] == 0:
        raise Drop("tie", "neither response is preferred")
    for name in CONTENTS:
        if places := places_of(pair[name]):
            raise Drop("pictures within", f"{name} has {len(places)} of its own")


def _image_bytes(pair: Mapping[str, Any], video_frames: int) -> list[bytes]:
    """Return the files of a pair's images, then of the frames of its video; raises ImageError if there are none."""
    files = [cell["bytes"] for cell in pair["images"]]
    for frame in open_video(pair["video"], video_frames) if pair["video"] else ():
        data = io.BytesIO()
        frame.save(data, "PNG")
        files.append(data.getvalue())
    if not files:
        raise ImageError(f"pair {pair['id']}", "has no image")
    return files


def _image_file(data: bytes, folder: Path) -> str:
    """Return the absolute path of an image, after writing it to ``folder`` if it is not there."""
    file = folder / (hashlib.sha256(data).hexdigest()[:32] + image_suffix(data))
    if not file.exists():
        write_bytes(file, data)
    return os.path.abspath(file)


def _replace_old(out: Path, parts: Mapping[str, Path]) -> None:
    (out / REPORT).unlink(missing_ok=True)
    for name, part in parts.items():
        shutil.move(part, out / name)
