"""`r1-reward push --dry-run`: the repository as a folder, offline; what is refused; what is never published."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_cache import put_in_cache
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from r1_reward.judge.calibration import Calibration
from r1_reward.publish.facts import find_origin
from r1_reward.publish.push import prepare as prepared
from r1_reward.publish.push import write
from r1_reward.records.errors import UserError

FITTED = Calibration(temperature=2.0, n=40, ece_before=0.2, ece_after=0.1, brier_before=0.3, brier_after=0.25)
PUBLISHED = {
    "README.md", "calibration.json", "chat_template.jinja", "config.json", "config.yaml", "generation_config.json",
    "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def prepare(*arguments, license="apache-2.0", **options):
    return prepared(*arguments, license=license, **options)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `r1-reward push` in this process; return exit code, output, messages."""
    from r1_reward.cli import main

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["r1-reward", "push", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


def card(package):
    return package.files["README.md"].decode()


def python_of(text):
    return text.split("```python\n")[1].split("```")[0]


def test_a_dry_run_writes_the_repository_and_nothing_private(command, trained, tmp_path, monkeypatch):
    FITTED.save(trained)
    monkeypatch.chdir(tmp_path)
    code, said, warned = command(trained, "me/judge", "--dry-run", "--private", "--license", "apache-2.0")
    assert code == 0, warned
    out = trained.with_name("rl-hub")
    assert {path.name for path in out.iterdir()} == PUBLISHED
    for name in PUBLISHED - {"README.md", "config.yaml"}:
        assert (out / name).read_bytes() == (trained / name).read_bytes()
        assert f"{(out / name).stat().st_size:,}  {name}" in said
    assert "would become branch main of me/judge, a private repository" in said
    assert "an upload first looks up model Qwen/Qwen2.5-VL-7B-Instruct" in warned
    stays = said.split("not uploaded: ")[1].splitlines()[0].split(", ")
    assert {"optimizer.pt", "verdicts.jsonl", "checkpoint-2/", "last-good/", ".env", "scene.png"} <= set(stays)
    for path in out.iterdir():
        content = path.read_bytes()
        for secret in (str(tmp_path), str(Path.home()) + "/", "hf_xxxx", "10.0.0.7"):
            assert secret.encode() not in content, (path.name, secret)
    saved, published = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (trained, out))
    assert published["data"] == "pairs.jsonl" and published["referee"] == "server:judge@<address>"
    assert {key for key in saved if saved[key] != published[key]} <= {"data", "referee", "hub_token"}
    code, _, warned = command(trained, "me/judge", "--dry-run", "--license", "mit")
    assert code == 2 and "not an empty folder" in warned


def test_the_card_is_filled_from_the_run_and_read_by_the_hub_s_own_library(trained, bench_of, tmp_path):
    FITTED.save(trained)
    overall = {
        "overall": 0.75, "macro": 0.7, "parse_rate": 0.9, "flip_rate": 0.25, "first_share": 0.8,
        "by_position": {"first": 0.95, "second": 0.55}, "complete": True,
        "intervals": {"overall": [0.6, 0.88], "macro": [0.5, 0.9], "acc_plus": None},
        "baselines": {"always_1": {"overall": 0.5}, "longer": {"overall": 0.8}, "shorter": None},
    }  # fmt: skip
    package = prepare(trained, "me/judge", bench=[bench_of(trained, **overall)], license="apache-2.0")
    write(package, tmp_path / "out")
    loaded = ModelCard.load(tmp_path / "out" / "README.md")
    numbers = sum(tensor.numel() for tensor in load_file(trained / "model.safetensors").values())
    data = loaded.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "transformers", "image-text-to-text")
    assert (data.base_model, data.base_model_relation) == ("Qwen/Qwen2.5-VL-7B-Instruct", "finetune")
    assert {"reward-model", "stable-reinforce", "arxiv:2505.02835"} <= set(data.tags)
    assert data.model_name == "judge"
    values = {result.metric_name.split(" (")[0]: result.metric_value for result in data.eval_results}
    assert values == {"accuracy": 0.75, "macro accuracy": 0.7}
    assert {result.dataset_type for result in data.eval_results} == {"held-out.jsonl"}
    assert "both orders, 1 vote per order, greedy, at most 4 new tokens" in data.eval_results[0].metric_name
    text = loaded.text
    for expected in (
        "| 16 | 75.0 % | 60.0 % to 88.0 % | 70.0 % |",
        "10.0 % of its verdicts on pairs", "25.0 % of its verdicts", "response shown first: 80.0 %",
        "95.0 % when the preferred response is shown first and 55.0 % when it is shown second",
        "Always picking the longer response is at least as accurate", "| reward | 0.25 | 1.5 |",
        "| loss | 0.1 | -0.1235 |",
        "| reward/format | 0.5 | 1 |", "| learning\\_rate | 0.0001 |", "2 steps were logged.",
        "Calibrated on 40 pairs with temperature 2", "20.0 % before and 10.0 % after",
        "trained from | Qwen/Qwen2.5-VL-7B-Instruct |", f"{numbers:,} parameters in F32",
        "A pair file called pairs.jsonl. No data card was given",
    ):  # fmt: skip
        assert expected in text, expected
    assert "reward/consistency" not in text  # it never had a value
    assert "not been measured" not in text and "nan" not in text
    assert [line for line in text.splitlines() if "None" in line and "1, 2 or None" not in line] == []


