"""vLLM in this process compared with the transformers engine, on a CPU: ``make plugs ARGS=vllm``."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import pytest

vllm = pytest.importorskip("vllm", reason="vllm is not installed: make plugs ARGS=vllm")

from PIL import Image  # noqa: E402

from r1_reward.engines.engine import EngineError, ReadsTextOnly  # noqa: E402
from r1_reward.engines.length import PromptTooLong  # noqa: E402
from r1_reward.judge.reward_model import RewardModel  # noqa: E402
from r1_reward.records.errors import UserError  # noqa: E402

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
HERE = Path(__file__).parent
LIMIT = 64
TRAINING = {
    "model": "tiny", "max_steps": "120", "learning_rate": "2e-3", "per_device_train_batch_size": "16", "bf16": "false",
    "use_cpu": "true", "max_pixels": "50176", "gradient_checkpointing": "false", "report_to": "none",
    "save_steps": "1000", "logging_steps": "40",
}  # fmt: skip


@pytest.fixture(scope="module")
def judge(pair_file, tmp_path_factory):
    """The folder of a judge that writes verdicts: one named in the environment, or one trained in a minute."""
    if named := os.environ.get("R1_REWARD_JUDGE"):
        return named
    from r1_reward.train.launch import train

    given = {**TRAINING, "data": str(pair_file), "output_dir": str(tmp_path_factory.mktemp("judge") / "sft")}
    return str(train("sft", None, [word for name, value in given.items() for word in (f"--{name}", value)]))


@pytest.fixture(scope="module")
def plain(judge):
    return RewardModel.from_pretrained(judge, max_new_tokens=LIMIT)


@pytest.fixture(scope="module")
def fast(judge):
    model = RewardModel.from_pretrained(judge, engine="vllm", max_new_tokens=LIMIT)
    yield model
    model.engine.close()


@pytest.fixture(scope="module")
def items(pairs):
    """100 pairs: with a picture, without one, and with one in an answer; 200 judgments in both orders."""
    asked = []
    for number in range(100):
        row = pairs[number % len(pairs)]
        first, second = row["response_1"], row["response_2"]
        images = [picture_of(cell) for cell in row["images"]]
        if number % 10 == 8:
            images = []
        if number % 10 == 9:
            second = [second, images[0]]
        question = f"{row['question']}{'?' * (number // len(pairs))}"
        asked.append({"question": question, "images": images, "response_1": first, "response_2": second})
    return asked


def picture_of(cell):
    return Image.open(io.BytesIO(cell["bytes"]) if cell["bytes"] else cell["path"]).convert("RGB")


def votes_of(model, items, **options):
    return [verdict.votes for verdict in model.compare_many(items, **options)]


def test_what_the_engine_relies_on():
    from vllm.renderers import BaseRenderer, TokenizeParams

    assert {"max_total_tokens", "add_special_tokens"} <= {field.name for field in fields(TokenizeParams)}
    assert list(inspect.signature(BaseRenderer.render_cmpl).parameters)[:3] == ["self", "prompts", "tok_params"]
    for name in ("from_engine_args", "add_request", "step", "abort_request"):
        assert callable(getattr(vllm.LLMEngine, name))
    assert {
        "model", "dtype", "max_num_seqs", "logprobs_mode", "disable_log_stats", "use_tqdm_on_load", "enforce_eager",
        "enable_chunked_prefill", "kv_cache_memory_bytes", "gpu_memory_utilization", "mm_processor_cache_gb",
    } <= {field.name for field in fields(vllm.EngineArgs)}  # fmt: skip
    assert {
        "temperature", "seed", "max_tokens", "stop_token_ids", "logprob_token_ids", "logit_bias", "detokenize",
        "output_kind",
    } <= set(vllm.SamplingParams.__struct_fields__)  # fmt: skip


def test_the_same_greedy_verdicts(plain, fast, items, capsys):
    ours, theirs = (
        [vote for votes in votes_of(model, items, votes=1) for vote in votes] for model in (plain, fast)
    )  # fmt: skip
    assert len(ours) == len(theirs) == 200
    assert sum(vote.answer is not None for vote in ours) > 150  # it is a judge
    differ = sum(a.text != b.text for a, b in zip(ours, theirs, strict=True))
    turned = sum(a.answer != b.answer for a, b in zip(ours, theirs, strict=True))
    same = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.text == b.text]
    assert all((a.probability is None) == (b.probability is None) for a, b in same)
    gap = max(abs(a.probability - b.probability) for a, b in same if a.probability is not None)
    with capsys.disabled():
        print(f"\n200 greedy judgments: {differ} texts, {turned} verdicts differ; P by {gap:.1g} at most")  # noqa: T201
    assert turned == 0
    assert differ <= 2
    assert gap < 1e-3
    assert all((a.tokens, a.truncated) == (b.tokens, b.truncated) for a, b in same)


def test_votes_differ_are_reproducible_and_do_not_depend_on_the_batch(fast, items):
    together = votes_of(fast, items[:12], votes=4)
    again = votes_of(fast, items[:12], votes=4)
    assert together == again
    assert max(len({vote.text for vote in votes}) for votes in together) > 2
    alone = [votes_of(fast, [item], votes=4)[0] for item in items[:3]]
    assert alone == together[:3]
    fewer = votes_of(fast, items[:12], votes=2)
    for few, many in zip(fewer, together, strict=True):
        assert {vote.text for vote in few} <= {vote.text for vote in many}
    assert all(vote.probability is not None for votes in together for vote in votes if vote.answer is not None)


def test_more_seeded_prompts_than_fit_into_a_step_do_not_crash(fast, items):
    """vLLM 0.32 on a CPU crashes when it processes the prompt of a seeded request in two parts."""
    long = [{**item, "question": f"{item['question']} {n} " + "word " * 400} for n, item in enumerate(items[:40])]
    assert all(len(votes) == 4 for votes in votes_of(fast, long, votes=2))


def test_a_pair_that_cannot_be_judged_does_not_affect_others(fast, items):
    thin = fast.engine.compare("Which?", [Image.new("RGB", (2, 900))], "three", "eight")
    short = fast.engine.compare("Which?", items[0]["images"], "three", "eight")
    long = fast.engine.compare("Which?", items[0]["images"], "three " * 5000, "eight")
    first, thin, long, last = fast.engine.generate([short, thin, long, short])
    assert first == last
    assert isinstance(long, PromptTooLong)
    assert long.limit == 4096
    assert long.tokens > 4096
    assert long.pictures > 0
    assert type(thin) is EngineError
    assert "cannot read this prompt" in str(thin)


def test_a_picture_is_shown_again_whatever_happened_before(fast, items):
    """vLLM caches pictures on both sides; a request that was prepared but not sent, or sent late, must not count."""
    engine = fast.engine

    def ask(color, said="three"):
        return engine.compare("Which?", [Image.new("RGB", (84, 84), color)], said, "eight", max_new_tokens=4)

    (long,) = engine.generate([ask("red", "three " * 5000)])
    assert isinstance(long, PromptTooLong)
    with engine.open() as left:
        left.submit("gone", ask("green"))
    again = list(engine.generate([ask("red"), ask("green"), ask("blue"), ask("red", "two")]))
    assert not [answer for answer in again if isinstance(answer, EngineError)]
    with engine.open() as session:
        sent, engine._loop.submit = engine._loop.submit, (held := []).append
        for number in range(3):
            session.submit(number, ask("yellow", f"three {number}"))
        engine._loop.submit = sent
        for job in reversed(held):
            sent(job)
        found = {}
        while len(found) < 3:
            found.update(session.collect())
    assert not [answer for answer in found.values() if isinstance(answer, EngineError)]


def test_arguments_of_vllm(judge):
    small = RewardModel.from_pretrained(judge, engine="vllm", max_new_tokens=8, engine_args={"max_model_len": 512})
    (long,) = small.engine.generate([small.engine.compare("Which?", [], "three " * 600, "eight")])
    small.engine.close()
    assert isinstance(long, PromptTooLong)
    assert long.limit == 512
    for given, message in (
        ({"max_model_len": "many"}, "cannot start: max_model_len: Input should be a valid integer"),
        ({"quantization": "none-such"}, "cannot start: .*none-such"),
        ({"gpu_memory_utilisation": 0.5}, "Did you mean 'gpu_memory_utilization'"),
    ):
        with pytest.raises(UserError, match=message):
            RewardModel.from_pretrained(judge, engine="vllm", engine_args=given)


def test_one_engine_does_not_end_another(fast, judge):
    import psutil

    used = psutil.Process().memory_info().rss
    for _ in range(3):
        other = RewardModel.from_pretrained(judge, engine="vllm", max_new_tokens=8)
        other.engine.close()
    assert psutil.Process().memory_info().rss - used < 2 * 2**30  # each has 1 GiB for keys and values
    assert len(fast.compare("Which digit?", [], "three", "eight").votes) == 2


def test_several_threads_call_at_once(fast, items):
    alone = votes_of(fast, items[:16], votes=2)
    found = {}
    shared = fast.shared()
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: votes_of(shared, items[n * 4 : n * 4 + 4], votes=2)}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [votes for n in range(4) for votes in found[n]] == alone


def test_leaving_a_session_cancels_its_requests(fast, items):
    judged = fast.compare_many(iter(items), votes=4)
    next(judged)
    judged.close()
    assert votes_of(fast, items[:1]) == votes_of(fast, items[:1])
    assert not fast.engine._loop._jobs


def test_a_pixel_budget(judge, items):
    small = {
        name: RewardModel.from_pretrained(judge, max_pixels=12_544, max_new_tokens=8, engine=name) for name in NAMES
    }
    tokens = {}
    for name, model in small.items():
        request = model.engine.compare(
            "Which digit?", [Image.new("RGB", (280, 280))], "three", "eight", max_new_tokens=8
        )
        (answer,) = model.engine.generate([request])
        tokens[name] = answer[0].prompt_tokens
    small["vllm"].engine.close()
    assert tokens["vllm"] == tokens["transformers"]
    assert not Path(small["vllm"].engine._checkpoint.folder).exists()
    with pytest.raises(UserError, match="is closed"):
        list(small["vllm"].engine.generate([request]))


NAMES = ("transformers", "vllm")


def test_a_text_only_model(text_judge, items):
    asked = [{**item, "images": [], "response_2": item["response_1"] + " no"} for item in items[:6]]
    answers = {}
    for name in NAMES:
        model = RewardModel.from_pretrained(text_judge, engine=name, max_new_tokens=12)
        answers[name] = [[vote.text for vote in votes] for votes in votes_of(model, asked)]
        (blind,) = model.engine.generate([model.engine.compare("Which?", items[0]["images"], "three", "eight")])
        assert isinstance(blind, ReadsTextOnly)
        if name == "vllm":
            model.engine.close()
    assert answers["vllm"] == answers["transformers"]


@pytest.fixture(scope="module")
def text_judge(tmp_path_factory):
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from r1_reward.models.tiny import train_tokenizer
    from r1_reward.models.tiny_words import vocabulary

    tokenizer = train_tokenizer(vocabulary())
    tokenizer.chat_template = (
        "{%- for message in messages -%}<|im_start|>{{ message.role + '\n' + message.content }}<|im_end|>\n"
        "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("reader")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


# ---- commands, each in its own process


def r1_reward(*words, script=("-m", "r1_reward"), code=0):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *script, *map(str, words)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True)
    assert done.returncode == code, done.stderr[-3000:]
    return done


def test_bench_run(judge, pair_file, tmp_path):
    told = ("pairs", "--data", pair_file, "--max-new-tokens", LIMIT, "--json", "--model", judge)
    for name in NAMES:
        more = ("--engine-args", "gpu_memory_utilization=0.2") if name == "vllm" else ()
        r1_reward("bench", "run", *told, "--out", tmp_path / name, "--engine", name, *more)
    runs = {name: json.loads((tmp_path / name / "run.json").read_text()) for name in NAMES}
    assert runs["vllm"].pop("engine") == "vllm"
    assert runs["vllm"] == runs["transformers"]  # old folders, which lack the field, can be resumed
    lines = {name: (tmp_path / name / "predictions.jsonl").read_text().splitlines() for name in NAMES}
    verdicts = {
        name: [[vote["answer"] for vote in votes] for line in some for votes in json.loads(line)["passes"]]
        for name, some in lines.items()
    }
    assert verdicts["vllm"] == verdicts["transformers"]
    other = r1_reward("bench", "run", *told, "--out", tmp_path / "vllm", code=2)
    assert "holds another run (engine" in other.stderr


def test_serve(fast, items):
    from served import Served

    asked = {"question": "Which digit is top left?", "response_1": "A three.", "response_2": "An eight."}
    with Served(model=fast) as server:
        status, said = server.post("/v1/compare", asked)
    verdict = fast.compare(asked["question"], [], asked["response_1"], asked["response_2"])
    assert status == 200, said
    assert (said["preferred"], said["probability"]) == (verdict.preferred, pytest.approx(verdict.probability))


def test_rollouts(judge, pair_file, tmp_path):
    """RL with rollouts by vLLM: the log of every rollout shows the effect of the sampler's correction."""
    out = tmp_path / "rl"
    r1_reward(
        "train", "rl", "--config", HERE.parents[1] / "recipes" / "tiny.yaml", "--model", judge, "--data", pair_file,
        "--output_dir", out, "--use_vllm", "true", "--vllm_mode", "colocate", "--vllm_gpu_memory_utilization", "0.2",
        script=(HERE / "vllm_rollouts.py",),
    )  # fmt: skip
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    rollouts = [row for row in log if "reward" in row]
    assert len(rollouts) == 4  # two updates each
    # At the first rollout both have the same weights: its gap is bfloat16's rounding, more for a judge that is unsure.
    gaps = [row["sampling/sampling_logp_difference/mean"] for row in rollouts]
    assert 0 < gaps[0] < 0.5
    assert max(gaps) < 2 * gaps[0] + 0.05, gaps
    for row in rollouts:
        assert row["sampling/masked"] == 0  # token_truncate drops nothing
        assert 0 <= row["sampling/truncated"] < 0.1


