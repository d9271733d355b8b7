"""open_video on the files and folders people have, and on files that only claim to be a video."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from video_files import STEP, greys, number_of, write_film, write_frames

from r1_reward.records.errors import UserError
from r1_reward.store import video
from r1_reward.store.images import MAX_ASPECT_RATIO, ImageError
from r1_reward.store.video import evenly, natural_key, open_video, row_pictures

FILMS = [  # small groups of pictures, so that frames span several and are not decoded in presentation order
    ("a.mp4", "libx264", {"bf": "2"}),
    ("open-gop.mp4", "libx264", {"x264-params": "open-gop=1:keyint=6:bframes=3"}),
    ("a.mkv", "libx264", {}),
    ("a.webm", "libvpx-vp9", {}),
    ("vp8.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
    ("a.avi", "mpeg4", {}),
    ("a.mov", "mpeg4", {}),
    ("a.ts", "libx264", {}),
]


def numbers(path: Path, frames: int) -> list[int]:
    return [number_of(picture) for picture in open_video(path, frames)]


@pytest.mark.parametrize(("name", "codec", "options"), FILMS, ids=[name for name, *_ in FILMS])
def test_a_file_shows_the_frames_that_the_folder_of_its_frames_shows(name, codec, options, tmp_path, monkeypatch):
    film = write_film(tmp_path / name, greys(30), codec, gop=6, **options)
    folder = write_frames(tmp_path / "frames", greys(30))
    for frames in (1, 2, 3, 8, 29, 30, 31):
        assert numbers(film, frames) == numbers(folder, frames) == evenly(30, frames)
    by_count = video._by_count
    monkeypatch.setattr(video, "_by_count", None)  # not needed: every frame was found by its time
    assert numbers(film, 3) == [0, 14, 29]
    monkeypatch.setattr(video, "_by_time", lambda *_: None)
    monkeypatch.setattr(video, "_by_count", by_count)
    assert numbers(film, 8) == evenly(30, 8)


def test_only_the_groups_around_the_frames_wanted_are_decoded(tmp_path, monkeypatch):
    film = write_film(tmp_path / "long.mp4", greys(30), "libx264", gop=3, sc_threshold="0")
    pictures = []
    needed = video._groups_needed

    def noted(packets, wanted):
        pictures.append(needed(packets, wanted))
        return pictures[-1]

    monkeypatch.setattr(video, "_groups_needed", noted)
    assert numbers(film, 2) == [0, 29]
    assert pictures == [{1, 10}]


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_animated_pictures_are_videos(kind, tmp_path):
    first, *others = greys(12)
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=others, duration=50, lossless=True)
    assert numbers(tmp_path / f"a.{kind}", 4) == [0, 3, 7, 11]
    data = (tmp_path / f"a.{kind}").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ImageError, match="cut.*damaged or truncated"):
        open_video(tmp_path / "cut", 12)


@pytest.mark.parametrize("kept", [1, 9, 16, 17])
def test_an_animation_cut_in_the_header_of_a_later_frame(kept, tmp_path):
    first, *others = greys(3)
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=50)
    data = (tmp_path / "a.gif").read_bytes()
    last = data.rindex(b"!\xf9\x04")  # 8 bytes of timing, then a comma and the place and size of the frame
    (tmp_path / "a.gif").write_bytes(data[: last + kept])
    with pytest.raises(ImageError, match="a.gif: is damaged or truncated"):
        open_video(tmp_path / "a.gif")


def test_the_name_of_a_file_need_not_tell_its_kind(tmp_path):
    write_film(tmp_path / "a.mp4", greys(5)).rename(tmp_path / "a.gif")
    assert numbers(tmp_path / "a.gif", 8) == [0, 1, 2, 3, 4]


def test_frames_without_times_are_counted(tmp_path, monkeypatch):
    film = write_film(tmp_path / "a.mp4", greys(10))
    monkeypatch.setattr(video, "_scan", lambda *_: None)
    assert numbers(film, 3) == [0, 4, 9]


def test_frames_of_a_folder_are_in_natural_order(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    order = ["frame_0001.jpg", "frame_1.jpg", "Frame_2.PNG", "frame_9.png", "frame_10.png"]
    for name in reversed(order):
        Image.new("RGB", (16, 16), (STEP * order.index(name),) * 3).save(folder / name)
    (folder / "notes.txt").write_text("no frame")
    (folder / "._frame_3.png").write_text("left by another system")
    assert numbers(folder, 8) == [0, 1, 2, 3, 4]


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1))
def test_natural_order_is_the_order_of_the_numbers(given_numbers):
    names = sorted((f"clip.{number}.png" for number in given_numbers), key=natural_key)
    assert [int(name.split(".")[1]) for name in names] == sorted(given_numbers)


def test_evenly_spaced_with_first_and_last():
    assert evenly(11, 2) == [0, 10]
    assert evenly(11, 3) == [0, 5, 10]
    assert evenly(11, 4) == [0, 3, 6, 10]  # 0, 3.3, 6.7, 10 rounded down
    assert evenly(11, 1) == [0]
    assert evenly(11, 11) == evenly(11, 12) == list(range(11))


# ---- unusable videos


def test_files_that_are_not_videos_are_named_with_the_reason(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.mp4").touch()
    (tmp_path / "text.mp4").write_text("no film at all " * 100)
    (tmp_path / "photo.jpg").write_bytes(b"")
    greys(1)[0].save(tmp_path / "photo.jpg")
    cases = {
        "gone.mp4": "no such file",
        "empty": "has no images",
        "nothing.mp4": "is empty",
        "text.mp4": "not a supported video",
        "photo.jpg": "not a supported video",
        "a\0b": "no such file",
    }
    for name, words in cases.items():
        with pytest.raises(ImageError, match=words) as caught:
            open_video(tmp_path / name)
        assert caught.value.name == str(tmp_path / name)
    with pytest.raises(UserError, match="frames: must be 1 or more"):
        open_video(tmp_path / "empty", 0)


def test_a_playlist_cannot_make_the_decoder_open_other_files(tmp_path):
    film = write_film(tmp_path / "secret.ts", greys(5), "libx264")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n")
    (tmp_path / "script.mp4").write_text(f"ffconcat version 1.0\nfile {film.name}\n")
    for name in ("list.mp4", "script.mp4"):
        with pytest.raises(ImageError, match="not a supported video"):
            open_video(tmp_path / name)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.webm", "libvpx"), ("a.avi", "mpeg4")])
def test_truncated_files(name, codec, tmp_path):
    data = write_film(tmp_path / name, greys(30), codec).read_bytes()
    for share in (0.1, 0.6):
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        with pytest.raises(ImageError, match="truncated|has no video stream"):
            open_video(tmp_path / name)


def test_a_damaged_frame_is_not_shown(tmp_path):
    film = write_film(tmp_path / "a.mp4", greys(30), gop=1)
    with av.open(str(film)) as container:
        second = [(packet.pos, packet.size) for packet in container.demux(video=0)][1]
    data = bytearray(film.read_bytes())
    data[second[0] + 8 : sum(second)] = b"\xff" * (second[1] - 8)
    film.write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        open_video(film, 30)
    assert numbers(film, 3) == [0, 14, 29]  # damage in other frames does not matter


def test_frames_keep_the_limits_of_pictures(tmp_path, monkeypatch):
    long = write_film(tmp_path / "long.mp4", greys(2, (16 * (MAX_ASPECT_RATIO + 1), 16)))
    with pytest.raises(ImageError, match="an aspect ratio above 200"):
        open_video(long)
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.new("RGB", (MAX_ASPECT_RATIO + 1, 1)).save(folder / "1.png")
    with pytest.raises(ImageError, match=r"frames/1.png: .*an aspect ratio above 200"):
        open_video(folder)
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"frames/1.png: is not an image"):
        open_video(folder)
    film = write_film(tmp_path / "wide.mp4", greys(2, (64, 64)))
    monkeypatch.setattr("r1_reward.store.images.MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="64x64, more than 1,000 pixels"):
        open_video(film)


def test_an_animation_of_too_many_pixels_is_refused_before_decoding(tmp_path):
    first, *others = greys(3)
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=50)
    data = bytearray((tmp_path / "a.gif").read_bytes())
    data[6:10] = struct.pack("<2H", 60_000, 60_000)  # width and height: too many for Pillow to open it
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(ImageError, match="a.gif: has more than 89,000,000 pixels"):
        open_video(tmp_path / "a.gif")


def test_sideways_films_are_turned_upright(tmp_path):
    picture = Image.new("RGB", (64, 32), "white")
    picture.paste("black", (0, 0, 32, 32))
    film = write_film(tmp_path / "phone.mp4", [picture] * 3)
    data = bytearray(film.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # after version, times, track, duration, layer and volume
    one = 1 << 16
    data[matrix : matrix + 16] = struct.pack(">4i", 0, one, 0, -one)  # 90 degrees clockwise when shown
    film.write_bytes(data)
    shown = open_video(film, 1)[0]
    assert shown.size == (32, 64)
    assert (shown.getpixel((16, 8))[0] < 40, shown.getpixel((16, 56))[0] > 215) == (True, True)


def test_without_pyav_files_name_the_extra_and_folders_work(tmp_path, monkeypatch):
    film = write_film(tmp_path / "a.mp4", greys(3))
    folder = write_frames(tmp_path / "frames", greys(3))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImageError, match=r"pip install 'r1-reward\[video\]'"):
        open_video(film)
    assert numbers(folder, 3) == [0, 1, 2]


def test_a_row_shows_its_images_and_then_its_video(tmp_path):
    still = Image.new("RGB", (32, 32), (STEP * 20,) * 3)
    still.save(tmp_path / "still.png")
    film = write_film(tmp_path / "a.mp4", greys(9))
    cells = [{"bytes": None, "path": str(tmp_path / "still.png")}]
    assert [number_of(p) for p in row_pictures({"images": cells, "video": str(film)}, 3)] == [20, 0, 4, 8]
    assert [number_of(p) for p in row_pictures({"images": cells, "video": None})] == [20]
    assert [number_of(p) for p in row_pictures({"images": None, "video": str(film)}, 2)] == [0, 8]
