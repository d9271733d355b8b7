"""Our scores of generated predictions equal what the benchmarks' own scripts printed for them, to the last digit.

``witnesses/*.json`` holds the scripts' numbers and how they were had, ``support/witness_rows.py`` makes the predictions
again.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import witness_rows as made
from official_files import write_json
from prediction_rows import our_row, vote, write_lines

from r1_reward.bench import official, summary
from r1_reward.bench.benchmarks.editreward_bench import group_of
from r1_reward.bench.benchmarks.omni_rewardbench import TASKS
from r1_reward.bench.benchmarks.vl_rewardbench import vl_category
from r1_reward.bench.score import score_file

FOLDER = Path(__file__).parent / "witnesses"
ROUNDED = 1e-15
"""Sums of fractions: we round once, the scripts after each term."""


def numbers(name: str, script: str = "") -> dict[str, Any]:
    """Return what a script printed, by seed."""
    witnesses = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    (found,) = [one["numbers"] for one in witnesses if script in one["script"]]
    return found


SEEDS = pytest.mark.parametrize("seed", range(3))


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(summary.Tally.summary.__kwdefaults__, "resamples", 20)
    monkeypatch.setitem(summary.official_score.__kwdefaults__, "resamples", 5)


# ---- the three benchmarks with a file of their own


def vl_file(tmp_path: Path, items: list[made.VLItem], chosen: dict[int, list[int]]) -> Path:
    """The chosen votes of each item, as `bench run` writes them."""
    rows = []
    for i, item in enumerate(items):
        votes = [item.votes[v] for v in chosen.get(i, [])]
        if votes:
            answers = [
                vote(None if right is None else item.preferred if right else 3 - item.preferred, turned)
                for right, turned in votes
            ]
            rows.append(
                our_row(i, id=item.id, category=vl_category(item.id), preferred=item.preferred, passes=[answers])
            )
    return write_lines(tmp_path / "predictions.jsonl", rows)


def check_vl(tmp_path: Path, items: list[made.VLItem], chosen: dict[int, list[int]], wanted: dict[str, Any]) -> None:
    scored = score_file("vl-rewardbench", vl_file(tmp_path, items, chosen), rule="drop", allow_partial=True)
    assert (scored["overall"], scored["n"]) == (wanted["overall"], wanted["n"])
    assert {name: (one["accuracy"], one["n"]) for name, one in scored["categories"].items()} == {
        name: (wanted["right"][name] / n, n) for name, n in wanted["of"].items()
    }
    assert scored["macro"] == pytest.approx(wanted["macro"], abs=ROUNDED)


@SEEDS
def test_vl_rewardbench_with_all_votes(tmp_path: Path, seed: int) -> None:
    """Ten votes an item, some lost, between 2 % and 40 % of them unreadable."""
    items = made.vl_items(seed)
    chosen = {i: list(range(len(item.votes))) for i, item in enumerate(items)}
    assert len({len(votes) for votes in chosen.values()}) > 4
    check_vl(tmp_path, items, chosen, numbers("vl-rewardbench")[f"seed {seed}"]["all votes"])


@SEEDS
def test_vl_rewardbench_for_each_k_of_the_script(tmp_path: Path, seed: int) -> None:
    items, wanted = made.vl_items(seed), numbers("vl-rewardbench")[f"seed {seed}"]
    for k, chosen in made.vl_official_draws(items):
        check_vl(tmp_path, items, chosen, wanted[f"K={k}"])


@SEEDS
def test_vl_rewardbench_by_its_own_result_rows(tmp_path: Path, seed: int) -> None:
    """The script's own file, one vote per line, with its own draw of K votes; --votes 10 draws all ten."""
    file = write_lines(tmp_path / "votes.jsonl", made.vl_result_rows(made.vl_items(seed)))
    for name, wanted in numbers("vl-rewardbench")[f"seed {seed}"].items():
        k = None if name == "all votes" else int(name.removeprefix("K="))
        for votes in (k,) if k else (None, made.VL_VOTES):
            options = {"rule": "drop", "allow_partial": True, "votes": votes}
            scored = score_file("vl-rewardbench", file, **options)
            assert (scored["overall"], scored["n"]) == (wanted["overall"], wanted["n"])
            assert {name: (one["accuracy"], one["n"]) for name, one in scored["categories"].items()} == {
                name: (wanted["right"][name] / n, n) for name, n in wanted["of"].items()
            }
            assert scored["macro"] == pytest.approx(wanted["macro"], abs=ROUNDED)


