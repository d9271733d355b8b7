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
from prediction_rows import our_row, vote, write_lines

from r1_reward.bench import official, summary
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
    """The script's own file, of a line a vote, with its own draw of K votes; all ten are drawn by --votes 10, too."""
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


# ---- scores as functions


@SEEDS
def test_mmrb2(seed: int) -> None:
    wanted, scores = numbers("mmrb2")[f"seed {seed}"], []
    for task in made.MMRB2_TASKS:
        score = official.mmrb2_score(*made.mmrb2_task(seed, task))
        found = (score.accuracy, score.right, score.judged, score.pairs, score.missing)
        names = ("accuracy", "total_correct", "total_evaluated", "total_pairs", "missing_pairs")
        assert found == tuple(wanted[task][name] for name in names)
        assert score.coverage == wanted[task]["total_evaluated"] / 2000
        scores.append(score)
    pooled = official.mmrb2_pooled(scores)
    assert (pooled.accuracy, pooled.judged) == (wanted["overall"]["accuracy"], wanted["overall"]["total_evaluated"])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("task", made.OMNI_TASKS)
def test_omni_rewardbench(task: str, seed: int) -> None:
    rows = [(row.preferred, row.answer) for row in made.omni_rows(seed, task)]
    for ties, name in ((True, "with ties"), (False, "without ties")):
        share, wanted = official.omni_score(rows, ties=ties), numbers("omni-rewardbench")[f"seed {seed}"][task][name]
        assert (share.value, share.right, share.of) == (wanted["accuracy"], wanted["right"], wanted["n"])


def edit_comparisons(seed: int, candidates: int) -> list[official.EditComparison]:
    return [
        official.EditComparison(row.id, candidates, row.preferred, None if row.said == made.UNREADABLE else row.said)
        for row in made.edit_rows(seed, candidates)
        if row.said not in (made.MISSING, made.FAILED)
    ]


@SEEDS
@pytest.mark.parametrize("candidates", [2, 3, 4])
def test_editreward_bench(candidates: int, seed: int) -> None:
    comparisons = edit_comparisons(seed, candidates)
    share = official.edit_reward_score(comparisons)[str(candidates)]
    wanted = numbers("editreward-bench", f"{candidates}pair")[f"seed {seed}"]
    assert len(comparisons) == wanted["total_examples"]
    if candidates == 2:
        assert (share.value, share.right) == (wanted["accuracy"], wanted["correct_examples"])
    else:
        assert share == (wanted["correct_groups"], wanted["total_groups"])
        assert share.value == wanted["group_accuracy"]


@SEEDS
def test_editreward_bench_overall(seed: int) -> None:
    """A scalar model's scores as comparisons: its ranking is right where all its comparisons are."""
    comparisons = []
    for candidates in (2, 3, 4):
        for group, (ranking, scores) in enumerate(made.edit_scores(seed, candidates)):
            for a, b in combinations("ABCD"[:candidates], 2):
                preferred = 1 if ranking.index(a) < ranking.index(b) else 2
                answer = 1 if scores["ABCD".index(a)] > scores["ABCD".index(b)] else 2
                id = f"{group}_{a}vs{b}"
                comparisons.append(official.EditComparison(id, candidates, preferred, answer))
    found, wanted = official.edit_reward_score(comparisons), numbers("editreward-bench", "eval_bench")[f"seed {seed}"]
    for name, theirs in {"2": "2-Pair", "3": "3-Pair", "4": "4-Pair", "overall": "overall"}.items():
        assert found[name] == (wanted[theirs]["strict_correct_count"], wanted[theirs]["strict_total_samples"])
        assert found[name].value == wanted[theirs]["strict_ranking_accuracy"]


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
