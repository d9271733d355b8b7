"""Sample a video as evenly spaced frames, in order.

A video is a file (MP4, WebM, Matroska, AVI, GIF, ...) or a folder of frames. In training, evaluation and serving alike,
its frames are shown as images after the row's own::

    frames = open_video("clips/7.mp4", frames=8)        # a file, or a folder with frame_1.png, frame_2.png, ...
    pictures = row_pictures(dataset[0], frames=8)       # the images, then the video, of a row from load_pairs

The frames are those at ``linspace(0, last, frames)``, rounded down, by index and not by time, so a file and the folder
of all its frames give the same ones. Files are decoded by PyAV (the extra ``video``), animated images by Pillow.
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
    BOMBS,
    DECODE_ERRORS,
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
# Excludes FFmpeg's playlist and script formats, which may open other files or URLs.
_CONTAINERS = "mov,matroska,avi,mpeg,mpegts,flv,asf,ogg"
_MISSING_SHARE, _MISSING_SECONDS = 0.1, 1.0  # a file that ends this far before its declared end was cut off


@dataclass(frozen=True)
class Video:
    """A video among the images of a question: ``model.compare(question, [Video("clip.mp4")], a, b)``."""

    path: str | os.PathLike[str]
    """A file, or a folder of frames."""
    frames: int | None = None
    """Maximum number of frames shown; None uses the model's default."""


def open_video(path: str | os.PathLike[str], frames: int = FRAMES, *, name: str | None = None) -> list[Image.Image]:
    """Return up to ``frames`` frames of a video as 8-bit RGB, evenly spaced from the first to the last, upright.

    ``name`` is the video's name in error messages (default: its path).

    Raises:
        ImageError: If it is missing, damaged or truncated, is not a video, has no frames, or a frame exceeds the limits
            of :func:`r1_reward.store.images.open_image`; or if it is a file and PyAV is not installed.
        UserError: If ``frames`` is less than 1.
    """
    if frames < 1:
        raise UserError(f"frames: must be 1 or more, not {frames}.")
    files = find_video(path, name=name)
    if files:
        return [open_image(files[index]) for index in evenly(len(files), frames)]
    name = name or os.fspath(path)
    return _animation(Path(path), frames, name) or _film(Path(path), frames, name)


def find_video(path: str | os.PathLike[str], *, name: str | None = None) -> list[Path]:
    """Return the frame files of a folder in natural order, none for a file, without opening them.

    Raises:
        ImageError: If the path is neither a nonempty regular file nor a folder with frames.
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
        raise ImageError(name, f"has no images ({', '.join(FRAME_SUFFIXES)}), so the video has no frames")
    return [Path(path, file) for file in sorted(names, key=natural_key)]


def row_pictures(row: Mapping[str, Any], frames: int = FRAMES) -> list[Image.Image]:
    """Return the media of a row of a pair file: its images, then up to ``frames`` frames of its video.

    Raises:
        ImageError: If one of them cannot be opened.
    """
    video = row.get("video")
    return decode_images(row) + (open_video(video, frames) if video else [])


def evenly(total: int, n: int) -> list[int]:
    """Return ``n`` evenly spaced indices below ``total``, including the first and the last; all if there are fewer."""
    # Rounded down, like the evaluators of MM-RLHF.
    return list(range(total)) if total <= n else np.linspace(0, total - 1, n, dtype=int).tolist()


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts ``frame_2`` before ``frame_10``."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _animation(path: Path, n: int, name: str) -> list[Image.Image]:
    """Return frames of an animated image, none if the file is of another kind."""
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
    except BOMBS as error:
        raise ImageError(name, f"has more than {MAX_PIXELS:,} pixels") from error
    except DECODE_ERRORS as error:
        raise ImageError(name, f"is damaged or truncated ({error})") from error


def _film(path: Path, n: int, name: str) -> list[Image.Image]:
    """Return frames of a video file."""
    av = _pyav(name)
    try:
        packets = _scan(av, path, name)
        return _by_time(av, path, n, name, packets) or _by_count(av, path, n, name)
    except (av.FFmpegError, OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(name, f"is damaged or truncated, or not a supported video ({reason})") from error


def _pyav(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ImageError(
            name, "reading video files requires PyAV: pip install 'r1-reward[video]' (a folder of frames does not)"
        ) from error
    return av


class _Packet(NamedTuple):
    time: int
    """Presentation time of its frame, in units of the stream."""
    key: bool
    """Whether decoding can start here."""
    shown: bool


@contextmanager
def _opened(av: Any, path: Path, name: str) -> Iterator[tuple[Any, Any]]:
    """Open a container and its first video stream; raises ImageError if there is none or its frames are too large."""
    with open(path, "rb") as file, av.open(file, options={"format_whitelist": _CONTAINERS}) as container:
        if not container.streams.video:
            raise ImageError(name, "has no video stream")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise ImageError(name, "uses a codec that this build of PyAV cannot decode")
        check_size((context.width, context.height), name)
        context.options = {"max_pixels": str(MAX_PIXELS)}  # frames may claim another size than the header
        yield container, stream


def _scan(av: Any, path: Path, name: str) -> list[_Packet] | None:
    """Read all packets of the video without decoding them; None if they have no presentation times.

    Raises:
        ImageError: If the file ends long before its declared duration.
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
    """Return the wanted frames, decoding only the groups that contain them; None if packet and frame times differ.

    A group, from one keyframe to the next, can be decoded on its own; most of a long video can be skipped.
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
            elif decoding:  # flush the frames of the previous group that the decoder still buffers
                decoding = False
                keep(context.decode(None))
                context.flush_buffers()
        if decoding:
            keep(context.decode(None))
    return [found[time] for time in wanted] if len(found) == len(wanted) else None


def _groups_needed(packets: Sequence[_Packet], wanted: Container[int]) -> set[int]:
    """Return the numbers of the groups to decode; group 0 precedes the first keyframe."""
    needed: set[int] = set()
    group, key_time = 0, 0
    for packet in packets:
        if packet.key:
            group, key_time = group + 1, packet.time
        if packet.time in wanted:
            # A frame shown before its keyframe also depends on the previous group.
            needed |= {group, group - 1} if packet.time < key_time else {group}
    return needed


def _by_count(av: Any, path: Path, n: int, name: str) -> list[Image.Image]:
    """Return the wanted frames by decoding the video twice: once to count the frames, once to keep some."""
    with _opened(av, path, name) as (container, stream):
        total = sum(1 for _ in container.decode(stream))
    if not total:
        raise ImageError(name, "has no frames")
    wanted = set(evenly(total, n))
    with _opened(av, path, name) as (container, stream):
        frames = enumerate(container.decode(stream))
        return [_picture(frame, name, index) for index, frame in frames if index in wanted]


def _picture(frame: Any, name: str, index: int) -> Image.Image:
    """Return a decoded frame as an upright image."""
    place = f"{name}, frame {index + 1}"
    if frame.is_corrupt:
        raise ImageError(place, "is damaged")
    check_size((frame.width, frame.height), place)
    turned = frame.to_image().rotate(frame.rotation, expand=True) if frame.rotation else frame.to_image()
    return open_image(turned, name=place)
