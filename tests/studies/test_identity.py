"""What a run is known by: content, not names; and what is said of a folder that holds another."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from r1_reward.records.errors import UserError
from r1_reward.store.pairs import load_pairs, save_pairs
from r1_reward.studies.identity import differences, pairs_digest, require_same, weights_digest


def test_pairs_are_known_by_their_rows_and_the_bytes_of_their_pictures(pair_file, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(pair_file.parent, moved)
    (moved / "pairs.jsonl").rename(moved / "other.jsonl")
    assert pairs_digest(str(moved / "other.jsonl")) == pairs_digest(str(pair_file))
    picture = next((moved / "images").iterdir())
    row = next(row for row in load_pairs(moved / "other.jsonl") if str(picture) in {c["path"] for c in row["images"]})
    Image.new("RGB", (28, 28), "red").save(row["images"][0]["path"])
    assert pairs_digest(str(moved / "other.jsonl")) != pairs_digest(str(pair_file))
    save_pairs(load_pairs(pair_file).select(range(3)), tmp_path / "three.parquet")
    one, two = (pairs_digest(str(path)) for path in (tmp_path / "three.parquet", pair_file))
    assert one != two
    save_pairs(load_pairs(pair_file).select(range(3)), tmp_path / "three.jsonl")
    assert pairs_digest(str(tmp_path / "three.jsonl")) == one  # the same pairs in another format


def test_a_checkpoint_is_known_by_its_weights_and_what_prepares_its_input(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    before = weights_digest(str(checkpoint))
    (copy / "trainer_state.json").write_text("{}")
    assert weights_digest(str(copy)) == before
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    changed = weights_digest(str(copy))
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert len({before, changed, weights_digest(str(copy))}) == 3
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        weights_digest(str(copy))


def test_the_message_says_what_differs(tmp_path):
    assert differences({"a": [1, 2], "b": {"c": 1}}, {"a": (1, 2), "b": {"c": 1}}) == []
    stored, wanted = {"a": 1, "b": {"c": None, "d": 2}}, {"a": 1, "b": {"c": 0.1}, "e": True}
    assert differences(stored, wanted) == ["b.c not given, now 0.1", "b.d 2, now not given", "e not given, now True"]
    with pytest.raises(UserError, match=r"holds another study \(what differs: b.c .*; e .*\). Choose another folder"):
        require_same(tmp_path, stored, wanted, what="study")
