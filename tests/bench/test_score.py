"""Scores of other projects' files equal those of their scripts to the last digit; nothing is made up."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_rows import Row, vl_official, write
from prediction_rows import (
    bare,
    mm_r1,
    mrb_outputs,
    mrb_r1,
    our_row,
    script_mm_rlhf,
    script_mrb,
    script_mrb_category,
    script_vl,
    verdicts,
    vl_r1,
    vote,
    write_lines,
)

from r1_reward.bench import summary
from r1_reward.bench.score import score_file
from r1_reward.records.errors import UserError


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are tested elsewhere."""
    defaults = summary.Tally.summary.__kwdefaults__
    monkeypatch.setitem(defaults, "resamples", 20)


def told(*args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        score_file(*args, **options)
    return str(caught.value)


# ---- the scripts, to the last digit


def check_vl(scored: dict[str, Any], rows: list[Row]) -> None:
    for grouping in ("official", "paper"):
        shares, micro, macro = script_vl(rows, grouping)
        found = scored["groupings"][grouping]
        assert {name: one["accuracy"] for name, one in found["categories"].items()} == shares
        assert scored["overall"] == micro
        # The order in which a script adds three numbers up moves the sixteenth digit; fmean rounds once.
        assert found["macro"] == fmean(shares.values()) == pytest.approx(macro, abs=3e-16)
    assert scored["categories"] == scored["groupings"]["official"]["categories"]
    assert scored["macro"] == scored["groupings"]["official"]["macro"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fields", ["all", "bare"])
def test_vl_rewardbench_equals_the_script(tmp_path: Path, seed: int, fields: str) -> None:
    rows = vl_r1(seed=seed)
    random.Random(seed).shuffle(rows)
    file = write_lines(tmp_path / "r1.jsonl", rows if fields == "all" else bare(rows))
    scored = score_file("vl-rewardbench", file)
    check_vl(scored, rows)
    assert {name: one["n"] for name, one in scored["categories"].items()} == {
        "general": 183, "hallucination": 749, "reasoning": 318,
    }  # fmt: skip
    assert {name: one["n"] for name, one in scored["groupings"]["paper"]["categories"].items()} == {
        "general": 484, "hallucination": 448, "reasoning": 318,
    }  # fmt: skip
    assert scored["expected"] == scored["n"] == scored["rows"] == 1250
    assert scored["complete"] is True


def test_published_row_comes_out_of_its_counts(tmp_path: Path) -> None:
    """R1-Reward's 71.92 is 309, 384 and 206 of 484, 448 and 318."""
    left = {"general": 309, "hallucination": 384, "reasoning": 206}
    rows = []
    for row in vl_official():
        id = row["id"]
        name = "reasoning" if id[:4] in ("math", "mmmu") else "hallucination" if id[:5] == "hallu" else "general"
        left[name] -= 1
        rows.append({"id": id, "rewards": [1, 0] if left[name] >= 0 else [0, 1]})
    scored = score_file("vl-rewardbench", write_lines(tmp_path / "r1.jsonl", rows))
    paper = scored["groupings"]["paper"]
    assert [round(100 * paper["categories"][name]["accuracy"], 2) for name in left] == [63.84, 85.71, 64.78]
    assert round(100 * scored["overall"], 2) == 71.92
    assert round(100 * paper["macro"], 2) == 71.45
    assert round(100 * scored["macro"], 2) != 71.45


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), keep=st.integers(40, 1249))
def test_vl_rewardbench_equals_the_script_on_a_part(tmp_path_factory: Any, seed: int, keep: int) -> None:
    rows = vl_r1(seed=seed)
    random.Random(seed).shuffle(rows)
    file = write_lines(tmp_path_factory.mktemp("part") / "r1.jsonl", rows[:keep])
    if keep != 1247:
        assert "1,250 or 1,247 rows" in told("vl-rewardbench", file)
    scored = score_file("vl-rewardbench", file, allow_partial=True)
    check_vl(scored, rows[:keep])
    assert scored["complete"] is (keep == 1247)


def check_mm(scored: dict[str, Any], rows: list[Row]) -> None:
    categories, accuracy, plus = script_mm_rlhf(rows)
    found = {
        name: (one["accuracy"], one["acc_plus"], one["n"]) for name, one in scored["categories"].items()
    }  # fmt: skip
    assert found == categories
    assert (scored["overall"], scored["acc_plus"]) == (accuracy, plus)


