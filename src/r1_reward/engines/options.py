"""How fast a judge works and who answers for it: options that change no verdict."""

from __future__ import annotations

from pydantic import Field

from r1_reward.records.settings import Settings


class EngineOptions(Settings):
    """Where and how many at once; see :class:`r1_reward.engines.workers.EngineSpec` for what a process makes of it."""

    base_url: tuple[str, ...] = Field(
        default=(), description="Judge by an OpenAI-compatible server, such as http://HOST/v1; may be repeated."
    )
    batch_size: int = Field(default=64, ge=1, description="Sequences generated at once by each process.")
    workers: int = Field(default=1, ge=1, description="Processes, each with the model; one for each GPU.")
    concurrency: int = Field(default=16, ge=1, description="Requests open at each server at once.")