@SEEDS
def test_multimodal_rewardbench(tmp_path: Path, seed: int) -> None:
    rows = made.mrb_rows(seed)
    assert any(row["output"] == "" for row in rows)
    check_mrb(write_lines(tmp_path / "a.jsonl", rows), "coin", numbers("multimodal-rewardbench")[f"seed {seed}"])


@SEEDS
def test_multimodal_rewardbench_by_r1_reward(tmp_path: Path, seed: int) -> None:
    file = write_lines(tmp_path / "a.jsonl", made.mrb_rewards(seed))
    check_mrb(file, "wrong", numbers("r1-reward", "Multimodal-Reward")[f"seed {seed}"])


def check_mrb(file: Path, rule: str, wanted: dict[str, Any]) -> None:
    scored = score_file("multimodal-rewardbench", file, rule=rule, allow_partial=True)
    overall = wanted.pop("all")
    assert (scored["overall"], scored["n"]) == (overall["accuracy"], overall["n"])
    assert {name: (one["accuracy"], one["n"]) for name, one in scored["categories"].items()} == {
        name: (one["accuracy"], one["n"]) for name, one in wanted.items()
    }


@SEEDS
def test_vl_rewardbench_by_r1_reward(tmp_path: Path, seed: int) -> None:
    scored = score_file("vl-rewardbench", write_lines(tmp_path / "a.jsonl", made.vl_rewards(seed)))
    wanted, paper = numbers("r1-reward", "VL-Reward-Bench")[f"seed {seed}"], scored["groupings"]["paper"]
    assert scored["overall"] == wanted["average"]
    assert {name: (one["accuracy"], one["n"]) for name, one in paper["categories"].items()} == {
        name: (one["accuracy"], one["samples"]) for name, one in wanted["categories"].items()
    }
    assert paper["macro"] == pytest.approx(wanted["macro"], abs=ROUNDED)


@SEEDS
@pytest.mark.parametrize(("name", "script"), [("mm-rlhf-rewardbench", ""), ("r1-reward", "MM-RLHF-Reward")])
def test_mm_rlhf_rewardbench(tmp_path: Path, name: str, script: str, seed: int) -> None:
    scored = score_file("mm-rlhf-rewardbench", write_lines(tmp_path / "a.jsonl", made.mm_rewards(seed)))
    wanted = numbers(name, script)[f"seed {seed}"]
    overall = wanted.pop("all")
    assert (scored["overall"], scored["acc_plus"], scored["n"]) == (
        overall["accuracy"], overall["acc_plus"], overall["total"],
    )  # fmt: skip
    assert {name: (one["accuracy"], one["acc_plus"], one["n"]) for name, one in scored["categories"].items()} == {
        name: (one["accuracy"], one["acc_plus"], one["total"]) for name, one in wanted.items()
    }


# ---- benchmarks with a score, or a form of predictions, of their own


@SEEDS
def test_mmrb2(tmp_path: Path, seed: int) -> None:
    """The official prediction format, joined with rows that have the labels."""
    wanted = numbers("mmrb2")[f"seed {seed}"]
    for task in made.MMRB2_TASKS:
        chosen, said = made.mmrb2_task(seed, task)
        shown = {"response_content": [["text", "Seen."]]}
        pairs = [
            {
                "id": id,
                "prompt_content": [["text", "Look."]],
                "response_a": shown,
                "response_b": shown,
                "chosen": letter,
            }
            for id, letter in chosen.items()
        ]
        write_json(tmp_path / "rows" / f"{task}.json", {"pairs": pairs})
        write_json(tmp_path / "said" / f"{task}.json", said)
    values = score_file("mmrb2", tmp_path / "said", data=tmp_path / "rows")["official"]["values"]
    assert {task: values[task] for task in made.MMRB2_TASKS} == {
        task: wanted[task]["accuracy"] for task in made.MMRB2_TASKS
    }
    assert values["pooled"] == wanted["overall"]["accuracy"]
    assert values["coverage"] == wanted["overall"]["total_evaluated"] / 8000
    alone = score_file("mmrb2", tmp_path / "said" / "edit.json", data=tmp_path / "rows")["official"]["values"]
    assert (alone["edit"], alone["coverage"]) == (values["edit"], wanted["edit"]["total_evaluated"] / 2000)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("task", "theirs"), TASKS.items())
