"""The mixture: exact counts, reproducible bytes, no leaks, and no unfinished folder that looks finished."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_rows import cell, encoded, make_row, picture, reworded, sentence, write_folder
from typer.testing import CliRunner

from r1_reward.bench.suites import load_suite
from r1_reward.data import mixing
from r1_reward.data.choosing import deal_labels, split_groups
from r1_reward.data.keys import Keys
from r1_reward.data.mix_config import MixConfig, load_mix
from r1_reward.data.mixing import mix
from r1_reward.records.errors import UserError
from r1_reward.store import files
from r1_reward.store.dataset_card import MARK
from r1_reward.store.pairs import load_pairs, validate_pairs
from r1_reward.store.shards import read_rows

Rows = list[dict[str, Any]]


def config(folder: Path, sources: dict[str, Rows], **options: Any) -> MixConfig:
    """Write the sources and return a config that takes all of them."""
    given = options.pop("take", {})
    paths = {name: {"path": write_folder(folder / name, rows), **given.get(name, {})} for name, rows in sources.items()}
    return MixConfig.model_validate({"sources": paths, **options})


def two_sources(folder: Path, **options: Any) -> MixConfig:
    kinds = ["long", "short", "short"]
    one = [make_row(number, kind=kinds[number % 3]) for number in range(18)]
    two = [make_row(number, "two", images=[cell(100 + number)]) for number in range(14)]
    return config(folder, {"one": one, "two": two}, **options)


def read(folder: Path, side: str = "train") -> Rows:
    return list(read_rows(folder / side))


def removed_of(folder: Path) -> dict[str, tuple[str, str]]:
    lines = [json.loads(line) for line in (folder / "removed.jsonl").read_text().splitlines()]
    return {line["id"]: (line["reason"], line["detail"]) for line in lines}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_counts_by_source_and_part_are_exact(tmp_path: Path) -> None:
    mixture = two_sources(tmp_path, take={"one": {"parts": {"long": 4, "short": 7}}, "two": {"count": 5}})
    report = mix(mixture, tmp_path / "out").report
    rows = read(tmp_path / "out")
    assert Counter((row["source"], row["kind"]) for row in rows) == {
        ("one", "long"): 4, ("one", "short"): 7, ("two", ""): 5,
    }  # fmt: skip
    one = report["sources"]["one"]
    assert (one["read"], one["taken"], one["not_drawn"], one["removed"]) == (18, 11, 7, {})
    assert one["parts"] == {"long": 4, "short": 7}
    assert (report["rows"], report["train"], report["test"]) == (16, 16, 0)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert not (tmp_path / "out" / "test").exists()


def test_rows_are_unchanged_except_for_order_and_label(tmp_path: Path) -> None:
    mixture = two_sources(tmp_path, seed=1)
    mix(mixture, tmp_path / "out")
    before = {row["id"]: row for name in ("one", "two") for row in read_rows(tmp_path / name)}
    rows = read(tmp_path / "out")
    assert sorted(row["id"] for row in rows) == sorted(before)
    for row in rows:
        old = before[row["id"]]
        turned = row["preferred"] == 2  # all rows of the sources prefer response 1
        texts = (old["response_2"], old["response_1"]) if turned else (old["response_1"], old["response_2"])
        assert (row["response_1"], row["response_2"]) == texts
        same = set(row) - {"response_1", "response_2", "preferred"}
        assert {name: row[name] for name in same} == {name: old[name] for name in same}
    assert validate_pairs(tmp_path / "out" / "train") == []
    turns = [row["source"] for row in rows]
    assert turns != sorted(turns), "sources must be mixed"


def test_a_row_without_origin_gets_one(tmp_path: Path) -> None:
    bare = make_row(1, source="named", provenance="") | {"source": ""}
    mix(config(tmp_path, {"named": [make_row(0), bare]}), tmp_path / "out")
    (row,) = (row for row in read(tmp_path / "out") if row["id"] == "named:1")
    assert (row["source"], row["provenance"]) == ("named", "named:pairs-00000.parquet:2")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_choice(tmp_path: Path) -> None:
    mixture = two_sources(tmp_path, take={"one": {"count": 9}}, test_share=0.2)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        mix(mixture.model_copy(update={"seed": seed}), tmp_path / name)
    first, again = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []
    assert {"train/pairs-00000.parquet", "test/report.json", "plots/sources.png", "README.md"} <= first.keys()
    chosen = [{row["id"] for side in ("train", "test") for row in read(tmp_path / name, side)} for name in "ac"]
    assert chosen[0] != chosen[1]
    assert len(chosen[0]) == len(chosen[1]) == 23


def test_another_source_changes_nothing_about_what_is_drawn(tmp_path: Path) -> None:
    both = two_sources(tmp_path, take={"one": {"count": 6}})
    alone = MixConfig(sources={"one": both.sources["one"]})
    for name, mixture in (("both", both), ("alone", alone)):
        mix(mixture, tmp_path / name)
    drawn = [{row["id"] for row in read(tmp_path / name) if row["source"] == "one"} for name in ("both", "alone")]
    assert drawn[0] == drawn[1]


def test_duplicates_across_sources_are_removed_and_different_pictures_stay(tmp_path: Path) -> None:
    long = {"response_1": sentence("a", 80), "response_2": sentence("b", 80)}
    original = make_row(0, **long)
    jpeg = {"bytes": encoded(picture(0), "JPEG", quality=60), "path": "0.jpg"}
    turned = {"response_1": long["response_2"], "response_2": long["response_1"]}
    other = make_row(5)
    planted = [
        {**original, **turned, "id": "two:same", "preferred": 2},
        {**original, "id": "two:near", "images": [jpeg], "response_2": reworded(long["response_2"])},
        {**original, "id": "two:elsewhere", "images": [cell(77)]},
        {**original, "id": "two:asks-more", "response_2": sentence("c", 80)},
        {**other, "id": "two:against", "preferred": 2},
    ]
    mix(config(tmp_path, {"one": [original, make_row(1), other], "two": planted}), tmp_path / "out")
    removed = removed_of(tmp_path / "out")
    first, against = "(source one, pairs-00000.parquet, row 1)", "(source two, pairs-00000.parquet, row 5)"
    assert removed.pop("two:near")[1].startswith(f"near one:0 {first}: similarity 0.9")
    assert removed == {
        "two:same": ("exact duplicate", f"same as one:0 {first}"),
        "one:5": ("contradiction", f"two:against {against} prefers the other response"),
        "two:against": ("contradiction", "one:5 (source one, pairs-00000.parquet, row 3) prefers the other response"),
    }
    assert {row["id"] for row in read(tmp_path / "out")} == {"one:0", "one:1", "two:elsewhere", "two:asks-more"}


def test_the_other_row_is_named_by_its_place_where_ids_repeat(tmp_path: Path) -> None:
    long = {"response_1": sentence("a", 80), "response_2": sentence("b", 80)}
    again = {**make_row(0), "id": "same"}
    near = {**make_row(9, **long), "id": "same"}
    one = [{**make_row(n), "id": "same"} for n in range(3)] + [near]
    two = [again, {**make_row(2), "id": "same", "preferred": 2}, {**near, "response_2": reworded(long["response_2"])}]
    mix(config(tmp_path, {"one": one, "two": two}), tmp_path / "out")
    found = [json.loads(line) for line in (tmp_path / "out" / "removed.jsonl").read_text().splitlines()]

    def place(source: str, row: int) -> dict[str, Any]:
        return {"source": source, "file": "pairs-00000.parquet", "row": row, "id": "same"}

    assert [(line["source"], line["row"], line["reason"], line["of"]) for line in found] == [
        ("one", 3, "contradiction", place("two", 2)),
        ("two", 1, "exact duplicate", place("one", 1)),
        ("two", 2, "contradiction", place("one", 3)),
        ("two", 3, "near duplicate", place("one", 4)),
    ]
    assert all(f"row {line['of']['row']}" in line["detail"] for line in found)


def test_invisible_characters_do_not_make_a_different_pair(tmp_path: Path) -> None:
    rows = [make_row(number, response_1=f"Yes {number}.", response_2=f"No {number}.") for number in range(4)]
    turned = {"response_1": "No 1.", "response_2": "Yes\u00a01.", "preferred": 1}
    two = [{**rows[0], "id": "two:0", "response_1": "Yes\u200b 0\u00ad."}, {**rows[1], "id": "two:1", **turned}]
    mix(config(tmp_path, {"one": rows, "two": two}), tmp_path / "out")
    reasons = {name: reason for name, (reason, _) in removed_of(tmp_path / "out").items()}
    assert reasons == {"two:0": "exact duplicate", "one:1": "contradiction", "two:1": "contradiction"}


def test_the_thresholds_of_the_config_are_used(tmp_path: Path) -> None:
    row = make_row(0, response_1=sentence("a", 60))
    near = {**row, "id": "near", "response_1": reworded(row["response_1"], 6)}
    jpeg = {"bytes": encoded(picture(0), "JPEG", quality=40), "path": None}
    mixture = config(tmp_path, {"one": [row, near, {**row, "id": "jpeg", "images": [jpeg]}]})
    removed = []
    for name, limits in (("a", {}), ("b", {"text": 0.55}), ("c", {"image_bits": 0})):
        mix(MixConfig.model_validate({**mixture.model_dump(), "near": limits}), tmp_path / name)
        removed.append(sorted(removed_of(tmp_path / name)))
    assert removed == [["jpeg"], ["jpeg", "near"], []]


def test_benchmark_rows_are_removed_and_reported(tmp_path: Path) -> None:
    bench = [make_row(number, "bench", images=[cell(900 + number)]) for number in range(4)]
    benchmark = {"suite": "pairs", "path": write_folder(tmp_path / "bench", bench)}
    copied = {name: bench[1][name] for name in ("question", "response_1", "response_2")}
    small = encoded(picture(902).resize((60, 45)), "JPEG", quality=80)
    rows = [make_row(number) for number in range(6)]
    rows[2] = make_row(2, **{**copied, "response_1": reworded(copied["response_1"], 1)})
    rows[4] = make_row(4, images=[cell(444), {"bytes": small, "path": None}])
    report = mix(
        config(tmp_path, {"one": rows}, benchmarks=[benchmark]), tmp_path / "out", open_benchmark=load_suite
    ).report
    removed = removed_of(tmp_path / "out")
    assert set(removed) == {"one:2", "one:4"}
    assert removed["one:2"][0] == "benchmark text"
    assert removed["one:2"][1].startswith("pairs, row 1 (id bench:1): similarity ")
    assert removed["one:4"][0] == "benchmark picture"
    assert removed["one:4"][1].startswith("pairs, row 2 (id bench:2): similarity ")
    assert report["removed"] == {"benchmark picture": 1, "benchmark text": 1}
    assert report["sources"]["one"]["removed"] == report["removed"]
    (example,) = report["examples"]["benchmark text"]
    assert (example["id"], example["question"], example["detail"]) == ("one:2", copied["question"], removed["one:2"][1])
    line = json.loads((tmp_path / "out" / "removed.jsonl").read_text().splitlines()[0])
    assert (line["source"], line["file"], line["row"], line["id"]) == ("one", "pairs-00000.parquet", 3, "one:2")
    assert report["benchmarks"][0]["rows"] == 4


def test_unreadable_pictures_are_counted_and_examples_are_few(tmp_path: Path) -> None:
    bad = [make_row(number, images=[{"bytes": b"bad %d" % number, "path": None}]) for number in range(9)]
    report = mix(config(tmp_path, {"one": [make_row(0), make_row(1), *bad]}), tmp_path / "out").report
    assert report["removed"] == {"unreadable picture": 9}
    assert len(report["examples"]["unreadable picture"]) == mixing.EXAMPLES
    assert "not an image" in removed_of(tmp_path / "out")["one:8"][1]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.45])
@pytest.mark.parametrize("count", [8, 9, 21])
def test_labels_are_balanced_on_both_sides(tmp_path: Path, count: int, share: float) -> None:
    mixture = config(tmp_path, {"one": [make_row(number) for number in range(count)]}, test_share=share)
    labels = mix(mixture, tmp_path / "out").report["labels"]
    for side in labels.values():
        assert abs(side["1"] - side["2"]) <= 1
    total = Counter(
        row["preferred"]
        for side in labels
        if (tmp_path / "out" / side).exists()
        for row in read(tmp_path / "out", side)
    )
    assert abs(total[1] - total[2]) == count % 2


class Rng:
    """Stands in for random.Random: only the coin of deal_labels is fixed."""

    def __init__(self, coin: int) -> None:
        self.coin = coin

    def randrange(self, stop: int) -> int:
        return self.coin

    def sample(self, values: list[int], count: int) -> list[int]:
        return values[:count]


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.booleans()), min_size=1, max_size=14), st.integers(0, 1))
def test_labels_differ_by_one_at_most_in_all_and_on_each_side(rows: list[tuple[int, bool]], coin: int) -> None:
    keys = Keys(len(rows))
    keys.preferred, keys.fixed = [label for label, _ in rows], [False] * len(rows)
    test = {row for row, (_, side) in enumerate(rows) if side}
    labels = deal_labels(keys, range(len(rows)), test, Rng(coin))  # type: ignore[arg-type]
    for side in (set(range(len(rows))), test, set(range(len(rows))) - test):
        ones = sum(labels[row] == 1 for row in side)
        assert abs(len(side) - 2 * ones) <= 1
    assert list(labels) == list(range(len(rows)))


def test_rows_with_reasoning_keep_their_order_and_a_warning_gives_the_imbalance(tmp_path: Path) -> None:
    reasoning = {"reasoning": "<think>First.</think><answer>1</answer>", "attempts": 1}
    rows = [make_row(number, **reasoning) for number in range(6)] + [make_row(number) for number in range(6, 10)]
    report = mix(config(tmp_path, {"one": rows}), tmp_path / "out").report
    assert report["labels"]["train"] == {"1": 6, "2": 4}
    assert report["warnings"] == [
        "train: 6 rows prefer response 1 and 4 prefer response 2, because rows with reasoning are never swapped."
    ]
    assert all(row["preferred"] == 1 for row in read(tmp_path / "out") if row["reasoning"])
    balanced = mix(config(tmp_path / "b", {"one": rows[2:]}), tmp_path / "b" / "out").report
    assert (balanced["labels"]["train"], balanced["warnings"]) == ({"1": 4, "2": 4}, [])


PLACES = st.lists(st.integers(0, 5), max_size=2)
GROUPED = st.lists(st.tuples(PLACES, st.sampled_from([None, None, "v", "w"]), st.integers(0, 4), st.integers(0, 8)))


@settings(max_examples=200, deadline=None)
@given(GROUPED.filter(bool), st.floats(0.01, 0.5), st.integers(0, 9))
def test_no_group_is_on_both_sides(rows: list[tuple[list[int], str | None, int, int]], share: float, seed: int) -> None:
    keys = Keys(len(rows))
    for pictures, video, prompt, text in rows:
        keys.pictures.append(tuple(pictures))
        keys.video.append(video)
        keys.prompt.append(b"%d" % prompt)
        keys.text.append(b"%d" % text if text > 5 else None)  # the others are too short
    clusters = np.array([0, 1, 2, 3, 4, 4])  # two pictures are near
    try:
        test, _ = split_groups(keys, clusters, range(len(rows)), share, seed)
    except UserError:
        test = set()
    assert len(test) <= round(share * len(rows))
    for a in range(len(rows)):
        for b in range(a):
            near = {int(clusters[p]) for p in rows[a][0]} & {int(clusters[p]) for p in rows[b][0]}
            video = rows[a][1] is not None and rows[a][1] == rows[b][1]
            bare = not any((rows[a][0], rows[b][0], rows[a][1], rows[b][1])) and rows[a][2] == rows[b][2]
            text = rows[a][3] == rows[b][3] > 5
            if near or video or bare or text:
                assert (a in test) == (b in test)


def test_a_question_shared_by_many_pictures_does_not_connect_them(tmp_path: Path) -> None:
    rows = [make_row(number, question="Describe the image.") for number in range(40)]
    rows += [make_row(100 + number, images=[cell(number)]) for number in range(40)]  # two rows a picture
    report = mix(config(tmp_path, {"one": rows}, test_share=0.25), tmp_path / "out").report
    assert (report["split"]["groups"], report["split"]["largest_group"], report["test"]) == (40, 2, 20)
    sides = [{row["images"][0]["bytes"] for row in read(tmp_path / "out", side)} for side in ("train", "test")]
    assert not sides[0] & sides[1]
    assert (len(sides[0]), len(sides[1])) == (30, 10)


def test_an_impossible_test_side_is_refused(tmp_path: Path) -> None:
    rows = [make_row(number, images=[cell(1)]) for number in range(10)]
    with pytest.raises(UserError, match="test_share: no group of connected rows is small enough"):
        mix(config(tmp_path, {"one": rows}, test_share=0.3), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_rows_are_refused_or_taken_with_a_warning(tmp_path: Path) -> None:
    mixture = two_sources(tmp_path, take={"one": {"parts": {"long": 7, "short": 2, "video": 1}}, "two": {"count": 15}})
    with pytest.raises(UserError) as refused:
        mix(mixture, tmp_path / "out")
    assert str(refused.value).splitlines() == [
        "one, part long: 7 rows were requested, but it has 6.",
        "one, part video: 1 rows were requested, but it has 0.",
        "two: 15 rows were requested, but it has 14.",
        "Request fewer, or set `short: take-all` to use all available rows.",
    ]
    report = mix(mixture.model_copy(update={"short": "take-all"}), tmp_path / "out").report
    assert report["sources"]["one"]["parts"] == {"long": 6, "short": 2, "video": 0}
    assert report["warnings"][0] == "one, part long: 7 rows were requested, but 6 are left after cleaning."
    assert len(report["warnings"]) == 3
    assert "7 rows were requested" in (tmp_path / "out" / "README.md").read_text()


def test_rows_without_a_kind_are_a_part_of_their_own(tmp_path: Path) -> None:
    rows = [make_row(number, kind="long" if number % 3 else "") for number in range(9)]
    mixture = config(tmp_path, {"one": rows}, take={"one": {"parts": {"": 4, "long": 2}}})
    with pytest.raises(UserError, match="one, part '': 4 rows were requested, but it has 3"):
        mix(mixture, tmp_path / "out")
    report = mix(mixture.model_copy(update={"short": "take-all"}), tmp_path / "out").report
    assert report["sources"]["one"]["parts"] == {"": 3, "long": 2}
    assert report["warnings"] == ["one, part '': 4 rows were requested, but 3 are left after cleaning."]


def test_rows_missing_only_after_cleaning_are_reported_as_such(tmp_path: Path) -> None:
    rows = [make_row(number) for number in range(4)]
    mixture = config(tmp_path, {"one": [*rows, {**rows[0], "id": "again"}]}, take={"one": {"count": 5}})
    with pytest.raises(UserError, match="one: 5 rows were requested, but 4 of its 5 are left after cleaning."):
        mix(mixture, tmp_path / "out")


def test_an_existing_folder_is_not_replaced_without_overwrite(tmp_path: Path) -> None:
    mixture = two_sources(tmp_path)
    mix(mixture, tmp_path / "out")
    with pytest.raises(UserError, match="already exists"):
        mix(mixture, tmp_path / "out")
    mix(mixture.model_copy(update={"sources": {"two": mixture.sources["two"]}}), tmp_path / "out", overwrite=True)
    assert len(read(tmp_path / "out")) == 14
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a mixture"):
        mix(mixture, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(UserError, match="No output folder: set --out"):
        mix(mixture)


@pytest.mark.parametrize("out", [".", "..", "../here"])
def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    mixture = two_sources(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="is or contains the current folder.* Choose another folder"):
        mix(mixture, out)
    assert sorted(os.listdir(tmp_path)) == ["here", "one", "two"]
    assert os.listdir(tmp_path / "here") == []
    mix(mixture, "mixed")
    assert len(read(tmp_path / "here" / "mixed")) == 32


def test_the_old_mixture_stays_until_the_new_one_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, out = two_sources(tmp_path), tmp_path / "out"
    mix(mixture, out)
    before = (out / "report.json").read_bytes()
    real = files.os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(source).name == ".out.part":
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(files.os, "replace", fail)
        mix(mixture.model_copy(update={"seed": 5}), out, overwrite=True)
    assert (out / "report.json").read_bytes() == before
    os.replace(out, tmp_path / ".out.old")  # a kill between the two moves
    with pytest.raises(UserError, match="already exists"):
        mix(mixture, out)
    assert (out / "report.json").read_bytes() == before
    mix(mixture.model_copy(update={"seed": 5}), out, overwrite=True)
    assert (out / "report.json").read_bytes() != before
    assert sorted(os.listdir(tmp_path)) == [".out.lock", "one", "out", "two"]


def test_a_link_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "mixed").symlink_to(tmp_path / "big")
    mixture = MixConfig.model_validate({"sources": {"a": {"path": str(tmp_path / "gone")}}})
    with pytest.raises(UserError, match="mixed: is a link, .* Give the folder itself: .*big"):
        mix(mixture, tmp_path / "mixed")
    assert sorted(os.listdir(tmp_path)) == ["big", "mixed"]


def test_a_link_in_place_of_the_old_folder_is_not_in_the_way(tmp_path: Path) -> None:
    for name in ("new", "out", "else"):
        (tmp_path / name).mkdir()
    (tmp_path / "else" / "kept").touch()
    (tmp_path / ".out.old").symlink_to(tmp_path / "else")  # as an earlier release left it
    files.replace_folder(tmp_path / "new", tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["else", "out"]
    assert os.listdir(tmp_path / "else") == ["kept"]


def test_a_mount_point_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == out)
    mixture = MixConfig.model_validate({"sources": {"a": {"path": str(tmp_path / "gone")}}})
    with pytest.raises(UserError, match="out: is a mount point.* Choose a folder inside it"):
        mix(mixture, out)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("place", ["clean", "_write", "write_card"])
def test_an_interrupted_mix_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    mixture = two_sources(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mixing, place, stop)
        mix(mixture, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [".out.lock", "one", "two"]
    mix(mixture, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [".out.lock", "one", "out", "two"]


def test_a_killed_mix_starts_over(tmp_path: Path) -> None:
    mixture = two_sources(tmp_path)
    code = (
        "import os, signal, sys\n"
        "from r1_reward.data import mixing\n"
        "from r1_reward.data.mix_config import MixConfig\n"
        "mixing.write_card = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "mixing.mix(MixConfig.model_validate_json(sys.argv[1]), sys.argv[2])\n"
    )
    arguments = [sys.executable, "-c", code, mixture.model_dump_json(), str(tmp_path / "out")]
    assert subprocess.run(arguments, capture_output=True).returncode == -9
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.part").is_dir(), "killed before it wrote anything"
    (tmp_path / ".out.part" / "stale").touch()
    mix(mixture, tmp_path / "out")
    assert len(load_pairs(tmp_path / "out" / "train")) == 32
    assert not (tmp_path / "out" / "stale").exists()
    assert sorted(os.listdir(tmp_path)) == [".out.lock", "one", "out", "two"]


@pytest.mark.parametrize("what", ["response_1", "preferred", "images"])
def test_a_row_that_changes_between_the_passes_is_noticed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same ids: the texts, the label or the image of one row."""
    mixture = two_sources(tmp_path)
    rows = list(read_rows(tmp_path / "two"))
    changed = {"response_1": "Something else.", "preferred": 3 - rows[0]["preferred"], "images": [cell(999)]}
    original = mixing.choose

    def change(*arguments: Any) -> Any:
        choice = original(*arguments)
        for row in rows:
            row[what] = changed[what]
        write_folder(tmp_path / "two", rows, overwrite=True)
        return choice

    monkeypatch.setattr(mixing, "choose", change)
    with pytest.raises(UserError, match="two: changed during mixing"):
        mix(mixture, tmp_path / "out")


