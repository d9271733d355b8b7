"""Files of VL-RewardBench's script, VLMEvalKit, lmms-eval and r1_reward with texts: votes, orders, unknowns."""

import csv
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_rows import (
    NOT_SAID,
    SAID,
    lmms_mrb_sample,
    lmms_mrb_samples,
    lmms_vl_sample,
    lmms_vl_samples,
    official_vote,
    official_votes,
    says,
    script_cal,
    vl_group,
    vlmevalkit_rows,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from official_rows import Row, mrb_row, vl_row, write
from prediction_rows import bare, mm_r1, our_row, vl_r1, write_lines

from r1_reward.bench import summary
from r1_reward.bench.file_kinds import looks_like
from r1_reward.bench.predictions import detect_format, read_file, read_outcomes
from r1_reward.bench.rows import Outcome, Vote
from r1_reward.bench.score import score_file
from r1_reward.bench.suites import load_suite
from r1_reward.bench.vl_predictions import read_text
from r1_reward.records.errors import UserError

VL, MRB, MM = "vl-rewardbench", "multimodal-rewardbench", "mm-rlhf-rewardbench"


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are tested elsewhere."""
    monkeypatch.setitem(summary.Tally.summary.__kwdefaults__, "resamples", 20)


def read(suite: str, folder: Path, lines: list[Any], **options: Any) -> list[Outcome]:
    return list(read_outcomes(suite, write_lines(folder / "p.jsonl", lines), **options))


def told(suite: str, file: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        score_file(suite, file, **options)
    assert str(file) in str(caught.value)
    return str(caught.value)


def share(rows: list[bool]) -> float:
    return sum(rows) / len(rows)


# ---- the texts


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Overall Judgment: Answer 1 is better.", "1"),
        ("**Overall Judgment**: **Answer 2** is\nslightly better", "2"),
        ("Therefore, Answer 2 is the better one. Therefore, Answer 1 is better.", "1"),
        ("THEREFORE ANSWER02 IS BETTER", "2"),
        ("Overall Judgment: Answer 3 is better", "3"),
        ("Answer 1 is better. Therefore I stop.", None),
        ("Overall Judgement: Answer 1 is better", None),
        ("Overall Judgment: Answer 1 is much better", None),
        ("Overall Judgment: Answer One is better", None),
        ("<answer>1</answer>", None),
        ("", None),
        ("<think>Therefore Answer 1 is better</think>Overall Judgment: Answer 2 is better", "2"),
        ("<think>Therefore Answer 1 is better. Or", None),
    ],
)
def test_verdict_of_a_text(text: str, number: str | None) -> None:
    assert read_text(text).number == number


@given(st.lists(st.sampled_from(
    ["overall judgment", "Therefore", "Answer", "1", "2", "3", " ", "\n", "*", "is", "the", "slightly", "better", "-",
     *SAID, *NOT_SAID]), max_size=12))  # fmt: skip
def test_verdict_is_that_of_the_slow_reading(parts: list[str]) -> None:
    number = says("".join(parts))
    assert read_text("".join(parts)).number == (None if number is None else str(number))


# ---- VL-RewardBench's own rows


@pytest.mark.parametrize(
    ("text", "ranking", "turned", "vote"),
    [
        (SAID[0].format(1), [0, 1], 0, (True, True)),
        (SAID[0].format(1), [0, 1], 1, (False, False)),
        (SAID[0].format(1), [1, 0], 0, (False, False)),
        (SAID[1].format(1), [1, 0], 1, (True, True)),
        (SAID[2].format(2), [0, 1], 1, (True, False)),
        (SAID[3].format(2), [1, 0], 1, (False, True)),
        (SAID[0].format(3), [0, 1], 0, (True, True)),
        (NOT_SAID[0], [0, 1], 1, (None, False)),
        ("<think>Therefore, Answer 1 is better", [0, 1], 0, (None, True)),
    ],
)  # fmt: skip
def test_one_official_vote(tmp_path: Path, text: str, ranking: Any, turned: int, vote: Any) -> None:
    (outcome,) = read(VL, tmp_path, [official_vote("RLHF-V-1", text, ranking, turned)])
    assert outcome == Outcome(
        0, "RLHF-V-1", ((Vote(*vote, characters=len(text)),),), "hallucination", "general",
        longer=-1 if ranking == [0, 1] else 1,
    )  # fmt: skip


@pytest.mark.parametrize(("status", "correct"), [("agree", True), ("reject", False), ("doesntMatch", None)])
def test_without_a_text_the_recorded_status_is_the_vote(tmp_path: Path, status: str, correct: bool | None) -> None:
    rows = [official_vote("mmmu_1", None, status=status), official_vote("mmmu_1", "Hm.", turned=None, status=status)]
    (outcome,) = read(VL, tmp_path, rows)
    assert outcome.passes == ((Vote(correct, True), Vote(correct, None, characters=3)),)
    reading = read_file(VL, tmp_path / "p.jsonl")
    assert reading.remarks == {"no text": 2}


def test_votes_of_an_item_are_pooled_from_any_line(tmp_path: Path) -> None:
    responses = official_vote()["response"]
    rows = [
        official_vote("a", SAID[0].format(1)),
        official_vote("b", SAID[0].format(1)),
        official_vote("a", SAID[0].format(1), [1, 0], response=responses[::-1]),  # the same two, stored turned round
        official_vote("a", SAID[0].format(1), response=["first", "another"]),
        official_vote("a", SAID[0].format(1), query="Another question?"),
        official_vote("b", SAID[0].format(2)),
    ]
    found = [(one.index, one.id, [vote.correct for vote in one.passes[0]]) for one in read(VL, tmp_path, rows)]
    assert found == [(0, "a", [True, False]), (1, "b", [True, False]), (2, "a", [True]), (3, "a", [True])]


@pytest.mark.parametrize(("k", "seed", "third"), [(10, 1, 0.0), (9, 2, 0.1), (3, 3, 0.0)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_votes_are_those_that_the_script_counts(tmp_path: Path, k: int, seed: int, third: float, wrapped: bool) -> None:
    rows = official_votes(k, seed, third=third)
    random.Random(seed).shuffle(rows)
    lines: list[Any] = rows
    if wrapped:
        rows = [None if number % 50 == 7 else row for number, row in enumerate(rows)]
        lines = [{"0": row} for row in rows]
    file = write_lines(tmp_path / "votes.jsonl", lines)
    ks = tuple(k for k in (1, 3, 5, 7, 9) if k <= len(rows) // 1250)
    for drawn, items in script_cal(rows, ks).items():
        counts = read_file(VL, file, votes=drawn).tally.counts()
        parts = (counts.right, counts.wrong, counts.unreadable)
        found = Counter(map(tuple, np.stack([part.sum(axis=(1, 2)) for part in parts], axis=1).tolist()))
        assert found == Counter(map(tuple, items.values()))
    whole = Counter(tuple(item) for item in script_cal(rows, (10_000,))[10_000].values())
    counts = read_file(VL, file).tally.counts()
    parts = (counts.right, counts.wrong, counts.unreadable)
    assert Counter(map(tuple, np.stack([part.sum(axis=(1, 2)) for part in parts], axis=1).tolist())) == whole


def test_one_official_vote_is_scored_as_the_script_does(tmp_path: Path) -> None:
    rows = official_votes(10, seed=4)
    items = script_cal(rows, (1,))[1]
    scored = score_file(VL, write_lines(tmp_path / "votes.jsonl", rows), votes=1, rule="drop")
    agree, reject, _ = np.array(list(items.values())).sum(axis=0).tolist()
    assert (scored["overall"], scored["n"]) == (agree / (agree + reject), agree + reject)
    for name in ("general", "hallucination", "reasoning"):
        mine = np.array([item for id, item in items.items() if vl_group(id) == name]).sum(axis=0).tolist()
        assert scored["categories"][name]["accuracy"] == mine[0] / (mine[0] + mine[1])
    assert (scored["format"], scored["orders"], scored["votes"]) == ("official-votes", "random", 1)
    assert (scored["rows"], scored["complete"]) == (1250, True)
    assert scored["parse_rate"] == (agree + reject) / 1250


def test_remarks_on_official_rows_are_reported(tmp_path: Path) -> None:
    rows = [
        official_vote("a", SAID[0].format(3), status="agree"), official_vote("a", SAID[0].format(1), status="reject"),
        official_vote("b", SAID[0].format(2), status="reject"),
        official_vote("b", "<think>Therefore Answer 1 is better", status="agree"),
        official_vote("c", None, status="agree"),
    ]  # fmt: skip
    notes = " ".join(score_file(VL, write_lines(tmp_path / "a.jsonl", rows), allow_partial=True)["notes"])
    assert "1 items have fewer votes" in notes
    assert "1 votes have no text" in notes
    assert "1 texts contradict their flag_status" in notes
    assert "1 votes are for an answer that is neither 1 nor 2" in notes
    assert "1 texts have a verdict only in an unclosed thought" in notes
    assert "--rule drop --votes K" in notes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": 7}, "id: must be text, not a number"),
        ({"query": None}, "query: is missing"),
        ({"response": ["one"]}, "response: must be a list of two texts"),
        ({"ranking": [0, 0]}, "ranking: must be [0, 1] or [1, 0], not [0, 0]"),
        ({"ranking": []}, "ranking: must be"),
        ({"text": 5}, "meta.filter_choice: must be text, not a number"),
        (
            {"text": None, "status": "Agree"},
            'meta.flag_status: must be agree, reject, doesntMatch, not "Agree"; without',
        ),
        ({"text": None, "status": ["agree"]}, "meta.flag_status: must be agree, reject, doesntMatch, not"),
        ({"turned": 2}, "meta.random_number: must be 0 or 1, not 2"),
        ({"turned": None}, "meta.flag_status: is missing; without the order (random_number)"),
        ({"meta": {"filter_choice": "x"}}, "meta.flag_status: is missing"),
        ({"meta": {}}, "the first row has the format 'official-votes', this row has another one"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_bad_official_rows(tmp_path: Path, changes: Row, problem: str, wrapped: bool) -> None:
    rows: list[Any] = [official_vote("a", SAID[0].format(1)), official_vote(**({"id": "a", "text": "x"} | changes))]
    rows = [{"0": row} for row in rows] if wrapped else rows
    message = told(VL, write_lines(tmp_path / "a.jsonl", rows))
    assert "a.jsonl, line 2" in message
    assert problem in message


def test_votes_that_cannot_be_drawn(tmp_path: Path) -> None:
    two = [official_vote("a", SAID[0].format(1))] * 2
    assert "no item has more than 2" in told(VL, write_lines(tmp_path / "a.jsonl", two), votes=3)
    for rows in (bare(vl_r1()), [our_row(number) for number in range(3)]):
        assert "requires a file with one vote per line" in told(VL, write_lines(tmp_path / "a.jsonl", rows), votes=3)
    assert "has no votes" in told(VL, write_lines(tmp_path / "a.jsonl", [{"0": None}]))


def test_items_are_joined_with_the_benchmarks_rows(tmp_path: Path) -> None:
    data = [vl_row(number, f"RLHF-V-{number}", chosen="same", rejected="same") for number in range(3)]
    rows = load_suite(VL, write(tmp_path / "data.jsonl", data), allow_partial=True, check_media=False)
    votes = [official_vote(row["id"], SAID[0].format(1)) for row in data for _ in range(4)]
    found = read(VL, tmp_path, votes, rows=rows)
    assert [one.longer for one in found] == [0, 0, 0]
    assert all(one.issue for one in found)
    with pytest.raises(UserError, match=r"line 1: its id is 'RLHF-V-2', but row 0 of --data has 'RLHF-V-0'"):
        read(VL, tmp_path, votes[::-1], rows=rows)


# ---- VLMEvalKit


def table(file: Path, rows: list[Row]) -> Path:
    """As VLMEvalKit writes it: every cell in quotes, or a sheet of a workbook, or indented records."""
    names = list(rows[0])
    if file.suffix == ".xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for line in (names, *(list(row.values()) for row in rows)):
            book.active.append(line)
        book.save(file)
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows, indent=4, ensure_ascii=False), encoding="utf-8")
    else:
        with file.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened, delimiter="\t" if file.suffix == ".tsv" else ",", quoting=csv.QUOTE_ALL)
            writer.writerows([names, *(row.values() for row in rows)])
    return file


@pytest.mark.parametrize("suffix", [".xlsx", ".csv", ".tsv", ".json"])
@pytest.mark.parametrize("seed", [1, 2])
def test_scores_of_vlmevalkit(tmp_path: Path, suffix: str, seed: int) -> None:
    rows = vlmevalkit_rows(seed, as_text=suffix != ".json")
    file = table(tmp_path / f"judge_VL-RewardBench_gpt{suffix}", rows)
    scored = score_file(VL, file)
    assert scored["overall"] == share([row["score"] == 1 for row in rows])
    for name in ("general", "hallucination", "reasoning"):
        mine = [row["score"] == 1 for row in rows if row["category"] == name]
        assert (scored["categories"][name]["accuracy"], scored["categories"][name]["n"]) == (share(mine), len(mine))
    readable = [row for row in rows if says(row["prediction"]) is not None]
    assert scored["parse_rate"] == len(readable) / 1250
    dropped = score_file(VL, file, rule="drop")
    assert (dropped["overall"], dropped["n"]) == (share([row["score"] == 1 for row in readable]), len(readable))
    assert scored["rules"]["drop"] == dropped["rules"]["drop"]
    assert (scored["format"], scored["complete"]) == ("vlmevalkit-scores", True)
    assert scored["orders"] == "by length parity"
    notes = " ".join(scored["notes"])
    assert f"{1250 - len(readable):,} have no verdict in its format, and 0 contradict the score" in notes
    assert looks_like(file)[0].command == f"r1-reward bench score vl-rewardbench {file}"


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_predictions_of_vlmevalkit_before_it_scores(tmp_path: Path, suffix: str) -> None:
    scored_rows = vlmevalkit_rows(3)
    rows = vlmevalkit_rows(3, score=False, as_text=suffix != ".json")
    scored = score_file(VL, table(tmp_path / f"a{suffix}", rows))
    right = [row["score"] == 1 and says(row["prediction"]) is not None for row in scored_rows]
    assert (scored["overall"], scored["format"]) == (share(right), "vlmevalkit")
    assert scored["parse_rate"] == share([says(row["prediction"]) is not None for row in rows])


def vlm_row(**changes: Any) -> Row:
    row = {"index": 4, "question": "Which?", "response": "['ab', 'c']", "answer": "[0, 1]", "category": "General",
           "prediction": "Therefore Answer 2 is better"}  # fmt: skip
    return {**row, **changes}


@pytest.mark.parametrize(
    ("changes", "vote"),
    [
        ({}, (True, False)),  # three characters: turned round
        ({"answer": "[1, 0]"}, (False, True)),
        ({"response": "['abc', 'c']"}, (False, True)),
        ({"response": ["abc", "c"], "answer": [1, 0]}, (True, False)),
        ({"human_ranking": "[1,0]"}, (False, True)),  # goes before answer, which may be another table's
        ({"human_ranking": "", "prediction": "no"}, (None, False)),
        ({"prediction": "Therefore Answer 3 is better"}, (None, False)),
        ({"prediction": None}, (None, False)),
        ({"prediction": float("nan")}, (None, False)),
    ],
)
def test_a_row_of_vlmevalkit(tmp_path: Path, changes: Row, vote: Any) -> None:
    (outcome,) = read(VL, tmp_path, [vlm_row(**changes)])
    assert (outcome.id, outcome.category, outcome.paper_category) == ("0", "general", None)
    assert outcome.passes[0][0][:2] == vote
    (named,) = read(VL, tmp_path, [vlm_row(id="mmmu_7", **{**changes, "category": None})])
    assert (named.id, named.category, named.paper_category) == ("mmmu_7", "reasoning", "reasoning")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"response": "['ab', 'c'"}, "response: must be a list of two texts"),
        ({"response": "[" * 9999}, "response: must be a list of two texts"),
        ({"response": None}, "response: is missing"),
        ({"answer": "A"}, 'answer: must be [0, 1] or [1, 0], not "A"'),
        ({"category": "sport"}, "category: 'sport' is not a category of VL-RewardBench"),
        ({"score": 0.5}, "score: must be 1 or 0, not 0.5"),
        ({"score": "Unknown"}, 'score: must be 1 or 0, not "Unknown"'),
        ({"score": ""}, "score: must be 1 or 0"),
        ({"score": True}, "score: must be 1 or 0"),
        ({"score": None}, "score: must be 1 or 0, not null"),
    ],
)
def test_bad_rows_of_vlmevalkit(tmp_path: Path, changes: Row, problem: str) -> None:
    good = vlm_row(score="1.0") if "score" in changes else vlm_row()
    message = told(VL, write_lines(tmp_path / "a.jsonl", [good, vlm_row(**changes)]))
    assert "a.jsonl, line 2" in message
    assert problem in message


def test_rows_without_ids_are_verified_by_their_lengths(tmp_path: Path) -> None:
    data = [vl_row(0, chosen="ab", rejected="c"), vl_row(1, chosen="a", rejected="bcd")]
    rows = load_suite(VL, write(tmp_path / "data.jsonl", data), allow_partial=True, check_media=False)
    table = [vlm_row(category=None), vlm_row(category=None, response="['a', 'bcd']")]
    assert [one.id for one in read(VL, tmp_path, table, rows=rows)] == [row["id"] for row in data]
    with pytest.raises(UserError, match="differ in length from row 0 of --data"):
        read(VL, tmp_path, table[::-1], rows=rows)


# ---- lmms-eval


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_samples_of_lmms_eval_on_vl_rewardbench(tmp_path: Path, seed: int) -> None:
    rows = lmms_vl_samples(seed)
    file = write_lines(tmp_path / "1_samples_vl_rewardbench.jsonl", rows)
    scored, dropped = score_file(VL, file), score_file(VL, file, rule="drop")
    readable = [row for row in rows if says(row["filtered_resps"]) is not None]
    right = sum(row["vlreward_score"]["score"] == 1 for row in readable)
    assert (scored["overall"], scored["parse_rate"]) == (right / 1250, len(readable) / 1250)
    assert (dropped["overall"], dropped["n"]) == (right / len(readable), len(readable))
    own = [share([row["vlreward_score"]["score"] == 1 for row in rows if row["vlreward_score"]["category"] == name])
           for name in ("general", "hallucination", "reasoning")]  # fmt: skip
    assert f"macro {100 * sum(own) / 3:.2f} % (the one it prints)" in " ".join(scored["notes"])
    assert f"{1250 - len(readable):,} texts have no verdict" in " ".join(scored["notes"])
    assert scored["complete"] is True
    assert looks_like(file)[0].what == "predictions of lmms-eval"


@pytest.mark.parametrize("responses", [["ab", "c"], ["abc", "d"], ["", "é" * 7], ["ab\n\nAnswer 2: x", "c"]])
@pytest.mark.parametrize("ranking", [[0, 1], [1, 0]])
@pytest.mark.parametrize("text", [SAID[0].format(1), SAID[1].format(2), SAID[0].format(3), "neither"])
def test_a_sample_tells_place_and_lengths(tmp_path: Path, responses: list[str], ranking: Any, text: str) -> None:
    (outcome,) = read(VL, tmp_path, [lmms_vl_sample(7, "wildvision-battle-1", responses, ranking, text)])
    (vote,) = outcome.passes[0]
    turned = sum(map(len, responses)) % 2 == 1
    first = (ranking == [0, 1]) != turned
    number = says(text)
    assert vote == Vote(None if number is None else number == (1 if first else 2), first, characters=len(text))
    good, bad = responses[ranking.index(0)], responses[ranking.index(1)]
    plain = "Answer 2" not in "".join(responses)
    assert outcome.longer == ((len(good) > len(bad)) - (len(good) < len(bad)) if plain else None)
    assert (outcome.index, outcome.category) == (7, "general")


@pytest.mark.parametrize("changes", [{"input": None}, {"input": "What?"}, {"target": "?"}])
def test_a_sample_without_a_prompt_still_has_its_vote(tmp_path: Path, changes: Row) -> None:
    rows = [
        lmms_vl_sample(n, "mmmu_1", ["ab", "c"], [0, 1], text, **changes)
        for n, text in enumerate((SAID[0].format(2), "?"))
    ]
    first, second = (one.passes[0][0] for one in read(VL, tmp_path, rows))
    assert first[:2] == (True, False)
    assert second[:2] == (None, None)


@pytest.mark.parametrize("seed", [1, 2])
def test_samples_of_lmms_eval_on_multimodal_rewardbench(tmp_path: Path, seed: int) -> None:
    rows = lmms_mrb_samples(seed)
    file = write_lines(tmp_path / "a.jsonl", rows)
    scored = score_file(MRB, file)
    name = "multimodal_rewardbench_accuracy"
    readable = [row for row in rows if "[[" in row["filtered_resps"]]
    right = [bool(row[name]["score"]) for row in readable]
    assert (scored["overall"], scored["parse_rate"]) == (sum(right) / 4711, len(readable) / 4711)
    assert score_file(MRB, file, rule="drop")["overall"] == share(right)
    own = share([bool(row[name]["score"]) for row in rows])
    assert f"its own score with these: {100 * own:.2f} %" in " ".join(scored["notes"])
    assert (scored["orders"], scored["complete"]) == ("stored", True)
    assert scored["categories"]["safety/bias"]["n"] == 508
    longer = [row["target"] == "Output1" for row in rows]
    assert scored["baselines"]["longer"]["overall"] == share(longer)
    assert looks_like(file)[0].command == f"r1-reward bench score multimodal-rewardbench {file}"


def test_samples_are_joined_by_their_own_numbers(tmp_path: Path) -> None:
    data = [mrb_row(number, Better="Output2", Output1="long one", Output2="short") for number in range(4)]
    rows = load_suite(MRB, write(tmp_path / "data.jsonl", data), allow_partial=True, check_media=False)
    samples = [lmms_mrb_sample(number, "vqa", f"MMBench_{number}", "[[B]]", "Output2", input=None) for number in (3, 1)]
    found = read(MRB, tmp_path, samples, rows=rows)
    assert [(one.index, one.longer, one.passes[0][0].correct) for one in found] == [(3, -1, True), (1, -1, True)]
    with pytest.raises(UserError, match="its id is 'MMBench_3', but row 2 of --data has 'MMBench_2'"):
        read(MRB, tmp_path, [{**samples[0], "doc_id": 2}], rows=rows)
    with pytest.raises(UserError, match="is row 4 of the benchmark, but --data has 4 rows"):
        read(MRB, tmp_path, [{**samples[0], "doc_id": 4}], rows=rows)
    # lmms-eval appends to a file that is there.
    with pytest.raises(UserError, match="line 3: row 3 of the benchmark appears twice"):
        read(MRB, tmp_path, [*samples, samples[0]])


def test_several_responses_of_a_sample(tmp_path: Path) -> None:
    rows = [lmms_mrb_sample(0, "vqa", "V", ["[[A]]", "[[B]]"], "Output1")]
    file = write_lines(tmp_path / "a.jsonl", rows)
    scored = score_file(MRB, file, allow_partial=True)
    assert (scored["overall"], scored["votes"]) == (1.0, 1)
    assert any("1 rows have several responses" in note for note in scored["notes"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"filtered_resps": None}, "filtered_resps: is missing"),
        ({"filtered_resps": []}, "filtered_resps: must be text, or a list of texts, not []"),
        ({"filtered_resps": ["[[A]]", 3]}, "filtered_resps: must be text"),
        ({"doc_id": -1}, "doc_id: must be a non-negative integer, not -1"),
        ({"doc_id": "3"}, "doc_id: must be"),
        ({"input": ["x"]}, "input: must be text, not a list"),
    ],
)  # fmt: skip
def test_bad_samples(tmp_path: Path, changes: Row, problem: str) -> None:
    makers = (
        (VL, lambda number, **more: lmms_vl_sample(number, "mmmu_1", ["ab", "c"], [0, 1], SAID[0].format(1), **more)),
        (MRB, lambda number, **more: lmms_mrb_sample(number, "vqa", "V", "[[A]]", **more)),
    )
    for suite, make in makers:
        assert problem in told(suite, write_lines(tmp_path / "a.jsonl", [make(0), make(1, **changes)]))
        metric = next(name for name in make(0) if name.endswith(("_score", "_accuracy")))
        for field, value in (("score", 2), ("score", None), ("question_id", 4), ("category", None)):
            scored = {**make(1)[metric], field: value}
            message = told(suite, write_lines(tmp_path / "a.jsonl", [make(0), make(1, **{metric: scored})]))
            assert f"line 2, {metric}.{field}: " in message
    assert 'target: must be "Output1" or "Output2"' in told(
        MRB, write_lines(tmp_path / "a.jsonl", [lmms_mrb_sample(0, "vqa", "V", "[[A]]", target="A")])
    )
    assert "'sport' is not a category" in told(
        MRB, write_lines(tmp_path / "a.jsonl", [lmms_mrb_sample(0, "sport", "V", "[[A]]")])
    )


def test_a_file_on_another_benchmark_is_named_by_its_writer(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [lmms_mrb_sample(0, "vqa", "V", "[[A]]")])
    assert "is a row of lmms-eval (multimodal-rewardbench), not vl-rewardbench" in told(VL, file)
    file = write_lines(tmp_path / "a.jsonl", [official_vote("a", "x")])
    assert "is a row of VL-RewardBench's scripts (vl-rewardbench), not mm-rlhf-rewardbench" in told(MM, file)


def test_formats_of_the_harnesses(tmp_path: Path) -> None:
    votes = write_lines(tmp_path / "votes.jsonl", [{"0": None}, {"0": official_vote("a", "x")}])
    assert detect_format(VL, votes) == "official-votes"
    assert looks_like(votes)[0].what == "predictions of VL-RewardBench's scripts"
    # The Hub's rows had a meta of their own once; they are no votes.
    row = {**official_vote("a", "x"), "human_ranking": [0, 1], "meta": "{}"}
    assert "line 1: a row has key and passes (ours)" in told(VL, write_lines(tmp_path / "a.jsonl", [row]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    row=st.sampled_from([
        official_vote("a", SAID[0].format(1)), vlm_row(), vlm_row(score=1), lmms_mrb_sample(0, "vqa", "V", "[[A]]"),
        lmms_vl_sample(0, "mmmu_1", ["ab", "c"], [0, 1], SAID[0].format(1)),
    ]),
    data=st.data(),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_value_in_a_field_gives_votes_or_a_message(tmp_path_factory: Any, row: Row, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(row)))
    value = data.draw(JSON)
    if isinstance(row[field], dict) and data.draw(st.booleans()):
        value = {**row[field], data.draw(st.sampled_from(sorted(row[field]))): value}
    file = write_lines(tmp_path_factory.getbasetemp() / "any.jsonl", [{**row, field: value}])
    try:
        found = list(read_outcomes(MRB if "multimodal_rewardbench_accuracy" in row else VL, file))
    except UserError as error:
        str(error).encode()
        assert str(file) in str(error)
    else:
        assert [type(one) for one in found] == [Outcome]


# ---- the texts of released rows


TEXTS = {
    "1": "<think>Response 1.</think><answer>1</answer>",
    "2": "<think>Response 2.</think><answer>2</answer>",
    "digit": "Response 2 is worse than Response 1",  # the script takes the last digit
    "float": "<think>.</think><answer>1.0</answer>",  # and a number that equals 1
    "draft": "<think>Perhaps <answer>2</answer>, no</think><answer>1</answer>",  # and the first tag
    "none": "I cannot say.",
    "tie": "<think>.</think><answer>0</answer>",
}
SCRIPT = {"1": [1, 0], "2": [0, 1], "digit": [1, 0], "float": [1, 0], "draft": [0, 1], "none": [0, 1], "tie": [0, 1]}
OURS = {"1": True, "2": False, "draft": True}  # all else is unreadable


def with_texts(rows: list[Row], seed: int, kinds: tuple[str, ...] = tuple(TEXTS)) -> tuple[list[Row], list[str]]:
    draw = random.Random(seed)
    drawn = draw.choices(kinds, [9 if kind in "12" else 1 for kind in kinds], k=len(rows))
    return [
        {**row, "critic": TEXTS[kind], "rewards": SCRIPT[kind]} for row, kind in zip(rows, drawn, strict=True)
    ], drawn


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("suite", "make"), [(VL, vl_r1), (MM, mm_r1)])
def test_released_rows_with_texts(tmp_path: Path, suite: str, make: Any, seed: int) -> None:
    rows, kinds = with_texts(make(), seed)
    file = write_lines(tmp_path / "r1.jsonl", rows)
    scored = score_file(suite, file)
    read = [OURS.get(kind) for kind in kinds]
    readable = [one for one in read if one is not None]
    assert scored["overall"] == share([row["rewards"] == [1, 0] for row in rows])
    assert scored["rules"]["wrong"]["overall"] == scored["overall"]
    assert scored["parse_rate"] == len(readable) / len(rows)
    dropped = score_file(suite, file, rule="drop")
    assert (dropped["overall"], dropped["n"], dropped["rule"]) == (share(readable), len(readable), "drop")
    assert dropped["rules"] == scored["rules"]
    coin = score_file(suite, file, rule="coin")
    heads = random.Random(123)
    flipped = [heads.random() < 0.5 if one is None else one for one in read]
    assert coin["overall"] == share(flipped)
    guessed, contrary = (sum(kind in names for kind in kinds) for names in (("digit", "float"), ("draft",)))
    for one in (scored, dropped, coin):
        notes = " ".join(one["notes"])
        assert "The rule wrong scores the file's own rewards" in notes
        assert f"disagree on {guessed + contrary:,}: in {guessed:,} the rewards are right although" in notes
        assert f"in {contrary:,} the text prefers the other response" in notes
        assert "does not distinguish unreadable" not in notes


def test_texts_and_rewards_that_agree(tmp_path: Path) -> None:
    rows, _ = with_texts(vl_r1(), 1, ("1", "2", "none"))
    notes = " ".join(score_file(VL, write_lines(tmp_path / "r1.jsonl", rows))["notes"])
    assert "The two agree on all of them" in notes


def test_unreadable_texts_leave_the_scores_unchanged(tmp_path: Path) -> None:
    some, _ = with_texts(vl_r1(), 1)
    some[7]["critic"] = None
    other_form = [{**row, "critic": "So [[A]]"} for row in vl_r1()]
    scalar = [{**row, "critic": TEXTS["1"], "rewards": [0.7, -1.2]} for row in vl_r1()]
    for rows in (some, other_form, scalar):
        scored = score_file(VL, write_lines(tmp_path / "r1.jsonl", rows), rule="drop")
        assert (scored["parse_rate"], scored["rule"], set(scored["rules"])) == (None, "wrong", {"wrong"})
        assert scored["overall"] == share([row["rewards"][0] > row["rewards"][1] for row in rows])
        assert any("does not distinguish unreadable verdicts from wrong ones" in note for note in scored["notes"])


def test_a_row_of_another_harness_is_named_once(tmp_path):
    rows = [*official_votes(1)[:3], *lmms_vl_samples()[:3]]
    file = tmp_path / "mixed.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError) as caught:
        score_file("vl-rewardbench", file)
    assert str(caught.value) == (
        f"{file}, line 4: the first row has the format 'official-votes', this row has 'lmms-eval-vl_rewardbench'."
    )
