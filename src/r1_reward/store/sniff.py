"""What a file is by what it holds, whatever its name says: told once, instead of one problem for every line.

A download that failed leaves a page of HTML, a clone without LFS leaves pointers, and JSON comes in one piece as often
as a line for each row::

    what_it_is(Path("pairs.jsonl"))     # "is one JSON object over many lines, not an object a line"
    what_it_is(Path("pairs.parquet"))   # None: it begins as its name says
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

_HEAD = 1 << 16  # bytes that are looked at
_WHOLE = 64 << 20  # bytes of a JSON file that is read in full to name what is in it
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SIGNATURES = (
    (b"PAR1", "is a parquet file; give it a name that ends in .parquet"),
    (
        b"version https://git-lfs.github.com/spec/",
        "is a git LFS pointer, not the file itself; `git lfs pull` gets it",
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
        "is a document of an old Office program (.xls, .doc); save its rows as JSONL",
    ),
    (b"SQLite format 3\0", "is an SQLite database; save the rows as JSONL or parquet"),
    (b"\x89PNG", "is a PNG picture, not rows"),
    (b"\xff\xd8\xff", "is a JPEG picture, not rows"),
    (b"%PDF-", "is a PDF document, not rows"),
    (b"\x93NUMPY", "is a NumPy array; save the rows as JSONL or parquet"),
)
_PACKED = tuple((signature, what) for signature, what in _SIGNATURES if "unpack it first" in what)
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_XML = re.compile(rb"\s*<\?xml\b", re.IGNORECASE)
_TAR = (257, b"ustar")
_OFFICE = b"[Content_Types].xml"  # the first file in the archive that a workbook is
_WRAPPERS = ("annotations", "data", "dataset", "dev", "entries", "examples", "instances", "items", "pairs", "questions",
    "records", "results", "rows", "samples", "test", "train", "val", "validation")  # fmt: skip
"""Names of the lists of rows in a JSON object that stands alone on a line; other lists may belong to a row."""
_CELL = r'(?:"[^"]{0,60}"|[^",;\t|{}\[\]]{0,60})'
_CSV = re.compile(rf"{_CELL}([,;\t|]){_CELL}(?:\1{_CELL})*")


def what_it_is(file: Path) -> str | None:
    """Return in words what a file is that cannot hold rows of its kind, or None; raises OSError.

    Whether it holds rows of JSON is judged by the first lines; a fault further down is for the reader to find.
    """
    with open(file, "rb") as opened:
        head = opened.read(_HEAD)
    if file.suffix == ".parquet":
        return None if head.startswith(b"PAR1") or not head else _foreign(head) or _text_as_parquet(head)
    return _foreign(head) or _not_lines(file, head)


def packed(file: Path) -> str | None:
    """Return in words how a file is compressed, None if it is not, whatever its name; raises OSError."""
    with open(file, "rb") as opened:
        head = opened.read(_TAR[0])
    return next((what for signature, what in _PACKED if head.startswith(signature)), None)


def parquet_fault(file: Path) -> str | None:
    """Return in words what keeps a file that begins as parquet, or is empty, from being read; raises OSError."""
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
    """Return in words which text of two or four bytes a character a file is, None if it is not; raises OSError."""
    with open(file, "rb") as opened:
        return _wide(opened.read(4))


def is_array(file: Path) -> bool:
    """Say whether a file holds one JSON array, whole or damaged, rather than a value a line; raises OSError."""
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
    """Return what a file is by the bytes it begins with, None if they may be JSON."""
    if head.startswith(b"PK\x03\x04") and _OFFICE in head:
        return "is a workbook or document of an Office program (.xlsx); save its rows as JSONL"
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what
    if head[_TAR[0] :].startswith(_TAR[1]):
        return "is a tar archive; unpack it first"
    if _HTML.match(head.removeprefix(_BYTE_ORDER_MARK)):
        return "is a web page (HTML), not rows: perhaps what a failed download left"
    if _XML.match(head.removeprefix(_BYTE_ORDER_MARK)):
        return "is XML, not rows of JSON"
    return None


def _wide(head: bytes) -> str | None:
    """Return what text of two or four bytes a character is, by its mark or the zeros in JSON; None for other text."""
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
        return "is JSON text, not parquet; give it a name that ends in .jsonl"
    text = head.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace")
    return None if {"\0", "\ufffd"} & set(text[:1000]) else _separated(text, "parquet")


def _not_lines(file: Path, head: bytes) -> str | None:
    """Return what a text file is that is not JSON rows: one JSON value over several lines, or CSV."""
    text = head.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace").lstrip()
    if text.startswith("{"):
        return _spread(file, text, len(text.partition("\n")[0]), complete=len(head) < _HEAD)
    if text.startswith("[") or head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    if "\0" in text:
        return _wide(head) or "is binary data, not rows of JSON"
    return _separated(text, "rows of JSON")


def _separated(text: str, wanted: str) -> str | None:
    """Return that a text is CSV or its like, if it is."""
    first, _, rest = text.partition("\n")
    match, second = _CSV.fullmatch(first.strip()), rest.partition("\n")[0]
    if match and second.count(match[1]) >= first.count(match[1]):
        kind = "tab-separated text" if match[1] == "\t" else "CSV"
        columns = ", ".join(first.strip().replace('"', "").split(match[1])[:8])
        return f"is {kind} (its columns are {columns}), not {wanted}"
    return None


def _spread(file: Path, text: str, first: int, *, complete: bool) -> str | None:
    """Return what JSON is that does not have an object on its first line, None if it does or is damaged."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        # Damaged is what goes wrong in the middle; a longer object goes wrong where the text was cut.
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
            return "has several JSON objects on one line; put each on a line of its own (`jq -c .`)"
        if rest == "," and text[first:].lstrip().startswith("{"):
            return "has a comma behind every object; rows are an object a line, without commas between them"
        return _alone(file)
    if text[end:].strip():
        return "has JSON objects over several lines each; put each on a line of its own (`jq -c .`)"
    where = _rows_in(_object(file.read_bytes())) if file.stat().st_size <= _WHOLE else ""
    return f"is one JSON object over many lines, not an object a line{where}"


