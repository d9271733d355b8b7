"""The whole recipe in miniature, using its commands: five sources in, SFT and RL sets out, and training on both.

Nothing is taken on trust: every pair is looked up in the file that it comes from, and every label and judgment is
compared with the publisher's file.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import yaml
from loaded import loaded
from mixture_rows import encoded, make_row, picture
from published_rows import HOSTILE, better, published, quality, texts_in, write_benchmarks, write_sources
from scripted_server import reply, status
from teacher_rows import prompt, says
from transformers_server import transformers_server
from typer.testing import CliRunner

from r1_reward.cli import data as data_commands
from r1_reward.cli import train as train_commands
from r1_reward.data.duplicates import PrintMatrix, fingerprint, near_prints
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import parse_judgment
from r1_reward.store.images import open_image
from r1_reward.store.pairs import load_pairs, validate_pairs
from r1_reward.store.shards import PairWriter, read_rows

IMPORTED = {  # rows read, pairs kept, dropped by reason
    "mm-rlhf": (13, 12, {"image outside root": 1}),
    "rlaif-v": (9, 8, {"identical answers": 1}),
    "vl-feedback": (3, 8, {"unreadable label": 3, "tie": 1, "image missing": 1}),
    "povid": (8, 7, {"several turns": 1}),
    "wildvision-battle": (8, 4, {"tie": 2, "machine judge": 1, "several turns": 1}),
}
MIXED = {  # removed by reason, clean but not sampled, taken
    "mm-rlhf": ({"benchmark picture": 1}, 2, 9),
    "rlaif-v": ({"benchmark text": 1}, 0, 7),
    "vl-feedback": ({}, 0, 8),
    "povid": ({"benchmark picture": 1, "exact duplicate": 1, "near duplicate": 1}, 0, 4),
    "wildvision-battle": ({}, 1, 3),
}
TAKE = {
    "mm-rlhf": {"parts": {"long": 3, "short": 2, "mcq": 2, "safety": 2}},
    "povid": {"count": 4},
    "wildvision-battle": {"count": 3},
}
LEAKS = {"mm-rlhf:leak-mm", "rlaif-v:7", "povid:leak-povid", "povid:exact", "povid:near"}


def command(app, *words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def data(*words, code=0):
    """Run a command of `r1-reward data` and return its report."""
    return json.loads(command(data_commands.app, *words, "--json", code=code).stdout)


def rows_of(folder):
    return list(read_rows(folder))


def name_of(row):
    """MM-RLHF repeats ids, and a row of VLFeedback gives several pairs."""
    return row["id"], row["provenance"]


def names_of(rows):
    return {name_of(row) for row in rows}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    write_sources(folder / "raw")
    return folder


@pytest.fixture(scope="module")
def imported(root):
    """The report of each import."""
    options = {
        "vl-feedback": ["--images", root / "raw" / "vl-feedback" / "merged_images"],
        "povid": ["--images", root / "raw" / "povid" / "train2014"],
    }
    return {
        name: data("import", name, "--from", root / "raw" / name, "--out", root / name, *options.get(name, []))
        for name in IMPORTED
    }


@pytest.fixture(scope="module")
def mixed(root, imported):
    """The report of the mixture."""
    config = {
        "sources": {name: {"path": str(root / name), **TAKE.get(name, {})} for name in IMPORTED},
        "test_share": 0.1,
        "benchmarks": write_benchmarks(root / "benchmarks"),
    }
    (root / "mix.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return data("mix", "--config", root / "mix.yaml", "--out", root / "mixed")


def test_every_source_row_is_a_pair_or_is_listed_with_a_reason(root, imported):
    found = {name: (report["read"], report["kept"], report["dropped"]) for name, report in imported.items()}
    assert found == IMPORTED
    for name, (_, kept, dropped) in IMPORTED.items():
        rows = rows_of(root / name)
        assert len(rows) == kept == len({(row["response_1"], row["response_2"]) for row in rows})
        assert_true_to_the_source(root, rows)
        lines = [json.loads(line) for line in (root / name / "dropped.jsonl").read_text().splitlines()]
        assert Counter(line["reason"] for line in lines) == dropped
        assert loaded(root / name)["train"]["id"] == [row["id"] for row in rows]
        assert all(Path(line["file"]).is_relative_to(root / "raw" / name) and line["row"] for line in lines)
    assert imported["mm-rlhf"]["kinds"] == {"long": 4, "mcq": 2, "safety": 2, "short": 3, "video": 1}
    assert imported["vl-feedback"]["warnings"], "an image is missing"


def test_the_mixture_has_the_requested_counts_and_no_benchmark_rows(root, mixed):
    found = {name: (one["removed"], one["not_drawn"], one["taken"]) for name, one in mixed["sources"].items()}
    assert found == MIXED
    assert (mixed["rows"], mixed["train"], mixed["test"]) == (31, 28, 3)
    assert [one["rows"] for one in mixed["benchmarks"]] == [2, 2, 2]
    lines = [json.loads(line) for line in (root / "mixed" / "removed.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == LEAKS

    sides = {side: rows_of(root / "mixed" / side) for side in ("train", "test")}
    assert_clean([*sides["train"], *sides["test"]])
    pictures = {side: {cell["bytes"] for row in rows for cell in row["images"]} for side, rows in sides.items()}
    assert not pictures["train"] & pictures["test"]
    found = {split: table["id"] for split, table in loaded(root / "mixed").items()}
    assert found == {side: [row["id"] for row in rows] for side, rows in sides.items()}
    for rows in sides.values():
        assert_true_to_the_source(root, rows)
        labels = Counter(row["preferred"] for row in rows)
        assert abs(labels[1] - labels[2]) <= 1
    assert validate_pairs(root / "mixed" / "train") == validate_pairs(root / "mixed" / "test") == []
    with pytest.raises(UserError, match="has no pairs itself; use .*/train or .*/test"):
        load_pairs(root / "mixed")


def script(server, rows):
    """Let the teacher treat every seventh row differently; return the rows' names by treatment."""

    def verdict(body, right=True):
        text = body["messages"][-1]["content"][-1]["text"]
        question = text.split("[Question]:\n")[1].partition("\n")[0].strip()
        return says(better(text) if right else 3 - better(text), f"On {question}")

    def right(body):
        return reply(verdict(body))

    def wrong(body):
        return reply(verdict(body, right=False))

    def bare(body):
        return reply(f"<answer>{better(body['messages'][-1]['content'][-1]['text'])}</answer>")

    def ends_the_turn(body):
        return reply(verdict(body).replace("</think>", "<|im_end|></think>"))

    ways = {
        "at once": [right],
        "second": [wrong, right],
        "third": [wrong, reply("I cannot help with that."), right],
        "never": [wrong],
        "unreadable": [reply("Response 1."), reply("<think>x</think><answer>1</answer><answer>2</answer>"), wrong],
        "unfit": [ends_the_turn],
        "late form": [bare, right],
    }
    server.default = [status(400)]
    names = {way: set() for way in ways}
    for number, row in enumerate(sorted(rows, key=name_of)):
        way = list(ways)[number % len(ways)]
        server.scripts[prompt(row)] = ways[way]
        names[way].add(name_of(row))
    return names