def test_a_source_that_changes_between_the_passes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = two_sources(tmp_path)
    original = mixing.clean

    def change(*arguments: Any) -> Any:
        write_folder(tmp_path / "two", [make_row(number, "other") for number in range(14)], overwrite=True)
        return original(*arguments)

    monkeypatch.setattr(mixing, "clean", change)
    with pytest.raises(UserError, match="two: changed during mixing"):
        mix(mixture, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_is_compared_by_its_middle_frame_and_its_path_still_leads_there(tmp_path: Path) -> None:
    for name, first in (("a", 300), ("b", 310)):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for number in range(3):
            data = encoded(picture(first + number), "JPEG" if number else "PNG")
            (tmp_path / "frames" / name / f"{number}.png").write_bytes(data)
    clips = [make_row(number, images=[], video=str(tmp_path / "frames" / name)) for number, name in enumerate("ab")]
    bench = write_folder(tmp_path / "bench", [make_row(9, images=[cell(311)])])
    mixture = config(tmp_path, {"one": [*clips, make_row(5)]}, benchmarks=[{"suite": "pairs", "path": bench}])
    mix(mixture, tmp_path / "deep" / "out", open_benchmark=load_suite)
    assert set(removed_of(tmp_path / "deep" / "out")) == {"one:1"}
    (clip,) = (row for row in read(tmp_path / "deep" / "out") if row["video"])
    assert sorted(os.listdir(clip["video"])) == ["0.png", "1.png", "2.png"]


def test_two_mixes_at_once_into_one_folder_are_refused(tmp_path: Path) -> None:
    mixture = two_sources(tmp_path)
    with mixing._work_folder(tmp_path / "out", False) as work:
        (work / "precious").touch()
        with pytest.raises(UserError, match="is in use; another process is writing there"):
            mix(mixture, tmp_path / "out")
        assert (work / "precious").exists()
    assert os.listdir(tmp_path / "out") == ["precious"]


def test_keys_contain_everything_that_rows_are_compared_by(tmp_path: Path) -> None:
    short = make_row(0, question=" What  IS it?", response_1="A cat", response_2="B", kind="k")
    long = make_row(1, images=[cell(0), cell(1)], preferred=2, reasoning="r", attempts=1)
    swapped = {**long, "id": "s", "response_1": long["response_2"], "response_2": long["response_1"]}
    keys = Keys(3)
    path = write_folder(tmp_path / "a", [short, long, swapped], rows_per_shard=2)
    keys.add("a", path, lambda _: None)
    assert keys.lengths[0].tolist() == [11, 5, 1]
    assert keys.text[0] is None, "too short to identify a row"
    assert keys.text[1] == keys.text[2] is not None
    assert keys.prompt[0] != keys.prompt[1] == keys.prompt[2]
    assert list(zip(keys.file, keys.number, strict=True)) == [
        ("pairs-00000.parquet", 1), ("pairs-00000.parquet", 2), ("pairs-00001.parquet", 1),
    ]  # fmt: skip
    assert (keys.kind, keys.preferred, keys.fixed) == (["k", "", ""], [1, 2, 2], [False, True, True])
    assert keys.pictures == [(0,), (0, 1), (0, 1)]
    assert keys.exact[1] == keys.exact[2] != keys.exact[0]
    assert keys.orientation[1] != keys.orientation[2]
    with pytest.raises(UserError, match="has more rows than when it was counted"):
        keys.add("a", path, lambda _: None)


def test_jsonl_and_parquet_without_optional_columns_can_be_sources(pair_file: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(Path(write_folder(tmp_path / "full", [make_row(0), make_row(1)])) / "pairs-00000.parquet")
    pq.write_table(table.drop_columns(["kind", "provenance", "reasoning"]), tmp_path / "bare.parquet")
    paths = {"digits": {"path": str(pair_file), "count": 9}, "bare": {"path": str(tmp_path / "bare.parquet")}}
    report = mix(MixConfig.model_validate({"sources": paths}), tmp_path / "out").report
    assert {name: source["taken"] for name, source in report["sources"].items()} == {"digits": 9, "bare": 2}


def write_config(folder: Path, text: str) -> Path:
    (folder / "mix.yaml").write_text(text)
    return folder / "mix.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: {a: {path: p}}\nsede: 1", "unknown key 'sede'. Did you mean 'seed'?"),
        ("sources: {a: {path: p, cuont: 3}}", "unknown key 'sources.a.cuont'. Did you mean 'count'?"),
        (
            "sources: {a: {path: p}}\nbenchmarks: [{siute: x}]",
            "unknown key 'benchmarks.0.siute'. Did you mean 'suite'?",
        ),
        ("sources: {a: {path: p}}\nnear: {zzz: 1}", "Choose from text, image_bits."),
        ("sources: {a: {count: 3}}", "'sources.a.path' is missing."),
        ("sources: {}", "sources: "),
        ("seed: 1", "'sources' is missing."),
        ("sources: {a: {path: p, count: 0}}", "sources.a.count: "),
        ("sources: {a: {path: p, count: 3, parts: {x: 2}}}", "give count or parts, not both"),
        ("sources: {a/../b: {path: p}}", "sources.a/../b: "),
        ("sources: {a: {path: p}}\ntest_share: 0.6", "test_share: "),
        ("sources: {a: {path: p}}\nshort: maybe", "short: "),
        ("sources: {a: {path: p}}\nnear: {text: 90}", "near.text: "),
        ("- a", "a config must map keys to values"),
        ("a: [", "not a valid YAML file"),
    ],
)
def test_a_wrong_config_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        load_mix(write_config(tmp_path, text))
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "mix.yaml"))