def test_omni_rewardbench(tmp_path: Path, task: str, theirs: str, seed: int) -> None:
    rows = made.omni_rows(seed, theirs)
    for ties, name in ((True, "with ties"), (False, "without ties")):
        lines = [
            our_row(i, id=str(i), category=task, preferred=row.preferred, passes=[[vote(row.answer)]])
            for i, row in enumerate(row for row in rows if ties or row.preferred)
        ]
        file = write_lines(tmp_path / "predictions.jsonl", lines)
        scored = score_file("omni-rewardbench", file, allow_partial=True)
        wanted = numbers("omni-rewardbench")[f"seed {seed}"][theirs][name]
        assert (scored["overall"], scored["macro"], scored["n"]) == (*[wanted["accuracy"]] * 2, wanted["n"])


def edit_score(file: Path, comparisons: list[tuple[str, int, int, int | None]]) -> dict[str, Any]:
    """Score (id, candidates, label, answer) of comparisons."""
    rows = [
        our_row(
            i, id=id if candidates == 2 else group_of(id), category=f"{candidates}pair", preferred=label,
            passes=[[vote(answer)]],
        )
        for i, (id, candidates, label, answer) in enumerate(comparisons)
    ]  # fmt: skip
    return score_file("editreward-bench", write_lines(file, rows), allow_partial=True)["official"]["values"]


@SEEDS
@pytest.mark.parametrize("candidates", [2, 3, 4])
def test_editreward_bench(tmp_path: Path, candidates: int, seed: int) -> None:
    comparisons = [
        (row.id, candidates, row.preferred, None if row.said == made.UNREADABLE else row.said)
        for row in made.edit_rows(seed, candidates)
        if row.said not in (made.MISSING, made.FAILED)
    ]
    values = edit_score(tmp_path / "predictions.jsonl", comparisons)
    wanted = numbers("editreward-bench", f"{candidates}pair")[f"seed {seed}"]
    assert len(comparisons) == wanted["total_examples"]
    accuracy = wanted["accuracy" if candidates == 2 else "group_accuracy"]
    assert values == {"overall": accuracy, **dict.fromkeys(["2pair", "3pair", "4pair"]), f"{candidates}pair": accuracy}


@SEEDS
def test_editreward_bench_overall(tmp_path: Path, seed: int) -> None:
    """A scalar model's scores as comparisons: its ranking is right if all its comparisons are."""
    comparisons: list[tuple[str, int, int, int | None]] = []
    for candidates in (2, 3, 4):
        for group, (ranking, scores) in enumerate(made.edit_scores(seed, candidates)):
            for a, b in combinations("ABCD"[:candidates], 2):
                preferred = 1 if ranking.index(a) < ranking.index(b) else 2
                answer = 1 if scores["ABCD".index(a)] > scores["ABCD".index(b)] else 2
                comparisons.append((f"{candidates}g{group}_{a}vs{b}", candidates, preferred, answer))
    values = edit_score(tmp_path / "predictions.jsonl", comparisons)
    wanted = numbers("editreward-bench", "eval_bench")[f"seed {seed}"]
    theirs = {"2pair": "2-Pair", "3pair": "3-Pair", "4pair": "4-Pair", "overall": "overall"}
    assert values == {name: wanted[their]["strict_ranking_accuracy"] for name, their in theirs.items()}


# ---- scores as functions


@SEEDS
@pytest.mark.parametrize("way", ["four-way", "ratings"])
def test_rewardbench_2(way: str, seed: int) -> None:
    wanted = numbers("rewardbench-2")[f"seed {seed}"][way]
    for subset in made.RB2_SUBSETS:
        if way == "four-way":
            scores = [official.four_way_score(right) for right in made.rb2_verdicts(seed, subset)]
        else:
            scores = [official.rated_score(ratings) for ratings in made.rb2_ratings(seed, subset)]
        assert sum(scores) / len(scores) == pytest.approx(wanted[subset], abs=1e-13)  # thirds, added one by one
    score = official.ties_score(official.TiesRow(*row) for row in made.rb2_ties(seed))
    assert score is not None
    assert score.score == pytest.approx(wanted["Ties"], abs=ROUNDED)
