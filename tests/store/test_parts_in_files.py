"""Contents as parts in files: every form survives a round trip, and problems are reported."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from r1_reward.judge.prepare import prepare
from r1_reward.records.content import ContentError, read_parts, text_of, to_parts
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS, PreferencePair
from r1_reward.store.group_files import check_groups
from r1_reward.store.identity import data_identity, media_digest, media_files, media_of
from r1_reward.store.pairs import PairFileError, load_pairs, save_pairs, validate_pairs
from r1_reward.store.part_columns import FEATURES, FEATURES_WITH_PARTS, SCHEMA, SCHEMA_WITH_PARTS
from r1_reward.store.shards import PairWriter, pair_files, read_rows


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def png(shade: int = 0) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (6, 4), (shade % 256, shade // 256, 7)).save(data, "PNG")
    return data.getvalue()


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(source: Any = None) -> dict[str, Any]:
    return {"type": "image"} if source is None else {"type": "image", "image": source}


def video(source: str) -> dict[str, Any]:
    return {"type": "video", "video": source}


def pair(number: int = 0, **changes: Any) -> dict[str, Any]:
    row = {
        "id": str(number), "question": f"Draw a cat {number}.", "response_1": [image("a.png")],
        "response_2": [text("Here: "), image("b.png")], "preferred": 1,
    }  # fmt: skip
    return {**row, **changes}


def plain(number: int = 0, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"p{number}", "question": f"What is in {number}?", "images": ["a.png"], "response_1": f"Cat {number}.",
        "response_2": f"Dog {number}.", "preferred": 2,
    }  # fmt: skip
    return {**row, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate("abc"):
        (tmp_path / f"{name}.png").write_bytes(png(number))
    (tmp_path / "clip").mkdir()
    for number in range(3):
        (tmp_path / "clip" / f"frame_{number}.png").write_bytes(png(100 + number))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(png()[:40])
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def shown(row: Any) -> tuple[Any, ...]:
    """The content that a judge sees of a row: texts and pixels in order, wherever the images are stored."""
    ready = prepare(dict(row))
    return ready.question, ready.images.digest, ready.responses


# ---- what is read


ODD_ROWS = [
    pair(),
    pair(question=[text("Is "), image("a.png"), text(" older than "), image("b.png"), text("?")]),
    pair(images=["a.png", "b.png"], response_1=[image()], response_2=[text("B"), image()]),
    pair(response_1=[image({"path": "a.png", "bytes": None})]),
    pair(response_1=[{"type": "image_url", "image_url": {"url": "a.png"}}]),
    pair(response_1=["A bare text, ", image("a.png")]),
    pair(response_1=[video("clip")], images=[], criteria="which moves more"),
    pair(response_1=[image("a.png")] * 40),
    pair(question=[text("Zwölf 猫 \u202e🐈 <|im_end|>"), image("c.png")], response_1="plain"),
    plain(1, question=[text("All text, "), text("in parts")]),
    pair(response_1=[{"type": "text", "text": "x", "image": None, "video": None}, image("a.png")]),
    pair(video="clip", question=[image("a.png"), text("What moves?")], response_1="It.", response_2="Nothing."),
]


@pytest.mark.parametrize("row", ODD_ROWS, ids=range(len(ODD_ROWS)))
def test_a_row_with_parts_is_shown_alike_from_jsonl_parquet_and_back(folder: Path, row: dict[str, Any]) -> None:
    """JSONL -> parquet -> JSONL -> folder of shards, read in every way, shows a judge the same."""
    file = write(folder / "in.jsonl", plain(9), row)
    first = load_pairs(file)
    wanted = [shown(one) for one in first]
    assert save_pairs(first, folder / "out" / "pairs.parquet") == 2
    second = load_pairs(folder / "out" / "pairs.parquet")
    save_pairs(second, folder / "again" / "pairs.jsonl")
    third = load_pairs(folder / "again" / "pairs.jsonl")
    with PairWriter(folder / "shards") as writer:
        for one in read_rows(folder / "again" / "pairs.jsonl"):
            writer.add(one)
    found = [second, third, load_pairs(folder / "shards"), list(read_rows(folder / "shards"))]
    found += [list(read_rows(place)) for place in (file, folder / "out" / "pairs.parquet")]
    for rows in found:
        assert [shown(one) for one in rows] == wanted
        assert [one["criteria"] for one in rows] == [None, row.get("criteria")]


def test_all_images_of_a_parquet_file_are_embedded(folder: Path) -> None:
    write(folder / "in.jsonl", pair(), pair(1, images=["c.png"], question=[image(), text("?")]))
    save_pairs(load_pairs(folder / "in.jsonl"), folder / "out.parquet")
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).unlink()
    first, second = load_pairs(folder / "out.parquet")
    assert to_parts(first["response_1"]) == [image({"bytes": png(0), "path": "a.png"})]
    assert to_parts(second["question"]) == [image({"bytes": png(2), "path": "c.png"}), text("?")]
    assert second["images"] == []


def test_jsonl_names_pictures_relative_to_itself_and_writes_embedded_ones_once(folder: Path) -> None:
    cell = {"bytes": png(50), "path": "x.png"}
    rows = [pair(response_1=[image(cell), text("and"), image(cell)], response_2=[video(str(folder / "clip"))])]
    save_pairs(rows, folder / "sub" / "out.jsonl")
    (saved,) = [json.loads(line) for line in (folder / "sub" / "out.jsonl").read_text().splitlines()]
    assert saved["response_2"] == [video("../clip")]
    named = [part["image"] for part in saved["response_1"] if part["type"] == "image"]
    assert len(set(named)) == 1 and named[0].startswith("out_images/") and os.path.isfile(folder / "sub" / named[0])
    assert len(os.listdir(folder / "sub" / "out_images")) == 1
    load_pairs(folder / "sub" / "out.jsonl")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_selection_of_columns_can_be_read(folder: Path, form: str) -> None:
    rows = [plain(1), pair(2, images=["a.png", "b.png"], response_1=[image()], response_2=[text("B"), image()])]
    file = write(folder / "in.jsonl", *rows)
    if form == "parquet":
        save_pairs(load_pairs(file), folder / "in.parquet")
    found = list(read_rows(folder / f"in.{form}", columns=["id", "response_2"]))
    assert [set(row) for row in found] == [{"id", "response_2"}] * 2
    assert [text_of(row["response_2"]) for row in found] == ["Dog 1.", "B[image]"]
    assert found[0]["response_2"] == "Dog 1."
    assert [row["id"] for row in read_rows(folder / f"in.{form}", columns=["id", "preferred"])] == ["p1", "2"]


def test_absolute_paths_are_read_and_written_relative(folder: Path) -> None:
    rows = [pair(response_1=[image(str(folder / "a.png"))], response_2=[video(str(folder / "clip"))])]
    found = load_pairs(write(folder / "in.jsonl", *rows))
    save_pairs(found, folder / "out.jsonl")
    saved = json.loads((folder / "out.jsonl").read_text())
    assert (saved["response_1"], saved["response_2"]) == ([image("a.png")], [video("clip")])
    gone = pair(response_1=[image(str(folder / "gone.png"))])
    with pytest.raises(PairFileError, match=r"response_1\[0\].image: .*gone.png: no such file"):
        load_pairs(write(folder / "in.jsonl", gone))


def test_the_columns_are_texts_where_no_row_has_parts(folder: Path) -> None:
    write(folder / "plain.jsonl", plain(1), plain(2, question=[text("in"), text("parts")]))
    write(folder / "parts.jsonl", plain(1), pair(2))
    assert load_pairs(folder / "plain.jsonl").features == FEATURES
    assert load_pairs(folder / "parts.jsonl").features == FEATURES_WITH_PARTS
    for name, schema in (("plain", SCHEMA), ("parts", SCHEMA_WITH_PARTS)):
        save_pairs(load_pairs(folder / f"{name}.jsonl"), folder / f"{name}.parquet")
        assert columns_of(folder / f"{name}.parquet") == datasets.Features.from_arrow_schema(schema)


def columns_of(file: Path) -> datasets.Features:
    return datasets.Features.from_arrow_schema(pq.read_schema(file))


def test_datasets_reads_what_is_written(folder: Path, tmp_path: Path) -> None:
    write(folder / "in.jsonl", plain(1), pair(2, criteria="Beauty"))
    save_pairs(load_pairs(folder / "in.jsonl"), folder / "out.parquet")
    read = datasets.load_dataset("parquet", data_files=str(folder / "out.parquet"), split="train", cache_dir=tmp_path)
    assert read[0]["question"][0]["text"] == "What is in 1?"
    assert read[1]["response_1"][0]["image"].size == (6, 4)
    assert read[1]["criteria"] == "Beauty"
    read.to_parquet(str(folder / "theirs.parquet"))
    assert [shown(row) for row in load_pairs(folder / "theirs.parquet")] == [
        shown(row) for row in load_pairs(folder / "in.jsonl")
    ]


def test_a_late_row_with_parts_changes_thousands_of_rows_of_jsonl(folder: Path) -> None:
    rows = [plain(number) for number in range(2500)]
    file = write(folder / "in.jsonl", *rows, pair(1))
    found = load_pairs(file, check_images=False)
    assert found.features == FEATURES_WITH_PARTS
    assert [text_of(content) for content in found["question"]] == [*(row["question"] for row in rows), "Draw a cat 1."]


def test_foreign_columns_are_read(folder: Path) -> None:
    """Another project's parquet: parts without unused fields, images as structs."""
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    picture = pa.struct([("type", pa.string()), ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
    table = pa.table(
        {
            "id": ["1"],
            "question": pa.array([[text("Draw.")]], pa.list_(part)),
            "response_1": pa.array([[image({"bytes": png(1), "path": None})]], pa.list_(picture)),
            "response_2": ["I cannot draw."],
            "preferred": [1],
        }
    )
    pq.write_table(table, folder / "theirs.parquet")
    (row,) = load_pairs(folder / "theirs.parquet")
    assert to_parts(row["question"]) == "Draw."
    assert to_parts(row["response_1"]) == [image({"bytes": png(1), "path": None})]
    assert [to_parts(one["response_2"]) for one in read_rows(folder / "theirs.parquet")] == ["I cannot draw."]


# ---- what is wrong


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"response_1": [image("gone.png")]}, "response_1[0].image", "gone.png: no such file"),
        ({"response_1": [text("x"), image("empty.png")]}, "response_1[1].image", "is empty (zero bytes)"),
        ({"response_1": [text("x"), text("y"), image("cut.png")]}, "response_1[2].image", "cut.png: is not an image"),
        ({"question": [image("text.png"), text("?")]}, "question[0].image", "is not an image"),
        ({"response_2": [image("clip")]}, "response_2[0].image", "is a directory"),
        ({"response_2": [video("gone.mp4")]}, "response_2[0].video", "no such file"),
        ({"response_2": [image("https://example.org/a.png")]}, "response_2[0].image", "is a URL, and images are not"),
        ({"response_2": [image("data:image/png;base64,AAAA")]}, "response_2[0].image", "is a data URI"),
        ({"response_2": [image("nul\0.png")]}, "response_2[0].image", "no such file"),
        ({"response_2": [image(" \n")]}, "response_2[0].image", "is blank"),
        ({"images": ["a.png"], "response_2": [image("")]}, "response_2[0].image", "is blank"),
        ({"response_2": [image(7)]}, "response_2", "image 1 must be a path, not a number"),
        ({"response_2": [video("")]}, "response_2", "without a video"),
        ({"response_2": [["a"]]}, "response_2", "is a list; a part is text or an object"),
        ({"response_2": [None]}, "response_2", "is null; a part is text or an object"),
        ({"response_2": [{"type": "audio", "audio": "a.wav"}]}, "response_2", "part of type audio"),
        ({"response_2": []}, "response_2", "is blank"),
        ({"response_2": [text(" "), text("\u200b")]}, "response_2", "is blank"),
        ({"response_2": {"type": "image", "image": "a.png"}}, "response_2", "must be text or a list of parts"),
        ({"response_2": [image()]}, "images", "1 image part has no source, but no images were given"),
        ({"response_2": [image()], "images": ["a.png", "b.png"]}, "images", "but 2 images were given"),
        ({"response_1": [image("a.png")], "response_2": [image("./a.png")]}, "response_2", "is the same as"),
        ({"response_1": [text("x" * 50_001), image("a.png")]}, "response_1", "has 50,001 characters"),
        ({"response_1": [text("a\0b"), image("a.png")]}, "response_1", "contains a NUL"),
        ({"question": [text("Is <image> a cat?"), image("a.png")]}, "question", "an image placeholder in a text"),
        ({"criteria": " "}, "criteria", "is blank"),
    ],
)  # fmt: skip
def test_problems_in_parts_are_reported_with_their_place(
    folder: Path, changes: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(PairFileError) as error:
        load_pairs(write(folder / "in.jsonl", plain(1), pair(2, **changes)))
    found = [(one.line, one.field) for one in error.value.problems if reason in one.reason]
    assert (2, field) in found, error.value


def test_every_bad_image_of_a_row_is_reported(folder: Path) -> None:
    bad = [image("a.png"), image("gone.png"), text("x"), image("empty.png")]
    with pytest.raises(PairFileError) as error:
        load_pairs(write(folder / "in.jsonl", pair(response_1=bad, response_2=[image("cut.png")])))
    assert [one.field for one in error.value.problems] == [
        "response_1[1].image", "response_1[3].image", "response_2[0].image",
    ]  # fmt: skip


def test_a_row_needs_an_image_somewhere(folder: Path) -> None:
    words = {"response_1": "A.", "response_2": [text("B."), text("C.")]}
    with pytest.raises(PairFileError, match="no image and no video"):
        load_pairs(write(folder / "in.jsonl", pair(**words)))
    load_pairs(write(folder / "in.jsonl", pair(**words, question=[image("a.png")])))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_repeats_and_contradictions_go_by_the_bytes_of_pictures(folder: Path, form: str) -> None:
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    first, again = pair(1), pair(2, question=first_question(), response_1=[image("copy.png")])
    other = pair(3, question=first_question(), response_1=[image("c.png")])
    turned = pair(
        4, question=first_question(), response_1=first["response_2"], response_2=[image("copy.png")], preferred=1
    )
    first["question"] = first_question()
    rows = [first, again, other, turned]
    if form == "jsonl":
        file = write(folder / "in.jsonl", *rows)
    else:
        with PairWriter(folder / "shards") as writer:
            for row in read_rows(write(folder / "in.jsonl", *rows)):
                writer.add(row)
        file = folder / "shards"
    with pytest.raises(PairFileError) as error:
        load_pairs(file)
    assert [(one.line, one.reason.split(";")[0]) for one in error.value.problems] == [
        (2, "repeats line 1"),
        (4, "contradicts line 1: the same responses in the other order, but the other response preferred"),
    ]
    assert len(load_pairs(file, repeats=True)) == 4


def first_question() -> str:
    return "Draw."


def test_other_criteria_make_another_pair_and_a_tie_contradicts(folder: Path) -> None:
    rows = [pair(0, criteria="beauty"), pair(0, criteria="likeness", preferred=2)]
    load_pairs(write(folder / "in.jsonl", *rows))
    write(folder / "in.jsonl", pair(0), pair(0, preferred=0))
    with pytest.raises(PairFileError, match="repeats line 1, with a tie in one of them"):
        load_pairs(folder / "in.jsonl", ties=True)


# ---- shards


def rows_of(folder: Path, numbers: Any, late: set[int]) -> list[dict[str, Any]]:
    raw = [pair(number) if number in late else plain(number) for number in numbers]
    return list(read_rows(write(folder / "rows.jsonl", *raw)))


def write_shards(out: Path, rows: list[dict[str, Any]], **options: Any) -> None:
    with PairWriter(out, **options) as writer:
        for row in rows:
            writer.add(row)
        writer.close({"rows": len(rows)})


@pytest.mark.parametrize("late", [set(), {0}, {4}, {5}, {9}, {3, 8}])
def test_all_shards_have_one_form_wherever_the_first_row_with_parts_is(folder: Path, late: set[int]) -> None:
    rows = rows_of(folder, range(10), late)
    write_shards(folder / "out", rows, rows_per_shard=4)
    wanted = datasets.Features.from_arrow_schema(SCHEMA_WITH_PARTS if late else SCHEMA)
    assert [columns_of(file) for file in pair_files(folder / "out")] == [wanted] * 3
    assert list(read_rows(folder / "out")) == rows
    assert sorted(os.listdir(folder / "out")) == [
        ".pairs.lock",
        "README.md",
        *(f"pairs-0000{i}.parquet" for i in range(3)),
        "report.json",
    ]
    loaded = datasets.load_dataset("parquet", data_files=str(folder / "out" / "*.parquet"), split="train")
    assert len(loaded) == 10


def test_a_shard_is_the_same_bytes_whether_it_began_with_parts_or_turned_to_them(folder: Path) -> None:
    rows = rows_of(folder, range(10), {9})
    write_shards(folder / "turned", rows, rows_per_shard=4)
    write_shards(folder / "began", [rows[9], *rows], rows_per_shard=4)
    write_shards(folder / "same", [rows[9], *rows], rows_per_shard=4)
    began = [file.read_bytes() for file in pair_files(folder / "began")]
    assert began == [file.read_bytes() for file in pair_files(folder / "same")]
    write_shards(folder / "alone", rows[:4] + [rows[9]], rows_per_shard=4)
    assert pair_files(folder / "alone")[0].read_bytes() == pair_files(folder / "turned")[0].read_bytes()


def test_shards_of_both_forms_are_read_together(folder: Path) -> None:
    rows = rows_of(folder, range(6), {1})
    write_shards(folder / "texts", [rows[0], *rows[2:]])
    write_shards(folder / "parts", rows[:2])
    (folder / "both").mkdir()
    for number, name in enumerate(("texts", "parts")):
        os.replace(pair_files(folder / name)[0], folder / "both" / f"pairs-0000{number}.parquet")
    wanted = [rows[0], *rows[2:], *rows[:2]]
    assert list(read_rows(folder / "both")) == wanted
    assert [shown(row) for row in load_pairs(folder / "both", repeats=True)] == [shown(row) for row in wanted]


def test_files_without_the_column_criteria_are_read_beside_new_ones(folder: Path) -> None:
    rows = rows_of(folder, range(4), {3})
    write_shards(folder / "out", rows, rows_per_shard=2)
    first = pair_files(folder / "out")[0]
    save_pairs(rows[:2], folder / "texts.parquet")
    pq.write_table(pq.read_table(folder / "texts.parquet").drop_columns(["criteria"]), first)  # of 0.1.0
    assert list(read_rows(folder / "out")) == rows
    assert len(load_pairs(folder / "out")) == 4
    assert load_pairs(first).features == FEATURES


_KILLED = """
import os, signal, sys
from pathlib import Path
from r1_reward.store import part_columns, shards
from r1_reward.store.shards import PairWriter, read_rows
rows = list(read_rows(sys.argv[1]))
count = int(sys.argv[3])
original = part_columns._reopened
def reopened(file):
    global count
    count -= 1
    if count < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(file)
part_columns._reopened = reopened
with PairWriter(sys.argv[2], rows_per_shard=2) as writer:
    for row in rows:
        writer.add(row)
    writer.close({"rows": len(rows)})
"""


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_kill_while_shards_are_turned_to_parts_leaves_nothing_that_looks_finished(folder: Path, after: int) -> None:
    """Killed before rewriting the current shard, or the first or second of the old ones; then run again."""
    rows = rows_of(folder, range(6), {5})
    run = [sys.executable, "-c", _KILLED, str(folder / "rows.jsonl"), str(folder / "out"), str(after)]
    assert subprocess.run(run, check=False, capture_output=True).returncode == -9
    with pytest.raises(UserError, match="incomplete"):
        list(read_rows(folder / "out"))
    with pytest.raises(UserError, match="incomplete"):
        load_pairs(folder / "out")
    write_shards(folder / "out", rows, rows_per_shard=2)
    assert list(read_rows(folder / "out")) == rows
    assert not (folder / "out" / ".writing").exists()


def test_memory_stays_flat_when_rows_turn_to_parts(tmp_path: Path) -> None:
    """Forty megabytes of images, with parts in the last row only: rewriting loads one row group at a time."""
    blob = os.urandom(100_000)

    def row(number: int) -> dict[str, Any]:
        cells = [{"bytes": blob + bytes([number % 256, number // 256]), "path": "a.png"}]
        return plain(number, images=cells)

    tracemalloc.start()
    with PairWriter(tmp_path / "out", rows_per_shard=200) as writer:
        for number in range(400):
            writer.add(row(number))
        writer.add(pair(0, response_1=[image({"bytes": blob, "path": None})], response_2="None."))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 45 << 20
    assert sum(1 for _ in read_rows(tmp_path / "out")) == 401


# ---- any contents


_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0<"), min_size=1, max_size=12)
_PART = st.one_of(_TEXTS.map(text), st.sampled_from(["a.png", "b.png", "c.png"]).map(image), st.just(video("clip")))
_CONTENT = st.one_of(
    _TEXTS.map("x{}".format), st.lists(_PART, min_size=1, max_size=5).map(lambda parts: [text("y"), *parts])
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(_CONTENT, _CONTENT, _CONTENT), min_size=1, max_size=4))
def test_any_contents_come_back(folder: Path, rows: list[tuple[Any, Any, Any]]) -> None:
    wanted = [
        {**dict(zip(CONTENTS, contents, strict=True)), "id": str(number), "images": ["a.png"], "preferred": 1}
        for number, contents in enumerate(rows)
    ]
    for row in wanted:
        row["response_2"] = (
            [text("and "), *row["response_2"]] if isinstance(row["response_2"], list) else "z" + row["response_2"]
        )
    write(folder / "any.jsonl", *wanted)
    found = load_pairs(folder / "any.jsonl", repeats=True, ties=True)
    save_pairs_without_repeats(found, folder)
    for place in (folder / "any.jsonl", folder / "any"):
        for row, one in zip(wanted, read_rows(place), strict=True):
            assert [text_of(one[name]) for name in CONTENTS] == [text_of(row[name]) for name in CONTENTS]
    assert [shown(one) for one in found] == [shown(one) for one in read_rows(folder / "any")]


def save_pairs_without_repeats(found: Any, folder: Path) -> None:
    with PairWriter(folder / "any", overwrite=True, rows_per_shard=2) as writer:
        for row in found:
            writer.add(row)


# ---- identity


def test_images_in_parts_count_in_the_identity_of_a_file(folder: Path) -> None:
    file = write(folder / "in.jsonl", pair(question=[image("c.png"), text("?")], response_2=[video("clip")]))
    assert list(media_of(file)) == [str(folder / name) for name in ("c.png", "a.png", "clip")]
    before = data_identity(file), media_digest(media_of(file))
    (folder / "a.png").write_bytes(png(77))
    assert before[0] != data_identity(file)
    assert before[1] != media_digest(media_of(file))
    between = data_identity(file)
    (folder / "clip" / "frame_1.png").write_bytes(png(78))
    assert between != data_identity(file)


def test_a_parquet_file_that_names_pictures_within_parts_is_read_for_them(folder: Path) -> None:
    part = pa.struct([("type", pa.string()), ("text", pa.string()), ("image", pa.string())])
    table = pa.table(
        {"responses": pa.array([[[image("a.png"), text("x")], [image("b.png")]]], pa.list_(pa.list_(part)))}
    )
    pq.write_table(table, folder / "groups.parquet")
    assert list(media_of(folder / "groups.parquet")) == [str(folder / "a.png"), str(folder / "b.png")]
    save_pairs(load_pairs(write(folder / "in.jsonl", pair(response_2=[video("clip")]))), folder / "out.parquet")
    assert list(media_of(folder / "out.parquet")) == [str(folder / "clip")]


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"responses": [[image("a"), text("x")], "text", [video("b")]], "images": ["c"], "video": "d"}, "cdab"),
        ({"question": [image({"bytes": b"x", "path": "a"})], "response_1": [image({"path": "b"})]}, "b"),
        ({"question": [["nested"]], "response_1": [None, image("a")], "response_2": 7, "responses": "ab"}, "a"),
        ({"images": "abc", "question": [image()]}, ""),
    ],
)
def test_media_files_of_a_row(row: dict[str, Any], names: str) -> None:
    assert list(media_files(row, "")) == list(names)