def test_the_recipe_is_the_papers_mixture() -> None:
    recipe = load_mix(Path(__file__).parents[2] / "recipes" / "data-200k.yaml")
    assert recipe.sources["mm-rlhf"].parts == {"long": 41163, "short": 46281, "mcq": 8306, "safety": 9990}
    sampled = {name: source.count for name, source in recipe.sources.items() if source.count}
    published = {"rlaif-v": 74802, "vl-feedback": 80258, "povid": 17184, "wildvision-battle": 10383}
    assert sum(sampled.values()) == 100_000
    assert all(abs(sampled[name] - 100_000 * rows / 182_627) < 1 for name, rows in published.items())
    assert {benchmark.suite for benchmark in recipe.benchmarks} == {
        "vl-rewardbench", "multimodal-rewardbench", "mm-rlhf-rewardbench",
    }  # fmt: skip
    with pytest.raises(UserError, match="no such config file"):
        load_mix("nowhere.yaml")


def test_a_source_that_is_not_there_or_unfinished_is_refused(tmp_path: Path) -> None:
    mixture = MixConfig.model_validate({"sources": {"a": {"path": str(tmp_path / "gone")}}})
    with pytest.raises(UserError, match="gone: no such file or folder"):
        mix(mixture, tmp_path / "out")
    assert os.listdir(tmp_path) == [".out.lock"]


