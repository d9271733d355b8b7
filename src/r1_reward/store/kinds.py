"""What a file is by its first bytes, for files whose name promises rows.

A compressed file, a parquet file called ``.jsonl`` or text in UTF-16 is refused by name, and not with what a reader of
another format stumbles over::

    require_rows(Path("pairs.jsonl"))       # UserError: pairs.jsonl: is gzip-compressed, ... Unpack it first.
"""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from r1_reward.records.errors import UserError

_PARQUET = b"PAR1"
_PACKED = {
    b"\x1f\x8b": "gzip-compressed",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\xfd7zXZ\x00": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"BZh": "bzip2-compressed",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x04\x22\x4d\x18": "lz4-compressed",
}
_TEXTS = (".jsonl", ".json")
_LONGEST = 16  # bytes that are looked at


def require_rows(file: Path) -> None:
    """Raise UserError if a file's first bytes say that it cannot be JSON text, or parquet, as its name says."""
    try:
        with open(file, "rb") as opened:
            start = opened.read(_LONGEST)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}).") from error
    if complaint := _complaint(start, text=file.suffix in _TEXTS):
        raise UserError(f"{file}: {complaint}")


def _complaint(start: bytes, *, text: bool) -> str | None:
    packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
    if packed is not None:
        return f"is {packed}, and is read as it is. Unpack it first."
    if not text:
        return None  # whoever reads it says what is wrong with it
    if start.startswith(_PARQUET):
        return "is a parquet file; give it a name that ends in .parquet."
    if (encoding := _wide_encoding(start)) is not None:
        return f"is {encoding} text; save it as UTF-8."
    return None


def _wide_encoding(start: bytes) -> str | None:
    """Return the name of an encoding of two or four bytes a character, by its mark or by the zeros in JSON text."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    zeros = [byte == 0 for byte in start[:4]]
    if zeros in ([False, True, True, True], [True, True, True, False]):
        return "UTF-32"
    return "UTF-16" if zeros in ([False, True, False, True], [True, False, True, False]) else None


def why_not_parquet(file: Path, error: BaseException, row: int = 0) -> UserError:
    """Return what to raise where pyarrow could not read a file, after so many rows: what the file is, or what failed.

    ``error`` is an OSError, a ValueError or a NotImplementedError, as Arrow's are.
    """
    said = first_line(error)
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{file}: cannot be read ({error.strerror or said}).")
    try:
        with open(file, "rb") as opened:
            start = opened.read(_LONGEST)
            opened.seek(-min(len(start), len(_PARQUET)), os.SEEK_END)
            end = opened.read()
    except OSError as other:
        return UserError(f"{file}: cannot be read ({other.strerror or other}).")
    if complaint := _complaint(start, text=False):
        return UserError(f"{file}: {complaint}")
    if not start:
        return UserError(f"{file}: cannot be read as parquet: it is empty (zero bytes).")
    if start.startswith(b"PARE") or end == b"PARE":
        return UserError(f"{file}: is encrypted parquet; decrypt it first.")
    if not start.startswith(_PARQUET):
        kind = "it is text" if _is_text(start) else "its first bytes are not those of parquet"
        return UserError(f"{file}: cannot be read as parquet: {kind}.")
    if end != _PARQUET:
        return UserError(f"{file}: cannot be read as parquet: its end is missing. Is the file complete?")
    after = f" after row {row}" if row else ""
    if isinstance(error, NotImplementedError):
        return UserError(f"{file}: is parquet of a kind that pyarrow does not read ({said}).")
    return UserError(f"{file}: cannot be read as parquet{after}: it is damaged ({said}).")


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8-sig", "ignore")
    return bool(text) and all(character.isprintable() or character.isspace() for character in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
