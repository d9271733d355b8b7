"""A small study end to end: every cell runs once, from one start, resumes cell by cell, and the report shows all."""

from __future__ import annotations

import json

import pytest

from r1_reward.records.errors import UserError
from r1_reward.studies.ablate.cells import finished, run_study
from r1_reward.studies.ablate.figures import has_noise_grid, noise_grid
from r1_reward.studies.ablate.report import write_report
from r1_reward.studies.ablate.study import Study


@pytest.fixture(scope="module")
def study(checkpoint, pair_file):
    return Study.model_validate(
        {
            "start": str(checkpoint),
            "data": str(pair_file),
            "held_out": str(pair_file),
            "held_out_pairs": 4,
            "held_out_every": 1,
            "curve_pairs": 2,
            "common": {"max_steps": 2, "per_device_train_batch_size": 4, "max_completion_length": 6},
            "settings": {
                "s": {
                    "question": "Does <it> run?",
                    "seeds": [0],
                    "arms": {"stable_reinforce": {}, "grpo": {"algorithm": "grpo", "num_generations": 2}},
                }
            },
        }
    )


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    run_study(study, folder, lambda note: None)
    return folder


def test_every_cell_leaves_curves_judgments_and_a_verdict(study, folder):
    results = finished(study, folder)
    assert [result["arm"] for result in results] == ["stable_reinforce", "grpo"]
    for result in results:
        assert len(result["right"]) == 4
        assert result["accuracy"] == pytest.approx(sum(result["right"]) / 4)
        assert [row["step"] for row in result["log"] if "policy_loss" in row] == [1, 2]
        assert any("held_out/accuracy" in row for row in result["log"])
        assert result["algorithm"] == result["arm"]
        assert not (folder / "cells" / "s" / result["arm"] / "seed-0" / "work").exists()


def test_a_finished_cell_is_not_run_again_and_a_missing_one_is(study, folder):
    kept, lost = (folder / "cells" / "s" / arm / "seed-0" / "result.json" for arm in ("stable_reinforce", "grpo"))
    before, again = kept.stat().st_mtime_ns, json.loads(lost.read_text())
    lost.unlink()
    run_study(study, folder, lambda note: None)
    assert kept.stat().st_mtime_ns == before
    rerun = json.loads(lost.read_text())
    assert rerun["right"] == again["right"]
    assert [row.get("policy_loss") for row in rerun["log"]] == [row.get("policy_loss") for row in again["log"]]


def test_the_report_shows_every_arm(study, folder):
    record = write_report(study, finished(study, folder), folder)
    page = (folder / "report.html").read_text()
    assert record["cells"] == record["cells_wanted"] == 2
    assert "Does &lt;it&gt; run?" in page
    assert page.count("data:image/png;base64,") == 2
    assert {path.name for path in (folder / "figures").iterdir()} == {"worked-case.png", "s-curves.png"}
    table = [line for line in (folder / "report.md").read_text().splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table] == ["| arm", "| stable_reinforce", "| grpo"]
    assert set(record["settings"]["s"]["arms"]) == {"stable_reinforce", "grpo"}
    assert json.loads((folder / "summary.json").read_text())["settings"].keys() == {"s"}


def test_two_workers_run_the_same_cells(study, folder, tmp_path):
    notes = []
    results = run_study(study, tmp_path, notes.append, workers=2)
    alone = finished(study, folder)
    assert [result["arm"] for result in results] == [result["arm"] for result in alone]
    assert [result["tokens"] for result in results] == [result["tokens"] for result in alone]
    assert [result["right"] for result in results] == [result["right"] for result in alone]
    assert notes[-1].startswith("2/2 ")


def test_the_start_is_judged_once(study, folder):
    judged = folder / "start.json"
    before = judged.stat().st_mtime_ns
    assert 0 <= json.loads(judged.read_text())["accuracy"] <= 1
    run_study(study, folder, lambda note: None)
    assert judged.stat().st_mtime_ns == before
    assert "accuracy" in write_report(study, finished(study, folder), folder)["start"]


def test_referee_noise_gets_a_picture_of_its_own(folder, study):
    cells = finished(study, folder)
    assert not has_noise_grid(cells)
    noisy = [{**cells[0], "options": {"referee_noise": noise}, "accuracy": 1 - noise} for noise in (0.0, 0.3)]
    weightless = {**cells[0], "options": {"consistency_weight": 0.0}, "accuracy": 0.25}
    assert has_noise_grid([*noisy, weightless])
    accuracy = noise_grid([*noisy, weightless]).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in accuracy.lines}
    assert list(lines["weight 0.5"]) == [1.0, 0.7]
    assert set(lines["weight 0"]) == {0.25}


def test_a_report_of_an_unfinished_study_says_so(study, folder, tmp_path):
    record = write_report(study, finished(study, folder)[:1], tmp_path)
    assert (record["cells"], record["cells_wanted"]) == (1, 2)


def test_other_options_in_the_same_folder_are_refused(study, folder):
    changed = study.model_copy(update={"common": {**study.common, "learning_rate": 1.0}})
    with pytest.raises(UserError, match="other options"):
        run_study(changed, folder, lambda note: None)
