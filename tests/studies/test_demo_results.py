"""benchmarks/demo_results.py: a run's row of the table, and the marks of the pages that it fills."""

from __future__ import annotations

import json

import demo_results


def test_committed_runs_are_the_rows_of_the_pages():
    found = sorted((demo_results.RESULTS).glob("demo-seed?.json"))
    rows = [demo_results.row_of(json.loads(file.read_text())) for file in found]
    assert len(rows) >= 3
    for page in ("README.md", "docs/demo.md"):
        text = (demo_results.ROOT / page).read_text()
        _, _, rest = text.partition("<!-- demo results -->\n")
        table = [line.strip("| ").split(" | ") for line in rest.partition("<!-- end -->")[0].splitlines()]
        assert table[0] == demo_results.HEADINGS
        assert len(table) >= 2 + 3
        assert [row for row in table[2:] if row in rows] == table[2:]


def test_a_row_names_both_groups():
    group = {"mean": 0.5, "low": 0.4, "high": 0.6}
    model = {"by_kind": {"explained": {"mean": 0.99}, "labels only": {"mean": 0.5}}}
    metrics = {
        "seed": 7,
        **dict.fromkeys(("sft", "control", "rl"), model),
        "rl_minus_control": {**group, "by_group": {"explained": {**group, "mean": -0.012}, "labels only": group}},
        "world": {"text_alone": {"all": {"mean": 0.4999}}},
        "seconds": 471.6,
    }
    row = demo_results.row_of(metrics)
    assert row == [
        "7", "0.990, 0.500", "0.990, 0.500", "0.990, 0.500",
        "**+50.0 [+40.0, +60.0]**", "-1.2 [+40.0, +60.0]", "+50.0 [+40.0, +60.0]", "0.500", "472",
    ]  # fmt: skip
    assert len(row) == len(demo_results.HEADINGS)
