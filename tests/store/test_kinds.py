"""Files whose content does not match their name are identified by every reader."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1_reward.data.scoring.rows import survey
from r1_reward.records.errors import UserError
from r1_reward.store.pairs import load_pairs
from r1_reward.store.rows import open_source
from r1_reward.store.shards import read_rows

TEXT = json.dumps({"id": "1", "question": "What?", "response_1": "A cat.", "response_2": "A dog.", "preferred": 1})


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("pairs.jsonl", TEXT)
    return file.getvalue()


def parquet():
    file = io.BytesIO()
    pq.write_table(pa.table({"id": ["1"]}), file)
    return file.getvalue()


def readers(file):
    return [
        lambda: load_pairs(file),
        lambda: list(open_source(file).rows()),
        lambda: list(read_rows(file)),
        lambda: survey(file, 8),
    ]


KINDS = {
    "compressed with gzip": gzip.compress(TEXT.encode()),
    "compressed with bzip2": bz2.compress(TEXT.encode()),
    "compressed with xz": lzma.compress(TEXT.encode()),
    "a zip archive": zipped(),
}


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz", "pairs.parquet", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_files(tmp_path, name, kind):
    (tmp_path / name).write_bytes(KINDS[kind])
    for read in readers(tmp_path / name):
        with pytest.raises(UserError, match=f"(?s){name}: .*is {kind}; unpack it first"):
            read()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_wide_text(tmp_path, encoding):
    (tmp_path / "pairs.jsonl").write_text(TEXT, encoding=encoding)
    for read in readers(tmp_path / "pairs.jsonl"):
        with pytest.raises(UserError, match=f"is {encoding.upper()[:6]} text; save it as UTF-8"):
            read()
    (tmp_path / "rows.json").write_text(f"[{TEXT}]", encoding=encoding)
    with pytest.raises(UserError, match=f"is {encoding.upper()[:6]} text; save it as UTF-8"):
        list(open_source(tmp_path / "rows.json").rows())


def test_text_with_a_byte_order_mark_is_read(tmp_path):
    for name, text in (("a.jsonl", TEXT), ("b.json", f"[{TEXT}]"), ("c.json", TEXT)):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert [row.data["id"] for row in open_source(tmp_path / name).rows()] == ["1"]
    with pytest.raises(UserError, match="no image"):  # the row was read
        load_pairs(tmp_path / "a.jsonl")


def test_parquet_called_jsonl(tmp_path):
    (tmp_path / "pairs.jsonl").write_bytes(parquet())
    for read in readers(tmp_path / "pairs.jsonl"):
        with pytest.raises(UserError, match="is a parquet file; rename it to end in .parquet"):
            read()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TEXT.encode(), "is JSON text, not parquet"),
        (b"", "cannot be read as parquet: it is empty"),
        (b"\x00\x01\x02\x03" * 9, "cannot be read as parquet"),
        (parquet()[:-20], "cannot be read as parquet: its end is missing"),
        (b"PARE" + parquet()[4:-4] + b"PARE", "is encrypted parquet"),
    ],
)
def test_files_that_are_not_parquet_are_identified(tmp_path, content, reason):
    (tmp_path / "pairs.parquet").write_bytes(content)
    for read in readers(tmp_path / "pairs.parquet"):
        with pytest.raises(UserError, match=f"(?s)pairs.parquet: .*{reason}"):
            read()


def test_damaged_parquet_says_where(tmp_path):
    rows = [json.loads(TEXT) | {"id": str(number), "question": f"What is {number}?"} for number in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet", row_group_size=50, compression="gzip")
    content = bytearray((tmp_path / "pairs.parquet").read_bytes())
    place = pq.read_metadata(tmp_path / "pairs.parquet").row_group(1).column(1).data_page_offset
    content[place : place + 60] = bytes(60)
    (tmp_path / "pairs.parquet").write_bytes(content)
    for read in readers(tmp_path / "pairs.parquet")[:3]:
        with pytest.raises(UserError, match="cannot be read as parquet after row [0-9]+ "):
            read()


def test_the_one_shard_that_is_wrong_is_named(tmp_path):
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "train-0.parquet")
    shutil.copy(tmp_path / "train-0.parquet", tmp_path / "train-1.parquet")
    (tmp_path / "train-1.parquet").write_bytes(parquet()[:-9])
    with pytest.raises(UserError, match="train-1.parquet: cannot be read as parquet"):
        load_pairs(tmp_path)
