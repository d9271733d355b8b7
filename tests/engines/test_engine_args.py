"""vLLM's own arguments: how a command reads them, and which of them are part of a run's identity."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest

from r1_reward.bench.probes import probe_benchmark
from r1_reward.bench.run import RunSettings, run_benchmark
from r1_reward.bench.suites import load_suite
from r1_reward.cli.judging import load_judge
from r1_reward.data.scoring.score_file import score_file
from r1_reward.data.scoring.settings import ScoreSettings
from r1_reward.engines import vllm as engine_file
from r1_reward.engines.options import EngineOptions, engine_fields
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.settings import JudgeSettings
from r1_reward.records.errors import UserError


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], {}),
        (["max_model_len=8192"], {"max_model_len": 8192}),
        (["--max-model-len=8192", "swap-space = 0.5"], {"max_model_len": 8192, "swap_space": 0.5}),
        (["quantization=fp8"], {"quantization": "fp8"}),
        (["enforce_eager=true", "async_scheduling=False"], {"enforce_eager": True, "async_scheduling": False}),
        (["quantization=None", "revision=null"], {"quantization": None, "revision": None}),
        (['limit_mm_per_prompt={"image": 8}'], {"limit_mm_per_prompt": {"image": 8}}),
        (['{"seed": 4, "dtype": "half"}', "block_size=16"], {"seed": 4, "dtype": "half", "block_size": 16}),
        (['revision="8"', "download_dir=/a=b"], {"revision": "8", "download_dir": "/a=b"}),
    ],
)
def test_texts_that_are_arguments(given, meant):
    read = EngineOptions(engine_args=given).engine_args
    assert read == meant
    assert [type(value) for value in read.values()] == [type(value) for value in meant.values()]
    assert EngineOptions(engine_args=meant).engine_args == meant


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["max_model_len"], "must be NAME=VALUE"),
        (["max_model_len="], "must be NAME=VALUE"),
        (["=3"], "must be NAME=VALUE"),
        (["--=3"], "must be NAME=VALUE"),
        (["{max_model_len: 3}"], "is not a JSON object"),
        (['{"a": 1} {"b": 2}'], "is not a JSON object"),
        (["max_model_len=3", "max-model-len=4"], "max_model_len is given twice"),
    ],
)
def test_texts_that_are_not_arguments(given, message):
    with pytest.raises(UserError, match=message):
        EngineOptions(engine_args=given)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {}),
        ({"gpu_memory_utilization": 0.5, "tensor_parallel_size": 4, "max_num_seqs": 8}, {}),
        ({"max_model_len": 8192, "enforce_eager": True}, {"engine_args": {"max_model_len": 8192}}),
        ({"quantization": "fp8", "block_size": 8}, {"engine_args": {"quantization": "fp8"}}),
        ({"something_new": 1}, {"engine_args": {"something_new": 1}}),
    ],
)
def test_what_may_change_a_verdict_is_part_of_a_run(given, kept):
    assert engine_fields("vllm", given) == {"engine": "vllm", **kept}
    assert engine_fields("transformers", {}) == {}


class Judge:
    """Stands in for an engine that is not available here."""

    def __init__(self):
        self.specs = []

    def load(self, spec):
        self.specs.append(spec)
        raise UserError("stop here")


@pytest.fixture
def loaded(monkeypatch):
    judge = Judge()
    monkeypatch.setattr(EngineSpec, "load", lambda spec: judge.load(spec))
    return judge


LENGTH = {"max_model_len": 4096, "gpu_memory_utilization": 0.5}


@pytest.mark.parametrize("command", ["run", "probe", "score"])
def test_a_run_resumes_only_with_the_arguments_that_affect_verdicts(
    command, loaded, checkpoint, pair_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("r1_reward.store.run_folder._release", lambda *_: None)  # as after a kill

    def judge(engine_args, engine="vllm"):
        if command == "score":
            settings = ScoreSettings(model=str(checkpoint), engine=engine)
            source = tmp_path / "rows.jsonl"
            source.write_text(json.dumps({"question": "?", "images": [], "response_1": "a", "response_2": "b"}) + "\n")
            score_file(source, tmp_path / "out.parquet", settings, engine_args=engine_args)
        else:
            ask = run_benchmark if command == "run" else probe_benchmark
            settings = RunSettings(model=str(checkpoint), engine=engine)
            ask(load_suite("pairs", str(pair_file)), settings, tmp_path / "out", engine_args=engine_args)

    with pytest.raises(UserError, match="stop here"):
        judge(LENGTH)
    assert loaded.specs[-1].engine_args == LENGTH
    with pytest.raises(UserError, match="stop here"):
        judge({**LENGTH, "gpu_memory_utilization": 0.9, "tensor_parallel_size": 2})
    for other in ({}, {"max_model_len": 2048}, {**LENGTH, "quantization": "fp8"}):
        with pytest.raises(UserError, match=r"another|other settings|different"):
            judge(other)
    with pytest.raises(UserError, match="engine_args: only the engine vllm accepts them"):
        judge(LENGTH, engine="transformers")


@pytest.mark.parametrize("base_url", [(), ("http://127.0.0.1:9/v1",)])
def test_no_other_engine_takes_them(base_url, checkpoint):
    options = EngineOptions(engine_args=["max_model_len=3"], base_url=base_url)
    with pytest.raises(UserError, match="engine_args: only the engine vllm accepts them"):
        load_judge(JudgeSettings(model=str(checkpoint)), options)


@dataclass
class FakeArgs:
    """vLLM's EngineArgs."""

    model: str
    dtype: str
    max_num_seqs: int
    logprobs_mode: str
    disable_log_stats: bool
    use_tqdm_on_load: bool
    mm_processor_cache_gb: float = 4
    enable_chunked_prefill: bool = True
    enforce_eager: bool = False
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    max_model_len: int | None = None