def test_the_correction_that_drops_tokens(judge, pair_file, tmp_path):
    out = tmp_path / "rl"
    r1_reward(
        "train", "rl", "--config", HERE.parents[1] / "recipes" / "tiny.yaml", "--model", judge, "--data", pair_file,
        "--output_dir", out, "--use_vllm", "true", "--vllm_mode", "colocate", "--vllm_gpu_memory_utilization", "0.2",
        "--max_steps", "2", "--vllm_importance_sampling_mode", "token_mask",
        "--vllm_importance_sampling_clip_min", "0.99",
        "--vllm_importance_sampling_clip_max", "1.01", script=(HERE / "vllm_rollouts.py",),
    )  # fmt: skip
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert [row["sampling/masked"] > 0 for row in log if "reward" in row] == [True]


SERVED_SCALAR = """
import json, sys
from PIL import Image
from vllm import LLM
folder, shown = sys.argv[1:]
llm = LLM(folder, runner="pooling", convert="embed", dtype="float32", enforce_eager=True)
prompts = [
    {"prompt": text, **({"multi_modal_data": {"image": [Image.open(path) for path in paths]}} if paths else {})}
    for text, paths in json.load(open(shown))
]
json.dump([one.outputs.embedding for one in llm.embed(prompts, use_tqdm=False)], open(shown + ".rewards", "w"))
"""