def test_the_card_reports_what_is_missing(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "bare")
    package = prepare(folder, "me/bare")
    text = card(package)
    for expected in (
        "unknown: the folder does not record it",
        "Nothing: no benchmark run was published", "Not calibrated", "The recipe is unknown",
        "No training log was found", "Unknown: neither a configuration nor a data card",
        "Its weaknesses have not been measured",
    ):  # fmt: skip
        assert expected in text, expected
    assert "base_model" not in text and "model-index" not in text and "datasets" not in text
    assert [note.split(":")[0] for note in package.notes] == [
        "base model", "recipe", "training", "data", "evaluation", "probabilities",
    ]  # fmt: skip
    assert package.named == []


def test_an_incomplete_measurement_is_shown_and_kept_out_of_the_metadata(trained, bench_of):
    run = bench_of(trained, complete=False, n=12, overall=0.5, intervals={"overall": [0.2, 0.8]})
    package = prepare(trained, "me/judge", bench=[run])
    text = card(package)
    assert "12 of 16: incomplete" in text and "is incomplete: 12 of 16 rows" in text
    assert "may be no better than chance: the 95 % interval reaches down to 50 %" in text
    assert "model-index" not in text
    assert any("is incomplete" in note for note in package.notes)


def test_a_trial_is_shown_and_kept_out_of_the_metadata(trained, bench_of):
    package = prepare(trained, "me/judge", bench=[bench_of(trained, limit=16, overall=0.625, parse_rate=1.0)])
    text = card(package)
    assert "62.5 %" in text and "are not all those of the benchmark: this is not its score" in text
    assert "model-index" not in text
    whole = prepare(trained, "me/judge", bench=[bench_of(trained, name="whole", overall=0.625, parse_rate=1.0)])
    assert "model-index" in card(whole)


def test_a_run_of_older_weights_in_the_same_folder_is_refused(trained, bench_of):
    run = bench_of(trained)
    prepare(trained, "me/judge", bench=[run])
    weights = trained / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"held other weights \(sha256:\w+ then, sha256:\w+ now\). Judge it again"):
        prepare(trained, "me/judge", bench=[run])


def test_runs_inside_the_folder_are_found_and_those_of_other_models_refused(trained, bench_of, tmp_path):
    bench_of("/elsewhere/rl", name="runs/rl/bench", overall=0.625)
    with pytest.raises(UserError, match="judged /elsewhere/rl, which is neither .* --judged-as /elsewhere/rl"):
        prepare(trained, "me/judge")
    assert "62.5 %" in card(prepare(trained, "me/judge", judged_as=["/elsewhere/rl"]))
    with pytest.raises(UserError, match=r"no metrics.json in this folder; give one that `r1-reward bench run`"):
        prepare(trained, "me/judge", judged_as=["/elsewhere/rl"], bench=[tmp_path])
    assert "62.5 %" in card(
        prepare(trained, "me/judge", bench=[bench_of("me/judge", overall=0.625)], judged_as=["/elsewhere/rl"])
    )