def test_a_record_is_saved_with_its_parts(folder: Path) -> None:
    record = PreferencePair(**pair(images=["a.png"], response_1=[image()]))
    save_pairs([record], folder / "out.jsonl")
    (row,) = load_pairs(folder / "out.jsonl")
    assert to_parts(row["response_1"]) == [image({"bytes": None, "path": str(folder / "a.png")})]


# ---- places filled from the images of the row


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"response_1": [image()], "response_2": [image()]}, []),
        ({"question": [image(), text("?")], "images": ["b.png", "a.png", "b.png"], "response_1": [image()],
          "response_2": [image()]}, []),
        ({"response_1": [text("so "), image()], "response_2": [text("so "), image()]}, []),
        ({"images": ["a.png", "a.png"], "response_1": [image()], "response_2": [image()]},
         [("response_2", "is the same as response_1")]),
        ({"images": ["a.png"], "response_1": [image()], "response_2": [image()]},
         [("images", "2 image parts have no source, but 1 image was given")]),
        ({"question": "<image> or?", "images": ["a.png"], "response_1": [image()]},
         [("question", "has a placeholder for 1 image (<image>), but none was given")]),
        ({"question": "<image> or?", "images": ["a.png"], "response_1": [image("b.png")]}, []),
    ],
)  # fmt: skip
def test_a_row_is_checked_with_its_images_filled_in(folder: Path, changes: dict, said: list) -> None:
    row = pair(**{"images": ["a.png", "b.png"], "response_2": "None.", **changes})
    (folder / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    assert [(one.field, one.reason) for one in validate_pairs(folder / "pairs.jsonl")] == said


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "text", "text": "x", "image": "a.png"}, "of type text that also has image"),
        ({"type": "text", "text": "", "image": {"path": "a.png"}}, "of type text that also has image"),
        ({"type": "image", "image": "a.png", "text": "A cat."}, "of type image that also has text"),
        ({"image": "a.png", "text": "A cat."}, "of type image that also has text"),
        ({"type": "image", "image": "a.png", "video": "b"}, "of type image that also has video"),
        ({"type": "video", "video": "b", "image_url": {"url": "a.png"}}, "of type video that also has image_url"),
        ({"type": "image", "image": "a.png", "text": " ", "video": None}, None),
        ({"type": "text", "text": "x", "image": None, "video": "", "image_url": None}, None),
    ],
)
def test_nothing_of_a_part_is_lost_silently(part: dict, said: str | None) -> None:
    if said is None:
        assert read_parts([part])
        return
    with pytest.raises(ContentError, match=said):
        read_parts(["before", part])


