"""Bodies as clients really send them: compressed, with a byte order mark, in another encoding; read, or named.

What a compressed body holds counts against ``--max-body-mb`` as if it had come plain, and no more of it is unpacked.
"""

from __future__ import annotations

import zlib

from r1_reward.serve.errors import Refusal
from r1_reward.serve.settings import ServerSettings

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
ENCODINGS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}
"""The values of ``Content-Encoding`` that are read, and how zlib calls them."""

_MOST_MEMBERS = 100  # each of which costs a copy of what is left
_BOM = b"\xef\xbb\xbf"
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PK\x03\x04": "zip"}
_WIDE = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def unpack(body: bytes, encoding: str, settings: ServerSettings) -> bytes:
    """Return what a body holds that came with one of the ``ENCODINGS``.

    Raises:
        Refusal: it is not of that encoding, breaks off, or holds more than a body may.
    """
    try:
        return _inflate(body, ENCODINGS[encoding], settings)
    except zlib.error as error:
        if encoding == "deflate":  # some clients send it without its head
            try:
                return _inflate(body, _RAW, settings)
            except zlib.error:
                pass
        raise Refusal(400, f"the body is not {encoding}, as its Content-Encoding says ({error})") from error


def _inflate(body: bytes, kind: int, settings: ServerSettings) -> bytes:
    limit, whole = settings.max_body, bytearray()
    for _ in range(_MOST_MEMBERS):  # a gzip file may be several, one behind the other
        one = zlib.decompressobj(kind)
        whole += one.decompress(body, limit + 1 - len(whole))
        if len(whole) > limit:
            larger = f"the body is larger than {settings.max_body_mb:g} MiB (--max-body-mb) once it is unpacked"
            raise Refusal(413, larger)
        if not one.eof:
            raise Refusal(400, "the compressed body breaks off before its end")
        body = one.unused_data
        if not body or kind != _GZIP:
            return bytes(whole)
    raise Refusal(400, f"the compressed body consists of more than {_MOST_MEMBERS} parts")


def as_utf8(body: bytes) -> bytes:
    """Return JSON without a byte order mark.

    Raises:
        Refusal: it is empty, compressed without a word about it, or not UTF-8.
    """
    body = body.removeprefix(_BOM)
    if not body.strip():
        raise Refusal(422, "the body is empty; it must be a JSON object")
    for head, name in _PACKED.items():
        if body.startswith(head):
            remedy = "say so with the header Content-Encoding: gzip" if name == "gzip" else "send it plain or as gzip"
            raise Refusal(415, f"the body is {name}, and no Content-Encoding says so; {remedy}")
    wide = next((name for head, name in _WIDE.items() if body.startswith(head)), None)
    if wide is None and b"\0" in body[:2]:  # JSON begins with ASCII
        wide = "UTF-16 or UTF-32"
    if wide:
        raise Refusal(415, f"the body is {wide}; JSON must be sent as UTF-8")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Refusal(422, f"the body is not UTF-8 (byte {error.start + 1:,}); JSON must be sent as UTF-8") from error
    return body
