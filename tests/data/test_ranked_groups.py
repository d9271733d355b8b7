"""Ranked groups in files: checked, imported as pairs, and scored."""

from __future__ import annotations

import hashlib
import io
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scripted_server import reply
from typer.testing import CliRunner

from r1_reward.bench.file_kinds import looks_like
from r1_reward.cli.data import app
from r1_reward.data.importing import NothingImported, import_pairs
from r1_reward.data.scoring.judging import ScoreSettings
from r1_reward.data.scoring.score_file import score_file
from r1_reward.records.content import text_of, to_parts
from r1_reward.store.group_files import GroupCounts, check_groups, is_group_file
from r1_reward.store.pairs import PairFileError, load_pairs
from r1_reward.store.shards import read_rows

SETTINGS = ScoreSettings(model="judge", votes=1, both_orders=False, temperature=0.0)


def png(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 20, 30)).save(data, "PNG")
    return data.getvalue()


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(source: Any = None) -> dict[str, Any]:
    return {"type": "image"} if source is None else {"type": "image", "image": source}


def group(number: int = 0, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"g{number}", "question": f"Which digit {number}?", "images": ["a.png"],
        "responses": [f"Three {number}.", f"Eight {number}.", f"Two {number}.", f"Six {number}."],
        "ranking": [1, 2, 2, 3],
    }  # fmt: skip
    return {name: value for name, value in {**row, **changes}.items() if value is not None}


