"""The vLLM engine with a fake vLLM: its requests, how its outputs are read, and how it stops.

tests/plugs/test_vllm.py runs the real one.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.cli.judging import load_judge as load_for_command
from r1_reward.data.scoring.score_file import score_file
from r1_reward.data.scoring.settings import ScoreSettings
from r1_reward.engines import vllm as engine_file
from r1_reward.engines.engine import EngineError, ReadsTextOnly
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.length import PromptTooLong
from r1_reward.engines.options import EngineOptions
from r1_reward.engines.vllm import VllmEngine
from r1_reward.engines.vllm_checkpoint import readable
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.settings import JudgeSettings
from r1_reward.records.errors import UserError

PICTURE = Image.new("RGB", (56, 56), "red")


class Places(SimpleNamespace):
    """vLLM's placeholder range of a picture."""


class FakeLlm:
    """A vLLM engine that answers every request in its second step."""

    def __init__(self, processor, config, limit=4096, text="<think>a</think><answer>2</answer>"):
        self.tokenizer = processor.tokenizer
        self.model_config = SimpleNamespace(
            hf_config=config, max_model_len=limit, try_get_generation_config=lambda: {"eos_token_id": [7]}
        )
        self.renderer = self
        self.ended, self.freed, self.own_end = False, False, True
        self.engine_core = SimpleNamespace(
            shutdown=lambda: setattr(self, "ended", True),
            _finalizer=SimpleNamespace(detach=lambda: setattr(self, "own_end", False)),
            engine_core=SimpleNamespace(model_executor=SimpleNamespace(shutdown=lambda: setattr(self, "freed", True))),
        )
        self.tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        self.asked, self.waiting, self.aborted, self.steps = [], {}, [], 0
        self.go = threading.Event()
        self.go.set()
        self.fails = None

    def render_cmpl(self, prompts, how):
        (prompt,) = prompts
        if "unreadable" in prompt["prompt"]:
            raise ValueError("Failed to apply it") from ValueError("absolute aspect ratio must be below 200\nand more")
        pictures = prompt.get("multi_modal_data", {}).get("image", [])
        length = len(prompt["prompt"].split()) + 4 * len(pictures)
        places = {"image": [Places(length=4) for _ in pictures]} if pictures else {}
        return [{"prompt_token_ids": [1] * length, "mm_placeholders": places, "how": how}]

    def add_request(self, name, prompt, parameters):
        if parameters.max_tokens == 13:
            raise ValueError("thirteen is not served here")
        self.asked.append((name, prompt, parameters))
        self.waiting[name] = parameters

    def abort_request(self, names):
        self.aborted += names
        for name in names:
            self.waiting.pop(name)

    def step(self):
        self.go.wait(20)
        if self.fails is not None:
            raise self.fails
        self.steps += 1
        if self.steps % 2:
            return []
        done, self.waiting = self.waiting, {}
        return [self._output(name, parameters) for name, parameters in done.items()]

    def _output(self, name, parameters):
        wanted = parameters.logprob_token_ids or []
        place = {token: SimpleNamespace(logprob=-1.0 - 2.0 * i) for i, token in enumerate(wanted)}
        tokens = [*self.tokens, 7]
        logprobs = [place for _ in tokens] if wanted else None
        one = SimpleNamespace(token_ids=tokens[: parameters.max_tokens], logprobs=logprobs)
        return SimpleNamespace(request_id=name, finished=True, outputs=[one], prompt_token_ids=[1] * 9)


@pytest.fixture
def installed(monkeypatch):
    """The names that the engine takes from vLLM."""
    package, sampling, renderers = ModuleType("vllm"), ModuleType("vllm.sampling_params"), ModuleType("vllm.renderers")
    package.SamplingParams = SimpleNamespace
    sampling.RequestOutputKind = SimpleNamespace(FINAL_ONLY="final")
    renderers.TokenizeParams = SimpleNamespace
    for module in (package, sampling, renderers):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def started(installed, checkpoint, monkeypatch):
    """A function that starts the engine on the tiny checkpoint; ``.llm`` of the engine is the fake."""
    from r1_reward.models.checkpoint import load_model_and_processor

    model, processor = load_model_and_processor(str(checkpoint))
    engines = []

    def start(**options):
        def fake(given, batch_size, args):
            return FakeLlm(given.processor, model.config, **options)

        monkeypatch.setattr(engine_file, "_start", fake)
        engine = VllmEngine(str(checkpoint), batch_size=4)
        engine.llm = engine._llm
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.llm.go.set()
        engine.close()