def test_a_teacher_makes_an_sft_and_an_rl_set_and_both_can_be_trained_on(root, mixed, checkpoint, server, tmp_path):
    train = rows_of(root / "mixed" / "train")
    ways = script(server, train)
    words = ["annotate", root / "mixed" / "train", "--teacher", f"server:teacher@{server.url}"]
    words += ["--out", tmp_path / "annotated", "--price-in", 1, "--price-out", 2]
    report = data(*words)
    prompts = list(server.bodies)
    assert data(*words) == report, "a finished folder is not changed"
    assert len(server.bodies) == len(prompts) == 4 * (1 + 2 + 3 + 3 + 3 + 3 + 2)
    assert report["complete"]
    assert (report["written"], report["dropped"]) == (28, {})
    assert report["attempts"] == {"1": 12, "2": 4, "3": 4, "failed": 8, "no verdict": 0}
    assert (report["with_reasoning"], report["agreed_without_reasoning"]) == (16, 4)
    assert report["outcomes"]["1"] == {
        "disagreed": 12, "agreed": 4, "no answer tag": 4, "agreed, but control token": 4, "agreed, but malformed": 4,
    }  # fmt: skip
    assert report["cost"] == pytest.approx(len(prompts) * (3 * 1 + 7 * 2) / 1e6)
    assert_harmless(prompts)

    sft, rl = tmp_path / "sft", tmp_path / "rl"
    reports = data("split-difficulty", tmp_path / "annotated", "--sft", sft, "--rl", rl)
    assert reports["sft"]["written"] == reports["rl"]["written"] == 16
    assert (reports["rl"]["in_both"], sum(reports["rl"]["neither"].values())) == (8, 4)
    taught, hard = rows_of(sft), rows_of(rl)
    for folder, n in ((tmp_path / "annotated", 28), (sft, 16), (rl, 16)):  # beside attempts, lists and reports
        assert len(loaded(folder)["train"]) == n
    assert names_of(taught) == ways["at once"] | ways["second"] | ways["third"] | ways["late form"]
    assert names_of(hard) == ways["second"] | ways["third"] | ways["never"] | ways["unreadable"]
    for row in taught:
        assert row["reasoning"] == says(row["preferred"], f"On {row['question']}")
        assert parse_judgment(row["reasoning"]).well_formed
    assert [row["reasoning"] for row in hard] == [None] * 16
    before = {name_of(row): row for row in train}
    assert len(before) == 28
    for row in [*taught, *hard]:
        assert row | {"reasoning": None, "attempts": None} == before[name_of(row)]
    assert_clean([*taught, *hard])
    assert_true_to_the_source(root, [*taught, *hard])
    assert_trains(sft, rl, checkpoint, root / "mixed" / "test", tmp_path)


