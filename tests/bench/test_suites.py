"""Every format of every benchmark gives the same rows; all problems are reported before anything is judged.

Files of official size are generated here with the official schemas; no row of a benchmark is in this repository.
"""

import hashlib
import json
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_files import mr2_bench, reward_bench_2, video_reward_bench
from official_rows import (
    Row,
    hub_row,
    mm_official,
    mm_row,
    mrb_official,
    mrb_row,
    png,
    problems,
    told,
    vl_official,
    vl_row,
    write,
    write_parquet,
)

from r1_reward.bench.benchmarks import find_benchmark
from r1_reward.bench.readers import row_images
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.records.checks import PairFileError
from r1_reward.records.errors import UserError
from r1_reward.records.texts import visible


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png())
    return tmp_path


# ---- official sizes


def test_vl_rewardbench_of_1250_rows(folder: Path) -> None:
    suite = load_suite("vl-rewardbench", write(folder / "data.jsonl", vl_official()))
    assert suite.n == 1250 and suite.notes == [] and suite.issues == {}
    assert suite.size is not None and suite.size.label == "release of 2024 (1,250 rows)"
    rows = list(suite.rows())
    assert [row.index for row in rows] == list(range(1250))
    assert Counter(row.category for row in rows) == {"general": 183, "hallucination": 749, "reasoning": 318}
    assert Counter(row.paper_category for row in rows) == {"general": 484, "hallucination": 448, "reasoning": 318}
    assert len({row.key for row in rows}) == 1250


def test_vl_rewardbench_of_1247_rows_as_the_hub_has_it(folder: Path) -> None:
    rows = [hub_row(row, turned=i % 3 == 0) for i, row in enumerate(vl_official()[3:])]
    file = write_parquet(folder / "test-0.parquet", rows, "image", lambda row: f"{row['id']}.png")
    suite = load_suite("vl-rewardbench", file)
    assert suite.n == 1247 and suite.size is not None and suite.size.label.startswith("Hub since May 2025")
    first = next(suite.rows())
    assert first.preferred == 2
    assert first.images == ({"bytes": png(), "path": "hallucination_pair-3.png"},)
    assert row_images(first)[0].getpixel((0, 0)) == (9, 9, 9)


def test_multimodal_rewardbench_of_4711_and_5211_rows(folder: Path) -> None:
    rows = mrb_official()
    (folder / "all_data.json").write_text(json.dumps(rows, indent=2))
    suite = load_suite("multimodal-rewardbench", folder / "all_data.json")
    assert suite.n == 4711 and suite.size is not None and suite.size.rows == 4711
    assert Counter(row.category for row in suite.rows())["safety/bias"] == 508
    assert len(suite.issues) == 221 + 265
    assert set(suite.issues.values()) == {
        "VisIT rows: question and responses may not belong together (multimodal_rewardbench issue 8)"
    }
    rows += [mrb_row(number, f"hateful_{number}", "safety") for number in range(5000, 5500)]
    suite = load_suite("multimodal-rewardbench", write(folder / "paper.jsonl", rows))
    assert suite.size is not None and suite.size.rows == 5211
    assert Counter(row.category for row in suite.rows())["safety/toxicity"] == 500


def test_mm_rlhf_rewardbench_of_170_pairs(folder: Path) -> None:
    rows = mm_official(folder)
    suite = load_suite("mm-rlhf-rewardbench", write(folder / "mm_reward_bench.jsonl", rows))
    assert suite.n == 170 and suite.size is not None and suite.size.label == "170 pairs of 46 ids"
    assert len({row.id for row in suite.rows()}) == 46
    assert len({row.key for row in suite.rows()}) == 170
    video = [row for row in suite.rows() if row.video is not None]
    assert len(video) == 25 and all(row.category == "video" and row.images == () for row in video)
    assert len(row_images(video[0])) == 1


