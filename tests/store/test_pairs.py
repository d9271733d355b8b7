"""Pair files: all problems are found at once, and valid rows survive a round trip."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from video_files import greys, number_of, write_film, write_frames

from r1_reward.records.errors import UserError
from r1_reward.records.schema import PreferencePair
from r1_reward.store import checker
from r1_reward.store.pairs import (
    FEATURES,
    MAX_RESPONSE_CHARS,
    PairFileError,
    Problem,
    load_pairs,
    row_pictures,
    save_pairs,
    validate_pairs,
)
from r1_reward.store.video import open_video


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def make_image(folder: Path, name: str, colour: tuple[int, int, int] = (200, 0, 0)) -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), colour).save(file)
    return name


def make_row(number: int, image: str = "a.png", **changes: Any) -> dict[str, Any]:
    row = {
        "id": str(number), "question": f"What is in picture {number}?", "images": [image], "source": "test",
        "response_1": f"Cat {number}.", "response_2": f"Dog {number}.", "preferred": 1 + number % 2,
    }  # fmt: skip
    return {**row, **changes}


def write_rows(file: Path, rows: list[Any], **options: Any) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", **options)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_image(tmp_path, "a.png")
    return tmp_path


def content(dataset: datasets.Dataset) -> list[Any]:
    """Rows with the pixels instead of their paths."""
    rows = []
    for row in dataset:
        pixels = [(image.size, image.tobytes()) for image in row_pictures(row)]
        rows.append({**row, "images": pixels})
    return rows


# ---- what is right


def test_columns_are_canonical_and_images_stay_undecoded(folder: Path) -> None:
    row = make_row(1, reasoning="<think>x</think><answer>2</answer>", attempts=2)
    dataset = load_pairs(write_rows(folder / "pairs.jsonl", [row]))
    assert dataset.features == FEATURES
    assert dataset.column_names == list(PreferencePair.model_fields)
    cell = {"bytes": None, "path": str(folder / "a.png")}
    assert dataset[0] == {**row, "images": [cell], "video": None, "criteria": None, "kind": "", "provenance": ""}
    assert row_pictures(dataset[0])[0].getpixel((0, 0)) == (200, 0, 0)


def test_bom_crlf_and_blank_lines_are_tolerated_and_line_numbers_stay_right(folder: Path) -> None:
    lines = [json.dumps(make_row(1)), "", "   ", json.dumps(make_row(2)), json.dumps(make_row(3, preferred=3)), ""]
    file = folder / "pairs.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert validate_pairs(file) == [Problem(str(file), 5, "preferred", "must be 1 or 2 (or 0 for a tie), not 3")]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines[:4]).encode())
    assert load_pairs(file)["id"][:] == ["1", "2"]


def test_paths_may_be_absolute_or_lead_upwards(folder: Path) -> None:
    (folder / "sub").mkdir()
    rows = [make_row(1, str(folder / "a.png")), make_row(2, "../a.png")]
    dataset = load_pairs(write_rows(folder / "sub" / "pairs.jsonl", rows))
    assert [row["images"][0]["path"] for row in dataset] == [str(folder / "a.png")] * 2


def test_paths_do_not_depend_on_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(folder / "pairs.jsonl", [make_row(1)])
    monkeypatch.chdir(folder)
    dataset = load_pairs("pairs.jsonl")
    monkeypatch.chdir("/")
    assert len(row_pictures(dataset[0])) == 1


def test_a_row_may_have_a_video_instead_of_images(folder: Path) -> None:
    write_film(folder / "clip.mp4", greys(5))
    row = make_row(1, video="clip.mp4")
    del row["images"]
    dataset = load_pairs(write_rows(folder / "pairs.jsonl", [row]))
    assert dataset[0]["video"] == str(folder / "clip.mp4")
    assert dataset[0]["images"] == []
    (folder / "copy").mkdir()
    for name in ("pairs.jsonl", "pairs.parquet"):
        save_pairs(dataset, folder / "copy" / name)
        again = load_pairs(folder / "copy" / name)
        assert again[0]["video"] == str(folder / "clip.mp4")
        assert [number_of(frame) for frame in row_pictures(again[0], 3)] == [0, 2, 4]


def test_every_video_is_checked_once_by_the_frames_that_are_shown(folder: Path, monkeypatch) -> None:
    write_film(folder / "clip.mp4", greys(5))
    write_frames(folder / "frames", greys(5))
    (folder / "frames" / "1.png").write_bytes(b"no picture")
    rows = [make_row(1, video="clip.mp4"), make_row(2, video="frames"), make_row(3, video="frames", question="x?")]
    write_rows(folder / "pairs.jsonl", rows)
    opened = []
    monkeypatch.setattr(checker, "open_video", lambda path, *a, **k: opened.append(path) or open_video(path, *a, **k))
    found = [(problem.line, problem.field, problem.reason) for problem in validate_pairs(folder / "pairs.jsonl")]
    reason = f"{folder / 'frames' / '1.png'}: is not an image, or not in a supported format"
    assert found == [(2, "video", reason), (3, "video", reason)]
    assert opened == [str(folder / "clip.mp4"), str(folder / "frames")]
    assert validate_pairs(folder / "pairs.jsonl", video_frames=2) == []


def test_ids_may_repeat(folder: Path) -> None:
    assert validate_pairs(write_rows(folder / "pairs.jsonl", [make_row(1), make_row(2, id="1")])) == []


# ---- what is wrong


def broken_rows() -> list[tuple[Any, list[tuple[str, str]]]]:
    """Each line of a terrible file, with the field and a part of the reason of each expected problem."""
    no_response = make_row(5)
    del no_response["response_2"]
    unknown = make_row(4)
    unknown["respnse_1"] = unknown.pop("response_1")
    text_only = make_row(15)
    del text_only["images"]
    return [
        (make_row(1), []),
        ('{"id": "2", "question"', [("", "is not JSON: Expecting ':' delimiter at column 23")]),
        (["a", "list"], [("", "is a list, not an object")]),
        (unknown, [("response_1", "is missing"), ("respnse_1", "did you mean response_1?")]),
        (no_response, [("response_2", "is missing")]),
        (make_row(6, id=6), [("id", "must be text, not a number")]),
        (make_row(7, images="a.png"), [("images", "must be a list, not text")]),
        (make_row(8, images=[None]), [("images[0]", "must be text, not null")]),
        (make_row(9, "gone.png"), [("images[0]", "gone.png: no such file")]),
        (make_row(10, images=["a.png", "text.png"]), [("images[1]", "text.png: is not an image")]),
        (make_row(11, response_1=" \n\t"), [("response_1", "is blank")]),
        (make_row(12, response_1="Same. ", response_2="\nSame."), [("response_2", "is the same as response_1")]),
        (make_row(13, preferred=0), [("preferred", "is a tie (0), but the prompt asks for a winner")]),
        (make_row(14, preferred=True), [("preferred", "must be 1 or 2 (or 0 for a tie), not True")]),
        (text_only, [("images", "no image and no video")]),
        (make_row(16, images=[]), [("images", "no image and no video")]),
        (make_row(1, id="17"), [("", "repeats line 1")]),
        (make_row(1, id="18", preferred=1), [("", "repeats line 1, with the other response preferred")]),
        (make_row(19, response_2="x" * 100_000), [("response_2", "has 100,000 characters; at most 50,000")]),
        (make_row(20, question="\ud800"), [("question", "lone surrogate")]),
        (make_row(21, response_1="a\0b"), [("response_1", "NUL")]),
        (make_row(22, attempts=0), [("attempts", "must be 1 or more, not 0")]),
        (make_row(23, attempts="2"), [("attempts", "must be a whole number, not '2'")]),
        (make_row(24, images=[], video="gone.mp4"), [("video", "gone.mp4: no such file")]),
        (make_row(25, preferred=1.0), [("preferred", "must be 1 or 2 (or 0 for a tie), not 1.0")]),
        (make_row(26, zzz=1), [("zzz", "is not one of id, question, images")]),
        ('{"id": "27", "id": "28"}', [("", "field 'id' occurs twice")]),
        ("[" * 100_000, [("", "is not usable JSON")]),
        (make_row(29, "nul\0.png"), [("images[0]", "")]),
        (make_row(30, question="", preferred=3), [("question", "is blank"), ("preferred", "must be 1 or 2")]),
        (make_row(31, source=None), [("source", "must be text, not null")]),
        ({**make_row(32), "\ud801": 1}, [("", "lone surrogate")]),
        (make_row(33, id="\udc00", kind="\udc00"), [("id", "lone surrogate"), ("kind", "lone surrogate")]),
    ]  # fmt: skip


@pytest.fixture
def terrible(folder: Path) -> Path:
    (folder / "text.png").write_text("not a picture")
    rows = [row for row, _ in broken_rows()]
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    file = folder / "terrible.jsonl"
    file.write_bytes(text.encode() + b'{"id": "34", "question": "caf\xe9"}\n')
    return file


def test_every_problem_is_reported_at_once_with_its_line(terrible: Path) -> None:
    problems = validate_pairs(terrible)
    for line, (_, expected) in enumerate(broken_rows(), 1):
        found = [(problem.field, problem.reason) for problem in problems if problem.line == line]
        assert sorted(field for field, _ in found) == sorted(field for field, _ in expected), (line, found)
        for field, part in expected:
            assert any(part in reason for name, reason in found if name == field), (line, part, found)
    last = len(broken_rows()) + 1
    offset = terrible.read_bytes().index(b"\xe9")
    assert problems[-1] == Problem(
        str(terrible), last, "", f"is not UTF-8 text (byte 0xe9 at offset {offset} of the file)"
    )
    assert {problem.file for problem in problems} == {str(terrible)}
    assert "".join(map(str, problems)).encode()  # printable, lone surrogates and all


def pair(red: str, blue: str, preferred: int, **changes: Any) -> dict[str, Any]:
    return make_row(1, response_1=red, response_2=blue, preferred=preferred, **changes)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (pair("blue", "red", 1), "contradicts line 1: the same responses in the other order"),
        (pair("blue\u200b", "\u00a0red", 1, id="x"), "contradicts line 1"),
        (pair("blue", "red", 1, question="What is in\u00a0picture 1?"), "contradicts line 1"),
        (pair("red", "blue", 2), "repeats line 1, with the other response preferred"),
        (pair("red", "blue", 1, id="x", kind="y"), "repeats line 1;"),
        (pair("red\ufeff", "blue", 1), "repeats line 1;"),
        (pair("red", "blue", 1, images=["./a.png"]), "repeats line 1;"),
        (pair("red", "blue", 1, images=["copy.png"]), "repeats line 1;"),
        (pair("blue", "red", 2), None),
        (pair("red", "green", 2), None),
        (pair("blue", "red", 1, images=["b.png"]), None),
        (pair("red", "blue", 1, images=["b.png"]), None),
        (pair("red", "blue", 1, images=["a.png", "a.png"]), None),
        (pair("red", "blue", 1, question="Else?"), None),
    ],
)
def test_rows_that_repeat_or_contradict_another(folder: Path, other: dict[str, Any], told: str | None) -> None:
    make_image(folder, "b.png", (0, 0, 9))
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    file = write_rows(folder / "pairs.jsonl", [pair("red", "blue", 1), other])
    problems = validate_pairs(file)
    assert [problem.line for problem in problems] == ([] if told is None else [2])
    if told is not None:
        assert problems[0].reason.startswith(told)
        assert "r1-reward data mix" in problems[0].reason
    assert len(load_pairs(file, repeats=True)) == 2


def test_embedded_pictures_are_compared_by_their_bytes(folder: Path) -> None:
    make_image(folder, "b.png", (0, 0, 9))
    cells = [{"bytes": (folder / name).read_bytes(), "path": "same.png"} for name in ("a.png", "b.png", "a.png")]
    rows = [pair("red", "blue", 1, images=[cell]) for cell in cells]
    rows.append(pair("blue", "red", 1, images=[cells[1]]))
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    found = [
        (problem.line, problem.reason.split(";")[0].split(":")[0])
        for problem in validate_pairs(folder / "pairs.parquet")
    ]
    assert found == [(3, "repeats line 1"), (4, "contradicts line 2")]


@pytest.mark.parametrize(
    ("reasoning", "told"),
    [
        ("<think>1 is.</think><answer>1</answer>", "prefers response 1, but the row prefers 2"),
        ("<think>It depends.</think>", "has no readable verdict"),
        ("", "is blank"),
        ("\u200b", "is blank"),
        ("<think>2 is.</think><answer>2</answer>", None),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_reasoning_against_its_label_is_a_problem_for_validate_only(
    folder: Path, suffix: str, reasoning: str, told: str | None
) -> None:
    file = folder / f"pairs{suffix}"
    rows = [make_row(3, reasoning=None), make_row(1, reasoning=reasoning)]
    if suffix == ".jsonl":
        del rows[0]["reasoning"]
        write_rows(file, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    problems = validate_pairs(file)
    assert [problem[1:3] for problem in problems] == ([] if told is None else [(2, "reasoning")])
    assert told is None or problems[0].reason.startswith(told)
    assert len(load_pairs(file)) == 2


@pytest.mark.parametrize(
    ("question", "images"),
    [("Is <image> after <image>?", 1), ("<image>Which?", 2), ("<|image_pad|> [IMG]?", 1), ("What is <image 3>?", 2)],
)
def test_places_for_pictures_that_are_not_there_are_refused(folder: Path, question: str, images: int) -> None:
    file = write_rows(folder / "pairs.jsonl", [make_row(1), make_row(2, question=question, images=["a.png"] * images)])
    assert [problem[1:3] for problem in validate_pairs(file)] == [(2, "question")]
    for options in ({}, {"repeats": True, "check_images": False}):
        with pytest.raises(PairFileError, match="line 2, question: has (a placeholder|placeholders) for"):
            load_pairs(file, **options)


def test_the_error_lists_twenty_problems_and_counts_the_rest(terrible: Path) -> None:
    with pytest.raises(PairFileError) as caught:
        load_pairs(terrible)
    assert isinstance(caught.value, UserError)
    assert caught.value.problems == validate_pairs(terrible)
    assert caught.value.rows == len(broken_rows()) + 1
    lines = str(caught.value).splitlines()
    total = len(caught.value.problems)
    assert lines[0] == f"{terrible}: {total} problems in 34 rows"
    assert lines[1].startswith("  line 2: is not JSON")
    assert len(lines) == 22
    assert lines[-1] == f"  ... and {total - 20} more. To list all: r1-reward data validate {terrible}"


def test_the_longest_response_allowed_is_allowed(folder: Path) -> None:
    row = make_row(1, response_1="x" * MAX_RESPONSE_CHARS)
    assert validate_pairs(write_rows(folder / "pairs.jsonl", [row])) == []


def test_without_check_images_images_are_not_opened(folder: Path) -> None:
    file = write_rows(folder / "pairs.jsonl", [make_row(1, "gone.png")])
    assert len(load_pairs(file, check_images=False)) == 1
    with pytest.raises(PairFileError, match="gone.png: no such file"):
        load_pairs(file)


def test_an_image_is_decoded_once_however_many_rows_show_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [make_image(folder, f"{index}.png", (index, 0, 0)) for index in range(30)]
    detours = ["", f"../{folder.name}/"]  # two ways to write the path of the same file
    rows = [make_row(number, detours[number % 7 == 0] + names[number % 30]) for number in range(3000)]
    file = write_rows(folder / "pairs.jsonl", rows)
    calls: Counter[Any] = Counter()
    original = checker.check_image
    monkeypatch.setattr(checker, "check_image", lambda source: (calls.update([source]), original(source)))
    dataset = load_pairs(file)
    assert len(dataset) == 3000
    assert dataset["id"][:] == [str(number) for number in range(3000)]
    assert len(calls) == 30
    assert set(calls.values()) == {1}
    save_pairs(dataset, folder / "pairs.parquet")
    calls.clear()
    assert len(load_pairs(folder / "pairs.parquet")) == 3000
    assert len(calls) == 30
    assert set(calls.values()) == {1}


# ---- finding files


def test_wrong_paths_are_explained(folder: Path) -> None:
    write_rows(folder / "pairs.jsonl", [make_row(1)])
    (folder / "empty").mkdir()
    (folder / "empty.jsonl").touch()
    (folder / "blank.jsonl").write_text("\n \n")
    (folder / "utf16.jsonl").write_text("{}", encoding="utf-16")
    (folder / "zero.parquet").touch()
    (folder / "junk.parquet").write_bytes(b"PAR1 but not really")
    pq.write_table(pa.Table.from_pylist([], schema=FEATURES.arrow_schema), folder / "norows.parquet")
    reasons = {
        "pairs.jsonn": "no such file or folder. Did you mean .*pairs.jsonl",
        "nothing/like/it.jsonl": "no such file or folder.$",
        "a.png": "pair files end in .jsonl",
        "empty": "has neither pairs.jsonl nor parquet files .* It contains: nothing",
        "empty.jsonl": "has no rows",
        "blank.jsonl": "has no rows",
        "utf16.jsonl": "is UTF-16 text; save it as UTF-8",
        "zero.parquet": "cannot be read as parquet",
        "junk.parquet": "cannot be read as parquet",
        "norows.parquet": "has no rows",
        "": "has both pairs.jsonl and parquet files",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=reason):
            load_pairs(folder / name)


def test_a_folder_of_shards_is_read_by_split(folder: Path) -> None:
    shards = folder / "shards [1]"  # datasets would take the brackets for a pattern
    for number, name in enumerate(["train-0.parquet", "train-1.parquet", "test-0.parquet"]):
        save_pairs([make_row(number)], shards / name, image_root=folder)
    pq.write_table(pa.Table.from_pylist([], schema=FEATURES.arrow_schema), shards / "train-2.parquet")
    assert load_pairs(shards)["id"][:] == ["0", "1"]
    assert load_pairs(shards, split="test")["id"][:] == ["2"]
    with pytest.raises(UserError, match="parquet files of the validation split. It contains: test-0"):
        load_pairs(shards, split="validation")


def test_a_folder_with_pairs_jsonl_is_that_file(folder: Path) -> None:
    write_rows(folder / "pairs.jsonl", [make_row(1)])
    write_rows(folder / "other.jsonl", [make_row(2)])
    assert load_pairs(folder)["id"][:] == ["1"]


def test_a_hub_id_without_network_says_what_it_may_be(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="no such local file, and .* Hub returned .* spelling and the network"):
        load_pairs("nobody/no-such-pairs")


def test_a_hub_dataset_is_checked_and_converted_like_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = dict.fromkeys(["id", "question", "response_1", "response_2"], datasets.Value("string"))
    images = datasets.List(datasets.Image())
    features = datasets.Features({**texts, "images": images, "preferred": datasets.Value("int8")})
    data = (folder / "a.png").read_bytes()
    rows = [{"images": [{"bytes": data, "path": "x.png"}]} for _ in range(2)]
    rows = [{key: value for key, value in (make_row(n) | row).items() if key in features} for n, row in enumerate(rows)]
    remote = datasets.Dataset.from_list(rows, features=features)
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: (asked.append((name, split)), remote)[1])
    dataset = load_pairs("owner/name", split="test")
    assert asked == [("owner/name", "test")]
    assert dataset.features == FEATURES
    assert dataset[1]["source"] == ""
    assert row_pictures(dataset[1])[0].getpixel((0, 0)) == (200, 0, 0)
    remote = datasets.Dataset.from_list([{**rows[0], "images": [{"bytes": b"junk", "path": None}]}], features=features)
    with pytest.raises(PairFileError, match=r"line 1, images\[0\]: embedded image: is not an image"):
        load_pairs("owner/name")


def test_wrong_parquet_columns_are_reported_once(folder: Path) -> None:
    rows = [{"id": str(n), "image": "a.png", "question": "q"} for n in range(50)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "wrong.parquet")
    problems = validate_pairs(folder / "wrong.parquet")
    assert {(problem.line, problem.field) for problem in problems} == {
        (0, name) for name in ("image", "response_1", "response_2", "preferred")
    }
    assert len(problems) == 4
    assert "did you mean images?" in problems[0].reason


def test_parquet_with_paths_instead_of_bytes(folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist([make_row(1), make_row(2, "./a.png")]), folder / "paths.parquet")
    dataset = load_pairs(folder / "paths.parquet")
    assert dataset.features == FEATURES
    assert [len(row_pictures(row)) for row in dataset] == [1, 1]
    pq.write_table(pa.Table.from_pylist([make_row(1, "gone.png"), make_row(2)]), folder / "gone.parquet")
    assert [problem[1:3] for problem in validate_pairs(folder / "gone.parquet")] == [(1, "images[0]")]


def test_embedded_bytes_win_over_a_file_of_the_same_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (folder / "a.png").read_bytes()
    row = make_row(1, images=[{"bytes": data, "path": "b.png"}])  # no kind or video column: rows must be converted
    pq.write_table(pa.Table.from_pylist([row]), folder / "pairs.parquet")
    make_image(folder, "b.png", (0, 0, 99))
    monkeypatch.chdir(folder)
    assert row_pictures(load_pairs("pairs.parquet")[0])[0].getpixel((0, 0)) == (200, 0, 0)


# ---- saving


def some_rows(folder: Path) -> list[dict[str, Any]]:
    for index in range(4):
        make_image(folder, f"scenes/{index}.png", (index * 60, 10, 20))
    rows = [make_row(number, f"scenes/{number % 4}.png", kind=f"k{number % 3}") for number in range(9)]
    rows[2].update(reasoning="<think>Möglich 🐈</think><answer>1</answer>", attempts=2)
    rows[3]["images"].append("scenes/1.png")
    return rows


def test_round_trips_through_both_formats_keep_everything(folder: Path) -> None:
    assert save_pairs((PreferencePair(**row) for row in some_rows(folder)), folder / "one.jsonl") == 9
    first = load_pairs(folder / "one.jsonl")
    assert json.loads((folder / "one.jsonl").read_text("utf-8").splitlines()[2]) == some_rows(folder)[2]
    save_pairs(first, folder / "two.parquet")
    second = load_pairs(folder / "two.parquet")
    save_pairs(second, folder / "elsewhere" / "three.jsonl")
    third = load_pairs(folder / "elsewhere" / "three.jsonl")
    assert content(first) == content(second) == content(third)
    assert first.features == second.features == third.features == FEATURES
    assert all(cell["bytes"] and not os.path.isabs(cell["path"]) for row in second for cell in row["images"])
    assert len(list((folder / "elsewhere" / "three_images").iterdir())) == 4  # each picture once


def test_jsonl_saved_in_another_folder_still_finds_its_images(folder: Path) -> None:
    rows = some_rows(folder)
    save_pairs(rows, folder / "deep" / "er" / "pairs.jsonl", image_root=folder)
    text = (folder / "deep" / "er" / "pairs.jsonl").read_text()
    assert '"../../scenes/0.png"' in text
    assert str(folder) not in text
    assert len(load_pairs(folder / "deep" / "er" / "pairs.jsonl")) == len(rows)


def test_other_programs_get_decoded_images_from_saved_parquet(folder: Path) -> None:
    save_pairs(some_rows(folder), folder / "pairs.parquet")
    plain = datasets.Dataset.from_parquet(str(folder / "pairs.parquet"))
    assert plain[1]["images"][0].getpixel((0, 0)) == (60, 10, 20)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(folder: Path, suffix: str) -> None:
    file = folder / f"pairs{suffix}"
    save_pairs([make_row(1)], file)
    before, there = file.read_bytes(), sorted(os.listdir(folder))

    def interrupted() -> Any:
        yield make_row(2)
        raise KeyboardInterrupt

    for rows, error in (
        (interrupted(), KeyboardInterrupt),
        ([make_row(2), make_row(3, preferred=3)], PairFileError),
        ([make_row(2), make_row(2)], PairFileError),
        ([], PairFileError),
    ):
        with pytest.raises(error):
            save_pairs(rows, file)
        assert file.read_bytes() == before
        assert sorted(os.listdir(folder)) == there


def test_save_explains_what_it_cannot_write(folder: Path) -> None:
    with pytest.raises(UserError, match="end in .jsonl or .parquet"):
        save_pairs([make_row(1)], folder / "pairs.csv")
    with pytest.raises(UserError, match="gone.png: cannot be read"):
        save_pairs([make_row(1, "gone.png")], folder / "pairs.parquet")
    with pytest.raises(PairFileError, match="line 2, colour: is not one of"):
        save_pairs([make_row(1), make_row(2, colour="red")], folder / "pairs.jsonl")