def test_scalar_rewards(judge, items, tmp_path):
    """A scalar model with a head of two dense layers has the same rewards in vLLM."""
    import torch

    from r1_reward.engines.scalar import ScalarEngine
    from r1_reward.models.chats import render
    from r1_reward.models.checkpoint import load_model_and_processor
    from r1_reward.models.scalar import ScalarRewardModel
    from r1_reward.models.scalar_embedder import save_as_embedder
    from r1_reward.records.scalar_prompt import show_answer

    torch.manual_seed(0)
    backbone, processor = load_model_and_processor(judge)
    model = ScalarRewardModel(backbone)
    for weight in model.head.parameters():
        weight.data.mul_(3)
    model.save(tmp_path / "scalar")
    processor.save_pretrained(tmp_path / "scalar")
    save_as_embedder(tmp_path / "scalar", tmp_path / "served")
    candidates = [(item["question"], item["images"], item["response_1"]) for item in items[:12]]
    candidates += [(item["question"], [], item["response_1"]) for item in items[:4]]
    ours = ScalarEngine(model, processor).rewards(candidates)
    shown = []
    for number, candidate in enumerate(candidates):
        messages, pictures = show_answer(*candidate, special_tokens=ScalarEngine(model, processor).special_tokens)
        paths = [str(tmp_path / f"{number}-{i}.png") for i in range(len(pictures))]
        for picture, path in zip(pictures, paths, strict=True):
            picture.save(path)
        shown.append((render(processor, messages), paths))
    (tmp_path / "shown.json").write_text(json.dumps(shown))
    (tmp_path / "served.py").write_text(SERVED_SCALAR)
    r1_reward(tmp_path / "served", tmp_path / "shown.json", script=(tmp_path / "served.py",))
    theirs = json.loads((tmp_path / "shown.json.rewards").read_text())
    assert max(abs(a - b) for a, (b,) in zip(ours, theirs, strict=True)) < 1e-3
    assert max(ours) - min(ours) > 0.1