@pytest.fixture
def begin(monkeypatch):
    """A function that starts a fake vLLM with the published interface and returns the arguments it got."""
    package, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    package.EngineArgs = FakeArgs
    package.LLMEngine = SimpleNamespace(from_engine_args=lambda args: args)
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: True)
    for module in (package, platforms):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    checkpoint = SimpleNamespace(folder="folder", dtype="float32", name="judge")
    return lambda **given: engine_file._start(checkpoint, 8, given)


def test_no_picture_of_an_unsent_request_is_cached(begin):
    """Both ends of vLLM cache pictures; a prompt that is prepared but not sent would make them differ."""
    assert begin().mm_processor_cache_gb == 0
    assert begin(max_num_seqs=3, max_model_len=99).max_num_seqs == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"gpu_memory_utilisation": 0.5},
            "no argument 'gpu_memory_utilisation'. Did you mean 'gpu_memory_utilization'",
        ),
        ({"max_len": 5, "dtype": "half"}, "no argument 'max_len'"),
        ({"zzz": 5}, "no argument 'zzz'.*vllm serve --help=all"),
        ({"mm_processor_cache_gb": 4}, "mm_processor_cache_gb is set by the engine"),
        ({"model": "other"}, "model is set by the engine"),
        ({"logprobs_mode": "processed_logprobs"}, "logprobs_mode is set by the engine"),
    ],
)
def test_arguments_that_vllm_or_the_engine_does_not_accept(begin, given, message):
    with pytest.raises(UserError, match=message):
        begin(**given)


def test_the_error_quotes_why_vllm_does_not_start(begin, monkeypatch):
    from pydantic import BaseModel

    class Config(BaseModel):
        max_model_len: int

    def fails(args):
        Config(max_model_len=args.max_model_len)

    monkeypatch.setattr(sys.modules["vllm"].LLMEngine, "from_engine_args", fails)
    with pytest.raises(UserError, match="vLLM cannot start: max_model_len: Input should be a valid integer"):
        begin(max_model_len="many")
