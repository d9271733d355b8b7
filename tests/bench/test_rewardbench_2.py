"""RewardBench 2: text prompts become comparisons, from which subsets, Ties and the mean are computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import witness_rows as made
from official_files import REWARD_BENCH_2, reward_bench_2
from prediction_rows import our_row, vote, write_lines
from scripted_server import reply
from test_witnesses import numbers as witness
from typer.testing import CliRunner

from r1_reward.bench import summary
from r1_reward.bench.benchmarks.rewardbench_2 import BENCHMARK, SUBSETS, read
from r1_reward.bench.official import TiesRow, ties_score
from r1_reward.bench.rows import Outcome, Vote
from r1_reward.bench.score import score_file
from r1_reward.bench.suites import SuiteFileError, load_suite
from r1_reward.cli.bench import app
from r1_reward.records.errors import UserError

PARQUET = Path("data") / "test-00000-of-00001.parquet"


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(summary.official_score.__kwdefaults__, "resamples", 10)
    monkeypatch.setitem(summary.Tally.summary.__kwdefaults__, "resamples", 20)


def test_the_official_size(tmp_path: Path) -> None:
    loaded = load_suite("rewardbench-2", reward_bench_2(tmp_path) / "data")
    assert (loaded.units, loaded.size and loaded.size.categories) == (1865, REWARD_BENCH_2)
    rows = list(loaded.rows())
    assert len(rows) == loaded.n == len({(row.id, row.members) for row in rows})
    plain = [row for row in rows if row.category != "Ties"]
    assert len(plain) == 3 * (1865 - 102)
    assert all(row.images == () and row.video is None for row in rows)
    assert all(str(row.preference[0]).startswith("Right") for row in rows)
    assert all(str(row.preference[1]).startswith("Wrong") for row in rows)
    table = {row["id"]: row for row in pq.read_table(tmp_path / PARQUET).to_pylist()}
    for id, row in table.items():
        own = sum(1 for one in rows if one.id == id) if row["subset"] == "Ties" else 3
        assert own == len(row["chosen"]) * len(row["rejected"])


def test_the_right_answer_has_every_position(tmp_path: Path) -> None:
    """A judge that always chooses the first stored answer is right on about a quarter of the prompts, not all."""
    loaded = load_suite("rewardbench-2", reward_bench_2(tmp_path, rows=100) / "data", allow_partial=True)
    firsts: dict[str, list[bool]] = {}
    for row in loaded.rows():
        if row.category != "Ties":
            firsts.setdefault(row.id, []).append(row.preferred == 1)
    assert 0.15 < sum(map(all, firsts.values())) / len(firsts) < 0.35


def changed(folder: Path, number: int, change: dict[str, Any]) -> Path:
    """Change a row of a small file; its counts of answers are updated unless they are changed, too."""
    reward_bench_2(folder, rows=2)
    rows, schema = pq.read_table(folder / PARQUET).to_pylist(), pq.read_schema(folder / PARQUET)
    rows[number] |= change
    for name, count in (("chosen", "num_correct"), ("rejected", "num_incorrect")):
        if name in change and change[name] is not None:
            rows[number][count] = len(change[name])
    rows[number] |= {name: value for name, value in change.items() if name.startswith("num")}
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / PARQUET)
    return folder / "data"


@pytest.mark.parametrize(
    ("number", "change", "reason"),
    [
        (0, {"rejected": []}, "rejected: must be a list of at least 1 text"),
        (0, {"rejected": None}, "rejected: is missing"),
        (0, {"chosen": []}, "chosen: must be a list of at least 1 text"),
        (0, {"chosen": None}, "chosen: is missing"),
        (
            0,
            {"rejected": ["a", "b"]},
            "rejected: there are 1 right and 2 wrong answers; outside of Ties there must be 1 and 3",
        ),
        (0, {"chosen": ["a", "b"]}, "rejected: there are 2 right and 3 wrong answers"),
        (0, {"rejected": ["a", " ", "c"]}, "rejected[1]: is blank"),
        (0, {"subset": "Chat"}, "subset: 'Chat' is not a subset of RewardBench 2"),
        (0, {"subset": None}, "subset: is missing"),
        (0, {"prompt": " "}, "prompt: is blank"),
        (0, {"num_correct": 2}, "num_correct: is 2, but chosen has 1 answers"),
        (0, {"num_incorrect": 4}, "num_incorrect: is 4, but rejected has 3 answers"),
        (10, {"id": "7"}, "id: must be ref:N or tied:N in Ties, not '7'"),
        (10, {"chosen": ["a", "b"]}, "chosen: has 2; ref:0 must have one right answer"),
        (11, {"chosen": ["a"]}, "chosen: has 1; tied:0 must have several right answers"),
    ],
)
def test_invalid_rows_are_reported_before_any_is_judged(
    tmp_path: Path, number: int, change: dict[str, Any], reason: str
) -> None:
    data = changed(tmp_path, number, change)
    with pytest.raises(SuiteFileError, match=f"row {number + 1}") as error:
        load_suite("rewardbench-2", data, allow_partial=True)
    assert reason in str(error.value)


def test_another_size_is_reported_in_prompts(tmp_path: Path) -> None:
    data = reward_bench_2(tmp_path, rows=2) / "data"
    with pytest.raises(UserError, match="RewardBench 2 has 1,865 prompts, but 12 were found"):
        load_suite("rewardbench-2", data)


# ---- scores


def prompt_lines(start: int, id: str, subset: str, right: int, answers: dict[tuple[int, int], list[Any]]) -> list:
    """Lines of a prompt; ``answers`` says of a right and a wrong answer, pass by pass, whether the right one won."""
    lines = []
    for number, ((i, j), passes) in enumerate(answers.items()):
        turned = (start + number) % 2 == 1
        preferred = 2 if turned else 1
        votes = [[vote(None if won is None else preferred if won else 3 - preferred)] for won in passes]
        lines.append(
            our_row(
                start + number, id=id, category=subset, paper_category=None, preferred=preferred,
                members=[j, i] if turned else [i, j], passes=votes,
            )
        )  # fmt: skip
    assert all(i < right <= j for i, j in answers)
    return lines


def plain(start: int, id: str, subset: str, *wins: bool | None) -> list:
    return prompt_lines(start, id, subset, 1, {(0, j): [won] for j, won in enumerate(wins, 1)})


@pytest.mark.parametrize("seed", range(3))
def test_subsets_equal_the_official_script(tmp_path: Path, seed: int) -> None:
    """Its four-way verdicts as comparisons: right wins all, wrong loses one, an error loses none and wins not all."""
    lines: list = []
    for subset in made.RB2_SUBSETS:
        for number, right in enumerate(made.rb2_verdicts(seed, subset)):
            wins = {True: (True, True, True), False: (True, False, None), None: (True, None, True)}[right]
            lines += plain(len(lines), f"{subset} {number}", subset, *wins)
    file = write_lines(tmp_path / "predictions.jsonl", lines)
    values = score_file("rewardbench-2", file, allow_partial=True)["official"]["values"]
    wanted = witness("rewardbench-2")[f"seed {seed}"]["four-way"]
    for subset in made.RB2_SUBSETS:
        assert values[subset] == pytest.approx(wanted[subset], abs=1e-13)
    assert values["Ties"] is None and values["mean"] is None


@pytest.mark.parametrize(
    ("wins", "score"),
    [
        ((True, True, True), 1.0),
        ((True, True, False), 0.0),
        ((None, False, None), 0.0),
        ((None, None, None), 0.25),
        ((True, True, None), 0.25),
        ((True, True), 0.25),  # the third was not judged
    ],
)
def test_a_prompt(tmp_path: Path, wins: tuple[bool | None, ...], score: float) -> None:
    file = write_lines(tmp_path / "predictions.jsonl", plain(0, "1", "Math", *wins))
    values = score_file("rewardbench-2", file, allow_partial=True)["official"]["values"]
    assert values["Math"] == score


def test_unknown_missing_comparisons_are_reported(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "predictions.jsonl", plain(0, "1", "Math", True, True))
    told = "whether the file has all comparisons of each group"
    assert any(told in note for note in score_file("rewardbench-2", file, allow_partial=True)["notes"])
    (tmp_path / "run.json").write_text('{"suite": "rewardbench-2", "orders": "stored", "data": {"n": 2}}')
    assert not any(told in note for note in score_file("rewardbench-2", file, allow_partial=True)["notes"])


def test_both_orders_are_averaged(tmp_path: Path) -> None:
    lines = prompt_lines(0, "1", "Math", 1, {(0, j): [True, j != 2] for j in (1, 2, 3)})
    file = write_lines(tmp_path / "predictions.jsonl", lines)
    assert score_file("rewardbench-2", file, allow_partial=True)["official"]["values"]["Math"] == 0.5


def ties(file: Path, *prompts: tuple[str, int, dict[tuple[int, int], list[Any]]]) -> float | None:
    lines: list = []
    for id, right, answers in prompts:
        lines += prompt_lines(len(lines), id, "Ties", right, answers)
    return score_file("rewardbench-2", write_lines(file, lines), allow_partial=True)["official"]["values"]["Ties"]


def test_ties_rate_an_answer_by_its_share_of_wins(tmp_path: Path) -> None:
    """By hand: of `tied` right answer 0 wins both comparisons in both orders, answer 1 wins 3 of 4 verdicts."""
    file = tmp_path / "predictions.jsonl"
    ref = {(0, 1): [True, True], (0, 2): [True, True]}
    tied = {(0, 2): [True, True], (0, 3): [True, True], (1, 2): [True, False], (1, 3): [True, True]}
    # Ratings: ref 1, 0, 0; tied 1, .75, .25, 0. Gaps 1 and .5, spread .25.
    wanted = ties_score([TiesRow("ref:4", 1, [1, 0, 0]), TiesRow("tied:4", 2, [1, 0.75, 0.25, 0])])
    assert ties(file, ("ref:4", 1, ref), ("tied:4", 2, tied)) == wanted.score  # type: ignore[union-attr]
    assert wanted is not None and wanted.score > 1


def test_ties_of_a_judge_that_always_says_1(tmp_path: Path) -> None:
    """Every answer wins half of its verdicts, so all ratings are equal."""
    answers = {(i, j): [True, False] for i in (0, 1) for j in (2, 3)}
    score = ties(
        tmp_path / "p.jsonl", ("ref:0", 1, {(0, 1): [True, False], (0, 2): [False, True]}), ("tied:0", 2, answers)
    )
    assert score == 0.0


def test_an_unreadable_answer_in_ties_is_below_all_others(tmp_path: Path) -> None:
    """As -1 among ratings: a right answer without a readable verdict loses its prompt."""
    ref = {(0, 1): [True]}
    tied = {(0, 2): [True], (1, 2): [None]}
    wanted = ties_score([TiesRow("ref:0", 1, [1, 0]), TiesRow("tied:0", 2, [1, None, 0])])
    assert wanted is not None
    assert ties(tmp_path / "p.jsonl", ("ref:0", 1, ref), ("tied:0", 2, tied)) == wanted.score
    silent = {(0, 2): [None], (1, 2): [None]}
    assert ties(tmp_path / "p.jsonl", ("ref:0", 1, {(0, 1): [None]}), ("tied:0", 2, silent)) == 0.0


def test_a_tied_prompt_of_which_one_right_answer_was_judged_is_left_out(tmp_path: Path) -> None:
    rows = (("ref:0", 1, {(0, 1): [True]}), ("tied:0", 2, {(0, 2): [True]}))
    assert ties(tmp_path / "p.jsonl", *rows) is None


def test_the_mean_needs_all_six(tmp_path: Path) -> None:
    lines: list = []
    for number, subset in enumerate(SUBSETS[:-1]):
        lines += plain(len(lines), str(number), subset, True, number % 2 == 0, True)
    for kind, right in (("ref", 1), ("tied", 2)):
        wins = {(i, j): [True] for i in range(right) for j in (right, right + 1)}
        lines += prompt_lines(len(lines), f"{kind}:0", "Ties", right, wins)
    scored = score_file("rewardbench-2", write_lines(tmp_path / "p.jsonl", lines), allow_partial=True)["official"]
    values = scored["values"]
    assert [values[subset] for subset in SUBSETS] == pytest.approx([1, 0, 1, 0, 1, 1.01])
    assert values["mean"] == pytest.approx(4.01 / 6)
    assert list(values) == ["mean", *SUBSETS]
    assert scored["intervals"]["Ties"] == pytest.approx([1.01, 1.01])


# ---- a run


def knows(body: dict[str, Any]) -> dict[str, Any]:
    text = body["messages"][-1]["content"]
    text = text if isinstance(text, str) else text[-1]["text"]
    return reply(f"<think>.</think><answer>{1 if text.index('Right') < text.index('Wrong') else 2}</answer>")


def test_a_run_from_end_to_end(tmp_path: Path, server) -> None:
    """No image is shown; the number of judgments is reported first."""
    data = reward_bench_2(tmp_path, rows=2) / "data"
    server.default = [knows]
    command = ["run", "rewardbench-2", "--data", str(data), "--allow-partial", "--base-url", server.url]
    result = CliRunner().invoke(app, [*command, "--model", "judge", "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    n = load_suite("rewardbench-2", data, allow_partial=True).n
    assert f"RewardBench 2: 12 prompts, {n} comparisons; orders: 2, votes: 1: {2 * n} judgments" in result.output
    assert len(server.bodies) == 2 * n
    for body in server.bodies:
        for message in body["messages"]:
            parts = message["content"] if isinstance(message["content"], list) else []
            assert all(part["type"] == "text" for part in parts)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["official"]["values"]["mean"] == pytest.approx(6.01 / 6)
    assert metrics["overall"] == 1.0
    report = (tmp_path / "run" / "report.md").read_text()
    assert "our interpretation for pairwise judges" in report


def test_a_scalar_judge_takes_the_same_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its votes come from rewards of single answers: equal in both orders, without an answer where rewards are."""
    from r1_reward.bench.report import write_metrics
    from r1_reward.bench.run import RunSettings, run_benchmark
    from r1_reward.engines.scalar import Score, Scoring
    from r1_reward.engines.workers import EngineSpec

    class Rewards(Scoring):
        def score(self, candidates, *, max_new_tokens=1024):
            return [Score(1.0 if "Right" in response else 1.0 if "Wrong 2" in response else 0.0)
                    for _, _, response in candidates]  # fmt: skip

    monkeypatch.setattr(EngineSpec, "load", lambda self: Rewards())
    loaded = load_suite("rewardbench-2", reward_bench_2(tmp_path, rows=2) / "data", allow_partial=True)
    missing = run_benchmark(loaded, RunSettings(model="tiny"), tmp_path / "run")
    values = write_metrics(tmp_path / "run", expected=loaded.n, missing=missing, notes=[])["official"]["values"]
    assert [values[subset] for subset in SUBSETS[:-1]] == [0.25] * 5, "none is lost, and one is not decided"


def test_published_rows() -> None:
    """The mean of a published row is that of its subsets."""
    row = next(row for row in BENCHMARK.published if len(row.values) == 7)
    subsets = [float(row.values[subset]) for subset in SUBSETS]
    assert f"{sum(subsets) / 6:.1f}" == row.values["mean"]


@pytest.mark.parametrize("votes", [[0, 0, 1, 2], [0, 0, 1, None, None]])
def test_a_tie_is_a_win_for_neither_answer_of_ties(votes: list[int | None]) -> None:
    passes = (tuple(Vote(None if a is None else a == 1, third=a == 0) for a in votes),)
    one = Outcome(0, "ref:1", passes, "Ties", preferred=1, members=(0, 1))
    (row,) = read([one]).ties
    assert row.scores == [0.0, 0.0]
