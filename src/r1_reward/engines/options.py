"""How fast a judge works and who answers for it: options that change no verdict, but for one that draws other votes."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field

from r1_reward.records.errors import UserError
from r1_reward.records.settings import Settings

EngineName: TypeAlias = Literal["transformers", "vllm"]
"""Which software runs a checkpoint in this process. It decides verdicts: votes are drawn in another way, and even
greedy ones differ where two tokens are as likely up to rounding."""
TRANSFORMERS: EngineName = "transformers"
VLLM: EngineName = "vllm"


def engine_fields(engine: EngineName) -> dict[str, str]:
    """Return the field of a run's identity that says which engine decides its verdicts.

    Of transformers that is none: folders of releases that knew no other lack it.
    """
    return {} if engine == TRANSFORMERS else {"engine": engine}


def require_one_place(engine: EngineName, base_url: object, workers: int = 1) -> None:
    """Raise UserError if an engine of this process is asked for with a server, or vLLM in several processes."""
    if engine == TRANSFORMERS:
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
