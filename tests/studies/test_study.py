"""A study's file: what it may hold, which cells it makes, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_reward.records.errors import UserError
from r1_reward.studies.ablate.study import identity, load_study

GOOD = """
start: demo
common: {max_steps: 3, learning_rate: 1.0e-4}
settings:
  one:
    question: Which?
    seeds: [0, 1]
    common: {max_steps: 5}
    arms:
      a: {algorithm: stable_reinforce}
      b: {algorithm: reinforce++, learning_rate: 1.0e-3}
"""


def written(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def test_cells_come_seed_by_seed_with_the_nearest_option_winning(tmp_path):
    cells = list(load_study(written(tmp_path, GOOD)).cells())
    assert [(cell.arm, cell.seed) for cell in cells] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert cells[0].options == {"max_steps": 5, "learning_rate": 1e-4, "algorithm": "stable_reinforce"}
    assert cells[1].options["learning_rate"] == 1e-3
    assert str(cells[1]) == "one | b | seed 0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("algorithm: reinforce++", "algoritm: reinforce++"), "Did you mean 'algorithm'"),
        (("seeds: [0, 1]", "seeds: []"), "settings.one.seeds"),
        (("seeds: [0, 1]", "seeds: [0, 0, 1]"), "settings.one.seeds: 0 is listed twice"),
        (("common: {max_steps: 5}", "common: {seed: 1}"), "settings.one.a: seed cannot be an option.*in `seeds`"),
        (("{algorithm: stable_reinforce}", "{output_dir: x}"), "settings.one.a: output_dir cannot be an option.*--out"),
        (("start: demo", "start: runs/sft"), "data and held_out"),
        (("question: Which?", "baseline: c\n    question: Which?"), "'c' is not one of its arms"),
        (("start: demo", "begin: demo"), "begin"),
        (
            ("start: demo", "start: demo\ndemo: {sft_pateince: 9}"),
            "demo: unknown option.*'sft_patience'",
        ),
        (("start: demo", "start: [demo"), "not a valid YAML"),
        (("start: demo", "start: demo\ncollapse_points: 10"), "collapse_points"),
        (
            ("start: demo", "start: runs/sft\ndata: a\nheld_out: b\ntrain_pairs: rl"),
            "train_pairs applies only to the demo's pairs",
        ),
    ],
)
def test_a_wrong_study_is_explained(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load_study(written(tmp_path, GOOD.replace(*change)))


def test_a_start_from_the_demo_is_known_by_all_of_its_settings(tmp_path):
    def known(demo):
        return identity(load_study(written(tmp_path, GOOD.replace("start: demo", f"start: demo\n{demo}"))))

    assert known("demo: {sft_batch: 32}") == known("")  # the default
    assert known("demo: {sft_batch: 16}") != known("")
    assert known("start_seed: 1")["demo"]["seed"] == 1


def test_how_runs_end_and_what_they_train_on_decide_them_and_how_they_are_counted_does_not(tmp_path):
    def known(line):
        return identity(load_study(written(tmp_path, GOOD.replace("start: demo", f"start: demo\n{line}"))))

    plain = known("")
    assert "stop_at_collapse" not in plain and "train_pairs" not in plain  # as earlier folders have it
    assert known("stop_at_collapse: true") == {**plain, "stop_at_collapse": True}
    assert known("train_pairs: rl") == {**plain, "train_pairs": "rl"}
    assert known("collapse_points: 0.1") == plain
    assert known("least_entropy: 0.0") == {**plain, "least_entropy": 0.0}


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="no such config file"):
        load_study(tmp_path / "none.yaml")


RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("ablate-*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_committed_studies_are_valid(recipe):
    cells = list(load_study(recipe).cells())
    assert len({(cell.setting, cell.arm, cell.seed) for cell in cells}) == len(cells)


def test_no_run_of_the_collapse_study_is_done_twice():
    study = load_study(next(recipe for recipe in RECIPES if recipe.stem == "ablate-collapse"))
    usual = {"logps": "sighted", "filter_bounds": "standardized"}
    runs = [(cell.seed, sorted({**usual, **cell.options}.items())) for cell in study.cells()]
    assert all(run not in runs[:i] for i, run in enumerate(runs))


def test_settings_under_stress_have_eight_seeds_an_arm():
    study = load_study(next(recipe for recipe in RECIPES if recipe.stem == "ablate-tiny"))
    for name in ("stress", "heavy stress", "stale", "bfloat16 rollouts"):
        assert len(study.settings[name].seeds) >= 8
        assert study.settings[name].reference() == "stable_reinforce"
