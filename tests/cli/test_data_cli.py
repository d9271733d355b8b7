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
from r1_reward.records.prompt import build_prompt


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
    assert "must be 1 or 2 (or 0 for a tie), not 4" in result.stdout
    assert f"2 problems in 3 rows of {file}" in result.stdout


def test_all_problems_are_listed_not_just_twenty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    file = write_pairs(tmp_path)
    names = [f"extra_{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(45)]
    with open(file, "a") as more:
        for number, name in enumerate(names):
            row = json.loads(file.read_text().splitlines()[0])
            more.write(json.dumps({**row, "question": f"Q {number}?", name: 1}) + "\n")
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert all(f"│ {name} " in result.stdout for name in names)


def test_problems_of_one_kind_are_one_line_of_the_table_and_all_are_in_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    file = write_pairs(tmp_path, preferred=3)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows += [{**rows[0], "id": str(n), "question": f"n{n}", "response_1": "\u200b"} for n in range(1000)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(app, ["validate", str(file)])
    lines = [line for line in result.stdout.splitlines() if "response_1" in line]
    assert len(lines) == 1
    assert "4 and 999 more: lines 5, 6, 7, ..." in lines[0]
    assert "1001 problems in 1003 rows" in result.stdout
    full = json.loads(CliRunner().invoke(app, ["validate", "--json", str(file)]).stdout)
    assert len(full["problems"]) == 1001


def rl_rows(file: Path, count: int = 3) -> Path:
    text = build_prompt("Which digit?", "A three.", "An eight.")
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": text}]
    message = json.dumps([{"role": "user", "content": content}])
    row = {"question": "Which digit?", "message": message, "answer": ["<answer>1</answer>"], "image": "a.png"}
    file.write_text("".join(json.dumps(row) + "\n" for _ in range(count)))
    return file


def test_rows_of_another_kind_are_named_with_the_command_that_reads_them(tmp_path: Path) -> None:
    file = rl_rows(tmp_path / "all.jsonl", 500)
    command = f"r1-reward data import r1-reward-rl --from {file} --out DIR"
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert result.exit_code == 2
    assert f"This looks like R1-Reward-RL rows: `{command}`." in result.stdout
    report = json.loads(CliRunner().invoke(app, ["validate", "--json", str(file)]).stdout)
    assert [(kind["name"], kind["command"]) for kind in report["looks_like"]] == [("r1-reward-rl", command)]
    array = tmp_path / "all.json"
    array.write_text("[" + ",".join(file.read_text().splitlines()) + "]")
    refused = CliRunner().invoke(app, ["validate", str(array)])
    assert isinstance(refused.exception, UserError)
    assert f"r1-reward data import r1-reward-rl --from {array} --out DIR" in str(refused.exception)


def test_other_commands_name_the_kind_too(tmp_path: Path) -> None:
    file = rl_rows(tmp_path / "all.jsonl")
    command = [sys.executable, "-m", "r1_reward", "bench", "run", "pairs", "--data", str(file), "--model", "first"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "This looks like R1-Reward-RL rows: `r1-reward data import r1-reward-rl" in done.stderr


def test_an_import_as_another_source_names_the_right_one(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    file = rl_rows(tmp_path / "all.jsonl")
    wrong = CliRunner().invoke(app, ["import", "povid", "--from", str(file), "--out", str(tmp_path / "out")])
    assert isinstance(wrong.exception, UserError)
    assert str(wrong.exception).startswith(f"{file}: no row has the field conversations.")
    assert f"`r1-reward data import r1-reward-rl --from {file} --out DIR`" in str(wrong.exception)


def test_a_whole_file_at_fault_is_one_problem(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"data": [{"id": str(n)} for n in range(9000)]}, indent=1))
    report = json.loads(CliRunner().invoke(app, ["validate", "--json", str(file)]).stdout)
    assert (report["rows"], report["valid"], len(report["problems"])) == (0, False, 1)
    assert "one JSON object over many lines" in report["problems"][0]["reason"]


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


def test_pairs_in_another_form_are_not_sent_back_to_this_command(tmp_path: Path) -> None:
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps([json.loads(line) for line in write_pairs(tmp_path).read_text().splitlines()]))
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert isinstance(result.exception, UserError)
    assert "is one JSON array" in str(result.exception) and "looks like" not in str(result.exception)
