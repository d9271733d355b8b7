"""``r1-reward serve``: the reward model behind HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1_reward.cli.bench import BatchSize, Concurrency, MaxNewTokens, Model, Seed
from r1_reward.cli.compare import BaseUrls
from r1_reward.models.quiet import quiet_libraries
from r1_reward.records.errors import UserError

if TYPE_CHECKING:
    from r1_reward.judge.reward_model import RewardModel

_EXTRA = ("fastapi", "prometheus_client", "python_multipart", "multipart", "starlette", "uvicorn")


def serve(
    model: Model,
    base_url: BaseUrls = None,
    host: Annotated[str, typer.Option(help="Address to listen at; others than loopback need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes any free one.")] = 8000,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the key that requests must bring.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen at an address others can reach, without a key.")
    ] = False,
    allow_folder: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Requests may name pictures in it; may be repeated.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="Requests may name pictures on it; may be repeated.")
    ] = None,
    max_body_mb: Annotated[float, typer.Option(help="Largest request body, in MiB.")] = 32.0,
    max_pixels: Annotated[int, typer.Option(help="Most pixels of a request's pictures together.")] = 16_777_216,
    max_images: Annotated[int, typer.Option(help="Most pictures of a request.")] = 16,
    max_candidates: Annotated[int, typer.Option(help="Most responses to one question.")] = 64,
    max_responses: Annotated[int, typer.Option(help="Most responses of a request.")] = 16_384,
    max_votes: Annotated[int, typer.Option(help="Most votes for each order shown.")] = 16,
    max_judgments: Annotated[
        int, typer.Option(help="Most judgements of a request: pairs times votes times orders.")
    ] = 65_536,
    max_chars: Annotated[int, typer.Option(help="Longest question or response, in characters.")] = 50_000,
    max_queue: Annotated[int, typer.Option(help="Most requests under way or waiting; more get 429.")] = 128,
    timeout: Annotated[float, typer.Option(help="Seconds a request may take, waiting included.")] = 300.0,
    max_batch: Annotated[int, typer.Option(help="Most comparisons judged together.")] = 64,
    batch_wait_ms: Annotated[float, typer.Option(help="Milliseconds a comparison waits for company.")] = 5.0,
    unscored_reward: Annotated[
        float | None, typer.Option(help="What /get_reward gives where there is no reward; default null.")
    ] = None,
    model_pixels: Annotated[
        int | None, typer.Option(min=1, help="Scale larger pictures down for the model (the paper: 501760).")
    ] = None,
    max_new_tokens: MaxNewTokens = 1024,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    concurrency: Concurrency = 16,
) -> None:
    """Answer comparisons, rankings and rewards over HTTP; SIGTERM finishes what was taken."""
    try:
        from r1_reward.serve.server import serve as run
        from r1_reward.serve.settings import ServerSettings
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise UserError(f"serving needs {error.name}: pip install 'r1-reward[serve]'") from error
    settings = ServerSettings(
        model_name=Path(model).name,
        host=host,
        port=port,
        api_key=_key(api_key_env),
        insecure=insecure,
        allow_folders=tuple(allow_folder or ()),
        allow_hosts=tuple(allow_host or ()),
        max_body_mb=max_body_mb,
        max_pixels=max_pixels,
        max_images=max_images,
        max_candidates=max_candidates,
        max_responses=max_responses,
        max_votes=max_votes,
        max_judgments=max_judgments,
        max_chars=max_chars,
        max_queue=max_queue,
        timeout=timeout,
        max_batch=max_batch,
        batch_wait_ms=batch_wait_ms,
        unscored_reward=unscored_reward,
    )
    judge = _load(model, base_url, batch_size, model_pixels, max_new_tokens, seed, concurrency)
    run(judge, settings, ready=lambda url: typer.echo(f"serving {settings.model_name} at {url}"))


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable} (--api-key-env) is not set, or empty.")
    return key


def _load(
    model: str,
    base_url: list[str] | None,
    batch_size: int,
    model_pixels: int | None,
    max_new_tokens: int,
    seed: int,
    concurrency: int,
) -> RewardModel:
    from r1_reward.judge.reward_model import RewardModel

    if base_url:
        if model_pixels is not None:
            raise UserError("--model-pixels: is the server's to decide; leave it out with --base-url.")
        return RewardModel.from_server(
            base_url, model, concurrency=concurrency, max_new_tokens=max_new_tokens, seed=seed
        )
    quiet_libraries()
    return RewardModel.from_pretrained(
        model, batch_size=batch_size, max_pixels=model_pixels, max_new_tokens=max_new_tokens, seed=seed
    )
