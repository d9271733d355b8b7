"""The ms-swift plug-in in the published ms-swift: its scoring, its sums, and GRPO on this machine's CPU.

``make plugs ARGS=swift``. Packages that ms-swift limits to older versions (transformers, trl, peft) have those.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("swift", reason="ms-swift is not installed: make plugs ARGS=swift")

import torch
from fakes import FakeEngine, shown
from served import Served
from swift.rewards import AsyncORM, orms, rm_plugins
from swift.rl_core.advantage import compute_advantages
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import score_completions
from swift.utils import import_external_file
from swift_rows import BLACK, WHITE, Witness, row

from r1_reward.models.tiny_words import vocabulary
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion
from r1_reward.serve.dialects import swift as plug

FILE = Path(plug.__file__)


class Args:
    """The fields of swift's GRPOConfig that the plug-in reads."""

    num_generations, num_generations_eval = 4, None


@pytest.fixture
def witness(monkeypatch):
    with Served(Witness()) as served:
        monkeypatch.setenv("R1_REWARD_SERVER", f"http://127.0.0.1:{served.port}")
        yield served.judge


def samples_of(rows):
    return [GRPOSample.from_row(one) for one in rows]


def scored(rows, funcs, plugins=None):
    """Return the rewards from swift's own scoring of rows, one column per function."""
    return score_completions(samples_of(rows), funcs, plugins, False, torch.device("cpu"), trainer_state=object())


# What the plug-in relies on.


def test_the_names_and_parameters_of_ms_swift_are_those_we_rely_on():
    from swift.arguments import RLHFArguments
    from swift.rewards.rm_plugin import DefaultRMPlugin
    from swift.rlhf_trainers.grpo_trainer import GRPOTrainer

    def parameters(function):
        return list(inspect.signature(function).parameters)

    assert parameters(AsyncORM.__init__) == ["self", "args", "kwargs"]
    assert inspect.iscoroutinefunction(AsyncORM.__call__)
    assert parameters(DefaultRMPlugin.__init__) == ["self", "model", "template"]
    assert parameters(DefaultRMPlugin.__call__) == ["self", "inputs", "kwargs"]
    assert isinstance(orms, dict) and isinstance(rm_plugins, dict)
    known = set(RLHFArguments.__dataclass_fields__)
    assert known > {"external_plugins", "reward_funcs", "reward_model", "reward_model_plugin", "num_generations_eval"}
    assert set(parameters(score_completions)) == {
        "samples", "reward_funcs", "reward_model_plugins", "use_gym_env", "device", "trainer_state",
        "extra_reward_kwargs",
    }  # fmt: skip
    assert callable(GRPOTrainer._add_prompt_id_to_inputs), "prompt_id: made of the messages of all processes"


def test_its_rows_have_what_the_plug_reads():
    ours = row("Q?", "a", images=[{"bytes": None, "path": "7.png"}], solution="4")
    theirs = samples_of([ours])[0].to_reward_row()
    assert set(theirs) == set(ours), "tests without ms-swift make their rows by tests/support/swift_rows.py"
    assert {name: theirs[name] for name in ours} == ours


def test_swift_loads_the_file_itself_and_our_openai_module_shadows_nothing():
    before = list(sys.path)
    try:
        module = import_external_file(str(FILE))
        assert orms["r1_reward"] is module.R1Reward and rm_plugins["r1_reward"] is module.R1RewardPlugin
        assert str(FILE.parent) not in sys.path
        assert Path(importlib.util.find_spec("openai").origin).parent != FILE.parent
    finally:
        sys.path[:] = before
        orms["r1_reward"], rm_plugins["r1_reward"] = plug.R1Reward, plug.R1RewardPlugin


# Its scoring and its sums.


def test_its_scoring_gets_rewards_by_group_and_the_judge_sees_pictures_and_no_tags(witness):
    rows = [
        row("<image>Which?", text, images=[picture])
        for picture in (WHITE, BLACK)
        for text in ("a", "aa", "aaa", "b" * 4)
    ]
    rewards = scored(rows, [orms["r1_reward"](args=Args())])[:, 0].tolist()
    up = [-0.8, -0.8 / 3, 0.8 / 3, 0.8]
    assert rewards == pytest.approx([*up, *reversed(up)])
    assert {(question, *light) for question, _, _, light in witness.asked} == {("Which?", 255), ("Which?", 0)}