def test_wrong_counts_are_an_error_or_a_note(folder: Path) -> None:
    rows = vl_official()
    file = write(folder / "data.jsonl", rows[7:])
    message = told("vl-rewardbench", file)
    assert "VL-RewardBench has 1,250 or 1,247 rows, but 1,243 were found" in message
    assert str(file) in message and "--allow-partial" in message
    suite = load_suite("vl-rewardbench", file, allow_partial=True)
    assert suite.n == 1243 and suite.size is None
    (note,) = suite.notes
    assert "1,243 were found" in note and "--allow-partial" not in note

    # As many rows as there should be, in the wrong categories.
    rows[0] = vl_row(0)
    message = told("vl-rewardbench", write(file, rows))
    assert "general: 183 expected, 184 found; hallucination: 749 expected, 748 found" in message
    assert "reasoning" not in message
    assert load_suite("vl-rewardbench", file, allow_partial=True).size is None

    rows = mm_official(folder)
    rows[1]["id"] = "another"  # 170 pairs, but 47 ids
    message = told("mm-rlhf-rewardbench", write(folder / "mm.jsonl", rows))
    assert "mcq ids: 10 expected, 11 found" in message

    message = told("multimodal-rewardbench", write(folder / "mrb.jsonl", mrb_official()[1:]))
    assert "4,711 or 5,211 rows, but 4,710 were found" in message
    assert "open_generation/correctness_task: 623 expected, 622 found" in message


# ---- formats


def test_formats_of_vl_rewardbench_give_equal_rows(folder: Path) -> None:
    """Released JSONL, UnifiedReward's JSON, and either order of the two responses."""
    released = [vl_row(1), vl_row(2, "RLAIF-V-2")]
    files = [
        write(folder / "data.jsonl", released),
        write(folder / "hub.jsonl", [hub_row(row) for row in released]),
        write(folder / "turned.jsonl", [hub_row(row, turned=True) for row in released]),
        folder / "unified.json",
    ]
    files[3].write_text(json.dumps([hub_row(row, query="<image>\n" + row["prompt"]) for row in released], indent=1))
    loaded = [load_suite("vl-rewardbench", file, allow_partial=True) for file in files]
    assert len({suite.fingerprint for suite in loaded}) == 1
    first, second, turned, unified = (list(suite.rows()) for suite in loaded)
    assert first == second == unified
    assert first[1].question == "Question 2?" and first[1].category == "hallucination"
    assert (first[1].response_1, first[1].response_2, first[1].preferred) == ("Right 2.", "Wrong 2.", 1)
    assert (turned[1].response_1, turned[1].response_2, turned[1].preferred) == ("Wrong 2.", "Right 2.", 2)
    assert first[1].images == ({"bytes": None, "path": str(folder / "a.png")},)


def test_only_the_literal_image_token_at_the_start_is_removed(folder: Path) -> None:
    queries = ["<image>\nHow many?", "Is <image>\n it?", "<image> How?", "What is in <image 2>?"]
    file = write(folder / "a.jsonl", [hub_row(vl_row(i), query=query) for i, query in enumerate(queries)])
    rows = load_suite("vl-rewardbench", file, allow_partial=True).rows()
    assert [row.question for row in rows] == ["How many?", *queries[1:]]


def test_content_hash_matches_its_docstring(folder: Path) -> None:
    file = write(folder / "a.jsonl", [hub_row(vl_row(1), turned=True)])
    (row,) = load_suite("vl-rewardbench", file, allow_partial=True).rows()
    text = '["Question 1?", "Right 1.", "Wrong 1.", ["a.png"]]'
    assert row.content_hash == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert row.key == f"0-{row.content_hash}"