def ask(engine, question="Which?", images=(), **options):
    return engine.compare(question, list(images), "three", "eight", **options)


def test_a_completion_for_every_seed(started):
    engine = started()
    seeds = (5, 2**31 + 5, 7)
    (answer,) = engine.generate([ask(engine, seeds=seeds, temperature=0.7, max_new_tokens=99)])
    assert [one.text for one in answer] == ["<think>a</think><answer>2</answer>"] * 3
    assert {one.tokens for one in answer} == {len(engine.llm.tokens) + 1}
    assert {one.truncated for one in answer} == {False}
    assert {one.prompt_tokens for one in answer} == {9}
    # the first verdict is two nats ahead at every place
    assert {one.probability for one in answer} == {round(1 / (1 + math.exp(-2)), 4)}
    parameters = [one for _, _, one in engine.llm.asked]
    assert [one.seed for one in parameters] == [5, 5, 7]  # as a server takes them
    assert {(one.temperature, one.max_tokens) for one in parameters} == {(0.7, 99)}
    assert all(set(one.logprob_token_ids) == set(engine._verdicts) for one in parameters)


def test_greedy_completions_are_requested_once(started):
    engine = started()
    (answer,) = engine.generate([ask(engine, seeds=(1, 2, 3))])
    assert len(answer) == 3
    assert len(engine.llm.asked) == 1
    assert engine.llm.asked[0][2].seed is None


@pytest.mark.parametrize("room", [1, 4])
def test_what_the_limit_cuts_is_cut(started, room):
    engine = started()
    (answer,) = engine.generate([ask(engine, max_new_tokens=room)])
    assert answer[0].truncated
    assert answer[0].tokens == room
    assert answer[0].probability is None


def test_no_picture_placeholder_is_sampled(started):
    engine = started()
    list(engine.generate([ask(engine)]))
    assert engine.llm.asked[0][2].logit_bias == {engine.config.image_token_id: -100.0} | (
        {engine.config.video_token_id: -100.0} if hasattr(engine.config, "video_token_id") else {}
    )


def test_errors_take_the_place_of_their_request(started):
    engine = started(limit=600)
    asked = [
        ask(engine),
        ask(engine, "word " * 900, [PICTURE, PICTURE]),
        ask(engine, "unreadable"),
        ask(engine, max_new_tokens=13),
        ask(engine),
    ]
    first, long, unreadable, refused, last = engine.generate(asked)
    assert first == last
    assert isinstance(long, PromptTooLong)
    assert (long.limit, long.pictures) == (600, 8)
    assert "(8 of them from 2 pictures)" in str(long)
    assert str(unreadable) == "vLLM cannot read this prompt: absolute aspect ratio must be below 200"
    assert str(refused) == "vLLM refuses this request: thirteen is not served here"
    assert all(isinstance(error, EngineError) for error in (unreadable, refused))


def test_a_prompt_that_leaves_little_room(started, caplog):
    engine = started(limit=600)
    length = len(engine.prepare(ask(engine, max_new_tokens=9))[0]["prompt_token_ids"])
    words = "word " * (600 - length - 10)
    list(engine.generate([ask(engine, words, max_new_tokens=90), ask(engine, words, max_new_tokens=90)]))
    assert {one.max_tokens for _, _, one in engine.llm.asked} == {11}
    assert caplog.text.count("leaves room for 11 of 90 new tokens") == 1


def test_a_text_only_model_is_shown_no_picture(started):
    engine = started()
    engine._text_only = True
    (answer,) = engine.generate([ask(engine, images=[PICTURE])])
    assert isinstance(answer, ReadsTextOnly)
    assert engine.llm.asked == []


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("CPU Generator does not use offset"), "max_num_batched_tokens"),
        (RuntimeError("CUDA out of memory"), "smaller batch size"),
        (AssertionError(), "VLLM_LOGGING_LEVEL"),
    ],
)
def test_an_engine_that_stops_tells_every_caller(started, error, advice):
    engine = started()
    engine.llm.fails = error
    for _ in range(2):  # those in flight, and later ones
        with pytest.raises(UserError, match="vLLM stopped") as raised:
            list(engine.generate([ask(engine), ask(engine, seeds=(1, 2), temperature=1.0)]))
        assert not isinstance(raised.value, EngineError)
        assert advice in str(raised.value)


