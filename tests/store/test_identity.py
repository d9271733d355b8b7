"""Identity is content: every relevant byte counts; names, paths and times do not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time

import pytest
from hub_cache import COMMIT, put_in_cache

from r1_reward.records.errors import UserError
from r1_reward.store import digests
from r1_reward.store.digests import file_digest
from r1_reward.store.identity import data_identity, media_digest, weights_fields, weights_identity


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "r1-reward" / "digests.jsonl"


@pytest.fixture
def model(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "model")


def flip(path, place=-9):
    """Change one byte and restore the mtime."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# ---- weights


def test_equal_checkpoints_have_one_identity_and_training_leftovers_do_not_count(checkpoint, model):
    known = weights_identity(checkpoint)
    assert known.startswith("sha256:")
    assert len(known) == len("sha256:") + 64
    for name in ("calibration.json", "trainer_state.json", "training_args.bin", "README.md", "optimizer.pt"):
        (model / name).write_text("{}")
    shutil.copytree(checkpoint, model / "checkpoint-50")
    assert weights_identity(str(model)) == known


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_changed_byte_changes_the_identity_whatever_the_mtime(model, name):
    known = weights_identity(model)
    flip(model / name)
    assert weights_identity(model) != known


def test_a_new_file_that_is_loaded_counts(model):
    seen = {weights_identity(model)}
    for name in ("scalar_head.safetensors", "scalar.json", "preprocessor_config.json", "modeling_own.py"):
        (model / name).write_text("{}")
        seen.add(weights_identity(model))
    assert len(seen) == 5


def test_the_identity_of_adapters_includes_their_base(model, tmp_path):
    adapters = tmp_path / "lora"
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    (adapters / "adapter_model.safetensors").write_bytes(b"lora")
    first = weights_identity(adapters)
    assert first.endswith(f" on {weights_identity(model)}")
    flip(model / "model.safetensors")
    second = weights_identity(adapters)
    assert second.split(" on ")[0] == first.split(" on ")[0]
    assert second != first
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(adapters)}))
    with pytest.raises(UserError, match="are their own base model"):
        weights_identity(adapters)


def test_adapters_of_a_scalar_model_belong_to_the_model_its_manifest_names(model, tmp_path):
    scalar = tmp_path / "scalar"
    scalar.mkdir()
    (scalar / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "gone"}))
    (scalar / "adapter_model.safetensors").write_bytes(b"lora")
    (scalar / "scalar.json").write_text(json.dumps({"base_model": str(model)}))
    assert weights_identity(scalar).endswith(f" on {weights_identity(model)}")