def test_the_data_card_s_numbers_reach_the_model_card(trained, run_config, tmp_path):
    mixture = {
        "rows": 1200, "train": 1000, "test": 200, "config": {"seed": 7}, "labels": {},
        "removed": {"near duplicate": 31},
        "benchmarks": [{"suite": "vl-rewardbench"}],
        "sources": {"rlaif_v": {"path": str(tmp_path / "sources" / "rlaif-v")}},
        "statistics": {"sources": {"rlaif_v": {"rows": 1200, "longer_wins": 0.625}}},
    }  # fmt: skip
    (tmp_path / "sources" / "rlaif-v").mkdir(parents=True)
    (tmp_path / "sources" / "rlaif-v" / "report.json").write_text(json.dumps({"from": "openbmb/RLAIF-V-Dataset"}))
    (tmp_path / "mixed" / "train").mkdir(parents=True)
    (tmp_path / "mixed" / "report.json").write_text(json.dumps(mixture))
    given = prepare(trained, "me/judge", data_card=tmp_path / "mixed")
    config = yaml.safe_load((trained / "config.yaml").read_text())
    (trained / "config.yaml").write_text(yaml.safe_dump({**config, "data": str(tmp_path / "mixed" / "train")}))
    found = prepare(trained, "me/judge")
    for package in (given, found):
        text = card(package)
        assert "1,200 preference pairs (1,000 for training)" in text and "with seed 7" in text
        assert "| rlaif\\_v | 1,200 | 62.5 % |" in text and "near duplicate 31." in text
        assert "Checked for overlap with vl-rewardbench." in text
        assert ("dataset", "openbmb/RLAIF-V-Dataset") in package.named
        assert yaml.safe_load(text.split("---")[1])["datasets"] == ["openbmb/RLAIF-V-Dataset"]
    with pytest.raises(UserError, match=r"no report.json of `r1-reward data mix`"):
        prepare(trained, "me/judge", data_card=trained)


def test_rows_without_a_verdict_and_truncated_verdicts_reach_the_model_card(trained, bench_of, tmp_path):
    rl = tmp_path / "divided"
    rl.mkdir()
    levels = {"2": 40, "3": 9, "failed": 1200, "no verdict": 33}
    (rl / "report.json").write_text(json.dumps({"kind": "rl", "levels": levels}))
    config = yaml.safe_load((trained / "config.yaml").read_text())
    (trained / "config.yaml").write_text(yaml.safe_dump({**config, "data": str(rl)}))
    run = bench_of(trained, parse_rate=0.75, truncated=0.125)
    text = card(prepare(trained, "me/judge", bench=[run]))
    assert "by their difficulty: 2 40, 3 9, failed 1,200, no verdict 33." in text
    assert "| verdicts truncated at the token limit | 12.5 % |" in text
    assert "12.5 % of its verdicts on" in text and "were truncated at the token limit." in text


def test_the_usage_runs_as_it_is_printed(trained, tmp_path):
    FITTED.save(trained)
    package = prepare(trained, "me/judge")
    write(package, tmp_path / "out")
    put_in_cache(tmp_path / "cache", "me/judge", tmp_path / "out")
    code = python_of(card(package)) + "\nprint(model.calibration.temperature, model.max_new_tokens)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split()[0] in ("1", "2", "None")
    assert done.stdout.splitlines()[-1] == "2.0 8"  # the published calibration, the length of training


def test_the_usage_of_a_branch_loads_that_branch(trained):
    code = python_of(card(prepare(trained, "me/judge", revision="v2")))
    assert 'from_pretrained(snapshot_download("me/judge", revision="v2"), max_new_tokens=8)' in code
    compile(code, "card", "exec")


