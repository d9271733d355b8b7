"""Open any image of a pair file as 8-bit RGB, or say in plain words why it cannot be opened.

Image files may be CMYK, 16-bit grayscale, palettes with transparency, rotated phone photos, or truncated downloads. All
images shown to a model go through :func:`open_image`, so that they look the same in training, evaluation and serving::

    picture = open_image("scenes/7.png")     # a path, the bytes of a file, or a PIL image
    pictures = decode_images(dataset[0])     # all images of a row that load_pairs returned
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from r1_reward.records.errors import UserError
from r1_reward.store.encoded import kind_of_source
from r1_reward.store.png_texts import PNG, without_large_texts

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image

MAX_PIXELS = 89_000_000
"""Width times height above which an image is rejected before it is decoded (about 270 MB as RGB)."""

MAX_ASPECT_RATIO = 200
"""Maximum of longer side over shorter side; the image processors of Qwen-VL reject anything above."""

# Only formats that Pillow decodes itself: EPS would start Ghostscript, WMF and HDF5 need external readers.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")

# Pillow's decoders raise these on damaged files; DecompressionBombWarning becomes an error under `-W error`.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError,
    EOFError, AssertionError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_SHOWN = 200  # characters of a name in messages
_MORE_URLS = re.compile(r"(?:^|/)(?:ftps|abfss?|az|file):/", re.IGNORECASE)
_BASE64 = re.compile(r"(?:^|/)(?:iVBORw0KGgo|/?9j/[24]|R0lGODd?|UklGR)[A-Za-z0-9+/]{24}")  # PNG, JPEG, GIF, WebP
_WHITES = {"I": [255.0, 65535.0], "F": [1.0, 255.0, 65535.0]}


class ImageError(UserError):
    """An image cannot be used; ``name`` says which, ``reason`` why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


def short_name(name: str) -> str:
    """Return an image's name for a message, shortened: the "path" may be an entire image encoded as text."""
    return name if len(name) <= _SHOWN else f"{name[: _SHOWN - 40]}... ({len(name):,} characters)"


def open_image(source: ImageSource, *, name: str | None = None) -> Image.Image:
    """Return an image as a new 8-bit RGB image: upright, first frame, transparency on white.

    Values of 16-bit, 32-bit and floating-point images are scaled to 0..255, not clipped. Of a PIL image, the current
    frame is used and the image itself left unchanged. ``name`` is its name in error messages (default: its path).
    Raises :class:`ImageError` if it is missing, damaged, not an image, over ``MAX_PIXELS`` or over
    ``MAX_ASPECT_RATIO``.
    """
    if isinstance(source, Image.Image):
        return _finish(source, name or "image", _to_rgb)
    if isinstance(source, bytes):
        name = name or "image bytes"
        if not source:
            raise ImageError(name, "is empty (zero bytes)")
        return _read(io.BytesIO(source), name, _to_rgb)
    name = name or os.fspath(source)
    require_file(source, name)
    try:
        with open(source, "rb") as file:
            return _read(file, name, _to_rgb)
    except OSError as error:
        raise ImageError(name, f"cannot be read ({error.strerror or error})") from error


def open_flattened(data: bytes) -> list[Image.Image]:
    """Decode an image from bytes and flatten its transparency in every common way, that of :func:`open_image` first.

    An image with transparent parts is returned on white, on black, and with the colors under the transparency; any
    other is returned once. Raises :class:`ImageError`.
    """
    if not data:
        raise ImageError("image bytes", "is empty (zero bytes)")
    return _read(io.BytesIO(data), "image bytes", _flattened)


def check_image(source: ImageSource, *, name: str | None = None) -> None:
    """Decode an image fully and discard it; raises :class:`ImageError` exactly when :func:`open_image` does."""
    open_image(source, name=name)


def decode_images(row: Mapping[str, Any]) -> list[Image.Image]:
    """Return all images of a row of :func:`r1_reward.store.pairs.load_pairs` as RGB; raises :class:`ImageError`."""
    return [_open_cell(cell) for cell in row["images"] or []]