def test_answers_before_the_end_are_returned_first(started):
    engine = started()
    with engine.open() as session:
        session.submit("first", ask(engine))
        ready = session.collect()
        engine.llm.fails = RuntimeError("gone")
        session.submit("second", ask(engine))
        assert [ticket for ticket, _ in ready] == ["first"]
        with pytest.raises(UserError, match="gone"):
            session.collect()


def test_leaving_a_session_cancels_only_its_own_requests(started):
    engine = started()
    engine.llm.go.clear()
    with engine.open() as stays:
        stays.submit("mine", ask(engine))
        with engine.open() as leaves:
            leaves.submit("theirs", ask(engine, seeds=(1, 2), temperature=1.0))
        engine.llm.go.set()
        assert [ticket for ticket, _ in stays.collect()] == ["mine"]
    names = {name for name, _, parameters in engine.llm.asked if parameters.temperature == 1.0}
    assert set(engine.llm.aborted) <= names


def test_room_counts_sequences(started):
    engine = started()
    engine.llm.go.clear()
    with engine.open() as session:
        assert session.room() == 8  # twice what is generated at once
        session.submit(1, ask(engine, seeds=(1, 2, 3), temperature=1.0))
        assert session.room() == 5
        engine.llm.go.set()
        session.collect()
        assert session.room() == 8


def test_a_closed_engine(started):
    engine = started()
    request = ask(engine)
    engine.close()
    assert engine.llm.ended
    with pytest.raises(UserError, match="is closed"):
        list(engine.generate([request]))


def test_closing_one_engine_does_not_close_another(started):
    first, second = started(), started()
    first.close()
    assert not first.llm.ended  # vLLM would destroy the process groups of both
    assert first.llm.freed
    assert not first.llm.own_end
    assert len(list(second.generate([ask(second)]))) == 1
    second.close()
    assert second.llm.ended


# ---- checkpoints


def test_a_folder_is_read_where_it_is(checkpoint):
    given = readable(str(checkpoint), max_pixels=None, dtype="auto")
    assert (given.folder, given.dtype, given.temporary) == (checkpoint, "float32", None)
    assert readable(str(checkpoint), max_pixels=None, dtype="bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("said", [True, False])
def test_the_dtype_is_that_of_the_weights(tmp_path, dtype, said):
    import torch

    from r1_reward.models.checkpoint import load_model_and_processor

    model, processor = load_model_and_processor("tiny")
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    if not said:
        config = json.loads((tmp_path / "config.json").read_text())
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            part.pop("dtype", None)
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert readable(str(tmp_path), max_pixels=None, dtype="auto").dtype == dtype


def test_a_pixel_budget_changes_a_copy(checkpoint):
    from transformers import AutoProcessor

    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    given = readable(str(checkpoint), max_pixels=12_544, dtype="auto")
    assert given.folder != checkpoint
    assert AutoProcessor.from_pretrained(given.folder).image_processor.size.longest_edge == 12_544
    assert (given.folder / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    given.drop()
    assert not given.folder.exists()
    assert (checkpoint / "model.safetensors").exists()


def test_adapters_are_merged(checkpoint, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    from r1_reward.models.checkpoint import load_model_and_processor

    model, processor = load_model_and_processor(str(checkpoint))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    given = readable(str(tmp_path), max_pixels=None, dtype="auto")
    whole = AutoModelForImageTextToText.from_pretrained(given.folder)
    wanted = load_model_and_processor(str(tmp_path))[0]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), wanted.parameters(), strict=True))
    plain = load_model_and_processor(str(checkpoint))[0]
    assert any(not torch.equal(a, b) for a, b in zip(whole.parameters(), plain.parameters(), strict=True))
    given.drop()


