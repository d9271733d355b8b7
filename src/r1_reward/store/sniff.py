"""Detect the actual type of a file from its content, to report it once instead of one problem per line.

Failed downloads leave HTML pages, clones without LFS leave pointers, and JSON is often one document instead of one row
per line::

    what_it_is(Path("pairs.jsonl"))     # "is one JSON object over many lines, not one object per line"
    what_it_is(Path("pairs.parquet"))   # None: its content matches its suffix
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

_HEAD = 1 << 16  # bytes read from the start of a file
_WHOLE = 64 << 20  # JSON files up to this size are read in full to describe their content
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SIGNATURES = (
    (b"PAR1", "is a parquet file; rename it to end in .parquet"),
    (
        b"version https://git-lfs.github.com/spec/",
        "is a git LFS pointer, not the file itself; run `git lfs pull` to download it",
    ),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard; unpack it first (unzstd)"),
    (b"\xfd7zXZ\0", "is compressed with xz; unpack it first (unxz)"),
    (b"BZh", "is compressed with bzip2; unpack it first (bunzip2)"),
    (b"PK\x03\x04", "is a zip archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it first"),
    (b"ARROW1\0\0", "is an Arrow file; save it as parquet"),
    (b"FEA1", "is a Feather file; save it as parquet"),
    (b"\xff\xff\xff\xff", "is an Arrow stream; save it as parquet"),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "is a legacy Office document (.xls, .doc); save its rows as JSONL",
    ),
    (b"SQLite format 3\0", "is an SQLite database; save the rows as JSONL or parquet"),
    (b"\x89PNG", "is a PNG image, not rows"),
    (b"\xff\xd8\xff", "is a JPEG image, not rows"),
    (b"%PDF-", "is a PDF document, not rows"),
    (b"\x93NUMPY", "is a NumPy array; save the rows as JSONL or parquet"),
)
_PACKED = tuple((signature, what) for signature, what in _SIGNATURES if "unpack it first" in what)
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_XML = re.compile(rb"\s*<\?xml\b", re.IGNORECASE)
_TAR = (257, b"ustar")
_OFFICE = b"[Content_Types].xml"  # the first file in a workbook's zip archive
_WRAPPERS = ("annotations", "data", "dataset", "dev", "entries", "examples", "instances", "items", "pairs", "questions",
    "records", "results", "rows", "samples", "test", "train", "val", "validation")  # fmt: skip
"""Field names of a JSON object on a single line that mean a list of rows; other lists may be part of a row."""
_CELL = r'(?:"[^"]{0,60}"|[^",;\t|{}\[\]]{0,60})'
_CSV = re.compile(rf"{_CELL}([,;\t|]){_CELL}(?:\1{_CELL})*")


def what_it_is(file: Path) -> str | None:
    """Return in words what a file is if it cannot have rows of its suffix's kind, else None; raises OSError.

    JSON rows are recognized by the first lines; the reader reports errors further down.
    """
    with open(file, "rb") as opened:
        head = opened.read(_HEAD)
    if file.suffix == ".parquet":
        return None if head.startswith(b"PAR1") or not head else _foreign(head) or _text_as_parquet(head)
    return _foreign(head) or _not_lines(file, head)


def packed(file: Path) -> str | None:
    """Return in words how a file is compressed, whatever its suffix; None if it is not; raises OSError."""
    with open(file, "rb") as opened:
        head = opened.read(_TAR[0])
    return next((what for signature, what in _PACKED if head.startswith(signature)), None)


def parquet_fault(file: Path) -> str | None:
    """Return in words why an empty file, or one that starts as parquet, cannot be read, else None; raises OSError."""
    with open(file, "rb") as opened:
        start = opened.read(4)
        opened.seek(-len(start), os.SEEK_END)
        end = opened.read()
    if not start:
        return "cannot be read as parquet: it is empty (zero bytes)"
    if b"PARE" in (start, end):
        return "is encrypted parquet; decrypt it first"
    if start == b"PAR1" != end:
        return "cannot be read as parquet: its end is missing. Is the file complete?"
    return None


def wide_text(file: Path) -> str | None:
    """Return in words that a file is UTF-16 or UTF-32 text, None if it is not; raises OSError."""
    with open(file, "rb") as opened:
        return _wide(opened.read(4))


def is_array(file: Path) -> bool:
    """Return whether a file is one JSON array, maybe damaged, rather than one value per line; raises OSError."""
    with open(file, "rb") as opened:
        head = opened.read(_HEAD)
    text = head.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace").lstrip()
    if not text.startswith("[") or _wide(head):
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (json.JSONDecodeError, RecursionError):
        return True
    return not text[end:].lstrip().startswith(("[", "{"))


def _foreign(head: bytes) -> str | None:
    """Return what a file is by its first bytes, None if they may be JSON."""
    if head.startswith(b"PK\x03\x04") and _OFFICE in head:
        return "is an Office workbook or document (.xlsx); save its rows as JSONL"
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what
    if head[_TAR[0] :].startswith(_TAR[1]):
        return "is a tar archive; unpack it first"
    if _HTML.match(head.removeprefix(_BYTE_ORDER_MARK)):
        return "is a web page (HTML), not rows; perhaps a download failed"
    if _XML.match(head.removeprefix(_BYTE_ORDER_MARK)):
        return "is XML, not JSON rows"
    return None


def _wide(head: bytes) -> str | None:
    """Detect UTF-16 and UTF-32 text by its byte order mark or the zero bytes in JSON; None for other text."""
    zeros = [byte == 0 for byte in head[:4]]
    four = ([False, True, True, True], [True, True, True, False])
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)) or zeros in four:
        return "is UTF-32 text; save it as UTF-8"
    two = ([False, True, False, True], [True, False, True, False])
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or zeros in two:
        return "is UTF-16 text; save it as UTF-8"
    return None


def _text_as_parquet(head: bytes) -> str | None:
    if head.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] in (b"{", b"["):
        return "is JSON text, not parquet; rename it to end in .jsonl"
    text = head.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace")
    return None if {"\0", "\ufffd"} & set(text[:1000]) else _separated(text, "parquet")


def _not_lines(file: Path, head: bytes) -> str | None:
    """Return what a text file is if not JSON rows: one JSON value over several lines, or CSV."""
    text = head.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace").lstrip()
    if text.startswith("{"):
        return _spread(file, text, len(text.partition("\n")[0]), complete=len(head) < _HEAD)
    if text.startswith("[") or head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    if "\0" in text:
        return _wide(head) or "is binary data, not JSON rows"
    return _separated(text, "JSON rows")


def _separated(text: str, wanted: str) -> str | None:
    """Return a description of CSV or tab-separated text, None for other text."""
    first, _, rest = text.partition("\n")
    match, second = _CSV.fullmatch(first.strip()), rest.partition("\n")[0]
    if match and second.count(match[1]) >= first.count(match[1]):
        kind = "tab-separated text" if match[1] == "\t" else "CSV"
        columns = ", ".join(first.strip().replace('"', "").split(match[1])[:8])
        return f"is {kind} (its columns are {columns}), not {wanted}"
    return None


def _spread(file: Path, text: str, first: int, *, complete: bool) -> str | None:
    """Return what JSON is if its first line is not one object, None if it is, or if the JSON is damaged."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        # Damaged JSON fails in the middle; a longer object fails where the text was cut.
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        if complete or not cut:
            return None
        if error.pos <= first:  # all that was read is one line
            return _alone(file)
        end = len(text)
    except RecursionError:
        return None
    if end <= first:
        rest = text[end:first].strip()
        if rest.startswith("{") and not text[first:].strip():
            return "has several JSON objects on one line; put each on its own line (`jq -c .`)"
        if rest == "," and text[first:].lstrip().startswith("{"):
            return "has a comma after each object; rows are one object per line, without commas between them"
        return _alone(file)
    if text[end:].strip():
        return "has JSON objects that span several lines; put each on its own line (`jq -c .`)"
    where = _rows_in(_object(file.read_bytes())) if file.stat().st_size <= _WHOLE else ""
    return f"is one JSON object over many lines, not one object per line{where}"


