"""Reading files of pairs and groups in blocks: every row once, from any block; files without rows are refused."""

from __future__ import annotations

import json
import math
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_reward.data.scoring.rows import open_rows, survey
from r1_reward.records.errors import UserError

TEXT = pa.string()
SCORED = pa.schema([("question", TEXT), ("images", pa.list_(TEXT)), ("response_1", TEXT), ("response_2", TEXT)])


def pair(i):
    return {"question": f"q{i}?", "images": [], "response_1": f"a{i}\u2028\u0085", "response_2": "b"}


def jsonl(path, lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@settings(deadline=None)
@given(
    lines=st.lists(
        st.sampled_from([b"", b"  ", b"{}", b"[1]", b"{", b"\xff", b'{"question": "\xc3\xa9"}']), max_size=30
    ),
    block_rows=st.integers(1, 12),
    ending=st.sampled_from([b"\n", b"\r\n"]),
)
def test_the_blocks_of_a_jsonl_file_are_its_lines(tmp_path_factory, lines, block_rows, ending):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + ending.join(lines))
    expected = [(f"line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    source = survey(path, block_rows)
    assert source.rows == len(expected)
    reader = open_rows(source)
    blocks = {block.number: reader.read(block) for block in reversed(source.blocks)}
    rows = [row for number in range(len(blocks)) for row in blocks[number]]
    assert [row.place for row in rows] == [place for place, _ in expected]
    assert [len(blocks[b.number]) for b in source.blocks] == [b.rows for b in source.blocks]
    assert all(block.rows == block_rows for block in source.blocks[:-1])
    for row, (_, line) in zip(rows, expected, strict=True):
        good = line.startswith(b"{") and line != b"{"
        assert row.fields == (json.loads(line) if good else {})
        assert (row.problem is None) == good


@settings(deadline=None)
@given(
    rows=st.integers(0, 90),
    row_group=st.integers(1, 50),
    block_rows=st.integers(1, 40),
    order=st.randoms(use_true_random=False),
)
def test_the_blocks_of_a_parquet_file_are_its_rows_in_whatever_order_they_are_read(
    tmp_path_factory, rows, row_group, block_rows, order
):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    schema = pa.schema([(name, pa.string()) for name in ("question", "response_1", "response_2", "source")])
    table = pa.Table.from_pylist([pair(i) for i in range(rows)], schema=schema)
    pq.write_table(
        table.append_column("images", pa.array([[]] * rows, pa.list_(pa.string()))), path, row_group_size=row_group
    )
    source = survey(path, block_rows)
    assert (source.kind, source.rows) == ("pairs", rows)
    assert len(source.blocks) == math.ceil(rows / block_rows)
    reader, read = open_rows(source), {}
    for block in order.sample(source.blocks, len(source.blocks)):
        read[block.number] = reader.read(block)
    found = [row for number in sorted(read) for row in read[number]]
    assert [row.fields["question"] for row in found] == [f"q{i}?" for i in range(rows)]
    assert [row.place for row in found] == [f"row {i + 1}" for i in range(rows)]
    assert all("source" not in row.fields for row in found)


def test_lines_that_are_not_rows(tmp_path):
    lines = [b"{", b"[1, 2]", b"7", b'{"a": 1, "a": 2}', b'"\xff"', b"[" * 100_000]
    source = survey(jsonl(tmp_path / "rows.jsonl", lines), 10)
    problems = [row.problem for row in open_rows(source).read(source.blocks[0])]
    expected = [
        "is not JSON",
        "is a list",
        "is a number",
        "'a' is given twice",
        "byte 0xff at offset 29 of the file",
        "not usable JSON",
    ]
    assert len(problems) == len(expected)
    for problem, part in zip(problems, expected, strict=True):
        assert part in problem


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([], "pairs"),
        ([b"{", b'{"question": ""}', b'{"responses": []}', b'{"response_1": ""}'], "groups"),
        ([b'{"response_1": ""}', b'{"responses": []}'], "pairs"),
    ],
)
def test_the_kind_is_that_of_the_first_row_that_has_one(tmp_path, lines, kind):
    assert survey(jsonl(tmp_path / "rows.jsonl", lines), 10).kind == kind