def embedded(cell: Any) -> dict[str, Any]:
    """Return an image cell with its bytes embedded and its path reduced to the file name.

    ``cell`` is ``{"bytes": ..., "path": ...}``, the bytes of a file, or a path. Raises :class:`ImageError` if there is
    nothing to embed.
    """
    cell = cell if isinstance(cell, Mapping) else {"bytes" if isinstance(cell, bytes) else "path": cell}
    data, path = cell.get("bytes"), cell.get("path")
    if data is None:
        if not path:
            raise ImageError("image", "has neither bytes nor a path")
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
            raise _no_file(str(path), str(path), reason) from error
    if not data:
        raise ImageError(str(path or "image"), "is empty (zero bytes)")
    # Undecodable bytes in a file name appear as lone surrogates, which parquet does not accept.
    return {"bytes": data, "path": os.path.basename(path).encode("utf-8", "replace").decode() if path else None}


def image_suffix(data: bytes) -> str:
    """Return the file suffix for the bytes of an image, such as ``.png``; ``.img`` if they are not an image."""
    try:
        with identified(io.BytesIO(data)) as image:
            return "." + (image.format or "img").lower().replace("jpeg", "jpg")
    except (*DECODE_ERRORS, *BOMBS):
        return ".img"


def _open_cell(cell: Any) -> Image.Image:
    """Open a cell of an ``Image(decode=False)`` column: its bytes if embedded, else the file at its path."""
    if not isinstance(cell, Mapping):
        return open_image(cell)
    data, path = cell.get("bytes"), cell.get("path")
    if data is not None:
        return open_image(data, name=path)
    if path is None:
        raise ImageError("image", "has neither bytes nor a path")
    return open_image(path)


def require_file(path: str | os.PathLike[str], name: str) -> None:
    """Raise ImageError unless a path is a nonempty regular file; a pipe or device could block forever."""
    text = os.fspath(path)
    try:
        file = Path(text)
        if not text.strip() or not (file.is_dir() or file.exists()):
            raise _no_file(text, name, "no such file")
        if file.is_dir():
            raise ImageError(name, "is a directory, not an image file")
        if not file.is_file():
            raise ImageError(name, "is not a regular file")
        if file.stat().st_size == 0:
            raise ImageError(name, "is empty (zero bytes)")
    except (OSError, ValueError) as error:
        raise _no_file(text, name, f"is not a usable path ({error})") from error


def _no_file(text: str, name: str, otherwise: str) -> ImageError:
    """Return the error for a file that does not exist."""
    reason = not_a_path(text)
    return ImageError(short_name(name), reason) if reason else ImageError(name, otherwise)


def not_a_path(text: str) -> str | None:
    """Return why a text that is not an existing file is not a path either, such as a URL; None if it may be a path.

    The text may already have been joined to a folder or resolved, which turns ``//`` into ``/``.
    """
    if not text.strip():
        return "is blank, not a file path"
    kind = kind_of_source(text, in_folder=True)
    if kind == "data":
        return "is a data URI, not a path; save the image to a file and give its path"
    if kind == "url" or _MORE_URLS.search(text):
        return "is a URL, and images are not downloaded; save the image to a file and give its path"
    if _BASE64.search(text):
        return "is a base64-encoded image, not a path; save the image to a file and give its path"
    return None


def _formats() -> list[str]:
    """Return the accepted formats that this build of Pillow supports (AVIF and WebP may be missing)."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def identified(file: Any, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Open a binary file object as an image without decoding it, in one of ``formats`` (default: all accepted ones).

    Raises Pillow's own exceptions.
    """
    try:
        return Image.open(file, formats=formats or _formats())
    except ValueError:
        if (smaller := _smaller(file)) is None:
            raise
        return Image.open(smaller, formats=formats or _formats())


def _smaller(file: Any) -> io.BytesIO | None:
    """Return a PNG file without the text chunks that Pillow rejects as too large; None if it has none."""
    file.seek(0)
    start = file.read(len(PNG))
    data = without_large_texts(start + file.read()) if start == PNG else None
    return None if data is None else io.BytesIO(data)