def test_a_scalar_model_is_not_for_this_engine(installed, checkpoint, tmp_path):
    from r1_reward.models.checkpoint import load_model_and_processor
    from r1_reward.models.scalar import ScalarRewardModel

    model, processor = load_model_and_processor(str(checkpoint))
    ScalarRewardModel(model).save(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="scalar reward model, which needs the engine transformers"):
        RewardModel.from_pretrained(tmp_path, engine="vllm")


# ---- its callers


def test_without_vllm_the_extra_is_named(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    for start in (
        lambda: RewardModel.from_pretrained(checkpoint, engine="vllm"),
        lambda: EngineSpec(str(checkpoint), engine="vllm").load(),
        lambda: load_for_command(JudgeSettings(model=str(checkpoint), engine="vllm"), EngineOptions()),
    ):
        with pytest.raises(UserError, match=r"pip install 'r1-reward\[vllm\]'"):
            start()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "sglang"}, "engine: must be one of transformers, vllm, not 'sglang'"),
        ({"engine_args": {"max_model_len": 9}}, "engine_args: only the engine vllm accepts them"),
        ({"engine": "vllm", "dtype": "int8"}, "dtype: must be one of"),
        ({"engine": "vllm", "batch_size": 0}, "batch_size: must be 1 or more"),
    ],
)
def test_invalid_options(checkpoint, options, message):
    with pytest.raises(UserError, match=message):
        RewardModel.from_pretrained(checkpoint, **options)


def test_a_server_chooses_its_own_engine(checkpoint, pair_file, tmp_path):
    url = "http://127.0.0.1:9/v1"
    judged = JudgeSettings(model="judge", engine="vllm")
    with pytest.raises(UserError, match="leave vllm out"):
        load_for_command(judged, EngineOptions(base_url=(url,)))
    rows = load_suite("pairs", str(pair_file))
    with pytest.raises(UserError, match="leave vllm out"):
        run_benchmark(rows, RunSettings(model="judge", engine="vllm", base_url=url), tmp_path / "run")
    settings = ScoreSettings(model="judge", engine="vllm")
    with pytest.raises(UserError, match="leave vllm out"):
        score_file(pair_file, tmp_path / "out.parquet", settings, base_url=[url])
    with pytest.raises(UserError, match="runs in one process"):
        run_benchmark(rows, RunSettings(model=str(checkpoint), engine="vllm"), tmp_path / "run", workers=2)
    assert not list(tmp_path.iterdir())


def test_a_run_knows_its_engine(started, checkpoint, pair_file, tmp_path, monkeypatch):
    engine = started()
    monkeypatch.setattr(EngineSpec, "load", lambda self: engine)
    rows = load_suite("pairs", str(pair_file))
    settings = RunSettings(model=str(checkpoint), engine="vllm", max_new_tokens=40)
    run_benchmark(rows, settings, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["engine"] == "vllm"
    with pytest.raises(UserError, match="holds another run"):
        run_benchmark(rows, settings.model_copy(update={"engine": "transformers"}), tmp_path / "run")
    lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    (tmp_path / "run" / "predictions.jsonl").write_text("\n".join(lines[:-3]) + "\n")
    before = len(engine.llm.asked)
    run_benchmark(rows, settings, tmp_path / "run")
    assert (tmp_path / "run" / "predictions.jsonl").read_text().splitlines() == lines
    assert len(engine.llm.asked) - before == 6  # three rows in both orders: nothing is judged twice


def test_both_engines_read_tokens_alike(tiny, started):
    """One reader: a completion is the same whoever generated its tokens."""
    import torch

    model, processor = tiny
    engine = started()
    plain = TransformersEngine(model, processor)
    plain._end_tokens = lambda: engine._reader.ends
    row = [*engine.llm.tokens, 7]
    margins = torch.full((len(row), 1), 2.0)
    (theirs,) = plain._read([row], margins, ["prompt"])
    output = SimpleNamespace(
        token_ids=row,
        logprobs=[{t: SimpleNamespace(logprob=-i * 2.0) for i, t in enumerate(engine._verdicts)}] * len(row),
    )
    assert engine.read(output, "prompt", 9).model_dump(exclude={"prompt_tokens"}) == theirs.model_dump(
        exclude={"prompt_tokens"}
    )