def test_a_hub_id_is_identified_by_its_commit(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    put_in_cache(tmp_path / "cache", "me/judge", checkpoint)
    assert weights_identity("me/judge") == f"me/judge@{COMMIT}"


def test_tiny_is_its_definition_and_a_servers_weights_are_unknown():
    assert weights_identity("tiny") == "tiny: random weights of seed 0"
    assert weights_fields("tiny") == {"weights": "tiny: random weights of seed 0"}
    served = weights_fields("gpt-4o", served=True)
    assert served["weights"] is None
    assert "reports only the model's name" in served["notes"][0]


def test_a_folder_that_is_not_a_checkpoint_has_no_identity(model, tmp_path):
    with pytest.raises(UserError, match="nobody/nothing: no such checkpoint, locally or on the Hub"):
        weights_identity("nobody/nothing")
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model: not a checkpoint \(its weights are missing\)"):
        weights_identity(model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"not a checkpoint \(config.json is missing\)"):
        weights_identity(tmp_path / "empty")


# ---- files


def test_the_digest_of_a_file_is_that_of_its_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_PIECE", 10)
    monkeypatch.setattr(digests, "_BUFFER", 4)
    for size in (0, 1, 9, 10, 11, 35):
        content = bytes(range(size))
        (tmp_path / "file").write_bytes(content)
        pieces = [hashlib.sha256(content[start : start + 10]).digest() for start in range(0, max(size, 1), 10)]
        assert file_digest(tmp_path / "file") == hashlib.sha256(b"".join(pieces)).hexdigest()
    with pytest.raises(UserError, match="gone: cannot be read"):
        file_digest(tmp_path / "gone")


def test_a_large_file_is_read_once_and_again_when_it_changes(tmp_path, home, monkeypatch):
    monkeypatch.setattr(digests, "_REMEMBERED", 1)
    monkeypatch.setattr(digests, "_SETTLED", -1.0)
    read = []
    original = digests._read_digest
    monkeypatch.setattr(digests, "_read_digest", lambda path: read.append(path) or original(path))
    file = tmp_path / "weights"
    file.write_bytes(b"abcdefghij")
    first = file_digest(file)
    assert [file_digest(file), len(read)] == [first, 1]
    digests._Memory._of.clear()  # as in the next process
    assert [file_digest(file), len(read)] == [first, 1]
    assert len(home.read_text().split()) == 4  # one line
    time.sleep(0.02)  # a tick of the file system's clock
    flip(file)
    assert file_digest(file) != first
    time.sleep(0.02)
    shutil.copy2(file, tmp_path / "copy")
    os.replace(tmp_path / "copy", file)  # another inode with the same size and time
    assert file_digest(file) != first
    assert len(read) == 3


def test_a_file_written_just_now_is_not_remembered(tmp_path, home, monkeypatch):
    monkeypatch.setattr(digests, "_REMEMBERED", 1)
    (tmp_path / "weights").write_bytes(b"abc")
    file_digest(tmp_path / "weights")
    assert not home.exists()


def test_without_a_home_every_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_REMEMBERED", 1)
    monkeypatch.setattr(digests, "_SETTLED", -1.0)
    (tmp_path / "file").write_bytes(b"abc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "no folder"))
    assert file_digest(tmp_path / "file") == file_digest(str(tmp_path / "file"))


# ---- data


def test_the_media_of_a_row_count_by_their_bytes_in_their_order(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "clip").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "clip" / name).write_bytes(name.encode())
    a, b, clip, gone = (str(tmp_path / name) for name in ("a", "b", "clip", "gone"))
    assert media_digest([]) is None
    first = media_digest([a, b, clip])
    assert media_digest(iter([b, a, clip])) != first
    shutil.copy(a, tmp_path / "c")
    assert media_digest([str(tmp_path / "c"), b, clip]) == first  # the same picture under another name
    flip(tmp_path / "clip" / "2.png", 0)
    assert media_digest([a, b, clip]) not in (first, None)
    assert media_digest([gone]) == media_digest([a + "\0"]) != media_digest([a])


def test_data_are_identified_by_their_rows_and_images(pair_file, tmp_path):
    copy = shutil.copytree(pair_file.parent, tmp_path / "copy")
    known = data_identity(pair_file)
    assert known == data_identity(copy / "pairs.jsonl") == data_identity(copy)
    picture = json.loads((copy / "pairs.jsonl").read_text().splitlines()[5])["images"][0]
    flip(copy / picture)
    changed = data_identity(copy)
    assert changed != known
    flip(copy / picture)
    assert data_identity(copy) == known
    flip(copy / "pairs.jsonl", (copy / "pairs.jsonl").read_bytes().index(b'question": ') + 12)
    assert data_identity(copy) not in (known, changed)


def test_a_hub_dataset_is_identified_by_its_rows_and_image_bytes(monkeypatch):
    import datasets

    def identity_with(picture):
        rows = [{"id": "1", "images": [{"bytes": picture, "path": "a.png"}]}]
        features = datasets.Features({"id": datasets.Value("string"), "images": datasets.List(datasets.Image())})
        remote = datasets.Dataset.from_list(rows, features=features)
        monkeypatch.setattr(datasets, "load_dataset", lambda name, split: remote)
        return data_identity("owner/pairs")

    assert identity_with(b"one") == identity_with(b"one") != identity_with(b"two")