def _alone(file: Path) -> str | None:
    """Return what a file is whose only line is one JSON object that wraps the rows; None for any other."""
    with open(file, "rb") as opened:
        line = opened.readline(_WHOLE + 1)
        if len(line) > _WHOLE or opened.read(_HEAD).strip():
            return None
    wrapped = _rows_in(_object(line), _WRAPPERS)
    return f"is one JSON object, not a row{wrapped}" if wrapped else None


def _object(content: bytes) -> dict[str, Any]:
    """Return a JSON object, an empty one if it is damaged or something else."""
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _rows_in(value: Mapping[str, Any], names: Container[str] | None = None) -> str:
    """Say where in a JSON object the rows may be: in a list (of these names), in its values, in columns."""
    lists = {
        name: len(items)
        for name, items in value.items()
        if (names is None or name.lower() in names) and _of(dict, items) and items
    }
    if lists:
        name, count = max(lists.items(), key=lambda one: one[1])
        return f"; its field {name!r} holds a list of {count:,}: save that list, if these are the rows"
    if len(value) > 1 and _of(dict, list(value.values())):
        return f"; its {len(value):,} fields hold an object each: save these (`jq -c '.[]'`), if they are the rows"
    columns = [items for items in value.values() if isinstance(items, list)]
    texts = sum(_of(str, items) for items in columns)
    if len(columns) == len(value) and texts > 1 and len(columns[0]) > 1 and len(set(map(len, columns))) == 1:
        return f"; its fields hold columns of {len(columns[0]):,} values: save an object for each row"
    return ""


def _of(kind: type, items: Any) -> bool:
    return isinstance(items, list) and all(isinstance(item, kind) for item in items)