def test_a_models_origin_is_followed_through_its_folders(trained, tmp_path, monkeypatch):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    (trained.parent / "sft").mkdir()
    (trained.parent / "sft" / "config.yaml").write_text(yaml.safe_dump({"model": "Qwen/Qwen2.5-VL-3B-Instruct"}))
    (trained / "config.yaml").write_text(yaml.safe_dump({**config, "model": "runs/sft"}))
    for place in (tmp_path, Path("/")):  # the path in the configuration is relative to where the run was started
        monkeypatch.chdir(place)
        origin = find_origin(trained)
        assert (origin.base, origin.steps) == ("Qwen/Qwen2.5-VL-3B-Instruct", ("sft", "Qwen/Qwen2.5-VL-3B-Instruct"))
    assert find_origin(trained / "checkpoint-2").steps[0] == "sft"
    assert find_origin(trained, base="me/other").base == "me/other"
    (trained.parent / "sft" / "config.yaml").write_text(yaml.safe_dump({"model": str(trained)}))
    with pytest.raises(UserError, match="trained from itself"):
        find_origin(trained)


def adapters(trained):
    (trained / "model.safetensors").unlink()
    (trained / "config.json").unlink()
    shutil.copy(trained / "checkpoint-2" / "model.safetensors", trained / "adapter_model.safetensors")
    config = {"base_model_name_or_path": str(trained.parent / "sft"), "r": 4, "peft_type": "LORA"}
    (trained / "adapter_config.json").write_text(json.dumps(config))


def test_adapters_need_a_base_model_on_the_hub(trained, tmp_path):
    adapters(trained)
    with pytest.raises(UserError, match="holds only adapters for the local model .*sft.* --base-model OWNER/NAME"):
        prepare(trained, "me/lora")
    package = prepare(trained, "me/lora", base_model="me/sft")
    assert json.loads(package.files["adapter_config.json"]) == {
        "base_model_name_or_path": "me/sft", "r": 4, "peft_type": "LORA",
    }  # fmt: skip
    data = ModelCard(card(package)).data
    assert (data.base_model, data.base_model_relation, data.library_name) == ("me/sft", "adapter", "peft")
    assert "These are adapters, not a full model" in card(package)
    assert package.named == [("model", "me/sft")]
    with pytest.raises(UserError, match="not an id on the Hub"):
        prepare(trained, "me/lora", base_model=str(tmp_path))
    (trained / "adapter_config.json").unlink()
    with pytest.raises(UserError, match="adapter_config.json is missing"):
        prepare(trained, "me/lora", base_model="me/sft")


def test_a_scalar_model_s_card_offers_no_generated_text(trained):
    manifest = {"format": 1, "critique": False, "base_model": "/private/folder"}
    (trained / "scalar.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="scalar_head.safetensors is missing"):
        prepare(trained, "me/scalar")
    shutil.copy(trained / "model.safetensors", trained / "scalar_head.safetensors")
    package = prepare(trained, "me/scalar")
    assert json.loads(package.files["scalar.json"])["base_model"] is None
    data = ModelCard(card(package)).data
    assert data.pipeline_tag is None and data.library_name == "r1-reward"
    assert "a single score" in card(package) and "reasoning" not in python_of(card(package))


@pytest.mark.parametrize("taught", [{"taught": 60}, {"taught_easy": 40, "taught_hard": 20}])  # the latter: 0.1.0
def test_the_demo_s_models_bring_the_demo_s_numbers(checkpoint, tmp_path, taught):
    folder = shutil.copytree(checkpoint, tmp_path / "demo" / "rl")
    one = {
        "accuracy": 0.875, "low": 0.8, "high": 0.95, "by_kind": {"sum": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 8}},
        "by_position": {"first": 0.9, "second": 0.85}, "flip_rate": 0.125, "parse_rate": 1.0,
    }  # fmt: skip
    world = {"train_pairs": 200, "captions": 64, **taught, "shared_scans": 0}
    metrics = {
        "command": "r1-reward demo --seed 5", "seed": 5, "n_pairs": 24, "config": {"max_new_tokens": 64}, "rl": one,
        "paired_difference": {}, "world": world, "attempts": {},
    }  # fmt: skip
    (tmp_path / "demo" / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "demo" / "state.json").write_text("{}")
    (tmp_path / "demo" / "rl-log.json").write_text(
        json.dumps([{"step": 1, "reward": 0.5}, {"step": 9, "reward": 0.75}])
    )
    text = card(prepare(folder, "me/demo"))
    assert ModelCard(text).data.eval_results[0].metric_value == 0.875
    assert "| 24 | 87.5 % | 80.0 % to 95.0 % |" in text and "A model of `r1-reward demo --seed 5`" in text
    assert "| reward | 0.5 | 0.75 |" in text and "9 steps were logged" in text and "200 pairs and 64 captions" in text
    assert " 60 pairs with\nreasoning" in text
    assert "12.5 % of its verdicts" in text and "max_new_tokens=64" in text
    assert "base model on the Hub | none" in text


