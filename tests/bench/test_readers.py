"""The pictures of a benchmark's row."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from r1_reward.bench.readers import row_images
from r1_reward.bench.rows import BenchmarkRow
from r1_reward.records.errors import UserError
from r1_reward.store.images import ImageError


def make_frames(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for grey, name in enumerate(names):
        Image.new("L", (4, 4), grey).save(folder / name)
    return folder


def make_row(**media: Any) -> BenchmarkRow:
    return BenchmarkRow(
        index=5, id="some/id", question="?", response_1="a", response_2="b", preferred=1, category="video",
        content_hash="0" * 16, **media,
    )  # fmt: skip


def test_videos_without_frames(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"row 5 \(id some/id\): .*holds no images"):
        row_images(make_row(video=str(tmp_path / "empty")))


def test_pictures_of_a_row(tmp_path: Path) -> None:
    folder = make_frames(tmp_path / "v", [f"{i}.png" for i in range(12)])
    shown = row_images(make_row(video=str(folder)), frames=3)
    assert [(image.mode, image.getpixel((0, 0))) for image in shown] == [("RGB", (g, g, g)) for g in (0, 5, 11)]
    cells = ({"bytes": (folder / "7.png").read_bytes(), "path": "x"}, {"bytes": None, "path": str(folder / "2.png")})
    assert [image.getpixel((0, 0)) for image in row_images(make_row(images=cells))] == [(7, 7, 7), (2, 2, 2)]


def test_pictures_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture")
    cell = {"bytes": None, "path": str(tmp_path / "0.png")}
    for row in (make_row(video=str(tmp_path)), make_row(images=(cell,))):
        with pytest.raises(ImageError, match=r"row 5 \(id some/id\): .*0.png: is not an image") as caught:
            row_images(row)
        assert caught.value.reason.startswith("is not an image")