@pytest.mark.parametrize("right", [0.8, 0.95, 1.0, 0.0])
def test_mm_rlhf_equals_the_script(tmp_path: Path, right: float) -> None:
    rows = mm_r1(right)
    random.Random(3).shuffle(rows)
    scored = score_file("mm-rlhf-rewardbench", write_lines(tmp_path / "r1.jsonl", rows))
    check_mm(scored, rows)
    assert list(scored["categories"]) == ["mcq", "long", "short", "safety", "video"]
    assert [one["ids"] for one in scored["categories"].values()] == [10, 10, 10, 6, 10]
    assert scored["groupings"] == {}
    assert (scored["n"], scored["expected"], scored["complete"]) == (170, 170, True)


def test_mm_rlhf_equals_the_script_on_a_part_and_for_scores(tmp_path: Path) -> None:
    draw = random.Random(1)
    rows = mm_r1()
    for row in rows:
        row["rewards"] = draw.choice([[draw.gauss(0, 1), draw.gauss(0, 1)], [2, 2], [-3, -3.5], [1e300, -1e300]])
    rows = draw.sample(rows, 90)
    file = write_lines(tmp_path / "scores.jsonl", rows)
    assert "170 rows, but 90 were found" in told("mm-rlhf-rewardbench", file)
    scored = score_file("mm-rlhf-rewardbench", file, allow_partial=True)
    check_mm(scored, rows)
    assert scored["complete"] is False


def test_a_tie_is_wrong(tmp_path: Path) -> None:
    rows = [{**row, "rewards": [0.5, 0.5]} for row in mm_r1()]
    scored = score_file("mm-rlhf-rewardbench", write_lines(tmp_path / "r1.jsonl", rows))
    assert (scored["overall"], scored["acc_plus"]) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(2))
def test_multimodal_rewardbench_equals_the_script_with_its_coin(tmp_path: Path, seed: int) -> None:
    rows = mrb_outputs(seed)
    random.Random(seed).shuffle(rows)
    script = script_mrb(rows)
    file = write_lines(tmp_path / "official.jsonl", rows)
    scored = score_file("multimodal-rewardbench", file, rule="coin")
    assert scored["overall"] == scored["rules"]["coin"]["overall"] == script.pop("all")
    assert {name: one["accuracy"] for name, one in scored["categories"].items()} == script
    assert (scored["rows"], scored["expected"], scored["complete"]) == (4711, 4711, True)
    assert scored["format"] == "official"
    assert scored["orders"] == "stored"
    readable = sum("[[A]]" in row["output"] or "[[B]]" in row["output"] for row in rows)
    assert scored["parse_rate"] == readable / 4711
    assert scored["rules"]["drop"]["n"] == readable


def test_multimodal_rewardbench_equals_the_script_on_a_part(tmp_path: Path) -> None:
    rows = mrb_outputs()
    rows = random.Random(2).sample(rows, 600)
    scored = score_file(
        "multimodal-rewardbench", write_lines(tmp_path / "a.jsonl", rows), rule="coin", allow_partial=True
    )
    script = script_mrb(rows)
    assert scored["overall"] == script.pop("all")
    assert {name: one["accuracy"] for name, one in scored["categories"].items()} == script


def test_an_unreadable_output_is_wrong_unless_told_otherwise(tmp_path: Path) -> None:
    rows = mrb_outputs()
    right = sum(("A" if "[[A]]" in row["output"] else "B" if "[[B]]" in row["output"] else "") == row["Label"]
                for row in rows)  # fmt: skip
    scored = score_file("multimodal-rewardbench", write_lines(tmp_path / "a.jsonl", rows))
    assert scored["rule"] == "wrong"
    assert scored["overall"] == right / 4711
    dropped = score_file("multimodal-rewardbench", tmp_path / "a.jsonl", rule="drop")
    assert dropped["overall"] == right / dropped["n"]


def test_paper_size_of_multimodal_rewardbench(tmp_path: Path) -> None:
    toxic = [{"ID": f"memes_{i}", "Label": "A", "output": "[[A]]", "Meta": {"Category": "safety"}} for i in range(500)]
    rows = mrb_outputs() + toxic
    scored = score_file("multimodal-rewardbench", write_lines(tmp_path / "a.jsonl", rows), rule="coin")
    assert scored["categories"]["safety/toxicity"] | {"low": 0, "high": 0} == {
        "accuracy": 1.0, "n": 500, "low": 0, "high": 0,
    }  # fmt: skip
    assert scored["overall"] == script_mrb(rows)["all"]
    assert (scored["expected"], scored["complete"]) == (5211, True)