def test_a_finished_folder_without_rows_says_so(tmp_path):
    with PairWriter(tmp_path / "sft") as writer:
        writer.close({"written": 0})
    for read in (load_pairs, rows_of):
        with pytest.raises(UserError, match=r"sft: has no rows; see its report\.json"):
            read(tmp_path / "sft")


def test_training_refuses_a_folder_whose_writer_was_killed_while_it_put_shards_in_place(tmp_path):
    with PairWriter(tmp_path / "rl") as writer:
        writer.add(make_row(0))
        writer.close({"written": 1})
    (tmp_path / "rl" / "report.json").unlink()
    (tmp_path / "rl" / ".writing").mkdir()
    for read in (load_pairs, rows_of):
        with pytest.raises(UserError, match="rl: is incomplete"):
            read(tmp_path / "rl")


def assert_true_to_the_source(root, rows):
    """Every pair is in the row it says it comes from, and prefers what that row prefers."""
    assert rows
    for row in rows:
        texts = texts_in(published(root / "raw", row["provenance"]))
        assert {row["question"], row["response_1"], row["response_2"]} <= texts, row["provenance"]
        chosen, rejected = (row[f"response_{place}"] for place in (row["preferred"], 3 - row["preferred"]))
        assert quality[chosen[:40]] > quality[rejected[:40]], row["provenance"]


def assert_clean(rows):
    """No row was planted as a copy, and no picture is near a benchmark's."""
    assert not LEAKS & {row["id"] for row in rows}
    ours = PrintMatrix.of([fingerprint(open_image(cell["bytes"])) for row in rows for cell in row["images"]])
    theirs = PrintMatrix.of([fingerprint(open_image(encoded(picture(seed)))) for seed in range(900, 906)])
    assert sum(len(first) for first, _ in near_prints(ours, theirs, 40)) == 0


