"""``r1-reward data validate``: exit codes, the table, the one-line summary and the JSON object."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from r1_reward.cli.data import app
from r1_reward.records.errors import UserError


def write_pairs(folder: Path, **changes_of_row_2: Any) -> Path:
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    rows = [
        {"id": str(n), "question": f"q{n}", "images": ["a.png"], "response_1": "x", "response_2": "y", "preferred": 1,
         "kind": f"k{n % 2}"}
        for n in range(3)
    ]  # fmt: skip
    rows[1].update(changes_of_row_2)
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_valid_file_gets_one_line_and_exit_code_0(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(write_pairs(tmp_path, preferred=2))])
    assert result.exit_code == 0
    assert result.stdout == "3 pairs, all valid: 2 preferred 1, 1 preferred 2, 2 kinds\n"


def test_problems_are_a_table_and_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    file = write_pairs(tmp_path, images=["a.png", "gone.png"], preferred=4)
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert result.exit_code == 2
    line = next(line for line in result.stdout.splitlines() if "gone.png" in line)
    assert [cell.strip() for cell in line.strip("│ ").split("│")] == [
        str(file), "2", "images[1]", "gone.png: no such file",
    ]  # fmt: skip
    assert "must be 1 or 2, not 4" in result.stdout
    assert f"2 problems in 3 rows of {file}" in result.stdout


def test_all_problems_are_listed_not_just_twenty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    file = tmp_path / "pairs.jsonl"
    file.write_text("{\n" * 45)
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert result.stdout.count("is not JSON") == 45


def test_json_is_one_object_with_the_same_exit_codes(tmp_path: Path) -> None:
    file = write_pairs(tmp_path)
    good = CliRunner().invoke(app, ["validate", str(file), "--json"])
    assert (good.exit_code, json.loads(good.stdout)) == (0, {"rows": 3, "valid": True, "problems": []})
    write_pairs(tmp_path, response_2="")
    bad = CliRunner().invoke(app, ["validate", "--json", str(file)])
    problem = {"file": str(file), "line": 2, "field": "response_2", "reason": "is blank"}
    assert (bad.exit_code, json.loads(bad.stdout)) == (2, {"rows": 3, "valid": False, "problems": [problem]})


def test_a_wrong_path_is_left_to_the_main_command(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    result = CliRunner().invoke(app, ["validate", str(tmp_path / "pair.jsonl")])
    assert isinstance(result.exception, UserError)
    assert "Did you mean" in str(result.exception)


def test_importing_the_command_loads_nothing_heavy() -> None:
    code = "import sys, r1_reward.cli.data; print(sorted({'torch', 'datasets', 'pyarrow', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
