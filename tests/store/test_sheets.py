"""Tables of other projects: rows under the names in the header, and readable errors."""

import sys
from pathlib import Path
from typing import Any

import pytest

from r1_reward.records.errors import UserError
from r1_reward.store.sheets import sheet_rows

LONG = 'word, "quoted"\nand more; ' * 20_000


def rows(file: Path) -> list[tuple[str, Any]]:
    return [(raw.place, raw.data) for raw in sheet_rows(file)]


def told(file: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(sheet_rows(file))
    assert str(file) in str(caught.value)
    return str(caught.value)


def workbook(file: Path, lines: list[list[Any]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in lines:
        book.active.append(line)
    book.save(file)
    return file


@pytest.mark.parametrize(("name", "sign"), [("a.csv", ","), ("a.tsv", "\t"), ("A.CSV", ",")])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_separated_text(tmp_path: Path, name: str, sign: str, start: str) -> None:
    quoted = LONG.replace('"', '""')
    file = tmp_path / name
    text = (
        sign.join(("index", "said")) + "\n" + sign.join(("0", f'"{quoted}"')) + "\n\n" + sign.join(("1", "né")) + "\n"
    )
    file.write_bytes((start + text).encode())
    first = 2 + (start == "\n")
    assert rows(file) == [
        (f"row {first}", {"index": "0", "said": LONG}),
        (f"row {first + 2}", {"index": "1", "said": "né"}),
    ]


def test_workbook(tmp_path: Path) -> None:
    file = workbook(tmp_path / "a.xlsx", [["index", "said", "score"], [0, "[1, 'né']\n", 1.0], [], [1, None, 0]])
    assert rows(file) == [
        ("row 2", {"index": 0, "said": "[1, 'né']\n", "score": 1.0}),
        ("row 4", {"index": 1, "said": None, "score": 0}),
    ]


def test_a_value_without_a_column_breaks_its_row_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a,b\n1,2,3\n4\n5,6,\n")
    found = list(sheet_rows(file))
    assert [raw.broken for raw in found] == ["has 3 values for 2 columns", None, None]
    assert [raw.data for raw in found[1:]] == [{"a": "4"}, {"a": "5", "b": "6"}]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"a,b,a\n1,2,3\n", "column 'a' occurs twice"),
        ("a.csv", b"a,b\n1,\xff\n", "is not UTF-8 text (byte 0xff); save it as UTF-8"),
        ("a.tsv", b'a\tb\n1\t"x', "cannot be read as TSV"),
        ("a.csv", b'a,b\n1,"x"y\n', "cannot be read as CSV"),
        ("a.xlsx", b"a,b\n1,2\n", "cannot be read as a workbook"),
        ("a.xlsx", b"", "cannot be read as a workbook"),
        ("a.xlsx", b"PK\x03\x04" + b"\0" * 90, "cannot be read as a workbook"),
    ],
)
def test_files_that_are_not_tables(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    if name.endswith("xlsx"):
        pytest.importorskip("openpyxl")
    (tmp_path / name).write_bytes(content)
    assert reason in told(tmp_path / name)


def test_a_workbook_cut_anywhere_is_named(tmp_path: Path) -> None:
    whole = workbook(tmp_path / "a.xlsx", [["a", "b"], *([number, "word " * 9] for number in range(40))]).read_bytes()
    for end in range(1, len(whole), len(whole) // 25):
        (tmp_path / "cut.xlsx").write_bytes(whole[:end])
        assert "cannot be read as a workbook" in told(tmp_path / "cut.xlsx")


def test_without_openpyxl_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    message = told(tmp_path / "a.xlsx")
    assert "pip install 'r1-reward[xlsx]'" in message
    assert ".csv" in message