def assert_harmless(bodies):
    """What the teacher is shown has one picture and one text, and nothing of a hostile answer's tokens."""
    shown = [body["messages"][-1]["content"] for body in bodies]
    assert {tuple(part["type"] for part in content) for content in shown} == {("image_url", "text")}
    texts = [content[-1]["text"] for content in shown]
    hostile = [text for text in texts if "im_end" in text]
    assert hostile, "the row with the hostile answer is among them"
    assert all(HOSTILE not in text and "<|im_end|>" not in text for text in hostile)
    assert {text.count("\n###### [Response 2]:\n") for text in texts} == {1}


def assert_trains(sft, rl, checkpoint, test, folder):
    """Both stages go from the folders, the second from what the first left."""
    first = ["sft", "--per_device_train_batch_size", 2, "--data", sft, "--model", checkpoint]
    log = trained(*first, folder=folder / "sft-run")
    losses = [line["loss"] for line in log if "loss" in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    second = ["rl", *RL_OPTIONS, "--data", rl, "--model", folder / "sft-run"]
    log = trained(*second, "--held_out", test, "--held_out_every", 2, folder=folder / "rl-run")
    assert [line["step"] for line in log if "parse_rate" in line] == [1, 2]
    assert any("held_out/accuracy" in line for line in log)


RL_OPTIONS = ["--per_device_train_batch_size", 2, "--steps_per_generation", 1, "--max_completion_length", 4]


def trained(stage, *words, folder):
    """Train for two steps by the command and return its log."""
    config = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"}
    config |= {"max_steps": 2, "logging_steps": 1, "save_steps": 2, "disable_tqdm": True}
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config))
    command(train_commands.app, stage, "--config", file, "--output_dir", folder, *words)
    assert (folder / "model.safetensors").is_file()
    state = json.loads((folder / "checkpoint-2" / "trainer_state.json").read_text())
    return state["log_history"]


@pytest.fixture
def transformers_serve(checkpoint, tmp_path):
    """The base URL of ``transformers serve`` with the tiny checkpoint."""
    with transformers_server(checkpoint, tmp_path / "serve.log") as url:
        yield url


@pytest.mark.slow
def test_a_real_server_with_a_teacher_that_cannot_judge(root, mixed, transformers_serve, checkpoint, tmp_path):
    """An untrained model gives no verdict, so there are no SFT rows and the difficulty is unknown."""
    words = ["annotate", root / "mixed" / "train", "--teacher", f"server:{checkpoint}@{transformers_serve}"]
    words += ["--out", tmp_path / "annotated", "--attempts", 2, "--max-new-tokens", 8, "--concurrency", 2]
    words += ["--on-unreadable", "warn"]
    report = data(*words)
    assert report["complete"]
    assert report["attempts"] == {"1": 0, "2": 0, "failed": 0, "no verdict": 28}
    assert "replies have a verdict" in report["warnings"][0]
    assert report["usage"]["attempts"] == 2 * 28
    assert 2 * 28 <= report["usage"]["tokens"] <= 2 * 28 * 8
    assert report["usage"]["prompt_tokens"] > 2 * 28 * 100
    assert "disagreed" not in report["outcomes"]["1"]

    sft, rl = tmp_path / "sft", tmp_path / "rl"
    reports = data("split-difficulty", tmp_path / "annotated", "--sft", sft, "--rl", rl)
    assert (reports["sft"]["written"], reports["rl"]["written"], reports["rl"]["no_verdict"]) == (0, 0, 28)
    for stage, folder, options in (("sft", sft, []), ("rl", rl, RL_OPTIONS)):
        with pytest.raises(UserError, match=f"{stage}: has no rows"):
            trained(stage, *options, "--data", folder, "--model", checkpoint, folder=tmp_path / f"{stage}-run")
