"""Rows are read one at a time from every kind of file, from any row, and written to parquet group by group."""

import json
import os
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_reward.records.errors import UserError
from r1_reward.store.rows import KINDS, RowWriter, open_source, parquet_rows

ROWS: list[Any] = [{"id": str(i), "text": "é" * i, "nested": {"list": [i, [i]]}} for i in range(7)]


def write_array(path: Path, rows: list[Any], **options: Any) -> Path:
    path.write_text(json.dumps(rows, **options), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def data(path: str | Path, **options: Any) -> list[Any]:
    rows = list(open_source(path, **options).rows())
    assert all(row.broken is None for row in rows)
    return [row.data for row in rows]


def broken(path: Path) -> str:
    """The place and reason of the last row, which must be the only broken one."""
    *whole, last = open_source(path).rows()
    assert all(row.broken is None for row in whole)
    assert last.broken is not None
    return f"{last.place}: {last.broken}"


# ---- files


@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"ensure_ascii": False, "separators": (",", ":")}])
def test_json_array(tmp_path: Path, options: dict[str, Any]) -> None:
    source = open_source(write_array(tmp_path / "a.json", ROWS, **options))
    assert [row.data for row in source.rows()] == ROWS
    assert [row.data for row in source.rows()] == ROWS  # again from the first
    assert [row.place for row in source.rows()] == [f"row {i}" for i in range(1, 8)]
    assert source.folder == tmp_path


def test_json_lines(tmp_path: Path) -> None:
    source = open_source(write_lines(tmp_path / "a.jsonl", ROWS))
    assert [(row.place, row.data) for row in source.rows()] == [(f"line {i}", row) for i, row in enumerate(ROWS, 1)]


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    assert data(write_lines(tmp_path / "lines.json", ROWS)) == ROWS
    assert data(write_array(tmp_path / "array.jsonl", ROWS, indent=1)) == ROWS


def test_array_after_a_byte_order_mark_and_blanks(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b"\xef\xbb\xbf \n" + json.dumps(ROWS).encode())
    assert data(file) == ROWS
    file.write_bytes(b"\xef\xbb\xbf[ ]\n")
    assert data(file) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=4), max_size=6), chunk=st.integers(1, 40))
def test_array_reader_equals_json_wherever_the_text_is_cut(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], chunk: int
) -> None:
    file = write_array(tmp_path_factory.mktemp("array") / "a.json", rows, indent=chunk % 3 or None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("r1_reward.store.rows._CHUNK", chunk)
        assert data(file) == rows


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"a": 1}, {"a": ', "row 2: is not JSON"),
        ('[{"a": 1}', "row 2: the file ends in the middle of the array"),
        ('[{"a": 1} {"a": 2}]', "row 2: expected ',', got '{'"),
        ('[{"a": 1}] x', "row 2: the text continues after the end"),
        ('[{"a": 1}, ]', "row 2: is not JSON"),
        ('[{"a": 1}, {"a": 1, "a": 2}]', "row 2: field 'a' occurs twice"),
        ("[" * 100_000, "row 1: "),
    ],
)
def test_damaged_arrays(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert broken(tmp_path / "a.json").startswith(reason)


def test_array_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"a": "\xff"}]')
    assert broken(tmp_path / "a.json").startswith("row 1: is not UTF-8 text")


def test_last_line_cut_short(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", ROWS)
    file.write_bytes(file.read_bytes()[:-10])
    assert broken(file).startswith("line 7: is not JSON")


def image_table(rows: int, size: int = 10) -> pa.Table:
    cells = [{"bytes": bytes([i % 256]) * size, "path": f"{i}.png"} for i in range(rows)]
    return pa.table({"id": [str(i) for i in range(rows)], "rank": [[0, 1]] * rows, "image": cells})


def test_parquet_file_and_folders(tmp_path: Path) -> None:
    table = image_table(80)
    pq.write_table(table, tmp_path / "test-00000.parquet")
    rows = table.to_pylist()
    assert data(tmp_path / "test-00000.parquet") == rows
    assert data(tmp_path) == rows
    hub_copy = tmp_path / "copy" / "data"
    hub_copy.mkdir(parents=True)
    pq.write_table(table.slice(0, 30), hub_copy / "test-2-of-10.parquet")
    pq.write_table(table.slice(30), hub_copy / "test-10-of-10.parquet")
    pq.write_table(table.slice(5, 6), hub_copy / "train-1-of-1.parquet")
    source = open_source(hub_copy.parent)
    assert [row.data for row in source.rows()] == rows  # 2 before 10, and nothing of the other split
    assert next(source.rows()).file.endswith("test-2-of-10.parquet")
    assert source.folder == hub_copy.parent
    assert len(data(hub_copy.parent, split="train")) == 6
    with pytest.raises(UserError, match="no parquet files of the dev split.*It contains: data"):
        open_source(hub_copy.parent, split="dev")


def test_files_that_are_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="a.parquet: cannot be read as parquet"):
        data(tmp_path / "a.parquet")


def test_paths_with_nothing_to_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "bench.jsonl", ROWS)
    (tmp_path / "a.csv").write_text("id\n")
    for path, words in [
        (tmp_path / "benhc.jsonl", "no such file or folder.*bench.jsonl"),
        (tmp_path / "a.csv", "end in .jsonl, .json or .parquet"),
        (tmp_path, "has no parquet files.*a.csv, bench.jsonl"),
    ]:
        with pytest.raises(UserError, match=words):
            open_source(path)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_source(tmp_path / "bench.jsonl", image_root=tmp_path / "nowhere")
    with pytest.raises(UserError, match="revision .abc. applies to datasets on the Hub only"):
        open_source(tmp_path / "bench.jsonl", revision="abc")