def test_released_rows_of_multimodal_rewardbench(tmp_path: Path) -> None:
    rows = mrb_r1()
    scored = score_file("multimodal-rewardbench", write_lines(tmp_path / "r1.jsonl", rows))
    by_name: dict[str, list[int]] = {}
    for row in rows:
        name = script_mrb_category(row["Category"], row["ID"])
        by_name.setdefault(name, []).append(row["rewards"] == [1, 0])
    assert {name: one["accuracy"] for name, one in scored["categories"].items()} == {
        name: sum(values) / len(values) for name, values in by_name.items()
    }
    assert scored["format"] == "r1_reward"


def test_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rows = mm_r1()
    before = score_file("mm-rlhf-rewardbench", write_lines(tmp_path / "r1.jsonl", rows))
    random.Random(1).shuffle(rows)
    assert score_file("mm-rlhf-rewardbench", write_lines(tmp_path / "r1.jsonl", rows)) == before


# ---- information that a file lacks


def test_limits_of_released_rows_are_reported(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "r1.jsonl", bare(vl_r1()))
    scored = score_file("vl-rewardbench", file, rule="coin")
    assert scored["parse_rate"] is None
    assert scored["rule"] == "wrong"
    assert set(scored["rules"]) == {"wrong"}
    assert scored["known_issues"]["n"] is None
    assert scored["baselines"]["longer"] is None
    assert scored["baselines"]["always_1"]["overall"] == 1.0
    assert scored["first_share"] == scored["overall"]
    assert scored["orders"] == "preferred-first"
    notes = " ".join(scored["notes"])
    assert "does not distinguish unreadable verdicts from wrong ones" in notes
    assert "a judge that always says 1 would score 100 %" in notes
    assert "which response is longer" in notes
    assert "categories" not in notes


def test_a_judge_that_always_says_1_is_named(tmp_path: Path) -> None:
    rows = [{**row, "rewards": [1, 0]} for row in vl_r1()]
    ones = score_file("vl-rewardbench", write_lines(tmp_path / "r1.jsonl", rows))
    assert ones["constant"] is None  # a perfect judge writes the same file
    assert any("one that always says 1" in note for note in ones["notes"])
    # Half of the made-up labels are B.
    outputs = [{**row, "output": "[[A]]"} for row in mrb_outputs()]
    scored = score_file("multimodal-rewardbench", write_lines(tmp_path / "a.jsonl", outputs))
    assert scored["constant"] == "always 1"
    assert scored["overall"] == scored["baselines"]["always_1"]["overall"] == pytest.approx(0.5, abs=1e-3)


def test_bare_rows_without_categories(tmp_path: Path) -> None:
    rows = mm_r1()
    file = write_lines(tmp_path / "r1.jsonl", bare(rows))
    scored = score_file("mm-rlhf-rewardbench", file)
    _, accuracy, plus = script_mm_rlhf(rows)
    assert (scored["overall"], scored["acc_plus"], scored["macro"]) == (accuracy, plus, None)
    assert scored["categories"] == {}
    assert scored["complete"] is True
    assert any("the categories" in note and "--data" in note for note in scored["notes"])
    # As many rows, but of one id fewer.
    for row in rows:
        row["id"] = row["id"].replace("0/mcq", "1/mcq")
    assert "all ids: 46 expected, 45 found" in told("mm-rlhf-rewardbench", write_lines(file, bare(rows)))


def test_data_supplies_what_the_file_leaves_out(tmp_path: Path) -> None:
    rows = mm_r1()
    for row in rows:
        row.setdefault("prompt", "Which?")
    released = write(tmp_path / "mm_reward_bench.jsonl", [{**row, "prompt": f"Q{i}"} for i, row in enumerate(rows)])
    whole = score_file("mm-rlhf-rewardbench", write_lines(tmp_path / "whole.jsonl", rows), data=released, name="x")
    part = score_file("mm-rlhf-rewardbench", write_lines(tmp_path / "bare.jsonl", bare(rows)), data=released, name="x")
    check_mm(part, rows)
    assert part["baselines"] == whole["baselines"]
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in rows)
    assert part["baselines"]["longer"]["overall"] == longer / 170
    assert not any("lacks the categories" in note or "longer" in note for note in part["notes"])
    for scored in (whole, part):
        for name in ("file", "mean_characters"):
            del scored[name]
    assert whole == part