def test_content_hash_of_embedded_images_is_that_of_their_bytes(folder: Path) -> None:
    rows = [hub_row(vl_row(1))]
    hashes = set()
    for name in ("one.png", "two.png", None):
        file = write_parquet(folder / f"{name}.parquet", rows, "image", lambda _, name=name: name)
        hashes |= {row.content_hash for row in load_suite("vl-rewardbench", file, allow_partial=True).rows()}
    assert len(hashes) == 1


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(visible)] * 3), st.booleans())
def test_hash_changes_with_text_and_label_and_not_with_order(
    tmp_path_factory: pytest.TempPathFactory, texts: tuple[str, str, str], turned: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "hash.jsonl"

    def hash_of(row: Row) -> str:
        write(file, [row])
        options = {"allow_partial": True, "check_media": False}
        return next(load_suite("multimodal-rewardbench", file, **options).rows()).content_hash

    question, first, second = texts
    row = mrb_row(1, Text=question, Output1=first, Output2=second, Better="Output1")
    turned_row = {**row, "Output1": second, "Output2": first}
    assert hash_of(row) == hash_of({**turned_row, "Better": "Output2"})
    if first != second:
        assert hash_of(row) != hash_of(turned_row)
    assert hash_of(row) != hash_of({**row, "Text": question + "!"})
    assert hash_of(row) != hash_of({**row, "Image": "b.png"})
    assert hash_of(row) == hash_of({**row, "ID": "MMBench_other"})


def test_formats_of_multimodal_rewardbench(folder: Path) -> None:
    rows = [mrb_row(1), mrb_row(2, "PAIRS_2", "safety")]
    (folder / "all_data.json").write_text(json.dumps(rows))
    lines = write(folder / "all.jsonl", rows)
    first, second = (
        list(load_suite("multimodal-rewardbench", file, allow_partial=True).rows())
        for file in (folder / "all_data.json", lines)
    )
    assert first == second
    assert [(row.preferred, row.category) for row in first] == [(2, "vqa"), (1, "safety/bias")]
    assert first[0].paper_category is None
    file = write_parquet(folder / "test.parquet", rows, "Image", lambda row: "a.png")
    (embedded, _) = load_suite("multimodal-rewardbench", file, allow_partial=True).rows()
    assert (embedded.question, embedded.preferred, embedded.images[0]["bytes"]) == ("Question 1?", 2, png())


def test_parquet_of_mm_rlhf_rewardbench_needs_the_paths_of_images(folder: Path) -> None:
    rows = [mm_row(1, image="x", video=None), mm_row(2)]
    file = write_parquet(folder / "train.parquet", rows, "image", lambda row: "short/a.png")
    loaded = list(load_suite("mm-rlhf-rewardbench", file, allow_partial=True).rows())
    assert [row.category for row in loaded] == ["short", "short"]
    for path, reason in ((None, "embedded without its path"), ("a.png", "contains no category")):
        file = write_parquet(folder / "train.parquet", rows[:1], "image", lambda _, path=path: path)
        assert reason in told("mm-rlhf-rewardbench", file)


def test_null_parquet_columns_are_missing(folder: Path) -> None:
    (folder / "video" / "v").mkdir(parents=True)
    (folder / "video" / "v" / "1.png").write_bytes(png())
    rows = [
        {**mm_row(1), "image": {"bytes": png(), "path": "mcq/1.png"}, "video": None},
        {**mm_row(2), "image": None, "video": "video/v"},
        {**mm_row(3), "image": {"bytes": None, "path": None}, "video": "video/v"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    loaded = list(load_suite("mm-rlhf-rewardbench", folder / "train.parquet", allow_partial=True).rows())
    assert [row.category for row in loaded] == ["mcq", "video", "video"]


def test_images_are_relative_to_the_file_or_to_the_image_root(folder: Path, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    file = write(elsewhere / "data.jsonl", [vl_row(1)])
    message = told("vl-rewardbench", file)
    assert f"line 1, image: {elsewhere / 'a.png'}: no such file" in message
    assert f"relative to {elsewhere}; choose another folder with --image-root" in message
    moved = load_suite("vl-rewardbench", file, image_root=folder, allow_partial=True)
    assert next(moved.rows()).images[0]["path"] == str(folder / "a.png")
    unchecked = load_suite("vl-rewardbench", file, check_media=False, allow_partial=True)
    assert unchecked.fingerprint == moved.fingerprint
    assert any("not checked" in note for note in unchecked.notes)
    absolute = write(elsewhere / "abs.jsonl", [vl_row(1, image=str(folder / "a.png"))])
    assert load_suite("vl-rewardbench", absolute, allow_partial=True).n == 1


def test_pair_files(folder: Path) -> None:
    (folder / "v").mkdir()
    (folder / "v" / "1.png").write_bytes(png())
    base = {"question": "What?", "response_1": "A", "preferred": 2}
    rows = [
        {**base, "id": "0", "images": ["a.png", "v/1.png"], "response_2": "B", "kind": "count", "source": "s"},
        {**base, "id": "1", "images": ["a.png"], "response_2": "C", "source": "s"},
        {**base, "id": "2", "images": [], "video": "v", "response_2": "D"},
    ]
    suite = load_suite("pairs", write(folder / "pairs.jsonl", rows))
    assert suite.size is None and suite.notes == [] and suite.n == 3
    loaded = list(suite.rows())
    assert [row.category for row in loaded] == ["count", "s", "all"]
    assert [len(row_images(row)) for row in loaded] == [2, 1, 1]
    text = '["What?", "B", "A", ["a.png", "v/1.png"]]'  # paths as in the file, wherever it lies
    assert loaded[0].content_hash == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert list(suite.rows()) == loaded

    from r1_reward.store.pairs import save_pairs

    save_pairs([{**rows[1]}], folder / "pairs.parquet", image_root=folder)
    (row,) = load_suite("pairs", folder / "pairs.parquet").rows()
    assert row.images[0]["bytes"] == png() and row.preferred == 2

    with pytest.raises(PairFileError, match="response_2"):
        load_suite("pairs", write(folder / "bad.jsonl", [{**rows[1], "response_2": ""}]))
    assert problems("pairs", write(folder / "gone.jsonl", [{**rows[1], "images": ["b.png"]}])) == [
        ("row 1", "images", f"{folder / 'b.png'}: no such file")
    ]
    (folder / "clip.mp4").touch()
    ((_, field, reason),) = problems("pairs", write(folder / "clip.jsonl", [{**rows[2], "video": "clip.mp4"}]))
    assert field == "video" and "is empty" in reason
    assert "not on the Hub; pass a file" in told("pairs", None)  # type: ignore[arg-type]
    assert "image root does not apply" in told("pairs", folder / "pairs.jsonl", image_root=folder)
    assert "a revision does not apply" in told("pairs", folder / "pairs.jsonl", revision="abc")


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, **options: Any) -> datasets.Dataset:
        asked.append((name, options["split"], options["revision"]))
        features = datasets.Features(
            {
                "id": datasets.Value("string"), "query": datasets.Value("string"), "image": datasets.Image(),
                "response": datasets.List(datasets.Value("string")),
                "human_ranking": datasets.List(datasets.Value("int64")),
            }
        )  # fmt: skip
        rows = [hub_row(row, image={"bytes": png(), "path": None}) for row in vl_official()]
        return datasets.Dataset.from_list([{name: row[name] for name in features} for row in rows], features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    suite = load_suite("vl-rewardbench", revision="abc")
    assert asked == [("MMInstruction/VL-RewardBench", "test", "abc")]
    assert suite.describe() == {
        "suite": "vl-rewardbench", "source": "MMInstruction/VL-RewardBench", "revision": "abc", "n": 1250,
        "size": "release of 2024 (1,250 rows)", "fingerprint": suite.fingerprint,
    }  # fmt: skip
    assert suite.notes == ["Revision abc of MMInstruction/VL-RewardBench."]
    assert next(suite.rows()).images == ({"bytes": png(), "path": None},)
    assert find_benchmark("mm-rlhf-rewardbench").hub_split == "train"


def test_unreachable_hub() -> None:
    message = told("multimodal-rewardbench", None)  # type: ignore[arg-type]
    assert "syhuggingface/multimodal_rewardbench" in message and "give the path of a downloaded copy" in message


# ---- streaming


def test_rows_are_lazy_and_memory_does_not_grow_with_them(folder: Path) -> None:
    """5,000 rows of 4 kB are 20 MB."""
    file = folder / "long.jsonl"
    with open(file, "w") as out:
        for number in range(5000):
            out.write(json.dumps(vl_row(number, rejected=f"{number} " * 800)) + "\n")
    load_suite("vl-rewardbench", write(folder / "a.jsonl", [vl_row(1)]), allow_partial=True)  # imports
    tracemalloc.start()
    try:
        suite = load_suite("vl-rewardbench", file, allow_partial=True)
        count = sum(1 for _ in suite.rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5000
    assert peak < 2_000_000
    # The second row is not read before it is requested.
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"no JSON\n")
    assert [row.index for row in islice(suite.rows(), 1)] == [0]
    with pytest.raises(SuiteFileError, match="line 2: is not JSON"):
        list(suite.rows())


# ---- a few rows for a trial


def test_a_limit_selects_rows_evenly_and_says_so(folder: Path) -> None:
    file = write(folder / "data.jsonl", vl_official())
    whole, part = load_suite("vl-rewardbench", file), load_suite("vl-rewardbench", file, limit=4)
    assert [row.index for row in part.rows()] == [0, 312, 625, 937]
    assert [row.key for row in part.rows()] == [row.key for row in whole.rows() if row.index in (0, 312, 625, 937)]
    assert (part.n, part.units, part.size, part.limit) == (4, 4, None, 4)
    assert part.notes == ["Only 4 of 1,250 rows, evenly spaced: not the benchmark's score."]
    assert (part.fingerprint, part.describe()["n"], part.describe()["size"]) == (whole.fingerprint, 4, None)
    assert load_suite("vl-rewardbench", file, limit=1250).size == whole.size
    with pytest.raises(UserError, match="limit: must be at least 1 row, not 0"):
        whole.limited(0)


def test_rows_that_are_scored_together_are_selected_together(folder: Path) -> None:
    mm = load_suite("mm-rlhf-rewardbench", write(folder / "mm.jsonl", mm_official(folder)))
    ids = list(dict.fromkeys(row.id for row in mm.rows()))
    part = mm.limited(3)
    chosen = [row for row in mm.rows() if row.id in {ids[0], ids[len(ids) // 3], ids[2 * len(ids) // 3]}]
    assert [row.key for row in part.rows()] == [row.key for row in chosen]
    assert (part.n, part.units) == (len(chosen), len(chosen))
    assert part.notes[0].startswith(f"Only 3 of 46 ids ({len(chosen)} of 170 pairs), evenly spaced")


def test_a_limit_of_groups_keeps_them_whole(tmp_path: Path) -> None:
    mr2_bench(tmp_path, rows=5)
    (tmp_path / "video.json").unlink()
    whole = load_suite("mr2bench", tmp_path, allow_partial=True)
    part = whole.limited(2)
    ids = list(dict.fromkeys(row.id for row in whole.rows()))
    assert [row.key for row in part.rows()] == [row.key for row in whole.rows() if row.id in {ids[0], ids[2]}]
    assert part.units == 2
    assert part.notes[0].startswith(f"Only 2 of 5 groups ({part.n:,} of {whole.n:,} pairs)")
    assert sum("pairwise comparisons" in note for note in whole.notes) == 1
    assert not any("pairwise comparisons" in note for note in part.notes)


def test_ties_prompts_that_are_scored_together_are_selected_together(tmp_path: Path) -> None:
    part = load_suite("rewardbench-2", reward_bench_2(tmp_path) / "data", limit=300)
    ties = {row.id.partition(":")[2] for row in part.rows() if row.category == "Ties"}
    chosen = {row.id for row in part.rows()}
    assert ties and all({f"ref:{number}", f"tied:{number}"} <= chosen for number in ties)
    assert part.units == len({(row.category, row.id) for row in part.rows()})


def test_ties_outside_of_a_limit_do_not_count(folder: Path) -> None:
    same: Row = {"question": "q?", "images": ["a.png"], "response_1": "a"}
    rows = [{**same, "id": str(i), "response_2": f"b {i}", "preferred": i % 2} for i in range(6)]
    whole = load_suite("pairs", write(folder / "pairs.jsonl", rows))
    assert (whole.ties, whole.limited(3).ties) == (3, 3)
    assert whole.limited(2).ties == 1


@pytest.mark.parametrize(("name", "gone"), [("videorewardbench", "video"), ("videorewardbench", "question")])
def test_a_column_with_another_name_can_be_mapped(tmp_path, name, gone):
    video_reward_bench(tmp_path, rows=2)
    file = tmp_path / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    called = [{"theirs" if key == gone else key: value for key, value in row.items()} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in called))
    with pytest.raises(SuiteFileError) as caught:
        load_suite(name, file, allow_partial=True)
    hint = str(caught.value).splitlines()[-1]
    there = ", ".join(sorted(called[0]))
    assert hint == f"If {gone!r} has another name in the file, pass --columns {gone}=NAME; its fields are {there}."
    assert load_suite(name, file, allow_partial=True, columns={gone: "theirs"}).n == 10


@pytest.mark.parametrize("gone", ["prompt", "responses", "rankings"])
def test_a_column_of_groups_with_another_name_can_be_mapped(tmp_path, gone):
    mr2_bench(tmp_path, rows=2)
    (tmp_path / "video.json").unlink()
    file = tmp_path / "image.json"
    rows = [
        {"theirs" if key == gone else key: value for key, value in row.items()} for row in json.loads(file.read_text())
    ]
    file.write_text(json.dumps(rows))
    with pytest.raises(SuiteFileError, match=f"pass --columns {gone}=NAME"):
        load_suite("mr2bench", tmp_path, allow_partial=True)
    assert load_suite("mr2bench", tmp_path, allow_partial=True, columns={gone: "theirs"}).units == 2


def test_a_blank_cell_of_a_known_column_suggests_no_mapping(tmp_path):
    video_reward_bench(tmp_path, rows=2)
    file = tmp_path / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row | {"question": ""}) + "\n" for row in rows))
    with pytest.raises(SuiteFileError) as caught:
        load_suite("videorewardbench", file, allow_partial=True)
    assert "--columns" not in str(caught.value)
