"""Known and suspected rows are found in every copy of a benchmark, and none are dropped."""

from pathlib import Path

from official_rows import Row, hub_row, mm_row, mrb_row, vl_official, vl_row, write

from r1_reward.bench.suites import load_suite


def issues(name: str, tmp_path: Path, rows: list[Row]) -> dict[int, str]:
    suite = load_suite(name, write(tmp_path / "issues.jsonl", rows), allow_partial=True, check_media=False)
    assert {row.index: row.issue for row in suite.rows() if row.issue} == suite.issues
    assert suite.n == len(rows)  # none dropped
    return suite.issues


def test_rows_with_one_id_that_contradict_each_other(tmp_path: Path) -> None:
    same = {"prompt": "How long is AB?"}
    rows = [
        vl_row(0, "mathverse_7", **same, chosen="3", rejected="4"),
        vl_row(1, "mathverse_8", **same, chosen="4", rejected="3"),  # another id
        vl_row(2, "mathverse_7", **same, chosen="5", rejected="3"),
        vl_row(3, "mmmu_1-1", **same, chosen="13", rejected="14"),
        vl_row(4, "mmmu_1-2", **same, chosen="14", rejected="16"),
        vl_row(5, "mmmu_2", **same, chosen="8", rejected="9"),
        vl_row(6, "mmmu_2-1", **same, chosen="8", rejected="7"),  # no contradiction
        vl_row(7, "mmmu_3", **same, chosen="1", rejected="2"),
        vl_row(8, "mmmu_3", prompt="Another?", chosen="2", rejected="1"),  # another question
        vl_row(9, "RLAIF-V-1", **same, chosen="a", rejected="b"),
        vl_row(10, "RLAIF-V-2", **same, chosen="b", rejected="c"),  # endings of these are numbers of rows
    ]
    assert issues("vl-rewardbench", tmp_path, rows) == {
        0: "contradicts row 2: the response preferred here is rejected there",
        2: "contradicts row 0: the response rejected here is preferred there",
        3: "contradicts row 4: the response rejected here is preferred there",
        4: "contradicts row 3: the response preferred here is rejected there",
    }


def test_rows_repeated_under_another_id(tmp_path: Path) -> None:
    rows = [vl_row(0), vl_row(1, "wildvision-battle-1"), vl_row(0, "wildvision-battle-8"), vl_row(0, image="b.png")]
    assert issues("vl-rewardbench", tmp_path, rows) == {2: "repeats row 0", 3: "repeats row 0"}
    assert issues("vl-rewardbench", tmp_path, [hub_row(row, turned=i == 2) for i, row in enumerate(rows)]) == {
        2: "repeats row 0", 3: "repeats row 0",
    }  # fmt: skip


def test_listed_rows_of_vl_rewardbench(tmp_path: Path) -> None:
    rows = vl_official()
    for index, id in [
        (500, "mathverse_3489"),
        (501, "mathverse_3749-1"),
        (502, "mathverse_1063"),
        (503, "mathverse_1063"),
    ]:
        rows[index]["id"] = id
    rows[700]["id"] = "mmmu_pro_test_Marketing_150"
    questioned = "label questioned by the maintainers (VL_RewardBench issue 7)"
    expected = {500: questioned, 501: questioned, 700: questioned}
    wrong = {503: "label is wrong (VL_RewardBench issue 7)"}
    assert issues("vl-rewardbench", tmp_path, rows) == expected | wrong
    assert issues("vl-rewardbench", tmp_path, rows[:1247]) == expected
    corrected = [hub_row(row) for row in rows]
    corrected[503]["human_ranking"] = [1, 0]
    assert issues("vl-rewardbench", tmp_path, corrected) == expected


def test_reasons_are_joined(tmp_path: Path) -> None:
    rows = [vl_row(0, "mathverse_3489", chosen="A", rejected="A"), vl_row(1)]
    assert issues("vl-rewardbench", tmp_path, rows) == {
        0: "label questioned by the maintainers (VL_RewardBench issue 7); both responses are the same text"
    }


def test_issues_of_multimodal_rewardbench(tmp_path: Path) -> None:
    same = {"Text": "Describe.", "Better": "Output1"}
    correctness, preference = "open_generation/correctness_task", "open_generation/preference_task"
    rows = [
        mrb_row(0, "nocaps_1", correctness, **same, Output1="A", Output2="B"),
        mrb_row(1, "nocaps_1", correctness, **same, Output1="B", Output2="A"),
        mrb_row(2, "nocaps_2", correctness, **same, Output1="A", Output2="B"),
        mrb_row(3, "nocaps_2", preference, **same, Output1="B", Output2="A"),  # a matter of taste
        mrb_row(4, "nocaps_3", preference, **same, Output1="A", Output2="B"),
        mrb_row(5, "nocaps_3", preference, **same, Output1="B", Output2="C"),  # A over B over C
        mrb_row(6, "VisitBench_9", preference),
    ]
    found = issues("multimodal-rewardbench", tmp_path, rows)
    assert list(found) == [0, 1, 6]
    assert found[0] == "contradicts row 1: the other of the same two responses is preferred there"
    assert found[6].startswith("VisIT rows")


def test_an_order_of_three_is_not_a_contradiction_in_mm_rlhf_rewardbench(tmp_path: Path) -> None:
    pairs = ["AB", "BC", "AC", "CD", "DC"]
    rows = [mm_row(0, chosen=chosen, rejected=rejected) for chosen, rejected in pairs]
    assert list(issues("mm-rlhf-rewardbench", tmp_path, rows)) == [3, 4]