# ---- the Hub


def test_hub_rows_stay_undecoded_and_the_commit_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def load(name: str, **options: Any) -> datasets.Dataset:
        asked.update(name=name, **options)
        features = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()})
        rows = [{"id": "1", "image": {"bytes": b"no picture", "path": "a.png"}}]
        dataset = datasets.Dataset.from_list(rows, features=features)
        dataset.info.download_checksums = {f"hf://datasets/owner/name@{'0123456789' * 4}/data/test.parquet": {}}
        return dataset

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = open_source("owner/name", split="test", revision="main")
    assert asked == {"name": "owner/name", "split": "test", "revision": "main"}
    assert source.revision == "0123456789" * 4
    assert [row.data for row in source.rows()] == [{"id": "1", "image": {"bytes": b"no picture", "path": "a.png"}}]


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, **_: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=r"owner/name: no such local file.*test split.*no route to host"):
        open_source("owner/name")


# ---- memory


def test_rows_are_read_when_asked_for(tmp_path: Path) -> None:
    for file in (write_lines(tmp_path / "a.jsonl", ROWS), write_array(tmp_path / "a.json", ROWS * 5000)):
        with open(file, "ab") as end:
            end.write(b"\xff\xff no JSON at all\n")
        assert [row.data for row in islice(open_source(file).rows(), 7)] == ROWS


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_memory_does_not_grow_with_rows(tmp_path: Path, kind: str) -> None:
    """5,000 rows of 4 kB are 20 MB; reading them takes less than 2."""
    rows = [{"id": str(i), "text": f"{i % 10}" * 4000} for i in range(5000)]
    file = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=500)
    else:
        (write_lines if kind == "jsonl" else write_array)(file, rows)
    del rows
    next(open_source(file).rows())  # imports
    tracemalloc.start()
    try:
        count = sum(1 for _ in open_source(file).rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5000
    assert peak < 2_000_000


def test_a_row_group_of_images_is_not_read_at_once(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    cells = [{"bytes": noise.bytes(100_000), "path": None} for _ in range(400)]
    table = pa.table({"image": cells})
    pq.write_table(table, tmp_path / "a.parquet", data_page_size=1 << 20, write_batch_size=8, use_dictionary=False)
    del cells, table
    rows = open_source(tmp_path / "a.parquet").rows()
    before, peak = pa.total_allocated_bytes(), 0
    for _ in rows:
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 20_000_000  # of 40


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", ROWS)
    file.chmod(0)
    with pytest.raises(UserError, match="permission denied"):
        open_source(file)


# ---- parts of a file, and writing


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 90), group=st.integers(1, 40), start=st.integers(0, 100))
def test_parquet_is_read_from_any_row_on(
    tmp_path_factory: pytest.TempPathFactory, rows: int, group: int, start: int
) -> None:
    file = tmp_path_factory.mktemp("parquet") / "a.parquet"
    schema = pa.schema([("n", pa.int64())])
    with RowWriter(file, schema, group_rows=group) as writer:
        for number in range(rows):
            writer.add({"n": number})
    groups = pq.read_metadata(file)
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [
        len(range(first, min(first + group, rows))) for first in range(0, rows, group)
    ]
    expected = [(number + 1, {"n": number}) for number in range(start, rows)]
    assert list(parquet_rows(file, start=start)) == expected


def test_a_part_of_a_column_is_read_without_the_rest(tmp_path: Path) -> None:
    rows = [{"images": [{"bytes": b"x" * 9, "path": "7.png"}], "other": 1}, {"images": [], "other": 2}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = [row for _, row in parquet_rows(tmp_path / "a.parquet", ["images.path", "gone"])]
    assert read == [{"images": [{"path": "7.png"}]}, {"images": []}]


def test_a_group_ends_when_it_is_large_enough_and_an_exception_adds_none(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    with (
        pytest.raises(ZeroDivisionError),
        RowWriter(tmp_path / "a.parquet", schema, group_rows=9, group_bytes=10) as out,
    ):
        for number, size in enumerate([4, 4, 4, 11, 1]):
            out.add({"n": number}, size)
        raise ZeroDivisionError
    groups = pq.read_metadata(tmp_path / "a.parquet")
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [3, 1]


@pytest.mark.parametrize(
    ("beside", "read"),
    [
        (["dropped.jsonl"], "train-0.parquet"), (["dropped.jsonl", "report.json"], "train-0.parquet"),
        (["test-0.jsonl", "train.txt"], "train-0.parquet"), (["train-1.jsonl"], None),
    ],
    ids=str,
)  # fmt: skip
def test_other_files_next_to_a_split_are_ignored(tmp_path, beside, read):
    pq.write_table(pa.table({"id": ["parquet"]}), tmp_path / "train-0.parquet")
    for name in beside:
        (tmp_path / name).write_text('{"id": "other"}\n')
    if read is None:
        with pytest.raises(UserError, match="has both .jsonl and .parquet files"):
            open_source(tmp_path, split="train", kinds=KINDS)
        return
    source = open_source(tmp_path, split="train", kinds=KINDS)
    assert [row.data for row in source.rows()] == [{"id": "parquet"}]
