"""Append-only logs: complete lines survive any kill, and many processes may share one."""

from __future__ import annotations

import multiprocessing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_reward.records.errors import UserError
from r1_reward.store.append_log import AppendLog, SharedLog
from r1_reward.store.prediction_file import PredictionFile


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5)), max_size=4), data=st.data())
def test_a_log_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    log = AppendLog(path, "a thing")
    places = log.append(values)
    log.close()
    assert [log.read(place) for place in places] == values
    assert [(entry.place, entry.value) for entry in log.entries()] == list(zip(places, values, strict=True))
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    kept = [entry.value for entry in log.entries()]
    assert kept == values[: content[:cut].count(b"\n")]
    log.append(["new"])
    log.close()
    assert [entry.value for entry in AppendLog(path, "a thing").entries()] == [*kept, "new"]


def test_an_invalid_line_is_named(tmp_path):
    log = AppendLog(tmp_path / "log.jsonl", "a number", int)
    log.append(["7", "seven"])
    log.close()
    with pytest.raises(UserError, match=r"log.jsonl, line 2: is not a number; delete the line to continue\."):
        list(log.entries())
    assert str(log.wrong(3, "occurs twice")).endswith("log.jsonl, line 3: occurs twice.")


def _put(path, name):
    log = SharedLog(path)
    for number in range(200):
        log.put([name, number])


def test_processes_sharing_a_log_lose_and_damage_nothing(tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    SharedLog(path).put("first")
    with path.open("ab") as file:
        file.write(b'{"half a li')  # killed while it wrote
    reader = SharedLog(path)
    seen = list(reader.added())
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_put, args=(path, name)) for name in "abc"]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    seen += list(reader.added())
    assert seen[0] == "first"
    assert sorted(seen[1:]) == [[name, number] for name in "abc" for number in range(200)]
    for name in "abc":
        assert [number for one, number in seen[1:] if one == name] == list(range(200))
    assert list(reader.added()) == []


def test_predictions_end_up_in_the_order_of_the_rows(tmp_path):
    file = PredictionFile(tmp_path / "predictions.jsonl")
    lines = [{"index": index, "key": f"{index}-k", "text": "é\ud800" * index} for index in (0, 3, 1, 2)]
    file.append(lines[:2])
    file.append(lines[2:])
    file.close()
    before = file.path.read_bytes().splitlines()
    file.sort()
    assert file.path.read_bytes().splitlines() == [before[0], before[2], before[3], before[1]]
    assert list(file.repair()) == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
    file.append([lines[0]])
    with pytest.raises(UserError, match="line 5: row 0 occurs twice"):
        file.repair()
