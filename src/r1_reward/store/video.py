"""Show a video as evenly spaced frames: ordinary pictures, in the order they were filmed.

A video is a file (MP4, WebM, Matroska, AVI, GIF, ...) or a folder of frames. Its frames take the places of as many
images, behind the row's own, in training, evaluation and serving alike::

    frames = open_video("clips/7.mp4", frames=8)        # a file, or a folder with frame_1.png, frame_2.png, ...
    pictures = row_pictures(dataset[0], frames=8)       # of a row that load_pairs returned: its images, then its video

The frames are those at ``linspace(0, last, frames)``, rounded down, by number and not by time, so a file and the folder
of all its frames show the same. Files are decoded by PyAV (the extra ``video``), animated pictures by Pillow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from r1_reward.records.errors import UserError
from r1_reward.records.schema import FRAMES
from r1_reward.store.images import (
    MAX_PIXELS,
    ImageError,
    check_size,
    decode_images,
    identified,
    open_image,
    require_file,
)

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")

_ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")
# FFmpeg also knows playlists and scripts, which may name other files or addresses to open; none of those are here.
_CONTAINERS = "mov,matroska,avi,mpeg,mpegts,flv,asf,ogg"
_MISSING_SHARE, _MISSING_SECONDS = 0.1, 1.0  # a file that ends this far before its declared end was cut off


@dataclass(frozen=True)
class Video:
    """A video among the pictures of a question: ``model.compare(question, [Video("clip.mp4")], a, b)``."""

    path: str | os.PathLike[str]
    """A file, or a folder of frames."""
    frames: int | None = None
    """How many to show at most; None leaves it to the model."""


def open_video(path: str | os.PathLike[str], frames: int = FRAMES, *, name: str | None = None) -> list[Image.Image]:
    """Return up to ``frames`` frames of a video as 8-bit RGB, evenly spaced from the first to the last, upright.

    ``name`` is what error messages call the video (default: its path).

    Raises:
        ImageError: it is missing, damaged or truncated, no video, has no frames, or a frame is over the limits of
            :func:`r1_reward.store.images.open_image`; or it is a file and PyAV is not installed.
        UserError: ``frames`` is less than 1.
    """
    if frames < 1:
        raise UserError(f"At least 1 frame of a video must be shown, not {frames}.")
    files = find_video(path, name=name)
    if files:
        return [open_image(files[index]) for index in evenly(len(files), frames)]
    name = name or os.fspath(path)
    return _animation(Path(path), frames, name) or _film(Path(path), frames, name)


def find_video(path: str | os.PathLike[str], *, name: str | None = None) -> list[Path]:
    """Return the frames of a folder in natural order, none for a file; nothing is opened.

    Raises:
        ImageError: there is neither an ordinary file with bytes in it nor a folder with frames.
    """
    name = name or os.fspath(path)
    try:
        names = os.listdir(path) if os.path.isdir(path) else None
    except OSError as error:
        raise ImageError(name, f"cannot be read ({error.strerror or error})") from error
    if names is None:
        require_file(path, name)
        return []
    names = [file for file in names if file.lower().endswith(FRAME_SUFFIXES) and not file.startswith(".")]
    if not names:
        raise ImageError(name, f"holds no images ({', '.join(FRAME_SUFFIXES)}), so the video has no frames")
    return [Path(path, file) for file in sorted(names, key=natural_key)]


def row_pictures(row: Mapping[str, Any], frames: int = FRAMES) -> list[Image.Image]:
    """Return what a row of a pair file shows: its images, then up to ``frames`` frames of its video.

    Raises:
        ImageError: one of them cannot be shown.
    """
    video = row.get("video")
    return decode_images(row) + (open_video(video, frames) if video else [])


def evenly(total: int, n: int) -> list[int]:
    """Return ``n`` of the numbers below ``total``, evenly spaced from the first to the last; all if they are fewer."""
    # Rounded down, like the evaluators of MM-RLHF.
    return list(range(total)) if total <= n else np.linspace(0, total - 1, n, dtype=int).tolist()


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts ``frame_2`` before ``frame_10``."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _animation(path: Path, n: int, name: str) -> list[Image.Image]:
    """Return frames of an animated picture, none if the file is of another kind."""
    try:
        with open(path, "rb") as file, identified(file, _ANIMATIONS) as image:
            check_size(image.size, name)
            pictures = []
            for index in evenly(getattr(image, "n_frames", 1), n):
                image.seek(index)
                pictures.append(open_image(image, name=f"{name}, frame {index + 1}"))
            return pictures
    except Image.UnidentifiedImageError:
        return []
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(name, f"is damaged or truncated ({error})") from error


def _film(path: Path, n: int, name: str) -> list[Image.Image]:
    """Return frames of a video file."""
    av = _pyav(name)
    try:
        packets = _scan(av, path, name)
        return _by_time(av, path, n, name, packets) or _by_count(av, path, n, name)
    except (av.FFmpegError, OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(
            name, f"is damaged or truncated, or no video of a kind that is supported ({reason})"
        ) from error


def _pyav(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ImageError(
            name, "video files are read with PyAV: pip install 'r1-reward[video]' (a folder of frames needs nothing)"
        ) from error
    return av


class _Packet(NamedTuple):
    time: int
    """When its frame is shown, in units of the stream."""
    key: bool
    """Whether decoding can begin here."""
    shown: bool


@contextmanager
def _opened(av: Any, path: Path, name: str) -> Iterator[tuple[Any, Any]]:
    """Open the container and its first video stream; raises ImageError if there is none or its frames are too large."""
    with open(path, "rb") as file, av.open(file, options={"format_whitelist": _CONTAINERS}) as container:
        if not container.streams.video:
            raise ImageError(name, "holds no video stream")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise ImageError(name, "is of a kind that this build of PyAV cannot decode")
        check_size((context.width, context.height), name)
        context.options = {"max_pixels": str(MAX_PIXELS)}  # frames inside may claim another size than the header
        yield container, stream


def _scan(av: Any, path: Path, name: str) -> list[_Packet] | None:
    """Read all packets of the video without decoding any; None if they do not say when they are shown.

    Raises:
        ImageError: the file ends long before the time it declares.
    """
    packets: list[_Packet] | None = []
    with _opened(av, path, name) as (container, stream):
        begin = (container.start_time or 0) / av.time_base
        end = begin
        for packet in container.demux():
            if not packet.size:
                continue
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
            if packet.stream is not stream or packets is None:
                continue
            if packet.pts is None:
                packets = None
            else:
                packets.append(_Packet(packet.pts, packet.is_keyframe, not packet.is_discard))
        declared = (container.duration or 0) / av.time_base
        missing = declared - (end - begin)
        if missing > _MISSING_SECONDS and missing > _MISSING_SHARE * declared:
            raise ImageError(name, f"is truncated (its last {missing:.1f} of {declared:.1f} seconds are missing)")
    return packets


def _by_time(av: Any, path: Path, n: int, name: str, packets: Sequence[_Packet] | None) -> list[Image.Image] | None:
    """Return the frames wanted, decoding only around them; None if the packets' times are not those of the frames.

    Between two keyframes is what can be decoded on its own; most of a long video holds no frame that is wanted.
    """
    times = sorted(packet.time for packet in packets or () if packet.shown)
    wanted = {times[index]: index for index in evenly(len(times), n)}
    if not wanted or len(set(times)) < len(times):
        return None
    needed = _groups_needed(packets or (), wanted)
    found: dict[int, Image.Image] = {}

    def keep(frames: Sequence[Any]) -> None:
        for frame in frames:
            if frame.pts in wanted:
                found[frame.pts] = _picture(frame, name, wanted[frame.pts])

    with _opened(av, path, name) as (container, stream):
        group, context, decoding = 0, stream.codec_context, False
        for packet in container.demux(stream):
            if not packet.size:
                continue
            group += packet.is_keyframe
            if group in needed:
                decoding = True
                keep(context.decode(packet))
            elif decoding:  # what the decoder holds back belongs to the group before
                decoding = False
                keep(context.decode(None))
                context.flush_buffers()
        if decoding:
            keep(context.decode(None))
    return [found[time] for time in wanted] if len(found) == len(wanted) else None


def _groups_needed(packets: Sequence[_Packet], wanted: Container[int]) -> set[int]:
    """Return the numbers of the groups to decode: a group is a keyframe and what follows it; 0 is before the first."""
    needed: set[int] = set()
    group, key_time = 0, 0
    for packet in packets:
        if packet.key:
            group, key_time = group + 1, packet.time
        if packet.time in wanted:
            # Shown before its keyframe, it leans on the group before, too.
            needed |= {group, group - 1} if packet.time < key_time else {group}
    return needed


def _by_count(av: Any, path: Path, n: int, name: str) -> list[Image.Image]:
    """Return the frames wanted by decoding all of them twice: to count them, and to keep some."""
    with _opened(av, path, name) as (container, stream):
        total = sum(1 for _ in container.decode(stream))
    if not total:
        raise ImageError(name, "holds no frames")
    wanted = set(evenly(total, n))
    with _opened(av, path, name) as (container, stream):
        frames = enumerate(container.decode(stream))
        return [_picture(frame, name, index) for index, frame in frames if index in wanted]


def _picture(frame: Any, name: str, index: int) -> Image.Image:
    """Return a decoded frame as an upright picture."""
    place = f"{name}, frame {index + 1}"
    if frame.is_corrupt:
        raise ImageError(place, "is damaged")
    check_size((frame.width, frame.height), place)
    turned = frame.to_image().rotate(frame.rotation, expand=True) if frame.rotation else frame.to_image()
    return open_image(turned, name=place)