def test_silencing_the_judge_is_penalized_and_unjudged_groups_have_no_advantage(witness):
    rows = [row("Q?", text) for text in ("a", "aa", "gibberish", "aaa")]
    rows += [row("R?", f"gibberish {n}", prompt_id="prompt_1") for n in range(4)]
    rewards = scored(rows, [orms["r1_reward"](args=Args())])
    assert rewards[:4, 0].tolist() == [pytest.approx(-0.8), pytest.approx(0), -1.0, pytest.approx(0.8)]
    assert torch.isnan(rewards[4:, 0]).all()
    for scale in ("group", "batch", "none"):
        advantages, _ = compute_advantages(rewards, torch.ones(1), 4, scale_rewards=scale)
        assert advantages[2] == advantages[:4].min() < 0
        assert advantages[4:].tolist() == [0.0] * 4


def test_none_would_count_as_the_mean_so_the_worst_reward_is_given():
    advantages, _ = compute_advantages(torch.tensor([[-0.8], [0.0], [float("nan")], [0.8]]), torch.ones(1), 4)
    assert advantages[2] == pytest.approx(0), "ms-swift sums NaN as 0; once it does not, the plug-in can return None"


def test_a_row_without_its_picture_stops_the_scoring(witness):
    for question in ("<image>Which?", "<|image_pad|>Which?", "Is <image> older?"):
        with pytest.raises(UserError, match="row 1 of the batch has a placeholder for 1 image"):
            scored([row(question, text) for text in "abcd"], [orms["r1_reward"](args=Args())])
    assert witness.asked == []


def test_group_reward_points_to_the_plug_in():
    from r1_reward import GroupReward, RewardModel

    with pytest.raises(UserError, match=r"r1_reward\.serve\.dialects\.swift"):
        scored([row("Q?", text) for text in "ab"], [GroupReward(RewardModel(Witness()))])


# GRPO.


class Wordy(FakeEngine):
    """Prefers the response with more of the world's words, then the longer one."""

    special_tokens = ("<|im_end|>",)

    def __init__(self):
        self.words = {word for text in vocabulary() for word in text.split() if word.isascii() and word.isalpha()}
        self.asked, self.pictures = [], []

    def count(self, text):
        return sum(word.strip(".,?") in self.words for word in text.split())

    def answer(self, requests):
        for request in requests:
            question, first, second = shown(request)
            self.asked.append((question, first, second))
            self.pictures.append(len(request.images))
            one, two = ((self.count(text), len(text)) for text in (first, second))
            text = "Who knows?" if one == two else f"<think>Seen.</think><answer>{1 if one > two else 2}</answer>"
            yield [Completion(text=text, tokens=5, probability=None) for _ in request.seeds]


PLUGIN = """
import r1_reward.serve.dialects.swift
from swift.template import register_template
from swift.template.templates.qwen import Qwen2_5VLTemplate, QwenTemplateMeta

class Tiny(Qwen2_5VLTemplate):
    # ms-swift writes Qwen's own ids of these tokens down; the tiny tokenizer has others
    image_token_id, video_token_id = {image}, {video}

register_template(QwenTemplateMeta("tiny", template_cls=Tiny, default_system=None))
"""