def test_the_fingerprint_is_that_of_the_bytes(tmp_path):
    one = survey(jsonl(tmp_path / "one.jsonl", [b"{}", b"{}"]), 1)
    assert one.sha256 == survey(jsonl(tmp_path / "two.jsonl", [b"{}", b"{}"]), 7).sha256
    assert one.sha256 != survey(jsonl(tmp_path / "two.jsonl", [b"{}", b"{ }"]), 7).sha256


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_pictures_a_file_names_are_in_its_media_and_embedded_ones_are_not(tmp_path, suffix):
    names = ["a.png", "b.png", "a.png"]
    cells = [[name] if suffix == "jsonl" else [{"bytes": None, "path": name}] for name in names]
    rows = [{"question": "q", "images": cell, "response_1": "a", "response_2": "b"} for cell in cells]
    file = tmp_path / f"rows.{suffix}"
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    if suffix == "jsonl":
        jsonl(file, [json.dumps(row).encode() for row in rows])
    else:
        embedded = {**rows[0], "images": [{"bytes": b"x", "path": "c.png"}]}
        pq.write_table(pa.Table.from_pylist([embedded, *rows]), file)
        (tmp_path / "c.png").write_bytes(b"not the embedded one")
    before = survey(file, 10)
    (tmp_path / "c.png").write_bytes(b"changed")
    assert survey(file, 3) == before._replace(blocks=survey(file, 3).blocks)
    (tmp_path / "b.png").write_bytes(b"other")
    assert survey(file, 10).media != before.media
    (tmp_path / "b.png").unlink()
    assert survey(file, 10).media not in (before.media, None)


def test_a_file_that_shrinks_is_noticed(tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", [b"{}"] * 5)
    source = survey(path, 10)
    jsonl(path, [b"{}"] * 4)
    with pytest.raises(UserError, match="shorter"):
        open_rows(source).read(source.blocks[0])


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_that_is_edited_while_being_read_is_noticed(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"

    def write(response):
        rows = [{"question": "q", "images": [], "response_1": response, "response_2": "b"}] * 4
        if suffix == "jsonl":
            jsonl(path, [json.dumps(row).encode() for row in rows])
        else:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCORED), path)
        os.utime(path, (1e9, 1e9))

    write("a")
    source = survey(path, 2)
    reader = open_rows(source)
    assert len(reader.read(source.blocks[0])) == 2
    time.sleep(0.02)  # a tick of the file system's clock
    write("c")  # as long as before, and at the same time
    with pytest.raises(UserError, match="was changed while it was being read"):
        reader.read(source.blocks[1])


def write_nonsense(path):
    path.write_bytes(b"PAR1 nonsense PAR1")


def write_utf16(path):
    path.write_text('{"question": "q"}\n', encoding="utf-16")


def write_columns(*names):
    return lambda path: pq.write_table(pa.table({name: ["x"] for name in names}), path)


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("rows.csv", write_nonsense, "must be .jsonl"),
        ("rows.parquet", write_nonsense, "cannot be read as parquet"),
        ("rows.jsonl", write_utf16, "UTF-16"),
        ("rows.parquet", write_columns("question", "images"), "needs the columns response_1"),
        ("rows.parquet", write_columns("question", "response_1", "response_2"), "has no column images"),
        ("rows.parquet", write_columns("question", "response_1", "images"), "has no column response_2"),
        ("rows.parquet", write_columns("images", "responses"), "has no column question"),
    ],
)
def test_files_that_do_not_contain_rows(tmp_path, name, write, reason):
    write(tmp_path / name)
    with pytest.raises(UserError, match=reason) as caught:
        survey(tmp_path / name, 10)
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file(tmp_path):
    jsonl(tmp_path / "rows.jsonl", [])
    with pytest.raises(UserError, match=r"no such file. Did you mean .*rows.jsonl"):
        survey(tmp_path / "row.jsonl", 10)
    with pytest.raises(UserError, match="block rows"):
        survey(tmp_path / "rows.jsonl", 0)
