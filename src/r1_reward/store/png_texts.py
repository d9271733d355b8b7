"""PNG files with larger text chunks than Pillow accepts: image generators store whole workflows next to the pixels.

Pillow decompresses texts and color profiles when it opens a file, up to a limit against decompression bombs, and
rejects the whole image above it. Models never see these texts, so chunks above the limit are removed::

    smaller = without_large_texts(data)     # None: there is nothing to remove
"""

from __future__ import annotations

import struct
import zlib

from PIL.PngImagePlugin import MAX_TEXT_CHUNK

PNG = b"\x89PNG\r\n\x1a\n"
"""The PNG signature."""
_FRAME = 12  # bytes of a chunk besides its content: length, kind, checksum
_ALL = 16 * MAX_TEXT_CHUNK  # limit of all texts together, well below Pillow's


def without_large_texts(data: bytes) -> bytes | None:
    """Return a PNG file without its large texts and color profiles; None if it has none, or is not PNG."""
    if not data.startswith(PNG):
        return None
    kept, place, total = [PNG], len(PNG), 0
    while place + _FRAME <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + _FRAME + length
        size = _unpacked(kind, data[place + 8 : end - 4])
        if size <= MAX_TEXT_CHUNK and total + size <= _ALL:
            kept.append(data[place:end])
            total += size
        place = end
    kept.append(data[place:])
    smaller = b"".join(kept)
    return smaller if len(smaller) < len(data) else None


def _unpacked(kind: bytes, content: bytes) -> int:
    """Return the decompressed size of a chunk's text, at most just above the limit; 0 for any other chunk."""
    if kind == b"tEXt":
        return len(content)
    name, _, rest = content.partition(b"\0")
    if kind in (b"zTXt", b"iCCP"):
        return len(name) + _inflated(rest[1:])
    if kind == b"iTXt":
        text = rest[2:].split(b"\0", 2)[-1]
        return len(name) + (_inflated(text) if rest[:1] == b"\1" else len(text))
    return 0


def _inflated(data: bytes) -> int:
    try:
        return len(zlib.decompressobj().decompress(data, MAX_TEXT_CHUNK + 1))
    except zlib.error:  # Pillow treats it as an empty text
        return 0
