"""How fast a judge works and who answers for it: options that change no verdict, but for one that draws other votes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator

from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings

EngineName: TypeAlias = Literal["transformers", "vllm"]
"""Which software runs a checkpoint in this process. It decides verdicts: votes are drawn in another way, and even
greedy ones differ where two tokens are as likely up to rounding."""
TRANSFORMERS: EngineName = "transformers"
VLLM: EngineName = "vllm"
_WORDS = {"true": True, "false": False, "null": None, "none": None}  # as JSON and as Python write them
_SPEED = frozenset((
    "block_size", "compilation_config", "cpu_offload_gb", "disable_custom_all_reduce", "disable_log_stats",
    "distributed_executor_backend", "download_dir", "enable_chunked_prefill", "enable_prefix_caching", "enforce_eager",
    "gpu_memory_utilization", "kv_cache_memory_bytes", "load_format", "max_num_batched_tokens", "max_num_seqs",
    "max_parallel_loading_workers", "mm_encoder_tp_mode", "num_gpu_blocks_override", "pipeline_parallel_size",
    "swap_space", "tensor_parallel_size", "use_tqdm_on_load",
))  # fmt: skip
"""Arguments of vLLM's that decide where and how fast it works; any other may decide what is said."""


def engine_fields(engine: EngineName, engine_args: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields of a run's identity that say which engine decides its verdicts, and with which arguments.

    Of transformers that is none: folders of releases that knew no other lack it.
    """
    if engine == TRANSFORMERS:
        return {}
    deciding = {name: value for name, value in sorted((engine_args or {}).items()) if name not in _SPEED}
    return {"engine": engine, **({"engine_args": deciding} if deciding else {})}


def require_one_place(
    engine: EngineName, base_url: object, workers: int = 1, engine_args: Mapping[str, Any] | None = None
) -> None:
    """Raise UserError if an engine of this process is asked for with a server, or vLLM in several processes.

    Likewise if ``engine_args`` are given to an engine that takes none.
    """
    if engine == TRANSFORMERS:
        if engine_args:
            raise UserError("engine_args: are vLLM's; leave them out, or ask for the engine vllm.")
        return
    if base_url:
        raise UserError(f"engine: with a server (--base-url) that is the server's to decide; leave {engine} out.")
    if workers > 1:
        raise UserError(
            f"workers: {engine} runs in one process and batches by itself (--batch-size); for several GPUs start a "
            "server on each and name them with --base-url."
        )


class EngineOptions(Settings):
    """Where and how many at once; see :class:`r1_reward.engines.workers.EngineSpec` for what a process makes of it."""

    base_url: tuple[str, ...] = Field(
        default=(), description="Judge by an OpenAI-compatible server, such as http://HOST/v1; may be repeated."
    )
    batch_size: int = Field(default=64, ge=1, description="Sequences generated at once by each process.")
    workers: int = Field(default=1, ge=1, description="Processes, each with the model; one for each GPU.")
    concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Requests open at each server at once; default as many as it answers in time, up to 64.",
    )
    batch_votes: bool = Field(
        default=False,
        description="Ask a server for all votes on a pair in one order together; faster, and other votes are drawn.",
    )
    engine_args: dict[str, Any] = Field(
        default={},
        description="With --engine vllm: its own arguments, as NAME=VALUE or a JSON object; may be repeated.",
    )

    @field_validator("engine_args", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return read_engine_args(given) if isinstance(given, (list, tuple)) else given


def read_engine_args(given: Sequence[str]) -> dict[str, Any]:
    """Return the arguments that texts name: ``max_model_len=8192``, ``--enforce-eager=true`` or a JSON object.

    A value is JSON, or a text where it is none; names may be written as vLLM's command has them. Raises ValueError for
    a text that is neither, and for an argument that is given twice.
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
            raise ValueError(f"{text!r} is not one JSON object ({error}).") from None
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
    """Return what the identity of a run says about how its votes are drawn.

    That is nothing where each has a seed of its own, as runs of releases that knew nothing else have it. Votes that a
    server draws together come from the seed of the first, so that they are other ones.

    Raises:
        UserError: a model in this process is to be asked so.
    """
    if batch_votes and not served:
        raise UserError(
            "batch_votes: asks a server for several votes in one request, and a model in this process draws them in "
            "batches anyway; name the server (base_url), or leave it out."
        )
    return {"batch_votes": True} if batch_votes and votes > 1 else {}
