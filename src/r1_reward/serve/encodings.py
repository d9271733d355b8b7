"""Decode request bodies that are compressed or have a byte order mark, and name encodings that are not supported.

The unpacked size of a compressed body counts against ``--max-body-mb``; unpacking stops there.
"""

from __future__ import annotations

import zlib

from r1_reward.serve.errors import Refusal
from r1_reward.serve.settings import ServerSettings

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
ENCODINGS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}
"""Supported values of ``Content-Encoding``, and zlib's ``wbits`` for each."""

_MOST_MEMBERS = 100  # each one costs a copy of the rest
_BOM = b"\xef\xbb\xbf"
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PK\x03\x04": "zip"}
_WIDE = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def unpack(body: bytes, encoding: str, settings: ServerSettings) -> bytes:
    """Return the unpacked content of a body in one of the ``ENCODINGS``.

    Raises:
        Refusal: the body is not in that encoding, is truncated, or is too large once unpacked.
    """
    try:
        return _inflate(body, ENCODINGS[encoding], settings)
    except zlib.error as error:
        if encoding == "deflate":  # some clients omit the zlib header
            try:
                return _inflate(body, _RAW, settings)
            except zlib.error:
                pass
        raise Refusal(400, f"the Content-Encoding is {encoding}, but the body is not ({error})") from error


def _inflate(body: bytes, kind: int, settings: ServerSettings) -> bytes:
    limit, whole = settings.max_body, bytearray()
    for _ in range(_MOST_MEMBERS):  # a gzip file may consist of several members
        one = zlib.decompressobj(kind)
        whole += one.decompress(body, limit + 1 - len(whole))
        if len(whole) > limit:
            larger = f"the body is larger than {settings.max_body_mb:g} MiB (--max-body-mb) once unpacked"
            raise Refusal(413, larger)
        if not one.eof:
            raise Refusal(400, "the compressed body is truncated")
        body = one.unused_data
        if not body or kind != _GZIP:
            return bytes(whole)
    raise Refusal(400, f"the compressed body consists of more than {_MOST_MEMBERS} parts")


def as_utf8(body: bytes) -> bytes:
    """Return JSON without a byte order mark.

    Raises:
        Refusal: the body is empty, compressed without a Content-Encoding, or not UTF-8.
    """
    body = body.removeprefix(_BOM)
    if not body.strip():
        raise Refusal(422, "the body is empty; it must be a JSON object")
    for head, name in _PACKED.items():
        if body.startswith(head):
            remedy = "add the header Content-Encoding: gzip" if name == "gzip" else "send it uncompressed or as gzip"
            raise Refusal(415, f"the body is {name} but has no Content-Encoding; {remedy}")
    wide = next((name for head, name in _WIDE.items() if body.startswith(head)), None)
    if wide is None and b"\0" in body[:2]:  # JSON begins with ASCII
        wide = "UTF-16 or UTF-32"
    if wide:
        raise Refusal(415, f"the body is {wide}; send JSON as UTF-8")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Refusal(422, f"the body is not UTF-8 (byte {error.start + 1:,}); send JSON as UTF-8") from error
    return body
