"""Images of rows: embedded or below the root, intact and not too large; everything else is dropped."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from r1_reward.data.sources import media
from r1_reward.data.sources.common import REASONS, Drop
from r1_reward.data.sources.media import MediaFolder


def png(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.png").write_bytes(png("black"))
    (tmp_path / "root" / "coco").mkdir(parents=True)
    (tmp_path / "root" / "a.png").write_bytes(png())
    (tmp_path / "root" / "coco" / "b.png").write_bytes(png("blue"))
    return tmp_path / "root"


def reason(folder: MediaFolder, cell: dict[str, Any]) -> str:
    with pytest.raises(Drop) as caught:
        folder.image(cell)
    assert caught.value.reason in REASONS
    return caught.value.reason


def test_embedded_bytes_and_files_below_the_root(root: Path) -> None:
    folder = MediaFolder(root)
    assert folder.image({"bytes": png(), "path": "x/y.png"}) == {"bytes": png(), "path": "y.png"}
    assert folder.image({"bytes": png(), "path": None}) == {"bytes": png(), "path": None}
    for path in ("coco/b.png", "./coco/b.png", "coco//b.png", str(root / "coco" / "b.png")):
        assert folder.image({"bytes": None, "path": path}) == {"bytes": png("blue"), "path": "b.png"}


def test_paths_outside_the_root_are_refused_even_if_the_file_exists(root: Path) -> None:
    os.symlink(root.parent / "secret.png", root / "link.png")
    os.symlink(root.parent, root / "up")
    for by_name in (False, True):
        folder = MediaFolder(root, by_name=by_name)
        for path in ("../secret.png", "coco/../../secret.png", "coco/../a.png", "link.png", "up/secret.png"):
            assert reason(folder, {"bytes": None, "path": path}) == "image outside root", path
    assert reason(MediaFolder(root), {"path": str(root.parent / "secret.png")}) == "image outside root"
    # By name, an absolute path means only the end of it.
    assert reason(MediaFolder(root, by_name=True), {"path": str(root.parent / "secret.png")}) == "image missing"


def test_links_within_the_root_and_a_root_that_is_a_link_are_followed(root: Path) -> None:
    os.symlink(root / "a.png", root / "coco" / "same.png")
    os.symlink(root, root.parent / "alias")
    for place in (root, root.parent / "alias"):
        assert MediaFolder(place).image({"path": "coco/same.png"})["bytes"] == png()
        assert MediaFolder(place).image({"path": str(place / "a.png")})["bytes"] == png()


def test_by_name_finds_files_of_other_machines(root: Path) -> None:
    folder = MediaFolder(root, by_name=True)
    for path in ("/mnt/data/coco/b.png", "./data/coco/b.png", "coco/b.png", "/x/a.png", "data/a.png"):
        assert folder.image({"path": path})["bytes"] == png("red" if path.endswith("a.png") else "blue"), path
    assert reason(MediaFolder(root), {"path": "./data/coco/b.png"}) == "image missing"
    assert reason(folder, {"path": "/mnt/b.png"}) == "image missing"  # coco/b.png is not below the root as b.png


@pytest.mark.parametrize("path", ["gone.png", "coco", "", ".", "/", "nul\0.png", "\ud800.png", "x" * 5000, "coco/"])
def test_paths_that_are_not_files_are_missing(root: Path, path: str) -> None:
    for by_name in (False, True):
        assert reason(MediaFolder(root, by_name=by_name), {"path": path}).startswith("image ")


def test_a_pipe_does_not_block(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    assert reason(MediaFolder(root), {"path": "pipe.png"}) == "image missing"


def test_damaged_images(root: Path) -> None:
    folder = MediaFolder(root)
    (root / "text.png").write_text("not a picture")
    (root / "empty.png").touch()
    assert reason(folder, {"path": "text.png"}) == "image damaged"
    assert reason(folder, {"path": "empty.png"}) == "image damaged"
    assert reason(folder, {"bytes": b"", "path": None}) == "image damaged"
    assert reason(folder, {"bytes": png()[:40], "path": None}) == "image damaged"


def test_a_huge_file_is_refused_before_it_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(root / "huge.png", "wb") as file:
        file.truncate(300_000_000)  # sparse: takes no room
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read"))
    monkeypatch.setattr(media, "check_image", lambda data: pytest.fail("was decoded"))
    folder = MediaFolder(root)
    with pytest.raises(Drop, match="image too large: huge.png: 300.0 MB, more than 52.4 MB"):
        folder.image({"path": "huge.png"})
    monkeypatch.setattr(media, "MAX_IMAGE_BYTES", 10)
    assert reason(folder, {"bytes": b"x" * 11, "path": None}) == "image too large"


def test_the_same_bytes_are_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(media, "check_image", lambda data: calls.append(data))
    folder = MediaFolder(root)
    for _ in range(3):
        folder.image({"path": "a.png"})
        folder.image({"bytes": png(), "path": None})
        folder.image({"path": "coco/b.png"})
    assert calls == [png(), png("blue")]


def test_videos_are_files_or_folders_of_frames(root: Path) -> None:
    folder = MediaFolder(root)
    (root / "film.mp4").write_bytes(b"film")
    (root / "none").mkdir()
    assert folder.video("coco") == str(root / "coco")
    assert folder.video("film.mp4") == str(root / "film.mp4")
    for path, why in {"none": "holds no images", "gone": "gone"}.items():
        with pytest.raises(Drop, match=f"video missing: .*{why}"):
            folder.video(path)
    with pytest.raises(Drop, match="outside root"):
        folder.video("../root/coco")
