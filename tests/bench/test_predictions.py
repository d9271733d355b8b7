"""Votes are read from three formats unchanged; anything unreadable is an error with its place."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_rows import mrb_row, vl_row, write
from prediction_rows import our_row, vote, write_lines

from r1_reward.bench.predictions import detect_format, read_outcomes, tally_run
from r1_reward.bench.rows import Outcome, Vote
from r1_reward.bench.suites import load_suite
from r1_reward.records.errors import UserError

VL, MRB, MM = "vl-rewardbench", "multimodal-rewardbench", "mm-rlhf-rewardbench"


def read(suite: str, path: Path, lines: list[Any], **options: Any) -> list[Outcome]:
    return list(read_outcomes(suite, write_lines(path / "p.jsonl", lines), **options))


def told(suite: str, file: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        list(read_outcomes(suite, file, **options))
    message = str(caught.value)
    assert str(file) in message
    assert ".." not in message.replace("...", "")
    return message


# ---- the released scripts


def test_r1_row_of_vl_rewardbench(tmp_path: Path) -> None:
    row = {**vl_row(1, "RLAIF-V-14", chosen="längst", rejected="kurz"), "rewards": [0, 1], "critic": "né\n", "qs": "?"}
    assert read(VL, tmp_path, [row]) == [
        Outcome(
            index=0, id="RLAIF-V-14", passes=((Vote(False, preferred_first=True, characters=3),),),
            category="hallucination", paper_category="general", issue=None, longer=1,
        )
    ]  # fmt: skip
    assert read(VL, tmp_path, [{"rewards": [1, 0], "id": "mmmu_1"}]) == [
        Outcome(0, "mmmu_1", ((Vote(True, True),),), category="reasoning", paper_category="reasoning")
    ]


def test_repeated_ids_are_rows_of_their_own(tmp_path: Path) -> None:
    rows = [{"id": "mathverse_1063", "rewards": rewards} for rewards in ([1, 0], [0, 1])]
    found = read(VL, tmp_path, rows)
    assert [(one.index, one.passes[0][0].correct) for one in found] == [(0, True), (1, False)]


@pytest.mark.parametrize(
    ("rewards", "correct"),
    [
        ([1, 0], True),
        ([0, 1], False),
        ([1, 1], False),
        ([-0.5, -0.6], True),
        ([2**70, 1.5], True),
        ([0.0, -0.0], False),
    ],
)
def test_rewards(tmp_path: Path, rewards: list[Any], correct: bool) -> None:
    (outcome,) = read(VL, tmp_path, [{"id": "a", "rewards": rewards}])
    assert outcome.passes[0][0].correct is correct


@pytest.mark.parametrize(
    "rewards",
    ["null", "[null, null]", "[NaN, 0]", "[Infinity, 0]", '["1", "0"]', "[true, false]", "[1]", "[1, 0, 0]", "1", "{}",
     "[[1], [0]]", "[1e400, 0]"],
)  # fmt: skip
def test_rewards_that_are_not_two_numbers(tmp_path: Path, rewards: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "a", "rewards": [1, 0]}\n\n{"id": "b", "rewards": ' + rewards + "}\n")
    message = told(VL, file)
    assert "p.jsonl, line 3, rewards: must be two finite numbers, not" in message


@pytest.mark.parametrize(
    ("row", "category"),
    [
        ({"image": "mcq/long.png"}, "mcq"),
        ({"image": "x/long/1.png"}, "long"),
        ({"video": "video/short"}, "short"),
        ({"image": "", "video": "video/7"}, "video"),
        ({"image": None, "video": "safety/7"}, "safety"),
        ({}, None),
    ],
)
def test_category_of_mm_rlhf(tmp_path: Path, row: dict[str, Any], category: str | None) -> None:
    (outcome,) = read(MM, tmp_path, [{"id": "-77dfCjTbSc_2", "rewards": [1, 0], **row}])
    assert (outcome.category, outcome.paper_category, outcome.longer) == (category, None, None)


def test_path_without_a_category(tmp_path: Path) -> None:
    for field, path in (("image", "/home/long/mcq/1.png"), ("video", "C:/video/1"), ("image", "other/1.png")):
        file = write_lines(tmp_path / "p.jsonl", [{"id": "a", "rewards": [1, 0], field: path}])
        message = told(MM, file)
        assert f"line 1, {field}: " in message
        assert "--data" in message


@pytest.mark.parametrize(
    ("category", "id", "name"),
    [
        ("safety", "PAIRS_1", "safety/bias"),
        ("safety", "memes_1", "safety/toxicity"),
        ("reasoning", "mathvista_2", "reasoning/math"),
        ("reasoning", "EMMA-Coding_2", "reasoning/coding"),
        ("vqa", "x", "vqa"),
    ],
)
def test_r1_row_of_multimodal_rewardbench(tmp_path: Path, category: str, id: str, name: str) -> None:
    row = {**mrb_row(0, id, category, Output1="abc", Output2="d", Better="Output2"), "rewards": [1, 0]}
    expected = Outcome(0, id, ((Vote(True, True),),), category=name, longer=-1)
    assert read(MRB, tmp_path, [row]) == [expected]
    assert read(MRB, tmp_path, [{"id": id, "rewards": [1, 0]}]) == [Outcome(0, id, ((Vote(True, True),),))]


# ---- Multimodal RewardBench's script


def official(output: Any = "[[A]]", label: Any = "A", **changes: Any) -> dict[str, Any]:
    return {"ID": "MMBench_1", "Label": label, "output": output, "Meta": {"Category": "vqa"}, **changes}


@pytest.mark.parametrize(
    ("output", "label", "correct"),
    [
        ("so [[A]]", "A", True),
        ("so [[A]]", "B", False),
        ("so [[B]]", "B", True),
        ("first [[B]], no: [[A]]", "A", True),
        ("first [[A]], no: [[B]]", "B", False),
        ("[[a]] [A] [[C]]", "A", None),
        ("", "B", None),
        ("None", "A", None),
    ],
)
def test_official_verdict(tmp_path: Path, output: str, label: str, correct: bool | None) -> None:
    assert read(MRB, tmp_path, [official(output, label)]) == [
        Outcome(0, "MMBench_1", ((Vote(correct, label == "A", characters=len(output)),),), category="vqa")
    ]


def test_official_row_with_several_outputs_and_its_texts(tmp_path: Path) -> None:
    meta = mrb_row(1, Better="Output2", Output1="a", Output2="bb")
    row = {"ID": "MMBench_1", "Label": "B", "outputs": ["[[B]]", "?", "[[A]]."], "Meta": meta}
    votes = (Vote(True, False, characters=5), Vote(None, False, characters=1), Vote(False, False, characters=6))
    assert read(MRB, tmp_path, [row]) == [Outcome(0, "MMBench_1", (votes,), category="vqa", longer=1)]


def test_official_row_without_meta(tmp_path: Path) -> None:
    (outcome,) = read(MRB, tmp_path, [{"output": "[[A]]", "Label": "A", "ID": "x"}])
    assert (outcome.category, outcome.longer) == (None, None)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (official(label="C"), 'Label: must be "A" or "B", not "C"'),
        (official(label=None), "Label: is missing"),
        (official(None), "output: must be text, not null"),
        (official(["[[A]]"]), 'output: must be text, not ["[[A]]"]'),
        (official(outputs=["[[A]]"]), "outputs: is present in addition to output"),
        ({"ID": "x", "Label": "A", "outputs": []}, "outputs: must be a list of one or more texts, not []"),
        ({"ID": "x", "Label": "A", "outputs": ["a", None]}, "outputs: must be a list of one or more texts"),
        (official(ID=None), "ID: is missing"),
        (official(ID=7), "ID: must be text, not a number"),
        (official(Meta=[]), "Meta: must be an object, not a list"),
        (official(Meta={"Category": "sport"}), "Meta.Category: 'sport' is not a category"),
        (official(Meta={"Category": 3}), "Meta.Category: must be text, not a number"),
        (official(Meta=mrb_row(1, Better="A")), "Meta.Better: must be"),
    ],
)
def test_bad_official_row(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    file = write_lines(tmp_path / "p.jsonl", [official(), row])
    assert f"p.jsonl, line 2, {problem}" in told(MRB, file)


# ---- ours


def test_our_row(tmp_path: Path) -> None:
    passes = [
        [vote(2), vote(None, tokens=None, text=None), vote(1, swapped=True)],
        [vote(2, swapped=True, text="né"), vote(1), vote(2)],
    ]
    row = our_row(17, preferred=2, longer=-1, issue="odd", category="reasoning", passes=passes)
    assert read(VL, tmp_path, [row]) == [
        Outcome(
            index=17, id="id-17", category="reasoning", paper_category="general", issue="odd", longer=-1, preferred=2,
            passes=(
                (Vote(True, False, 7, 4, False), Vote(None, False, None, None, False), Vote(False, True, 7, 4, False)),
                (Vote(True, True, 7, 2, False), Vote(False, False, 7, 4, False), Vote(True, False, 7, 4, False)),
            ),
        )
    ]  # fmt: skip


@settings(max_examples=50)
@given(preferred=st.sampled_from([1, 2]), answer=st.sampled_from([1, 2, None]), swapped=st.booleans())
def test_our_vote(tmp_path_factory: Any, preferred: int, answer: int | None, swapped: bool) -> None:
    row = our_row(preferred=preferred, passes=[[vote(answer, swapped)]])
    (outcome,) = read(VL, tmp_path_factory.mktemp("vote"), [row])
    shown = (2, 1) if swapped else (1, 2)
    assert outcome.passes[0][0][:2] == (None if answer is None else answer == preferred, shown[0] == preferred)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"index": -1}, "index: must be a non-negative integer, not -1"),
        ({"index": True}, "index: must be a non-negative integer"),
        ({"index": 3}, "key: must be the index, a hyphen and 16 hex digits"),
        ({"key": "1-xyz"}, "key: must be"),
        ({"key": 1}, "key: must be"),
        ({"id": None}, "id: must be text, not null"),
        ({"category": "sport"}, "category: 'sport' is not a category of VL-RewardBench"),
        ({"category": 1}, "category: must be text or null, not 1"),
        ({"preferred": 3}, "preferred: must be 1 or 2 or 0, not 3"),
        ({"preferred": True}, "preferred: must be 1 or 2 or 0, not true"),
        ({"issue": 1}, "issue: must be text or null"),
        ({"longer": 2}, "longer: must be 1, 0, -1 or null, not 2"),
        ({"longer": True}, "longer: must be"),
        ({"passes": []}, "passes: must be one or two lists of votes, not []"),
        ({"passes": [[]]}, "passes: must be"),
        ({"passes": [[vote(1)], []]}, "passes: must be"),
        ({"passes": [[vote(1)]] * 3}, "passes: must be"),
        ({"passes": [vote(1)]}, "passes: must be"),
        ({"passes": [[1]]}, "passes[0][0]: must be an object, not a number"),
        ({"passes": [[vote(1), vote(3)]]}, "passes[0][1].answer: must be 1 or 2 or 0, not 3"),
        ({"passes": [[{"swapped": False}]]}, "passes[0][0].answer: is missing"),
        ({"passes": [[{"answer": 1}]]}, "passes[0][0].swapped: is missing"),
        ({"passes": [[vote(1, swapped=0)]]}, "passes[0][0].swapped: must be true or false, not 0"),
        ({"passes": [[vote(1, tokens=-1)]]}, "passes[0][0].tokens: must be"),
        ({"passes": [[vote(1, text=5)]]}, "passes[0][0].text: must be text, not 5"),
    ],
)
def test_bad_row_of_ours(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    file = write_lines(tmp_path / "p.jsonl", [our_row(0), {**our_row(1), **changes}])
    assert f"p.jsonl, line 2, {problem}" in told(VL, file)


def test_all_problems_of_a_row_are_reported(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", [our_row(0, longer=9, passes=[[vote(1)], 4])])
    assert len(told(VL, file).splitlines()) == 2


def test_a_repeated_row(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", [our_row(0), our_row(1), our_row(0)])
    assert "line 3, index: row 0 appears twice" in told(VL, file)


def test_our_rows_in_any_order_belong_to_the_data(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [vl_row(i, image="a.png") for i in range(3)])
    rows = load_suite(VL, data, allow_partial=True, check_media=False)
    keys = [row.key for row in rows.rows()]
    lines = [our_row(i, key=keys[i]) for i in (2, 0)]
    assert [one.index for one in read(VL, tmp_path, lines, rows=rows)] == [2, 0]
    other = write_lines(tmp_path / "p.jsonl", [our_row(1)])
    assert "line 1, key: does not match row 1" in told(VL, other, rows=rows)
    beyond = write_lines(tmp_path / "p.jsonl", [our_row(3)])
    assert "line 1, index: is 3, but --data has 3 rows (0 to 2)" in told(VL, beyond, rows=rows)


def test_tally_of_a_run_folder(tmp_path: Path) -> None:
    write_lines(tmp_path / "predictions.jsonl", [our_row(i) for i in range(3)])
    (tmp_path / "run.json").write_text('{"suite": "vl-rewardbench"}')
    assert len(tally_run(tmp_path)) == 3
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(UserError, match=r"run\.json: not"):
        tally_run(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        tally_run(tmp_path)


# ---- joined with the benchmark's rows


def test_rows_supply_what_the_file_lacks(tmp_path: Path) -> None:
    row = vl_row(0, "RLHF-V-1", chosen="long answer", rejected="short")
    data = [row, {**row, "chosen": "short", "rejected": "long answer"}]
    rows = load_suite(VL, write(tmp_path / "data.jsonl", data), allow_partial=True, check_media=False)
    predictions = [{"id": "RLHF-V-1", "rewards": [1, 0]}] * 2
    found = read(VL, tmp_path, predictions, rows=rows)
    assert [(one.category, one.paper_category, one.longer) for one in found] == [
        ("hallucination", "general", 1), ("hallucination", "general", -1),
    ]  # fmt: skip
    assert all(one.issue is not None and "contradicts" in one.issue for one in found)
    (alone,) = read(VL, tmp_path, predictions[:1], rows=rows)  # different row counts: positions are unknown
    assert (alone.category, alone.longer, alone.issue) == ("hallucination", None, None)


def test_rows_know_the_category_behind_an_absolute_path(tmp_path: Path) -> None:
    row = {"id": "a", "image": "mcq/1.png", "prompt": "p", "chosen": "c", "rejected": "r"}
    rows = load_suite(MM, write(tmp_path / "data.jsonl", [row]), allow_partial=True, check_media=False)
    (outcome,) = read(MM, tmp_path, [{"id": "a", "image": "/data/long/mcq/1.png", "rewards": [1, 0]}], rows=rows)
    assert (outcome.category, outcome.longer) == ("mcq", 0)


def test_preferred_second_in_the_data(tmp_path: Path) -> None:
    data = [mrb_row(0, Better="Output2", Output1="long one", Output2="short")]
    rows = load_suite(MRB, write(tmp_path / "data.jsonl", data), allow_partial=True, check_media=False)
    (outcome,) = read(MRB, tmp_path, [{"ID": "MMBench_0", "Label": "B", "output": "[[B]]"}], rows=rows)
    assert (outcome.category, outcome.longer, outcome.passes[0][0].correct) == ("vqa", -1, True)


# ---- files and formats


def test_formats(tmp_path: Path) -> None:
    for suite, row, format in ((VL, our_row(), "ours"), (VL, {"id": "a", "rewards": [1, 0]}, "r1_reward"),
                               (MRB, official(), "official")):  # fmt: skip
        assert detect_format(suite, write_lines(tmp_path / "p.jsonl", [row])) == format
        assert detect_format(suite, write_lines(tmp_path / "p.jsonl", [dict(reversed(row.items()))])) == format


def test_no_format(tmp_path: Path) -> None:
    assert "line 1: a row has key and passes (ours)" in told(VL, write_lines(tmp_path / "p.jsonl", [vl_row(1)]))
    both = {**our_row(), "rewards": [1, 0]}
    assert "has the fields of both ours and r1_reward" in told(VL, write_lines(tmp_path / "p.jsonl", [both]))
    for row in (7, None, "text", [1]):
        assert "line 1" in told(VL, write_lines(tmp_path / "p.jsonl", [row, row])) or row == [1]
    file = write_lines(tmp_path / "p.jsonl", [official()])
    assert "is a row of Multimodal RewardBench's scripts" in told(VL, file)
    multimodal = write_lines(tmp_path / "p.jsonl", [{"ID": "a", "rewards": [1, 0]}])
    assert "line 1, id: is missing" in told(VL, multimodal)


@pytest.mark.parametrize("row", [our_row(), {"id": "a"}, {"id": "a", "reward": [1, 0]}, 7, [], None])
def test_a_line_of_another_format(tmp_path: Path, row: Any) -> None:
    file = write_lines(tmp_path / "p.jsonl", [{"id": "a", "rewards": [1, 0]}, row, {"id": "c", "rewards": [1, 0]}])
    assert "p.jsonl, line 2: the first row has the format 'r1_reward', this row has" in told(VL, file)


def r1(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id, "rewards": [1, 0], "critic": "ünï\u2028 \x85 " + id} for id in ids]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n  \n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
@pytest.mark.parametrize("escaped", [True, False])
def test_lines(tmp_path: Path, end: str, start: str, escaped: bool) -> None:
    rows = r1("né", "b", "c")
    text = start + end.join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    for last in ("", end):
        file = tmp_path / "predictions.txt"  # any ending
        file.write_bytes((text + last).encode())
        found = list(read_outcomes(VL, file))
        assert [one.id for one in found] == ["né", "b", "c"]
        assert [one.passes[0][0].characters for one in found] == [len(row["critic"]) for row in rows]


@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"ensure_ascii": False}])
def test_array(tmp_path: Path, options: dict[str, Any]) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps(r1("a", "b"), **options), encoding="utf-8-sig")
    assert list(read_outcomes(VL, file)) == read(VL, tmp_path, r1("a", "b"))


def test_fault_in_an_array(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('[{"id": "a", "rewards": [1, 0]},\n{"id": "b", "rewards": [1]}]')
    assert "p.json, row 2, rewards: must be two finite numbers" in told(VL, file)
    file.write_text('[{"id": "a", "rewards": [1, 0]} {"id": "b"}]')
    message = told(VL, file)
    assert "row 2: " in message
    assert "the file ends here" not in message


def test_every_truncation_is_noticed_or_leaves_whole_rows(tmp_path: Path) -> None:
    """A crash may cut a file anywhere, in the middle of a character too."""
    content = write_lines(tmp_path / "whole.jsonl", r1("aé", "b"), ensure_ascii=False).read_bytes()
    starts = [0, content.index(b"\n") + 1, len(content)]
    file = tmp_path / "p.jsonl"
    for end in range(1, len(content) + 1):
        file.write_bytes(content[:end])
        whole = [start for start in starts if end in (start, start - 1)]
        if whole:  # all of a line, at most its end is missing
            assert len(list(read_outcomes(VL, file))) == starts.index(whole[0])
            continue
        message = told(VL, file)
        assert "the file ends here. Resume the run that wrote it" in message
        assert f"line {2 if end > starts[1] else 1}: " in message


def test_cut_array(tmp_path: Path) -> None:
    text = json.dumps(r1("a", "b"))
    file = tmp_path / "p.json"
    for end in range(1, len(text)):
        file.write_text(text[:end])
        # After the end of a list in a row nothing tells a cut from a forgotten comma.
        assert ("the file ends here" in told(VL, file)) != text[:end].endswith("]")


def test_broken_line_that_is_not_the_last(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    lines = [json.dumps(row) for row in r1("a", "b", "c")]
    for text in (f"{lines[0]}\n{lines[1][:9]}\n{lines[2]}", f"{lines[0]}\n{lines[1][:9]}\n"):
        file.write_text(text)
        message = told(VL, file)
        assert "p.jsonl, line 2: is not JSON" in message
        assert "the file ends here" not in message


def test_field_given_twice(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "a", "rewards": [1, 0], "rewards": [0, 1]}\n')
    assert "line 1: is not usable JSON: field 'rewards' is given twice" in told(VL, file)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"[]", b" [ ] \n"])
def test_no_rows(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes(content)
    assert "has no rows" in told(VL, file)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n\0\0", b"PAR1\x15\x04\xff\xfe", b"\0" * 50, b"\xff\xfe{\0", b"id,rewards\na,1\n", b"{"],
)
def test_no_text(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes(content)
    message = told(VL, file)
    assert ("the file ends here" in message) == (content == b"{")


def test_no_file(tmp_path: Path) -> None:
    write_lines(tmp_path / "predictions.jsonl", r1("a"))
    assert "Did you mean" in told(VL, tmp_path / "prediction.jsonl")
    assert "is a folder; pass a file in it" in told(VL, tmp_path)
    with pytest.raises(UserError, match="owner/name: no such file"):
        list(read_outcomes(VL, Path("owner/name")))  # and the Hub is not asked
    with pytest.raises(UserError, match="unknown benchmark"):
        read_outcomes("vl", tmp_path / "predictions.jsonl")


def test_errors_are_raised_before_the_first_row_is_requested(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        read_outcomes(VL, tmp_path / "none.jsonl")


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes_give_rows_or_a_message(tmp_path_factory: Any, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError):
        list(read_outcomes(VL, file))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    suite=st.sampled_from([VL, MRB, MM, "pairs"]),
    row=st.sampled_from([our_row(), official(), {"id": "a", "rewards": [1, 0], "image": "mcq/1"}, mrb_row(1)]),
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_any_value_in_a_field_gives_votes_or_a_message(
    tmp_path_factory: Any, suite: str, row: dict[str, Any], data: st.DataObject
) -> None:
    changed = {**row, data.draw(st.sampled_from(sorted(row))): data.draw(JSON)}
    file = write_lines(tmp_path_factory.getbasetemp() / "any.jsonl", [changed])
    try:
        found = list(read_outcomes(suite, file))
    except UserError as error:
        str(error).encode()  # any terminal can print it
        assert str(file) in str(error)
    else:
        assert all(isinstance(one, Outcome) for one in found)


def test_a_file_is_not_held_in_memory(tmp_path: Path) -> None:
    text = "word " * 400
    file = write_lines(tmp_path / "p.jsonl", [{**row, "critic": text} for row in r1(*map(str, range(2000)))])
    for _ in read_outcomes(VL, file):  # imports and caches
        break
    tracemalloc.start()
    assert sum(1 for _ in read_outcomes(VL, file)) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * file.stat().st_size