def test_data_tells_known_issues(tmp_path: Path) -> None:
    data = vl_official()
    data[3]["rejected"] = data[3]["chosen"]
    released = write(tmp_path / "data.jsonl", data)
    rows = verdicts(data, 0.7)
    scored = score_file("vl-rewardbench", write_lines(tmp_path / "r1.jsonl", bare(rows)), data=released)
    assert scored["known_issues"]["n"] == 1
    assert scored["known_issues"]["rows"][0]["index"] == 3
    kept = [row["rewards"] == [1, 0] for i, row in enumerate(rows) if i != 3]
    assert scored["known_issues"]["without_them"] == {"overall": sum(kept) / 1249, "n": 1249}


def test_rows_of_another_version_do_not_join(tmp_path: Path) -> None:
    data = vl_official()
    rows = bare(verdicts(data, 0.7))
    shorter = write(tmp_path / "hub.jsonl", data[:-3])
    message = told("vl-rewardbench", write_lines(tmp_path / "r1.jsonl", rows), data=shorter)
    assert "The file has 1,250 rows, but --data" in message
    swapped = [rows[1], rows[0], *rows[2:]]
    file = write_lines(tmp_path / "swapped.jsonl", swapped)
    message = told("vl-rewardbench", file, data=write(tmp_path / "data.jsonl", data), allow_partial=True)
    assert "swapped.jsonl, line 1" in message
    assert "'hallucination_pair-1'" in message
    assert "'hallucination_pair-0'" in message


# ---- counts


def test_missing_rows_are_refused_and_the_script_is_blamed(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "r1.jsonl", bare(vl_r1())[:-1])
    message = told("vl-rewardbench", file)
    assert "has 1,250 or 1,247 rows, but 1,249 were found" in message
    assert "general: 183 expected, 182 found" in message
    assert "--allow-partial" in message
    assert "join all chunks" in message
    scored = score_file("vl-rewardbench", file, allow_partial=True)
    assert (scored["n"], scored["expected"], scored["complete"]) == (1249, 1250, False)
    assert "182 found" in scored["notes"][0]


def test_right_total_with_wrong_categories_is_refused(tmp_path: Path) -> None:
    rows = bare(vl_r1())
    rows[0]["id"] = "wildvision-battle-x"
    assert "hallucination: 749 expected, 748 found" in told("vl-rewardbench", write_lines(tmp_path / "a.jsonl", rows))


def test_some_rows_without_a_category_are_refused(tmp_path: Path) -> None:
    rows = mm_r1()
    del rows[5]["image"]
    file = write_lines(tmp_path / "a.jsonl", rows)
    assert "no category: 0 expected, 1 found" in told("mm-rlhf-rewardbench", file)
    scored = score_file("mm-rlhf-rewardbench", file, allow_partial=True)
    assert any("the categories of 1 rows" in note for note in scored["notes"])


def test_lost_rows_that_make_up_the_other_official_number(tmp_path: Path) -> None:
    rows = bare(vl_r1())
    rows[1]["id"] = rows[0]["id"]
    scored = score_file("vl-rewardbench", write_lines(tmp_path / "a.jsonl", rows[:-3]))
    assert scored["complete"] is True
    assert any("Three of its rows may be missing" in note for note in scored["notes"])


# ---- ours


def our_vl() -> list[Row]:
    rows = []
    for index, row in enumerate(vl_official()):
        id = row["id"]
        category = "reasoning" if id[:4] in ("math", "mmmu") else "general" if id[0] in "sw" else "hallucination"
        paper = category if id[:2] != "RL" else "general"
        preferred, answer = 1 + index % 2, (1, 2, 2, None)[index % 4]
        turned = None if index % 9 == 8 else answer
        rows.append(our_row(
            index, id=id, category=category, paper_category=paper, preferred=preferred,
            issue="odd" if index < 2 else None, passes=[[vote(answer)], [vote(turned, swapped=True)]],
        ))  # fmt: skip
    return rows


