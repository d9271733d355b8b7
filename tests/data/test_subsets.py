"""balance and split: exact and repeatable, without corrupting a teacher's reasoning or leaking an image."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

from r1_reward.data.subsets import balance, both_orders, split
from r1_reward.records.errors import UserError
from r1_reward.store.pairs import FEATURES


def make_dataset(labels: list[int], **columns: list[Any]) -> Dataset:
    rows = []
    for number, label in enumerate(labels):
        good, bad = f"good {number}", f"bad {number}"
        row: dict[str, Any] = dict.fromkeys(FEATURES, "") | {"video": None, "reasoning": None, "attempts": None}
        row |= {"id": str(number), "images": [{"bytes": b"%d" % number, "path": None}], "preferred": label}
        row |= {"response_1": good if label == 1 else bad, "response_2": bad if label == 1 else good}
        row |= {name: values[number] for name, values in columns.items()}
        rows.append(row)
    return Dataset.from_list(rows, features=FEATURES)


def ones(dataset: Dataset) -> int:
    return list(dataset["preferred"]).count(1)


@pytest.mark.parametrize("labels", [[1] * 40, [2] * 40, [1] * 33 + [2] * 7, [1, 2] * 20])
def test_balance_is_exact_and_keeps_every_row(labels: list[int]) -> None:
    dataset = make_dataset(labels)
    balanced = balance(dataset, seed=0)
    assert ones(balanced) == 20
    assert balanced.features == FEATURES
    for row in balanced:
        assert row[f"response_{row['preferred']}"] == f"good {row['id']}"
        assert row[f"response_{3 - row['preferred']}"] == f"bad {row['id']}"
        assert row["images"][0]["bytes"] == row["id"].encode()
    assert sorted(balanced["id"]) == sorted(dataset["id"])


@pytest.mark.parametrize("count", [1, 7, 41])
def test_an_odd_number_is_balanced_up_to_one(count: int) -> None:
    found = {ones(balance(make_dataset([1] * count), seed=seed)) for seed in range(8)}
    assert found == {count // 2, count // 2 + 1}


def test_balance_depends_on_the_seed_alone() -> None:
    dataset = make_dataset([1] * 30)
    first, again, other = (balance(dataset, seed=seed).to_list() for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert [row["id"] for row in first] != dataset["id"][:], "rows must be shuffled"


def test_position_says_nothing_about_the_source_either() -> None:
    dataset = make_dataset([1] * 200 + [2] * 200, source=["one"] * 200 + ["two"] * 200)
    balanced = balance(dataset, seed=0)
    of_one = [row["preferred"] for row in balanced if row["source"] == "one"].count(1)
    assert 70 < of_one < 130  # 100 +- 30 is more than four sigmas


def test_rows_with_reasoning_are_never_swapped() -> None:
    texts = ["Response 1 is better." if number % 2 else None for number in range(40)]
    dataset = make_dataset([1] * 40, reasoning=texts)
    balanced = balance(dataset, seed=0)
    assert ones(balanced) == 20
    assert all(row["preferred"] == 1 for row in balanced if row["reasoning"])


def test_balance_keeps_the_order_of_a_curriculum() -> None:
    balanced = balance(make_dataset([1] * 40), seed=0, keep_order=True)
    assert list(balanced["id"]) == [str(number) for number in range(40)]
    assert ones(balanced) == 20
    assert list(balance(make_dataset([1] * 40), seed=0)["id"]) != list(balanced["id"])


def test_a_warning_when_reasoning_makes_balance_impossible() -> None:
    texts = ["Response 1 is better."] * 30 + [None] * 10
    with pytest.warns(
        UserWarning, match="labels cannot be balanced: 30 rows prefer response 1 and 10 prefer response 2"
    ):
        balanced = balance(make_dataset([1] * 40, reasoning=texts), seed=0)
    assert len(balanced) == 40
    assert ones(balanced) == 30


def test_balance_takes_a_selection() -> None:
    train, _ = split(make_dataset([1] * 40), test_size=10, seed=0)
    balanced = balance(train, seed=0)
    assert ones(balanced) == 15
    assert sorted(balanced["id"]) == sorted(train["id"])


def keys(dataset: Dataset) -> set[str]:
    return {hashlib.sha256(cell["bytes"]).hexdigest() for row in dataset for cell in row["images"]}


def cells(*names: int) -> list[dict[str, Any]]:
    return [{"bytes": b"picture %d" % name, "path": None} for name in names]


def test_no_picture_is_on_both_sides_of_a_split() -> None:
    dataset = make_dataset([1] * 90, images=[cells(number % 30) for number in range(90)])
    for seed in range(10):
        train, test = split(dataset, test_fraction=0.2, seed=seed)
        assert len(test) == 18
        assert sorted([*train["id"], *test["id"]], key=int) == dataset["id"][:]
        assert not keys(train) & keys(test)


def test_a_chain_of_shared_pictures_stays_together() -> None:
    images = [cells(1, 2), cells(3, 4), cells(2, 3), cells(5), cells(6), cells(7)]
    for seed in range(20):
        _, test = split(make_dataset([1] * 6, images=images), test_size=3, seed=seed)
        ids = set(test["id"])
        assert ids & {"0", "1", "2"} in (set(), {"0", "1", "2"})
        assert ids


def test_copies_and_links_of_a_video_stay_together(tmp_path: Path) -> None:
    for name, content in (("v.mp4", b"film"), ("copy.mp4", b"film"), ("w.mp4", b"another"), ("x.mp4", b"third")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "v.mp4")
    videos = [str(tmp_path / name) for name in ("v.mp4", "copy.mp4", "link.mp4", "w.mp4", "x.mp4", "gone.mp4")]
    dataset = make_dataset([1] * 6, images=[[]] * 6, video=videos)
    for seed in range(20):
        _, test = split(dataset, test_size=3, seed=seed)
        ids = set(test["id"])
        assert ids & {"0", "1", "2"} in (set(), {"0", "1", "2"})
        assert ids


def test_shared_videos_and_copies_of_a_file_stay_together(tmp_path: Path) -> None:
    for name in ("a.png", "copy_of_a.png"):
        Image.new("RGB", (2, 2), "red").save(tmp_path / name)
    paths = [[{"bytes": None, "path": str(tmp_path / name)}] for name in ("a.png", "copy_of_a.png", "gone.png")]
    dataset = make_dataset([1] * 6, images=[*paths, [], [], []], video=[None, None, None, "v.mp4", "v.mp4", "w.mp4"])
    for seed in range(20):
        _, test = split(dataset, test_size=2, seed=seed)
        ids = set(test["id"])
        assert ids & {"0", "1"} in (set(), {"0", "1"})
        assert ids & {"3", "4"} in (set(), {"3", "4"})


def test_split_is_repeatable_and_keeps_the_order_of_rows() -> None:
    dataset = make_dataset([1] * 50)
    first, again, other = (split(dataset, test_size=10, seed=seed)[1]["id"][:] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first == sorted(first, key=int)


def test_an_impossible_split_is_refused() -> None:
    one_picture = make_dataset([1] * 10, images=[cells(0)] * 10)
    with pytest.raises(UserError, match="the smallest group of rows that share images is larger"):
        split(one_picture, test_size=3, seed=0)
    for size in (0, 10, 11, -1):
        with pytest.raises(UserError, match="both sides need at least one row"):
            split(one_picture, test_size=size, seed=0)
    for options in ({}, {"test_size": 1, "test_fraction": 0.1}):
        with pytest.raises(ValueError, match="either"):
            split(one_picture, seed=0, **options)


def test_both_orders_gives_each_row_and_its_swapped_copy_in_sequence() -> None:
    dataset = make_dataset([1, 2, 1, 1, 2])
    doubled = both_orders(dataset, seed=0)
    rows = list(doubled)
    assert len(rows) == 10
    assert doubled.features == FEATURES
    assert {row["id"] for row in rows} == set("01234")
    assert [row["id"] for row in rows[::2]] != sorted(row["id"] for row in rows[::2])
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert one["id"] == other["id"]
        assert {one["preferred"], other["preferred"]} == {1, 2}
        for row in (one, other):
            assert row[f"response_{row['preferred']}"] == f"good {row['id']}"
            assert row["images"][0]["bytes"] == row["id"].encode()
    assert list(both_orders(dataset, seed=0)) == rows != list(both_orders(dataset, seed=1))


def test_both_orders_refuses_reasoning() -> None:
    with pytest.raises(ValueError, match="reasoning"):
        both_orders(make_dataset([1, 2], reasoning=["Response 1 is better.", None]), seed=0)