def _read(file: Any, name: str, convert: Callable[..., Any]) -> Any:
    """Decode a binary file object; ``convert`` is :func:`_to_rgb` or has its signature."""
    try:
        return _decode(file, name, convert)
    except ImageError as error:  # a large text chunk may also follow the pixels
        smaller = _smaller(file) if isinstance(error.__cause__, ValueError) else None
        if smaller is None:
            raise
    return _decode(smaller, name, convert)


def _decode(file: Any, name: str, convert: Callable[..., Any]) -> Any:
    """Open a binary file object, check the size in its header, and only then decode it."""
    try:
        with identified(file) as image:
            return _finish(image, name, convert)
    except Image.UnidentifiedImageError as error:
        raise ImageError(name, "is not an image, or not in a supported format") from error
    except BOMBS as error:
        raise ImageError(name, f"has more than {MAX_PIXELS:,} pixels") from error
    except DECODE_ERRORS as error:
        raise ImageError(name, f"is damaged or truncated ({error})") from error


def _finish(image: Image.Image, name: str, convert: Callable[..., Any]) -> Any:
    """Check the size of an opened image, decode it, turn it upright and convert it."""
    check_size(image.size, name)
    try:
        image.load()
        return convert(_upright(image), sixteen_bit=image.mode.startswith("I;16") or image.format in ("PNG", "PPM"))
    except DECODE_ERRORS as error:
        raise ImageError(name, f"is damaged or truncated ({error})") from error


def check_size(size: tuple[int, int], name: str) -> None:
    """Raise ImageError for sizes that would exhaust memory or that no vision tower accepts."""
    width, height = size
    if min(size) < 1:
        raise ImageError(name, f"has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise ImageError(name, f"is {width}x{height}, more than {MAX_PIXELS:,} pixels")
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise ImageError(name, f"is {width}x{height}, an aspect ratio above {MAX_ASPECT_RATIO}")


def _upright(image: Image.Image) -> Image.Image:
    """Return the image rotated by its EXIF orientation; unreadable EXIF data is ignored."""
    try:
        return ImageOps.exif_transpose(image)
    except DECODE_ERRORS:
        return image.copy()


def _to_rgb(image: Image.Image, *, sixteen_bit: bool) -> Image.Image:
    """Convert any Pillow mode to RGB; ``sixteen_bit`` says that white is 65535 in modes above 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8bit(image, [65535.0] if sixteen_bit else _WHITES[image.mode])
    if (transparent := _with_alpha(image)) is not None:
        return _on(transparent, "white")
    return image.convert("RGB")


def _flattened(image: Image.Image, *, sixteen_bit: bool) -> list[Image.Image]:
    shown, transparent = _to_rgb(image, sixteen_bit=sixteen_bit), _with_alpha(image)
    if transparent is None or transparent.getchannel("A").getextrema() == (255, 255):
        return [shown]
    return [shown, _on(transparent, "black"), transparent.convert("RGB")]


def _with_alpha(image: Image.Image) -> Image.Image | None:
    """Return an image with transparency as RGBA, None for any other."""
    if image.mode in ("La", "RGBa"):  # premultiplied alpha: Pillow converts these in one direction only
        image = image.convert(image.mode.upper())
    known = image.mode in ("LA", "PA", "RGBA") or ("transparency" in image.info and image.mode[0] not in "IF")
    return image.convert("RGBA") if known else None


def _on(image: Image.Image, color: str) -> Image.Image:
    """Return an RGBA image on a background of one color, as RGB."""
    return Image.alpha_composite(Image.new("RGBA", image.size, color), image).convert("RGB")


def _scale_to_8bit(image: Image.Image, whites: list[float]) -> Image.Image:
    """Scale high-bit-depth grayscale to 0..255 as RGB; Pillow's own conversion clips everything above 255 to white.

    In 16-bit files white is 65535. For 32-bit and floating-point images white is undefined: use the first of ``whites``
    that no value exceeds or, failing that or with negative values, the range of the image.
    """
    values = np.asarray(image, dtype=np.float64 if image.mode == "I" else np.float32)
    values = np.where(np.isnan(values), 0, values)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    white = next((white for white in whites if high <= white), None)
    if low >= 0 and white is not None:
        low, high = 0.0, white
    scaled = (np.clip(values, low, high) - low) * (255 / (high - low) if high > low else 0)
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")
