"""A file that does not contain rows is reported once, with what it is instead."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1_reward.records.errors import UserError
from r1_reward.store.pairs import PairFileError, load_pairs, validate_pairs
from r1_reward.store.rows import open_source
from r1_reward.store.sniff import what_it_is

ROWS = [{"id": str(n), "question": "Which? " * 9, "nested": {"a": [n]}} for n in range(4000)]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:9b1c\nsize 12345\n"
HTML = b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n"


def lines(values: list[Any], **options: Any) -> bytes:
    return "".join(json.dumps(value, **options) + "\n" for value in values).encode()


NOT_ROWS = {
    "object": (json.dumps({"data": ROWS, "n": 2}, indent=1).encode(), "one JSON object .*'data' is a list of 4,000"),
    "small object": (json.dumps({"a": {"b": 1}}, indent=4).encode(), "one JSON object over many lines"),
    "by id": (json.dumps({row["id"]: row for row in ROWS}, indent=2).encode(), "one JSON object over many lines"),
    "pretty": (lines(ROWS[:3], indent=2), "JSON objects that span several lines"),
    "many pretty": (lines(ROWS, indent=2), "JSON objects that span several lines"),
    "one picture": (json.dumps({"image": "x" * 200_000}, indent=1).encode(), "one JSON object over many lines"),
    "object on a line": (json.dumps({"data": ROWS}).encode(), "not a row; its field 'data' is a list of 4,000"),
    "pages on a line": (lines([{"rows": [{"row_idx": 0, "row": ROWS[0]}]}]), "its field 'rows' is a list of 1"),
    "by id on a line": (lines([{row["id"]: row for row in ROWS[:9]}]), "its 9 fields are objects"),
    "frame on a line": (lines([{"id": {"0": "a"}, "question": {"0": "b"}}]), "its 2 fields are objects"),
    "columns": (lines([{"id": ["1", "2"], "question": ["a", "b"], "label": [1, 2]}]), "are columns of 2 values"),
    "pretty columns": (lines([{"id": ["1", "2"], "q": ["a", "b"]}], indent=1), "many lines.* are columns of 2 values"),
    "one after the other": (b"".join(json.dumps(row).encode() for row in ROWS[:3]), "several JSON objects on one line"),
    "with spaces": (b" ".join(json.dumps(row).encode() for row in ROWS), "several JSON objects on one line"),
    "old line ends": (b"\r".join(json.dumps(row).encode() for row in ROWS[:3]), "several JSON objects on one line"),
    "commas": (b",\n".join(json.dumps(row).encode() for row in ROWS), "a comma after each object"),
    "commas to the end": (lines(ROWS[:2]).replace(b"}\n", b"},\n"), "a comma after each object"),
    "workbook": (b"PK\x03\x04\x14\0\x06\0[Content_Types].xml", "Office workbook .*xlsx"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "legacy Office document"),
    "arrow stream": (b"\xff\xff\xff\xff\x10\0\0\0rest", "an Arrow stream"),
    "csv": (b"id,question,image\n1,Which?,a.png\n2,Who?,b.png\n", "is CSV .*id, question, image"),
    "quoted csv": (b'\xef\xbb\xbf"id","question"\n"1","Which, say?"\n', "is CSV .*id, question"),
    "semicolons": (b"id;question\n1;Which?\n", "is CSV"),
    "tsv": (b"id\tquestion\n1\tWhich?\n", "is tab-separated text"),
    "html": (HTML, "is a web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is XML"),
    "lfs": (POINTER, "git LFS pointer"),
    "gzip": (gzip.compress(lines(ROWS[:2])), "compressed with gzip"),
    "zip": (b"PK\x03\x04rest", "zip archive"),
    "zstd": (b"\x28\xb5\x2f\xfdrest", "Zstandard"),
    "png": (b"\x89PNG\r\n\x1a\nrest", "PNG image"),
    "binary": (b"\x01\x02\x00\x03" * 9, "binary data"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_ROWS)
def test_a_file_without_rows_is_one_problem(tmp_path: Path, name: str) -> None:
    content, reason = NOT_ROWS[name]
    for suffix in (".jsonl", ".json"):
        file = tmp_path / f"file{suffix}"
        file.write_bytes(content)
        with pytest.raises(UserError, match=reason):
            list(open_source(file).rows())
    (problem,) = validate_pairs(tmp_path / "file.jsonl")
    assert problem[:3] == (str(tmp_path / "file.jsonl"), 0, "")
    with pytest.raises(PairFileError, match=reason):
        load_pairs(tmp_path / "file.jsonl")


def test_parquet_and_jsonl_under_each_others_name(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), tmp_path / "a.jsonl")
    (tmp_path / "b.parquet").write_bytes(lines(ROWS[:3]))
    (tmp_path / "c.parquet").write_bytes(POINTER)
    (tmp_path / "d.parquet").write_bytes(HTML)
    (tmp_path / "e.parquet").write_bytes(b"id,question\n1,Which?\n")
    for name, reason in (
        ("a.jsonl", "is a parquet file; rename it to end in .parquet"),
        ("b.parquet", "is JSON text, not parquet; rename it to end in .jsonl"),
        ("c.parquet", "git LFS pointer"),
        ("d.parquet", "is a web page"),
        ("e.parquet", "is CSV .*, not parquet"),
    ):
        with pytest.raises(UserError, match=reason):
            load_pairs(tmp_path / name)
        with pytest.raises(UserError, match=reason):
            list(open_source(tmp_path / name).rows())


@pytest.mark.parametrize(
    "content",
    [
        lines(ROWS),
        lines([{"image": "x" * 200_000}, {"image": "y"}]),
        b'{"id": "7", "question":\n' + lines(ROWS),
        b'{"id": "7", "quest\n' + lines(ROWS),
        b'\xef\xbb\xbf\n\n' + lines(ROWS[:2]),
        b'{"id": "7"}',
        lines([{"prompt": [{"role": "user"}], "chosen": [{"role": "assistant"}], "rejected": [{"role": "assistant"}]}]),
        lines([{"images": ["a.png", "b.png"], "responses": ["a", "b"], "question": "Which?"}]),
        lines([{"id": "7", "completions": [{"a": 1}, {"a": 2}], "annotations": {"a": 1}}]),
        b'{"id": "7"}{"id": "8"}\n' + lines(ROWS),
        b'"a, b"\n"c, d"\n',
        b"Hello, world\nand so on\n",
        b"[1, 2]",
        b"",
        b"{'id': '7'}\n{'id': '8'}\n",
        '{"id": "7"}\n'.encode("utf-16"),
    ],
)  # fmt: skip
def test_possible_rows_are_left_to_the_reader(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    assert what_it_is(file) is None


@pytest.mark.parametrize("values", [[1, 2, 3], ["a", "b"], [None] * 70_000, [[1], [2]], [True, 1.5]])
def test_values_that_are_not_objects_are_one_problem(tmp_path: Path, values: list[Any]) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(values))
    (problem,) = validate_pairs(tmp_path / "a.jsonl")
    assert problem.line == 0
    assert problem.reason.startswith(f"none of its {len(values):,} rows can be read; line 1 is ")


@pytest.mark.parametrize("content", ["{'id': '7'}\n" * 300, "plain words\n" * 300, "{\n" * 45, "id: 7\n" * 9])
def test_lines_that_are_not_json_are_one_problem(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    (problem,) = validate_pairs(tmp_path / "a.jsonl")
    assert "rows can be read; line 1 is not JSON" in problem.reason


@pytest.mark.parametrize("value", [ROWS[:2], [1, 2], []])
def test_an_array_named_jsonl_is_one_problem(tmp_path: Path, value: Any) -> None:
    for options in ({}, {"indent": 1}):
        (tmp_path / "a.jsonl").write_text(json.dumps(value, **options))
        (problem,) = validate_pairs(tmp_path / "a.jsonl")
        assert problem.reason.startswith("is one JSON array, not one object per line")


def test_a_row_that_is_nothing_like_a_pair_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"turns": ROWS[:2], "version": 1}]))
    (problem,) = validate_pairs(tmp_path / "a.jsonl")
    assert problem.line == 1
    assert problem.reason.endswith("only turns, version")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", b"id,question\n1,Which?\n", "is CSV .*; pair files end in"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS[:2])), "compressed with gzip"),
        ("a.xlsx", b"PK\x03\x04\x14\0\x06\0[Content_Types].xml", "Office workbook"),
        (
            "b.json",
            json.dumps(ROWS[:2]).encode(),
            "b.json: is one JSON array, not one object per line .*; pair files end in",
        ),
        ("a.json", json.dumps({"data": ROWS}).encode(), "one JSON object, not a row; its field 'data'"),
        ("a.txt", lines(ROWS[:2]), "a.txt: pair files end in"),
    ],
)
def test_a_file_with_the_wrong_suffix_is_identified(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=what):
        load_pairs(tmp_path / name)
    if not name.endswith(".json"):
        with pytest.raises(UserError, match=what.replace("pair files", "files of rows")):
            open_source(tmp_path / name)
