"""Real videos for tests: files and folders whose frames tell their number by their grey."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

STEP = 8
"""Grey levels between one frame and the next."""


def greys(count: int, size: tuple[int, int] = (32, 32)) -> list[Image.Image]:
    """Return ``count`` pictures, the first black, each one STEP lighter than the one before."""
    return [Image.new("RGB", size, (STEP * number,) * 3) for number in range(count)]


def number_of(picture: Image.Image) -> int:
    """Return which of the ``greys`` a picture shows; lossy codecs move a grey by less than half a STEP."""
    assert picture.mode == "RGB"
    return round(float(np.asarray(picture).mean()) / STEP)


def write_film(
    path: Path, frames: Sequence[Image.Image], codec: str = "mpeg4", *, gop: int = 12, rate: int = 10, **options: str
) -> Path:
    """Write a video file, its container chosen by the suffix."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        if codec == "mpeg4":
            stream.codec_context.qmin = stream.codec_context.qmax = 2
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_frames(folder: Path, frames: Sequence[Image.Image]) -> Path:
    """Write a folder of frames named 0.png, 1.png, ..., 10.png, the last first."""
    folder.mkdir(parents=True)
    for number in reversed(range(len(frames))):
        frames[number].save(folder / f"{number}.png")
    return folder
