"""Options for where and how fast a judge runs; they change no verdict, except ``batch_votes``, which changes votes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator

from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings

EngineName: TypeAlias = Literal["transformers", "vllm"]
"""The software that runs a checkpoint in this process. It affects verdicts: each samples votes in its own way, and
even greedy ones differ where two tokens are equally likely up to rounding."""
TRANSFORMERS: EngineName = "transformers"
VLLM: EngineName = "vllm"
_WORDS = {"true": True, "false": False, "null": None, "none": None}  # as spelled in JSON and in Python
_SPEED = frozenset((
    "block_size", "compilation_config", "cpu_offload_gb", "disable_custom_all_reduce", "disable_log_stats",
    "distributed_executor_backend", "download_dir", "enable_chunked_prefill", "enable_prefix_caching", "enforce_eager",
    "gpu_memory_utilization", "kv_cache_memory_bytes", "load_format", "max_num_batched_tokens", "max_num_seqs",
    "max_parallel_loading_workers", "mm_encoder_tp_mode", "num_gpu_blocks_override", "pipeline_parallel_size",
    "swap_space", "tensor_parallel_size", "use_tqdm_on_load",
))  # fmt: skip
"""vLLM arguments that only affect where and how fast it runs; any other may affect verdicts."""


def engine_fields(engine: EngineName, engine_args: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields of a run's identity that name its engine and the arguments that may affect verdicts.

    For transformers there are none: runs of releases without another engine lack them.
    """
    if engine == TRANSFORMERS:
        return {}
    deciding = {name: value for name, value in sorted((engine_args or {}).items()) if name not in _SPEED}
    return {"engine": engine, **({"engine_args": deciding} if deciding else {})}


def require_one_place(
    engine: EngineName, base_url: object, workers: int = 1, engine_args: Mapping[str, Any] | None = None
) -> None:
    """Raise UserError if an in-process engine is combined with a server, or vLLM with several workers.

    The same goes for ``engine_args`` with an engine that accepts none.
    """
    if engine == TRANSFORMERS:
        if engine_args:
            raise UserError("engine_args: only the engine vllm accepts them; leave them out, or choose that engine.")
        return
    if base_url:
        raise UserError(f"engine: a server (--base-url) chooses its own engine; leave {engine} out.")
    if workers > 1:
        raise UserError(
            f"workers: {engine} runs in one process and does its own batching (--batch-size); for several GPUs, start "
            "a server on each and pass their URLs with --base-url."
        )


class EngineOptions(Settings):
    """Where a judge runs, and how much at once; see :class:`r1_reward.engines.workers.EngineSpec` for the engine."""

    base_url: tuple[str, ...] = Field(
        default=(), description="Judge with an OpenAI-compatible server, such as http://HOST/v1; may be repeated."
    )
    batch_size: int = Field(default=64, ge=1, description="Sequences generated at once by each process.")
    workers: int = Field(default=1, ge=1, description="Processes, each with its own copy of the model; one per GPU.")
    concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Concurrent requests to each server; default: as many as it answers in time, up to 64.",
    )
    batch_votes: bool = Field(
        default=False,
        description="Ask a server for all votes on a pair in one order in one request; faster, but changes the votes.",
    )
    engine_args: dict[str, Any] = Field(
        default={},
        description="vLLM's own arguments (with --engine vllm), as NAME=VALUE or a JSON object; may be repeated.",
    )

    @field_validator("engine_args", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return read_engine_args(given) if isinstance(given, (list, tuple)) else given


def read_engine_args(given: Sequence[str]) -> dict[str, Any]:
    """Parse engine arguments such as ``max_model_len=8192``, ``--enforce-eager=true`` or a JSON object.

    A value that is not valid JSON is a string; names may be spelled as in vLLM's command. Raises ValueError for a text
    in neither form, and for an argument that is given twice.
    """
    found: dict[str, Any] = {}
    for text in given:
        for name, value in _arguments(text.strip()).items():
            name = name.strip().lstrip("-").replace("-", "_")
            if name in found:
                raise ValueError(f"{name} is given twice.")
            found[name] = value
    return found


def _arguments(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{text!r} is not a JSON object ({error}).") from None
    name, _, value = text.partition("=")
    if not (name.strip(" -") and value.strip()):
        raise ValueError(f"{text!r} must be NAME=VALUE, such as max_model_len=8192, or a JSON object.")
    value = value.strip()
    if value.lower() in _WORDS:
        return {name: _WORDS[value.lower()]}
    try:
        return {name: json.loads(value)}
    except ValueError:
        return {name: value}


def draw_fields(batch_votes: bool, votes: int, *, served: bool) -> dict[str, Any]:
    """Return the fields of a run's identity that say how its votes are drawn.

    There are none if each vote has its own seed, as in releases that had no other way. Votes that a server draws
    together come from the seed of the first, so they are different votes.

    Raises:
        UserError: ``batch_votes`` is set for a model in this process.
    """
    if batch_votes and not served:
        raise UserError(
            "batch_votes: works only with a server (base_url); a model in this process draws votes in batches anyway. "
            "Leave it out, or name the server."
        )
    return {"batch_votes": True} if batch_votes and votes > 1 else {}