def test_the_command_prints_a_table_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from r1_reward.cli.data_mix import mix_sources

    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.command("mix")(mix_sources)
    rows = [make_row(0), make_row(0, id="again"), make_row(2)]
    path = write_folder(tmp_path / "one", rows)
    file = write_config(tmp_path, f"sources: {{one: {{path: {path}}}}}\nout: {tmp_path / 'from-config'}")
    shown = CliRunner().invoke(app, ["--config", str(file)])
    assert shown.exit_code == 0, shown.output
    assert "exact duplicate 1" in shown.stdout
    assert "no benchmark was given" in shown.stdout
    assert (
        f"2 pairs (2 train, 0 test), 1 prefer response 1 and 1 response 2: {tmp_path / 'from-config'}" in shown.stdout
    )
    asked = CliRunner().invoke(app, ["--config", str(file), "--out", str(tmp_path / "o"), "--seed", "7", "--json"])
    report = json.loads(asked.stdout)
    assert (report["config"]["seed"], report["rows"]) == (7, 2)
    assert report == json.loads((tmp_path / "o" / "report.json").read_text())


@pytest.mark.parametrize("held", ["# Mine\n", "---\nlicense: mit\n---\n", "", "edited", "\xff"])
def test_a_readme_of_somebody_else_is_kept_when_a_mixture_is_written_again(tmp_path: Path, held: str) -> None:
    """Where it was a card of ours, it is theirs since they took out the line that says whose it is."""
    card = tmp_path / "out" / "README.md"
    mix(two_sources(tmp_path / "a"), tmp_path / "out")
    ours = card.read_bytes()
    theirs = ours.replace(MARK.encode(), b"Ours now.") if held == "edited" else held.encode("latin-1")
    assert theirs != ours
    card.write_bytes(theirs)
    mix(two_sources(tmp_path / "b", take={"two": {"count": 5}}), tmp_path / "out", overwrite=True)
    assert card.read_bytes() == theirs
    assert len(read(tmp_path / "out")) < 32
    card.write_bytes(ours)
    mix(two_sources(tmp_path / "c"), tmp_path / "out", overwrite=True)
    assert MARK in card.read_text()
    assert "# 32 preference pairs" in card.read_text()


def test_a_card_of_a_release_without_the_mark_is_replaced(tmp_path: Path) -> None:
    card = tmp_path / "out" / "README.md"
    mix(two_sources(tmp_path / "a"), tmp_path / "out")
    card.write_text("# 2 preference pairs\n\nMade by `r1-reward data mix` with seed 0;\n")
    mix(two_sources(tmp_path / "b"), tmp_path / "out", overwrite=True)
    assert MARK in card.read_text()