@pytest.mark.parametrize(("length", "problems"), [(50_000, []), (50_001, ["criteria"]), (200_000, ["criteria"])])
def test_criteria_have_a_maximum_length(folder: Path, length: int, problems: list[str]) -> None:
    (folder / "pairs.jsonl").write_text(json.dumps(pair(criteria="x" * length)) + "\n")
    assert [one.field for one in validate_pairs(folder / "pairs.jsonl")] == problems


@pytest.mark.parametrize("label", [False, 0.0, "0"])
def test_an_invalid_label_is_not_called_a_tie(folder: Path, label: Any) -> None:
    (folder / "pairs.jsonl").write_text(json.dumps(pair(preferred=label)) + "\n")
    (problem,) = validate_pairs(folder / "pairs.jsonl")
    assert problem.reason.startswith("must be 1 or 2 (or 0 for a tie), not")


@pytest.mark.parametrize(
    ("question", "wrong"), [("<image> or?", True), ([image(), text("?")], True), ("Which?", False)]
)
def test_a_group_is_checked_with_its_images_filled_in(folder: Path, question: Any, wrong: bool) -> None:
    group = {"id": "1", "question": question, "images": ["a.png", "b.png"], "responses": [[image()], [image()]]}
    (folder / "groups.jsonl").write_text(json.dumps(group) + "\n")
    if not wrong:
        assert check_groups(folder / "groups.jsonl").responses == 2
        return
    with pytest.raises(PairFileError, match="placeholder for 1 image|3 image parts have no source, but 2 images were"):
        check_groups(folder / "groups.jsonl")
