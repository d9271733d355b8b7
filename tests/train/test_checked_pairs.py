"""Pictures are decoded by one process, once: known by their bytes, and not at all where that is switched off."""

from __future__ import annotations

import os
import shutil

import datasets
import pytest
from PIL import Image

from r1_reward.records.errors import UserError
from r1_reward.store import checker
from r1_reward.store.pairs import PairFileError, load_pairs
from r1_reward.train import checked_pairs as module
from r1_reward.train.checked_pairs import checked_pairs, fingerprint


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """What is decoded to be checked."""
    opened = []
    check = checker.check_image
    monkeypatch.setattr(checker, "check_image", lambda source: (opened.append(source), check(source)))
    return opened


@pytest.fixture
def data(pair_file, tmp_path):
    shutil.copytree(pair_file.parent, tmp_path / "data")
    return tmp_path / "data" / pair_file.name


def read(data, **options):
    return checked_pairs(str(data), split="train", video_frames=8, **{"check_images": True, **options})


def test_the_second_start_decodes_nothing(data, decoded, tmp_path):
    first = read(data)
    assert len(decoded) > 10
    decoded.clear()
    assert list(read(data)) == list(first)
    shutil.copytree(data.parent, tmp_path / "moved")
    read(tmp_path / "moved" / data.name)  # the same pictures elsewhere
    assert decoded == []


def test_another_picture_under_the_same_name_and_date_is_looked_at(data, decoded):
    pairs = read(data)
    path = pairs[0]["images"][0]["path"]
    before, known = os.stat(path), fingerprint(pairs, 8)
    Image.new("RGB", (30, 30)).save(path, "PNG")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint(pairs, 8) != known != fingerprint(pairs, 4)
    decoded.clear()
    read(data)
    assert path in decoded


def test_a_damaged_picture_is_found_each_time_until_it_is_switched_off(data, decoded):
    path = load_pairs(data, check_images=False)[0]["images"][0]["path"]
    with open(path, "wb") as file:
        file.write(b"no picture")
    for _ in range(2):
        with pytest.raises(PairFileError, match="images"):
            read(data)
    decoded.clear()
    assert len(read(data, check_images=False)) > 10
    assert decoded == []


def test_films_and_embedded_pictures_are_known_by_their_bytes(tmp_path):
    folder, prints = tmp_path / "film", []
    texts = {"question": ["Which?"], "response_1": ["One."], "response_2": ["Two."]}
    folder.mkdir()
    for number in (1, 2):
        Image.new("RGB", (30, 30), (number, 0, 0)).save(folder / "1.png")
        rows = {**texts, "images": [[]], "video": [str(folder)]}
        embedded = {**texts, "images": [[{"bytes": bytes([number]), "path": None}]], "video": [None]}
        prints += [fingerprint(datasets.Dataset.from_dict(table), 8) for table in (rows, embedded)]
    assert len(set(prints)) == 4
    missing = datasets.Dataset.from_dict({**texts, "images": [[]], "video": [str(tmp_path / "absent.mp4")]})
    assert len(fingerprint(missing, 8)) == 64


def test_a_cache_that_cannot_be_written_is_no_obstacle(data, cache, caplog):
    cache.write_text("a file where a folder should be")
    assert len(read(data)) > 10
    assert "will be checked again" in caplog.text


def test_only_the_main_process_checks(data, monkeypatch):
    monkeypatch.setattr(module, "once", lambda work: None)  # as on any other process
    monkeypatch.setattr(checker, "check_image", lambda source: pytest.fail("decoded here"))
    assert len(read(data)) > 10
    with pytest.raises(UserError, match="no such file"):
        read(data.parent / "absent.jsonl")