# ---- what is refused


def test_weights_that_are_missing_damaged_or_from_two_saves_are_refused(trained):
    def refused(match, folder=trained):
        with pytest.raises(UserError, match=match):
            prepare(folder, "me/judge")

    refused("no such folder", trained / "absent")
    weights = (trained / "model.safetensors").read_bytes()
    (trained / "model.safetensors").write_bytes(weights[:-1000])
    refused("model.safetensors: damaged or truncated")
    (trained / "model.safetensors").write_bytes(b"\0" * len(weights))
    refused("model.safetensors: damaged or truncated")
    (trained / "model.safetensors").unlink()
    refused(r"no weights .* in this folder.* The newest checkpoint is .*checkpoint-2")
    shutil.rmtree(trained / "checkpoint-2")
    (trained / "pytorch_model.bin").write_text("")
    refused("pytorch_model.bin is a pickle")
    (trained / "model-00001-of-00002.safetensors").write_bytes(weights)
    refused("index.json of the 1 shards is missing")
    from safetensors import safe_open

    with safe_open(trained / "model-00001-of-00002.safetensors", "np") as file:
        names = list(file.keys())
    places = dict.fromkeys(names, "model-00001-of-00002.safetensors")
    index = trained / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {**places, "other": "model-00002-of-00002.safetensors"}}))
    refused("index.json lists model-00002-of-00002.safetensors, but the folder does not have it")
    index.write_text(json.dumps({"weight_map": {**places, "other": "model-00001-of-00002.safetensors"}}))
    refused("lists other in model-00001-of-00002.safetensors, which does not hold it")
    index.write_text(json.dumps({"weight_map": places}))
    assert "model-00001-of-00002.safetensors" in prepare(trained, "me/judge").files
    (trained / "model.safetensors").write_bytes(weights)
    refused("holds both model.safetensors and shards from another save")
    index.unlink()
    (trained / "model-00001-of-00002.safetensors").unlink()
    (trained / "config.json").unlink()
    refused("config.json is missing")


def test_a_checkpoint_is_published_if_its_checksums_hold(trained):
    from r1_reward.train.checkpoints import seal

    checkpoint = trained / "checkpoint-2"
    for path in trained.iterdir():
        if path.is_file() and path.name not in ("config.yaml", "trainer_state.json"):
            shutil.copy(path, checkpoint)
    for name in ("trainer_state.json", "scheduler.pt"):
        (checkpoint / name).write_text('{"global_step": 2, "log_history": [{"step": 1, "reward": 0.125}]}')
    (trained / "trainer_state.json").unlink()
    seal(checkpoint)
    weights = bytearray((checkpoint / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="checkpoint-2: model.safetensors .* publish another checkpoint"):
        prepare(checkpoint, "me/judge")
    (checkpoint / "complete.json").unlink()
    package = prepare(checkpoint, "me/judge")
    assert "complete.json" not in package.files and "| reward | 0.125 | 0.125 |" in card(package)
    assert yaml.safe_load(package.files["config.yaml"])["learning_rate"] == 1e-4  # the run's, one folder up


@pytest.mark.parametrize(
    ("name", "what"),
    [("processor_config.json", "processor"), ("tokenizer.json", "tokenizer"), ("chat_template.jinja", "chat template")],
)
def test_a_missing_processor_is_refused(trained, name, what):
    (trained / name).unlink()
    with pytest.raises(UserError, match=f"the {what} is missing .*save_pretrained"):
        prepare(trained, "me/judge")


@pytest.mark.parametrize(
    "hub_id", ["judge", "a/b/c", "me/../judge", "me/ju dge", "https://huggingface.co/me/judge", "me/-judge", ""]
)
def test_ids_that_no_repository_can_have_are_refused(trained, hub_id):
    with pytest.raises(UserError, match="not a valid Hub id|with its owner"):
        prepare(trained, hub_id)


def test_private_texts_in_other_files_stop_the_push(trained):
    path = trained / "generation_config.json"
    before = path.read_text()
    path.write_text(json.dumps({"note": f"from {trained}"}))
    with pytest.raises(UserError, match="generation_config.json, line 1: contains the local path"):
        prepare(trained, "me/judge")
    path.write_text(json.dumps({"note": "hf_" + "a" * 34}))
    with pytest.raises(UserError, match="looks like an access token"):
        prepare(trained, "me/judge")
    path.write_text(before)
    config = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps({**config, "_name_or_path": str(trained)}))
    assert json.loads(prepare(trained, "me/judge").files["config.json"]) == config


