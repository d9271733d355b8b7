"""Parquet files as datasets: keyed by content, not by name or mtime."""

from __future__ import annotations

import json
import os
import shutil

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from r1_reward.records.errors import UserError
from r1_reward.store import tables
from r1_reward.store.pairs import load_pairs, save_pairs, validate_pairs
from r1_reward.store.rows import hub_dataset
from r1_reward.store.tables import parquet_dataset


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache") / "datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    return tmp_path


def row(number, preferred=1, image="a.png"):
    return {
        "id": str(number), "question": f"What is picture {number}?", "images": [image], "response_1": "A cat.",
        "response_2": "A dog.", "preferred": preferred,
    }  # fmt: skip


def write(file, rows, folder):
    save_pairs(rows, file, image_root=folder)
    os.utime(file, (1e9, 1e9))
    return file


def in_place(old, new):
    old.write_bytes(new.read_bytes())
    os.utime(old, (1e9, 1e9))


def copied_with_its_time(old, new):
    shutil.copy2(new, old.with_suffix(".copy"))  # as cp -p
    os.replace(old.with_suffix(".copy"), old)


def linked(old, new):
    old.unlink()
    old.symlink_to(new)


@pytest.mark.parametrize("replace", [in_place, copied_with_its_time, linked])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_file_replaced_under_its_name_and_time_is_read_again(folder, replace, suffix):
    old = write(folder / f"pairs{suffix}", [row(1), row(2)], folder)
    new = write(folder / f"new{suffix}", [row(1, 2), row(2, 2)], folder)
    assert load_pairs(old)["preferred"][:] == [1, 1]
    replace(old, new)
    assert (os.stat(old).st_mtime, os.stat(old).st_size) == (1e9, os.stat(new).st_size)
    assert load_pairs(old)["preferred"][:] == [2, 2]
    # Results derived from the old rows are not reused either.
    assert load_pairs(old).filter(lambda label: label == 2, input_columns="preferred")["id"][:] == ["1", "2"]


def test_a_shard_replaced_under_its_name_and_time_is_read_again(folder):
    for number in (0, 1):
        write(folder / "data" / f"train-{number}.parquet", [row(number)], folder)
    other = write(folder / "other.parquet", [row(1, 2, "b.png")], folder)
    assert load_pairs(folder / "data")["preferred"][:] == [1, 1]
    copied_with_its_time(folder / "data" / "train-1.parquet", other)
    pairs = load_pairs(folder / "data")
    assert pairs["preferred"][:] == [1, 2]
    assert pairs[1]["images"][0]["bytes"] == (folder / "b.png").read_bytes()


def test_rows_with_paths_are_not_mistaken_for_those_of_another_file(folder):
    """Such rows go through `Dataset.map`, which caches results by fingerprint."""
    for name, label in (("one", 1), ("two", 2)):
        table = pa.table({key: [value] for key, value in row(1, label).items()})
        pq.write_table(table, folder / f"{name}.parquet")
        os.utime(folder / f"{name}.parquet", (1e9, 1e9))
    assert load_pairs(folder / "one.parquet")["preferred"][:] == [1]
    copied_with_its_time(folder / "one.parquet", folder / "two.parquet")
    assert load_pairs(folder / "one.parquet")["preferred"][:] == [2]


def test_equal_content_is_unpacked_once_wherever_it_is(folder, monkeypatch):
    unpacked = []
    original = tables._write
    monkeypatch.setattr(tables, "_write", lambda *given: (unpacked.append(given), original(*given)))
    file = write(folder / "pairs.parquet", [row(1)], folder)
    first = load_pairs(file)
    shutil.copy(file, folder / "elsewhere.parquet")
    assert load_pairs(folder / "elsewhere.parquet")[:] == first[:] == load_pairs(file)[:]
    assert len(unpacked) == 1


def test_a_file_that_is_written_while_it_is_read_is_refused_and_leaves_nothing(folder, monkeypatch, cache):
    file = write(folder / "pairs.parquet", [row(1)], folder)
    other = write(folder / "other.parquet", [row(1, 2)], folder)
    original = tables._write

    def while_written(*given):
        in_place(file, other)
        original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(tables, "_write", while_written)
        with pytest.raises(UserError, match="changed while they were read"):
            load_pairs(file)
    assert list(cache.rglob("*.arrow")) == []
    assert load_pairs(file)["preferred"][:] == [2]


def test_a_cache_that_cannot_be_written_is_named_with_its_variable(folder, cache):
    file = write(folder / "pairs.parquet", [row(1)], folder)
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where a folder should be")
    for read in (load_pairs, validate_pairs):
        with pytest.raises(UserError, match=f"{cache}.*cannot write .*HF_HOME.*HF_DATASETS_CACHE") as told:
            read(file)
        assert "parquet (" not in str(told.value)


def test_a_cache_in_which_the_hub_cannot_write_is_named(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "/srv/models/hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match="/srv/models/hub: cannot write to .* cache .Permission denied.*HF_HUB_CACHE"):
        hub_dataset("owner/name", "train")


def test_a_cache_without_room_is_named(folder, monkeypatch):
    file = write(folder / "pairs.parquet", [row(1)], folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "_write", full)
    with pytest.raises(UserError, match="cannot write to the Hugging Face cache .No space left on device"):
        load_pairs(file)


def test_columns_that_do_not_match_are_not_called_damaged(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": ["x"]}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "3.parquet")
    for other in ("2", "3"):
        with pytest.raises(UserError, match=f"{other}.parquet: its columns do not match those of .*1.parquet"):
            parquet_dataset([tmp_path / "1.parquet", tmp_path / f"{other}.parquet"])


def test_many_rows_keep_their_order(tmp_path):
    pq.write_table(pa.table({"n": list(range(2500))}), tmp_path / "n.parquet", row_group_size=700)
    assert parquet_dataset([tmp_path / "n.parquet"])["n"][:] == list(range(2500))
    wanted = datasets.Features({"n": datasets.Value("float64")})
    assert parquet_dataset([tmp_path / "n.parquet"], wanted).features == wanted
    assert json.dumps(parquet_dataset([tmp_path / "n.parquet"])[3]) == '{"n": 3}'
