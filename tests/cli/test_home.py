"""``~`` means the home folder wherever a path comes in: options, arguments, config files, settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from r1_reward.bench.settings import SuiteRows
from r1_reward.cli import _register, app
from r1_reward.cli import compare as compare_module
from r1_reward.data.mix_config import load_mix
from r1_reward.judge.settings import JudgeSettings
from r1_reward.records.settings import at_home
from r1_reward.serve.settings import ServerSettings
from r1_reward.train.config import load_config
from r1_reward.train.sft import ColdStartConfig


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def run(*arguments):
    _register()
    return CliRunner().invoke(app, arguments)


def test_only_the_start_of_a_path_means_home(home):
    assert at_home("~/a") == f"{home}/a"
    assert at_home(Path("~/a")) == home / "a"
    assert at_home([("~/a", Path("~"))]) == [(f"{home}/a", home)]
    assert at_home({"data": "~/a", "steps": 3}) == {"data": f"{home}/a", "steps": 3}
    for other in ("a/~/b", "owner/name", "~nobody-of-this-name/a", "", None, 7, Path("a~")):
        assert at_home(other) == other


def test_settings_know_home(home):
    (home / "pictures").mkdir()
    assert JudgeSettings(model="~/runs/rl").model == f"{home}/runs/rl"
    assert SuiteRows(data="~/d.jsonl", image_root=Path("~/x")).image_root == home / "x"
    assert ServerSettings(allow_folders=("~/pictures",)).allow_folders == (home / "pictures",)


def test_config_files_know_home_also_in_their_parts(home):
    (home / "mix.yaml").write_text(yaml.safe_dump({"sources": {"a": {"path": "~/a", "count": 1}}, "out": "~/o"}))
    mix = load_mix(home / "mix.yaml")
    assert (mix.sources["a"].path, mix.out) == (f"{home}/a", f"{home}/o")
    (home / "sft.yaml").write_text(yaml.safe_dump({"model": "~/m", "data": "~/d.jsonl", "output_dir": "~/runs"}))
    config = load_config(home / "sft.yaml", ["--data", "~/other.jsonl", "--bf16", "false"], ColdStartConfig)
    assert (config.run.model, config.run.data) == (f"{home}/m", f"{home}/other.jsonl")
    assert config.trainer.output_dir == f"{home}/runs"


def test_pair_files_and_config_files_are_looked_for_at_home(home, pair_file):
    shutil.copytree(pair_file.parent, home / "pairs")
    valid = run("data", "validate", "~/pairs/pairs.jsonl")
    assert (valid.exit_code, "all valid" in valid.output) == (0, True)
    for arguments in (
        ["data", "mix", "--config=~/gone.yaml"],
        ["ablate", "--config=~/gone.yaml"],
        ["train", "sft", "--config=~/gone.yaml"],
        ["plan", "--config=~/gone.yaml"],
        ["bench", "table", "~/gone.yaml"],
        ["data", "import", "trl", "--from=~/gone.yaml", "--out=~/o"],
        ["data", "export", "r1-reward-rl", "~/gone.yaml", "--out=~/o"],
    ):
        assert f"{home}/gone.yaml" in str(run(*arguments).exception), arguments


def test_pictures_are_at_home_and_answers_are_left_alone(home, monkeypatch):
    asked = []

    class Model:
        calibration = None

        def compare(self, *given, **options):
            asked.append(given)
            raise SystemExit

    monkeypatch.setattr(compare_module, "load_judge", lambda *_: Model())
    (home / "answer.txt").write_text("From the file.")
    for name, size in (("a.png", 4), ("b.png", 8)):
        Image.new("RGB", (size, size)).save(home / name)
    run(
        "compare", "--model=~/m", "--image", "~/a.png", "--image=~/b.png", "--question", "~/.bashrc?",
        "--a", "~/.bashrc", "--b", "@~/answer.txt",
    )  # fmt: skip
    ((question, pictures, first, second, criteria),) = asked
    assert (question, first, second, criteria) == ("~/.bashrc?", "~/.bashrc", "From the file.", None)
    assert [picture.width for picture in pictures] == [4, 8]
