"""A small study end to end: every cell runs once, from one start, resumes cell by cell, and the report shows all.

What is a result and what is not: a policy that cannot be sampled from is, whatever else ends a run is not.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from typer.testing import CliRunner

from r1_reward.cli import app
from r1_reward.records.errors import UserError
from r1_reward.studies.ablate import cells as cells_module
from r1_reward.studies.ablate.cells import run_study
from r1_reward.studies.ablate.figures import noise_grid
from r1_reward.studies.ablate.report import varies_noise, write_report
from r1_reward.studies.ablate.results import failed, finished
from r1_reward.studies.ablate.study import Study
from r1_reward.train import monitor


def study_of(start, pairs, arms):
    return Study.model_validate(
        {
            "start": str(start),
            "data": str(pairs),
            "held_out": str(pairs),
            "held_out_pairs": 4,
            "held_out_every": 1,
            "curve_pairs": 2,
            "common": {"max_steps": 2, "per_device_train_batch_size": 4, "max_completion_length": 6},
            "settings": {"s": {"question": "Does <it> run?", "seeds": [0], "arms": arms}},
        }
    )


SOUND, BROKEN = {}, {"lr_scheduler_type": "cosine_with_min_lr"}
"""The second is an error that only the run itself finds: this scheduler wants another option."""


@pytest.fixture(scope="module")
def study(checkpoint, pair_file):
    return study_of(
        checkpoint, pair_file, {"stable_reinforce": {}, "grpo": {"algorithm": "grpo", "num_generations": 2}}
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
    assert page.count("data:image/png;base64,") == 3  # the paper's example, where runs ended, their curves
    assert {path.name for path in (folder / "figures").iterdir()} == {"worked-case.png", "s-ends.png", "s-curves.png"}
    table = [line for line in (folder / "report.md").read_text().splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table] == ["| arm", "| stable_reinforce", "| grpo"]
    assert table[0].endswith(" | tokens processed, prompts included |")
    assert set(record["settings"]["s"]["arms"]) == {"stable_reinforce", "grpo"}
    assert json.loads((folder / "summary.json").read_text())["settings"].keys() == {"s"}


def test_a_failed_cell_leaves_no_result_and_workers_run_the_others(study, folder, checkpoint, pair_file, tmp_path):
    broken = study_of(checkpoint, pair_file, {"stable_reinforce": SOUND, "broken": BROKEN})
    notes = []
    results = run_study(broken, tmp_path, notes.append, workers=2)
    alone = finished(study, folder)[0]
    assert [(one["arm"], one["tokens"], one["right"]) for one in results] == [
        ("stable_reinforce", alone["tokens"], alone["right"])
    ]
    assert len([note for note in notes if note.startswith("2/2 ")]) == 1
    assert any("s | broken | seed 0: no result, ValueError" in note for note in notes)
    assert list(failed(broken, tmp_path)) == ["s | broken | seed 0"]
    assert not (tmp_path / "cells" / "s" / "broken" / "seed-0" / "result.json").exists()
    record = write_report(broken, results, tmp_path)
    assert record["settings"]["s"]["arms"]["broken"]["seeds"] == 0
    assert (record["cells"], record["cells_wanted"]) == (1, 2)
    for page in ("report.html", "report.md"):
        assert "s | broken | seed 0" in (tmp_path / page).read_text()


@pytest.fixture
def command(study, folder, tmp_path):
    """Run `r1-reward ablate` over the finished study."""
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(study.model_dump()))
    from r1_reward import cli

    if not any(command.name == "ablate" for command in app.registered_commands):
        cli._register()
    return lambda *options: CliRunner().invoke(app, ["ablate", "--config", str(config), "--out", str(folder), *options])


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("NCCL error"), ValueError("typo"), KeyError("x")],
    ids=lambda error: type(error).__name__,
)
def test_only_sampling_from_nan_ends_a_run_with_a_result(error):
    def fail(error):
        raise error

    with pytest.raises(type(error)):
        cells_module._train(SimpleNamespace(train=lambda: fail(error)))
    with pytest.raises(RuntimeError) as sampled:  # what torch says today
        torch.multinomial(torch.tensor([0.5, float("nan")]), 1)
    assert "probability" in cells_module._train(SimpleNamespace(train=lambda: fail(sampled.value)))


def test_the_command_names_failed_cells_and_the_next_call_runs_them_again(folder, command, monkeypatch):
    lost = folder / "cells" / "s" / "grpo" / "seed-0"
    before = (lost / "result.json").read_text()
    (lost / "result.json").unlink()

    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("r1_reward.train.rl.StableReinforceTrainer.train", fail)
        done = command()
    assert done.exit_code == 1
    assert "no result: s | grpo | seed 0: OutOfMemoryError: CUDA out of memory" in done.output
    assert not (lost / "result.json").exists() and not (lost / "work").exists()
    assert "Traceback" in (lost / "error.txt").read_text()
    monkeypatch.setattr(cells_module, "run_cell", lambda *arguments: json.loads(before))
    done = command()
    assert done.exit_code == 0, done.output
    assert not (lost / "error.txt").exists()
    assert "stable_reinforce" in done.output and "no result" not in done.output


def test_a_judge_that_fails_is_no_result_either(study, folder, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(cells_module, "judge_held_out", fail)
    monkeypatch.setattr(cells_module, "_judge_start", lambda *arguments: None)
    monkeypatch.setattr(cells_module, "_train", lambda trainer: None)
    assert run_study(study, tmp_path, lambda note: None) == []
    assert set(failed(study, tmp_path).values()) == {"RuntimeError: CUDA error"}


def test_a_penalty_relative_to_the_base_model_of_adapters_is_refused_before_any_run(pair_file, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    study = study_of(tmp_path, pair_file, {"stable_reinforce": {"beta": 0.1}})
    with pytest.raises(UserError, match="save the merged model first"):
        cells_module._run_study(study, tmp_path / "out", 1, lambda note: None)


def test_weights_that_are_not_finite_are_a_collapse(checkpoint, pair_file, tmp_path):
    from r1_reward.models.checkpoint import load_model_and_processor

    model, processor = load_model_and_processor(str(checkpoint), dtype="float32")
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "nan")
    processor.save_pretrained(tmp_path / "nan")
    study = study_of(tmp_path / "nan", pair_file, {"stable_reinforce": SOUND})
    (result,) = run_study(study, tmp_path / "out", lambda note: None)
    assert result["collapse"]["rule"] == "sampling_failed" and "probability tensor" in result["failure"]
    assert result["verdict"] == "collapsed at step 0"
    assert (result["accuracy"], result["parse_rate"], result["right"]) == (0.0, 0.0, [0.0] * 4)  # measured
    assert result["mean_tokens"] > 0
    assert failed(study, tmp_path / "out") == {}
    arm = write_report(study, [result], tmp_path / "out")["settings"]["s"]["arms"]["stable_reinforce"]
    assert arm["collapses"] == arm["seeds"] == 1


def test_a_last_update_that_breaks_the_weights_is_a_collapse():
    def trainer(value):
        return SimpleNamespace(model=torch.nn.Linear(1, 1), state=SimpleNamespace(global_step=7), value=value)

    sound, broken = trainer(0.0), trainer(float("inf"))
    for one in (sound, broken):
        torch.nn.init.constant_(one.model.weight, one.value)
    assert cells_module._unlogged(sound, None) is None
    assert cells_module._unlogged(broken, None)[:2] == (7, "not_finite")


def test_numbers_that_an_earlier_version_made_up_are_not_read(study, folder, tmp_path):
    for result, failure in zip(
        finished(study, folder), ("CUDA out of memory", "probability tensor contains either `inf`"), strict=True
    ):
        path = tmp_path / "cells" / "s" / result["arm"] / "seed-0" / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**result, "failure": failure, "identity": None}))
    assert [result["arm"] for result in finished(study, tmp_path)] == ["grpo"]
    assert failed(study, tmp_path) == {"s | stable_reinforce | seed 0": "CUDA out of memory"}
    with pytest.raises(UserError, match=r"contains no run. .* --report-only still shows"):
        run_study(study, tmp_path, lambda note: None)


def test_a_study_may_end_its_runs_where_they_collapse(checkpoint, pair_file, tmp_path, monkeypatch):
    third = monitor.Rule("it is the third log", lambda series, *_: {"loss": 0.0} if len(series["loss"]) == 3 else None)
    monkeypatch.setattr(monitor, "RULES", {"loss_exploded": third})
    study = study_of(checkpoint, pair_file, {"stable_reinforce": {"max_steps": 5}})
    ends = []
    for stops in (False, True):
        chosen = study.model_copy(update={"stop_at_collapse": stops})
        (result,) = run_study(chosen, tmp_path / str(stops), lambda note: None)
        assert result["collapse"]["step"] == 3 and result["verdict"] == "collapsed at step 3"
        assert len(result["right"]) == 4  # judged where it ended
        ends.append((result["stopped_at"], max(row["step"] for row in result["log"])))
    assert ends == [(None, 5), (3, 3)]


@pytest.mark.parametrize(("least", "used"), [(None, monitor.Thresholds().entropy), (0.0, 0.0), (0.5, 0.5)])
def test_the_study_sets_the_entropy_of_a_collapse(checkpoint, pair_file, tmp_path, monkeypatch, least, used):
    shown = monitor.Rule("always", lambda series, thresholds, _: {"entropy": thresholds.entropy})
    monkeypatch.setattr(monitor, "RULES", {"entropy_lost": shown})
    study = study_of(checkpoint, pair_file, {"stable_reinforce": SOUND})
    study = study.model_copy(update={"stop_at_collapse": True, "least_entropy": least})
    (result,) = run_study(study, tmp_path, lambda note: None)
    assert (result["stopped_at"], result["collapse"]["values"]) == (1, {"entropy": used})


def test_a_sound_run_is_not_stopped(checkpoint, pair_file, tmp_path):
    study = study_of(checkpoint, pair_file, {"stable_reinforce": SOUND}).model_copy(update={"stop_at_collapse": True})
    (result,) = run_study(study, tmp_path, lambda note: None)
    assert (result["stopped_at"], result["verdict"]) == (None, "finished")
    assert max(row["step"] for row in result["log"]) == 2


def test_the_report_counts_lost_accuracy(study, folder, tmp_path):
    (good, bad) = finished(study, folder)
    (tmp_path / "start.json").write_text(json.dumps({"accuracy": 0.75, "parse_rate": 1.0, "consistent": 1.0}))
    cells = [{**good, "accuracy": 0.7}, {**bad, "accuracy": 0.25}]
    counting = study.model_copy(update={"collapse_points": 0.1})
    record = write_report(counting, cells, tmp_path)
    assert record["least_accuracy"] == pytest.approx(0.65)
    arms = record["settings"]["s"]["arms"]
    assert [arms[name]["accuracy_lost"] for name in ("stable_reinforce", "grpo")] == [0, 1]
    for page in ("report.html", "report.md"):
        text = (tmp_path / page).read_text()
        assert text.count("0 unreadable or broken, 1 accuracy lost") == 1 and "65.0" in text
    assert write_report(study, cells, tmp_path)["settings"]["s"]["arms"]["grpo"]["accuracy_lost"] is None
    assert "accuracy lost" not in (tmp_path / "report.html").read_text() + (tmp_path / "report.md").read_text()


def test_the_start_is_judged_once(study, folder):
    judged = folder / "start.json"
    before = judged.stat().st_mtime_ns
    assert 0 <= json.loads(judged.read_text())["accuracy"] <= 1
    run_study(study, folder, lambda note: None)
    assert judged.stat().st_mtime_ns == before
    assert "accuracy" in write_report(study, finished(study, folder), folder)["start"]


def test_the_start_is_judged_where_judgments_have_no_limit(checkpoint, pair_file, tmp_path, monkeypatch):
    study = study_of(checkpoint, pair_file, {"stable_reinforce": {"max_completion_length": None}})
    limits = []

    def judge(model, processor, start, limit):
        limits.append(limit)
        return {"accuracy": 0.5}

    monkeypatch.setattr(cells_module, "judge_held_out", judge)
    start = cells_module.Start(str(checkpoint), None, [])
    cells_module._judge_start(start, study, tmp_path, lambda note: None)
    assert limits == [1024]


def test_referee_noise_gets_a_picture_of_its_own(folder, study):
    cells = finished(study, folder)
    record = {"study": study.model_dump()}
    assert varies_noise(record) == []
    record["study"]["settings"]["s"]["arms"]["grpo"]["referee_noise"] = 0.3
    assert varies_noise(record) == ["s"]
    noisy = [{**cells[0], "options": {"referee_noise": noise}, "accuracy": 1 - noise} for noise in (0.0, 0.3)]
    weightless = {**cells[0], "options": {"consistency_weight": 0.0}, "accuracy": 0.25}
    accuracy = noise_grid([*noisy, weightless]).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in accuracy.lines}
    assert list(lines["weight 0.5"]) == [1.0, 0.7]
    assert set(lines["weight 0"]) == {0.25}


def test_another_study_is_refused_and_an_added_seed_is_not(study, folder, checkpoint, pair_file, tmp_path, monkeypatch):
    def refused(match, **changes):
        with pytest.raises(UserError, match=match):
            run_study(study.model_copy(update=changes), folder, lambda note: None)

    for name, value in (("held_out_pairs", 5), ("held_out_every", 2), ("curve_pairs", 3), ("start_seed", 1)):
        old = getattr(study, name)
        refused(rf"contains a different run \({name} {old} there, {value} now\)", **{name: value})
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(pair_file.read_text().splitlines(keepends=True)[1:]))
    (tmp_path / "images").symlink_to(pair_file.parent / "images")
    refused(r"data \'sha256:\w+\' there, \'sha256:\w+\' now", data=str(fewer))
    refused("held_out 'sha256", held_out=str(fewer))
    refused("demo not recorded there", start="demo", data=None, held_out=None)
    refused(r"contains a different run \(options.learning_rate", common={**study.common, "learning_rate": 1.0})
    ran, (old, _) = [], finished(study, folder)

    def run_cell(cell, *arguments):
        ran.append(cell.seed)
        return {**old, **cell._asdict()}

    monkeypatch.setattr(cells_module, "run_cell", run_cell)
    more = study.settings["s"].model_copy(update={"seeds": [0, 1]})
    results = run_study(study.model_copy(update={"settings": {"s": more}}), folder, lambda note: None)
    assert ran == [1, 1] and len(results) == 4


def test_a_report_of_an_unfinished_study_says_so(study, folder, tmp_path):
    record = write_report(study, finished(study, folder)[:1], tmp_path)
    assert (record["cells"], record["cells_wanted"]) == (1, 2)


def test_a_missing_verdict_is_not_an_inconsistent_judgment(monkeypatch):
    from r1_reward.judge import referee
    from r1_reward.records.schema import Judgment
    from r1_reward.studies.ablate.cells import _consistent_share

    text = "<think>Response 1 is better.</think><answer>1</answer>"
    votes = [[Judgment(answer=1, swapped=False, text=text, well_formed=True, tokens=1)] * 4]
    for verdicts, share in (([1.0, None, None, 0.0], 0.5), ([1.0, None, None, None], 1.0), ([None] * 4, None)):
        monkeypatch.setattr(referee.RuleReferee, "judge", lambda self, *_, verdicts=verdicts: verdicts)
        assert _consistent_share(votes) == share