@pytest.fixture
def grpo(checkpoint, pair_file, tmp_path):
    """Run ``swift rlhf --rlhf_type grpo`` with the tiny policy; return the log of its steps and the seconds it took."""
    config = json.loads((checkpoint / "config.json").read_text())
    source = PLUGIN.format(image=config["image_token_id"], video=config["video_token_id"])
    # An untrained policy samples picture tokens, too, on which the next forward pass fails.
    policy = shutil.copytree(checkpoint, tmp_path / "policy")
    generation = policy / "generation_config.json"
    kept = json.loads(generation.read_text()) if generation.exists() else {}
    never = [config[name] for name in ("image_token_id", "video_token_id")]
    generation.write_text(json.dumps({**kept, "suppress_tokens": never}))
    (tmp_path / "judge.py").write_text(source)
    rows = [
        {
            "messages": [{"role": "user", "content": "<image>" + pair["question"]}],
            "images": [str(pair_file.parent / name) for name in pair["images"]],
        }
        for pair in map(json.loads, pair_file.read_text().splitlines())
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))

    def run(*options, processes=1, **environment):
        launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"] if processes > 1 else []
        command = [
            sys.executable, *launcher, "-m", "swift.cli.rlhf", "--rlhf_type", "grpo", "--use_vllm", "false",
            "--model", policy, "--model_type", "qwen2_5_vl", "--template", "tiny", "--tuner_type", "full",
            "--torch_dtype", "float32", "--bf16", "false", "--fp16", "false", "--use_cpu", "true",
            "--attn_impl", "sdpa", "--gradient_checkpointing", "false", "--dataset", "rows.jsonl",
            "--load_from_cache_file", "false", "--split_dataset_ratio", "0", "--eval_strategy", "no",
            "--external_plugins", "judge.py", "--max_completion_length", "12", "--beta", "0",
            "--logging_steps", "1", "--save_strategy", "no", "--report_to", "none", "--output_dir", "out",
            "--add_version", "false", *options,
        ]  # fmt: skip
        own = {"CUDA_VISIBLE_DEVICES": "", "USE_HF": "1", "MODELSCOPE_CACHE": str(tmp_path / "cache"), **environment}
        began = time.monotonic()
        done = subprocess.run(
            list(map(str, command)),
            cwd=tmp_path,
            env={**os.environ, **own},
            text=True,
            capture_output=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        log = [json.loads(line) for line in (tmp_path / "out" / "logging.jsonl").read_text().splitlines()]
        return [step for step in log if "reward" in step], time.monotonic() - began

    return run


def table(title, steps, seconds, extra=()):
    """Return the training log as lines of text."""
    names = ("loss", "grad_norm", "reward", "reward_std", "frac_reward_zero_std", "step_time")
    lines = [f"{title}: {len(steps)} steps, {seconds:.0f} s in all, {os.cpu_count()}-core {platform.machine()} CPU"]
    lines += ["  ".join(["step", *(f"{name:>20}" for name in names)])]
    lines += [
        "  ".join([f"{n:4}", *(f"{float(step[name]):20.5f}" for name in names)]) for n, step in enumerate(steps, 1)
    ]
    return "\n".join(["", *lines, *extra, ""])


def test_grpo_with_a_judge_behind_our_server(grpo, capsys):
    with Served(Wordy()) as served:
        steps, seconds = grpo(
            "--reward_funcs", "r1_reward", "--num_generations", 8, "--per_device_train_batch_size", 16,
            "--max_steps", 20, "--learning_rate", "5e-4", "--warmup_ratio", "0", "--lr_scheduler_type", "constant",
            R1_REWARD_SERVER=f"http://127.0.0.1:{served.port}",
        )  # fmt: skip
        judge = served.judge
    assert len(steps) == 20 and all(float(step["grad_norm"]) > 0 for step in steps[:5])
    assert set(judge.pictures) == {1} and not any("<image>" in question for question, _, _ in judge.asked)
    words = [judge.count(first) for _, first, _ in judge.asked]
    tenth = len(words) // 10
    before, after = sum(words[:tenth]) / tenth, sum(words[-tenth:]) / tenth
    with capsys.disabled():
        said = f"words of the world in an answer, first and last tenth of the judgments: {before:.2f}, {after:.2f}"
        sys.stdout.write(table("GRPO in ms-swift 4.6.0, judge behind r1-reward serve", steps, seconds, [said]))
    assert after > before + 0.5, "the policy learns what the judge likes"


def test_grpo_with_a_checkpoint_that_swift_loads(grpo, checkpoint, capsys):
    steps, seconds = grpo(
        "--reward_model", checkpoint, "--reward_model_plugin", "r1_reward", "--reward_template", "tiny",
        "--num_generations", 4, "--per_device_train_batch_size", 4, "--max_steps", 2,
        R1_REWARD_GROUP_SIZE="4", R1_REWARD_OPTIONS='{"max_new_tokens": 4}',
    )  # fmt: skip
    with capsys.disabled():
        sys.stdout.write(table("GRPO in ms-swift 4.6.0, an untrained judge loaded by it: no reward", steps, seconds))
    assert len(steps) == 2 and all(float(step["reward"]) == 0 == float(step["loss"]) for step in steps)


def test_grpo_in_two_processes_that_split_every_group(grpo, capsys):
    with Served(Wordy()) as served:
        steps, seconds = grpo(
            "--reward_funcs", "r1_reward", "--num_generations", 4, "--per_device_train_batch_size", 2, "--max_steps", 3,
            "--ddp_backend", "gloo", processes=2, R1_REWARD_SERVER=f"http://127.0.0.1:{served.port}",
        )  # fmt: skip
        asked = served.judge.asked
    with capsys.disabled():
        sys.stdout.write(table("GRPO in ms-swift 4.6.0, two processes with half of each group", steps, seconds))
    assert len(steps) == 3 and asked
    assert any(float(step["reward_std"]) > 0 for step in steps)