def test_our_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"suite": "vl-rewardbench", "orders": "both", "data": {"n": 1250}}')
    file = write_lines(tmp_path / "predictions.jsonl", our_vl())
    scored = score_file("vl-rewardbench", file)
    assert (scored["format"], scored["orders"], scored["name"]) == ("ours", "both", "predictions")
    correct = []
    for index in range(1250):
        answer = (1, 2, 2, None)[index % 4]
        turned = None if index % 9 == 8 else answer
        correct.append(((answer == 1 + index % 2) + (turned == 1 + index % 2)) / 2)
    assert scored["overall"] == sum(correct) / 1250
    unreadable = sum((i % 4 == 3) + (i % 4 == 3 or i % 9 == 8) for i in range(1250))
    assert scored["parse_rate"] == (2500 - unreadable) / 2500
    assert scored["groupings"]["paper"]["categories"]["general"]["n"] == 484
    assert scored["flip_rate"] == 0.0
    assert scored["known_issues"]["n"] == 2
    assert scored["mean_tokens"] == 7.0
    assert scored["mean_characters"] == 4.0
    assert scored["notes"] == []
    (tmp_path / "run.json").unlink()
    assert score_file("vl-rewardbench", file, name="mine") == {**scored, "orders": "unknown", "name": "mine"}


def test_run_json_must_fit(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "predictions.jsonl", our_vl())
    for text, reason in (
        ('{"suite": "pairs", "orders": "both"}', "is on 'pairs'"),
        ("{", "is not JSON"),
        ("[]", "has no orders"),
        ('{"suite": "vl-rewardbench"}', "has no orders"),
    ):
        (tmp_path / "run.json").write_text(text)
        assert reason in told("vl-rewardbench", file)


def test_pairs_have_no_official_size_but_a_run_knows_its_own(tmp_path: Path) -> None:
    rows = [our_row(i, category="shape", paper_category=None) for i in range(5)]
    file = write_lines(tmp_path / "predictions.jsonl", rows)
    scored = score_file("pairs", file)
    assert (scored["overall"], scored["expected"], scored["complete"]) == (1.0, None, True)
    (tmp_path / "run.json").write_text('{"suite": "pairs", "orders": "random", "data": {"n": 6}}')
    assert "The file has 5 rows, but the run.json next to it has 6" in told("pairs", file)
    scored = score_file("pairs", file, allow_partial=True)
    assert (scored["n"], scored["expected"], scored["complete"]) == (5, 6, False)
    (tmp_path / "run.json").write_text('{"suite": "pairs", "orders": "random", "limit": 5, "data": {"n": 5}}')
    scored = score_file("pairs", file)
    assert (scored["limit"], scored["size"], scored["complete"]) == (5, None, True)
    assert "Only a part of the benchmark was judged (`--limit 5`)." in scored["notes"]


def test_rows_with_different_numbers_of_passes_are_refused(tmp_path: Path) -> None:
    rows = [our_row(0), our_row(1, passes=[[vote(1)], [vote(1, swapped=True)]])]
    message = told("pairs", write_lines(tmp_path / "a.jsonl", rows))
    assert "a.jsonl: row 1" in message
    assert "1 passes" in message or "2 passes" in message


# ---- arguments and output


def test_the_object_is_json(tmp_path: Path) -> None:
    def walk(value: Any) -> None:
        assert not isinstance(value, float) or math.isfinite(value)
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(part)

    makers: list[tuple[str, Callable[[], list[Row]]]] = [
        ("vl-rewardbench", vl_r1), ("mm-rlhf-rewardbench", mm_r1), ("multimodal-rewardbench", mrb_outputs),
    ]  # fmt: skip
    for suite, make in makers:
        scored = score_file(suite, write_lines(tmp_path / "a.jsonl", make()))
        assert json.loads(json.dumps(scored, allow_nan=False)) == scored
        walk(scored)
        assert set(scored) >= {
            "suite", "name", "file", "format", "orders", "n", "expected", "complete", "notes", "overall", "macro",
            "acc_plus", "categories", "groupings", "intervals", "parse_rate", "baselines",
        }  # fmt: skip
        assert (scored["acc_plus"] is not None) == (suite == "mm-rlhf-rewardbench")
        for one in scored["categories"].values():
            assert {"accuracy", "n"} <= set(one)
            assert ("acc_plus" in one) == (suite == "mm-rlhf-rewardbench")


def test_wrong_arguments(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", bare(vl_r1()))
    assert "--data" in told("vl-rewardbench", file, image_root=tmp_path)
    assert "unknown rule" in told("multimodal-rewardbench", write_lines(tmp_path / "m.jsonl", mrb_outputs()), rule="x")