def _alone(file: Path) -> str | None:
    """Return a description if a file's only line is a JSON object that wraps the rows, else None."""
    with open(file, "rb") as opened:
        line = opened.readline(_WHOLE + 1)
        if len(line) > _WHOLE or opened.read(_HEAD).strip():
            return None
    wrapped = _rows_in(_object(line), _WRAPPERS)
    return f"is one JSON object, not a row{wrapped}" if wrapped else None


def _object(content: bytes) -> dict[str, Any]:
    """Return a JSON object, empty if the content is damaged or not an object."""
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _rows_in(value: Mapping[str, Any], names: Container[str] | None = None) -> str:
    """Return where in a JSON object the rows may be: in a list (with one of ``names``), in its values, in columns."""
    lists = {
        name: len(items)
        for name, items in value.items()
        if (names is None or name.lower() in names) and _of(dict, items) and items
    }
    if lists:
        name, count = max(lists.items(), key=lambda one: one[1])
        return f"; its field {name!r} is a list of {count:,}: save that list if these are the rows"
    if len(value) > 1 and _of(dict, list(value.values())):
        return f"; its {len(value):,} fields are objects: save these (`jq -c '.[]'`) if they are the rows"
    columns = [items for items in value.values() if isinstance(items, list)]
    texts = sum(_of(str, items) for items in columns)
    if len(columns) == len(value) and texts > 1 and len(columns[0]) > 1 and len(set(map(len, columns))) == 1:
        return f"; its fields are columns of {len(columns[0]):,} values: save one object per row"
    return ""


def _of(kind: type, items: Any) -> bool:
    return isinstance(items, list) and all(isinstance(item, kind) for item in items)
