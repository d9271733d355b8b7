"""Incomplete and duplicate groups are reported before anything is judged, and never scored by accident."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from official_files import edit_reward_bench, mr2_bench, reward_bench_2

from r1_reward.bench.suites import SuiteFileError, load_suite


def edited(file: Path, edit: Any) -> None:
    table = pq.read_table(file)
    rows = table.to_pylist()
    pq.write_table(type(table).from_pylist(edit(rows), table.schema), file)


@pytest.mark.parametrize("id", ["7", "same"])
def test_two_prompts_of_a_subset_must_not_share_an_id(tmp_path, id):
    reward_bench_2(tmp_path, rows=4)
    (file,) = (tmp_path / "data").glob("*.parquet")
    edited(file, lambda rows: [row | {"id": id} if n in (1, 2) else row for n, row in enumerate(rows)])
    with pytest.raises(SuiteFileError, match=rf"row 3: the group '{id}' is also in row 2: keep one of them"):
        load_suite("rewardbench-2", tmp_path, allow_partial=True)


def test_a_repeated_prompt_is_refused(tmp_path):
    reward_bench_2(tmp_path, rows=4)
    (file,) = (tmp_path / "data").glob("*.parquet")
    edited(file, lambda rows: [*rows, rows[0]])
    with pytest.raises(SuiteFileError, match="is also in .*row 1"):
        load_suite("rewardbench-2", tmp_path, allow_partial=True)


@pytest.mark.parametrize(
    "edit",
    [lambda rows: [row | {"id": "same"} for row in rows], lambda rows: [*rows, rows[0]]],
    ids=["one id for all", "the same group again"],
)
@pytest.mark.parametrize("task", ["image", "video"])
def test_groups_of_four_answers_need_unique_ids(tmp_path, task, edit):
    mr2_bench(tmp_path, rows=3)
    file = tmp_path / f"{task}.json"
    file.write_text(json.dumps(edit(json.loads(file.read_text()))))
    with pytest.raises(SuiteFileError, match="the group .* is also in .*row 1"):
        load_suite("mr2bench", tmp_path, allow_partial=True)


def test_the_same_id_in_another_task_is_another_group(tmp_path):
    mr2_bench(tmp_path, rows=3)
    for task in ("image", "video"):
        file = tmp_path / f"{task}.json"
        file.write_text(json.dumps([row | {"id": n} for n, row in enumerate(json.loads(file.read_text()))]))
    assert load_suite("mr2bench", tmp_path, allow_partial=True).units == 6


def again(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    better, sign, worse = rows[0]["ranking"]
    return [*rows, rows[0] | {"ranking": worse + sign + better}]


def tied(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0] | {"ranking": rows[0]["ranking"].replace(">", "=")}, *rows[1:]]


@pytest.mark.parametrize("part", ["3pair", "4pair"])
@pytest.mark.parametrize(
    ("edit", "ties"),
    [(again, None), (lambda rows: rows[1:], None), (tied, "drop"), (lambda rows: [rows[1], *rows[1:]], None)],
    ids=["labelled twice", "one is missing", "a tie is left out", "one instead of another"],
)
def test_edits_with_missing_comparisons_are_named(tmp_path, part, edit, ties):
    edit_reward_bench(tmp_path, rows=2)
    file = min(file for file in (tmp_path / part).glob("*.parquet") if pq.read_table(file).num_rows)
    first = pq.read_table(file).to_pylist()[0]["id"].split("_")[0]
    edited(file, edit)
    ties = ties or "judge"
    note = f"Groups without exactly one row for each of their comparisons: 1 ({first}). "
    assert any(
        one.startswith(note) for one in load_suite("editreward-bench", tmp_path, allow_partial=True, ties=ties).notes
    )


def test_complete_groups_and_single_comparisons_need_no_note(tmp_path):
    edit_reward_bench(tmp_path, rows=2)
    (file,) = (tmp_path / "2pair").glob("*.parquet")
    edited(file, lambda rows: [*rows, rows[0]])
    loaded = load_suite("editreward-bench", tmp_path, allow_partial=True)
    assert not any("exactly one row" in note for note in loaded.notes)
