"""Images as text: base64, bare or in a data URI, and how to tell it from a path or a URL.

>>> decode("data:image/png;base64,iVBORw0KGgo=")[1:4]
b'PNG'
>>> kind_of_source("https://example.org/7.png"), kind_of_source("data:image/png;base64,iVBO"), kind_of_source("a/7.png")
('url', 'data', 'path')
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Literal

_URL = r"(?i:https?|ftp|s3|gs|hf):/"  # a single slash, as after pathlib has normalized a URL
_DATA = r"(?i:data):[\w.+/-]*[;,]"
_KINDS = re.compile(rf"(?P<url>{_URL})|(?P<data>{_DATA})")
_KINDS_IN_FOLDER = re.compile(rf"(?:^|[\\/])(?:(?P<url>{_URL})|(?P<data>{_DATA}))")


def kind_of_source(text: str, *, in_folder: bool = False) -> Literal["url", "data", "path"]:
    """Return what kind of image source a text is; bare base64 counts as a path.

    ``in_folder``: a folder may have been joined in front of it.
    """
    match = _KINDS_IN_FOLDER.search(text) if in_folder else _KINDS.match(text)
    if match is None:
        return "path"
    return "url" if match["url"] else "data"


def decode(text: str) -> bytes:
    """Return the bytes of base64 or of a data URI, ignoring white space.

    Raises:
        ValueError: If it is neither; the message continues a sentence that begins with the name of the text.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError("must be like data:image/png;base64,...")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64") from error


def decode_bare(text: str) -> bytes | None:
    """Return the bytes of bare base64, None if the text looks like a path.

    Base64 has no dots, and only a JPEG's begins with a slash.
    """
    if "." in text[:64] or (text.startswith("/") and not text.startswith("/9j/")) or len(text) < 32:
        return None
    try:
        return decode(text)
    except ValueError:
        return None
