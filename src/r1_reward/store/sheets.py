"""Rows of spreadsheets and CSV files, such as the results of evaluation harnesses; the first row names the columns.

    for raw in sheet_rows(Path("results.xlsx")):        # or .csv, .tsv
        raw.place, raw.data                             # "row 2", {"index": 0, "prediction": "Answer 1 is better."}

Cells of .csv and .tsv are text, including empty ones; cells of a workbook have its types, None if empty. Rows are
numbered as in a spreadsheet, so the first one below the header is row 2.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError
from r1_reward.store.rows import RawRow, first_line

SHEETS = (".xlsx", ".csv", ".tsv")
"""Suffixes of supported files."""

# A damaged workbook, or a file of another kind, may raise any of these.
_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError, zipfile.BadZipFile, zlib.error)
_LONGEST = 1 << 30  # characters of a cell; the csv module's default of 131,072 is too few for judgments


def sheet_rows(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a table, without empty ones; a row with more values than columns is broken.

    Raises:
        UserError: If the file cannot be read as its suffix says, a column name occurs twice, or openpyxl, which reads
            workbooks, is not installed.
    """
    lines = _workbook(path) if path.suffix.lower() == ".xlsx" else _text(path)
    names: list[str] | None = None
    for number, cells in lines:
        if all(cell in (None, "") for cell in cells):
            continue
        if names is None:
            names = _names(path, cells)
            continue
        if any(cell not in (None, "") for cell in cells[len(names) :]):
            yield RawRow(str(path), number, None, f"has {len(cells)} values for {len(names)} columns")
        else:
            yield RawRow(str(path), number, dict(zip(names, cells, strict=False)))


def _names(path: Path, cells: Sequence[Any]) -> list[str]:
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: column {twice!r} occurs twice; rename one of them.")
    return names


def _text(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    csv.field_size_limit(_LONGEST)
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from enumerate(csv.reader(file, delimiter=separator, strict=True), 1)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 text (byte 0x{error.object[error.start]:02x}); save it as UTF-8."
        ) from error
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as {path.suffix[1:].upper()} ({first_line(error)}).") from error


def _workbook(path: Path) -> Iterator[tuple[int, Sequence[Any]]]:
    try:
        import openpyxl
    except ImportError as error:
        raise UserError(
            f"{path}: reading .xlsx files requires openpyxl; run pip install 'r1-reward[xlsx]', or save the sheet as "
            ".csv."
        ) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # some writers state a wrong size
            yield from enumerate(sheet.iter_rows(values_only=True), 1)
        finally:
            book.close()
    except _DAMAGED as error:
        raise UserError(f"{path}: cannot be read as a workbook ({first_line(error)}). Is the file complete?") from error