def theirs(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A row of the MR2 training form."""
    row = {"prompt": f"Which {number}?", "responses": ["A.", "B.", "C."], "rankings": [2, 1, 3], "image": "a.png"}
    return {name: value for name, value in {**row, **changes}.items() if value is not None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate("abcd"):
        (tmp_path / f"{name}.png").write_bytes(png(number))
    (tmp_path / "clip").mkdir()
    for number in range(3):
        (tmp_path / "clip" / f"{number}.png").write_bytes(png(100 + number))
    (tmp_path / "empty.png").write_bytes(b"")
    return tmp_path


def write(file: Path, *rows: Any) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def imported(folder: Path, *rows: Any, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    report = import_pairs("groups", write(folder / "groups.jsonl", *rows), folder / "out", overwrite=True, **options)
    return report, list(read_rows(folder / "out"))


def preference(row: dict[str, Any]) -> tuple[str, str]:
    return tuple(text_of(row[f"response_{n}"]) for n in (row["preferred"], 3 - row["preferred"]))


# ---- import


def test_pairs_follow_from_the_ranking_and_ties_are_counted(folder: Path) -> None:
    report, rows = imported(folder, group(7, criteria="legibility"))
    assert (report["read"], report["kept"], report["dropped"]) == (1, 5, {"tie": 1})
    assert [(row["id"], preference(row)) for row in rows] == [
        ("groups:g7:1-2", ("Three 7.", "Eight 7.")), ("groups:g7:1-3", ("Three 7.", "Two 7.")),
        ("groups:g7:1-4", ("Three 7.", "Six 7.")), ("groups:g7:2-4", ("Eight 7.", "Six 7.")),
        ("groups:g7:3-4", ("Two 7.", "Six 7.")),
    ]  # fmt: skip
    assert {row["criteria"] for row in rows} == {"legibility"}
    assert {row["images"][0]["bytes"] for row in rows} == {png(0)}
    assert {row["provenance"] for row in rows} == {"groups:groups.jsonl:1"}
    (lost,) = [json.loads(line) for line in (folder / "out" / "dropped.jsonl").read_text().splitlines()]
    assert (lost["reason"], lost["detail"]) == ("tie", "responses 2 and 3 both have rank 2")
    assert len(load_pairs(folder / "out")) == 5


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (theirs(), 3),
        (theirs(rankings=[1, 1, 2]), 2),
        (theirs(rankings=[1.0, 2.0, 3.0]), 3),
        (theirs(image=None, video="clip"), 3),
        (theirs(image=["a.png", "b.png"]), 3),
        (theirs(prompt="<image>\nWhich?"), 3),
        (theirs(image={"path": "b.png", "bytes": None}), 3),
    ],
)
def test_the_training_form_of_mr2_is_read(folder: Path, row: Any, kept: int) -> None:
    report, rows = imported(folder, row, row | {"prompt": "Another?"})
    assert report["kept"] == 2 * kept and len({found["id"] for found in rows}) == 2 * kept
    assert rows[0]["id"] == "groups:groups.jsonl:1:1-2" or row.get("rankings") == [1, 1, 2]
    assert not rows[0]["question"].startswith("<image>")
    assert bool(rows[0]["video"]) == ("video" in row)


def test_parts_of_a_group_keep_their_pictures(folder: Path) -> None:
    row = group(
        1, question=[text("Like "), image(), text(", but red.")], images=["a.png", "b.png"],
        responses=[[image()], [image("c.png"), text("?")], "I cannot draw."], ranking=[1, 3, 2],
    )  # fmt: skip
    report, rows = imported(folder, row, group(2, responses=["A.", [image("b.png")]], ranking=[1, 2]))
    assert (report["kept"], report["dropped"]) == (4, {})
    beside = rows.pop()
    assert [cell["bytes"] for cell in beside["images"]] == [png(0)] and preference(beside) == ("A.", "[image]")
    by_id = {found["id"].rpartition(":")[2]: found for found in rows}
    assert set(by_id) == {"1-2", "1-3", "2-3"}
    wanted = [text("Like "), image({"bytes": png(0), "path": "a.png"}), text(", but red.")]
    assert all(to_parts(found["question"]) == wanted and found["images"] == [] for found in rows)
    contents = {json.dumps(text_of(found[f"response_{n}"])) for found in rows for n in (1, 2)}
    assert contents == {'"[image]"', '"[image]?"', '"I cannot draw."'}
    assert preference(by_id["2-3"]) == ("I cannot draw.", "[image]?")


def test_a_missing_picture_only_drops_its_own_pairs(folder: Path) -> None:
    row = group(1, images=[], responses=[[image("a.png")], [image("gone.png")], [image("c.png")]], ranking=[1, 2, 3])
    report, rows = imported(folder, row, group(2, images=[], responses=[[image("empty.png")], "x"], ranking=[1, 2]))
    assert report["dropped"] == {"image missing": 2, "image damaged": 1}
    assert [found["id"] for found in rows] == ["groups:g1:1-3"]


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (group(ranking=[1, 2]), "unreadable label", "ranking has 2 ranks for 4 responses"),
        (group(ranking=[1, 2, 3, 0]), "unreadable label", "ranking[3] '0' is not a rank"),
        (group(ranking=[1, 2, 3, True]), "unreadable label", "ranking[3] 'True' is not a rank"),
        (group(ranking=[1, 2, 3, "4"]), "unreadable label", "ranking[3] '4' is not a rank"),
        (group(ranking=[1, 2, 3, 1.5]), "unreadable label", "ranking[3] '1.5' is not a rank"),
        (group(ranking=[1, 2, 3, float("inf")]), "unreadable label", "ranking[3] 'inf' is not a rank"),
        (group(ranking="1"), "wrong type", "ranking is text, not a list"),
        (group(responses=["A."], ranking=[1]), "unreadable label", "1 response, but a pair needs two"),
        (group(responses=[], ranking=[]), "unreadable label", "0 responses, but a pair needs two"),
        (group(responses=["A.", None, "C.", "D."]), "wrong type", "responses[1] must be text or a list of parts"),
        (group(responses=["A.", " ", "C.", "D."]), "blank text", "responses[1]"),
        (group(responses=["A.", [["x"]], "C.", "D."]), "wrong type", "responses[1] has a part that"),
        (group(question=[image()], images=["a.png", "b.png"]), "picture places", "has no source, but 2 images were"),
        (group(question=[text("x"), image()], images=[]), "picture places", "1 image part has no source"),
        (group(question="Is <image> like <image>?"), "picture places", "has placeholders for 2 images"),
        (group(images=[]), "no image", "the row has no image or video"),
        (group(images=[None]), "no image", "images[0]"),
        (group(images=[7]), "wrong type", "images[0] is a number"),
        (group(criteria=7), "wrong type", "criteria is a number"),
        (group(responses=["Same.", "Same. ", "C.", "D."], ranking=[1, 2, 1, 1]), "identical answers", ""),
    ],
)  # fmt: skip
def test_invalid_groups_are_dropped_with_a_reason(folder: Path, row: Any, reason: str, detail: str) -> None:
    imported(folder, row, group(2))
    lines = [json.loads(line) for line in (folder / "out" / "dropped.jsonl").read_text().splitlines()]
    assert any(line["row"] == 1 and line["reason"] == reason and detail in line["detail"] for line in lines), lines


def test_a_file_without_a_ranking_says_so(folder: Path) -> None:
    with pytest.raises(NothingImported, match="no row has the field ranking or rankings"):
        imported(folder, group(1, ranking=None), group(2, ranking=None))
    with pytest.raises(NothingImported, match="none of the 1 rows yields a pair"):
        imported(folder, group(1, ranking=[1, 1, 1, 1]))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranks=st.lists(st.integers(1, 4), min_size=2, max_size=6))
def test_every_two_responses_are_a_pair_or_a_tie(folder: Path, ranks: list[int]) -> None:
    row = group(responses=[f"Answer {n}." for n in range(len(ranks))], ranking=ranks)
    report, rows = imported(folder, row, group(1))
    expected = {
        (f"Answer {i}.", f"Answer {j}.") if ranks[i] < ranks[j] else (f"Answer {j}.", f"Answer {i}.")
        for i, j in combinations(range(len(ranks)), 2)
        if ranks[i] != ranks[j]
    }
    assert {preference(found) for found in rows if found["id"].startswith("groups:g0")} == expected
    assert report["dropped"]["tie"] == len(ranks) * (len(ranks) - 1) // 2 - len(expected) + 1


# ---- validate


def test_a_valid_file_is_counted(folder: Path) -> None:
    file = write(
        folder / "groups.jsonl", group(1), group(2, id=7, ranking=None), group(3, images=None, video="clip"),
        group(4, images=None, responses=[[image("a.png")], [text("x"), image("b.png")], "No."], ranking=[2, 1, 2]),
        group(5, images=[], criteria="brevity", note="nobody reads this"), group(6, id=None),
    )  # fmt: skip
    assert is_group_file(file)
    assert check_groups(file) == GroupCounts(6, 23, 5, 22, 5)
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert result.exit_code == 0
    assert result.stdout == ("6 groups of 23 responses, all valid: 5 with a ranking, which gives 22 pairs and 5 ties\n")
    report = json.loads(CliRunner().invoke(app, ["validate", str(file), "--json"]).stdout)
    assert (report["valid"], report["rows"], report["groups"]["ties"]) == (True, 6, 5)


def test_a_parquet_file_of_groups_is_checked(folder: Path) -> None:
    rows = [group(1), group(2, ranking=None)]
    cells = [{"bytes": png(5), "path": None}]
    pq.write_table(
        pa.Table.from_pylist([{**row, "images": cells, "ranking": row.get("ranking")} for row in rows]),
        folder / "g.parquet",
    )
    assert check_groups(folder / "g.parquet") == GroupCounts(2, 8, 1, 5, 1)


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"responses": []}, "responses", "is empty"),
        ({"responses": "A."}, "responses", "must be a list, not text"),
        ({"responses": ["A.", 7], "ranking": [1, 2]}, "responses[1]", "must be text or a list of parts, not a number"),
        ({"responses": ["A.", "\u200b"], "ranking": [1, 2]}, "responses[1]", "is blank"),
        ({"responses": ["A.", [image("gone.png")]], "ranking": [1, 2]}, "responses[1][0].image", "no such file"),
        ({"responses": [[text("x"), image("empty.png")]], "ranking": [1]}, "responses[0][1].image", "zero bytes"),
        ({"responses": ["A.", [image("")]], "ranking": [1, 2]}, "responses[1][0].image", "is blank"),
        ({"responses": ["A.", [[image("a.png")]]], "ranking": [1, 2]}, "responses[1]", "has a part that is"),
        ({"responses": ["x" * 50_001], "ranking": [1]}, "responses[0]", "50,001 characters"),
        ({"responses": ["a\0"], "ranking": [1]}, "responses[0]", "NUL"),
        ({"ranking": [1, 2, 2]}, "ranking", "has 3 ranks for 4 responses"),
        ({"ranking": [1, 2, 2, 0]}, "ranking[3]", "must be 1 or more, not 0"),
        ({"ranking": [1, 2, 2, True]}, "ranking[3]", "must be a whole number, not True"),
        ({"ranking": [1, 2, 2, "3"]}, "ranking[3]", "must be a whole number"),
        ({"ranking": None, "rankings": [1, 2, 2, 3]}, "rankings", "did you mean ranking?"),
        ({"question": "Is <image> like <image>?"}, "question", "has placeholders for 2 images"),
        ({"question": [image()], "images": []}, "images", "1 image part has no source"),
        ({"images": ["gone.png"]}, "images[0]", "no such file"),
        ({"images": None}, "images", "is missing"),
        ({"video": "gone"}, "video", "no such file"),
        ({"criteria": " "}, "criteria", "is blank"),
        ({"id": 1.5}, "id", "must be text"),
    ],
)
def test_problems_of_a_group_are_reported_with_their_place(folder: Path, changes: Any, field: str, reason: str) -> None:
    file = write(folder / "groups.jsonl", group(1), group(2, **changes))
    with pytest.raises(PairFileError) as error:
        check_groups(file)
    found = [(one.line, one.field) for one in error.value.problems if reason in one.reason]
    assert (2, field) in found, error.value
    result = CliRunner().invoke(app, ["validate", str(file), "--json"])
    assert result.exit_code == 2
    assert any(problem["field"] == field for problem in json.loads(result.stdout)["problems"])


def test_lines_that_are_not_rows_are_problems(folder: Path) -> None:
    (folder / "groups.jsonl").write_text(json.dumps(group(1)) + '\n{"id": "x", \n[1]\n')
    with pytest.raises(PairFileError) as error:
        check_groups(folder / "groups.jsonl")
    assert [one.line for one in error.value.problems] == [2, 3]


def test_what_a_file_of_groups_looks_like(folder: Path) -> None:
    own = write(folder / "own.jsonl", group(1, images=None, responses=[[image("a.png")], "x"], ranking=[1, 2]))
    assert [kind.command for kind in looks_like(own)] == [f"r1-reward score {own} --model MODEL --out FILE.parquet"]
    others = write(folder / "theirs.jsonl", theirs(1), theirs(2))
    assert not is_group_file(others)
    result = CliRunner().invoke(app, ["validate", str(others)])
    assert result.exit_code == 2
    assert f"r1-reward data import groups --from {others} --out DIR" in " ".join(result.output.split())


def test_a_file_of_pairs_with_ties_and_parts_is_valid_and_says_what_ties_are(folder: Path) -> None:
    rows = [
        {"id": str(n), "question": f"Draw {n}.", "preferred": n,
         "response_1": [image("a.png")], "response_2": [image("b.png")]}
        for n in (0, 1, 2)
    ]  # fmt: skip
    file = write(folder / "pairs.jsonl", *rows)
    assert [kind.name for kind in looks_like(file)] == ["pairs"]
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert result.exit_code == 0
    assert "1 preferred 1, 1 preferred 2, 0 kinds, 1 tie (preferred 0: can be judged" in result.stdout
    assert "data mix` removes them" in result.stdout
    assert json.loads(CliRunner().invoke(app, ["validate", str(file), "--json"]).stdout)["ties"] == 1
    with pytest.raises(PairFileError, match="is a tie"):
        load_pairs(file)


# ---- score


def quality(body: dict[str, Any]) -> Any:
    """Prefer the response whose first 40 characters and images have the higher hash; the same in both positions."""
    parts = body["messages"][-1]["content"]
    parts = [text(parts)] if isinstance(parts, str) else parts
    said = "".join(part["text"] if part["type"] == "text" else f"[{part['image_url']['url']}]" for part in parts)
    first, second = (said.split(f"[Response {n}]:")[1].split("######")[0].strip() for n in (1, 2))
    worth = [hashlib.sha256(one.encode()).hexdigest() for one in (first, second)]
    return reply(f"<think>x</think><answer>{1 if worth[0] > worth[1] else 2}</answer>")


def scored(folder: Path, server: Any, *rows: Any, name: str = "rows.jsonl") -> tuple[Any, list[dict[str, Any]]]:
    server.default = [quality]
    file = rows[0] if isinstance(rows[0], Path) else write(folder / name, *rows)
    out = folder / f"{file.stem}-{len(server.bodies)}.parquet"
    summary = score_file(file, out, SETTINGS, base_url=[server.url], block_rows=2)
    return summary, pq.read_table(out).to_pylist()


def test_the_summary_tells_how_often_the_top_choice_is_the_best(folder: Path, server: Any) -> None:
    first = group(1, ranking=None)
    _, (line,) = scored(folder, server, first)
    assert line["top_is_best"] is None
    top = line["order"][0]
    right = [1 if n == top else 2 for n in range(4)]
    wrong = [2 if n == top else 1 for n in range(4)]
    summary, lines = scored(
        folder, server, group(1, ranking=right), group(1, ranking=wrong), group(1, ranking=None),
        group(1, ranking=[1, 1, 1, 1]), group(1, ranking=[3 - n for n in right]),
    )  # fmt: skip
    assert [one["top_is_best"] for one in lines] == [1.0, 0.0, None, 1.0, 0.0]
    assert (summary.ranked, summary.top_is_best) == (4, 0.5)
    assert all(one["rewards"] == line["rewards"] for one in lines)  # a ranking decides nothing


def test_tied_top_choices_count_proportionally(folder: Path, server: Any) -> None:
    _, (line,) = scored(folder, server, group(1, responses=["A.", "A.", "A."], ranking=[1, 2, 2]))
    assert (line["rewards"], line["top_is_best"]) == ([0.0, 0.0, 0.0], pytest.approx(1 / 3))


def test_groups_with_parts_are_judged_with_their_pictures(folder: Path, server: Any) -> None:
    row = group(
        1, images=None, question=[text("Like "), image("a.png"), text("?")], criteria="Only the colour counts.",
        responses=[[image("b.png")], [text("Here: "), image("c.png")], "No.", [{"type": "video", "video": "clip"}]],
        ranking=[1, 2, 3, 4],
    )  # fmt: skip
    summary, (line,) = scored(folder, server, row)
    assert summary.failed == 0 and len(line["rewards"]) == 4 and line["top_is_best"] in (0.0, 1.0)
    assert len(server.bodies) == 6
    for body in server.bodies:
        assert "Only the colour counts." in json.dumps(body)
    filled = {**row, "question": [text("Like "), image(), text("?")], "images": ["a.png"]}
    _, (again,) = scored(folder, server, filled)
    assert again == line


def test_groups_in_parquet_are_judged_as_those_of_jsonl(folder: Path, server: Any) -> None:
    rows = [
        group(1, images=[], responses=[[image("b.png")], [text("Here: "), image("c.png")]], ranking=[1, 2]),
        group(2, images=["a.png"], responses=[[text("only")], [text("words")]], ranking=[2, 1]),
    ]
    _, wanted = scored(folder, server, *rows)
    part = pa.struct(
        [
            ("type", pa.string()),
            ("text", pa.string()),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ]
    )

    def cells(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**one, "image": {"bytes": (folder / one["image"]).read_bytes(), "path": None}} if "image" in one else one
            for one in parts
        ]

    table = pa.table(
        {
            "id": [row["id"] for row in rows],
            "question": [row["question"] for row in rows],
            "images": [[], ["a.png"]],
            "responses": pa.array([list(map(cells, row["responses"])) for row in rows], pa.list_(pa.list_(part))),
            "ranking": [row["ranking"] for row in rows],
        }
    )  # fmt: skip
    pq.write_table(table, folder / "groups.parquet")
    assert scored(folder, server, folder / "groups.parquet")[1] == wanted
    pq.write_table(table.drop_columns(["images"]).slice(0, 1), folder / "without.parquet")
    assert scored(folder, server, folder / "without.parquet")[1] == wanted[:1]


def test_pairs_with_parts_ties_and_criteria_are_judged(folder: Path, server: Any) -> None:
    base = {"question": "Draw.", "response_1": [image("a.png")], "response_2": [text("See "), image("b.png")]}
    rows = [
        base, base | {"preferred": 0}, base | {"criteria": "beauty"},
        base | {"images": ["a.png", "b.png"], "response_1": [image()], "response_2": [text("See "), image()]},
        base | {"response_2": "Words."}, base | {"video": "clip", "images": []},
    ]  # fmt: skip
    summary, lines = scored(folder, server, *rows)
    assert (summary.failed, summary.ranked) == (0, None)
    assert [line["preferred"] in (1, 2) for line in lines] == [True] * 6
    assert lines[0] == lines[1] == lines[3]
    assert sum("beauty" in json.dumps(body) for body in server.bodies) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (group(1, ranking=[1, 2]), "ranking: has 2 ranks for 4 responses"),
        (group(1, ranking=[1, 2, 3, 0]), "ranking: must be a list of positive integers"),
        (group(1, ranking=7), "ranking: must be a list of positive integers"),
        (group(1, criteria=" "), "criteria: is blank"),
        (group(1, criteria=["x"]), "criteria: must be text, not a list"),
        (group(1, responses=["A.", [image("gone.png")]], ranking=None), "no such file"),
        (group(1, responses=["A.", [image("empty.png")]], ranking=None), "is empty (zero bytes)"),
        (group(1, responses=["A.", [["x"]]], ranking=None), "is a list; a part is text or an object"),
        (group(1, images=None), "images: is missing"),
        (group(1, question=[["x"]], criteria="beauty"), "question: has a part that is a list"),
        (group(1, images=None, question=[image()]), "images: 1 image part has no source, but no images were given"),
    ],
)
def test_a_group_that_cannot_be_judged_says_why(folder: Path, server: Any, row: Any, reason: str) -> None:
    summary, lines = scored(folder, server, row, group(2))
    assert summary.failed == 1
    assert reason in lines[0]["error"] and lines[0]["top_is_best"] is None
    assert lines[1]["error"] is None


def test_pictures_inside_contents_are_part_of_a_runs_identity(folder: Path, server: Any) -> None:
    """Another image under the same name makes it another run: nothing is resumed."""
    from r1_reward.records.errors import UserError

    file = write(folder / "rows.jsonl", group(1, images=[], responses=[[image("b.png")], "x"], ranking=None))
    score_file(file, folder / "out.parquet", SETTINGS, base_url=[server.url])
    (folder / "b.png").write_bytes(png(200))
    with pytest.raises(UserError, match="out.parquet"):
        score_file(file, folder / "out.parquet", SETTINGS, base_url=[server.url])