# ---- the license

BASE = "https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct names its license"


@pytest.mark.parametrize("words", [[], ["--dry-run"], ["--license", " "], ["--license", "Unknown", "--dry-run"]])
def test_without_a_license_nothing_is_published_and_the_error_says_where_to_find_it(command, trained, words):
    code, said, warned = command(trained, "me/judge", *words)
    assert code == 2
    assert "--license: name the license of the weights" in warned
    assert BASE in warned
    assert said == ""
    assert not trained.with_name("rl-hub").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"license": "Apache-2.0"}, "--license Apache-2.0: not a license identifier .* Did you mean apache-2.0?"),
        ({"license": "Apache License 2.0"}, "not a license identifier"),
        ({"license": "CC BY 4.0"}, "Did you mean cc-by-4.0?"),
        ({"license": "other"}, "--license other: give its name and a link to its text"),
        ({"license": "other", "license_name": "Qwen"}, "--license-link https"),
        ({"license": "other", "license_name": " ", "license_link": "https://x.org"}, "--license-name NAME"),
        ({"license": "other", "license_name": "Qwen", "license_link": "the web"}, "--license-link https"),
        ({"license": "mit", "license_name": "MIT"}, "only for --license other; drop them for mit"),
        ({"license": "unknown"}, "unknown is not one"),
        ({"license": None}, "name the license of the weights"),
    ],
)
def test_licenses_that_no_card_can_have_are_refused(trained, options, message):
    with pytest.raises(UserError, match=message):
        prepared(trained, "me/judge", **options)


def test_a_license_that_the_hub_does_not_list_has_a_name_and_a_link(trained, tmp_path):
    more = {"license_name": "qwen-research", "license_link": "https://example.org/LICENSE"}
    write(prepared(trained, "me/judge", license="other", **more), tmp_path / "out")
    found = ModelCard.load(tmp_path / "out" / "README.md")
    assert found.data.license == "other"
    assert (found.data.license_name, found.data.license_link) == tuple(more.values())
    assert "license | qwen-research (https://example.org/LICENSE); the terms of the base model" in found.text.replace(
        "\\", ""
    )


@pytest.mark.parametrize(
    ("answers", "expected"),
    [("apache-2.0\n", ("apache-2.0", None)), ("other\nqwen\nhttps://x.org\n", ("other", "qwen"))],
)
def test_on_a_terminal_the_license_is_asked_for(command, trained, monkeypatch, tmp_path, answers, expected):
    monkeypatch.setattr("r1_reward.cli.push.at_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answers))
    code, said, asked = command(trained, "me/judge", "--dry-run", "--out", tmp_path / "out")
    assert code == 0, asked
    assert BASE in asked and "License of the weights" in asked
    assert "License" not in said
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.license, data.to_dict().get("license_name")) == expected


def test_mistakes_are_one_message_and_exit_code_2(command, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", "x")
    for arguments, expected in (
        ((tmp_path / "no", "me/judge", "--dry-run"), "no such folder"),
        ((trained, "me/judge", "--out", tmp_path / "x"), "--out: only valid with --dry-run"),
        ((trained, "me/judge", "--license", "mit"), "HF_HUB_OFFLINE is set"),
    ):
        code, _, warned = command(*arguments)
        assert code == 2 and expected in warned
